"""What the recipes that learn from pairs share: they differ in trl's trainer, and in what its loss is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.preference.pairs import Tokens, as_pairs, prepared, tokens
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
    shown: Callable[[Sequence[Tokens]], Any] = as_pairs,
    **loss: Any,
) -> Chosen:
    """`trainer` and `config` are trl's; `shown` makes its rows of pairs; `loss`: further arguments of `config`."""
    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        found = prepared(study, parameters)
        learner = found.learner
        limit = min(parameters.max_length, learner.longest)
        train, held = (tokens(some, learner.tokenizer, found.asked, limit) for some in (found.train, found.held))
        if not train:
            raise SpeciateError(
                Code.INVALID,
                f"No pair of {study.payload.dataset} has an answer left: questions alone have {limit} tokens and more.",
                "Call train_model again with a larger hyperparameters={'max_length': ...}, or shorten the questions "
                "with curate_dataset.",
            )
        running = durable(given(trainer))(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=config(**settings(study, parameters, usual_rate), max_length=limit, **loss),
            train_dataset=shown(train),
            eval_dataset=shown(held),
            peft_config=changes(parameters),
        )
        running.begin(session(study, parameters, learner, digest(train, held)))
    ending = running.go()
    predictor = finished(study, running, learner, found.asked, parameters)
    return judging.chosen(study, predictor, parameters, ending, began)


def given(trainer: type[Any]) -> type[Any]:
    """A trainer of trl that takes tokens as they are."""
    return type(trainer.__name__, (_Given, trainer), {})


class _Given:
    def _prepare_dataset(self, dataset: Any, *given: Any, **named: Any) -> Any:
        return dataset

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
        """Nothing beside the tokens that a row has; of the trainers among trl's experiments."""
        return {}
