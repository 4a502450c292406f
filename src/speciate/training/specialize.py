"""Kind `specialize`: the cascade from the cheapest method up, one evaluation, and the promotion if it is earned.

    screen -> fetch/org--x -> race -> train/classical -> shortlist -> train/probe-... -> train/continue-...
    -> train/full-... -> evaluate -> promote

`next` is pure: what it needs to know about data and metric comes with its children's results. A dearer method is tried
only while budget is left, a passing verdict on the test split is not sure yet and the target is within its reach
(planning/when_to_stop.py); what cannot end in what is left is skipped and told. Where a network serves, it is trained
on from the newest data before another one is begun: a warm start. Where there are more than three base models, those
that promise little are excluded before any of them is trained. Published models that are named are tried as they are
before anything is trained. Which models are worth evaluating is decided on validation examples; the test split is used
once, for all of them. Losers stay registered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.datasets import splits, versions
from speciate.datasets.leaks import leaks_of_report
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import screening
from speciate.evaluation.evaluated_models import find_incumbent
from speciate.evaluation.screening import MOST_CANDIDATES, ScreenSpec
from speciate.jobs.job import ENDED, Resources
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, NextStep, Plan
from speciate.models import model_folder, registry
from speciate.models.model_card import EXPORT
from speciate.models.published.manifest import has_trained_head
from speciate.models.search import known_models
from speciate.models.search.search_query import Query
from speciate.refs import dataset_ref
from speciate.training import train
from speciate.training.planning import shortlist, when_to_stop
from speciate.training.planning.available_methods import (
    LANGUAGE,
    all_candidates,
    available_candidates,
    check_candidate,
    methods_for,
)
from speciate.training.planning.published_steps import next_published, published_report, race_survivors
from speciate.training.planning.shortlist import (
    SHORTLIST_STEP,
    comparable_base_models,
    keep_shortlisted,
    shortlist_report,
    shortlist_request,
)
from speciate.training.train_spec import Candidate, Method, TrainSpec
from speciate.training.training_report import TrainReport
from speciate.use_cases import Aim
from speciate.vocabulary import Family, find_metric, find_task
from speciate.workspace.workspace import Workspace

_EVALUATE, _PROMOTE, _TRAIN = "evaluate", "promote", "train/"
_NETWORKS: tuple[Method, ...] = ("lora", "full")
"""Methods by which a network learns, and can learn on."""
_LEAST_SECONDS = 1.0
"""With less budget left no further method is started."""
_GRACE_SECONDS = 30.0
"""A training ends by itself after the candidate at hand; one that does not is stopped so long after its budget."""


_READING_SECONDS = 300.0
"""What a training may take beyond its budget while there is no model yet: reading examples does not count to a budget,
and a limit that passes meanwhile would leave nothing at all."""
_EVALUATION_SECONDS = 60.0
"""What an evaluation gets at least, also where trainings took the whole budget: without one nothing is decided."""


class SpecializeSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    dataset: str
    budget_minutes: float = Field(gt=0)
    budget_usd: float | None = Field(None, gt=0)
    """Of answers of models that others serve, such as the incumbent's: a hard stop of each evaluation."""
    base_models: tuple[str, ...] = ()
    """Empty: whatever is installed and suits the modality."""
    methods: tuple[Method, ...] = ()
    """Empty: from the cheapest up."""
    published: tuple[str, ...] = Field((), max_length=MOST_CANDIDATES)
    """Published models that are tried as they are: `hf:org/name`, `timm:NAME`, or what was fetched."""
    max_bytes: int | None = Field(None, gt=0)
    """Of published models that may be fetched, together."""
    like: str | None = None
    """A model version whose recipe is tried first."""
    canary_percent: float | None = Field(None, gt=0, le=100)
    """The share of the requests with which what is promoted begins; None: all."""
    ways: tuple[Candidate, ...] = ()
    """The candidates, as `choose_candidates` found them; empty: those that were named, else from `classical` on."""
    shortlist: bool = False
    """Whether base models are compared before any of them is trained."""
    order: tuple[str, ...] = ()
    """Of ordinal labels, from low to high."""
    aim: Aim = "pass"
    """pass: the first model that will surely pass ends the search; best: the whole budget is used."""
    test_examples: int | None = None
    """What a verdict will rest on; None: not known, as many as validation examples."""
    least_seconds: Mapping[str, float] = Field(default_factory=dict)
    """By step: what a candidate needs at least, one epoch at one learning rate, where that is known. Skipped with less
    left."""
    seed: int = 0


