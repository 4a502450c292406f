"""`speciate.load(folder)` answers from what export_model wrote as the version in the workspace does, of every form."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import speciate
from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.exports import transformers_folder
from speciate.models import encoders, packaged, registry, sealed
from speciate.models.estimators import Linear
from speciate.models.model_card import ModelCard
from speciate.models.published.architectures import check_head
from speciate.models.published.asking import ask
from speciate.models.published.published_model import load_model
from speciate.tasks import predictor
from speciate.tasks.families.classification import Classification
from speciate.tasks.representations import Embeddings
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
from tests.exports.test_export_model import taken_back
from tests.models.backbones import folders
from tests.models.published import doubles
from tests.training.world import make_dataset, thirds, train_now

TOLERANCE = 1e-4
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="pip install 'speciate[train]'"
)


def answers_here(workspace: Workspace, examples: list[Example]) -> list[Any]:
    return predictor.load(registry.resolve(workspace.database, workspace.folders, "own").path).predict(examples)


def given_to(model: speciate.server.load_model.LocalModel, media: list[Any]) -> list[Any]:
    """As a caller of `load` has them: texts, rows, and images as files."""
    if model.card.modality == "audio":
        return [as_wave(each) for each in media]
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
    (tmp_path / "out" / "notes.txt.bak").write_text("mine")
    for unlisted in ("backbone.json", "modules.json", "config.json", "model.onnx", "1_Pooling/config.json"):
        added = tmp_path / "out" / unlisted
        added.parent.mkdir(exist_ok=True)
        added.write_text("{}")
        with pytest.raises(SpeciateError, match=f"{unlisted} is not what was sealed: files.json does not list") as more:
            speciate.load(tmp_path / "out")
        assert more.value.code is Code.REFUSED
        added.unlink()
    assert speciate.load(tmp_path / "out")(texts[0]) == "good"
    (tmp_path / "out" / "predictor.json").write_bytes(b"{}")
    with pytest.raises(SpeciateError, match="is not what was sealed") as refused:
        speciate.load(tmp_path / "out")
    assert refused.value.code is Code.REFUSED


@pytest.mark.parametrize("names", [["README.md"], ["README.md", "README.publisher.md"]])
def test_readmes_of_a_sealed_version_stay_beside_our_card_and_come_back(tmp_path: Path, names: list[str]) -> None:
    """A version with two came of such an export."""
    folder, out, back = (tmp_path / each for each in ("made", "out", "back"))
    for each in (folder, out, back):
        each.mkdir()
    (folder / "predictor.json").write_text('{"format": 1}')
    (folder / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in names:
        (folder / name).write_text(f"# {name} of theirs")
    identity = sealed.seal(folder)
    card = ModelCard(name="own", id=identity, method="classical")
    assert transformers_folder.write(folder, out, card).form == "sealed"
    sealed.write_facts(card, out)
    (out / "README.md").write_text("# Our card")
    sealed.check_unchanged(out)
    sealed.take_export(out, back)
    assert sealed.check(back) == identity


@needs_transformers
def test_a_changed_byte_of_the_network_under_a_probe_is_refused_and_the_export_is_taken_back(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package has the network, so the version's folder has not; its export brings it along."""
    from transformers import BertConfig

    tiny = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=8192,
        initializer_range=0.4,
    )  # fmt: skip
    theirs = folders.text_folder(tmp_path / "package", tiny)
    monkeypatch.setitem(packaged.PACKAGED, "tiny", packaged.PACKAGED["minilm"])
    monkeypatch.setattr(packaged, "locate", lambda name: theirs)
    encoder = encoders.load_encoder("pkg:tiny")
    weights = np.random.default_rng(5).normal(size=(2, encoder.width)) * 9
    weights -= weights.mean(1, keepdims=True)
    probe = predictor.TrainedPredictor(
        "text-classification", Embeddings("pkg:tiny", encoder), Linear(weights, np.zeros(2)),
        Classification(labels=("bad", "good")),
    )  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    probe.save(tmp_path / "made")
    (tmp_path / "made" / "README.md").write_text("# Theirs")
    card = ModelCard(
        name="own", id=sealed.seal(tmp_path / "made"), method="probe", task="text-classification", modality="text",
        labels=("bad", "good"), base_model="pkg:tiny",
    )  # fmt: skip
    written = transformers_folder.write(tmp_path / "made", out, card)
    sealed.write_facts(card, out)
    (out / "README.md").write_text("our card is no part of the model")
    assert {"backbone.json", "backbone.safetensors", "tokenizer.json", "README.publisher.md"} <= set(written.files)
    texts = [*folders.TEXTS, *(" ".join(folders.TEXTS[0].split()[at:]) for at in range(4))]
    ours = predictor.load(tmp_path / "made").predict(as_examples(texts))
    check_same(speciate.load(out), texts, ours)

    kept = registry.resolve(workspace.database, workspace.folders, taken_back(workspace, out))
    assert (kept.path / "README.md").read_text() == "# Theirs"
    monkeypatch.setattr(packaged, "locate", None)  # the version that was taken back has its own network
    given = predictor.load(kept.path).predict(as_examples(texts))
    assert [each.output for each in given] == [each.output for each in ours]

    for name in ("backbone.safetensors", "backbone.json", "tokenizer.json", "README.publisher.md"):
        file = out / name
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(SpeciateError, match=f"{name} is not what was sealed") as refused:
            speciate.load(out)
        assert refused.value.code is Code.REFUSED
        file.write_bytes(data)


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
    test_onnx_table.trained(workspace, kind, {"candidates": [candidate]})
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
                                             "image, several labels", "table", "protein", "sound", "speech")),
        *(pytest.param(name, "onnx", marks=needs_onnx) for name in (
            "text", "image", "text, several labels", "text, a number", "words", "image, several labels")),
    ],
)  # fmt: skip
def test_a_network_answers(workspace: Workspace, tmp_path: Path, name: str, form: str) -> None:
    made = NETWORKS[name]
    registered(workspace, tmp_path, made)
    exported(workspace, tmp_path / "out", format=form)
    media = media_of(made.media)
    if made.modality == "audio":  # as a file of 16 bits has them
        media = [(each * 16_000).astype("<i2").astype("float32") / 32_768 for each in media]
    check_same(speciate.load(tmp_path / "out"), media, answers_here(workspace, as_examples(media)))


