"""AutoGluon's tabular predictor with its best preset, in an environment of its own.

    AG/bin/python evals/benchmarks/gluon.py CELL.json

Sequences are given as counts of one and two residues, as its user would have to. Series are not asked of it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from autogluon.tabular import TabularPredictor

METRICS = {"accuracy": "accuracy", "f1_macro": "f1_macro", "mae": "mean_absolute_error"}
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
RUNS = [*RESIDUES, *map("".join, product(RESIDUES, repeat=2))]


def frame(cell: dict[str, Any], rows: list[dict[str, Any]]) -> pd.DataFrame:
    if cell["kind"] == "protein":
        (name,) = cell["inputs"]
        return pd.DataFrame([{run: row[name].count(run) for run in RUNS} for row in rows])
    return pd.DataFrame([{name: row[name] for name in cell["inputs"]} for row in rows])


def main(path: Path) -> None:
    cell = json.loads(path.read_text())
    learn, test = ([r for r in cell["rows"] if (r["split"] == "test") is tested] for tested in (False, True))
    began = time.perf_counter()
    predictor = TabularPredictor(
        label="label", eval_metric=METRICS[cell["metric"]], path=tempfile.mkdtemp(), verbosity=0,
        problem_type="regression" if cell["metric"] == "mae" else None,
    ).fit(
        frame(cell, learn).assign(label=[row["label"] for row in learn]), presets="best_quality",
        time_limit=60 * cell["budget_minutes"], num_cpus=len(os.sched_getaffinity(0)),
    )  # fmt: skip
    answers = predictor.predict(frame(cell, test)).tolist()
    told = {"answers": answers, "seconds": time.perf_counter() - began, "how": predictor.model_best}
    path.with_suffix(".answers.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
