"""Which of two answers to a text is better: what is asked, the pair as a text, and the model that gives numbers.

An example with a better and a worse answer is posed as a text that shows both without saying which is which; the truth
is `first` or `second`, so that this is a classification of two labels whose chance is a half. Which of them comes first
is a function of the example's id. A model for it gives each answer a number; of a pair the larger one wins, with the
probability that Bradley and Terry (1952) give to the difference.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.language import bases, forms, grading
from speciate.language.checks import folded
from speciate.language.forms import Form
from speciate.modalities.messages import Conversation, answered, conversation, last_said, messages
from speciate.models import sealed
from speciate.tasks.contract import Prediction
from speciate.tasks.network import MANIFEST

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK, METHOD = "preference", "reward"
FIRST, SECOND = "first", "second"
REJECTED = "rejected"
"""The column with the worse answer, where nobody can name another: of an evaluation."""


class Offer(NamedTuple):
    """A question with two answers."""

    asked: Conversation
    first: str
    second: str


def paired(example: Example, better: Any, worse: Any) -> tuple[Example, str | None]:
    """The example as it is asked, and the truth; None where there are no two different answers. ValueError where it is
    meant to be a conversation and is none."""
    good, bad = last_said(better), last_said(worse)
    if good is None or bad is None or folded(good) == folded(bad):
        return example, None
    turned = hashlib.sha256(example.id.encode()).digest()[0] & 1
    said = conversation(str(example.media))
    offer = Offer(said, bad, good) if turned else Offer(said, good, bad)
    return example._replace(media=written(offer)), SECOND if turned else FIRST


def written(offer: Offer) -> str:
    asked = [each.shown() for each in offer.asked]
    return json.dumps({"asked": asked, FIRST: offer.first, SECOND: offer.second}, ensure_ascii=False)


def offer_of(text: str) -> Offer | None:
    """What `written` wrote; None of other texts."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
        return Offer(messages(found["asked"]), str(found[FIRST]), str(found[SECOND]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def decided(first: float, second: float) -> Prediction:
    """
    >>> decided(1.0, 1.0).output, decided(0.0, 2.0).output
    ('first', 'second')
    """
    lead = first - second
    chance = 1 / (1 + math.exp(-lead)) if lead >= 0 else math.exp(lead) / (1 + math.exp(lead))
    label = FIRST if first >= second else SECOND
    return Prediction(label, max(chance, 1 - chance), {FIRST: chance, SECOND: 1 - chance})


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str = TASK
    reward: Literal[True] = True
    """What tells this kind of folder from the others."""
    form: Form


class PreferencePredictor:
    """Of a pair the better answer; of a conversation that ends in an answer a number, larger for better ones."""

    labels: tuple[str, ...] = (FIRST, SECOND)
    task = TASK

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, form: Form) -> None:
        self.model, self.tokenizer, self.form = model, tokenizer, form

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that is neither a pair nor a conversation with an answer, or that is too long."""
        offers = [offer_of(str(each.media)) for each in examples]
        turns: list[tuple[Conversation, str]] = []
        for example, offer in zip(examples, offers, strict=True):
            turns += [(offer.asked, offer.first), (offer.asked, offer.second)] if offer else [_turn(example)]
        numbers = iter(self.numbers(turns))
        return [
            decided(next(numbers), next(numbers)) if offer else Prediction(next(numbers), None, None)
            for offer in offers
        ]

    def numbers(self, turns: Sequence[tuple[Conversation, str]]) -> list[float]:
        """How good each answer is: the larger the better, on a scale of this model's own."""
        try:
            ids = [forms.lesson(self.tokenizer, asked, said, self.form, "completion").ids for asked, said in turns]
            return grading.grade(self.model, ids, self.tokenizer.pad_token_id, bases.longest(self.model))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot judge this; untrusted says why.",
                "Ask again with a shorter or another text.", str(error),
            ) from error  # fmt: skip

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id. The same model gives the same bytes."""
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(_Manifest(form=self.form).model_dump_json(indent=1))
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return sealed.seal(folder)


def load(folder: Path, threads: int = 1) -> PreferencePredictor:
    """From a folder whose hashes were checked."""
    import torch

    torch.set_num_threads(threads)
    said = _Manifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return PreferencePredictor(grading.load_grader(folder).model, bases.load_tokenizer(folder), said.form)


def _turn(example: Example) -> tuple[Conversation, str]:
    try:
        turn = answered(conversation(str(example.media)))
    except ValueError as error:
        raise SpeciateError(Code.INVALID, "This is no conversation; untrusted says why.", _HOW, str(error)) from error
    if turn is None:
        raise SpeciateError(Code.INVALID, "There is no answer in this text that could be judged.", _HOW)
    return turn


_HOW = (
    'Ask with a conversation that ends in an answer: [{"role": "user", "content": ...}, {"role": "assistant", '
    '"content": ...}] as JSON.'
)