class TrainedCandidate(NamedTuple):
    """A training that ended well."""

    model: str
    candidate: Candidate
    report: TrainReport
    seconds: float

    @property
    def value(self) -> float:
        """On held-out examples; NaN where they leave the metric undefined."""
        value = self.report["validation"]["value"]
        return math.nan if value is None else float(value)

    @property
    def judged_apart(self) -> bool:
        """Whether it was judged on fewer validation examples than others, as its base model knows the rest; or maybe on
        such as that knows."""
        return bool(self.report.get("left_out", 0) != 0)


def plan(spec: SpecializeSpec, workspace: Workspace) -> Plan:
    """Checks every training that may come, and that there is something to judge by: a core suite or a test split."""
    use_case = use_cases.get(workspace.database, spec.use_case)
    version = versions.version(workspace.database, spec.dataset)
    manifest = suite = version.manifest
    if use_case.suites.core:
        suite = _core(workspace, use_case.suites.core)
    elif not manifest.splits.get("test"):
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no split 'test'; it has {manifest.splits}. Without one there is nothing to judge by.",
            next=[
                Call(
                    "curate_dataset",
                    {"dataset": manifest.ref, "steps": [{"op": "split"}]},
                    ": it gets a leak-free one of train, validation and test",
                )
            ],
        )
    find_incumbent(workspace, use_case, tuple(suite.columns))
    family = find_task(use_case.task).family
    if spec.published:
        screening.plan(ScreenSpec(use_case=spec.use_case, dataset=spec.dataset, models=spec.published), workspace)
    for base_model in spec.base_models:
        _check_base(base_model, manifest.modality, family, workspace)
    there = spec.ways or _named_candidates(spec) or available_candidates(manifest.modality, family)
    ways = _with_like(spec, _of_named_bases(spec, there))
    plans = [
        train.plan(_train_spec(spec, candidate, spec.dataset, spec.budget_minutes), workspace)
        for candidate in ways or [Candidate(method="classical")]
    ]
    known = [each.seconds for each in plans if each.seconds is not None]
    return Plan(
        resources=Resources(cpu=0),
        seconds=min(sum(known), 60 * spec.budget_minutes) if len(known) == len(plans) else None,
        use_case=spec.use_case,
        resolved={
            "dataset": manifest.ref,
            "use_case": f"{use_case.name} version {use_case.version}",
            "candidates": [candidate.model_dump(exclude_none=True) for candidate in ways],
            "metric": use_case.objective.metric,
            **({"skipped": skipped} if (skipped := _skipped(spec, ways, 60 * spec.budget_minutes)) else {}),
            **({"warnings": warnings} if (warnings := _warnings(workspace, version, use_case)) else {}),
        },
    )


def _warnings(workspace: Workspace, version: versions.Version, use_case: use_cases.UseCase) -> list[str]:
    return [
        *splits.warnings_of_report(version.report),
        *leaks_of_report(version.report),
        *train.answers_among_inputs(workspace.database, version.manifest, use_case),
    ]


def choose_candidates(
    workspace: Workspace,
    use_case: str,
    dataset: str,
    base_models: Sequence[str] = (),
    methods: Sequence[Method] = (),
) -> tuple[Candidate, ...]:
    """What suits the use case's task and the dataset's modality: the methods that are named, in that order, or all of
    them, cheapest first; with what is installed, or of base models only those that are named.

    The network in production is trained further (warm start) before other networks are tried, unless base models or
    only other methods are named.
    """
    family = find_task(use_cases.get(workspace.database, use_case).task).family
    spec = SpecializeSpec(
        use_case=use_case, dataset=dataset, budget_minutes=1, base_models=tuple(base_models), methods=tuple(methods)
    )
    modality = versions.resolve(workspace.database, dataset).modality
    found = _named_candidates(spec) or _suited_candidates(workspace, modality, family, base_models)
    warm = None if base_models else _warm_start(workspace, spec)
    if warm is None or (methods and warm.method not in methods):
        return tuple(found)
    place = next((place for place, candidate in enumerate(found) if candidate.method in _NETWORKS), len(found))
    return (*found[:place], warm, *found[place:])


