"""Checked rows as the inputs of a compiled graph. Pure: the proof and the serving process use the same code.

The layout is in the graph itself, in the names and types of its inputs:
`numbers` (rows, k) float or double: the columns that are not STRING, in signature order, NaN where a value is missing;
`integers` (rows, i) int64: where it is there, the INTEGER columns, which `numbers` then leaves out;
`texts` (rows, t) string: the STRING columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from app.kernel.signature import ColumnType, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from app.kernel.tensors import Batch

    Feeder = Callable[[Batch], dict[str, NDArray[Any]]]

LARGEST_PROVED = 1e30
NUMBERS, INTEGERS, TEXTS = "numbers", "integers", "texts"
_FLOATS: dict[str, type[np.float32 | np.float64]] = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_OTHERS = {INTEGERS: "tensor(int64)", TEXTS: "tensor(string)"}


class OutsideProof(Exception):
    """The graph was not proved for this batch, so the estimator itself must answer it."""


class UnknownLayout(Exception):
    """The graph's inputs are not laid out as this module says; the text says how."""


def feeder(signature: Signature, inputs: Iterable[tuple[str, str]]) -> Feeder:
    """`feeder(batch)` is what the graph takes, by input name; it raises OutsideProof.

    `inputs`: (name, type) of each input as onnxruntime words them: ("numbers", "tensor(float)"). Raises UnknownLayout.
    """
    given = dict(inputs)
    for name, kind in given.items():
        if kind not in _FLOATS if name == NUMBERS else _OTHERS.get(name) != kind:
            raise UnknownLayout(f"The graph has an input {name} of type {kind}.")
    _check_complete(signature, given)
    whole = INTEGERS in given
    if set(given) == {NUMBERS} and not whole:
        return _numbers_alone(_FLOATS[given[NUMBERS]])
    kinds = [column.type for column in signature.columns if column.type is not ColumnType.STRING]
    at = {
        NUMBERS: [k for k, kind in enumerate(kinds) if not (whole and kind is ColumnType.INTEGER)],
        INTEGERS: [k for k, kind in enumerate(kinds) if kind is ColumnType.INTEGER],
    }

    def feed(batch: Batch) -> dict[str, NDArray[Any]]:
        fed: dict[str, NDArray[Any]] = {}
        _require_proved(batch.numbers)
        if NUMBERS in given:
            fed[NUMBERS] = np.ascontiguousarray(batch.numbers[:, at[NUMBERS]] if whole else batch.numbers, _FLOATS[given[NUMBERS]])
        if whole:
            fed[INTEGERS] = _integers(batch.numbers[:, at[INTEGERS]])
        if TEXTS in given:
            fed[TEXTS] = _texts(batch)
        return fed

    return feed


def _check_complete(signature: Signature, given: dict[str, str]) -> None:
    kinds = {column.type for column in signature.columns}
    wanted = {TEXTS} & set(given) if ColumnType.STRING not in kinds else {TEXTS}
    if INTEGERS in given:
        wanted |= {INTEGERS}
        kinds -= {ColumnType.INTEGER}
    if kinds - {ColumnType.STRING}:
        wanted |= {NUMBERS}
    if wanted != set(given) or (TEXTS in given and ColumnType.STRING not in kinds):
        raise UnknownLayout(f"The graph has the inputs {', '.join(sorted(given))}; the signature needs {', '.join(sorted(wanted))}.")


def _numbers_alone(kind: type[np.float32 | np.float64]) -> Feeder:
    """The common case, without a step that it does not need."""

    def feed(batch: Batch) -> dict[str, NDArray[Any]]:
        _require_proved(batch.numbers)
        return {NUMBERS: np.ascontiguousarray(batch.numbers, kind)}

    return feed


def _require_proved(numbers: NDArray[np.float64]) -> None:
    if numbers.size and not np.abs(numbers).max() <= LARGEST_PROVED and (np.abs(numbers) > LARGEST_PROVED).any():
        raise OutsideProof("a number larger than any that the proof tried")


def _integers(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    if np.isnan(numbers).any():
        raise OutsideProof("a missing whole number")
    return numbers.astype(np.int64)


def _texts(batch: Batch) -> NDArray[np.object_]:
    texts = np.empty((batch.rows, len(batch.texts)), dtype=object)
    for k, column in enumerate(batch.texts):
        if None in column:
            raise OutsideProof("a missing text")
        texts[:, k] = column
    return texts
