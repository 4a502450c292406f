"""What a published model of spectrograms learns: to continue a recording's spectrogram by its text.

The loss is the publisher's: the distance of spectrograms before and after the last layers, where speech ends, and that
attention runs along the text (guided attention, Tachibana et al. 2018). Held-out recordings are judged by the same
loss, each by itself and with the same draw of the dropout that this network never leaves out, so that two judgements
differ by the weights alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, PrivateAttr

from speciate.errors import Code, SpeciateError
from speciate.modalities.audio_answers import decode_audio, resample
from speciate.models.published.adapters.speech import spectrogram_of
from speciate.models.published.network import PublishedNetwork
from speciate.models.published.published_model import PublishedModel
from speciate.tasks.families.speech_synthesis import SpeechSynthesis

if TYPE_CHECKING:
    import torch

Batch = Mapping[str, "torch.Tensor"]
_IGNORED = -100.0


class PublishedSpeechSynthesis(SpeechSynthesis):
    """Task head of one model; it is not stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    whole_batch: ClassVar[Literal[True]] = True
    """The mean runs over frames and over cells of attention, and the last layers normalise over the batch."""
    _model: PublishedModel = PrivateAttr()

    def encode_targets(self, targets: Sequence[Any]) -> Any:
        """(F, bands) spectrograms, as many frames as the decoder makes at a time or a multiple."""
        return [self._spectrogram(target) for target in targets]

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        return self._loss(network, batch, targets), len(targets)

    def held_out_errors(
        self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]
    ) -> Sequence[npt.NDArray[Any]]:
        """(1,) of each example."""
        import torch

        found = []
        for row, target in enumerate(targets):
            count = int(batch["attention_mask"][row].sum())
            one = {name: each[row : row + 1, :count] for name, each in batch.items()}
            device = batch["input_ids"].device
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(zlib.crc32(np.ascontiguousarray(target).tobytes()))
                found.append(np.array([float(self._loss(network, one, [target]))]))
        return found

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Any:
        raise TypeError("a model of spectrograms is judged by held_out_errors")

    def _loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> torch.Tensor:
        import torch

        device = batch["input_ids"].device
        longest = max(len(target) for target in targets)
        labels = torch.full((len(targets), longest, targets[0].shape[1]), _IGNORED)
        for row, target in zip(labels, targets, strict=True):
            row[: len(target)] = torch.from_numpy(target)
        assert self._model.voice is not None, "loaded with it"
        speaker = self._model.voice.speaker.to(device).expand(len(targets), -1)
        module: Any = network.module
        found: torch.Tensor = module(**batch, speaker_embeddings=speaker, labels=labels.to(device)).loss
        return found

    def _spectrogram(self, target: Any) -> npt.NDArray[np.float32]:
        extractor, config = self._model.processor, self._model.config
        samples, rate = decode_audio(target)
        found: npt.NDArray[np.float32] = spectrogram_of(extractor, resample(samples, rate, extractor.sampling_rate))
        step = int(config.reduction_factor)
        most = int(config.max_speech_positions) * step
        if not step <= len(found) <= most:
            raise SpeciateError(
                Code.INVALID,
                f"A recording has {len(samples) / rate:.2f} s, which are {len(found)} frames, and the model learns "
                f"from {step} to {most:,}.",
                "Cut it with its text, or exclude it with curate_dataset.",
            )
        return found[: len(found) // step * step]


def speech_head(model: PublishedModel) -> PublishedSpeechSynthesis:
    head = PublishedSpeechSynthesis()
    head._model = model
    return head
