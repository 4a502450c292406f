"""Frozen encoders: any network with learned weights; the same id means the same vectors."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import BertConfig

from speciate import features
from speciate.errors import Code, SpeciateError
from speciate.modalities.medical.volumes import Volume, slice_images
from speciate.models import encoders, model_folder, packaged, sealed
from speciate.models.backbones import architectures
from speciate.models.backbones.architectures import suits
from speciate.models.backbones.text import learn_tokenizer
from speciate.models.encoders import Encoder, FrozenEncoder, Precision, embed_batches, kept_encoder, load_encoder
from speciate.workspace.workspace import Workspace
from tests.models.backbones.folders import PROTEINS, SMALL, TEXTS, protein_folder, text_folder

MINILM = {"float32": "minilm-8751488fa6c1ee89", "bfloat16": "minilm-758a2c7df8758ad6"}
MINILM_VECTOR = [-0.033231, -0.011699, 0.145213, 0.034428]
"""Of "The pump leaks oil since Monday.", its first four numbers, before there were other encoders."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    size = learn_tokenizer(TEXTS).get_vocab_size()
    return text_folder(tmp_path / "a bert", BertConfig(vocab_size=size, pad_token_id=0, **SMALL))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a registered model."""
    (folder := tmp_path / "trained").mkdir()
    model_folder.save(architectures.build("new:esm", PROTEINS, 0), folder)
    sealed.seal(folder)
    return folder


def vectors(encoder: Encoder, media: Any) -> np.ndarray[Any, Any]:
    found = np.full((len(media), encoder.width), np.nan, np.float32)
    for places, batch in encoder.embed(media):
        found[places] = batch
    return found


def check_vectors(encoder: Encoder, media: Any) -> None:
    """Of unit length, and each that of its medium alone."""
    found = vectors(encoder, media)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for place, medium in enumerate(media):
        np.testing.assert_allclose(vectors(encoder, [medium])[0], found[place], atol=1e-4)


@pytest.mark.skipif(not packaged.installed("minilm"), reason="the weights come as a package")
def test_the_packaged_encoder_is_what_it_was() -> None:
    """Vectors that are cached under these ids stay valid."""
    encoder = load_encoder("pkg:minilm", precision="float32")
    assert encoder.id == MINILM["float32"]
    assert load_encoder("pkg:minilm", precision="bfloat16").id == MINILM["bfloat16"]
    assert (encoder.width, encoder.parameters) == (384, 22_713_216)
    (vector,) = vectors(encoder, ["The pump leaks oil since Monday."])
    np.testing.assert_allclose(vector[:4], MINILM_VECTOR, atol=1e-5)


def test_models_on_one_encoder_hold_its_weights_once_and_the_last_frees_them(folder: Path) -> None:
    first, second = (load_encoder(f"path:{folder}", precision="float32") for _ in range(2))
    other = load_encoder(f"path:{folder}", precision="bfloat16")
    for each in (first, second, other):
        vectors(each, TEXTS[:1])
    assert isinstance(first, FrozenEncoder)
    assert isinstance(second, FrozenEncoder)
    assert isinstance(other, FrozenEncoder)
    assert first._backbone() is second._backbone()
    assert first._backbone() is not other._backbone()
    freed = weakref.ref(first._backbone())
    del first, second, each
    gc.collect()
    assert freed() is None


def test_the_id_that_a_model_folder_keeps_gives_it_no_weights_of_another(folder: Path, tmp_path: Path) -> None:
    made = load_encoder(f"path:{folder}", precision="float32")
    kept = [tmp_path / name for name in ("first", "copy", "strangers")]
    for each in kept:
        each.mkdir()
        made.keep(each)
    weights = load_file(kept[-1] / model_folder.WEIGHTS)
    save_file({name: array + np.float32(0.1) for name, array in weights.items()}, kept[-1] / model_folder.WEIGHTS)
    first, copy, strangers = (kept_encoder(f"path:{folder}", made.id, "float32", each) for each in kept)
    other = vectors(strangers, TEXTS[:1])
    assert np.abs(vectors(first, TEXTS[:1]) - other).max() > 0.001
    assert isinstance(first, FrozenEncoder)
    assert isinstance(copy, FrozenEncoder)
    assert copy._backbone() is first._backbone()


def test_vectors_are_cached_under_what_computes_them_whatever_id_a_folder_claims(
    folder: Path, workspace: Workspace
) -> None:
    made = load_encoder(f"path:{folder}", precision="float32")
    kept = [workspace.folders.root / name for name in ("first", "other head", "strangers")]
    for each in kept:
        each.mkdir()
        made.keep(each)
        (each / "estimator.safetensors").write_text(each.name)
    weights = load_file(kept[-1] / model_folder.WEIGHTS)
    save_file({name: array + np.float32(0.1) for name, array in weights.items()}, kept[-1] / model_folder.WEIGHTS)
    for each in kept[1:]:
        sealed.seal(each)
    first, other_head, strangers = (kept_encoder(f"path:{folder}", made.id, "float32", each) for each in kept)
    for media in (TEXTS[:1], TEXTS[1:2]):  # the stranger is the first to embed a text, and the second
        order = (strangers, first) if media == TEXTS[:1] else (first, strangers)
        found = {each.cache: features.embed(workspace.folders, each, ["a" + media[0]], media) for each in order}
        np.testing.assert_allclose(found[first.cache], vectors(made, media), atol=1e-5)
        assert np.abs(found[first.cache] - found[strangers.cache]).max() > 0.001
    assert made.id not in (first.cache, strangers.cache)
    assert other_head.cache == first.cache, "a head has no part in it"
    assert kept_encoder("x", made.id + "-of-frames", "float32", kept[0]).cache == f"{first.cache}-of-frames"
    assert kept_encoder("x", made.id, "bfloat16", kept[0]).cache != first.cache
    assert kept_encoder("x", "../../elsewhere", "float32", kept[0]).cache == first.cache


def test_a_process_reads_a_kept_encoder_once_for_the_name_of_its_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept := tmp_path / "kept").mkdir()
    load_encoder(f"path:{folder}", precision="float32").keep(kept)
    read: list[str] = []
    monkeypatch.setattr(sealed, "file_hash", lambda path: read.append(path.name) or path.name)
    names = {kept_encoder("x", "claimed", "float32", kept).cache for _ in range(3)}
    assert len(names) == 1
    assert sorted(read) == sorted(path.name for path in kept.iterdir())
    changed = kept / model_folder.WEIGHTS
    changed.write_bytes(changed.read_bytes() + b" ")
    names.add(kept_encoder("x", "claimed", "float32", kept).cache)
    assert read.count(changed.name) == 2


def test_a_folder_of_text_is_an_encoder(folder: Path) -> None:
    encoder = load_encoder(f"path:{folder}", precision="float32")
    assert encoder.id.startswith("a-bert-")
    assert encoder.width == SMALL["hidden_size"]
    assert encoder.parameters > 10_000
    check_vectors(encoder, TEXTS)


def test_a_model_of_images_embeds_videos_frame_by_frame(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(4)]
    model_folder.save(architectures.build("new:vit", pictures, 0), tmp_path)
    sealed.seal(tmp_path)
    encoder, still = load_encoder(f"path:{tmp_path}", media="video"), load_encoder(f"path:{tmp_path}", media="image")
    assert encoder.id == f"{still.id}-of-frames"
    assert encoder.width == 3 * still.width
    assert vectors(encoder, []).shape == (0, encoder.width)
    assert encoder._images._loaded is not None, "asked for nothing it is loaded, as any encoder"  # type: ignore[attr-defined]
    clips = [{"frames": np.stack(pictures)}, {"frames": np.stack(pictures[::-1])}, {"frames": np.stack(pictures[:1])}]
    forth, back, one = np.split(vectors(encoder, clips), 3, axis=1)
    np.testing.assert_allclose(forth[0], vectors(still, pictures).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(forth[0], forth[1], atol=1e-5)
    np.testing.assert_allclose(back[0], -back[1], atol=1e-5)  # whither it goes
    assert not back[2].any()
    assert not one[2].any()


def test_a_model_of_images_embeds_volumes_slice_by_slice(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scans: list[Volume] = [
        {"voxels": generator.normal(0, 1, (depth, 16, 16)).astype(np.float32), "spacing": np.ones(3, np.float32)}
        for depth in (1, 5, 40)
    ]
    model_folder.save(architectures.build("new:vit", slice_images(scans[2], 40), 0), tmp_path)
    sealed.seal(tmp_path)
    encoder = load_encoder(f"path:{tmp_path}")
    found = vectors(encoder, scans)
    for vector, each in zip(found, scans, strict=True):
        slices = vectors(encoder, slice_images(each, 16)).mean(axis=0)
        np.testing.assert_allclose(vector, slices / np.linalg.norm(slices), atol=1e-5)
    assert suits("image", "nifti")
    assert not suits("text", "nifti")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_folder_of_proteins_is_an_encoder(precision: Precision, tmp_path: Path) -> None:
    ref = f"path:{protein_folder(tmp_path / 'esm')}"
    encoder = load_encoder(ref, precision=precision)
    assert encoder.precision == precision
    found, exact = vectors(encoder, PROTEINS), vectors(load_encoder(ref, precision="float32"), PROTEINS)
    assert ((found * exact).sum(1) > 0.999).all()
    assert np.array_equal(found, exact) == (precision == "float32")


@pytest.mark.parametrize("kind", ["texts", "proteins"])
def test_vectors_are_the_same_bit_for_bit_however_many_threads_compute_them(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    chance = np.random.default_rng(0)
    drawn = ["".join(chance.choice(list("ACDEFGHIKL "), size)) for size in chance.integers(1, 40, 300)]
    media = drawn if kind == "texts" else [each.replace(" ", "M") for each in drawn]
    ref = f"path:{folder if kind == 'texts' else protein_folder(tmp_path / 'esm')}"
    alone, *others = (vectors(load_encoder(ref, threads), media) for threads in (1, 2, 3))
    assert np.isfinite(alone).all()
    assert len(np.unique(alone, axis=0)) > 250
    for found in others:
        np.testing.assert_array_equal(found, alone)


class _Remembering(torch.nn.Module):
    """As networks that keep a table for the length of what they read: it is another batch's where two share it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.length = 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.length = ids.shape[1]
        time.sleep(0.001)
        assert ids.shape[1] == self.length
        return self.weight * ids.sum(1, keepdim=True).expand(-1, 4)


