"""Raw client features as an Unleash server hands them out, for tests."""

import json
from typing import Any


def on(*tenants: str, operator: str = "IN", **more: Any) -> dict[str, Any]:
    return {"contextName": "tenantId", "operator": operator, "values": list(tenants), "inverted": False, "caseInsensitive": False, **more}


def where(name: str, *values: str, operator: str = "IN", **more: Any) -> dict[str, Any]:
    listed = {"values": list(values)} if operator in {"IN", "NOT_IN", "STR_STARTS_WITH", "STR_CONTAINS"} else {"value": values[0]}
    return {"contextName": name, "operator": operator, "inverted": False, **listed, **more}


def variant(name: str, weight: int, payload: Any, stickiness: str = "userId") -> dict[str, Any]:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return {"name": name, "weight": weight, "stickiness": stickiness, "payload": {"type": "json", "value": text}}


def strategy(*constraints: Any, rollout: Any = "100", group: str | None = "model.churn", variants: Any = (), **more: Any) -> dict[str, Any]:
    parameters = {"rollout": rollout, "stickiness": more.pop("stickiness", "userId")}
    if group is not None:
        parameters["groupId"] = group
    return {"name": "flexibleRollout", "constraints": list(constraints), "parameters": parameters, "variants": list(variants), **more}


def feature(name: str, *strategies: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "experiment", "enabled": True, "strategies": list(strategies), "variants": [], **more}


def document(*features: Any, revision: int = 7, **more: Any) -> dict[str, Any]:
    return {"version": 2, "features": list(features), "meta": {"revisionId": revision, "etag": f'"x:{revision}"'}, **more}


V1, V2 = variant("v1", 900, {"version": 1, "control": True}), variant("v2", 100, {"version": 2})
