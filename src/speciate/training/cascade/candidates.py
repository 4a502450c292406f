"""What `specialize` is asked and which ways to a model it may try: the spec, candidates and their trainings.

The order of candidates is that in which they are tried: from the cheapest method up, a model in production before other
networks, a recipe that is named before all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.datasets import versions
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import suites
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.evaluation.screening import MOST_CANDIDATES
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Child
from speciate.jobs.schedule import how_many_fit
from speciate.modalities.multimodal import MULTIMODAL
from speciate.models import model_folder, registry
from speciate.models.model_card import EXPORT
from speciate.models.published.manifest import has_trained_head
from speciate.models.search import known_models
from speciate.models.search.search_query import Query
from speciate.refs import dataset_ref
from speciate.sample_size import LEVEL
from speciate.settings import Place
from speciate.training import train
from speciate.training.planning import estimates, shortlist
from speciate.training.planning.available_methods import (
    LANGUAGE,
    all_candidates,
    available_candidates,
    methods_for,
)
from speciate.training.planning.part_encoders import that_read_a_part
from speciate.training.planning.shortlist import (
    comparable_base_models,
)
from speciate.training.planning.training_plan import thorough_candidates
from speciate.training.train_spec import Candidate, Method, TrainSpec
from speciate.training.training_report import TrainReport
from speciate.use_cases import Aim
from speciate.vocabulary import Family, find_task
from speciate.workspace.workspace import Workspace

TRAIN_STEP, EVALUATE_STEP, PROMOTE_STEP = "train/", "evaluate", "promote"
NETWORKS: tuple[Method, ...] = ("lora", "full")
"""Methods by which a network learns, and can learn on."""


class SpecializeSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    dataset: str
    budget_minutes: float = Field(gt=0)
    budget_usd: float | None = Field(None, gt=0)
    """Most that answers of models that others serve may cost, such as the incumbent's: a hard stop of each
    evaluation."""
    base_models: tuple[str, ...] = ()
    """Empty: whatever is installed and suits the modality."""
    methods: tuple[Method, ...] = ()
    """Empty: from the cheapest up."""
    published: tuple[str, ...] = Field((), max_length=MOST_CANDIDATES)
    """Published models that are tried as they are: `hf:org/name`, `timm:NAME`, or what was fetched."""
    max_bytes: int | None = Field(None, gt=0)
    """Bytes of published models that may be fetched, all together."""
    like: str | None = None
    """A model version whose recipe is tried first."""
    canary_percent: float | None = Field(None, gt=0, le=100)
    """The share of the requests with which what is promoted begins; None: all."""
    ways: tuple[Candidate, ...] = ()
    """The candidates, as `choose_candidates` found them; empty: those that were named, else from `classical` on."""
    shortlist: bool = False
    """Whether base models are compared before any of them is trained."""
    order: tuple[str, ...] = ()
    """Ordinal labels, from low to high."""
    aim: Aim = "pass"
    """pass: the first model that will surely pass ends the search; best: the whole budget is used."""
    test_examples: int | None = None
    """What a verdict will rest on; None: not known, as many as validation examples."""
    looks: LooksOnRows = LooksOnRows()
    """What the test rows were asked before: the verdict accounts for it."""
    least_seconds: Mapping[str, float] = Field(default_factory=dict)
    """By step: what a candidate needs at least, one epoch at one learning rate, where that is known. Skipped with less
    left."""
    at_once: Mapping[str, int] = Field(default_factory=dict)
    """By step: how many such trainings run at once at the place where it goes. Without an entry: one."""
    seed: int = 0


class TrainedCandidate(NamedTuple):
    """A training that ended well."""

    model: str
    candidate: Candidate
    report: TrainReport
    seconds: float
    step: str = ""
    """Its step of the search: `train/classical-tabm`. Two candidates may have one method."""

    @property
    def value(self) -> float:
        """The metric on held-out examples; NaN where they leave it undefined."""
        value = self.figures["value"]
        return math.nan if value is None else float(value)

    @property
    def figures(self) -> Mapping[str, Any]:
        """What held-out examples say, nested where that was asked: a thorough search has no other value, so the best of
        a few is no match for it."""
        said = self.report["validation"]
        return {**said, **(said.get("nested") or {})}

    @property
    def judged_apart(self) -> bool:
        """Whether it was judged on fewer validation examples than others, as its base model knows the rest; or maybe on
        such as that knows."""
        return bool(self.report.get("left_out", 0) != 0)


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
    only other methods are named. With the aim `best` a thorough search of a table uses what is left in the end.
    """
    wanted = use_cases.get(workspace.database, use_case)
    family = find_task(wanted.task).family
    spec = SpecializeSpec(
        use_case=use_case, dataset=dataset, budget_minutes=1, base_models=tuple(base_models), methods=tuple(methods)
    )
    manifest = versions.resolve(workspace.database, dataset)
    found = named_candidates(spec) or _suited_candidates(workspace, manifest.modality, family, base_models)
    if manifest.modality == MULTIMODAL.name:
        found = _one_probe(that_read_a_part(workspace, manifest, found))
    if not (methods or base_models):
        found = [*found, *thorough_candidates(manifest, family, wanted.objective.aim)]
    warm = None if base_models else _warm_start(workspace, spec)
    if warm is None or (methods and warm.method not in methods):
        return tuple(found)
    networks = [place for place, candidate in enumerate(found) if candidate.method in NETWORKS or candidate.thorough]
    place = networks[0] if networks else len(found)
    return (*found[:place], warm, *found[place:])


