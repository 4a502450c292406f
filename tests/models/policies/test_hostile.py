"""Folders of policies that somebody made to break a reader: they take no memory, and are refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchvision")

import torch
from safetensors.numpy import load_file, save_file

from speciate.errors import Code, SpeciateError
from speciate.models.policies.acting import _AT_ONCE, Policy, load_policy
from speciate.models.policies.diffusion_network import Diffusion
from speciate.models.policies.policy_folder import DiffusionConfig, read_policy
from tests.models.policies.doubles import POLICIES, episode, measured, write
from tests.models.policies.test_policies import numbers

_STATE_FILE = "policy_preprocessor_step_3_normalizer_processor.safetensors"


def _loaded(folder: Path) -> Policy:
    config = read_policy(json.loads((folder / "config.json").read_text()))
    assert config is not None
    return load_policy(folder, config)


def _refused(folder: Path, words: str) -> None:
    with pytest.raises(SpeciateError, match=words) as error:
        _loaded(folder)
    assert error.value.code is Code.INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"crop_shape": [20_000, 20_000]},
        {"crop_shape": [33, 32]},
        {"crop_shape": [0, 32]},
        {"crop_shape": None, "resize_shape": [20_000, 20_000]},
        {"kernel_size": 4},
        {"diffusion_step_embed_dim": 5},
        {"beta_end": 5.0},
        {"beta_start": 0.0},
        {"beta_start": 0.5, "beta_end": 0.1},
        {"clip_sample_range": float("nan")},
        {"num_inference_steps": None, "num_train_timesteps": 10_000, "horizon": 1024},
        {"output_features": {"action": {"type": "ACTION", "shape": [2, 2]}}},
    ],
)
def test_a_diffusion_policy_beyond_its_bounds_has_no_head(change: dict[str, Any]) -> None:
    config = POLICIES["diffusion with a camera"]
    assert read_policy(config) is not None
    assert read_policy(config | change) is None


def test_a_network_of_large_images_is_described_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    image = {"type": "VISUAL", "shape": [3, 2048, 2048]}
    config = POLICIES["diffusion with a camera"] | {"crop_shape": None}
    found = read_policy(config | {"input_features": config["input_features"] | {"observation.images.top": image}})
    assert isinstance(found, DiffusionConfig)

    def computes(*_: Any) -> None:
        raise AssertionError("a pass over such an image takes a gigabyte")

    monkeypatch.setattr(torch.nn.Conv2d, "forward", computes)
    with torch.device("meta"):
        grid = Diffusion(found).rgb_encoder.pool.pos_grid
    assert grid.is_meta
    assert grid.shape == (64 * 64, 2)


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (33, 65), (96, 1)])
def test_the_last_map_has_the_size_that_a_residual_network_gives(size: tuple[int, int]) -> None:
    image = {"observation.images.top": {"type": "VISUAL", "shape": [3, *size]}}
    config = POLICIES["diffusion with a camera"] | {"crop_shape": None}
    found = read_policy(config | {"input_features": config["input_features"] | image})
    assert isinstance(found, DiffusionConfig)
    sight = Diffusion(found).rgb_encoder.eval()
    with torch.inference_mode():
        maps = sight.backbone(torch.zeros(1, 3, *size))
    assert maps.shape[1] == sight.pool.nets.in_channels
    rows, columns = np.meshgrid(*(np.linspace(-1.0, 1.0, count) for count in maps.shape[2:]), indexing="ij")
    assert sight.pool.pos_grid.numpy() == pytest.approx(np.stack([columns.ravel(), rows.ravel()], 1), abs=1e-7)


def test_memory_that_runs_out_while_reading_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "policy", POLICIES["diffusion"])

    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("speciate.models.policies.diffusion_network._UNet", no_memory)
    _refused(folder, "MemoryError")


@pytest.mark.parametrize(("kind", "drawn"), [("DDPM", 5), ("DDIM", 1)])
def test_noise_is_drawn_step_by_step_and_is_that_of_one_draw(kind: str, drawn: int, tmp_path: Path) -> None:
    policy = _loaded(write(tmp_path / "policy", POLICIES["diffusion"] | {"noise_scheduler_type": kind}))
    whole = np.random.default_rng(7).standard_normal((6, 8, 2), np.float32)
    seen, plan = list[np.ndarray](), policy.network.plan

    def watched(features: Any, draw: Any) -> Any:
        def one() -> Any:
            seen.append(draw().numpy())
            return torch.from_numpy(seen[-1])

        return plan(features, one)

    policy.network.plan = watched
    policy.plan([policy.window(policy.look(measured(episode(3), numbers("diffusion"))), 2)], [7])
    assert [each.shape for each in seen] == [(1, 8, 2)] * drawn
    assert all((each[0] == wanted).all() for each, wanted in zip(seen, whole, strict=False))


def test_large_images_are_read_few_at_once(tmp_path: Path) -> None:
    policy = _loaded(write(tmp_path / "policy", POLICIES["act"]))
    assert policy._at_once() == _AT_ONCE
    image = {"type": "VISUAL", "shape": [3, 2048, 2048]}
    large = read_policy(POLICIES["act"] | {"input_features": {"observation.images.top": image}})
    assert large is not None
    policy.config = large
    assert policy._at_once() == 5


@pytest.mark.parametrize(
    ("feature", "shape"),
    [("observation.state", (1,)), ("observation.state", (5,)), ("action", (5, 1, 1, 2)),
     ("observation.images.top", (3,)), ("observation.images.top", (3, 32, 32))],
)  # fmt: skip
def test_statistics_of_another_shape_are_refused(feature: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["act"])
    (folder / "policy_postprocessor.json").unlink()
    flat = load_file(folder / _STATE_FILE)
    save_file(flat | {f"{feature}.{kind}": np.ones(shape, np.float32) for kind in ("mean", "std")},
              folder / _STATE_FILE)  # fmt: skip
    _refused(folder, f"the statistics of {feature} have the shape")


def test_statistics_that_cannot_be_or_differ_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["diffusion"])
    flat = load_file(folder / _STATE_FILE)
    save_file(flat | {"action.min": 2 * flat["action.max"]}, folder / _STATE_FILE)
    _refused(folder, "different statistics of action")
    (folder / "policy_postprocessor.json").unlink()
    _refused(folder, "the statistics of action contradict themselves")
    (folder / _STATE_FILE).write_bytes(b"\xff" * 64)
    _refused(folder, f"{_STATE_FILE} cannot be read")
    (folder / "policy_preprocessor.json").write_text("[")
    _refused(folder, "cannot be read")


_NORMALIZER = {"registry_name": "normalizer_processor", "state_file": _STATE_FILE}


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{**_NORMALIZER, "config": {"norm_map": {"STATE": "IDENTITY", "ACTION": "MEAN_STD"}}}], "scales STATE by"),
        ([{**_NORMALIZER, "config": {"eps": 1.0}}], "settings that are not known"),
        ([{**_NORMALIZER, "config": {"normalize_observation_keys": ["a"]}}], "settings that are not known"),
        ([_NORMALIZER, _NORMALIZER], "scales 2 times"),
        ([_NORMALIZER, {"registry_name": "delta_action_processor"}], "the step 'delta_action_processor'"),
        ([_NORMALIZER, {"registry_name": "rename_observations_processor", "config": {"rename_map": {"a": "b"}}}],
         "the step 'rename_observations_processor'"),
        ([{**_NORMALIZER, "state_file": "../elsewhere"}], "a file that is not there"),
    ],
)  # fmt: skip
def test_a_processor_that_does_something_else_is_refused(steps: list[Any], words: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["act averaged"])
    path = folder / "policy_preprocessor.json"
    usual = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {**_NORMALIZER, "config": {"eps": 1e-8, "norm_map": {"STATE": "MEAN_STD", "ACTION": "MEAN_STD"}}},
    ]  # fmt: skip
    path.write_text(json.dumps({"steps": usual}))
    _loaded(folder)
    path.write_text(json.dumps({"steps": steps}))
    _refused(folder, words)


def test_actions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    policy = _loaded(write(tmp_path / "policy", POLICIES["act averaged"]))
    with torch.no_grad():
        policy.network.action_head.bias.fill_(float("inf"))
    with pytest.raises(SpeciateError, match="actions that are no numbers"):
        policy.act([policy.look(measured(episode(3), 8))])


def test_links_and_folders_beside_a_policy_are_not_copied(tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["act averaged"])
    policy = _loaded(folder)
    (tmp_path / "secret").write_text("secret")
    (folder / "policy_notes.txt").symlink_to(tmp_path / "secret")
    (folder / "policy_folder").mkdir()
    (tmp_path / "saved").mkdir()
    policy.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert _STATE_FILE in names
    assert names & {"policy_notes.txt", "policy_folder"} == set()
