"""The shipped table of pace: what one small training of each method costs on a known processor.

Writes src/speciate/training/planning/pace.json, from which a first run is estimated, where no like run is recorded yet
(planning/estimates.py). Each line is a real training of a row of docs/training.md on its small data, with few epochs;
beside it stands how long this processor takes to sort the same numbers, so that another one is compared.

    PYTHONPATH=. python evals/bench/pace.py [--only MODALITY ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from speciate.training.planning.estimates import PACE, reference_seconds
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Workspace
from tests.data import run_job
from tests.training.problems import BASES, PROBLEMS
from tests.training.test_table import NONE, ROWS, Row

_EPOCHS = 2


def measure(row: Row, folder: Path) -> dict[str, Any]:
    workspace = Workspace(folder / "workspace")
    try:
        problem = PROBLEMS[row.tried_on]
        problem.make(workspace, folder / "data", "data")
        settings: dict[str, Any] = dict(problem.terms)
        if row.method in ("lora", "full"):
            settings |= {"learning_rate": [1e-3], "num_train_epochs": _EPOCHS}
        report = run_job(
            workspace, "train", name="model", dataset="data", method=row.method, task=row.task,
            hyperparameters=settings, base_model=None if row.base_model == NONE else row.base_model,
            target=None if row.label == NONE else row.label,
        )["report"]  # fmt: skip
    finally:
        workspace.close()
    kept = ("method", "base_model", "modality", "examples", "cost")
    return {name: report[name] for name in kept} | {"cost": undisturbed(report["cost"])}


def undisturbed(cost: dict[str, Any]) -> dict[str, Any]:
    """As on a machine that does nothing else: by the clock no longer than the processor worked."""
    stages = {name: [min(seconds, cpu), cpu] for name, (seconds, cpu) in cost["stages"].items()}
    return {**cost, "stages": stages, "seconds": min(cost["seconds"], cost["cpu_seconds"])}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="*", default=[], metavar="MODALITY")
    options = asked.parse_args()
    known = json.loads(PACE.read_text()) if PACE.exists() else {"runs": []}
    runs = {(one["method"], one["base_model"], one["modality"]): one for one in known["runs"]}
    for row in ROWS:
        base = None if row.base_model == NONE else row.base_model
        key = (row.method, base, row.modality)
        suits = find_task(row.task).family == "classification" and row.base_model not in BASES
        if not suits or key in runs or (options.only and row.modality not in options.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            runs[key] = measure(row, Path(folder))
        print(key, runs[key]["cost"]["seconds"], runs[key]["cost"]["cpu_seconds"], flush=True)
        document = {"reference_seconds": reference_seconds(), "runs": list(runs.values())}
        PACE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
