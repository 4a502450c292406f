"""Few cores, a slow disk, fifty clients, forks amid commits, little memory: slower, never wrong.

Through real servers, by MCP clients of the SDK: what each was told is compared with what an undisturbed one is told,
and with what is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import duckdb
import httpx2
import psutil
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from speciate.sandbox import is_complete
from speciate.server.dial import dial
from speciate.server.protocol import HTTP
from speciate.workspace.workspace import Workspace
from tests.crash import conditions
from tests.crash.conditions import (
    ENDED,
    INPUTS,
    Figures,
    Hog,
    MemoryGroup,
    Versions,
    ask,
    ended,
    preloaded,
    rows,
    server,
    use_case,
    versions,
)
from tests.crash.world import World
from tests.server.processes import Daemons

pytestmark = [
    pytest.mark.durable,
    pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox"),
]
FIFTY = 50


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "workspace"
    conditions.close(tmp_path / "workspace")


def through(
    workspace: Path, work: Callable[[Client], Awaitable[Any]], seconds: float = 500.0, **how: Any
) -> Any:  # what `work` gives
    """What a client of this workspace finds. `how`: as of `server`."""
    (workspace / "settings.toml").parent.mkdir(exist_ok=True)
    found = []

    async def main() -> None:
        with anyio.fail_after(seconds):
            async with Client(server(workspace, **how)) as client:
                found.append(await work(client))

    try:
        anyio.run(main)
    except BaseExceptionGroup as group:  # the SDK's task groups around what failed
        failed: BaseException = group
        while isinstance(failed, BaseExceptionGroup):
            failed = failed.exceptions[0]
        raise failed from None
    return found[0]


# One core


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("taskset") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_on_one_core_a_use_case_ends_as_on_two(tmp_path: Path) -> None:
    found = dict[str, tuple[Figures, Versions]]()
    for name, before in (("two", ["taskset", "-c", "0,1"]), ("one", ["taskset", "-c", "0"])):
        try:
            figures = through(tmp_path / name, use_case, before=before)
            cores = {tuple(sorted(process.cpu_affinity())) for process in conditions.family(tmp_path / name)}
        finally:
            conditions.close(tmp_path / name)
        assert cores == ({(0, 1)} if name == "two" else {(0,)})
        found[name] = figures, versions(tmp_path / name)
    (one, made), (two, reference) = found["one"], found["two"]
    assert one == two
    assert (made.trained_with, reference.trained_with) == ([("1", "1")], [("2", "2")])
    assert made._replace(trained_with=[]) == reference._replace(trained_with=[])


# A full page cache


@pytest.mark.slow
def test_cached_files_are_no_want_of_memory(workspace: Path, tmp_path: Path) -> None:
    group = MemoryGroup(1536)
    try:
        group.cache_files(tmp_path)
        assert group.used > 0.95 * group.limit
        assert len(through(workspace, use_case, before=group.before).answers) == len(INPUTS)
        assert group.kills() == 0
    finally:
        conditions.close(workspace)
        group.close()


# Fifty clients


class Crowd:
    """What fifty clients were told, and how long each answer took."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.refusals: Counter[str] = Counter()
        self.jobs: dict[str, set[str]] = {}
        """Idempotency key -> the jobs that it was said to have made."""

    async def ask(self, client: Client, tool: str, **arguments: Any) -> dict[str, Any] | None:
        """None where it was refused."""
        began = time.perf_counter()
        result = await client.call_tool(tool, arguments)
        self.seconds.setdefault(tool, []).append(time.perf_counter() - began)
        if result.is_error:
            self.refusals[result.content[0].text] += 1  # type: ignore[union-attr]  # errors are text
            return None
        return dict(result.structured_content or {})

    async def submit(self, client: Client, key: str, **arguments: Any) -> None:
        if found := await self.ask(client, "create_dataset", idempotency_key=key, **arguments):
            self.jobs.setdefault(key, set()).add(found["job"])

    async def member(self, client: Client, number: int, answers: list[Any], rounds: int) -> None:
        """Looks, asks a model, and starts jobs: one that all start, and one of its own, twice."""
        mine = {"name": f"own{number}", "rows": rows(20 + number), "label": "label"}
        await self.submit(client, "all", name="shared", rows=rows(30), label="label")
        for turn in range(rounds):
            place = (number + turn) % len(INPUTS)
            found = await self.ask(client, "predict", model="sorter@v1", inputs=[INPUTS[place]])
            assert found is None or found["predictions"][0]["untrusted"] == answers[place]
            above = 3 + (number + turn) % 40
            counted = await self.ask(
                client, "query_dataset", dataset="points", sql=f"SELECT count(*) FROM examples WHERE b > {above}"
            )
            expected = sum(row["b"] > above for row in rows())
            assert counted is None or counted["untrusted"]["rows"] == [[expected]]
            assert await self.ask(client, "get_status") is not None
            described = await self.ask(client, "describe_dataset", dataset="points")
            assert described is not None
            assert described["examples"] == 400
            if turn < 2:
                await self.submit(client, f"own{number}", **mine)
        for key in ("all", f"own{number}"):
            for job in self.jobs[key]:
                assert (await ended(client, job))["result"]["dataset"] in {"shared@v1", f"own{number}@v1"}

    def told(self) -> str:
        lines = []
        for tool, seconds in sorted(self.seconds.items()):
            cuts = statistics.quantiles(seconds, n=100)
            lines.append(f"{tool}: {len(seconds)} calls, p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s")
        return "; ".join([*lines, f"refused: {dict(self.refusals)}"])


