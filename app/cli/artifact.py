"""`turnout artifact ...`: signing files where they are made. Speaks to no service."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from app.cli.options import json_option
from app.cli.output import note, show_json
from app.registry.signing import HEADER, private_key, public_text, sign

KEY_FILE = _FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def artifact() -> None:
    """Files of models, before they are uploaded."""


@artifact.command(name="sign")
@click.argument("file", type=_FILE)
@click.option("--key", required=True, type=KEY_FILE, help="Ed25519 private key (PEM): openssl genpkey -algorithm ed25519 -out private.pem")
@json_option
def sign_(file: Path, key: Path, as_json: bool) -> None:
    """Print the signature of FILE, for `turnout model register --signature` or the header Artifact-Signature."""
    signing = private_key(key.read_bytes())
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    stamp = sign(signing, digest)
    public = public_text(signing.public_key())
    if as_json:
        show_json({"digest": digest, "header": HEADER, "signature": str(stamp), "keyId": stamp.signer, "publicKey": public})
        return
    note(f"public key, for TURNOUT_ARTIFACT_KEYS: {public}")
    click.echo(str(stamp))
