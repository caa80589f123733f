"""The experiments' public documents, and what commands do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.cli.client import Client

_METRIC = "name kind direction aggregation"
_EXPERIMENT = f"""key model status source hypothesis rollout variants {{ name version alias weight control shadow }}
  primaryMetric {{ {_METRIC} }} secondaryMetrics {{ {_METRIC} }} guardrails {{ {_METRIC} }}
  plannedUnits plannedLooks layer targeting {{ attribute operator values }} createdAt createdBy startedAt endedAt revision"""
CREATE = f"""mutation Create($input: CreateExperimentInput!) {{ createExperiment(input: $input) {{ {_EXPERIMENT} }} }}"""
SHOW = f"""query Show($key: String!) {{ experiment(key: $key) {{ {_EXPERIMENT} }} }}"""
LIST = f"""query List($model: String, $status: ExperimentStatus, $after: String) {{
  experiments(model: $model, status: $status, first: 50, after: $after) {{
    edges {{ node {{ {_EXPERIMENT} }} }}
    pageInfo {{ endCursor hasNextPage }}
  }}
}}"""
START = f"""mutation Start($key: String!, $rollout: Float!) {{ startExperiment(key: $key, rollout: $rollout) {{ {_EXPERIMENT} }} }}"""
RAMP = f"""mutation Ramp($key: String!, $rollout: Float!) {{ rampExperiment(key: $key, rollout: $rollout) {{ {_EXPERIMENT} }} }}"""
STOP = f"""mutation Stop($key: String!, $reason: String) {{ stopExperiment(key: $key, reason: $reason) {{ {_EXPERIMENT} }} }}"""
CONCLUDE = f"""mutation Conclude($key: String!, $variant: String, $revision: Int, $reason: String) {{
  concludeExperiment(key: $key, promoteVariant: $variant, expectedRevision: $revision, reason: $reason) {{ {_EXPERIMENT} }}
}}"""
RESULTS = """query Results($key: String!, $metric: String) {
  experiment(key: $key) {
    key status
    results(metric: $metric) {
      metric verdict winner looks plannedLooks computedAt
      srm { pValue ok }
      variants {
        variant units exposures mean standardError verdict
        difference differenceLow differenceHigh lift liftLow liftHigh pValue
        sequentialLow sequentialHigh chanceToBeatControl
      }
    }
  }
}"""


def create(client: Client, given: dict[str, Any]) -> dict[str, Any]:
    """The new draft."""
    return dict(client.query(CREATE, input=given)["createExperiment"])


def show(client: Client, key: str) -> dict[str, Any]:
    return dict(client.query(SHOW, key=key)["experiment"])


def listed(client: Client, model: str | None, status: str | None) -> Iterator[dict[str, Any]]:
    """Every experiment of the tenant, newest first; of one model or status where it is named."""
    after = None
    while True:
        page = client.query(LIST, model=model, status=status, after=after)["experiments"]
        for edge in page["edges"]:
            yield dict(edge["node"])
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def start(client: Client, key: str, rollout: float) -> dict[str, Any]:
    return dict(client.query(START, key=key, rollout=rollout)["startExperiment"])


def ramp(client: Client, key: str, rollout: float) -> dict[str, Any]:
    return dict(client.query(RAMP, key=key, rollout=rollout)["rampExperiment"])


def stop(client: Client, key: str, reason: str | None) -> dict[str, Any]:
    return dict(client.query(STOP, key=key, reason=reason)["stopExperiment"])


def conclude(client: Client, key: str, variant: str | None, revision: int | None, reason: str | None) -> dict[str, Any]:
    """The experiment, over; the variant's version in production, where one is named."""
    answer = client.query(CONCLUDE, key=key, variant=variant, revision=revision, reason=reason)
    return dict(answer["concludeExperiment"])


def results(client: Client, key: str, metric: str | None) -> dict[str, Any] | None:
    """What is known of one metric (the primary one, unless another is named); None where there is nothing to tell."""
    found = client.query(RESULTS, key=key, metric=metric)["experiment"]["results"]
    return None if found is None else dict(found)