async def a_model(client: Client) -> list[Any]:
    """Rows, a model on them, and what it answers to INPUTS."""
    await ended(client, (await ask(client, "create_dataset", name="points", rows=rows(), label="label"))["job"])
    trained = await ask(client, "train_model", name="sorter", dataset="points", method="classical")
    await ended(client, trained["job"])
    found = await ask(client, "predict", model="sorter@v1", inputs=INPUTS)
    return [each["untrusted"] for each in found["predictions"]]


def held(daemon: psutil.Process) -> tuple[int, float]:
    """Descriptors, and megabytes."""
    return daemon.num_fds(), daemon.memory_info().rss / 2**20


@contextlib.asynccontextmanager
async def over_http(url: str, token: str) -> AsyncIterator[Any]:
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["stdio", "http", "http, older protocol"])
def test_fifty_clients_at_once_are_each_answered_right(workspace: Path, transport: str) -> None:
    answers = through(workspace, a_model)
    daemon = psutil.Process(Daemons(workspace).pid())
    before, crowd, during = held(daemon), Crowd(), list[tuple[int, float]]()

    async def one(number: int, served: Any, gate: anyio.Event) -> None:
        async with Client(served, mode="legacy" if "older" in transport else "auto") as client:
            await gate.wait()
            await crowd.member(client, number, answers, rounds=4)

    async def main(served: Callable[[], Any]) -> None:
        gate = anyio.Event()
        with anyio.fail_after(500):
            async with anyio.create_task_group() as clients:
                for number in range(FIFTY):
                    clients.start_soon(one, number, served(), gate)
                await anyio.sleep(20)
                gate.set()
                await anyio.sleep(5)
                during.append(held(daemon))

    with contextlib.ExitStack() as stack:
        if transport == "stdio":
            anyio.run(main, lambda: server(workspace))
        else:
            dialled = dial(workspace, HTTP, port=0)
            stack.callback(dialled.line.close)
            anyio.run(main, lambda: over_http(dialled.answer["url"], dialled.answer["token"]))
    print(f"{transport}: {crowd.told()}; held {before} {during} {held(daemon)}")
    honest = [text for text in crowd.refusals if "busy" not in text]
    assert not honest, crowd.refusals
    assert {key: len(jobs) for key, jobs in crowd.jobs.items()} == {
        "all": 1, **{f"own{number}": 1 for number in range(FIFTY)},
    }  # fmt: skip
    time.sleep(2)
    assert held(daemon)[0] < before[0] + 60
    assert max(descriptors for descriptors, _ in during) < before[0] + 10 * FIFTY
    assert max(megabytes for _, megabytes in [*during, held(daemon)]) < before[1] + 400
    conditions.close(workspace)
    made = Workspace(workspace)
    try:
        versions = made.database.read("SELECT name, version FROM dataset_versions WHERE name != 'points'")
        assert sorted(versions) == sorted([("shared", 1), *((f"own{number}", 1) for number in range(FIFTY))])
        assert made.database.read("SELECT kind, count(*) FROM jobs GROUP BY kind ORDER BY kind") == [
            ("ingest", FIFTY + 2), ("train", 1),
        ]  # fmt: skip
    finally:
        made.close()


