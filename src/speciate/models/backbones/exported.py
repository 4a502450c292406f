"""A backbone whose network is a file of another engine (onnxruntime, OpenVINO); preprocessing and heads stay ours.

Its folder has `backbone.json` with an entry `exported`, the backbone's own files, and the network where
`backbone.safetensors` would be. The backbone itself is rebuilt on torch's device `meta`, without any weights, for its
`prepare` and `collate`: the same code as before the export, so that only the network can differ. It answers, and cannot
be trained.

`open_network` gives `compute: {input: array} -> outputs in the file's order`. One thread means one thread, also for
waiting: nothing spins beside other work of the machine. No library of custom operators is registered, so a file can use
none. OpenVINO keeps to float32 unless `fastest`: the fastest precision differs between processors, and so would
answers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.errors import Code, SpeciateError
from speciate.models.backbones.contract import Backbone, BackboneSettings, Item, Rebuild, States

if TYPE_CHECKING:
    import torch


ENTRY = "exported"
OUTPUTS = ("sequence", "mask", "pooled")
Format = Literal["onnx", "openvino"]


class ExportSettings(BaseModel):
    """The network of an exported folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Format
    quantize: Literal["none", "int8"] = "none"
    inputs: dict[str, tuple[int | None, ...]]
    """The batch's entries that the network reads, with their sides; None: any."""
    grid: tuple[int, ...] | None = None
    """Shape of the grid of its States, if positions have places."""
    parameters: int
    """Learned numbers of the network, as before the export."""


class ExportedBackbone:
    def __init__(self, inner: Backbone, settings: ExportSettings, width: int, compute: Compute) -> None:
        import torch

        self.base_model, self.modality, self.unit = inner.base_model, inner.modality, inner.unit
        self.width, self.module = width, torch.nn.Module()
        self.exported = settings
        self._inner, self._compute = inner, compute

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        return self._inner.prepare(media, per_unit=per_unit)

    def length(self, item: Item) -> int:
        return self._inner.length(item)

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return self._inner.collate(items)

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        import torch

        given = {name: batch[name].numpy() for name in self.exported.inputs}
        for name, sides in self.exported.inputs.items():
            if any(side not in (None, had) for side, had in zip(sides, given[name].shape, strict=True)):
                raise _unlike(self, name, sides, given[name].shape)
        sequence, mask, pooled = (torch.from_numpy(each) for each in self._compute(given))
        return States(sequence.float(), mask.bool(), pooled.float(), self.exported.grid)

    def settings(self) -> BackboneSettings:
        return self._inner.settings() | {ENTRY: self.exported.model_dump()}

    def files(self) -> dict[str, bytes]:
        return self._inner.files()


def load(settings: Mapping[str, Any], folder: Path, rebuild: Rebuild) -> ExportedBackbone:
    """The backbone from a folder whose hashes were checked. As many threads compute as torch has."""
    import torch

    export = ExportSettings.model_validate(settings[ENTRY])
    plain = {name: value for name, value in settings.items() if name != ENTRY}
    inner = weightless(plain, folder, rebuild)
    file = folder / FILES[export.format][0]
    compute = open_network(export.format, file, torch.get_num_threads(), fastest=export.quantize == "int8")
    return ExportedBackbone(inner, export, int(settings["width"]), compute)


def weightless(settings: BackboneSettings, folder: Path, rebuild: Rebuild) -> Backbone:
    """The backbone that gave these settings, for its preprocessing; without memory for weights if its libraries can."""
    import torch

    try:
        with torch.device("meta"):
            return rebuild(settings, folder)
    except (NotImplementedError, RuntimeError, SpeciateError):  # it computes its own shape with its weights
        return rebuild(settings, folder)


def export_settings(settings: Mapping[str, Any]) -> ExportSettings | None:
    """None for a backbone that was not exported."""
    return ExportSettings.model_validate(settings[ENTRY]) if settings.get(ENTRY) else None


def refuse_training(name: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{name!r} is an export: its network answers, and nothing can be trained on it.",
        "Name the version that it was exported from: the first of its lineage in describe_model.",
    )


def _unlike(backbone: Backbone, name: str, sides: Sequence[int | None], had: Sequence[int]) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The exported network of {backbone.base_model!r} takes {name!r} with sides {tuple(sides)} (None: any); this "
        f"example makes {tuple(had)}.",
        "Use the version that it was exported from: it takes more.",
    )


Compute = Callable[[Mapping[str, npt.NDArray[Any]]], list[npt.NDArray[Any]]]
FILES: dict[Format, tuple[str, ...]] = {"onnx": ("backbone.onnx",), "openvino": ("backbone.xml", "backbone.bin")}
"""The engine opens the first one."""
_RUNS: dict[Format, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
_ERRORS_ONLY = 3


def check_installed(*libraries: str) -> None:
    """Raise MISSING_EXTRA if one of them is not installed."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"Exported models need the library {library!r}, which is not installed.",
                "Run: pip install 'speciate[exports]'",
            )


def open_network(format: Format, file: Path, threads: int, *, fastest: bool = False) -> Compute:  # noqa: A002 - as the tool calls it
    """Raises MISSING_EXTRA, or INVALID if the engine cannot read the file."""
    check_installed(_RUNS[format])
    try:
        return _onnx(file, threads) if format == "onnx" else _openvino(file, threads, fastest=fastest)
    except (RuntimeError, ValueError, OSError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"{_RUNS[format]} cannot read {file}.",
            "Export the model again with export_model.",
            str(error)[:300],
        ) from error


def without_telemetry() -> None:
    """OpenVINO's tools and NNCF report their use to their maker unless this module cannot be imported: both then use
    a stub. Call it before either is imported."""
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
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 0 if threads == 1 else 1}
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
