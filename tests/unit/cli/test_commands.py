"""Usage, exit statuses and output of the commands that need no service."""

import hashlib
import json
import shlex

import click
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.cli.demo import banner, curl_line, how_to_call
from app.cli.main import _COMMANDS, main
from app.cli.options import local_url, parse_duration
from app.registry.signing import Stamp, TrustedKeys
from app.settings import Settings

pytestmark = pytest.mark.unit


@pytest.fixture
def turnout(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    def run(*arguments, **env):
        return CliRunner().invoke(main, list(arguments), env={"TURNOUT_HOME": str(home), "TURNOUT_TOKEN": None, **env})

    run.home = home
    return run


def test_every_command_of_the_contract_is_there_and_helps(turnout):
    assert list(_COMMANDS) == [
        "serve",
        "demo",
        "migrate",
        "maintain",
        "tenant",
        "documents",
        "token",
        "artifact",
        "model",
        "predict",
        "experiment",
        "usage",
        "doctor",
    ]
    for name in _COMMANDS:
        assert turnout(name, "--help").exit_code == 0
    shown = turnout("model", "--help").output
    assert all(f"  {name} " in shown for name in ("register", "promote", "rollback", "withdraw", "archive", "fallback", "list"))
    shown = turnout("experiment", "--help").output
    assert all(f"  {name} " in shown for name in ("create", "list", "show", "start", "ramp", "stop", "conclude", "results"))


def test_a_signature_is_all_that_turnout_artifact_sign_prints_and_it_counts(turnout, tmp_path):
    key, file = tmp_path / "private.pem", tmp_path / "model.joblib"
    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.write_bytes(b"a model")
    result = turnout("artifact", "sign", str(file), "--key", str(key))
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    keys = TrustedKeys.read(json.dumps([result.stderr.split()[-1]]), required=True)
    digest = hashlib.sha256(b"a model").hexdigest()
    assert keys.refusal(digest, Stamp.parse(result.stdout)) is None
    told = json.loads(turnout("artifact", "sign", str(file), "--key", str(key), "--json").stdout)
    assert (told["digest"], told["signature"]) == (digest, result.stdout.strip())


def test_a_key_that_is_none_is_status_1(turnout, tmp_path):
    file = tmp_path / "model.joblib"
    file.write_bytes(b"a model")
    result = turnout("artifact", "sign", str(file), "--key", str(file))
    assert result.exit_code == 1
    assert "openssl genpkey -algorithm ed25519" in result.stderr


@pytest.mark.parametrize("group", [(), ("model",), ("tenant",), ("experiment",)])
def test_no_summary_in_help_is_cut_off(turnout, group):
    assert "..." not in turnout(*group, "--help").output.partition("Commands:")[2]


def test_a_token_is_all_that_turnout_token_prints(turnout):
    result = turnout("token", "--tenant", "clinic", "--subject", "me", "--role", "READER", "--role", "predictor", "--ttl", "15m")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert len(result.stdout.strip().split(".")) == 3
    assert result.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["token", "--subject", "me", "--role", "READER"],  # no tenant
        ["token", "--tenant", "clinic", "--subject", "me", "--role", "KING"],
        ["token", "--tenant", "clinic", "--subject", "me", "--role", "READER", "--ttl", "1w"],
        ["predict", "tumour", "{not json"],
        ["predict", "tumour", '"a text"'],
        ["predict", "tumour", "{}"],  # no token
        ["model", "promote", "tumour", "first"],
        ["serve", "--port", "70000"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_status_2(turnout, arguments):
    result = turnout(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_missing_token_comes_with_the_command_that_makes_one(turnout):
    result = turnout("model", "promote", "tumour", "2")
    assert 'export TURNOUT_TOKEN="$(turnout token --tenant TENANT --subject me --role ADMIN --ttl 1h)"' in " ".join(result.stderr.split())


def test_development_keys_are_refused_in_production(turnout):
    result = turnout("token", "--tenant", "clinic", "--subject", "me", "--role", "READER", TURNOUT_ENV="production")
    assert result.exit_code == 1
    assert "production" in result.stderr
    assert not (turnout.home / "development-issuer.json").exists()


def test_a_service_that_is_away_is_status_1_and_named(turnout):
    result = turnout("predict", "tumour", "{}", "--url", "http://127.0.0.1:1", "--token", "t")
    assert result.exit_code == 1
    assert "Nothing answers at http://127.0.0.1:1. Start the service (make run), or say which one" in result.stderr
    assert all(way in result.stderr for way in ("--url", "TURNOUT_URL", "TURNOUT_HOME"))


def test_the_service_is_the_option_s_else_the_variable_s_else_this_machine_s(turnout):
    ask = ("predict", "tumour", "{}", "--token", "t")
    there = {"TURNOUT_URL": "http://127.0.0.1:2", "TURNOUT_PORT": "3"}
    assert "Nothing answers at http://127.0.0.1:1." in turnout(*ask, "--url", "http://127.0.0.1:1", **there).stderr
    assert "Nothing answers at http://127.0.0.1:2." in turnout(*ask, **there).stderr
    assert "Nothing answers at http://127.0.0.1:3." in turnout(*ask, **{**there, "TURNOUT_URL": ""}).stderr
    assert "TURNOUT_URL" not in turnout("doctor", **there).stdout


def test_the_line_after_which_turnout_is_found_in_any_folder_is_one_that_a_shell_takes_as_it_is(tmp_path):
    text = how_to_call(tmp_path / "a b" / "bin", tmp_path / "it's")
    (line,) = [line for line in text.splitlines() if line.startswith("export ")]
    assert shlex.split(line) == ["export", f"PATH={tmp_path}/a b/bin:$PATH", f"TURNOUT_HOME={tmp_path}/it's"]


def test_a_bad_setting_is_status_1_and_named(turnout):
    result = turnout("doctor", TURNOUT_PORT="http")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "TURNOUT_PORT is 'http'" in result.stderr


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1", "0h", "-1h", "1.5h", "1w", "٣h", "1 h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(click.BadParameter, match="is no duration"):
        parse_duration(text)


def test_the_local_service_is_found_where_its_parent_wrote_it_down(tmp_path):
    settings = Settings.from_env({"TURNOUT_HOME": str(tmp_path), "TURNOUT_HOST": "0.0.0.0", "TURNOUT_PORT": "81"})
    assert local_url(settings) == "http://127.0.0.1:81"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "url").write_text("http://127.0.0.1:9000\n")
    assert local_url(settings) == "http://127.0.0.1:9000"


def test_the_banner_s_curl_line_is_one_line_that_a_shell_takes_as_it_is():
    row = {"mean radius": 11.5, 'it\'s $HOME `x` "q"': 1.0, "søvn": 2.0}
    text = banner("http://127.0.0.1:8000", "a.b.c", row)
    (line,) = [line for line in text.splitlines() if line.startswith("curl ")]
    words = shlex.split(line)
    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:8000/graphql"]
    assert "Authorization: Bearer a.b.c" in words
    assert json.loads(words[-1])["variables"] == {"row": row}
    assert line == curl_line("http://127.0.0.1:8000", "a.b.c", row)


def test_the_doctor_names_what_is_unsafe_and_exits_with_status_1(turnout):
    turnout.home.chmod(0o755)
    result = turnout("doctor", "--json", TURNOUT_ENV="production", TURNOUT_TYPO="1")
    assert result.exit_code == 1
    found = {(f["area"], f["level"]) for f in json.loads(result.stdout)["findings"]}
    assert {("home", "unsafe"), ("master key", "unsafe"), ("settings", "unsafe"), ("settings", "note")} <= found
    assert json.loads(result.stdout)["healthy"] is False


def test_the_doctor_has_nothing_against_a_fresh_machine(turnout):
    result = turnout("doctor", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["healthy"] is True


def test_development_keys_on_an_open_address_are_unsafe(turnout):
    assert turnout("doctor", TURNOUT_HOST="0.0.0.0").exit_code == 1
