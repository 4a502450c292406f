"""What was said of answers: which label stands, what is refused, estimates, the queue, and agreement."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.predictions import log as writing
from speciate.predictions import log_files, maintenance, prediction_ids, reading
from speciate.predictions import quality as agreeing
from speciate.predictions.feedback import (
    Feedback,
    correctness,
    has_disagreement,
    latest_by_source,
    make_feedback,
    prevailing_label,
    store_feedback,
)
from speciate.predictions.label_queue import Strategy, UnlabelledAnswer, next_in_queue
from speciate.predictions.log import Writer
from speciate.predictions.quality import (
    AnswerOutput,
    agreement,
    alpha,
    drawn_in_order,
    estimate_quality,
    random_place,
    random_sample,
)
from speciate.predictions.reading import StoredFeedback
from tests.conftest import ManualClock
from tests.predictions.world import log, note, texts


def anything(*_: object) -> None:
    """Every label will do."""


def given(prediction: str, told: Any = None, source: str = "human", **more: Any) -> StoredFeedback:
    fields = {"at": 1.0, "score": None, "by": "", "drawn": None, **more}
    return StoredFeedback(prediction=prediction, source=source, label=told, **fields)


def test_the_latest_of_each_source_counts_and_a_persons_label_first() -> None:
    found = latest_by_source(
        [given("a", "x", at=2.0), given("a", "y", at=1.0), given("a", "z", "system", at=3.0), given("a", "w", "agent")]
    )["a"]
    assert found["human"].label == "x"
    standing = prevailing_label(found)
    assert standing is not None
    assert standing.label == "x"
    assert has_disagreement("x", found)
    assert not has_disagreement("x", {"human": found["human"]})


def test_feedback_is_added_to_a_logged_answer_and_survives_sealing(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock)
    [id_] = note(own, texts("a film"))
    first = store_feedback(
        own, make_feedback(prediction=f"chatcmpl-{id_}", label="bad", source="human"), clock.now(), anything
    )
    assert first.answer.id == id_
    own.close()
    maintenance.seal_segments(own.folder)
    clock.advance(5)
    second = store_feedback(
        own, make_feedback(prediction=id_, score=0.0, source="system", drawn="random"), clock.now(), anything
    )
    assert {source: each.label for source, each in second.standing.items()} == {"human": "bad", "system": None}
    assert [each.source for each in reading.feedback(own.folder)] == ["human", "system"]
    own.close()


def test_feedback_reads_only_the_lines_of_its_answer(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one word on an answer costs no more on a busy day than on a quiet one."""
    own = log(tmp_path, clock)
    ids = note(own, texts(*map(str, range(200))))
    read = list[bytes]()
    whole = log_files._parse_line

    def told_of(line: bytes) -> dict[str, Any] | None:
        read.append(line)
        return whole(line)

    monkeypatch.setattr(log_files, "_parse_line", told_of)
    for told in ("bad", "good"):
        found = store_feedback(
            own, make_feedback(prediction=ids[150], label=told, source="human"), clock.now(), anything
        )
    own.close()
    assert (found.answer.id, found.standing["human"].label) == (ids[150], "good")
    assert 0 < len(read) < 20
    assert all(ids[150].encode() in line for line in read)


def test_unknown_answers_are_refused_with_what_is_known(tmp_path: Path, clock: ManualClock) -> None:
    own = log(tmp_path, clock, sample=0.5, retention_days=30)
    note(own, texts(*map(str, range(8))))
    out = next(each for each in own.ids(200) if not prediction_ids.is_sampled(each, 0.5))
    lost = next(each for each in own.ids(200) if prediction_ids.is_sampled(each, 0.5))
    other = prediction_ids.new_prediction_id("elsewhere", clock.now())
    old = prediction_ids.new_prediction_id(own.use_case, clock.now() - 40 * 86_400)
    for prediction, code, told in [
        ("0", Code.INVALID, "no id that was given to an answer"),
        (out, Code.NOT_FOUND, "never logged"),
        (lost, Code.NOT_FOUND, "not in the log"),
        (other, Code.NOT_FOUND, "another use case"),
        (old, Code.NOT_FOUND, "expired"),
    ]:
        with pytest.raises(SpeciateError, match=told) as raised:
            store_feedback(own, Feedback(prediction=prediction, label="x", source="human"), clock.now(), anything)
        assert raised.value.code is code
    own.close()


@pytest.mark.parametrize("wrong", [{}, {"label": "x", "score": 1.0}, {"score": 2.0}, {"label": "x" * 30_000}])
def test_feedback_is_either_a_label_or_a_score(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpeciateError) as raised:
        make_feedback(prediction="pred-x", source="human", **wrong)
    assert raised.value.code is Code.INVALID


