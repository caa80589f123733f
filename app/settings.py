"""The only reader of the environment: one frozen tree, sections named after rooms. Each field is documented in docs/settings.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from app.errors import ConfigurationError
from app.kernel.context import Role
from app.kernel.issuers import Issuer, read_issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIB = 1024 * 1024
E = TypeVar("E", bound=StrEnum)


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class ArtifactTrust(StrEnum):
    """Which artifacts are loaded at all; every one of them only in the sandbox."""

    RESTRICTED = "restricted"  # any upload; only allow-listed classes are unpickled
    SIGNED_ONLY = "signed-only"  # as restricted, and only what a configured key has signed
    FULL = "full"  # custom classes too: the sandbox is then all that holds them


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that prints as stars."""

    value: str

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """All four None: the embedded server, or the one on which migrate made roles. The owner's is for the parent and `turnout migrate`."""

    owner_url: Secret | None
    runtime_url: Secret | None
    log_url: Secret | None
    sync_url: Secret | None

    @property
    def unset(self) -> bool:
        return self.runtime_url is None and self.owner_url is None


@dataclass(frozen=True, slots=True)
class HttpSettings:
    host: str
    port: int
    workers: int
    max_body_bytes: int
    max_body_bytes_under_way: int  # of large bodies, in one serving process
    request_timeout_s: float
    cors_origins: tuple[str, ...]
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    metrics_token: Secret | None
    documents_only: frozenset[Role] | None  # roles that run registered documents alone; None: the default
    max_in_flight: int  # requests under way in one serving process
    max_connections: int  # of one serving process
    max_connections_per_address: int
    max_head_bytes: int
    head_timeout_s: float
    idle_timeout_s: float
    send_timeout_s: float
    stop_grace_s: float  # between "not ready" and the end of accepting


@dataclass(frozen=True, slots=True)
class LimitSettings:
    redis_url: Secret | None  # redis://, rediss:// or unix://; None: each machine holds its limits by itself


@dataclass(frozen=True, slots=True)
class JournalSettings:
    spool_max_bytes: int  # at this bound a prediction is refused with LOG_UNAVAILABLE before it is made
    retention_days: int
    diskless: bool  # this machine's disk does not outlive it: what must survive is committed in the database


@dataclass(frozen=True, slots=True)
class UsageSettings:
    """Prices are in millionths of the currency."""

    currency: str
    price_per_million_requests: int
    price_per_million_rows: int
    price_per_compute_second: int
    price_per_gib_day: int
    slo_latency_ms: float  # what takes longer is late
    slo_objective: float  # the share of predictions that is to come in time and without an error of ours


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    artifact_trust: ArtifactTrust
    artifact_keys: str | None  # public keys, or the file that holds them: `registry/signing.py` reads it
    artifact_retention_days: int  # how long the bytes of a version outlive its retirement
    validation_timeout_s: float
    worker_memory_bytes: int  # address space of one model worker


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """Of one serving process."""

    model_memory_bytes: int
    live_proof_share: float  # of compiled answers, 0 to 1
    compiled_tolerance: float  # how far a compiled answer may be from scikit-learn's
    cache_bytes: int
    cache_entries: int
    last_good_days: int  # how old a state may be that is served by without a database


@dataclass(frozen=True, slots=True)
class UnleashSettings:
    """A flag server as the second source of flags."""

    url: str  # ends in /api
    token: Secret
    shared_flags: bool  # whether a strategy without a condition on the tenant counts
    refresh_s: int


