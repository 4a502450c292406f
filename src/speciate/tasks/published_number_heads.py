"""Published heads whose answers are numbers: regressors, forecasters and models of depth, trained in the units of their
publisher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.depth_maps import to_map
from speciate.modalities.segmentation_masks import resize_labels
from speciate.models.published.network import SERIES, SERIES_MASK, PublishedNetwork
from speciate.tasks.families.depth import Depth
from speciate.tasks.families.forecasting import Forecasting
from speciate.tasks.families.regression import Regression
from speciate.tasks.task import Prediction

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States

Batch = Mapping[str, "torch.Tensor"]
Rows = Sequence[npt.NDArray[Any]]
_LEAST_DEPTH = 1e-3
_RIDGE = 1e-6


class PublishedRegression(Regression):
    """The network's output is the number itself; its error counts in units of the training targets' spread."""

    def predictions(self, scores: Any) -> list[Prediction]:
        return [Prediction(float(score), None, None) for score in scores[:, 0]]

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        import torch

        scores = (head(states.pooled)[:, 0] - self.mean) / self.spread
        wanted = torch.as_tensor(targets, dtype=torch.float32, device=scores.device)
        return torch.nn.functional.mse_loss(scores, wanted)


class PublishedForecast(Forecasting):
    """The horizon's steps of those that the network gives. Absolute error in units of each series' spread."""

    def encode_targets(self, targets: Sequence[Any]) -> Any:
        return list(targets)

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        import torch

        losses = []
        for rows, part in network.alike(batch):
            steps = _steps(network, part)[:, :, : self.horizon]
            wanted = _tensor([targets[row]["steps"] for row in rows], steps)
            spread = _tensor([targets[row]["spread"] for row in rows], steps).unsqueeze(2)
            losses.append(((steps - wanted) / spread).abs().mean() * len(rows))
        return torch.stack(losses).sum() / len(targets), len(targets)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        """(channels * horizon,) each, in the series' own units."""
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            steps = _steps(network, part)[:, :, : self.horizon].double().cpu().numpy()
            found.update(zip(rows, steps.reshape(len(rows), -1), strict=True))
        return [found[row] for row in range(len(found))]

    def placed(self, predictions: Sequence[Prediction], examples: Sequence[Any]) -> list[Prediction]:
        return list(predictions)


class PublishedDepth(Depth):
    relative: bool
    """Whether its answers are nearness up to scale and shift."""

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """Absolute error as a share of the reference's spread, of relative answers after scale and shift were fitted,
        image by image (Ranftl et al. 2020, without gradients); of distances the error of their logarithms."""
        import torch

        losses = []
        for rows, part in network.alike(batch):
            depths = network.module(**part).predicted_depth.float()
            for depth, row in zip(depths, rows, strict=True):
                wanted = _tensor(resize_labels(targets[row], tuple(depth.shape)), depth)
                known = torch.isfinite(wanted)
                losses.append(self._error(depth[known], wanted[known]))
        return torch.stack(losses).sum() / len(targets), len(targets)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        """(h, w) as the network gives it, stretched over the image."""
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            depths = network.module(**part).predicted_depth.double().cpu().numpy()
            found.update(zip(rows, depths, strict=True))
        return [found[row] for row in range(len(found))]

    def predictions(self, scores: Any) -> list[Prediction]:
        return [Prediction({**to_map(each), "relative": self.relative}, None, None) for each in scores]

    def _error(self, depth: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        if not self.relative:
            return (depth.clamp(min=_LEAST_DEPTH).log() - wanted.log()).abs().mean()
        near = 1 / wanted
        centred, apart = depth - depth.mean(), near - near.mean()
        scale = (centred * apart).mean() / (centred.square().mean() + _RIDGE)
        return (scale * centred - apart).abs().mean() / (apart.abs().mean() + _RIDGE)


def _steps(network: PublishedNetwork, part: Batch) -> torch.Tensor:
    """(B, C, steps) of the network, which reads all channels together or one at a time."""
    import torch

    module: Any = network.module
    past, seen = part[SERIES], part[SERIES_MASK]
    rows, _, channels = past.shape
    if "timesfm" in network.model.head.model_type.lower():
        flat = past.transpose(1, 2).reshape(rows * channels, -1)
        options = {"freq": [0] * len(flat)} if hasattr(module.config, "freq_size") else {}
        made = module(past_values=list(flat), **options).mean_predictions
        told: torch.Tensor = made.reshape(rows, channels, -1)
        return told
    if (reads := int(module.config.num_input_channels)) != channels:
        if reads != 1:
            raise ValueError(f"the series has {channels} channels, and the model reads {reads}")
        past, seen = (each.transpose(1, 2).reshape(rows * channels, -1, 1) for each in (past, seen))
    name = "observed_mask" if network.model.head.model_type == "patchtsmixer" else SERIES_MASK
    made = module(past_values=past, **{name: seen.bool() if name == SERIES_MASK else seen}).prediction_outputs
    found: torch.Tensor = made.transpose(1, 2).reshape(rows, channels, -1)
    assert torch.is_tensor(found)
    return found


def _tensor(values: Any, like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=like.device)
