"""`python -m app.main`: one serving process. The one place where objects meet; no logic."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from starlette.routing import Route

from app.audit.heads import AuditHeads
from app.audit.ports import SEALS
from app.audit.service import AuditService
from app.db.breaker import DatabaseBreaker
from app.db.embedded.paths import runtime_dir
from app.db.session import Database
from app.db.sync import SyncDatabase
from app.errors import ConfigurationError
from app.experiments.flags.building import FlagBuilder
from app.experiments.folding import ROOMY, Folder
from app.experiments.forgetting import UnitForgetter
from app.experiments.guards import ExperimentsOfVersions
from app.experiments.outcomes import OutcomeService
from app.experiments.results import ResultsService
from app.experiments.sentinel import Sentinel
from app.experiments.service import ExperimentService
from app.graphql.context import GraphQLContext, Services
from app.graphql.http.admission import Admission, Places
from app.graphql.http.bulk import BulkBodies
from app.graphql.http.handler import GraphQLEndpoint
from app.graphql.http.options import EndpointOptions
from app.graphql.schema import build_schema
from app.journal.codec import DriversUuid
from app.journal.depth import read_depth
from app.journal.direct import HASTE, DirectLog
from app.journal.folding import UsageFolder
from app.journal.journal import Journal
from app.journal.sink import PostgresSink
from app.journal.spool import Spool
from app.kernel.clock import SystemClock
from app.kernel.exits import UNWRITTEN
from app.kernel.home import ARTIFACTS, LAST_GOOD, LIMITS, MASTER_KEY, MODEL_HOST_SOCKET, QUARANTINE, REPLICAS, SPOOL
from app.kernel.ids import IdMint
from app.kernel.machine import machine_name
from app.kernel.version import VERSION
from app.observability import logs
from app.observability.exposition import METRICS_FOLDER, exposition
from app.observability.metrics import Telemetry
from app.parts import Parts
from app.prediction.asking import Versions
from app.prediction.breakers import Breakers
from app.prediction.bulkheads import TenantThreads
from app.prediction.cache import PredictionCache
from app.prediction.captures import CapturedInputs
from app.prediction.choosing import Chooser
from app.prediction.comparison import VersionComparer
from app.prediction.confinement import ConfinementGate
from app.prediction.fallbacks import Fallbacks
from app.prediction.flags import FlagBook, KnownModels
from app.prediction.follower import Follower
from app.prediction.last_good.machine import LastGood
from app.prediction.live_proof import LiveProof
from app.prediction.loop_watch import LoopWatch
from app.prediction.opening import RuntimeOpener
from app.prediction.pool import RuntimePool
from app.prediction.quarantine import SharedMarks
from app.prediction.routing import RoutingTable
from app.prediction.runtimes.compiler import Compiler
from app.prediction.runtimes.flat import FlatFiles
from app.prediction.runtimes.host import ModelHost
from app.prediction.service import Predictor
from app.prediction.shadows import Shadows
from app.registry.artifacts import ArtifactCache, ArtifactUploads
from app.registry.candidates import VersionCandidates
from app.registry.comparison import VersionPairs
from app.registry.compiled_models import CompiledModels
from app.registry.everywhere import Everywhere
from app.registry.liveness import live_machines
from app.registry.mismatches import CompiledMismatches
from app.registry.publishing import PublishingService
from app.registry.retention import ArtifactRetention
from app.registry.routes import VersionLookup
from app.registry.service import RegistryService
from app.registry.signing import TrustedKeys
from app.registry.validation import Validator
from app.rollouts.service import RolloutService
from app.settings import ArtifactTrust, Settings
from app.tenancy.answers import TenantAnswers
from app.tenancy.changing import Changes
from app.tenancy.directory import TenantDirectory
from app.tenancy.documents.book import DocumentPolicy
from app.tenancy.documents.service import DocumentService
from app.tenancy.erasures import ErasureService
from app.tenancy.identity.gatekeeper import Gatekeeper
from app.tenancy.identity.trust import build_verifier
from app.tenancy.keys import MasterKey
from app.tenancy.life import TenantLife
from app.tenancy.limits.budgets import Budgets, Machines
from app.tenancy.limits.limiter import RateLimiter
from app.tenancy.limits.under_way import UnderWay
from app.tenancy.newcomers import Newcomers
from app.tenancy.revocations import Revocations
from app.tenancy.sealed_files import SealedFolder
from app.tenancy.seals import TenantSeals
from app.tenancy.service import TenantService
from app.tenancy.service_levels import ServiceLevels
from app.tenancy.standing import TenantStanding
from app.tenancy.types import TenantLimits
from app.usage.prices import Prices
from app.usage.service import UsageService
from app.web.connections import ConnectionLimits, Connections, raise_file_limit
from app.web.front import Front
from app.web.gauges import Gauges
from app.web.pages import not_found
from app.web.probes import Readiness, loaded_models, probes_of
from app.web.serving import Leaving, Serving, serve
from app.web.system import SystemPages
from app.web.uploads import UPLOADS, UploadEndpoint

if TYPE_CHECKING:
    from uuid import UUID

    from app.experiments.unleash.experiments import UnleashExperiments
    from app.experiments.unleash.source import UnleashFlagSource


def build_parts(settings: Settings, telemetry: Telemetry, index: int, slot: int) -> Parts:
    """Everything made and connected to nothing yet; raises ConfigurationError for keys, folders or URLs that cannot be used."""
    clock = SystemClock()
    master_key = MasterKey.load(settings.master_key_file or settings.home / MASTER_KEY)
    runtime_url, sync_url = _url(settings.database.runtime_url), _url(settings.database.sync_url)
    known = {SEALS: TenantSeals(master_key)}
    breaker = DatabaseBreaker()
    database, sync_database = Database(runtime_url, info=known, breaker=breaker), SyncDatabase(sync_url, breaker=breaker)
    directory = TenantDirectory(master_key)
    limiter = RateLimiter(settings.home / LIMITS, clock)
    under_way = UnderWay.of_worker(limiter, slot, settings.http.workers, settings.http.request_timeout_s)
    budgets = _budgets(settings, limiter, sync_database, telemetry, clock)
    answers = TenantAnswers(directory, budgets, under_way, TenantLimits())
    threads, host_socket = TenantThreads(), runtime_dir(settings.home) / MODEL_HOST_SOCKET
    marks = SharedMarks(settings.home / QUARANTINE, clock)
    host = ModelHost(host_socket, telemetry.worker_died, threads, marks, telemetry.input_quarantined)
    gate = ConfinementGate(host, settings.home)
    keys = TrustedKeys.read(settings.registry.artifact_keys, required=settings.registry.artifact_trust is ArtifactTrust.SIGNED_ONLY)
    artifacts = ArtifactCache(settings.home / ARTIFACTS, database, answers, keys)
    compiled = CompiledModels(database, answers)
    graphs = FlatFiles(settings.home / ARTIFACTS, compiled, answers)
    pool = RuntimePool(RuntimeOpener(host, artifacts, gate, graphs, threads), settings.serving.model_memory_bytes, clock)
    table, announced = RoutingTable(), _Later()
    cache = PredictionCache(settings.serving.cache_bytes, settings.serving.cache_entries, clock)
    live_proof = LiveProof(pool, table, CompiledMismatches(database, clock, announced), telemetry, settings.serving.live_proof_share)
    compiler = Compiler(host_socket, settings.serving.compiled_tolerance)
    validator = Validator(database, artifacts, host, compiler, compiled, gate, clock, announced, settings.registry.validation_timeout_s)
    sealed = SealedFolder(settings.home / LAST_GOOD, master_key.box(LAST_GOOD))
    last_good = LastGood.of(sealed, sync_url, breaker, settings.serving.last_good_days, telemetry, clock)
    name = f"{machine_name(settings.home)}/{os.getpid()}-{index}"
    flag_server = _flag_server(settings, database, sync_database, telemetry, clock, sealed)
    flags = FlagBook(directory, FlagBuilder(), telemetry, flag_server)
    announced.follower = follower = Follower(
        sync_url, runtime_url, name, directory, table, pool, validator, flags, clock, breaker, last_good, settings.home / REPLICAS
    )
    spool = Spool(settings.home / SPOOL, settings.journal.spool_max_bytes, clock)
    direct = DirectLog(PostgresSink(_url(settings.database.log_url), HASTE), telemetry, clock)
    journal = Journal(spool, direct, diskless=settings.journal.diskless)
    chooser, shadows = Chooser(table, VersionLookup(database), pool, telemetry), Shadows(table, pool, spool, telemetry, clock)
    everywhere = Everywhere(database, announced)
    registry = RegistryService(database, clock, answers, everywhere, keys, artifacts, ExperimentsOfVersions())
    candidates = VersionCandidates()
    experiments = ExperimentService(database, clock, candidates, answers, everywhere)
    counting = Database(runtime_url, ROOMY, pool_size=1, max_overflow=2, info=known, breaker=breaker)
    folder = Folder(counting, sync_database, answers, clock)
    changes = Changes(database, directory, clock, everywhere)
    uploads = ArtifactUploads(database, clock, answers, answers, keys, TenantStanding())
    newcomers = Newcomers(changes, master_key)
    gatekeeper = Gatekeeper(build_verifier(settings, clock, sealed), directory, clock, follower.caught_up, newcomers, limiter)
    versions = Versions(pool, cache, live_proof, breakers := Breakers(telemetry, LoopWatch(clock)), clock)
    fallbacks, mint = Fallbacks(table, versions, telemetry), IdMint(clock, DriversUuid)
    services = Services(
        predictor=Predictor(directory, chooser, versions, fallbacks, shadows, journal, answers, mint, telemetry, threads),
        registry=registry,
        publishing=PublishingService(database, clock, registry, uploads, artifacts, gatekeeper),
        comparer=VersionComparer(VersionPairs(database), pool),
        tenants=TenantService(changes, master_key, budgets),
        tenant_life=TenantLife(changes),
        revocations=Revocations(changes, sync_database),
        documents=DocumentService(changes),
        audit=AuditService(database),
        usage=UsageService(database, Prices.of(settings.usage), clock),
        service_levels=ServiceLevels(database, clock, name, settings.usage),
        experiments=experiments,
        outcomes=OutcomeService(database, clock, answers, answers, answers),
        results=ResultsService(counting, folder, candidates, clock),
        rollouts=RolloutService(database, experiments, registry),
        erasures=ErasureService(counting, directory, UnitForgetter(), changes),
        captured=CapturedInputs(database, directory),
    )
    retention = ArtifactRetention(database, sync_database, settings.home / ARTIFACTS, clock, settings.registry.artifact_retention_days)
    return Parts(
        database,
        sync_database,
        directory,
        gatekeeper,
        limiter,
        budgets,
        answers,
        BulkBodies(TenantThreads(1, 1).of),
        host,
        pool,
        breakers,
        live_proof,
        shadows,
        table,
        follower,
        flag_server,
        _flag_experiments(flag_server, database, sync_database, KnownModels(directory, table), clock),
        validator,
        uploads,
        retention,
        counting,
        folder,
        Sentinel(counting, sync_database, folder, clock),
        spool,
        direct,
        AuditHeads(database, sync_database, clock),
        UsageFolder(counting, sync_database),
        services,
    )


def create_app(
    settings: Settings, telemetry: Telemetry, index: int = 0, connections: Connections | None = None, *, slot: int | None = None
) -> Front:
    """The ASGI app of one serving process; its lifespan takes the first picture of tenants and routes and keeps it fresh."""
    parts = build_parts(settings, telemetry, index, index if slot is None else slot)
    options = EndpointOptions(
        development=settings.development,
        max_body_bytes=settings.http.max_body_bytes,
        max_body_bytes_under_way=settings.http.max_body_bytes_under_way,
        request_timeout_s=settings.http.request_timeout_s,
        cors_origins=settings.http.cors_origins,
    )
    connections = connections or Connections(ConnectionLimits(), telemetry)
    connections.gate = admission = Admission(settings.http.max_in_flight, telemetry)
    graphql = GraphQLEndpoint(
        build_schema(),
        admission=admission,
        gatekeeper=parts.gatekeeper,
        throttle=parts.answers,
        telemetry=telemetry,
        context_factory=partial(GraphQLContext, services=parts.services),
        registered=DocumentPolicy(parts.directory.documents, settings.http.documents_only, development=settings.development),
        options=options,
        served=parts.services.service_levels,
        bulk=parts.bulk,
    )
    uploads = UploadEndpoint(
        parts.uploads, parts.gatekeeper, parts.answers, Places(UPLOADS, 1, "upload", telemetry), settings.http.cors_origins
    )
    token = settings.http.metrics_token
    ready = Serving(Readiness(parts.follower), connections)
    pages = SystemPages(
        VERSION,
        probes=probes_of(
            parts.sync_database, parts.follower, parts.host, parts.flag_server, parts.budgets, settings.home / SPOOL, SystemClock()
        ),
        ready=ready,
        models=lambda named: loaded_models(parts.pool, parts.breakers, parts.table, parts.directory, named),
        exposition=lambda with_tenants: exposition(
            settings.home / METRICS_FOLDER,
            with_tenants=with_tenants,
            readings=read_depth(settings.home / SPOOL, SystemClock()).readings(),
        ),
        gatekeeper=parts.gatekeeper,
        metrics_token=None if token is None else token.value,
        development=settings.development,
    )
    routes = [Route("/graphql", graphql), Route("/artifacts", uploads), *pages.routes()]

    gauges = Gauges(telemetry, parts.spool, parts.pool, parts.table, parts.follower, SystemClock())
    gauges.also(lambda: telemetry.database(is_away=parts.follower.database_away))
    gauges.also(lambda: telemetry.serving(connections.open, admission.turn_s))
    lifespan = parts.lifespan(gauges, admission, ready.tell_parent)
    app = Front("/graphql", graphql, routes=routes, lifespan=lifespan, exception_handlers={404: not_found, 405: not_found})
    app.state.spool = parts.spool
    return app


def _budgets(settings: Settings, limiter: RateLimiter, sync_database: SyncDatabase, telemetry: Telemetry, clock: SystemClock) -> Budgets:
    if settings.limits.redis_url is None:
        return Budgets(limiter)
    from app.tenancy.limits.shared_store import SharedStore  # 11 MiB of a process that most have no use for

    async def count() -> int:
        async with sync_database.driver_connection() as connection:
            return await live_machines(connection)

    return Budgets(limiter, SharedStore(settings.limits.redis_url.value, clock, telemetry), Machines(count))


def _flag_server(
    settings: Settings, database: Database, sync_database: SyncDatabase, telemetry: Telemetry, clock: SystemClock, kept: SealedFolder
) -> UnleashFlagSource | None:
    given = settings.unleash
    if given is None:
        return None
    from app.experiments.unleash.source import UnleashFlagSource, UnleashOptions  # 15 MiB of a process that most have no use for

    options = UnleashOptions(given.url, given.token.value, given.shared_flags, given.refresh_s)
    return UnleashFlagSource(options, database, sync_database, telemetry, clock, kept.file("unleash"))


def _flag_experiments(
    flag_server: UnleashFlagSource | None, database: Database, sync_database: SyncDatabase, models: KnownModels, clock: SystemClock
) -> UnleashExperiments | None:
    if flag_server is None:
        return None
    from app.experiments.unleash.experiments import UnleashExperiments  # as its source

    return UnleashExperiments(flag_server, database, sync_database, models, clock)


class _Later:
    """The follower, for those that are made before it and that it knows: an Announcer whose target is set once."""

    follower: Follower

    def wake(self) -> None:
        self.follower.wake()

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        await self.follower.caught_up(tenant_id)


def _url(secret: Any) -> str:
    if secret is None:
        raise ConfigurationError(
            "TURNOUT_DATABASE_URL, TURNOUT_DATABASE_LOG_URL and TURNOUT_DATABASE_SYNC_URL must be set; `turnout serve` sets them."
        )
    return str(secret.value)


@click.command()
@click.option("--fd", type=int, required=True, help="The listening socket, inherited from the parent.")
@click.option("--index", type=int, default=0, help="Which serving process of this machine this is.")
@click.option("--slot", type=int, help="Its place in what they count together, where that is not its index.")
def main(fd: int, index: int, slot: int | None) -> None:
    """One serving process; `turnout serve` starts as many as TURNOUT_WORKERS says."""
    settings = Settings.from_env(os.environ)  # noqa: TID251  a process's edge
    logs.configure(settings.log_level, f"serve-{index}")
    telemetry = Telemetry(settings.home / METRICS_FOLDER)
    connections = Connections(ConnectionLimits.of(settings.http, raise_file_limit()), telemetry)
    app = create_app(settings, telemetry, index, connections, slot=slot)
    serve(
        app,
        socket.socket(fileno=fd),
        connections,
        Leaving(settings.http.stop_grace_s),
        proxy_headers=bool(settings.http.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.http.trusted_proxies],
    )
    if app.state.spool.unwritten:
        raise SystemExit(UNWRITTEN)


if __name__ == "__main__":
    main()
