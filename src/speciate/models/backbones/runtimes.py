"""Engines that compute an exported network from its file: onnxruntime and OpenVINO, each as one function.

    open(FORMAT, file, threads) -> compute: {input: array} -> outputs in the file's order

One thread means one thread, also for waiting: nothing spins beside the other work of the machine. No library of custom
operators is ever registered, so a file can ask for none. OpenVINO keeps to float32 unless `fastest`: what the fastest
precision of a processor is differs from one to the next, and so would the answers.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError

Format = Literal["onnx", "openvino"]
Compute = Callable[[Mapping[str, npt.NDArray[Any]]], list[npt.NDArray[Any]]]
FILES: dict[Format, tuple[str, ...]] = {"onnx": ("backbone.onnx",), "openvino": ("backbone.xml", "backbone.bin")}
"""The first is what an engine opens."""
_RUNS: dict[Format, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
_ERRORS_ONLY = 3


def check_installed(*libraries: str) -> None:
    """MISSING_EXTRA where one of them is not there."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"Exported models need the library {library!r}, which is not installed.",
                "Run: pip install 'speciate[exports]'",
            )


def open_network(form: Format, file: Path, threads: int, *, fastest: bool = False) -> Compute:
    """Raises MISSING_EXTRA, or INVALID where the engine cannot read the file."""
    check_installed(_RUNS[form])
    try:
        return _onnx(file, threads) if form == "onnx" else _openvino(file, threads, fastest=fastest)
    except (RuntimeError, ValueError, OSError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"{_RUNS[form]} cannot read {file}.",
            "Export the model again with export_model.",
            str(error)[:300],
        ) from error


def without_telemetry() -> None:
    """OpenVINO's tools and NNCF report their use to their maker unless this module cannot be imported: both then go on
    with a stub. Before either is imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be imported


def _onnx(file: Path, threads: int) -> Compute:
    import onnxruntime as ort  # type: ignore[import-untyped]  # has no types

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(str(error)) from error  # its own classes, which derive from Exception alone

    def compute(given: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        found: list[npt.NDArray[Any]] = session.run(None, dict(given))
        return found

    return compute


def _openvino(file: Path, threads: int, *, fastest: bool) -> Compute:
    without_telemetry()
    import openvino  # type: ignore[import-untyped]  # has no types

    # Without a stream the caller's own thread computes. With one, each answer is handed to another thread and back,
    # which on a busy machine took 1.9 ms where computing took 0.3.
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 0 if threads == 1 else 1}
    if threads > 1:
        settings["INFERENCE_NUM_THREADS"] = threads
    if not fastest:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    request = compiled.create_infer_request()

    def compute(given: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        found = request.infer(dict(given))
        return [np.array(found[output]) for output in compiled.outputs]  # theirs are overwritten by the next

    return compute
