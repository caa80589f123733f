"""The doctor's look at this machine: settings, data folder, keys, processes, sandbox, spool."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING

import httpx

from app.cli.findings import Finding, Level
from app.cli.options import local_url
from app.errors import AppError, ConfigurationError
from app.journal.depth import read_depth
from app.kernel.clock import SystemClock
from app.kernel.home import DEVELOPMENT_ISSUER, MASTER_KEY, SPOOL
from app.prediction.worker.lock import landlock_abi
from app.registry.signing import TrustedKeys
from app.settings import ArtifactTrust
from app.supervisor.home import home_problem
from app.supervisor.lock import holder
from app.supervisor.readiness import is_ready
from app.supervisor.sockets import model_host_socket
from app.tenancy.keys import MasterKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.kernel.inspection import Confinement
    from app.settings import Settings

_FULL_SPOOL = 0.8
_OLD_S = 60.0
_HEALTH_S = 5.0


def setting_findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("settings", Level.OK, f"{settings.environment.value}, {settings.http.workers} serving process(es) configured here")
    for name in settings.unknown:
        yield Finding("settings", Level.NOTE, f"nothing reads {name}: a typing error? docs/settings.md lists the names")
    if settings.development and not _is_loopback(settings.http.host):
        yield Finding(
            "settings",
            Level.UNSAFE,
            f"development keys on {settings.http.host}, which other machines reach: set TURNOUT_ENV=production and TURNOUT_JWT_ISSUERS",
        )
    if not settings.development and not settings.issuers:
        yield Finding("settings", Level.UNSAFE, "production without an issuer: nobody can call; set TURNOUT_JWT_ISSUERS")
    if "*" in settings.http.cors_origins:
        yield Finding("settings", Level.NOTE, "TURNOUT_CORS_ORIGINS lets every web page call")
    if settings.http.metrics_token is None and not _is_loopback(settings.http.host):
        yield Finding("settings", Level.NOTE, "no TURNOUT_METRICS_TOKEN: /metrics shows no tenant labels to anybody")


def home_findings(settings: Settings) -> Iterator[Finding]:
    if not settings.home.exists():
        yield Finding("home", Level.NOTE, f"{settings.home} does not exist yet: the first start makes it")
        return
    problem = home_problem(settings.home)
    yield Finding("home", Level.UNSAFE if problem else Level.OK, problem or f"{settings.home}, entered by its owner alone")


def key_findings(settings: Settings) -> Iterator[Finding]:
    path = settings.master_key_file or settings.home / MASTER_KEY
    if settings.master_key_file is None and not settings.development:
        yield Finding("master key", Level.UNSAFE, "production needs TURNOUT_MASTER_KEY_FILE, the same on every replica")
    elif settings.master_key_file is None and not path.exists():
        yield Finding("master key", Level.NOTE, "none yet: the first start makes one")
    else:
        try:
            yield Finding("master key", Level.OK, f"fingerprint {MasterKey.load(path).fingerprint}, to compare replicas by ({path})")
        except ConfigurationError as error:
            yield Finding("master key", Level.UNSAFE, str(error))
    development_key = settings.home / DEVELOPMENT_ISSUER
    if not settings.development and development_key.exists():
        yield Finding("tokens", Level.UNSAFE, f"a development key lies in {development_key}; production refuses it: remove the file")
    for issuer in settings.issuers:
        yield Finding("tokens", Level.OK, f"trusts {issuer.issuer} for {issuer.audience}")


def service_findings(settings: Settings) -> Iterator[Finding]:
    running = holder(settings.home)
    if running is None:
        yield Finding("service", Level.NOTE, "does not run on this data folder")
        return
    url = local_url(settings)
    level, words = (Level.OK, "ready") if is_ready(url) else (Level.UNREACHABLE, "not ready: see its /readyz")
    yield Finding("service", level, f"process {running} on {url}: {words}{_processes(url)}")


def _processes(url: str) -> str:
    """How many serving processes the service itself knows of; nothing where it does not tell."""
    try:
        replicas = httpx.get(f"{url}/health", timeout=_HEALTH_S, trust_env=False).json()["replicas"]
        return f", {replicas['listed'] - replicas['silent']} serving process(es) heard of, on all machines"
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""


def _signature_findings(settings: Settings) -> Iterator[Finding]:
    required = settings.registry.artifact_trust is ArtifactTrust.SIGNED_ONLY
    try:
        keys = TrustedKeys.read(settings.registry.artifact_keys, required=required)
    except ConfigurationError as error:
        yield Finding("signatures", Level.UNSAFE, str(error))
        return
    if required:
        yield Finding("signatures", Level.OK, f"only artifacts signed by {', '.join(keys.ids)} are used")


def model_host_findings(settings: Settings) -> Iterator[Finding]:
    if settings.registry.artifact_trust is ArtifactTrust.FULL:
        yield Finding("sandbox", Level.NOTE, "TURNOUT_ARTIFACT_TRUST=full: custom classes run, held by the sandbox alone")
    yield from _signature_findings(settings)
    if holder(settings.home) is None:
        abi = landlock_abi()
        words = f"Landlock ABI {abi}" if abi else "no Landlock"
        yield Finding("sandbox", Level.NOTE, f"this kernel has {words}; start the service, and its model host measures the rest")
        return
    try:
        yield _confinement_finding(asyncio.run(_measured(settings)))
    except AppError as error:
        yield Finding("sandbox", Level.UNREACHABLE, f"the model host: {error.message}")


def spool_findings(settings: Settings) -> Iterator[Finding]:
    spool = settings.home / SPOOL
    if not spool.is_dir():
        return
    depth = read_depth(spool, SystemClock())
    share = depth.bytes / settings.journal.spool_max_bytes
    text = f"{depth.bytes:,} bytes wait ({share:.0%} of the bound), the oldest for {depth.oldest_age_s:.0f} s"
    if depth.waiting_for:
        text += f"; the drain waits for {depth.waiting_for}"
    stuck = share > _FULL_SPOOL or depth.oldest_age_s > _OLD_S
    yield Finding("spool", Level.UNSAFE if share > _FULL_SPOOL else Level.NOTE if stuck else Level.OK, text)
    if depth.held:
        yield Finding("spool", Level.NOTE, f"{depth.held} records are held: their day has no partition yet (turnout migrate makes them)")
    if depth.quarantined:
        yield Finding("spool", Level.UNSAFE, f"{depth.quarantined} records the database refused lie in {spool / 'quarantine'}")


async def _measured(settings: Settings) -> Confinement:
    from app.prediction.runtimes.host import ModelHost

    host = ModelHost(model_host_socket(settings.home))
    try:
        return await host.confinement()
    finally:
        await host.close()


def _confinement_finding(held: Confinement) -> Finding:
    measured = f"seccomp {'yes' if held.seccomp else 'no'}, Landlock ABI {held.landlock_abi or 'none'}"
    measured += ", each model a user of its own" if held.own_uid else ", models run as the service's user"
    if held.confined:
        return Finding("sandbox", Level.OK, measured)
    return Finding(
        "sandbox",
        Level.UNSAFE,
        f"{measured}: where the kernel cannot confine, only artifacts made on this machine by the demo load; "
        "uploads of others become FAILED. Run on a kernel with seccomp and Landlock (5.13 or newer)",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
