"""Metrics of texts: free answers, transcripts, and a tag for each word. An answer that failed counts as an empty text.

White space counts as one blank, and none at the ends; all else counts as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from speciate.evaluation.metric_libraries import missing_library
from speciate.evaluation.metrics.metric import Answers, Statistic
from speciate.evaluation.spoken_words import edit_distance, spoken_words
from speciate.evaluation.statistics import Floats

_BETA = 2
"""How much more recall counts than precision in chrF."""
_NUMBER = re.compile(r"(?:(?<![\w.)])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
"""A sign after a word or a number is a dash: `10-20` ends in 20. Commas divide thousands."""
_CLOSE = 1e-6
"""Relative: answers repeat numbers in other notations."""


def _exact_match(answers: Answers) -> Floats:
    pairs = zip(answers.references, answers.given, strict=True)
    return np.array(
        [given is not None and normalize_text(reference) == normalize_text(given) for reference, given in pairs],
        np.float64,
    )


def _numeric_match(answers: Answers) -> Floats:
    """NaN where the reference has no number."""
    return np.array(
        [_same(reference, given) for reference, given in zip(answers.references, answers.given, strict=True)]
    )


_FAR = 0.5
"""Share of a text from which on an answer is another one."""


def _anls(answers: Answers) -> Floats:
    """Average normalized Levenshtein similarity, of each answer."""
    return np.array([_similarity(true.lower(), said.lower()) for true, said in _texts(answers)], np.float64)


def _similarity(one: str, other: str) -> float:
    longer = max(len(one), len(other))
    share = edit_distance(one, other) / longer if longer else 0.0
    return 1 - share if share < _FAR else 0.0


def _same(reference: Any, given: Any) -> float:
    wanted, said = last_number(reference), last_number(given)
    if wanted is None:
        return math.nan
    return float(said is not None and math.isclose(wanted, said, rel_tol=_CLOSE, abs_tol=1e-12))


def last_number(text: Any) -> float | None:
    """The last one in a text, which in an answer with its reasoning is the result (Cobbe et al. 2021 write it so)."""
    found = _NUMBER.findall(normalize_text(text))
    return float(found[-1].replace(",", "")) if found else None


def _bleu(answers: Answers) -> Statistic:
    """Papineni et al. (2002) over the corpus with sacrebleu's counts and defaults (Post 2018), as a share."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise missing_library("sacrebleu") from error

    scorer = BLEU(effective_order=True)  # which changes the scores of sentences alone; their counts are taken
    found = [scorer.sentence_score(said, [true]) for true, said in _texts(answers)]
    parts = np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found], float)
    return Statistic(parts, _bleu_of_sums)


def _bleu_of_sums(sums: Floats) -> Floats:
    """Exponential smoothing (mteval-v13a): the k-th order without a match counts as 1 / 2^k matches."""
    said, true, hits, totals = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:10]
    none = hits == 0
    smoothed = np.where(none, 0.5 ** np.cumsum(none & (totals > 0), axis=1), hits)
    brevity = np.exp(np.minimum(0.0, 1 - true / said))
    means = np.exp(np.log(smoothed / totals).mean(1))
    return np.where((hits > 0).any(1) & (totals > 0).all(1), brevity * means, 0.0)


def _chrf(answers: Answers) -> Statistic:
    """Popovic (2015) over the corpus with sacrebleu's counts and defaults, as a share."""
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise missing_library("sacrebleu") from error

    pairs = _texts(answers)
    # sacrebleu makes its own resamples of these; it has no public name for them
    counts = CHRF()._extract_corpus_statistics([said for _, said in pairs], [[true for true, _ in pairs]])
    return Statistic(np.array(counts, float), _chrf_of_sums)


