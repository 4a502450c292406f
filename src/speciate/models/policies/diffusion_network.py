"""Diffusion Policy (Chi et al. 2023, "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion"), with the
names of LeRobot's weights.

A U-Net over time takes noise from a plan of actions, step by step, given what was seen. The network is LeRobot's
(Apache-2.0), which `evals/lerobot_policies.py` compares it with; the schedules are those of Ho et al. 2020 (DDPM) and
Song et al. 2021 (DDIM) as diffusers has them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from speciate.models.policies.policy_folder import STATE, DiffusionConfig

Batch = Mapping[str, Tensor]
_LARGEST_BETA, _LEAST_VARIANCE = 0.999, 1e-20
_SHRINKS = 32
"""Pixels of an image, along a side, for each place in the last map of a residual network."""


class Diffusion(nn.Module):
    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        if STATE not in config.numbers:
            raise ValueError(f"a diffusion policy reads {STATE}")
        width, cameras = sum(config.numbers.values()), len(config.cameras)
        if cameras:
            if config.use_separate_rgb_encoder_per_camera:
                self.rgb_encoder: Any = nn.ModuleList([_Sight(config) for _ in range(cameras)])
            else:
                self.rgb_encoder = _Sight(config)
            width += cameras * 2 * config.spatial_softmax_num_keypoints
        self.unet = _UNet(config, width * config.n_obs_steps)
        self.schedule = Schedule(config)

    def plan(self, seen: Batch, draw: Callable[[], Tensor]) -> Tensor:
        """Scaled features (N, n_obs_steps, ...) -> scaled actions (N, horizon, A). `draw`: the next (N, horizon, A)
        normal numbers, for where it begins and then for each step that draws any."""
        condition, sample = self._condition(seen), draw()
        for step in self.schedule.steps:
            steps = torch.full((len(sample),), step, dtype=torch.long, device=sample.device)
            sample = self.schedule.back(self.unet(sample, steps, condition), step, sample, draw)
        return sample

    def loss(self, seen: Batch, actions: Tensor, beyond: Tensor) -> Tensor:
        """Squared error of the noise that is told from noisy scaled actions (N, horizon, A), or of the actions."""
        condition, drawn = self._condition(seen), torch.randn_like(actions)
        steps = torch.randint(0, self.config.num_train_timesteps, (len(actions),), device=actions.device)
        noisy = self.schedule.forth(actions, drawn, steps)
        wanted = drawn if self.config.prediction_type == "epsilon" else actions
        error: Tensor = (self.unet(noisy, steps, condition) - wanted).square()
        if self.config.do_mask_loss_for_padding:
            error = error * ~beyond.unsqueeze(-1)
        return error.mean()

    def _condition(self, seen: Batch) -> Tensor:
        """(N, n_obs_steps * features): the state, what the cameras locate, and the environment's state."""
        parts = [seen[STATE]]
        images = [seen[name] for name in self.config.cameras]
        if images:
            encoders = (
                self.rgb_encoder if isinstance(self.rgb_encoder, nn.ModuleList) else [self.rgb_encoder] * len(images)
            )
            located = [
                encoder(each.flatten(0, 1)).unflatten(0, each.shape[:2])
                for encoder, each in zip(encoders, images, strict=True)
            ]
            parts.append(torch.cat(located, -1))
        parts += [seen[name] for name in self.config.numbers if name != STATE]
        return torch.cat(parts, -1).flatten(1)


