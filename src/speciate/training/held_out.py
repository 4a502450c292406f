"""What a candidate is worth on examples that it has not learned from: the objective's metric with its interval.

Where normal examples alone are held out, the metric says nothing: then how tightly a learner fits them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.evaluation.metrics import contributions, corpus, judged
from speciate.evaluation.statistics import Estimate, bootstrap, mean, resample
from speciate.models.estimators import Estimator
from speciate.tasks.task import Prediction, Scores, TaskHead, predict_examples
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_metric


def measure(context: TrainingContext, task_head: TaskHead, held: Sequence[Example], scores: Any) -> Estimate:
    """The objective's metric with its interval, clustered by group. `scores`: as the task_head takes them."""
    return measure_answers(context, task_head, held, predict_examples(task_head, scores, held))


def measure_answers(
    context: TrainingContext, task_head: TaskHead, held: Sequence[Example], given: Sequence[Prediction]
) -> Estimate:
    """The objective's metric with its interval, clustered by group, for answers, whoever gave them."""
    metric = find_metric(context.payload.objective.metric)
    groups = [example.group or example.id for example in held]
    examples = len({example.id for example in held})  # folds may be repeated
    marked = _contributions(context, task_head, held, given)
    clusters = np.unique(np.array(groups), return_inverse=True)[1]
    if metric.shape == "corpus":
        return bootstrap(resample(corpus(metric, marked, clusters), clusters), share=metric.is_share)
    found = mean(contributions(metric, marked), clusters)
    return found._replace(n=min(found.n, examples))


def scores_of(
    context: TrainingContext, task_head: TaskHead, held: Sequence[Example], given: Sequence[Prediction]
) -> list[float]:
    """Value of each example under the objective's metric; NaN where it does not count. Empty for a corpus metric."""
    metric = find_metric(context.payload.objective.metric)
    if metric.shape == "corpus":
        return []
    return [float(each) for each in contributions(metric, _contributions(context, task_head, held, given))]


def _contributions(
    context: TrainingContext, task_head: TaskHead, held: Sequence[Example], given: Sequence[Prediction]
) -> Any:
    return judged(
        task_head.family,
        context.labels(held),
        [one.output for one in given],
        [one.probabilities for one in given],
        task_head.labels,
        context.payload.objective.positive_label,
    )


TIGHTNESS_NOTE = (
    "No anomaly was held out, so the metric could choose nothing: the learner was kept that best tells held-out normal "
    "examples from shuffled ones. Bring labelled anomalies in the split 'validation' to choose by what counts."
)


def tightness(fitted: Sequence[Estimator], held: Sequence[Any], scores: Scores, seed: int) -> float:
    """How tightly learners of normal examples fit them, measured without a single anomaly.

    Area under the ROC curve of held-out normal examples against shuffled ones, between 0 and 1; 1 is tightest.
    Shuffled: each column by itself, so that every number is usual and no two belong together (Shi & Horvath 2006).
    `held`: for each estimator the inputs (M, D) that it did not learn from; `scores`: what all of them got, (N, 1).
    """
    generator = np.random.default_rng(seed)
    made = [one.scores(_shuffled(inputs, generator)) for one, inputs in zip(fitted, held, strict=True)]
    normal, odd = np.sort(scores[:, 0]), np.concatenate(made)[:, 0]
    below, up_to = np.searchsorted(normal, odd, "left"), np.searchsorted(normal, odd, "right")
    return float((below + up_to).mean() / 2 / len(normal))


def _shuffled(rows: Any, generator: np.random.Generator) -> Any:
    """Sparse rows have too little in common to be shuffled as they are: their words are dealt out anew."""
    if not hasattr(rows, "tocsc"):
        return generator.permuted(np.asarray(rows, np.float64), axis=0)
    from scipy.sparse import csr_array

    dealt = generator.permutation(rows.indices)
    return csr_array((rows.data, dealt, rows.indptr), shape=rows.shape)
