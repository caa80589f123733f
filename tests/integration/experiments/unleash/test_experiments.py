"""A running flag is an experiment: its row appears, follows and ends with the flag."""

import asyncio
import json
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from app.experiments.unleash.experiments import UnleashExperiments
from app.experiments.unleash.keeping import keep_document
from app.experiments.unleash.splitting import SplitDocument
from app.kernel.clock import SystemClock
from tests.support.database import execute, make_tenant
from tests.support.unleash_features import V1, V2, document, feature, on, strategy, variant

pytestmark = pytest.mark.integration

CHURN = feature("model.churn", strategy(on("acme", "globex"), rollout="40", variants=[V1, V2]))
PLAIN = [variant("v1", 500, {"version": 1}), variant("v2", 500, {"version": 2})]


@dataclass
class Sight:
    model_id: object
    aliases: dict


@dataclass
class Tenant:
    tenant_id: object
    models: dict = field(default_factory=dict)


class Source:
    """A source whose document the test sets."""

    def __init__(self):
        self.split = None

    def document(self):
        return self.split

    def of_tenant(self, tenant):
        return self.split.of_tenant(tenant)


class Home:
    """Two tenants with a model `churn` each, whose version 2 is in production."""

    def __init__(self, world):
        self.world = world
        self.named = {}
        for name in ("acme", "globex"):
            tenant_id, model_id = make_tenant(world.urls, name), uuid4()
            execute(
                world.urls.runtime, "insert into models (tenant_id, model_id, name, folded_name, task) values ($1, $2, 'churn', 'churn', 'CLASSIFICATION')",
                tenant_id, model_id, tenant_id=tenant_id,
            )  # fmt: skip
            self.named[name] = Tenant(tenant_id, {"churn": Sight(model_id, {"production": 2})})

    def tenants(self):
        return [(tenant.tenant_id, name) for name, tenant in self.named.items()]

    def models(self, tenant_id):
        return next(tenant.models for tenant in self.named.values() if tenant.tenant_id == tenant_id)

    def process(self):
        source = Source()
        return source, UnleashExperiments(source, self.world.database, self.world.sync_database, self, SystemClock())

    async def give(self, source, *features, revision):
        raw = document(*features, revision=revision)
        source.split = SplitDocument.of(raw, False)
        await keep_document(self.world.database, revision, raw)

    def rows(self, name="acme"):
        tenant_id = self.named[name].tenant_id
        rows = execute(self.world.urls.runtime, "select * from experiments order by key", tenant_id=tenant_id)
        return [{**row, "variants": json.loads(row["variants"])} for row in rows]

    def told(self):
        return execute(self.world.urls.superuser, "select count(*) from outbox")[0]["count"]

    def audit(self, name="acme"):
        tenant_id = self.named[name].tenant_id
        found = execute(self.world.urls.runtime, "select action, subject, actor from audit_entries order by at, id", tenant_id=tenant_id)
        return [(row["action"], row["subject"], row["actor"]) for row in found]


@pytest.fixture
def home(flags_world):
    return Home(flags_world)


def arms(row):
    return [(each["name"], each["version"], each["weight"], each["control"]) for each in row["variants"]]


async def test_a_running_flag_appears_as_an_experiment_without_any_set_up(home):
    source, experiments = home.process()
    await home.give(source, CHURN, revision=1)
    await experiments.look()
    for name in ("acme", "globex"):
        (row,) = home.rows(name)
        assert (row["key"], row["model"], row["status"], row["source"]) == ("unleash-churn", "churn", "RUNNING", "UNLEASH")
        assert (row["rollout"], row["primary_metric"], row["created_by"], row["revision"]) == (40.0, None, "unleash", 1)
        assert arms(row) == [("v1", 1, 900, True), ("v2", 2, 100, False)]
        assert row["started_at"] is not None
        assert row["ended_at"] is None
    assert home.told() == 2
    assert home.audit() == [("startExperiment", "experiment:unleash-churn", "unleash")]


async def test_looking_again_writes_nothing(home):
    source, experiments = home.process()
    await home.give(source, CHURN, revision=1)
    for _ in range(3):
        await experiments.look()
    other_source, other = home.process()
    other_source.split = source.split
    await other.look()
    await home.give(source, CHURN, revision=2)
    await experiments.look()
    assert home.told() == 2
    assert [row["revision"] for row in home.rows()] == [1]
    assert len(home.audit()) == 1


async def test_several_processes_at_once_make_one_experiment(home):
    processes = [home.process() for _ in range(4)]
    await home.give(processes[0][0], CHURN, revision=1)
    for source, _ in processes:
        source.split = processes[0][0].split
    await asyncio.gather(*(experiments.look() for _, experiments in processes))
    await asyncio.gather(*(experiments.look() for _, experiments in processes))
    assert [row["revision"] for row in home.rows()] == [1]
    assert len(home.audit()) == 1


