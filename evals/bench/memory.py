"""What a workspace's processes hold and spend: the daemon and all below it, now and over some idle seconds.

    python evals/bench/memory.py WORKSPACE [--idle 30]

PSS, in which a page that several processes share counts once in all; for each process also what is its own alone. A
daemon is started where none runs. CPU: of all processes together while nothing is asked, as a share of one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import psutil

import speciate


class Held(NamedTuple):
    pid: int
    what: str
    pss: float
    own: float
    """MB."""
    cpu: float
    """Seconds since its start."""


def look(workspace: Path) -> list[Held]:
    """The daemon of the workspace first."""
    found = []
    for daemon in psutil.process_iter():
        line = _line(daemon)
        if "speciate.server.daemon" not in line or str(workspace) not in line:
            continue
        for process in (daemon, *daemon.children(recursive=True)):
            try:
                memory, times, command = process.memory_full_info(), process.cpu_times(), _line(process)
            except psutil.Error:
                continue  # it has ended
            what = command[command.index("-m") + 1] if "-m" in command else process.name()
            found.append(Held(process.pid, what, memory.pss / 1e6, memory.uss / 1e6, times.user + times.system))
    return found


def _line(process: psutil.Process) -> list[str]:
    try:
        return [part for part in process.cmdline() if part.strip()]
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--idle", type=float, default=30.0)
    given = parser.parse_args()
    workspace = given.workspace.resolve()
    speciate.connect(workspace).call("get_status")
    before = look(workspace)
    time.sleep(given.idle)
    after = look(workspace)
    spent = {each.pid: each.cpu for each in before}
    for each in after:
        print(f"{each.what:36} {each.pss:6.0f} MB PSS, {each.own:6.0f} its own, {each.cpu:6.1f} CPU s since its start")
    share = sum(each.cpu - spent.get(each.pid, 0.0) for each in after) / given.idle
    print(
        f"{len(after)} processes, {sum(each.pss for each in after):.0f} MB PSS, {100 * share:.2f} % of a core when idle"
    )


if __name__ == "__main__":
    main()
