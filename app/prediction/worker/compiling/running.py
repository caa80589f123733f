"""The second of two locked children: it never sees the tenant's file, runs a checked graph on the rows of the proof, and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from app.kernel.signature import Signature, Task
from app.kernel.tensors import Batch, Scores
from app.prediction.compiled.sessions import CompiledGraph
from app.prediction.worker.compiling.timing import joined, median_us

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from app.prediction.compiled.outputs import Answer

_ROWS_AT_ONCE = 500
_ONE_BY_ONE = 200  # a graph may take another way for one row than for many


def prepare() -> None:
    """What must be done before the lock, when files can still be read: the first session looks at the machine."""
    from onnx import TensorProto, helper

    numbers = helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, 1])
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph([helper.make_node("Identity", ["numbers"], ["values"])], "warm", [numbers], [values])
    model = helper.make_model(graph, opset_imports=[helper.make_operatorsetid("", 21)], ir_version=10)
    signature = Signature.from_json({"columns": [{"name": "a", "type": "NUMBER"}], "kind": "ARRAY"})
    CompiledGraph.from_bytes(model.SerializeToString(), signature, Task.REGRESSION, 0).answer(Batch(1, np.zeros((1, 1))))


def run_graph(data: bytes, signature: Signature, task: Task, classes: int, batch: Batch) -> tuple[Scores, NDArray[np.bool_], float]:
    """(the scores of all rows, which of them do not count, microseconds for one row); raises whatever onnxruntime raises."""
    graph = CompiledGraph.from_bytes(data, signature, task, classes)
    outside = np.zeros(batch.rows, dtype=bool)
    outside[graph.feeder.outside(batch)] = True
    inside = np.flatnonzero(~outside)
    alone, together = inside[:_ONE_BY_ONE], inside[_ONE_BY_ONE:]
    answers = [graph.answer(_part(batch, alone[i : i + 1])) for i in range(len(alone))]
    answers += [graph.answer(_part(batch, together[i : i + _ROWS_AT_ONCE])) for i in range(0, len(together), _ROWS_AT_ONCE)]
    doubtful = outside.copy()
    doubtful[inside] = np.concatenate([_mask(answer) for answer in answers]) if answers else False
    scores = _spread(joined([answer.scores for answer in answers]), inside, doubtful)
    probe = _part(batch, alone[:1])
    return scores, doubtful, median_us(lambda: graph.answer(probe)) if probe.rows else 0.0


def _part(batch: Batch, rows: NDArray[np.intp]) -> Batch:
    return Batch(len(rows), batch.numbers[rows], tuple(tuple(column[i] for i in rows.tolist()) for column in batch.texts))


def _mask(answer: Answer) -> NDArray[np.bool_]:
    rows = next(len(a) for a in (answer.scores.labels, answer.scores.values) if a is not None)
    mask = np.zeros(rows, dtype=bool)
    mask[answer.doubtful] = True
    return mask


def _spread(scores: Scores, inside: NDArray[np.intp], doubtful: NDArray[np.bool_]) -> Scores:
    """The scores at their rows, zeros where they do not count: nothing that is not finite is told."""

    def placed(array: Any) -> Any:
        if array is None:
            return None
        whole = np.zeros((len(doubtful), *array.shape[1:]), dtype=array.dtype)
        whole[inside] = array
        whole[doubtful] = 0
        return whole

    return Scores(placed(scores.labels), placed(scores.probabilities), placed(scores.values))
