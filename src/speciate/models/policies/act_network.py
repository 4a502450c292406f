"""ACT, the Action Chunking Transformer (Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost
Hardware"), with the names of LeRobot's weights.

A transformer reads the state and the cameras' feature maps, and its decoder gives a chunk of actions at once. While it
learns, a second encoder reads the demonstrated actions and draws the style that they have; else the style is zero.
The network is LeRobot's (Apache-2.0), which `evals/lerobot_policies.py` compares it with.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speciate.models.policies.policy_folder import STATE, ActConfig

Batch = Mapping[str, Tensor]


class Act(nn.Module):
    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.config = config
        width = config.dim_model
        self._environment = next((name for name in config.numbers if name != STATE), None)
        own = config.numbers.get(STATE)
        if config.use_vae:
            self.vae_encoder = _Encoder(config, config.n_vae_encoder_layers)
            self.vae_encoder_cls_embed = nn.Embedding(1, width)
            if own:
                self.vae_encoder_robot_state_input_proj = nn.Linear(own, width)
            self.vae_encoder_action_input_proj = nn.Linear(config.actions, width)
            self.vae_encoder_latent_output_proj = nn.Linear(width, config.latent_dim * 2)
            tokens = 1 + config.chunk_size + bool(own)
            self.register_buffer("vae_encoder_pos_enc", _sinusoids(tokens, width).unsqueeze(0))
        if config.cameras:
            self.backbone, channels = _resnet(config)
            self.encoder_img_feat_input_proj = nn.Conv2d(channels, width, kernel_size=1)
        self.encoder, self.decoder = _Encoder(config, config.n_encoder_layers), _Decoder(config)
        if own:
            self.encoder_robot_state_input_proj = nn.Linear(own, width)
        if self._environment:
            self.encoder_env_state_input_proj = nn.Linear(config.numbers[self._environment], width)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, width)
        self.encoder_1d_feature_pos_embed = nn.Embedding(1 + bool(own) + bool(self._environment), width)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, width)
        self.action_head = nn.Linear(width, config.actions)
        for parameter in chain(self.encoder.parameters(), self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def plan(self, seen: Batch, draw: Callable[[], Tensor]) -> Tensor:
        """Scaled features (N, 1, ...) -> scaled actions (N, chunk, A). `draw` is not called."""
        first = next(iter(seen.values()))
        style = torch.zeros(len(first), self.config.latent_dim, device=first.device)
        return self._decode(seen, style)

    def loss(self, seen: Batch, actions: Tensor, beyond: Tensor) -> Tensor:
        """Absolute error of scaled actions (N, chunk, A), without those `beyond` (N, chunk) the episode's end, and how
        far the drawn style is from a standard normal one. Of a network that is not learning the error alone."""
        divergence = torch.zeros((), device=actions.device)
        if self.config.use_vae and self.training:
            mean, log_variance = self._style(seen, actions, beyond)
            style = mean + log_variance.div(2).exp() * torch.randn_like(mean)
            divergence = (-0.5 * (1 + log_variance - mean.square() - log_variance.exp())).sum(-1).mean()
        else:
            style = torch.zeros(len(actions), self.config.latent_dim, device=actions.device)
        made = self._decode(seen, style)
        error = ((actions - made).abs() * ~beyond.unsqueeze(-1)).mean()
        return error + self.config.kl_weight * divergence

    def _style(self, seen: Batch, actions: Tensor, beyond: Tensor) -> tuple[Tensor, Tensor]:
        count = len(actions)
        tokens = [self.vae_encoder_cls_embed.weight.expand(count, 1, -1)]
        if STATE in seen:
            tokens.append(self.vae_encoder_robot_state_input_proj(seen[STATE][:, -1]).unsqueeze(1))
        hidden = beyond.new_zeros(count, len(tokens))
        tokens.append(self.vae_encoder_action_input_proj(actions))
        made = self.vae_encoder(
            torch.cat(tokens, 1).transpose(0, 1), self._places().transpose(0, 1), torch.cat([hidden, beyond], 1)
        )[0]
        mean, log_variance = self.vae_encoder_latent_output_proj(made).chunk(2, -1)
        return mean, log_variance

    def _places(self) -> Tensor:
        found: Any = self.vae_encoder_pos_enc
        places: Tensor = found
        return places

    def _decode(self, seen: Batch, style: Tensor) -> Tensor:
        tokens = [self.encoder_latent_input_proj(style)]
        if STATE in seen:
            tokens.append(self.encoder_robot_state_input_proj(seen[STATE][:, -1]))
        if self._environment:
            tokens.append(self.encoder_env_state_input_proj(seen[self._environment][:, -1]))
        places = list(self.encoder_1d_feature_pos_embed.weight.unsqueeze(1))
        for name in self.config.cameras:
            maps = self.backbone(seen[name][:, -1])
            where = _places_in_map(maps.shape[-2:], self.config.dim_model // 2, maps.device)
            made = self.encoder_img_feat_input_proj(maps)
            tokens.extend(made.flatten(2).permute(2, 0, 1))
            places.extend(where.flatten(2).permute(2, 0, 1))
        told, at = torch.stack(tokens), torch.stack(places)
        memory = self.encoder(told, at)
        start = torch.zeros(self.config.chunk_size, len(style), self.config.dim_model, device=style.device)
        decoded = self.decoder(start, memory, at, self.decoder_pos_embed.weight.unsqueeze(1))
        actions: Tensor = self.action_head(decoded.transpose(0, 1))
        return actions


class _Encoder(nn.Module):
    def __init__(self, config: ActConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_EncoderLayer(config) for _ in range(layers)])
        self.norm = nn.LayerNorm(config.dim_model) if config.pre_norm else nn.Identity()

    def forward(self, x: Tensor, places: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(tokens, N, width). `hidden`: (N, tokens) that are not attended to."""
        for layer in self.layers:
            x = layer(x, places, hidden)
        found: Tensor = self.norm(x)
        return found


