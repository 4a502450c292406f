"""What the recipes that learn from rewards share: they differ in trl's trainer, and in what its loss is told."""

from __future__ import annotations

import math
import time
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.training.language import judging
from speciate.training.language.durable_trainer import Ending
from speciate.training.language.lessons import form
from speciate.training.language.pupil import changes, digest, finished, pupil, session, settings
from speciate.training.language.reinforcement import hacking, tools
from speciate.training.language.reinforcement.asking import Question, checked, questions, rows, short_enough
from speciate.training.language.reinforcement.rewarded_trainer import Asking, rewarded
from speciate.training.language.reinforcement.rewarding import Rewards, rewards
from speciate.training.language.specs import RewardedParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 1e-6
"""Where every weight learns (trl 1.16)."""


def learned(study: Study, parameters: RewardedParameters, trainer: type[Any], config: type[Any], **loss: Any) -> Chosen:
    """`trainer` and `config` are trl's; `loss`: further arguments of `config`."""
    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    environment = getattr(parameters, "environment", None)
    with study.tally.stage("preparing"):
        learner = pupil(study, parameters)
        learner.model.config.use_cache = not parameters.recompute
        train, held = _asked(study, parameters)
        asked = form(study, learner.tokenizer, parameters, [each.asked for each in train])
        limits = (study, learner.tokenizer, asked, parameters, learner.longest)
        train, held = short_enough(*limits, train, "training"), short_enough(*limits, held, "validation")
        held = held[: parameters.judged]
    with rewards(study, parameters.rewards, environment, [*train, *held]) as opened:
        with study.tally.stage("preparing"):
            every = rows([*train, *held], asked)
            more: dict[str, Any] = {}
            if opened.host is not None:
                loss |= tools.settings(study, learner.tokenizer, asked, opened.host)
                more["environment_factory"] = opened.host.kind
            running = rewarded(trainer)(
                model=learner.model,
                reward_funcs=opened.functions(train),
                processing_class=learner.tokenizer,
                args=config(
                    **settings(study, parameters, _USUAL_RATE),
                    num_generations=parameters.generations,
                    max_completion_length=parameters.max_new_tokens,
                    temperature=parameters.temperature,
                    top_p=parameters.top_p,
                    top_k=parameters.top_k,
                    beta=parameters.beta,
                    num_iterations=parameters.iterations,
                    epsilon=parameters.epsilon,
                    mask_truncated_completions=parameters.skip_cut,
                    reward_weights=opened.weights,
                    **loss,
                ),
                train_dataset=every.select(range(len(train))),
                peft_config=changes(parameters),
                **more,
            )
            held_rows = every.select([*range(len(train), len(every))])  # datasets refuses an empty range
            running.ask(Asking(opened, held, asked, parameters, held_rows))
            data = digest([(each.example.id, each.asked, each.truth) for each in (*train, *held)], asked)
            running.begin(session(study, parameters, learner, data, watch_loss=False))
        ending = running.go()
        predictor = finished(study, running, learner, asked, parameters)
        played = tools.judged(study, running) if opened.host is not None else None
        chosen = judging.chosen(study, predictor, parameters, ending, began, played)
        _tell(study, running, opened, ending)
    return chosen


def _asked(study: Study, parameters: RewardedParameters) -> tuple[list[Question], list[Question]]:
    """Of both splits, in the order of their ids, those without a truth among them."""
    train = questions(study, _by_id([*study.train, *study.silent]))
    held = questions(study, _by_id([*study.validation, *study.silent_held]))
    return checked(study, parameters, train, held), held


def _by_id(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda each: each.id)


def _tell(study: Study, running: Any, opened: Rewards, ending: Ending) -> None:
    """What was watched, in the report; what is suspicious, in its notes."""
    evaluations = running.evaluations
    found = hacking.warnings(running.seen, evaluations.held)
    first, last = hacking.ends(running.seen) if running.seen else (None, None)
    study.found["training"] |= {"held_loss": None, "held": dict(ending.held)}
    study.found["watched"] = {
        "begin": _known(first), "end": _known(last),
        "held": [_known(each) for each in evaluations.held],
        "gain": _gain(running),
        "warnings": [{"pattern": each.pattern, "what": each.said} for each in found],
        "stopped": running.stopped,
        "rewards": opened.told(),
    }  # fmt: skip
    if running.stopped:
        kept = f"what is kept is of step {ending.step}"
        study.notes.append(f"The training was ended at step {ending.steps}: {running.stopped}; {kept}.")
    study.notes += [f"Suspicious: {each.said}." for each in found]
    for each in opened.opened:
        if missed := sum(each.failures.counted.values()):
            study.notes.append(
                f"The reward {each.name!r} said nothing of {missed} of {each.failures.asked} answers: "
                f"{', '.join(f'{count} {why}' for why, count in each.failures.counted.most_common())}."
            )


def _known(row: Any) -> dict[str, float] | None:
    return None if row is None else {name: each for name, each in row._asdict().items() if math.isfinite(each)}


def _gain(running: Any) -> dict[str, Any] | None:
    """The metric of what is kept minus that of the base model, on the same held-out examples, with its interval. Where
    they chose what is kept, as the best of `best_of` evaluations, it is too good by that; the test split is not."""
    evaluations = running.evaluations
    found = evaluations.difference(evaluations.held[0].step, running.kept_step) if evaluations.held else None
    if found is None:
        return None
    return {
        "value": found.delta, "interval": [found.low, found.high], "n": found.n, "method": found.method,
        "best_of": running.chosen_of,
    }  # fmt: skip
