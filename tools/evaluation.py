"""Models side by side on the same examples, with intervals, costs and the use case's verdict."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from speciate.evaluation.endpoints.prompts import Prompt
from speciate.evaluation.evaluate import KIND as EVALUATE
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.judges.judge_plan import Judging
from speciate.evaluation.pages.page import write_page
from speciate.evaluation.reports.describe_evaluation import EvaluationDescription, Part, describe
from speciate.evaluation.reports.leaderboard_chart import draw_leaderboard
from speciate.evaluation.reports.report import BreakEven, Comparison, Decision, LearningSplit, Row, Verdicts
from speciate.loop.gap_analysis import Gap
from speciate.loop.gaps import Gaps as FoundGaps
from speciate.loop.gaps import find_gaps
from speciate.server.jobs_after_fetch import start_job_after_fetch
from speciate.server.roots import check_function, check_refs
from speciate.server.tool_api import (  # fmt: skip
    App,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    Result,
    ToolImage,
    make_spec,
    tool,
)


class Value(Result):
    value: str


class Slice(Result):
    n: int
    baseline: float | None = None
    candidate: float | None = None
    delta: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    p_holm: float | None = None
    minimum_detectable_effect: float | None = None
    untrusted: Value


class Pairs(Result):
    rows: tuple[tuple[str, str, int, float], ...]


class ParetoFront(Result):
    front: tuple[str, ...] = Field(description="Models that no other one surely beats at no more cost and latency.")
    dominated: dict[str, tuple[str, ...]] = Field(description="The others, with those that beat them.")


class ConfusionMatrix(Result):
    model: str
    answers: int
    wrong: int
    columns: tuple[str, ...] = ("truth", "answered", "count", "share_of_truth")
    more_pairs: int | None = None
    untrusted: Pairs


class Calibration(Result):
    model: str
    n: int = Field(description="Answers with a confidence.")
    without: int
    error: float | None = Field(None, description="Expected calibration error.")
    columns: tuple[str, ...] = ("low", "high", "count", "confidence", "accuracy")
    rows: tuple[tuple[float, float, int, float, float], ...]


class Gaps(Result):
    model: str
    n: int
    failed: float
    groups: int = Field(description="Groups that were compared; p_holm is adjusted for all.")
    untrusted: tuple[Gap, ...]


class ForeignEvaluationText(Result):
    worst_examples: tuple[dict[str, Any], ...] | None = None
    failures: tuple[dict[str, Any], ...] | None = None
    candidate_better: tuple[dict[str, Any], ...] | None = None
    baseline_better: tuple[dict[str, Any], ...] | None = None


class UnscoredText(Result):
    first: tuple[dict[str, Any], ...] = Field(description="The first answer of each reason, and how many have it.")


class Unscored(Result):
    answers: int = Field(description="Answers without a score; they do not count.")
    failures: dict[str, int] = Field(description="By kind, such as raised, nan or too_slow.")
    models: dict[str, int]
    untrusted: UnscoredText


class EvaluationView(Result):
    evaluation: str
    dataset: str
    use_case: str | None = None
    metric: str
    better: Literal["higher", "lower"]
    n: int
    judged_split: LearningSplit | None = Field(None, description="Where these are no test rows: no verdict.")
    clusters: int = Field(description="Independent groups among the n examples.")
    baseline: str
    candidate: str
    leaderboard: tuple[Row, ...]
    models_left_out: int | None = None
    comparisons: tuple[Comparison, ...] = Field(description="Candidate minus baseline.")
    pareto: ParetoFront
    slices: tuple[Slice, ...] | None = None
    slice_metric: str | None = None
    slices_left_out: int | None = None
    confusion: tuple[ConfusionMatrix, ...] | None = None
    calibration: tuple[Calibration, ...] | None = None
    disagreements: dict[str, int] | None = Field(None, description="How many examples either model is better on.")
    break_even: BreakEven | None = None
    decision: Decision | None = None
    verdicts: dict[str, str] | None = Field(None, description="Of each candidate, where there are several.")
    judge: Verdicts | None = None
    unscored: Unscored | None = Field(None, description="What `scorer` failed on.")
    notes: tuple[str, ...]
    wrong: int | None = Field(None, description="Examples that the candidate got wrong.")
    gaps: Gaps | None = Field(None, description="Where the candidate fails more than elsewhere; most to gain first.")
    page: str | None = None
    untrusted: ForeignEvaluationText | None = None

    @classmethod
    def of(
        cls, evaluation: str, found: EvaluationDescription, page: str | None, gaps: FoundGaps | None = None
    ) -> EvaluationView:
        report, cut, worst, differ = found.report, found.slices, found.worst, found.disagreements
        return cls(
            evaluation=evaluation,
            dataset=report.dataset,
            use_case=report.use_case,
            metric=report.metric,
            better=report.better,
            n=report.n,
            judged_split=report.judged_split,
            clusters=report.clusters,
            baseline=found.baseline,
            candidate=found.candidate,
            leaderboard=found.rows,
            models_left_out=found.models_left_out or None,
            comparisons=found.comparisons,
            pareto=ParetoFront(front=found.pareto.front, dominated=found.pareto.dominated),
            slices=tuple(_slice(**one) for one in cut["slices"]) if cut else None,
            slice_metric=cut["metric"] if cut else None,
            slices_left_out=cut["left_out"] if cut else None,
            confusion=_confusion(found.confusion),
            calibration=_calibration(found.calibration),
            disagreements=differ["tally"] if differ else None,
            break_even=found.break_even,
            decision=report.decision,
            verdicts={each.candidate: each.verdict for each in report.decisions} if len(report.decisions) > 1 else None,
            judge=report.judge,
            unscored=_unscored(found.unscored),
            notes=report.notes,
            wrong=worst["wrong"] if worst else None,
            gaps=Gaps(model=gaps.model, n=gaps.n, failed=gaps.failed, groups=gaps.groups, untrusted=gaps.untrusted)
            if gaps
            else None,
            page=page,
            untrusted=ForeignEvaluationText(
                worst_examples=tuple(worst["examples"]) if worst else None,
                failures=tuple(worst["failures"]) if worst and worst["failures"] else None,
                candidate_better=tuple(differ["candidate_better"]) if differ else None,
                baseline_better=tuple(differ["baseline_better"]) if differ else None,
            )
            if worst or differ
            else None,
        )


def _slice(value: str, **measured: Any) -> Slice:
    return Slice(untrusted=Value(value=value), **measured)


def _unscored(found: dict[str, Any] | None) -> Unscored | None:
    if not found or not found["answers"]:  # all of them may have been purged
        return None
    return Unscored(
        answers=found["answers"], failures=found["failures"], models=found["models"],
        untrusted=UnscoredText(first=tuple(found["first"])),
    )  # fmt: skip


def _confusion(found: list[dict[str, Any]] | None) -> tuple[ConfusionMatrix, ...] | None:
    if found is None:
        return None
    return tuple(
        ConfusionMatrix(
            model=one["model"],
            answers=one["answers"],
            wrong=one["wrong"],
            more_pairs=one["more_pairs"] or None,
            untrusted=Pairs(rows=tuple(one["pairs"])),
        )
        for one in found
    )


def _calibration(found: list[dict[str, Any]] | None) -> tuple[Calibration, ...] | None:
    if found is None:
        return None
    return tuple(
        Calibration(model=one["model"], n=one["n"], without=one["without"], error=one["error"], rows=tuple(one["bins"]))
        for one in found
    )


_NAMED_SCORERS = ("package:", "likeness:", "spoken_wer:")


@tool()
def evaluate_models(
    app: App,
    models: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=100,
            description="Yours, hf:org/name, path:/dir, api:PROVIDER/MODEL, column:NAME, constant:, nearest:, "
            "ensemble:A+B, code:FILE.py:FUNCTION, inspect:LOG.eval; each gets a verdict, the last goes forward.",
        ),
    ],
    dataset: Annotated[str | None, Field(description="Its test split, or NAME:SPLIT.")] = None,
    suite: Annotated[Literal["core", "heldout", "regression"] | None, Field(description="Of the use case.")] = None,
    use_case: Annotated[str | None, Field(description="Adds its incumbent, gates and a decision.")] = None,
    metrics: Annotated[list[str] | None, Field(description="Beside the task's: list_options(kind='metric').")] = None,
    scorer: Annotated[
        str | None,
        Field(description="FILE.py:FUNCTION, package:NAME, likeness:MODEL, code_passes or gym_score."),
    ] = None,
    judge: Annotated[Judging | None, Field(description="A judge.")] = None,
    prompt: Annotated[Prompt | None, Field(description="How public models are asked.")] = None,
    label_maps: Annotated[
        dict[str, dict[str, str]] | None, Field(description="{model: {published label: your label}}; dry_run proposes.")
    ] = None,
    prompts: Annotated[
        dict[str, list[str]] | None, Field(description="{zero-shot model: ['a photo of a {label}']}.")
    ] = None,
    repeats: Annotated[int, Field(ge=1, le=20, description="Of models that answer by chance.")] = 1,
    latency: Annotated[bool, Field(description="Measured, one by one.")] = True,
    budget_usd: Annotated[float | None, Field(gt=0, description="A hard stop.")] = None,
    baselines: Annotated[list[str] | None, Field(max_length=100, description="Shown beside, without verdict.")] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Compare models on unseen examples; starts a job.

    With use_case against its incumbent, with a decision that promote_model takes. To train first, call specialize; to
    read the result, describe_evaluation.
    """
    spec = make_spec(
        EvaluateSpec,
        models=check_refs(app, models),
        baselines=check_refs(app, baselines or []),
        dataset=dataset,
        suite=suite,
        use_case=use_case,
        metrics=metrics or [],
        scorer=scorer if scorer is None or scorer.startswith(_NAMED_SCORERS) else check_function(app, scorer),
        judge=_judge(app, judge) if judge else None,
        prompt=(prompt or Prompt()).model_dump(mode="json"),
        label_maps=check_refs_of_keys(app, label_maps or {}),
        prompts=check_refs_of_keys(app, prompts or {}),
        repeats=repeats,
        latency=latency,
        budget_usd=budget_usd,
    )
    for name, value in (("baselines", baselines), ("label_maps", label_maps), ("prompts", prompts)):
        if not value:  # as specs of before had none, and a key's calls are compared by them
            spec.model_fields_set.discard(name)
    members = [one for ref in (*spec.models, *spec.baselines) for one in ref.removeprefix("ensemble:").split("+")]
    named = [ref for ref in members if ref.startswith("hf:")]
    return start_job_after_fetch(app, EVALUATE, spec, named, idempotency_key=idempotency_key, dry_run=dry_run)


