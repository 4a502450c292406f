"""What an evaluation found, as it is stored and shown: leaderboard, comparisons, decision.

Numbers that do not exist are None, never NaN: a report is JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from speciate.datasets.telling_inputs import TellingInput
from speciate.errors import Call, unknown
from speciate.models.training_statement import TrainingStatement
from speciate.sample_size import LEVEL
from speciate.use_cases import Gate
from speciate.vocabulary import find_metric
from speciate.workspace.database import Database

Verdict = Literal["promote", "hold", "inconclusive"]
Outcome = Literal["pass", "fail", "inconclusive", "not_known"]
"""not_known: nothing here can tell, more examples neither; it does not fail, and a person accepts it or does not."""
Interval = tuple[float, float]
Suite = Literal["core", "heldout", "regression"]
Role = Literal["candidate", "baseline", "incumbent"]
LearningSplit = Literal["train", "validation"]
"""Splits that no verdict rests on: models learn from the one, and are chosen by the other."""

_GET = "SELECT report, created, job FROM evaluations WHERE id = ?"
_IDS = "SELECT id FROM evaluations ORDER BY created DESC LIMIT 1000"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(_Frozen):
    """A metric of one model, with its 95 % interval; `note` says why there is none."""

    value: float | None
    interval: Interval | None = None
    standard_error: float | None = None
    n: int
    method: str = ""
    note: str = ""


class Control(_Frozen):
    """What is in the user's hands. `license` None is unknown."""

    weights_owned: bool
    offline: bool
    pinned: bool
    license: str | None = None
    weights_license: str | None = Field(None, description="Where weights have another than what came with them.")


class LabelCoverage(_Frozen):
    """What a published model's own labels can say of the user's."""

    uncovered: tuple[str, ...] = ()
    ceiling: float | None = None
    elsewhere: float | None = None


class Row(_Frozen):
    """One model. `value` is of the report's main metric, `metrics` holds every one."""

    model: str
    metric: str
    value: float | None
    interval: Interval | None
    n: int
    errors: int
    repeats: int = 1
    seen: int | None = Field(0, description="Examples that were in its training data; null: unknown.")
    nearly_seen: int | None = Field(0, description="Further ones that have a near-duplicate there; null: not_checked.")
    training_data: TrainingStatement | None = Field(
        None, description="What is said of what a published model learned from."
    )
    without_consent: dict[str, int] | None = Field(
        None, description="By column of consent: training rows that do not say yes."
    )
    coverage: float = Field(description="Share of the examples that were answered.")
    uncovered: tuple[str, ...] | None = Field(
        None, description="Labels that no label of a published model means: these count as wrong."
    )
    ceiling: float | None = Field(None, description="Share that a perfect model with its labels could get right.")
    elsewhere: float | None = Field(None, description="Share of its answers that went to labels outside yours.")
    usd_per_1k: float | None = Field(description="What runs here: processor time by usd_per_hour of settings.toml.")
    usd_interval: Interval | None = Field(None, description="Over the turns in which all models were measured.")
    usd_turns: tuple[float, ...] = Field((), exclude=True)
    """What the gates compare within a run; not stored."""
    recipe: str | None = Field(None, exclude=True)
    """Equal for two trainings of one recipe; not stored."""
    busy: float | None = Field(
        None, description="Share of timings that other work delayed, by reference work between them."
    )
    p50_ms: float | None = None
    p95_ms: float | None = None
    p95_interval: Interval | None = Field(None, description="Absent where there are too few timings.")
    ttft_ms: float | None = Field(None, description="Median time to the first token.")
    device: str | None = None
    served_model: str
    control: Control
    parameters: int | None = None
    memory_mb: float | None = None
    training_usd: float | None = None
    dominated: bool = False
    metrics: dict[str, Value] = Field(default_factory=dict)