@dataclass(frozen=True, slots=True)
class Settings:
    home: Path  # absolute
    environment: Environment
    master_key_file: Path | None
    database: DatabaseSettings
    http: HttpSettings
    limits: LimitSettings
    journal: JournalSettings
    usage: UsageSettings
    registry: RegistrySettings
    serving: ServingSettings
    unleash: UnleashSettings | None
    issuers: tuple[Issuer, ...]  # empty: the development issuer, where the environment allows it
    log_level: str
    unknown: tuple[str, ...] = field(default=())  # TURNOUT_ variables that nothing reads: likely typing errors

    @property
    def development(self) -> bool:
        return self.environment is Environment.DEVELOPMENT

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that `environ` says; raises ConfigurationError that names the variable and what would be right."""
        read = _Reader(environ)
        return cls(
            home=Path(read.text("TURNOUT_HOME", ".turnout")).absolute(),
            environment=read.choice("TURNOUT_ENV", Environment, Environment.DEVELOPMENT),
            master_key_file=read.path("TURNOUT_MASTER_KEY_FILE"),
            database=DatabaseSettings(
                owner_url=read.secret("TURNOUT_DATABASE_OWNER_URL"),
                runtime_url=read.secret("TURNOUT_DATABASE_URL"),
                log_url=read.secret("TURNOUT_DATABASE_LOG_URL"),
                sync_url=read.secret("TURNOUT_DATABASE_SYNC_URL"),
            ),
            http=_http(read),
            limits=_limits(read),
            journal=JournalSettings(
                spool_max_bytes=read.integer("TURNOUT_SPOOL_MAX_BYTES", 1024 * MIB, MIB, 1024 * 1024 * MIB),
                retention_days=read.integer("TURNOUT_LOG_RETENTION_DAYS", 90, 1, 3650),
                diskless=read.switch("TURNOUT_DISKLESS"),
            ),
            usage=_usage(read),
            registry=_registry(read),
            serving=_serving(read),
            unleash=_unleash(read),
            issuers=tuple(read.issuers("TURNOUT_JWT_ISSUERS")),
            log_level=read.text("TURNOUT_LOG_LEVEL", "info"),
            unknown=read.unread(),
        )


class _Reader:
    """Reads each variable once, remembers which were read, and says what is wrong with a bad one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._read: set[str] = set()

    def text(self, name: str, default: str) -> str:
        self._read.add(name)
        return self._environ.get(name, "").strip() or default

    def secret(self, name: str) -> Secret | None:
        value = self.text(name, "")
        return Secret(value) if value else None

    def path(self, name: str) -> Path | None:
        value = self.text(name, "")
        return Path(value).absolute() if value else None

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        return int(self._bounded(name, default, low, high, int, "a whole number"))

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return self._bounded(name, default, low, high, float, "a number")

    def choice(self, name: str, kind: type[E], default: E) -> E:
        text = self.text(name, default.value)
        try:
            return kind(text)
        except ValueError:
            known = ", ".join(repr(member.value) for member in kind)
            raise ConfigurationError(f"{name} is {text!r}; it must be one of {known}.") from None

    def switch(self, name: str) -> bool:
        text = self.text(name, "off").lower()
        if text not in _SWITCH:
            raise ConfigurationError(f"{name} is {text!r}; it must be 'on' or 'off'.")
        return _SWITCH[text]

    def strings(self, name: str) -> tuple[str, ...]:
        data = self._json(name)
        if isinstance(data, list) and all(isinstance(item, str) for item in data):
            return tuple(data)
        raise ConfigurationError(f'{name} must be a JSON list of strings, like ["https://app.example.org"].')

    def restricted_roles(self, name: str) -> frozenset[Role] | None:
        """None where nothing is set. An ADMIN and an OPERATOR cannot be among them: they register."""
        if not self.text(name, ""):
            return None
        roles = frozenset(self.strings(name))
        if roles <= _RESTRICTED:
            return frozenset(map(Role, roles))
        raise ConfigurationError(f'{name} must be a JSON list out of {", ".join(sorted(_RESTRICTED))}, like ["PREDICTOR"].')

    def networks(self, name: str) -> list[IPv4Network | IPv6Network]:
        try:
            return [ip_network(item) for item in self.strings(name)]
        except ValueError as error:
            raise ConfigurationError(f'{name} must be a JSON list of networks, like ["10.0.0.0/8"]: {error}.') from None

    def issuers(self, name: str) -> list[Issuer]:
        data = self._json(name)
        if not isinstance(data, list):
            raise ConfigurationError(f"{name} must be a JSON list of issuers; docs/settings.md shows one.")
        return [read_issuer(f"{name}[{index}]", item) for index, item in enumerate(data)]

    def unread(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._environ if name.startswith("TURNOUT_") and name not in self._read | _READ_ELSEWHERE))

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self.text(name, "[]"))
        except ValueError as error:
            raise ConfigurationError(f"{name} is not JSON: {error}.") from None

    def _bounded(self, name: str, default: float, low: float, high: float, kind: Callable[[str], float], what: str) -> float:
        text = self.text(name, str(default))
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ConfigurationError(f"{name} is {text!r}; it must be {what} from {low} to {high}.")
        return value


def _http(read: _Reader) -> HttpSettings:
    return HttpSettings(
        host=read.text("TURNOUT_HOST", "127.0.0.1"),
        port=read.integer("TURNOUT_PORT", 8000, 0, 65535),
        workers=read.integer("TURNOUT_WORKERS", 1, 1, 256),
        max_body_bytes=read.integer("TURNOUT_MAX_BODY_BYTES", 8 * MIB, 1024, 1024 * MIB),
        max_body_bytes_under_way=read.integer("TURNOUT_MAX_BODY_BYTES_UNDER_WAY", 256 * MIB, MIB, 1024 * 1024 * MIB),
        request_timeout_s=read.number("TURNOUT_REQUEST_TIMEOUT_S", 10.0, 0.05, 600.0),
        cors_origins=read.strings("TURNOUT_CORS_ORIGINS"),
        trusted_proxies=tuple(read.networks("TURNOUT_TRUSTED_PROXIES")),
        metrics_token=read.secret("TURNOUT_METRICS_TOKEN"),
        documents_only=read.restricted_roles("TURNOUT_DOCUMENTS_ONLY"),
        max_in_flight=read.integer("TURNOUT_MAX_IN_FLIGHT", 512, 8, 100_000),
        max_connections=read.integer("TURNOUT_MAX_CONNECTIONS", 16_384, 16, 1_000_000),
        max_connections_per_address=read.integer("TURNOUT_MAX_CONNECTIONS_PER_ADDRESS", 1024, 1, 1_000_000),
        max_head_bytes=read.integer("TURNOUT_MAX_HEAD_BYTES", 65_536, 4096, MIB),
        head_timeout_s=read.number("TURNOUT_HEAD_TIMEOUT_S", 10.0, 0.5, 600.0),
        idle_timeout_s=read.number("TURNOUT_IDLE_TIMEOUT_S", 75.0, 1.0, 3600.0),
        send_timeout_s=read.number("TURNOUT_SEND_TIMEOUT_S", 10.0, 0.5, 600.0),
        stop_grace_s=read.number("TURNOUT_STOP_GRACE_S", 1.0, 0.0, 600.0),
    )


