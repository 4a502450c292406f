"""The job kind `relearn`: from labels to a verdict, as a composite whose `next` is pure.

    (shortlist -> screen/...) -> (teach) -> rows, judged -> suite -> (shortlist)
    -> train/... (variants -> train/variants) -> judge -> (old) -> evaluate -> (further suites) -> shadow -> promote

`rows` adds what was labelled to the dataset that production learned from, to its training rows alone; `judged` adds
randomly drawn answers to a dataset of their own, the held-out answers of production. On which of the two sides an
answer lies follows from its group (or its content) alone. Where the use case's core suite is that dataset's test split
without a version, `suite` adds the judged answers to it, too: it grows with what production is asked, and `old` judges
on the rows that it had before. A core suite that names its version stays as it is.

Three questions, each to the rows that can answer it:

- Is it better? On the judged answers, by the paired interval, at a level that accounts for all that they judged before
  (`holdout_reuse.level_for`): of all episodes of a use case together, at most one in twenty calls something better
  that is not.
- What does it cost? On the rows that the suite had before: the loss against what serves is by its estimate within the
  margin, and surely within twice the margin; against the best that ever served, not surely beyond it. New rows, on
  which it gains, cannot hide what it loses on old ones.
- Does it hold what the use case asks? By its gates on the core suite. As the gain is shown by other rows, `not_worse`
  must hold by the interval that fresh rows would have, however often these were asked (evaluation/shown_gains.py).

A second round of an episode whose first candidate was promoted compares with what served before the episode: its
candidate has the labels of both rounds, must be surely better than that, and by its estimate no worse than the first.
`inconclusive` asks for more labels; `hold` is only said where the interval's upper end is below the margin. Before a
promotion the candidate answers what was logged (`shadow`), which is shown and decides nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.evaluation.candidate_order import evidence_of, fixed_order
from speciate.evaluation.holdout_reuse import LooksOnRows, level_for
from speciate.evaluation.shown_gains import ShownGain, is_sure
from speciate.jobs.job import ENDED, Resources
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, NextStep, Plan
from speciate.loop.watch import screen
from speciate.loop.watch.definition import MARGIN
from speciate.loop.watch.facts import Learned, ShadowReport, Taught
from speciate.loop.watch.gains import Gain, gains_of, report_of
from speciate.loop.watch.random_answers import ServingShare
from speciate.loop.watch.ways import Way
from speciate.refs import dataset_ref
from speciate.training.planning.shortlist import SHORTLIST_STEP, shortlist_report, shortlist_request
from speciate.training.planning.transferability import comparable, kept_base_models
from speciate.training.train_spec import Candidate
from speciate.use_cases import NOT_WORSE_SHARE, Aim
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace

ROWS, JUDGED, SUITE, JUDGE, OLD, EVALUATE = "rows", "judged", "suite", "judge", "old", "evaluate"
TEACH, VARIANTS, SHADOW, PROMOTE = "teach", "variants", "shadow", "promote"
TRAIN = "train/"
_EVALUATION_SECONDS = 60.0
_GRACE_SECONDS = 30.0
_SHADOW_SECONDS = 600.0
CANARY_PERCENT = 10.0
"""Percentage of a deployment's requests that a candidate gets before it gets all of them."""
_PRIORITY = -10
"""Whatever a person asked for goes first."""
ACTOR = "watch"
_LEVEL = 0.95
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
"""Quoted texts, as `repr` writes them."""
_OWN_WORDS = frozenset({
    "better", "not_worse", "better_if_dearer", "reaches", "at_most", "unseen", "no_slice_worse", "license", "offline",
    "arrived", "split", "train", "test", "core", "heldout", "regression",
})  # fmt: skip
"""Words of gates and suites: anything else that a reason quotes is a value of somebody's data."""


class RelearnSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    episode: int
    dataset: str
    """What production learned from, at its newest version."""
    core: str
    """Dataset and split of the core suite, where the use case names none."""
    judged: str
    """Name of the dataset of judged answers."""
    judged_exists: bool
    judged_inputs: tuple[str, ...] = ()
    judged_label: str | None = None
    train_source: str | None
    """`log:...`: labelled answers to learn from; None: it learns from the dataset as it is."""
    judge_source: str | None
    teach: Mapping[str, Any] | None = None
    """Spec of the job `teach`; None where no person named a teacher."""
    grows: bool = False
    """Whether the core suite takes the judged answers, too."""
    ways: tuple[Way, ...] = Field(min_length=1)
    screens: bool = False
    """Whether nothing but new base models began the episode: those that cannot be better are left out first."""
    chosen_by: float | None = None
    """By what value on held-out examples what serves was chosen when it was trained; without it nothing is left out."""
    shortlist: bool = False
    """Whether new base models are compared before any of them is trained, as `specialize` compares them."""
    metric: str
    aim: Aim = "pass"
    """best: of those that pass the best by judged answers goes forward, not the cheapest."""
    best: str | None = None
    """The version that was best on the core suite of all that ever served; None: no other than what serves."""
    before: str | None = None
    """What served before this episode, where it has promoted a candidate already."""
    serving: str | None = None
    """Then: the candidate that it promoted."""
    serving_share: ServingShare | None = None
    """How right what serves was on this episode's random answers, where the target is such a share."""
    judged_before: int = 0
    """Candidates that the judged answers judged in earlier evaluations."""
    target: float | None = None
    margin: float | None = None
    """What may be lost on old rows, as the use case's gate says; None: as `not_worse` without a value allows."""
    further: tuple[Literal["heldout", "regression"], ...] = ()
    """Suites beside the core on which a promotion needs a decision."""
    budget_minutes: float
    budget_usd: float | None = None
    action: Literal["propose", "auto"]
    canary: bool = False
    """Whether a deployment runs: then a share of its requests comes first."""
    replaces: bool = False
    """Whether what serves must go (a recall): a candidate need not be better, only not surely worse by the margin."""

    @property
    def looks_first(self) -> bool:
        """Whether new base models are screened: it is known by what value production was chosen."""
        return self.screens and self.chosen_by is not None


def plan(spec: RelearnSpec, workspace: Workspace) -> Plan:
    return Plan(resources=Resources(cpu=0), use_case=spec.use_case)


def next_step(spec: RelearnSpec, children: Sequence[Child], now: float) -> NextStep:
    """The next children, or the verdict. Pure."""
    if any(child.state not in ENDED for child in children):
        return []
    steps = {child.step: child for child in children}
    left = 60 * spec.budget_minutes - sum(child.run_seconds for child in children)
    if not spec.looks_first:
        return _next(spec, children, steps, left)
    if wanted := _screening(spec, steps, left):
        return wanted
    found = _screened(spec, steps)
    if not found.ways:
        none = () if found.compared else None
        return _end("hold", found.because, used_labels=False, smallest_gain=found.smallest_gain, bases=none)
    step = _next(spec, children, steps, left)
    if isinstance(step, Finished):
        return Finished(result={**step.result, "bases": [way.base_model for way in found.ways]})
    return step


def _next(
    spec: RelearnSpec, children: Sequence[Child], steps: Mapping[str, Child], left: float
) -> NextStep:  # fmt: skip
    if wanted := _adding(spec, steps):
        return wanted
    if not spec.replaces and _judged_ref(spec, steps) is None:  # whatever is trained, nothing could say how good it is
        return _end("inconclusive", "there are no randomly drawn answers to judge by")
    ways = _promising(spec, steps)
    trained = _trained(children)
    if spec.looks_first and spec.train_source is None:  # nothing new to learn from: their probes are the candidates
        known, ways = _screened(spec, steps), [way for way in ways if way.base_model is None]
        seconds = {str((each.result or {}).get("model")): each.run_seconds for each in children}
        trained = [*(_Trained(model, seconds[model]) for model in known.models), *trained]
    untried = [way for way in ways if TRAIN + way.name not in steps]
    if VARIANTS in steps and not steps[VARIANTS].result:  # these media could not be changed: that alone stops nothing
        untried = [way for way in untried if not way.with_variants]
    begun = JUDGE in steps or EVALUATE in steps
    if not begun and untried and (left >= 1.0 or not trained):
        if spec.shortlist and SHORTLIST_STEP not in steps and comparable(untried[0].base_model):
            return [_comparison(spec, _dataset(spec, steps), left)]
        if untried[0].with_variants and VARIANTS not in steps:
            return [_variants(_dataset(spec, steps))]
        # each way has its share of what is left
        return [_training(spec, untried[0], _dataset(spec, steps, untried[0]), left / len(untried))]
    if not trained:
        why = _why(next((child for child in children if child.step.startswith(TRAIN)), None))
        return _end("hold", f"no model could be trained: {why}")
    if _judged_ref(spec, steps) is None:
        better, level = [Gain(each.model, 0.0, 0.0, 0.0, None) for each in trained], _LEVEL
    else:
        if JUDGE not in steps:
            return [_judgement(spec, trained, steps, left)]
        judged = _better(spec, steps[JUDGE], len({each.model for each in trained}))
        if isinstance(judged, Finished):
            return judged
        better, level = judged
    if spec.grows and SUITE in steps:
        if OLD not in steps:
            return [_on_old_rows(spec, better, left)]
        losses = {each.model: _loss(spec, steps[OLD], each.model) for each in better}
        if all(losses.values()):
            return _end("hold", str(losses[better[0].model]), **_known(better[0], steps.get(JUDGE)))
        better = [each for each in better if losses[each.model] is None]
    if EVALUATE not in steps:
        return [_evaluation(spec, better, steps, level, left)]
    passing = _passing(spec, steps[EVALUATE], better)
    if isinstance(passing, Finished):
        return passing
    return _settle(spec, passing, steps, left)


