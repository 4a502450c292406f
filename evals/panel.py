"""Whether the quality of what `specialize` trains first has fallen: five small sets, beside the last recorded figures.

Each set is ingested, split, trained on by `classical` and judged on its test split, as a user would have it. Data and
seeds are fixed, so a figure that moves was moved by the code: by the split, the recipe or the metric. A fall of more
than a point (or 3 % of an error) is told, and the exit status is 1.

    PYTHONPATH=. python evals/panel.py [--record WHY] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets

from speciate.settings import Settings
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.data import ingest, run_job

RECORD = Path(__file__).with_name("panel.jsonl")
_POINT, _SHARE = 0.01, 0.03
Rows = list[dict[str, Any]]


class PanelSet(NamedTuple):
    rows: Callable[[], Rows]
    inputs: tuple[str, ...]
    task: str
    modality: str | None = None


class Figure(NamedTuple):
    metric: str
    value: float
    low: float
    high: float
    seconds: float
    """Of the processor, for the training."""
    model: str
    """What was chosen."""


def peptides() -> Rows:
    """Antimicrobial ones and others (modlamp): homologues and near-copies never cross the split."""
    from modlamp.datasets import load_AMPvsUniProt

    data = load_AMPvsUniProt()
    names = {0: "other", 1: "antimicrobial"}
    rows = {text: names[int(target)] for text, target in zip(data.sequences, data.target, strict=True)}
    return [{"sequence": sequence, "label": label} for sequence, label in rows.items()]


def series() -> Rows:
    """MNIST-1D: 40 steps, shifted and noisy."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    pairs = zip(made["x"][:1500], made["y"][:1500], strict=True)
    return [{"x": list(map(float, x)), "label": f"digit {y}"} for x, y in pairs]


def many_categories() -> Rows:
    """Made up: a label that depends on a column of 150 values and on numbers with gaps."""
    generator, levels = np.random.default_rng(0), 150
    effect = generator.normal(0, 1.5, levels)
    rows: Rows = []
    for _ in range(3000):
        level = int(generator.integers(levels))
        numbers = generator.normal(size=4)
        odds = effect[level] + numbers[0] * numbers[1] + np.sin(2 * numbers[2])
        cells = {f"x{place}": None if generator.random() < 0.1 else float(x) for place, x in enumerate(numbers)}
        rows.append({"shop": f"shop {level}", **cells, "label": "yes" if generator.logistic() < odds else "no"})
    return rows


def diabetes() -> Rows:
    found = datasets.load_diabetes(scaled=False)
    return [
        {**dict(zip(found.feature_names, map(float, row), strict=True)), "label": float(target)}
        for row, target in zip(found.data, found.target, strict=True)
    ]


def wine() -> Rows:
    found = datasets.load_wine()
    return [
        {**dict(zip(found.feature_names, map(float, row), strict=True)), "label": f"cultivar {target}"}
        for row, target in zip(found.data, found.target, strict=True)
    ]


SETS = {
    "peptides": PanelSet(peptides, ("sequence",), "protein-classification", "protein"),
    "series": PanelSet(series, ("x",), "time-series-classification", "time-series"),
    "many-categories": PanelSet(many_categories, ("shop", "x0", "x1", "x2", "x3"), "tabular-classification"),
    "diabetes": PanelSet(diabetes, (), "tabular-regression"),
    "wine": PanelSet(wine, (), "tabular-classification"),
}


def measure(each: PanelSet, folder: Path) -> Figure:
    workspace = Workspace(folder, settings=Settings(policy="auto"))
    try:
        given: dict[str, Any] = {"rows": each.rows(), "label": "label", "inputs": each.inputs}
        ingest(workspace, "data", **given, **({"modality": each.modality} if each.modality else {}))
        began = time.process_time()
        trained = run_job(workspace, "train", name="model", dataset="data", method="classical", task=each.task)
        seconds = time.process_time() - began
        report = run_job(workspace, "evaluate", models=[trained["model"]], dataset="data", latency=False)["report"]
    finally:
        workspace.close()
    row = report["leaderboard"][0]
    chosen = next(one["name"] for one in trained["report"]["candidates"] if one["chosen"])
    low, high = row["interval"]
    return Figure(report["metric"], row["value"], low, high, round(seconds, 1), chosen)


def fell(now: Figure, before: Figure) -> bool:
    sign = find_metric(now.metric).sign
    room = _POINT if sign > 0 else _SHARE * abs(before.value)
    return sign * now.value < sign * before.value - room


def last_recorded() -> dict[str, Figure]:
    lines = RECORD.read_text(encoding="utf-8").splitlines() if RECORD.exists() else []
    found: dict[str, Figure] = {}
    for line in lines:
        found |= {name: Figure(**figure) for name, figure in json.loads(line)["figures"].items()}
    return found


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="*", default=list(SETS), choices=list(SETS))
    asked.add_argument("--record", metavar="WHY", help="append these figures to evals/panel.jsonl")
    options = asked.parse_args()
    before, now, fallen = last_recorded(), dict[str, Figure](), []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            now[name] = figure = measure(SETS[name], Path(folder) / "workspace")
        was = before.get(name)
        mark = "" if was is None else f", last {was.value:.4f}{' FELL' if fell(figure, was) else ''}"
        print(
            f"{name}: {figure.metric} {figure.value:.4f} ({figure.low:.3f} to {figure.high:.3f}){mark}, "
            f"{figure.seconds} s of processor, {figure.model}",
            flush=True,
        )
        fallen += [name] if was is not None and fell(figure, was) else []
    if options.record:
        line = {"why": options.record, "figures": {name: figure._asdict() for name, figure in now.items()}}
        with RECORD.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
