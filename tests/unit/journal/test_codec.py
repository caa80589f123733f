from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING
from uuid import UUID

import orjson
import pytest
from asyncpg.pgproto.pgproto import UUID as DriversUuid  # noqa: N811  a class, whatever its capitals
from hypothesis import given
from hypothesis import strategies as st

from app.journal.codec import MAX_FRAME, UnreadableRecord, decode, encode, is_torn, next_frame, read_frames, split_frames
from tests.unit.journal.records import Records, any_record, ids

if TYPE_CHECKING:
    from app.journal.types import Record

pytestmark = pytest.mark.unit


@given(st.lists(any_record, max_size=5))
def test_records_come_back_as_they_were(records: list[Record]) -> None:
    data = b"".join(map(encode, records))

    assert read_frames(data) == (records, len(data))


def test_a_cut_at_every_byte_leaves_every_whole_record_and_is_called_torn() -> None:
    records = Records().of_all_kinds()
    frames = [encode(record) for record in records]
    data = b"".join(frames)
    borders = list(accumulate(map(len, frames), initial=0))

    for cut in range(len(data) + 1):
        whole = max(n for n, border in enumerate(borders) if border <= cut)
        assert read_frames(data[:cut]) == (records[:whole], borders[whole])
        assert is_torn(data[borders[whole] : cut])


def test_no_flipped_bit_passes_for_a_record_and_the_records_before_it_stay() -> None:
    records = Records().of_both_kinds()
    frames = [encode(record) for record in records]
    data = b"".join(frames)
    first, second = len(frames[0]), len(frames[1])

    for bit in range(first * 8, (first + second) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert read_frames(bytes(damaged)) == (records[:1], first)
        assert next_frame(bytes(damaged), first + 1) == first + second


@given(st.binary(max_size=200), st.lists(any_record, min_size=1, max_size=3))
def test_after_any_rubbish_the_next_whole_record_is_found(rubbish: bytes, records: list[Record]) -> None:
    data = b"\x00" + rubbish.replace(b"\xa7", b"") + b"".join(map(encode, records))
    start = next_frame(data, 0)

    assert start is not None
    assert read_frames(data[start:])[0] == records


def test_zeros_as_a_power_cut_leaves_them_are_damage_and_no_record() -> None:
    assert split_frames(bytes(64)) == ([], 0)
    assert not is_torn(bytes(64))
    assert next_frame(bytes(64), 0) is None


def test_a_record_with_a_wrong_checksum_is_damage_not_a_tear() -> None:
    frame = encode(Records().one())

    assert not is_torn(frame[:-1] + b"?")


def test_fields_that_a_later_format_adds_are_passed_over() -> None:
    answered, beside, _ = Records().of_both_kinds()
    of_answer, of_shadow = (orjson.loads(split_frames(encode(record))[0][0]) for record in (answered, beside))

    assert decode(orjson.dumps([2, *of_answer[1:], "later"])) == answered
    assert decode(orjson.dumps(["shadow", 2, *of_shadow[2:], "later"])) == beside


def test_records_of_answers_are_written_as_they_were_before_there_was_another_kind() -> None:
    record = Records().one(id=UUID(int=1), tenant_id=UUID(int=2), unit_hash="u")
    written = b'[1,"00000000000000000000000000000001","00000000000000000000000000000002","u",1,"churn",3,"ALIAS"'

    assert split_frames(encode(record))[0] == [written + b",null,null,null,null,1,812,0.25,false]"]


_NEITHER = [
    b"", b"{}", b"[]", b"[1]", b"[1,2,3]", b'[1,"x","y",1,2,3,4,5,6,7,8,9,10,11,12,13]', b"null", b"\xff", b'["shadow"]',
    b'["shadow",1,"00000000000000000000000000000001","00000000000000000000000000000002"]',
    b'["of another kind",1,"00000000000000000000000000000001","00000000000000000000000000000002",1,2,3,4,5,6,7,8,9,10,11,12,13]',
]  # fmt: skip


@pytest.mark.parametrize("payload", _NEITHER)
def test_a_payload_that_is_no_record_is_unreadable(payload: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        decode(payload)


def test_a_record_longer_than_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than a frame"):
        encode(Records().one(model="m" * MAX_FRAME))


def test_a_score_that_is_no_number_is_kept_as_none() -> None:
    shadow = read_frames(encode(Records().shadow(score=float("inf"), served_score=float("nan"))))[0][0]
    assert (shadow.score, shadow.served_score) == (None, None)  # type: ignore[union-attr]
    assert read_frames(encode(Records().one(score=float("nan"))))[0][0].score is None


def test_the_time_of_a_record_is_that_inside_its_id_to_the_millisecond() -> None:
    at = datetime(2026, 11, 21, 23, 59, 59, 999_000, tzinfo=UTC)

    assert Records().one(id=ids(at)).at == at


def test_a_drivers_own_kind_of_uuid_is_written_like_any_other() -> None:
    plain = Records().many(1)[0]

    assert encode(plain._replace(tenant_id=DriversUuid(plain.tenant_id.hex))) == encode(plain)
