"""Vectors by which what belongs together is found."""

from __future__ import annotations

import json

import numpy as np
import pytest

from speciate.evaluation.metrics import contributions, judged
from speciate.tasks.families.retrieval import Retrieval
from speciate.tasks.task import TaskTerms
from speciate.vocabulary import find_metric
from tests.tasks.world import again, examples, learned

(EXAMPLE,) = examples("x")


def recall(labels: list[str], vectors: list[list[float]]) -> float:
    made = judged("retrieval", labels, vectors, [None] * len(labels), ())
    return float(np.nanmean(contributions(find_metric("recall_at_1"), made)))


def test_a_head_brings_together_what_belongs_together_also_of_new_labels() -> None:
    random = np.random.default_rng(1)
    labels = [str(i % 12) for i in range(120)]
    media = []
    for label in labels:
        medium = random.normal(scale=3.0, size=(2, 12))  # ten numbers are noise
        medium[:, :2] = np.array([np.cos(int(label) / 2), np.sin(int(label) / 2)]) + random.normal(
            scale=0.05, size=(2, 2)
        )
        media.append(medium.astype(np.float32))
    known = [i for i, label in enumerate(labels) if int(label) % 3]
    new = [i for i, label in enumerate(labels) if int(label) % 3 == 0]
    task_head = Retrieval.fit([labels[i] for i in known], {"dimensions": 8})
    scores, losses = learned(task_head, [media[i] for i in known], [labels[i] for i in known], 400)
    assert np.mean(losses[-20:]) < 0.7 * losses[0]
    before = recall([labels[i] for i in new], [media[i].ravel().tolist() for i in new])
    made = task_head.predictions(np.stack(scores([media[i] for i in new])))
    assert recall([labels[i] for i in new], [one.output for one in made]) > before + 0.2
    assert len(made[0].output) == 8
    assert np.linalg.norm(made[0].output) == pytest.approx(1, abs=1e-4)
    assert json.loads(json.dumps(made[0].output)) == made[0].output


def test_a_batch_without_partners_teaches_nothing() -> None:
    task_head = Retrieval.fit(["a", "b"], {})
    assert task_head.dimensions == 128
    media = [np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)]
    _, losses = learned(task_head, media, ["a", "b"], 2)
    assert losses == [0, 0]


def test_new_labels_have_codes_of_their_own() -> None:
    task_head = Retrieval.fit(["b", "a"], {})
    assert task_head.labels == ()
    assert task_head.encode_targets(["b", "y", "x", "y"]).tolist() == [1, -2, -1, -2]
    assert again(task_head) == task_head


def test_a_label_is_a_word_or_a_number() -> None:
    assert Retrieval.evaluation_example(EXAMPLE, "", TaskTerms()) is None
    posed = Retrieval.evaluation_example(EXAMPLE, 7, TaskTerms())
    assert posed is not None
    assert posed.target == "7"