def _one_probe(found: Sequence[Candidate]) -> list[Candidate]:
    """Candidates for mixed rows: the classical ones, and one probe in which every base model reads the parts that suit
    it."""
    probes = [each for each in found if each.method == "probe" and each.base_model]
    others = [each for each in found if each.method == "classical"]
    if not probes:
        return others
    beside = tuple(dict.fromkeys(each.base_model for each in probes[1:] if each.base_model))
    return [*others, probes[0].model_copy(update={"encoders": beside or None})]


def needs_shortlist(workspace: Workspace, use_case: str, ways: Sequence[Candidate]) -> bool:
    """Whether so many base models are among the ways that some are excluded, and the task lets them be compared."""
    family = find_task(use_cases.get(workspace.database, use_case).task).family
    return shortlist.is_worthwhile(family, comparable_base_models(ways))


_LEAST_THOROUGH, _TIMES_CLASSICAL = 20.0, 4.0
"""Seconds that a thorough search needs at least, and how many times those of `classical`: in less it tries no more
than that."""


class SearchTerms(NamedTuple):
    """What a search for a model may know before its first training."""

    aim: Aim
    test_examples: int | None
    looks: LooksOnRows
    least_seconds: Mapping[str, float]
    at_once: Mapping[str, int]


def search_terms(
    workspace: Workspace, use_case: str, dataset: str, ways: Sequence[Candidate], budget_minutes: float
) -> SearchTerms:
    """For `SpecializeSpec`. Raises NOT_FOUND; what cannot be planned has no estimate."""
    wanted = use_cases.get(workspace.database, use_case)
    manifest = versions.resolve(workspace.database, dataset_ref(dataset)._replace(split=None))
    core = dataset_ref(wanted.suites.core) if wanted.suites.core else None
    judged = versions.resolve(workspace.database, core._replace(split=None)) if core else manifest
    split = (core.split if core else None) or "test"
    spec = SpecializeSpec(use_case=use_case, dataset=dataset, budget_minutes=budget_minutes)
    least, at_once, known = dict[str, float](), dict[str, int](), dict[str | None, estimates.KnownCosts]()
    for way in ways:
        try:
            plain = way.model_copy(update={"thorough": None})
            planned = train.plan(train_spec(spec, plain, dataset, budget_minutes), workspace)
        except SpeciateError:
            continue
        place = planned.resources.place
        if place is not None and (count := _runs_at_once(planned.resources, workspace.settings.place(place))) > 1:
            at_once[step_name(way)] = count
        if place not in known:
            known[place] = estimates.known_costs(workspace.database, place)
        seconds = estimates.least_seconds(known[place], planned.payload)
        if way.thorough:
            seconds = max(_LEAST_THOROUGH, _TIMES_CLASSICAL * (seconds or 0.0))
        if seconds is not None and (way.thorough or way.method != "classical"):
            least[step_name(way)] = round(seconds, 1)
    looks = suites.looks_at_split(workspace, wanted, judged, split)
    return SearchTerms(wanted.objective.aim, judged.splits.get(split), looks, least, at_once)


def _runs_at_once(resources: Resources, place: Place) -> int:
    return int(min(how_many_fit(resources, place.room()), place.runs))


def find_published(workspace: Workspace, use_case: str, dataset: str, named: Sequence[str]) -> list[str]:
    """The named models, then models of the hub that a search finds for a use case: within its limits, with weights, the
    best matches first, as many as there is room for. REFUSED if there is none."""
    modality = versions.resolve(workspace.database, dataset).modality
    wanted = known_models.complete_query(
        Query(modality=modality, weights=True), use_cases.get(workspace.database, use_case)
    )
    found = known_models.search(workspace, wanted, sort="relevance", limit=MOST_CANDIDATES, offset=0)
    refs = [ref for hit in found.hits if (ref := str(hit.row["ref"])).startswith(("hf:", "timm:"))]
    if not (named or refs):
        raise SpeciateError(
            Code.REFUSED,
            f"A search finds no published model with weights within the limits of {use_case!r}.",
            "See what each limit drops, or name models in place of 'search'.",
            next=[Call("search_models", {"use_case": use_case})],
        )
    return list(dict.fromkeys([*named, *refs]))[:MOST_CANDIDATES]


