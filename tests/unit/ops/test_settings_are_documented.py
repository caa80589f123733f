"""docs/settings.md and docker-compose.yml against what app/settings.py really reads."""

import re
from pathlib import Path

import pytest
import yaml

from app.settings import _READ_ELSEWHERE, Settings, _Reader

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
ROW = re.compile(r"^\| `(TURNOUT_[A-Z_]+)` \| .+ \| (`([^`]*)`|unset)", re.MULTILINE)


@pytest.fixture
def read(monkeypatch):
    """Name to default of every variable that the settings read."""
    found = {}
    original = _Reader.text

    def text(self, name, default):
        found[name] = default
        return original(self, name, default)

    monkeypatch.setattr(_Reader, "text", text)
    Settings.from_env({})
    return found


def documented():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    return {name: shown if default != "unset" else "" for name, default, shown in ROW.findall(text)}


def test_every_setting_is_documented_and_nothing_else_is(read):
    assert set(documented()) == set(read) | _READ_ELSEWHERE


def test_documented_defaults_are_the_code_s(read):
    shown = documented()
    assert {name: shown[name] for name in read} == read


def test_compose_names_only_settings_that_are_read(read):
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    named = {name for service in services.values() for name in service.get("environment", {}) if name.startswith("TURNOUT_")}
    assert named
    assert named <= set(read)


def test_compose_gives_the_owner_s_url_alone_so_that_migrate_makes_the_other_roles():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("migrate", "turnout"):
        urls = [key for key in services[name]["environment"] if key.startswith("TURNOUT_DATABASE_")]
        assert urls == ["TURNOUT_DATABASE_OWNER_URL"]
