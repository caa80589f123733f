"""README and docs against what there is: their links, their commands, their GraphQL, and what the set-up says where it cannot go on."""

import re
import shlex
from pathlib import Path

import click
import pytest
from graphql import build_schema, parse, validate

from app.cli.main import main
from app.graphql.export import sdl
from tools import bootstrap

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    """The arguments of each `turnout` that a page tells to type, also of those inside $(...)."""
    for page in PAGES:
        if page.name == "architecture.md":
            continue  # its drawings name processes, nothing to type
        for block in re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                for inner in re.findall(r"\$\((\S*)turnout ([^)]*)\)", line):
                    assert inner[0] == "", f"{page.name} begins with an export, after which turnout is found: {line}"
                    yield shlex.split(inner[1])
                plain = re.sub(r"\"?\$\([^)]*\)\"?", "TOKEN", line)
                if plain.startswith("turnout "):
                    yield shlex.split(plain, comments=True)[1:]


def leaves(command, words=()):
    """Each command that does something, by its words."""
    if not isinstance(command, click.Group):
        yield " ".join(words)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*words, name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page):
    named = re.findall(r"`((?:app|docs|migrations|ops|tests|tools)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    rooms = "cli|db|graphql|journal|kernel|prediction|registry|supervisor|tenancy|web"
    named += [f"app/{name}" for name in re.findall(rf"`((?:{rooms})/[\w./-]+)`", page.read_text(encoding="utf-8"))]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_graphql_example_is_valid_and_all_of_them_are_one_document():
    (examples,) = blocks("graphql")
    document = parse(examples)
    assert len(document.definitions) == 4
    assert validate(build_schema(sdl()), document) == []


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_every_graphql_example_of_a_page_is_valid(page):
    for example in re.findall(r"^```graphql\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        assert validate(build_schema(sdl()), parse(example)) == []


def test_the_curl_example_holds_valid_json_and_graphql():
    (line,) = [line for line in "".join(blocks("sh")).replace("\\\n", " ").splitlines() if line.startswith("curl ")]
    body = click.utils.make_str(shlex.split(line)[-1])
    (query,) = re.findall(r'^\{"query": "(.*)"\}$', body)
    assert validate(build_schema(sdl()), parse(query.replace('\\"', '"'))) == []


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_every_command_is_understood_as_it_is_printed(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "churn.joblib",
        "rows.json",
        "model.joblib",
        "private.pem",
        "persisted-query-manifest.json",
        "src/gql/persisted-documents.json",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("queries").mkdir()
    command, context, rest = main, click.Context(main), arguments
    while isinstance(command, click.Group):
        _, command, rest = command.resolve_command(context, rest)
    assert command.make_context(command.name, list(rest)).params


@pytest.mark.parametrize("words", list(leaves(main)))
def test_every_command_is_documented(words):
    assert any(re.search(rf"turnout {words}\b", page.read_text(encoding="utf-8")) for page in PAGES), words


def test_a_page_that_tells_to_type_turnout_tells_how_it_is_found():
    assert blocks("sh")[1].startswith('export PATH="$PWD/.venv/bin:$PATH" TURNOUT_HOME="$PWD/.turnout"')
    for name in ("clients", "experiments", "operations", "settings", "tenants"):
        assert "README.md#a-first-session" in (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"), name


def test_every_make_target_that_a_page_names_is_there():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named <= targets


def test_where_python_has_neither_ensurepip_nor_pip_the_set_up_says_which_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "has_module", lambda _name: False)
    with pytest.raises(SystemExit) as refused:
        bootstrap.make_venv(tmp_path / "venv")
    assert re.search(r"apt-get install python3\.\d+-venv", str(refused.value.code))
    assert not (tmp_path / "venv").exists()


def test_an_older_python_is_told_which_one_is_needed(monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 10, 9))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        bootstrap.main(["venv", "lock", "stamp"])
