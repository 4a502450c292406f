"""From a conversation to the text and tokens that a model reads, by its tokenizer's chat template or as plain text.

The trained parts of a text are spans of characters: the assistant's turns, found by rendering the conversation up to
each of them. That works with every template that does not rewrite earlier turns, whether it marks them or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import ASSISTANT, Conversation, Message, with_system

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


IGNORED = -100
"""Label of a token without a loss, as transformers has it."""
Learn = Literal["completion", "assistant", "all"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""For tokenizers without a template. An answer ends with the tokenizer's own end of text."""


class ChatFormat(BaseModel):
    """How conversations are rendered for a model; kept with it, so that prompts look as they did in training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    template: Literal["chat", "plain"] = "chat"
    system: str | None = Field(None, description="Instructions where a conversation brings none.")
    begins: Literal[True] | None = Field(None, description="Plain text begins with the tokenizer's beginning (BOS).")
    """None, not False: formats that were stored before this field existed equal new ones."""


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
    """Raise INVALID if the tokenizer lacks the template that the format needs, or has no end of text."""
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


def render_prompt(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, form: ChatFormat) -> str:
    """The text that the model continues with its answer."""
    conversation = with_system(conversation, form.system)
    if form.template == "plain":
        return _beginning(tokenizer, form) + _join_contents(conversation)
    return _render(tokenizer, conversation, generation_prompt=True)


def tokenize_example(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, answer: str, form: ChatFormat, learn: Learn
) -> TokenizedExample:
    """The conversation with its answer as tokens. Raises ValueError if the template rewrites earlier turns."""
    whole = (*with_system(conversation, form.system), Message(ASSISTANT, answer))
    text, spans = _spans(tokenizer, whole, form, learn)
    ids, offsets = _tokenize_split(tokenizer, text, [start for start, _ in spans])
    labels = _label_tokens(ids, offsets, spans, ends_of(tokenizer))
    return TokenizedExample(ids, labels)


def prompt_tokens(example: TokenizedExample) -> list[int]:
    """All tokens before the first trained one."""
    first = next((at for at, label in enumerate(example.labels) if label != IGNORED), len(example.ids))
    return example.ids[:first]


def completion_tokens(example: TokenizedExample) -> list[int]:
    """The trained tokens."""
    return [label for label in example.labels if label != IGNORED]


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids, and where each token stands. Templates and `render_prompt` write special tokens, so none are added."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(found["input_ids"]), [tuple(pair) for pair in found["offset_mapping"]]


def turn_span(
    render: Callable[[Conversation, bool], str], turns: Conversation, place: int, text: str
) -> tuple[int, int]:
    """Where in `text`, the whole conversation, the turn at `place` begins and ends. `render(turns, prompt)`: the text
    of some turns, with the beginning of an answer behind it if `prompt`. Raises ValueError if the template rewrites
    earlier turns."""
    before = render(turns[:place], True)
    until = text if place == len(turns) - 1 else render(turns[: place + 1], False)
    if not (text.startswith(before) and text.startswith(until)):
        raise ValueError("the chat template writes earlier turns otherwise once later ones follow")
    return len(before), len(until)


def _tokenize_split(
    tokenizer: PreTrainedTokenizerBase, text: str, starts: Sequence[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text. If one would cross the beginning of an answer, the text is split there first, as it is
    when the model is prompted."""
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
    tokenizer: PreTrainedTokenizerBase, turns: Conversation, form: ChatFormat, learn: Learn
) -> tuple[str, list[tuple[int, int]]]:
    """The whole text, and its trained spans."""
    if form.template == "plain":
        before = _beginning(tokenizer, form) + _join_contents(turns[:-1])
        text = before + turns[-1].content + str(tokenizer.eos_token)
        return text, [(0 if learn == "all" else len(before), len(text))]
    text = _render(tokenizer, turns)
    if learn == "all":
        return text, [(0, len(text))]
    places = [place for place, each in enumerate(turns) if each.role == ASSISTANT]
    places = places[-1:] if learn == "completion" else places

    def render(turns: Conversation, prompt: bool) -> str:
        return _render(tokenizer, turns, generation_prompt=prompt) if turns else ""

    return text, [turn_span(render, turns, place, text) for place in places]


def _label_tokens(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], ends: frozenset[int]
) -> list[int]:
    """Tokens behind the end of an answer, such as a line break of the template, have no label: no model writes them."""
    labels = [IGNORED] * len(ids)
    for start, stop in spans:
        inside = [place for place, (begin, _) in enumerate(offsets) if start <= begin < stop]
        last = max((place for place in inside if ids[place] in ends), default=None)
        for place in inside:
            if last is None or place <= last:
                labels[place] = ids[place]
    return labels


def _render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], *, generation_prompt: bool = False) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text: Any = tokenizer.apply_chat_template(
            [each.shown() for each in turns], tokenize=False, add_generation_prompt=generation_prompt
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses it: {str(error)[:200]}") from error
    return str(text)


def _beginning(tokenizer: PreTrainedTokenizerBase, form: ChatFormat) -> str:
    return str(tokenizer.bos_token) if form.begins and tokenizer.bos_token else ""


def _join_contents(turns: Sequence[Message]) -> str:
    """The contents with an empty line between them."""
    return "\n\n".join(each.content for each in turns)