def _chrf_of_sums(sums: Floats) -> Floats:
    """Orders that reference or answer are too short for do not count."""
    said, true, hits = (sums[:, place::3] for place in range(3))
    counted = (said > 0) & (true > 0)
    precision, recall = (
        np.divide(hits, part, out=np.zeros_like(hits), where=counted).sum(1) / np.maximum(counted.sum(1), 1)
        for part in (said, true)
    )
    total = _BETA**2 * precision + recall
    scores: Floats = np.divide((1 + _BETA**2) * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return scores


def _rouge_l(answers: Answers) -> Floats:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise missing_library("rouge_score") from error

    scorer = RougeScorer(["rougeL"])
    return np.array([scorer.score(true, said)["rougeL"].fmeasure for true, said in _texts(answers)], float)


def _texts(answers: Answers) -> list[tuple[str, str]]:
    return [
        (normalize_text(true), normalize_text(said))
        for true, said in zip(answers.references, answers.given, strict=True)
    ]


def normalize_text(text: Any) -> str:
    return " ".join(str("" if text is None else text).split())


def _error_rate(unit: Literal["words", "characters", "spoken words"], answers: Answers) -> Statistic:
    """As jiwer counts: the fewest insertions, deletions and substitutions per unit of the reference.

    Case and punctuation count, but not of spoken words, for which both sides pass `spoken_words`. NaN where all
    references are empty then.
    """
    try:
        import jiwer
    except ImportError as error:
        raise missing_library("jiwer") from error

    count = jiwer.process_characters if unit == "characters" else jiwer.process_words
    normal = spoken_words if unit == "spoken words" else _normalized
    parts = np.zeros((len(answers.references), 2))  # errors, units of the reference
    for row, (reference, given) in enumerate(zip(answers.references, answers.given, strict=True)):
        wanted = normal(reference)
        if not wanted:
            parts[row] = len(normal(given or "").split()), 0
            continue
        found = count(wanted, normal(given or ""))
        errors = found.substitutions + found.deletions + found.insertions
        parts[row] = errors, found.hits + found.substitutions + found.deletions
    return Statistic(parts, lambda sums: sums[:, 0] / sums[:, 1])


def _normalized(text: object) -> str:
    return " ".join(str(text).split())


_OUTSIDE = "O"


class Span(NamedTuple):
    """Consecutive units of one tag.

    Spans are those of IOB2 and its variants (prefixes B- I- E- S-), read as leniently as CoNLL-2000's conlleval, which
    seqeval follows: I- or E- continues a span after B- or I- of the same type and otherwise starts a new one. Tags
    without a prefix, as of a protein's secondary structure, are one span while they stay the same. O is outside.
    """

    tag: str
    start: int
    stop: int


def _token_accuracy(answers: Answers) -> Statistic:
    """Units without an answer are wrong, and so are all of an answer that has too many."""
    parts = np.zeros((len(answers.references), 2))  # right, all
    for row, (reference, given) in enumerate(zip(answers.references, answers.given, strict=True)):
        parts[row] = sum(a == b for a, b in zip(reference, _fitting(given, reference), strict=False)), len(reference)
    return Statistic(parts, lambda sums: sums[:, 0] / sums[:, 1])


def _f1_spans(answers: Answers) -> Statistic:
    """An error counts as as many wrong spans as there are true ones, and at least as one."""
    parts = np.zeros((len(answers.references), 3))  # hit, given, true
    for row, (reference, given) in enumerate(zip(answers.references, answers.given, strict=True)):
        true, found = set(spans(reference)), set(spans(_fitting(given, reference)))
        is_error = given is None or len(given) > len(reference)
        parts[row] = len(true & found), max(1, len(true)) if is_error else len(found), len(true)
    return Statistic(parts, lambda sums: 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]))


def spans(tags: Sequence[str]) -> list[Span]:
    found: list[Span] = []
    before, kind_before, start = _OUTSIDE, "", 0
    for place, tag in enumerate([*tags, _OUTSIDE]):
        prefix, kind = _parts(tag)
        goes_on = kind == kind_before and ((prefix in ("I", "E") and before in ("B", "I")) or (prefix == before == ""))
        if goes_on:
            before = prefix
            continue
        if before != _OUTSIDE:
            found.append(Span(kind_before, start, place))
        before, kind_before, start = prefix, kind, place
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Prefix and type; the prefix of a plain tag is empty."""
    if tag == _OUTSIDE:
        return _OUTSIDE, ""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-", "E-", "S-") else ("", tag)


def _fitting(given: Sequence[str] | None, reference: Sequence[str]) -> Sequence[str]:
    return () if given is None or len(given) > len(reference) else given


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "exact_match": _exact_match,
    "anls": _anls,
    "numeric_match": _numeric_match,
    "rouge_l": _rouge_l,
}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {
    "bleu": _bleu,
    "chrf": _chrf,
    "wer": partial(_error_rate, "words"),
    "wer_normalized": partial(_error_rate, "spoken words"),
    "cer": partial(_error_rate, "characters"),
    "token_accuracy": _token_accuracy,
    "f1_spans": _f1_spans,
}