def test_estimates_tell_fair_draws_from_complaints() -> None:
    answers = [AnswerOutput(f"a{n}", "m@v1", "good") for n in range(100)] + [AnswerOutput("b", "m@v2", 3.0)]
    said = [given(f"a{n}", "good" if n < 45 else "bad", drawn="random") for n in range(50)]
    said += [given(f"a{n}", "bad") for n in range(50, 100)] + [given("b", 5.0)]
    fair, every, error = estimate_quality(answers, latest_by_source(said))
    assert (fair.drawn, fair.n, fair.mean) == ("random", 50, 0.9)
    assert fair.low is not None
    assert fair.high is not None
    assert (round(fair.low, 3), round(fair.high, 3)) == (0.786, 0.957)  # Wilson, as statsmodels has it
    assert (every.drawn, every.n, every.mean) == ("any", 100, 0.45)
    assert (error.model, error.measure, error.mean, error.low) == ("m@v2", "absolute_error", 2.0, None)


def test_means_have_students_interval() -> None:
    from scipy import stats

    from speciate.predictions import quality as estimates

    for degrees in (1, 2, 3, 5, 10, 30, 200):
        exact = float(stats.t.ppf(0.975, degrees))
        assert estimates._t_quantile(0.975, degrees) == pytest.approx(exact, rel=0.02 if degrees == 3 else 0.005)


def test_numbers_are_judged_by_their_error_and_scores_stand_where_no_label_does() -> None:
    verdict = correctness(3.5, {"human": given("a", 3)})
    assert verdict is not None
    assert (verdict.value, verdict.measure) == (0.5, "absolute_error")
    verdict = correctness("good", {"system": given("a", None, "system", score=0.25)})
    assert verdict is not None
    assert (verdict.value, verdict.measure) == (0.25, "score")
    assert correctness("good", {}) is None


def candidates(count: int) -> list[UnlabelledAnswer]:
    return [UnlabelledAnswer(f"pred-{n:03}", n / count, "good") for n in range(count)]


def test_a_mixed_queue_takes_turns_between_chance_and_doubt() -> None:
    found = next_in_queue(candidates(100), {}, count=10)
    assert [each.drawn for each in found] == ["random", "uncertain"] * 5
    doubt = [each.id for each in found if each.drawn == "uncertain"]
    assert doubt == [f"pred-{n:03}" for n in range(5)] or len(set(doubt)) == 5
    chance = [each.id for each in next_in_queue(candidates(100), {}, strategy="random", count=5)]
    assert [each.id for each in found if each.drawn == "random"] == chance


def test_what_was_judged_leaves_the_queue_of_its_source_alone() -> None:
    said = latest_by_source([given("pred-000", "bad"), given("pred-001", "bad", "agent")])
    everything = {each.id for each in next_in_queue(candidates(5), said, strategy="random", count=5)}
    assert everything == {"pred-001", "pred-002", "pred-003", "pred-004"}
    contradicted = next_in_queue(candidates(5), said, strategy="disagreement", count=5)
    assert [(each.id, each.drawn) for each in contradicted] == [("pred-001", "disagreement")]


def test_the_random_half_is_a_fair_draw() -> None:
    firsts = [
        next_in_queue(
            [UnlabelledAnswer(prediction_ids.new_prediction_id("x", 1.0, c), 0.5, "g") for c in range(k, k + 20)],
            {},
            count=1,
        )[0].id
        for k in range(0, 20_000, 20)
    ]
    odd = [prediction_ids.parse(each) is not None and int(each[-1], 36) % 2 for each in firsts]
    assert 400 < sum(map(bool, odd)) < 620


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    """Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, example C: 4 observers, 12 units with gaps."""
    rows = [
        "123321412...",
        "1233224125.3",
        ".3332342251.",
        "12332441251.",
    ]
    units = [[label for label in column if label != "."] for column in zip(*rows, strict=True)]
    found = alpha(units)
    assert found is not None
    assert round(found, 3) == 0.743
    assert alpha([["a", "a"], ["b", "b"]]) == 1.0
    assert alpha([["a", "a"], ["a", "a"]]) is None


def test_agreement_is_between_labellers_and_has_an_interval() -> None:
    said = [given(f"p{n}", "x" if n % 2 else "y", by="ada", at=n) for n in range(40)]
    said += [given(f"p{n}", "x" if n % 2 or n < 8 else "y", "agent", at=n) for n in range(30)]
    found = agreement(said)
    assert (found.answers, found.labellers) == (30, 2)
    assert found.alpha is not None
    assert found.low is not None
    assert found.high is not None
    assert 0.3 < found.low < found.alpha < found.high <= 1.0
    assert agreement(said[:40]).alpha is None


