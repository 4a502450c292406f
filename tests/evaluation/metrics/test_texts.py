"""Texts that are written freely, beside their references."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import Code, SpeciateError
from speciate.evaluation.metrics import contributions, corpus, judged
from speciate.evaluation.metrics.texts import Span, last_number, spans
from speciate.evaluation.spoken_words import spoken_words
from speciate.vocabulary import find_metric


def scores(name: str, reference: list[str], said: list[str | None]) -> np.ndarray:
    return contributions(find_metric(name), judged("generation", reference, said, [None] * len(reference), ()))


def test_white_space_is_no_difference_and_all_else_is() -> None:
    got = scores("exact_match", ["two words"] * 5, [" two\n words", "Two words", "two words.", "", None])
    assert got.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 42", 42), ("It is 1,234.50 in all.", 1234.5), ("from 10-20", 20), ("it is -3", -3), ("x=-3.", -3),
        ("(-3)", -3), ("f(2)-3", 3), ("1e-3", 0.001), ("12,34", 34), ("7 of 9 apples", 9), ("v2", 2), ("none", None),
        ("", None), ("١", None),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.floats(-1e12, 1e12), st.sampled_from(["{}", "so {}.", "1 + 1 = {}", "**{}** apples", "${}"]))
def test_a_number_is_found_however_it_is_wrapped(number: float, text: str) -> None:
    assert last_number(text.format(repr(number))) == pytest.approx(number)
    assert last_number(text.format(f"{number:,.3f}")) == pytest.approx(number, abs=6e-4)


def test_numbers_match_in_other_notations_and_a_reference_without_one_is_not_counted() -> None:
    got = scores("numeric_match", ["#### 1200", "5", "5", "5", "yes"], ["so 1,200.0", "6", "none", None, "5"])
    assert got.tolist()[:4] == [1, 0, 0, 0]
    assert math.isnan(got[4])


WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat,", "Mat.", "été", "3.5", "猫"]), max_size=12)
PAIRS = st.lists(st.tuples(WORDS.filter(bool).map(" ".join), WORDS.map(" ".join)), min_size=1, max_size=8)


def whole(name: str, reference: list[str], said: list[str | None]) -> float:
    made = judged("generation", reference, said, [None] * len(reference), ())
    return float(corpus(find_metric(name), made, np.arange(len(reference)))(np.ones((1, len(reference))))[0])


@settings(deadline=None)
@given(PAIRS)
def test_bleu_and_chrf_are_sacrebleus_over_the_corpus(pairs: list[tuple[str, str]]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    reference, said = [a for a, _ in pairs], [b for _, b in pairs]
    for name, score in (("bleu", sacrebleu.corpus_bleu), ("chrf", sacrebleu.corpus_chrf)):
        assert whole(name, reference, list(said)) == pytest.approx(
            score(said, [reference]).score / 100, rel=1e-9, abs=1e-12
        )


def test_bleu_of_real_sentences_is_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    reference = ["The quick brown fox jumps over the lazy dog.", "It was not the first time that this had happened."]
    said = ["A quick brown fox jumped over the lazy dog.", "This was not the first time it happened."]
    expected = sacrebleu.corpus_bleu(said, [reference]).score / 100
    assert 0.2 < expected < 0.8
    assert whole("bleu", reference, list(said)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_the_signature_is_the_one_that_sacrebleu_gives(name: str) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    made = {"bleu": metrics.BLEU, "chrf": metrics.CHRF}[name]()
    made.corpus_score(["a"], [["a"]])
    signature = str(made.get_signature()).rpartition("|version")[0]
    assert signature in find_metric(name).what


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_weights_of_clusters_mean_repeated_texts(name: str) -> None:
    pytest.importorskip("sacrebleu")
    reference = [
        "the cat sat on the mat today",
        "a dog ran far away from here",
        "one two three four five",
        "x y z u v w",
    ]
    said: list[str | None] = ["the cat sat on a mat today", "a dog ran away from here", "one two four three five", None]
    made = judged("generation", reference, said, [None] * 4, ())
    got = corpus(find_metric(name), made, np.array([0, 0, 1, 2]))(np.array([[2.0, 0.0, 1.0]]))[0]
    places = [0, 0, 1, 1, 3]
    assert got == pytest.approx(whole(name, [reference[i] for i in places], [said[i] for i in places]), rel=1e-9)


@settings(deadline=None)
@given(PAIRS)
def test_rouge_is_rouge_scores(pairs: list[tuple[str, str]]) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    reference, said = [a for a, _ in pairs], [b for _, b in pairs]
    assert scores("rouge_l", reference, list(said)).tolist() == [
        scorer.score(true, given)["rougeL"].fmeasure for true, given in pairs
    ]


@pytest.mark.parametrize("name", ["exact_match", "numeric_match", "bleu", "chrf", "rouge_l"])
def test_all_errors_are_zero(name: str) -> None:
    reference, nothing = ["so 4 and 5", "then 6"], [None, None]
    metric = find_metric(name)
    got = whole(name, reference, nothing) if metric.shape == "corpus" else scores(name, reference, nothing).mean()
    assert got == 0


# Errors of transcripts are those that jiwer counts over the whole.


jiwer = pytest.importorskip("jiwer")
TEXT = st.lists(st.text("abc", min_size=1, max_size=3), max_size=6).map(" ".join)


def value(name: str, reference: list[str], said: list[str | None]) -> float:
    n = len(reference)
    made = judged("transcription", reference, said, [None] * n, ())
    return float(corpus(find_metric(name), made, np.arange(n))(np.ones((1, n)))[0])


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1, max_size=6))
def test_rates_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    reference, said = [a for a, _ in pairs], [b for _, b in pairs]
    assert value("wer", reference, list(said)) == pytest.approx(jiwer.wer(reference, said), rel=1e-9)
    assert value("cer", reference, list(said)) == pytest.approx(jiwer.cer(reference, said), rel=1e-9)


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("Ten of clubs.", "ten of clubs"),
        ("4, queen of  clubs", "four queen of clubs"),
        ("Mr. O\u2019Neill's 21 boats", "mister o'neill's twenty one boats"),
        ("1984 & 100%", "one thousand nine hundred eighty four and one hundred percent"),
        ("0 10 19 20 12345", "zero ten nineteen twenty 12345"),
        ("...", ""),
        (None, ""),
    ],
)
def test_of_a_transcript_only_what_is_heard_counts(text: str | None, heard: str) -> None:
    assert spoken_words(text) == heard


def test_a_transcript_with_numerals_and_commas_is_no_worse() -> None:
    reference, said = ["ten of clubs", "mister jones left"], ["10 of Clubs.", "Mr Jones, left!"]
    assert value("wer_normalized", reference, list(said)) == 0.0
    assert value("wer", reference, list(said)) > 0.5
    assert value("wer_normalized", reference, [None, "mister jones left"]) == pytest.approx(3 / 6)


def test_an_error_counts_as_an_empty_answer() -> None:
    assert value("wer", ["one two", "three"], [None, "three"]) == pytest.approx(2 / 3)
    assert value("cer", ["ab", "cd"], [None, "cd"]) == 0.5


def test_without_its_library_the_metric_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(SpeciateError) as refusal:
        value("wer", ["one"], ["one"])
    assert refusal.value.code is Code.MISSING_EXTRA
    assert "pip install 'speciate[metrics]'" in refusal.value.recovery


# Tags are counted one by one; spans as seqeval and conlleval find them.


oracle = pytest.importorskip("seqeval.metrics")
sequence_labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
TAGS = ("O", "B-x", "I-x", "B-y", "I-y", "E-x", "S-y")
SENTENCE = st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=10)


def tag_value(name: str, reference: list[list[str]], said: list[list[str] | None]) -> float:
    n = len(reference)
    made = judged("tokens", reference, said, [None] * n, ())
    return float(corpus(find_metric(name), made, np.arange(n))(np.ones((1, n)))[0])


@settings(deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=15))
def test_spans_are_seqevals(tags: list[str]) -> None:
    wanted = [(tag, start, stop + 1) for tag, start, stop in sequence_labeling.get_entities(tags)]
    assert [tuple(span) for span in spans(tags)] == wanted


@settings(deadline=None)
@given(st.lists(SENTENCE, min_size=1, max_size=6))
def test_metrics_are_seqevals(sentences: list[list[tuple[str, str]]]) -> None:
    reference, said = ([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
    assert tag_value("token_accuracy", reference, list(said)) == pytest.approx(oracle.accuracy_score(reference, said))
    if any(spans(tags) for tags in [*reference, *said]):
        assert tag_value("f1_spans", reference, list(said)) == pytest.approx(
            oracle.f1_score(reference, said, zero_division=0)
        )


def test_tags_without_a_prefix_are_spans_while_they_stay_the_same() -> None:
    assert spans(["H", "H", "E", "O", "E"]) == [Span("H", 0, 2), Span("E", 2, 3), Span("E", 4, 5)]
    assert spans(["B", "I", "I"]) == [Span("B", 0, 1), Span("I", 1, 3)]  # structure's own letters


def test_what_has_no_answer_is_wrong() -> None:
    reference = [["B-x", "I-x", "O", "B-x"]]
    assert tag_value("token_accuracy", reference, [["B-x", "I-x"]]) == 0.5
    assert tag_value("token_accuracy", reference, [None]) == 0
    assert tag_value("token_accuracy", reference, [[*reference[0], "O"]]) == 0
    assert tag_value("f1_spans", reference, [["B-x", "I-x"]]) == pytest.approx(2 / 3)
    assert tag_value("f1_spans", reference, [None]) == 0
    assert tag_value("f1_spans", [["O"], ["B-x"]], [None, ["B-x"]]) == pytest.approx(2 / 3)
