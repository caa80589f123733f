"""The thing that is broken: a real `turnout serve` of two serving processes, four tenants with models and experiments, its database.

`EMBEDDED`: the service runs its own PostgreSQL. `EXTERNAL`: the suite runs one, stands a proxy before it, and may stop, freeze or
starve it while the service goes on.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psutil
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from app.db.driver import connect, run_blocking
from app.db.embedded.server import DATABASE, EmbeddedPostgres
from app.db.privileges import DatabaseRole
from app.journal.depth import read_depth
from app.journal.layout import pending_bytes
from app.kernel.clock import SystemClock
from app.kernel.home import DEVELOPMENT_ISSUER, MASTER_KEY, SPOOL
from app.tenancy.keys import MasterKey, TenantKeys
from tests.support.database import execute, remove_home
from tests.support.proxy import Proxy
from tests.support.service import ROOT, Client, Service, environment, free_port
from tools.chaos.crossing import THEIRS, Crossing
from tools.chaos.faults import kill_everything, until
from tools.chaos.history import Outcome, Row, Verdict, check
from tools.chaos.load import Caller, Load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from tools.chaos.history import Operation

TENANTS = ("north", "south", "east", "west")
MODEL = "model"
SHARE_OF_CAPACITY = 0.6
MOST_PER_S = 400.0  # the clients are Python too: beyond this they would be what is measured
_LIMITS = {"requestsPerSecond": 100_000, "burst": 1_000_000, "concurrency": 10_000, "rowsPerDay": 2**40}
_CREATE = "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }"
_DRAINED_WITHIN_S = 120.0
_ROW = (0.4, -0.2, 0.1)
_numbers = itertools.count(1)
READY_WITHIN_S = 120.0


class Kind(StrEnum):
    EMBEDDED = "embedded"
    EXTERNAL = "external"
    TRUSTING = "trusting"  # embedded; loads custom classes, whose mischief rows are about; short deadlines, small workers


DEADLINE_S = 2.0  # of the trusting world's requests
_SETTINGS = {
    Kind.TRUSTING: {
        "TURNOUT_ARTIFACT_TRUST": "full",
        "TURNOUT_REQUEST_TIMEOUT_S": str(DEADLINE_S),
        "TURNOUT_WORKER_MEMORY_BYTES": str(768 << 20),
    }
}


class World:
    """Made once for many rows: `begin` forgets what was before. `settings` are TURNOUT_ variables over the defaults."""

    def __init__(self, kind: Kind, settings: Mapping[str, str] | None = None, cluster: Mapping[str, str] | None = None) -> None:
        self.kind, self._settings = kind, _SETTINGS.get(kind, {}) | dict(settings or {})
        self._cluster_settings = dict(cluster or {})
        self.folder = Path(tempfile.mkdtemp(prefix="turnout-chaos-"))
        self.folder.chmod(0o711)
        self.home = self.folder / "home"
        self.port = free_port()
        self.cluster: EmbeddedPostgres | None = None
        self._proxy: Proxy | None = None
        self._service: Service | None = None
        self.tenants: dict[str, Client] = {}
        self._keys: dict[str, TenantKeys] = {}
        self._units: dict[tuple[str, str], str] = {}  # tenant and pseudonym -> unit
        self._known: set[str] = set()
        self._capacity = 0.0
        self.crossings: list[list[Crossing]] = []  # of every load since `begin`

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    @property
    def proxy(self) -> Proxy:
        assert self._proxy is not None
        return self._proxy

    @property
    def spool(self) -> Path:
        return self.home / SPOOL

    def build(self) -> World:
        """Started, with its tenants, models and experiments; takes some twenty seconds."""
        if self.kind is Kind.EXTERNAL:
            self._start_cluster()
        self.start()
        for number, name in enumerate(TENANTS):
            self.tenants[name] = self.service.new_tenant(name, **_LIMITS)
            _furnish(self.tenants[name], number)
        self._learn_keys()
        self._capacity = self._measure()
        return self

    def start(self, within_s: float = READY_WITHIN_S) -> float:
        """Starts the service (again); seconds until it was ready. Raises RuntimeError where it was not within `within_s`."""
        began = time.monotonic()
        self.launch()
        while not self.ready():
            if self.service.process.poll() is not None or time.monotonic() - began > within_s:
                raise RuntimeError(f"the service did not get ready: {self.said()[-600:]}")
            time.sleep(0.02)
        return time.monotonic() - began

    def launch(self) -> None:
        """As `start`, and nobody waits."""
        log = self.folder / "service.log"
        command = [sys.executable, "-m", "app.cli.main", "serve", "--port", str(self.port), "--workers", "2"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(self.home, **self._settings), stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self._service = Service(self.home, self.port, process, log)
        for client in self.tenants.values():
            client.service = self._service

    def said(self) -> str:
        """The service's log so far, of all its lives."""
        return (self.folder / "service.log").read_text(errors="replace")

    def stop(self) -> int:
        """The exit status of a clean stop."""
        return self.service.stop() if self._service else 0

    def awake(self) -> World:
        """Running, whatever an earlier row left behind."""
        if self.cluster:
            self.cluster.check()
        if self._service is None or self._service.process.poll() is not None:
            self.start()
        return self

    def close(self) -> None:
        """Nothing of it is left."""
        if self._service and self._service.process.poll() is None:
            try:
                self._service.stop()
            except Exception:  # noqa: BLE001  whatever a row broke, nothing may be left behind
                kill_everything(self._service)
        if self._proxy:
            self._proxy.__exit__()
        if self.cluster:
            self.cluster.stop()
            remove_home(self.folder / "cluster")
        remove_home(self.home)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def beside(self) -> Iterator[World]:
        """A second machine on the same database, with the same keys and a home of its own; gone afterwards."""
        other = World(self.kind, self._settings)
        other.home.mkdir(mode=0o700)
        for name in (MASTER_KEY, DEVELOPMENT_ISSUER):
            shutil.copy(self.home / name, other.home / name)  # with its mode
        try:
            other.start()
            yield other
        finally:
            other.close()

    def new_caller(self, name: str, **limits: int) -> Caller:
        """A tenant beside the four, of `limits`, with a compiled model; its rows are no part of the history."""
        name = f"{name}-{next(_numbers)}"
        tenant = self.service.new_tenant(name, **(_LIMITS | limits))
        features, labels = _training_data(0)
        tenant.serve(MODEL, "CLASSIFICATION", LogisticRegression().fit(features, labels))
        return Caller(name, tenant.token, MODEL, _ROW)

    def plain_caller(self) -> Caller:
        """Of the first tenant, for a model without an experiment."""
        tenant, name = self.tenants[TENANTS[0]], f"plain-{next(_numbers)}"
        features, labels = _training_data(0)
        tenant.serve(name, "CLASSIFICATION", LogisticRegression().fit(features, labels))
        return Caller(TENANTS[0], tenant.token, name, _ROW)

    def callers(self) -> list[Caller]:
        return [Caller(name, client.token, MODEL, _ROW) for name, client in self.tenants.items()]

    @property
    def per_s(self) -> float:
        """60 % of what this machine answered when the world was made."""
        return min(MOST_PER_S, SHARE_OF_CAPACITY * self._capacity)

    def load(self, label: str, *, share: float = 1.0, connections: int = 16, ports: Sequence[int] = ()) -> Load:
        """All four tenants at `share` of the usual pace; `label` makes the units the row's own."""
        load = Load(ports or [self.port], self.callers(), share * self.per_s, connections, label, probing=True)
        self.crossings.append(load.crossings)
        return load

    def begin(self) -> None:
        """Drained, and what is in the log so far belongs to nobody's history."""
        if until(lambda: not pending_bytes(self.spool), _DRAINED_WITHIN_S) is None:
            raise RuntimeError("what earlier rows left in the spool is not drained")
        self._known = {row.id for row in self._rows()}
        self.crossings = []

    def drained(self, within_s: float = _DRAINED_WITHIN_S) -> float | None:
        """Seconds until nothing waited in the spool any more; None where something still does."""
        return until(lambda: not pending_bytes(self.spool), within_s)

    def caught_up(self, within_s: float = _DRAINED_WITHIN_S) -> float | None:
        """Seconds until what waits in the spool, under load, is younger than a second; None where it was not within `within_s`."""
        return until(lambda: read_depth(self.spool, SystemClock()).oldest_age_s < 1.0, within_s)

    def verdict(self, operations: Iterable[Operation], *, only_of: str = "") -> Verdict:
        """The checker's, on these operations and what came into the log since `begin`; of one model's rows, where it is named."""
        asked = list(operations)
        for operation in asked:
            self._units[operation.tenant, self._keys[operation.tenant].unit_pseudonym(operation.unit)] = operation.unit
        return check(asked, [row for row in self._rows() if row.id not in self._known and only_of in {"", row.key}])

    def log_count(self) -> int:
        """How many rows came into the log since `begin`."""
        return sum(row.id not in self._known for row in self._rows())

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.service.url}/health", timeout=10).json()
        return found

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.service.url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """The sum of all series of a metric."""
        lines = httpx.get(f"{self.service.url}/metrics", timeout=10).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def url(self, role: DatabaseRole) -> str:
        """Past the proxy. The service's own cluster is joined, not owned."""
        if self.cluster is not None:
            return self.cluster.url(role)
        server = EmbeddedPostgres(self.home)
        if not server.join():
            raise RuntimeError("the embedded server does not run")
        return server.url(role)

    def superuser_url(self) -> str:
        """Of the suite's cluster, past the proxy, in the service's database."""
        assert self.cluster is not None
        return self.cluster._superuser_url(DATABASE)  # noqa: SLF001  for faults that no role of ours could plant

    def as_superuser(self, statements: Sequence[str]) -> None:
        """One after the other on one connection, each committed by itself."""

        async def run() -> None:
            connection = await connect(self.superuser_url())
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        run_blocking(run())

    def cluster_processes(self) -> list[psutil.Process]:
        """The database's processes, its parent first: the service's own server, or the suite's."""
        data = (self.folder / "cluster" if self.cluster else self.home) / "pg"
        pointer = data / "location"
        store = Path(pointer.read_text().strip()) if pointer.exists() else data
        parent = psutil.Process(int((store / "data" / "postmaster.pid").read_text().split()[0]))
        return [parent, *parent.children(recursive=True)]

    def _start_cluster(self) -> None:
        self.cluster = EmbeddedPostgres(self.folder / "cluster", self._cluster_settings)
        (self.folder / "cluster").mkdir(mode=0o711)
        self.cluster.start()
        self._proxy = Proxy.of_database(self.cluster.url(DatabaseRole.OWNER)).__enter__()
        roles = {"OWNER": DatabaseRole.OWNER, "": DatabaseRole.RUNTIME, "LOG": DatabaseRole.LOG, "SYNC": DatabaseRole.SYNC}
        for name, role in roles.items():
            variable = f"TURNOUT_DATABASE_{name}_URL" if name else "TURNOUT_DATABASE_URL"
            self._settings[variable] = self._proxy.url(self.cluster.url(role))
        command = [sys.executable, "-m", "app.cli.main", "migrate"]
        subprocess.run(command, cwd=ROOT, env=environment(self.home, **self._settings), check=True, capture_output=True, timeout=60)

    def _learn_keys(self) -> None:
        master = MasterKey.load(self.home / MASTER_KEY)
        query = "select id, tenant_id, wrapped_secret, pseudonym_generation from tenants"
        for row in execute(self.url(DatabaseRole.SYNC), query):
            if row["id"] in self.tenants:
                secret = master.unwrap(row["tenant_id"], row["wrapped_secret"])
                self._keys[row["id"]] = TenantKeys.derive(row["tenant_id"], secret, row["pseudonym_generation"])

    def tenant_id(self, name: str) -> UUID:
        return self._keys[name].tenant_id

    def _rows(self) -> list[Row]:
        query = "select id, model, version, experiment, variant, flag_revision, unit_hash from predictions"
        url, found = self.url(DatabaseRole.RUNTIME), []
        for name, keys in self._keys.items():
            for row in execute(url, query, tenant_id=keys.tenant_id):
                unit = self._units.get((name, row["unit_hash"]), f"?{row['unit_hash']}")
                told = (row["model"], row["version"], row["experiment"], row["variant"], row["flag_revision"])
                found.append(Row(str(row["id"]), name, unit, *told))
        return found

    def _measure(self) -> float:
        """Requests a second that this machine answers, all clients waiting for answers alone."""
        self._known = set()
        with Load([self.port], self.callers(), 0.0, label="warm") as load:
            time.sleep(2.0)
        return sum(tried.operation.outcome is Outcome.OK for tried in load.tried) / 2.0


def _furnish(tenant: Client, number: int) -> None:
    """Two versions and a running experiment of both; every other tenant's are compiled, the others' are asked in a locked child."""
    features, labels = _training_data(number)
    compiled = number % 2 == 0
    first, second = (LogisticRegression(), LogisticRegression(C=0.1)) if compiled else (KNeighborsClassifier(3), KNeighborsClassifier(5))
    tenant.serve(MODEL, "CLASSIFICATION", first.fit(features, labels))
    tenant.ready(MODEL, "CLASSIFICATION", second.fit(features, labels))
    if not number:
        tenant.serve(THEIRS, "CLASSIFICATION", LogisticRegression().fit(features, labels))
    variants = [{"name": "control", "version": 1, "control": True}, {"name": "treatment", "version": 2}]
    plan = {"key": "e", "model": MODEL, "variants": variants, "primaryMetric": {"name": "bought", "kind": "PROPORTION"}}
    tenant.ask(_CREATE, input=plan)
    tenant.ask('mutation { startExperiment(key: "e", rollout: 80) { key } }')


def _training_data(number: int) -> tuple[Any, Any]:
    features = np.random.default_rng(number).normal(size=(60, 3))
    return features, (features[:, 0] > 0).astype(int)