def check_refs_of_keys(app: App, by_model: dict[str, Any]) -> dict[str, Any]:
    """Values by model, each model as `models` names it after its paths were checked."""
    return {str(check_refs(app, model)): value for model, value in by_model.items()}


def _judge(app: App, judge: Judging) -> dict[str, Any]:
    human = {check_refs(app, model): column for model, column in judge.human.items()}
    return judge.model_dump(mode="json") | {"model": check_refs(app, judge.model), "human": human}


@tool(read_only=True)
def describe_evaluation(
    app: App,
    evaluation: Annotated[str, Field(description="Id, of the job's result.")],
    baseline: Annotated[str | None, Field(description="Default: the incumbent.")] = None,
    slice_by: Annotated[str | None, Field(description="A column of the dataset, or 'label'.")] = None,
    errors: Annotated[int, Field(ge=0, le=50, description="Worst examples to show.")] = 0,
    show: Annotated[list[Part], Field(description="More than the best 10 models.")] = [],  # noqa: B006 - never changed
    picture: Annotated[bool, Field(description="Leaderboard as an image.")] = False,
    page: Annotated[bool, Field(description="Also an HTML file; its path.")] = False,
) -> tuple[EvaluationView, *tuple[ToolImage, ...]]:
    """Show leaderboard, paired comparisons with intervals, Pareto front, costs and decision of one evaluation.

    To make one, call evaluate_models; describe_model lists those of a model.
    """
    found = describe(
        app.workspace, app.pool, evaluation, baseline=baseline, slice_by=slice_by, errors=errors, show=show
    )  # fmt: skip
    file = str(write_page(app.workspace, app.pool, evaluation, baseline)) if page else None
    pictures = [draw_leaderboard(found.report, found.baseline, found.candidate)] if picture else []
    pictures += [found.contact_sheet] if found.contact_sheet else []
    gaps = find_gaps(app.workspace, app.pool, evaluation, model=found.candidate) if "gaps" in show else None
    return EvaluationView.of(evaluation, found, file, gaps), *(ToolImage(data) for data in pictures)
