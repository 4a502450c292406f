"""Tags are counted one by one; spans as seqeval and conlleval find them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.evaluation.metrics import corpus, judged
from speciate.evaluation.metrics.tokens import Span, spans
from speciate.vocabulary import find_metric

oracle = pytest.importorskip("seqeval.metrics")
sequence_labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
TAGS = ("O", "B-x", "I-x", "B-y", "I-y", "E-x", "S-y")
SENTENCE = st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=10)


def value(name: str, truth: list[list[str]], said: list[list[str] | None]) -> float:
    n = len(truth)
    made = judged("tokens", truth, said, [None] * n, ())
    return float(corpus(find_metric(name), made, np.arange(n))(np.ones((1, n)))[0])


@settings(deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=15))
def test_spans_are_seqevals(tags: list[str]) -> None:
    wanted = [(tag, start, stop + 1) for tag, start, stop in sequence_labeling.get_entities(tags)]
    assert [tuple(span) for span in spans(tags)] == wanted


@settings(deadline=None)
@given(st.lists(SENTENCE, min_size=1, max_size=6))
def test_metrics_are_seqevals(sentences: list[list[tuple[str, str]]]) -> None:
    truth, said = ([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
    assert value("token_accuracy", truth, list(said)) == pytest.approx(oracle.accuracy_score(truth, said))
    if any(spans(tags) for tags in [*truth, *said]):
        assert value("f1_spans", truth, list(said)) == pytest.approx(oracle.f1_score(truth, said, zero_division=0))


def test_tags_without_a_prefix_are_spans_while_they_stay_the_same() -> None:
    assert spans(["H", "H", "E", "O", "E"]) == [Span("H", 0, 2), Span("E", 2, 3), Span("E", 4, 5)]
    assert spans(["B", "I", "I"]) == [Span("B", 0, 1), Span("I", 1, 3)]  # structure's own letters


def test_what_has_no_answer_is_wrong() -> None:
    truth = [["B-x", "I-x", "O", "B-x"]]
    assert value("token_accuracy", truth, [["B-x", "I-x"]]) == 0.5
    assert value("token_accuracy", truth, [None]) == 0
    assert value("token_accuracy", truth, [[*truth[0], "O"]]) == 0
    assert value("f1_spans", truth, [["B-x", "I-x"]]) == pytest.approx(2 / 3)
    assert value("f1_spans", truth, [None]) == 0
    assert value("f1_spans", [["O"], ["B-x"]], [None, ["B-x"]]) == pytest.approx(2 / 3)
