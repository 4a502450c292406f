"""One look of a watch, as a pure function: `decide(watch, memory, seen, now) -> Decision`. No clock, no I/O, no chance.

    idle -> mining -> labelling -> learning -> asking -> baking -> idle
       \\-> checking ---------------/             (every state may end in idle, with a reason)

Everything that takes time on the clock (labels to come, a person's answer, the bake, the cool-down) is a state that a
look finds again; everything that computes is a job whose key follows from watch, episode, step and round. So nothing is
begun twice, whatever is repeated after a kill.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from speciate.loop.watch.definition import (
    DAY,
    FEWEST,
    FEWEST_MINUTES,
    HOUR,
    PATIENCE_SECONDS,
    WINDOW_SECONDS,
    TriggerKind,
    Watch,
)
from speciate.loop.watch.facts import (
    Alarm,
    Cause,
    Checked,
    Decision,
    End,
    EndedJob,
    Learned,
    Memory,
    Mined,
    Outcome,
    Promoted,
    Start,
    State,
    StepName,
    WatchFacts,
    WatchNotice,
)
from speciate.loop.watch.triggers import fired as all_fired
from speciate.loop.watch.triggers import kind_of_signal

ENOUGH = 0.8
"""Share of the labels asked for with which an episode goes on. A batch of quick labels is no fair draw."""
LEAST = 0.6
"""Share with which it goes on once its patience is over."""
_MOST_DOUBLINGS = 4
_UNRESOLVED = 3
"""Fruitless episodes, one after another, after which people are told."""
_OPEN = 1e18
"""Stands in `Memory.tried` for a cause whose episode still runs, in place of the time when it may fire again."""
_MOST_TRIED = 200
_IN_STATE: dict[State, StepName] = {"mining": "mine", "checking": "check", "learning": "relearn"}
_BY_LABELS: tuple[TriggerKind, ...] = ("now", "data_shift", "quality_regression")
"""Causes that only new labels can answer."""
_FRUITFUL: tuple[Outcome, ...] = ("promoted", "met")
_UNDONE: tuple[Outcome, ...] = ("hold", "no_labels", "failed")
"""Ends after which what began the episode is as it was."""
_UNTRIED: tuple[Outcome, ...] = ("failed", "no_labels", "inconclusive", "stopped")
"""Ends by which nothing is known of a new base model: it may fire again."""


def decide(watch: Watch, memory: Memory, seen: WatchFacts, now: float) -> Decision:
    """`watch` with its policy capped by a person's settings already. The answer always has a `because`."""
    memory = _heard(memory, seen)
    found = all_fired(watch, memory, seen)
    due = tuple(each for each in found if memory.tried.get(each.fingerprint, 0.0) <= now)
    decision = _go_on(watch, memory, seen, now) if memory.state != "idle" else _begin(watch, memory, seen, now, due)
    decision = replace(decision, fired=due)
    if seen.due is not None:
        memory = decision.memory.model_copy(update={"scheduled": max(seen.due, decision.memory.scheduled)})
        decision = replace(decision, memory=memory)
    return _joined(decision, due) if memory.state != "idle" else decision


def _heard(memory: Memory, seen: WatchFacts) -> Memory:
    """With what the new windows said. Another version in production begins anew: its answers are its own past."""
    if (seen.production, seen.generation) != (memory.model, memory.generation):
        changes: dict[str, object] = {
            "model": seen.production, "generation": seen.generation, "moved": seen.moved, "window": -1, "alarms": (),
        }  # fmt: skip
        memory = memory.model_copy(update=changes)
    for window in seen.windows:
        if window.number <= memory.window:
            continue
        alarms = {each.signal: each for each in memory.alarms}
        for signal in window.signals:
            if signal.alarm:
                alarms[signal.name] = Alarm(
                    signal=signal.name, onset=signal.onset, log_evidence=signal.log_evidence, window=window.number
                )
        memory = memory.model_copy(update={"window": window.number, "alarms": tuple(alarms.values())})
    seen_first: dict[str, object] = {}
    if memory.requirement == 0 and seen.requirement is not None:
        seen_first["requirement"] = seen.requirement.version
    if seen.requirement is not None and seen.requirement.version > memory.requirement > 0 and seen.requirement.meets:
        seen_first["requirement"] = seen.requirement.version
    if not memory.looked_up and seen.bases is not None:
        seen_first |= {"looked_up": True, "bases": memory.bases or seen.bases}
    return memory.model_copy(update=seen_first) if seen_first else memory


