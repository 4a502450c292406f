from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from speciate.evaluation.compare_models import Cost, ModelEntry, Question, build
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.holdout_reuse import level_for
from speciate.evaluation.metrics import label_answers
from speciate.evaluation.reports.report import Report, ValidationEvidence, break_even
from speciate.sample_size import detectable
from speciate.use_cases import UseCase
from speciate.vocabulary import find_metric

N = 400
RANDOM = np.random.default_rng(3)
REFERENCES = ["a" if x else "b" for x in RANDOM.integers(0, 2, N)]
METRICS = (find_metric("accuracy"), find_metric("f1_macro"))
USE_CASE = UseCase.model_validate(
    {
        "name": "letters", "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.7},
        "version": 1, "created": 0.0,
    }
)  # fmt: skip


def entry(
    name: str, accuracy: float, usd: float | None = 1.0, *, source: Any = "model", trained_usd: float = 3.0
) -> ModelEntry:
    right = np.random.default_rng(len(name)).random(N) < accuracy
    given = [t if r else ("b" if t == "a" else "a") for t, r in zip(REFERENCES, right, strict=True)]
    evaluated_model = EvaluatedModel(name=name, source=source, identity=name, license="MIT", training_usd=trained_usd)
    answers = label_answers(REFERENCES, given, [None] * N, ("a", "b"))
    return ModelEntry(evaluated_model, (answers,), 0, Cost(usd_per_1k=usd), certain=True)


def report(entries: Sequence[ModelEntry], candidate: str | None = None, decides: bool = True) -> Report:
    question = Question("letters@v1:test", METRICS, "constant:", candidate, USE_CASE, None if decides else "easy")
    return build(question, entries, np.arange(N))


CONSTANT = entry("constant:", 0.5, 0.0, source="constant")


def test_every_pair_is_compared_under_every_metric_in_either_direction() -> None:
    got = report([CONSTANT, entry("words", 0.8), entry("deep", 0.9)])
    assert len(got.comparisons) == 6
    forth, back = got.compare("words", "deep"), got.compare("deep", "words")
    assert forth is not None
    assert back is not None
    assert forth.delta == -(back.delta or 0)
    assert (forth.wins, forth.losses) == (back.losses, back.wins)
    assert got.compare("words", "deep", "f1_macro") is not None


def test_the_leaderboard_is_sorted_and_knows_what_is_dominated() -> None:
    got = report([CONSTANT, entry("words", 0.7, usd=2.0), entry("deep", 0.95, usd=1.0)])
    assert [row.model for row in got.leaderboard] == ["deep", "words", "constant:"]
    assert got.row("words").dominated is False  # no latency was measured: it may yet be the quicker one


def test_the_gates_choose_the_cheap_model_where_the_dear_one_is_not_surely_better() -> None:
    got = report([CONSTANT, entry("words", 0.85, usd=0.1), entry("deepest", 0.86, usd=9.0)])
    assert got.candidate == "words"
    assert got.decision is not None
    assert got.decision.verdict == "promote"
    verdicts = {decision.candidate: decision.verdict for decision in got.decisions}
    assert verdicts == {"words": "promote", "deepest": "hold"}


def test_the_gates_choose_the_dear_model_where_it_is_surely_better() -> None:
    got = report([CONSTANT, entry("words", 0.78, usd=0.1), entry("deepest", 0.97, usd=9.0)])
    assert got.candidate == "deepest"


def test_an_order_that_was_fixed_before_lets_the_dear_one_go_forward_and_says_why() -> None:
    entries = [CONSTANT, entry("words", 0.85, usd=0.1), entry("deepest", 0.86, usd=9.0), entry("bad", 0.55, usd=9.0)]
    order = tuple(
        ValidationEvidence(model=name, value=value, standard_error=0.02, n=300, how="out-of-fold")
        for name, value in (("bad", 0.95), ("deepest", 0.9), ("words", 0.8))
    )
    question = Question("letters@v1:test", METRICS, "constant:", None, USE_CASE, order=order)
    got = build(question, entries, np.arange(N))
    assert got.decision is not None
    assert (got.candidate, got.decision.candidate, got.decision.verdict) == ("deepest", "deepest", "promote")
    verdicts = {decision.candidate: decision.verdict for decision in got.decisions}
    assert verdicts == {"words": "promote", "deepest": "promote", "bad": "hold"}
    assert got.order == order
    (why,) = [reason for reason in got.decision.reasons if "validation examples fixed the order" in reason]
    assert "before it bad does not" in why
    assert "words ($0.1 per 1,000) would pass, too" in why
    levels = {decision.candidate: decision.level for decision in got.decisions}
    assert set(levels.values()) == {level_for(3)}, "each has its share of the error, as without an order"


