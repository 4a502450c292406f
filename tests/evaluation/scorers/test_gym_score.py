"""`gym_score`: answers scored by the tasks of reasoning-gym that asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.sources.reasoning_gym import encode_entry
from speciate.evaluation.scorers.sandboxed_scorers import ScorerError, score_gym
from speciate.sandbox import is_complete

NUMBERS = {"source_dataset": "countdown", "numbers": [73, 85, 1, 42, 14, 49], "target": 179}
ENTRY = encode_entry({"metadata": NUMBERS, "answer": "49*(85 - 1)/14 - 42 - 73"})


@pytest.mark.slow(reason="test_sandboxed_rewards.py: the same scorer as a reward")
@pytest.mark.skipif(not is_complete(), reason="this kernel has no sandbox")
def test_each_right_answer_counts_and_an_example_without_an_entry_is_an_error(tmp_path: Path) -> None:
    answers: list[Any] = [
        "49*(85 - 1)/14 - 42 - 73", "I think <answer>(85 - 1)*49/14 - 73 - 42</answer>", "85 + 1",
        f"__import__('os').mkdir({str(tmp_path / 'made')!r})", None,
    ]  # fmt: skip
    rows = [{"example": {"entry": ENTRY}, "prediction": {"output": each}} for each in answers]
    *found, lacking = score_gym(tmp_path / "run", [*rows, {"example": {}, "prediction": {"output": "1"}}])
    values = [each["gym_score"] for each in found if isinstance(each, dict)]
    assert values[:2] == [1, 1]
    assert max(values[2:]) < 0.1
    assert isinstance(lacking, ScorerError)
    assert not (tmp_path / "made").exists()
    assert not any((tmp_path / "run").iterdir())
