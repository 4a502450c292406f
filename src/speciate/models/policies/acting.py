"""A policy in memory: loaded strictly, and the actions that it takes in an episode, in the units of the robot.

A policy plans several steps at once, acts some of them, and looks again. What it does at a step so depends on when it
last looked: at steps 0, n, 2n ... of the episode, where n is its `n_action_steps`. The answer for an episode is what it
would have done at each step, having seen what was recorded. While it acts it is shown the episode so far, from the step
that `first_shown` names, and `times` tell where in the episode that is. So nothing is kept between two questions but
plans that were made already, by what they were made from.

Noise is drawn from what a plan is made from, so the same episode gives the same actions.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.robotics.episode import Episode, frames_of_steps
from speciate.models.policies import policy_folder
from speciate.models.policies.policy_folder import ACTION, ActConfig, DiffusionConfig, camera_name

if TYPE_CHECKING:
    import torch

_NETWORKS = {
    "act": ("model", "speciate.models.policies.act_network", "Act"),
    "diffusion": ("diffusion", "speciate.models.policies.diffusion_network", "Diffusion"),
}
"""Kind -> how its weights' names begin, and its network."""
_AT_ONCE, _KEPT = 64, 4096
"""Plans that are made together, and plans that are kept."""
_MOST_NUMBERS = 2**26
"""Numbers of plans that are kept, and of what is read and planned together: larger ones are fewer."""
Seen = dict[str, npt.NDArray[Any]]
"""Feature -> (T, ...): numbers, or images as uint8 (T, h, w, 3)."""


class Plan(NamedTuple):
    """A plan that is to be made: of which episode, and at which of its rows the policy looks."""

    episode: int
    row: int