def _limits(read: _Reader) -> LimitSettings:
    """Valkey's own names for the schemes are taken, too."""
    url = read.text("TURNOUT_REDIS_URL", "")
    scheme, separator, rest = url.partition("://")
    known = {"valkey": "redis", "valkeys": "rediss", "redis": "redis", "rediss": "rediss", "unix": "unix"}
    if url and (not separator or not rest or scheme not in known):
        raise ConfigurationError("TURNOUT_REDIS_URL must be like redis://limits.example.org:6379/0, or rediss:// or unix:///a/socket.")
    return LimitSettings(Secret(f"{known[scheme]}://{rest}") if url else None)


def _usage(read: _Reader) -> UsageSettings:
    currency, most = read.text("TURNOUT_CURRENCY", "EUR"), 10**15
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise ConfigurationError(f"TURNOUT_CURRENCY is {currency!r}; it must be three capital letters, like 'EUR'.")
    return UsageSettings(
        currency,
        price_per_million_requests=read.integer("TURNOUT_PRICE_PER_MILLION_REQUESTS", 0, 0, most),
        price_per_million_rows=read.integer("TURNOUT_PRICE_PER_MILLION_ROWS", 0, 0, most),
        price_per_compute_second=read.integer("TURNOUT_PRICE_PER_COMPUTE_SECOND", 0, 0, most),
        price_per_gib_day=read.integer("TURNOUT_PRICE_PER_GIB_DAY", 0, 0, most),
        slo_latency_ms=read.number("TURNOUT_SLO_LATENCY_MS", 100.0, 0.1, 600_000.0),
        slo_objective=read.number("TURNOUT_SLO_OBJECTIVE", 0.999, 0.5, 0.99999),
    )


def _registry(read: _Reader) -> RegistrySettings:
    return RegistrySettings(
        artifact_trust=read.choice("TURNOUT_ARTIFACT_TRUST", ArtifactTrust, ArtifactTrust.RESTRICTED),
        artifact_keys=read.text("TURNOUT_ARTIFACT_KEYS", "") or None,
        artifact_retention_days=read.integer("TURNOUT_ARTIFACT_RETENTION_DAYS", 30, 0, 3650),
        validation_timeout_s=read.number("TURNOUT_VALIDATION_TIMEOUT_S", 60.0, 1.0, 3600.0),
        worker_memory_bytes=read.integer("TURNOUT_WORKER_MEMORY_BYTES", 2048 * MIB, 256 * MIB, 1024 * 1024 * MIB),
    )


def _unleash(read: _Reader) -> UnleashSettings | None:
    """The URL may be the server's or that of its API; without one the other variables have no effect."""
    url, token = read.text("TURNOUT_UNLEASH_URL", "").rstrip("/"), read.secret("TURNOUT_UNLEASH_TOKEN")
    shared, refresh_s = read.switch("TURNOUT_UNLEASH_SHARED_FLAGS"), read.integer("TURNOUT_UNLEASH_REFRESH_S", 15, 1, 3600)
    if not url:
        return None
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise ConfigurationError(f"TURNOUT_UNLEASH_URL is {url!r}; it must be like https://unleash.example.org/api.")
    if token is None or not token.value.isascii() or not token.value.isprintable():
        raise ConfigurationError("TURNOUT_UNLEASH_TOKEN must be a backend token of the Unleash server, like 'default:production.5f1c...'.")
    return UnleashSettings(url if url.endswith("/api") else f"{url}/api", token, shared, refresh_s)


_RESTRICTED = frozenset(Role) - {Role.ADMIN, Role.OPERATOR}
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


def _serving(read: _Reader) -> ServingSettings:
    return ServingSettings(
        model_memory_bytes=read.integer("TURNOUT_MODEL_MEMORY_BYTES", 2048 * MIB, MIB, 1024 * 1024 * MIB),
        live_proof_share=read.number("TURNOUT_LIVE_PROOF_SHARE", 0.001, 0.0, 1.0),
        compiled_tolerance=read.number("TURNOUT_COMPILED_TOLERANCE", 1e-9, 0.0, 1e-5),
        cache_bytes=read.integer("TURNOUT_CACHE_BYTES", 64 * MIB, 0, 1024 * 1024 * MIB),
        cache_entries=read.integer("TURNOUT_CACHE_ENTRIES", 100_000, 0, 100_000_000),
        last_good_days=read.integer("TURNOUT_LAST_GOOD_DAYS", 7, 1, 365),
    )


_READ_ELSEWHERE = {"TURNOUT_TOKEN", "TURNOUT_URL"}  # the command line's own
