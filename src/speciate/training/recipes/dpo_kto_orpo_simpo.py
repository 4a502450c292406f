"""Recipes `dpo`, `orpo`, `simpo` and `kto`: learn from pairs which of two answers is better, with trl's trainers.

The four differ in the trainer and its loss; `train_on_pairs` has what they share. preference.py makes the pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.training.language import answer_validation
from speciate.training.language.durable_trainer import make_durable, micro_batch
from speciate.training.language.model_setup import (
    digest,
    finished_predictor,
    lora_config,
    make_session,
    trainer_arguments,
)
from speciate.training.language_hyperparameters import (
    DpoParameters,
    KtoParameters,
    OrpoParameters,
    PairParameters,
    SimpoParameters,
)
from speciate.training.recipes.preference import (
    PairTokens,
    pair_rows,
    prepare_pairs,
    sequence_rows,
    tokenize_pairs,
    verdict_rows,
)
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext

_USUAL_DPO_RATE = 2e-6
_USUAL_KTO_RATE = 2e-6
_USUAL_ORPO_RATE = 1e-5
_USUAL_SIMPO_RATE = 2e-6
"""Learning rates where every weight learns."""


def fit_dpo(context: TrainingContext, parameters: DpoParameters) -> SelectedModel:
    """Direct preference optimization: learn from pairs which of two answers is better.

    Rafailov et al. 2023; `ipo` is Azar et al. 2023, `robust` Chowdhury et al. 2024. The model stays near the base
    model's answers. With LoRA the base model is the model without its adapters, so that no second copy is in memory.
    """
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    return train_on_pairs(
        context, parameters, DPOTrainer, DPOConfig, _USUAL_DPO_RATE,
        beta=parameters.beta,
        loss_type=[parameters.loss_type, *(["sft"] if parameters.rpo_alpha else [])],
        loss_weights=[1.0, parameters.rpo_alpha] if parameters.rpo_alpha else None,
        label_smoothing=parameters.label_smoothing,
    )  # fmt: skip


def fit_kto(context: TrainingContext, parameters: KtoParameters) -> SelectedModel:
    """Kahneman-Tversky optimization: learn from single answers that are good or bad (Ethayarajh et al. 2024).

    Each pair gives two answers. The model stays near the base model; the distance is measured in every batch by answers
    to other questions. So at least two answers are in memory at once, and their number changes more than rounding.
    """
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    together = micro_batch(parameters.batch_size, parameters.per_device_train_batch_size, context.run.memory_retries)
    if together < 2:
        raise SpeciateError(
            Code.INVALID,
            "kto measures the distance to the base model by the answers to other questions in memory, and there is "
            "one answer in memory at a time.",
            "Call train_model again with an even batch_size and a smaller hyperparameters={'max_length': ...}, with "
            "{'gradient_checkpointing': true}, or with method='dpo'.",
        )
    return train_on_pairs(
        context, parameters, KTOTrainer, KTOConfig, _USUAL_KTO_RATE,
        shown=partial(verdict_rows, seed=context.payload.spec.seed, together=together),
        beta=parameters.beta,
        desirable_weight=parameters.desirable_weight,
        undesirable_weight=parameters.undesirable_weight,
    )  # fmt: skip


def fit_orpo(context: TrainingContext, parameters: OrpoParameters) -> SelectedModel:
    """Odds ratio preference optimization: learn the better answer word by word, and to prefer it (Hong et al. 2024).

    There is no reference model: one copy is in memory. trl has it among its experiments, where the words of the
    question are learned with those of the better answer, as in the paper's own code.
    """
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return train_on_pairs(
        context, parameters, ORPOTrainer, ORPOConfig, _USUAL_ORPO_RATE,
        shown=sequence_rows,
        beta=parameters.beta,
    )  # fmt: skip


def fit_simpo(context: TrainingContext, parameters: SimpoParameters) -> SelectedModel:
    """Simple preference optimization: compare the mean log-probability per token of two answers (Meng et al. 2024).

    There is no reference model: one copy is in memory. trl has it among its experiments, as a loss of CPO.
    """
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return train_on_pairs(
        context, parameters, CPOTrainer, CPOConfig, _USUAL_SIMPO_RATE,
        shown=sequence_rows,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=parameters.beta,
        simpo_gamma=parameters.simpo_gamma,
    )  # fmt: skip


def train_on_pairs(
    context: TrainingContext,
    parameters: PairParameters,
    trainer: type[Any],
    config: type[Any],
    usual_rate: float,
    *,
    shown: Callable[[Sequence[PairTokens]], Any] = pair_rows,
    **loss: Any,
) -> SelectedModel:
    """`trainer` and `config` are trl's; `shown` makes its rows of pairs; `loss`: further arguments of `config`."""
    began = time.monotonic()
    context.progress(0, None, "", "loading the base model")
    with context.meter.stage("preparing"):
        found = prepare_pairs(context, parameters)
        learner = found.learner
        limit = min(parameters.max_length, learner.longest)
        train, held = (
            tokenize_pairs(some, learner.tokenizer, found.chat_format, limit) for some in (found.train, found.held)
        )
        if not train:
            raise SpeciateError(
                Code.INVALID,
                f"No pair of {context.payload.dataset} has an answer left: questions alone have {limit} tokens and "
                "more.",
                "Call train_model again with a larger hyperparameters={'max_length': ...}, or shorten the questions "
                "with curate_dataset.",
            )
        running = make_durable(taking_tokens(trainer))(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=config(**trainer_arguments(context, parameters, usual_rate), max_length=limit, **loss),
            train_dataset=shown(train),
            eval_dataset=shown(held),
            peft_config=lora_config(parameters),
        )
        running.begin(make_session(context, parameters, learner, digest(train, held)))
    ending = running.go()
    predictor = finished_predictor(context, running, learner, found.chat_format, parameters)
    return answer_validation.select_trained(context, predictor, parameters, ending, began)


def taking_tokens(trainer: type[Any]) -> type[Any]:
    """A trainer of trl that takes tokens as they are."""
    return type(trainer.__name__, (_TakingTokens, trainer), {})


class _TakingTokens:
    def _prepare_dataset(self, dataset: Any, *given: Any, **named: Any) -> Any:
        return dataset

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, object]:
        """Nothing beside the tokens that a row has; of the trainers among trl's experiments."""
        return {}