class _OfTokens:
    modality = "text"

    def __init__(self) -> None:
        self.module = _Remembering()

    def prepare(self, media: Any) -> Any:
        return list(media)

    def length(self, item: Any) -> int:
        return len(item)

    def collate(self, items: Any) -> Any:
        return torch.ones(len(items), max(map(len, items)))

    def states(self, batch: Any) -> Any:
        return SimpleNamespace(pooled=self.module(batch))


def test_no_two_threads_compute_with_one_network_at_a_time() -> None:
    backbone: Any = _OfTokens()
    media = ["x" * (1 + place) for place in range(64)]
    found = [place for places, _ in embed_batches(backbone, media, 2, threads=3) for place in places]
    assert sorted(found) == list(range(64))


@pytest.mark.parametrize(("threads", "precision", "asked"), [(1, "float32", 0), (2, "bfloat16", 0), (2, "float32", 1)])
def test_many_media_in_float32_are_multiplied_by_the_quicker_library(
    threads: int, precision: Precision, asked: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[None]()
    monkeypatch.setattr(encoders, "prefer_onednn", lambda: calls.append(None))
    vectors(load_encoder(f"path:{folder}", threads, precision), TEXTS)
    assert len(calls) == asked


def test_who_stops_amid_batches_leaves_no_thread_and_as_many_for_torch_as_before(folder: Path) -> None:
    encoder = load_encoder(f"path:{folder}", 2)
    begun = iter(encoder.embed(["some words"] * 500))
    next(begun)
    begun.close()  # type: ignore[attr-defined]  # a generator
    assert not [each for each in threading.enumerate() if each.name.startswith("embed")]
    with ThreadPoolExecutor(1) as other:
        assert (torch.get_num_threads(), other.submit(torch.get_num_threads).result()) == (2, 2)


def test_a_trained_networks_backbone_is_an_encoder(trained: Path) -> None:
    encoder = load_encoder("folds@v3", precision="float32", folder=trained)
    assert encoder.id.startswith("folds-v3-")
    check_vectors(encoder, PROTEINS)
    assert encoder.parameters == sum(
        p.numel() for p in architectures.build("new:esm", PROTEINS, 0).module.parameters()
    ) + sum(b.numel() for _, b in _kept_buffers(architectures.build("new:esm", PROTEINS, 0).module))


def _kept_buffers(module: Any) -> list[Any]:
    kept = module.state_dict()
    return [(name, buffer) for name, buffer in module.named_buffers() if name in kept]


def test_the_id_follows_whatever_changes_the_vectors(folder: Path) -> None:
    ref = f"path:{folder}"
    ids = [load_encoder(ref, precision="float32").id]
    assert load_encoder(ref, threads=2, precision="float32").id == ids[0]
    ids.append(load_encoder(ref, precision="bfloat16").id)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    ids.append(load_encoder(ref, precision="float32").id)
    architectures.build(ref, (), 0).module.save_pretrained(folder)  # type: ignore[operator]  # transformers' module
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    ids.append(load_encoder(ref, precision="float32").id)
    assert len(set(ids)) == 4


def test_a_sentence_transformers_folder_says_how_it_is_pooled(folder: Path) -> None:
    ref = f"path:{folder}"
    mean = vectors(load_encoder(ref, precision="float32"), TEXTS)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = vectors(load_encoder(ref, precision="float32"), TEXTS)
    assert not np.allclose(mean, first, atol=1e-3)


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("new:bert", "random features"),
        ("timm:resnet18", "random features"),
        ("hf:org/name", "cannot be a frozen encoder"),
        ("mine@v1", "cannot be a frozen encoder"),
        ("path:/nowhere", "cannot be a frozen encoder"),
    ],
)
def test_what_has_no_learned_weights_here_is_refused(ref: str, said: str) -> None:
    with pytest.raises(SpeciateError, match=said) as caught:
        load_encoder(ref)
    assert caught.value.code == Code.INVALID
    assert "pkg:NAME" in caught.value.recovery


