"""The answer without a model, which every model must beat."""

from __future__ import annotations

from speciate.evaluation import rollouts
from speciate.evaluation.answers import Answer
from speciate.evaluation.compare import Cost
from speciate.evaluation.predictors.contract import Asked, Sheet
from speciate.tasks.predictor import constant


def hand_in(asked: Asked) -> Sheet:
    task = asked.task
    predictor = constant(task.task, asked.learned, task.terms._replace(modality=task.dataset.modality))
    run = asked.run
    ask = rollouts.acting(predictor.predict, asked.examples, task.metrics, run.folders.root, run.folder.path)
    answers = [Answer(*prediction) for prediction in ask(asked.examples)]
    return Sheet(asked.contestant, (answers,), Cost(0.0))
