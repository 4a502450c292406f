from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests.evaluation import world

RULE = """
import random
def rule(rows):
    print("a line on stdout is no answer")
    return [{"output": "yes" if row["x"] + row["y"] > 0 else "no", "confidence": 0.7} for row in rows]
def picky(rows):
    if any(row["x"] > 1.5 for row in rows):
        raise ValueError("too far to the right")
    return ["yes" for row in rows]
def reaching(rows):
    import socket, urllib.request
    urllib.request.urlopen("http://127.0.0.1:9", timeout=1)
def short(rows):
    return ["yes"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rule.py"
    path.write_text(RULE)
    return path


def test_a_function_in_a_file_is_compared_with_models(flowers: Workspace, file: Path) -> None:
    result = world.evaluate_models(flowers, models=[f"code:{file}:rule", "points"], repeats=2)
    rows = {row["model"].partition("@")[0]: row for row in result["report"]["leaderboard"]}
    row = rows["code:rule.py:rule"]
    assert row["value"] == pytest.approx(0.955)
    assert row["errors"] == 0
    assert row["p95_ms"] is not None
    assert row["usd_per_1k"] is None


def test_what_it_fails_on_is_counted_one_by_one(flowers: Workspace, file: Path) -> None:
    result = world.evaluate_models(flowers, models=[f"code:{file}:picky", "points"], latency=False)
    (row,) = [row for row in result["report"]["leaderboard"] if row["model"].startswith("code:")]
    assert 20 < row["errors"] < 100


def test_of_repeated_answers_those_that_failed_are_told_of_all_that_were_given(flowers: Workspace, file: Path) -> None:
    """Errors are counted by answer; a share of the examples would be twice too large."""
    result = world.evaluate_models(flowers, models=[f"code:{file}:picky", "points"], repeats=2, latency=False)
    (row,) = [row for row in result["report"]["leaderboard"] if row["model"].startswith("code:")]
    (note,) = [note for note in result["report"]["notes"] if "failed on" in note]
    assert f"failed on {row['errors']} of 400 answers to 200 examples" in note


@pytest.mark.parametrize(("function", "errors"), [("reaching", 200), ("absent", 200), ("short", 0)])
def test_a_function_that_gives_no_answers_is_all_errors(
    flowers: Workspace, file: Path, function: str, errors: int
) -> None:
    """`short` answers single inputs alone, so it is asked for one after the other."""
    result = world.evaluate_models(flowers, models=[f"code:{file}:{function}", "points"], latency=False)
    (row,) = [row for row in result["report"]["leaderboard"] if row["model"].startswith("code:")]
    assert row["errors"] == errors


def test_a_file_that_is_not_there_or_names_no_function_is_refused(flowers: Workspace, tmp_path: Path) -> None:
    for ref in (f"code:{tmp_path}/none.py:rule", "code:rule.py"):
        with pytest.raises(SpeciateError, match=r"cannot be read|names no function"):
            world.evaluate_models(flowers, models=[ref, "points"])