# A slow disk


def on_disk(disk: conditions.Preloaded, at: float) -> dict[int, int]:
    """Inode -> how much of the file had been synced by then, for sure."""
    found = dict[int, int]()
    for sync in disk.syncs():
        if sync.ended <= at:
            found[sync.inode] = max(found.get(sync.inode, 0), sync.size)
    return found


def after_a_power_cut(workspace: Path, disk: conditions.Preloaded, at: float, copy: Path) -> dict[str, str]:
    """Job -> state, in the catalog as the disk has it if the power is cut at `at`. To be called while the daemon stands
    still."""
    copy.mkdir()
    shutil.copy(workspace / "catalog.duckdb", copy)
    log = workspace / "catalog.duckdb.wal"
    if log.exists():
        kept = on_disk(disk, at).get(log.stat().st_ino, 0)
        (copy / log.name).write_bytes(log.read_bytes()[:kept])
    with duckdb.connect(str(copy / "catalog.duckdb")) as catalog:
        return dict(catalog.execute("SELECT id, state FROM jobs").fetchall())


def not_on_disk(workspace: Path, disk: conditions.Preloaded, at: float) -> list[str]:
    """Files of sealed folders, and their names, that a power cut at `at` might take."""
    synced, lost = on_disk(disk, at), list[str]()
    named = {sync.inode: max(sync.began, 0.0) for sync in disk.syncs() if sync.ended <= at}
    for top in ("datasets", "packs", "blobs", "models", "evaluations"):
        for path in (workspace / top).rglob("*"):
            info, name = path.stat(), str(path.relative_to(workspace))
            if path.is_file() and synced.get(info.st_ino, -1) < info.st_size:
                lost.append(name)
            if path.is_dir() and named.get(info.st_ino, 0.0) < info.st_mtime - 0.02:
                lost.append(f"{name}/ (its names)")
    return sorted(lost)


@pytest.mark.slow
def test_on_a_slow_disk_nothing_is_told_before_it_is_there(workspace: Path, tmp_path: Path) -> None:
    disk = preloaded(tmp_path / "disk", least=300, most=2000, rate=4_000_000)
    (tmp_path / "trace").mkdir()
    seconds = dict[str, float]()

    async def work(client: Client) -> None:
        seconds["start"] = time.time() - began
        daemon = Daemons(workspace).pid()

        async def started(tool: str, **arguments: Any) -> str:
            """The job, which was not there before and is when it is told."""
            asked = time.time()
            job = (await ask(client, tool, **arguments))["job"]
            told = time.time()
            seconds[tool] = told - asked
            with conditions.stopped(daemon):
                for name, at, there in (("asked", asked, False), ("told", told, True)):
                    found = after_a_power_cut(workspace, disk, at, tmp_path / f"{job}-{name}")
                    assert (job in found) is there, (tool, name, found)
            return str(job)

        async def finished(job: str) -> None:
            """Succeeded, and all that it made was on the disk before."""
            await ended(client, job)
            told = time.time()
            with conditions.stopped(daemon):
                assert after_a_power_cut(workspace, disk, told, tmp_path / f"{job}-ended")[job] == "succeeded"
                assert not_on_disk(workspace, disk, told) == []

        trace = {"trace": str(tmp_path / "trace"), "seconds": 3.0}
        others = [await started("start_work", key=f"work{number}", **trace) for number in range(3)]
        await finished(await started("create_dataset", name="points", rows=rows(), label="label"))
        await finished(await started("train_model", name="sorter", dataset="points", method="classical"))
        asked = {"models": ["constant:", "sorter"], "dataset": "points", "latency": False}
        await finished(await started("evaluate_models", **asked))
        for job in others:
            await finished(job)
        predicted = await ask(client, "predict", model="sorter@v1", inputs=INPUTS)
        assert len(predicted["predictions"]) == len(INPUTS)

    began = time.time()
    through(workspace, work, environment=disk.environment)
    syncs = disk.syncs()
    print({name: round(took, 1) for name, took in seconds.items()}, f"{len(syncs)} syncs")
    conditions.close(workspace)
    assert not list((tmp_path / "trace").glob("*.overlap"))
    made = Workspace(workspace)
    try:
        assert made.database.read("SELECT id FROM jobs WHERE attempt > 1 OR state != 'succeeded'") == []
    finally:
        made.close()


