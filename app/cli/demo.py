"""`turnout demo`: two tenants with real models, made through the public API as any client would. Safe to run again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli import registry, tenants
from app.cli.artifact import KEY_FILE
from app.cli.client import Client, Refused
from app.cli.demo_plan import EXAMPLE, EXAMPLE_KEY, MODELS, TENANTS, DemoModel
from app.cli.minting import mint
from app.cli.options import load_settings, local_url, url_option
from app.cli.output import note
from app.kernel.context import Role
from app.kernel.home import DEMO_ARTIFACTS
from app.registry.signing import SIGNED_ALONE, private_key, sign
from app.settings import ArtifactTrust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from app.settings import Settings

_SEEDING_TTL_S = 900
_SHOWN_TTL_S = 12 * 3600
_KNOWN_WITHIN_S = 10.0
_CURL_DOCUMENT = """query($row: FeatureRow!) { predict(model: "tumour", features: $row, unit: "p-1") { label probability version id } }"""
_EXAMPLE = "demo-example.json"
_HOW_TO_SIGN = f"""{SIGNED_ALONE} (TURNOUT_ARTIFACT_TRUST=signed-only), so the demo's models must be signed:
  openssl genpkey -algorithm ed25519 -out private.pem    (unless you have a key)
  openssl pkey -in private.pem -pubout                   (to be in TURNOUT_ARTIFACT_KEYS of the service, which is then started anew)
  turnout demo --key private.pem"""


@click.command()
@url_option
@click.option("--key", type=KEY_FILE, help="Ed25519 private key (PEM) to sign the models with, where the service wants that.")
def demo(url: str | None, key: Path | None) -> None:
    """Seed the demo tenants `clinic` and `shop`. What is there already stays."""
    settings = load_settings()
    signing = None if key is None else private_key(key.read_bytes())
    target = (url or local_url(settings)).rstrip("/")
    _make_tenants(settings, target)
    with ExitStack() as stack:
        clients = {tenant: stack.enter_context(Client(target, _token(settings, tenant, _SEEDING_TTL_S))) for tenant in TENANTS}
        _seed(settings, clients, signing)
    click.echo(banner(target, _token(settings, EXAMPLE.tenant, _SHOWN_TTL_S), _example_row(settings)))
    click.echo(how_to_call(Path(sys.executable).parent, settings.home))


def banner(url: str, token: str, row: dict[str, Any]) -> str:
    """What `make run` ends with: a token, and one line that any shell takes as it is."""
    return f"""
Two demo tenants are ready: {" and ".join(TENANTS)}.
A token for {EXAMPLE.tenant} (role ADMIN, 12 hours; others: turnout token --help):

{token}

Paste this line; a real model answers a real row, {len(row)} measurements of a tumour that it never saw in training:

{curl_line(url, token, row)}
"""


def how_to_call(programs: Path, home: Path) -> str:
    """The line after which a shell finds `turnout`, and `turnout` this machine's service, in any folder."""
    line = f'export PATH={shlex.quote(str(programs))}:"$PATH" TURNOUT_HOME={shlex.quote(str(home.absolute()))}'
    return f"The command line, once in each terminal; then `turnout --help`, in any folder:\n\n{line}\n"


def curl_line(url: str, token: str, row: dict[str, Any]) -> str:
    """One prediction as a command, quoted for the shell."""
    body = json.dumps({"query": _CURL_DOCUMENT, "variables": {"row": row}}, separators=(",", ":"))
    headers = ("-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json")
    return shlex.join(["curl", "-sS", f"{url}/graphql", *headers, "-d", body])


def _token(settings: Settings, tenant: str, ttl_s: int) -> str:
    return mint(settings, tenant, "demo", (Role.ADMIN,), ttl_s)


def _make_tenants(settings: Settings, url: str) -> None:
    with Client(url, mint(settings, None, "demo", (Role.OPERATOR,), _SEEDING_TTL_S)) as client:
        there = {found["id"] for found in tenants.listed(client)}
        for tenant, name in TENANTS.items():
            if tenant not in there:
                note(f"demo: making tenant {tenant}")
                tenants.create(client, tenant, name)


def _until_known(client: Client) -> None:
    """Returns once the process behind this connection has heard of the tenant: another one may have made it a moment ago."""
    end = time.monotonic() + _KNOWN_WITHIN_S
    while True:
        try:
            client.query("{ viewer { tenant } }")
            return
        except Refused as refusal:
            if refusal.code != "UNAUTHENTICATED" or time.monotonic() > end:
                raise
            time.sleep(0.1)


