"""`speciate.load(folder)` answers from what export_model wrote as the version in the workspace does, of every form."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import speciate
from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.exports import test_onnx_table
from tests.exports.test_elsewhere import (
    NETWORKS,
    as_examples,
    exported,
    media_of,
    needs_onnx,
    registered,
)
from tests.training.world import make_dataset, thirds, train_now

TOLERANCE = 1e-4


def answers_here(workspace: Workspace, examples: list[Example]) -> list[Any]:
    return predictor.load(registry.resolve(workspace.database, workspace.folders, "own").path).predict(examples)


def given_to(model: speciate.server.load_model.LocalModel, media: list[Any]) -> list[Any]:
    """As a caller of `load` has them: texts, rows, and images as files."""
    if model.card.modality != "image":
        return media
    files = []
    for each in media:
        file = io.BytesIO()
        Image.fromarray(each).save(file, "PNG")
        files.append(file.getvalue())
    return files


def check_same(model: Any, media: list[Any], ours: list[Any]) -> None:
    found = model.predict(given_to(model, media))
    assert [each.error for each in found] == [None] * len(media)
    for one, other in zip(found, ours, strict=True):
        if isinstance(other.output, float):
            assert one.output == pytest.approx(other.output, abs=TOLERANCE * 12)
        else:
            assert one.output == other.output
        if one.confidence is not None and other.confidence is not None:
            assert one.confidence == pytest.approx(other.confidence, abs=TOLERANCE)
    assert len({str(each.output) for each in ours}) > 1


def test_sealed_files_answer_without_a_workspace_and_refuse_a_changed_byte(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'a fine film' if i % 4 < 2 else 'an awful bore'} {i}" for i in range(40)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(40)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(40), inputs=["text"])
    train_now(workspace, name="own", dataset="films", method="classical", hyperparameters={"candidates": ["logistic"]})
    assert exported(workspace, tmp_path / "out")["report"]["form"] == "sealed"
    ours = answers_here(workspace, as_examples(texts))
    monkeypatch.setenv("SPECIATE_HOME", str(tmp_path / "none"))
    (tmp_path / "out" / "model.py").write_text("raise SystemExit('code of the folder ran')")
    model = speciate.load(tmp_path / "out")
    assert (model.ref, model.card.task) == (str(tmp_path / "out"), "text-classification")
    check_same(model, texts, ours)
    assert model(texts[0]) == speciate.load(f"{tmp_path}/out")(texts[0]) == "good"
    assert not (tmp_path / "none").exists()
    (tmp_path / "out" / "predictor.json").write_bytes(b"{}")
    with pytest.raises(SpeciateError, match="is not what was sealed") as refused:
        speciate.load(tmp_path / "out")
    assert refused.value.code is Code.REFUSED


@needs_onnx
@pytest.mark.parametrize(
    ("kind", "candidate"),
    [
        ("three labels", "logistic"),
        pytest.param("ranks", "ridge", marks=pytest.mark.slow),
        pytest.param("a number", "boosting", marks=pytest.mark.slow),
    ],
)
def test_a_graph_of_rows_answers(workspace: Workspace, tmp_path: Path, kind: str, candidate: str) -> None:
    test_onnx_table.trained(workspace, kind, candidate)
    exported(workspace, tmp_path / "out", format="onnx")
    rows = test_onnx_table.rows(30, 2)
    model = speciate.load(tmp_path / "out")
    check_same(model, rows, answers_here(workspace, as_examples(rows)))
    (lacking,) = model.predict([{name: rows[0][name] for name in list(rows[0])[1:]}])
    assert lacking.error is not None
    assert "size" in lacking.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, "safetensors") for name in ("text", "text, several labels", "text, a number", "words", "image",
                                             "image, several labels", "table", "protein")),
        *(pytest.param(name, "onnx", marks=needs_onnx) for name in (
            "text", "image", "text, several labels", "text, a number", "words", "image, several labels")),
    ],
)  # fmt: skip
def test_a_network_answers(workspace: Workspace, tmp_path: Path, name: str, form: str) -> None:
    made = NETWORKS[name]
    registered(workspace, tmp_path, made)
    exported(workspace, tmp_path / "out", format=form)
    media = media_of(made.media)
    check_same(speciate.load(tmp_path / "out"), media, answers_here(workspace, as_examples(media)))


def test_what_is_no_export_is_refused_with_what_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpeciateError, match="no folder that export_model wrote") as refused:
        speciate.load(tmp_path / "empty")
    assert refused.value.code is Code.NOT_FOUND
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    with pytest.raises(SpeciateError, match="names no pipeline"):
        speciate.load(tmp_path / "encoder")