def needs_shortlist(workspace: Workspace, use_case: str, ways: Sequence[Candidate]) -> bool:
    """Whether so many base models are among the ways that some are excluded, and the task lets them be compared."""
    family = find_task(use_cases.get(workspace.database, use_case).task).family
    return shortlist.is_worthwhile(family, comparable_base_models(ways))


class SearchTerms(NamedTuple):
    """What a search for a model may know before its first training."""

    aim: Aim
    test_examples: int | None
    least_seconds: Mapping[str, float]


def search_terms(
    workspace: Workspace, use_case: str, dataset: str, ways: Sequence[Candidate], budget_minutes: float
) -> SearchTerms:
    """For `SpecializeSpec`. Raises NOT_FOUND; what cannot be planned has no estimate."""
    wanted = use_cases.get(workspace.database, use_case)
    manifest = versions.resolve(workspace.database, dataset_ref(dataset)._replace(split=None))
    if wanted.suites.core:
        suite = dataset_ref(wanted.suites.core)
        judged = versions.resolve(workspace.database, suite._replace(split=None)).splits.get(suite.split or "test")
    else:
        judged = manifest.splits.get("test")
    spec, least = SpecializeSpec(use_case=use_case, dataset=dataset, budget_minutes=budget_minutes), dict[str, float]()
    for way in ways:
        shortest = {"num_train_epochs": 1, "learning_rate": [1e-3]} if way.method in _NETWORKS else {}
        planned = _train_spec(spec, way, dataset, budget_minutes).model_copy(update={"hyperparameters": shortest})
        try:
            seconds = train.plan(planned, workspace).seconds
        except SpeciateError:
            continue
        if seconds is not None and way.method != "classical":
            least[step_name(way)] = round(seconds, 1)
    return SearchTerms(wanted.objective.aim, judged, least)


def _suited_candidates(
    workspace: Workspace, modality: str, family: Family, base_models: Sequence[str]
) -> list[Candidate]:
    if not base_models:
        return all_candidates(workspace, modality, family)
    found = available_candidates(modality, family)
    learned: tuple[Method, ...] = ("probe", *_NETWORKS, *LANGUAGE)
    named = [
        Candidate(method=method, base_model=base)
        for method in learned
        for base in base_models
        if method in methods_for(base, family)
    ]
    return [candidate for candidate in found if candidate.base_model is None] + named


def _warm_start(workspace: Workspace, spec: SpecializeSpec) -> Candidate | None:
    """The model in production, as it was trained, from where it is now; None where it cannot learn from this dataset,
    or where it is not known any more what it has learned from: then nothing could judge it."""
    use_case = use_cases.get(workspace.database, spec.use_case)
    try:
        version = registry.resolve(workspace.database, workspace.folders, f"{spec.use_case}@production")
        if version.card.method == EXPORT:  # nothing is trained on one, but on what it was made from
            version = registry.resolve(workspace.database, workspace.folders, version.card.parents[0])
    except SpeciateError:
        return None
    card = version.card
    method = next((each for each in _NETWORKS if each == card.method), None)
    network = model_folder.has_backbone(version.path) or has_trained_head(version.path)
    if method is None or card.task != use_case.task or not network:
        return None
    candidate = Candidate(method=method, base_model=card.ref, continue_from=card.ref)
    try:
        planned = train.plan(_train_spec(spec, candidate, spec.dataset, spec.budget_minutes), workspace)
    except SpeciateError:
        return None
    return None if planned.payload.base_learned_from is None else candidate


def _check_base(base_model: str, modality: str, family: Family, workspace: Workspace) -> None:
    for method in methods_for(base_model, family)[:1]:
        check_candidate(Candidate(method=method, base_model=base_model), modality, family, workspace)


def _core(workspace: Workspace, core: str) -> Manifest:
    ref = dataset_ref(core)
    suite = versions.resolve(workspace.database, ref._replace(split=None))
    if not suite.splits.get(ref.split or "test"):
        raise SpeciateError(
            Code.INVALID,
            f"The core suite {core} has no split {ref.split or 'test'!r}; it has {suite.splits}.",
            "Call define_use_case again with another suites.core.",
        )
    return suite


