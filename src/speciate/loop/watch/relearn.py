"""The job kind `relearn`: from labels to a verdict, as a composite whose `next` is pure.

    (teach) -> rows, judged -> suite -> train/... (variants -> train/variants) -> evaluate -> judge
    -> (further suites) -> shadow -> promote

`rows` adds what was labelled to the dataset that production learned from, to its training rows alone; `judged` adds
randomly drawn answers to a dataset of their own, the held-out answers of production. On which of the two sides an
answer lies follows from its group (or its content) alone. Where the use case's core suite is that dataset's test split
without a version, `suite` adds the judged answers to it, too: it grows with what production is asked. A core suite that
names its version stays as it is. A candidate is promoted if it passes the use case's gates on
the core suite, is better than what serves on the judged answers (the interval of the paired difference is above 0), and
is not worse on the core suite than the best that ever served there, beyond a margin. `inconclusive` asks for more
labels; `hold` is only said where the interval's upper end is below the margin. Before a promotion the candidate answers
what was logged (`shadow`), which is shown and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.jobs.job import ENDED, Resources
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, NextStep, Plan
from speciate.loop.watch.definition import MARGIN
from speciate.loop.watch.facts import Learned, ShadowReport, Taught
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace

ROWS, JUDGED, SUITE, EVALUATE, JUDGE = "rows", "judged", "suite", "evaluate", "judge"
TEACH, VARIANTS, SHADOW, PROMOTE = "teach", "variants", "shadow", "promote"
TRAIN = "train/"
_EVALUATION_SECONDS = 60.0
_GRACE_SECONDS = 30.0
_SHADOW_SECONDS = 600.0
CANARY_PERCENT = 10.0
"""Of the requests of a deployment, before all of them."""
_PRIORITY = -10
"""Whatever a person asked for goes first."""
ACTOR = "watch"
_LEVEL = 0.05
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
"""As `repr` writes texts."""
_OWN_WORDS = frozenset({
    "better", "not_worse", "better_if_dearer", "reaches", "at_most", "unseen", "no_slice_worse", "license", "offline",
    "arrived", "split", "train", "test", "core", "heldout", "regression",
})  # fmt: skip
"""Of gates and suites: what else a reason quotes is a value of somebody's data."""