class Comparison(_Frozen):
    """Candidate minus baseline on the same examples, with the smallest difference that the data could have shown."""

    metric: str
    baseline: str
    candidate: str
    delta: float | None
    interval: Interval | None
    p_value: float | None
    p_holm: float | None = Field(None, description="Adjusted for all that is compared with this baseline.")
    method: str
    minimum_detectable_effect: float | None
    standard_error: float | None = None
    n: int
    clusters: int
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None

    def turned(self) -> Comparison:
        """This comparison with the models' parts exchanged."""
        interval = (-self.interval[1], -self.interval[0]) if self.interval else None
        return self.model_copy(
            update={
                "baseline": self.candidate,
                "candidate": self.baseline,
                "delta": -self.delta if self.delta is not None else None,
                "interval": interval,
                "p_holm": None,
                "wins": self.losses,
                "losses": self.wins,
            }
        )

    def improvement(self) -> tuple[float, Interval] | None:
        """Delta and interval with the sign that makes better positive, or None where there is no interval."""
        if self.delta is None or self.interval is None:
            return None
        if find_metric(self.metric).sign > 0:
            return self.delta, self.interval
        return -self.delta, (-self.interval[1], -self.interval[0])


class GateResult(_Frozen):
    gate: Gate
    outcome: Outcome
    reason: str
    needed_examples: int | None = None
    needed_groups: int | None = None


class SuiteChange(_Frozen):
    """What became of the rows that the use case's decisions judged before. `since`: where they were judged."""

    judged: int = Field(description="Rows that were judged before.")
    missing: int = Field(0, description="Of these, how many are not here.")
    changed: int = Field(0, description="Of these, how many have another label or group.")
    answers_changed: int = Field(0, description="Rows on which a column of answers says something else.")
    columns_changed: int = Field(
        0, description="Rows on which a column that gates slice by, or scores read, says something else."
    )
    joined: int = Field(0, description="Rows that nobody judged before.")
    since: str = ""

    @property
    def is_another(self) -> bool:
        """Whether this is another suite, to which only a person may move a use case."""
        return bool(self.missing or self.changed or self.answers_changed or self.columns_changed)

    def __str__(self) -> str:
        """What follows the name of the suite.

        >>> print(SuiteChange(judged=200, missing=3, since="flowers@v1:test"))
        lacks 3 of the 200 rows that were judged before, on flowers@v1:test
        >>> print(SuiteChange(judged=200, missing=200, since="flowers@v1:test"))
        holds none of the 200 rows that were judged before, on flowers@v1:test
        """
        parts, rows = [], f"the {self.judged} rows that were judged before, on {self.since}"
        if self.missing:
            parts.append(f"holds none of {rows}" if self.missing == self.judged else f"lacks {self.missing} of {rows}")
        if self.changed:
            parts.append(f"has another label or group on {self.changed} of the {self.judged} rows of {self.since}")
        if self.answers_changed:
            parts.append(f"has other answers of the system in use on {self.answers_changed} rows than {self.since}")
        if self.columns_changed:
            parts.append(f"has other values to slice or score by on {self.columns_changed} rows than {self.since}")
        return " and ".join(parts) or f"holds all of {rows}"


class Decision(_Frozen):
    """A verdict on one candidate. `needed_examples`: how many more test rows, of all labels, would settle it; where
    rows hang together, `needed_groups` more groups. Of the gate `fresh_rows`: rows that no model was judged on before.

    `interval`, at `level`, is of candidate minus baseline in the main metric, on the `n` examples of `dataset`.
    """

    id: str = ""
    verdict: Verdict
    reasons: tuple[str, ...]
    needed_examples: int | None = None
    needed_groups: int | None = None
    rows: int = 0
    """Test rows of all labels that there were; 0 in decisions from before this was noted."""
    groups: int = 0
    """In how many groups they lay, each near-copy in its original's."""
    candidate: str
    baseline: str
    gates: tuple[GateResult, ...] = ()
    suite: Suite = "core"
    """Which of the use case's suites it rests on; a promotion needs one on each that there is."""
    dataset: str = ""
    n: int = 0
    interval: Interval | None = None
    level: float = LEVEL
    looks: int = 0
    """Earlier evaluations that read these rows, whoever asked."""
    earlier_candidates: int = 0
    """How many other models were judged on these rows before; `level` accounts for them."""
    suite_change: SuiteChange | None = None
    """Against the rows that earlier decisions of the use case judged; None where there are none."""
    same_model: str | None = None
    """The baseline, where it is the same model under another name or number."""
    telling_inputs: tuple[TellingInput, ...] = ()
    """Columns that the candidate reads and that alone give the answer to (nearly) all these examples: a person says
    whether they are known before the answer is."""