# Data


def _adding(spec: RelearnSpec, steps: Mapping[str, Child]) -> list[ChildRequest]:
    """Rows and judged answers at once, where there are labels: neither needs the other; then those of the suite."""
    wanted = []
    if spec.train_source is not None and spec.teach is not None and TEACH not in steps:
        asked = dict(spec.teach)
        wanted.append(ChildRequest(
            step=TEACH, kind="teach", spec=asked, priority=_PRIORITY, run_seconds=_SHADOW_SECONDS
        ))  # fmt: skip
    elif spec.train_source is not None and ROWS not in steps:
        taught = _taught(steps)
        source = spec.train_source + (f"&taught={taught.source}" if taught and taught.source else "")
        rows = {"name": spec.dataset, "source": source, "add": True}
        wanted.append(ChildRequest(step=ROWS, kind="ingest", spec=rows, priority=_PRIORITY))
    if spec.judge_source is not None and JUDGED not in steps:
        judged: dict[str, Any] = {"name": spec.judged, "source": spec.judge_source}
        if spec.judged_exists:
            judged["add"] = True
        else:
            judged |= {"inputs": list(spec.judged_inputs)} if spec.judged_inputs else {}
            judged |= {"label": spec.judged_label} if spec.judged_label else {}
        wanted.append(ChildRequest(step=JUDGED, kind="ingest", spec=judged, priority=_PRIORITY))
    if not wanted and spec.grows and spec.judge_source is not None and SUITE not in steps:
        suite = {"name": _dataset(spec, steps), "source": spec.judge_source, "add": True}
        wanted.append(ChildRequest(step=SUITE, kind="ingest", spec=suite, priority=_PRIORITY))
    return wanted


def _taught(steps: Mapping[str, Child]) -> Taught | None:
    """None where no teacher was asked, or it could not be: that alone stops nothing."""
    asked = steps.get(TEACH)
    return Taught.model_validate(asked.result) if asked is not None and asked.result else None


def _variants(dataset: str) -> ChildRequest:
    """Job that adds variants of training rows alone, in their groups: never in a suite
    (datasets/operations/variants.py)."""
    wanted = {"dataset": dataset, "steps": [{"op": "variants", "count": 1}]}
    return ChildRequest(step=VARIANTS, kind="curate", spec=wanted, priority=_PRIORITY)


def _dataset(spec: RelearnSpec, steps: Mapping[str, Child], way: Way | None = None) -> str:
    made = steps.get(VARIANTS)
    if way is not None and way.with_variants and made is not None and made.result:
        return str(made.result["dataset"])
    added = [steps[step] for step in (SUITE, ROWS) if step in steps]
    return next((str(each.result["dataset"]) for each in added if each.result), spec.dataset)


def _judged_ref(spec: RelearnSpec, steps: Mapping[str, Child]) -> str | None:
    """The judged answers, with those that came now; what there was where none came."""
    added = steps.get(JUDGED)
    if added is not None and added.result:
        return f"{added.result['dataset']}:test"
    return f"{spec.judged}:test" if spec.judged_exists else None


# Trainings


class _Trained(NamedTuple):
    model: str
    seconds: float