def next_step(spec: SpecializeSpec, children: Sequence[Child], now: float) -> NextStep:
    """The next training, else the evaluation, else the promotion, else the end. Pure."""
    if any(child.state not in ENDED for child in children):
        return []
    steps = {child.step: child for child in children}
    if _EVALUATE not in steps:
        return _next_published(spec, children) or _next_training(spec, children) or _evaluation(spec, children)
    evaluated = steps[_EVALUATE]
    if evaluated.result is None and _ran_out_of_budget(spec, children, evaluated):
        return Finished(result=_without_verdict(spec, children, evaluated))
    if evaluated.result is None:
        return _failed(evaluated, "No model could be evaluated")
    decision = evaluated.result.get("decision") or {}
    if decision.get("verdict") == "promote" and _PROMOTE not in steps:
        further = [suite for suite in evaluated.result.get("further_suites", ()) if f"{_EVALUATE}-{suite}" not in steps]
        return [_further_evaluation(spec, children, evaluated.result, suite) for suite in further] or [
            _promotion(spec, evaluated.result)
        ]
    return Finished(result=_outcome(spec, children, evaluated.result, steps.get(_PROMOTE)))


# Published models as they are


def find_published(workspace: Workspace, use_case: str, dataset: str) -> tuple[str, ...]:
    """Models of the hub that a search finds for a use case: within its limits, with weights, the best matches first."""
    modality = versions.resolve(workspace.database, dataset).modality
    wanted = known_models.complete_query(
        Query(modality=modality, weights=True), use_cases.get(workspace.database, use_case)
    )
    found = known_models.search(workspace, wanted, sort="relevance", limit=MOST_CANDIDATES, offset=0)
    return tuple(hit.row["ref"] for hit in found.hits if str(hit.row["ref"]).startswith(("hf:", "timm:")))


def _next_published(spec: SpecializeSpec, children: Sequence[Child]) -> list[ChildRequest]:
    if not spec.published or any(child.step.startswith(_TRAIN) for child in children):
        return []
    left = 60 * spec.budget_minutes - sum(child.run_seconds for child in children)
    return next_published(
        children, spec.published, use_case=spec.use_case, dataset=spec.dataset, max_bytes=spec.max_bytes,
        seed=spec.seed, seconds_left=left, grace=_GRACE_SECONDS,
    )  # fmt: skip


# Training


def _next_training(spec: SpecializeSpec, children: Sequence[Child]) -> list[ChildRequest]:
    """The cheapest way that was not tried, unless what was found is enough or the budget is spent."""
    trained, tried = trained_candidates(children), {child.step for child in children}
    left = 60 * spec.budget_minutes - sum(child.run_seconds for child in children)
    begun = any(step.startswith(_TRAIN) for step in tried)
    if begun and (left < _LEAST_SECONDS or search_ended(spec, children) in ("sure_pass", "out_of_reach")):
        return []
    left = max(left, _LEAST_SECONDS)
    dataset = trained[0].report["dataset"] if trained else spec.dataset
    possible = keep_shortlisted(_of_named_bases(spec, _possible(spec, children)), shortlist_report(children))
    for candidate in _untried(spec, children):
        if (step := step_name(candidate)) not in tried and not _too_slow(spec, candidate, left):
            if spec.shortlist and SHORTLIST_STEP not in tried and comparable_base_models([candidate]):
                return [
                    shortlist_request(
                        possible, use_case=spec.use_case, dataset=dataset, seed=spec.seed, seconds_left=left,
                        grace=_GRACE_SECONDS,
                    )
                ]  # fmt: skip
            request = _train_spec(spec, candidate, dataset, left / 60)
            return [
                ChildRequest(
                    step=step,
                    kind="train",
                    spec=request.model_dump(mode="json", exclude_unset=True, exclude_none=True),
                    run_seconds=left + _GRACE_SECONDS + (0.0 if trained else _READING_SECONDS),
                )
            ]
    return []


def _possible(spec: SpecializeSpec, children: Sequence[Child]) -> Sequence[Candidate]:
    return spec.ways or _named_candidates(spec) or _default_candidates(children)


