"""The source of flags: what a flag server says is taken where it is good, and nothing else changes anything."""

import json
from dataclasses import replace

import pytest

from app.experiments.flags.building import build_flags
from app.tenancy.keys import MasterKey
from app.tenancy.sealed_files import SealedFolder
from tests.integration.experiments.unleash.conftest import World, until
from tests.support.clock import ManualClock
from tests.support.database import execute
from tests.support.unleash_features import V1, V2, document, feature, on, strategy

pytestmark = pytest.mark.integration

CHURN = feature("model.churn", strategy(on("acme"), variants=[V1, V2]))
OFF = {**CHURN, "enabled": False}
UNITS = [f"{number:064x}" for number in range(300)]
RUBBISH = [
    (200, b"<html>gateway</html>"),
    (200, b""),
    (200, b"[1, 2"),
    (200, b'{"version": 2, "features": [], "meta": {}}'),
    (200, b'{"version": 2, "features": {"model.churn": 1}, "meta": {"revisionId": 99}}'),
    (401, b"{}"),
    (500, b"oops"),
    (302, b""),
]


def arms(source):
    flags = build_flags("acme", [], 0.0, 1, source.of_tenant("acme"), False)
    return [(decision.variant, decision.version) for decision in (flags.decide("churn", unit, None) for unit in UNITS)]


async def kept(world):
    return [
        (row["revision"], json.loads(row["document"]))
        for row in execute(world.urls.superuser, "select revision, document from flag_documents")
    ]


async def test_a_document_is_fetched_told_and_kept(flags_world, flag_server):
    flag_server.give(document(CHURN, revision=5))
    source = await flags_world.source(flag_server.url, clock=ManualClock())
    await until(lambda: source.changes == 1)
    assert source.document().revision == 5
    assert source.of_tenant("acme").flags["churn"].running
    assert source.of_tenant("globex").flags == {}
    assert source.of_tenant("acme") is source.of_tenant("acme")
    await until(lambda: execute(flags_world.urls.superuser, "select 1 from flag_documents"))
    assert await kept(flags_world) == [(5, document(CHURN, revision=5))]
    state = source.state()
    assert (state.revision, state.stored, state.silent, state.refused, state.problems) == (5, False, None, None, 0)
    assert flag_server.tokens == {"default:development.x"}
    assert [each["appName"] for each in flag_server.registered] == ["turnout"]


async def test_a_change_is_taken_with_the_next_look_and_what_did_not_change_is_not_told(flags_world, flag_server):
    flag_server.give(document(CHURN, revision=5))
    source = await flags_world.source(flag_server.url)
    await until(lambda: source.changes == 1)
    heard = len(flags_world.counts.heard)
    await until(lambda: len(flags_world.counts.heard) > heard)  # 304: heard of, not changed
    assert source.changes == 1
    flag_server.give(document(OFF, revision=6))
    await until(lambda: source.changes == 2)
    assert not source.of_tenant("acme").flags["churn"].running


async def test_rubbish_is_refused_and_told_and_nobody_changes_arm(flags_world, flag_server):
    flag_server.give(document(CHURN, revision=5))
    source = await flags_world.source(flag_server.url)
    await until(lambda: source.changes == 1)
    before = arms(source)
    assert {version for _, version in before} == {1, 2}
    for answer in RUBBISH:
        flag_server.answer = answer
        flag_server.await_polls(2)
        assert source.document().revision == 5
        assert arms(source) == before
    assert source.changes == 1
    assert flags_world.counts.refused >= 4
    flag_server.answer = RUBBISH[0]
    await until(lambda: "is not JSON" in source.state().refused)
    flag_server.give(document(CHURN, revision=5))
    await until(lambda: source.state().refused is None)
    assert arms(source) == before


