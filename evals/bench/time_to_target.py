"""Seconds from registered data to a registered model that meets a target on examples that no arm has seen.

Arms, each a new process with its start and imports, interleaved in an order that turns with the seed:

    speciate            a new MCP client; `specialize` on a running daemon, in a fresh workspace that holds the dataset
    Trainer, defaults   a plain transformers script to the end of its defaults (3 epochs): arms/trainer.py
    Trainer, doubled    the same, begun again with twice the epochs until its validation split meets the target, or
                        until 10 minutes are over; all its runs count
    Trainer, ours       the same script with our learning rate, batch, epochs and early stop, ending at the target
    AutoGluon           TabularPredictor with its defaults, in an environment of its own (--autogluon): arms/gluon.py
    scikit-learn        logistic regression on word counts, residues or pixels: arms/scikit.py

All have the same examples, weights (MiniLM, or the same fresh ViT) and threads. Each arm learns from `train` and
`validation` as it likes, judges itself on `test` and saves its model: until then the clock runs. Then `final`, of which
no arm has seen anything, is judged out of the clock. A seed draws all four anew. The target is an accuracy, set by what
logistic regression alone reached: just above it for text and image, just below it for peptides.

A run that misses counts as endless in the medians to the target. Beside that, `plain`: one training of the ViT with the
same learning rate and epochs, by `train_model(method="full")` and by the script.

    python evals/bench/time_to_target.py [--seeds 5] [--only text image protein] [--cap SECONDS] [--quick]
        [--autogluon AG/bin/python]

`--quick`: one seed, few examples, to try the script. Each run is a line of JSON in --record.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arms.examples import read
from arms.tasks import SPLITS, TASKS, Task, lay

from speciate.environment import cores
from speciate.models import packaged

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CAP, QUICK_CAP = 600.0, 60.0
"""Seconds for a peer's run, and for all runs of a doubled one; ours has as much for its budget."""
THREADS = min(2, cores())
QUICK = (240, 60, 60, 100)
DEFAULT_EPOCHS = 3
OURS = {"batch_size": 32, "num_train_epochs": 30, "early_stopping_patience": 6}
RATES = {"text": 1e-4, "image": 1e-3}
"""`usual_rate` of pkg:minilm and new:vit."""
PLAIN = {"learning_rate": 1e-3, "num_train_epochs": 4, "early_stopping_patience": 6}


