"""The files that hold the project together: make, CI, hooks, licence; and that none of them speaks of one machine."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ["help", "install", "run", "serve", "demo", "test", "test-unit", "test-integration", "test-all", "test-e2e", "coverage", "lint", "fmt", "types", "arch", "schema", "migrate", "revision", "bench", "check", "clean"]  # fmt: skip
# Held together from pieces, so that this file does not name what it looks for.
HOSTS = ["pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org", "deb." + "debian.org", "docker" + ".io", "ghcr" + ".io"]
MACHINE = re.compile(r"(?<![\w.])/(?:" + "|".join(["wo" + "rk", "Use" + "rs"]) + r")/[\w.]")


def tracked_files():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    if not names:
        pytest.skip("not a git checkout")
    return [name for name in names if (ROOT / name).stat().st_size < 2_000_000]


def test_make_help_documents_every_target():
    shown = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    documented = dict(re.findall(r"^  make (\S+) +(\S.*)$", shown, re.MULTILINE))
    assert [target for target in TARGETS if target not in documented] == []


def test_every_target_of_the_makefile_is_phony_and_documented():
    text = (ROOT / "Makefile").read_text()
    rules = set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())
    assert rules == phony
    assert set(re.findall(r"^([a-z][a-z0-9-]*):.*## ", text, re.MULTILINE)) == rules


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["run"], "turnout serve --stop-with-parent --demo"),
        (["run", "PORT=9000", "WORKERS=4"], "turnout serve --stop-with-parent --demo --port 9000 --workers 4"),
        (["serve", "HOST=0.0.0.0"], "turnout serve --stop-with-parent --host 0.0.0.0"),
        (["demo", "PORT=9000"], "turnout demo --url http://127.0.0.1:9000"),
    ],
)
def test_make_hands_its_options_on(arguments, command):
    env = {"PATH": os.environ["PATH"], "HOST": "named-by-some-shell"}
    planned = subprocess.run(["make", "-n", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert " ".join(planned.splitlines()[-1].split()) == f"exec .venv/bin/{command}"


def test_ci_runs_what_make_check_runs_and_the_service_from_outside():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    targets = re.search(r"^for target in (.+); do$", script.read_text(), re.MULTILINE)[1].split()
    check = re.search(r"^check: ([a-z ]+?) *##", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert targets == ["install-dev", *check, "test-e2e"]
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_pre_commit_hooks_are_local_and_call_make():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert {hook["entry"] for hook in repo["hooks"]} == {"make lint", "make types", "make arch", "make test-unit"}


def test_the_licence_is_the_one_that_the_project_names():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_no_file_names_a_package_registry():
    found = [(name, host) for name in tracked_files() for host in HOSTS if host in (ROOT / name).read_text(errors="replace")]
    assert found == []


def test_no_file_holds_a_path_of_one_machine():
    found = [(name, hit[0]) for name in tracked_files() if (hit := MACHINE.search((ROOT / name).read_text(errors="replace")))]
    assert found == []
