"""The shipped table of pace: what one small training of each method costs on a known processor.

Writes src/speciate/training/planning/pace.json, from which a first run is estimated, where no like run is recorded yet
(planning/estimates.py). Each is a real training of a row of docs/training.md, with few epochs, on its small data and
on a third of them; beside it stands how long this processor takes to sort the same numbers, so that another one is
compared. Each row is a fork of a process that has imported what a training's zygote imports, as runs are.

    PYTHONPATH=. python evals/bench/pace.py [--only MODALITY ...]   the others stay: on the same processor
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from sklearn.datasets import make_classification

from speciate.datasets import versions
from speciate.jobs.zygote import PRELOADS
from speciate.training.planning.estimates import PACE, reference_seconds
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Workspace
from tests.data import run_job
from tests.training import problems
from tests.training.problems import BASES, PROBLEMS
from tests.training.test_table import NONE, ROWS, Row

_EPOCHS, _PARTS = 2, 3
_TEXTS = problems._rows(partial(problems._topics, 1600), "label", "text")
"""A probe's examples in docs/training.md are so few that little of its time is theirs."""


def _measured_rows() -> problems.Rows:
    """Half of them learns. Fewer do not tell growth: below 1,000 what is dealt or judged again decides."""
    values, labels = make_classification(6400, 12, n_informative=6, flip_y=0.1, random_state=0)
    return [
        {f"c{i}": round(float(value), 4) for i, value in enumerate(row)} | {"label": str(label)}
        for row, label in zip(values, labels, strict=True)
    ]


_LARGER = {"text": _TEXTS, "tabular": problems._rows(_measured_rows, "label")}
"""Modality -> data on which its rows are measured in place of the table's."""


def warm() -> None:
    for name in PRELOADS["optimizer"]:
        module, _, function = name.partition(":")
        found = importlib.import_module(module)
        if function:
            getattr(found, function)()


def measure(row: Row, folder: Path) -> list[dict[str, Any]]:
    """On a part of the data and on all: how training grows. What a process does once comes before."""
    workspace = Workspace(folder / "workspace")
    try:
        problem = _LARGER.get(row.modality) or PROBLEMS[row.tried_on]
        problem.make(workspace, folder / "data", "data")
        count = versions.resolve(workspace.database, "data@v1").rows
        sample = {"op": "sample", "n": max(1, count // _PARTS), "strategy": "stratified"}
        run_job(workspace, "curate", dataset="data@v1", steps=[sample])
        settings: dict[str, Any] = dict(problem.terms)
        if row.method in ("lora", "full"):
            settings |= {"learning_rate": [1e-3], "num_train_epochs": _EPOCHS}
        reports = [
            run_job(
                workspace, "train", name="model", dataset=dataset, method=row.method, task=row.task,
                hyperparameters=settings, base_model=None if row.base_model == NONE else row.base_model,
                target=None if row.label == NONE else row.label,
            )["report"]
            for dataset in ("data@v2", "data@v2", "data@v1")
        ]  # fmt: skip
    finally:
        workspace.close()
    kept = ("method", "base_model", "modality", "examples", "cost")
    return [{name: one[name] for name in kept} | {"cost": undisturbed(one["cost"])} for one in reports[1:]]


def undisturbed(cost: dict[str, Any]) -> dict[str, Any]:
    """As on a machine that does nothing else: by the clock no longer than the processor worked."""
    stages = {name: [min(seconds, cpu), cpu] for name, (seconds, cpu) in cost["stages"].items()}
    return {**cost, "stages": stages, "seconds": min(cost["seconds"], cost["cpu_seconds"])}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="*", default=[], metavar="MODALITY")
    options = asked.parse_args()
    known = json.loads(PACE.read_text()) if PACE.exists() else {"runs": []}
    runs = dict[Any, list[dict[str, Any]]]()
    for one in known["runs"]:
        runs.setdefault((one["method"], one["base_model"], one["modality"]), []).append(one)
    done = set[Any]()
    warm()
    for row in ROWS:
        base = None if row.base_model == NONE else row.base_model
        key = (row.method, base, row.modality)
        suits = find_task(row.task).family == "classification" and row.base_model not in BASES
        if not suits or key in done or (options.only and row.modality not in options.only):
            continue
        done.add(key)
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("fork").Pool(1) as fork:
            runs[key] = fork.apply(measure, (row, Path(folder)))
        print(key, *((one["examples"], one["cost"]["cpu_seconds"]) for one in runs[key]), flush=True)
        document = {"reference_seconds": reference_seconds(), "runs": [one for pair in runs.values() for one in pair]}
        PACE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
