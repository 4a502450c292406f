"""A version is taken back on what is sure: many requests, in more than one minute, worse than the version before."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speciate.promotion import bake
from speciate.promotion.bake import ALPHA, BakeObservation, Quality, judge, log_evidence, surely_above
from speciate.promotion.request_counters import BadCount, BadShare, RequestCounters
from speciate.settings import Bake, Settings

HOUR = 3600.0
START = 1_800_000_000.0


def counters(requests: int, *, seconds: float = 1.0, model: str = "m@v2", **every: int) -> RequestCounters:
    """One request each `seconds`; `failed=10`: every tenth request failed."""
    made = RequestCounters("production", 2, model)
    for number in range(requests):
        bad = {name: number % step == step - 1 for name, step in every.items()}
        made.add(
            START + number * seconds, seconds=0.01, failed=bad.get("failed", False),
            not_finite=bad.get("not_finite", False), unusable=bad.get("unusable", False),
        )  # fmt: skip
        made.slow.add(START + number * seconds, bad.get("slow", False))
    return made


def observation(seen: RequestCounters | None, before: RequestCounters | None = None, **more: object) -> BakeObservation:
    return BakeObservation(since=START, counters=seen, before=before, answered=True)._replace(**more)  # type: ignore[arg-type]


def state(found: BakeObservation, hours: float = 1.0, **settings: object) -> str:
    return judge(found, Bake.model_validate(settings), START + hours * HOUR).state


def test_hours_and_requests_must_both_have_passed() -> None:
    assert state(observation(counters(999)), hours=25) == "baking"
    assert state(observation(counters(1000)), hours=23) == "baking"
    assert state(observation(counters(1000)), hours=24) == "survived"


def test_after_a_week_few_requests_are_enough_and_none_never() -> None:
    assert state(observation(counters(3)), hours=167) == "baking"
    assert state(observation(counters(3)), hours=168) == "survived"
    assert state(observation(None), hours=168) == "survived", "it answered without a deployment"
    assert state(observation(None, answered=False), hours=10_000) == "baking"


@pytest.mark.parametrize("kind", ["failed", "not_finite", "slow"])
def test_a_limit_that_is_surely_broken_takes_it_back(kind: str) -> None:
    found = judge(observation(counters(600, **{kind: 5})), Bake(), START + HOUR)
    assert found.state == "broken"
    assert "120 of 600 requests" in found.reasons[0]
    assert found.evidence[kind] == 120


def test_a_few_failures_are_no_reason() -> None:
    assert state(observation(counters(600, failed=60))) == "baking", "1.7 %, and 2 % may fail"


def test_one_bad_minute_is_no_reason_however_bad() -> None:
    seen = counters(600)
    for number in range(50):
        seen.add(START + 700 + number, seconds=30, failed=True, not_finite=False, unusable=False)
    assert surely_above(seen.failed.total, 0.02)
    assert state(observation(seen)) == "baking"
    for number in range(50):
        seen.add(START + 800 + number, seconds=30, failed=True, not_finite=False, unusable=False)
    assert state(observation(seen)) == "broken"


def test_a_version_that_answers_nothing_is_taken_back_after_its_second_minute() -> None:
    seen = counters(61, failed=1)
    assert state(observation(seen)) == "baking", "one request stands outside of the worst minute"
    assert state(observation(counters(80, failed=1))) == "broken"


def test_going_back_would_mend_nothing_where_the_version_before_was_as_bad() -> None:
    bad, as_bad = counters(600, failed=10, slow=4), counters(600, failed=11, slow=4, model="m@v1")
    assert state(observation(bad)) == "broken"
    assert state(observation(bad, as_bad)) == "baking"
    assert state(observation(bad, counters(600, model="m@v1"))) == "broken"
    assert state(observation(bad, counters(99, failed=2, model="m@v1"))) == "broken", "too few to compare with"


def test_inputs_that_cannot_be_used_count_only_against_a_version_that_could_use_them() -> None:
    careless = counters(600, unusable=3)
    assert state(observation(careless)) == "baking"
    assert state(observation(careless, counters(600, unusable=3, model="m@v1"))) == "baking"
    assert state(observation(careless, counters(600, model="m@v1"))) == "broken"


def test_latency_waits_for_enough_requests() -> None:
    slow = counters(99, seconds=5, slow=1)
    assert state(observation(slow)) == "baking"
    assert state(observation(counters(130, seconds=5, slow=1))) == "broken"


def test_a_refusal_by_the_deployment_is_enough() -> None:
    found = judge(observation(None, refused="its files have changed"), Bake(), START)
    assert (found.state, found.reasons) == ("broken", ("Its deployment did not let it serve: its files have changed",))


def test_wrong_answers_take_it_back_where_the_target_or_the_version_before_says_so() -> None:
    many = BadCount(200, 80)
    assert state(observation(None, quality=Quality(many, None, None))) == "baking"
    assert state(observation(None, quality=Quality(many, None, 0.1))) == "broken"
    assert state(observation(None, quality=Quality(many, BadCount(200, 20), None))) == "broken"
    assert state(observation(None, quality=Quality(many, BadCount(200, 70), 0.1))) == "baking"


def test_a_kept_limit_is_hardly_ever_found_broken_however_often_one_looks() -> None:
    """4,000 versions that fail exactly as often as allowed, each judged after every one of 1,000 requests."""
    rng = np.random.default_rng(0)
    bad = np.cumsum(rng.random((4000, 1000)) < 0.02, axis=1)
    n = np.arange(1, 1001)
    thresholds = np.array([_least_bad(int(each)) for each in n])
    alarms = (bad >= thresholds).any(axis=1).mean()
    assert alarms <= 3 * ALPHA


def _least_bad(n: int) -> int:
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if surely_above(BadCount(n, middle), 0.02) else (middle + 1, high)
    return low


def test_a_version_that_fails_three_times_as_often_is_found_before_its_bake_ends() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        bad = rng.random(1000) < 0.06
        found += surely_above(BadCount(1000, int(bad.sum())), 0.02)
    assert found / 200 > 0.9


def test_the_evidence_is_the_mean_of_likelihood_ratios() -> None:
    odds = 0.02 / 0.98
    other = [factor * odds / (1 + factor * odds) for factor in bake._ODDS]
    direct = np.mean([(q / 0.02) ** 3 * ((1 - q) / 0.98) ** 7 for q in other])
    assert log_evidence(BadCount(10, 3), 0.02) == pytest.approx(math.log(direct))


def test_a_share_knows_its_worst_minute() -> None:
    share = BadShare()
    for at, bad in [(0, True), (1, True), (61, True), (62, False), (121, False)]:
        share.add(at, bad)
    assert (share.total, share.without_worst) == (BadCount(5, 3), BadCount(3, 1))


def test_a_tally_is_kept_as_json() -> None:
    seen = counters(70, failed=9, slow=3)
    assert RequestCounters.of(seen.document()) == seen


def test_a_use_case_sets_what_differs_and_keeps_the_rest_of_the_workspace() -> None:
    settings = Settings.model_validate({"bake": {"rollback": "tell", "hours": 48}, "bakes": {"digits": {"hours": 1}}})
    own, other = settings.bake_of("digits"), settings.bake_of("reviews")
    assert (own.hours, own.rollback, other.hours, other.rollback) == (1, "tell", 48, "tell")


def test_a_version_no_worse_than_a_little_known_one_before_is_hardly_ever_taken_back() -> None:
    """Both fail in 5 % of requests; of the one before 100 requests are known. Of 300 draws 22 were taken back by the
    rate alone."""
    chance, broken = np.random.default_rng(7), 0
    for _ in range(300):
        before = RequestCounters("production", 1, "m@v1", failed=BadShare(100, int(chance.binomial(100, 0.05))))
        failed = np.cumsum(chance.random(2000) < 0.05)
        broken += any(
            judge(
                observation(RequestCounters("production", 2, "m@v2", failed=BadShare(n, int(failed[n - 1]))), before),
                Bake(),
                START,
            ).state
            == "broken"
            for n in range(100, 2001, 100)
        )
    assert broken <= 8
