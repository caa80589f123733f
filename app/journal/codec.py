"""Records as checksummed frames: a tear is seen at whatever byte it falls, and a damaged stretch is passed over.

Frame, little-endian: 2 bytes magic · 2 bytes payload length · 4 bytes CRC-32 · payload.
The checksum starts from the length, so it covers both. Payload: a JSON list that begins with the format number; later
formats only add at its end. Other kinds of records put their name before the format number; whoever does not know the name keeps
the payload aside as unreadable. A stretch of zeros, which a power cut can leave behind, is no frame: the magic is not zero.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from struct import Struct
from zlib import crc32

import orjson
from asyncpg.pgproto import pgproto

from app.journal.types import InputRecord, PredictionRecord, Record, ShadowRecord

DriversUuid = pgproto.UUID  # made and written in an eighth of the time of the library's, and equal to them
MAGIC = b"\xa7J"
MAX_PAYLOAD = 0xFFFF
_HEADER = Struct("<2sHI")
HEADER_BYTES = _HEADER.size
MAX_FRAME = HEADER_BYTES + MAX_PAYLOAD
_FORMAT = 1
_FIELDS = 15
_SHADOW = "shadow"
_SHADOW_FORMAT = 1
_SHADOW_FIELDS = 15
_INPUT = "input"
_INPUT_FORMAT = 1


class UnreadableRecord(Exception):
    """A whole frame, checksum right, that this version of Turnout cannot read: a newer format, or not ours."""


def encode(record: Record) -> bytes:
    """`record` as one frame; raises ValueError where it is longer than a frame can be (64 KiB)."""
    if isinstance(record, PredictionRecord):
        # Ids as hex: a driver's subclass of UUID, which orjson refuses, is then an id like any other.
        prediction_id, tenant_id, *rest = record
        payload = orjson.dumps((_FORMAT, prediction_id.hex, tenant_id.hex, *rest))
    else:
        payload = _of_shadow(record) if isinstance(record, ShadowRecord) else _of_input(record)
    size = len(payload)
    if size > MAX_PAYLOAD:
        raise ValueError(f"a record of {size} bytes is longer than a frame can be ({MAX_PAYLOAD})")
    return _HEADER.pack(MAGIC, size, crc32(payload, size)) + payload


def _of_shadow(record: ShadowRecord) -> bytes:
    return orjson.dumps(
        (
            _SHADOW, _SHADOW_FORMAT, record.id.hex, record.tenant_id.hex, record.kind, record.variant, record.row, record.experiment,
            record.unit_hash, record.version, record.served_variant, record.served_version, record.served_label, record.served_score,
            record.label, record.score, record.compute_us,
        )
    )  # fmt: skip


def _of_input(record: InputRecord) -> bytes:
    sealed = b64encode(record.sealed).decode()
    return orjson.dumps((_INPUT, _INPUT_FORMAT, record.id.hex, record.tenant_id.hex, record.unit_hash, sealed))


def decode(payload: bytes) -> Record:
    """The record in one frame's payload; raises UnreadableRecord."""
    try:
        head, *fields = orjson.loads(payload)
        if head == _SHADOW:
            number, prediction_id, tenant_id, *rest = fields
            if number >= _SHADOW_FORMAT and len(rest) >= _SHADOW_FIELDS - 2:
                return ShadowRecord._make((DriversUuid(prediction_id), DriversUuid(tenant_id), *rest[: _SHADOW_FIELDS - 2]))
        elif head == _INPUT:
            number, prediction_id, tenant_id, unit_hash, sealed, *_ = fields
            if number >= _INPUT_FORMAT:
                return InputRecord(DriversUuid(prediction_id), DriversUuid(tenant_id), unit_hash, b64decode(sealed, validate=True))
        elif head >= _FORMAT:  # the name of a kind that is not known is no number
            prediction_id, tenant_id, *rest = fields
            if len(rest) >= _FIELDS - 2:
                return PredictionRecord._make((DriversUuid(prediction_id), DriversUuid(tenant_id), *rest[: _FIELDS - 2]))
    except (ValueError, TypeError, AttributeError) as error:
        raise UnreadableRecord(str(error)) from None
    raise UnreadableRecord(f"format {head} with {len(fields) + 1} fields")


def split_frames(data: bytes) -> tuple[list[bytes], int]:
    """The payloads of the whole frames at the beginning of `data`, and how many bytes they take: the rest is torn or damaged."""
    payloads: list[bytes] = []
    position, size = 0, len(data)
    while position + HEADER_BYTES <= size:
        magic, length, checksum = _HEADER.unpack_from(data, position)
        end = position + HEADER_BYTES + length
        if magic != MAGIC or end > size:
            break
        payload = data[position + HEADER_BYTES : end]
        if crc32(payload, length) != checksum:
            break
        payloads.append(payload)
        position = end
    return payloads, position


def read_frames(data: bytes) -> tuple[list[Record], int]:
    """The records at the beginning of `data` up to the first tear, and the length of that clean part. Raises UnreadableRecord."""
    payloads, clean = split_frames(data)
    return [decode(payload) for payload in payloads], clean


def is_torn(tail: bytes) -> bool:
    """Whether `tail`, what a segment holds after its last whole frame, is the beginning of one frame that was never finished.

    False means damage: bytes are there that were once a whole record, or that nobody of ours wrote.
    """
    if len(tail) < HEADER_BYTES:
        return MAGIC.startswith(tail[:2])
    magic, length, _ = _HEADER.unpack_from(tail)
    return bool(magic == MAGIC and len(tail) < HEADER_BYTES + length)


def next_frame(data: bytes, start: int) -> int | None:
    """Where, from `start` on, the next whole frame with the right checksum begins; None where there is none."""
    while (start := data.find(MAGIC, start)) >= 0:
        if split_frames(data[start : start + MAX_FRAME])[1]:
            return start
        start += 1
    return None
