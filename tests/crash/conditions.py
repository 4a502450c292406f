"""Machines that make everything harder, for real processes and real MCP clients: few cores, a slow disk, little memory.

Everything here holds for what a test starts with it and for all that comes of that, never for the test itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import psutil
import pytest
from mcp import Client, StdioServerParameters

from speciate.environment import _control_groups
from speciate.workspace.workspace import Workspace
from tests.crash.world import FIXTURE
from tests.server.processes import Daemons, gone

_SOURCE = Path(__file__).with_name("conditions.c")
ENDED = {"succeeded", "failed", "cancelled", "dead"}


# Clients


def server(
    workspace: Path, before: Sequence[str] = (), environment: dict[str, str] | None = None
) -> StdioServerParameters:
    """`speciate serve`, as a client starts it. `before`: what the command is given to (taskset, say)."""
    words = [*before, sys.executable, "-m", "speciate.cli", "serve", "--workspace", str(workspace)]
    command, *arguments = [*words, "--fixture", str(FIXTURE)]
    passed = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return StdioServerParameters(command=command, args=arguments, env=passed | (environment or {}))


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, f"{tool}: {result.content[0].text}"  # type: ignore[union-attr]  # errors are text
    return dict(result.structured_content or {})


async def ended(client: Client, job: str, seconds: float = 300.0) -> dict[str, Any]:
    """The job once it has succeeded."""
    with anyio.fail_after(seconds):
        while (view := await ask(client, "wait_for_job", job=job, timeout_seconds=20))["state"] not in ENDED:
            pass
    assert view["state"] == "succeeded", view
    return view


def rows(count: int = 400) -> list[dict[str, Any]]:
    """`a` says much of the label and not all."""
    return [{"a": number % 7 + 5 * (number % 2), "b": number / 9, "label": "ab"[number % 2]} for number in range(count)]


INPUTS = [{"row": {"a": number, "b": number / 3}} for number in range(12)]


class Figures(NamedTuple):
    """What came of a use case."""

    verdict: str
    metrics: dict[str, Any]
    """Model -> each metric with its interval."""
    answers: list[Any]
    """To INPUTS, with their confidences."""


async def use_case(client: Client) -> Figures:
    """From rows to a model that answers."""
    await ask(
        client, "define_use_case", name="sorting", task="tabular-classification",
        objective={"metric": "accuracy", "target": 0.6},
    )  # fmt: skip
    made = await ask(client, "create_dataset", name="points", rows=rows(), label="label")
    await ended(client, made["job"])
    searched = await ask(
        client, "specialize", use_case="sorting", dataset="points", budget_minutes=3, methods=["classical"]
    )
    found = (await ended(client, searched["job"]))["result"]
    evaluation = await ask(client, "describe_evaluation", evaluation=found["evaluation"])
    decision = evaluation["decision"]
    predicted = await ask(client, "predict", model=decision["candidate"], inputs=INPUTS)
    return Figures(
        verdict=decision["verdict"],
        metrics={row["model"]: row["metrics"] for row in evaluation["leaderboard"]},
        answers=[(each["untrusted"], each["confidence"]) for each in predicted["predictions"]],
    )


class Versions(NamedTuple):
    """What a catalog holds, once nobody has it open."""

    datasets: list[Any]
    models: list[Any]
    trained_with: list[Any]
    """Cores that each training saw, and its threads."""


def versions(workspace: Path) -> Versions:
    found = Workspace(workspace)
    try:
        recipe = "model_versions ORDER BY name, version"
        cores = "json_extract(card, '$.recipe.environment.cores'), json_extract(card, '$.recipe.environment.threads')"
        return Versions(
            found.database.read("SELECT name, version, id FROM dataset_versions ORDER BY name, version"),
            found.database.read(f"SELECT name, version, id FROM {recipe}"),
            found.database.read(f"SELECT {cores} FROM {recipe}"),
        )
    finally:
        found.close()


# Processes


def family(workspace: Path) -> list[psutil.Process]:
    """All processes of a workspace, by their command lines, and what those of them that are no forks started."""
    found = list[psutil.Process]()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(workspace) in part for part in process.cmdline()):
                found.append(process)
    return found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """While a process does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# A library that makes the disk slow


class Sync(NamedTuple):
    began: float
    ended: float
    device: int
    inode: int
    size: int