class Way(BaseModel):
    """A training to try, in the words of `train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    """Of its step."""
    method: str | None = None
    base_model: str | None = None
    continue_from: str | None = None
    like: str | None = None
    with_variants: bool = False
    """Whether it learns from a version whose training rows have variants beside them."""

    def train_spec(self) -> Mapping[str, object]:
        return self.model_dump(exclude={"name", "with_variants"}, exclude_none=True)


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
    """Of the kind `teach`; None where no person named a teacher."""
    grows: bool = False
    """Whether the core suite takes the judged answers, too."""
    ways: tuple[Way, ...] = Field(min_length=1)
    metric: str
    high_water: float | None = None
    """The best value on the core suite of a version that ever served."""
    further: tuple[Literal["heldout", "regression"], ...] = ()
    """Suites beside the core on which a promotion needs a decision."""
    budget_minutes: float
    budget_usd: float | None = None
    action: Literal["propose", "auto"]
    canary: bool = False
    """Whether a deployment runs: then a share of its requests comes first."""
    replaces: bool = False
    """Whether what serves must go (a recall): a candidate need not be better, only not surely worse by the margin."""


def plan(spec: RelearnSpec, workspace: Workspace) -> Plan:
    return Plan(resources=Resources(cpu=0), use_case=spec.use_case)


def next_step(spec: RelearnSpec, children: Sequence[Child], now: float) -> NextStep:
    """The next children, or the verdict. Pure."""
    if any(child.state not in ENDED for child in children):
        return []
    steps = {child.step: child for child in children}
    left = 60 * spec.budget_minutes - sum(child.run_seconds for child in children)
    if wanted := _adding(spec, steps):
        return wanted
    trained = _trained(children)
    untried = [way for way in spec.ways if TRAIN + way.name not in steps]
    if VARIANTS in steps and not steps[VARIANTS].result:  # these media could not be changed: that alone stops nothing
        untried = [way for way in untried if not way.with_variants]
    if EVALUATE not in steps and untried and (left >= 1.0 or not trained):  # each way has its share of what is left
        if untried[0].with_variants and VARIANTS not in steps:
            return [_variants(_dataset(spec, steps))]
        return [_training(spec, untried[0], _dataset(spec, steps, untried[0]), left / len(untried))]
    if not trained:
        why = _why(next((child for child in children if child.step.startswith(TRAIN)), None))
        return _end("hold", f"no model could be trained: {why}")
    if EVALUATE not in steps:
        return [_evaluation(spec, trained, left)]
    passing = _passing(spec, steps[EVALUATE])
    if isinstance(passing, Finished):
        return passing
    if spec.replaces and _judged_ref(spec, steps) is None:
        return _promote(spec, passing[0], steps, left, f"{passing[0]} replaces what must go", {"model": passing[0]})
    if _judged_ref(spec, steps) is None:
        return _end("inconclusive", "there are no randomly drawn answers to judge by")
    if JUDGE not in steps:
        return [_judgement(spec, passing, steps, left)]
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
    """Of training rows alone, in their groups: never in a suite (datasets/operations/variants.py)."""
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


def _training(spec: RelearnSpec, way: Way, dataset: str, left: float) -> ChildRequest:
    seconds = max(left, 1.0)
    ours = {
        "name": f"{spec.use_case}-model", "dataset": dataset, "use_case": spec.use_case, "budget_minutes": seconds / 60,
        **way.train_spec(),
    }  # fmt: skip
    return ChildRequest(
        step=TRAIN + way.name, kind="train", spec=ours, priority=_PRIORITY, run_seconds=seconds + _GRACE_SECONDS
    )


# Evaluations


def _evaluation(spec: RelearnSpec, trained: Sequence[_Trained], left: float) -> ChildRequest:
    asked = {
        "models": list(dict.fromkeys(each.model for each in trained)), "suite": "core", "dataset": spec.core,
        "use_case": spec.use_case, "pick": "gates", "budget_usd": spec.budget_usd or None,
    }  # fmt: skip
    seconds = max(left, _EVALUATION_SECONDS) + _GRACE_SECONDS
    return ChildRequest(step=EVALUATE, kind="evaluate", spec=asked, priority=_PRIORITY, run_seconds=seconds)


def _judgement(spec: RelearnSpec, models: Sequence[str], steps: Mapping[str, Child], left: float) -> ChildRequest:
    """On the judged answers, beside what serves: this is no suite of the use case, so it decides nothing itself."""
    asked = {
        "models": list(models), "dataset": _judged_ref(spec, steps), "use_case": spec.use_case, "latency": False,
        "budget_usd": spec.budget_usd or None,
    }  # fmt: skip
    seconds = max(left, _EVALUATION_SECONDS) + _GRACE_SECONDS
    return ChildRequest(step=JUDGE, kind="evaluate", spec=asked, priority=_PRIORITY, run_seconds=seconds)


def _passing(spec: RelearnSpec, evaluated: Child) -> list[str] | Finished:
    """Models that pass the use case's gates on the core suite, and are not worse there than the best that ever served:
    what each promotion may lose against its predecessor would add up."""
    if evaluated.result is None:
        return _end("hold", f"no model could be evaluated: {_why(evaluated)}")
    decisions = {each["candidate"]: each for each in evaluated.result.get("decisions", ())}
    rows = {row["model"]: row for row in evaluated.result["report"]["leaderboard"]}
    passed = [model for model, each in decisions.items() if each["verdict"] == "promote"]
    eroded = [model for model in passed if _is_below(spec, rows.get(model))]
    kept = [model for model in passed if model not in eroded]
    if kept:
        return kept
    found = evaluated.result.get("decision") or {}
    if eroded:
        why = f"{', '.join(eroded)} is worse on the core suite than a version that served before"
        return _end("hold", why, model=eroded[0], evaluation=evaluated.result["evaluation"])
    verdict: Literal["inconclusive", "hold"] = "inconclusive" if found.get("verdict") == "inconclusive" else "hold"
    reasons = found.get("reasons") or [str(evaluated.result.get("no_decision", "no gate was passed"))]
    return _end(
        verdict, f"on the core suite: {_unquoted(reasons[0])}", model=evaluated.result["report"].get("candidate"),
        evaluation=evaluated.result["evaluation"],
    )  # fmt: skip


def _unquoted(reason: str) -> str:
    """Without what it quotes: values of slices are text of others, and a reason of a watch holds none."""
    return _QUOTED.sub(lambda found: found[0] if found[0][1:-1] in _OWN_WORDS else "(a value)", reason)


def _is_below(spec: RelearnSpec, row: Mapping[str, Any] | None) -> bool:
    """By the interval: whether its better end is below the high-water mark by more than the margin."""
    if spec.high_water is None or row is None or not row.get("interval"):
        return False
    sign = find_metric(spec.metric).sign
    best = max(sign * bound for bound in row["interval"])
    return bool(best < sign * spec.high_water - MARGIN)


class _Gain(NamedTuple):
    model: str
    gain: float
    low: float
    high: float
    seen: float | None
    """The smallest gain that could have been seen."""
    p: float | None = None
    """Adjusted for all candidates: the best of several equal ones is no better than one of them."""

    @property
    def is_sure(self) -> bool:
        return self.low > 0 and (self.p is None or self.p < _LEVEL)


def _gains(spec: RelearnSpec, judged: Child) -> list[_Gain]:
    """Of each candidate over what serves, better is more; the best first."""
    sign, found = find_metric(spec.metric).sign, list[_Gain]()
    for each in (judged.result or {"report": {"comparisons": ()}})["report"]["comparisons"]:
        if each["delta"] is None or each["interval"] is None:
            continue
        low, high = sorted(sign * bound for bound in each["interval"])
        seen, p = each.get("minimum_detectable_effect"), each.get("p_holm")
        found.append(_Gain(each["candidate"], sign * each["delta"], low, high, seen, p))
    return sorted(found, key=lambda one: one.gain, reverse=True)


# The end


def _settle(spec: RelearnSpec, passing: Sequence[str], steps: Mapping[str, Child], left: float) -> NextStep:
    judged = steps[JUDGE]
    if judged.result is None:
        return _end("hold", f"the candidates could not be judged on answers of production: {_why(judged)}")
    gains = [each for each in _gains(spec, judged) if each.model in passing]
    if not gains:
        return _end("hold", "training found what serves again: there is nothing to compare")
    best, n = gains[0], int(judged.result["report"]["n"])
    known: dict[str, Any] = {
        "model": best.model, "gain": best.gain, "interval": (best.low, best.high), "judged": n,
        "smallest_gain": best.seen, "evaluation": judged.result["evaluation"],
    }  # fmt: skip
    said = f"{best.model} gains {best.gain:+.4g} on {n} judged answers (95 %: {best.low:+.4g} to {best.high:+.4g})"
    if spec.replaces and best.high > -MARGIN:
        return _promote(spec, best.model, steps, left, f"it replaces what must go: {said}", known)
    if not best.is_sure:
        if best.high < MARGIN:
            return _end("hold", f"nothing to gain: {said}", **known)
        return _end("inconclusive", f"too few answers to tell: {said}", needed_labels=_needed(best, n), **known)
    return _promote(spec, best.model, steps, left, said, known)


def _promote(
    spec: RelearnSpec, model: str, steps: Mapping[str, Child], left: float, said: str, known: Mapping[str, Any]
) -> NextStep:  # fmt: skip
    """After the further suites have their say."""
    evaluated = steps[EVALUATE].result or {}
    missing = [suite for suite in spec.further if f"{EVALUATE}-{suite}" not in steps]
    if missing:
        asked = {"models": [model], "suite": missing[0], "use_case": spec.use_case, "latency": False}
        seconds = max(left, _EVALUATION_SECONDS) + _GRACE_SECONDS
        step = f"{EVALUATE}-{missing[0]}"
        return [ChildRequest(step=step, kind="evaluate", spec=asked, priority=_PRIORITY, run_seconds=seconds)]
    if SHADOW not in steps:
        asked = {"use_case": spec.use_case, "model": model}
        return [ChildRequest(
            step=SHADOW, kind="shadow", spec=asked, priority=_PRIORITY, run_seconds=_SHADOW_SECONDS
        )]  # fmt: skip
    shadow = steps[SHADOW].result  # None: it could not be asked, which decides nothing
    known = {
        **known,
        "shadow": None if shadow is None else ShadowReport.model_validate(shadow),
        "taught": _taught(steps),
    }
    if PROMOTE not in steps:
        share = {"canary_percent": CANARY_PERCENT} if spec.canary else {}
        promotion = {
            "use_case": spec.use_case, "model": model, "evaluation": evaluated["evaluation"], "actor": ACTOR,
            "propose": spec.action == "propose", "note": f"episode {spec.episode}", **share,
        }  # fmt: skip
        return [ChildRequest(step=PROMOTE, kind="promote", spec=promotion, priority=_PRIORITY)]
    promoted = steps[PROMOTE]
    if promoted.result is None:
        return _end("hold", f"the promotion was refused: {_why(promoted)}", **known)
    state = promoted.result["state"]
    approval = (promoted.result.get("approval") or {}).get("id")
    if state == "refused":
        return _end(
            "hold", f"the promotion was refused: {_unquoted(' '.join(promoted.result.get('reasons', ())))}", **known
        )
    return _end("promote", said, promotion=state, approval=approval, canary=spec.canary, **known)


def _needed(best: _Gain, n: int) -> int:
    """Further labels with which a gain of this size would be seen: the interval shrinks with the root of their number.
    Half of a batch is drawn at random, and half of that judges, so four times as many are asked for."""
    half = (best.high - best.low) / 2
    gain = max(best.gain, MARGIN)
    return max(20, round(4 * max(0.0, n * (half / gain) ** 2 - n)))


def _end(verdict: Literal["promote", "hold", "inconclusive"], why: str, **known: Any) -> Finished:
    return Finished(result=Learned(verdict=verdict, why=why, **known).model_dump(mode="json"))


def _why(child: Child | None) -> str:
    if child is None:
        return "nothing was tried"
    error = child.error or {}
    return str(error.get("message") or f"{child.step} is {child.state}")


KIND = Kind(name="relearn", spec=RelearnSpec, plan=plan, next=next_step)
