"""What the demo costs: CPU seconds of all its processes by kind, time to model of each use case, and memory at its end.

    python evals/bench/demo_cost.py [--keep]

The workspace is made anew, the data are kept. Processes are looked at once a second; a fork that lived shorter is
counted with the process that forked it, which the kernel tells.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parent.parent.parent
_HOME = _ROOT / "build" / "demo"


class Watcher(threading.Thread):
    """Looks at the demo's client and at the daemon of its workspace with all that they started."""

    def __init__(self, client: int) -> None:
        super().__init__(daemon=True)
        self._client, self._ends = client, threading.Event()
        self.own: dict[int, tuple[str, float]] = {}
        """Process -> what it is, and CPU seconds of its own."""
        self.reaped: dict[int, float] = {}
        """Process -> CPU seconds of children that it has waited for, and of theirs."""
        self.parents: dict[int, int] = {}
        self.most = 0.0
        self.last: list[tuple[str, float]] = []
        """MB of PSS: of all together at most, and of each process when last looked while there was a daemon."""

    def run(self) -> None:
        looks = 0
        while not self._ends.wait(1.0):
            processes = self._processes()
            for each in processes:
                try:
                    times, line = each.cpu_times(), [part for part in each.cmdline() if part.strip()]
                    self.parents[each.pid] = each.ppid()
                except psutil.Error:
                    continue
                self.own[each.pid] = (_kind(line), times.user + times.system)
                self.reaped[each.pid] = times.children_user + times.children_system
            if (looks := looks + 1) % 10 == 0:  # costly: the kernel looks at each page
                held = [(self.own.get(each.pid, ("", 0.0))[0], _pss(each) / 1e6) for each in processes]
                self.most = max(self.most, sum(pss for _, pss in held))
                if any("daemon" in kind for kind, _ in held):  # it is stopped before the client ends
                    self.last = held

    def _processes(self) -> list[psutil.Process]:
        try:
            found = [psutil.Process(self._client), *psutil.Process(self._client).children(recursive=True)]
        except psutil.Error:
            found = []
        for each in psutil.process_iter():
            try:
                line = each.cmdline()
                if "speciate.server.daemon" in line and any(str(_HOME) in part for part in line):
                    found += [each, *each.children(recursive=True)]
            except psutil.Error:
                continue
        return [*{each.pid: each for each in found}.values()]

    def stop(self) -> dict[str, float]:
        """CPU seconds by kind of process; forks that were never seen below their parent's."""
        self._ends.set()
        self.join()
        spent = defaultdict[str, float](float)
        for kind, seconds in self.own.values():
            spent[kind] += seconds
        for pid, seconds in self.reaped.items():
            seen = sum(self.own[child][1] + self.reaped[child] for child, up in self.parents.items() if up == pid)
            spent[f"unseen forks of {self.own[pid][0]}"] += max(0.0, seconds - seen)
        return {kind: seconds for kind, seconds in spent.items() if seconds >= 0.05}


def _pss(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss)
    except psutil.Error:
        return 0.0


def _kind(line: list[str]) -> str:
    if "-m" in line:
        what = line[line.index("-m") + 1 :]
        if what[0] == "speciate.jobs.zygote":
            return f"zygote {what[2]}"
        return " ".join([what[0], *[part for part in what[1:2] if part.startswith("speciate.")]])
    return Path(line[1]).name if len(line) > 1 else "program"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="show an earlier run again, instead of making it anew")
    if not parser.parse_args().keep:
        shutil.rmtree(_HOME / "workspace", ignore_errors=True)
    began = time.perf_counter()
    demo = subprocess.Popen(
        [sys.executable, str(_ROOT / "evals" / "demo" / "run.py")], stdout=subprocess.PIPE, text=True
    )
    watcher = Watcher(demo.pid)
    watcher.start()
    assert demo.stdout is not None
    output = ""
    for line in demo.stdout:
        output += line
        print(f"{time.perf_counter() - began:6.1f}  {line}", end="")
    status = demo.wait()
    spent = watcher.stop()
    print()
    for kind, seconds in sorted(spent.items(), key=lambda each: -each[1]):
        print(f"{seconds:7.1f} CPU s  {kind}")
    table = output.partition("\nLedger\n")[2]
    times = [float(seconds) for seconds in re.findall(r" (\d+\.\d) s \(", table)]
    held = sum(pss for _, pss in watcher.last)
    for kind, pss in sorted(watcher.last, key=lambda each: -each[1]):
        print(f"{pss:7.0f} MB PSS at its end  {kind}")
    print(
        f"{sum(spent.values()):.1f} CPU s, {time.perf_counter() - began:.1f} s; time to model "
        f"{sum(times):.1f} s together ({', '.join(map(str, times))}); {held:.0f} MB PSS at its end, "
        f"{watcher.most:.0f} at most"
    )
    sys.exit(status)


if __name__ == "__main__":
    main()