@pytest.mark.parametrize("gone", [[{**CHURN, "enabled": False}], [], [feature("model.churn", strategy(on("globex"), variants=[V1, V2]))]])
async def test_a_flag_that_goes_off_or_vanishes_stops_the_experiment_and_on_again_runs_it(home, gone):
    source, experiments = home.process()
    await home.give(source, CHURN, revision=1)
    await experiments.look()
    await home.give(source, *gone, revision=2)
    await experiments.look()
    (row,) = home.rows()
    assert (row["status"], row["revision"], row["ended_at"] is not None) == ("STOPPED", 2, True)
    await home.give(source, CHURN, revision=3)
    await experiments.look()
    (row,) = home.rows()
    assert (row["status"], row["revision"], row["ended_at"]) == ("RUNNING", 3, None)
    assert [action for action, _, _ in home.audit()] == ["startExperiment", "stopExperiment", "startExperiment"]


async def test_a_flag_that_vanished_while_nobody_looked_stops_its_experiment(home):
    source, experiments = home.process()
    await home.give(source, CHURN, revision=1)
    await experiments.look()
    later, again = home.process()
    await home.give(later, revision=2)
    await again.look()
    assert [row["status"] for row in home.rows("acme") + home.rows("globex")] == ["STOPPED", "STOPPED"]


async def test_a_change_of_weights_or_rollout_raises_the_revision(home):
    source, experiments = home.process()
    await home.give(source, CHURN, revision=1)
    await experiments.look()
    await home.give(source, feature("model.churn", strategy(on("acme"), rollout="60", variants=[V1, V2])), revision=2)
    await experiments.look()
    (row,) = home.rows()
    assert (row["rollout"], row["revision"], row["status"]) == (60.0, 2, "RUNNING")
    assert home.audit()[-1][0] == "updateExperiment"


async def test_the_control_is_what_the_payload_says_else_what_is_in_production_else_the_first(home):
    source, experiments = home.process()
    await home.give(source, feature("model.churn", strategy(on("acme"), variants=PLAIN)), revision=1)
    await experiments.look()
    assert arms(home.rows()[0]) == [("v1", 1, 500, False), ("v2", 2, 500, True)]
    acme = home.named["acme"]
    acme.models = {"churn": Sight(acme.models["churn"].model_id, {"production": 7})}  # promoted: routing has another object
    await experiments.look()
    assert arms(home.rows()[0]) == [("v1", 1, 500, True), ("v2", 2, 500, False)]
    named = [variant("old", 500, {"version": 1}), variant("live", 500, {"alias": "production"})]
    await home.give(source, feature("model.churn", strategy(on("acme"), variants=named)), revision=2)
    await experiments.look()
    assert [each["control"] for each in home.rows()[0]["variants"]] == [False, True]


async def test_a_process_with_an_older_document_does_not_pull_back(home):
    newer, ahead = home.process()
    older, behind = home.process()
    await home.give(older, CHURN, revision=1)
    await behind.look()
    await home.give(newer, {**CHURN, "enabled": False}, revision=2)
    await ahead.look()
    _, restarted = late = home.process()
    late[0].split = older.split
    await restarted.look()
    await behind.look()
    assert [row["status"] for row in home.rows()] == ["STOPPED"]


async def test_a_flag_of_a_model_that_the_tenant_does_not_have_waits_for_the_model(home):
    source, experiments = home.process()
    acme = home.named["acme"]
    models, acme.models = acme.models, {}
    await home.give(source, CHURN, revision=1)
    await experiments.look()
    assert home.rows() == []
    acme.models = models
    await experiments.look()
    assert [row["status"] for row in home.rows()] == ["RUNNING"]


async def test_a_model_that_routing_knows_and_the_registry_does_not_harms_nobody(home):
    source, experiments = home.process()
    home.named["acme"].models = {"churn": Sight(uuid4(), {})}
    await home.give(source, CHURN, revision=1)
    await experiments.look()
    assert home.rows("acme") == []
    assert [row["status"] for row in home.rows("globex")] == ["RUNNING"]


async def test_an_experiment_that_was_concluded_stays_so(home):
    source, experiments = home.process()
    await home.give(source, CHURN, revision=1)
    await experiments.look()
    acme = home.named["acme"].tenant_id
    execute(home.world.urls.runtime, "update experiments set status = 'CONCLUDED'", tenant_id=acme)
    await home.give(source, feature("model.churn", strategy(on("acme"), rollout="90", variants=[V1, V2])), revision=2)
    await experiments.look()
    assert [(row["status"], row["rollout"]) for row in home.rows()] == [("CONCLUDED", 40.0)]


async def test_the_service_s_own_experiments_are_left_alone(home):
    source, experiments = home.process()
    acme = home.named["acme"]
    execute(
        home.world.urls.runtime,
        "insert into experiments (tenant_id, key, model_id, model, status, source, rollout, variants, secondary_metrics, guardrails,"
        " planned_looks, slots, targeting, overrides, created_by) values ($1, 'own', $2, 'churn', 'RUNNING', 'TURNOUT', 10, '[]', '[]',"
        " '[]', 1, '[]', '[]', '[]', 'ann')",
        acme.tenant_id, acme.models["churn"].model_id, tenant_id=acme.tenant_id,
    )  # fmt: skip
    await home.give(source, revision=1)
    await experiments.look()
    assert [(row["key"], row["status"]) for row in home.rows()] == [("own", "RUNNING")]
