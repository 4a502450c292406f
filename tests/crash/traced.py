"""A run that would notice a second one of its job alive at the same time."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.workspace.workspace import Workspace


class Traced(BaseModel):
    seconds: float
    trace: str
    preload: str = ""


def plan(spec: Traced, workspace: Workspace) -> Plan:
    return Plan(payload=spec.model_dump(), preload=spec.preload or None)


def run(run: Run) -> dict[str, Any]:
    """Holds a lock per job while it lives: a second life at the same time finds it taken and says so."""
    spec = Traced.model_validate(run.payload)
    trace = Path(spec.trace)
    life = os.open(trace / f"{run.job}.life", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(life, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (trace / f"{run.folder.run_id}.overlap").touch()
    with (trace / f"{run.folder.run_id}.began").open("a") as file:
        file.write(f"{os.getpid()}\n")
    steps = max(1, int(spec.seconds / 0.02))
    for step in range(steps):
        time.sleep(spec.seconds / steps)
        run.progress(step + 1, steps, "steps")
    return {"job": run.job}


KIND = Kind(name="traced", spec=Traced, plan=plan, run=f"{Path(__file__).resolve()}:run")