def _joined(decision: Decision, due: tuple[Cause, ...]) -> Decision:
    """Causes that fire while an episode waits for labels join it: it is not begun again for them afterwards."""
    memory = decision.memory
    if memory.state not in ("mining", "labelling"):
        return decision
    new = tuple(each for each in due if each.kind != "label_disagreement")
    if not new:
        return decision
    kinds = dict.fromkeys((*memory.causes, *(each.kind for each in new)))
    changes: dict[str, object] = {
        "causes": tuple(kinds), "fingerprints": (*memory.fingerprints, *(each.fingerprint for each in new)),
        "tried": {**memory.tried, **{each.fingerprint: _OPEN for each in new}},
        "asked": max([memory.asked, *(float(str(each.evidence["asked"])) for each in new if each.kind == "now")]),
        **_with_bases(memory, new),
    }  # fmt: skip
    return replace(decision, memory=memory.model_copy(update=changes), taken=(*decision.taken, *new))


def _with_bases(memory: Memory, causes: tuple[Cause, ...]) -> dict[str, object]:
    """New base models are known from now on, and tried by the episode."""
    came = [each.evidence["bases"] for each in causes if each.kind == "new_base_model"]
    new = tuple(base for named in came if isinstance(named, list) for base in named if base not in memory.bases)
    return {"bases": (*memory.bases, *new), "new_bases": (*memory.new_bases, *new)}


# Idle: whether anything is begun


def _begin(watch: Watch, memory: Memory, seen: WatchFacts, now: float, due: tuple[Cause, ...]) -> Decision:
    if not due:
        return Decision(memory, "no trigger fired")
    causes = tuple(each for each in due if each.kind != "label_disagreement")
    told = tuple(
        WatchNotice("watch.disagreement", "those who label do not agree: write down what each label means")
        for each in due if each.kind == "label_disagreement"
    )  # fmt: skip
    if told:
        month = now + 4 * 7 * DAY
        noisy = [each for each in due if each.kind == "label_disagreement"]
        tried = {**memory.tried, **{each.fingerprint: month for each in noisy}}
        because = "those who label do not agree"
        return Decision(memory.model_copy(update={"tried": tried}), because, told=told)
    if why := _held_back(watch, memory, seen, now, causes):
        return Decision(memory, why)
    if why := _minutes_spent(watch, seen, causes):
        return _out_of_budget(memory, now, why)
    if {each.kind for each in causes} == {"schedule"} and not seen.labels_new:
        why = "its time came, and there is no label that was not learned from: training again would change nothing"
        return Decision(memory, why)
    labels = min(watch.ask, watch.policy.labels - seen.spent.labels)
    wants = any(each.kind in _BY_LABELS for each in causes)
    few = lacks_labels(watch, seen.labels_new)
    # labels of what users noticed teach and judge nothing: those that judge are asked for, where they may be
    asks = wants and (few or (labels >= FEWEST and seen.labels_judging < _least(watch) / 2))
    if asks and not watch.policy.labels:
        return Decision(memory, "its policy lets it ask for no label, and too few came by themselves")
    if asks and labels < FEWEST:
        return _out_of_budget(memory, now, f"this month's labels are spent: {seen.spent.labels} were asked for")
    onset = _onset(memory, tuple(each.kind for each in causes))
    if asks and onset is not None and seen.pool is not None and seen.pool < labels and now < onset + WINDOW_SECONDS:
        until = _day(onset + WINDOW_SECONDS)
        because = f"fewer answers came since it began than the {labels} to ask about: it waits, at most until {until}"
        return Decision(memory, because)
    return _begun(watch, memory, seen, now, causes, labels if asks else 0)


def _onset(memory: Memory, kinds: tuple[TriggerKind, ...]) -> float | None:
    """The latest, of the alarms of these kinds."""
    onsets = [each.onset for each in memory.alarms if each.onset is not None and kind_of_signal(each.signal) in kinds]
    return max(onsets, default=None)


