"""Rewards that work in a sandbox: our rules about foreign text, users' functions, programs and reasoning-gym."""

from __future__ import annotations

import hashlib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic import ValidationError

from speciate.datasets.sources.reasoning_gym import encode_entry as entry_of
from speciate.errors import Code, SpeciateError
from speciate.evaluation.scorers import sandboxed_scorers
from speciate.sandbox import is_complete
from speciate.training.rewards import sandboxed_rewards
from speciate.training.rewards.reward import MissingValue, Reward
from speciate.training.rewards.reward_spec import PythonReward
from speciate.training.rewards.reward_table import bind_rewards, reward_columns
from speciate.training.rewards.sandboxed_rewards import check_values
from speciate.workspace.workspace import Workspace
from tests.training.rewards.opened import ask, opened, read

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel has no sandbox")


def written(folder: Path, text: str) -> str:
    file = folder / "mine.py"
    file.write_text(dedent(text))
    return f"{file}:reward"


def counted(reward: Reward) -> dict[str, int]:
    found: dict[str, int] = reward.failures.report()["failures"]
    return found


def test_a_pattern_tells_the_form_and_one_without_end_costs_only_itself(tmp_path: Path) -> None:
    with opened(tmp_path, {"kind": "regex", "pattern": r"(a+)+b", "seconds": 0.4}) as reward:
        assert ask(reward, ["aab", "ba", "a" * 60, "ab"]) == [1, 0, None, 1]
        assert counted(reward) == {"too_slow": 1}
        assert ask(reward, ["aab"]) == [1]
    assert not any(tmp_path.iterdir())


