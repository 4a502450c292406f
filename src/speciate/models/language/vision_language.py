"""Vision-language models: recognising a folder with one, loading model and processor, prompts with images, generation.

A base model is a folder of transformers with a model of its auto class for image-text-to-text, safetensors, and a
processor (tokenizer, image processor, chat template). Nothing is downloaded and no code of a folder runs.

Images are decoded already. A template gets only their places, and the processor gets their pixels: nothing is read from
a path or an address that a conversation names. Generation works as in text_generation.py, with pixels beside the
tokens: prompts of similar size are answered together, the largest first, and a sampled answer is a function of the
seed, the prompt and its images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import ASSISTANT, IMAGE_MARK, USER, Conversation, Message, with_system
from speciate.models import model_folder
from speciate.models.language.causal_lm import ForwardArguments, config, is_named, load_complete, unreadable
from speciate.models.language.chat_templates import IGNORED, TokenizedExample, turn_span
from speciate.models.language.text_generation import GeneratedText, Sampling, generate_batch, prompt_seed

if TYPE_CHECKING:
    import torch


_SEES = ("vision_config", "visual", "vision_tower")
"""Entries of a config.json, one of which such models have."""
_WRITES = ("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq", "ForImageTextToText")
_CAPTIONERS = ("blip",)
"""Model types that read images and write, and are asked as published (models/published/adapters/documents.py)."""
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_USUAL_LENGTH = 2048
_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
"""Entries of a processor's output with one value for each token."""
_MARKS = ("image_token", "video_token", "audio_token", "boi_token")
"""Attributes of a processor with tokens that stand for something else than text."""
ImageArray = npt.NDArray[np.uint8]
"""(H, W, 3)."""


class ImagePrompt(NamedTuple):
    """A question about images, which are shown in the order of their marks."""

    conversation: Conversation
    images: tuple[ImageArray, ...]


class ImageExample(NamedTuple):
    """A training example whose pixels are made when they are needed. `text`: the conversation as the processor takes
    it."""

    tokens: TokenizedExample
    kinds: dict[str, list[int]]
    """Further values of the processor for each token."""
    text: str
    images: tuple[ImageArray, ...]


class RenderedPrompt(NamedTuple):
    """A prompt as the processor takes it."""

    text: str
    images: tuple[ImageArray, ...]

    @property
    def size(self) -> tuple[int, int]:
        return sum(each.shape[0] * each.shape[1] for each in self.images), len(self.text)


def is_vision_language(folder: Path) -> bool:
    """Whether a folder holds a vision-language model, by its config.json. Captioners that take no conversation are
    none."""
    found = config(folder)
    if found.get("model_type") in _CAPTIONERS:
        return False
    return is_named(found, _WRITES) and any(name in found for name in _SEES)


def check(folder: Path, ref: str) -> None:
    """Raise INVALID if a vision-language model cannot be trained from the folder. Reads headers alone."""
    if not is_vision_language(folder):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} is no vision-language model: its config.json names no architecture that reads images and writes "
            "text.",
            "Use a folder of a vision-language model with safetensors (path:/dir), or one that register_model fetched.",
        )
    model_folder.weight_files(folder)
    if not any((folder / name).is_file() for name in _PROCESSORS):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} has no processor beside its weights ({' or '.join(_PROCESSORS)}), so nothing says how "
            "images are prepared.",
            "Save it with save_pretrained of the model's processor as well.",
        )


