"""What the sync role reads of running experiments, through the very statement that serving reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from app.db.outbox import OutboxRow, changed_tenants
from app.db.sync import SyncDatabase
from app.db.together import Together
from app.experiments.running import needed_versions, running_of, running_queries
from app.experiments.types import RunningExperiment, TargetingRule, Variant
from tests.support.database import execute, make_tenant

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Select

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration

CONTROL = Variant("control", 1, None, 1, control=True, shadow=False)
NEW = Variant("new", 3, None, 2, control=False, shadow=False)
SHADOW = Variant("dark", 4, None, 1, control=False, shadow=True)
ALIASED = Variant("aliased", None, "canary", 1, control=False, shadow=False)
RULE = TargetingRule("country", "IN", ("NO", "SE"))


def plant(urls: DatabaseUrls, tenant: UUID, key: str, **columns: Any) -> UUID:
    """The model_id of a model of its own, in an experiment that runs unless `columns` say otherwise."""
    model_id = uuid4()
    execute(
        urls.runtime,
        "insert into models (tenant_id, model_id, name, folded_name, task) values ($1, $2, $3, $3, 'CLASSIFICATION')",
        tenant, model_id, f"m{model_id.hex}", tenant_id=tenant,
    )  # fmt: skip
    row = {
        "tenant_id": tenant, "key": key, "model_id": model_id, "model": "risk", "status": "RUNNING", "source": "TURNOUT",
        "rollout": 20.5, "variants": json.dumps([v.to_json() for v in (CONTROL, NEW, SHADOW)]), "secondary_metrics": "[]",
        "guardrails": "[]", "planned_looks": 1, "slots": "[[0, 20500]]", "targeting": json.dumps([RULE.to_json()]),
        "overrides": '[["ab", "new"]]', "created_by": "ann", **columns,
    }  # fmt: skip
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    execute(urls.runtime, f"insert into experiments ({', '.join(row)}) values ({places})", *row.values(), tenant_id=tenant)
    return model_id


async def read(urls: DatabaseUrls, of: Select[UUID] | None) -> tuple[dict[UUID, list[RunningExperiment]], list[tuple[Any, ...]]]:
    sync = SyncDatabase(urls.sync)
    try:
        async with sync.driver_connection() as connection:
            rows = await Together({**running_queries(of), "needed": needed_versions(of)}).read(connection, since=0)
    finally:
        await sync.close()
    return running_of(rows), sorted(tuple(row) for row in rows["needed"])


async def test_serving_reads_what_runs_by_tenant_and_key_and_the_versions_it_needs(database_urls: DatabaseUrls) -> None:
    clinic, bank = make_tenant(database_urls, "clinic"), make_tenant(database_urls, "bank")
    second = plant(database_urls, clinic, "b-second", layer="ranking", slots="[[0, 5], [9, 12]]", overrides="[]", targeting="[]")
    first = plant(database_urls, clinic, "a-first")
    theirs = plant(database_urls, bank, "theirs", variants=json.dumps([CONTROL.to_json(), ALIASED.to_json()]))
    for status in ("DRAFT", "STOPPED", "CONCLUDED"):
        plant(database_urls, clinic, f"not-{status.lower()}", status=status)
    unleash = plant(database_urls, clinic, "unleash-risk", source="UNLEASH")
    running, needed = await read(database_urls, None)
    a_first = RunningExperiment("a-first", "risk", 20.5, (CONTROL, NEW, SHADOW), None, ((0, 20500),), (RULE,), (("ab", "new"),))
    b_second = RunningExperiment("b-second", "risk", 20.5, (CONTROL, NEW, SHADOW), "ranking", ((0, 5), (9, 12)), (), ())
    assert running[clinic] == [a_first, b_second]
    assert [experiment.key for experiment in running[bank]] == ["theirs"]
    both = [(clinic, model, number) for model in (first, second, unleash) for number in (1, 3, 4)]
    assert needed == sorted([*both, (bank, theirs, 1)])


async def test_of_changed_tenants_alone(database_urls: DatabaseUrls) -> None:
    clinic, bank = make_tenant(database_urls, "clinic"), make_tenant(database_urls, "bank")
    plant(database_urls, clinic, "ours")
    plant(database_urls, bank, "theirs")
    execute(database_urls.runtime, "insert into outbox (generation, tenant_id) values (1, $1)", bank, tenant_id=bank)
    running, needed = await read(database_urls, changed_tenants())
    assert {tenant: [e.key for e in found] for tenant, found in running.items()} == {bank: ["theirs"]}
    assert {row[0] for row in needed} == {bank}
    running, needed = await read(database_urls, select(OutboxRow.tenant_id).where(OutboxRow.generation > 1))
    assert (running, needed) == ({}, [])