class _Layer(nn.Module):
    """The feed-forward part that both kinds of layers have."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        width, inner = config.dim_model, config.dim_feedforward
        self.self_attn = nn.MultiheadAttention(width, config.n_heads, dropout=config.dropout)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self._first = config.pre_norm
        self._activation = functional.relu if config.feedforward_activation == "relu" else functional.gelu

    def _residual(self, x: Tensor, norm: nn.Module, part: Any) -> Tensor:
        """`x` and what the part makes of it, which is scaled before (`pre_norm`) or after."""
        if self._first:
            return x + self.dropout(part(norm(x)))  # type: ignore[no-any-return]
        return norm(x + self.dropout(part(x)))  # type: ignore[no-any-return]

    def _forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear2(self.dropout(self._activation(self.linear1(x))))
        return found


class _EncoderLayer(_Layer):
    def forward(self, x: Tensor, places: Tensor, hidden: Tensor | None = None) -> Tensor:
        def attend(seen: Tensor) -> Tensor:
            asked = seen + places
            found: Tensor = self.self_attn(asked, asked, value=seen, key_padding_mask=hidden)[0]
            return found

        return self._residual(self._residual(x, self.norm1, attend), self.norm2, self._forward)


class _Decoder(nn.Module):
    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_DecoderLayer(config) for _ in range(config.n_decoder_layers)])
        self.norm = nn.LayerNorm(config.dim_model)

    def forward(self, x: Tensor, memory: Tensor, memory_places: Tensor, places: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, memory, memory_places, places)
        found: Tensor = self.norm(x)
        return found


class _DecoderLayer(_Layer):
    def __init__(self, config: ActConfig) -> None:
        super().__init__(config)
        self.multihead_attn = nn.MultiheadAttention(config.dim_model, config.n_heads, dropout=config.dropout)
        self.norm3 = nn.LayerNorm(config.dim_model)

    def forward(self, x: Tensor, memory: Tensor, memory_places: Tensor, places: Tensor) -> Tensor:
        def attend(seen: Tensor) -> Tensor:
            asked = seen + places
            found: Tensor = self.self_attn(asked, asked, value=seen)[0]
            return found

        def read(seen: Tensor) -> Tensor:
            found: Tensor = self.multihead_attn(query=seen + places, key=memory + memory_places, value=memory)[0]
            return found

        x = self._residual(self._residual(x, self.norm1, attend), self.norm2, read)
        return self._residual(x, self.norm3, self._forward)


def _resnet(config: ActConfig) -> tuple[nn.Module, int]:
    """torchvision's, to its last map of features, and the channels of that. Its norms stay as published."""
    from torchvision import models
    from torchvision.ops.misc import FrozenBatchNorm2d

    dilated = [False, False, config.replace_final_stride_with_dilation]
    whole = getattr(models, config.vision_backbone)(
        replace_stride_with_dilation=dilated, weights=None, norm_layer=FrozenBatchNorm2d
    )
    parts = OrderedDict((name, part) for name, part in whole.named_children() if name not in ("avgpool", "fc"))
    return nn.Sequential(parts), whole.fc.in_features


def _sinusoids(places: int, width: int) -> Tensor:
    """(places, width), as in "Attention is all you need"."""
    number = torch.arange(width, dtype=torch.float64)
    angles = torch.arange(places, dtype=torch.float64)[:, None] / 10_000 ** (2 * (number // 2) / width)
    return torch.where(number % 2 == 0, angles.sin(), angles.cos()).float()


def _places_in_map(size: tuple[int, ...], width: int, device: torch.device) -> Tensor:
    """(1, 2 * width, height, breadth) of a map: sines and cosines of where each place lies, row and column each from 0
    to 2 pi."""
    height, breadth = size
    ones = torch.ones(1, height, breadth, device=device)
    frequency = 10_000 ** (2 * (torch.arange(width, dtype=torch.float32, device=device) // 2) / width)
    made = []
    for axis in (1, 2):
        steps = ones.cumsum(axis)
        last = steps[:, -1:] if axis == 1 else steps[:, :, -1:]
        angles = (steps / (last + 1e-6) * 2 * math.pi).unsqueeze(-1) / frequency
        made.append(torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(3))
    return torch.cat(made, dim=3).permute(0, 3, 1, 2)
