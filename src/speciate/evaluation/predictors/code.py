"""A function in somebody's file, asked in a sandbox that reads nothing of the workspace and has no network.

    def predict(inputs: list) -> list

An input is text, a table row as a dict, or a numpy array as its modality decodes it. An answer is a label, a number or
whatever the task's references are; or a dict with `output` and, where it knows them, `confidence` and `probabilities`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.environments import rollouts
from speciate.evaluation.predictors.answering import AskModel, ModelAnswers, PredictorRequest, answer_all
from speciate.evaluation.predictors.code_process import code_identity, pack
from speciate.evaluation.predictors.timing import TimedModel, measure_by_turns
from speciate.sandbox import user_code
from speciate.sandbox.client import NoAnswer, RestartingClient, SandboxClient
from speciate.settings import in_force
from speciate.tasks.task import Prediction

_MODULE = "speciate.evaluation.predictors.code_process"
_SECONDS = 60.0
"""For a chunk of examples, which are then asked for one by one."""
_MOST_ENDS = 10
"""Processes that took too long or died; after so many nothing more is asked."""


def predict_code(asked: PredictorRequest) -> ModelAnswers:
    task, evaluated_model = asked.task, asked.evaluated_model
    identity = rollouts.rollout_identity(evaluated_model.identity, task.metrics)
    with _open_function(asked) as ask:
        acts = rollouts.with_rollouts(ask, asked.examples, task.metrics, asked.run.folders.root, asked.run.folder.path)
        times = [
            answer_all(asked.run, identity, asked.examples, acts, asked.on_progress, repeat)
            for repeat in range(task.repeats)
        ]
        answered = [example for example, answer in zip(asked.examples, times[0], strict=True) if answer.error is None]
        if not (answered and task.latency):
            return ModelAnswers(evaluated_model, tuple(times))
        (cost,) = measure_by_turns(
            [TimedModel(ask, answered, None)], latency=True, limits=task.cost_limits, seed=task.seed
        )
        return ModelAnswers(evaluated_model, tuple(times), cost)


@contextlib.contextmanager
def _open_function(asked: PredictorRequest) -> Iterator[AskModel]:
    """The function, in a process that lives as long as it behaves."""
    source, policy = _source(asked), in_force(asked.run.folders.root).cage

    def load() -> SandboxClient:
        client = SandboxClient(_MODULE, asked.run.folder.path, policy)
        return user_code.load_code(client, source, f"The function {source['function']} of {source['name']}")

    process = RestartingClient(load, "chunks of examples")

    def predict(examples: Sequence[Example]) -> list[Prediction]:
        answer = process.ask([pack(example.media) for example in examples], _SECONDS, _MOST_ENDS)
        if isinstance(answer, NoAnswer):
            raise RuntimeError(answer.detail)
        if not isinstance(answer, list) or len(answer) != len(examples):
            raise RuntimeError("it gave no list of as many answers as there are inputs")
        return [Prediction(*each) for each in answer]

    try:
        yield predict
    finally:
        process.end()


def _source(asked: PredictorRequest) -> dict[str, str]:
    """What the file holds, if that is what the evaluation was asked for with."""
    file, function = Path(asked.evaluated_model.path or ""), asked.evaluated_model.function or ""
    content = user_code.read_code(file, "Call evaluate_models again with a file that is there.")
    if code_identity(content, function) != asked.evaluated_model.identity:
        raise SpeciateError(
            Code.CONFLICT,
            f"{file.name} has changed since the evaluation was asked for.",
            "Call evaluate_models again: it is another candidate now.",
        )
    return {"source": content.decode(), "function": function, "name": file.name}
