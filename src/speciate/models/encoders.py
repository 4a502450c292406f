"""Frozen models that turn media into vectors. What one computes is fixed by its weights and its settings.

Only text encoders yet: mean of the last layer's token vectors, scaled to unit length (Sentence-BERT, Reimers &
Gurevych 2019). Imports torch when it first embeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models import packaged
from speciate.models.sealed import file_hash
from speciate.refs import model_ref

Vectors = npt.NDArray[np.float32]
Precision = Literal["float32", "bfloat16"]
"""Of weights and activations. bfloat16 costs a third of the time where the processor has it; the vectors' cosine to
those of float32 is above 0.9999 (MiniLM, 640 sentences)."""


class Encoder(Protocol):
    id: str
    """Names what is computed: the same id means the same vector for the same item, on every machine."""
    width: int
    parameters: int
    precision: Precision

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        """Batches of (positions in `media`, vectors (B, width)), in an order that suits the encoder."""
        ...


class TextEncoder:
    def __init__(
        self,
        name: str,
        folder: Path,
        precision: Precision,
        *,
        max_tokens: int = 256,
        batch: int = 32,
        threads: int = 1,
    ) -> None:
        config = json.loads((folder / "config.json").read_text())
        settings = {"pooling": "mean", "normalise": True, "max_tokens": max_tokens, "precision": precision}
        weights = file_hash(folder / "model.safetensors")
        digest = hashlib.sha256(json.dumps([weights, file_hash(folder / "tokenizer.json"), settings]).encode())
        self.id = f"{name}-{digest.hexdigest()[:16]}"
        self.width: int = config["hidden_size"]
        self.parameters = packaged.find(name).parameters
        self.precision = precision
        self._folder, self._max_tokens, self._batch, self._threads = folder, max_tokens, batch, threads
        self._loaded: tuple[Any, Any] | None = None

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        """Longest texts first and together: little padding, and a batch that is too big fails at once."""
        import torch

        tokenizer, model = self._load()
        order = sorted(range(len(media)), key=lambda place: -len(media[place]))
        for start in range(0, len(order), self._batch):
            places = order[start : start + self._batch]
            tokens = tokenizer(
                [media[place] for place in places],
                padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                states = model(**tokens).last_hidden_state.float()  # (B, T, D)
                counted = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)  # (B, T, 1)
                mean = (states * counted).sum(1) / counted.sum(1).clamp(min=1)
                unit = torch.nn.functional.normalize(mean, dim=1)
            yield places, unit.numpy().astype(np.float32, copy=False)

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging

            torch.set_num_threads(self._threads)
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library has no types here
            self._loaded = (
                AutoTokenizer.from_pretrained(self._folder, local_files_only=True),
                AutoModel.from_pretrained(
                    self._folder, local_files_only=True, use_safetensors=True, dtype=self.precision
                ).eval(),
            )
        return self._loaded


def base_models(modality: str) -> list[str]:
    """Refs of the encoders for a modality, whether installed or not."""
    return [
        f"pkg:{name}"
        for name, entry in packaged.PACKAGED.items()
        if entry.modality == modality and entry.task == "feature-extraction"
    ]


def load_encoder(base_model: str, threads: int = 1, precision: Precision | None = None) -> Encoder:
    """The encoder behind a ref; hashes its weights. Raises INVALID, NOT_FOUND or MISSING_EXTRA.

    `precision` None: what this machine computes fastest. A trained model keeps the one that it was trained with.
    """
    ref = model_ref(base_model)
    if ref.source != "pkg":
        raise SpeciateError(
            Code.INVALID,
            f"{base_model!r} cannot be used as a frozen encoder yet.",
            "Use one of: " + ", ".join(f"pkg:{name}" for name in packaged.PACKAGED) + ".",
        )
    return TextEncoder(ref.name, packaged.locate(ref.name), precision or _fastest(), threads=threads)


def _fastest() -> Precision:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"  # not Linux: nothing is known
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
