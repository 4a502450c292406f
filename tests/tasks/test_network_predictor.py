"""Real backbones with heads of several tasks: as many answers as there are, and the same after saving and loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speciate.models.backbones import architectures
from speciate.tasks import predictor
from speciate.tasks.families.classification import Classification
from speciate.tasks.families.multi_label import MultiLabel
from speciate.tasks.families.ordinal import Ordinal
from speciate.tasks.families.regression import Regression
from speciate.tasks.families.retrieval import Retrieval
from speciate.tasks.families.tokens import Tokens
from speciate.tasks.families.transcription import Transcription
from speciate.tasks.network_predictor import NetworkPredictor, warm_start
from tests.tasks.world import examples

WORDS = ["one two three", "two", "three " * 20, "one one"]
SEQUENCES = ["MKVL", "ACDEFGHIKLMNPQRSTVWY" * 2, "WW"]
WAVES = [np.sin(np.arange(n) / 9).astype(np.float32) for n in (8000, 16000)]
CASES: list[tuple[str, str, list[Any], Any, dict[str, Any]]] = [
    ("token-classification", "new:bert", WORDS, Tokens.fit([["A", "B", "C"]], {}), {"max_tokens": 16}),
    (
        "token-classification",
        "new:esm",
        SEQUENCES,
        Tokens.fit([["A", "B"]], {"modality": "protein"}),
        {"max_tokens": 32},
    ),
    ("text-multi-label-classification", "new:bert", WORDS, MultiLabel.fit([["a"], ["b", "c"]], {}), {}),
    ("text-ordinal-classification", "new:bert", WORDS, Ordinal.fit(["1", "2", "3"], {}), {}),
    ("feature-extraction", "new:bert", WORDS, Retrieval.fit(["a", "b"], {}), {}),
    ("automatic-speech-recognition", "new:wav2vec2", WAVES, Transcription.fit(["ab"], {}), {}),
]


@pytest.mark.parametrize(("task", "base_model", "media", "task_head", "options"), CASES)
def test_a_network_answers_alike_after_it_was_saved(
    tmp_path: Path, task: str, base_model: str, media: list[Any], task_head: Any, options: dict[str, Any]
) -> None:
    backbone = architectures.build(base_model, media, 0, None, **options)
    made = NetworkPredictor(task, task_head, backbone, task_head.head(backbone.width))
    before = made.predict(examples(*media))
    made.save(tmp_path / "model")
    assert "readout" in json.loads((tmp_path / "model" / "predictor.json").read_text()), "as in every older model"
    after = predictor.load(tmp_path / "model").predict(examples(*media))
    assert [one.output for one in after] == [one.output for one in before]
    if task_head.family == "tokens":
        wanted = [len(medium) if base_model == "new:esm" else len(medium.split()) for medium in media]
        assert [len(one.output) for one in after] == wanted


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (Transcription.fit(["abc"], {}), Transcription.fit(["xyz"], {}), False),
        (Transcription.fit(["abc"], {}), Transcription.fit(["cab"], {}), True),
        (Regression(mean=1.0, spread=2.0), Regression(mean=9.0, spread=2.0), False),
        (Retrieval.fit(["a", "b"], {}), Retrieval.fit(["a", "c"], {}), True),
        (Classification(labels=("a", "b"), temperature=2.0), Classification(labels=("a", "b")), True),
        (Classification(labels=("a", "b")), Classification(labels=("a", "c")), False),
    ],
)
def test_a_head_is_taken_over_where_its_outputs_mean_the_same(
    tmp_path: Path, before: Any, after: Any, *, same: bool
) -> None:
    backbone = architectures.build("new:bert", WORDS, 0, None)
    trained, fresh = before.head(backbone.width), after.head(backbone.width)
    NetworkPredictor("some-task", before, backbone, trained).save(tmp_path / "model")
    assert warm_start(fresh, after, tmp_path / "model") is same
    equal = [torch.equal(one, other) for one, other in zip(trained.parameters(), fresh.parameters(), strict=True)]
    assert all(equal) is same
