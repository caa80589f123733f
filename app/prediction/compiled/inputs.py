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
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from app.kernel.tensors import Batch

LARGEST_PROVED = 1e30
_NONE_LARGER = LARGEST_PROVED**2  # a sum of squares up to this, which is quickly found, has no larger number in it
_NO_ROWS: NDArray[np.intp] = np.empty(0, dtype=np.intp)
NUMBERS, INTEGERS, TEXTS = "numbers", "integers", "texts"
_FLOATS: dict[str, type[np.float32 | np.float64]] = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_OTHERS = {INTEGERS: "tensor(int64)", TEXTS: "tensor(string)"}


class OutsideProof(Exception):
    """The graph was not proved for this batch, so the estimator itself must answer it."""


class UnknownLayout(Exception):
    """The graph's inputs are not laid out as this module says; the text says how."""


class Feeder:
    """`feeder(batch)` is what the graph takes, by input name; raises OutsideProof."""

    def __init__(self, signature: Signature, inputs: Iterable[tuple[str, str]]) -> None:
        """`inputs`: (name, type) of each input as onnxruntime words them: ("numbers", "tensor(float)"). Raises UnknownLayout."""
        given = dict(inputs)
        for name, kind in given.items():
            if kind not in _FLOATS if name == NUMBERS else _OTHERS.get(name) != kind:
                raise UnknownLayout(f"The graph has an input {name} of type {kind}.")
        _check_complete(signature, given)
        kinds = [column.type for column in signature.columns if column.type is not ColumnType.STRING]
        self._width = len(kinds)
        self._float = _FLOATS[given[NUMBERS]] if NUMBERS in given else None
        self._has_texts = TEXTS in given
        self._whole = [k for k, kind in enumerate(kinds) if kind is ColumnType.INTEGER] if INTEGERS in given else []
        self._others = [k for k in range(len(kinds)) if k not in set(self._whole)] if self._whole else None

    def require_proved(self, batch: Batch) -> None:
        """Returns where no number is too large; raises OutsideProof."""
        numbers = batch.numbers
        squares = numbers[0].dot(numbers[0]) if batch.rows == 1 else np.vdot(numbers, numbers)
        if not squares <= _NONE_LARGER and (np.abs(numbers) > LARGEST_PROVED).any():
            raise OutsideProof("a number larger than any that the proof tried")

    def too_large(self, numbers: NDArray[np.float64]) -> NDArray[np.intp]:
        """The rows, by number, in which a number is too large."""
        if np.vdot(numbers, numbers) <= _NONE_LARGER:
            return _NO_ROWS
        return np.flatnonzero((np.abs(numbers) > LARGEST_PROVED).any(axis=1))

    def numbers_alone(self) -> NDArray[Any] | None:
        """A row of zeros as the graph takes it, where it takes nothing but `numbers`; a batch's numbers can be copied into it."""
        if self._float is None or self._whole or self._has_texts:
            return None
        return np.zeros((1, self._width), dtype=self._float)

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        self.require_proved(batch)
        numbers = batch.numbers
        fed: dict[str, NDArray[Any]] = {}
        if self._float is not None:
            fed[NUMBERS] = np.ascontiguousarray(numbers if self._others is None else numbers[:, self._others], self._float)
        if self._whole:
            integers = numbers[:, self._whole]
            if np.isnan(integers).any():
                raise OutsideProof("a missing whole number")
            fed[INTEGERS] = integers.astype(np.int64)
        if self._has_texts:
            fed[TEXTS] = _texts(batch)
        return fed

    def outside(self, batch: Batch) -> NDArray[np.intp]:
        """The rows, by number, for which a call raises OutsideProof."""
        bad = (np.abs(batch.numbers) > LARGEST_PROVED).any(axis=1)
        if self._whole:
            bad |= np.isnan(batch.numbers[:, self._whole]).any(axis=1)
        for column in batch.texts if self._has_texts else ():
            bad |= np.array([text is None for text in column], dtype=bool)
        return np.flatnonzero(bad)


def _check_complete(signature: Signature, given: dict[str, str]) -> None:
    kinds = {column.type for column in signature.columns}
    whole = ColumnType.INTEGER in kinds
    wanted = {TEXTS} if ColumnType.STRING in kinds else set()
    if INTEGERS in given:
        wanted |= {INTEGERS}
        kinds -= {ColumnType.INTEGER}
    if kinds - {ColumnType.STRING}:
        wanted |= {NUMBERS}
    if wanted != set(given) or (INTEGERS in given and not whole):
        raise UnknownLayout(f"The graph has the inputs {', '.join(sorted(given))}; the signature needs {', '.join(sorted(wanted))}.")


def _texts(batch: Batch) -> NDArray[np.object_]:
    texts = np.empty((batch.rows, len(batch.texts)), dtype=object)
    for k, column in enumerate(batch.texts):
        if None in column:
            raise OutsideProof("a missing text")
        texts[:, k] = column
    return texts


def feeder(signature: Signature, inputs: Iterable[tuple[str, str]]) -> Feeder:
    """As `Feeder`."""
    return Feeder(signature, inputs)
