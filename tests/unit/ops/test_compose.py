"""docker-compose.yml: no engine runs here, so its shape is held to the Compose specification's own schema."""

import json
import re
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]


def test_it_is_valid_by_the_compose_specification():
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)
    assert [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(COMPOSE)] == []


def test_postgresql_valkey_and_unleash_are_servers_of_their_own():
    images = {name: service["image"].partition(":")[0] for name, service in SERVICES.items() if "image" in service}
    assert images == {"postgres": "postgres", "valkey": "valkey/valkey", "unleash": "unleashorg/unleash-server"}


def test_everything_that_is_waited_for_exists_and_can_be_waited_for():
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert how["condition"] == "service_completed_successfully"
                assert "restart" not in SERVICES[name]


def test_volumes_and_configs_that_are_named_are_declared():
    mounted = {mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert mounted == set(COMPOSE["volumes"])
    assert {entry["source"] for service in SERVICES.values() for entry in service.get("configs", [])} == set(COMPOSE["configs"])


def test_no_secret_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    for name, after in re.findall(r"(?<!\$)\$\{([A-Z_]+)([^}]*)\}", text):
        if name.endswith(("PASSWORD", "TOKEN")):
            assert not after.startswith((":-", "-")), name


def test_ports_are_open_to_this_machine_alone():
    assert [p for service in SERVICES.values() for p in service.get("ports", []) if not p.startswith("127.0.0.1:")] == []


def test_the_image_runs_as_an_unprivileged_user_with_a_name():
    steps = (ROOT / "Dockerfile").read_text().splitlines()
    users = [step.split()[1] for step in steps if step.startswith("USER ")]
    assert users == ["turnout"]
    assert steps.index("USER turnout") < next(i for i, step in enumerate(steps) if step.startswith("ENTRYPOINT"))
