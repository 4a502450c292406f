"""A registered model, asked on this machine."""

from __future__ import annotations

from pathlib import Path

from speciate.evaluation import rollouts
from speciate.evaluation.answers import answer_all
from speciate.evaluation.memory import measure_memory
from speciate.evaluation.predictors.contract import Asked, Sheet
from speciate.evaluation.timing import measure
from speciate.language.bases import ready
from speciate.tasks.predictor import load
from speciate.tasks.seeing import SeeingPredictor
from speciate.tasks.writing import WritingPredictor

_MEMORY_EXAMPLES = 16


def hand_in(asked: Asked) -> Sheet:
    task, contestant = asked.task, asked.contestant
    path = ready(Path(contestant.path or ""), asked.run.folders.cache)
    predictor = load(path)
    cached = load(path, asked.run.folders).predict  # features are: the answers are the same, only sooner
    ask = rollouts.acting(cached, asked.examples, task.metrics, asked.run.folders.root, asked.run.folder.path)
    identity = rollouts.identified(contestant.identity, task.metrics)
    answers = answer_all(asked.run, identity, asked.examples, ask, asked.tell)
    answered = [example for example, answer in zip(asked.examples, answers, strict=True) if answer.error is None]
    if not answered:
        return Sheet(contestant, (answers,))
    cost = measure(predictor.predict, answered, task.usd_per_core_hour, latency=task.latency, seed=task.seed)
    notes: tuple[str, ...] = ()
    if isinstance(predictor, WritingPredictor | SeeingPredictor):
        notes = (f"{contestant.name} is {predictor.how}.",)
    return Sheet(contestant, (answers,), cost._replace(memory_mb=_memory(asked, path)), notes=notes)


def _memory(asked: Asked, path: Path) -> float | None:
    if not asked.task.asks_for_memory:
        return None
    few = [example.id for example in asked.examples[:_MEMORY_EXAMPLES]]
    shown = asked.task.dataset.model_copy(update={"inputs": asked.contestant.inputs or asked.task.dataset.inputs})
    return measure_memory(asked.run.folders, path, shown, few)
