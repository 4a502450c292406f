"""What only recordings can do wrong."""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.modalities.audio import AUDIO, BANDS, SAMPLE_RATE, log_mel
from speciate.modalities.contract import DecodeError
from tests.drawn import drawn
from tests.modalities.samples import chirp, sound


def refusal(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as refused:
        AUDIO.decode(data)
    return refused.value


def tone(hertz: float, seconds: float = 1.0, sample_rate: int = SAMPLE_RATE) -> npt.NDArray[np.float32]:
    return (np.sin(2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate) * 0.5).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_every_rate_becomes_16_khz(sample_rate: int) -> None:
    media = AUDIO.decode(sound("WAV", tone(440, 1.0, sample_rate), samplerate=sample_rate))
    assert media.dtype == np.float32
    assert media.shape == (SAMPLE_RATE,)
    assert np.abs(media - tone(440))[500:-500].max() < 0.01


def test_channels_are_averaged() -> None:
    loud, silent = tone(440), np.zeros(SAMPLE_RATE, np.float32)
    media = AUDIO.decode(sound("WAV", np.stack([loud, silent], axis=1), subtype="FLOAT"))
    assert media == pytest.approx(loud / 2, abs=1e-6)


def test_long_recordings_are_the_same_read_in_blocks() -> None:
    long = np.tile(chirp(), 20)
    assert AUDIO.decode(sound("WAV", long, subtype="FLOAT")) == pytest.approx(long, abs=1e-6)


def test_the_header_says_what_there_is() -> None:
    data = sound("FLAC", np.stack([tone(440, 1.5, 44_100)] * 2, axis=1), samplerate=44_100)
    header = AUDIO.inspect(data)
    assert header.fields == {"sample_rate": 44_100, "channels": 2, "seconds": 1.5, "format": "FLAC"}
    assert header.decoded_bytes == AUDIO.decode(data).nbytes


def test_the_container_does_not_matter() -> None:
    samples = (chirp() * 32767).astype(np.int16)
    files = [sound(format_, samples) for format_ in ("WAV", "FLAC", "RF64", "WAVEX")]
    fingerprints = {AUDIO.fingerprint(AUDIO.decode(file)) for file in files}
    assert len(fingerprints) == 1
    assert AUDIO.fingerprint(AUDIO.decode(sound("WAV", -samples))) not in fingerprints


@pytest.mark.parametrize("gain", [0, 5e-5])
def test_nothing_but_silence_is_partial(gain: float) -> None:
    refused = refusal(sound("WAV", gain * tone(440), subtype="FLOAT"))
    assert refused.quality == "partial"
    assert "silence" in refused.detail


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound_are_refused(value: float) -> None:
    samples = tone(440)
    samples[700] = value
    assert refusal(sound("WAV", samples, subtype="FLOAT")).quality == "error"


@settings(max_examples=drawn(60), deadline=None)
@given(st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "RF64"]), st.integers(1, 10_000))
def test_what_is_cut_off_is_told(format_: str, missing: int) -> None:
    data = sound(format_, chirp(1.5))
    assert refusal(data[: max(len(data) - missing, 100)]).quality == "partial"


def test_a_wave_file_from_a_pipe_does_not_know_its_length() -> None:
    data = bytearray(sound("WAV"))
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert AUDIO.decode(bytes(data)).shape == chirp().shape


def test_a_big_endian_wave_file_is_read_and_checked_alike() -> None:
    data = sound("WAV", endian="BIG")
    assert data.startswith(b"RIFX")
    assert AUDIO.sniff(data, "recording")
    assert AUDIO.decode(data) == pytest.approx(AUDIO.decode(sound("WAV")))
    assert refusal(data[:-9]).quality == "partial"


def test_chunks_behind_the_samples_are_no_damage() -> None:
    assert AUDIO.decode(sound("WAV") + b"LIST\4\0\0\0INFO").shape == chirp().shape


def test_tags_around_an_mp3_are_no_damage() -> None:
    front = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    assert AUDIO.decode(front + sound("MP3") + b"TAG" + bytes(125)).shape == chirp().shape


def test_an_mp3_that_ends_between_two_frames_is_told_by_its_first() -> None:
    data = sound("MP3", chirp(3.0), bitrate_mode="CONSTANT")
    size = data.index(data[:2], 4)
    cut = data[: size * ((len(data) // size) - 5)]
    assert refusal(cut).quality == "partial"


def test_a_page_that_is_missing_in_the_middle_is_told() -> None:
    data = sound("OGG", np.tile(chirp(), 20))
    pages = [i for i in range(len(data)) if data.startswith(b"OggS", i)]
    refused = refusal(data[: pages[3]] + data[pages[4] :])
    assert refused.detail == "Page 3 is missing."


def test_more_than_two_hours_are_refused_by_the_header() -> None:
    data = bytearray(sound("WAV", np.zeros(100, np.float32), samplerate=1))
    refused = refusal(sound("WAV", np.zeros(7_300, np.float32), samplerate=1))
    assert refused.quality == "refused"
    assert len(data) < 400


def test_measures_are_in_decibels_of_full_scale() -> None:
    half_silent = np.concatenate([tone(440), np.zeros(SAMPLE_RATE, np.float32)])
    measures = AUDIO.measure(half_silent)
    assert measures["peak_dbfs"] == pytest.approx(-6.02, abs=0.05)
    assert measures["rms_dbfs"] == pytest.approx(-12.04, abs=0.05)
    assert measures["silent_share"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("hertz", [150, 440, 1_000, 3_000, 7_000])
def test_a_tone_is_loudest_in_its_band(hertz: float) -> None:
    mel = np.linspace(*(2595 * np.log10(1 + np.array([50, 8000]) / 700)), BANDS + 2)[1:-1]
    expected = np.abs(700 * (10 ** (mel / 2595) - 1) - hertz).argmin()
    assert abs(int(log_mel(tone(hertz)).mean(axis=1).argmax()) - int(expected)) <= 1


@pytest.mark.parametrize("samples", [1, 10, 399, 400, 401, 100_000])
def test_sounds_of_any_length_have_vectors_of_one_length(samples: int) -> None:
    media = np.tile(chirp(), 20)[:samples]
    assert AUDIO.describe(media).shape == (320,)
    assert AUDIO.features(media).shape == (192,)
    assert AUDIO.window(media, 0, 1e9).shape == media.shape


def test_what_comes_first_can_be_learned() -> None:
    up, down = (AUDIO.describe(sound_) for sound_ in (chirp(), chirp()[::-1].copy()))
    assert np.abs(up[192:] - down[192:]).max() > 1
    assert np.abs(up[:64] - down[:64]).max() < 0.1


def test_time_runs_to_the_right_and_pitch_upwards() -> None:
    picture = AUDIO.thumbnail(chirp(2.0)).astype(int).sum(axis=2)[:140]
    rows = picture.argmax(axis=0)
    assert rows[20] > rows[80] > rows[140]


def test_other_containers_are_refused_by_name() -> None:
    buffer = io.BytesIO(sound("AIFF"))
    assert "AIFF" in refusal(buffer.getvalue()).detail
