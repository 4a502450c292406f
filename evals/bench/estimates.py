"""How near estimates come: a handful of small trainings, each measured before it runs, predicted beside actual.

Both are jobs of a real engine. CPU seconds are the judge of the time model, as other work on the machine slows the
clock on the wall only. Errors are ratios, the larger over the smaller.

    PYTHONPATH=. python evals/bench/estimates.py [--only NAME ...] [--seconds 170]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.models import packaged
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.data import digit_folder, ingest, peptide_fasta, review_csv, series_ts, tumour_csv

FIGURES = ("cpu_seconds", "peak_memory_mb", "seconds")


class Task(NamedTuple):
    method: str
    base_model: str | None
    source: Callable[[Path], Path]
    ingest: dict[str, Any]


TASKS = {
    "text classical": Task("classical", None, lambda f: review_csv(f / "r.csv", 1500), {"label": "label"}),
    "text probe": Task("probe", "pkg:minilm", lambda f: review_csv(f / "r.csv", 500), {"label": "label"}),
    "tabular full": Task("full", "new:tab-resnet", lambda f: tumour_csv(f / "t.csv", 569), {"label": "diagnosis"}),
    "protein full": Task("full", "new:esm", lambda f: peptide_fasta(f / "p.fasta", 100), {"label": "kind"}),
    "image full": Task("full", "new:vit", lambda f: digit_folder(f / "d", 200), {"label": "folder"}),
    "series full": Task("full", "new:inceptiontime", lambda f: series_ts(f / "s", 48), {"label": "label"}),
}


def ended(engine: Engine, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    job = engine.wait(engine.submit(kind, spec).id, timeout=600)
    assert job.state is State.SUCCEEDED, job.error
    report: dict[str, Any] = (job.result or {})["report"]
    return report


def compare(engine: Engine, name: str, folder: Path) -> dict[str, tuple[float, float]]:
    task = TASKS[name]
    dataset = name.replace(" ", "-")
    ingest(engine.workspace, dataset, source=str(task.source(folder)), **task.ingest)
    way = {key: value for key, value in (("method", task.method), ("base_model", task.base_model)) if value}
    (candidate,) = ended(engine, "measure", {"dataset": dataset, **way})["candidates"]
    predicted = candidate["estimate"]
    cost = ended(engine, "train", {"name": dataset, "dataset": dataset, **way})["cost"]
    share = f"{cost['steps']} of {cost['planned_steps']} steps" if cost["planned_steps"] else ""
    shown = ", ".join(f"{figure} {predicted[figure]:.1f} / {cost[figure]:.1f}" for figure in FIGURES)
    print(f"{name:16s} p95 {predicted['p95_latency_ms']:.1f} ms  {shown}  {share}", flush=True)
    return {figure: (predicted[figure], cost[figure]) for figure in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--seconds", type=float, default=150, help="no further task begins after so long")
    given = parser.parse_args()
    began, rows = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as root:
        workspace = Workspace(Path(root) / "workspace", settings=Settings())
        engine = Engine(workspace)
        engine.start()
        for name in given.only:
            if TASKS[name].base_model == "pkg:minilm" and not packaged.installed("minilm"):
                continue
            if time.monotonic() - began > given.seconds:
                print(f"{name}: left out, the time is over")
                continue
            rows[name] = compare(engine, name, Path(root) / name.replace(" ", "-"))
        engine.stop()
        workspace.close()
    print(f"\n{'task':16s}" + "".join(f"{figure:>28s}" for figure in FIGURES))
    for name, row in rows.items():
        shown = (f"{f'{p:.1f} / {a:.1f} = {p / a:.2f}':>28s}" for p, a in row.values())
        print(f"{name:16s}" + "".join(shown))
    columns = zip(*(row.values() for row in rows.values()), strict=True)
    errors = [statistics.median(max(p / a, a / p) - 1 for p, a in column) for column in columns]
    print(f"{'median error':16s}" + "".join(f"{f'{error:.0%}':>28s}" for error in errors))


if __name__ == "__main__":
    main()