def _trained(children: Sequence[Child]) -> list[_Trained]:
    return [
        _Trained(str(child.result["model"]), child.run_seconds)
        for child in children
        if child.step.startswith(TRAIN) and child.result is not None and "model" in child.result
    ]


def _comparison(spec: RelearnSpec, dataset: str, left: float) -> ChildRequest:
    """Job that compares the new base models by frozen vectors of the examples: the step by which `specialize` leaves
    some out."""
    found = [Candidate(method="probe", base_model=way.base_model) for way in spec.ways if way.base_model]
    asked = shortlist_request(
        found, use_case=spec.use_case, dataset=dataset, seed=0, seconds_left=max(left, 1.0), grace=_GRACE_SECONDS
    )
    return asked.model_copy(update={"priority": _PRIORITY})


def _promising(spec: RelearnSpec, steps: Mapping[str, Child]) -> list[Way]:
    """Without the base models that were left out; of the others the most promising first."""
    listed = _listed(spec, steps)
    if not spec.looks_first:
        return listed
    return [*(way for way in listed if way not in _new(listed)), *_screened(spec, steps).ways]


def _listed(spec: RelearnSpec, steps: Mapping[str, Child]) -> list[Way]:
    """Without those that the shortlist left out."""
    report = shortlist_report([steps[SHORTLIST_STEP]]) if SHORTLIST_STEP in steps else None
    if report is None:
        return list(spec.ways)
    order = kept_base_models(report)
    new = [way for way in spec.ways if comparable(way.base_model)]
    kept = sorted((way for way in new if way.base_model in order), key=lambda way: order.index(str(way.base_model)))
    return [*(way for way in spec.ways if way not in new), *kept]


def _screening(spec: RelearnSpec, steps: Mapping[str, Child], left: float) -> list[ChildRequest]:
    """Before any label is learned from: a probe on each new base model."""
    if spec.shortlist and SHORTLIST_STEP not in steps:
        return [_comparison(spec, spec.dataset, left)]
    probe = screen.next_probe(_new(_listed(spec, steps)), steps, left)
    return [] if probe is None else [_training(spec, probe[0], spec.dataset, probe[1], screen.PROBE)]


def _screened(spec: RelearnSpec, steps: Mapping[str, Child]) -> screen.Screened:
    assert spec.chosen_by is not None
    margin = _margin_of(spec, spec.chosen_by)
    return screen.screened(
        _new(_listed(spec, steps)), steps, find_metric(spec.metric).sign, spec.chosen_by, margin
    )  # fmt: skip


def _new(ways: Sequence[Way]) -> list[Way]:
    return [way for way in ways if way.base_model is not None and way.method == "probe"]


def _training(spec: RelearnSpec, way: Way, dataset: str, left: float, step: str = TRAIN) -> ChildRequest:
    seconds = max(left, 1.0)
    ours = {
        "name": f"{spec.use_case}-model", "dataset": dataset, "use_case": spec.use_case, "budget_minutes": seconds / 60,
        **way.train_spec(),
    }  # fmt: skip
    return ChildRequest(
        step=step + way.name, kind="train", spec=ours, priority=_PRIORITY, run_seconds=seconds + _GRACE_SECONDS
    )


# Evaluations


def _evaluation(
    spec: RelearnSpec, better: Sequence[Gain], steps: Mapping[str, Child], level: float, left: float
) -> ChildRequest:  # fmt: skip
    beside = [spec.best] if spec.best and not spec.grows and not spec.replaces else []
    asked: dict[str, Any] = {
        "models": [each.model for each in better], "suite": "core", "dataset": spec.core, "use_case": spec.use_case,
        "pick": "gates", "budget_usd": spec.budget_usd or None, "baselines": beside,
    }  # fmt: skip
    if order := _order(spec, better, steps.get(JUDGE)):
        asked["order"] = order
    if not spec.replaces:  # a replacement shows no gain
        shown = ShownGain(evaluation=str((steps[JUDGE].result or {})["evaluation"]), level=level)
        asked["shown"] = shown.model_dump()
    return ChildRequest(
        step=EVALUATE, kind="evaluate", spec=asked, priority=_PRIORITY, run_seconds=_seconds(left)
    )  # fmt: skip


