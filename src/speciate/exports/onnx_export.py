"""From a backbone to one ONNX file that computes what `states` computes of a collated batch. Dimensions are dynamic
wherever possible.

    batch (named tensors) -> sequence, mask, pooled

torch.export traces the computation on real examples. A dimension that it had to fix (an image's sides, the length of a
time series) is read from the file, so that an example of another size gets an error of ours.

The file is complete in itself: an engine that opens it reads no other file and runs no other code. Weights could lie in
files of any path, and operators could come from somebody's library. Neither is written here, and `check_contained`
refuses a file with either before an engine sees it.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models.backbones.contract import Backbone, Item
from speciate.models.backbones.exported import OUTPUTS, check_installed

if TYPE_CHECKING:
    import torch


_TRACED = 3
"""Examples of the traced batch: a batch of one would become a fixed dimension."""
_KNOWN_OPERATORS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "pkg.onnxscript.torch_lib")
"""Operator sets of onnxruntime; the last one only names functions that the file itself defines."""
Sides = dict[str, tuple[int | None, ...]]


class TracedNetwork(NamedTuple):
    inputs: Sides
    """The entries of the batch that the network reads."""
    grid: tuple[int, ...] | None


def to_onnx(backbone: Backbone, items: Sequence[Item], file: Path) -> TracedNetwork:
    """`items`: prepared real examples, of several lengths where media have lengths.

    Raises INVALID if the network cannot be exported, or if the grid of its states depends on the example.
    """
    check_installed("onnx", "onnxscript")
    import torch

    batch = backbone.collate(_varied(backbone, items))
    names = sorted(batch)
    module = _module(backbone, names)
    with torch.no_grad():
        grids = {backbone.states(backbone.collate([item])).grid for item in items[:_TRACED]}
    if len(grids) > 1:
        raise _cannot(backbone, "the grid of its states depends on the example")
    given = tuple(batch[name] for name in names)
    free = tuple(dict.fromkeys(range(each.ndim), torch.export.Dim.AUTO) for each in given)
    export_program(backbone, module, given, free, names, OUTPUTS, file)
    check_contained(file)
    inputs = _inputs(file)
    if any(sides[0] is not None for sides in inputs.values()):
        raise _cannot(backbone, "it fixes how many examples are computed at once")
    return TracedNetwork(inputs, next(iter(grids)))


def export_program(
    backbone: Backbone, module: torch.nn.Module, given: tuple[torch.Tensor, ...], free: tuple[dict[int, Any], ...],
    inputs: Sequence[str], outputs: Sequence[str], file: Path,
) -> None:  # fmt: skip
    """Trace `module` on `given` and write the file. `free`: the dimensions of each input that may vary. INVALID where
    the exporter cannot follow."""
    import torch

    try:
        with torch.no_grad(), _silently():
            program = torch.onnx.export(
                module, given, dynamo=True, dynamic_shapes=(free,), input_names=list(inputs),
                output_names=list(outputs), verbose=False,
            )  # fmt: skip
            assert program is not None, "dynamo=True gives a program"
            program.save(file, external_data=False)
    except Exception as error:
        raise _cannot(backbone, f"{type(error).__name__}: {_first_line(error)}") from error


def check_contained(file: Path) -> None:
    """Raise REFUSED if the file names weights in other files, or operators that onnxruntime does not bring."""
    import onnx

    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:
        raise _refused(file, f"it cannot be read: {str(error)[:200]}") from error
    graphs = [model.graph]
    functions = {(each.domain, each.name) for each in model.functions}
    nodes = [node for each in model.functions for node in each.node]
    while graphs:
        graph = graphs.pop()
        for tensor in [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]:
            _check_tensor(file, tensor)
        nodes += graph.node
    while nodes:
        node = nodes.pop()
        if node.domain not in _KNOWN_OPERATORS and (node.domain, node.op_type) not in functions:
            raise _refused(file, f"it uses the operator {node.op_type[:64]!r} of {node.domain[:64]!r}")
        for tensor in _tensors(node):
            _check_tensor(file, tensor)
        for inner in _graphs(node):
            nodes += inner.node
            for tensor in inner.initializer:
                _check_tensor(file, tensor)


def _varied(backbone: Backbone, items: Sequence[Item]) -> list[Item]:
    """A few items of different lengths; if there are too few, the same one again."""
    order = sorted(range(len(items)), key=lambda place: backbone.length(items[place]))
    picked = [order[round(part * (len(order) - 1) / (_TRACED - 1))] for part in range(_TRACED)]
    return [items[place] for place in picked]


def _module(backbone: Backbone, names: Sequence[str]) -> torch.nn.Module:
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = backbone.module

        def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            found = backbone.states(dict(zip(names, given, strict=True)))
            return found.sequence, found.mask, found.pooled

    return Network().eval()


def _inputs(file: Path) -> Sides:
    """The inputs that the file reads: entries of the batch that the network does not need are dropped."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    return {
        each.name: tuple(
            side.dim_value if side.HasField("dim_value") else None for side in each.type.tensor_type.shape.dim
        )
        for each in graph.input
        if each.name in read
    }


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """The exporter prints its steps and warns of its own insides."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]


def _cannot(backbone: Any, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The network of {backbone.base_model!r} cannot be exported: {why}.",
        "Networks of text, proteins, images, audio and time series can; for this one use format='safetensors'.",
    )


def _check_tensor(file: Path, tensor: Any) -> None:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        named = next((each.value for each in tensor.external_data if each.key == "location"), "another file")
        raise _refused(file, f"weights of it lie in {named[:100]!r}")


def _tensors(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _refused(file: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"{file.name} is not complete in itself: {why}.",
        "Export the model again with export_model, from the version with its weights as safetensors.",
    )
