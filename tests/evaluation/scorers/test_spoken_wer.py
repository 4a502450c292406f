"""The scorer `spoken_wer`: words that a recogniser hears in speech, counted against the text. The recogniser here is a
real one of the made-up voice: it reads the letter of each moment off its lower tone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.evaluation.scorers import spoken_wer
from speciate.evaluation.scorers.sandboxed_scorers import ScorerError
from speciate.evaluation.scorers.scorer import find_scorer, is_sandboxed
from speciate.modalities.audio_answers import encode_audio, resample
from speciate.tasks.task import Prediction
from speciate.vocabulary import find_metric
from tests.models.published.doubles import CHARACTERS, say

REF = "spoken_wer:listener@v1|somewhere"
NAME = "spoken_wer:listener@v1"


class Listener:
    task, labels = "automatic-speech-recognition", ()

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return [Prediction(_heard(example.media), None, None) for example in examples]


def _heard(samples: Any) -> str:
    count, found = 1024, []
    for start in range(0, len(samples) - count + 1, count):
        part = samples[start : start + count]
        if np.abs(part).max() < 0.02:
            found.append(" ")
            continue
        spectrum = np.abs(np.fft.rfft(part * np.hanning(count), 8192))
        hertz = np.fft.rfftfreq(8192, 1 / 16_000)
        low = hertz[np.where(hertz < 880, spectrum, 0).argmax()]
        found.append(CHARACTERS[int(np.clip(round((low - 200) / 25), 0, 25))])
    return "".join(found)


@pytest.fixture(autouse=True)
def _listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken_wer, "_model", lambda folder: Listener())


def score(text: str, output: Any) -> Any:
    (found,) = find_scorer(REF).score_all(Path(), [{"example": {"input": text}, "prediction": {"output": output}}])
    return found


def test_what_is_spoken_right_has_no_errors_and_each_wrong_word_is_one() -> None:
    voice = encode_audio(say("ada bob"), 16_000)
    assert score("ada bob", voice) == {NAME: 0}
    assert score("Ada, Bob!", voice) == {NAME: 0}, "case and punctuation are not heard"
    assert score("ada kim", voice) == {NAME: 0.5}
    assert score("ada", voice) == {NAME: 1}
    assert score("kim lee", voice) == {NAME: 1}
    assert score("ada bob", encode_audio(np.zeros(16_000), 16_000)) == {NAME: 1}
    noise = np.random.default_rng(0).normal(0, 0.2, 16_000)
    assert score("ada bob", encode_audio(noise, 16_000))[NAME] >= 0.5
    at_another_rate = encode_audio(resample(say("ada bob"), 16_000, 22_050), 22_050)
    assert score("ada bob", at_another_rate) == {NAME: 0}


def test_a_failed_answer_says_nothing_so_that_failing_at_a_hard_text_is_no_gain() -> None:
    voice = encode_audio(say("ada"), 16_000)
    for output in (None, {"mime": "audio/wav"}, voice | {"data": "UklGRg=="}):
        assert score("ada bob", output) == {NAME: 1}
    assert isinstance(score("...", voice), ScorerError), "no word to be heard"


def test_its_name_says_who_listened_and_that_fewer_errors_are_better() -> None:
    found = find_scorer(REF)
    assert (found.metric(), found.better) == (f"{NAME}:lower", "lower")
    metric = find_metric(f"{NAME}:lower")
    assert (metric.better, metric.low, metric.high) == ("lower", 0, None)
    assert not is_sandboxed(REF)
    assert spoken_wer.word_distance([], ["a"]) == 1
