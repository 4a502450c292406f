"""A model of table rows as one ONNX graph: columns as they are, filled, coded and scaled, to probabilities or a value.

    numbers       double (batch, N): NaN where a cell is missing
    categories    string (batch, M): a text that preprocessing.json names where a cell is missing

The registry keeps arrays and no object of scikit-learn, so the graph is built of the arrays, in double precision: a
number that is rounded to float32 on its way to a tree may go another way there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speciate.exports import snippets
from speciate.models.blend import LEAST, Blend, saved_forms
from speciate.models.estimators import Estimator, Kernel, Linear, Trees
from speciate.models.model_card import ModelCard
from speciate.models.quadratics import FARTHEST, Quadratic
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.predictor import ESTIMATOR, TrainedPredictor, load
from speciate.tasks.task import Arrays, Representation, RepresentationSettings

if TYPE_CHECKING:
    import onnx

FORMS = ("linear", "kernel", "trees", "quadratic")
"""Forms of estimators that can become ONNX, alone and in a weighted mean. Nearest neighbours cannot: which of several
as near count depends on the last digit."""
FAMILIES = ("classification", "multi-label", "ordinal", "regression")
_OPSETS: Mapping[str, int] = {"": 17, "ai.onnx.ml": 3}
_IR = 8
_BATCH = "batch"


def why_not(folder: Path) -> str | None:
    """Why the model in this folder cannot leave as such a graph; None if it can. Reads settings alone."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    read = manifest["representation"]
    kinds = [each["kind"] for each in read.get("representations", (read,))]
    if kinds != ["columns"]:
        return f"its {' and '.join(kinds)} are made of media by code"
    if manifest["readout"]["family"] not in FAMILIES:
        return "what its scores mean is told by code"
    others = [form for form in saved_forms(folder / ESTIMATOR) if form not in FORMS]
    if any(form.startswith("neighbours") for form in others):
        return "of several neighbours that are equally near, the last digit decides which count"
    return f"its scores come from {' and '.join(others)}, by code" if others else None


def write_table_graph(folder: Path, file: Path, described: Path, card: ModelCard) -> tuple[str, tuple[str, ...]]:
    """Write the graph and its description; returns the card's program and the packages that it needs."""
    import onnx

    predictor = load(folder)
    assert isinstance(predictor, TrainedPredictor), "why_not was asked before"
    (settings, arrays), task_head = _columns(predictor.representation), predictor.task_head
    missing = _unused(settings)
    graph = _Graph()
    inputs = graph.read(settings)
    scores = graph.scores(predictor.estimator, graph.scale(inputs, arrays))
    output = "value" if task_head.family == "regression" else "probabilities"
    graph.answer(scores, task_head, output)
    onnx.save(graph.model(inputs, output, len(task_head.labels) or 1), file)
    about = {
        "task": predictor.task, "family": task_head.family, "labels": list(task_head.labels),
        "inputs": {name: {"shape": [_BATCH, len(settings[name])], "type": kind} for name, kind in inputs.items()},
        "outputs": {output: [_BATCH, 1] if output == "value" else [_BATCH, "labels"]},
        "numbers": list(settings["numbers"]), "categories": list(settings["categories"]), "missing": missing,
        "steps": "numbers in their order, NaN where missing; categories as text, `missing` where missing",
    }  # fmt: skip
    if task_head.family == "multi-label":
        about["thresholds"] = list(vars(task_head)["thresholds"])
    described.write_text(json.dumps(about, indent=1), encoding="utf-8")
    return snippets.of_onnx_table(task_head.family, card, settings["categories"]), ("numpy", "onnxruntime")


def _columns(representation: Representation) -> tuple[RepresentationSettings, Arrays]:
    """Settings and arrays of the columns; of a mean of learners they are the only one of its representations."""
    settings, arrays = representation.settings(), representation.arrays()
    if settings["kind"] != "several":
        return settings, arrays
    return settings["representations"][0], {name.removeprefix("0."): array for name, array in arrays.items()}


def _unused(settings: RepresentationSettings) -> str:
    """A text that is no category of any column."""
    known, text = {value for values in settings["categories"].values() for value in values}, "<missing>"
    while text in known:
        text = f"<{text}>"
    return text


def _outputs(estimator: Any) -> int:
    """Scores of each row: one of two labels and of numbers."""
    match estimator:
        case Trees():
            return len(estimator.baseline)
        case Kernel() if estimator.classes > 2:
            return int(estimator.classes)
    return len(estimator.bias)


