"""Ask a teacher about examples, and keep what it answers in a column: for training on, or to be compared.

A teacher is a model of this workspace, several as an ensemble, or one that others serve; of those every answer that was
ever given to the same words counts, from evaluations too, and none is paid twice. What may leave the machine and what
it may cost is settled before there is a job (evaluation/teachers.py). A row that gets no answer, for the teacher
withheld it, was not reached, or said nothing, stays as it is: its answer is null and the reason stands beside it. The
same step again asks those alone whose reason may pass by itself. With `rationale` it writes how it comes to its answer,
too, and a row whose text has no answer after that is set aside like one without.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from speciate.datasets.operations import rationale
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.contract import Operation, Others, Outcome, Parameters
from speciate.datasets.operations.made import beside, filled, with_columns
from speciate.datasets.operations.masks import SPLITS, Splits, within
from speciate.datasets.operations.rationale import Parted
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


def foresee(parameters: AnswerParameters, manifest: Manifest, others: Others) -> Manifest:
    reasoned = rationale.beside(parameters.column) if parameters.rationale else ()
    names = (parameters.column, *beside(parameters.column), *reasoned)
    return with_columns(manifest, dict.fromkeys(names, "VARCHAR"))


def apply(rows: pa.Table, parameters: AnswerParameters, context: Context) -> Outcome:
    places = np.flatnonzero(within(rows, parameters.splits)).tolist()
    said = context.answers(rows.take(pa.array(places, pa.int64())))
    found = [_read(output, error, parameters.rationale) for output, error in said.repeats[0]]
    values, reasons = [each.value for each in found], [each.why for each in found]
    numbers = any(isinstance(value, int | float) for value in values) and not any(
        isinstance(value, str) for value in values
    )
    by, how, why = beside(parameters.column)
    answered = [value is not None for value in values]
    rows = filled(rows, parameters.column, places, values, pa.float64() if numbers else pa.string())
    rows = filled(rows, by, places, [said.teacher if there else None for there in answered], pa.string())
    rows = filled(rows, how, places, [said.how if there else None for there in answered], pa.string())
    rows = filled(rows, why, places, reasons, pa.string())
    if parameters.rationale:
        reasoned, whole = rationale.beside(parameters.column)
        rows = filled(rows, reasoned, places, [each.parted and each.parted.rationale for each in found], pa.string())
        rows = filled(rows, whole, places, [each.parted and each.parted.whole for each in found], pa.string())
    audit: dict[str, Any] = {"asked": len(places), "answered": sum(answered), "set_aside": len(places) - sum(answered)}
    counted = Counter(reason for reason in reasons if reason)
    if counted:
        audit["reasons"] = dict(counted.most_common(_SHOWN))
    if said.notes:
        audit["notes"] = list(said.notes)
    return Outcome(rows, audit)


class _Read(NamedTuple):
    """`why`: there is no value. `parted`: of one that reasoned."""

    value: Any
    why: str | None
    parted: Parted | None = None


def _read(output: Any, error: str | None, reasoned: bool) -> _Read:
    text = _cell(output)
    if text is None or not text.strip():
        return _Read(None, (error or _EMPTY)[:_LONGEST])
    if not reasoned:
        return _Read(output if isinstance(output, int | float) else text, None)
    parted = rationale.parted(text)
    return _Read(parted.answer, None, parted) if parted else _Read(None, rationale.NO_ANSWER)


def _cell(output: Any) -> str | None:
    """As text: lists, such as several labels, as JSON."""
    if output is None or isinstance(output, str):
        return output
    return json.dumps(output, ensure_ascii=False)


ANSWER = Operation(
    name="answer",
    what="keep a teacher's answers to examples in a column",
    parameters=AnswerParameters,
    foresee=foresee,
    apply=apply,
    outside="speciate.evaluation.teachers:plan",
)
