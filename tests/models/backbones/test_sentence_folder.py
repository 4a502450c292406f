"""Folders of sentence-transformers: their vectors are those of the published formula, here, copied and trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
import transformers as t
from safetensors.torch import save_file

from speciate.errors import Code, SpeciateError
from speciate.models import model_folder, registry, sealed, trust
from speciate.models.backbones import architectures, sentence_folder
from speciate.models.encoders import load_encoder
from speciate.models.fetch import FetchSpec
from speciate.workspace.workspace import Workspace
from tests.models.published import doubles
from tests.models.test_encoders import vectors
from tests.models.test_pickled_weights import run_job

TEXTS = ["good film", "bad awful food today and this day", "red"]
LIBRARY = "sentence_transformers.models"


def build(folder: Path, pooling: dict[str, Any], dense: bool = False, **limits: Any) -> tuple[Any, Any]:
    """As sentence-transformers saves it; the network and the layer after the pooling."""
    torch.manual_seed(0)
    tok = doubles.tokenizer()
    config = t.BertConfig(**doubles._BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id)
    network = t.BertModel(config).eval()
    doubles.keep(folder, network, tok)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    layer = None
    if dense:
        layer = torch.nn.Linear(32, 12)
        (folder / "2_Dense").mkdir()
        settings = {"in_features": 32, "out_features": 12, "bias": True,
                    "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
        save_file({f"linear.{name}": each for name, each in layer.state_dict().items()},
                  folder / "2_Dense" / "model.safetensors")  # fmt: skip
        parts.append(("2_Dense", "Dense"))
    parts.append((f"{len(parts)}_Normalize", "Normalize"))
    (folder / "modules.json").write_text(
        json.dumps([{"idx": place, "name": str(place), "path": path, "type": f"{LIBRARY}.{kind}"}
                    for place, (path, kind) in enumerate(parts)])
    )  # fmt: skip
    if limits:
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    return network, layer


def expected(folder: Path, network: Any, layer: Any, mode: str, texts: list[str] = TEXTS) -> np.ndarray:
    """One by one, without padding."""
    tok, rows = t.AutoTokenizer.from_pretrained(folder), []
    with torch.inference_mode():
        for text in texts:
            states = network(**tok(text, return_tensors="pt")).last_hidden_state[0]
            count = len(states)
            weights = torch.arange(1, count + 1).float()[:, None]
            pooled = {
                "cls": lambda s=states: s[0], "max": lambda s=states: s.amax(0), "mean": lambda s=states: s.mean(0),
                "lasttoken": lambda s=states: s[-1], "root": lambda s=states, n=count: s.sum(0) / n**0.5,
                "weighted": lambda s=states, w=weights: (s * w).sum(0) / w.sum(),
                "cls+mean": lambda s=states: torch.cat([s[0], s.mean(0)]),
            }[mode]()  # fmt: skip
            rows.append(torch.tanh(layer(pooled)) if layer else pooled)
    found = torch.stack(rows)
    return (found / found.norm(dim=1, keepdim=True)).numpy()


MODES = {
    "cls": {"pooling_mode_cls_token": True}, "max": {"pooling_mode_max_tokens": True},
    "mean": {"pooling_mode_mean_tokens": True}, "lasttoken": {"pooling_mode_lasttoken": True},
    "root": {"pooling_mode_mean_sqrt_len_tokens": True}, "weighted": {"pooling_mode_weightedmean_tokens": True},
    "cls+mean": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_vectors_are_those_of_its_pooling(tmp_path: Path, mode: str) -> None:
    network, layer = build(tmp_path / "model", MODES[mode])
    found = vectors(load_encoder(f"path:{tmp_path / 'model'}", precision="float32"), TEXTS)
    assert np.allclose(found, expected(tmp_path / "model", network, layer, mode), atol=1e-5)


@pytest.mark.parametrize(("mode", "dense"), [("cls+mean", False), ("cls", True)])
def test_of_more_than_one_pooling_of_a_layer_no_second_depth_is_read(tmp_path: Path, mode: str, dense: bool) -> None:
    network, layer = build(tmp_path / "model", MODES[mode], dense=dense)
    encoder = load_encoder(f"path:{tmp_path / 'model'}", precision="float32", layers=True)
    assert not encoder.id.endswith("-of-layers")
    assert np.allclose(vectors(encoder, TEXTS), expected(tmp_path / "model", network, layer, mode), atol=1e-5)
    (kept := tmp_path / "kept").mkdir()
    encoder.keep(kept)
    sealed.seal(kept)
    again = load_encoder("x@v1", precision="float32", folder=kept, layers=True)
    assert np.allclose(vectors(again, TEXTS), vectors(encoder, TEXTS), atol=1e-6)


def test_newer_versions_name_the_mode_in_words(tmp_path: Path) -> None:
    network, layer = build(tmp_path / "model", {"pooling_mode": "cls"})
    found = vectors(load_encoder(f"path:{tmp_path / 'model'}", precision="float32"), TEXTS)
    assert np.allclose(found, expected(tmp_path / "model", network, layer, "cls"), atol=1e-5)


def test_a_registered_version_keeps_pooling_and_dense_layer_in_one_flat_folder(
    workspace: Workspace, tmp_path: Path
) -> None:
    network, layer = build(tmp_path / "model", MODES["cls"], dense=True)
    said = expected(tmp_path / "model", network, layer, "cls")
    here = load_encoder(f"path:{tmp_path / 'model'}", precision="float32")
    assert np.allclose(vectors(here, TEXTS), said, atol=1e-5)
    run_job(workspace, FetchSpec(name="sentences", source=f"path:{tmp_path / 'model'}"))
    version = registry.resolve(workspace.database, workspace.folders, "sentences")
    sealed.check(version.path)
    assert {"1_Pooling--config.json", "2_Dense--config.json", "2_Dense--model.safetensors"} <= {
        path.name for path in version.path.iterdir()
    }
    there = load_encoder("sentences", precision="float32", folder=version.path)
    assert np.allclose(vectors(there, TEXTS), said, atol=1e-5)
    built = architectures.build("sentences@v1", (), 0, version.path)
    assert built.width == 12
    kept = tmp_path / "kept"
    kept.mkdir()
    model_folder.save(built, kept)
    again = model_folder.load(kept, architectures.rebuild)
    with torch.inference_mode():
        one, other = (each.states(each.collate(each.prepare(TEXTS))).pooled for each in (built, again))
    assert torch.equal(one, other)


def test_a_network_in_a_folder_of_its_own_is_taken_to_the_top(workspace: Workspace, tmp_path: Path) -> None:
    network, _ = build(tmp_path / "flat", MODES["cls"])
    folder, inner = tmp_path / "model", tmp_path / "model" / "0_Transformer"
    inner.mkdir(parents=True)
    said = expected(tmp_path / "flat", network, None, "cls")
    for path in (tmp_path / "flat").iterdir():
        path.rename((folder if path.name in ("modules.json", "1_Pooling") else inner) / path.name)
    run_job(workspace, FetchSpec(name="sentences", source=f"path:{folder}"))
    version = registry.resolve(workspace.database, workspace.folders, "sentences")
    there = load_encoder("sentences", precision="float32", folder=version.path)
    assert np.allclose(vectors(there, TEXTS), said, atol=1e-5)


def test_its_longest_text_and_its_case_hold(tmp_path: Path) -> None:
    network, _ = build(tmp_path / "model", MODES["mean"], max_seq_length=5, do_lower_case=True)
    found = vectors(load_encoder(f"path:{tmp_path / 'model'}", precision="float32"), ["GOOD film bad food red day"])
    tok = t.AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.inference_mode():
        ids = tok("good film bad food red day", return_tensors="pt", truncation=True, max_length=5)
        states = network(**ids).last_hidden_state[0].mean(0)
    assert np.allclose(found[0], (states / states.norm()).numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["sentence_transformers.models.CNN", "custom_code.Transformer"])
def test_a_part_of_another_type_is_refused_and_none_of_its_code_runs(tmp_path: Path, kind: str) -> None:
    build(tmp_path / "model", MODES["cls"])
    (tmp_path / "model" / "modules.json").write_text(json.dumps([{"path": "", "type": kind}]))
    with pytest.raises(SpeciateError, match="of a type that is not read here") as refused:
        architectures.build(f"path:{tmp_path / 'model'}", (), 0)
    assert refused.value.code is Code.INVALID


def test_only_files_of_the_known_form_are_taken_from_parts() -> None:
    names = ["modules.json", "model.safetensors", "1_Pooling/config.json", "2_Dense/pytorch_model.bin",
             "0_Transformer/model.safetensors", "0_Transformer/own.py", "../1_Pooling/config.json",
             "1_Pooling/../config.json", "0_Transformer/sub/config.json"]  # fmt: skip
    assert set(trust.choose(names).files) == {
        "modules.json", "model.safetensors", "1_Pooling/config.json", "0_Transformer/model.safetensors"
    }  # fmt: skip
    assert sentence_folder.flat_name("0_Transformer/model.safetensors") == "model.safetensors"