def test_a_named_candidate_is_the_one_decided_on() -> None:
    got = report([CONSTANT, entry("words", 0.85, usd=0.1), entry("bad", 0.4)], candidate="bad")
    assert got.decision is not None
    assert (got.decision.candidate, got.decision.verdict) == ("bad", "hold")


def test_nothing_is_decided_where_the_suite_is_not_the_use_cases_own() -> None:
    got = report([CONSTANT, entry("words", 0.85)], decides=False)
    assert got.decision is None
    assert got.decisions == ()
    assert got.candidate == "words"


def test_cheaper_answers_pay_for_the_training_after_so_many_examples() -> None:
    got = report([CONSTANT, entry("dear", 0.9, usd=4.0), entry("cheap", 0.9, usd=1.0, trained_usd=3.0)])
    paid = break_even(got, "dear", "cheap")
    assert paid is not None
    assert paid.examples == pytest.approx(1000, abs=1)
    assert break_even(got, "cheap", "dear") is None


def test_the_best_of_many_candidates_is_held_to_wider_intervals_than_one_alone() -> None:
    lucky = entry("lucky", 0.757)
    alone = report([CONSTANT, lucky])
    many = report([CONSTANT, lucky, *(entry(f"other {'x' * i}", 0.5) for i in range(9))], candidate="lucky")
    assert alone.decision is not None
    assert many.decision is not None
    assert (alone.decision.verdict, many.decision.verdict) == ("promote", "inconclusive")
    assert (alone.decision.level, many.decision.level) == (0.95, pytest.approx(0.995))
    assert "10 candidates were judged" in many.decision.reasons[-1]
    assert many.row("lucky").interval == alone.row("lucky").interval  # the leaderboard's stay at 95 %
    shown = many.compare("constant:", "lucky")
    assert shown is not None
    assert shown.interval is not None
    assert many.decision.interval is not None
    assert many.decision.interval[0] < shown.interval[0]


def test_few_examples_can_show_no_difference_and_none_is_named() -> None:
    few = 4
    question = Question("letters@v1:test", METRICS, "constant:", None, USE_CASE, "easy")
    given = {"constant:": ["a", "b", "a", "b"], "other": ["a", "a", "b", "b"]}
    entries = [
        ModelEntry(
            EvaluatedModel(name=name, source="model", identity=name, license="MIT", training_usd=0.0),
            (label_answers(["a", "a", "a", "b"], said, [None] * few, ("a", "b")),),
            0,
            Cost(usd_per_1k=1.0),
            certain=True,
        )
        for name, said in given.items()
    ]
    compared = build(question, entries, np.arange(few)).compare("constant:", "other")
    assert compared is not None
    assert compared.interval is not None
    assert compared.minimum_detectable_effect is None


@pytest.mark.parametrize(
    ("metric", "effect", "had", "shown"),
    [
        ("accuracy", 0.3, None, 0.3),
        ("accuracy", 1.297, None, None),
        ("accuracy", 0.3, 0.8, None),  # 0.2 is all that is left to gain
        ("mae", 5.0, None, 5.0),  # has no bound
        ("mae", 5.0, 3.0, None),  # nor is there an error below 0
        ("mae", float("nan"), 3.0, None),
    ],
)
def test_an_effect_that_the_metric_has_no_room_for_is_none(
    metric: str, effect: float, had: float | None, shown: float | None
) -> None:
    assert detectable(effect, find_metric(metric), had) == shown


def test_a_model_without_an_answer_to_half_of_the_examples_is_held_back_in_so_many_words() -> None:
    given = [reference if place % 2 else None for place, reference in enumerate(REFERENCES)]
    silent = EvaluatedModel(name="silent", source="model", identity="silent", license="MIT")
    half = ModelEntry(silent, (label_answers(REFERENCES, given, [None] * N, ("a", "b")),), N // 2, Cost(usd_per_1k=1.0))
    loose = USE_CASE.model_copy(update={"objective": USE_CASE.objective.model_copy(update={"target": None})})
    question = Question("letters@v1:test", METRICS, "worse", None, loose)
    got = build(question, [entry("worse", 0.1), half], np.arange(N))
    assert got.decision is not None
    assert got.decision.verdict == "hold"
    assert got.decision.reasons[0].startswith("silent gave no usable answer to 200 of 400 examples")


def test_a_named_baseline_gets_no_verdict_and_widens_nothing() -> None:
    question = Question("letters@v1:test", METRICS, "constant:", None, USE_CASE, beside=frozenset({"words"}))
    got = build(question, [CONSTANT, entry("words", 0.8), entry("deep", 0.9)], np.arange(N))
    assert [decision.candidate for decision in got.decisions] == ["deep"]
    assert got.decisions[0].level == 0.95
