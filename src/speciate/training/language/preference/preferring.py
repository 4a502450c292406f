"""What the recipes that learn from pairs share: they differ in trl's trainer, and in what its loss is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.preference.pairs import as_pairs, prepared
from speciate.training.language.pupil import changes, digest, finished, session, settings
from speciate.training.language.specs import PairParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study


def preferred(
    study: Study,
    parameters: PairParameters,
    trainer: type[Any],
    config: type[Any],
    usual_rate: float,
    *,
    shown: Callable[..., Any] = as_pairs,
    **loss: Any,
) -> Chosen:
    """`trainer` and `config` are trl's; `shown` makes its rows of pairs; `loss`: further arguments of `config`."""
    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        found = prepared(study, parameters)
        learner = found.learner
        running = durable(trainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=config(
                **settings(study, parameters, usual_rate),
                max_length=min(parameters.max_length, learner.longest),
                **loss,
            ),
            train_dataset=shown(found.train, found.asked),
            eval_dataset=shown(found.held, found.asked),
            peft_config=changes(parameters),
        )
        running.begin(session(study, parameters, learner, digest(found.train, found.held, found.asked)))
    ending = running.go()
    predictor = finished(study, running, learner, found.asked, parameters)
    return judging.chosen(study, predictor, parameters, ending, began)
