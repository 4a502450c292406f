"""Recipes `grpo` and `rloo`: reinforcement learning from rewards of a language model's answers, with trl's trainers.

GRPO (Shao et al. 2024) compares several answers to a question: those better than their mean become likelier.
`loss_type` has later forms: DAPO (Yu et al. 2025), Dr. GRPO (Liu et al. 2025), CISPO (MiniMax 2025); with
`importance_sampling_level=sequence` it is GSPO (Zheng et al. 2025)."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.statistics import Estimate, mean
from speciate.models.language.chat_templates import ChatFormat
from speciate.training.language import answer_validation, reward_hacking
from speciate.training.language.answer_validation import NOT_MEASURED
from speciate.training.language.durable_trainer import TrainerEnding
from speciate.training.language.model_setup import (
    TrainerArguments,
    digest,
    finished_predictor,
    load_base_model,
    lora_config,
    make_session,
    trainer_arguments,
)
from speciate.training.language.policy_trainer import PolicyEvaluation, make_policy_trainer
from speciate.training.language.questions import Question, check_questions, find_questions, question_rows, short_enough
from speciate.training.language.tokenized_examples import choose_prompt_form
from speciate.training.language_hyperparameters import GrpoParameters, ReinforcementParameters, RlooParameters
from speciate.training.rewards.reward_functions import RewardFunctions, open_reward_functions
from speciate.training.rewards.tool_environment import EnvironmentHost
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext
from speciate.training.training_report import MethodReport

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_USUAL_RATE = 1e-6
"""Usual learning rate where every weight learns (trl 1.16)."""
_ERROR_SHOWN = 200
"""Characters of a library's error."""


def fit_grpo(context: TrainingContext, parameters: GrpoParameters) -> SelectedModel:
    """Group relative policy optimization: of several answers to a question, raise the probability
    of those that score above the mean of the group."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    return train_with_rewards(
        context, parameters, GRPOTrainer, GRPOConfig,
        loss_type=parameters.loss_type,
        scale_rewards=parameters.scale_rewards,
        epsilon_high=parameters.epsilon_high,
        importance_sampling_level=parameters.importance_sampling_level,
    )  # fmt: skip


def fit_rloo(context: TrainingContext, parameters: RlooParameters) -> SelectedModel:
    """REINFORCE leave-one-out (Ahmadian et al. 2024).

    Each answer is compared with the mean of the other answers to its question, and learned as a whole. The distance to
    the base model is taken from the reward.
    """
    from trl.trainer.rloo_config import RLOOConfig
    from trl.trainer.rloo_trainer import RLOOTrainer

    return train_with_rewards(
        context, parameters, RLOOTrainer, RLOOConfig, normalize_advantages=parameters.normalize_advantages
    )


def train_with_rewards(
    context: TrainingContext, parameters: ReinforcementParameters, trainer: type[Any], config: type[Any], **loss: Any
) -> SelectedModel:
    """`trainer` and `config` are trl's; `loss`: further arguments of `config`, in which the recipes differ."""
    began = time.monotonic()
    context.progress(0, None, "", "loading the base model")
    environment = getattr(parameters, "environment", None)
    with context.meter.stage("preparing"):
        learner = load_base_model(context, parameters)
        learner.model.config.use_cache = not parameters.gradient_checkpointing
        train, held = _load_questions(context, parameters)
        chat_format = choose_prompt_form(context, learner.tokenizer, parameters, [each.prompt for each in train])
        limits = (context, learner.tokenizer, chat_format, parameters, learner.longest)
        train, held = short_enough(*limits, train, "training"), short_enough(*limits, held, "validation")
        held = held[: parameters.judged]
    with open_reward_functions(context, parameters.rewards, environment, [*train, *held]) as opened:
        with context.meter.stage("preparing"):
            every = question_rows([*train, *held], chat_format)
            more: TrainerArguments = {}
            if opened.host is not None:
                loss |= tool_arguments(context, learner.tokenizer, chat_format, opened.host)
                more["environment_factory"] = opened.host.kind
            running = make_policy_trainer(trainer)(
                model=learner.model,
                reward_funcs=opened.functions(train),
                processing_class=learner.tokenizer,
                args=config(
                    **trainer_arguments(context, parameters, _USUAL_RATE),
                    num_generations=parameters.num_generations,
                    max_completion_length=parameters.max_completion_length,
                    temperature=parameters.temperature,
                    top_p=parameters.top_p,
                    top_k=parameters.top_k,
                    beta=parameters.beta,
                    num_iterations=parameters.num_iterations,
                    epsilon=parameters.epsilon,
                    mask_truncated_completions=parameters.mask_truncated_completions,
                    reward_weights=opened.weights,
                    **loss,
                ),
                train_dataset=every.select(range(len(train))),
                peft_config=lora_config(parameters),
                **more,
            )
            held_rows = every.select([*range(len(train), len(every))])  # datasets refuses an empty range
            running.ask(PolicyEvaluation(opened, held, chat_format, parameters, held_rows))
            data = digest([(each.example.id, each.prompt, each.reference) for each in (*train, *held)], chat_format)
            running.begin(make_session(context, parameters, learner, data, watch_loss=False))
        ending = running.go()
        predictor = finished_predictor(context, running, learner, chat_format, parameters)
        played = value_in_environment(context, running) if opened.host is not None else None
        chosen = answer_validation.select_trained(context, predictor, parameters, ending, began, played)
        _report_training(context, running, opened, ending)
    return chosen


