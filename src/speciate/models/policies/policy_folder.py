"""The folder of a policy as LeRobot saves it: `config.json`, `model.safetensors`, and how its numbers are scaled.

Two kinds are read: `act` (Action Chunking Transformer, Zhao et al. 2023) and `diffusion` (Diffusion Policy, Chi et al.
2023). The statistics lie in files of the pre- and post-processor or, in folders from before LeRobot 0.4, among the
weights. A policy whose statistics are nowhere is refused: nobody knows the units of its actions. Imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from speciate import foreign_files
from speciate.errors import Code, SpeciateError

Statistics = dict[str, dict[str, npt.NDArray[np.float32]]]
"""Feature -> `mean`, `std`, `min`, `max`, `q01` ... of it."""

ACTION, STATE = "action", "observation.state"
WEIGHTS = "model.safetensors"
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
_SCALES: Mapping[str, tuple[str, str]] = {
    "MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90"),
}  # fmt: skip
"""Ways to scale, and the two statistics that each needs."""
_BUFFERS = ("normalize_inputs.buffer_", "normalize_targets.buffer_", "unnormalize_outputs.buffer_")
"""Beginnings of the names of statistics among the weights."""
_SMALL = 1e-8
_OWN_STEPS = {PROCESSORS[0]: "normalizer_processor", PROCESSORS[1]: "unnormalizer_processor"}
"""Steps of the processors that scale."""
_OTHER_STEPS = frozenset({"rename_observations_processor", "to_batch_processor", "device_processor"})
"""Steps that change no number: names are of the config, batches and devices are made here."""
_MOST_DRAWN = 2**24
"""Numbers that are drawn for a plan, over all steps."""
_LONGEST_SIDE, _WIDEST = 2048, 16_384
Layers = Annotated[int, Field(ge=1, le=64)]
Width = Annotated[int, Field(ge=1, le=_WIDEST)]
Steps = Annotated[int, Field(ge=1, le=10_000)]
Side = Annotated[int, Field(ge=1, le=_LONGEST_SIDE)]
"""Bounds beyond every policy that was published: a config is a stranger's, and networks are built by it."""


