"""The crash suite's world: processes of one workspace, who kills them, and what must be true afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from speciate.governance import audit
from speciate.jobs.job import State
from speciate.workspace.workspace import Workspace
from tests import forks

FIXTURE = Path(__file__).with_name("fixture.py")
CLIENT = Path(__file__).with_name("client.py")
ROLES = {
    "speciate.server.daemon": "daemon",
    "speciate.jobs.supervisor": "supervisor",
    "speciate.jobs.zygote": "zygote",
    "speciate.sandbox.warm_parent": "warm parent",
    "speciate.worker": "worker",
    "speciate.jobs.pool_process": "service",
    "speciate.serving.process": "deployment",
}


class Verdict(NamedTuple):
    acknowledged: int
    lost: list[str]
    unfinished: list[str]
    overlaps: list[str]
    """Runs that began while another run of the same job lived."""
    begun_twice: list[str]
    """Attempts that began more than once."""
    sequence: tuple[int, int, int]
    """Events, distinct numbers, highest number: all three are equal where the sequence is dense."""
    trail: tuple[str, ...]
    """What the audit's check finds wrong with the trail, the aliases or their events."""

    def wrong(self) -> list[str]:
        """What is not as it must be, in words; empty where every promise was kept."""
        count, distinct, highest = self.sequence
        checks = {
            f"acknowledged jobs lost: {self.lost}": self.lost,
            f"jobs that did not succeed: {self.unfinished}": self.unfinished,
            f"two lives at once: {self.overlaps}": self.overlaps,
            f"attempts that ran twice: {self.begun_twice}": self.begun_twice,
            f"events not dense: {self.sequence}": not count == distinct == highest,
            f"audit and aliases: {self.trail}": self.trail,
        }
        return [words for words, bad in checks.items() if bad]


class World:
    def __init__(self, root: Path, fault: str = "") -> None:
        self.workspace, self.trace = root / "workspace", root / "trace"
        self.trace.mkdir(parents=True)
        self.kills: Counter[str] = Counter()
        self._environment = os.environ | ({"SPECIATE_FAULT": fault} if fault else {})
        self._clients: list[subprocess.Popen[str]] = []
        self._candidates: list[forks.Fork | subprocess.Popen[bytes]] = []

    # Processes

    def race_daemons(self, count: int) -> None:
        """Start several daemons at once; all but one must give way."""
        self._candidates = [candidate for candidate in self._candidates if candidate.poll() is None]
        argv = [
            sys.executable,
            "-m",
            "speciate.server.daemon",
            "--workspace",
            str(self.workspace),
            "--fixture",
            str(FIXTURE),
        ]
        for _ in range(count):
            self._candidates.append(
                forks.start(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    env=self._environment, start_new_session=True,
                )
            )  # fmt: skip

    def start_clients(self, count: int, jobs: int, shortest: float = 0.02, longest: float = 0.6) -> None:
        """`shortest` and `longest`: seconds that a run takes."""
        for number in range(count):
            argv = [
                sys.executable,
                str(CLIENT),
                str(self.workspace),
                str(FIXTURE),
                f"client{number}",
                str(jobs),
                str(self.trace),
                str(shortest),
                str(longest),
            ]
            self._clients.append(
                subprocess.Popen(
                    argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._environment
                )
            )

    def clients_at_work(self) -> bool:
        return any(client.poll() is None for client in self._clients)

    def began(self) -> list[str]:
        """The attempts that began so far."""
        return sorted(file.stem for file in self.trace.glob("*.began"))

    def until(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.05)

    def client_reports(self) -> list[str]:
        """The last words of each client; 'done' where it finished its script."""
        return [client.communicate(timeout=60)[0].strip() for client in self._clients]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """The workspace's processes by role: each carries its path in its command line."""
        found: dict[str, list[psutil.Process]] = {role: [] for role in ROLES.values()}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = _line(process)
                if any(part.startswith(str(self.workspace)) for part in line):
                    for module, role in ROLES.items():
                        if module in line:
                            found[role].append(process)
        for child in (child for daemon in found["daemon"] for child in _children(daemon)):
            with contextlib.suppress(psutil.Error):  # it knows no workspace
                if "speciate.sandbox.warm_parent" in child.cmdline():
                    found["warm parent"].append(child)
        return found

    def kill(self, role: str, chance: random.Random) -> bool:
        """`role`: one of ROLES, or `shim` and `http`, the servers that clients start."""
        victims = _servers(self.workspace, http=role == "http") if role in {"shim", "http"} else self.processes()[role]
        if not victims:
            return False
        with contextlib.suppress(psutil.Error):
            chance.choice(victims).send_signal(signal.SIGKILL)
            self.kills[role] += 1
            return True
        return False

    def kill_run(self) -> bool:
        """Kill a supervisor and its worker at once, so that nobody is left to write how the run ended."""
        processes = self.processes()
        for worker in processes["worker"]:
            with contextlib.suppress(psutil.Error):
                run = _line(worker)[-1:]  # empty where it has just ended
                pair = [process for process in processes["supervisor"] if run and _line(process)[-1:] == run]
                if not pair:
                    continue
                for process in (*pair, worker):
                    process.send_signal(signal.SIGKILL)
                self.kills["run"] += 1
                return True
        return False

    def stop(self) -> None:
        """End everything of this workspace: first who could start something again."""
        for client in self._clients:
            client.kill()
            client.communicate()
        while living := self._all():
            for process in living:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(living, timeout=5)
        for candidate in self._candidates:
            candidate.wait()

    def _all(self) -> list[psutil.Process]:
        """Shims first."""
        return _servers(self.workspace) + [process for processes in self.processes().values() for process in processes]

    # What must be true

    def verdict(self) -> Verdict:
        """Read the catalog itself, when nothing lives any more."""
        workspace = Workspace(self.workspace)
        try:
            database = workspace.database
            states = dict(database.read("SELECT id, state FROM jobs"))
            events = database.read("SELECT count(*), count(DISTINCT seq), coalesce(max(seq), 0) FROM events")[0]
            trail = audit.verify(database)
        finally:
            workspace.close()
        acknowledged = [line for file in self.trace.glob("*.acknowledged") for line in file.read_text().split()]
        began = {file.stem: len(file.read_text().split()) for file in self.trace.glob("*.began")}
        return Verdict(
            acknowledged=len(acknowledged),
            lost=[job for job in acknowledged if job not in states],
            unfinished=[job for job in acknowledged if states.get(job) != State.SUCCEEDED],
            overlaps=sorted(file.stem for file in self.trace.glob("*.overlap")),
            begun_twice=sorted(run for run, times in began.items() if times > 1),
            sequence=(events[0], events[1], events[2]),
            trail=tuple(trail.problems),
        )


def _servers(workspace: Path, *, http: bool | None = None) -> list[psutil.Process]:
    """What clients start: `speciate serve`, over HTTP or not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if "speciate.cli" in line and str(workspace) in line and http in {None, "--http" in line}:
                found.append(process)
    return found


def _line(process: psutil.Process) -> list[str]:
    """A fork's ends in the room that its parent's took."""
    return [part for part in process.cmdline() if part.strip()]


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return list(process.children())
    return []
