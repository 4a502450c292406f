"""Rewards that are rules: where a result is looked for, and when it is the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.training.rewards import reward as watched
from speciate.training.rewards.plain_rewards import find_result, last_number
from speciate.training.rewards.reward import MissingValue, RewardRequest, RewardValue, WatchedReward
from speciate.training.rewards.reward_spec import REWARD_SPECS, Where
from speciate.training.rewards.reward_table import REWARD_KINDS, reward_names
from tests.training.rewards.opened import ask, opened, read


def scored(
    folder: Path, spec: dict[str, Any], answers: Sequence[str], truths: Sequence[str | None]
) -> list[float | None]:
    with opened(folder, spec) as reward:
        return ask(reward, answers, truths)


@pytest.mark.parametrize(
    ("answer", "where", "found"),
    [
        (" 7 \n", "whole", "7"),
        ("thinking\n\n 7 \n\n", "last_line", "7"),
        ("", "last_line", None),
        ("so #### 6 #### 7\nbye", "after", "7"),
        ("so 7", "after", None),
        ("<answer>6</answer> or <ANSWER>\n7</ANSWER>", "tags", "7"),
        ("<answer>7", "tags", None),
        (r"\boxed{1} then \boxed{\frac{1}{2}} done", "boxed", r"\frac{1}{2}"),
        (r"\boxed{7", "boxed", None),
    ],
)
def test_the_result_is_looked_for_where_it_is_said_to_stand(answer: str, where: Where, found: str | None) -> None:
    assert find_result(answer, where) == found


def test_an_answer_that_is_the_target_is_worth_one(tmp_path: Path) -> None:
    answers, truths = ["Paris.", "  PARIS ", "London", "the city of Paris", "x"], ["Paris"] * 4 + [None]
    assert scored(tmp_path, {"kind": "exact"}, answers, truths) == [1, 1, 0, 0, None]
    assert scored(tmp_path, {"kind": "exact", "normalise": False}, answers, truths) == [0, 0, 0, 0, None]
    assert scored(tmp_path, {"kind": "exact", "where": "tags"}, ["<answer>a</answer>", "a"], ["A", "A"]) == [1, 0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it is 1,200.5 then", 1200.5), ("-3/4", -0.75), ("−2", -2), ("12 %", 12), ("1e-3", 0.001), (".5", 0.5),
        ("5.", 5), ("1,2", 2), ("none", None), ("1/0", None), ("9" * 500, None), ("3 and 4", 4), ("x=-7.", -7),
        ("1e999", None), ("٣", 3), ("10-20", 20), ("2024-05-06", 6), ("50%-60 %", 60), ("(2)-3", 3), ("x = -4", -4),
        ("7 - 3", 3), ("5 (-3)", -3),
    ],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(text: str, number: float | None) -> None:
    found = last_number(text)
    assert (None if found is None else found.value) == number


def test_a_number_within_the_tolerance_is_worth_one(tmp_path: Path) -> None:
    spec = {"kind": "numeric", "tolerance": 0.01}
    assert scored(tmp_path, spec, ["It is 3.141", "3.2", "pi", "3"], ["3.14"] * 3 + [None]) == [1, 0, 0, None]
    percents = ["12%", "12 %", "0.12", "12", "1 %", "100"], ["12", "0.12", "12 %", "12 %", "100 %", "1 %"]
    assert scored(tmp_path, {"kind": "numeric"}, *percents) == [1, 1, 1, 1, 0, 0]
    assert scored(tmp_path, {"kind": "numeric", "relative": 0.1}, ["109", "111"], ["100", "100"]) == [1, 0]


def test_each_kind_has_a_spec_and_is_opened() -> None:
    assert list(REWARD_SPECS) == list(REWARD_KINDS)
    assert all(spec.__doc__ for spec in REWARD_SPECS.values())


def test_rewards_of_one_kind_have_names_of_their_own() -> None:
    assert reward_names(read({"kind": "exact"}, {"kind": "numeric"}, {"kind": "exact"})) == [
        "exact-1",
        "numeric",
        "exact-2",
    ]
    assert reward_names(read({"kind": "exact", "name": "right"})) == ["right"]


class Says:
    """A kind of reward that says what it is given."""

    def __init__(self, *calls: list[RewardValue]) -> None:
        self.calls = list(calls)

    def score(self, asked: Sequence[RewardRequest]) -> list[RewardValue]:
        return self.calls.pop(0)

    def close(self) -> None: ...


def test_what_cannot_be_had_is_none_and_counted_and_no_number_is_ever_nan() -> None:
    reward = WatchedReward("mine", Says([1.0, math.nan, math.inf, None, MissingValue("raised", "why")]))
    assert ask(reward, ["a"] * 5) == [1.0, None, None, None, None]
    assert reward.failures.report() == {
        "asked": 5, "failures": {"nan": 2, "raised": 1},
        "untrusted": {"first": {"nan": "it returned nan", "raised": "why"}},
    }  # fmt: skip


def test_a_reward_that_says_nothing_any_more_stops_the_run() -> None:
    bad: list[RewardValue] = [MissingValue("raised", "ZeroDivisionError"), None]
    reward = WatchedReward("mine", Says(bad, [None, None], [1.0, bad[0]], bad, bad))
    for _ in range(4):
        ask(reward, ["a"] * 2)
    with pytest.raises(SpeciateError, match=r"'mine' says nothing.*ZeroDivisionError") as stopped:
        ask(reward, ["a"] * 2)
    assert stopped.value.code is Code.INVALID


def test_what_stops_a_run_is_told_by_its_cause_not_by_what_followed_from_it() -> None:
    slow, left = (
        MissingValue("too_slow", "it took longer than its 'seconds', 5"),
        MissingValue("given_up", "8 answers before it"),
    )
    said = watched.failure_counts([left, slow, slow, left], 4)
    assert said == "too_slow: it took longer than its 'seconds', 5, for 2 of 4 answers; given_up for 2."
    assert "a larger 'seconds'" in watched.advice([left, slow])
    assert (
        watched.failure_counts([MissingValue("nan", "it returned nan")] * 3, 4)
        == "nan: it returned nan, for 3 of 4 answers."
    )


@pytest.mark.parametrize(
    ("raised", "hinted"),
    [
        ("PermissionError: [Errno 13] Permission denied", True),
        ("gaierror: [Errno -3] Temporary failure in name resolution", True),
        ("ZeroDivisionError: division by zero", False),
    ],
)
def test_what_the_cage_forbids_is_told_where_it_may_be_why(raised: str, hinted: bool) -> None:
    assert ("no network" in watched.advice([MissingValue("raised", raised)])) is hinted
