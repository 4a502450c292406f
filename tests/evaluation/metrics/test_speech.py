"""Metrics of speech: each tells the same words from others, from silence and from noise, and can fail."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest

from speciate.evaluation.metrics import contributions
from speciate.evaluation.metrics.metric import object_answers
from speciate.evaluation.metrics.speech import align, mel_cepstra, spoken_seconds
from speciate.modalities.audio_answers import decode_audio, encode_audio, is_audio_answer, resample
from speciate.modalities.media_answers import is_media_answer, is_stored_media, shorten_cell, stored_media
from speciate.vocabulary import find_metric
from tests.models.published.doubles import say

RATE = 16_000


def value(metric: str, reference: np.ndarray, given: np.ndarray | None, rate: int = RATE) -> float:
    answer = None if given is None else encode_audio(given, rate)
    answers = object_answers([encode_audio(reference, RATE)], [answer])
    return float(contributions(find_metric(metric), answers)[0])


def distortion(reference: np.ndarray, given: np.ndarray | None, rate: int = RATE) -> float:
    return value("mel_cepstral_distortion", reference, given, rate)


def test_the_same_words_are_nearer_than_others_than_noise_and_than_silence() -> None:
    text = say("ada bob")
    noise = np.random.default_rng(0).normal(0, 0.1, len(text))
    same, slower, other = (
        distortion(text, text),
        distortion(text, say("ada bob", 0.1)),
        distortion(text, say("kim lee")),
    )
    assert same == pytest.approx(0, abs=1e-5)
    assert same < slower < 0.9 * min(other, distortion(text, noise), distortion(text, None))
    assert distortion(text, text * 0.3) < slower, "loudness does not count"
    assert distortion(text, resample(text, RATE, 22_050), 22_050) < slower, "nor does the rate"


def test_the_alignment_is_that_of_a_search_through_all_paths() -> None:
    draw = np.random.default_rng(1)
    one, other = draw.normal(size=(6, 3)), draw.normal(size=(4, 3))
    apart = np.linalg.norm(one[:, None] - other[None], axis=2)
    best = {}
    for row in range(6):
        for column in range(4):
            before = [best[at] for at in ((row - 1, column - 1), (row - 1, column), (row, column - 1)) if at in best]
            total, steps = min(before, key=lambda each: each[0]) if before else (0.0, 0)
            best[row, column] = total + apart[row, column], steps + 1
    total, steps = best[5, 3]
    assert align(one, other) == pytest.approx(total / steps)
    assert align(one, one) == pytest.approx(0, abs=1e-6)


def test_cepstra_are_those_of_scipys_cosine_transform() -> None:
    from scipy.fft import dct

    from speciate.modalities.audio import log_mel

    text = say("ada")
    bands = log_mel(text).T.astype(float)
    logs = np.maximum(bands, bands.max() - 8) * math.log(10) / 2
    assert np.allclose(mel_cepstra(text), dct(logs, norm="ortho", axis=1)[:, 1:14], atol=1e-9)


def test_duration_counts_speech_and_not_the_silence_around_it() -> None:
    text = say("ada")
    padded = np.concatenate([np.zeros(4000, np.float32), text, np.zeros(8000, np.float32)])
    assert spoken_seconds(padded) == pytest.approx(spoken_seconds(text), abs=0.011)
    assert value("duration_error", text, padded) == pytest.approx(0, abs=0.06)
    twice, half = (value("duration_error", text, say("ada", seconds)) for seconds in (0.128, 0.032))
    assert twice == pytest.approx(math.log(2), abs=0.06)
    assert half == pytest.approx(math.log(2), abs=0.12)
    assert value("duration_error", text, None) > 2


def test_audio_that_is_none_or_at_a_rate_of_no_recording_counts_as_silence() -> None:
    text = say("ada")
    whole = encode_audio(text, RATE)
    hz = base64.b64decode(whole["data"])
    for rate in (1, 999_999_937):
        renamed = hz[:24] + rate.to_bytes(4, "little") + hz[28:]
        given = whole | {"data": base64.b64encode(renamed).decode()}
        answers = object_answers([whole] * 3, [given, whole | {"data": "UklGRg=="}, None])
        for metric in ("mel_cepstral_distortion", "duration_error"):
            found = contributions(find_metric(metric), answers)
            assert found[0] == found[1] == found[2] > 0
    with pytest.raises(ValueError, match="0 samples"):
        decode_audio(encode_audio(np.zeros(0), RATE))


def test_a_loss_is_itself_and_audio_has_none() -> None:
    answers = object_answers([encode_audio(say("ada"), RATE)] * 2, [0.5, encode_audio(say("ada"), RATE)])
    first, second = contributions(find_metric("synthesis_loss"), answers)
    assert first == 0.5
    assert math.isnan(second)


def test_an_audio_answer_is_a_wav_of_16_bits_and_comes_back() -> None:
    samples = np.array([0, 0.5, -0.5, 1.5, -1.5, np.nan], np.float32)
    answer = encode_audio(samples, 22_050)
    assert (answer["mime"], answer["sample_rate"], answer["seconds"]) == ("audio/wav", 22_050, 0.0003)
    assert encode_audio(samples, 22_050) == answer
    back = decode_audio(answer)
    assert back.rate == 22_050
    assert np.allclose(back.samples, [0, 0.5, -0.5, 1, -1, 0], atol=2e-5)
    assert is_audio_answer(answer)
    assert is_media_answer(answer)
    stored = stored_media(answer, "ab" * 32, 56)
    assert stored == {"mime": "audio/wav", "sha256": "ab" * 32, "bytes": 56, "seconds": 0.0003, "sample_rate": 22_050}
    assert is_stored_media(stored)
    assert not is_stored_media(answer)
    for forged in ("../../catalog.duckdb", "ab" * 32 + "\n", "AB" * 32, 5):
        assert not is_stored_media(stored | {"sha256": forged}), "a model may answer with anything"
    assert not is_stored_media(stored | {"mime": []})
    for wrong in ({}, [], answer | {"more": 1}, answer | {"seconds": True}, answer | {"mime": "audio/mp3"}):
        assert not is_audio_answer(wrong)
    assert not is_audio_answer(answer | {"sample_rate": 1_000_000_000})
    for wrong in (answer | {"data": "%"}, answer | {"data": "UklGRg=="}):
        with pytest.raises(ValueError, match=r"audio cannot be read|holds no file"):
            decode_audio(wrong)
    assert shorten_cell("UklGRg") == "UklGRg"