def _order(spec: RelearnSpec, better: Sequence[Gain], judged: Child | None) -> list[dict[str, Any]]:
    """Where the best is wanted, judged answers say which goes forward first; empty: the cheapest that passes does."""
    if spec.aim != "best" or judged is None:
        return []
    report, wanted = report_of(judged), {each.model for each in better}
    found = [
        evidence_of(row, int(report["n"]), "judged answers") for row in report["leaderboard"] if row["model"] in wanted
    ]
    return [one.model_dump(mode="json") for one in fixed_order(found, find_metric(spec.metric))]


def _judgement(
    spec: RelearnSpec, trained: Sequence[_Trained], steps: Mapping[str, Child], left: float
) -> ChildRequest:  # fmt: skip
    """On the judged answers, beside what serves: this is no suite of the use case, so it decides nothing itself."""
    asked: dict[str, object] = {
        "models": list(dict.fromkeys(each.model for each in trained)), "dataset": _judged_ref(spec, steps),
        "use_case": spec.use_case, "latency": False, "budget_usd": spec.budget_usd or None,
    }  # fmt: skip
    if spec.before is not None:
        asked |= {"baseline": spec.before, "baselines": [spec.serving] if spec.serving else []}
    return ChildRequest(step=JUDGE, kind="evaluate", spec=asked, priority=_PRIORITY, run_seconds=_seconds(left))


def _on_old_rows(spec: RelearnSpec, better: Sequence[Gain], left: float) -> ChildRequest:
    split = dataset_ref(spec.core).split or "test"
    asked = {
        "models": [each.model for each in better], "dataset": f"{spec.dataset}:{split}", "use_case": spec.use_case,
        "latency": False, "budget_usd": spec.budget_usd or None, "baselines": [spec.best] if spec.best else [],
    }  # fmt: skip
    return ChildRequest(step=OLD, kind="evaluate", spec=asked, priority=_PRIORITY, run_seconds=_seconds(left))


def _seconds(left: float) -> float:
    return max(left, _EVALUATION_SECONDS) + _GRACE_SECONDS


def _value(spec: RelearnSpec, evaluated: Child, model: str | None) -> float | None:
    """Value of a model in an evaluation, with the sign that makes more better."""
    sign = find_metric(spec.metric).sign
    rows = report_of(evaluated).get("leaderboard", ())
    return next((sign * row["value"] for row in rows if row["model"] == model and row["value"] is not None), None)


def _margin(spec: RelearnSpec, evaluated: Child) -> float:
    return _margin_of(spec, _value(spec, evaluated, report_of(evaluated).get("baseline")))


def _margin_of(spec: RelearnSpec, had: float | None) -> float:
    if spec.margin is not None:
        return spec.margin
    return MARGIN if find_metric(spec.metric).bounded or had is None else NOT_WORSE_SHARE * abs(had)


def _better(spec: RelearnSpec, judged: Child, candidates: int) -> Finished | tuple[list[Gain], float]:
    """Candidates that are surely better on the judged answers, and the level at which."""
    if judged.result is None:
        return _end("hold", f"the candidates could not be judged on answers of production: {_why(judged)}")
    level = level_for(candidates, LooksOnRows(candidates=spec.judged_before))
    report = report_of(judged)
    serving = _refined(spec, report)
    gains = [each for each in gains_of(spec.metric, judged) if each.model != serving]
    if not gains:
        unknown = [each["candidate"] for each in report["comparisons"] if each["candidate"] != serving]
        if unknown and spec.replaces:
            return [Gain(model, 0.0, 0.0, 0.0, None) for model in unknown], _LEVEL
        if unknown:
            return _end("inconclusive", f"too few randomly drawn answers to judge by: {report['n']}")
        return _end("hold", "training found what serves again: there is nothing to compare")
    best, n = gains[0], int(report["n"])
    said, known = _said(best, report), _known(best, judged)
    sure = [each for each in gains if is_sure(each.low, each.p_value, level)]
    if spec.replaces and best.high > -_margin(spec, judged):
        return [each for each in gains if each.high > -_margin(spec, judged)], level
    if not sure:
        if best.high < _margin(spec, judged):
            return _end("hold", f"nothing to gain: {said}", settled=True, **known)
        if (fine := _meets(spec)) is not None:
            return _end("hold", f"{fine}; {said}", settled=True, **known)
        earlier = f"; at {100 * level:.4g} %, as they judged {spec.judged_before} before" if spec.judged_before else ""
        return _end(
            "inconclusive", f"too few answers to tell: {said}{earlier}", needed_labels=_needed(best, n), **known
        )
    if serving is not None:
        first = next((each.gain for each in gains_of(spec.metric, judged) if each.model == serving), -math.inf)
        sure = [each for each in sure if each.gain >= first]
        if not sure:
            return _end(
                "hold", f"{best.model} is no better on {n} judged answers than {serving}, which serves", **known
            )
    return sure, level


