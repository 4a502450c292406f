"""How a conversation becomes the text that a model reads: by its tokenizer's chat template, or plainly.

What a model should learn of a text are spans of characters: the assistant's turns, found by rendering the conversation
up to each of them. That works with every template that does not rewrite earlier turns, whether it marks them or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import ASSISTANT, Conversation, Message, with_system

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


IGNORED = -100
"""As transformers marks a token that nothing is learned of."""
Learn = Literal["completion", "assistant", "all"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""For tokenizers that bring no template. An answer ends in the tokenizer's own end."""


class ChatFormat(BaseModel):
    """How a model is spoken to; kept with it, so that it is asked as it has learned to be asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    template: Literal["chat", "plain"] = "chat"
    system: str | None = Field(None, description="Instructions where a conversation brings none.")
    begins: Literal[True] | None = Field(None, description="Plain text begins with the tokenizer's beginning (BOS).")
    """None, as in forms that were kept before there was this, so that those are like the others."""


class TokenizedExample(NamedTuple):
    """Token ids (T,), and labels (T,) that are the same or IGNORED."""

    ids: list[int]
    labels: list[int]

    @property
    def learned(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def usual_format(tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> ChatFormat:
    return ChatFormat(template="chat", system=system) if tokenizer.chat_template else plain_format(tokenizer, system)


def plain_format(tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> ChatFormat:
    """Plain text begins as the tokenizer begins it: some models write nonsense without that token."""
    first = tokenizer.bos_token_id
    begins = first is not None and list(tokenizer("")["input_ids"])[:1] == [first]
    return ChatFormat(template="plain", system=system, begins=True if begins else None)


def check(tokenizer: PreTrainedTokenizerBase, form: ChatFormat, what: str) -> None:
    """INVALID where the tokenizer lacks the template that the form asks for, or has no end of text."""
    if form.template == "chat" and not tokenizer.chat_template:
        raise no_template(what)
    if tokenizer.eos_token_id is None:
        raise SpeciateError(
            Code.INVALID,
            f"The tokenizer of {what} has no end of text (eos_token), so a model could not learn to stop.",
            "Name a base model whose tokenizer_config.json says eos_token.",
        )


def no_template(what: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The tokenizer of {what} has no chat template, so conversations cannot be shown to it.",
        "Call again with hyperparameters={'chat_template': 'chatml'}, or with an instruction-tuned base model; "
        "questions that are plain texts need none (hyperparameters={'template': 'plain'}).",
    )


def render_prompt(tokenizer: PreTrainedTokenizerBase, said: Conversation, form: ChatFormat) -> str:
    """The text after which the model is to write its answer."""
    said = with_system(said, form.system)
    if form.template == "plain":
        return _beginning(tokenizer, form) + _join_contents(said)
    return _render(tokenizer, said, asks=True)


def tokenize_example(
    tokenizer: PreTrainedTokenizerBase, said: Conversation, answer: str, form: ChatFormat, learn: Learn
) -> TokenizedExample:
    """The question with its answer as tokens. ValueError where the template rewrites earlier turns."""
    whole = (*with_system(said, form.system), Message(ASSISTANT, answer))
    text, spans = _spans(tokenizer, whole, form, learn)
    ids, offsets = _tokenize_split(tokenizer, text, [start for start, _ in spans])
    labels = _label_tokens(ids, offsets, spans, ends_of(tokenizer))
    return TokenizedExample(ids, labels)


def prompt_tokens(lesson: TokenizedExample) -> list[int]:
    """All before the answer."""
    first = next((at for at, label in enumerate(lesson.labels) if label != IGNORED), len(lesson.ids))
    return lesson.ids[:first]


def completion_tokens(lesson: TokenizedExample) -> list[int]:
    """What is learned."""
    return [label for label in lesson.labels if label != IGNORED]


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids, and where each token stands. A template, or `asked`, writes special tokens itself, so none are added."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(found["input_ids"]), [tuple(pair) for pair in found["offset_mapping"]]


def _tokenize_split(
    tokenizer: PreTrainedTokenizerBase, text: str, starts: Sequence[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text. Where one reaches over the beginning of an answer, what is before is cut off first, as
    it is when the model is asked."""
    ids, offsets = tokenize(tokenizer, text)
    if not any(begin < start < end for start in starts for begin, end in offsets):
        return ids, offsets
    ids, offsets = [], []
    edges = [0, *sorted(start for start in starts if 0 < start < len(text)), len(text)]
    for begin, end in itertools.pairwise(edges):
        own, places = tokenize(tokenizer, text[begin:end])
        ids += own
        offsets += [(first + begin, last + begin) for first, last in places]
    return ids, offsets


def ends_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    return frozenset(each for each in (tokenizer.eos_token_id,) if isinstance(each, int))


def _spans(
    tokenizer: PreTrainedTokenizerBase, said: Conversation, form: ChatFormat, learn: Learn
) -> tuple[str, list[tuple[int, int]]]:
    """The whole text, and the spans of it that are learned."""
    if form.template == "plain":
        before = _beginning(tokenizer, form) + _join_contents(said[:-1])
        text = before + said[-1].content + str(tokenizer.eos_token)
        return text, [(0 if learn == "all" else len(before), len(text))]
    text = _render(tokenizer, said)
    if learn == "all":
        return text, [(0, len(text))]
    turns = [place for place, each in enumerate(said) if each.role == ASSISTANT]
    turns = turns[-1:] if learn == "completion" else turns
    return text, [_turn(tokenizer, said, place, text) for place in turns]


def _turn(tokenizer: PreTrainedTokenizerBase, said: Conversation, place: int, text: str) -> tuple[int, int]:
    before = _render(tokenizer, said[:place], asks=True) if place else ""
    until = text if place == len(said) - 1 else _render(tokenizer, said[: place + 1])
    if not (text.startswith(before) and text.startswith(until)):
        raise ValueError("the chat template writes earlier turns otherwise once later ones follow")
    return len(before), len(until)


def _label_tokens(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], ends: frozenset[int]
) -> list[int]:
    """What stands behind the end of an answer, such as a line break of the template, is never written by a model."""
    labels = [IGNORED] * len(ids)
    for start, stop in spans:
        inside = [place for place, (begin, _) in enumerate(offsets) if start <= begin < stop]
        last = max((place for place in inside if ids[place] in ends), default=None)
        for place in inside:
            if last is None or place <= last:
                labels[place] = ids[place]
    return labels


def _render(tokenizer: PreTrainedTokenizerBase, said: Sequence[Message], *, asks: bool = False) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text: Any = tokenizer.apply_chat_template(
            [each.shown() for each in said], tokenize=False, add_generation_prompt=asks
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses it: {str(error)[:200]}") from error
    return str(text)


def _beginning(tokenizer: PreTrainedTokenizerBase, form: ChatFormat) -> str:
    return str(tokenizer.bos_token) if form.begins and tokenizer.bos_token else ""


def _join_contents(said: Sequence[Message]) -> str:
    """The contents, an empty line between them."""
    return "\n\n".join(each.content for each in said)
