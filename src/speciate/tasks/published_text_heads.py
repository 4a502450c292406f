"""Published heads that write: their loss is the publisher's, or cross-entropy where a forward pass has none.

Targets are the texts themselves; scores are the characters of what was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models.published.adapters.text import best_tokens
from speciate.models.published.network import (
    OFFSETS,
    PASSAGE,
    QUESTION_MASK,
    PublishedNetwork,
    decode_symbols,
    generate,
)
from speciate.tasks.families.generation import Generation
from speciate.tasks.families.transcription import Transcription
from speciate.tasks.task import Prediction

if TYPE_CHECKING:
    import torch

Batch = Mapping[str, "torch.Tensor"]
Rows = Sequence[npt.NDArray[Any]]
_MOST_UNKNOWN = 0.2
"""Share of the characters or tokens of the training texts that a tokenizer may lack."""
_IGNORED = -100
_MOST_TOKENS = 448
"""Tokens of a text that is learned, at most, where the network names no limit."""


class _Texts:
    """What task heads have in common whose scores are characters."""

    def encode_targets(self, targets: Sequence[Any]) -> Any:
        return list(targets)

    def predictions(self, scores: Rows) -> list[Prediction]:
        return [Prediction("".join(map(chr, row)), None, None) for row in scores]


class PublishedCtc(_Texts, Transcription):
    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """Each text's CTC loss per symbol, the mean over texts: so a batch may be learned in parts. One that is longer
        than its states adds nothing."""
        import torch

        module: Any = network.module
        total, counted = torch.zeros(()), 0
        for rows, part in network.alike(batch):
            logits = module(**part).logits.float()
            codes = [torch.tensor(symbols_of(network, targets[row])) for row in rows]
            counts = torch.tensor([len(each) for each in codes])
            losses = torch.nn.functional.ctc_loss(
                torch.log_softmax(logits, 2).transpose(0, 1).cpu(), torch.cat(codes).long(),
                torch.full((len(rows),), logits.shape[1]), counts, int(module.config.pad_token_id), reduction="none",
                zero_infinity=True,
            )  # fmt: skip
            total = total + (losses * (counts > 0) / counts.clamp(min=1)).sum()
            counted += int((counts > 0).sum())
        return total / max(counted, 1), counted

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            made: Any = network.module(**part)
            found.update(zip(rows, map(_characters, decode_symbols(network, made.logits.argmax(-1))), strict=True))
        return [found[row] for row in range(len(found))]


class PublishedSpeech(_Texts, Transcription):
    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """The mean over tokens."""
        return _loss_of_parts(network, batch, targets)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        return _written_parts(network, batch)


class PublishedTextToText(_Texts, Generation):
    """Encoder-decoders that read a text, such as T5, BART and Marian."""

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """The mean over tokens."""
        wanted = spoken_tokens(network, targets).to(batch["input_ids"].device)
        return network.module(**batch, labels=wanted).loss, int((wanted != _IGNORED).sum())

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        return [_characters(text) for text in generate(network, batch)]


class PublishedCaption(_Texts, Generation):
    """Models that write about an image: readers of lines and pages, and BLIP's captioner."""

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """The mean over tokens."""
        return _loss_of_parts(network, batch, targets)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        return _written_parts(network, batch)


class PublishedAnswer(_Texts, Generation):
    """Models that mark an answer in a passage. An answer that does not stand there, or not in the part that the model
    reads, teaches nothing."""

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """Cross-entropy of the first and the last token, their mean, over the answers that are found."""
        import torch

        out: Any = network.module(**_of_question(batch))
        inside, total, counted = batch[QUESTION_MASK] > 0, torch.zeros((), device=batch["input_ids"].device), 0
        for row, target in enumerate(targets):
            place = _place_of(_passage(batch, row), batch[OFFSETS][row], inside[row], str(target))
            if place is None:
                continue
            for logits, position in zip((out.start_logits[row], out.end_logits[row]), place, strict=True):
                total = total - torch.log_softmax(logits.float().masked_fill(~inside[row], -1e9), 0)[position] / 2
            counted += 1
        if not counted:
            total = total + 0.0 * (out.start_logits.sum() + out.end_logits.sum())
        return total / max(counted, 1), counted

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        out: Any = network.module(**_of_question(batch))
        found = []
        for row in range(len(batch["input_ids"])):
            run = best_tokens(out.start_logits[row].float(), out.end_logits[row].float(), batch[QUESTION_MASK][row] > 0)
            offsets = batch[OFFSETS][row]
            found.append(_characters(_passage(batch, row)[int(offsets[run.first][0]) : int(offsets[run.last][1])]))
        return found


def check_texts(network: PublishedNetwork, texts: Sequence[str]) -> None:
    """Raise INVALID if the published tokenizer lacks much of what the training texts are made of."""
    tokenizer: Any = network.model.tokenizer or network.model.processor
    unknown, tokens = tokenizer.unk_token_id, 0
    missing = 0
    for text in texts:
        found = symbols_of(network, str(text))
        tokens, missing = tokens + len(found), missing + sum(each == unknown for each in found)
    if unknown is not None and missing > _MOST_UNKNOWN * max(tokens, 1):
        raise SpeciateError(
            Code.INVALID,
            f"The tokenizer of {network.base_model!r} lacks {missing / tokens:.0%} of what the training texts are made "
            "of, and its head writes nothing else.",
            "Call train_model again with hyperparameters={'head': 'new'}, or with a model of this language.",
        )


