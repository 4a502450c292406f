"""Slurm by sbatch, squeue and scancel, nothing else. It chooses its own job ids, so a launch is found by its name.

Launching twice is harmless three times over: `singleton` lets one job of a name run at a time, the claim lets only the
first of them begin, and `--no-requeue` keeps Slurm from starting it anew after a node's failure.

Several nodes are one job, so all begin together. The batch script is the first node's process, as of a run on one; an
srun beside it starts those of the others.
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
        nodes = asked.nodes
        cpus, gpus, memory_mb = max(1, round(asked.cpu / nodes)), asked.gpu // nodes, asked.memory_mb // nodes
        several = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
        self._call(
            "sbatch", "--parsable", f"--job-name={launch.name}", "--dependency=singleton", "--no-requeue",
            "--export=NIL", f"--output={launch.log}", "--open-mode=append", *(["--ntasks=1"] if nodes == 1 else []),
            f"--signal=B:TERM@{_NOTICE_SECONDS}", f"--cpus-per-task={cpus}",
            *([f"--gpus={gpus}" if nodes == 1 else f"--gpus-per-node={gpus}"] if gpus else []),
            *([f"--mem={memory_mb}M"] if memory_mb else []), *self._options, *(several if nodes > 1 else []),
            stdin=self._script(launch.argv, nodes, cpus),
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

    def stop(self, name: str, *, force: bool, nodes: int = 1) -> None:
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

    def _script(self, argv: Sequence[str], nodes: int, cpus: int) -> str:
        """The other nodes' processes are a step of all nodes but the first, in the background: it ends by itself."""
        if nodes == 1:
            return f"#!/bin/sh\n{_command(argv)}\n"
        srun = [
            self._folder + "srun", f"--nodes={nodes - 1}", f"--ntasks={nodes - 1}", "--ntasks-per-node=1",
            "--relative=1", f"--cpus-per-task={cpus}", "--unbuffered", "--label", "--kill-on-bad-exit=0",
        ]  # fmt: skip
        step = shlex.join([*srun, "/bin/sh", "-c", f"{_command(argv)} $((SLURM_PROCID + 1))"])
        return f"#!/bin/sh\n{step} < /dev/null &\n{_command(argv)}\n"

    def _call(self, program: str, *arguments: str, stdin: str = "") -> str:
        try:
            done = subprocess.run(
                [self._folder + program, *arguments], input=stdin, capture_output=True, text=True, timeout=_SECONDS,
                check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            where = f"in {self._folder} (`programs`)" if self._folder else "on the PATH of this machine"
            raise ConnectionError(f"there is no {program} {where}: Slurm's programs are needed here") from error
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


def _command(argv: Sequence[str]) -> str:
    """It uses `exec`, so that Slurm's signals reach the supervisor itself."""
    here = clean_environment()
    given = {name: here[name] for name in _PASSED_ON if name in here} | LIBRARIES | {"PYTHONUNBUFFERED": "1"}
    words = [f"{name}={value}" for name, value in given.items()]
    return f"exec env {shlex.join(words)} {shlex.join(argv)}"
