"""The keys of a first start: made in development, asked for in production."""

import pytest

from app.errors import ConfigurationError
from app.settings import Settings
from app.supervisor.keys import make_missing_keys, require_production_keys
from app.supervisor.supervisor import supervise

pytestmark = pytest.mark.unit

ISSUERS = '[{"issuer": "https://id.example.org", "audience": "turnout", "jwksUrl": "https://id.example.org/jwks"}]'


def settings(home, **environ):
    return Settings.from_env({"TURNOUT_HOME": str(home), **environ})


def test_production_names_everything_that_it_needs_before_it_makes_anything(tmp_path):
    home = tmp_path / "home"
    with pytest.raises(ConfigurationError) as refused:
        supervise(settings(home, TURNOUT_ENV="production"), {}, demo=False)
    assert "TURNOUT_MASTER_KEY_FILE" in str(refused.value)
    assert "openssl rand -hex 32" in str(refused.value)
    assert "TURNOUT_JWT_ISSUERS" in str(refused.value)
    assert not home.exists()


def test_production_names_only_what_is_missing(tmp_path):
    with pytest.raises(ConfigurationError) as refused:
        require_production_keys(settings(tmp_path, TURNOUT_ENV="production", TURNOUT_JWT_ISSUERS=ISSUERS))
    assert "TURNOUT_JWT_ISSUERS" not in str(refused.value)


@pytest.mark.parametrize("environ", [{}, {"TURNOUT_ENV": "production", "TURNOUT_JWT_ISSUERS": ISSUERS, "TURNOUT_MASTER_KEY_FILE": "k"}])
def test_nothing_is_asked_for_in_development_or_where_all_is_there(tmp_path, environ):
    require_production_keys(settings(tmp_path, **environ))


def test_development_makes_its_keys_once_and_says_where(tmp_path, capsys):
    make_missing_keys(settings(tmp_path))
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(made) == ["development-issuer.json", "master.key"]
    assert f"making the master key {tmp_path / 'master.key'}" in capsys.readouterr().out
    make_missing_keys(settings(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made
    assert capsys.readouterr().out == ""


def test_production_makes_no_key(tmp_path):
    make_missing_keys(settings(tmp_path, TURNOUT_ENV="production"))
    assert list(tmp_path.iterdir()) == []
