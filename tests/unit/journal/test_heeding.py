"""What is left of records whose unit, or whose tenant, was erased."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.journal.aside import without_erased
from app.journal.types import ERASURE_GRACE, WHOLE_TENANT, PredictionRecord, Record
from tests.unit.journal.records import any_record

pytestmark = pytest.mark.unit
MILLISECOND = timedelta(milliseconds=1)


@given(any_record, st.integers(-120_000, 120_000))
def test_an_answer_loses_its_unit_and_the_rest_goes_up_to_a_minute_after_the_erasure(record: Record, ahead_ms: int) -> None:
    at = record.at - ERASURE_GRACE + ahead_ms * MILLISECOND
    left = without_erased(record, {(record.tenant_id, str(record.unit_hash)): at})
    if record.unit_hash is None or ahead_ms < 0:
        assert left == record
    else:
        assert left == (record._replace(unit_hash=None) if isinstance(record, PredictionRecord) else None)


@given(any_record)
def test_another_tenants_stone_and_another_units_are_nothing_to_it_and_the_tenants_own_is_everything(record: Record) -> None:
    at = record.at + timedelta(days=1)
    assert without_erased(record, {(uuid4(), str(record.unit_hash)): at, (record.tenant_id, f"{record.unit_hash}x"): at}) == record
    assert without_erased(record, {(record.tenant_id, WHOLE_TENANT): record.at - timedelta(days=9)}) is None
