"""Ask a teacher about examples, and keep what it answers in a column: for training on, or to be compared.

A teacher is a model of this workspace, several as an ensemble, or one that others serve; of those every answer that was
ever given to the same words counts, from evaluations too, and none is paid twice. What may leave the machine and what
it may cost is settled before there is a job (evaluation/teacher_answers.py). A row that gets no answer, for the teacher
withheld it, was not reached, or said nothing, stays as it is: its answer is null and the reason stands beside it. The
same step again asks those alone whose reason may pass by itself. With `rationale` it writes how it comes to its answer,
too, and a row whose text has no answer after that is excluded like one without.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    SPLITS,
    Operation,
    Others,
    Outcome,
    Parameters,
    Splits,
    declare_columns,
    fill_column,
    provenance_columns,
    usable_rows_in,
)
from speciate.datasets.versions import Manifest

_EMPTY = "the answer is empty"
_SHOWN, _LONGEST = 5, 200


class AnswerParameters(Parameters):
    model: str = Field(description="A model here, ensemble:A+B, or one that others serve: api:PROVIDER/MODEL.")
    column: str = Field("answer", description="Where answers go.")
    task: str | None = Field(None, description="Default: the model's own, else text-generation.")
    template: str | None = Field(None, description="What is asked: {input}, {labels}, {COLUMN} of an input.")
    system: str | None = Field(None, description="Replaces the instructions before all.")
    max_tokens: int = Field(1024, ge=1, le=200_000, description="Of an answer.")
    temperature: float | None = Field(0.0, ge=0, le=2)
    seed: int | None = None
    budget_usd: float | None = Field(None, gt=0, description="For a model that others serve.")
    rationale: bool = Field(
        False, description="It reasons first: that goes into NAME_rationale, and both as one text into NAME_whole."
    )
    splits: Splits = SPLITS


def preflight(parameters: AnswerParameters, manifest: Manifest, others: Others) -> Manifest:
    reasoned = rationale_columns(parameters.column) if parameters.rationale else ()
    names = (parameters.column, *provenance_columns(parameters.column), *reasoned)
    return declare_columns(manifest, dict.fromkeys(names, "VARCHAR"))


def apply(rows: pa.Table, parameters: AnswerParameters, context: Context) -> Outcome:
    places = np.flatnonzero(usable_rows_in(rows, parameters.splits)).tolist()
    said = context.answers(rows.take(pa.array(places, pa.int64())))
    found = [_parse_answer(output, error, parameters.rationale) for output, error in said.repeats[0]]
    values, reasons = [each.value for each in found], [each.why for each in found]
    numbers = any(isinstance(value, int | float) for value in values) and not any(
        isinstance(value, str) for value in values
    )
    by, how, why = provenance_columns(parameters.column)
    answered = [value is not None for value in values]
    rows = fill_column(rows, parameters.column, places, values, pa.float64() if numbers else pa.string())
    rows = fill_column(rows, by, places, [said.teacher if there else None for there in answered], pa.string())
    rows = fill_column(rows, how, places, [said.how if there else None for there in answered], pa.string())
    rows = fill_column(rows, why, places, reasons, pa.string())
    if parameters.rationale:
        reasoned, whole = rationale_columns(parameters.column)
        rows = fill_column(
            rows, reasoned, places, [each.parted and each.parted.rationale for each in found], pa.string()
        )
        rows = fill_column(rows, whole, places, [each.parted and each.parted.whole for each in found], pa.string())
    audit: dict[str, Any] = {"asked": len(places), "answered": sum(answered), "set_aside": len(places) - sum(answered)}
    counted = Counter(reason for reason in reasons if reason)
    if counted:
        audit["reasons"] = dict(counted.most_common(_SHOWN))
    if said.notes:
        audit["notes"] = list(said.notes)
    return Outcome(rows, audit)


class ReasonedAnswer(NamedTuple):
    rationale: str
    answer: str

    @property
    def whole(self) -> str:
        """As a student may learn to write it: the same form for each, however the teacher set it."""
        return f"{self.rationale}\n\nAnswer: {self.answer}" if self.rationale else f"Answer: {self.answer}"


class _ParsedAnswer(NamedTuple):
    """`why`: there is no value. `parted`: of one that reasoned."""

    value: Any
    why: str | None
    parted: ReasonedAnswer | None = None


def _parse_answer(output: Any, error: str | None, reasoned: bool) -> _ParsedAnswer:
    text = _cell(output)
    if text is None or not text.strip():
        return _ParsedAnswer(None, (error or _EMPTY)[:_LONGEST])
    if not reasoned:
        return _ParsedAnswer(output if isinstance(output, int | float) else text, None)
    parted = parse_rationale(text)
    return _ParsedAnswer(parted.answer, None, parted) if parted else _ParsedAnswer(None, NO_ANSWER)


def _cell(output: Any) -> str | None:
    """As text: lists, such as several labels, as JSON."""
    if output is None or isinstance(output, str):
        return output
    return json.dumps(output, ensure_ascii=False)


ANSWER = Operation(
    name="answer",
    what="keep a teacher's answers to examples in a column",
    parameters=AnswerParameters,
    preflight=preflight,
    apply=apply,
    outside="speciate.evaluation.teacher_answers:plan",
)


# What a teacher reasoned, and the answer that it came to: how both are asked for in one text, and told apart in it.
#
# From such rows a student learns the answer alone, or to reason before it as the teacher did (Hsieh et al. 2023), by
# which column is its target. Pure.


RATIONALE, WHOLE = "rationale", "whole"
NO_ANSWER = "no line 'Answer:' after what it reasoned"
REQUEST = (
    "Reason step by step first. Then write the answer alone, without comment, on a last line of its own that begins "
    "with 'Answer:'."
)
SYSTEM = "What you are to answer stands between tags. Reason about it first, then answer it."
_THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)
_MARK = re.compile(r"^[ \t>#*_]*(?:final )?answer[ \t*_]*:[ \t*_]*", re.IGNORECASE | re.MULTILINE)
_FRAME = " \t\n*_`"


def rationale_columns(column: str) -> tuple[str, str]:
    """Names of the columns with what was reasoned, and with all of it."""
    return f"{column}_{RATIONALE}", f"{column}_{WHOLE}"


def rationale_template(own: str | None) -> str:
    return f"{own or '{input}'}\n\n{REQUEST}"


def parse_rationale(text: str) -> ReasonedAnswer | None:
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
        return ReasonedAnswer(before, said.strip()) if before and said.strip() else None
    answer = said[marks[-1].end() :].strip(_FRAME)
    rationale = "\n\n".join(part for part in (before, said[: marks[-1].start()].strip()) if part)
    return ReasonedAnswer(rationale, answer) if answer else None