def test_weights_that_are_none_are_refused(folder: Path, trained: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 no header at all")
    with pytest.raises(SpeciateError, match="not a safetensors file"):
        load_encoder(f"path:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SpeciateError, match="holds no weights"):
        load_encoder(f"path:{folder}")
    (trained / model_folder.WEIGHTS).write_bytes(b"changed")
    with pytest.raises(SpeciateError, match="not what was sealed"):
        load_encoder("folds@v3", folder=trained)


def test_a_folder_with_an_adapter_is_refused(folder: Path) -> None:
    """transformers would load it, and the id would say nothing of it."""
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(SpeciateError, match="register_model merges it") as refusal:
        load_encoder(f"path:{folder}")
    assert refusal.value.code is Code.INVALID
    with pytest.raises(SpeciateError, match="register_model merges it"):
        architectures.build(f"path:{folder}", (), 0)


def test_a_network_of_texts_is_read_at_two_depths(folder: Path) -> None:
    last = load_encoder(f"path:{folder}", precision="float32")
    both = load_encoder(f"path:{folder}", precision="float32", layers=True)
    assert both.id == f"{last.id}-of-layers"
    assert both.width == 2 * last.width
    check_vectors(both, TEXTS)
    half = vectors(both, TEXTS)[:, : last.width] * 2**0.5
    np.testing.assert_allclose(half, vectors(last, TEXTS), atol=1e-5)
    assert np.abs(vectors(both, TEXTS)[:, last.width :] * 2**0.5 - half).max() > 0.001


def test_what_is_kept_of_a_network_read_at_two_depths_gives_the_same_vectors(folder: Path, tmp_path: Path) -> None:
    both = load_encoder(f"path:{folder}", precision="float32", layers=True)
    (kept := tmp_path / "kept").mkdir()
    both.keep(kept)
    again = kept_encoder(f"path:{folder}", both.id, "float32", kept)
    assert again.width == both.width
    np.testing.assert_allclose(vectors(again, TEXTS), vectors(both, TEXTS), atol=1e-5)
    assert model_folder.read_settings(kept)["width"] == SMALL["hidden_size"], "others may be trained from it"


def test_a_network_of_sequences_is_read_at_its_end(trained: Path) -> None:
    assert not load_encoder("x@v1", folder=trained, layers=True).id.endswith("-of-layers")
