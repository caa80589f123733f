"""A fitted estimator as an ONNX graph, laid out as `app.prediction.compiled` reads it. Runs in a locked child only."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
from onnx import helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

from app.kernel.signature import ColumnType, InputKind, Signature, Task
from app.prediction.compiled.inputs import INTEGERS, NUMBERS, TEXTS
from app.prediction.compiled.outputs import LABELS, MARGINS, PROBABILITIES, VALUES
from app.prediction.worker.calling import class_labels, trained_names
from app.prediction.worker.columns import same_input
from app.prediction.worker.compiling.trees import NotConvertible
from app.prediction.worker.settle import nested_estimators

if TYPE_CHECKING:
    from collections.abc import Iterator

OPSETS = {"": 21, "ai.onnx.ml": 3}  # the newest that skl2onnx writes for
_TREES = 5  # the version of ai.onnx.ml that knows trees of 64 bits, and what the others do as in version 3


@dataclass(frozen=True, slots=True)
class Form:
    """How a graph is made. `double`: it computes with 64 bits. `integers`: INTEGER columns stay whole numbers."""

    double: bool
    integers: bool = False


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a graph must answer with: probabilities, where the estimator has them; labels, where they are not the likeliest class."""

    probabilities: bool
    labels: bool


def forms(signature: Signature) -> tuple[Form, ...]:
    """The forms to try, the fastest first."""
    whole = any(column.type is ColumnType.INTEGER for column in signature.columns)
    return (Form(False), Form(True), *((Form(False, True), Form(True, True)) if whole else ()))


def to_graph(estimator: Any, signature: Signature, task: Task, form: Form, wanted: Outputs) -> bytes:
    """The graph; raises NotConvertible, and whatever else skl2onnx raises."""
    layout = _Layout(estimator, signature, form)
    with warnings.catch_warnings(), layout.positions_for_names():
        warnings.simplefilter("ignore")
        made = _convert(estimator, layout.inputs(), task)
    _free_names(made.graph)
    layout.take_signature_order(made.graph)
    _name_outputs(made.graph, estimator, task, wanted)
    _prune(made.graph)
    _tidy(made)
    return bytes(made.SerializeToString())


def _convert(estimator: Any, inputs: list[tuple[str, Any]], task: Task) -> onnx.ModelProto:
    for held in nested_estimators(estimator):
        if isinstance(held, VotingClassifier):
            held.flatten_transform = False  # a matter of `transform` alone, which nobody calls; the converter wants it so
    options = {"zipmap": False} if task is Task.CLASSIFICATION else None
    made = convert_sklearn(estimator, initial_types=inputs, options=options, target_opset=OPSETS)
    return cast("onnx.ModelProto", made)


def _free_names(graph: onnx.GraphProto) -> None:
    """Gives other names to values that have the names of our outputs."""
    ours = {VALUES, PROBABILITIES, LABELS, MARGINS}
    for node in graph.node:
        node.input[:] = [f"{name}_made" if name in ours else name for name in node.input]
        node.output[:] = [f"{name}_made" if name in ours else name for name in node.output]
    for output in graph.output:
        output.name = f"{output.name}_made" if output.name in ours else output.name


class _Layout:
    """Where each column of the estimator's input is in the graph's inputs."""

    def __init__(self, estimator: Any, signature: Signature, form: Form) -> None:
        require_no_texts(estimator, signature)
        self._estimator = estimator
        self._form = form
        names = [column.name for column in signature.columns]
        trained = [str(name) for name in trained_names(estimator) or names]
        order = [names.index(name) for name in trained] if set(trained) == set(names) else list(range(len(names)))
        self._groups: dict[str, list[int]] = {NUMBERS: [], INTEGERS: [], TEXTS: []}
        kinds = [self._group(column.type) for column in signature.columns]
        for i in order:
            self._groups[kinds[i]].append(i)
        in_graph = [i for group in self._groups.values() for i in group]
        self._position = [in_graph.index(i) for i in order]  # by position in the estimator's input
        self._mixed = sum(bool(group) for group in self._groups.values()) > 1

    def _group(self, kind: ColumnType) -> str:
        if kind is ColumnType.STRING:
            return TEXTS
        return INTEGERS if kind is ColumnType.INTEGER and self._form.integers else NUMBERS

    def inputs(self) -> list[tuple[str, Any]]:
        types = {NUMBERS: DoubleTensorType if self._form.double else FloatTensorType, INTEGERS: Int64TensorType, TEXTS: StringTensorType}
        return [(name, types[name]([None, len(group)])) for name, group in self._groups.items() if group]

    @contextlib.contextmanager
    def positions_for_names(self) -> Iterator[None]:
        """Meanwhile column transformers on the model's input speak of positions in the graph's inputs, not of names."""
        found = list(same_input(self._estimator))
        transformers = [held for held in found if isinstance(held, ColumnTransformer)]
        if self._mixed and not transformers:
            raise NotConvertible("it takes texts and numbers in one table without a ColumnTransformer")
        kept = [held.transformers_ for held in transformers]
        try:
            for held in transformers:
                indices = held._transformer_to_input_indices  # noqa: SLF001  nothing public says it
                held.transformers_ = [(name, part, [self._position[i] for i in indices[name]]) for name, part, _ in held.transformers_]
            yield
        finally:
            for held, before in zip(transformers, kept, strict=True):
                held.transformers_ = before

    def take_signature_order(self, graph: onnx.GraphProto) -> None:
        """Puts the columns of each input into the estimator's order, where the signature has another."""
        for name, group in self._groups.items():
            if group != sorted(group):
                at = np.argsort(np.argsort(group))  # the input holds the group in signature order
                ordered = f"{name}_in_order"
                for node in graph.node:
                    node.input[:] = [ordered if given == name else given for given in node.input]
                graph.initializer.append(helper.make_tensor(f"{name}_order", onnx.TensorProto.INT64, [len(group)], at.tolist()))
                graph.node.insert(0, helper.make_node("Gather", [name, f"{name}_order"], [ordered], axis=1))


