"""What a teacher reasoned, and the answer that it came to: how both are asked for in one text, and told apart in it.

From such rows a student learns the answer alone, or to reason before it as the teacher did (Hsieh et al. 2023), by
which column is its target. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple

RATIONALE, WHOLE = "rationale", "whole"
NO_ANSWER = "no line 'Answer:' after what it reasoned"
ASKED = (
    "Reason step by step first. Then write the answer alone, without comment, on a last line of its own that begins "
    "with 'Answer:'."
)
SYSTEM = "What you are to answer stands between tags. Reason about it first, then answer it."
_THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)
_MARK = re.compile(r"^[ \t>#*_]*(?:final )?answer[ \t*_]*:[ \t*_]*", re.IGNORECASE | re.MULTILINE)
_FRAME = " \t\n*_`"


class Parted(NamedTuple):
    rationale: str
    answer: str

    @property
    def whole(self) -> str:
        """As a student may learn to write it: the same form for each, however the teacher set it."""
        return f"{self.rationale}\n\nAnswer: {self.answer}" if self.rationale else f"Answer: {self.answer}"


def beside(column: str) -> tuple[str, str]:
    """Names of the columns with what was reasoned, and with all of it."""
    return f"{column}_{RATIONALE}", f"{column}_{WHOLE}"


def template(own: str | None) -> str:
    return f"{own or '{input}'}\n\n{ASKED}"


def parted(text: str) -> Parted | None:
    """None where there is no answer. What is thought between tags counts as reasoned.

    >>> parted("Two and two.\\n\\n**Answer:** 4")
    Parted(rationale='Two and two.', answer='4')
    >>> parted("I cannot help with that.") is None
    True
    """
    thought = _THOUGHT.match(text)
    before, said = (thought[1].strip(), text[thought.end() :]) if thought else ("", text)
    marks = list(_MARK.finditer(said))
    if not marks:
        return Parted(before, said.strip()) if before and said.strip() else None
    answer = said[marks[-1].end() :].strip(_FRAME)
    rationale = "\n\n".join(part for part in (before, said[: marks[-1].start()].strip()) if part)
    return Parted(rationale, answer) if answer else None
