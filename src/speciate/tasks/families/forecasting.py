"""The next steps of a series, all at once. What is learned is how far they lie from the last step seen, in units of the
spread of what was seen (NLinear, Zeng et al. 2023): to answer zero is to repeat the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks.representations import check_channels
from speciate.tasks.task import Arrays, Prediction, RepresentationSettings, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


Series = npt.NDArray[Any]  # (C, T)
_TRAINING_WINDOWS = 32  # windows of one series
_LEAST_SEEN = 2  # steps: fewer have no spread
_PLAIN = 0.5  # autocorrelation from which on a period is plain
_SHARE = 10  # the usual horizon is this part of the shortest series


class LevelAndSpread(NamedTuple):
    """Where a series stands at its end, per channel."""

    level: npt.NDArray[np.float64]  # (C,) the last step
    spread: npt.NDArray[np.float64]  # (C,) standard deviation; 1 where nothing changes

    @classmethod
    def of(cls, seen: Series) -> LevelAndSpread:
        values = seen.astype(np.float64)
        spread = values.std(axis=1)
        return cls(values[:, -1], np.where(spread > 0, spread, 1.0))


class Forecasting(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["forecasting"] = "forecasting"
    channels: int
    horizon: int

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """All but the last `horizon` steps are visible. None if too few are left.

        Target: `{steps: (C, horizon), level: (C,), spread: (C,), naive: (C,)}`; `naive` is the mean error of repeating
        the last step within what is seen.
        """
        horizon = _known_horizon(terms)
        return _window(example, example.media.shape[1] - horizon, horizon)

    @classmethod
    def training_examples(cls, example: Example, cell: Any, terms: TaskTerms) -> list[TaskExample]:
        """Windows of the visible part, evenly spread. Each begins with the series and shows at least half of that
        part, so that it resembles an evaluation example.
        """
        horizon = _known_horizon(terms)
        if not enough_steps(example.media.shape[1], horizon):
            return []
        last = example.media.shape[1] - 2 * horizon
        first = max(_LEAST_SEEN, last // 2)
        ends = np.unique(np.linspace(first, last, _TRAINING_WINDOWS).astype(np.int64)).tolist()
        windows = [_window(example._replace(id=f"{example.id}#{k}"), end, horizon) for k, end in enumerate(ends)]
        return [one for one in windows if one is not None]

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        shapes = sorted({np.shape(target["steps"]) for target in targets})
        if len(shapes) > 1:
            raise SpeciateError(
                Code.INVALID,
                f"The training series have from {shapes[0][0]} to {shapes[-1][0]} channels; a forecast needs series "
                "that are alike.",
                "Keep those of one kind: curate_dataset(operations=[{'op': 'filter', ...}]).",
            )
        return cls(channels=shapes[0][0], horizon=shapes[0][1])

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The last step again; where a series has a plain period, its last period again."""
        horizon = len(targets[0]["steps"][0])

        return lambda example: Prediction(repeat_last(example.media, horizon).tolist(), None, None)

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.float64]:
        """(N, C * horizon), channel by channel."""
        steps, level, spread = (np.array([target[key] for target in targets]) for key in ("steps", "level", "spread"))
        wanted: npt.NDArray[np.float64] = (steps - level[..., None]) / spread[..., None]
        return wanted.reshape(len(targets), -1)

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: npt.NDArray[Any]) -> list[Prediction]:
        """Output: (C, horizon) lists; `placed` brings them to the level and scale of the series."""
        return [Prediction(each.reshape(self.channels, self.horizon).tolist(), None, None) for each in scores]

    def placed(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        return [_rescale(made, LevelAndSpread.of(one.media)) for made, one in zip(predictions, examples, strict=True)]

    def head(self, width: int) -> torch.nn.Module:
        """Linear head on the pooled and the last state."""
        from torch import nn

        return nn.Linear(2 * width, self.channels * self.horizon)

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Absolute error, as forecasts are judged by it."""
        import torch

        wanted = torch.as_tensor(np.asarray(targets), dtype=torch.float32, device=states.pooled.device)
        return torch.nn.functional.l1_loss(head(_ends(states)), wanted)

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(head(_ends(states)).double().cpu().numpy())


def usual_horizon(series: Sequence[Series]) -> int:
    """A tenth of the shortest series, at least one step."""
    return max(1, min((one.shape[1] for one in series), default=1) // _SHARE)


def repeat_last(seen: Series, horizon: int) -> Series:
    """(C, horizon): the last period over again; the last step, where no period is plain."""
    last = seen[:, -(period(seen) or 1) :]
    return np.resize(last.T, (horizon, len(last))).T


def period(seen: Series) -> int | None:
    """Steps after which the series plainly repeats itself: the highest peak of the autocorrelation, trend removed.

    At least two periods must be seen. None where there is none.
    """
    steps = seen.shape[1]
    time = np.arange(steps) - (steps - 1) / 2
    centred = seen - seen.mean(axis=1, keepdims=True, dtype=np.float64)
    rest = centred - np.outer(centred @ time / max(time @ time, 1.0), time)
    power = np.abs(np.fft.rfft(rest, 2 * steps, axis=1)) ** 2
    covariance = np.fft.irfft(power, axis=1)[:, :steps]
    varies = covariance[:, 0] > 1e-9 * np.square(seen, dtype=np.float64).sum(axis=1)
    if not varies.any():
        return None
    # Fewer pairs are as far apart; each is given its weight.
    alike = (covariance[varies] / covariance[varies][:, :1]).mean(0) * steps / np.arange(steps, 0, -1)
    most = steps // 2
    places = np.arange(2, most + 1 if most + 1 < steps else most)
    here = alike[places]
    peaks = places[(here > alike[places - 1]) & (here >= alike[places + 1]) & (here > _PLAIN)]
    if not len(peaks):
        return None
    # Of a period's multiples, which are as high but for noise, the first.
    return int(peaks[alike[peaks] >= 0.95 * alike[peaks].max()][0])


def enough_steps(steps: int, horizon: int) -> bool:
    """Whether a series is long enough to learn from: the horizon comes off its end twice."""
    return steps - 2 * horizon >= max(_LEAST_SEEN, (steps - 2 * horizon) // 2)


def _known_horizon(terms: TaskTerms) -> int:
    if terms.horizon is None:
        raise ValueError("the number of steps to forecast is not known")
    return terms.horizon


def _window(example: Example, end: int, horizon: int) -> TaskExample | None:
    if end < _LEAST_SEEN:
        return None
    seen, to_come = example.media[:, :end], example.media[:, end : end + horizon]
    standing = LevelAndSpread.of(seen)
    naive = np.abs(np.diff(seen.astype(np.float64), axis=1)).mean(axis=1)
    target = {
        "steps": to_come.astype(np.float64).tolist(), "level": standing.level.tolist(),
        "spread": standing.spread.tolist(), "naive": naive.tolist(),
    }  # fmt: skip
    return TaskExample(example._replace(media=seen), target)


def _rescale(made: Prediction, standing: LevelAndSpread) -> Prediction:
    steps = np.array(made.output) * standing.spread[:, None] + standing.level[:, None]
    return made._replace(output=steps.tolist())


def _ends(states: States) -> torch.Tensor:
    """(B, 2 W)"""
    import torch

    places = torch.arange(states.mask.shape[1], device=states.mask.device)
    last = torch.where(states.mask, places, 0).amax(1)
    return torch.cat([states.pooled, states.sequence[torch.arange(len(last)), last]], 1)


class Lags:
    """Series as their last steps and their last period repeated, relative to the level and spread at the end.

    No sum of lags finds the repetition by itself if series have different periods.
    """

    def __init__(self, channels: int, steps: int, horizon: int) -> None:
        self._channels, self._steps, self._horizon = channels, steps, horizon

    @classmethod
    def fit(cls, examples: Sequence[Example], steps: int, horizon: int) -> Lags:
        return cls(len(examples[0].media), steps, horizon)

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """(N, C * (steps + horizon)), channel by channel; of each the last steps, then the repetition.

        Of a shorter series, the first step stands for those before it.
        """
        return np.stack([self._encoded(example.media) for example in examples])

    def _encoded(self, media: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        check_channels(media, self._channels)
        standing, last = LevelAndSpread.of(media), media[:, -self._steps :].astype(np.float64)
        last = np.pad(last, ((0, 0), (self._steps - last.shape[1], 0)), mode="edge")
        both = np.hstack([last, repeat_last(media, self._horizon)])
        flat: npt.NDArray[np.float64] = ((both - standing.level[:, None]) / standing.spread[:, None]).ravel()
        return flat

    def settings(self) -> RepresentationSettings:
        return {"kind": "lags", "channels": self._channels, "steps": self._steps, "horizon": self._horizon}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Lags:
        return cls(settings["channels"], settings["steps"], settings["horizon"])
