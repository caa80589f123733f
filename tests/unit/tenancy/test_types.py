from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.tenancy.types import Durability, TenantLimits, TenantSettings

pytestmark = pytest.mark.unit


@given(
    st.builds(
        TenantLimits,
        requests_per_second=st.integers(1, 1_000_000),
        burst=st.integers(1, 10_000_000),
        rows_per_day=st.integers(0, 2**53),
        max_artifact_bytes=st.integers(1, 2**36),
    )
)
def test_limits_come_back_from_json_as_they_went(limits: TenantLimits) -> None:
    assert TenantLimits.from_json(limits.to_json()) == limits


def test_settings_come_back_from_json_as_they_went() -> None:
    settings = TenantSettings(Durability.BUFFERED, True, 7, 3, 2.5)
    assert TenantSettings.from_json(settings.to_json()) == settings


def test_what_is_left_out_or_null_stays_as_it_was() -> None:
    base = TenantLimits(burst=7, concurrency=3)
    assert TenantLimits.from_json({"burst": None, "concurrency": 4}, base) == TenantLimits(burst=7, concurrency=4)
    assert TenantSettings.from_json({}) == TenantSettings()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requestsPerSecond", 0),
        ("requestsPerSecond", True),
        ("burst", 1.5),
        ("burst", "10"),
        ("rowsPerDay", 2**53 + 1),
        ("maxModels", -1),
        ("maxArtifactBytes", 0),
        ("maxStoredBytes", -1),
        ("concurrency", 0),
    ],
)
def test_a_bad_limit_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^limits.{field} is "):
        TenantLimits.from_json({field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("durability", "SOMETIMES"),
        ("captureInputs", 1),
        ("retentionDays", 0),
        ("outcomeWindowDays", 366),
        ("holdoutPercent", 100.1),
        ("holdoutPercent", float("nan")),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^settings.{field} is "):
        TenantSettings.from_json({field: value})


def test_an_unknown_field_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput, match="limits has no field 'brust'"):
        TenantLimits.from_json({"brust": 1})