def _untried(spec: SpecializeSpec, children: Sequence[Child]) -> list[Candidate]:
    """In their order, those that a shortlist excluded left out."""
    tried = {child.step for child in children}
    possible = keep_shortlisted(_of_named_bases(spec, _possible(spec, children)), shortlist_report(children))
    recipe = [  # it stands for its like
        one.candidate.model_copy(update={"like": None}) for one in trained_candidates(children) if one.candidate.like
    ]
    return [each for each in _with_like(spec, possible) if step_name(each) not in tried and each not in recipe]


def _too_slow(spec: SpecializeSpec, candidate: Candidate, seconds_left: float) -> bool:
    """Whether it cannot end in what is left. What the caller named is tried all the same: an estimate may be wrong."""
    named = bool(spec.methods or spec.base_models) or candidate.like is not None
    least = spec.least_seconds.get(step_name(candidate))
    return not named and least is not None and least > seconds_left


def will_surely_pass(candidate: TrainedCandidate, test_examples: int | None) -> bool:
    """Whether a verdict on so many test examples is a sure pass, by what validation examples say: all of them, as what
    is left after some were taken away is another sample."""
    target, measured = candidate.report.get("target"), _measured(candidate)
    if candidate.judged_apart or target is None or measured is None:
        return False
    sign = find_metric(candidate.report["metric"]).sign
    return when_to_stop.probability_of_pass(measured, sign * float(target), test_examples) >= when_to_stop.SURE


def _measured(candidate: TrainedCandidate) -> when_to_stop.Measured | None:
    """None where validation examples left the value or its spread undefined."""
    said = candidate.report["validation"]
    if said["value"] is None or said["standard_error"] is None:
        return None
    sign = find_metric(candidate.report["metric"]).sign
    return when_to_stop.Measured(sign * said["value"], said["standard_error"], said.get("n") or 0)


def search_ended(spec: SpecializeSpec, children: Sequence[Child]) -> when_to_stop.EndReason | None:
    """Why no further training is begun; None while one is. `budget` also where none of those left can end in time."""
    trained, left = trained_candidates(children), 60 * spec.budget_minutes - sum(c.run_seconds for c in children)
    if spec.aim == "pass" and any(will_surely_pass(one, spec.test_examples) for one in trained):
        return "sure_pass"
    untried = _untried(spec, children)
    if not untried:
        return "all_tried"
    if left < _LEAST_SECONDS or all(_too_slow(spec, each, left) for each in untried):
        return "budget"
    compared = [one for one in trained if not one.judged_apart and _measured(one) is not None]
    target = trained[0].report.get("target") if trained else None
    if spec.aim != "pass" or target is None or not compared or spec.methods:
        return None
    metric = find_metric(trained[0].report["metric"])
    best = max(filter(None, map(_measured, compared)), key=lambda each: each.value)
    methods = [each.method for each in untried if each.method]
    bound = metric.high if metric.sign > 0 else 0.0
    given_up = len(methods) == len(untried) and when_to_stop.is_out_of_reach(
        best, metric.sign * float(target), bound, methods
    )
    return "out_of_reach" if given_up else None


def trained_candidates(children: Sequence[Child]) -> list[TrainedCandidate]:
    """The trainings that ended well, in the order of their steps: cheap before dear."""
    return [
        TrainedCandidate(
            child.result["model"],
            _candidate_of(child),
            child.result["report"],
            child.run_seconds,
        )
        for child in children
        if child.step.startswith(_TRAIN) and child.result is not None and "model" in child.result
    ]


def _candidate_of(child: Child) -> Candidate:
    """With the method and base model that a recipe came to mean."""
    said = child.spec if child.result is None else child.spec | child.result["report"]
    return Candidate.model_validate({name: said.get(name) for name in Candidate.model_fields})


def _named_candidates(spec: SpecializeSpec) -> list[Candidate]:
    """The candidates that the caller named, in the caller's order; empty where methods are left to us."""
    ways: list[Candidate] = []
    for method in spec.methods:
        bases = spec.base_models if method != "classical" and spec.base_models else (None,)
        ways += [Candidate(method=method, base_model=base) for base in bases]
    return ways


def _default_candidates(children: Sequence[Child]) -> list[Candidate]:
    """Before the first result: what every modality has. Then what that training's plan found to be possible.

    Where that one failed, its plan's finding is lost.
    """
    first, trained = Candidate(method="classical"), trained_candidates(children)
    if trained:
        return [first, *(Candidate.model_validate(candidate) for candidate in trained[0].report["dearer"])]
    return [first]