def _least(watch: Watch) -> int:
    """Labels with which an episode begins without asking; half of what it asks for is drawn at random."""
    return max(FEWEST, round(LEAST * watch.ask))


def lacks_labels(watch: Watch, came: int) -> bool:
    """Whether labels that came by themselves are too few to begin with, whatever their kind."""
    return came < _least(watch)


def _held_back(watch: Watch, memory: Memory, seen: WatchFacts, now: float, causes: tuple[Cause, ...]) -> str | None:
    """Why nothing is begun though something fired."""
    urgent = any(each.kind in ("now", "recall") for each in causes)
    recalled = any(each.kind == "recall" for each in causes)
    if seen.production is None:
        return "nothing is in production yet: specialize makes the first model"
    if seen.bake == "provisional" and not recalled:  # what must go need not be known well
        return f"{seen.production} still bakes: its successor would be compared with an unknown"
    if seen.question is not None:
        return f"a question waits for a person: {seen.question}"
    if seen.circle:
        return f"the watches of {', '.join(seen.circle)} would feed one another"
    if now < memory.quiet_until and not urgent:
        return f"cool-down until {_day(memory.quiet_until)}"
    if seen.busy is not None:
        return f"the watch of {seen.busy} trains now, and one trains at a time"
    return None


def _minutes_spent(watch: Watch, seen: WatchFacts, causes: tuple[Cause, ...]) -> str | None:
    left = watch.policy.budget_minutes - seen.spent.minutes
    needs = max(FEWEST_MINUTES, min(max(each.minutes for each in causes), watch.policy.budget_minutes))
    if left < needs:
        spent = f"{seen.spent.minutes:.0f} of {watch.policy.budget_minutes:.0f} minutes"
        return f"this month's budget does not hold an episode: {spent} are spent"
    return None


def _out_of_budget(memory: Memory, now: float, because: str) -> Decision:
    told = (WatchNotice("watch.budget", because),) if now - memory.told >= DAY else ()
    return Decision(memory.model_copy(update={"told": now}) if told else memory, because, told=told)


def _begun(
    watch: Watch, memory: Memory, seen: WatchFacts, now: float, causes: tuple[Cause, ...], labels: int
) -> Decision:
    kinds = tuple(dict.fromkeys(each.kind for each in causes))
    changes: dict[str, object] = {
        "episode": memory.episode + 1, "round": 1, "rounds": 2, "begun": now, "causes": kinds, "approval": None,
        "mined": 0, "fingerprints": tuple(each.fingerprint for each in causes), "model_found": None, "first": None,
        "short": False, "before": seen.production,
        "tried": dict(list({**memory.tried, **{each.fingerprint: _OPEN for each in causes}}.items())[-_MOST_TRIED:]),
        "onset": _onset(memory, kinds), "asked": max(memory.asked, seen.asked),
        "requirement": seen.requirement.version if seen.requirement else memory.requirement,
        "provider": max(memory.provider, seen.provider), "told": now, **_with_bases(memory, causes),
    }  # fmt: skip
    fresh = memory.model_copy(update=changes)
    said = (WatchNotice("watch.begun", f"episode {fresh.episode} begins: {', '.join(kinds)}"),)
    because = f"episode {fresh.episode} begins: {'; '.join(each.text for each in causes)}"
    if labels:
        start = Start("mine", n=labels, since=fresh.onset)
        return Decision(_in(fresh, "mining", now), because, start=(start,), taken=causes, told=said)
    if _checks_first(seen, causes):
        return Decision(_in(fresh, "checking", now), because, start=(Start("check"),), taken=causes, told=said)
    start = _relearn(watch, fresh, seen, fresh=seen.labels_new > 0)
    return Decision(_in(fresh, "learning", now), because, start=(start,), taken=causes, told=said)


def _checks_first(seen: WatchFacts, causes: tuple[Cause, ...]) -> bool:
    """Whether an evaluation of what serves may show that there is nothing to do."""
    kinds = {each.kind for each in causes}
    unknown = seen.requirement is None or seen.requirement.meets is None
    return kinds <= {"provider_change"} or (kinds <= {"provider_change", "requirement_change"} and unknown)


