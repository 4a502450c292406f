"""Loading is strict: no weight of a published model is initialised silently."""

from __future__ import annotations

import json
import resource
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file

from speciate.errors import Code, SpeciateError
from speciate.models.backbones import hf_transformers
from speciate.models.published import checked_copy
from speciate.models.published.architectures import check_head
from speciate.models.published.published_model import load_model
from tests.models.published.doubles import FAMILIES, write

Weights = dict[str, np.ndarray]
BY_NAME = [pytest.param(name, id=name, marks=[] if name in ("bert", "vit") else pytest.mark.slow) for name in FAMILIES]


def lost(weights: Weights, name: str) -> None:
    del weights[name]


def renamed(weights: Weights, name: str) -> None:
    weights[f"{name}_of_another"] = weights.pop(name)


def reshaped(weights: Weights, name: str) -> None:
    weights[name] = np.concatenate([weights[name], weights[name]])


@pytest.mark.parametrize("name", BY_NAME)
def test_a_weight_that_is_missing_renamed_or_of_another_shape_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write(name, tmp_path / "model")
        file = folder / "model.safetensors"
        whole = load_file(file)
        chosen = next(each for each in sorted(whole) if whole[each].ndim == 2 and "embed" not in each)
        changes: tuple[Callable[[Weights, str], None], ...] = (lost, renamed, reshaped)
        for change in changes:
            weights = dict(whole)
            change(weights, chosen)
            save_file(weights, file, {"format": "pt"})
            with pytest.raises(SpeciateError, match="are not those of their architecture") as refused:
                load_model(folder, check_head(folder, name))
            assert refused.value.code is Code.INVALID
            last = chosen.split(".")[-1]
            assert last in refused.value.message, (change.__name__, chosen)
        save_file(whole, file, {"format": "pt"})
        load_model(folder, check_head(folder, name))


@pytest.mark.parametrize(
    ("declared", "told"), [({"num_hidden_layers": 1_000_000}, "1,000,000 layers"), ({"vocab_size": 10**9}, " weights")]
)
def test_a_config_that_declares_more_than_its_files_hold_takes_no_memory(
    declared: dict[str, int], told: str, tmp_path: Path
) -> None:
    folder = write("bert", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | declared))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SpeciateError, match=r"declares [0-9,]+") as refused:
        load_model(folder, check_head(folder, "bert"))
    assert told in refused.value.message
    with pytest.raises(SpeciateError, match=r"declares [0-9,]+"):
        hf_transformers.load_published(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


def test_a_copy_of_a_folder_has_its_id_and_notices_a_change(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write("bert", tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    identity = checked_copy.folder_id(folder)
    copy = checked_copy.checked_copy(folder, identity, tmp_path / "cache")
    assert not (copy / "pytorch_model.bin").exists()
    assert checked_copy.checked_copy(folder, identity, tmp_path / "cache") == copy
    copy.rename(tmp_path / "elsewhere")
    (folder / "README.md").write_text("another")
    with pytest.raises(SpeciateError, match="has changed since it was planned"):
        checked_copy.checked_copy(folder, identity, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "published").iterdir())


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(SpeciateError, match="its weights are pickles") as refused:
        checked_copy.folder_id(tmp_path)
    assert refused.value.code is Code.REFUSED