def _refuse_even(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("an even kernel changes the length of a plan")
    return kernel


def _refuse_odd(width: int) -> int:
    if width % 2:
        raise ValueError("half of the numbers are sines, half are cosines")
    return width


class Feature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    type: str
    shape: tuple[int, ...]


class PolicyConfig(BaseModel, ABC):
    """Defaults are LeRobot's."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    input_features: dict[str, Feature]
    output_features: dict[str, Feature]
    normalization_mapping: dict[str, str]
    n_obs_steps: Layers
    """Steps that it sees at once, the present one and those before."""
    n_action_steps: Steps
    """Steps that it acts before it looks again."""
    vision_backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"

    @property
    def numbers(self) -> dict[str, int]:
        """Measured features and how many numbers each has, in the order of the config."""
        return {name: each.shape[0] for name, each in self.input_features.items() if each.type in ("STATE", "ENV")}

    @property
    def cameras(self) -> dict[str, tuple[int, ...]]:
        """Features that are images: channels, height and width."""
        return {name: each.shape for name, each in self.input_features.items() if each.type == "VISUAL"}

    @property
    def actions(self) -> int:
        """How many numbers an action has."""
        return self.output_features[ACTION].shape[0]

    @property
    def horizon_start(self) -> int:
        """Where a plan begins: 0 at the present step, -1 at the one before."""
        return 0

    @property
    @abstractmethod
    def planned(self) -> int:
        """Steps of a plan."""

    @property
    def averaged(self) -> float | None:
        """The coefficient by which plans that overlap are averaged, if they are."""
        return None

    def first_shown(self, step: int) -> int:
        """The first step that the policy has to be shown to act at a step, counted from the episode's beginning."""
        if self.averaged is not None:
            return max(0, step - self.planned + 1)
        return max(0, step - step % self.n_action_steps - (self.n_obs_steps - 1))


class ActConfig(PolicyConfig):
    type: Literal["act"]
    normalization_mapping: dict[str, str] = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    n_obs_steps: Literal[1] = 1
    chunk_size: Steps = 100
    n_action_steps: Steps = 100
    replace_final_stride_with_dilation: bool = False
    pre_norm: bool = False
    dim_model: Width = 512
    n_heads: Width = 8
    dim_feedforward: Width = 3200
    feedforward_activation: Literal["relu", "gelu"] = "relu"
    n_encoder_layers: Layers = 4
    n_decoder_layers: Layers = 1
    use_vae: bool = True
    latent_dim: Width = 32
    n_vae_encoder_layers: Layers = 4
    temporal_ensemble_coeff: float | None = None
    dropout: float = 0.1
    kl_weight: float = 10.0

    @property
    def planned(self) -> int:
        return self.chunk_size

    @property
    def averaged(self) -> float | None:
        return self.temporal_ensemble_coeff


class DiffusionConfig(PolicyConfig):
    type: Literal["diffusion"]
    normalization_mapping: dict[str, str] = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    n_obs_steps: Layers = 2
    horizon: Steps = 16
    n_action_steps: Steps = 8
    drop_n_last_frames: Annotated[int, Field(ge=0, le=10_000)] = 7
    resize_shape: tuple[Side, Side] | None = None
    crop_shape: tuple[Side, Side] | None = None
    crop_is_random: bool = True
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: Width = 32
    use_separate_rgb_encoder_per_camera: bool = False
    down_dims: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (512, 1024, 2048)
    kernel_size: Annotated[Layers, AfterValidator(_refuse_even)] = 5
    n_groups: Width = 8
    diffusion_step_embed_dim: Annotated[int, Field(ge=4, le=_WIDEST), AfterValidator(_refuse_odd)] = 128
    use_film_scale_modulation: bool = True
    noise_scheduler_type: Literal["DDPM", "DDIM"] = "DDPM"
    num_train_timesteps: Steps = 100
    beta_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    prediction_type: Literal["epsilon", "sample"] = "epsilon"
    clip_sample: bool = True
    clip_sample_range: Annotated[float, Field(gt=0)] = 1.0
    num_inference_steps: Steps | None = None
    do_mask_loss_for_padding: bool = False

    @model_validator(mode="after")
    def _check(self) -> DiffusionConfig:
        if self.beta_start > self.beta_end:
            raise ValueError("noise grows from step to step")
        sizes = [self.resize_shape] if self.resize_shape else [shape[1:] for shape in self.cameras.values()]
        if self.crop_shape and any(
            cut > side for size in sizes for cut, side in zip(self.crop_shape, size, strict=False)
        ):
            raise ValueError("a crop is larger than its image")
        return self

    @property
    def horizon_start(self) -> int:
        return 1 - self.n_obs_steps

    @property
    def planned(self) -> int:
        return self.horizon


_KINDS: Mapping[str, type[ActConfig] | type[DiffusionConfig]] = {"act": ActConfig, "diffusion": DiffusionConfig}


def read_policy(config: Mapping[str, Any]) -> ActConfig | DiffusionConfig | None:
    """The policy that a config.json describes; None for another model, and for a policy that is not read here."""
    kind = config.get("type")
    if not isinstance(kind, str) or kind not in _KINDS or "input_features" not in config:
        return None
    try:
        found = _KINDS[kind].model_validate(dict(config))
    except ValidationError:
        return None
    features = (*found.input_features.values(), *found.output_features.values())
    shaped = all(each.shape and all(0 < size <= _LONGEST_SIDE for size in each.shape) for each in features)
    known = all(each.type in ("STATE", "ENV", "VISUAL") for each in found.input_features.values())
    flat = all(len(each.shape) == 1 for each in features if each.type != "VISUAL")
    images = all(len(shape) == 3 and shape[0] == 3 for shape in found.cameras.values())
    counts = 1 <= found.n_action_steps <= found.planned + found.horizon_start and found.n_obs_steps >= 1
    if not (shaped and known and flat and images and counts and ACTION in found.output_features):
        return None
    steps = (found.num_inference_steps or found.num_train_timesteps) if isinstance(found, DiffusionConfig) else 0
    return found if (steps + 1) * found.planned * found.actions <= _MOST_DRAWN else None


def camera_name(feature: str) -> str:
    """`observation.images.front` -> `front`, as episodes name their cameras."""
    return feature.removeprefix("observation.").removeprefix("images.")


def split_statistics(
    weights: Mapping[str, npt.NDArray[Any]], config: PolicyConfig
) -> tuple[dict[str, npt.NDArray[Any]], Statistics]:
    """The weights without the statistics that lie among them, and these."""
    names = {name.replace(".", "_"): name for name in (*config.input_features, *config.output_features)}
    left, found = dict[str, npt.NDArray[Any]](), Statistics()
    for name, each in weights.items():
        beginning = next((one for one in _BUFFERS if name.startswith(one)), None)
        if beginning is None:
            left[name] = each
            continue
        feature, _, statistic = name.removeprefix(beginning).rpartition(".")
        if feature in names:
            found.setdefault(names[feature], {})[statistic] = np.asarray(each, np.float32)
    return left, found


def read_statistics(folder: Path, config: PolicyConfig) -> Statistics:
    """From the state files that the processors name; empty where there are none. Raises INVALID for processors that
    cannot be read, that scale otherwise than the config says, or that do more than scale."""
    found = Statistics()
    for name in PROCESSORS:
        if not (folder / name).is_file():
            continue
        try:
            steps = foreign_files.read_json(folder / name)["steps"]
            kinds = [(str(step["registry_name"]), step.get("config") or {}, step.get("state_file")) for step in steps]
            states = [state for kind, settings, state in kinds if _scales(folder, config, name, kind, settings)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unscaled(folder, f"{name} cannot be read") from error
        if len(states) > 1:
            raise _unscaled(folder, f"{name} scales {len(states)} times")
        for state in states:
            for key, values in _read_state(folder, name, state).items() if state is not None else ():
                feature, _, statistic = key.rpartition(".")
                known = found.setdefault(feature, {})
                if statistic in known and not np.array_equal(known[statistic], values):
                    raise _unscaled(folder, f"its processors have different statistics of {feature}")
                known[statistic] = values
    return found


def _read_state(folder: Path, name: str, state: Any) -> dict[str, npt.NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not isinstance(state, str) or Path(state).name != state or not (folder / state).is_file():
        raise _unscaled(folder, f"{name} names a file that is not there")
    try:
        found = load((folder / state).read_bytes())
        return {key: np.asarray(values, np.float32) for key, values in found.items()}
    except (OSError, ValueError, KeyError, TypeError, MemoryError, SafetensorError) as error:
        raise _unscaled(folder, f"{state} cannot be read") from error


def _scales(folder: Path, config: PolicyConfig, name: str, kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether a step is the one that scales."""
    if kind in _OTHER_STEPS and not settings.get("rename_map"):
        return False
    if kind != _OWN_STEPS[name]:
        raise _unscaled(folder, f"{name} has the step {kind!r}, which is not known here")
    if settings.get("eps", _SMALL) != _SMALL or settings.get("normalize_observation_keys") is not None:
        raise _unscaled(folder, f"{name} scales by settings that are not known here")
    told = settings.get("norm_map")
    own = config.input_features if kind == _OWN_STEPS[PROCESSORS[0]] else {}
    for each in {feature.type for feature in (*own.values(), *config.output_features.values())}:
        if told is None:
            continue
        ways = told.get(each, "IDENTITY"), config.normalization_mapping.get(each, "IDENTITY")
        if ways[0] != ways[1]:
            raise _unscaled(folder, f"{name} scales {each} by {ways[0]!r} and config.json by {ways[1]!r}")
    return True


class Scaling:
    """What a feature is multiplied by after a number was taken away: `(x - middle) / spread`."""

    def __init__(self, middle: npt.NDArray[np.float32], spread: npt.NDArray[np.float32]) -> None:
        self.middle, self.spread = middle, spread


def scalings(folder: Path, config: PolicyConfig, statistics: Statistics) -> dict[str, Scaling]:
    """For each feature. Raises INVALID, with its name, for one that is scaled by statistics which are nowhere
    or of another shape."""
    made = {}
    for name, feature in (*config.input_features.items(), *config.output_features.items()):
        way = config.normalization_mapping.get(feature.type, "IDENTITY")
        if way == "IDENTITY":
            continue
        if way not in _SCALES:
            raise _unscaled(folder, f"{name} is scaled by {way!r}, which is not known here")
        low, high = (statistics.get(name, {}).get(each) for each in _SCALES[way])
        if low is None or high is None or not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise _unscaled(folder, f"the {' and '.join(_SCALES[way])} of {name} are in none of its files")
        shape = (feature.shape[0], 1, 1) if feature.type == "VISUAL" else feature.shape
        if low.shape != shape or high.shape != shape:
            raise _unscaled(folder, f"the statistics of {name} have the shape {low.shape} in place of {shape}")
        if (high < (0 if way == "MEAN_STD" else low)).any():
            raise _unscaled(folder, f"the statistics of {name} contradict themselves")
        if way == "MEAN_STD":
            made[name] = Scaling(low, high + np.float32(_SMALL))
        else:  # to -1 and 1
            width = np.where(high - low == 0, np.float32(_SMALL), high - low).astype(np.float32)
            made[name] = Scaling((low + width / 2).astype(np.float32), (width / 2).astype(np.float32))
    return made


def _unscaled(folder: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The policy in {folder.name!r} cannot be used: {why}, so nobody knows its units.",
        "Save it again with LeRobot, whose save_pretrained writes policy_preprocessor.json and its state beside it.",
    )
