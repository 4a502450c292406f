"""Frozen models that turn media into vectors. What one computes is fixed by its weights and its settings.

Only text encoders yet: mean of the last layer's token vectors, scaled to unit length (Sentence-BERT, Reimers &
Gurevych 2019). Imports torch when it first embeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models import packaged
from speciate.models.sealed import file_hash
from speciate.refs import model_ref

Vectors = npt.NDArray[np.float32]


class Encoder(Protocol):
    id: str
    """Names what is computed: the same id means the same vector for the same item, on every machine."""
    width: int
    parameters: int

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        """Batches of (positions in `media`, vectors (B, width)), in an order that suits the encoder."""
        ...


class TextEncoder:
    def __init__(self, name: str, folder: Path, *, max_tokens: int = 256, batch: int = 32, threads: int = 1) -> None:
        config = json.loads((folder / "config.json").read_text())
        settings = {"pooling": "mean", "normalise": True, "max_tokens": max_tokens}
        weights = file_hash(folder / "model.safetensors")
        digest = hashlib.sha256(json.dumps([weights, file_hash(folder / "tokenizer.json"), settings]).encode())
        self.id = f"{name}-{digest.hexdigest()[:16]}"
        self.width: int = config["hidden_size"]
        self.parameters = packaged.find(name).parameters
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
                states = model(**tokens).last_hidden_state  # (B, T, D)
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
                AutoModel.from_pretrained(self._folder, local_files_only=True, use_safetensors=True).eval(),
            )
        return self._loaded


def base_models(modality: str) -> list[str]:
    """Refs of the encoders for a modality, whether installed or not."""
    return [
        f"pkg:{name}"
        for name, entry in packaged.PACKAGED.items()
        if entry.modality == modality and entry.task == "feature-extraction"
    ]


def load_encoder(base_model: str, threads: int = 1) -> Encoder:
    """The encoder behind a ref; hashes its weights. Raises INVALID, NOT_FOUND or MISSING_EXTRA."""
    ref = model_ref(base_model)
    if ref.source != "pkg":
        raise SpeciateError(
            Code.INVALID,
            f"{base_model!r} cannot be used as a frozen encoder yet.",
            "Use one of: " + ", ".join(f"pkg:{name}" for name in packaged.PACKAGED) + ".",
        )
    return TextEncoder(ref.name, packaged.locate(ref.name), threads=threads)