def _load_questions(
    context: TrainingContext, parameters: ReinforcementParameters
) -> tuple[list[Question], list[Question]]:
    """Questions of both splits, in the order of their ids, also those without a reference."""
    train = find_questions(context, _by_id([*context.train, *context.unlabelled_train]))
    held = find_questions(context, _by_id([*context.validation, *context.unlabelled_held]))
    return check_questions(context, parameters, train, held), held


def _by_id(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda each: each.id)


def _report_training(context: TrainingContext, running: Any, opened: RewardFunctions, ending: TrainerEnding) -> None:
    """What was watched, in the report; what is suspicious, in its notes."""
    evaluations = running.evaluations
    found = reward_hacking.warnings(running.seen, evaluations.held)
    first, last = reward_hacking.ends(running.seen) if running.seen else (None, None)
    context.report["training"] |= {"held_loss": None, "held": dict(ending.held)}
    context.report["watched"] = {
        "begin": _finite_fields(first), "end": _finite_fields(last),
        "held": [_finite_fields(each) for each in evaluations.held],
        "gain": _metric_gain(running),
        "warnings": [{"pattern": each.pattern, "what": each.said} for each in found],
        "stopped": running.stopped,
        "rewards": opened.report(),
    }  # fmt: skip
    if running.stopped:
        kept = f"what is kept is of step {ending.step}"
        context.notes.append(f"The training was ended at step {ending.steps}: {running.stopped}; {kept}.")
    context.notes += [f"Suspicious: {each.said}." for each in found]
    for each in opened.opened:
        if missed := sum(each.failures.counted.values()):
            context.notes.append(
                f"The reward {each.name!r} said nothing of {missed} of {each.failures.requests} answers: "
                f"{', '.join(f'{count} {why}' for why, count in each.failures.counted.most_common())}."
            )


def _finite_fields(row: Any) -> dict[str, float] | None:
    return None if row is None else {name: each for name, each in row._asdict().items() if math.isfinite(each)}


def _metric_gain(running: Any) -> MethodReport | None:
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


def tool_arguments(
    context: TrainingContext, tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, host: EnvironmentHost
) -> TrainerArguments:
    """Arguments of trl's configuration that an environment needs. INVALID where trl cannot read tool calls of this
    template, or cannot show the tools."""
    from transformers.utils.chat_template_utils import get_json_schema
    from trl.chat_template_utils import add_response_schema, supports_tool_calling

    what = str(context.payload.spec.base_model)
    if chat_format.template != "chat" or not supports_tool_calling(tokenizer):
        raise _no_tool_calling(what, "has no chat template that shows calls of tools and their answers")
    if not (getattr(tokenizer, "response_template", None) or getattr(tokenizer, "response_schema", None)):
        try:
            add_response_schema(tokenizer)
        except ValueError as error:
            raise _no_tool_calling(what, "has a chat template whose calls of tools trl cannot read") from error
    instance = host.kind()
    for each in host.described.tools:
        try:
            get_json_schema(getattr(instance, each.name))
        except Exception as error:  # its own kinds of errors, told as one
            raise SpeciateError(
                Code.INVALID,
                f"The tool {each.name} of {host.described.file.name} cannot be told to a model: "
                f"{str(error)[:_ERROR_SHOWN]}.",
                "Write its docstring as Google does, with a line for each argument, then call again.",
            ) from error
    context.notes.append("Its values are those with its environment; predict and evaluate_models ask it without tools.")
    return {"max_tool_calling_iterations": host.spec.max_tool_calling_iterations}


def value_in_environment(context: TrainingContext, running: Any) -> Estimate:
    """The metric of what is kept, as it was measured with its environment."""
    scores = running.evaluations.scores.get(running.kept_step)
    if not scores:
        return NOT_MEASURED
    return mean(scores, running.evaluations.clusters)


def _no_tool_calling(what: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{what} {why}, so it cannot be trained in an environment.",
        "Name a base model with the template of Qwen 2.5, Qwen 3, Llama 3.1, GLM 4, GPT-OSS or another that trl "
        "knows; or bring one with hyperparameters={'chat_template': JINJA}, as trl/chat_templates has it.",
    )
