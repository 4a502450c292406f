"""Loading is strict: no weight of a published model is initialised silently."""

from __future__ import annotations

import json
import resource
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from safetensors.numpy import load_file, save_file

from speciate.errors import Code, SpeciateError
from speciate.models.backbones import hf_transformers
from speciate.models.declared_size import check_declared_counts, check_declared_size, unfilled
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
    ("declared", "told"),
    [
        ({"num_hidden_layers": 1_000_000}, "1,000,000 layers"),
        ({"vocab_size": 10**9}, " weights"),
        ({"num_labels": 10**9, "id2label": None}, "1,000,000,000 labels"),
    ],
)
def test_a_config_that_declares_more_than_its_files_hold_takes_no_memory(
    declared: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = write("bert", tmp_path / "model")
    head = check_head(folder, "bert")
    change_config(folder, declared)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SpeciateError, match="declares ") as refused:
        load_model(folder, head)
    assert told in refused.value.message
    with pytest.raises(SpeciateError, match="declares "):
        hf_transformers.load_published(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


def change_config(folder: Path, declared: Mapping[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text()) | declared
    (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if config[key] is not None}))


def test_a_plan_makes_up_no_billion_names_of_labels(tmp_path: Path) -> None:
    folder = write("bert", tmp_path / "model")
    change_config(folder, {"num_labels": 10**9, "id2label": None})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SpeciateError, match="labels, more than"):
        check_head(folder, "bert")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


def test_a_million_parts_are_not_built_to_be_counted(tmp_path: Path) -> None:
    """Each under a name that says nothing of layers."""
    folder = write("rt_detr", tmp_path / "model")
    head = check_head(folder, "rt_detr")
    change_config(folder, {"num_feature_levels": 1_000_000})
    before = time.process_time()
    with pytest.raises(SpeciateError, match=r"declares more than [0-9,]+ (parts|weights)"):
        load_model(folder, head)
    assert time.process_time() - before < 5


@pytest.mark.parametrize("change", [{"num_frames": 10**9}, {"image_size": 10**9}, {"hidden_size": 10**9}])
def test_a_table_of_positions_that_no_memory_holds_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    """VideoMAE computes it, number by number, before it has a weight of that size."""
    folder = write("videomae", tmp_path / "model")
    check_declared_counts(folder)
    change_config(folder, change)
    for load in (hf_transformers.load_published, lambda path: load_model(path, check_head(path, "videomae"))):
        with pytest.raises(SpeciateError, match=r"declares a table of positions of [0-9,]+ numbers"):
            load(folder)


def test_lists_that_number_layers_are_no_counts(tmp_path: Path) -> None:
    """As `moe_layers` of Llama 4, 0 to 47, which are 1,128 together."""
    folder = write("bert", tmp_path / "model")
    change_config(folder, {"moe_layers": list(range(48)), "mlp_only_layers": list(range(100)), "max_depth": 65_535})
    check_declared_counts(folder)
    load_model(folder, check_head(folder, "bert"))
    change_config(folder, {"depths": [300, 300]})
    with pytest.raises(SpeciateError, match="declares 600 layers"):
        check_declared_counts(folder)


def test_what_is_installed_by_links_is_measured_and_loaded(tmp_path: Path) -> None:
    there, folder = write("bert", tmp_path / "store"), tmp_path / "model"
    folder.mkdir()
    for file in there.iterdir():
        (folder / file.name).symlink_to(file)
    hf_transformers.load_published(folder)
    change_config(there, {"num_hidden_layers": 1_000_000})
    with pytest.raises(SpeciateError, match="1,000,000 layers"):
        hf_transformers.load_published(folder)


def test_measuring_a_network_draws_no_random_number(tmp_path: Path) -> None:
    """A head that is laid anew has the same weights, whatever was counted before."""
    import transformers

    folder = write("wav2vec2", tmp_path / "model")
    head = check_head(folder, "wav2vec2")
    made = getattr(transformers, head.architecture)
    config = made.config_class.from_pretrained(folder, local_files_only=True)
    before = torch.get_rng_state()
    check_declared_size(folder, lambda: made(config))
    assert torch.equal(torch.get_rng_state(), before)


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


_META = torch.device("meta")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: torch.arange(2, 9, 3, device=_META), id="a range"),
        pytest.param(lambda: torch.arange(0, 5, step=2, device=_META), id="a named step"),
        pytest.param(lambda: torch.arange(9, 2, device=_META), id="an empty range"),
        pytest.param(lambda: torch.arange(0, 5, 0, device=_META), id="no step"),
        pytest.param(lambda: torch.arange(10**19, device=_META), id="more than can be counted"),
        pytest.param(lambda: torch.empty_like(input=torch.empty(2, 3, device=_META)), id="alike, by name"),
        pytest.param(lambda: torch.empty_like(torch.empty(2, 3, device=_META), dtype=torch.int8), id="another type"),
    ],
)
def test_without_memory_tensors_are_as_torch_makes_them(make: Callable[[], torch.Tensor]) -> None:
    """Or are refused as torch refuses them, which loaders know."""

    def made() -> object:
        try:
            tensor = make()
        except (RuntimeError, TypeError) as error:
            return type(error)
        return tensor.shape, tensor.dtype, tensor.device

    with unfilled():
        ours = made()
    assert ours == made()
