"""Large requests answered alike, whoever reads them: the process itself, as it reads small ones or as large ones, or the one beside it."""

import asyncio
import os
import re
import signal
import threading
from functools import partial
from uuid import uuid4

import pytest

from app.graphql.http import handler, strict_json
from app.graphql.http.bulk import LARGE_BYTES, BulkBodies, read_here
from app.prediction.bulkheads import TenantThreads
from tests.support.predicting import Process, running, variant
from tests.support.prediction_documents import Request
from tests.support.two_ways import Way

pytestmark = pytest.mark.integration
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
SAID = "{id rowCount values labels version}"
ROWS = 'query($r: [FeatureRow!]) {predictBatch(model: "sum", rows: $r) ' + SAID + "}"
MATRIX = 'query($m: FeatureMatrix) {predictBatch(model: "sum", matrix: $m) ' + SAID + "}"
LISTS = [[number / 7, number % 5] for number in range(6_000)]
OBJECTS = [{"b": number % 3, "a": -number} for number in range(6_000)]
PADDING = "x" * 70_000
FEW = 900  # rows that are read where the request is answered

CASES = {
    "lists": (ROWS, {"r": LISTS}),
    "objects": (ROWS, {"r": OBJECTS}),
    "a matrix": (MATRIX, {"m": {"data": LISTS}}),
    "its columns in another order": (MATRIX, {"m": {"columns": ["b", "a"], "data": LISTS}}),
    "columns that the model does not have": (MATRIX, {"m": {"columns": ["b", "c"], "data": LISTS}}),
    "a column twice": (MATRIX, {"m": {"columns": ["b", "b"], "data": LISTS}}),
    "objects in a matrix with columns": (MATRIX, {"m": {"columns": ["b", "a"], "data": OBJECTS}}),
    "more beside the matrix": (MATRIX, {"m": {"data": LISTS, "more": 1}}),
    "a text among numbers": (ROWS, {"r": [*LISTS, ["1", 2]]}),
    "a null where a number belongs": (ROWS, {"r": [*LISTS, [None, 2]]}),
    "no row": (ROWS, {"r": [*OBJECTS, None]}),
    "rows of unlike shape": (ROWS, {"r": [*LISTS, [1]]}),
    "more rows than are taken": (ROWS, {"r": [[1.25, 2]] * 10_001}),
    "far more": (ROWS, {"r": [[1, 2]] * 20_001}),
    "both forms": (
        'query($r: [FeatureRow!], $m: FeatureMatrix) {predictBatch(model: "sum", rows: $r, matrix: $m) ' + SAID + "}",
        {"r": LISTS, "m": {"data": LISTS}},
    ),
    "rows in the matrix of the document": (
        'query($r: [FeatureRow!]) {predictBatch(model: "sum", matrix: {columns: ["b", "a"], data: $r}) ' + SAID + "}",
        {"r": LISTS},
    ),
    "twice by aliases": ("query($r: [FeatureRow!]) {" + " ".join(f'{k}: predictBatch(model: "sum", rows: $r) ' + SAID for k in "xy") + "}", {"r": LISTS}),
    "many rows as the features of one": ('query($r: FeatureRow!) {predict(model: "sum", features: $r) {value}}', {"r": LISTS}),
    "beside one row": (
        'query($r: [FeatureRow!]) {predictBatch(model: "sum", rows: $r) {rowCount} predict(model: "sum", features: [1, 2]) {value}}',
        {"r": LISTS},
    ),
    "whole numbers beside one row": (
        'query($r: [FeatureRow!]) {predictBatch(model: "sum", rows: $r) {values} predict(model: "sum", features: {a: 2, b: $r}) {value}}',
        {"r": [[number, 2**53 - number] for number in range(6_000)]},
    ),
    "a list for a text": ("query($r: String!) {predictBatch(model: $r, rows: [[1, 2]]) {rowCount}}", {"r": LISTS}),
    "data for attributes": (
        'query($a: Attributes) {predictBatch(model: "sum", rows: [[1, 2]], attributes: $a) {rowCount}}',
        {"a": {"data": LISTS}},
    ),
    "no rows at all": ('query($u: ID) {predict(model: "sum", features: [1, 2], unit: $u) {value}}', {"u": PADDING}),
    "a variable that the document does not know": (MATRIX, {"m": {"data": [[1, 2]]}, "else": LISTS}),
}  # fmt: skip


def fewer(value):
    """The same with a few rows of many, among them the last."""
    if isinstance(value, dict):
        return {name: fewer(inner) for name, inner in value.items()}
    return value[:FEW] + value[-1:] if isinstance(value, list) and len(value) > FEW else value


class Door:
    def __init__(self, process):
        self.process = process

    async def admit(self, authorization, request_id, deadline, address):
        return self.process.context()


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """What the two ways say to each case, and how many bodies were read beside."""
    process = Process(tmp_path_factory.mktemp("process"))
    bulk = BulkBodies(TenantThreads(1, 1).of)
    read = []

    async def counted(tenant_id, body, reader=bulk.read):
        read.append(await reader(tenant_id, body))
        return read[-1]

    async def ask():
        await process.run(running(variant("one", 1, control=True), variant("two", 2)))
        found = {}
        for plans in (True, False):
            here, beside = (Way(plans=plans, real=process.predictor, gatekeeper=Door(process)) for _ in range(2))
            bulk.read = counted
            beside.endpoint._bulk = bulk
            for name, (text, variables) in CASES.items():
                request = Request(text, variables, None, "application/json", get=False)
                found[name, plans] = [(await way.ask(request)).answer for way in (here, beside)]
            del bulk.read
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(handler, "LARGE_BYTES", 0)
                for name, (text, variables) in CASES.items():
                    request = Request(text, fewer(variables), None, "application/json", get=False)
                    found[name, plans, "few"] = [(await way.ask(request)).answer for way in (here, beside)]
        return found

    yield asyncio.run(ask()), read
    bulk.close()


