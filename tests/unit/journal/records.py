"""Records for tests: plain ones, and any that hypothesis can think of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from hypothesis import strategies as st

from app.journal.types import LARGEST_SEALED, InputRecord, PredictionRecord, Record, ShadowKind, ShadowRecord
from app.kernel.ids import IdMint
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from app.kernel.clock import Clock

_KEY = bytes(32)


class Records:
    """Makes records of one tenant at the time of `clock`."""

    def __init__(self, clock: Clock | None = None, tenant_id: UUID | None = None) -> None:
        self._mint = IdMint(clock or ManualClock())
        self.tenant_id = tenant_id or uuid4()

    def one(self, **changes: object) -> PredictionRecord:
        values: dict[str, object] = {
            "id": self._mint.mint(_KEY), "tenant_id": self.tenant_id, "unit_hash": "u" * 64, "key_generation": 1, "model": "churn",
            "version": 3, "reason": "ALIAS", "experiment": None, "variant": None, "propensity": None, "flag_revision": None, "rows": 1,
            "compute_us": 812, "score": 0.25, "degraded": False,
        }  # fmt: skip
        return PredictionRecord(**(values | changes))  # type: ignore[arg-type]

    def shadow(self, of: PredictionRecord | None = None, **changes: object) -> ShadowRecord:
        """What a shadow said beside `of`."""
        values: dict[str, object] = {
            "id": (of or self.one()).id, "tenant_id": self.tenant_id, "kind": "SHADOW", "variant": "candidate", "row": 0,
            "experiment": "colour", "unit_hash": "u" * 32, "version": 4, "served_variant": "blue", "served_version": 3,
            "served_label": "yes", "served_score": 0.75, "label": "no", "score": 0.5, "compute_us": 97,
        }  # fmt: skip
        return ShadowRecord(**(values | changes))  # type: ignore[arg-type]

    def captured(self, of: PredictionRecord | None = None, **changes: object) -> InputRecord:
        """The sealed features behind `of`."""
        values: dict[str, object] = {"id": (of or self.one()).id, "tenant_id": self.tenant_id, "unit_hash": "u" * 32, "sealed": b"\0sealed"}
        return InputRecord(**(values | changes))  # type: ignore[arg-type]

    def of_both_kinds(self) -> list[Record]:
        """Three: an answer, what a shadow said beside it, and another answer."""
        answered = self.one()
        return [answered, self.shadow(answered), self.one()]

    def of_all_kinds(self) -> list[Record]:
        """An answer, what a shadow said beside it, its sealed input, and another answer."""
        answered = self.one()
        return [answered, self.shadow(answered), self.captured(answered), self.one()]

    def many(self, count: int) -> list[PredictionRecord]:
        return [self.one() for _ in range(count)]


def ids(at: datetime) -> UUID:
    return IdMint(ManualClock(at)).mint(_KEY)


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_number = st.floats(allow_nan=False, allow_infinity=False)
_id = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)).map(lambda at: ids(at.replace(tzinfo=UTC) + timedelta(milliseconds=7)))  # noqa: DTZ001
any_prediction = st.builds(
    PredictionRecord,
    id=_id,
    tenant_id=st.uuids(),
    unit_hash=st.none() | _text,
    key_generation=st.integers(1, 2**31 - 1),
    model=_text,
    version=st.integers(1, 2**31 - 1),
    reason=_text,
    experiment=st.none() | _text,
    variant=st.none() | _text,
    propensity=st.none() | _number,
    flag_revision=st.none() | st.integers(0, 2**63 - 1),
    rows=st.integers(0, 10_000),
    compute_us=st.integers(0, 2**31 - 1),
    score=st.none() | _number,
    degraded=st.booleans(),
)
any_shadow = st.builds(
    ShadowRecord,
    id=_id,
    tenant_id=st.uuids(),
    kind=st.sampled_from(ShadowKind),
    variant=_text,
    row=st.integers(0, 10_000),
    experiment=_text,
    unit_hash=st.none() | _text,
    version=st.integers(1, 2**31 - 1),
    served_variant=st.none() | _text,
    served_version=st.integers(1, 2**31 - 1),
    served_label=st.none() | _text,
    served_score=st.none() | _number,
    label=st.none() | _text,
    score=st.none() | _number,
    compute_us=st.integers(0, 2**31 - 1),
)
any_input = st.builds(
    InputRecord, id=_id, tenant_id=st.uuids(), unit_hash=st.none() | _text, sealed=st.binary(max_size=200) | st.just(b"x" * LARGEST_SEALED)
)
any_record = any_prediction | any_shadow | any_input
