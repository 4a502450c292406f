"""What earlier versions were judged by: held-out examples of each, and what a model forgot of them.

Validation examples of an earlier version judge, too, which weights are kept; where it has none, its test examples only
tell, at the end, what was forgotten. Of neither counts what any model of the line or the new version learned from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from speciate.datasets import scan
from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest
from speciate.evaluation.seen import seen
from speciate.tasks.contract import Predictor, Readout
from speciate.training.continual.buffer import FROM
from speciate.training.selection import measure_answers
from speciate.training.study import Slice, Study
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Folders

_MOST = 1000
"""Examples of a slice."""


class Measured(NamedTuple):
    """Of one slice; NaN where the metric is undefined."""

    slice: Slice
    before: float
    after: float


def read(folders: Folders, now: Manifest, earlier: Sequence[Manifest], seed: int) -> list[tuple[Slice, set[str]]]:
    """Oldest first, with the ids of those that may judge: no example twice, none of the new version's own.

    `earlier`: newest first, as `learned_from` has it.
    """
    found: list[tuple[Slice, set[str]]] = []
    others = [now]
    for version in earlier:
        split = next((name for name in ("validation", "test") if version.splits.get(name)), None)
        if split is None or FROM in version.columns:
            continue
        ids = scan.read(folders, version, ["id"], splits=(split,), usable=True)["id"].to_pylist()
        learned = seen(folders, version, ids, [now, *earlier], ("train",))
        order = sorted(set(ids) - learned, key=lambda each: hashlib.sha256(f"{seed}:{each}".encode()).digest())
        kept = sorted(order[:_MOST])
        if not kept:
            continue
        again = seen(folders, version, kept, others, ("validation",)) if split == "validation" else set(kept)
        again |= seen(folders, version, kept, [now, *earlier], ("test",))  # what decides in the end chooses nothing
        examples = [each._replace(split="validation") for each in load_examples(folders, version, ids=kept)]
        found.insert(0, (Slice(version.ref, split, examples), set(kept) - again))
        others.append(version)
    return found


def add(study: Study) -> list[Slice]:
    """The slices, asked of this study: what may judge comes to its validation examples."""
    payload = study.payload
    for one, judging in read(study.folders, payload.manifest, payload.base_learned_from or (), payload.spec.seed):
        asked = study.ask_too(one.examples)
        study.slices.append(one._replace(examples=asked))
        study.validation += [example for example in asked if example.id.partition("#")[0] in judging]
    return study.slices


def forgetting(study: Study, slices: Sequence[Slice], before: Predictor, after: Predictor) -> dict[str, Any]:
    """For the report. Backward transfer: how much better the new model is on the earlier versions' held-out examples
    than the one that it began with, in the mean over them (Lopez-Paz & Ranzato 2017); forgetting: how much worse, where
    it is worse."""
    metric = find_metric(study.payload.objective.metric)
    measured = [
        Measured(each, _value(study, before, each.examples), _value(study, after, each.examples))
        for each in slices
        if each.examples
    ]
    changes = [metric.sign * (each.after - each.before) for each in measured]
    changes = [change for change in changes if math.isfinite(change)]
    return {
        "metric": metric.name,
        "began_with": study.payload.spec.base_model,
        "slices": [
            {
                "dataset": each.slice.dataset, "split": each.slice.split, "n": len(each.slice.examples),
                "before": _shown(each.before), "after": _shown(each.after),
                "change": _shown(each.after - each.before),
            }
            for each in measured
        ],
        "backward_transfer": _shown(fmean(changes)) if changes else None,
        "forgetting": _shown(fmean(max(0.0, -change) for change in changes)) if changes else None,
    }  # fmt: skip


def _value(study: Study, model: Predictor, examples: Sequence[Example]) -> float:
    readout: Readout | Any = getattr(model, "readout", study.readout)
    return float(measure_answers(study, readout, examples, model.predict(examples)).value)


def _shown(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