@pytest.mark.parametrize("plans", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_large_request_is_answered_alike_whoever_read_it(answered, name, plans):
    here, beside = answered[0][name, plans]
    assert beside.status == here.status
    assert _ID.sub(b"an id", beside.body) == _ID.sub(b"an id", here.body)


@pytest.mark.parametrize("plans", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_request_of_fewer_rows_is_answered_alike_however_it_was_read(answered, name, plans):
    plainly, quickly = answered[0][name, plans, "few"]
    assert quickly.status == plainly.status
    assert _ID.sub(b"an id", quickly.body) == _ID.sub(b"an id", plainly.body)


def test_all_of_them_but_one_without_rows_went_to_the_process_beside(answered):
    found, read = answered
    assert len(read) == 2 * (len(CASES) - 1)
    assert sum(each is not None for each in read) >= 2 * (len(CASES) - 3)
    assert found["lists", True][1].json["data"]["predictBatch"]["rowCount"] == 6_000


async def test_numbers_that_are_read_quickly_are_read_here_while_nobody_else_would_have_to_wait():
    numbers, objects = [[number / 7] * 20 for number in range(250)], [{"a": number / 7, "b": -number} for number in range(2_500)]
    quick, slow = (
        Request(text, sent, None, "application/json", get=False) for text, sent in ((ROWS, {"r": numbers}), (ROWS, {"r": objects}))
    )
    way, bulk, read = Way(plans=True), BulkBodies(TenantThreads(1, 1).of), []

    async def counted(tenant_id, body, reader=bulk.read):
        read.append(read_here(body) is not None)
        return await reader(tenant_id, body)

    way.endpoint._bulk, bulk.read = bulk, counted
    try:
        await way.ask(quick)
        assert read == []
        await way.ask(slow)
        assert read == [False]
        other = way.endpoint._admission.begin(uuid4(), float("inf"))
        await way.ask(quick)
        assert read == [False, True]
        other.end()
        await way.ask(quick)
        assert read == [False, True]
    finally:
        bulk.close()


async def test_nobody_waits_for_the_process_beside_to_start_who_need_not():
    quick = Request(ROWS, {"r": [[number / 7] * 20 for number in range(250)]}, None, "application/json", get=False)
    lanes = TenantThreads(1, 1).of
    way, bulk, beside = Way(plans=True), BulkBodies(lanes), []

    async def counted(tenant_id, body, reader=bulk.read):
        beside.append(bulk._process and bulk._process.pid)
        return await reader(tenant_id, body)

    async def ask():
        assert (await way.ask(quick)).answer.status == 200
        return list(beside)

    way.endpoint._bulk, bulk.read = bulk, counted
    started = partial(asyncio.get_running_loop().run_in_executor, lanes(uuid4()), bool)  # a lane does one thing at a time
    try:
        assert (await ask(), bulk._process) == ([], None)
        way.endpoint._admission.begin(uuid4(), float("inf"))
        assert await ask() == []
        await started()
        first = bulk._process.pid
        assert await ask() == [first]
        os.kill(first, signal.SIGKILL)
        bulk._process.wait()
        assert await ask() == [first, first]  # nobody knew that it is gone
        assert await ask() == [first, first]
        await started()
        second = bulk._process.pid
        assert await ask() == [first, first, second]
        assert second != first
        bulk.close()
        way.endpoint._admission.begin(uuid4(), float("inf"))
        assert await ask() == [first, first, second, None]  # two others would have waited for the loop: better one for the process
    finally:
        bulk.close()


@pytest.mark.parametrize(
    ("body", "quick"),
    [
        (b'{"a": [' + b"1," * 25_000 + b"1]}", True),
        (b'{"a": [' + b"1," * 25_001 + b"1]}", False),
        (b"[" * 2_501, False),
        (b"{" * 101, False),
        (b":" * 101, False),
        (b"{}".ljust(256 * 1024), True),
        (b"{}".ljust(256 * 1024 + 1), False),
    ],
)
def test_a_body_is_quickly_read_that_holds_few_of_what_takes_long(body, quick):
    assert (read_here(body) is not None) is quick


@pytest.mark.parametrize(
    "name",
    ["beside one row", "whole numbers beside one row", "many rows as the features of one", "a list for a text", "data for attributes"],
)
async def test_many_rows_that_are_asked_for_beside_something_else_are_never_read_by_the_loop(monkeypatch, name):
    text, variables = CASES[name]
    here = []

    def watched(body, *given, parse=strict_json._json):
        here.append((len(body) > LARGE_BYTES, threading.current_thread() is threading.main_thread()))
        return parse(body, *given)

    way, bulk = Way(plans=True), BulkBodies(TenantThreads(1, 1).of)
    way.endpoint._bulk = bulk
    monkeypatch.setattr(strict_json, "_json", watched)
    try:
        request = Request(text, variables, None, "application/json", get=False)
        beside = await way.ask(request)
        assert (True, True) not in here
        way.endpoint._bulk = None
        assert (await way.ask(request)).answer.status == beside.answer.status
        assert (True, True) in here
    finally:
        bulk.close()
