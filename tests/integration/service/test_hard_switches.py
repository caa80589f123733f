"""Switches that cannot be made as usual: no memory for old and new together, a graph known to be wrong whose estimator is damaged."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

from app.db.embedded.server import EmbeddedPostgres
from app.prediction.budget import native_bytes
from tests.support.database import execute
from tests.support.service import PREDICT, own_service
from tests.support.serving import compiled_route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Client, Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("hard_switches")]

WORKERS = 2
COLUMNS = 40
PROMOTE = """mutation($model: String!, $version: Int!) { promote(model: $model, version: $version) {
  appliedEverywhere appliedBy { replica appliedAt } } }"""
RUNTIME = "query($model: String!, $number: Int!) { model(name: $model) { version(number: $number) { runtime warning } } }"


def neighbours(answer: float) -> bytes:
    """About 6 MB that no graph stands for; every answer is `answer`."""
    rows = np.random.default_rng(3).normal(size=(20_000, COLUMNS))
    written = io.BytesIO()
    joblib.dump(KNeighborsRegressor(1).fit(rows, np.full(len(rows), answer)), written)
    return written.getvalue()


def line() -> LinearRegression:
    rows = np.random.default_rng(5).normal(size=(50, 2))
    return LinearRegression().fit(rows, rows.sum(axis=1))


ONE, TWO = neighbours(1.0), neighbours(2.0)


@pytest.fixture(scope="module")
def narrow() -> Iterator[Service]:
    """A service with memory for one of `neighbours` and some graphs, not for two."""
    room = int(1.3 * native_bytes(compiled_route(None, size=len(ONE))))
    with own_service("--workers", str(WORKERS), TURNOUT_MODEL_MEMORY_BYTES=str(room)) as running:
        yield running


def promoted(admin: Client, version: int, model: str = "m") -> dict[str, Any]:
    """The promotion, once it is everywhere: a call waits two seconds for that, and said again it waits again."""
    end = time.monotonic() + 60
    while not (done := admin.ask(PROMOTE, model=model, version=version)["promote"])["appliedEverywhere"] and time.monotonic() < end:
        time.sleep(0.05)
    return done


class Asking(threading.Thread):
    """Asks without a pause until it is left."""

    def __init__(self, client: Client, model: str, row: list[float]) -> None:
        super().__init__()
        self.client, self.model, self.row = client, model, row
        self.values: list[float] = []
        self.codes: list[str] = []
        self.done = False

    def run(self) -> None:
        while not self.done:
            answer = self.client.post(PREDICT, model=self.model, row=self.row).json()
            if answer.get("errors"):
                self.codes.append(answer["errors"][0]["extensions"]["code"])
            else:
                self.values.append(answer["data"]["predict"]["value"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done = True
        self.join()


def test_an_alias_switches_though_old_and_new_have_no_room_together_and_nobody_else_notices(narrow: Service) -> None:
    admin, other = narrow.new_tenant("narrow"), narrow.new_tenant("neighbour")
    other.serve("line", "REGRESSION", line())
    for number, data in ((1, ONE), (2, TWO)):
        assert admin.ready("m", "REGRESSION", data) == number
    assert promoted(admin, 1)["appliedEverywhere"] is True
    row = [0.0] * COLUMNS
    with Asking(other, "line", [1.0, 2.0]) as others, Asking(admin, "m", row) as own:
        for version in (2, 1, 2):
            done = promoted(admin, version)
            assert (done["appliedEverywhere"], len(done["appliedBy"])) == (True, WORKERS)
            assert {admin.predict("m", row)["value"] for _ in range(8)} == {float(version)}
    assert others.codes == []
    assert {round(value, 6) for value in others.values} == {3.0}
    assert set(own.values) == {1.0, 2.0}
    assert set(own.codes) <= {"MODEL_UNAVAILABLE"}


def test_a_graph_known_to_be_wrong_answers_nobody_while_its_estimator_cannot_be_loaded(narrow: Service) -> None:
    admin = narrow.new_tenant("wrong")
    admin.serve("line", "REGRESSION", line())
    assert admin.ask(RUNTIME, model="line", number=1)["model"]["version"]["runtime"] == "ONNX"
    assert round(admin.predict("line", [1.0, 2.0])["value"], 6) == 3.0
    url = superuser(narrow)
    (found,) = execute(
        url, "select v.tenant_id, v.artifact_digest from model_versions v join tenants t using (tenant_id) where t.id = 'wrong'"
    )
    copy = narrow.home / "artifacts" / str(found[0]) / found[1]
    kept = copy.read_bytes()
    flip = "update artifact_chunks set data = set_byte(data, 100, get_byte(data, 100) # 1) where tenant_id = $1 returning 1"
    assert len(execute(url, flip, found[0])) == 1
    copy.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    # As the proof that goes on writes it down.
    execute(url, "update model_versions set runtime = 'SKLEARN' where tenant_id = $1", found[0])
    (row,) = execute(url, "update routing_generation set generation = generation + 1 returning generation")
    execute(url, "insert into outbox (generation, tenant_id) values ($1, $2)", row[0], found[0])
    execute(url, f"notify turnout_routing, '{row[0]}'")
    refused = until_refused(admin)
    assert (refused["code"], refused["retryAfterMs"] > 0) == ("MODEL_UNAVAILABLE", True)
    assert {admin.refused(PREDICT, model="line", row=[1.0, 2.0])["extensions"]["code"] for _ in range(20)} == {"MODEL_UNAVAILABLE"}
    execute(url, flip, found[0])
    end = time.monotonic() + 60
    while (answer := admin.post(PREDICT, model="line", row=[1.0, 2.0]).json()).get("errors"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert round(answer["data"]["predict"]["value"], 6) == 3.0


def test_one_flipped_bit_in_a_stored_graph_is_never_read_and_the_estimator_answers(narrow: Service) -> None:
    admin = narrow.new_tenant("flipped")
    admin.serve("line", "REGRESSION", line())
    rows = np.random.default_rng(6).normal(size=(50, 2))
    assert admin.ready("line", "REGRESSION", LinearRegression().fit(rows, 10 * rows.sum(axis=1))) == 2
    (found,) = execute(
        superuser(narrow),
        """update compiled_models c set data = set_byte(data, 50, get_byte(data, 50) # 1) from model_versions v join tenants t using (tenant_id)
        where t.id = 'flipped' and v.number = 2 and c.tenant_id = v.tenant_id and c.digest = v.compiled_digest
        returning c.tenant_id, c.digest""",
    )
    assert promoted(admin, 2, "line")["appliedEverywhere"] is True
    answers = [admin.predict("line", [1.0, 2.0]) for _ in range(8)]
    assert {(answer["version"], round(answer["value"], 6)) for answer in answers} == {(2, 30.0)}
    files = [path.name[:64] for path in (narrow.home / "artifacts" / str(found[0]) / "flat").glob("*.ort")]
    assert len(files) == 1
    assert found[1] not in files


def superuser(service: Service) -> str:
    server = EmbeddedPostgres(service.home)
    server.start()  # joins the one that runs
    return server._superuser_url("turnout")


def until_refused(admin: Client) -> dict[str, Any]:
    """The error's extensions, once every process has heard: twenty refusals in a row."""
    end, refusals = time.monotonic() + 30, 0
    while refusals < 20:
        assert time.monotonic() < end
        answer = admin.post(PREDICT, model="line", row=[1.0, 2.0]).json()
        refusals = refusals + 1 if answer.get("errors") else 0
    extensions: dict[str, Any] = answer["errors"][0]["extensions"]
    return extensions
