"""The pinned questions by which it is seen whether an endpoint still serves what it served.

Short answers of free choice tell models apart better than facts, which all of them know. Nothing here is anybody's
data. A changed list is another `FORM`: fingerprints of different forms are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speciate.evaluation.endpoints.chat_client import Request

FORM = 1
PASSES = 2
"""How often each is asked at one time: how far an endpoint disagrees with itself must be known, too."""
MAX_TOKENS = 256
PINNED_QUESTIONS = (
    "Name a random animal. Answer with one word.",
    "Pick a number between 1 and 1000. Answer with the number alone.",
    "Invent the name of a small town by the sea. Answer with the name alone.",
    "Complete in at most six words: The lighthouse keeper opened the door and",
    "Write one line of a poem about rust.",
    "Which colour is Tuesday? Answer with one word.",
    "Multiply 7919 by 6863. Answer with the number alone.",
    "How many letters r are in 'irrecoverable mirror error'? Answer with the number alone.",
    "Translate into German in one short sentence: The wind changed its mind.",
    "Give a synonym of 'sonder'. Answer with one word.",
    "Name a composer whom few people know. Answer with the name alone.",
    "Write a Python expression: the sum of the squares of the odd numbers below n. Answer with the expression alone.",
    "Spell 'parallelogram' backwards. Answer with the word alone.",
    "What comes next: 2, 3, 5, 9, 17, 33? Answer with the number alone.",
    "Invent a word for the smell of a server room. Answer with the word alone.",
    "Name three fruits that start with the letter p, separated by commas.",
    "Say in at most eight words why the sky is dark at night.",
    "Write a haiku's first line about an empty train.",
    "Which year do you think it is? Answer with the number alone.",
    "Choose a chess opening. Answer with its name alone.",
)


def pinned_requests(sampling: Mapping[str, Any]) -> list[Request]:
    """All of them, pass after pass: request i is prompt `i % len(PROMPTS)`."""
    return [
        Request([{"role": "user", "content": prompt}], MAX_TOKENS, sampling)
        for _ in range(PASSES)
        for prompt in PINNED_QUESTIONS
    ]


SAMPLINGS: tuple[Mapping[str, object], ...] = ({"temperature": 0, "logprobs": True}, {"temperature": 0}, {})
"""What is asked for, the most telling first: not every endpoint takes all of it."""
