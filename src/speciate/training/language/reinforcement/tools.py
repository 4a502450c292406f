"""What a training with an environment needs beside: a chat template whose calls trl reads, and another judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speciate.errors import Code, SpeciateError
from speciate.evaluation.statistics import Estimate, mean
from speciate.language.forms import Form
from speciate.training.language.judging import NOT_JUDGED
from speciate.training.language.reinforcement.environment import Host
from speciate.training.study import Study

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 200


def settings(study: Study, tokenizer: PreTrainedTokenizerBase, asked: Form, host: Host) -> dict[str, Any]:
    """Of trl's configuration. INVALID where trl cannot read tool calls of this template, or cannot show the tools."""
    from transformers.utils.chat_template_utils import get_json_schema
    from trl.chat_template_utils import add_response_schema, supports_tool_calling

    what = str(study.payload.spec.base_model)
    if asked.template != "chat" or not supports_tool_calling(tokenizer):
        raise _no_tools(what, "has no chat template that shows calls of tools and their answers")
    if not (getattr(tokenizer, "response_template", None) or getattr(tokenizer, "response_schema", None)):
        try:
            add_response_schema(tokenizer)
        except ValueError as error:
            raise _no_tools(what, "has a chat template whose calls of tools trl cannot read") from error
    instance = host.kind()
    for each in host.described.tools:
        try:
            get_json_schema(getattr(instance, each.name))
        except Exception as error:  # its own kinds of errors, told as one
            raise SpeciateError(
                Code.INVALID,
                f"The tool {each.name} of {host.described.file.name} cannot be told to a model: {str(error)[:_SHOWN]}.",
                "Write its docstring as Google does, with a line for each argument, then call again.",
            ) from error
    study.notes.append("Its values are those with its environment; predict and evaluate_models ask it without tools.")
    return {"max_tool_calling_iterations": host.spec.rounds}


def judged(study: Study, running: Any) -> Estimate:
    """The metric of what is kept, as it was measured with its environment."""
    scores = running.evaluations.scores.get(running.kept_step)
    if not scores:
        return NOT_JUDGED
    return mean(scores, running.evaluations.clusters)


def _no_tools(what: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{what} {why}, so it cannot be trained in an environment.",
        "Name a base model with the template of Qwen 2.5, Qwen 3, Llama 3.1, GLM 4, GPT-OSS or another that trl "
        "knows; or bring one with hyperparameters={'chat_template': JINJA}, as trl/chat_templates has it.",
    )