def _with_like(spec: SpecializeSpec, possible: Sequence[Candidate]) -> list[Candidate]:
    return [*([Candidate(like=spec.like)] if spec.like else []), *possible]


def _of_named_bases(spec: SpecializeSpec, possible: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in possible if not (one.base_model and spec.base_models) or one.base_model in spec.base_models]


def step_name(candidate: Candidate) -> str:
    """`train/classical`, `train/probe-minilm`, `train/continue-taste-model-v3`, `train/like-x-v1`."""
    first = "like" if candidate.like else "continue" if candidate.continue_from else candidate.method
    base = re.sub(r"[^\w.]+", "-", (candidate.like or candidate.base_model or "").removeprefix("pkg:")).strip("-")
    return f"{_TRAIN}{first}" + (f"-{base}" if base else "")


def _train_spec(spec: SpecializeSpec, candidate: Candidate, dataset: str, minutes: float) -> TrainSpec:
    """What a recipe says is not said again: what is named goes before it."""
    ours = {
        "name": f"{spec.use_case}-model",
        "dataset": dataset,
        "use_case": spec.use_case,
        "budget_minutes": minutes,
        **candidate.model_dump(exclude_none=True),
    }
    if candidate.like is None:
        ours |= {"hyperparameters": {"order": spec.order} if spec.order else {}, "seed": spec.seed}
    return TrainSpec.model_validate(ours)


# Evaluation


def adequate(trained: Sequence[TrainedCandidate]) -> list[TrainedCandidate]:
    """Those worth a look on the test split: not surely below the target, nor surely worse than the best.

    All of them where held-out examples left every value undefined.
    Judged by one standard error on validation examples (Breiman et al. 1984): the best stays, and with it whatever is
    within that of it or reaches the target. What was judged on other examples than the rest is not compared with it:
    it stays, and nothing falls behind it.
    """
    if not trained:
        return []
    sign = find_metric(trained[0].report["metric"]).sign
    measured = [candidate for candidate in trained if math.isfinite(candidate.value)]
    if not measured:
        return list(trained)
    alike = [candidate for candidate in measured if not candidate.judged_apart]
    best = max(alike or measured, key=lambda candidate: sign * candidate.value)
    room = best.report["validation"]["standard_error"] or 0.0
    target = best.report.get("target")

    def worth(candidate: TrainedCandidate) -> bool:
        near = sign * candidate.value >= sign * best.value - room
        return near or candidate.judged_apart or (target is not None and sign * candidate.value >= sign * float(target))

    return [candidate for candidate in measured if worth(candidate) or candidate is best]


def _evaluation(spec: SpecializeSpec, children: Sequence[Child]) -> NextStep:
    trained, published = trained_candidates(children), race_survivors(children)
    if not trained and not published:
        first = next((child for child in children if child.step.startswith(_TRAIN)), children[0])
        return _failed(first, "No model could be trained")
    return [
        ChildRequest(
            step=_EVALUATE,
            kind="evaluate",
            spec={
                "models": list(dict.fromkeys([*published, *(candidate.model for candidate in adequate(trained))])),
                "suite": "core",
                "dataset": f"{_dataset_used(spec, trained)}:test",  # where the use case has no core suite
                "use_case": spec.use_case,
                "pick": "gates",
                "seed": spec.seed,
                "budget_usd": spec.budget_usd,
            },
            run_seconds=_evaluation_seconds(spec, children) + _GRACE_SECONDS,
        )
    ]


def _dataset_used(spec: SpecializeSpec, trained: Sequence[TrainedCandidate]) -> str:
    return trained[0].report["dataset"] if trained else spec.dataset


def _evaluation_seconds(spec: SpecializeSpec, children: Sequence[Child]) -> float:
    """What is left of the budget for an evaluation after these steps."""
    return max(60 * spec.budget_minutes - sum(child.run_seconds for child in children), _EVALUATION_SECONDS)


def _ran_out_of_budget(spec: SpecializeSpec, children: Sequence[Child], evaluated: Child) -> bool:
    before = [child for child in children if child.id != evaluated.id]
    return evaluated.state == "dead" and evaluated.run_seconds >= _evaluation_seconds(spec, before)


