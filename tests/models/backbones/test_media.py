"""Backbones over images, audio, time series, volumes, points and rows: the same contract for all, and odd media."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from transformers import (
    AutoModel,
    ConvNextConfig,
    Dinov2Config,
    HubertConfig,
    PreTrainedConfig,
    SwinConfig,
    VideoMAEConfig,
    ViTConfig,
    Wav2Vec2Config,
)

from speciate.errors import Code, SpeciateError
from speciate.modalities.geometry.mesh import MeshMedia
from speciate.modalities.medical.volumes import Volume, slice_images
from speciate.modalities.robotics.episode import EPISODE, Episode
from speciate.models import model_folder
from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Backbone, Item, States
from tests.domains.machine_parts import bolt

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
WAVES = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, **SMALL}
FOLDERS: dict[str, Callable[[], PreTrainedConfig]] = {
    "vit": lambda: ViTConfig(image_size=32, patch_size=8, **SMALL),
    "dinov2": lambda: Dinov2Config(image_size=28, patch_size=14, **SMALL),
    "convnext": lambda: ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "swin": lambda: SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "videomae": lambda: VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, **SMALL),
    "wav2vec2": lambda: Wav2Vec2Config(feat_extract_norm="layer", do_stable_layer_norm=True, **WAVES),
}
SERIES = ("new:patchtst", "new:inceptiontime", "new:mlp", "new:cnn", "new:gru")
NEW = (
    "new:vit", "new:resnet", "new:ast", "new:conformer", "new:wav2vec2", "new:videomae",
    *SERIES, "new:tab-resnet", "new:cnn3d", "new:unet3d", "new:pointnet", "new:bc-mlp", "new:bc-cnn",
)  # fmt: skip


def volume(seed: int, slices: int = 12) -> Volume:
    """A ball in noise; the taller, the brighter."""
    shape = slices, 16 + seed, 18
    centre = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2
    voxels = np.random.default_rng(seed).normal(100 * seed, 5, shape) + 50 * (np.square(centre).sum(0) < 20)
    return {"voxels": voxels.astype(np.float32), "spacing": np.array([2.5, 1, 1], np.float32)}


def episode(seed: int) -> Episode:
    """From 2 to 14 steps, every second of which has a frame of its own."""
    steps, chance = 2 + 3 * seed, np.random.default_rng(seed)
    made = EPISODE.admit({"state": chance.normal(size=(steps, 3)).tolist()})
    seen = np.arange(0, steps, 2, dtype=np.int32)
    made["cameras"] = {"top": {"frames": chance.integers(0, 256, (len(seen), 30, 40, 3), np.uint8), "steps": seen}}
    return made


MEDIA: dict[str, Sequence[Any]] = {
    "point-cloud": [
        {"points": np.random.default_rng(at).normal(0, (1, 2, 3 + at), (200 + 200 * at, 3)).astype(np.float32)}
        for at in range(5)
    ],
    "image": [np.random.default_rng(at).integers(0, 256, (12 + at, 20, 3), np.uint8) for at in range(5)],
    "audio": [
        np.random.default_rng(at).normal(0, 0.1, 2000 + 1700 * at).astype(np.float32) for at in range(5)
    ],
    "time-series": [
        np.random.default_rng(at).normal(at, 1 + at, (2, 20 + 9 * at)).astype(np.float32) for at in range(5)
    ],
    "video": [
        {"frames": np.random.default_rng(at).integers(0, 256, (3 + 6 * at, 30, 40, 3), np.uint8)} for at in range(5)
    ],
    "tabular": [
        {"size": 1.5 * at, "made": None if at == 2 else at, "kind": "ab"[at % 2], "new": at > 1} for at in range(5)
    ],
    "volume": [volume(at) for at in range(5)],
    "episode": [episode(at) for at in range(5)],
}  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    for name, config in FOLDERS.items():
        torch.manual_seed(0)
        AutoModel.from_config(config()).save_pretrained(root / name)
    said = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (root / "vit" / "preprocessor_config.json").write_text(json.dumps(said | {"resample": 3}))
    return {name: root / name for name in FOLDERS}


@pytest.fixture(scope="module", params=[*NEW, "timm:resnet10t", "timm:test_vit", *FOLDERS])
def backbone(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Backbone:
    """One for all tests: whoever changes its weights takes a copy."""
    name = request.param if ":" in request.param else f"path:{folders[request.param]}"
    return built(name)


def built(name: str, media: Sequence[Any] | None = None, seed: int = 3) -> Backbone:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    modality = architectures.modality_of(name)
    assert modality is not None
    made = architectures.build(name, MEDIA[modality] if media is None else media, seed)
    made.module.eval()
    return made


def states(backbone: Backbone, items: Sequence[Item]) -> States:
    with torch.inference_mode():
        return backbone.states(backbone.collate(items))


def equal(a: States, b: States, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(a.sequence, b.sequence, atol=tolerance, rtol=0)
    torch.testing.assert_close(a.pooled, b.pooled, atol=tolerance, rtol=0)
    assert torch.equal(a.mask, b.mask)


def test_states_have_the_promised_shapes(backbone: Backbone) -> None:
    items = backbone.prepare(MEDIA[backbone.modality])
    found = states(backbone, items)
    assert found.sequence.shape == (*found.mask.shape, backbone.width)
    assert found.pooled.shape == (len(items), backbone.width)
    assert found.sequence.dtype == found.pooled.dtype == torch.float32
    assert found.mask.dtype == torch.bool
    assert found.mask[:, 0].all()
    assert torch.isfinite(found.sequence).all()
    if backbone.modality in ("image", "volume"):
        assert found.grid is not None
        assert len(found.grid) == (2 if backbone.modality == "image" else 3)
        assert math.prod(found.grid) == found.sequence.shape[1]


def test_frames_are_as_many_as_the_length_says(backbone: Backbone) -> None:
    if backbone.modality == "audio":
        items = backbone.prepare(MEDIA["audio"])
        assert states(backbone, items).mask.sum(1).tolist() == [backbone.length(item) for item in items]


def test_a_medium_does_not_depend_on_what_else_is_in_the_batch(backbone: Backbone) -> None:
    items = backbone.prepare(MEDIA[backbone.modality])
    together = states(backbone, items)
    for place, item in enumerate(items):
        alone = states(backbone, [item])
        kept = alone.mask[0]
        inside = together.sequence[place, : len(kept)]
        torch.testing.assert_close(inside[kept], alone.sequence[0][kept], atol=1e-4, rtol=0)
        torch.testing.assert_close(together.pooled[place], alone.pooled[0], atol=1e-4, rtol=0)
        assert together.mask[place].sum() == kept.sum()


def test_preparing_takes_each_alone(backbone: Backbone) -> None:
    media = MEDIA[backbone.modality]
    for medium, item in zip(media, backbone.prepare(media), strict=True):
        (again,) = backbone.prepare([medium])
        assert item.keys() == again.keys()
        assert all(np.array_equal(item[name], again[name]) for name in item)


@pytest.mark.parametrize("name", [*NEW, "timm:resnet10t"])
def test_the_seed_alone_draws_the_weights(name: str) -> None:
    torch.manual_seed(1)
    first = built(name, seed=5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, other = built(name, seed=5), built(name, seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    items = first.prepare(MEDIA[first.modality])
    equal(states(first, items), states(again, items))
    assert not torch.equal(states(first, items).pooled, states(other, items).pooled)


def test_saved_and_rebuilt_it_gives_equal_states(backbone: Backbone, tmp_path: Path) -> None:
    backbone = copy.deepcopy(backbone)
    items = backbone.prepare(MEDIA[backbone.modality])
    with torch.no_grad():
        for weight in backbone.module.parameters():
            weight.add_(0.01)
    model_folder.save(backbone, tmp_path)
    again = model_folder.load(tmp_path, architectures.rebuild)
    assert json.dumps(again.settings(), sort_keys=True) == json.dumps(backbone.settings(), sort_keys=True)
    equal(states(again, again.prepare(MEDIA[backbone.modality])), states(backbone, items))


def test_gradients_reach_the_weights(backbone: Backbone) -> None:
    backbone = copy.deepcopy(backbone)
    backbone.module.train()
    with torch.no_grad():
        for weight in backbone.module.parameters():
            weight.add_(0.01)  # some begin at zero, and what lies behind them gets no gradient yet
    found = backbone.states(backbone.collate(backbone.prepare(MEDIA[backbone.modality])))
    (found.sequence.square().mean() + found.pooled.square().mean()).backward()
    reached = [weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in backbone.module.parameters()]
    assert sum(reached) > 0.7 * len(reached)


def test_media_of_another_modality_are_refused(backbone: Backbone) -> None:
    for modality, media in MEDIA.items():
        if modality != backbone.modality:
            with pytest.raises(SpeciateError) as refusal:
                backbone.prepare(media)
            assert refusal.value.code is Code.INVALID
    with pytest.raises(SpeciateError):
        backbone.prepare(MEDIA[backbone.modality], per_unit=True)


ODD: dict[str, Sequence[Any]] = {
    "point-cloud": [
        {"points": np.zeros((1, 3), np.float32)}, {"points": np.full((40, 3), 1e6, np.float32)},
        {"points": np.linspace(-1, 1, 90, dtype=np.float32).reshape(30, 3) * 1e-9},
    ],
    "image": [np.zeros((1, 1, 3), np.uint8), np.full((400, 3, 3), 255, np.uint8)],
    "audio": [np.zeros(1, np.float32), np.zeros(9000, np.float32), np.ones(40_000, np.float32)],
    "time-series": [
        np.zeros((2, 1), np.float32), np.full((2, 30), 1e30, np.float32),
        np.arange(4000, dtype=np.float32).reshape(2, -1),
    ],
    "video": [{"frames": np.zeros((1, 1, 1, 3), np.uint8)}, {"frames": np.full((40, 300, 2, 3), 255, np.uint8)}],
    "tabular": [{}, {"size": None, "kind": 7, "other": 1}, {"size": float("nan")}, {"size": 1e300, "kind": "c"}],
    "volume": [
        {"voxels": np.zeros((1, 1, 1), np.float32), "spacing": np.ones(3, np.float32)},
        {"voxels": np.full((3, 90, 2), 3e38, np.float32), "spacing": np.ones(3, np.float32)},
    ],
    "episode": [
        {**episode(0), "state": np.full((2, 3), 3e38, np.float32)},
        {**EPISODE.window(episode(2), 1, 2), "state": np.zeros((1, 3), np.float32)},
    ],
}  # fmt: skip


def test_odd_media_are_read(backbone: Backbone) -> None:
    items = backbone.prepare(ODD[backbone.modality])
    found = states(backbone, items)
    assert found.mask.any(1).all()
    assert torch.isfinite(found.sequence).all()
    assert torch.isfinite(found.pooled).all()


@pytest.mark.parametrize("name", NEW)
def test_it_can_be_fitted_on_one_odd_medium(name: str) -> None:
    media = ODD[architectures.ARCHITECTURES[name].modality][:1] if name != "new:tab-resnet" else [{"a": 1}]
    made = built(name, media)
    assert torch.isfinite(states(made, made.prepare(media)).pooled).all()
    made.module.train()
    assert torch.isfinite(made.states(made.collate(made.prepare(media))).pooled).all()


def test_preprocessing_is_that_of_the_folder(folders: dict[str, Path]) -> None:
    made = built(f"path:{folders['vit']}")
    assert made.settings()["preprocessing"] == {
        "side": 32, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "resample": 3,
    }  # fmt: skip
    assert str(folders["vit"]) not in json.dumps(made.settings()["config"])


def test_published_vit_states_are_those_of_transformers(folders: dict[str, Path]) -> None:
    made = built(f"path:{folders['vit']}")
    batch = made.collate(made.prepare(MEDIA["image"]))
    with torch.inference_mode():
        theirs = AutoModel.from_pretrained(folders["vit"]).eval()(pixel_values=batch["pixels"]).last_hidden_state
        ours = made.states(batch)
    torch.testing.assert_close(ours.sequence, theirs[:, 1:])
    torch.testing.assert_close(ours.pooled, theirs[:, 0])
    assert ours.grid == (4, 4)


def test_published_timm_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    theirs = timm.create_model("resnet10t", pretrained=False)
    repo = tmp_path / ("models--" + theirs.pretrained_cfg["hf_hub_id"].replace("/", "--"))
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    save_file(theirs.state_dict(), repo / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    made = built("timm:resnet10t")
    assert made.settings()["weights"] == "published"
    for name, weight in made.module.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name])


def test_an_unknown_timm_model_is_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(SpeciateError) as refusal:
        built("timm:resnet10")
    assert refusal.value.code is Code.NOT_FOUND
    assert "resnet10t" in refusal.value.message


def test_a_network_whose_states_depend_on_the_batch_is_refused(tmp_path: Path) -> None:
    AutoModel.from_config(HubertConfig(feat_extract_norm="group", **WAVES)).save_pretrained(tmp_path)
    with pytest.raises(SpeciateError) as refusal:
        built(f"path:{tmp_path}")
    assert refusal.value.code is Code.INVALID


@pytest.mark.parametrize("name", SERIES)
def test_other_channels_are_refused(name: str) -> None:
    three = np.zeros((3, 30), np.float32)
    with pytest.raises(SpeciateError):
        built(name).prepare([three])
    with pytest.raises(SpeciateError):
        built(name, [three, *MEDIA["time-series"]])


def test_free_text_and_empty_columns_are_left_out() -> None:
    rows = [{"note": f"note {at}", "empty": None, "kind": "ab"[at % 2], "n": at} for at in range(60)]
    made = built("new:tab-resnet", rows)
    assert [each["name"] for each in made.settings()["categories"]] == ["kind"]
    assert [each["name"] for each in made.settings()["numbers"]] == ["n"]
    with pytest.raises(SpeciateError):
        built("new:tab-resnet", [{"note": row["note"], "empty": None} for row in rows])


def test_missing_and_unseen_cells_are_told_apart_from_seen_ones() -> None:
    made = built("new:tab-resnet")
    row = MEDIA["tabular"][1]
    seen = [row, row | {"kind": None}, row | {"kind": "z"}, row | {"made": None}]
    pooled = states(made, made.prepare(seen)).pooled
    assert len(pooled.unique(dim=0)) == len(seen)


def test_columns_may_come_in_any_order() -> None:
    media = MEDIA["tabular"]
    turned = [dict(reversed(row.items())) for row in media]
    a, b = built("new:tab-resnet"), built("new:tab-resnet", turned)
    equal(states(a, a.prepare(media)), states(b, b.prepare(turned)))


def test_padding_does_not_count_to_the_norms_of_a_training() -> None:
    media = [np.random.default_rng(at).normal(at, 2, (2, 24)).astype(np.float32) for at in range(6)]
    found = []
    for padding in (0, 200):
        made = built("new:inceptiontime", media)
        batch = made.collate(made.prepare(media))
        batch["values"] = torch.nn.functional.pad(batch["values"], (0, padding))
        made.module.train()
        seen = made.states(batch)
        seen.pooled.square().sum().backward()
        gradients = {name: each.grad for name, each in made.module.named_parameters()}
        found.append((seen.pooled, gradients, dict(made.module.named_buffers())))
    (pooled, gradients, statistics), (padded, others, kept) = found
    torch.testing.assert_close(padded, pooled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept, statistics, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(others, gradients, atol=1e-2, rtol=1e-2)


def test_a_u_net_has_a_state_for_each_voxel_of_the_cube() -> None:
    made = built("new:unet3d")
    assert states(made, made.prepare(MEDIA["volume"])).grid == (24, 24, 24)


@pytest.mark.parametrize("name", NEW)
def test_what_divides_a_batch_has_no_norms_over_it(name: str) -> None:
    norms = any(isinstance(each, torch.nn.modules.batchnorm._BatchNorm) for each in built(name).module.modules())
    assert architectures.ARCHITECTURES[name].divides == (not norms)
    other = architectures.dividing(name)
    assert architectures.modality_of(other) == architectures.modality_of(name)
    assert architectures.ARCHITECTURES[other].divides


def test_a_volumes_own_scale_and_the_training_volumes_are_both_seen() -> None:
    """As they come from the scanner, two of them differ; each beside its own values, they hardly do."""
    made = built("new:cnn3d")
    bright = {**MEDIA["volume"][1], "voxels": MEDIA["volume"][1]["voxels"] * 4 + 1000}
    first, second = (item["voxels"] for item in made.prepare([MEDIA["volume"][1], bright]))
    assert np.abs(first[0] - second[0]).min() > 1
    assert np.allclose(first[1], second[1], atol=1e-4)


@pytest.mark.parametrize("name", ["new:vit", "new:resnet", "timm:resnet10t"])
def test_a_volume_of_one_slice_is_a_gray_image(name: str) -> None:
    slices = [volume(seed, slices=1) for seed in range(4)]
    made = built(name, slices)
    pictures = [slice_images(each, 1)[0] for each in slices]
    equal(states(made, made.prepare(slices)), states(made, made.prepare(pictures)))
    with pytest.raises(SpeciateError, match="a volume of 12 slices"):
        made.prepare(MEDIA["volume"])


def test_slices_of_a_volume_share_one_range_of_values() -> None:
    ramp: Volume = {
        "voxels": np.repeat(np.arange(10, dtype=np.float32), 16).reshape(10, 4, 4), "spacing": np.ones(3, np.float32)
    }  # fmt: skip
    pictures = slice_images(ramp, 5)
    assert [picture.shape for picture in pictures] == [(4, 4, 3)] * 5
    levels = [int(picture[0, 0, 0]) for picture in pictures]
    assert levels == sorted(set(levels))
    assert len(slice_images(ramp, 99)) == 10


CLOUD = np.random.default_rng(0).gamma(2, (1, 2, 3), (300, 3)).astype(np.float32)


def test_a_cloud_that_is_turned_or_in_another_order_is_the_same() -> None:
    backbone = architectures.build("new:pointnet", [{"points": CLOUD}], seed=0)
    turn = trimesh.transformations.random_rotation_matrix(np.array([0.2, 0.5, 0.7]))[:3, :3]
    turned = (CLOUD.astype(np.float64) @ turn.T * 3 + 5).astype(np.float32)
    plain, other = backbone.prepare([{"points": CLOUD}, {"points": turned}])
    assert other["points"] == pytest.approx(plain["points"], abs=1e-3)
    assert plain["size"][0] == pytest.approx(0, abs=1e-5)
    assert other["size"][0] > 1  # the scale is told beside it
    few = {"points": CLOUD[:128]}  # each four times
    mixed = {"points": CLOUD[:128][::-1].copy()}
    states = backbone.states(backbone.collate(backbone.prepare([few, mixed])))
    assert states.pooled.shape == (2, backbone.width)
    assert states.pooled[0].tolist() == pytest.approx(states.pooled[1].tolist(), abs=0.1)


def test_a_mesh_is_read_by_points_of_its_surface() -> None:
    part = bolt(np.random.default_rng(0))
    media = MeshMedia(vertices=part.vertices.astype(np.float32), faces=part.faces.astype(np.int32))
    backbone = architectures.build("new:pointnet", [media], seed=0)
    assert (backbone.prepare([media])[0]["points"] == backbone.prepare([media])[0]["points"]).all()
    assert "new:pointnet" in architectures.names("mesh")
    assert "new:pointnet" in architectures.names("point-cloud")
    with pytest.raises(SpeciateError, match="reads point-cloud"):
        backbone.prepare([np.zeros((3, 3))])
