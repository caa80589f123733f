"""A real Unleash server, its own evaluation, its SDK, the bare engine and our selector: the same units get the same variants."""

import hashlib
import json
from http.client import HTTPConnection

import pytest
from UnleashClient.clients.unleash_client import UnleashClient
from UnleashClient.utils import InstanceAllowType
from yggdrasil_engine.engine import UnleashEngine

from app.experiments.flags.building import build_flags
from app.experiments.types import DecisionReason
from app.experiments.unleash.splitting import SplitDocument
from tests.integration.experiments.unleash.conftest import until
from tests.support.unleash_features import on, strategy, variant, where

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("unleash")]

UNITS = [hashlib.sha256(f"unit {number}".encode()).hexdigest() for number in range(10_000)]
TENANTS = ("acme", "globex", "umbrella")
MODELS = ("churn", "ranking", "price", "risk", "spam", "layered")
VERSIONS = {"v1": 1, "v2": 2, "v3": 3}


def arms(first, second, **more):
    return [variant("v1", first, {"version": 1, "control": True}), variant("v2", second, {"version": 2}), *more.get("also", ())]


def make_flags(server):
    """Gradual rollout with strategy variants; several strategies with attributes; a segment; the flag's own variants; off; a parent."""
    pilots = server.segment("pilots", on("globex", "umbrella"))
    everyone = on(*TENANTS)
    server.flag("model.churn", strategy(everyone, group="model.churn", rollout="40", variants=arms(900, 100)))
    server.flag(
        "model.ranking",
        strategy(on("acme"), where("country", "NO", "SE"), group="first", rollout="50", variants=arms(500, 500)),
        strategy(on("acme"), where("appVersion", "2.0.0", operator="SEMVER_GT"), group="second", rollout="70", variants=arms(200, 800)),
        strategy(everyone, group="first", rollout="80", variants=[variant("v3", 1000, {"version": 3})]),
    )
    server.flag("model.price", strategy(group="model.price", rollout="100", variants=arms(333, 667), segments=[pilots]))
    server.flag("model.risk", strategy(everyone, group="other", rollout="60"))
    server.flag_variants("model.risk", *arms(250, 500, also=[variant("v3", 250, {"alias": "candidate"})]))
    server.flag("model.spam", strategy(everyone, group="model.spam", variants=arms(500, 500)), on=False)
    server.flag("layer.shared", strategy(everyone, group="layer.shared", variants=[variant("one", 450, {}), variant("two", 550, {})]))
    server.flag(
        "model.layered", strategy(everyone, group="model.layered", rollout="90", variants=arms(500, 500)),
        parent={"feature": "layer.shared", "variants": ["one"], "enabled": True},
    )  # fmt: skip
    server.seen(lambda flags: {f"model.{model}" for model in MODELS} <= set(flags) and flags["model.layered"]["dependencies"])


@pytest.fixture(scope="module")
def flags(unleash):
    make_flags(unleash)
    return unleash


def asked(number):
    """Tenant and attributes of the unit of this number."""
    attributes = {"country": ("NO", "DE", "SE")[number % 7 % 3], "appVersion": ("1.9.0", "2.1.0")[number % 2]}
    return TENANTS[number % 3], attributes if number % 5 else {}


class Frontend:
    """The server's own evaluation, over one connection."""

    def __init__(self, server):
        self._connection = HTTPConnection("127.0.0.1", server.port)
        self._headers = {"Content-Type": "application/json", "Authorization": server.credentials.frontend}

    def variants(self, context):
        self._connection.request("POST", "/api/frontend", json.dumps({"context": context}), self._headers)
        toggles = json.loads(self._connection.getresponse().read())["toggles"]
        return {toggle["name"]: toggle["variant"]["name"] for toggle in toggles}

    def close(self):
        self._connection.close()


@pytest.fixture
def frontend(flags):
    found = Frontend(flags)
    end = {f"model.{model}" for model in MODELS if model != "spam"}
    seen: set = set()
    for number in range(2000):  # its cache is about a second behind
        seen |= set(found.variants({"userId": UNITS[number], "properties": {"tenantId": "globex"}}))
        if end <= seen:
            break
    assert end <= seen
    yield found
    found.close()


@pytest.fixture
def sdk(flags):
    client = UnleashClient(
        url=f"{flags.url}/api", app_name="parity", custom_headers={"Authorization": flags.credentials.backend}, disable_metrics=True,
        refresh_interval=3600, multiple_instance_mode=InstanceAllowType.SILENTLY_ALLOW,
    )  # fmt: skip
    client.initialize_client()
    yield client
    client.destroy()