def _further_evaluation(
    spec: SpecializeSpec, children: Sequence[Child], evaluated: Mapping[str, Any], suite: str
) -> ChildRequest:
    """The chosen model on another suite of the use case: a promotion needs a passing decision on each."""
    return ChildRequest(
        step=f"{_EVALUATE}-{suite}",
        kind="evaluate",
        spec={
            "models": [evaluated["report"]["candidate"]],
            "suite": suite,
            "use_case": spec.use_case,
            "latency": False,
            "seed": spec.seed,
            "budget_usd": spec.budget_usd,
        },
        run_seconds=_evaluation_seconds(spec, children) + _GRACE_SECONDS,
    )


def _promotion(spec: SpecializeSpec, evaluated: Mapping[str, Any]) -> ChildRequest:
    return ChildRequest(
        step=_PROMOTE,
        kind="promote",
        spec={
            "use_case": spec.use_case,
            "model": evaluated["report"]["candidate"],
            "evaluation": evaluated["evaluation"],
            "decision": evaluated["decision"]["id"],
            "actor": "specialize",
            **({"canary_percent": spec.canary_percent} if spec.canary_percent is not None else {}),
        },
    )


# The end


def _outcome(
    spec: SpecializeSpec, children: Sequence[Child], evaluated: Mapping[str, Any], promote: Child | None
) -> Mapping[str, object]:
    rows = {row["model"]: row for row in evaluated["report"]["leaderboard"]}
    decision = evaluated.get("decision") or _no_decision(evaluated)
    result: dict[str, object] = {
        "decision": decision,
        "evaluation": evaluated["evaluation"],
        "candidates": [
            _candidate_row(candidate, rows.get(candidate.model)) for candidate in trained_candidates(children)
        ],
        "spent": {"seconds": round(sum(child.run_seconds for child in children), 3), "usd": _usd(children)},
        "promotion": _promotion_state(promote, decision),
        "report": evaluated["report"],
        "failed": [_failure(child) for child in children if child.result is None],
    }
    if (report := shortlist_report(children)) is not None:
        result["shortlist"] = report
    if (published := published_report(children)) is not None:
        result["published"] = published
    result["ended"] = _ended(spec, children)
    chosen, ours = evaluated["report"]["candidate"], {one.model for one in trained_candidates(children)}
    return result | ({"model": chosen} if chosen in ours | set(race_survivors(children)) else {})


_WHY: dict[when_to_stop.EndReason, str] = {
    "sure_pass": "A passing verdict on the test split was sure by validation examples.",
    "all_tried": "Every method that suits was tried.",
    "budget": "The budget ended, or what was left of it was too short for the methods left.",
    "out_of_reach": "No method that is left could reach the target.",
}


def _ended(spec: SpecializeSpec, children: Sequence[Child]) -> Mapping[str, object]:
    """Why the search for a model ended, what was not tried for that, and what more labels would do."""
    reason = search_ended(spec, _before_evaluation(children)) or "all_tried"
    left = 60 * spec.budget_minutes - sum(child.run_seconds for child in _before_evaluation(children))
    skipped = _skipped(spec, _untried(spec, children), left) if reason == "budget" else []
    curves = [one.report["learning_curve"] for one in trained_candidates(children) if one.report.get("learning_curve")]
    return {
        "reason": reason,
        "why": _WHY[reason],
        **({"skipped": skipped} if skipped else {}),
        **({"learning_curve": curves[0]} if curves else {}),
    }


def _skipped(spec: SpecializeSpec, ways: Sequence[Candidate], seconds_left: float) -> list[Mapping[str, object]]:
    return [
        {
            **each.model_dump(include={"method", "base_model"}),
            "why": f"needs about {spec.least_seconds[step_name(each)]:.0f} s at least; "
            f"{max(seconds_left, 0):.0f} s were left",
        }
        for each in ways
        if _too_slow(spec, each, seconds_left)
    ]


def _before_evaluation(children: Sequence[Child]) -> list[Child]:
    return [child for child in children if not child.step.startswith((_EVALUATE, _PROMOTE))]


