"""Our readers of ACT and diffusion policies beside LeRobot's own classes: the same weights, the same actions?

    PYTHONPATH=. python evals/lerobot_policies.py [--write tests/models/policies/lerobot.json]

LeRobot cannot be installed here (it wants torch below 2.11 and huggingface-hub below 0.36), so its wheel is fetched
without what it needs, and the files of its two networks are run as they are; what they import of the rest of LeRobot is
replaced by stand-ins of a few lines. Each step of an episode goes through LeRobot's `select_action`, with the queue or
the average of plans that it keeps; noise is handed to both. Losses are compared with the same drawn numbers.
`--write` keeps LeRobot's actions, which the tests compare ours with.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import sys
import tempfile
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.schedulers import scheduling_ddpm

sys.path.insert(0, str(Path(__file__).parent / "demo"))
import published_weights

from speciate.models.policies.acting import Policy, load_policy
from speciate.models.policies.policy_folder import read_policy
from tests.models.policies.doubles import POLICIES, episode, measured, statistics, write

STEPS = 13
_FILES = ("policies/act/configuration_act", "policies/act/modeling_act", "policies/diffusion/configuration_diffusion",
          "policies/diffusion/modeling_diffusion")  # fmt: skip


class _Kind(enum.StrEnum):
    STATE, VISUAL, ENV, ACTION = "STATE", "VISUAL", "ENV", "ACTION"
    MEAN_STD, MIN_MAX = "MEAN_STD", "MIN_MAX"


@dataclasses.dataclass
class _Feature:
    type: _Kind
    shape: tuple[int, ...]


@dataclasses.dataclass
class _Config:
    """LeRobot's PreTrainedConfig, as far as networks ask it."""

    input_features: dict[str, _Feature] = dataclasses.field(default_factory=dict)
    output_features: dict[str, _Feature] = dataclasses.field(default_factory=dict)
    n_obs_steps: int = 1

    def __post_init__(self) -> None:
        pass

    @classmethod
    def register_subclass(cls, name: str) -> Any:
        return lambda made: made

    @property
    def robot_state_feature(self) -> _Feature | None:
        return self.input_features.get("observation.state")

    @property
    def env_state_feature(self) -> _Feature | None:
        return next((each for each in self.input_features.values() if each.type is _Kind.ENV), None)

    @property
    def image_features(self) -> dict[str, _Feature]:
        return {name: each for name, each in self.input_features.items() if each.type is _Kind.VISUAL}

    @property
    def action_feature(self) -> _Feature:
        return self.output_features["action"]


