"""From `submit` to the first optimiser step of a small training job, with the zygote and by a plain start.

The run is what a small fine-tune begins with: import torch and transformers, build a small BERT, one step. The plain
start does the same imports in a new interpreter. Rounds are interleaved; the zygote's own start is shown apart.

    python evals/bench/job_start.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from figures import note
from pydantic import BaseModel

from speciate.jobs.engine import Engine
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace


class Step(BaseModel):
    preload: str


def plan(spec: Step, workspace: Workspace) -> Plan:
    return Plan(preload=spec.preload)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preload", default="torch")
    given = parser.parse_args()
    rounds: int = given.rounds
    kind = Kind(
        name="step", spec=Step, plan=plan, run=f"{Path(__file__).resolve().parent / 'arms' / 'first_step.py'}:run"
    )
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace", settings=Settings())
        engine = Engine(workspace, Kinds(extra=[kind]))
        engine.start()

        def seconds(preload: str) -> float:
            began = time.time()
            job = engine.wait(engine.submit("step", {"preload": preload}).id, timeout=120)
            assert job.result, job.reason
            return float(job.result["stepped"]) - began

        first = seconds(given.preload)
        pairs = [(seconds(given.preload), seconds("")) for _ in range(rounds)]
        engine.stop()
        workspace.close()
    warm, plain = zip(*pairs, strict=True)
    found = note("submit to first optimiser step", warm, plain, unit="s", peer="plain start", goal=0.25)
    note("the first such job of a daemon", [first], unit="s")
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {rounds} interleaved rounds, medians")
    print(f"submit to first step: zygote {found.ours:.2f} s, plain start {found.theirs:.2f} s, ratio {found.ratio:.2f}")
    print(f"the first job, which waits for the zygote's own imports: {first:.2f} s")


if __name__ == "__main__":
    main()
