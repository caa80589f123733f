"""What children get to know. The owner's database URL is in the parent alone."""

import json

import pytest

from app.settings import Settings
from app.supervisor import environment
from app.supervisor.environment import DatabaseUrls

pytestmark = pytest.mark.unit

URLS = DatabaseUrls(runtime="postgresql://runtime", log="postgresql://log", sync="postgresql://sync")
ENVIRON = {
    "PATH": "/bin",
    "HOME": "/home/somebody",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "TURNOUT_HOME": "/data",
    "TURNOUT_TOKEN": "secret",
    "TURNOUT_MASTER_KEY_FILE": "/keys/master",
    "TURNOUT_DATABASE_OWNER_URL": "postgresql://owner",
    "TURNOUT_DATABASE_URL": "postgresql://given",
    "TURNOUT_DATABASE_LOG_URL": "postgresql://given",
    "TURNOUT_DATABASE_SYNC_URL": "postgresql://given",
}
SETTINGS = Settings.from_env(ENVIRON)


def database_urls(spec):
    return {name: value for name, value in spec.env.items() if name.startswith("TURNOUT_DATABASE_")}


def test_serving_processes_get_every_role_but_the_owner():
    spec = environment.serving(SETTINGS, ENVIRON, listener=7, index=2)
    assert database_urls(spec) == {}
    assert json.loads(environment.serving_words(URLS)) == {
        "TURNOUT_DATABASE_URL": "postgresql://runtime",
        "TURNOUT_DATABASE_LOG_URL": "postgresql://log",
        "TURNOUT_DATABASE_SYNC_URL": "postgresql://sync",
    }
    assert spec.command[2:] == ("-m", "app.supervisor.warm", "app.main", "--fd", "7", "--index", "2")
    assert spec.slot == 2
    assert spec.fds == (7,)
    assert spec.env["TURNOUT_MASTER_KEY_FILE"] == "/keys/master"


def test_an_option_of_the_command_line_beats_the_environment_in_children_too():
    settings = Settings.from_env({**ENVIRON, "TURNOUT_PORT": "9000"})
    env = environment.serving(settings, {**ENVIRON, "TURNOUT_PORT": "http"}, listener=7, index=0).env
    assert (env["TURNOUT_HOST"], env["TURNOUT_PORT"], env["TURNOUT_WORKERS"]) == ("127.0.0.1", "9000", "1")


def test_what_calls_models_has_linear_algebra_on_no_threads_of_its_own(tmp_path):
    for spec in (environment.serving(SETTINGS, ENVIRON, 7, 0), environment.model_host(SETTINGS, ENVIRON, tmp_path / "socket")):
        assert {spec.env[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"1"}


def test_the_drain_gets_the_log_role_alone():
    spec = environment.drain(SETTINGS, ENVIRON, URLS)
    assert database_urls(spec) == {"TURNOUT_DATABASE_LOG_URL": "postgresql://log"}


def test_the_model_host_gets_no_setting_and_no_secret(tmp_path):
    spec = environment.model_host(SETTINGS, ENVIRON, tmp_path / "socket")
    assert sorted(spec.env) == [
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "PATH",
        "PYTHONPATH",
    ]
    assert spec.command[2:] == (
        "-m", "app.prediction.worker", "--socket", str(tmp_path / "socket"), "--memory-bytes", str(2048 * 1024 * 1024), "--trust", "restricted",
    )  # fmt: skip


def test_the_demo_is_a_client_like_any_other():
    assert database_urls(environment.demo(SETTINGS, ENVIRON, "http://127.0.0.1:8000")) == {}


@pytest.mark.parametrize(
    "spec",
    [
        environment.serving(SETTINGS, ENVIRON, 7, 0),
        environment.drain(SETTINGS, ENVIRON, URLS),
        environment.demo(SETTINGS, ENVIRON, "u"),
    ],
)
def test_nothing_is_inherited_by_accident(spec):
    assert not {"HOME", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "TURNOUT_TOKEN", "TURNOUT_DATABASE_OWNER_URL"} & set(spec.env)
