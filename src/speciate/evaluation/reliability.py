"""Whether a model is as often right as it says. Runs in a service process, over stored answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speciate.evaluation.stored import has_labels, read_answers, read_examples

BINS = 10


def calibrated(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, metric, models}` -> `{models: [{model, n, without, error, bins: [[low, high, count, confidence,
    accuracy], ...]}]}`.

    Ten bins of equal width, each open below, empty ones left out. `error` is the expected calibration error (Naeini et
    al. 2015): the mean of |accuracy - confidence| over the answers' bins. `without` counts answers that came with no
    confidence, which are in no bin. Nothing where answers are no labels.
    """
    if not has_labels(payload["metric"]):
        return {"models": []}
    truths = {name: row["truth"] for name, row in read_examples(payload).items()}
    answers = read_answers(payload, payload["models"])
    return {"models": [_of(model, truths, answers) for model in payload["models"]]}


def _of(model: str, truths: Mapping[str, str], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mine = [answer for answer in answers if answer["model"] == model]
    sure = [answer for answer in mine if answer["confidence"] is not None and answer["output"] is not None]
    confidence = np.array([answer["confidence"] for answer in sure], float)
    right = np.array([answer["output"] == truths[answer["example"]] for answer in sure], float)
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    bins = []
    for place in np.unique(places).tolist():
        inside = places == place
        means = float(confidence[inside].mean()), float(right[inside].mean())
        bins.append([place / BINS, (place + 1) / BINS, int(inside.sum()), *(round(mean, 4) for mean in means)])
    error = sum(count * abs(accuracy - stated) for _, _, count, stated, accuracy in bins) / max(len(sure), 1)
    return {
        "model": model,
        "n": len(sure),
        "without": len(mine) - len(sure),
        "error": round(error, 4) if sure else None,
        "bins": bins,
    }