def _without_verdict(spec: SpecializeSpec, children: Sequence[Child], evaluated: Child) -> Mapping[str, object]:
    """Where the budget ended in the evaluation: the best by validation examples, and the call that goes on with the
    answers that are there."""
    trained = trained_candidates(children)
    ours = [one.model for one in sorted(adequate(trained), key=_standing)] or race_survivors(children)
    reason = (
        f"The evaluation did not end within what was left of budget_minutes={spec.budget_minutes:g} "
        f"({evaluated.run_seconds:.0f} s): there is no verdict, and no model was promoted"
    )
    asked = ("models", "suite", "dataset", "use_case")
    call = Call("evaluate_models", {key: evaluated.spec[key] for key in asked if key in evaluated.spec})
    return {
        "decision": {
            "id": "",
            "verdict": "inconclusive",
            "reasons": [f"{reason}. {call}"],
            "settle": [call.document()],
        },
        "candidates": [_candidate_row(candidate, None) for candidate in trained],
        "spent": {"seconds": round(sum(child.run_seconds for child in children), 3), "usd": _usd(children)},
        "promotion": {"state": "refused", "reasons": [f"{reason}."], "next": [call.document()]},
        "failed": [_failure(child) for child in children if child.result is None],
        "model": ours[0],
        **({"published": published} if (published := published_report(children)) is not None else {}),
    }


def _standing(candidate: TrainedCandidate) -> float:
    """The best by validation examples first."""
    return -find_metric(candidate.report["metric"]).sign * candidate.value


def _candidate_row(candidate: TrainedCandidate, row: Mapping[str, Any] | None) -> Mapping[str, object]:
    """With its value on the test split, or, where it was not adequate, on validation examples."""
    validation = candidate.report["validation"]
    return {
        "model": candidate.model,
        **{"method": None, "base_model": None, **candidate.candidate.model_dump(exclude_none=True)},
        "value": row["value"] if row else validation["value"],
        "interval": row["interval"] if row else validation["interval"],
        "measured_on": "test" if row else validation["how"],
        "seconds": candidate.report["seconds"],
        "usd": candidate.report.get("usd", 0.0),
        **{name: candidate.report[name] for name in ("parts", "ignored_parts") if candidate.report.get(name)},
    }


def _usd(children: Sequence[Child]) -> float:
    """Of this machine's time in trainings, and what answers of others cost; what a failed child cost is not known."""
    trained = sum(candidate.report.get("usd", 0.0) for candidate in trained_candidates(children))
    asked = sum(usd for child in children if child.result for usd in child.result.get("spent_usd", {}).values())
    return round(float(trained + asked), 6)


class DecisionSummary(TypedDict):
    id: str
    verdict: str
    reasons: list[str]


def _no_decision(evaluated: Mapping[str, Any]) -> DecisionSummary:
    """Where no decision is stored: training found the incumbent again, to the byte, or what `evaluate` says."""
    serving = evaluated["report"]["baseline"]
    if evaluated["report"]["candidate"] == serving:
        reason = f"The best that training found is {serving}, which serves already."
        return {"id": "", "verdict": "hold", "reasons": [reason]}
    return {"id": "", "verdict": "inconclusive", "reasons": [f"No decision is made: {evaluated['no_decision']}."]}


def _promotion_state(promote: Child | None, decision: Mapping[str, Any]) -> Mapping[str, object]:
    if promote is None:
        return {"state": "refused", "reasons": [f"The verdict is {decision['verdict']}: what serves today stays."]}
    if promote.result is None:
        return {"state": "refused", "reasons": [_failure(promote)["why"]]}
    return {key: promote.result[key] for key in ("state", "reasons", "approval") if promote.result.get(key)}


def _failed(child: Child, what: str) -> Finished:
    why = _failure(child)
    return Finished(error=f"{what}: {why['why']}", recovery=why["recovery"])


def _given_up(child: Child) -> str:
    said = f"{child.step} is {child.state}"
    if not child.reason:
        return said
    early = ", before it had a first model" if child.reason.startswith("timed_out") else ""
    return f"{said}: {child.reason}{early}"


def _failure(child: Child) -> dict[str, str]:
    error = child.error or {}
    return {
        "step": child.step,
        "job": child.id,
        "why": str(error.get("message") or _given_up(child)),
        "recovery": str(error.get("recovery") or f"Call get_job(job={child.id!r})."),
    }


KIND = Kind(name="specialize", spec=SpecializeSpec, plan=plan, next=next_step)