class Cell(NamedTuple):
    """One task with one seed."""

    task: Task
    seed: int
    folder: Path
    autogluon: str | None
    epochs: int
    """Of `plain`."""
    cap: float

    def out(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


class Measured(NamedTuple):
    arm: str
    seconds: float
    accuracy: float
    """On `final`; NaN where there is no model."""
    how: str = ""


# Ours


class Ours:
    """A fresh workspace that holds the cell's datasets and use case, its daemon running."""

    def __init__(self, cell: Cell) -> None:
        self._cell, self._home = cell, cell.out("workspace") / "home"
        self._speciate("init", "--policy", "auto")
        suffix = "" if cell.task.kind == "image" else ".csv"
        role = {"label": "folder"} if cell.task.kind == "image" else {"label": "label", "inputs": ["input"]}
        for name in ("registered", "judged"):
            source = str(cell.folder / f"{name}{suffix}")
            self.call("create_dataset", name=name, source=source, modality=cell.task.kind, **role)
        kept = self.call("describe_dataset", dataset="registered")["splits"]
        assert kept == {split: len(read(cell.folder, split).labels) for split in SPLITS[:-1]}, kept
        objective = {"metric": "accuracy", "target": cell.task.target}
        self.call("define_use_case", name="bench", task=f"{cell.task.kind}-classification", objective=objective)

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """From a new client: the job's result, or the tool's own."""
        command = [sys.executable, str(HERE / "arms/ours.py"), str(self._home), tool, json.dumps(arguments)]
        # a daemon reads what lies below the folder that it was started from
        cell = self._cell
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=3 * cell.cap + 300, cwd=cell.folder)
        view: dict[str, Any] = json.loads(done.stdout)
        if "state" in view and "job" in view:
            assert view["state"] == "succeeded", view
            view = view["result"]
        return view

    def timed(self, tool: str, **arguments: Any) -> tuple[dict[str, Any], float]:
        began = time.perf_counter()
        return self.call(tool, **arguments), time.perf_counter() - began

    def accuracy(self, model: str) -> float:
        report = self.call("evaluate_models", models=[model], dataset="judged", latency=False)["report"]
        assert report["n"] == len(read(self._cell.folder, "final").labels), report["n"]
        return float(next(row["value"] for row in report["leaderboard"] if row["model"] == model))

    def __enter__(self) -> Ours:
        return self

    def __exit__(self, *_: object) -> None:
        self._speciate("stop")

    def _speciate(self, *words: str) -> None:
        command = [str(Path(sys.executable).with_name("speciate")), *words, "--workspace", str(self._home)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def specialized(cell: Cell) -> list[Measured]:
    with Ours(cell) as ours:
        result, seconds = ours.timed("specialize", use_case="bench", dataset="registered", budget_minutes=cell.cap / 60)
        model = result["report"]["candidate"]
        accuracy = ours.accuracy(model)
    tried = [f"{each['method']} {each['seconds']:.0f} s" for each in result["candidates"]]
    (chosen,) = [each["method"] for each in result["candidates"] if each["model"] == model] or ["none"]
    tried += [f"{each['step']} failed" for each in result["failed"]]
    how = f"{chosen}, {result['decision']['verdict']}; tried {', '.join(tried)}"
    return [Measured("speciate", seconds, accuracy, how)]


def trained(cell: Cell) -> Measured:
    """One plain training."""
    given = PLAIN | {"learning_rate": [PLAIN["learning_rate"]], "num_train_epochs": cell.epochs}
    with Ours(cell) as ours:
        result, seconds = ours.timed(
            "train_model", name="plain", dataset="registered", method="full", base_model="new:vit",
            hyperparameters=given, seed=cell.seed,
        )  # fmt: skip
        accuracy = ours.accuracy(result["model"])
    return Measured("plain: train_model", seconds, accuracy, f"{result['report']['cost']['steps']} steps")


# Peers


def peer(
    cell: Cell, arm: str, script: str, *more: str, python: str = sys.executable, cap: float | None = None
) -> dict[str, Any]:
    """What the script told, with `measured`; without an accuracy where it failed or its time was over."""
    out, cap = cell.out(Path(script).stem), cap or cell.cap
    command = [python, str(HERE / "arms" / script), str(cell.folder), cell.task.kind, str(out), str(cell.seed), *more]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    with (cell.folder / "log").open("ab") as log:
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=log, timeout=cap, check=True)
        except subprocess.SubprocessError as error:
            seconds = time.perf_counter() - began
            why = f"over after {cap:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else "failed"
            if why == "failed":
                print(f"{arm} failed:\n{(cell.folder / 'log').read_text()[-2000:]}", file=sys.stderr)
            return {"accuracy": {}, "measured": Measured(arm, seconds, math.nan, why)}
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    how = ", ".join(f"{name} {told[name]}" for name in ("epochs", "steps", "best") if name in told)
    return told | {"measured": Measured(arm, seconds - told["uncounted"], told["accuracy"]["final"], how)}


def scikit(cell: Cell) -> list[Measured]:
    return [peer(cell, "scikit-learn", "scikit.py")["measured"]]


def gluon(cell: Cell) -> list[Measured]:
    return [peer(cell, "AutoGluon", "gluon.py", python=cell.autogluon)["measured"]] if cell.autogluon else []


def trainer(cell: Cell) -> list[Measured]:
    """To the end of the defaults, however long that takes; then with ever more epochs."""
    told = peer(cell, "Trainer, defaults", "trainer.py", *_weights(cell), cap=3 * cell.cap)
    first = last = told["measured"]
    spent, epochs = first.seconds, DEFAULT_EPOCHS
    while told["accuracy"].get("validation", 1.0) < cell.task.target and spent < cell.cap:
        epochs *= 2
        more = ("--epochs", str(epochs), *_weights(cell))
        told = peer(cell, "", "trainer.py", *more, cap=cell.cap - spent)
        last = told["measured"]
        spent += last.seconds
    how = f"{last.how}; the last run alone {last.seconds:.0f} s"
    return [first, Measured("Trainer, doubled", spent, last.accuracy, how)]


