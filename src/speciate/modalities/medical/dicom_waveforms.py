"""Waveforms in DICOM files, such as an electrocardiogram of twelve leads, as series of channels in physical units.

A file may hold several multiplex groups, each with its own channels and rate. The series is the first group that was
recorded and not derived from others (a rhythm strip, not the median beat); `groups` says how many there are. Voltages
come in millivolts whatever unit the file has, other quantities in the file's own; samples that the file marks as
missing become NaN, and are counted. Source: DICOM PS3.3, C.10.9 and C.10.10.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError, Header
from speciate.modalities.medical.dicom import patient_of
from speciate.modalities.medical.dicom_elements import walk_elements
from speciate.modalities.medical.dicom_instances import decode_errors, number_value, text_value

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
"""Waveform Sample Interpretation -> type of a sample; the companded ones (MB, AB) are not read."""
_MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3, "kV": 1e6}
_MOST_CHANNELS = 1_000
_MOST_VALUES = 50_000_000
_SLOWEST = 1e-9  # Hz
_LONGEST_NAMES = 500


class _Group(NamedTuple):
    """A multiplex group by its header."""

    item: Dataset
    label: str
    channels: int
    samples: int
    hertz: float
    type: np.dtype[Any]


class _Scale(NamedTuple):
    """Scale of a channel: value = sample * factor + offset, in `unit`."""

    factor: float
    offset: float
    unit: str


def inspect(data: bytes) -> Header:
    """Raises DecodeError if the file holds no waveform, or is cut short."""
    dataset = _read(data)
    group, count = _chosen(dataset)
    names = ", ".join(_name(channel, number) for number, channel in enumerate(_channels(group), 1))
    units = dict.fromkeys(_scale(channel).unit for channel in _channels(group))
    fields: dict[str, str | int | float] = {
        "patient": patient_of(dataset),
        "study": text_value(dataset, "StudyInstanceUID"),
        "modality_code": text_value(dataset, "Modality"),
        "manufacturer": text_value(dataset, "Manufacturer"),
        "sex": text_value(dataset, "PatientSex"),
        "group_label": group.label,
        "groups": count,
        "channel_names": names[:_LONGEST_NAMES],
        "unit": ", ".join(units),
        "sampling_hz": group.hertz,
        "seconds": group.samples / group.hertz,
        "missing_samples": int(_missing(group).sum()),
        "steps": group.samples,
        "channels": group.channels,
    }
    kept = {name: value for name, value in fields.items() if value != ""}
    return Header(4 * group.channels * group.samples, kept)


def decode(data: bytes) -> npt.NDArray[np.float32]:
    """(C, T), NaN where a sample is missing."""
    group, _ = _chosen(_read(data))
    raw = _samples(group)
    values = np.empty((group.channels, group.samples), np.float32)
    for row, channel in enumerate(_channels(group)):
        scale = _scale(channel)
        with np.errstate(over="ignore"):  # infinite values are refused later
            values[row] = raw[:, row] * scale.factor + scale.offset
    values[_missing(group).T] = np.nan
    return values


def _read(data: bytes) -> Dataset:
    import pydicom

    walk_elements(data)
    with decode_errors(""):
        return pydicom.dcmread(io.BytesIO(data), force=True)


def _chosen(dataset: Dataset) -> tuple[_Group, int]:
    """The group that is the series, checked, and how many there are."""
    with decode_errors(""):
        items = list(dataset.get("WaveformSequence") or ())
        if not items:
            raise DecodeError(
                "error", f"A DICOM file without a waveform ({text_value(dataset, 'Modality') or 'no modality'})."
            )
        item = next((each for each in items if text_value(each, "WaveformOriginality") == "ORIGINAL"), items[0])
        label = text_value(item, "MultiplexGroupLabel")
        kind, bits = text_value(item, "WaveformSampleInterpretation"), number_value(item, "WaveformBitsAllocated")
        if kind not in _TYPES:
            raise DecodeError("error", f"Samples of the kind {kind or 'unknown'}, which are not read.")
        order = "<" if dataset.original_encoding[1] else ">"
        group = _Group(
            item,
            label,
            _count(item, "NumberOfWaveformChannels", "channels"),
            _count(item, "NumberOfWaveformSamples", "samples"),
            number_value(item, "SamplingFrequency") or 0.0,
            np.dtype(order + _TYPES[kind]),
        )
    _check(group, bits)
    return group, len(items)


def _count(item: Dataset, keyword: str, what: str) -> int:
    found = number_value(item, keyword)
    if found is None or found < 1 or not found.is_integer():
        raise DecodeError("error", f"A waveform that does not say how many {what} it has.")
    return int(found)


def _check(group: _Group, bits: float | None) -> None:
    """Checks the declared size against the budget and the bytes."""
    if group.channels > _MOST_CHANNELS or group.channels * group.samples > _MOST_VALUES:
        declared = f"{group.samples:,} samples of {group.channels:,} channels"
        raise DecodeError("refused", f"It declares {declared}, more than {_MOST_VALUES:,} values.")
    if bits != 8 * group.type.itemsize:
        raise DecodeError("error", f"Samples of {bits or 0:g} bits that are declared as {8 * group.type.itemsize}.")
    if not _SLOWEST <= group.hertz <= 1 / _SLOWEST:
        raise DecodeError("error", "A waveform that does not say its sampling frequency.")
    if (there := len(_channels(group))) != group.channels:
        raise DecodeError("error", f"It declares {group.channels} channels and describes {there}.")
    wanted, found = group.channels * group.samples * group.type.itemsize, len(_bytes(group))
    if not wanted <= found <= wanted + 1:  # an odd length is padded
        raise DecodeError(
            "partial",
            f"{group.samples:,} samples of {group.channels} channels take {wanted:,} bytes, and there are {found:,}.",
        )


def _channels(group: _Group) -> list[Dataset]:
    with decode_errors(""):
        return list(group.item.get("ChannelDefinitionSequence") or ())


def _bytes(group: _Group) -> bytes:
    found = group.item.get("WaveformData")
    return found if isinstance(found, bytes) else b""


def _samples(group: _Group) -> npt.NDArray[Any]:
    """(T, C), as they are encoded."""
    count = group.channels * group.samples
    return np.frombuffer(_bytes(group), group.type, count).reshape(group.samples, group.channels)


def _missing(group: _Group) -> npt.NDArray[np.bool_]:
    """(T, C): whether the file has padding in the place of a sample."""
    padding = group.item.get("WaveformPaddingValue")
    raw = _samples(group)
    if not isinstance(padding, bytes) or len(padding) < group.type.itemsize:
        return np.zeros(raw.shape, bool)
    return np.asarray(raw == np.frombuffer(padding, group.type, 1)[0], bool)


def _name(channel: Dataset, number: int) -> str:
    """The channel's name, else its source, else its number."""
    if label := text_value(channel, "ChannelLabel"):
        return label
    with decode_errors(""):
        source = list(channel.get("ChannelSourceSequence") or ())
        return (
            text_value(source[0], "CodeMeaning") or text_value(source[0], "CodeValue") if source else ""
        ) or f"channel {number}"


def _scale(channel: Dataset) -> _Scale:
    """The channel's scale, in millivolts if it is a voltage; samples without a sensitivity have no unit."""
    sensitivity = number_value(channel, "ChannelSensitivity")
    if sensitivity is None:
        return _Scale(1.0, 0.0, "samples")
    with decode_errors(""):
        units = list(channel.get("ChannelSensitivityUnitsSequence") or ())
    unit = text_value(units[0], "CodeValue") if units else ""
    correction, baseline = (
        number_value(channel, "ChannelSensitivityCorrectionFactor"),
        number_value(channel, "ChannelBaseline"),
    )
    factor = sensitivity * (1.0 if correction is None else correction)
    to_mv = _MILLIVOLTS.get(unit, 1.0)
    found = _Scale(factor * to_mv, (baseline or 0.0) * to_mv, "mV" if unit in _MILLIVOLTS else unit or "unknown")
    if not math.isfinite(found.factor) or not math.isfinite(found.offset):
        raise DecodeError("error", "A channel whose scale is no number.")
    return found
