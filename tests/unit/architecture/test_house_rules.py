"""What import-linter cannot say: empty packages, sizes, and which library is whose."""

import ast
import tomllib
from pathlib import Path

import pytest

from app.kernel import home, version

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
APP = ROOT / "app"
MODULES = sorted(APP.rglob("*.py"))
LINES_OF_A_MODULE = 400
LINES_OF_A_FUNCTION = 40
ALSO_WORDS = {home.ARTIFACTS, home.SPOOL}  # a table, a probe, a link

# What may be longer, and why. A line that is no longer needed fails the test, too.
LONGER_MODULES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {
    "app/main.py:build_parts": "as create_app",
    "app/main.py:create_app": "the one place where objects meet: a list of constructors, without logic",
}

# A library and the only rooms that import it: whoever wants to replace it looks nowhere else.
OWNERS = {
    "jose": {"app/tenancy/identity"},
    "slowapi": {"app/tenancy/limits"},
    "limits": {"app/tenancy/limits"},
    "redis": {"app/tenancy/limits"},
    "strawberry": {"app/graphql"},
    "graphql": {"app/graphql"},
    "alembic": {"app/db/migrate.py"},
    "asyncpg": {"app/db", "app/journal"},
    "uvicorn": {"app/web/serving.py", "app/web/protocol.py"},
    "httpx": {"app/cli", "app/tenancy/identity"},
    "rich": {"app/cli"},
    "click": {"app/cli", "app/main.py"},
    "joblib": {"app/prediction/worker", "app/cli/demo_models.py"},
    "sklearn": {"app/prediction/worker", "app/cli/demo_models.py"},
    "pandas": {"app/prediction/worker"},
    "UnleashClient": {"app/experiments/unleash/client.py"},
    "yggdrasil_engine": {"app/experiments/flags"},
    "mmh3": {"app/experiments/flags"},
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions_of(tree, prefix=""):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node.end_lineno - node.lineno + 1
            yield from functions_of(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions_of(node, f"{prefix}{node.name}.")
        else:
            yield from functions_of(node, prefix)


def imported_packages(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_packages_are_empty():
    """A package that imports its service pulls the database into the model worker, while import-linter stays green."""
    assert [name_of(path) for path in MODULES if path.name == "__init__.py" and path.read_text().strip()] == []


def test_every_folder_with_modules_is_a_package():
    assert [name_of(path) for path in MODULES if not (path.parent / "__init__.py").exists()] == []


def test_modules_keep_to_their_size():
    longer = {name_of(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) >= LINES_OF_A_MODULE}
    assert longer == set(LONGER_MODULES)


def test_functions_keep_to_their_size():
    longer = {f"{name_of(path)}:{name}" for path in MODULES for name, lines in functions_of(tree_of(path)) if lines >= LINES_OF_A_FUNCTION}
    assert longer == set(LONGER_FUNCTIONS)


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_is_imported_by_its_rooms_alone(library):
    users = {name_of(path) for path in MODULES if library in imported_packages(tree_of(path))}
    assert {name for name in users if not any(name == home or name.startswith(f"{home}/") for home in OWNERS[library])} == set()


def test_a_name_below_the_data_folder_and_the_version_are_written_once():
    once = [value for name, value in (vars(home) | vars(version)).items() if name.isupper()]
    homes = {"app/kernel/home.py", "app/kernel/version.py"}
    twice = {
        f"{name_of(path)}: {node.value}"
        for path in MODULES
        if name_of(path) not in homes
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and node.value in once and node.value not in ALSO_WORDS
    }
    assert twice == set()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version.VERSION


def test_rules_say_what_they_are():
    """Every module begins with a sentence about its purpose."""
    assert [name_of(path) for path in MODULES if path.name != "__init__.py" and not ast.get_docstring(tree_of(path))] == []