class _Graph:
    """Nodes and constants, in the order in which they are computed."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, domain: str = "", name: str = "", **attributes: Any) -> str:
        """The name of its output."""
        from onnx import helper

        name = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, values: Any, kind: Any = np.float64) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def double(self, of: str) -> str:
        import onnx

        return self.add("Cast", of, to=onnx.TensorProto.DOUBLE)

    def read(self, settings: RepresentationSettings) -> dict[str, str]:
        """Inputs that the model has, with their types."""
        self._settings = settings
        kinds = {"numbers": "double", "categories": "string"}
        return {name: kind for name, kind in kinds.items() if settings[name]}

    def scale(self, inputs: Mapping[str, str], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """(batch, D): numbers, a flag for each that may be missing, and a column for each category."""
        settings = self._settings
        parts = []
        if "numbers" in inputs:
            parts.append("numbers")
            flagged = [settings["numbers"].index(name) for name in settings["flagged"]]
            if flagged:
                places = self.constant(flagged, np.int64)
                parts.append(self.double(self.add("IsNaN", self.add("Gather", "numbers", places, axis=1))))
        for place, values in enumerate(settings["categories"].values()):
            if values:
                column = self.add("Gather", "categories", self.constant(place, np.int64), axis=1)
                coded = self.add("OneHotEncoder", column, domain="ai.onnx.ml", cats_strings=list(values), zeros=1)
                parts.append(self.double(coded))
        rows = self.add("Concat", *parts, axis=1)
        filled = self.add("Where", self.add("IsNaN", rows), self.constant(arrays["fill"]), rows)
        centred = self.add("Sub", filled, self.constant(arrays["centre"]))
        return self.add("Div", centred, self.constant(arrays["spread"]))

    def scores(self, estimator: Estimator | Blend, rows: str) -> str:
        """(batch, K), as `estimator.scores` gives them."""
        match estimator:
            case Linear():
                return self._linear(rows, estimator.weight.T, estimator.bias)
            case Kernel():
                return self._kernel(rows, estimator)
            case Trees():
                return self._trees(rows, estimator)
            case Quadratic():
                return self._linear(self._products(rows, estimator), estimator.weight.T, estimator.bias)
            case Blend():
                return self._mean(rows, estimator)
        raise TypeError(type(estimator).__name__)

    def _linear(self, rows: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> str:
        return self.add("Add", self.add("MatMul", rows, self.constant(weight)), self.constant(bias))

    def _products(self, rows: str, quadratic: Quadratic) -> str:
        """The numbers, and each times itself and those after it, as `with_products` has them."""
        count, width = quadratic.weight.shape[1], 0
        while width + width * (width + 1) // 2 < count:
            width += 1
        kept = self.add("Min", self.add("Max", rows, self.constant(-FARTHEST)), self.constant(FARTHEST))
        pairs = [self.add("Gather", kept, self.constant(places, np.int64), axis=1) for places in np.triu_indices(width)]
        return self.add("Concat", kept, self.add("Mul", *pairs), axis=1)

    def _mean(self, rows: str, blend: Blend) -> str:
        """Each member's answers by its own temperature, their weighted mean, and the scores of that."""
        total = ""
        for member in blend.members:
            scaled = self.add("Div", self.scores(member.estimator, rows), self.constant(member.temperature))
            own = self._probabilities(scaled, member.estimator) if blend.averaged == "classes" else scaled
            own = self.add("Sigmoid", scaled) if blend.averaged == "labels" else own
            own = self.add("Mul", own, self.constant(member.weight))
            total = self.add("Add", total, own) if total else own
        return self._moved(self._of_answers(total, blend), blend)

    def _probabilities(self, scores: str, estimator: Estimator) -> str:
        if _outputs(estimator) > 1:
            return self.add("Softmax", scores, axis=1)
        second = self.add("Sigmoid", scores)
        return self.add("Concat", self.add("Sub", self.constant(1.0), second), second, axis=1)

    def _of_answers(self, mean: str, blend: Blend) -> str:
        """As `blend.as_scores`."""
        if blend.averaged == "numbers":
            return mean
        kept = self.add("Min", self.add("Max", mean, self.constant(LEAST)), self.constant(1 - LEAST))
        if blend.averaged == "classes" and any(_outputs(each.estimator) > 1 for each in blend.members):
            return self.add("Log", kept)
        if blend.averaged == "classes":
            kept = self.add("Gather", kept, self.constant([1], np.int64), axis=1)
        return self.add("Sub", self.add("Log", kept), self.add("Log", self.add("Sub", self.constant(1.0), kept)))

    def _moved(self, scores: str, blend: Blend) -> str:
        return scores if blend.shift is None else self.add("Add", scores, self.constant(blend.shift))

    def _kernel(self, rows: str, kernel: Kernel) -> str:
        vectors = kernel.vectors.astype(np.float64)
        own = self.add("ReduceSum", self.add("Mul", rows, rows), self.constant([1], np.int64), keepdims=1)
        products = self.add("MatMul", rows, self.constant(-2.0 * vectors.T))
        squared = self.add("Add", self.add("Add", own, products), self.constant((vectors**2).sum(1)[None, :]))
        apart = self.add("Max", squared, self.constant(0.0))
        similarity = self.add("Exp", self.add("Mul", apart, self.constant(-float(kernel.gamma))))
        margins = self._linear(similarity, kernel.dual, kernel.bias)
        return self._votes(margins, int(kernel.classes)) if kernel.classes > 2 else margins

    def _votes(self, margins: str, classes: int) -> str:
        """Votes of the classes: each pair of classes gives one; the sum of margins breaks ties."""
        pairs = [(first, second) for first in range(classes) for second in range(first + 1, classes)]
        first, second = (np.eye(classes)[[pair[place] for pair in pairs]] for place in (0, 1))
        won = self.double(self.add("GreaterOrEqual", margins, self.constant(0.0)))
        lost = self.add("Sub", self.constant(1.0), won)
        of_first = self.add("MatMul", won, self.constant(first))
        votes = self.add("Add", of_first, self.add("MatMul", lost, self.constant(second)))
        sums = self.add("MatMul", margins, self.constant(first - second))
        room = self.add("Mul", self.add("Add", self.add("Abs", sums), self.constant(1.0)), self.constant(3.0))
        return self.add("Add", votes, self.add("Div", sums, room))

    def _trees(self, rows: str, trees: Trees) -> str:
        from onnx import numpy_helper

        def doubles(values: Any) -> onnx.TensorProto:
            return numpy_helper.from_array(np.asarray(values, np.float64))

        tree = np.searchsorted(trees.roots, np.arange(len(trees.feature)), side="right") - 1
        own = np.arange(len(trees.feature)) - trees.roots[tree]  # children are absolute positions
        inner = trees.feature >= 0
        leaves = np.flatnonzero(~inner)
        found = self.add(
            "TreeEnsembleRegressor", rows, domain="ai.onnx.ml",
            nodes_treeids=tree.tolist(), nodes_nodeids=own.tolist(),
            nodes_featureids=np.maximum(trees.feature, 0).tolist(),
            nodes_modes=["BRANCH_LEQ" if each else "LEAF" for each in inner],
            nodes_values_as_tensor=doubles(np.where(inner, trees.threshold, 0.0)),
            nodes_truenodeids=np.where(inner, trees.left - trees.roots[tree], 0).tolist(),
            nodes_falsenodeids=np.where(inner, trees.right - trees.roots[tree], 0).tolist(),
            nodes_missing_value_tracks_true=np.where(inner, trees.missing_left, 0).astype(int).tolist(),
            target_treeids=tree[leaves].tolist(), target_nodeids=own[leaves].tolist(),
            target_ids=trees.output[tree[leaves]].tolist(), target_weights_as_tensor=doubles(trees.value[leaves]),
            base_values_as_tensor=doubles(trees.baseline), n_targets=len(trees.baseline),
            aggregate_function="SUM", post_transform="NONE",
        )  # fmt: skip
        return self.double(found)

    def answer(self, scores: str, task_head: Any, output: str) -> None:
        match task_head.family:
            case "regression":
                scaled = self.add("Mul", scores, self.constant(task_head.spread))
                self.add("Add", scaled, self.constant(task_head.mean), name=output)
            case "multi-label":
                self.add("Sigmoid", scores, name=output)
            case "ordinal":
                self._ranks(scores, len(task_head.labels), task_head.temperature, output)
            case _:
                if len(task_head.labels) == 2:
                    zero = self.add("Mul", scores, self.constant(0.0))
                    scores = self.add("Concat", zero, scores, axis=1)
                self.add("Softmax", self.add("Div", scores, self.constant(task_head.temperature)), axis=1, name=output)

    def _ranks(self, scores: str, labels: int, temperature: float, output: str) -> None:
        """(batch, K - 1) of "above this rank" -> (batch, K): what lies between one bound and the next."""
        above = self.add("Sigmoid", self.add("Div", scores, self.constant(temperature)))
        bounds: list[str] = []
        for place in range(labels - 1):
            one = self.add("Gather", above, self.constant([place], np.int64), axis=1)
            bounds.append(self.add("Min", bounds[-1], one) if bounds else one)
        zero = self.add("Mul", bounds[0], self.constant(0.0))
        high = self.add("Concat", self.add("Add", zero, self.constant(1.0)), *bounds, axis=1)
        self.add("Sub", high, self.add("Concat", *bounds, zero, axis=1), name=output)

    def model(self, inputs: Mapping[str, str], output: str, columns: int) -> onnx.ModelProto:
        from onnx import TensorProto, checker, helper

        kinds = {"double": TensorProto.DOUBLE, "string": TensorProto.STRING}
        given = [
            helper.make_tensor_value_info(name, kinds[kind], [_BATCH, len(self._settings[name])])
            for name, kind in inputs.items()
        ]
        made = helper.make_tensor_value_info(output, TensorProto.DOUBLE, [_BATCH, columns])
        graph = helper.make_graph(self.nodes, "rows", given, [made], self.constants)
        opsets: Sequence[Any] = [helper.make_opsetid(name, version) for name, version in _OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="speciate")
        checker.check_model(model)
        return model
