"""Quality in the same minutes: `specialize`, AutoGluon, an expert's script and the majority, on data from packages.

    python evals/benchmarks/run.py [--part table|series|protein|text] [--budget 1] [--arms ours ...] [--only NAME ...]
    python evals/benchmarks/report.py

One JSON line in results.jsonl for each data set, arm and budget; what is there already is not run again, so that a
stopped run goes on. `make benchmark PART=table` does both.

All arms have the same rows: they learn from `train` and `validation` as they like, and answer `test`. Ours is asked
over MCP in a new workspace, with its daemon; the clock runs from the call of `specialize` to its end, so its own
evaluation is in it. The others' clock runs from the call of their script's `main`: their imports are not in it.

What is unfair in our favour: data sets are of the sizes that packages carry, few of them above 10,000 rows; two cores,
which AutoGluon's bagging of many models likes less than we do. Against us: a promotion's checks and our evaluation of
latency are in our time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from data_sets import DATA_SETS, DataSet, Examples

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
ENVIRONMENTS = Path(os.environ.get("BENCHMARK_ENVIRONMENTS", Path.home() / ".cache/speciate-benchmark"))
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
"""For every arm: threads that spin while they wait make boosting on few rows very slow on a busy machine."""
_RESAMPLES = 1000
_LATE_SECONDS = 240.0
"""After its budget an arm is stopped; it has then no result."""


class Measured(NamedTuple):
    value: float
    low: float
    high: float
    n: int


class Answer(NamedTuple):
    answers: list[Any]
    """Of the test rows, in their order."""
    seconds: float
    how: str
    measured: Measured | None = None
    """Where the arm's own evaluation of the test rows counts: by the same formulas."""
    steps: dict[str, float] | None = None
    """Of the search: seconds from its call to the end of each step."""


class Cell(NamedTuple):
    data_set: DataSet
    examples: Examples
    budget_minutes: float
    folder: Path

    @property
    def test(self) -> list[dict[str, Any]]:
        return [row for row in self.examples.rows if row["split"] == "test"]


# Arms


def majority(cell: Cell) -> Answer:
    labels = [row["label"] for row in cell.examples.rows if row["split"] != "test"]
    constant: Any = float(np.median(labels)) if cell.data_set.is_regression else Counter(labels).most_common(1)[0][0]
    return Answer([constant] * len(cell.test), 0.0, str(constant))


def expert(cell: Cell) -> Answer:
    own = ENVIRONMENTS / "aeonenv/bin/python"
    series = cell.data_set.kind == "series" and own.exists()
    return _script(cell, str(own) if series else sys.executable, "experts.py")


def autogluon(cell: Cell) -> Answer:
    return _script(cell, str(ENVIRONMENTS / "ag/bin/python"), "gluon.py")


def hive_cote(cell: Cell) -> Answer:
    return _script(cell, str(ENVIRONMENTS / "aeonenv/bin/python"), "hive_cote.py")


def _script(cell: Cell, python: str, name: str) -> Answer:
    path = cell.folder / "cell.json"
    path.write_text(
        json.dumps(
            {
                "kind": cell.data_set.kind, "metric": cell.data_set.metric, "inputs": cell.examples.inputs,
                "rows": cell.examples.rows, "budget_minutes": cell.budget_minutes,
            }
        )
    )  # fmt: skip
    late = 60 * cell.budget_minutes + _LATE_SECONDS
    subprocess.run([python, str(HERE / name), str(path)], check=True, timeout=late, cwd=cell.folder)
    told = json.loads(path.with_suffix(".answers.json").read_text())
    return Answer(told["answers"], told["seconds"], told["how"])