def _relearn(watch: Watch, memory: Memory, seen: WatchFacts, *, fresh: bool = True) -> Start:
    """Start a training with what is left of the month, so that no month can be overdrawn."""
    left = watch.policy.budget_minutes - seen.spent.minutes
    dollars = max(0.0, watch.policy.budget_usd - seen.spent.usd)
    return Start("relearn", minutes=max(0.0, left), usd=dollars, bases=memory.new_bases, fresh=fresh)


# An episode goes on


def _go_on(watch: Watch, memory: Memory, seen: WatchFacts, now: float) -> Decision:
    if memory.state in _IN_STATE:
        step = _IN_STATE[memory.state]
        job = seen.jobs.get(step)
        if job is None:
            return Decision(memory, f"the job {step} of episode {memory.episode} is not over")
        if job.outcome is None:
            return _over(watch, memory, now, End("failed", f"{step} failed: {job.why}"))
        return _after(watch, memory, seen, now, job)
    if memory.state == "labelling":
        return _labelling(watch, memory, seen, now)
    if memory.state == "asking":
        return _asking(watch, memory, seen, now)
    return _baking(watch, memory, seen, now)


def _after(watch: Watch, memory: Memory, seen: WatchFacts, now: float, job: EndedJob) -> Decision:
    outcome = job.outcome
    if isinstance(outcome, Mined):
        if outcome.asked < min(FEWEST, watch.ask):
            because = f"only {outcome.asked} answers could be asked about, of {outcome.pool} since it began"
            if outcome.not_kept:
                because += f"; the inputs of {outcome.not_kept} were not kept ([log] of settings.toml)"
            if outcome.near_suites:
                because += f"; {outcome.near_suites} are near-copies of rows of the suites"
            return _over(watch, memory, now, End("no_labels", because))
        text = f"{outcome.asked} answers wait for a label"
        return Decision(
            _in(memory, "labelling", now, mined=memory.mined + outcome.asked),
            text,
            told=(WatchNotice("watch.labels", text),),
        )
    if isinstance(outcome, Checked):
        if outcome.meets:
            return _over(watch, memory, now, End("met", "what serves meets the use case: nothing is to be done"))
        because = "what serves does not meet the use case: " + (", ".join(outcome.failing) or "it is not known")
        if watch.policy.budget_minutes - seen.spent.minutes < FEWEST_MINUTES:
            return _over(watch, memory, now, End("failed", "this month's minutes are spent"))
        return Decision(
            _in(memory, "learning", now), because, start=(_relearn(watch, memory, seen, fresh=seen.labels_new > 0),)
        )
    assert isinstance(outcome, Learned)
    return _after_learning(watch, memory, seen, now, outcome)


def _after_learning(watch: Watch, memory: Memory, seen: WatchFacts, now: float, found: Learned) -> Decision:
    learned_until = max(memory.learned_until, memory.since) if found.used_labels else memory.learned_until
    bases = memory.new_bases if found.bases is None else found.bases
    tried = memory.model_copy(update={"learned_until": learned_until, "new_bases": bases})
    more = min(found.needed_labels or watch.ask, watch.ask, watch.policy.labels - seen.spent.labels)
    if memory.round == 1 and not (memory.mined or found.judged):
        tried = tried.model_copy(update={"rounds": 3})
    if found.verdict == "inconclusive" and memory.round < tried.rounds and more >= FEWEST:
        once = ", once" if memory.round + 1 == tried.rounds else ""
        because = f"inconclusive: {found.why}; {more} more labels are asked for{once}"
        again = _in(tried, "mining", now, round=memory.round + 1)
        return Decision(again, because, start=(Start("mine", n=more, since=memory.onset),))
    if found.verdict != "promote" and memory.first is not None:
        because = f"{memory.first} serves; with the labels of the second round: {found.why}"
        return _over(watch, tried, now, End("promoted", because, memory.first, found.smallest_gain))
    if found.verdict != "promote":
        nothing_known, why = not found.used_labels and found.bases is None, found.why
        if found.verdict == "inconclusive" and found.needed_labels is not None:
            left = max(0, watch.policy.labels - seen.spent.labels)
            why += f"; about {found.needed_labels} more labels would tell, and {left} of this month's are left"
        end = End("failed" if nothing_known else found.verdict, why, found.model, found.smallest_gain)
        return _over(watch, tried, now, end, screened=not found.used_labels, settled=found.settled)
    tried = tried.model_copy(update={"short": found.short, "canary": found.canary})
    if found.promotion == "needs_approval":
        because = f"a person is asked whether {found.model} may serve"
        return Decision(_in(tried, "asking", now, approval=found.approval, model_found=found.model), because)
    if found.promotion == "applied" and found.canary:
        because = f"{found.model} serves a share of the requests, and bakes"
        return Decision(_in(tried, "baking", now, model_found=found.model), because)
    if found.promotion == "applied":
        return Decision(_in(tried, "baking", now, model_found=found.model), f"{found.model} serves, and bakes")
    return _over(watch, tried, now, End("hold", found.why, found.model, found.smallest_gain))


