"""The end of runs by a signal."""

from __future__ import annotations

import signal
import time

from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED
from speciate.jobs.process_identity import signal_group
from speciate.workspace.workspace import Workspace


def kill_run(workspace: Workspace, engine: Engine, job: str, at: int) -> bool:
    """Kill the supervisor and the worker, a fork of a zygote, once so many answers are there; False where it ends."""
    while (now := engine.get(job)).state not in ENDED:
        progress = engine.folder(now).progress()
        if progress is not None and progress.done >= at:
            run = workspace.folders.runs / now.run_id
            whom = [path.read_text() for name in ("supervisor", "worker") if (path := run / name).exists()]
            if [signal_group(who, signal.SIGKILL) for who in whom] == [True, True]:
                return True
        time.sleep(0.002)
    return False