def tuned_trainer(cell: Cell) -> list[Measured]:
    given = json.dumps(OURS | {"learning_rate": RATES[cell.task.kind], "stop_at": cell.task.target})
    return [peer(cell, "Trainer, ours", "trainer.py", "--ours", given, *_weights(cell))["measured"]]


def plain_script(cell: Cell) -> Measured:
    given = json.dumps(PLAIN | {"batch_size": OURS["batch_size"], "num_train_epochs": cell.epochs})
    measured: Measured = peer(cell, "plain: the script", "trainer.py", "--ours", given, "--bare")["measured"]
    return measured


def _weights(cell: Cell) -> tuple[str, ...]:
    return ("--weights", str(packaged.locate("minilm"))) if cell.task.kind == "text" else ()


ARMS = {
    "text": (specialized, trainer, tuned_trainer, gluon, scikit),
    "image": (specialized, trainer, tuned_trainer, scikit),
    "protein": (specialized, gluon, scikit),
}


def measure(cell: Cell) -> list[Measured]:
    """All arms, in an order that turns with the seed; for pictures the plain pair too."""
    arms = ARMS[cell.task.kind]
    turned = [arms[(place + cell.seed) % len(arms)] for place in range(len(arms))]
    made = [each for arm in turned for each in arm(cell)]
    if cell.task.kind == "image":
        pair = (trained, plain_script) if cell.seed % 2 else (plain_script, trained)
        made += [run(cell) for run in pair]
    return made


# Report


def report(task: Task, seeds: Sequence[Sequence[Measured]]) -> None:
    """Medians over the seeds, and of our seconds over an arm's within each seed."""
    by_seed = [{each.arm: each for each in made} for made in seeds]
    print(f"\n{task.kind}: accuracy {task.target} or more, {len(seeds)} seeds, medians (least to most)")
    print(f"  {'arm':20} {'seconds':>22} {'to target':>10} {'met':>5} {'accuracy':>22} {'ours / it':>10}  last run")
    for arm in sorted(by_seed[0], key=lambda name: (name.startswith("plain"), name != "speciate", name)):
        mine = "plain: train_model" if arm.startswith("plain") else "speciate"
        rows = [made[arm] for made in by_seed]
        plain = arm.startswith("plain")
        to_target = statistics.median(each.seconds if each.accuracy >= task.target else math.inf for each in rows)
        met = sum(each.accuracy >= task.target for each in rows)
        ratio = statistics.median(made[mine].seconds / made[arm].seconds for made in by_seed)
        print(
            f"  {arm:20} {_spread([each.seconds for each in rows], 1):>22} "
            f"{'' if plain else f'{to_target:.1f}':>10} {'' if plain else f'{met}/{len(rows)}':>5} "
            f"{_spread([each.accuracy for each in rows], 3):>22} {ratio:>10.2f}  {rows[-1].how}"
        )


def _spread(values: Sequence[float], digits: int) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    middle, low, high = statistics.median(known), min(known), max(known)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--autogluon", help="the Python of an environment that has autogluon.tabular")
    parser.add_argument("--record", type=Path, default=ROOT / "build/time_to_target.jsonl")
    parser.add_argument("--cap", type=float, default=CAP, help="seconds for a peer's run, and our budget")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {cores()} cores, {THREADS} threads")
    made: dict[str, list[list[Measured]]] = {name: [] for name in asked.only}
    for seed in range(1 if asked.quick else asked.seeds):
        for name in asked.only:
            task = TASKS[name]
            with tempfile.TemporaryDirectory() as folder:
                lay(Path(folder), task, seed, QUICK if asked.quick else task.sizes)
                epochs = 2 if asked.quick else int(PLAIN["num_train_epochs"])
                cap = QUICK_CAP if asked.quick else asked.cap
                made[name].append(measure(Cell(task, seed, Path(folder), asked.autogluon, epochs, cap)))
            with asked.record.open("a") as record:
                for each in made[name][-1]:
                    line = each._asdict() | {"task": name, "seed": seed, "quick": asked.quick}
                    record.write(json.dumps(line | {"load": os.getloadavg()[0]}) + "\n")
    for name, seeds in made.items():
        report(TASKS[name], seeds)


if __name__ == "__main__":
    main()