def _suited_candidates(
    workspace: Workspace, modality: str, family: Family, base_models: Sequence[str]
) -> list[Candidate]:
    if not base_models:
        return all_candidates(workspace, modality, family)
    found = available_candidates(modality, family)
    learned: tuple[Method, ...] = ("probe", *NETWORKS, *LANGUAGE)
    named = [
        Candidate(method=method, base_model=base)
        for method in learned
        for base in base_models
        if method in methods_for(base, family)
    ]
    return [candidate for candidate in found if not (candidate.base_model or candidate.tabm)] + named


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
    method = next((each for each in NETWORKS if each == card.method), None)
    network = model_folder.has_backbone(version.path) or has_trained_head(version.path)
    if method is None or card.task != use_case.task or not network:
        return None
    candidate = Candidate(method=method, base_model=card.ref, continue_from=card.ref)
    try:
        planned = train.plan(train_spec(spec, candidate, spec.dataset, spec.budget_minutes), workspace)
    except SpeciateError:
        return None
    return None if planned.payload.base_learned_from is None else candidate


def trained_candidates(children: Sequence[Child]) -> list[TrainedCandidate]:
    """The trainings that ended well, in the order of their steps: cheap before dear."""
    return [
        TrainedCandidate(
            child.result["model"],
            _candidate_of(child),
            child.result["report"],
            child.run_seconds,
            child.step,
        )
        for child in children
        if child.step.startswith(TRAIN_STEP) and child.result is not None and "model" in child.result
    ]


def looks_at_test(children: Sequence[Child]) -> list[Child]:
    """The evaluations of candidates on the test split, in their order."""
    return [child for child in children if child.step == EVALUATE_STEP or child.step.startswith(f"{EVALUATE_STEP}/")]


def judged_models(children: Sequence[Child]) -> set[str]:
    """Models that were judged on the test split in this search."""
    reports = [look.result["report"] for look in looks_at_test(children) if look.result is not None]
    return {row["model"] for report in reports for row in report["leaderboard"]}


def _candidate_of(child: Child) -> Candidate:
    """The candidate of a child, with the method and base model that a recipe came to mean."""
    said = child.spec if child.result is None else child.spec | child.result["report"]
    cost = {} if child.result is None else child.result["report"].get("cost", {})  # of a recipe it alone tells
    given = child.spec.get("hyperparameters", {})
    said |= {name: cost.get(name) or given.get(name) or None for name in estimates.OWN_COSTS}
    return Candidate.model_validate({name: said.get(name) for name in Candidate.model_fields})


def named_candidates(spec: SpecializeSpec) -> list[Candidate]:
    """The candidates that the caller named, in the caller's order; empty where methods are left to us."""
    ways: list[Candidate] = []
    for method in spec.methods:
        bases = spec.base_models if method != "classical" and spec.base_models else (None,)
        ways += [Candidate(method=method, base_model=base) for base in bases]
    return ways


def with_like(spec: SpecializeSpec, possible: Sequence[Candidate]) -> list[Candidate]:
    return [*([Candidate(like=spec.like)] if spec.like else []), *possible]


def of_named_bases(spec: SpecializeSpec, possible: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in possible if not (one.base_model and spec.base_models) or one.base_model in spec.base_models]


def step_name(candidate: Candidate) -> str:
    """`train/classical`, `train/probe-minilm`, `train/continue-taste-model-v3`, `train/like-x-v1`."""
    first = "like" if candidate.like else "continue" if candidate.continue_from else candidate.method
    base = re.sub(r"[^\w.]+", "-", (candidate.like or candidate.base_model or "").removeprefix("pkg:")).strip("-")
    more = ("-tabm" if candidate.tabm else "") + ("-thorough" if candidate.thorough else "")
    return f"{TRAIN_STEP}{first}" + (f"-{base}" if base else "") + more


def train_spec(
    spec: SpecializeSpec, candidate: Candidate, dataset: str, minutes: float, level: float = LEVEL
) -> TrainSpec:
    """What a recipe says is not said again: what is named goes before it. `level`: of the next verdict's intervals."""
    ours = {
        "name": f"{spec.use_case}-model",
        "dataset": dataset,
        "use_case": spec.use_case,
        "budget_minutes": minutes,
        **candidate.model_dump(exclude_none=True, exclude={"encoders", "tabm", "thorough"}),
        **({"verdict_level": level} if level != LEVEL else {}),
    }
    if candidate.like is None:
        given: dict[str, object] = {"order": spec.order} if spec.order else {}
        given |= {"encoders": candidate.encoders} if candidate.encoders else {}
        given |= {"tabm": True} if candidate.tabm else {}
        given |= {"thorough": True} if candidate.thorough else {}
        ours |= {"hyperparameters": given, "seed": spec.seed}
    return TrainSpec.model_validate(ours)