def published(folder: Path, name: str, kind: str) -> Path:
    """A folder with a tiny head of transformers, and a card that names its pipeline."""
    doubles.write(name, folder)
    (folder / "README.md").write_text(f"---\npipeline_tag: {kind}\n---\n")
    return folder


def as_wave(samples: Any) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((samples * 32_768).astype("<i2").tobytes())
    return file.getvalue()


@needs_transformers
@pytest.mark.parametrize(
    ("name", "kind"),
    [("wav2vec2", "audio-classification"), ("wav2vec2 ctc", "automatic-speech-recognition")],
)
def test_sounds_and_speech_are_answered_as_the_published_head_does(tmp_path: Path, name: str, kind: str) -> None:
    import torch

    torch.manual_seed(1)
    folder = published(tmp_path / "out", name, kind)
    media = [(each * 16_000).astype("<i2").astype("float32") / 32_768 for each in doubles.FAMILIES[name].media()]
    ours = ask(load_model(folder, check_head(folder, name)), media)
    found = speciate.load(folder).predict([as_wave(each) for each in media])
    assert [each.error for each in found] == [None] * len(media)
    assert [each.output for each in found] == [each.output for each in ours]
    assert len(set(found)) > 1
    for one, other in zip(found, ours, strict=True):
        if other.probabilities:
            assert one.confidence == pytest.approx(other.probabilities[other.output], abs=TOLERANCE)


@needs_transformers
def test_speech_that_is_no_ctc_is_refused(tmp_path: Path) -> None:
    folder = published(tmp_path / "out", "whisper", "automatic-speech-recognition")
    with pytest.raises(SpeciateError, match="does not load it as AutoModelForCTC") as refused:
        speciate.load(folder)
    assert refused.value.code is Code.INVALID


def with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    named = {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.E"},
    }
    (folder / "config.json").write_text(json.dumps(config | named))
    (folder / "evil.py").write_text(CODE)


def with_a_pickle_alone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Ran()))


class Ran:
    def __reduce__(self) -> Any:
        return exec, ("import speciate; speciate.it_ran = True",)


UNSAFE: dict[str, tuple[Callable[[Path], object], str]] = {
    "settings that name code": (with_code, "asks for code of its own"),
    "code beside": (lambda folder: (folder / "evil.py").write_text(CODE), "Code is never run"),
    "weights that are pickles": (with_a_pickle_alone, "its weights are pickles"),
    "a pickle beside": (lambda folder: (folder / "x.pkl").write_bytes(pickle.dumps(Ran())), "A pickle"),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/other"}'),
        "names another model",
    ),
    "a tokenizer elsewhere": (
        lambda folder: (folder / "special_tokens_map.json").write_text('{"vocab_file": "/etc/passwd"}'), "points to",
    ),
}  # fmt: skip
CODE = "import speciate\nspeciate.it_ran = True\n"


@needs_transformers
@pytest.mark.parametrize("name", UNSAFE)
def test_no_code_and_no_pickle_of_an_exports_folder_runs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published(tmp_path / "out", "bert", "text-classification")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # who is asked says yes
    monkeypatch.setattr(speciate, "it_ran", False, raising=False)
    harm, why = UNSAFE[name]
    harm(folder)
    with pytest.raises(SpeciateError, match=why) as refused:
        speciate.load(folder).predict(["fine"])
    assert refused.value.code is Code.REFUSED
    assert not speciate.it_ran  # type: ignore[attr-defined]  # what the code would set


@needs_transformers
def test_an_unknown_architecture_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    folder = published(tmp_path / "out", "bert", "text-classification")
    (folder / "config.json").write_text('{"model_type": "evil", "id2label": {"0": "no", "1": "yes"}}')
    with pytest.raises(SpeciateError, match="does not load it as AutoModelForSequenceClassification") as refused:
        speciate.load(folder)
    assert refused.value.code is Code.INVALID


def test_a_graph_that_reads_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "preprocessing.json").write_text('{"task": "x", "family": "classification", "inputs": {}}')
    with pytest.raises(SpeciateError, match="is not as export_model writes it") as refused:
        speciate.load(tmp_path)
    assert refused.value.code is Code.INVALID


def test_what_is_no_export_is_refused_with_what_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpeciateError, match="no folder that export_model wrote") as refused:
        speciate.load(tmp_path / "empty")
    assert refused.value.code is Code.NOT_FOUND
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    with pytest.raises(SpeciateError, match="names no pipeline"):
        speciate.load(tmp_path / "encoder")