def ours(cell: Cell) -> Answer:
    """Its figures are those of its own evaluation on `test`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    home, source = cell.folder / "workspace", cell.folder / "data.parquet"
    rows = [{**row, "number": float(place)} for place, row in enumerate(cell.examples.rows)]
    pq.write_table(pa.Table.from_pylist(rows), source)
    _speciate(cell, "init", "--policy", "auto")
    try:
        modality = {"table": "tabular", "series": "time-series", "protein": "protein", "text": "text"}
        _call(
            cell, "create_dataset", name="data", source=str(source), modality=modality[cell.data_set.kind],
            label="label", inputs=list(cell.examples.inputs),
        )  # fmt: skip
        objective = {"metric": cell.data_set.metric, "aim": "best"}
        _call(cell, "define_use_case", name="bench", task=cell.data_set.task, objective=objective)
        began = time.perf_counter()
        result = _call(cell, "specialize", use_case="bench", dataset="data", budget_minutes=cell.budget_minutes)
        seconds = time.perf_counter() - began
        steps = _steps(_call(cell, "list_jobs", limit=50)["jobs"])
        model = result.get("model") or result["report"]["candidate"]
        chosen = next(row for row in result["candidates"] if row["model"] == model)
        how = " ".join(str(chosen[key]) for key in ("method", "base_model") if chosen.get(key))
        if chosen["measured_on"] != "test":
            raise RuntimeError(f"{model} was not evaluated on the test split")
        measured = Measured(chosen["value"], *chosen["interval"], len(cell.test))
        return Answer([], seconds, f"{how}; {result['ended']['reason']}", measured, steps)
    finally:
        subprocess.run([*_command("stop"), "--workspace", str(home)], stdout=subprocess.DEVNULL, check=False)


def _steps(jobs: list[dict[str, Any]]) -> dict[str, float]:
    began = next(job["created_at"] for job in jobs if job["kind"] == "specialize")
    ended = {job["step"]: job["created_at"] + job["run_seconds"] - began for job in jobs if job.get("step")}
    return {step: round(seconds, 1) for step, seconds in sorted(ended.items(), key=lambda each: each[1])}


def _command(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("speciate")), *words]


def _speciate(cell: Cell, *words: str) -> None:
    command = [*_command(*words), "--workspace", str(cell.folder / "workspace")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=cell.folder)


def _call(cell: Cell, tool: str, **arguments: Any) -> dict[str, Any]:
    """From a new client: the job's result, or the tool's own."""
    program = HERE.parent / "bench/arms/ours.py"
    command = [sys.executable, str(program), str(cell.folder / "workspace"), tool, json.dumps(arguments)]
    late = 60 * cell.budget_minutes + _LATE_SECONDS
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=late, cwd=cell.folder)
    view: dict[str, Any] = json.loads(done.stdout)
    if "state" in view and "job" in view:
        if view["state"] != "succeeded":
            raise RuntimeError(f"{tool}: {view.get('error') or view['state']}")
        view = view["result"]
    return view


ARMS: dict[str, Callable[[Cell], Answer]] = {
    "majority": majority, "expert": expert, "ours": ours, "autogluon": autogluon, "hive-cote": hive_cote,
}  # fmt: skip


def is_asked(arm: str, data_set: DataSet) -> bool:
    """AutoGluon's tables have no series, and HIVE-COTE classifies series alone."""
    if arm == "hive-cote":
        return data_set.kind == "series" and not data_set.is_regression
    return arm != "autogluon" or data_set.kind != "series"


# Figures


def value_of(metric: str, wanted: Any, given: Any) -> float:
    if metric == "mae":
        return float(np.abs(wanted - given).mean())
    if metric == "accuracy":
        return float((wanted == given).mean())
    scores = []
    for label in np.unique(wanted):
        hits = ((wanted == label) & (given == label)).sum()
        scores.append(2 * hits / ((wanted == label).sum() + (given == label).sum()))
    return float(np.mean(scores))


def interval_of(metric: str, wanted: Any, given: Any) -> tuple[float, float]:
    """95 %, percentiles of a bootstrap over rows."""
    chance, count = np.random.default_rng(0), len(wanted)
    drawn = [value_of(metric, wanted[rows], given[rows]) for rows in chance.integers(count, size=(_RESAMPLES, count))]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def measure(cell: Cell, arm: str) -> dict[str, Any]:
    said = {
        "data_set": cell.data_set.name, "kind": cell.data_set.kind, "arm": arm, "budget_minutes": cell.budget_minutes,
        "metric": cell.data_set.metric,
    }  # fmt: skip
    try:
        answer = ARMS[arm](cell)
    except (subprocess.SubprocessError, RuntimeError, OSError) as error:
        why = f"exit {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else str(error)[-300:]
        return {**said, "value": None, "error": f"{type(error).__name__}: {why}"}
    if answer.measured is not None:
        figures = {**answer.measured._asdict(), "seconds": round(answer.seconds, 1)}
        return {**said, **figures, "how": answer.how, "rows": len(cell.examples.rows), "steps": answer.steps}
    kind = float if cell.data_set.is_regression else str
    wanted, given = (np.array([kind(each) for each in values]) for values in (
        [row["label"] for row in cell.test], answer.answers
    ))  # fmt: skip
    low, high = interval_of(cell.data_set.metric, wanted, given)
    found = value_of(cell.data_set.metric, wanted, given)
    figures = {"value": found, "low": low, "high": high, "n": len(wanted), "seconds": round(answer.seconds, 1)}
    return {**said, **figures, "how": answer.how, "rows": len(cell.examples.rows)}


def done_already() -> set[tuple[str, str, float]]:
    """What has a value: what failed is tried again."""
    lines = map(json.loads, RESULTS.read_text().splitlines() if RESULTS.exists() else [])
    return {(one["data_set"], one["arm"], one["budget_minutes"]) for one in lines if one["value"] is not None}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--part", choices=("table", "series", "protein", "text"))
    asked.add_argument("--budget", type=float, default=1.0, help="minutes")
    asked.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    asked.add_argument("--only", nargs="*", default=[])
    asked.add_argument("--seconds", type=float, default=float("inf"), help="begin no further cell after so many")
    options = asked.parse_args()
    os.environ |= PATIENT
    began, known = time.monotonic(), done_already()
    for data_set in DATA_SETS:
        if options.part not in (None, data_set.kind) or (options.only and data_set.name not in options.only):
            continue
        for arm in options.arms:
            key = (data_set.name, arm, options.budget)
            if key in known or not is_asked(arm, data_set) or time.monotonic() - began > options.seconds:
                continue
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                line = measure(Cell(data_set, data_set.read(), options.budget, Path(folder)), arm)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
