"""Whether an ONNX file is whole in itself: an engine that opens it reads no other file and runs no other code.

Weights can lie in other files, named by any path; operators can come from a library of somebody's. Neither is written
here, and a file with either is refused before an engine sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speciate.errors import Code, SpeciateError

_KNOWN_OPERATORS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "pkg.onnxscript.torch_lib")
"""Sets of operators that onnxruntime brings; the last one only names functions that the file itself defines."""


def check_contained(file: Path) -> None:
    """REFUSED where it names weights in other files, or operators that onnxruntime does not bring."""
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
        f"{file.name} is not whole in itself: {why}.",
        "Export the model again with export_model, from the version with its weights as safetensors.",
    )
