"""Doubles of sbatch, squeue and scancel: shell scripts that start processes and keep a file for each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from speciate.governance import consents
from speciate.jobs.places import executor
from speciate.settings import Place
from speciate.workspace.workspace import Workspace

_SBATCH = """#!/bin/sh
# One job of a name at a time would be `singleton`; two start here, for the claim must be enough.
jobs="@JOBS@"
if [ "$1" = "--version" ]; then echo "slurm 24.11.5 (a double)"; exit 0; fi
[ -e "$jobs/away" ] && { echo "sbatch: error: Unable to contact slurm controller" >&2; exit 1; }
for word in "$@"; do case "$word" in
  --job-name=*) name="${word#--job-name=}" ;;
  --output=*) log="${word#--output=}" ;;
esac; done
id=$(mktemp "$jobs/$name.XXXXXX")
cat > "$id.sh"
echo "$@" > "$id.words"
[ -e "$jobs/full" ] && exit 0
setsid sh "$id.sh" >> "$log" 2>&1 < /dev/null &
echo $! > "$id"
"""
_SRUN = """#!/bin/sh
# Each task is a process of this machine, in a session of its own.
for word in "$@"; do case "$word" in --ntasks=*) count="${word#--ntasks=}" ;; /*) break ;; esac; shift; done
number=0
while [ "$number" -lt "$count" ]; do
  SLURM_PROCID="$number" setsid "$@" & number=$((number + 1))
done
wait
"""
_SQUEUE = """#!/bin/sh
jobs="@JOBS@"
[ -e "$jobs/away" ] && { echo "squeue: error: Unable to contact slurm controller" >&2; exit 1; }
for word in "$@"; do case "$word" in --name=*) names="${word#--name=}" ;; esac; done
for name in $(echo "$names" | tr , ' '); do
  if [ -e "$jobs/says" ]; then echo "$name|$(cat "$jobs/says")"; continue; fi
  for id in "$jobs/$name".??????; do
    [ -e "$id" ] || continue
    if [ ! -s "$id" ]; then echo "$name|PENDING"
    elif kill -0 "$(cat "$id")" 2> /dev/null; then echo "$name|RUNNING"
    else echo "$name|COMPLETED"; fi
  done
done
exit 0
"""
_SCANCEL = """#!/bin/sh
jobs="@JOBS@"
[ -e "$jobs/away" ] && exit 1
signal=TERM
for word in "$@"; do case "$word" in
  --name=*) name="${word#--name=}" ;;
  --signal=*) signal="${word#--signal=}" ;;
esac; done
for id in "$jobs/$name".??????; do
  [ -s "$id" ] && kill -"$signal" -- -"$(cat "$id")" 2> /dev/null
done
exit 0
"""


class Double:
    """`away`, `full` and `says` are files: no answer, nothing begins, and one state that is said of every job."""

    def __init__(self, folder: Path) -> None:
        self.jobs, self.programs = folder / "jobs", folder / "bin"
        self.jobs.mkdir(parents=True)
        self.programs.mkdir()
        for name, text in (("sbatch", _SBATCH), ("srun", _SRUN), ("squeue", _SQUEUE), ("scancel", _SCANCEL)):
            program = self.programs / name
            program.write_text(text.replace("@JOBS@", str(self.jobs)))
            program.chmod(0o755)
        self.depot = folder / "depot"
        self.depot.mkdir()
        (folder / "scratch").mkdir()
        self.scratch = folder / "scratch"

    def place(self, **changes: object) -> Place:
        return Place.model_validate(
            {
                "kind": "slurm", "depot": self.depot, "python": sys.executable, "programs": self.programs,
                "scratch": self.scratch, "lease_seconds": 6, **changes,
            }
        )  # fmt: skip

    def set(self, name: str, text: str = "") -> None:
        (self.jobs / name).write_text(text)

    def unset(self, name: str) -> None:
        (self.jobs / name).unlink()

    def launches(self) -> list[str]:
        return sorted(path.name.rpartition(".")[0] for path in self.jobs.glob("*.words"))


def allow(workspace: Workspace, *datasets: str) -> None:
    """What a person types for each place of the workspace."""
    for dataset in datasets:
        for place in workspace.settings.executors:
            consents.allow(workspace, dataset, place, by="grace")


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """At places, and at what waits there: tests do not wait for the usual seconds."""
    monkeypatch.setattr("speciate.jobs.places.places.LOOK_SECONDS", 0.1)
    monkeypatch.setattr(executor, "_ASK_SECONDS", 0.2)


def until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    """Real processes take real time: look again until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.02)
