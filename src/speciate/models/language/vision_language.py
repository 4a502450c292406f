"""Base models that see pictures and write text: whether a folder holds one, and how model and processor are loaded.

A folder of transformers with a model of its auto class for image-text-to-text, safetensors, and a processor: tokenizer,
what becomes of pictures, and a chat template. Nothing is downloaded and no code of a folder runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import ASSISTANT, IMAGE_MARK, USER, Conversation, Message, with_system
from speciate.models import model_folder
from speciate.models.language.causal_lm import config, is_named, unreadable
from speciate.models.language.chat_templates import IGNORED, TokenizedExample
from speciate.models.language.text_generation import GeneratedText, Sampling, answer, ends, settings

if TYPE_CHECKING:
    import torch


_SEES = ("vision_config", "visual", "vision_tower")
"""Entries of a config.json, one of which such models have."""
_WRITES = ("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq", "ForImageTextToText")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_USUAL_LENGTH = 2048


def is_vision_language(folder: Path) -> bool:
    """Whether a folder holds a model that writes about pictures, as its config.json says."""
    found = config(folder)
    return is_named(found, _WRITES) and any(name in found for name in _SEES)


def check(folder: Path, ref: str) -> None:
    """INVALID where a model that sees cannot be trained from the folder. Reads headers alone."""
    if not is_vision_language(folder):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} writes nothing about pictures: its config.json names no architecture that sees and writes.",
            "Use a folder of a vision-language model with safetensors (path:/dir), or one that register_model fetched.",
        )
    model_folder.weight_files(folder)
    if not any((folder / name).is_file() for name in _PROCESSORS):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} has no processor beside its weights ({' or '.join(_PROCESSORS)}), so nothing says what becomes "
            "of pictures.",
            "Save it with save_pretrained of the model's processor as well.",
        )


def load_processor(folder: Path, template: str | None = None) -> Any:
    """`template`: Jinja in place of its own. Pads on the left."""
    from transformers import AutoProcessor

    load: Any = AutoProcessor.from_pretrained
    try:
        processor: Any = load(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise unreadable(folder, f"its processor: {type(error).__name__}", error) from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise unreadable(
            folder, f"its processor is a {type(processor).__name__}, which does not take pictures and text"
        )
    processor.chat_template = template or processor.chat_template or tokenizer.chat_template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return processor


def load_model(folder: Path) -> torch.nn.Module:
    """In eval mode and float32, on the processor. INVALID where weights are missing."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(folder, f"{type(error).__name__}", error) from error
    model, said = loaded
    lost = sorted(said["missing_keys"]) + [str(each) for each in said["mismatched_keys"]]
    if lost:
        raise unreadable(folder, f"its weights lack {', '.join(map(str, lost[:3]))}")
    model.eval()
    if model.config.is_encoder_decoder or getattr(model.config.get_text_config(), "is_encoder_decoder", False):
        raise unreadable(folder, "it reads with one network and writes with another, which is not learned here")
    return model  # type: ignore[no-any-return]


