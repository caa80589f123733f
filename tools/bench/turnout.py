"""Turnout as a client meets it: a home of its own, a tenant, models that serve by graphs, running experiments, and the requests.

Everything is on: a token in each request, limits that are asked and do not refuse, a running experiment on each model, units that
vary, graphs, the DURABLE log, metrics.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from tools.bench import models, processes, servers, service
from tools.bench.load import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tools.bench.processes import Cores

PLAIN = "plain"  # the boosted model once more, without an experiment
ONE = "query($row: FeatureRow!, $unit: ID) { predict(model: %s, features: $row, unit: $unit) { id label probability version variant } }"
MANY = "query($matrix: FeatureMatrix!, $unit: ID) { predictBatch(model: %s, matrix: $matrix, unit: $unit) { id version probabilities } }"
PROMOTE = "mutation($model: String!, $version: Int!) { promote(model: $model, version: $version) { appliedEverywhere } }"
RUNTIMES = "query($model: String!) { model(name: $model) { versions { edges { node { number runtime } } } } }"
EXPERIMENT = "mutation($input: CreateExperimentInput!) { createExperiment(input: $input) { key } }"
START = "mutation($key: String!) { startExperiment(key: $key, rollout: 100) { key } }"
SETTINGS = (
    "mutation($tenant: String!, $settings: TenantSettingsInput!) { updateTenantSettings(tenant: $tenant, settings: $settings) { id } }"
)
PROMOTION_EVERY_S = 0.5
DRAINED_RECORDS, DRAIN_PATIENCE_S = 500, 20.0
SERVING, MODEL_HOST = " app.main ", " app.prediction.worker"


class Turnout:
    """The running service. `settings`: TURNOUT_ variables of this run."""

    def __init__(self, home: Path, cores: Cores, workers: int = 1, settings: Sequence[str] = ()) -> None:
        self._home, self._cores, new = home, cores, not home.exists()
        with processes.on(cores.beside):
            self._process, self.port = service.start_service(home, "--workers", str(workers), settings=settings)
        if new:
            service.make_tenant(home, self.port)
        self._tokens = {role: self._token(role) for role in ("ADMIN", "PREDICTOR", "OPERATOR")}
        self.pin()

    def _token(self, role: str) -> str:
        whose = [] if role == "OPERATOR" else ["--tenant", service.TENANT]
        return service.run(service.turnout(self._home, "token", "--subject", "bench", *whose, "--role", role, "--ttl", "4h"))

    def stop(self) -> None:
        processes.stop(self._process, signal.SIGINT, 30.0)

    # --- its processes

    def serving(self) -> list[int]:
        """The serving processes and the model host with its children: what answers."""
        return [found.pid for found in processes.tree(self._process.pid) if SERVING in found.arguments or MODEL_HOST in found.arguments]

    def workers(self) -> list[int]:
        return [found.pid for found in processes.tree(self._process.pid) if SERVING in found.arguments]

    def beside(self) -> list[int]:
        """The parent, PostgreSQL and the drain."""
        answering = set(self.serving())
        return [found.pid for found in processes.tree(self._process.pid) if found.pid not in answering]

    def pin(self) -> None:
        """Whoever answers on the server's core, the rest beside the generator; again before each measurement, for children come."""
        processes.pin(self.serving(), self._cores.server)
        processes.pin(self.beside(), self._cores.beside)

    # --- its set-up, over its own commands and GraphQL

    def register(self, folder: Path, name: str, *artifacts: str) -> None:
        """Versions 1, 2, ... of a model, of which the first serves."""
        for artifact in artifacts:
            options = [
                "--model",
                name,
                "--tenant",
                service.TENANT,
                "--task",
                "classification",
                "--sample",
                str(folder / "sample.json"),
                "--wait",
            ]
            service.run(service.turnout(self._home, "model", "register", str(folder / f"{artifact}.joblib"), *options, "--json"))
        service.run(service.turnout(self._home, "model", "promote", name, "1", "--tenant", service.TENANT, "--json"))

    def experiment(self, model: str) -> None:
        """All units, half of them with version 2."""
        variants = [{"name": "control", "version": 1, "control": True}, {"name": "treatment", "version": 2}]
        plan = {"key": model, "model": model, "variants": variants, "primaryMetric": {"name": "cured", "kind": "PROPORTION"}}
        self.ask("ADMIN", EXPERIMENT, input=plan)
        self.ask("ADMIN", START, key=model)

    def durability(self, kind: str) -> None:
        self.ask("OPERATOR", SETTINGS, tenant=service.TENANT, settings={"durability": kind})

    def runtimes(self, model: str) -> str:
        """How its versions are served: ONNX, SKLEARN, or both."""
        edges = self.ask("ADMIN", RUNTIMES, model=model)["model"]["versions"]["edges"]
        return " and ".join(sorted({edge["node"]["runtime"] for edge in edges}))

    def ask(self, role: str, document: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": document, "variables": variables}).encode()
        answer = json.loads(self._target(role, [body], '"data"').ask(body))
        if "errors" in answer:
            sys.exit(f"the service refuses: {answer['errors']}")
        return dict(answer["data"])

    # --- what is measured

    def one(self, model: str, *, units: bool = True, named: bool = False) -> Target:
        """`predict`, one row: as a list, or by the columns' names."""
        rows = models.rows_of(1, servers.number_of_bodies(1))[:, 0].tolist()
        given = [dict(zip(models.NAMES, row, strict=True)) for row in rows] if named else rows
        return self._predictions(ONE % json.dumps(model), [{"row": row} for row in given], '"label":"', units=units)

    def many(self, model: str, count: int) -> Target:
        """`predictBatch` with a matrix, for one unit."""
        batches = models.rows_of(count, servers.number_of_bodies(count)).tolist()
        return self._predictions(
            MANY % json.dumps(model), [{"matrix": {"data": rows}} for rows in batches], '"probabilities":[[', units=True
        )

    def _predictions(self, document: str, variables: list[dict[str, Any]], expected: str, *, units: bool) -> Target:
        who = ({"unit": f"user-{number}"} if units else {} for number in range(len(variables)))
        asked = [{"query": document, "variables": given | unit} for given, unit in zip(variables, who, strict=True)]
        return self._target("PREDICTOR", [json.dumps(body, separators=(",", ":")).encode() for body in asked], expected)

    def _target(self, role: str, bodies: list[bytes], expected: str) -> Target:
        headers = {"Authorization": f"Bearer {self._tokens[role]}", **servers.JSON_HEADERS}
        return Target(self.port, "/graphql", headers, bodies, expected)

    @contextlib.contextmanager
    def promotions(self, model: str) -> Iterator[list[float]]:
        """Promotes versions 2 and 1 by turns meanwhile; how many seconds each took."""
        took: list[float] = []
        ended = threading.Event()

        def promote() -> None:
            while not ended.wait(PROMOTION_EVERY_S):
                began = time.perf_counter()
                self.ask("ADMIN", PROMOTE, model=model, version=2 - len(took) % 2)
                took.append(time.perf_counter() - began)

        thread = threading.Thread(target=promote, daemon=True)
        thread.start()
        try:
            yield took
        finally:
            ended.set()
            thread.join(30)

    def drained(self) -> None:
        """Waits, bounded, until the log has caught up, so that one measurement does not pay for another's answers."""
        until = time.monotonic() + DRAIN_PATIENCE_S
        while self._undrained() > DRAINED_RECORDS and time.monotonic() < until:
            time.sleep(0.2)

    def _undrained(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("turnout_journal_depth_records"):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0