Doubt = Literal["judged_apart", "not_nested", "beside_thorough"]


class ValidationEvidence(_Frozen):
    """What validation examples say of a candidate, before its test rows are looked at (candidate_order.py)."""

    model: str
    value: float | None
    standard_error: float | None = None
    n: int
    how: str = Field(description="out-of-fold, validation, race or judged answers; `nested` of a choice.")
    optimistic: bool = Field(False, description="Whether there is such a `doubt`: the value counts for less.")
    doubt: Doubt | None = Field(
        None,
        description="judged_apart: by other rows than the rest, or maybe by some that its base model knows; "
        "not_nested: by the rows that chose or stopped it, and values of others are nested; "
        "beside_thorough: a thorough search stands beside it. None: no doubt, or reasons were not kept yet.",
    )


class Agreement(_Frozen):
    """A judge's verdicts beside people's on the same answers. `kappa` is Cohen's; None where nothing tells it."""

    model: str
    column: str
    n: int
    unreadable: int = Field(0, description="Cells that hold no such verdict.")
    weights: Literal["none", "quadratic"]
    kappa: float | None = None
    interval: Interval | None = None
    same: float | None = Field(None, description="Share of equal verdicts.")


class Verdicts(_Frozen):
    """What a judge was asked and how it did. `turned`: share of pairs whose verdict changed with the order."""

    judge: str
    metric: str
    mode: Literal["graded", "pairwise"]
    scale: str | None = None
    questions: int
    answers: int
    without: int = Field(0, description="Answers on which it gave no verdict.")
    usd: float | None = Field(None, description="What its verdicts cost when they were given; null: unknown.")
    turned: float | None = None
    for_first: float | None = Field(None, description="Of the turned pairs, the share for what stood first.")
    agreement: tuple[Agreement, ...] = ()


class BreakEven(_Frozen):
    """After how many examples a candidate's training has paid for itself against the baseline's dearer answers."""

    baseline: str
    candidate: str
    training_usd: float
    saved_usd_per_1k: float
    examples: int


Compare = Callable[[str, str], Comparison | None]
"""The comparison of a baseline and a candidate, where there is one."""


class Report(_Frozen):
    dataset: str = Field(description="With version and split.")
    use_case: str | None = None
    use_case_version: int | None = None
    metric: str
    better: Literal["higher", "lower"]
    n: int
    clusters: int
    baseline: str
    candidate: str
    leaderboard: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    break_even: BreakEven | None = None
    decision: Decision | None = None
    decisions: tuple[Decision, ...] = Field((), description="On every model, the candidate's among them.")
    order: tuple[ValidationEvidence, ...] = Field(
        (), description="In which the candidates go forward; empty: the cheapest that passes does."
    )
    no_decision: str | None = Field(None, description="Why there is none.")
    judge: Verdicts | None = None
    judged_split: LearningSplit | None = Field(
        None, description="Where these are no test rows: models learned from such rows, or were chosen by them."
    )
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _marked(cls, values: Any) -> Any:
        """Reports from before this was kept are marked as well: the dataset's name says it."""
        if not isinstance(values, dict) or "judged_split" in values:
            return values
        return {**values, "judged_split": learning_split(str(values.get("dataset", "")).partition(":")[2])}

    def row(self, model: str) -> Row:
        """The row of `name@v3`, or of `name` where one version of it took part. Raises NOT_FOUND with the others."""
        named = [row for row in self.leaderboard if row.model == model]
        versions = [row for row in self.leaderboard if row.model.partition("@")[0] == model]
        if len(named or versions) == 1:
            return (named or versions)[0]
        raise unknown("model in this evaluation", model, [row.model for row in self.leaderboard], "Use one of these.")

    def compare(self, baseline: str, candidate: str, metric: str | None = None) -> Comparison | None:
        """The stored comparison of two models, in the direction that is asked for."""
        metric = metric or self.metric
        for comparison in self.comparisons:
            if comparison.metric != metric:
                continue
            if (comparison.baseline, comparison.candidate) == (baseline, candidate):
                return comparison
            if (comparison.baseline, comparison.candidate) == (candidate, baseline):
                return comparison.turned()
        return None

    def comparer(self, metric: str | None = None) -> Compare:
        """As `compare`, for many pairs of models: they are searched once."""
        stored = {
            (one.baseline, one.candidate): one for one in self.comparisons if one.metric == (metric or self.metric)
        }

        def compare(baseline: str, candidate: str) -> Comparison | None:
            if (found := stored.get((baseline, candidate))) is not None:
                return found
            other = stored.get((candidate, baseline))
            return other and other.turned()

        return compare


