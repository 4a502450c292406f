"""Which scorer a caller means."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation.scorers import scorer
from speciate.evaluation.scorers.sandboxed_scorers import ScorerError
from speciate.evaluation.scorers.scorer import find_scorer


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text('BETTER = "lower"\ndef errors(example, prediction): ...\n')
    found = find_scorer(f"{file}:errors")
    assert found.signature.startswith("own:errors@")
    assert found.better == "lower"


@pytest.mark.parametrize("ref", ["mine.py", "nothing", "mine.py:not a name", ":score"])
def test_what_is_no_scorer_is_refused_with_what_would_be(ref: str) -> None:
    with pytest.raises(SpeciateError, match="is no scorer") as refusal:
        find_scorer(ref)
    assert refusal.value.code is Code.INVALID
    assert "package:NAME" in refusal.value.recovery


def test_a_package_brings_scorers_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brought.py").write_text(
        'BETTER = "lower"\ndef gap(example, prediction):\n    return abs(example["truth"] - prediction["output"])\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(scorer, "_points", lambda: {"gap": EntryPoint("gap", "brought:gap", scorer.GROUP)})
    found = find_scorer("package:gap")
    assert found.better == "lower"
    rows = [{"example": {"truth": 3}, "prediction": {"output": 1}}, {"example": {}, "prediction": {}}]
    first, second = found.score_all(tmp_path, rows)
    assert first == {"gap": 2.0}
    assert isinstance(second, ScorerError)
    with pytest.raises(SpeciateError, match="did you mean 'gap'"):
        find_scorer("package:gpa")


def test_programs_are_run_by_name() -> None:
    assert find_scorer("code_passes").signature == "code_passes"
    assert find_scorer("gym_score").signature == "gym_score"
