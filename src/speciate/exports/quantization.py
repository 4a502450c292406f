"""Weights and activations in 8 bits, and conversion from ONNX to OpenVINO.

- onnx: a network whose weights are mostly matrices gets 8-bit weights per channel, and activations are quantised at run
  time by their own range (`quantize_dynamic`), without calibration. If most weights are convolutions, for which
  onnxruntime is slow that way, ranges come from calibration examples (`quantize_static`).
- openvino: NNCF's post-training quantisation, calibrated.

Calibration examples come from the training split, so that an export never sees the examples it is evaluated on.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models.backbones.exported import check_installed, without_telemetry

Feed = Mapping[str, npt.NDArray[Any]]
"""A batch of one calibration example, as the network takes it."""
_MATRICES = ("MatMul", "Gemm", "Gather")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def to_int8(source: Path, target: Path, feeds: Sequence[Feed]) -> str:
    """ONNX -> ONNX in 8 bits; returns how. Raises INVALID if nothing in it can be quantised."""
    check_installed("onnx", "onnxruntime")
    from onnxruntime import quantization  # type: ignore[import-untyped]  # has no types

    matrices, convolutions = _weights(source)
    if not matrices + convolutions:
        raise SpeciateError(
            Code.INVALID, "The network has no matrices and no convolutions, so nothing can be in 8 bits.",
            "Call export_model again with quantize='none'.",
        )  # fmt: skip
    with _silently():
        if matrices >= convolutions:
            quantization.quantize_dynamic(
                source, target, weight_type=quantization.QuantType.QInt8, per_channel=True,
                op_types_to_quantize=list(_MATRICES),
            )  # fmt: skip
            return "onnxruntime, dynamic: 8-bit weights per channel, ranges at run time"
        quantization.quantize_static(
            source, target, _reader(feeds), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=[*_CONVOLUTIONS, "MatMul", "Gemm"],
        )  # fmt: skip
    return f"onnxruntime, static: 8-bit weights per channel, ranges of {len(feeds)} training examples"


def to_openvino(source: Path, target: Path, feeds: Sequence[Feed], *, int8: bool) -> str:
    """ONNX -> OpenVINO's two files (`target` ends in .xml); returns how. Names of inputs stay."""
    check_installed("openvino", *(["nncf"] if int8 else []))
    without_telemetry()
    import openvino  # type: ignore[import-untyped]  # has no types

    model = openvino.Core().read_model(source)
    how = "openvino: numbers as they were"
    if int8:
        model, how = _by_nncf(model, feeds, attends=_attends(source))
    openvino.save_model(model, target, compress_to_fp16=False)
    return how


def _by_nncf(model: Any, feeds: Sequence[Feed], *, attends: bool) -> tuple[Any, str]:
    with _silently():
        import nncf  # type: ignore[import-untyped]  # has no types

        logging.getLogger("nncf").setLevel(logging.ERROR)
        kind = nncf.ModelType.TRANSFORMER if attends else None
        made = nncf.quantize(model, nncf.Dataset(list(feeds)), subset_size=len(feeds), model_type=kind)
    return made, f"nncf, post-training: ranges of {len(feeds)} training examples"


def _weights(file: Path) -> tuple[int, int]:
    """Numbers that are multiplied as matrices, and as convolutions."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer}
    of = {node.op_type: 0 for node in graph.node}
    for node in graph.node:
        of[node.op_type] += sum(sizes.get(name, 0) for name in node.input)
    return sum(of.get(name, 0) for name in _MATRICES), sum(of.get(name, 0) for name in _CONVOLUTIONS)


def _attends(file: Path) -> bool:
    import onnx

    return any(node.op_type == "Softmax" for node in onnx.load(file, load_external_data=False).graph.node)


def _reader(feeds: Sequence[Feed]) -> Any:
    """One after another, then None."""
    from onnxruntime.quantization import CalibrationDataReader  # type: ignore[import-untyped]  # has no types

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Feed | None:
            found = next(self._left, None)
            return None if found is None else dict(found)

    return Reader()


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Both libraries print progress bars and advice."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)
