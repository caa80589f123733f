"""Large bodies, read by a process beside the one that answers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from app.errors import AppError, BadRequest
from app.graphql.http import bulk as bulk_module
from app.graphql.http.body import from_body, from_bulk, from_object
from app.graphql.http.bulk import BulkBodies
from app.kernel.packed import LooseRows, PackedRows, listed
from app.prediction.bulkheads import TenantThreads

pytestmark = pytest.mark.integration

TENANT = UUID(int=1)
MATRIX = {"columns": ["a", "b"], "data": [[number / 7, None if number % 3 else number] for number in range(5_000)]}


def body_of(**variables: Any) -> bytes:
    return orjson.dumps({"query": "query($m: FeatureMatrix!) { predictBatch(model: 1, matrix: $m) { id } }", "variables": variables})


@pytest.fixture
def bulk() -> Any:
    made = BulkBodies(TenantThreads(1, 1).of)
    yield made
    made.close()


async def test_what_the_other_process_reads_is_what_this_one_would_have_read(bulk: BulkBodies) -> None:
    body = body_of(m=MATRIX, rows=[{"x": 1.5}] * 200, texts=[["a", 1, True, None]] * 3_000, model="risk")
    read = await bulk.read(TENANT, body)
    assert read is not None
    assert read.variables == {"m": True, "rows": False, "texts": False}
    there, here = from_bulk(read), from_body(body)
    assert there.bulk is read
    assert here.bulk is None
    assert (there.text, there.document) == (here.text, here.document)
    sent = there.variables
    assert [type(many) for many in (sent["m"]["data"], sent["rows"][0], sent["texts"][0])] == [PackedRows, PackedRows, LooseRows]
    sent["m"]["data"] = listed(sent["m"]["data"])
    assert {**sent, "rows": listed(sent["rows"]), "texts": listed(sent["texts"])} == here.variables


ROWS = [[1, 1.0, -0.0, 2**53 + 1, 2**64 - 1, 1e22, None, True, "é"]] * 1_500
AS_SENT = {
    "numbers of a matrix": body_of(m=MATRIX),
    "whole numbers, texts, objects": body_of(m={"data": ROWS}, rows=[{"x": 1, "y": [{"z": 1.0}]}] * 1_500, model="risk"),
    "more than 64 bits": body_of(r=[[1]]).replace(b"[[1]]", b"[" + b"[18446744073709551616,1.0e-400]," * 5_000 + b"[1]]"),
    "no rows": body_of(long="x" * 100_000),
    "no variables": orjson.dumps({"query": "{a}" + " " * 100_000, "variables": None}),
    "no object": b"[" + b"1," * 40_000 + b"1]",
    "no JSON": b'{"query": "' + b"x" * 100_000,
    "too long a list": body_of(rows=[[1.5, 2]] * 20_001),
    "too many values in lists": body_of(m={"data": [{"a": [1] * 101}] * 1_000}),
    "too deep": body_of(rows=[[1]] * 20_000, deep=orjson.loads(b"[" * 101 + b"]" * 101)),
    "no document": orjson.dumps({"variables": {"m": MATRIX}}),
}


def told(made: Any) -> str:
    return f"{type(made).__name__}: {made.message}" if isinstance(made, AppError) else repr(made)


@pytest.mark.parametrize("name", AS_SENT)
@pytest.mark.parametrize("lost", [False, True])
async def test_rows_as_they_were_sent_are_to_the_last_bit_and_error_what_this_process_would_have_read(
    bulk: BulkBodies, name: str, lost: bool
) -> None:
    if lost:
        await bulk.read(TENANT, AS_SENT["numbers of a matrix"])
        os.kill(bulk._process.pid, signal.SIGKILL)
        bulk._process.wait()
    found: list[Any] = []
    for read in (lambda body: bulk.as_sent(TENANT, body, from_object), lambda body: asyncio.to_thread(from_body, body)):
        try:
            found.append(await read(AS_SENT[name]))
        except AppError as error:
            found.append(error)
    assert told(found[0]) == told(found[1])


async def test_a_body_without_many_rows_is_read_here(bulk: BulkBodies) -> None:
    assert await bulk.read(TENANT, body_of(long="x" * 100_000)) is None
    assert await bulk.read(TENANT, body_of(m=MATRIX)) is not None


async def test_a_body_that_is_no_json_is_refused(bulk: BulkBodies) -> None:
    with pytest.raises(BadRequest, match="is not JSON"):
        await bulk.read(TENANT, b'{"query": "' + b"x" * 100_000)
    assert await bulk.read(TENANT, body_of(m=MATRIX)) is not None


async def test_rows_fit_only_variables_that_take_them_where_they_are(bulk: BulkBodies) -> None:
    read = await bulk.read(TENANT, body_of(m=MATRIX))
    assert read is not None
    assert read.fits({"m": True, "r": False})
    assert not read.fits({"m": False})
    assert not read.fits({"r": True})


async def test_released_rows_are_freed_beside_the_loop_and_few_are_kept(bulk: BulkBodies) -> None:
    read = await bulk.read(TENANT, body_of(many=[["a"]] * 1_001, few=[["a"]] * 1_000))
    assert read is not None
    many, few = (read.data["variables"][name][0] for name in ("many", "few"))
    bulk.release(TENANT, read)
    assert await bulk.read(TENANT, body_of(m=MATRIX)) is not None  # the lane does one thing at a time
    assert (many.count, few.count) == (0, 1_000)


async def test_a_reader_that_dies_costs_nobody_an_error_and_is_started_again(bulk: BulkBodies) -> None:
    assert await bulk.read(TENANT, body_of(m=MATRIX)) is not None
    os.kill(bulk._process.pid, signal.SIGKILL)
    bulk._process.wait()
    assert await bulk.read(TENANT, body_of(m=MATRIX)) is None
    assert await bulk.read(TENANT, body_of(m=MATRIX)) is not None


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_what_could_not_be_taken_from_the_reader_is_not_the_next_ones(
    bulk: BulkBodies, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    def body(number: float) -> bytes:
        return body_of(rows=[{"a": number}] * 3)

    taken = 0

    def without_memory(*given: Any) -> bytearray:
        nonlocal taken
        taken += 1
        if taken == part + 1:
            raise MemoryError
        return exactly(*given)

    exactly = bulk_module.exactly
    assert await bulk.read(TENANT, body(1.0)) is not None
    with monkeypatch.context() as patch:
        patch.setattr(bulk_module, "exactly", without_memory)
        with pytest.raises(MemoryError):
            await bulk.read(TENANT, body(2.0))
    read = await bulk.read(TENANT, body(3.0))
    assert read is not None
    assert read.data["variables"]["rows"][0].listed() == [{"a": 3.0}] * 3


async def test_the_reader_knows_nothing_of_the_service_and_ends_with_it(bulk: BulkBodies) -> None:
    await bulk.read(TENANT, body_of(m=MATRIX))
    environ = await asyncio.to_thread(Path(f"/proc/{bulk._process.pid}/environ").read_bytes)
    known = {entry.partition(b"=")[0] for entry in environ.split(b"\0") if entry}
    assert known == {b"PATH", b"PYTHONPATH", b"OPENBLAS_NUM_THREADS"}
    process = bulk._process
    bulk._connection.close()
    assert process.wait(20) == 0