def _meets(spec: RelearnSpec) -> str | None:
    """That nothing need be done, where what serves surely reaches the target on what production is asked now. A new
    base model is tried to be better, whatever is reached."""
    found, target = spec.serving_share, spec.target
    if spec.screens or found is None or target is None or found.low < target:
        return None
    interval = f"95 %: {found.low:.1%} to {found.high:.1%}"
    right = f"{found.share:.0%} of {found.n} random answers are right ({interval})"
    return f"nothing need be done: {right}, and {target:.1%} is asked"


def _refined(spec: RelearnSpec, report: Mapping[str, Any]) -> str | None:
    """What serves, where this round is to better what the first one promoted."""
    if spec.before is None:
        return None
    return next((row["model"] for row in report["leaderboard"] if row["model"] == spec.serving), None)


def _said(best: Gain, report: Mapping[str, Any]) -> str:
    row: Mapping[str, Any] = next((each for each in report["leaderboard"] if each["model"] == best.model), {})
    seen = [
        f"{row[key]} of which {what}"
        for key, what in (("seen", "it was trained on"), ("nearly_seen", "are nearly of its training data"))
        if row.get(key)
    ]
    n = ", ".join([f"{report['n']} judged answers", *seen])
    return f"{best.model} gains {best.gain:+.4g} on {n} (95 %: {best.low:+.4g} to {best.high:+.4g})"


def _known(best: Gain, judged: Child | None) -> dict[str, object]:
    """`judged` None: what must go is replaced, and no answers judge that."""
    if judged is None:
        return {"model": best.model}
    return {
        "model": best.model, "gain": best.gain, "interval": (best.low, best.high),
        "judged": int(report_of(judged)["n"]), "smallest_gain": best.seen,
        "evaluation": (judged.result or {})["evaluation"],
    }  # fmt: skip


def _loss(spec: RelearnSpec, evaluated: Child, model: str) -> str | None:
    """Why a candidate loses too much on rows that it should not lose on; None where it does not."""
    gain = next((each for each in gains_of(spec.metric, evaluated) if each.model == model), None)
    if gain is None:
        return f"{model} could not be compared on the old rows: {_why(evaluated)}"
    margin = _margin(spec, evaluated)
    if gain.gain < -margin or gain.low <= -2 * margin:
        lost = f"{gain.gain:+.4g} ({gain.low:+.4g} to {gain.high:+.4g})"
        if gain.gain >= -margin:
            few = f"too few rows of before ({int(report_of(evaluated)['n'])}) to exclude a loss beyond {2 * margin:.3g}"
            return f"{few}: {model} has {lost}"
        return f"{model} would lose on what was asked before: {lost}, and {margin:.3g} is allowed"
    row = next((each for each in report_of(evaluated)["leaderboard"] if each["model"] == model), None)
    best, sign = _value(spec, evaluated, spec.best), find_metric(spec.metric).sign
    if best is None or row is None or not row.get("interval"):
        return None
    if max(sign * bound for bound in row["interval"]) < best - margin:
        return f"{model} is worse on the core suite than {spec.best}, which served before"
    return None


def _passing(spec: RelearnSpec, evaluated: Child, better: Sequence[Gain]) -> list[Gain] | Finished:
    """Models that pass the use case's gates on the core suite, and are not worse there than the best that ever served:
    what each promotion may lose against its predecessor would add up."""
    if evaluated.result is None:
        return _end("hold", f"no model could be evaluated: {_why(evaluated)}")
    decisions = {each["candidate"]: each for each in evaluated.result.get("decisions", ())}
    passed = [each for each in better if decisions.get(each.model, {}).get("verdict") == "promote"]
    kept = [each for each in passed if spec.grows or _loss(spec, evaluated, each.model) is None]
    if kept:
        return kept
    if passed:
        why = _loss(spec, evaluated, passed[0].model) or ""
        return _end("hold", why, model=passed[0].model, evaluation=evaluated.result["evaluation"])
    found = evaluated.result.get("decision") or {}
    verdict: Literal["inconclusive", "hold"] = "inconclusive" if found.get("verdict") == "inconclusive" else "hold"
    reasons = found.get("reasons") or [str(evaluated.result.get("no_decision", "no gate was passed"))]
    return _end(
        verdict, f"on the core suite: {_unquoted(reasons[0])}", model=evaluated.result["report"].get("candidate"),
        evaluation=evaluated.result["evaluation"],
    )  # fmt: skip