def require_no_texts(estimator: Any, signature: Signature) -> None:
    """Returns where the estimator splits no texts into words; raises NotConvertible."""
    if signature.kind is InputKind.TEXT or any(
        isinstance(held, CountVectorizer | HashingVectorizer) for held in nested_estimators(estimator)
    ):
        raise NotConvertible("a graph does not split texts into words as scikit-learn does")


def _name_outputs(graph: onnx.GraphProto, estimator: Any, task: Task, wanted: Outputs) -> None:
    outputs = [output.name for output in graph.output]
    if task is Task.REGRESSION:
        if len(outputs) != 1:
            raise NotConvertible(f"its graph has {len(outputs)} outputs")
        renamed = {VALUES: outputs[0]}
    else:
        if len(outputs) != 2:
            raise NotConvertible(f"its graph has {len(outputs)} outputs")
        renamed = {PROBABILITIES if wanted.probabilities else MARGINS: outputs[1]}
        if wanted.labels:
            renamed = {LABELS: _add_indices(graph, estimator, outputs[0]), **renamed}
    known = {output.name: output for output in graph.output}
    del graph.output[:]
    for name, made in renamed.items():
        graph.node.append(helper.make_node("Identity", [made], [name]))
        if name == LABELS:
            graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
        else:
            graph.output.append(helper.make_tensor_value_info(name, known[made].type.tensor_type.elem_type, None))


def _add_indices(graph: onnx.GraphProto, estimator: Any, labels: str) -> str:
    """The name of the labels as indices into the classes."""
    classes = class_labels(estimator)
    texts = all(isinstance(label, str) for label in classes)
    keys: dict[str, Any] = {"keys_strings": classes} if texts else {"keys_int64s": [int(label) for label in classes]}
    keys |= {"values_int64s": list(range(len(classes))), "default_int64": -1}
    graph.node.append(helper.make_node("LabelEncoder", [labels], ["label_indices"], domain="ai.onnx.ml", **keys))
    return "label_indices"


def _prune(graph: onnx.GraphProto) -> None:
    """Removes what no output needs."""
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in _backwards(graph):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    kept.reverse()
    initializers = [found for found in graph.initializer if found.name in needed]
    inputs = [found for found in graph.input if found.name in needed]
    if len(inputs) != len(graph.input):
        raise NotConvertible("its answers depend on some of its columns only")
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(initializers)


def _backwards(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Each node before those that it depends on."""
    made_by = {name: i for i, node in enumerate(graph.node) for name in node.output}
    order: list[int] = []
    state = [0] * len(graph.node)
    for first in range(len(graph.node)):
        waiting = [first]
        while waiting:
            i = waiting[-1]
            if state[i] == 0:
                state[i] = 1
                waiting += [made_by[name] for name in graph.node[i].input if name in made_by and state[made_by[name]] == 0]
            else:
                waiting.pop()
                if state[i] == 1:
                    state[i] = 2
                    order.append(i)
    return [graph.node[i] for i in reversed(order)]


def _tidy(made: onnx.ModelProto) -> None:
    versions: dict[str, int] = {}
    for opset in made.opset_import:
        versions[opset.domain] = max(opset.version, versions.get(opset.domain, 1))
    if any(node.domain == "ai.onnx.ml" for node in made.graph.node):
        versions["ai.onnx.ml"] = _TREES
    del made.opset_import[:]
    made.opset_import.extend(helper.make_operatorsetid(domain, version) for domain, version in versions.items())
    del made.graph.value_info[:]