def test_json_that_fits_a_schema(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    answers = ['{"a": 1}', '```json\n{"a": 2}\n```', '{"a": "1"}', "no JSON", "NaN", "[" * 100_000]
    with opened(tmp_path, {"kind": "json_schema", "json_schema": schema, "partial": 0.25}) as reward:
        assert ask(reward, answers) == [1, 1, 0.25, 0, 0, None]
        assert counted(reward) == {"raised": 1}
    with opened(tmp_path, {"kind": "json_schema", "equal": True, "partial": 0.5}) as reward:
        assert ask(reward, ['{"b": 2, "a": 1}', "true", "1.0"], ['{"a": 1, "b": 2}', "1", "1"]) == [1, 0.5, 1]
        assert ask(reward, ['{"a": [1.0, {}]}', '{"a": [true]}'], ['{"a": [1, {}]}', '{"a": [1]}']) == [1, 0.5]
        assert ask(reward, ["1", "1"], [None, "none"]) == [None, None]


def test_maths_is_worth_what_it_is_equal_to(tmp_path: Path) -> None:
    answers = [r"It is $\frac{1}{2}$", "0.5", r"\boxed{3}", "$x^2+2x+1$", r"junk $\frac{", "__import__('os')._exit(1)"]
    truths = ["1/2", r"\frac{1}{2}", "4", "(x+1)^2", "2", "1"]
    with opened(tmp_path, {"kind": "math"}) as reward:
        assert ask(reward, answers, truths) == [1, 1, 0, 1, 0, 0]
        assert ask(reward, ["2", "2"], ["", None]) == [None, None]


@pytest.mark.slow
def test_maths_without_end_is_missed_alone(tmp_path: Path) -> None:
    with opened(tmp_path, {"kind": "math", "seconds": 12}) as reward:
        assert ask(reward, ["$9^{9^{9^9}}$", "3"], ["3", "3"]) == [None, 1]
        assert counted(reward) == {"too_slow": 1}


def test_a_task_of_reasoning_gym_scores_answers_itself(tmp_path: Path) -> None:
    primes = {"metadata": {"source_dataset": "prime_factorization", "number": 639}, "answer": "3 × 3 × 71"}
    numbers = {"source_dataset": "countdown", "numbers": [73, 85, 1, 42, 14, 49], "target": 179}
    countdown = {"metadata": numbers, "answer": "49*(85 - 1)/14 - 42 - 73"}
    answers = ["71 × 3 × 3", "certainly wrong", "49*(85 - 1)/14 - 42 - 73", "__import__('os').getcwd()", "1"]
    entries = [primes, primes, countdown, countdown, None]
    with opened(tmp_path / "run", {"kind": "gym"}) as reward:
        found = ask(reward, answers, columns=[{"entry": entry_of(each)} if each else {} for each in entries])
        assert found[:3] == [1, 0, 1]
        assert found[3] is not None
        assert found[3] < 0.1
        assert found[4] is None
        assert counted(reward) == {"no_column": 1}


def test_programs_are_run_against_the_tests_of_their_example(tmp_path: Path) -> None:
    tests = {"checks": "assert add(1, 2) == 3"}
    answers = ["```python\ndef add(a, b): return a + b\n```", "def add(a, b): return 3", "def add(a, b): return 4", "x"]
    with opened(tmp_path, {"kind": "code", "column": "checks"}) as reward:
        assert ask(reward, answers, columns=[tests, tests, tests, {"checks": ["x"]}]) == [1, 1, 0, None]
        assert counted(reward) == {"no_column": 1}


def test_programs_that_are_the_same_are_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def score_all(folder: Path, rows: list[dict[str, Any]], **named: Any) -> list[dict[str, float]]:
        ran.append(rows[0]["prediction"]["output"])
        return [{sandboxed_scorers.CODE_PASSES: float(ran[-1] == "x = 1")}]

    monkeypatch.setattr(sandboxed_scorers, "score_programs", score_all)
    answers, tests = ["x = 1", "x = 2", "x = 1", "x = 1"], [{"tests": each} for each in ("a", "a", "a", "b")]
    with opened(tmp_path, {"kind": "code"}) as reward:
        assert ask(reward, answers, columns=tests) == [1, 0, 1, 1]
    assert sorted(ran) == ["x = 1", "x = 1", "x = 2"]


def test_a_function_of_a_file_is_called_with_a_batch_and_kept_over_the_run(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        import numpy as np
        calls = 0
        def reward(questions, answers, truths, columns):
            global calls
            calls += 1
            print("not an answer")
            assert questions[0] == [{"role": "user", "content": "How many?"}]
            known = [calls if a == "calls" else None if t is None else float(a == t) for a, t in zip(answers, truths)]
            return known if None in known else np.array(known) + columns[0]["more"]
        """,
    )
    with opened(tmp_path / "run", {"kind": "python", "file": file}) as reward:
        assert ask(reward, ["a", "b", "c"], ["a", "x", None]) == [1, 0, None]
        assert ask(reward, ["a", "calls"], ["a", "a"], [{"more": 0.5}] * 2) == [1.5, 2.5]
        assert counted(reward) == {}


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("[float('nan')] * len(answers)", "nan"),
        pytest.param("[float('inf')] * len(answers)", "nan", marks=pytest.mark.slow),
        ("[10 ** 400] * len(answers)", "not_a_number"),
        pytest.param("['1'] * len(answers)", "not_a_number", marks=pytest.mark.slow),
        ("1.0", "not_a_number"),
        pytest.param("None", "not_a_number", marks=pytest.mark.slow),
        ("[1.0]", "wrong_number"),
        pytest.param("[1.0] * 9", "wrong_number", marks=pytest.mark.slow),
        ("[1 / 0]", "raised"),
        pytest.param("object()", "raised", marks=pytest.mark.slow),
        ("__import__('os')._exit(0)", "ended"),
        pytest.param("__import__('sys').exit(0)", "ended", marks=pytest.mark.slow),
    ],
)
def test_what_a_function_says_wrong_is_named_counted_and_stops_the_run(tmp_path: Path, said: str, failure: str) -> None:
    file = written(tmp_path, f"def reward(questions, answers, truths, columns):\n    return {said}\n")
    with opened(tmp_path / "run", {"kind": "python", "file": file}) as reward:
        if "wrong" in failure or failure == "ended" or said in ("1.0", "None"):  # of one answer alone some are right
            assert ask(reward, ["a", "b"]) == [None, None]
        else:
            assert ask(reward, ["a"]) == [None]
        assert set(counted(reward)) == {failure}
        with pytest.raises(SpeciateError, match=rf"'python' says nothing of any answer.*{failure}") as stopped:
            ask(reward, ["a", "b"])
    assert stopped.value.code is Code.INVALID
    assert stopped.value.recovery
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("line", "seconds", "said", "recovery"),
    [
        ("while True: pass", 0.3, r"longer than its 'seconds', 0\.3, for 1 of 1 answers", "a larger 'seconds'"),
        (
            "__import__('socket').create_connection(('127.0.0.1', 9))",
            30,
            "raised: ",
            "sandbox has no network and no files",
        ),
    ],
)
def test_why_a_function_stops_the_run_says_what_can_be_done(
    tmp_path: Path, line: str, seconds: float, said: str, recovery: str
) -> None:
    file = written(tmp_path, f"def reward(questions, answers, truths, columns):\n    {line}\n")
    with opened(tmp_path / "run", {"kind": "python", "file": file, "seconds": seconds}) as reward:
        ask(reward, ["a"])
        with pytest.raises(SpeciateError, match=said) as stopped:
            ask(reward, ["a"])
    assert recovery in (stopped.value.recovery or "")


def test_one_bad_answer_costs_only_itself_and_several_end_the_call(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        import os
        def reward(questions, answers, truths, columns):
            while "endless" in answers:
                pass
            if "leaves" in answers:
                os._exit(0)
            return [1.0] * len(answers)
        """,
    )
    with opened(tmp_path / "run", {"kind": "python", "file": file, "seconds": 0.3}) as reward:
        assert ask(reward, ["a", "endless", "leaves", "b"]) == [1, None, None, 1]
        assert counted(reward) == {"too_slow": 1, "ended": 1}
        assert ask(reward, ["a"] + ["leaves"] * 5 + ["b"]) == [1] + [None] * 6
        assert counted(reward) == {"too_slow": 1, "ended": 1 + sandboxed_rewards._MOST_LOST, "given_up": 3}


def test_a_file_is_bound_to_its_bytes(tmp_path: Path) -> None:
    file = written(tmp_path, "def reward(q, a, t, c): return [1.0] * len(a)\n")
    spec = sandboxed_rewards.bind_python_reward(PythonReward(file=file))
    assert spec.sha256 == hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    with opened(tmp_path / "run", spec.model_dump()) as reward:
        assert ask(reward, ["a"]) == [1]
    (tmp_path / "mine.py").write_text("def reward(q, a, t, c): return [9.0] * len(a)\n")
    with (
        pytest.raises(SpeciateError, match="has changed since the training") as refused,
        opened(tmp_path / "run", spec.model_dump()),
    ):
        pass
    assert refused.value.code is Code.CONFLICT
    with pytest.raises(SpeciateError, match="other bytes") as refused:
        sandboxed_rewards.bind_python_reward(spec)
    assert refused.value.code is Code.CONFLICT


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("def rewards(q, a, t, c): ...", Code.NOT_FOUND, "did you mean 'rewards'"),
        ("def reward(:", Code.INVALID, "no Python"),
    ],
)
def test_what_cannot_be_a_reward_is_refused_before_it_is_run(tmp_path: Path, text: str, code: Code, said: str) -> None:
    with pytest.raises(SpeciateError, match=said) as refused:
        sandboxed_rewards.bind_python_reward(PythonReward(file=written(tmp_path, text)))
    assert refused.value.code is code