def selected(decision):
    """The variant's name; "disabled" where the unit is left to production."""
    if decision is None or decision.reason is not DecisionReason.EXPERIMENT:
        return "disabled"
    assert (decision.version, decision.alias) == ((VERSIONS[decision.variant], None) if decision.alias is None else (None, "candidate"))
    return decision.variant


def test_ten_thousand_units_and_six_flags_without_one_difference(flags, sdk, frontend):
    raw = flags.features()
    bare = UnleashEngine()
    bare.take_state(json.dumps(raw))
    split = SplitDocument.of(raw, False)
    ours = {tenant: build_flags(tenant, [], 0.0, 1, split.of_tenant(tenant), False) for tenant in TENANTS}
    assert [len(split.of_tenant(tenant).problems) for tenant in TENANTS] == [2, 0, 0]  # weights that differ by country
    different, given = [], set()
    for number, unit in enumerate(UNITS):
        tenant, attributes = asked(number)
        context = {"userId": unit, "properties": {"tenantId": tenant, **attributes}}
        told = frontend.variants(context)
        for model in MODELS:
            name = f"model.{model}"
            mine = selected(ours[tenant].decide(model, unit, attributes or None))
            others = (sdk.get_variant(name, context)["name"], bare.check_variant(name, context).variant.name, told.get(name, "disabled"))
            given.add((model, mine))
            if set(others) != {mine}:
                different.append((unit, tenant, attributes, model, mine, others))
    assert different == []
    assert len(given) == 3 + 4 + 3 + 4 + 1 + 3  # each variant of each flag, and "disabled" where that can be


def test_propensities_are_the_shares_that_units_get(flags):
    share = SplitDocument.of(flags.features(), False).of_tenant("acme")
    ours = build_flags("acme", [], 0.0, 1, share, False)
    for model in MODELS:
        for attributes in (None, {"country": "NO"}, {"country": "NO", "appVersion": "2.1.0"}):
            decisions = [ours.decide(model, unit, attributes) for unit in UNITS]
            if decisions[0] is None:
                assert model == "price"
                continue
            told = {(each.reason, each.variant): each.propensity for each in decisions}
            assert sum(told.values()) == pytest.approx(1.0, abs=1e-12)
            for outcome, chance in told.items():
                count = sum((each.reason, each.variant) == outcome for each in decisions)
                assert abs(count - chance * len(UNITS)) <= 4.5 * (chance * (1 - chance) * len(UNITS)) ** 0.5


async def test_killed_and_started_again_it_moves_nobody(flags, flags_world):
    source = await flags_world.source(f"{flags.url}/api", token=flags.credentials.backend)
    await until(lambda: source.document() is not None)
    arms_before = chosen(source)
    assert set(arms_before) == {"v1", "v2", "disabled"}
    heard = len(flags_world.counts.heard)
    await until(lambda: len(flags_world.counts.heard) > heard + 1)  # it says that nothing changed
    flags.kill()
    await until(lambda: source.state().silent is not None)
    assert chosen(source) == arms_before
    without = await flags_world.source(f"{flags.url}/api", token=flags.credentials.backend)
    assert without.state().stored
    assert chosen(without) == arms_before
    flags.start()
    await until(lambda: source.state().silent is None and without.state().heard_at is not None)
    assert chosen(source) == chosen(without) == arms_before


async def test_the_kill_switch_reaches_a_source_with_its_next_look(flags, flags_world):
    flags.flag("model.switched", strategy(on("acme"), group="model.switched", variants=arms(500, 500)))
    flags.seen(lambda known: "model.switched" in known)
    source = await flags_world.source(f"{flags.url}/api", token=flags.credentials.backend)
    await until(lambda: source.document() is not None and source.of_tenant("acme").flags["switched"].running)
    flags.switch("model.switched", on=False)
    await until(lambda: not source.of_tenant("acme").flags["switched"].running)
    flags.switch("model.switched", on=True)
    await until(lambda: source.of_tenant("acme").flags["switched"].running)


async def test_a_wrong_token_is_told_and_nothing_decides(flags, flags_world):
    source = await flags_world.source(f"{flags.url}/api", token="default:development.wrong")
    await until(lambda: source.state().silent is not None)
    assert source.document() is None
    assert source.state().silent != "no answer yet"


def chosen(source):
    built = build_flags("acme", [], 0.0, 1, source.of_tenant("acme"), False)
    return [selected(built.decide("churn", unit, None)) for unit in UNITS[:2000]]