def _labelling(watch: Watch, memory: Memory, seen: WatchFacts, now: float) -> Decision:
    standing = memory.mined if seen.requested is None else min(memory.mined, seen.requested)
    came, asked = seen.labels_of_episode, max(1, standing)
    late = now - memory.since >= PATIENCE_SECONDS
    least = max(min(FEWEST, watch.ask), round(LEAST * asked))
    if came >= ENOUGH * asked or (late and came >= least):
        if watch.policy.budget_minutes - seen.spent.minutes < FEWEST_MINUTES:
            return Decision(memory, f"{came} of {asked} labels came; this month's minutes are spent")
        if seen.busy is not None:
            return Decision(memory, f"{came} of {asked} labels came; the watch of {seen.busy} trains now")
        because = f"{came} of {asked} labels came" + (", and its patience is over" if late else "")
        return Decision(_in(memory, "learning", now), because, start=(_relearn(watch, memory, seen),))
    if late:
        because = f"only {came} of {asked} labels came within {PATIENCE_SECONDS / DAY:.0f} days"
        return _over(watch, memory, now, End("no_labels", because))
    return Decision(memory, f"waits for labels: {came} of {asked} came")


def _asking(watch: Watch, memory: Memory, seen: WatchFacts, now: float) -> Decision:
    if seen.production == memory.model_found or seen.approval == "approved":
        return Decision(_in(memory, "baking", now), f"a person agreed: {memory.model_found} serves, and bakes")
    if seen.approval in ("denied", "expired", None):
        said = "nobody answered in time" if seen.approval == "expired" else "a person said no"
        return _over(watch, memory, now, End("denied", f"{memory.model_found} was not promoted: {said}"))
    if seen.approval != "pending":  # void: production moved, or what it rested on did
        because = f"{memory.model_found} was not promoted: the question was withdrawn, as something changed meanwhile"
        return _over(watch, memory, now, End("stopped", because))
    return Decision(memory, f"waits for a person: {memory.approval}")


def _baking_canary(watch: Watch, memory: Memory, seen: WatchFacts, now: float) -> Decision:
    """Until it survived with its share, then all requests are asked for, which may need a person again."""
    model = memory.model_found
    job = seen.jobs.get("promote")
    if job is not None:
        found = job.outcome if isinstance(job.outcome, Promoted) else None
        if found is None or found.state == "refused":
            return _over(watch, memory, now, End("hold", f"{model} was not given all requests: {job.why}", model))
        served = memory.model_copy(update={"canary": False})
        if found.state == "needs_approval":
            because = f"a person is asked whether {model} may serve all requests"
            return Decision(_in(served, "asking", now, approval=found.approval), because)
        return Decision(_in(served, "baking", now), f"{model} serves, and bakes")
    if seen.canary != model:
        return _over(watch, memory, now, End("taken_back", f"{model} serves no share of the requests any more", model))
    if seen.canary_bake == "broken":
        return _over(watch, memory, now, End("taken_back", f"{model} broke a limit with its share", model))
    if seen.canary_bake == "survived":
        because = f"{model} survived with its share: all requests are asked for"
        return Decision(memory, because, start=(Start("promote", model=model),))
    return Decision(memory, f"{model} bakes with a share of the requests")


