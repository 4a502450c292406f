"""Which of two answers to a text is better: the pair as a text.

An example with a better and a worse answer is posed as a text that shows both without saying which is which; the
target is `first` or `second`, so that this is a classification of two labels whose probability is a half. Which of
them comes first is a function of the example's id. A model for it gives each answer a number (RewardPredictor); of a
pair the larger one wins, with the probability that Bradley and Terry (1952) give to the difference.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.modalities.messages import Conversation, conversation, last_answer, messages
from speciate.models.language.example_checks import normalize
from speciate.tasks.task import Prediction

PREFERENCE, REWARD = "preference", "reward"
FIRST, SECOND = "first", "second"
REJECTED = "rejected"
"""The column with the worse answer, where no caller can name another."""


class AnswerPair(NamedTuple):
    """A question with two answers."""

    asked: Conversation
    first: str
    second: str


def pose_pair(example: Example, better: Any, worse: Any) -> tuple[Example, str | None]:
    """The example as a model sees it, and the target; None without two different answers. ValueError for a broken
    conversation."""
    good, bad = last_answer(better), last_answer(worse)
    if good is None or bad is None or normalize(good) == normalize(bad):
        return example, None
    turned = hashlib.sha256(example.id.encode()).digest()[0] & 1
    prompt = conversation(str(example.media))
    pair = AnswerPair(prompt, bad, good) if turned else AnswerPair(prompt, good, bad)
    return example._replace(media=pair_text(pair)), SECOND if turned else FIRST


def pair_text(pair: AnswerPair) -> str:
    asked = [each.shown() for each in pair.asked]
    return json.dumps({"asked": asked, FIRST: pair.first, SECOND: pair.second}, ensure_ascii=False)


def parse_pair(text: str) -> AnswerPair | None:
    """The pair that `pair_text` wrote; None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
        return AnswerPair(messages(found["asked"]), str(found[FIRST]), str(found[SECOND]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def preferred_answer(first: float, second: float) -> Prediction:
    """
    >>> preferred_answer(1.0, 1.0).output, preferred_answer(0.0, 2.0).output
    ('first', 'second')
    """
    lead = first - second
    probability = 1 / (1 + math.exp(-lead)) if lead >= 0 else math.exp(lead) / (1 + math.exp(lead))
    label = FIRST if first >= second else SECOND
    return Prediction(label, max(probability, 1 - probability), {FIRST: probability, SECOND: 1 - probability})
