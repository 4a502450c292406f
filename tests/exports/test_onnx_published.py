"""A published head leaves as one ONNX graph, and such a folder answers here as the model that it was made from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import torch

from speciate.errors import Code, SpeciateError
from speciate.exports.onnx_folder import check_graph
from speciate.exports.onnx_published import write_published_graph
from speciate.models import trust
from speciate.models.model_card import ModelCard
from speciate.models.published.architectures import check_head
from speciate.models.published.asking import ask
from speciate.models.published.published_model import load_model
from tests.models.published import doubles
from tests.models.published.doubles import FAMILIES

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", ["bert", "bert tags", "vit", "yolos"])
def test_the_graph_answers_as_the_module(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder, out = doubles.write(name, tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    names = write_published_graph(folder, out, name)
    assert "model.onnx" in names
    assert not [each for each in names if each.endswith(".safetensors")]
    assert trust.choose(names).files == tuple(sorted(names))
    head = check_head(out, name)
    assert head.engine == "onnx"
    media = FAMILIES[name].media()
    one, other = (ask(load_model(each, check_head(each, name)), media) for each in (folder, out))
    for theirs, ours in zip(one, other, strict=True):
        if name == "yolos":
            assert [box["label"] for box in theirs.output] == [box["label"] for box in ours.output]
            for a, b in zip(theirs.output, ours.output, strict=True):
                assert b["box"] == pytest.approx(a["box"], abs=1e-2)
        else:
            assert theirs.output == ours.output
        for label, share in (theirs.probabilities or {}).items():
            assert (ours.probabilities or {})[label] == pytest.approx(share, abs=1e-5)


def test_a_head_that_is_not_tried_is_refused_with_what_does(tmp_path: Path) -> None:
    folder = doubles.write("t5", tmp_path / "model")
    with pytest.raises(SpeciateError, match="is not tried as one graph") as refused:
        check_graph(folder, ModelCard(name="writer", version=1, method="published", task="text-generation"))
    assert refused.value.code is Code.INVALID
