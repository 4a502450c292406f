"""Tiny policies as LeRobot saves them, and episodes: by whole numbers alone, so that they are the same everywhere."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from speciate.models.policies.acting import _NETWORKS
from speciate.models.policies.policy_folder import Statistics, read_policy

_IMAGE = {"type": "VISUAL", "shape": [3, 32, 32]}
STATE, PLACES = {"type": "STATE", "shape": [4]}, {"type": "ENV", "shape": [4]}
ACTION = {"action": {"type": "ACTION", "shape": [2]}}
_SMALL_ACT = {
    "type": "act", "output_features": ACTION, "chunk_size": 6, "n_action_steps": 4, "dim_model": 16, "n_heads": 2,
    "dim_feedforward": 24, "n_encoder_layers": 2, "n_vae_encoder_layers": 1, "latent_dim": 4, "dropout": 0.0,
}  # fmt: skip
_SMALL_DIFFUSION = {
    "type": "diffusion", "output_features": ACTION, "horizon": 8, "n_action_steps": 4, "down_dims": [16, 32],
    "diffusion_step_embed_dim": 16, "spatial_softmax_num_keypoints": 4, "num_inference_steps": 5,
    "drop_n_last_frames": 3,
}  # fmt: skip
_NUMBERS = {"observation.state": STATE, "observation.environment_state": PLACES}
POLICIES: dict[str, dict[str, Any]] = {
    "act": _SMALL_ACT | {"input_features": {"observation.images.top": _IMAGE, **_NUMBERS}},
    "act averaged": _SMALL_ACT
    | {"input_features": _NUMBERS, "temporal_ensemble_coeff": 0.01, "n_action_steps": 1, "pre_norm": True},
    "diffusion": _SMALL_DIFFUSION | {"input_features": _NUMBERS},
    "diffusion with a camera": _SMALL_DIFFUSION
    | {
        "input_features": {"observation.images.top": _IMAGE, "observation.state": STATE},
        "crop_shape": [28, 28],
        "noise_scheduler_type": "DDIM",
        "prediction_type": "sample",
    },
}


def write(folder: Path, config: Mapping[str, Any], *, older: bool = False, drawn: bool = False) -> Path:
    """`older`: the statistics lie among the weights, as before LeRobot 0.4. `drawn`: weights as before a training."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    found = read_policy(config)
    assert found is not None
    torch.manual_seed(0)
    module = module_of(found)
    weights = {name: each.numpy() for name, each in (module if drawn else fill(module)).state_dict().items()}
    known = statistics(config)
    if older:
        for feature, kinds in known.items():
            beginning = "unnormalize_outputs" if feature == "action" else "normalize_inputs"
            named = f"{beginning}.buffer_{feature.replace('.', '_')}"
            weights |= {f"{named}.{kind}": each for kind, each in kinds.items()}
    else:
        flat = {f"{name}.{kind}": each for name, kinds in known.items() for kind, each in kinds.items()}
        for name, step in (("preprocessor", "normalizer"), ("postprocessor", "unnormalizer")):
            state = f"policy_{name}_step_3_{step}_processor.safetensors"
            steps = [{"registry_name": "device_processor"}, {"registry_name": f"{step}_processor", "state_file": state}]
            (folder / f"policy_{name}.json").write_text(json.dumps({"name": f"policy_{name}", "steps": steps}))
            save_file(flat, folder / state)
    save_file(weights, folder / "model.safetensors")
    return folder


def module_of(config: Any) -> torch.nn.Module:
    import importlib

    prefix, module, name = _NETWORKS[config.type]
    return torch.nn.ModuleDict({prefix: getattr(importlib.import_module(module), name)(config)})


def fill(module: torch.nn.Module) -> torch.nn.Module:
    """Weights by their names; fixed tables stay."""
    with torch.no_grad():
        for name, each in module.state_dict().items():
            if name.endswith(("pos_enc", "pos_grid", "num_batches_tracked")):
                continue
            places = np.arange(each.numel(), dtype=np.int64)
            values = ((places * 7919 + zlib.crc32(name.encode())) % 1001 - 500) / 2500
            if each.ndim == 1 and name.endswith(("weight", "running_var")):
                values = 1 + values / 4
            each.copy_(torch.from_numpy(values.reshape(tuple(each.shape)).astype(np.float32)))
    return module


def statistics(config: Mapping[str, Any]) -> Statistics:
    found = Statistics()
    for name, feature in (config["input_features"] | config["output_features"]).items():
        size = feature["shape"][0]
        ones = np.ones((size, 1, 1) if feature["type"] == "VISUAL" else (size,), np.float32)
        found[name] = {"mean": ones / 4, "std": ones / 2, "min": -ones, "max": 1.5 * ones}
    return found


def episode(steps: int, seed: int = 0, fps: float = 10.0) -> dict[str, Any]:
    """Eight measured numbers and a camera."""
    draw = np.arange(steps * 8).reshape(steps, 8)
    state = ((draw * (37 + seed) + seed * 11) % 129 / 64 - 1).astype(np.float32)
    pixels = np.arange(steps * 32 * 32 * 3).reshape(steps, 32, 32, 3)
    frames = ((pixels * (13 + seed) + seed) % 251).astype(np.uint8)
    return {
        "times": (np.arange(steps) / fps).astype(np.float32), "state": state,
        "action": np.zeros((steps, 0), np.float32),
        "cameras": {"top": {"frames": frames, "steps": np.arange(steps, dtype=np.int32)}},
        "about": {"fps": fps, "state": [f"s{place}" for place in range(8)], "action": [], "task": ""},
    }  # fmt: skip


def measured(found: dict[str, Any], count: int) -> dict[str, Any]:
    """The episode with its first numbers alone."""
    return found | {"state": found["state"][:, :count]}
