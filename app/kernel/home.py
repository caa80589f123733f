"""Names below TURNOUT_HOME that more than one room knows, each written once: who makes a file and who looks for it agree."""

from __future__ import annotations

MASTER_KEY = "master.key"
DEVELOPMENT_ISSUER = "development-issuer.json"
DEMO_ARTIFACTS = "demo-artifacts.json"  # a JSON list of digests: made on this machine, so opened where the kernel cannot confine
ARTIFACTS = "artifacts"
SPOOL = "spool"
REPLICAS = "run/replicas"
LIMITS = "limits.bin"
QUARANTINE = "quarantine.bin"
LAST_GOOD = "last-good"
TOMBSTONES = "tombstones.jsonl"
MODEL_HOST_SOCKET = "models.sock"  # in the folder for sockets, whose path is short