class Preloaded(NamedTuple):
    """A library under all processes: see conditions.c."""

    environment: dict[str, str]
    folder: Path

    def syncs(self) -> list[Sync]:
        lines = (self.folder / "syncs").read_text().splitlines()
        return [Sync(float(one), float(two), *map(int, rest)) for one, two, *rest in map(str.split, lines)]

    def forks(self) -> list[tuple[int, str]]:
        """How many threads each process has that forks, and its command."""
        lines = (self.folder / "forks").read_text().splitlines()
        return [(int(threads), command.strip()) for threads, _, command in (line.partition(" ") for line in lines)]


def preloaded(folder: Path, least: int = 0, most: int = 0, rate: int = 0) -> Preloaded:
    """`least` and `most`: milliseconds that a sync takes; `rate`: bytes that are written in a second."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("this machine has no C compiler, or no LD_PRELOAD")
    folder.mkdir()
    library = folder / "conditions.so"
    texts = {"SELF": library, "SYNCS": folder / "syncs", "FORKS": folder / "forks"}
    given = [*(f'-D{name}="{path}"' for name, path in texts.items()), f"-DLEAST={least}", f"-DMOST={most}"]
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", *given, f"-DRATE={rate}", "-o", str(library), str(_SOURCE), "-ldl"],
        check=True,
    )
    for name in ("syncs", "forks"):
        (folder / name).touch()
    return Preloaded({"LD_PRELOAD": str(library)}, folder)


# A container with little memory


class MemoryGroup:
    """A control group for processes that begin with `before`; root alone can make one."""

    def __init__(self, megabytes: int) -> None:
        self.limit = megabytes << 20
        above = next((group for group in _control_groups("memory") if os.access(group, os.W_OK)), None)
        if os.getuid() != 0 or above is None:
            pytest.skip("nobody may make a control group here")
        self.folder = above / f"speciate-test-{os.getpid()}-{time.monotonic_ns()}"
        try:
            self.folder.mkdir()
            self._file("memory.max", "memory.limit_in_bytes").write_text(str(self.limit))
        except OSError as error:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            pytest.skip(f"nobody may limit a control group here: {error}")
        self.before = ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]

    def _file(self, *names: str) -> Path:
        return next(path for name in names if (path := self.folder / name).exists())

    @property
    def used(self) -> int:
        """Cached files and all."""
        return int(self._file("memory.current", "memory.usage_in_bytes").read_text())

    def kills(self) -> int:
        words = self._file("memory.events", "memory.oom_control").read_text().split()
        return int(words[words.index("oom_kill") + 1])

    def cache_files(self, folder: Path) -> None:
        """Read files until the group is full of them. Of holes, which take no room on the disk."""
        with (folder / "holes").open("wb") as file:
            file.truncate(2 * self.limit)
        read = "import sys; f = open(sys.argv[1], 'rb', 0)\nwhile f.read(1 << 22): pass"
        subprocess.run([*self.before, sys.executable, "-c", read, str(folder / "holes")], check=True)

    def close(self) -> None:
        end = time.monotonic() + 60
        while pids := (self.folder / "cgroup.procs").read_text().split():
            assert time.monotonic() < end, pids
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)
        self.folder.rmdir()


class Hog:
    """All memory of a group but so much, held until `end`: as shared memory, which no process can be killed for."""

    def __init__(self, group: MemoryGroup, left_mb: int) -> None:
        held = sum(_resident(int(pid)) for pid in (group.folder / "cgroup.procs").read_text().split())
        size = group.limit - held - (left_mb << 20)
        if size > shutil.disk_usage("/dev/shm").free:
            pytest.skip("/dev/shm is too small")
        self._file = Path(f"/dev/shm/speciate-test-{os.getpid()}")
        try:
            subprocess.run(
                [*group.before, "dd", "if=/dev/zero", f"of={self._file}", "bs=1M", f"count={size >> 20}"],
                check=True, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self._file.unlink(missing_ok=True)


def _resident(pid: int) -> int:
    """Bytes that the process alone holds."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_full_info().uss)
    return 0


def close(workspace: Path) -> None:
    """End the daemon and what is left of it."""
    living = family(workspace)
    Daemons(workspace).close()
    for process in family(workspace):
        with contextlib.suppress(psutil.Error):
            process.kill()
    for process in living:  # one that shows no command line any more may still hold a lock
        gone(process.pid)
