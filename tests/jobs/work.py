"""Job kinds that the tests of the engine run: real processes that do little."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import Job, Limits
from speciate.jobs.kinds import Child, ChildRequest, Finished, Kind, NextStep, Plan
from speciate.jobs.run import OutOfMemory, Run, Stopped, Transient
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace


class Work(BaseModel):
    seconds: float = 0.0
    ending: str = "ok"
    at_stop: str = ""
    """How it ends when it is asked to stop: '' at its checkpoint, else as `ending`."""
    refuse: bool = False
    trace: str = ""
    """A folder in which each run notes when it lived."""
    preload: str = ""
    value: int = 0


def plan(spec: Work, workspace: Workspace) -> Plan:
    if spec.refuse:
        raise SpeciateError(Code.INVALID, "refused on request", "Do not ask for it.")
    return Plan(payload=spec.model_dump(), preload=spec.preload or None)


def run(run: Run) -> dict[str, Any]:
    """Lives for `seconds`, leaves a step in its checkpoint, goes on from the last one, and ends as asked."""
    spec = Work.model_validate(run.payload)
    note(spec.trace, run, "began")
    steps = max(1, int(spec.seconds / 0.05))
    done = max((int((old.checkpoints / "step").read_text()) for old in run.resume_from if (old.checkpoints / "step").exists()), default=0)  # fmt: skip  # noqa: E501
    try:
        for step in range(done, steps):
            time.sleep(spec.seconds / steps)
            (run.checkpoints / "step.tmp").write_text(str(step + 1))
            (run.checkpoints / "step.tmp").replace(run.checkpoints / "step")
            run.progress(step + 1, steps, "steps")
    except Stopped:
        if not spec.at_stop:
            raise
        spec = spec.model_copy(update={"ending": spec.at_stop})
    note(spec.trace, run, "ended")
    return end(spec, run, done)


def note(trace: str, run: Run, what: str) -> None:
    if trace:
        with (Path(trace) / "lives").open("a") as file:
            file.write(f"{run.folder.run_id} {os.getpid()} {what} {time.monotonic()}\n")


def end(spec: Work, run: Run, resumed_at: int) -> dict[str, Any]:
    match spec.ending:
        case "transient":
            raise Transient("the network was away")
        case "memory" if run.memory_retries < 2:
            raise OutOfMemory("too large")
        case "mistake":
            raise SpeciateError(Code.INVALID, "the label has one value", "Give it two.")
        case "bug":
            raise ZeroDivisionError("a bug")
        case "full":
            raise OSError(errno.ENOSPC, "no space", str(run.folder.path))
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "silent-exit":
            os._exit(3)
    return {"value": spec.value, "resumed_at": resumed_at, "shrinks": run.memory_retries, "pid": os.getpid()}


def act(tx: Transaction, spec: Work, job: Job, settings: Settings) -> dict[str, Any]:
    if spec.refuse:
        raise SpeciateError(Code.INVALID, "refused on request", "Do not ask for it.")
    return {"value": spec.value}


class Chain(BaseModel):
    works: list[dict[str, Any]]


def chain_next(spec: Chain, children: Sequence[Child], now: float) -> NextStep:
    """All works side by side, then an inline sum of their values."""
    by_step = {child.step: child for child in children}
    wanted = [ChildRequest(step=f"work/{i}", kind="work", spec=work) for i, work in enumerate(spec.works)]
    wanted.append(
        ChildRequest(step="sum", kind="inline", spec={"value": 7}, after=tuple(request.step for request in wanted))
    )
    last = by_step.get("sum")
    if last is None or last.state not in {"succeeded", "failed", "dead", "cancelled"}:
        return wanted
    if last.state != "succeeded":
        return Finished(error=f"the sum is {last.state}")
    values = [(child.result or {})["value"] for child in children if child.step.startswith("work/")]
    return Finished(result={"values": values, "sum": (last.result or {})["value"]})


ENTRY = f"{Path(__file__).resolve()}:run"
WORK = Kind(name="work", spec=Work, plan=plan, run=ENTRY, limits=Limits(grace_seconds=2.0))
BRIEF = Kind(name="brief", spec=Work, plan=plan, run=ENTRY, limits=Limits(run_seconds=0.3, grace_seconds=0.5))
INLINE = Kind(name="inline", spec=Work, act=act)
CHAIN = Kind(name="chain", spec=Chain, next=chain_next)
KINDS = [WORK, BRIEF, INLINE, CHAIN]
