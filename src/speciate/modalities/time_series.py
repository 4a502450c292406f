"""Series of one or more channels, decoded to float32 (C, T): all channels of an example share their length.

A file holds one series as a CSV of numbers, a row per time step, a column per channel; or as a waveform in DICOM
(medical/dicom_waveforms.py), which is read as a series only if the caller says so. Files of many series (.ts) are read
as tables. Missing values ('?', NaN) are filled by linear interpolation; a channel without any value is refused.

Near-duplicates are copies with noise, offset or gain, and excerpts (series_similarity.py).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError, Header, Modality, Pixels, Vector
from speciate.modalities.drawing import line_plot
from speciate.modalities.medical import dicom_waveforms
from speciate.modalities.medical.dicom_elements import looks_like_dicom
from speciate.modalities.series_similarity import SERIES, sketch_series

Series = npt.NDArray[np.float32]  # (C, T)
CHANNEL_NAMES = "channel_names"
"""Column beside a series: the names of its channels in order, with a comma and a space between."""
_MOST_VALUES = 50_000_000
_HEAD = 4096
_SHAPE = 32  # points that stand for the shape of a channel
_BANDS = 6
_BLOCKS = 8


class TimeSeries(Modality[Series]):
    name = "time-series"
    suffixes = (".csv", ".tsv")
    sketching = SERIES
    window_unit = "steps"
    default_group = "patient"

    def sniff(self, head: bytes, name: str) -> bool:
        if not name.lower().endswith(self.suffixes):
            return False
        try:
            rows = [_cells(line) for line in head.decode().splitlines()[1:-1]]
            return (
                len(rows) >= 8
                and all(rows)
                and bool(np.isfinite([[float(cell) for cell in row] for row in rows]).all())
            )
        except ValueError:
            return False

    def inspect(self, data: bytes) -> Header:
        if looks_like_dicom(data[:_HEAD]):
            return dicom_waveforms.inspect(data)
        first = data.split(b"\n", 1)[0]
        steps, channels = data.count(b"\n") + 1, (first.count(b";") or first.count(b",") + first.count(b"\t")) + 1
        return Header(4 * steps * channels, {"steps": steps, "channels": channels})

    def decode(self, data: bytes) -> Series:
        if looks_like_dicom(data[:_HEAD]):
            return self.admit(dicom_waveforms.decode(data))
        header = self.inspect(data)
        if header.decoded_bytes > 4 * _MOST_VALUES:
            raise DecodeError("refused", f"More than {_MOST_VALUES:,} values.")
        try:
            rows = [_cells(line) for line in data.decode("utf-8-sig").splitlines() if line.strip()]
            if rows and any(_is_name(cell) for cell in rows[0]):
                rows = rows[1:]  # names of the channels
            if rows and len(rows[-1]) < len(rows[0]) and all(len(row) == len(rows[0]) for row in rows[:-1]):
                raise DecodeError("partial", "The last row is cut off.")
            return self.admit([[_number(cell) for cell in channel] for channel in zip(*rows, strict=True)])
        except ValueError as error:
            raise DecodeError("error", f"Not a table of numbers: {error}.") from error

    def admit(self, value: Any) -> Series:
        """`value`: [T] for one channel, else [C][T]."""
        try:
            series = np.asarray(value, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise DecodeError("error", "The channels are not lists of numbers of the same length.") from error
        if series.ndim == 1:
            series = series[np.newaxis]
        if series.ndim != 2 or series.size == 0:
            raise DecodeError("error", f"A series is [T] or [C][T], not of shape {series.shape}.")
        if series.size > _MOST_VALUES:
            raise DecodeError("refused", f"{series.size:,} values, more than {_MOST_VALUES:,}.")
        if np.isinf(series).any():
            raise DecodeError("error", "The series holds infinite values.")
        return np.stack([_filled(channel) for channel in series])

    def fingerprint(self, media: Series) -> str:
        """Adding zero makes one of the two zeros."""
        return f"{media.shape} {(np.round(media, 5) + 0.0).tobytes().hex()}"

    def measure(self, media: Series) -> dict[str, int | float]:
        return {"channels": media.shape[0], "steps": media.shape[1]}

    def describe(self, media: Series) -> Vector:
        """(C * 51,): level, spread, change, rhythm and shape of each channel, whatever its length."""
        return np.concatenate([_channel(channel.astype(np.float64)) for channel in media]).astype(np.float32)

    def features(self, media: Series) -> Vector:
        """(408,): the numbers of `describe` for each channel, in eight blocks.

        Up to eight channels fill the blocks in order, evenly; neighbours of more channels are averaged. Values are
        shrunk by the inverse hyperbolic sine, since levels and higher moments have no bounds.
        """
        channels = self.describe(media).reshape(len(media), -1)
        if len(channels) < _BLOCKS:
            channels = channels[np.arange(_BLOCKS) * len(channels) // _BLOCKS]
        return np.concatenate([np.arcsinh(block).mean(axis=0) for block in np.array_split(channels, _BLOCKS)])

    def sketch(self, media: Series) -> bytes | None:
        return sketch_series(media)

    def thumbnail(self, media: Series) -> Pixels:
        return line_plot(media)

    def window(self, media: Series, start: float, stop: float) -> Series:
        return media[:, round(start) : round(stop)]


def channel_names(data: bytes) -> list[str]:
    """The names in the first line of a CSV file; none where it has none."""
    if looks_like_dicom(data[:_HEAD]):
        return []  # their names are in the column
    first = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    names = [cell.strip('"') for cell in _cells(first)]
    return names if any(_is_name(cell) for cell in names) else []


def _cells(line: str) -> list[str]:
    """Where semicolons separate, a comma is the point of a number."""
    line = line.replace(",", ".").replace(";", ",") if ";" in line else line.replace("\t", ",")
    return [cell.strip() for cell in line.split(",")]


def _is_name(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return True
    return False


def _number(cell: str) -> float:
    return np.nan if cell in ("?", "") else float(cell)


def _filled(channel: Series) -> Series:
    missing = np.isnan(channel)
    if missing.all():
        raise DecodeError("error", "A channel has no value at all.")
    if not missing.any():
        return channel
    places = np.arange(len(channel))
    return np.interp(places, places[~missing], channel[~missing]).astype(np.float32)


def _channel(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """x: (T,) -> (51,): 13 summaries, 6 bands of the spectrum, 32 points of the shape."""
    centered, spread = x - x.mean(), x.std()
    change = np.diff(x) if len(x) > 1 else np.zeros(1)
    standard = centered / spread if spread > 1e-12 else centered
    summaries = [
        x.mean(), spread, x.min(), x.max(), *np.quantile(x, (0.25, 0.5, 0.75)),
        (standard**3).mean(), (standard**4).mean(), np.abs(change).mean(), change.std(),
        (np.diff(np.signbit(centered)) != 0).mean() if len(x) > 1 else 0.0,
        (standard[1:] * standard[:-1]).mean() if len(x) > 1 else 0.0,
    ]  # fmt: skip
    power = np.abs(np.fft.rfft(centered)[1:]) ** 2
    edges = np.unique(np.geomspace(1, max(len(power), 2), _BANDS + 1).round().astype(int)) - 1
    bands = np.zeros(_BANDS)
    for i, (low, high) in enumerate(pairwise(edges)):
        bands[i] = np.log1p(power[low : high + 1].sum() / len(x))
    shape = np.interp(np.linspace(0, len(x) - 1, _SHAPE), np.arange(len(x)), x)
    return np.concatenate([summaries, bands, shape])


TIME_SERIES = TimeSeries()