class _Policy(torch.nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()


def lerobot() -> dict[str, Any]:
    """LeRobot's classes, from its wheel."""
    home = Path(__file__).resolve().parents[1] / "build" / "lerobot"
    root = home / "root"
    if not root.exists():
        for package in ("lerobot", "einops"):
            with zipfile.ZipFile(published_weights.fetch(package, home / package)) as archive:
                archive.extractall(root)
    sys.path.append(str(root))
    for name in ("", "policies", "policies.act", "policies.diffusion", "configs", "utils", "optim"):
        module = types.ModuleType(f"lerobot.{name}".rstrip("."))
        module.__path__ = []
        sys.modules[module.__name__] = module
    stand_ins = {
        "configs.policies": {"PreTrainedConfig": _Config}, "configs.types": {"NormalizationMode": _Kind},
        "policies.pretrained": {"PreTrainedPolicy": _Policy},
        "optim.optimizers": dict.fromkeys(("AdamWConfig", "AdamConfig")),
        "optim.schedulers": {"DiffuserSchedulerConfig": None},
        "utils.constants": {"ACTION": "action", "OBS_ENV_STATE": "observation.environment_state",
                            "OBS_IMAGES": "observation.images", "OBS_STATE": "observation.state"},
    }  # fmt: skip
    for name, contents in stand_ins.items():
        sys.modules[f"lerobot.{name}"] = module = types.ModuleType(name)
        vars(module).update(contents)
    source = (root / "lerobot/policies/utils.py").read_text()
    part = source[source.index("def populate_queues") : source.index("def log_model_loading_keys")]
    sys.modules["lerobot.policies.utils"] = module = types.ModuleType("utils")
    exec("import torch\nfrom collections import deque\nfrom torch import nn\n" + part, vars(module))
    for name in _FILES:
        full = "lerobot." + name.replace("/", ".")
        sys.modules[full] = module = types.ModuleType(full)
        exec(compile((root / f"lerobot/{name}.py").read_text(), name, "exec"), vars(module))
    return {
        "act": (vars(sys.modules["lerobot.policies.act.configuration_act"])["ACTConfig"],
                vars(sys.modules["lerobot.policies.act.modeling_act"])["ACTPolicy"]),
        "diffusion": (vars(sys.modules["lerobot.policies.diffusion.configuration_diffusion"])["DiffusionConfig"],
                      vars(sys.modules["lerobot.policies.diffusion.modeling_diffusion"])["DiffusionPolicy"]),
    }  # fmt: skip


def theirs(classes: dict[str, Any], config: dict[str, Any], ours: Policy) -> Any:
    make, policy = classes[config["type"]]
    given = {name: each for name, each in config.items() if name != "type"}
    for name in ("input_features", "output_features"):
        given[name] = {key: _Feature(_Kind(each["type"]), tuple(each["shape"])) for key, each in given[name].items()}
    given |= {"pretrained_backbone_weights": None}
    found = policy(make(**given)).eval()
    print(f"  weights: {len(ours.module.state_dict())} of {len(found.state_dict())} names", end="")
    found.load_state_dict(ours.module.state_dict(), strict=True)
    return found


def scaled(config: dict[str, Any], name: str, values: Any) -> Any:
    """By the formulas of LeRobot's normalizer."""
    known, kind = statistics(config)[name], (config["input_features"] | config["output_features"])[name]["type"]
    way = {"act": "MEAN_STD", "diffusion": "MIN_MAX"}[config["type"]] if kind != "VISUAL" else "MEAN_STD"
    if kind == "ENV":
        return values
    if way == "MEAN_STD":
        return (values - known["mean"]) / (known["std"] + 1e-8)
    return 2 * (values - known["min"]) / (known["max"] - known["min"]) - 1


def unscaled(config: dict[str, Any], actions: Any) -> Any:
    known = statistics(config)["action"]
    if config["type"] == "act":
        return actions * known["std"] + known["mean"]
    return (actions + 1) / 2 * (known["max"] - known["min"]) + known["min"]


def batch(config: dict[str, Any], seen: dict[str, Any], row: int) -> dict[str, torch.Tensor]:
    """One step as LeRobot's preprocessor gives it."""
    made = {}
    for name, feature in config["input_features"].items():
        values = seen[name][row]
        if feature["type"] == "VISUAL":
            values = values.transpose(2, 0, 1).astype(np.float32) / 255
        made[name] = torch.from_numpy(np.asarray(scaled(config, name, values), np.float32))[None]
    return made


def acted(policy: Any, config: dict[str, Any], ours: Policy, seen: dict[str, Any]) -> np.ndarray:
    """(T, A) by LeRobot's select_action, with the noise that ours draws."""
    actions = []
    policy.reset()
    for row in range(STEPS):
        options = {}
        if config["type"] == "diffusion":
            seed = int.from_bytes(ours.plan_key(seen, row)[:8], "little")
            shape = (len(ours.network.schedule.steps) + 1, config["horizon"], 2)
            noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))
            drawn = iter(noise[1:])
            scheduling_ddpm.randn_tensor = lambda *_, drawn=drawn, **__: next(drawn)[None]
            options = {"noise": noise[:1]}
        actions.append(policy.select_action(batch(config, seen, row), **options)[0].numpy())
    return np.asarray(unscaled(config, np.stack(actions)))


def losses(policy: Any, config: dict[str, Any], ours: Policy, seen: dict[str, Any]) -> tuple[float, float]:
    """Theirs and ours of one training batch, in train mode, with the same numbers drawn."""
    rows = [3, 7]
    windows = [ours.window(seen, row) for row in rows]
    count = ours.config.planned
    actions = ((np.arange(2 * count * 2).reshape(2, count, 2) * 29) % 33 / 16 - 1).astype(np.float32)
    beyond = np.zeros((2, count), bool)
    beyond[1, -2:] = True
    made = dict(ours.scaled(windows))
    if config["type"] == "act":
        made = {name: each[:, -1] for name, each in made.items()}
    made |= {"action": torch.from_numpy(np.asarray(scaled(config, "action", actions), np.float32)),
             "action_is_pad": torch.from_numpy(beyond)}  # fmt: skip
    found = []
    for module, loss in ((policy, lambda: policy(made)[0]), (ours.module, lambda: ours.loss(windows, actions, beyond))):
        module.train()
        torch.manual_seed(0)
        found.append(float(loss()))
        module.eval()
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    classes, kept = lerobot(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as place:
        for name, config in POLICIES.items():
            print(name)
            folder = write(Path(place) / name, config)
            found = read_policy(config)
            assert found is not None
            ours = load_policy(folder, found)
            policy = theirs(classes, config, ours)
            seen = ours.look(measured(episode(STEPS), sum(found.numbers.values())))
            their_actions, our_actions = acted(policy, config, ours, seen), ours.act([seen])[0]
            print(f"; actions of {STEPS} steps differ by {np.abs(their_actions - our_actions).max():.1e} at most, of "
                  f"{np.abs(their_actions).max():.2f}", end="")  # fmt: skip
            their_loss, our_loss = losses(policy, config, ours, seen)
            print(f"; losses {their_loss:.6f} and {our_loss:.6f}")
            kept[name] = np.round(their_actions, 6).tolist()
    if given.write:
        given.write.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
