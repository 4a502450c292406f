"""What a watch's monitoring of a week costs: CPU seconds of one job, by medium and answers.

    python evals/bench/monitor_week.py [--weeks 5] [--many 10000]

Real catalog, log and jobs, which run in this process; the answers are written as a deployment would write them. The
first weeks are quiet, in the last one something else is asked, for which the test draws most permutations. Bound: 60 s
on two cores (docs/loop.md).
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import random
import shutil

import numpy as np

from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.loop.monitored import Production, other_sentence, png, promoted_root, reads_images, sentence


def cpu() -> float:
    """Seconds of this process and of those that it ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def texts(production: Production, number: int, count: int, other: bool) -> None:
    chance = random.Random(number)
    production.ask([{"text": (other_sentence if other else sentence)(chance)} for _ in range(count)])


def images(production: Production, number: int, count: int, other: bool) -> None:
    chance = np.random.default_rng(number)
    level = 0.7 if other else 0.4
    for begin in range(0, count, 500):
        files = [base64.b64encode(png(level, chance)).decode() for _ in range(min(500, count - begin))]
        production.ask([{"data": each} for each in files])


def weeks(root: Path, count: int, each_week: int, ask: Callable[[Production, int, int, bool], None]) -> list[float]:
    """CPU seconds of each week's job."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(root, Path(name) / "workspace"))
        clock = ManualClock()
        workspace = Workspace(folder, clock, Settings(policy="auto"))
        production = Production(workspace, clock)
        if ask is images:
            reads_images(production)
        found = []
        for number in range(count):
            ask(production, number, each_week, number == count - 1)
            before = cpu()
            outcome = production.end_week(number)
            found.append(cpu() - before)
        print(f"    alarms at the end: {[each.name for each in outcome.signals if each.alarm]}", flush=True)
        production.close()
        workspace.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weeks", type=int, default=5)
    parser.add_argument("--many", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = promoted_root(Path(name))
        for medium, ask in (("text", texts), ("image", images)):
            for count in (100, 1000, asked.many):
                found = weeks(root, asked.weeks, count, ask)
                listed = ", ".join(f"{seconds:.2f}" for seconds in found)
                print(f"{medium}, {count} answers a week: {listed} CPU s; the last week is another one", flush=True)


if __name__ == "__main__":
    main()