def _seed(settings: Settings, clients: Mapping[str, Client], signing: Ed25519PrivateKey | None) -> None:
    for client in clients.values():
        _until_known(client)
    there = {(tenant, model["name"]): model for tenant, client in clients.items() for model in registry.models(client)}
    missing = [v.key for model in MODELS for v in model.versions if v.key not in _keys_of(there.get((model.tenant, model.name)))]
    if missing and signing is None and settings.registry.artifact_trust is ArtifactTrust.SIGNED_ONLY:
        raise Refused(_HOW_TO_SIGN)
    if missing:
        note(f"demo: training {', '.join(missing)} on data that ships with scikit-learn")
        with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder:
            _train(Path(folder), missing)
            _remember(settings, Path(folder), missing)
            for model in MODELS:
                _register(clients[model.tenant], Path(folder), model, missing, signing)
    for model in MODELS:
        if not there.get((model.tenant, model.name), {}).get("aliases"):
            _serve_first(clients[model.tenant], model)


def _register(client: Client, folder: Path, model: DemoModel, missing: list[str], signing: Ed25519PrivateKey | None) -> None:
    for version in model.versions:
        if version.key not in missing:
            continue
        given = json.loads((folder / f"{version.key}.json").read_text(encoding="utf-8"))
        registration = {"model": model.name, "task": model.task, "description": version.description, "tags": {"demo": version.key}, **given}
        digest = _upload(client, folder / f"{version.key}.joblib", signing)
        try:
            made = registry.register(client, digest, registration)
        except Refused as refusal:
            if signing is None and SIGNED_ALONE in str(refusal):  # a service with other settings than this command's
                raise Refused(_HOW_TO_SIGN) from None
            raise
        checked = registry.wait_until_checked(client, model.name, made["number"])
        if checked["status"] != "READY":
            raise Refused(f"{model.tenant}/{model.name} version {made['number']} is {checked['status']}: {checked['statusReason']}")
        measured = ", ".join(f"{name} {value:g}" for name, value in given["metrics"].items())
        note(f"demo: {model.tenant}/{model.name} version {made['number']} is ready ({measured})")


def _upload(client: Client, path: Path, signing: Ed25519PrivateKey | None) -> str:
    return client.upload(path, None if signing is None else str(sign(signing, sha256(path.read_bytes()).hexdigest())))


def _serve_first(client: Client, model: DemoModel) -> None:
    found = next(m for m in registry.models(client) if m["name"] == model.name)
    number = next(v["number"] for v in found["versions"] if (v["tags"] or {}).get("demo") == model.versions[0].key)
    registry.promote(client, model.name, number, "production", reason="demo")
    note(f"demo: {model.tenant}/{model.name}: production serves version {number}")


def _keys_of(found: dict[str, Any] | None) -> set[str]:
    return {(version["tags"] or {}).get("demo", "") for version in found["versions"]} if found else set()


def _train(folder: Path, keys: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "app.cli.demo_models", str(folder), *keys]
    if subprocess.run(command, check=False).returncode:
        raise Refused("Training the demo models failed; what was printed above says why.")


def _remember(settings: Settings, folder: Path, keys: list[str]) -> None:
    """Notes the artifacts as made on this machine, before anybody is asked to load them: an unconfined kernel loads no others."""
    path = settings.home / DEMO_ARTIFACTS
    known = set(json.loads(path.read_text())) if path.exists() else set()
    known |= {sha256((folder / f"{key}.joblib").read_bytes()).hexdigest() for key in keys}
    _write_private(path, sorted(known))
    if EXAMPLE_KEY in keys:
        sample = json.loads((folder / f"{EXAMPLE_KEY}.json").read_text(encoding="utf-8"))["sample"]
        _write_private(settings.home / _EXAMPLE, sample[0])


def _example_row(settings: Settings) -> dict[str, Any]:
    path = settings.home / _EXAMPLE
    if not path.exists():  # seeded from another machine: the row comes out of the same data again
        with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder:
            _train(Path(folder), [EXAMPLE_KEY])
            sample = json.loads((Path(folder) / f"{EXAMPLE_KEY}.json").read_text(encoding="utf-8"))["sample"]
        _write_private(path, sample[0])
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _write_private(path: Path, data: Any) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(data, file)
    draft.replace(path)
