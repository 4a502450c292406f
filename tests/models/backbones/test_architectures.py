"""Refs of backbones: what reads what, what can be trained here, and what is refused with which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import (
    ASTConfig,
    BertConfig,
    CLIPConfig,
    Data2VecAudioConfig,
    MambaConfig,
    PatchTSTConfig,
    PreTrainedConfig,
    T5Config,
    ViTConfig,
    ViTMAEConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from speciate.errors import Code, SpeciateError
from speciate.models import model_folder
from speciate.models.backbones import architectures
from speciate.models.backbones.text import learn_tokenizer
from tests.models.backbones.folders import SMALL, TEXTS, protein_folder, text_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    size = learn_tokenizer(TEXTS).get_vocab_size()
    return text_folder(tmp_path / "bert", BertConfig(vocab_size=size, pad_token_id=0, **SMALL))


def test_refs_say_what_they_read(folder: Path, tmp_path: Path) -> None:
    assert architectures.reads("new:bert", "text")
    assert not architectures.reads("new:bert", "image")
    assert architectures.reads("timm:resnet18", "image")
    assert architectures.reads("pkg:minilm", "text")
    assert architectures.reads(f"path:{folder}", "text")
    assert architectures.reads(f"path:{protein_folder(tmp_path / 'esm')}", "protein")
    model_folder.save(architectures.build("new:esm", ["MKV"], 0), tmp_path)
    assert architectures.reads("mine@v1", "protein", tmp_path)
    for unknown in ("new:nothing", "pkg:nothing", f"path:{tmp_path / 'nowhere'}", "mine@v1", "hf:org/name"):
        assert architectures.modality_of(unknown) is None


def test_what_can_be_trained_is_listed_published_weights_first() -> None:
    assert architectures.names("text")[-1] == "new:bert"
    assert architectures.names("protein") == ["new:esm"]
    assert architectures.names("mesh") == ["new:pointnet"]
    assert architectures.names("molecule") == []
    assert {entry.modality for entry in architectures.ARCHITECTURES.values()} == set(architectures.FILES)


def test_the_table_is_read_without_torch() -> None:
    program = (
        "import sys; from speciate.models.backbones import architectures; architectures.names('text'); "
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_an_unknown_name_is_refused_with_a_near_one() -> None:
    with pytest.raises(SpeciateError, match="did you mean 'new:bert'"):
        architectures.build("new:bart", TEXTS, 0)


def refusal(folder: Path, code: Code) -> str:
    with pytest.raises(SpeciateError) as caught:
        architectures.build(f"path:{folder}", (), 0)
    assert caught.value.code == code
    assert str(folder) in caught.value.message
    assert caught.value.recovery
    return caught.value.message


def test_folders_that_cannot_be_read_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path / "nowhere", Code.INVALID)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    refusal(folder, Code.INVALID)
    (folder / "model.safetensors").unlink()
    refusal(folder, Code.INVALID)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text("{")
    assert "tokenizer" in refusal(folder, Code.INVALID)
    (folder / "config.json").write_text("[1]")
    assert "config.json" in refusal(folder, Code.INVALID)


def test_a_folder_that_lacks_a_weight_is_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(state) if "query" in name)
    del state[name]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    assert "lacks 1 weights" in refusal(folder, Code.INVALID)


def test_code_in_a_folder_does_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    refusal(folder, Code.INVALID)
    assert not (folder / "ran").exists()


def test_saved_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model_folder.save(architectures.build("new:esm", ["MKV"], 0), tmp_path)
    state = load_file(tmp_path / model_folder.WEIGHTS)
    state["stray"] = state.pop(sorted(state)[0])
    save_file(state, tmp_path / model_folder.WEIGHTS)
    with pytest.raises(SpeciateError, match="not those of 'new:esm'"):
        architectures.build("mine@v1", (), 0, tmp_path)


def test_training_goes_on_from_a_saved_backbone(tmp_path: Path) -> None:
    made = architectures.build("new:esm", ["MKV"], 0)
    model_folder.save(made, tmp_path)
    again = architectures.build("mine@v1", ["MKV"], 1, tmp_path)
    assert again.base_model == "mine@v1"
    assert all((a == b).all() for a, b in zip(made.module.parameters(), again.module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("config", "modality"),
    [
        (PatchTSTConfig(), None), (WhisperConfig(), None), (Wav2Vec2BertConfig(), None), (Data2VecAudioConfig(), None),
        (ASTConfig(), None), (ViTMAEConfig(), None), (CLIPConfig(), None), (Wav2Vec2Config(), "audio"),
        (ViTConfig(), "image"), (BertConfig(), "text"), (MambaConfig(), "text"), (T5Config(), "text"),
    ],
)  # fmt: skip
def test_a_folder_is_what_can_be_built_of_it(config: PreTrainedConfig, modality: str | None, tmp_path: Path) -> None:
    """Those that take sound have a tokenizer for what is said."""
    config.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert architectures.modality_of(f"path:{tmp_path}") == modality
