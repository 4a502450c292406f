"""Whether two fingerprints are of one model, as far as one can tell from noisy answers."""

from __future__ import annotations

import random

import pytest

from speciate.evaluation.endpoints.endpoint_history import LEVEL, AnswerDigest, Fingerprint, compare_fingerprints

COUNT = 20


def taken(chance: random.Random, model: str, *, noise: float = 0.0, words: int = 3, shift: float = 0.0) -> Fingerprint:
    """Each answer is the model's usual one, but one of so many words with the probability `noise`."""

    def told(question: int) -> AnswerDigest:
        word = chance.randrange(words) if chance.random() < noise else 0
        return AnswerDigest(digest=f"{model}{question}{word}", logprob=-1.0 + shift)

    return Fingerprint(form=1, asked=0.0, answers=tuple((told(q), told(q)) for q in range(COUNT)), served=("m",))


_BETWEEN = pytest.mark.slow(reason="between the others")


@pytest.mark.parametrize("noise", [0.0, pytest.param(0.1, marks=_BETWEEN), 0.3, pytest.param(0.6, marks=_BETWEEN), 1.0])
@pytest.mark.parametrize("words", [2, pytest.param(3, marks=_BETWEEN), 50])
def test_an_unchanged_endpoint_is_rarely_called_changed_however_noisy_it_is(noise: float, words: int) -> None:
    chance = random.Random(7)
    times = 1_500
    changed = sum(
        compare_fingerprints(
            taken(chance, "a", noise=noise, words=words), taken(chance, "a", noise=noise, words=words)
        ).changed
        for _ in range(times)
    )
    assert changed <= 8  # P(more) < 0.0001 where each is called so with LEVEL
    assert times * LEVEL < 2


@pytest.mark.parametrize(("noise", "least"), [(0.0, 1.0), (0.1, 1.0), (0.3, 0.95)])
def test_another_model_is_seen_through_noise(noise: float, least: float) -> None:
    chance = random.Random(7)
    found = [compare_fingerprints(taken(chance, "a", noise=noise), taken(chance, "b", noise=noise)) for _ in range(200)]
    assert sum(each.changed for each in found) >= least * len(found)


def test_the_same_words_that_became_less_likely_are_a_change_and_a_trifle_is_none() -> None:
    chance = random.Random(7)
    before = taken(chance, "a")
    assert compare_fingerprints(before, taken(chance, "a", shift=-0.3)).changed
    assert not compare_fingerprints(before, taken(chance, "a", shift=-0.02)).changed


def test_a_few_other_answers_are_not_enough() -> None:
    before = taken(random.Random(7), "a")
    answers = tuple(
        pair if question >= 6 else (AnswerDigest(digest="new", logprob=-1.0),) * 2
        for question, pair in enumerate(before.answers)
    )
    found = compare_fingerprints(before, before.model_copy(update={"answers": answers}))
    assert (found.differ, found.alike, found.changed) == (6, 0, False)


def test_another_name_is_a_change_and_another_machinery_alone_is_none() -> None:
    before = taken(random.Random(7), "a").model_copy(update={"systems": ("fp_1",)})
    assert not compare_fingerprints(before, before.model_copy(update={"systems": ("fp_2",)})).changed
    found = compare_fingerprints(before, before.model_copy(update={"served": ("n",)}))
    assert found.changed
    assert found.why == ("it says that it serves n, before m",)


def test_other_questions_and_missing_answers_say_nothing() -> None:
    chance = random.Random(7)
    before, other = taken(chance, "a"), taken(chance, "b")
    assert not compare_fingerprints(before, other.model_copy(update={"form": 2})).changed
    silent = other.model_copy(update={"answers": tuple((None, each) for _, each in other.answers)})
    assert not compare_fingerprints(before, silent).changed
    assert not silent.whole
    assert before.disagreement == 0
