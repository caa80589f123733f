"""The signature that an inspection tries out: from the given columns, else from the estimator, its encoders and the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.kernel.signature import Column, ColumnType, InputKind, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.kernel.inspection import InspectionRequest
    from app.prediction.worker.columns import Hint, Reading

_MOST_NAMED = 10


class Misfit(Exception):
    """The artifact, the columns and the sample do not go together; the text says how."""


def draft_signature(reading: Reading, request: InspectionRequest) -> Signature:
    """Every column optional but for given ones: which the estimator needs is tried out later. Raises Misfit."""
    names = _names(reading, request)
    if len(set(names)) != len(names):
        raise Misfit("Two columns have the same name.")
    columns = request.columns
    if columns is None:
        columns = tuple(_column(name, reading.hints.get(i), _values(request.sample, i, name)) for i, name in enumerate(names))
        if reading.kind is InputKind.TEXT:
            columns = (Column(names[0], ColumnType.STRING),)
    elif reading.kind is InputKind.TEXT and columns[0].type is not ColumnType.STRING:
        raise Misfit(f"The estimator begins with a text vectoriser: its one column must be a STRING, not {columns[0].type}.")
    trained = names if reading.names is None else reading.names
    none = {trained[i] for i, hint in reading.hints.items() if hint.missing_is_none}
    return Signature(columns, reading.kind, tuple(c.name for c in columns if c.name in none and c.type is ColumnType.STRING))


def _names(reading: Reading, request: InspectionRequest) -> Sequence[str]:
    """The columns' names in signature order: the given ones, the frame's, the sample's, or x0, x1 and so on."""
    if request.columns is not None:
        given = [column.name for column in request.columns]
        _check_given(given, reading)
        return given
    if reading.names is not None:
        return reading.names
    sampled = _sample_names(request.sample)
    width = reading.width
    if width is None:
        width = len(sampled) if sampled else len(request.sample[0]) if request.sample and isinstance(request.sample[0], list) else None
    if width is None:
        raise Misfit("The estimator does not say which columns it takes: register it again with a signature or a sample.")
    if sampled and len(sampled) == width:
        return sampled
    if sampled:
        raise Misfit(f"The rows of the sample have {len(sampled)} columns, but the estimator was fitted on {width}.")
    return ["text"] if reading.kind is InputKind.TEXT else [f"x{i}" for i in range(width)]


def _check_given(given: list[str], reading: Reading) -> None:
    if reading.names is not None:
        missing = [name for name in reading.names if name not in given]
        extra = [name for name in given if name not in reading.names]
        if missing or extra:
            parts = [f"it lacks {_list(missing)}"] if missing else []
            parts += [f"it has {_list(extra)}, which the estimator does not know"] if extra else []
            raise Misfit(f"The signature does not fit the columns that the estimator was fitted on: {' and '.join(parts)}.")
    elif reading.width is not None and len(given) != reading.width:
        raise Misfit(f"The signature has {len(given)} columns, but the estimator was fitted on {reading.width}.")


def _list(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"


def _sample_names(sample: Sequence[Any]) -> list[str]:
    """The keys of the sample's objects, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in sample if isinstance(row, dict) for key in row))


def _values(sample: Sequence[Any], position: int, name: str) -> list[Any]:
    found = [
        row.get(name) if isinstance(row, dict) else row[position] if isinstance(row, list) and position < len(row) else None
        for row in sample
    ]
    return [value for value in found if value is not None]


def _column(name: str, hint: Hint | None, values: list[Any]) -> Column:
    """Typed by the encoder, else by the sample, else a number."""
    kind = hint.type if hint is not None else None
    if kind is None and values:
        kinds = set(map(type, values))
        kind = ColumnType.STRING if kinds == {str} else ColumnType.BOOLEAN if kinds == {bool} else None
    categories = hint.categories if hint is not None and kind is ColumnType.STRING else None
    return Column(name, kind or ColumnType.NUMBER, required=False, categories=categories)
