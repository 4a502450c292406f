"""Published models whose network is an ONNX file: `model.onnx` beside the publisher's config and preprocessing, or
beside a card of ours, `onnx.json`, that says what goes in and what comes out.

A file holds its weights itself and uses operators of the standard alone; all else is refused before anything runs.
onnxruntime computes, in the worker that a model runs in. Such a model answers, and cannot be trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models.backbones.exported import check_installed
from speciate.models.trust import NETWORK, ONNX_CARD

if TYPE_CHECKING:
    import torch

CARD = ONNX_CARD
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of operators that onnxruntime brings itself."""
_EXTERNAL = 1
_LEAST = 1e-12


class OnnxCard(BaseModel):
    """`onnx.json`: a network that no config.json describes. Images are read as RGB, in the order channels, rows,
    columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: Literal["image-classification", "image-regression", "image-text-to-text"]
    input: str
    """Name of the network's input, (B, 3, H, W)."""
    output: str
    """Name of the output that counts: (B, labels) of classifiers, (B, 1) of numbers, (B, T, characters) of text."""
    labels: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    """Rows and columns that an image is stretched to; of text the rows alone count, and the width follows."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Standard deviation of pixels from 0 to 1; `mean` likewise."""
    bgr: bool = False
    scores: Literal["logits", "probabilities"] = "logits"
    characters: tuple[str, ...] | str = Field((), description="After the blank; or `metadata:KEY`, one a line.")


def is_onnx(folder: Path) -> bool:
    """Whether the network is an ONNX file, and there are no weights beside it that torch would read."""
    return (folder / NETWORK).is_file() and not any(folder.glob("*.safetensors"))


def read_card(folder: Path) -> OnnxCard | None:
    """None without one. Raises INVALID for one that cannot be read."""
    if not (folder / CARD).is_file():
        return None
    try:
        return OnnxCard.model_validate(foreign_files.read_json(folder / CARD))
    except (OSError, ValueError, ValidationError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"{CARD} in {folder.name!r} is no card of an ONNX network.",
            "Write task, input, output, and labels or characters; size, mean and std as its maker prepared images.",
            str(error)[:500],
        ) from error


class OnnxModule:
    """Called as a module of torch: named tensors in, outputs by their names."""

    def __init__(self, folder: Path, config: Any, threads: int) -> None:
        self.config, self.generation_config = config, None
        self._session, self.count = _open(folder / NETWORK, threads)
        self._inputs = {each.name: each.type for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, **inputs: torch.Tensor) -> Any:
        import torch

        given = {name: np.asarray(each) for name, each in inputs.items() if name in self._inputs}
        found = self._session.run(None, {name: self._typed(name, each) for name, each in given.items()})
        return _Outputs(**{
            name: torch.from_numpy(np.asarray(each)) for name, each in zip(self._outputs, found, strict=True)
        })  # fmt: skip

    def metadata(self) -> Mapping[str, str]:
        found: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    def parameters(self) -> list[Any]:
        """Stands for the parameters: their number is known, not they themselves."""
        return [SimpleNamespace(numel=lambda: self.count)]

    def named_modules(self) -> list[tuple[str, Any]]:
        return []

    def eval(self) -> OnnxModule:
        return self

    def _typed(self, name: str, array: Any) -> Any:
        return array.astype(np.float32) if "float" in self._inputs[name] else array


class _Outputs(SimpleNamespace):
    """Outputs with `None` for what the network does not give, and entries by name as transformers' outputs have."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def get(self, name: str) -> Any:
        return getattr(self, name)


def _open(file: Path, threads: int) -> tuple[Any, int]:
    """A session and its number of weights. Raises MISSING_EXTRA, or INVALID for a file that is not self-contained."""
    check_installed("onnx", "onnxruntime")
    import onnx
    import onnxruntime  # type: ignore[import-untyped]  # has no types

    with foreign_files.open_file(file) as opened:
        data = opened.read()
    try:
        model = onnx.load_model_from_string(data)
        _check(model, file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except SpeciateError:
        raise
    except Exception as error:  # onnx's and onnxruntime's own classes derive from Exception alone
        raise SpeciateError(
            Code.INVALID, f"{file.name!r} is no ONNX network that can be read.", "Use another model.", str(error)[:300]
        ) from error
    return session, sum(int(np.prod(each.dims)) for each in model.graph.initializer)


def _check(model: Any, file: Path) -> None:
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location == _EXTERNAL:
                raise _refused(file, "some of its weights lie in other files")
        for node in graph.node:
            if node.domain not in _DOMAINS:
                raise _refused(file, f"it uses operators of {str(node.domain)[:40]!r}, which are code of its own")
    if any(each.domain not in _DOMAINS for each in model.opset_import):
        raise _refused(file, "it imports operators that are code of its own")


def _graphs(graph: Any) -> list[Any]:
    """The graph and those within its branches and loops."""
    inner = [
        found
        for node in graph.node
        for attribute in node.attribute
        for part in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
        for found in _graphs(part)
    ]
    return [graph, *inner]


def _refused(file: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"{file.name!r} is not safe to load: {why}.",
        "Have its maker export it as one file, or use another.",
    )


class CardProcessor:
    """Images as a card says."""

    def __init__(self, card: OnnxCard) -> None:
        self.card = card

    def __call__(self, images: Sequence[Any], return_tensors: str = "pt") -> dict[str, torch.Tensor]:
        """The batch of these images. Those of text come one at a time, as widths differ."""
        import torch

        return {self.card.input: torch.from_numpy(np.stack([self._prepare(each) for each in images]))}

    def _prepare(self, image: Any) -> Any:
        from PIL import Image

        card = self.card
        if card.size is not None:
            rows, columns = card.size
            if card.characters:
                columns = max(1, round(image.width * rows / image.height))
            image = image.resize((columns, rows), Image.Resampling.BILINEAR)
        pixels = np.asarray(image.convert("RGB"), np.float32) / 255
        pixels = (pixels[..., ::-1] if card.bgr else pixels) - np.array(card.mean, np.float32)
        return np.ascontiguousarray((pixels / np.array(card.std, np.float32)).transpose(2, 0, 1))


class CardModule(OnnxModule):
    """An ONNX network with `logits`, whatever its output is called."""

    def __init__(self, folder: Path, card: OnnxCard, threads: int) -> None:
        labels = dict(enumerate(card.labels))
        super().__init__(folder, SimpleNamespace(id2label=labels, num_labels=len(labels)), threads)
        self._card = card

    def __call__(self, **inputs: torch.Tensor) -> Any:
        found = super().__call__(**inputs)
        scores = found.get(self._card.output)
        if scores is None:
            raise ValueError(f"the network has no output {self._card.output!r}")
        found.logits = scores.clamp(min=_LEAST).log() if self._card.scores == "probabilities" else scores
        return found

    def text_of(self, symbols: Sequence[int]) -> str:
        """The text of the best symbol of each state: repeats are one, 0 is none."""
        kept = [now for before, now in zip([0, *symbols], symbols, strict=False) if now not in (0, before)]
        characters = self.characters()
        return "".join(characters[each - 1] for each in kept if each <= len(characters))

    def characters(self) -> Sequence[str]:
        said = self._card.characters
        if isinstance(said, tuple):
            return said
        lines = self.metadata().get(said.removeprefix("metadata:"), "").split("\n")
        return [*lines, " "]  # as PaddleOCR writes them: the blank between words stands last