def _baking(watch: Watch, memory: Memory, seen: WatchFacts, now: float) -> Decision:
    model = memory.model_found
    if memory.canary and seen.production != model:
        return _baking_canary(watch, memory, seen, now)
    if seen.production != model:
        if model in seen.taken_back:
            return _over(watch, memory, now, End("taken_back", f"the bake took {model} back", model))
        return _over(watch, memory, now, End("stopped", f"somebody else moved production from {model}", model))
    if seen.bake == "provisional":
        return Decision(memory, f"{model} bakes")
    if seen.bake == "broken":
        return _over(watch, memory, now, End("taken_back", f"{model} broke a limit of its bake", model))
    more = min(watch.ask, watch.policy.labels - seen.spent.labels)
    minutes = watch.policy.budget_minutes - seen.spent.minutes
    once = memory.round < memory.rounds and memory.first is None
    if memory.short and once and more >= FEWEST and minutes >= FEWEST_MINUTES:
        because = f"{model} survived its bake, and is short of the target: {more} more labels are asked for, once"
        start = Start("mine", n=more, since=memory.onset)
        again = _in(memory, "mining", now, round=memory.round + 1, first=model, new_bases=())  # it serves, or lost
        return Decision(again, because, start=(start,))
    return _over(watch, memory, now, End("promoted", f"{model} survived its bake", model))


def _over(
    watch: Watch, memory: Memory, now: float, end: End, *, screened: bool = False, settled: bool = False
) -> Decision:  # fmt: skip
    """Back to idle. The cool-down counts from the beginning of the episode: its labelling took weeks already. Causes
    that were answered may come again by new evidence; one that was tried in vain waits twice as long as the cool-down,
    which doubles with each vain episode. One that could not be told from too few labels was not tried in vain: it
    stands, and waits for labels, which the month's budget bounds; but the third such end in a row counts as in vain.
    An alarm that nothing was done about stands, too: its detector has taken in what came since, and would be silent.
    New base models that nothing could be said of are as unknown as before. `screened`: of new base models none was
    promising, which took minutes and no label: what comes next is not held back for that."""
    fruitful = end.outcome in _FRUITFUL
    untried = memory.new_bases if end.outcome in _UNTRIED else ()
    undecided = memory.undecided + 1 if end.outcome == "inconclusive" else 0
    open_ = 0 < undecided < _UNRESOLVED
    stands = open_ or (end.outcome in _UNDONE and not settled)
    fruitless = 0 if fruitful else memory.fruitless + (not open_ and not screened)
    pause = watch.policy.cooldown_hours * HOUR * (1 if open_ else 2 ** min(fruitless, _MOST_DOUBLINGS))
    kept = {
        name: until if until != _OPEN else now + 2 * pause
        for name, until in memory.tried.items()
        if until > now and not ((fruitful or open_) and until == _OPEN)
    }
    changes: dict[str, object] = {
        "causes": (), "fingerprints": (), "alarms": memory.alarms if stands else (), "tried": kept,
        "quiet_until": memory.quiet_until if screened else memory.begun + pause, "fruitless": fruitless,
        "undecided": memory.undecided if screened else undecided, "approval": None, "new_bases": (),
        "bases": tuple(base for base in memory.bases if base not in untried),
        "mined": 0, "onset": None, "model_found": None, "before": None, "first": None, "short": False, "told": now,
        "canary": False,
    }  # fmt: skip
    text = f"episode {memory.episode} ended ({end.outcome.replace('_', ' ')}): {end.because}"
    told = WatchNotice("watch.ended", f"episode {memory.episode} ended: {end.outcome.replace('_', ' ')}")
    if not fruitful and not screened and _UNRESOLVED in (fruitless, undecided):
        told = WatchNotice("watch.unresolved", f"{_UNRESOLVED} episodes brought no better model, one after another")
    elif end.outcome in ("hold", "inconclusive") and "requirement_change" in memory.causes:
        told = WatchNotice(
            "watch.unresolved", "what the use case asks now is not reached by anything that could be trained"
        )
    return Decision(_in(memory, "idle", now, **changes), text, told=(told,), ended=end)


def _in(memory: Memory, state: State, now: float, **changes: object) -> Memory:
    return memory.model_copy(update={"state": state, "since": now, **changes})


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