def load_processor(folder: Path, template: str | None = None) -> Any:
    """`template`: Jinja that replaces its own. Pads on the left."""
    from transformers import AutoProcessor

    load: Any = AutoProcessor.from_pretrained
    try:
        processor: Any = load(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise unreadable(folder, f"its processor: {type(error).__name__}", error) from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise unreadable(folder, f"its processor is a {type(processor).__name__}, which does not take images and text")
    processor.chat_template = template or processor.chat_template or tokenizer.chat_template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return processor


def load_model(folder: Path) -> torch.nn.Module:
    """The model in eval mode and float32, on the CPU. Raises INVALID if weights are missing."""
    import torch
    from transformers import AutoModelForImageTextToText

    model = load_complete(AutoModelForImageTextToText, folder, dtype=torch.float32)
    model.eval()
    if model.config.is_encoder_decoder or getattr(model.config.get_text_config(), "is_encoder_decoder", False):
        raise unreadable(folder, "it reads with one network and writes with another, which cannot be trained here")
    return model  # type: ignore[no-any-return]


def longest(model: Any) -> int:
    """Tokens of a model's context, those of images included."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _USUAL_LENGTH)


def vision_encoder(model: Any) -> tuple[str, Any] | None:
    """The name and module of the vision encoder; None if it is not a module of its own."""
    found = model.get_encoder(modality="image")
    return next(((name, each) for name, each in model.named_modules() if name and each is found), None)


def check_template(processor: Any, what: str) -> None:
    """Raise INVALID if the processor has no chat template, or no end of text."""
    if not processor.chat_template:
        raise SpeciateError(
            Code.INVALID,
            f"The processor of {what} has no chat template, which says where in a conversation images stand.",
            "Call train_model again with hyperparameters={'chat_template': JINJA}, or with an instruction-tuned model.",
        )
    if processor.tokenizer.eos_token_id is None:
        raise SpeciateError(
            Code.INVALID,
            f"The tokenizer of {what} has no end of text (eos_token), so a model could not learn to stop.",
            "Name a base model whose tokenizer_config.json says eos_token.",
        )


def mark_images(conversation: Conversation, count: int) -> Conversation:
    """The conversation with a mark for each image. Without any mark, all images stand before the first words of a user.
    Raises ValueError if the numbers of marks and images differ."""
    marks = sum(each.content.count(IMAGE_MARK) for each in conversation)
    if marks == count:
        return conversation
    if marks:
        raise ValueError(f"{marks} places for images ({IMAGE_MARK}) and {count} images")
    first = next((place for place, each in enumerate(conversation) if each.role == USER), None)
    if first is None:
        return (Message(USER, IMAGE_MARK * count), *conversation)
    return tuple(
        each._replace(content=IMAGE_MARK * count + each.content) if place == first else each
        for place, each in enumerate(conversation)
    )


def render_prompt(processor: Any, prompt: ImagePrompt, system: str | None) -> str:
    """The text that the model continues with its answer. Raises ValueError for a prompt that cannot be rendered."""
    return _render(processor, _whole(processor, prompt, system), generation_prompt=True)


def tokenize_example(
    processor: Any, prompt: ImagePrompt, answer: str, system: str | None, *, every_turn: bool = False
) -> ImageExample:
    """The conversation with its answer. Trained are the last turn of the assistant, or each of them; never an image.

    An answer's tokens are those of its text alone, as they are when the model is prompted. Raises ValueError if the
    template rewrites earlier turns, or the model cannot be trained on this.
    """
    turns = (*_whole(processor, prompt, system), Message(ASSISTANT, answer))
    if IMAGE_MARK in answer or _mark_in(processor, answer):
        raise ValueError("the answer holds an image, and this model writes text")
    text = _render(processor, turns)
    places = [place for place, each in enumerate(turns) if each.role == ASSISTANT]

    def render(turns: Conversation, prompt: bool) -> str:
        return _render(processor, turns, generation_prompt=prompt)

    ids, labels, kinds, at, shown = list[int](), list[int](), dict[str, list[int]](), 0, 0
    for place in places if every_turn else places[-1:]:
        before, until = turn_span(render, turns, place, text)
        count = sum(each.content.count(IMAGE_MARK) for each in turns[:place]) - shown
        context = _tokens(processor, text[at:before], prompt.images[shown : shown + count], begins=at == 0)
        own, behind = _answer(processor, text[before:until])
        behind = behind if place < len(turns) - 1 else []  # no model writes it
        before_it = context.pop("input_ids")
        for name, values in context.items():
            known = kinds.setdefault(name, [])
            known += [*([0] * (len(ids) - len(known))), *values]  # some processors omit it without an image
        ids += [*before_it, *own, *behind]
        labels += [*([IGNORED] * len(before_it)), *own, *([IGNORED] * len(behind))]
        at, shown = until, shown + count
    kinds = {name: [*known, *([0] * (len(ids) - len(known)))] for name, known in kinds.items()}
    return ImageExample(TokenizedExample(ids, labels), kinds, text, prompt.images)


def collate(processor: Any, examples: Sequence[ImageExample]) -> ForwardArguments:
    """Tensors as the model takes them, padded on the right: (B, T) of tokens and labels, and the pixels in whatever
    shape this processor gives them."""
    import torch

    tensors = encode(processor, [each.text for each in examples], [each.images for each in examples])
    pixels = {name: value for name, value in tensors.items() if name not in _OF_TOKENS}
    width = max(len(each.tokens.ids) for each in examples)

    def filled(rows: Sequence[Sequence[int]], blank: int) -> Any:
        return torch.tensor([[*row, *[blank] * (width - len(row))] for row in rows])

    names = sorted({name for each in examples for name in each.kinds})
    return pixels | {
        "input_ids": filled([each.tokens.ids for each in examples], processor.tokenizer.pad_token_id),
        "attention_mask": filled([[1] * len(each.tokens.ids) for each in examples], 0),
        "labels": filled([each.tokens.labels for each in examples], IGNORED),
        **{name: filled([each.kinds.get(name, []) for each in examples], 0) for name in names},
    }


def encode(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[ImageArray]], *, begins: bool = True
) -> ForwardArguments:
    """The processor's tensors of texts with their images, padded on the left.

    `begins`: each text begins a conversation, so a tokenizer with a beginning token adds it unless the template did, as
    transformers has it. Raises ValueError if the processor refuses them, or ties images to tokens in an unsupported
    way.
    """
    from PIL import Image

    first = processor.tokenizer.bos_token
    begun = first is not None and any(each.startswith(first) for each in texts)
    shown = [[Image.fromarray(each) for each in some] for some in images]
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
        raise ValueError("its processor ties images to tokens by masks, which is not supported here")
    return found


def generate(
    model: Any,
    processor: Any,
    prompts: Sequence[RenderedPrompt],
    sampling: Sampling,
    *,
    longest: int,
    between: Callable[[int], None] = lambda done: None,
) -> list[GeneratedText]:
    """One answer for each prompt, in their order. `longest`: tokens of the context, those of images included; a prompt
    that leaves no room raises ValueError. `between(done)` is called after each batch."""
    found: list[GeneratedText | None] = [None] * len(prompts)
    size = sampling.batch_size if sampling.greedy else 1
    order = sorted(range(len(prompts)), key=lambda place: prompts[place].size, reverse=True)
    done = 0
    for start in range(0, len(order), size):
        places = order[start : start + size]
        answers = _batch(model, processor, [prompts[place] for place in places], sampling, longest)
        for place, one in zip(places, answers, strict=True):
            found[place] = one
        done += len(places)
        between(done)
    return [one for one in found if one is not None]


def shrink(image: ImageArray, side: int | None) -> ImageArray:
    """The image with its longest side at most `side` pixels; never enlarged."""
    if side is None or max(image.shape[:2]) <= side:
        return image
    from PIL import Image

    made = Image.fromarray(image)
    made.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(made)


def _whole(processor: Any, prompt: ImagePrompt, system: str | None) -> Conversation:
    conversation = with_system(mark_images(prompt.conversation, len(prompt.images)), system)
    for each in conversation:
        for text in each.content.split(IMAGE_MARK):
            if mark := _mark_in(processor, text):
                raise ValueError(f"the text holds {mark!r}, which stands for an image")
    return conversation


def _mark_in(processor: Any, text: str) -> str | None:
    marks = (getattr(processor, name, None) for name in _MARKS)
    return next((mark for mark in marks if isinstance(mark, str) and mark and mark in text), None)


def _render(processor: Any, turns: Sequence[Message], *, generation_prompt: bool = False) -> str:
    from jinja2.exceptions import TemplateError

    shown = [{"role": each.role, "content": _parts(each.content)} for each in turns]
    try:
        return str(processor.apply_chat_template(shown, tokenize=False, add_generation_prompt=generation_prompt))
    except (TemplateError, TypeError) as error:
        raise ValueError("the chat template refuses it") from error


def _parts(content: str) -> list[dict[str, str]]:
    """A content as chat templates of such models take it: images and texts in turn."""
    found: list[dict[str, str]] = []
    for place, text in enumerate(content.split(IMAGE_MARK)):
        if place:
            found.append({"type": "image"})
        if text:
            found.append({"type": "text", "text": text})
    return found


def _tokens(processor: Any, text: str, images: Sequence[ImageArray], *, begins: bool) -> dict[str, list[int]]:
    """The processor's values for each token of one text."""
    found = encode(processor, [text], [images], begins=begins)
    return {
        name: found[name][0].tolist() for name in _OF_TOKENS if name in found and name != "attention_mask"
    }  # fmt: skip


def _answer(processor: Any, text: str) -> tuple[list[int], list[int]]:
    """Tokens up to the end of text, and those that a template puts behind it."""
    ids = list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    end = processor.tokenizer.eos_token_id
    length = len(ids) - ids[::-1].index(end) if end in ids else len(ids)
    return ids[:length], ids[length:]


def _batch(
    model: Any, processor: Any, prompts: Sequence[RenderedPrompt], sampling: Sampling, longest: int
) -> list[GeneratedText]:
    """A prompt that leaves little room does not shorten the answers to others: it gets a batch of its own."""
    inputs = encode(processor, [each.text for each in prompts], [each.images for each in prompts])
    width = inputs["input_ids"].shape[1]
    if width >= longest:
        raise ValueError(f"a question of {width:,} tokens with its images, where the model can see {longest:,}")
    rooms = [min(sampling.max_new_tokens, longest - length) for length in inputs["attention_mask"].sum(1).tolist()]
    if len(set(rooms)) > 1:
        apart = {room: [each for each, own in zip(prompts, rooms, strict=True) if own == room] for room in set(rooms)}
        found = {room: iter(_batch(model, processor, some, sampling, longest)) for room, some in apart.items()}
        return [next(found[room]) for room in rooms]
    first = prompts[0]
    pixels = (repr(each.shape).encode() + each.tobytes() for each in first.images)
    seed = prompt_seed(f"{sampling.seed} {first.text}".encode(), *pixels)
    return generate_batch(model, processor.tokenizer, inputs, sampling, rooms[0], seed)
