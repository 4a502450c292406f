"""Users' own scorers: real files in real cages, and whatever such code may do."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation.scorers import sandboxed_scorers
from speciate.evaluation.scorers.sandboxed_scorers import (
    ScorerError,
    ScoreResult,
    count_failures,
    describe_scorer,
    score_by_user,
)
from speciate.sandbox import is_complete

caged = pytest.mark.skipif(not is_complete(), reason="this kernel has no sandbox")


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.py"
    file.write_text(dedent(text))
    return file


def scored(folder: Path, text: str, outputs: list[Any], seconds: float = 20.0) -> list[ScoreResult]:
    rows = [
        {"example": {"truth": "abc", "number": i}, "prediction": {"output": each}} for i, each in enumerate(outputs)
    ]
    return score_by_user(folder / "run", written(folder, text), "score", rows, seconds=seconds)


def test_a_file_says_what_it_is_without_being_run(tmp_path: Path) -> None:
    file = written(tmp_path, 'BETTER = "lower"\nraise SystemExit\ndef score(example, prediction): ...\n')
    found = describe_scorer(file, "score")
    assert found.better == "lower"
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.signature == f"own:score@{found.sha256[:8]}"
    assert describe_scorer(written(tmp_path, "def score(e, p): ...\n"), "score").better == "higher"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("def scores(e, p): ...", Code.NOT_FOUND, "did you mean 'scores'"),
        ("def score(:", Code.INVALID, "no Python"),
        ('BETTER = "up"\ndef score(e, p): ...', Code.INVALID, "'higher' or 'lower'"),
        (None, Code.NOT_FOUND, "cannot be read"),
    ],
)
def test_what_cannot_be_a_scorer_is_refused_before_it_is_run(
    tmp_path: Path, text: str | None, code: Code, said: str
) -> None:
    file = written(tmp_path, text) if text else tmp_path / "absent.py"
    with pytest.raises(SpeciateError, match=said) as refusal:
        describe_scorer(file, "score")
    assert refusal.value.code is code
    assert refusal.value.recovery


@caged
def test_each_example_is_scored_by_the_function(tmp_path: Path) -> None:
    text = """
        import numpy as np
        def score(example, prediction):
            print("not an answer")
            right = prediction["output"] == example["truth"]
            return {"right": np.float64(right), "length": len(prediction["output"])} if right else 0.25
    """
    assert scored(tmp_path, text, ["abc", "x"]) == [{"right": 1.0, "length": 3.0}, {"score": 0.25}]
    assert not any((tmp_path / "run").iterdir())


@caged
def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    (text,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def score" in each]
    assert scored(tmp_path, text, ["abcd", "x"]) == [{"score": 1.0}, {"score": 0.0}]


@caged
def test_errors_and_what_is_no_number_are_named_and_counted(tmp_path: Path) -> None:
    text = """
        def score(example, prediction):
            return eval(prediction["output"])
    """
    given = [
        "1",
        "1 / 0",
        "float('nan')",
        "'text'",
        "None",
        "{}",
        "{'a': float('inf')}",
        "True",
        "__import__('os')._exit(3)",
    ]
    got = scored(tmp_path, text, given)
    assert [each.failure if isinstance(each, ScorerError) else each for each in got] == [
        {"score": 1.0}, "raised", "nan", "not_a_number", "not_a_number", "not_a_number", "nan", {"score": 1.0}, "ended",
    ]  # fmt: skip
    assert count_failures(got) == {"raised": 1, "not_a_number": 3, "nan": 2, "ended": 1}
    assert isinstance(got[1], ScorerError)
    assert "ZeroDivisionError" in got[1].detail


@caged
def test_one_endless_example_costs_only_itself_and_many_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxed_scorers, "_MOST_ENDS", 2)
    text = """
        def score(example, prediction):
            while prediction["output"] == "endless":
                pass
            return 1.0
    """
    got = scored(tmp_path, text, ["a", "endless", "b", "endless", "c"], seconds=0.5)
    assert [each.failure if isinstance(each, ScorerError) else each for each in got] == [
        {"score": 1.0}, "too_slow", {"score": 1.0}, "too_slow", "given_up",
    ]  # fmt: skip


@caged
@pytest.mark.parametrize(
    "attempt",
    [
        "open({secret!r}).read()",
        "open({secret!r}, 'w')",
        "__import__('socket').create_connection(('127.0.0.1', {port}), 1)",
        "__import__('subprocess').run(['/bin/true'])",
    ],
)
def test_it_reaches_nothing_outside_its_sandbox(tmp_path: Path, attempt: str) -> None:
    import socket

    secret = tmp_path / "secret"
    secret.write_text("truths")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = attempt.format(secret=str(secret), port=server.getsockname()[1])
        (got,) = scored(tmp_path, f"def score(e, p):\n    {code}\n    return 1.0\n", ["x"])
    assert isinstance(got, ScorerError)
    assert secret.read_text() == "truths"


@caged
def test_a_file_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match="NameError: name 'nothing'"):
        scored(tmp_path, "nothing\ndef score(e, p): ...\n", ["x"])


def test_a_file_that_has_changed_is_another_metric(tmp_path: Path) -> None:
    file = written(tmp_path, "def score(e, p): return 1\n")
    agreed = describe_scorer(file, "score").sha256
    file.write_text("def score(e, p): return 2\n")
    with pytest.raises(SpeciateError, match="has changed") as refusal:
        score_by_user(tmp_path, file, "score", [], sha256=agreed)
    assert refusal.value.code is Code.CONFLICT
