"""Whether a training fits into its budget and its memory: found out by a few real steps, before it trains.

What does not fit ends with an error that begins with `does_not_fit` and names what would fit. A budget that is shorter
than all epochs is no reason: the training ends with it, and the best network so far counts.
"""

from __future__ import annotations

import math

from speciate.errors import Code, SpeciateError
from speciate.training.costs import Spent
from speciate.training.network import precision, trial
from speciate.training.network.loop import Held
from speciate.training.network.memory import room_mb
from speciate.training.options import options
from speciate.training.specs import AskedPrecision
from speciate.training.study import Study

DOES_NOT_FIT = "does_not_fit"
_WORTH_SECONDS = 30.0
"""Of work ahead: with less, real steps are not worth their time."""
_STEPS = 2


def check(
    study: Study,
    asked: AskedPrecision,
    training: trial.Tallied,
    judge: Held,
    build: Spent,
    ahead: trial.Work,
    least: trial.Work,
) -> precision.Settled:
    """`ahead`: all that is planned; `least`: one epoch. The training is spent afterwards. With its precision.

    Raises REFUSED, beginning with `does_not_fit`.
    """
    memory, example = trial.need(training)
    _check_memory(study, memory, training)
    most = example.seconds * ahead.steps * training.parameters.batch_size
    if most < min(_WORTH_SECONDS, study.seconds_left):
        return precision.unmeasured(asked)
    study.progress(0, ahead.steps, "steps", "measuring a few steps")
    pace = trial.pace(training, judge, build, _STEPS)
    seconds = min(pace.of(ahead).seconds, study.seconds_left)
    settled = precision.settle(asked, training, study.payload.device, pace, seconds)
    _check_time(study, pace.faster(settled.gain), ahead, least)
    return settled


def _check_memory(study: Study, memory: trial.Need, training: trial.Tallied) -> None:
    micro_batch = training.micro_batch
    room = min(room_mb(), study.payload.memory_mb or math.inf) / study.team.size
    if (needed := memory.at(micro_batch)) <= room:
        return
    smaller = memory.fitting(room, micro_batch)
    if smaller is not None:
        name = "batch_size" if training.whole_batch else "micro_batch"
        said = f"hyperparameters={{'{name}': {smaller}}}"
        way = f"Call train_model again with {said}: about {memory.at(smaller):.0f} MB."
    else:
        way = f"Not even one example at a time fits. {_cheaper(study)}"
    raise SpeciateError(
        Code.REFUSED,
        f"{DOES_NOT_FIT}: {micro_batch} of the longest examples at once need about {needed:.0f} MB; "
        f"{room:.0f} MB are there.",
        way,
    )


def _check_time(study: Study, pace: trial.Pace, ahead: trial.Work, least: trial.Work) -> None:
    left, whole, shortest = study.seconds_left, pace.of(ahead).seconds, pace.of(least).seconds
    if whole <= left:
        return
    if shortest > left:
        minutes = math.ceil(1.2 * shortest / 6) / 10
        raise SpeciateError(
            Code.REFUSED,
            f"{DOES_NOT_FIT}: a single epoch takes about {shortest:.0f} s and all of them {whole:.0f} s; "
            f"{max(left, 0):.0f} s of the budget are left.",
            f"Call train_model again with budget_minutes={minutes:g} or more, or on fewer examples. {_cheaper(study)}",
        )
    study.notes.append(
        f"All epochs would take about {whole:.0f} s at most; the budget leaves {left:.0f} s, and the best network "
        "until then counts."
    )


def _cheaper(study: Study) -> str:
    own, manifest = study.payload.spec, study.payload.manifest
    ways = options(manifest.modality, study.readout.family)
    before = next(
        (place for place, way in enumerate(ways) if (way.method, way.base_model) == (own.method, own.base_model)), 0
    )
    cheaper = [way for way in ways[:before] if way.method != own.method]
    if not cheaper:
        return "list_options(kind='method') names smaller base models."
    named = f"method={cheaper[-1].method!r}"
    base = f", base_model={cheaper[-1].base_model!r}" if cheaper[-1].base_model else ""
    return f"Cheaper: {named}{base}."
