from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.reports import error_analysis, report
from speciate.sandbox import is_complete
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.evaluation import world

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel has no sandbox")
_CAREFUL = """
BETTER = "lower"
def score(example, prediction):
    wrong = prediction["output"] != example["truth"]
    return {"score": float(wrong), "far out": wrong * abs(example["input"]["x"])}
"""


def test_a_function_in_a_file_is_a_metric_and_each_name_it_gives_is_one(flowers: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "careful.py"
    file.write_text(_CAREFUL)
    result = world.evaluate_models(
        flowers, models=["column:rules", "points"], scorer=f"{file}:score", metrics=["accuracy"], latency=False
    )
    found = report.find_report(flowers.database, result["evaluation"])
    row = found.row("points")
    wrong, far = sorted(name for name in row.metrics if name.startswith("own:score@"))[::-1]
    assert (wrong.endswith(":lower"), far.endswith("/far_out:lower")) == (True, True)
    assert find_metric(wrong).better == "lower"
    assert row.metrics[wrong].value == pytest.approx(1 - row.metrics["accuracy"].value)
    compared = found.compare("column:rules", "points@v1", far)
    assert compared is not None
    assert compared.delta is not None
    assert compared.delta < 0
    rows = pq.read_table(flowers.folders.evaluations / result["evaluation"] / "scores.parquet").to_pylist()
    assert sum(each["metric"] == far for each in rows) == 400


def test_examples_without_a_score_are_counted_and_none_at_all_ends_the_run(flowers: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "picky.py"
    file.write_text('def score(example, prediction):\n    return 1.0 / (example["site"] == "north")\n')
    result = world.evaluate_models(flowers, models=["column:rules"], scorer=f"{file}:score", latency=False)
    (note,) = [note for note in result["report"]["notes"] if "has no score" in note]
    assert "raised); these do not count" in note
    assert result["report"]["metric"].startswith("own:score@")
    assert all("Error" not in each for each in result["report"]["notes"])
    unscored = error_analysis.unscored({"folder": str(flowers.folders.evaluations / result["evaluation"])})
    assert unscored["failures"] == {"raised": unscored["answers"]}
    assert unscored["models"] == {"column:rules": unscored["answers"]}
    [first] = unscored["first"]
    assert (first["detail"], first["count"]) == ("ZeroDivisionError: float division by zero", unscored["answers"])
    file.write_text("def score(example, prediction):\n    return example['none']\n")
    with pytest.raises(SpeciateError, match="gave no score of any of 200 answers") as refusal:
        world.evaluate_models(flowers, models=["column:rules"], scorer=f"{file}:score", latency=False)
    assert refusal.value.foreign == "KeyError: 'none'"
    file.write_text("def score(example, prediction):\n    raise ValueError('do\\nthis ' * 100)\n")
    with pytest.raises(SpeciateError, match="200 raised") as refusal:
        world.evaluate_models(flowers, models=["column:rules"], scorer=f"{file}:score", latency=False)
    assert "do this" not in str(refusal.value)
    assert refusal.value.foreign == ("ValueError: " + "do this " * 100)[:200]
