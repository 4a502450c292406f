"""How tightly a learner of normal examples fits them, known without a single anomaly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate.models.estimators import Estimator
from speciate.tasks.contract import Scores

HOW = (
    "No anomaly was held out, so the metric could choose nothing: the learner was kept that best tells held-out normal "
    "examples from shuffled ones. Bring labelled anomalies in the split 'validation' to choose by what counts."
)


def tightness(fitted: Sequence[Estimator], held: Sequence[Any], scores: Scores, seed: int) -> float:
    """Area under the ROC curve of held-out normal examples against shuffled ones, between 0 and 1; 1 is tightest.

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