# Forks amid commits


@pytest.mark.slow
def test_no_fork_amid_commits_takes_a_lock_with_it(tmp_path: Path) -> None:
    """Six clients keep the catalog's writer and its readers busy while supervisors, workers and sandboxed processes are
    forked by the hundred. Each fork is of a process with one thread, and each ends."""
    watched, world = preloaded(tmp_path / "watched"), World(tmp_path)
    world._environment = world._environment | watched.environment
    try:
        world.start_clients(6, 30, shortest=0.02, longest=0.1)
        world.until(lambda: not world.clients_at_work(), 400)
        reports, left = world.client_reports(), world.processes()
    finally:
        world.stop()
    assert reports == ["done"] * 6, "\n\n".join(reports)
    assert world.verdict().wrong() == []
    assert (left["supervisor"], left["worker"]) == ([], [])
    forks = watched.forks()
    print(Counter(re.sub(".* -m (\\S+) .*", "\\1", command) for _, command in forks))
    assert len(forks) > 2 * 6 * 30
    assert [command for threads, command in forks if threads > 1] == []


# Little memory


@pytest.mark.slow
@pytest.mark.parametrize("left", [300, 40])
def test_without_memory_it_is_slower_or_says_why(workspace: Path, left: int) -> None:
    """Another program in the same container holds all of its memory but so many MB."""
    group = MemoryGroup(3072)
    hogs = list[Hog]()
    told = list[str]()

    async def work(client: Client) -> None:
        answers = await a_model(client)
        daemon = Daemons(workspace).pid()
        hogs.append(Hog(group, left))
        jobs = dict[str, str]()
        for name, tool, arguments in (
            ("many", "create_dataset", {"name": "many", "rows": rows(5000), "label": "label"}),
            ("second", "train_model", {"name": "second", "dataset": "points", "method": "classical"}),
            ("wide", "train_model", {"name": "wide", "dataset": "points", "method": "full"}),
        ):
            result = await client.call_tool(tool, arguments)
            if result.is_error:
                told.append(result.content[0].text)  # type: ignore[union-attr]  # errors are text
            else:
                jobs[name] = dict(result.structured_content or {})["job"]
        for _ in range(4):
            result = await client.call_tool("predict", {"model": "sorter@v1", "inputs": INPUTS})
            if result.is_error:
                told.append(result.content[0].text)  # type: ignore[union-attr]  # errors are text
            else:
                found = dict(result.structured_content or {})["predictions"]
                assert [each["untrusted"] for each in found] == answers
        for job in jobs.values():
            seen = await ask(client, "wait_for_job", job=job, timeout_seconds=30)
            told.append(f"{seen['kind']} {seen['state']}, attempt {seen['attempt']}: {seen.get('reason')}")
        hogs[0].end()
        for name, job in jobs.items():
            with anyio.fail_after(300):
                while (view := await ask(client, "wait_for_job", job=job, timeout_seconds=20))["state"] not in ENDED:
                    pass
            assert view["state"] == "succeeded" or "memory" in str(view.get("error")), (name, view)
        assert Daemons(workspace).pid() == daemon
        for _ in range(10):  # its model may still be loaded again
            result = await client.call_tool("predict", {"model": "sorter@v1", "inputs": INPUTS})
            if not result.is_error:
                break
            assert "repeat the call" in result.content[0].text  # type: ignore[union-attr]  # errors are text
            await anyio.sleep(2)
        found = dict(result.structured_content or {})["predictions"]
        assert [each["untrusted"] for each in found] == answers

    try:
        through(workspace, work, before=group.before)
    finally:
        print("\n".join(told), f"{group.kills()} processes were killed", sep="\n")
        for hog in hogs:
            hog.end()
        conditions.close(workspace)
        group.close()