def longest(model: Any) -> int:
    """Tokens that a model can see, those of pictures among them."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _USUAL_LENGTH)


def vision_encoder(model: Any) -> tuple[str, Any] | None:
    """The part of the model that sees, with its name; None where it is not apart from the rest."""
    found = model.get_encoder(modality="image")
    return next(((name, each) for name, each in model.named_modules() if name and each is found), None)


def check_template(processor: Any, what: str) -> None:
    """INVALID where nothing says how a conversation is written, or when an answer ends."""
    if not processor.chat_template:
        raise SpeciateError(
            Code.INVALID,
            f"The processor of {what} has no chat template, which says where in a conversation pictures stand.",
            "Call train_model again with hyperparameters={'chat_template': JINJA}, or with an instruction-tuned model.",
        )
    if processor.tokenizer.eos_token_id is None:
        raise SpeciateError(
            Code.INVALID,
            f"The tokenizer of {what} has no end of text (eos_token), so a model could not learn to stop.",
            "Name a base model whose tokenizer_config.json says eos_token.",
        )


# What a model that sees is asked: a conversation with pictures in it, as text, as tokens, and as batches.
#
# Pictures are decoded already. A template is told only where they stand, and the processor is handed their pixels:
# nothing is read from a path or an address that a conversation names.


Picture = npt.NDArray[np.uint8]
"""(H, W, 3)."""
_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
"""What a processor says of each token."""
_MARKS = ("image_token", "video_token", "audio_token", "boi_token")
"""Attributes of a processor with tokens that stand for something else than text."""


class ImagePrompt(NamedTuple):
    """A question about pictures, which are shown in the order of their marks."""

    said: Conversation
    pictures: tuple[Picture, ...]


class ImageExample(NamedTuple):
    """A lesson whose pixels are made when they are needed. `text`: the conversation as the processor takes it."""

    tokens: TokenizedExample
    kinds: dict[str, list[int]]
    """What else the processor says of each token."""
    text: str
    pictures: tuple[Picture, ...]


def mark_images(said: Conversation, count: int) -> Conversation:
    """With a mark for each picture: where none is, all stand before the first words of a user. ValueError where there
    are other marks than pictures."""
    there = sum(each.content.count(IMAGE_MARK) for each in said)
    if there == count:
        return said
    if there:
        raise ValueError(f"{there} places for pictures ({IMAGE_MARK}) and {count} pictures")
    first = next((place for place, each in enumerate(said) if each.role == USER), None)
    if first is None:
        return (Message(USER, IMAGE_MARK * count), *said)
    return tuple(
        each._replace(content=IMAGE_MARK * count + each.content) if place == first else each
        for place, each in enumerate(said)
    )


def render_prompt(processor: Any, look: ImagePrompt, system: str | None) -> str:
    """The text after which the model is to write its answer. ValueError where it cannot be asked."""
    return _render(processor, _whole(processor, look, system), asks=True)


def tokenize_example(
    processor: Any, look: ImagePrompt, answer: str, system: str | None, *, every_turn: bool = False
) -> ImageExample:
    """The question with its answer. Learned are the last turn of the assistant, or each of them; never a picture.

    An answer's tokens are those of its text alone, as they are when the model is asked. ValueError where the template
    rewrites earlier turns, or the model cannot be trained on this.
    """
    said = (*_whole(processor, look, system), Message(ASSISTANT, answer))
    if IMAGE_MARK in answer or _mark_in(processor, answer):
        raise ValueError("the answer holds a picture, and this model writes text")
    text = _render(processor, said)
    turns = [place for place, each in enumerate(said) if each.role == ASSISTANT]
    ids, labels, kinds, at, shown = list[int](), list[int](), dict[str, list[int]](), 0, 0
    for place in turns if every_turn else turns[-1:]:
        before, until = _edges(processor, said, place, text)
        count = sum(each.content.count(IMAGE_MARK) for each in said[:place]) - shown
        context = _tokens(processor, text[at:before], look.pictures[shown : shown + count], begins=at == 0)
        own, behind = _answer(processor, text[before:until])
        behind = behind if place < len(said) - 1 else []  # never written by a model
        before_it = context.pop("input_ids")
        for name, values in context.items():
            known = kinds.setdefault(name, [])
            known += [*([0] * (len(ids) - len(known))), *values]  # not said of texts without a picture by some
        ids += [*before_it, *own, *behind]
        labels += [*([IGNORED] * len(before_it)), *own, *([IGNORED] * len(behind))]
        at, shown = until, shown + count
    kinds = {name: [*known, *([0] * (len(ids) - len(known)))] for name, known in kinds.items()}
    return ImageExample(TokenizedExample(ids, labels), kinds, text, look.pictures)


def collate(processor: Any, found: Sequence[ImageExample]) -> dict[str, Any]:
    """Tensors as the model takes them, padded on the right: (B, T) of tokens and labels, and the pixels in whatever
    shape this processor gives them."""
    import torch

    tensors = encode(processor, [each.text for each in found], [each.pictures for each in found])
    pixels = {name: value for name, value in tensors.items() if name not in _OF_TOKENS}
    width = max(len(each.tokens.ids) for each in found)

    def filled(rows: Sequence[Sequence[int]], blank: int) -> Any:
        return torch.tensor([[*row, *[blank] * (width - len(row))] for row in rows])

    names = sorted({name for each in found for name in each.kinds})
    return pixels | {
        "input_ids": filled([each.tokens.ids for each in found], processor.tokenizer.pad_token_id),
        "attention_mask": filled([[1] * len(each.tokens.ids) for each in found], 0),
        "labels": filled([each.tokens.labels for each in found], IGNORED),
        **{name: filled([each.kinds.get(name, []) for each in found], 0) for name in names},
    }


def encode(
    processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Picture]], *, begins: bool = True
) -> dict[str, Any]:
    """What the processor makes of texts with their pictures, padded on the left. `begins`: they are no later part of a
    text, so a tokenizer that begins texts with a token of its own does so unless the template did, as transformers has
    it. ValueError where the processor refuses them, or ties pictures to tokens in a way that is not known here."""
    from PIL import Image

    first = processor.tokenizer.bos_token
    begun = first is not None and any(each.startswith(first) for each in texts)
    shown = [[Image.fromarray(each) for each in some] for some in pictures]
    try:
        found = dict(
            processor(
                text=list(texts), images=shown if any(shown) else None, padding=True, return_tensors="pt",
                add_special_tokens=begins and not begun,
            )
        )  # fmt: skip
    except (ValueError, TypeError, IndexError, StopIteration, RuntimeError) as error:
        raise ValueError("the processor refuses it") from error
    shape = tuple(found["input_ids"].shape)
    strange = [name for name, each in found.items() if name not in _OF_TOKENS and tuple(each.shape[:2]) == shape]
    if any(name.endswith("attention_mask") and name.startswith("cross") for name in found) or strange:
        raise ValueError("its processor ties pictures to tokens by masks, which is not done here")
    return found


def shrink(picture: Picture, side: int | None) -> Picture:
    """Its longest side at most so many pixels; never larger than it was."""
    if side is None or max(picture.shape[:2]) <= side:
        return picture
    from PIL import Image

    made = Image.fromarray(picture)
    made.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(made)


def _whole(processor: Any, look: ImagePrompt, system: str | None) -> Conversation:
    said = with_system(mark_images(look.said, len(look.pictures)), system)
    for each in said:
        for text in each.content.split(IMAGE_MARK):
            if mark := _mark_in(processor, text):
                raise ValueError(f"the text holds {mark!r}, which stands for a picture")
    return said


def _mark_in(processor: Any, text: str) -> str | None:
    marks = (getattr(processor, name, None) for name in _MARKS)
    return next((mark for mark in marks if isinstance(mark, str) and mark and mark in text), None)


def _render(processor: Any, said: Sequence[Message], *, asks: bool = False) -> str:
    from jinja2.exceptions import TemplateError

    shown = [{"role": each.role, "content": _parts(each.content)} for each in said]
    try:
        return str(processor.apply_chat_template(shown, tokenize=False, add_generation_prompt=asks))
    except (TemplateError, TypeError) as error:
        raise ValueError("the chat template refuses it") from error


def _parts(content: str) -> list[dict[str, str]]:
    """As chat templates of such models take a content: pictures and texts in turn."""
    found: list[dict[str, str]] = []
    for place, text in enumerate(content.split(IMAGE_MARK)):
        if place:
            found.append({"type": "image"})
        if text:
            found.append({"type": "text", "text": text})
    return found


def _edges(processor: Any, said: Sequence[Message], place: int, text: str) -> tuple[int, int]:
    before = _render(processor, said[:place], asks=True)
    until = text if place == len(said) - 1 else _render(processor, said[: place + 1])
    if not (text.startswith(before) and text.startswith(until)):
        raise ValueError("the chat template writes earlier turns otherwise once later ones follow")
    return len(before), len(until)


def _tokens(processor: Any, text: str, pictures: Sequence[Picture], *, begins: bool) -> dict[str, list[int]]:
    """What is said of each token of one text."""
    found = encode(processor, [text], [pictures], begins=begins)
    return {
        name: found[name][0].tolist() for name in _OF_TOKENS if name in found and name != "attention_mask"
    }  # fmt: skip


def _answer(processor: Any, text: str) -> tuple[list[int], list[int]]:
    """Up to the end of text, and what a template puts behind it."""
    ids = list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    end = processor.tokenizer.eos_token_id
    length = len(ids) - ids[::-1].index(end) if end in ids else len(ids)
    return ids[:length], ids[length:]


# Texts that a model writes about pictures: batched, padded on the left, greedy unless asked otherwise.
#
# As generation.py does it of texts, with pixels beside the tokens: questions of like size are answered together, the
# largest first; what is drawn is a function of the seed, of the question and of its pictures.


class RenderedPrompt(NamedTuple):
    """A question as the processor takes it."""

    text: str
    pictures: tuple[Picture, ...]

    @property
    def size(self) -> tuple[int, int]:
        return sum(each.shape[0] * each.shape[1] for each in self.pictures), len(self.text)


def generate(
    model: Any,
    processor: Any,
    asked: Sequence[RenderedPrompt],
    sampling: Sampling,
    *,
    longest: int,
    between: Callable[[int], None] = lambda done: None,
) -> list[GeneratedText]:
    """One answer for each question, in their order. `longest`: tokens that the model can see, those of pictures among
    them; a question that leaves no room raises ValueError. `between(done)` is called after each batch."""
    found: list[GeneratedText | None] = [None] * len(asked)
    size = sampling.batch_size if sampling.greedy else 1
    order = sorted(range(len(asked)), key=lambda place: asked[place].size, reverse=True)
    done = 0
    for start in range(0, len(order), size):
        places = order[start : start + size]
        answers = _batch(model, processor, [asked[place] for place in places], sampling, longest)
        for place, one in zip(places, answers, strict=True):
            found[place] = one
        done += len(places)
        between(done)
    return [one for one in found if one is not None]


def _batch(
    model: Any, processor: Any, asked: Sequence[RenderedPrompt], sampling: Sampling, longest: int
) -> list[GeneratedText]:
    """A question that leaves little room does not cut the answers to others: it is asked apart from them."""
    import torch

    device, tokenizer = next(model.parameters()).device, processor.tokenizer
    given = encode(processor, [each.text for each in asked], [each.pictures for each in asked])
    lengths = given["attention_mask"].sum(1).tolist()
    width = given["input_ids"].shape[1]
    if width >= longest:
        raise ValueError(f"a question of {width:,} tokens with its pictures, where the model can see {longest:,}")
    rooms = [min(sampling.max_new_tokens, longest - length) for length in lengths]
    if len(set(rooms)) > 1:
        apart = {room: [each for each, own in zip(asked, rooms, strict=True) if own == room] for room in set(rooms)}
        found = {room: iter(_batch(model, processor, some, sampling, longest)) for room, some in apart.items()}
        return [next(found[room]) for room in rooms]
    if not sampling.greedy:
        torch.manual_seed(_seed(sampling.seed, asked[0]))
    with torch.inference_mode():
        out = model.generate(
            **{name: each.to(device) for name, each in given.items()},
            generation_config=settings(model, tokenizer, sampling, rooms[0]),
            tokenizer=tokenizer if sampling.stop else None,
        )  # fmt: skip
    over = ends(model, tokenizer)
    return [
        answer(tokenizer, row.tolist(), over, sampling.stop, length)
        for row, length in zip(out[:, width:], lengths, strict=True)
    ]


def _seed(seed: int, asked: RenderedPrompt) -> int:
    said = hashlib.sha256(f"{seed} {asked.text}".encode())
    for each in asked.pictures:
        said.update(repr(each.shape).encode() + each.tobytes())
    return int.from_bytes(said.digest()[:7], "big")
