"""Slurm by sbatch, squeue and scancel, nothing else. It chooses its own job ids, so a launch is found by its name.

Launching twice is harmless three times over: `singleton` lets one job of a name run at a time, the claim lets only the
first of them begin, and `--no-requeue` keeps Slurm from starting it anew after a node's failure.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from speciate.environment import LIBRARIES, clean_environment
from speciate.jobs.places.cluster import Finding, Launch
from speciate.jobs.places.verdict import Status
from speciate.settings import Place

_PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "RESV_DEL_HOLD", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT",
            "SUSPENDED"}  # fmt: skip
_RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED"}
_SECONDS = 30.0
_NOTICE_SECONDS = 60
"""Seconds before a time limit of Slurm's own at which a run is told to leave a checkpoint."""
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL")
"""Nothing that may hold a key: whoever may look at the cluster's jobs sees their scripts."""


class Slurm:
    def __init__(self, place: Place) -> None:
        self._options = place.options
        self._folder = "" if place.programs is None else f"{place.programs}/"

    def launch(self, launch: Launch) -> None:
        asked = launch.resources
        self._call(
            "sbatch", "--parsable", f"--job-name={launch.name}", "--dependency=singleton", "--no-requeue",
            "--export=NIL", f"--output={launch.log}", "--open-mode=append", "--ntasks=1",
            f"--signal=B:TERM@{_NOTICE_SECONDS}", f"--cpus-per-task={max(1, round(asked.cpu))}",
            *([f"--gpus={asked.gpu}"] if asked.gpu else []),
            *([f"--mem={asked.memory_mb}M"] if asked.memory_mb else []), *self._options, stdin=_script(launch.argv),
        )  # fmt: skip

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        """Status of each name, by one call. After MinJobAge, 300 s by default, an ended one is not known any more."""
        said: dict[str, set[str]] = {name: set() for name in names}
        answer = self._call("squeue", "--noheader", "--states=all", f"--name={','.join(names)}", "--format=%j|%T")
        for line in answer.splitlines():
            name, _, state = line.strip().partition("|")
            if name in said:
                said[name].add(state)
        return {name: _status(states) for name, states in said.items()}

    def stop(self, name: str, *, force: bool) -> None:
        self._call("scancel", f"--name={name}", *(["--signal=KILL", "--full"] if force else []))

    def log(self, launch: Launch) -> str:
        try:
            return launch.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def findings(self) -> Iterator[Finding]:
        try:
            began = time.monotonic()
            version = self._call("sbatch", "--version").strip()
            self._call("squeue", "--noheader", "--name=speciate-doctor")  # its controller
            yield Finding("cluster", True, f"{version}, answered in {time.monotonic() - began:.2f} s")
        except OSError as error:
            yield Finding("cluster", False, str(error))

    def findings_by_job(self, name: str, seconds: float) -> Iterator[Finding]:
        yield from ()

    def _call(self, program: str, *arguments: str, stdin: str = "") -> str:
        try:
            done = subprocess.run(
                [self._folder + program, *arguments], input=stdin, capture_output=True, text=True, timeout=_SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{program} did not answer within {_SECONDS:g} s") from error
        if done.returncode:
            raise ConnectionError(f"{program}: {done.stderr.strip()[-300:] or f'status {done.returncode}'}")
        return done.stdout


def _status(said: set[str]) -> Status:
    if said & _RUNNING:
        return Status.RUNNING
    if said & _PENDING:
        return Status.PENDING
    return Status.DEAD if said else Status.UNKNOWN


def _script(argv: Sequence[str]) -> str:
    """Script of a launch. It uses `exec`, so that Slurm's signals reach the supervisor itself."""
    here = clean_environment()
    given = {name: here[name] for name in _PASSED_ON if name in here} | LIBRARIES | {"PYTHONUNBUFFERED": "1"}
    words = [f"{name}={value}" for name, value in given.items()]
    return f"#!/bin/sh\nexec env {shlex.join(words)} {shlex.join(argv)}\n"
