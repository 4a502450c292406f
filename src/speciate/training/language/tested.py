"""The test split of a training's dataset. Nothing is learned of it: it is only looked for in the training split."""

from __future__ import annotations

from speciate.datasets.loading.loader import Example, load_examples
from speciate.tasks.contract import Posed
from speciate.tasks.truth import questions
from speciate.training.study import Study


def examples(study: Study) -> list[Example]:
    manifest = study.payload.manifest
    return load_examples(study.folders, manifest, ("test",)) if manifest.splits.get("test") else []


def posed(study: Study) -> list[Posed]:
    """With what is true of each; those of which nothing is known are left out."""
    payload = study.payload
    found = examples(study)
    return questions(found, payload.manifest, payload.target, payload.task, payload.terms) if found else []