async def test_a_start_without_the_server_goes_on_with_what_was_kept(flags_world, flag_server):
    flag_server.give(document(CHURN, revision=5))
    first = await flags_world.source(flag_server.url)
    await until(lambda: execute(flags_world.urls.superuser, "select 1 from flag_documents"))
    flag_server.answer = (503, b"")
    second = await flags_world.source(flag_server.url)
    assert second.document().revision == 5
    assert second.state().stored
    assert arms(second) == arms(first)
    nobody = await flags_world.source("http://127.0.0.1:9/api")
    assert arms(nobody) == arms(first)
    await until(lambda: nobody.state().silent is not None)
    assert "127.0.0.1" in nobody.state().silent or "failed" in nobody.state().silent


async def test_a_start_without_server_and_without_database_goes_on_with_what_this_machine_kept(flags_world, flag_server, tmp_path):
    flag_server.give(document(CHURN, revision=5))
    kept = SealedFolder(tmp_path, MasterKey(bytes(32)).box("last-good")).file("unleash")
    before = await flags_world.source(flag_server.url, kept=kept)
    await until((tmp_path / "unleash").exists)
    assert b"churn" not in (tmp_path / "unleash").read_bytes()
    share = before.of_tenant("clinic")
    await before.stop()
    flag_server.answer = (503, b"")
    nowhere = "postgresql://turnout@127.0.0.1:1/turnout"
    world = World(replace(flags_world.urls, runtime=nowhere, sync=nowhere))
    try:
        after = await world.source(flag_server.url, kept=kept)
        assert (after.state().revision, after.state().stored) == (5, True)
        assert after.of_tenant("clinic") == share
        (tmp_path / "unleash").write_bytes(b"rubbish")
        assert (await world.source(flag_server.url, kept=kept)).document() is None
    finally:
        await world.close()


async def test_a_start_without_server_and_without_anything_kept_has_no_flags(flags_world):
    source = await flags_world.source("http://127.0.0.1:9/api")
    assert source.document() is None
    assert source.of_tenant("acme") is None
    assert (source.state().revision, source.state().heard_at) == (None, None)


async def test_who_cannot_hear_the_server_hears_what_others_kept(flags_world, flag_server):
    alone = await flags_world.source("http://127.0.0.1:9/api")
    flag_server.give(document(CHURN, revision=5))
    await flags_world.source(flag_server.url)
    await until(lambda: alone.changes == 1)
    assert alone.document().revision == 5
    assert alone.state().stored


async def test_a_kept_document_of_a_newer_revision_stays(flags_world, flag_server):
    execute(
        flags_world.urls.runtime, "insert into flag_documents (source, revision, document) values ('unleash', 9, $1)",
        json.dumps(document(OFF, revision=9)),
    )  # fmt: skip
    flag_server.give(document(CHURN, revision=5))
    source = await flags_world.source(flag_server.url, clock=ManualClock())
    assert source.document().revision == 9
    flag_server.await_polls(4)
    assert source.document().revision == 9
    assert [revision for revision, _ in await kept(flags_world)] == [9]


async def test_a_server_that_was_set_back_is_taken_after_some_looks(flags_world, flag_server):
    clock = ManualClock()
    flag_server.give(document(OFF, revision=50))
    source = await flags_world.source(flag_server.url, clock=clock)
    await until(lambda: source.changes == 1)
    flag_server.give(document(CHURN, revision=5))
    flag_server.await_polls(4)
    assert source.document().revision == 50
    clock.advance(1.0)
    await until(lambda: source.changes == 2)
    assert source.document().revision == 5
    await until(lambda: [row["revision"] for row in execute(flags_world.urls.superuser, "select revision from flag_documents")] == [5])


async def test_a_kept_document_that_cannot_be_read_is_as_none(flags_world):
    execute(flags_world.urls.runtime, "insert into flag_documents (source, revision, document) values ('unleash', 9, '[]')")
    source = await flags_world.source("http://127.0.0.1:9/api")
    assert source.document() is None


async def test_stopping_twice_and_before_the_start_is_harmless(flags_world, flag_server):
    flag_server.give(document(CHURN, revision=5))
    source = await flags_world.source(flag_server.url)
    await until(lambda: source.changes == 1)
    await source.stop()
    await source.stop()
    assert source.document().revision == 5
