"""Published forecasters: as many steps as the model was made for; whoever scores cuts them to the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.published.published_model import PublishedModel, RawAnswer, batches

Series = npt.NDArray[Any]  # (C, T)
_BATCH = 32


def forecast(model: PublishedModel, series: Sequence[Series]) -> list[RawAnswer]:
    """(C, T) each -> (C, steps). The last `context_length` steps are read. Raises ValueError for a shorter series, or
    one of another number of channels; a model of one channel reads each by itself."""
    import torch

    if "timesfm" in model.head.model_type.lower():
        return _forecast_each(model, series)
    context, channels = int(model.config.context_length), int(model.config.num_input_channels)
    rows: list[tuple[int, npt.NDArray[np.float32]]] = []
    for place, each in enumerate(series):
        seen = np.asarray(each, np.float32)[:, -context:]
        if seen.shape[1] < context:
            raise ValueError(f"the series has {seen.shape[1]} steps, and the model reads {context}")
        if channels not in (1, seen.shape[0]):
            raise ValueError(f"the series has {seen.shape[0]} channels, and the model reads {channels}")
        parts = [seen] if channels == seen.shape[0] else [channel[None] for channel in seen]
        rows += [(place, part) for part in parts]
    steps: list[list[list[float]]] = [[] for _ in series]
    made: dict[int, Any] = {}
    for batch in batches([1] * len(rows), _BATCH):
        values = torch.from_numpy(np.stack([rows[each][1].T for each in batch]))
        with torch.inference_mode():
            out = model.module(past_values=values).prediction_outputs
        made.update(zip(batch, out, strict=True))
    for number, (place, _) in enumerate(rows):
        steps[place] += made[number].T.double().tolist()
    return [RawAnswer(each) for each in steps]


def _forecast_each(model: PublishedModel, series: Sequence[Series]) -> list[RawAnswer]:
    """Forecasts of TimesFM, which reads one channel at a time, of any length; its mean. Of its three classes of
    frequency it is told the first, which its makers advise for days and less, and where nothing is known."""
    import torch

    rows = [torch.from_numpy(np.asarray(channel, np.float32)) for each in series for channel in each]
    options = {"freq": [0] * _BATCH} if hasattr(model.config, "freq_size") else {}
    made: list[list[float]] = []
    network: Any = model.module
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        with torch.inference_mode():
            out = network(past_values=part, **{name: each[: len(part)] for name, each in options.items()})
        made += out.mean_predictions.double().tolist()
    answers, place = [], 0
    for each in series:
        answers.append(RawAnswer(made[place : place + len(each)]))
        place += len(each)
    return answers


def forecast_medians(model: PublishedModel, series: Sequence[Series]) -> list[RawAnswer]:
    """Medians of Chronos-Bolt, which tells quantiles of each channel by itself; of a series of any length the last
    `context_length` steps are read. A step that is no number was not observed."""
    import torch

    quantiles = [float(each) for each in model.config.chronos_config["quantiles"]]
    middle = min(range(len(quantiles)), key=lambda place: abs(quantiles[place] - 0.5))
    network: Any = model.module
    answers = []
    for each in series:
        values = torch.from_numpy(np.asarray(each, np.float32))
        with torch.inference_mode():
            made = network(context=values).quantile_preds[:, middle]
        answers.append(RawAnswer(made.double().tolist()))
    return answers