class Schedule:
    """How much noise each step has, and the way back."""

    def __init__(self, config: DiffusionConfig) -> None:
        self._config, total = config, config.num_train_timesteps
        match config.beta_schedule:
            case "linear":
                betas = torch.linspace(config.beta_start, config.beta_end, total, dtype=torch.float32)
            case "scaled_linear":
                ends = config.beta_start**0.5, config.beta_end**0.5
                betas = torch.linspace(*ends, total, dtype=torch.float32) ** 2
            case _:
                shares = [math.cos((place / total + 0.008) / 1.008 * math.pi / 2) ** 2 for place in range(total + 1)]
                ratios = (1 - later / before for before, later in itertools.pairwise(shares))
                betas = torch.tensor([min(each, _LARGEST_BETA) for each in ratios], dtype=torch.float32)
        self._kept = torch.cumprod(1.0 - betas, 0)
        """Share of the signal that is left after each step."""
        count = config.num_inference_steps or total
        if not 1 <= count <= total:
            raise ValueError(f"{count} steps of {total} cannot be taken")
        self._stride = total // count
        self.steps = [int(each) for each in (np.arange(count) * self._stride)[::-1]]

    def forth(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        kept = self._kept.to(clean.device)[steps].reshape(-1, 1, 1)
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def back(self, told: Tensor, step: int, sample: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        """One step, given what the network told of the sample."""
        config, kept = self._config, self._kept
        now, before = kept[step], kept[step - self._stride] if step >= self._stride else torch.tensor(1.0)
        if config.prediction_type == "epsilon":
            clean = (sample - (1 - now).sqrt() * told) / now.sqrt()
            drawn = told
        else:
            clean = told
            drawn = (sample - now.sqrt() * told) / (1 - now).sqrt()
        if config.clip_sample:
            clean = clean.clamp(-config.clip_sample_range, config.clip_sample_range)
        if config.noise_scheduler_type == "DDIM":
            return before.sqrt() * clean + (1 - before).sqrt() * drawn
        ratio = now / before
        mean = (before.sqrt() * (1 - ratio) * clean + ratio.sqrt() * (1 - before) * sample) / (1 - now)
        if step == 0:
            return mean
        variance = ((1 - before) / (1 - now) * (1 - ratio)).clamp(min=_LEAST_VARIANCE)
        return mean + variance.sqrt() * draw()


class _Sight(nn.Module):
    """Images (N, 3, H, W), scaled, -> (N, 2 * keypoints): where the maps of a residual network are brightest."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        from torchvision import models

        self._config = config
        whole = getattr(models, config.vision_backbone)(weights=None)
        self.backbone = nn.Sequential(*list(whole.children())[:-2])
        if config.use_group_norm:
            for parent, name, norm in list(_batch_norms(self.backbone)):
                setattr(parent, name, nn.GroupNorm(norm.num_features // 16, norm.num_features))
        size = config.crop_shape or config.resize_shape or next(iter(config.cameras.values()))[1:]
        places = config.spatial_softmax_num_keypoints
        height, breadth = (math.ceil(side / _SHRINKS) for side in size)
        self.pool = _SpatialSoftmax(whole.fc.in_features, height, breadth, places)
        self.out = nn.Linear(2 * places, 2 * places)

    def forward(self, images: Tensor) -> Tensor:
        if self._config.resize_shape is not None:
            images = functional.interpolate(
                images, self._config.resize_shape, mode="bilinear", align_corners=False, antialias=True
            )
        if self._config.crop_shape is not None:
            images = self._cropped(images, *self._config.crop_shape)
        found: Tensor = functional.relu(self.out(self.pool(self.backbone(images)).flatten(1)))
        return found

    def _cropped(self, images: Tensor, height: int, breadth: int) -> Tensor:
        """The middle; at random, the same of all, while it learns."""
        down, right = images.shape[-2] - height, images.shape[-1] - breadth
        if down < 0 or right < 0:
            raise ValueError(f"images of {images.shape[-2]} x {images.shape[-1]} are smaller than the crop")
        top, left = round(down / 2), round(right / 2)
        if self.training and self._config.crop_is_random:
            top = int(torch.randint(0, down + 1, ()).item())
            left = int(torch.randint(0, right + 1, ()).item())
        return images[..., top : top + height, left : left + breadth]


def _batch_norms(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.BatchNorm2d]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                yield parent, name, child


class _SpatialSoftmax(nn.Module):
    def __init__(self, channels: int, height: int, breadth: int, places: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, places, kernel_size=1)
        device = self.nets.weight.device  # told, as transformers takes linspace out of torch's default device
        rows, columns = (
            torch.linspace(-1.0, 1.0, count, dtype=torch.float64, device=device) for count in (height, breadth)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        self.register_buffer("pos_grid", torch.stack([x.flatten(), y.flatten()], 1).float())

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, places, 2)"""
        grid: Any = self.pos_grid
        found: Tensor = self.nets(features).flatten(2).softmax(-1) @ grid
        return found


class _StepCode(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self._half = width // 2

    def forward(self, steps: Tensor) -> Tensor:
        rate = math.log(10_000) / (self._half - 1)
        angles = steps[:, None] * torch.exp(torch.arange(self._half, device=steps.device) * -rate)
        return torch.cat([angles.sin(), angles.cos()], -1)


class _Convolution(nn.Module):
    def __init__(self, before: int, after: int, kernel: int, groups: int = 8) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(before, after, kernel, padding=kernel // 2), nn.GroupNorm(groups, after), nn.Mish()
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x)
        return found


class _Block(nn.Module):
    """Two convolutions; between them the condition scales and moves each channel (Perez et al. 2018)."""

    def __init__(self, before: int, after: int, condition: int, config: DiffusionConfig) -> None:
        super().__init__()
        self._scales = config.use_film_scale_modulation
        self.conv1 = _Convolution(before, after, config.kernel_size, config.n_groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, after * (2 if self._scales else 1)))
        self.conv2 = _Convolution(after, after, config.kernel_size, config.n_groups)
        self.residual_conv = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        made, told = self.conv1(x), self.cond_encoder(condition).unsqueeze(-1)
        if self._scales:
            scale, move = told.chunk(2, 1)
            made = scale * made + move
        else:
            made = made + told
        found: Tensor = self.conv2(made) + self.residual_conv(x)
        return found


class _UNet(nn.Module):
    def __init__(self, config: DiffusionConfig, seen: int) -> None:
        super().__init__()
        code, widths = config.diffusion_step_embed_dim, config.down_dims
        if config.horizon % 2 ** len(widths):
            raise ValueError(f"a horizon of {config.horizon} cannot be halved {len(widths)} times")
        self.diffusion_step_encoder = nn.Sequential(
            _StepCode(code), nn.Linear(code, code * 4), nn.Mish(), nn.Linear(code * 4, code)
        )

        def block(before: int, after: int) -> _Block:
            return _Block(before, after, code + seen, config)

        pairs = list(zip((config.actions, *widths[:-1]), widths, strict=True))
        self.down_modules, self.up_modules = nn.ModuleList(), nn.ModuleList()
        for place, (before, after) in enumerate(pairs):
            smaller = nn.Conv1d(after, after, 3, 2, 1) if place < len(pairs) - 1 else nn.Identity()
            self.down_modules.append(nn.ModuleList([block(before, after), block(after, after), smaller]))
        self.mid_modules = nn.ModuleList([block(widths[-1], widths[-1]), block(widths[-1], widths[-1])])
        for before, after in reversed(pairs[1:]):
            larger = nn.ConvTranspose1d(before, before, 4, 2, 1)
            self.up_modules.append(nn.ModuleList([block(after * 2, before), block(before, before), larger]))
        self.final_conv = nn.Sequential(
            _Convolution(widths[0], widths[0], config.kernel_size), nn.Conv1d(widths[0], config.actions, 1)
        )

    def forward(self, plan: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
        """(N, horizon, A) -> the same"""
        x, told = plan.mT, torch.cat([self.diffusion_step_encoder(steps), condition], -1)
        kept: list[Tensor] = []
        parts: Any
        for parts in self.down_modules:
            x = parts[1](parts[0](x, told), told)
            kept.append(x)
            x = parts[2](x)
        for block in self.mid_modules:
            x = block(x, told)
        for parts in self.up_modules:
            x = parts[0](torch.cat((x, kept.pop()), 1), told)
            x = parts[2](parts[1](x, told))
        found: Tensor = self.final_conv(x).mT
        return found