def learning_split(split: str | None) -> LearningSplit | None:
    """The split, where it is one that no verdict rests on."""
    return split if split in get_args(LearningSplit) else None  # type: ignore[return-value]  # it is one of those


def learning_split_words(split: LearningSplit | None) -> str:
    """What follows the name of a dataset where a figure of it is shown; empty for test rows.

    >>> learning_split_words("validation")
    'validation rows, by which models are chosen: values are optimistic'
    """
    why = {"train": "from which models learn", "validation": "by which models are chosen"}
    return f"{split} rows, {why[split]}: values are optimistic" if split else ""


def find_report(database: Database, evaluation: str) -> Report:
    """The report of an evaluation. Raises NOT_FOUND with near ids."""
    row = database.read_one(_GET, [evaluation])
    if row is None:
        known = [name for (name,) in database.read(_IDS)]
        raise unknown(
            "evaluation", evaluation, known, next=[Call("list_jobs", {"kind": "evaluate"}, "; a job's result names it")]
        )
    return Report.model_validate_json(row[0])


def break_even(report: Report, baseline: str, candidate: str) -> BreakEven | None:
    """After how many examples the candidate's training is paid by cheaper answers, where they are cheaper."""
    mine, theirs = report.row(candidate), report.row(baseline)
    if mine.training_usd is None or mine.usd_per_1k is None or theirs.usd_per_1k is None:
        return None
    saved = theirs.usd_per_1k - mine.usd_per_1k
    if saved <= 0:
        return None
    return BreakEven(
        baseline=baseline,
        candidate=candidate,
        training_usd=mine.training_usd,
        saved_usd_per_1k=saved,
        examples=math.ceil(mine.training_usd / saved * 1000),
    )


def number(value: float) -> float | None:
    """A float as JSON can hold it, to seven digits: more are noise that a reader would have to read."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def interval(low: float, high: float) -> Interval | None:
    ends = number(low), number(high)
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


class Pareto(NamedTuple):
    """`dominated`: each model that is, with those that dominate it. `front` holds all others, the best value first.

    A model is dominated only where the paired interval of the difference excludes zero and both costs and both
    latencies are known: what was not measured, or cannot be told apart, stays to be chosen from.
    """

    front: tuple[str, ...]
    dominated: dict[str, tuple[str, ...]]


def pareto(report: Report) -> Pareto:
    compare = report.comparer()
    by = {
        row.model: tuple(other.model for other in report.leaderboard if dominates(other, row, compare))
        for row in report.leaderboard
    }
    return Pareto(tuple(model for model, others in by.items() if not others), {m: o for m, o in by.items() if o})


def dominates(one: Row, other: Row, gain: Compare) -> bool:
    """Whether `one` is surely better than `other` and no worse in cost and latency. `gain(baseline, candidate)`."""
    comparison = gain(other.model, one.model)
    improvement = comparison.improvement() if comparison else None
    if not improvement or improvement[1][0] <= 0:
        return False
    pairs = ((one.usd_per_1k, other.usd_per_1k), (one.p95_ms, other.p95_ms))
    return all(mine is not None and theirs is not None and mine <= theirs for mine, theirs in pairs)