def symbols_of(network: PublishedNetwork, text: str) -> list[int]:
    """Codes of a text; in capitals where the published vocabulary has no other letters."""
    tokenizer: Any = network.model.tokenizer or network.model.processor
    adapter = network.model.head.adapter
    if adapter == "ctc":
        letters = [each for each in tokenizer.get_vocab() if len(each) == 1 and each.isalpha()]
        if letters and all(each.isupper() for each in letters):
            text = text.upper()
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    codes: list[int] = (
        tokenizer(text_target=text)["input_ids"] if adapter == "seq2seq" else tokenizer(text)["input_ids"]
    )
    return codes


def spoken_tokens(network: PublishedNetwork, texts: Sequence[str]) -> torch.Tensor:
    """(B, T) of what is to be written; -100 after its end. The token that a decoder begins with is not written."""
    import torch

    most, start = _most_tokens(network), decoder_start(network)
    codes = [symbols_of(network, str(text)) for text in texts]
    codes = [each[1:] if each[:1] == [start] else each for each in codes]
    rows = torch.full((len(codes), max(1, *(min(len(each), most) for each in codes))), _IGNORED)
    for row, each in enumerate(codes):
        rows[row, : min(len(each), most)] = torch.tensor(each[:most])
    return rows


def decoder_start(network: PublishedNetwork) -> int | None:
    """The token that a decoder begins with."""
    module: Any = network.module
    found = getattr(module.config, "decoder_start_token_id", None)
    return found if found is not None else getattr(module.generation_config, "decoder_start_token_id", None)


def _most_tokens(network: PublishedNetwork) -> int:
    config: Any = network.module.config
    decoder = getattr(config, "decoder", None) or getattr(config, "text_config", None) or config
    found = getattr(config, "max_target_positions", None) or getattr(decoder, "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else _MOST_TOKENS


def _loss_of_parts(network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
    import torch

    losses, counted = [], 0
    for rows, part in network.alike(batch):
        loss, count = _written_loss(network, part, [targets[row] for row in rows])
        losses.append(loss * count)
        counted += count
    return torch.stack(losses).sum() / max(counted, 1), counted


def _written_loss(network: PublishedNetwork, part: Batch, texts: Sequence[str]) -> tuple[torch.Tensor, int]:
    """The mean cross-entropy of the tokens, and their number."""
    import torch

    module: Any = network.module
    wanted = spoken_tokens(network, texts).to(next(iter(part.values())).device)
    if network.model.head.model_type == "blip":  # a decoder that reads its own text, from its own first token
        rows = wanted.masked_fill(wanted == _IGNORED, int(module.config.text_config.pad_token_id))
        rows[:, 0] = int(module.config.text_config.bos_token_id)
        logits = module(**part, input_ids=rows, attention_mask=(wanted != _IGNORED).long()).logits[:, :-1]
        wanted = wanted[:, 1:]
    elif network.model.head.adapter == "image-to-text":
        start = torch.full_like(wanted[:, :1], int(decoder_start(network) or 0))
        filler = getattr(module.generation_config, "pad_token_id", None) or 0
        before = torch.cat([start, wanted[:, :-1].masked_fill(wanted[:, :-1] == _IGNORED, filler)], 1)
        logits = module(**part, decoder_input_ids=before).logits
    else:
        return module(**part, labels=wanted).loss, int((wanted != _IGNORED).sum())
    loss = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=_IGNORED)
    return loss, int((wanted != _IGNORED).sum())


def _written_parts(network: PublishedNetwork, batch: Batch) -> Rows:
    found: dict[int, npt.NDArray[Any]] = {}
    for rows, part in network.alike(batch):
        found.update(zip(rows, map(_characters, generate(network, part)), strict=True))
    return [found[row] for row in range(len(found))]


def _of_question(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: each for name, each in batch.items() if name not in (QUESTION_MASK, OFFSETS, PASSAGE)}


def _passage(batch: Batch, row: int) -> str:
    return "".join(map(chr, batch[PASSAGE][row][batch[PASSAGE][row] > 0].tolist()))


def _place_of(passage: str, offsets: torch.Tensor, inside: torch.Tensor, answer: str) -> tuple[int, int] | None:
    """Positions of the first and the last token of an answer, by its first occurrence; None where it is not seen."""
    start = passage.find(answer.strip())
    if start < 0 or not answer.strip():
        return None
    stop = start + len(answer.strip())
    within = inside & (offsets[:, 1] > start) & (offsets[:, 0] < stop)
    places = within.nonzero().flatten().tolist()
    seen = places and int(offsets[places[0]][0]) <= start and int(offsets[places[-1]][1]) >= stop
    return (places[0], places[-1]) if seen else None


def _characters(text: str) -> npt.NDArray[np.uint32]:
    return np.array([ord(each) for each in text], np.uint32)