def test_a_file_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    file = written(tmp_path, "nothing\ndef reward(q, a, t, c): ...\n")
    with (
        opened(tmp_path / "run", {"kind": "python", "file": file}) as reward,
        pytest.raises(SpeciateError, match=r"The reward mine\.py cannot be loaded: NameError"),
    ):
        ask(reward, ["a"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "python", "file": "nowhere.py:reward"}, "cannot be read"),
        ({"kind": "python", "file": "reward"}, "names no function"),
        ({"kind": "regex", "pattern": "("}, "no regular expression"),
        ({"kind": "json_schema", "json_schema": {"type": "nothing"}}, "no JSON schema"),
        ({"kind": "model", "model": "nobody"}, "nobody"),
    ],
)
def test_what_a_run_would_fail_on_is_refused_by_the_plan(
    workspace: Workspace, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpeciateError, match=said) as refused:
        bind_rewards(read(given), workspace)
    assert refused.value.recovery


def test_columns_that_rewards_read_are_known() -> None:
    assert reward_columns(read({"kind": "gym"}, {"kind": "code"}, {"kind": "exact"})) == {
        "entry": "gym",
        "tests": "code",
    }


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="exact"):
        read({"kind": "exactly"})


def test_values_are_checked_one_by_one() -> None:
    assert check_values([1, None, True, "x"], 4) == [1.0, None, 1.0, MissingValue("not_a_number", "'x'")]
    assert check_values(0.5, 1) == [0.5]
    assert check_values([{"failure": "nonsense"}], 1)[0] == MissingValue("not_a_number", "{'failure': 'nonsense'}")
