"""Waveforms in DICOM files as series: real ones, ones made here, and what is wrong with others."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from speciate.modalities.contract import DecodeError
from speciate.modalities.time_series import TIME_SERIES
from tests.drawn import drawn

ECG = Path(str(get_testdata_file("waveform_ecg.dcm"))).read_bytes()


def changed(change: Callable[[Dataset], Any]) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(ECG))
    change(dataset)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def test_twelve_leads_come_in_millivolts_with_their_names_and_rate() -> None:
    fields, series = TIME_SERIES.inspect(ECG).fields, TIME_SERIES.decode(ECG)
    expected = pydicom.dcmread(io.BytesIO(ECG)).waveform_array(0).T / 1000  # which are microvolts
    assert series.shape == (12, 10_000) == (fields["channels"], fields["steps"])
    assert series.dtype == np.float32
    np.testing.assert_allclose(series, expected, atol=1e-6)
    assert (fields["sampling_hz"], fields["seconds"], fields["unit"]) == (1000.0, 10.0, "mV")
    assert (fields["group_label"], fields["groups"], fields["missing_samples"]) == ("RHYTHM", 2, 0)
    assert str(fields["channel_names"]).startswith("Lead I (Einthoven), Lead II, Lead III, Lead aVR")
    assert fields["patient"] == "642341"
    leads = dict(zip(str(fields["channel_names"]).split(", "), series, strict=True))
    np.testing.assert_allclose(
        leads["Lead II"], leads["Lead I (Einthoven)"] + leads["Lead III"], atol=0.02
    )  # Einthoven


def test_a_derived_group_is_the_series_only_where_there_is_no_other() -> None:
    def swap(dataset: Dataset) -> None:
        dataset.WaveformSequence = list(reversed(dataset.WaveformSequence))

    def derived(dataset: Dataset) -> None:
        dataset.WaveformSequence = [dataset.WaveformSequence[1]]

    assert np.array_equal(TIME_SERIES.decode(changed(swap)), TIME_SERIES.decode(ECG))
    assert TIME_SERIES.decode(changed(derived)).shape == (12, 1200)
    assert TIME_SERIES.inspect(changed(derived)).fields["group_label"] == "MEDIAN BEAT"


def test_missing_samples_are_counted_and_filled_from_their_neighbours() -> None:
    def lose(dataset: Dataset) -> None:
        group = dataset.WaveformSequence[0]
        samples = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).copy()
        samples[100:110, 3] = -32768
        group.WaveformData = samples.tobytes()
        group.add_new("WaveformPaddingValue", "OW", np.int16(-32768).tobytes())

    data = changed(lose)
    assert TIME_SERIES.inspect(data).fields["missing_samples"] == 10
    series, whole = TIME_SERIES.decode(data), TIME_SERIES.decode(ECG)
    np.testing.assert_allclose(
        series[3, 100:110], np.interp(range(100, 110), [99, 110], whole[3, [99, 110]]), atol=1e-6
    )
    assert np.array_equal(np.delete(series, 3, axis=0), np.delete(whole, 3, axis=0))


def test_sensitivity_correction_and_baseline_make_the_scale() -> None:
    def scale(dataset: Dataset) -> None:
        channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[0]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = 2, 3, 500

    raw = np.frombuffer(pydicom.dcmread(io.BytesIO(ECG)).WaveformSequence[0].WaveformData, "<i2")[::12]
    np.testing.assert_allclose(TIME_SERIES.decode(changed(scale))[0], (raw * 6.0 + 500) / 1000, rtol=1e-6)


def _shorter(dataset: Dataset) -> None:
    dataset.WaveformSequence[0].WaveformData = dataset.WaveformSequence[0].WaveformData[:-480]


def _one_channel_more(dataset: Dataset) -> None:
    dataset.WaveformSequence[0].NumberOfWaveformChannels = 13


def _endless(dataset: Dataset) -> None:
    dataset.WaveformSequence[0].NumberOfWaveformSamples = 2**32 - 1


def _companded(dataset: Dataset) -> None:
    dataset.WaveformSequence[0].WaveformSampleInterpretation = "MB"


def _no_rate(dataset: Dataset) -> None:
    del dataset.WaveformSequence[0].SamplingFrequency


def _no_waveform(dataset: Dataset) -> None:
    del dataset.WaveformSequence


@pytest.mark.parametrize(
    ("change", "quality", "said"),
    [
        (_shorter, "partial", "10,000 samples of 12 channels take 240,000 bytes, and there are 239,520"),
        (_one_channel_more, "error", "declares 13 channels and describes 12"),
        (_endless, "refused", "more than 50,000,000 values"),
        (_companded, "error", "of the kind MB"),
        (_no_rate, "error", "sampling frequency"),
        (_no_waveform, "error", "without a waveform"),
    ],
)
def test_what_is_wrong_with_a_waveform_is_named(change: Callable[[Dataset], Any], quality: str, said: str) -> None:
    data = changed(change)
    for call in (TIME_SERIES.inspect, TIME_SERIES.decode):
        with pytest.raises(DecodeError, match=said) as caught:
            call(data)
        assert caught.value.quality == quality


def test_a_file_that_is_cut_off_is_partial() -> None:
    with pytest.raises(DecodeError) as caught:
        TIME_SERIES.decode(ECG[: len(ECG) // 2])
    assert caught.value.quality == "partial"


@settings(max_examples=drawn(60), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6_000), st.integers(0, 255)), min_size=1, max_size=12))
def test_a_damaged_file_is_a_series_or_an_error(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(ECG)
    for place, value in changes:
        damaged[place] = value
    try:
        series = TIME_SERIES.decode(bytes(damaged))
    except DecodeError:
        return
    assert series.ndim == 2
    assert np.isfinite(series).all()
