"""Errors of transcripts are those that jiwer counts over the whole."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import Code, SpeciateError
from speciate.evaluation.metrics import corpus, judged
from speciate.vocabulary import find_metric

jiwer = pytest.importorskip("jiwer")
TEXT = st.lists(st.text("abc", min_size=1, max_size=3), max_size=6).map(" ".join)


def value(name: str, truth: list[str], said: list[str | None]) -> float:
    n = len(truth)
    made = judged("transcription", truth, said, [None] * n, ())
    return float(corpus(find_metric(name), made, np.arange(n))(np.ones((1, n)))[0])


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1, max_size=6))
def test_rates_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    truth, said = [a for a, _ in pairs], [b for _, b in pairs]
    assert value("wer", truth, list(said)) == pytest.approx(jiwer.wer(truth, said), rel=1e-9)
    assert value("cer", truth, list(said)) == pytest.approx(jiwer.cer(truth, said), rel=1e-9)


def test_an_error_counts_as_an_empty_answer() -> None:
    assert value("wer", ["one two", "three"], [None, "three"]) == pytest.approx(2 / 3)
    assert value("cer", ["ab", "cd"], [None, "cd"]) == 0.5


def test_without_its_library_the_metric_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(SpeciateError) as refusal:
        value("wer", ["one"], ["one"])
    assert refusal.value.code is Code.MISSING_EXTRA
    assert "pip install 'speciate[metrics]'" in refusal.value.recovery
