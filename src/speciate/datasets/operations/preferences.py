"""Pairs of a better and a worse answer to the same example, for preference training.

The answers come from an evaluation's models or from columns (`answer` makes such columns). One of these ranks them: the
evaluation's scores (a judge's among them), a metric against a reference, numbers in columns, or a column with a
person's choice. The best and the worst answer form the pair. An example without a pair (equal answers, equal scores, or
a missing answer) leaves the version and is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from speciate.datasets.columns import with_column
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    HOW,
    MADE_BY,
    MADE_FROM,
    OF_ROWS,
    Operation,
    Others,
    Outcome,
    Parameters,
    check_column,
    declare_columns,
    is_number,
    provenance_columns,
    refusal,
)
from speciate.datasets.versions import Manifest
from speciate.vocabulary import find_metric

CHOSEN, REJECTED = "chosen", "rejected"
EQUAL, TIED, LACKING = "equal_answers", "equally_good", "answer_or_score_lacking"


class PreferencesParameters(Parameters):
    answers: tuple[str, ...] = Field((), description="Columns of answers, two or more.")
    evaluation: str | None = Field(None, description="In their place: an evaluation of this dataset's examples.")
    models: tuple[str, ...] = Field((), description="Of the evaluation, two or more; none: all of its.")
    metric: str | None = Field(None, description="Which is better; evaluation: default is its main metric.")
    truth: str | None = Field(None, description="Column that the metric compares with; default: the label.")
    scores: tuple[str, ...] = Field((), description="In a metric's place: a column of numbers for each of answers.")
    better: str | None = Field(None, description="In a metric's place: the column that names the better of answers.")
    margin: float = Field(0.0, ge=0, description="Scores that differ by no more are equally good.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.evaluation is None) == (not self.answers):
            raise ValueError("give either answers (columns) or evaluation")
        if self.evaluation is None and len(set(self.answers)) < 2:
            raise ValueError("a pair needs two different columns of answers")
        ways = [bool(self.metric), bool(self.scores), bool(self.better)]
        if self.evaluation is None and sum(ways) != 1:
            raise ValueError("say which answer is better by one of metric, scores and better")
        if self.evaluation is not None and any(ways[1:]):
            raise ValueError("an evaluation has scores of its own: leave scores and better out")
        if self.scores and len(self.scores) != len(self.answers):
            raise ValueError(f"there are {len(self.answers)} columns of answers and {len(self.scores)} of scores")
        return self

    @property
    def model(self) -> None:
        """This step asks no model."""


class CandidateAnswer(NamedTuple):
    """One answer to an example: its text, its score (more is better), and its model."""

    text: str | None
    score: float | None
    by: str


class Pair(NamedTuple):
    chosen: CandidateAnswer
    rejected: CandidateAnswer


def choose_pair(answers: Sequence[CandidateAnswer], margin: float = 0.0) -> Pair | str:
    """The best against the worst; or why there is none.

    >>> choose_pair([CandidateAnswer("4", 1.0, "a"), CandidateAnswer("5", 0.0, "b")]).chosen.by
    'a'
    >>> choose_pair([CandidateAnswer("4", 1.0, "a"), CandidateAnswer(" 4", 0.0, "b")])
    'equal_answers'
    """
    known = [each for each in answers if each.text is not None and each.score is not None and math.isfinite(each.score)]
    if len(known) < 2:
        return LACKING
    best = max(known, key=_score)
    worst = min(reversed(known), key=_score)
    if len({_answer_text(each) for each in known}) == 1:
        return EQUAL
    if _score(best) - _score(worst) <= margin or _answer_text(best) == _answer_text(worst):
        return TIED
    return Pair(best, worst)


def preflight(parameters: PreferencesParameters, manifest: Manifest, others: Others) -> Manifest:
    truth = [parameters.truth] if parameters.truth else []
    better = [parameters.better] if parameters.better else []
    for name in (*parameters.answers, *parameters.scores, *truth, *better):
        check_column(manifest, name)
    for name in parameters.scores:
        if not is_number(manifest, name) and manifest.columns.get(name) not in ("BIGINT", ""):
            raise refusal(f"The column {name!r} is {manifest.columns.get(name)}, and scores are numbers.")
    if parameters.metric and parameters.answers:
        if find_metric(parameters.metric).shape != "mean":
            raise refusal(f"{parameters.metric!r} is no score of single examples.", "Call again with exact_match.")
        if not truth and manifest.label is None:
            raise refusal(f"{manifest.ref} has no labels to compare with.", "Name a column with truth.")
    return declare_columns(manifest, dict.fromkeys((CHOSEN, REJECTED, *OF_ROWS), "VARCHAR"))


def apply(rows: pa.Table, parameters: PreferencesParameters, context: Context) -> Outcome:
    given, what = _of_evaluation(rows, context) if parameters.evaluation else _of_columns(rows, parameters, context)
    pairs = [choose_pair(each, parameters.margin) for each in given]
    found = [each for each in pairs if isinstance(each, Pair)]
    left_out = Counter(each for each in pairs if isinstance(each, str))
    if not found:
        raise refusal(
            f"None of the {rows.num_rows} examples has a better and a worse answer: {dict(left_out)}.",
            "Call again with other answers, another metric or a smaller margin.",
        )
    ids = rows["id"].to_pylist()
    kept = rows.filter(pa.array([isinstance(each, Pair) for each in pairs]))
    values = {
        CHOSEN: [each.chosen.text for each in found],
        REJECTED: [each.rejected.text for each in found],
        MADE_BY: [f"{each.chosen.by} over {each.rejected.by}" for each in found],
        MADE_FROM: [name for name, each in zip(ids, pairs, strict=True) if isinstance(each, Pair)],
        HOW: [f"{what}: {_answer_with_score(each.chosen)} over {_answer_with_score(each.rejected)}" for each in found],
    }
    for name, cells in values.items():
        kept = with_column(kept, name, pa.array(cells, pa.string()))
    wins = Counter(each.chosen.by for each in found)
    audit = {"pairs": len(found), "left_out": dict(left_out), "chosen_of": dict(wins.most_common(10))}
    return Outcome(kept, audit)


def _of_evaluation(rows: pa.Table, context: Context) -> tuple[list[list[CandidateAnswer]], str]:
    known = context.evaluation_answers()
    return [
        [CandidateAnswer(*each) for each in known.answers.get(name, ())] for name in rows["id"].to_pylist()
    ], known.metric


def _of_columns(
    rows: pa.Table, parameters: PreferencesParameters, context: Context
) -> tuple[list[list[CandidateAnswer]], str]:
    texts = [_texts(rows[name]) for name in parameters.answers]
    makers = [_makers(rows, name) for name in parameters.answers]
    scores = _scores(rows, parameters, context, texts)
    what = parameters.metric or parameters.better or "score"
    return [
        [
            CandidateAnswer(text[place], score[place], maker[place])
            for text, score, maker in zip(texts, scores, makers, strict=True)
        ]
        for place in range(rows.num_rows)
    ], what


def _scores(
    rows: pa.Table, parameters: PreferencesParameters, context: Context, texts: Sequence[Sequence[str | None]]
) -> list[Sequence[float | None]]:
    if parameters.scores:
        return [rows[name].cast(pa.float64()).to_pylist() for name in parameters.scores]
    if parameters.better:
        choices = _texts(rows[parameters.better])
        return [[None if cell is None else float(cell == name) for cell in choices] for name in parameters.answers]
    references = _texts(rows[parameters.truth or "label"])
    return [context.scores(str(parameters.metric), references, each) for each in texts]


def _makers(rows: pa.Table, column: str) -> list[str]:
    """The makers of the answers in a column: as `answer` noted them, else the column's name."""
    by = provenance_columns(column)[0]
    cells = rows[by].to_pylist() if by in rows.column_names else [None] * rows.num_rows
    return [cell or column for cell in cells]


def _texts(cells: pa.ChunkedArray) -> list[str | None]:
    found: list[str | None] = (
        pc.cast(cells, pa.string()).to_pylist()
        if not pa.types.is_nested(cells.type)
        else [None if each is None else str(each) for each in cells.to_pylist()]
    )
    return [None if each is None or not each.strip() else each for each in found]


def _score(given: CandidateAnswer) -> float:
    return given.score if given.score is not None else -math.inf


def _answer_text(given: CandidateAnswer) -> str:
    return " ".join((given.text or "").split())


def _answer_with_score(given: CandidateAnswer) -> str:
    return f"{given.score:.4g}"


PREFERENCES = Operation(
    name="preferences",
    what="pairs of a better and a worse answer to each example",
    parameters=PreferencesParameters,
    preflight=preflight,
    apply=apply,
    unchecked="whether any example has a better and a worse answer",
    outside="speciate.evaluation.preference_pairs:plan",
)
