"""Ask a teacher about examples and keep its answers in a column, for training or comparison.

A teacher is a model of this workspace, an ensemble of several, or a hosted model. Every answer that a hosted model ever
gave to the same words is used again, from evaluations too, and none is paid twice. Consent and costs are settled before
there is a job (evaluation/teacher_answers.py). A row without an answer (withheld, not reached, or empty) stays as it
is: its answer is null and the reason stands beside it. The same step later asks again only if the reason may have
passed.

With `rationale` the teacher also writes how it comes to its answer; a row whose text has no answer after that counts as
unanswered. A student then learns the answer alone, or to reason before it as the teacher did (Hsieh et al. 2023),
depending on which column is its target.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple, NotRequired, TypedDict

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


class AnswerParameters(Parameters):
    model: str = Field(description="A model here, ensemble:A+B, or one that others serve: api:PROVIDER/MODEL.")
    column: str = Field("answer", description="Where answers go.")
    task: str | None = Field(None, description="Default: the model's own, else text-generation.")
    template: str | None = Field(None, description="The prompt: {input}, {labels}, {COLUMN} of an input.")
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


class _Audit(TypedDict):
    asked: int
    answered: int
    set_aside: int
    reasons: NotRequired[dict[str, int]]
    notes: NotRequired[list[str]]


def apply(rows: pa.Table, parameters: AnswerParameters, context: Context) -> Outcome:
    places = np.flatnonzero(usable_rows_in(rows, parameters.splits)).tolist()
    teacher = context.teacher_answers(rows.take(pa.array(places, pa.int64())))
    found = [_parse_answer(output, error, parameters.rationale) for output, error in teacher.repeats[0]]
    values, reasons = [each.value for each in found], [each.why for each in found]
    numbers = any(isinstance(value, int | float) for value in values) and not any(
        isinstance(value, str) for value in values
    )
    by, how, why = provenance_columns(parameters.column)
    answered = [value is not None for value in values]
    rows = fill_column(rows, parameters.column, places, values, pa.float64() if numbers else pa.string())
    rows = fill_column(rows, by, places, [teacher.teacher if there else None for there in answered], pa.string())
    rows = fill_column(rows, how, places, [teacher.how if there else None for there in answered], pa.string())
    rows = fill_column(rows, why, places, reasons, pa.string())
    if parameters.rationale:
        reasoned, whole = rationale_columns(parameters.column)
        texts = [each.reasoned_answer for each in found]
        rows = fill_column(rows, reasoned, places, [each and each.rationale for each in texts], pa.string())
        rows = fill_column(rows, whole, places, [each and each.whole for each in texts], pa.string())
    audit: _Audit = {"asked": len(places), "answered": sum(answered), "set_aside": len(places) - sum(answered)}
    counted = Counter(reason for reason in reasons if reason)
    if counted:
        audit["reasons"] = dict(counted.most_common(_SHOWN))
    if teacher.notes:
        audit["notes"] = list(teacher.notes)
    return Outcome(rows, audit)


class ReasonedAnswer(NamedTuple):
    rationale: str
    answer: str

    @property
    def whole(self) -> str:
        """The text that a student learns to write: one form for all, however the teacher formatted it."""
        return f"{self.rationale}\n\nAnswer: {self.answer}" if self.rationale else f"Answer: {self.answer}"


class _ParsedAnswer(NamedTuple):
    """`why`: the reason if there is no value. `reasoned_answer`: of a teacher that reasoned."""

    value: Any
    why: str | None
    reasoned_answer: ReasonedAnswer | None = None


def _parse_answer(output: Any, error: str | None, reasoned: bool) -> _ParsedAnswer:
    text = _cell(output)
    if text is None or not text.strip():
        return _ParsedAnswer(None, (error or _EMPTY)[:_LONGEST])
    if not reasoned:
        return _ParsedAnswer(output if isinstance(output, int | float) else text, None)
    parsed = parse_rationale(text)
    return _ParsedAnswer(parsed.answer, None, parsed) if parsed else _ParsedAnswer(None, NO_ANSWER)


def _cell(output: Any) -> str | None:
    """An output as text; lists, such as several labels, as JSON."""
    if output is None or isinstance(output, str):
        return output
    return json.dumps(output, ensure_ascii=False)


def rationale_columns(column: str) -> tuple[str, str]:
    """Names of the columns with the reasoning, and with the whole text."""
    return f"{column}_{RATIONALE}", f"{column}_{WHOLE}"


def rationale_template(own: str | None) -> str:
    return f"{own or '{input}'}\n\n{REQUEST}"


def parse_rationale(text: str) -> ReasonedAnswer | None:
    """None if there is no answer. Text between <think> tags counts as reasoning.

    >>> parse_rationale("Two and two.\\n\\n**Answer:** 4")
    ReasonedAnswer(rationale='Two and two.', answer='4')
    >>> parse_rationale("I cannot help with that.") is None
    True
    """
    thought = _THOUGHT.match(text)
    before, rest = (thought[1].strip(), text[thought.end() :]) if thought else ("", text)
    headings = list(_MARK.finditer(rest))
    if not headings:
        return ReasonedAnswer(before, rest.strip()) if before and rest.strip() else None
    answer = rest[headings[-1].end() :].strip(_FRAME)
    rationale = "\n\n".join(part for part in (before, rest[: headings[-1].start()].strip()) if part)
    return ReasonedAnswer(rationale, answer) if answer else None


ANSWER = Operation(
    name="answer",
    what="keep a teacher's answers to examples in a column",
    parameters=AnswerParameters,
    preflight=preflight,
    apply=apply,
    outside="speciate.evaluation.teacher_answers:plan",
)