def _unquoted(reason: str) -> str:
    """Without what it quotes: values of slices are text of others, and a reason of a watch holds none."""
    return _QUOTED.sub(lambda found: found[0] if found[0][1:-1] in _OWN_WORDS else "(a value)", reason)


# The end


def _settle(spec: RelearnSpec, passing: Sequence[Gain], steps: Mapping[str, Child], left: float) -> NextStep:
    judged, best = steps.get(JUDGE), passing[0]
    known, said = _known(best, judged), f"{best.model} passes on the core suite"
    if judged is not None:
        said = _said(best, report_of(judged))
    if spec.replaces:
        said = f"it replaces what must go: {said}"
    if spec.before is not None:
        said += f" over {spec.before}, which served before this episode"
    evaluated = steps[EVALUATE].result or {}
    missing = [suite for suite in spec.further if f"{EVALUATE}-{suite}" not in steps]
    if missing:
        asked = {"models": [best.model], "suite": missing[0], "use_case": spec.use_case, "latency": False}
        step = f"{EVALUATE}-{missing[0]}"
        return [ChildRequest(step=step, kind="evaluate", spec=asked, priority=_PRIORITY, run_seconds=_seconds(left))]
    if SHADOW not in steps:
        asked = {"use_case": spec.use_case, "model": best.model}
        return [ChildRequest(
            step=SHADOW, kind="shadow", spec=asked, priority=_PRIORITY, run_seconds=_SHADOW_SECONDS
        )]  # fmt: skip
    shadow = steps[SHADOW].result  # None: it could not be asked, which decides nothing
    seen = None if shadow is None else ShadowReport.model_validate(shadow)
    known |= {"shadow": seen, "taught": _taught(steps)}
    if PROMOTE not in steps:
        share = {"canary_percent": CANARY_PERCENT} if spec.canary else {}
        promotion = {
            "use_case": spec.use_case, "model": best.model, "evaluation": evaluated["evaluation"], "actor": ACTOR,
            "propose": spec.action == "propose", "note": f"episode {spec.episode}", **share,
        }  # fmt: skip
        return [ChildRequest(step=PROMOTE, kind="promote", spec=promotion, priority=_PRIORITY)]
    promoted = steps[PROMOTE]
    if promoted.result is None:
        return _end("hold", f"the promotion was refused: {_why(promoted)}", **known)
    state = promoted.result["state"]
    approval = (promoted.result.get("approval") or {}).get("id")
    if state == "refused":
        reasons = _unquoted(" ".join(promoted.result.get("reasons", ())))
        return _end("hold", f"the promotion was refused: {reasons}", **known)
    value = None if judged is None else _value(spec, judged, best.model)
    sign = find_metric(spec.metric).sign
    short = spec.target is not None and value is not None and value < sign * spec.target
    return _end("promote", said, promotion=state, approval=approval, short=short, canary=spec.canary, **known)


def _needed(best: Gain, n: int) -> int:
    """Further labels with which a gain of this size would be seen: the interval shrinks with the root of their number.
    Half of a batch is drawn at random, and half of that judges, so four times as many are asked for."""
    half = (best.high - best.low) / 2
    gain = max(best.gain, MARGIN, 1e-9)
    return max(20, round(4 * max(0.0, n * (half / gain) ** 2 - n)))


def _end(verdict: Literal["promote", "hold", "inconclusive"], why: str, **known: Any) -> Finished:
    return Finished(result=Learned(verdict=verdict, why=why, **known).model_dump(mode="json"))


def _why(child: Child | None) -> str:
    if child is None:
        return "nothing was tried"
    error = child.error or {}
    return str(error.get("message") or f"{child.step} is {child.state}")


KIND = Kind(name="relearn", spec=RelearnSpec, plan=plan, next=next_step)