@pytest.mark.parametrize("strategy", ["mixed", "random"])
def test_labels_of_doubtful_answers_do_not_spoil_the_random_estimate(strategy: Strategy) -> None:
    """The surer a model is, the likelier it is right. The mixed queue takes the unsure ones away early."""
    chance = random.Random(3)
    made = [
        UnlabelledAnswer(prediction_ids.new_prediction_id("x", 1.0, chance.getrandbits(50)), chance.random(), "good")
        for _ in range(2000)
    ]
    right = {each.id: chance.random() < (each.confidence or 0.0) for each in made}
    said: list[StoredFeedback] = []
    for moment in range(1, 61):
        drawn = next_in_queue(made, latest_by_source(said), strategy=strategy, count=20)
        said += [
            given(each.id, "good" if right[each.id] else "bad", drawn=each.drawn, at=float(moment)) for each in drawn
        ]
    found = {
        each.drawn: each
        for each in estimate_quality([AnswerOutput(each.id, "m@v1", "good") for each in made], latest_by_source(said))
    }
    truth = sum(right.values()) / len(right)
    assert found["random"].low is not None
    assert found["random"].high is not None
    assert found["random"].low < truth < found["random"].high
    naive = [right[each.prediction] for each in said if each.drawn == "random"]
    assert strategy == "random" or sum(naive) / len(naive) > truth + 0.05, "the case is one"


def test_what_was_said_before_or_after_its_turn_came_is_told_apart() -> None:
    names = sorted((f"pred-{number}" for number in range(4)), key=random_place)
    said = [given(names[0], at=9.0), given(names[1], at=2.0), given(names[2], at=5.0, drawn="random"),
            given(names[3], at=1.0)]  # fmt: skip
    assert random_sample(latest_by_source(said)) == {names[1], names[2]}, (
        "the first came after its turn, the last has not had one"
    )


def test_a_fair_draw_follows_from_the_order_and_not_from_what_a_label_claims() -> None:
    names = sorted((f"pred-{number}" for number in range(100)), key=random_place)
    there = dict.fromkeys(names, 0.0)

    def fair(*said: StoredFeedback) -> set[str]:
        return drawn_in_order(there, latest_by_source(said))

    first = [given(name, "x", at=10.0 + place) for place, name in enumerate(names[:20])]
    assert fair(*first) == set(names[:20])
    assert fair(*first[:4], *first[5:]) == {*names[:4], *names[5:20]}, "one of twenty could not be told"
    assert fair(*first[::2]) == {names[0]}, "every second one was picked"
    picked = [given(name, "x", at=50.0, drawn="random") for name in names[60:90]]
    assert fair(*picked) == set()
    assert fair(*first, *picked) == set(names[:20])
    later = dict.fromkeys((f"late-{number}" for number in range(100)), 5_000.0)
    assert drawn_in_order(there | later, latest_by_source(first)) == set(names[:20]), "what came later was not there"
    again = [given(name, "x", at=9_000.0) for name in names[20:40]]
    assert drawn_in_order(there | later, latest_by_source([*first, *again])) == set(names[:20])


def test_why_an_answer_is_not_there_does_not_depend_on_how_its_id_is_written(
    tmp_path: Path, clock: ManualClock
) -> None:
    own = log(tmp_path, clock, sample=0.5)
    never = next(
        each
        for each in own.ids(200)
        if not prediction_ids.is_sampled(each, 0.5) and prediction_ids.is_sampled(f"chatcmpl-{each}", 0.5)
    )
    for written in (never, f"chatcmpl-{never}"):
        with pytest.raises(SpeciateError, match="never logged"):
            store_feedback(own, Feedback(prediction=written, label="x", source="human"), clock.now(), anything)


def test_how_large_a_log_is_is_looked_at_for_a_fiftieth_of_the_time(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, moments = Writer(log(tmp_path, clock).folder, clock), iter([100.0, 104.0])
    monkeypatch.setattr(writing.time, "monotonic", lambda: next(moments))
    writer.measure()
    assert writer._measure_at == 104.0 + 50 * 4.0


def test_agreement_over_thousands_of_answers_looks_at_their_patterns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    whole = agreeing.alpha_of_patterns
    monkeypatch.setattr(
        agreeing, "alpha_of_patterns", lambda patterns: (looked.append(len(patterns)), whole(patterns))[1]
    )
    chance = random.Random(0)
    found = agreement(
        given(f"p{number}", chance.choice("ab"), source) for number in range(2000) for source in ("human", "agent")
    )
    assert found.answers == 2000
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert max(looked) <= 3, "both a, both b, one of each"