class Policy:
    """A network with its scaling. `module` has the names of the file, `config` is what config.json says."""

    def __init__(
        self, folder: Path, config: ActConfig | DiffusionConfig, module: Any, statistics: policy_folder.Statistics
    ) -> None:
        self.config, self.module, self._folder, self._statistics = config, module, folder, statistics
        self._scales = policy_folder.scalings(folder, config, statistics)
        self._plans: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()

    @property
    def network(self) -> Any:
        return self.module[_NETWORKS[self.config.type][0]]

    def look(self, episode: Any) -> Seen:
        """What the policy reads of an episode, and `first`: the step at which the episode begins. ValueError where it
        is another robot's."""
        if not isinstance(episode, dict) or "state" not in episode:
            raise ValueError("the example is no episode")
        whole: Episode = episode  # type: ignore[assignment]  # checked above
        state, numbers = whole["state"], self.config.numbers
        if state.shape[1] != sum(numbers.values()):
            raise ValueError(f"the episode measures {state.shape[1]} numbers, and it reads {sum(numbers.values())}")
        parts = np.split(state.astype(np.float32), np.cumsum(list(numbers.values()))[:-1], axis=1)
        seen: Seen = dict(zip(numbers, parts, strict=True))
        for feature in self.config.cameras:
            camera = camera_name(feature)
            if camera not in whole["cameras"]:
                raise ValueError(f"the episode has no camera {camera!r}")
            seen[feature] = whole["cameras"][camera]["frames"][frames_of_steps(whole, camera)]
        began = float(whole["times"][0]) if len(whole["times"]) else 0.0
        return seen | {"first": np.array([round(began * whole["about"]["fps"])], np.int64)}

    def act(self, episodes: Sequence[Seen], *, keep: bool = True) -> list[npt.NDArray[np.float32]]:
        """(T, A) each: what it does at each step. `keep`: whether plans are kept, for a network that learns no more."""
        wanted = [[Plan(place, row) for row in self.looks(seen)] for place, seen in enumerate(episodes)]
        if not keep:
            self._plans.clear()
        keys = {plan: self.plan_key(episodes[plan.episode], plan.row) for plans in wanted for plan in plans}
        for key in self._plans.keys() & set(keys.values()):
            self._plans.move_to_end(key)
        missing = {key: plan for plan, key in keys.items() if key not in self._plans}
        made = dict[bytes, npt.NDArray[np.float32]]()
        todo = list(missing.items())
        for start in range(0, len(todo), at_once := self._at_once()):
            some = todo[start : start + at_once]
            windows = [self.window(episodes[plan.episode], plan.row) for _, plan in some]
            planned = self.plan(windows, [int.from_bytes(key[:8], "little") for key, _ in some])
            made.update(zip((key for key, _ in some), planned, strict=True))
        found = [self._follow(seen, plans, keys, made) for seen, plans in zip(episodes, wanted, strict=True)]
        if keep:
            self._refuse_no_numbers(made.values())
            self._plans.update(made)
            size = self.config.planned * self.config.actions
            most = min(max(_KEPT, len(episodes) * self.config.planned), max(1, _MOST_NUMBERS // size))
            while len(self._plans) > most:
                self._plans.popitem(last=False)
        return found

    def plan(self, windows: Sequence[Seen], seeds: Sequence[int]) -> list[npt.NDArray[np.float32]]:
        """(steps, A) each, from the present step on, in the robot's units. `windows`: n_obs_steps rows each."""
        import torch

        device = next(self.module.parameters()).device
        drawing = [np.random.default_rng(seed) for seed in seeds]
        shape = self.config.planned, self.config.actions

        def draw() -> torch.Tensor:
            return torch.from_numpy(np.stack([each.standard_normal(shape, np.float32) for each in drawing])).to(device)

        with torch.inference_mode():
            made = self.network.plan(self.scaled(windows), draw)
            made = self.unscaled(made.float()).cpu().numpy()
        return [each[-self.config.horizon_start :].copy() for each in made]  # a view would keep the whole batch

    def loss(
        self, windows: Sequence[Seen], actions: npt.NDArray[np.float32], beyond: npt.NDArray[np.bool_]
    ) -> torch.Tensor:
        """The publisher's. `actions`: (N, planned, A) in the robot's units; `beyond`: (N, planned), which of them lie
        outside the episode."""
        import torch

        seen = self.scaled(windows)
        device = next(self.module.parameters()).device
        wanted = torch.from_numpy(actions).to(device)
        if (scale := self._scales.get(ACTION)) is not None:
            wanted = (wanted - _tensor(scale.middle, wanted)) / _tensor(scale.spread, wanted)
        loss: torch.Tensor = self.network.loss(seen, wanted, torch.from_numpy(beyond).to(device))
        return loss

    def scaled(self, windows: Sequence[Seen]) -> dict[str, torch.Tensor]:
        """Features as the network reads them, (N, n_obs_steps, ...). Images are brought to the size of the config."""
        import torch

        device = next(self.module.parameters()).device
        made = dict[str, torch.Tensor]()
        for name in self.config.numbers:
            made[name] = torch.from_numpy(np.stack([each[name] for each in windows])).to(device)
        for name, shape in self.config.cameras.items():
            images = [self._image(each[name], shape[1:]) for each in windows]
            made[name] = torch.stack(images).to(device)
        for name, scale in self._scales.items():
            if name in made:
                made[name] = (made[name] - _tensor(scale.middle, made[name])) / _tensor(scale.spread, made[name])
        return made

    def unscaled(self, actions: torch.Tensor) -> torch.Tensor:
        scale = self._scales.get(ACTION)
        if scale is None:
            return actions
        return actions * _tensor(scale.spread, actions) + _tensor(scale.middle, actions)

    def save_pretrained(self, folder: Path) -> None:
        """As LeRobot saves it: the weights, and the publisher's config and processors."""
        from safetensors.torch import save_file

        weights = {name: each.detach().cpu().contiguous() for name, each in self.module.state_dict().items()}
        save_file(weights, folder / policy_folder.WEIGHTS, {"format": "pt"})
        shutil.copyfile(self._folder / "config.json", folder / "config.json")
        for path in sorted(self._folder.glob("policy_*")):
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, folder / path.name, follow_symlinks=False)
        if not any((folder / name).is_file() for name in policy_folder.PROCESSORS):
            _save_processors(folder, self.config, self._statistics)

    def looks(self, seen: Seen) -> list[int]:
        """Rows at which it looks and plans. The first row is one, unless it is there for a later look alone: in what
        `first_shown` names."""
        rows, first = len(next(iter(seen.values()))), int(seen["first"][0])
        if self.config.averaged is not None:
            return list(range(rows))
        found = [row for row in range(rows) if (first + row) % self.config.n_action_steps == 0]
        if found and first == self.config.first_shown(first + rows - 1):
            return found
        return sorted({0, *found}) if rows else []

    def window(self, seen: Seen, row: int) -> Seen:
        """The rows that it looks at: the present one and those before, the first again where there are fewer."""
        rows = np.clip(np.arange(row - self.config.n_obs_steps + 1, row + 1), 0, None)
        return {name: each[rows] for name, each in seen.items() if name != "first"}

    def plan_key(self, seen: Seen, row: int) -> bytes:
        """What a plan is made from."""
        found = hashlib.sha256()
        for name, each in self.window(seen, row).items():
            found.update(name.encode() + np.ascontiguousarray(each).tobytes())
        return found.digest()

    def _at_once(self) -> int:
        """Plans that are made together: fewer of large images or long plans."""
        read = self.config.n_obs_steps * sum(math.prod(shape) for shape in self.config.cameras.values())
        return max(1, min(_AT_ONCE, _MOST_NUMBERS // (read + self.config.planned * self.config.actions)))

    def _refuse_no_numbers(self, plans: Iterable[npt.NDArray[np.float32]]) -> None:
        if not all(np.isfinite(each).all() for each in plans):
            raise SpeciateError(
                Code.INVALID,
                f"The policy in {self._folder.name!r} gives actions that are no numbers: its weights or its statistics "
                "are broken.",
                "Use another policy, or train this one anew with a smaller learning_rate.",
            )

    def _follow(
        self,
        seen: Seen,
        plans: Sequence[Plan],
        keys: Mapping[Plan, bytes],
        made: Mapping[bytes, npt.NDArray[np.float32]],
    ) -> npt.NDArray[np.float32]:
        rows = len(next(iter(seen.values())))
        steps = [(plan.row, made.get(keys[plan], self._plans.get(keys[plan]))) for plan in plans]
        actions = np.zeros((rows, self.config.actions), np.float32)
        if self.config.averaged is None:
            for row, plan in steps:  # the latest that began
                assert plan is not None
                part = plan[: min(self.config.n_action_steps, rows - row)]
                actions[row : row + len(part)] = part
            for row, _ in steps[:1]:
                actions[:row] = actions[row]  # what was shown for the look alone
            return actions
        for row in range(rows):  # the oldest plan weighs most where the coefficient is above 0
            told = [plan[row - began] for began, plan in steps if plan is not None and 0 <= row - began < len(plan)]
            weights = np.exp(-self.config.averaged * np.arange(len(told)))
            actions[row] = np.average(told, axis=0, weights=weights)
        return actions

    def _image(self, frames: npt.NDArray[np.uint8], size: tuple[int, ...]) -> torch.Tensor:
        """(T, h, w, 3) -> (T, 3, H, W) from 0 to 1"""
        import torch

        images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
        if tuple(images.shape[2:]) != tuple(size):
            images = torch.nn.functional.interpolate(
                images, tuple(size), mode="bilinear", align_corners=False, antialias=True
            )
        return images


def load_policy(folder: Path, config: ActConfig | DiffusionConfig, threads: int = 1) -> Policy:
    """In eval mode, on the CPU, in float32. INVALID, with the names, for weights that are missing, left over or of
    another shape, and where statistics are missing."""
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load

    torch.set_num_threads(threads)
    prefix, module_name, name = _NETWORKS[config.type]
    build = getattr(importlib.import_module(module_name), name)
    try:
        with torch.device("meta"):  # shapes alone, before memory is taken for what a config says
            shapes = torch.nn.ModuleDict({prefix: build(config)})
        found = load((folder / policy_folder.WEIGHTS).read_bytes())
    except (
        OSError, ValueError, RuntimeError, AssertionError, TypeError, KeyError, MemoryError, SafetensorError,
    ) as error:  # fmt: skip
        raise SpeciateError(
            Code.INVALID,
            f"The policy in {folder.name!r} cannot be loaded: {type(error).__name__} in its weights or config.",
            "Use another policy, or save this one again with LeRobot.",
            str(error)[:500],
        ) from error
    weights, statistics = policy_folder.split_statistics(found, config)
    _refuse_unmatched(folder, {key: tuple(each.shape) for key, each in weights.items()}, shapes)
    module = torch.nn.ModuleDict({prefix: build(config)})
    module.load_state_dict({key: torch.from_numpy(np.asarray(each, np.float32)) for key, each in weights.items()})
    statistics = policy_folder.read_statistics(folder, config) or statistics
    module.config = config  # type: ignore[assignment]  # as networks of transformers have theirs
    return Policy(folder, config, module.eval(), statistics)


def _refuse_unmatched(folder: Path, given: Mapping[str, tuple[int, ...]], module: torch.nn.Module) -> None:
    wanted = {name: tuple(each.shape) for name, each in module.state_dict().items()}
    kinds = {
        "lacks": sorted(set(wanted) - set(given)),
        "has no place for": sorted(set(given) - set(wanted)),
        "has another shape of": sorted(name for name in wanted if name in given and wanted[name] != given[name]),
    }
    found = [f"it {verb} {', '.join(names[:3])}" for verb, names in kinds.items() if names]
    if found:
        raise SpeciateError(
            Code.INVALID,
            f"The weights in {folder.name!r} are not those of their policy: {'; '.join(found)}. Such weights would be "
            "initialised at random.",
            "Use another policy, or save this one again with LeRobot.",
        )


def _save_processors(folder: Path, config: ActConfig | DiffusionConfig, statistics: policy_folder.Statistics) -> None:
    """Statistics that lay among the weights, as later versions of LeRobot want them."""
    from safetensors.numpy import save_file

    flat = {f"{name}.{kind}": each for name, kinds in statistics.items() for kind, each in kinds.items()}
    features = {
        name: {"type": each.type, "shape": list(each.shape)}
        for name, each in (*config.input_features.items(), *config.output_features.items())
    }
    steps = {"policy_preprocessor": "normalizer_processor", "policy_postprocessor": "unnormalizer_processor"}
    for name, step in steps.items():
        state = f"{name}_step_0_{step}.safetensors"
        settings = {"eps": 1e-8, "features": features, "norm_map": config.normalization_mapping}
        made = {"name": name, "steps": [{"registry_name": step, "config": settings, "state_file": state}]}
        (folder / f"{name}.json").write_text(json.dumps(made, indent=2))
        save_file(flat, folder / state)


def _tensor(values: npt.NDArray[np.float32], like: torch.Tensor) -> torch.Tensor:
    """Statistics of images are (3, 1, 1); of numbers (D,)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device)
