"""What grows with the data, through the tools as a user calls them: rows of a table, images of a folder, models in one
leaderboard.

Each size has a workspace and a daemon of its own. CPU seconds and memory are those of the daemon and of all that it
started. Peak memory is the sum of their PSS, looked at as often as takes a twentieth of the time. Peers do the same
with the same files in this process: plain DuckDB for rows, Pillow and sha256 for images. Nobody else keeps a
leaderboard. All sizes together take hours.

    python evals/bench/through_tools.py [--rows 100000 1000000 10000000] [--images 10000 100000] [--models 20 100]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from figures import note
from PIL import Image

import speciate
from speciate.server.client import Client

_CONDITION, _FEW = "x1 > 0", "x1 > 4"
_STEP = 1_000_000
"""Rows that the source is made of at a time."""
Act = Callable[[], object]
_LOOK_SECONDS, _LOOKING = 0.5, 0.05
"""Between two looks at the memory, at least, and the share of the time that they may take."""


class Cost(NamedTuple):
    wall: float
    cpu: float
    peak: float
    """MB, of all processes together; of a peer not counted."""


class Daemon:
    """The daemon of a workspace and all that it started."""

    def __init__(self, workspace: Path, client: Client) -> None:
        client.call("get_status")
        named = str(workspace.resolve())
        (self._daemon,) = [
            each for each in psutil.process_iter(["cmdline"])
            if named in (line := each.info["cmdline"] or []) and "speciate.server.daemon" in line
        ]  # fmt: skip

    def cost(self, act: Act) -> Cost:
        """What an act takes until it returns."""
        peaks, ended = [self._pss()], threading.Event()

        def look() -> None:
            pause = _LOOK_SECONDS
            while not ended.wait(pause):
                began = time.perf_counter()
                peaks.append(self._pss())
                pause = max(_LOOK_SECONDS, (time.perf_counter() - began) / _LOOKING)

        looker = threading.Thread(target=look, daemon=True)
        looker.start()
        began, cpu = time.perf_counter(), self._cpu()
        act()
        cost = Cost(time.perf_counter() - began, self._cpu() - cpu, 0.0)
        ended.set()
        looker.join()
        return cost._replace(peak=max(peaks))

    def _processes(self) -> list[psutil.Process]:
        return [self._daemon, *self._daemon.children(recursive=True)]

    def _cpu(self) -> float:
        """CPU seconds, with those of processes that have ended, which their parents have counted."""
        spent = 0.0
        for each in self._processes():
            with contextlib.suppress(psutil.Error):
                spent += sum(each.cpu_times()[:4])
        return spent

    def _pss(self) -> float:
        held = 0.0
        for each in self._processes():
            with contextlib.suppress(psutil.Error):
                held += each.memory_full_info().pss / 1e6
        return held


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[Client, Daemon]]:
    program = [str(Path(sys.executable).parent / "speciate")]
    workspace = folder / "workspace"
    subprocess.run(
        [*program, "init", "--policy", "auto", "--workspace", str(workspace)], check=True, stdout=subprocess.DEVNULL
    )
    with (workspace / "settings.toml").open("a") as settings:
        settings.write(f"roots = {json.dumps([str(folder)])}\n")
    try:
        client = speciate.connect(workspace)
        yield client, Daemon(workspace, client)
    finally:
        subprocess.run([*program, "stop", "--workspace", str(workspace)], check=False, stdout=subprocess.DEVNULL)


def own_cost(act: Act) -> Cost:
    began, cpu = time.perf_counter(), os.times()
    act()
    spent = sum(os.times()[:4]) - sum(cpu[:4])
    return Cost(time.perf_counter() - began, spent, 0.0)


def job(client: Client, tool: str, **arguments: Any) -> None:
    client.wait(client.call(tool, **arguments)["job"])


class Line(NamedTuple):
    ours: Cost
    theirs: Cost | None = None
    tokens: int | None = None
    """The length of the answer, some four characters each."""


Lines = dict[str, Line]


def of_rows(folder: Path, count: int) -> Lines:
    source, more = folder / "rows.parquet", folder / "more.parquet"
    make_table(source, 0, count)
    make_table(more, count, max(count // 100, 1))
    plain = duckdb.connect()
    written = str(folder / "written.parquet")

    def copied(query: str) -> Act:
        return lambda: plain.execute(f"COPY ({query}) TO '{written}' (FORMAT parquet, COMPRESSION zstd)")

    def asked(query: str) -> Act:
        return lambda: plain.execute(query).fetchall()

    everything = f"SELECT * FROM '{source}'"
    grouped = "SELECT city, label, count(*) AS n, avg(x0) AS mean FROM {} GROUP BY ALL ORDER BY ALL"
    with opened(folder) as (client, daemon):
        acts: Mapping[str, tuple[Act, Act]] = {
            "create_dataset": (
                lambda: job(client, "create_dataset", name="set", source=str(source), label="label"),
                copied(everything + " ORDER BY hash(key)"),
            ),
            "describe_dataset": (
                lambda: client.call("describe_dataset", dataset="set"),
                asked(f"SELECT label, count(*) FROM '{source}' GROUP BY ALL"),
            ),
            "query_dataset, where 1 in 30,000": (
                lambda: client.call("query_dataset", dataset="set@v1", where=_FEW, limit=20),
                asked(f"{everything} WHERE {_FEW} ORDER BY key LIMIT 20"),
            ),
            "query_dataset, group": (
                lambda: client.call("query_dataset", dataset="set@v1", sql=grouped.format("examples"), limit=100),
                asked(grouped.format(f"'{source}'")),
            ),
            "curate_dataset, half of them": (
                lambda: job(client, "curate_dataset", dataset="set@v1", steps=[{"op": "filter", "where": _CONDITION}]),
                copied(f"{everything} WHERE {_CONDITION}"),
            ),
            "add_examples, 1 % more": (
                lambda: job(client, "add_examples", dataset="set", source=str(more)),
                copied(f"SELECT * FROM '{more}'"),
            ),
            "describe_dataset, two versions": (
                lambda: client.call("describe_dataset", dataset="set@v3", compare_to="set@v1"),
                asked(
                    f"SELECT count(*) FROM '{source}' AS a FULL JOIN '{written}' AS b USING (key) "
                    "WHERE a.key IS NULL OR b.key IS NULL"
                ),
            ),
        }  # fmt: skip
        return {what: Line(daemon.cost(ours), own_cost(theirs)) for what, (ours, theirs) in acts.items()}


def make_table(file: Path, first: int, count: int) -> None:
    """Rows with a key, a label of ten, a city of a hundred and three numbers; no two alike."""
    chance = np.random.default_rng(first)
    writer: pq.ParquetWriter | None = None
    for start in range(first, first + count, _STEP):
        size = min(_STEP, first + count - start)
        labels, cities = pa.array(list("abcdefghij")), pa.array([f"city {i}" for i in range(100)])
        table = pa.table({
            "key": pc.cast(pa.array(np.arange(start, start + size)), pa.string()),
            "label": labels.take(pa.array(chance.integers(10, size=size))),
            "city": cities.take(pa.array(chance.integers(100, size=size))),
            **{f"x{i}": chance.normal(size=size) for i in range(3)},
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def of_images(folder: Path, count: int) -> Lines:
    source = folder / "images"
    make_images(source, count)
    files = sorted(map(str, source.rglob("*.png")))

    def decoded() -> None:
        for file in files:
            decode_and_hash(file)

    with opened(folder) as (client, daemon):
        acts: Mapping[str, tuple[Act, Act | None]] = {
            "create_dataset": (
                lambda: job(client, "create_dataset", name="set", source=str(source), label="folder"), decoded,
            ),
            "describe_dataset": (lambda: client.call("describe_dataset", dataset="set"), None),
            "preview_dataset": (lambda: client.call_with_images("preview_dataset", dataset="set", count=36), None),
            "curate_dataset, one label": (
                lambda: job(client, "curate_dataset", dataset="set", steps=[{"op": "filter", "where": "label = '3'"}]),
                None,
            ),
        }  # fmt: skip
        return {
            what: Line(daemon.cost(ours), own_cost(theirs) if theirs else None) for what, (ours, theirs) in acts.items()
        }


def make_images(folder: Path, count: int) -> None:
    """`folder/LABEL/NUMBER.png` of 16 x 16; no two alike."""
    chance = np.random.default_rng(0)
    for number in range(count):
        path = folder / str(number % 10) / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (16, 16), np.uint8)).save(path, compress_level=1)


def decode_and_hash(file: str) -> str:
    data = Path(file).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB")
    return hashlib.sha256(data).hexdigest()


def of_models(folder: Path, count: int) -> Lines:
    """Models whose answers are columns of the dataset, each right a little oftener than the one before."""
    chance = np.random.default_rng(0)
    labels = chance.integers(4, size=1000)
    columns = {}
    for number in range(count):
        wrong = chance.random(len(labels)) > 0.5 + 0.4 * number / count
        columns[f"m{number}"] = np.where(wrong, (labels + 1) % 4, labels)
    names = np.array(list("abcd"))
    source = folder / "answers.parquet"
    pq.write_table(
        pa.table({
            "text": [f"text {number} {hashlib.sha256(str(number).encode()).hexdigest()}" for number in range(1000)],
            "label": names[labels], **{name: names[answers] for name, answers in columns.items()},
        }),
        source,
    )  # fmt: skip
    answers: dict[str, Any] = {}
    with opened(folder) as (client, daemon):
        job(
            client, "create_dataset", name="set", source=str(source), label="label", inputs=["text"],
            fractions={"train": 0.2, "validation": 0.1, "test": 0.7},
        )  # fmt: skip

        def evaluated() -> None:
            models = [f"column:{name}" for name in columns]
            started = client.call("evaluate_models", models=models, dataset="set", latency=False)
            ended = client.wait(started["job"])
            assert ended.result
            answers["evaluation"] = ended.result["evaluation"]

        def described() -> None:
            answers["described"] = client.call("describe_evaluation", evaluation=answers["evaluation"])

        def all_of_them() -> None:
            answers["all"] = client.call(
                "describe_evaluation", evaluation=answers["evaluation"], show=["all_models"], page=True
            )

        found = {"evaluate_models": Line(daemon.cost(evaluated))}
        for what, act, answer in (
            ("describe_evaluation", described, "described"),
            ("describe_evaluation, all models and the page", all_of_them, "all"),
        ):
            cost = daemon.cost(act)
            found[what] = Line(cost, None, len(json.dumps(dict(answers[answer]))) // 4)
        return found


def report(kind: str, sizes: Sequence[int], found: Sequence[Lines]) -> None:
    for what in found[0]:
        for size, lines in zip(sizes, found, strict=True):
            ours, theirs, tokens = lines[what]
            text = f"{kind} {size:>10,}  {what:46} {ours.cpu:8.2f} CPU s {ours.wall:8.2f} s {ours.peak:7.0f} MB"
            if theirs:
                times = ours.cpu / max(theirs.cpu, 1e-3)
                text += f"   peer {theirs.cpu:7.2f} CPU s {theirs.wall:7.2f} s, ratio {times:6.1f}"
            print(text + (f"   {tokens} tokens" if tokens else ""), flush=True)
        if len(sizes) > 1:
            grown = [math.log(max(lines[what].ours.cpu, 0.01)) for lines in (found[0], found[-1])]
            print(f"{'':19} exponent {(grown[1] - grown[0]) / math.log(sizes[-1] / sizes[0]):.2f}")
        ours, theirs, _ = found[-1][what]
        mine, other = [ours.cpu], [theirs.cpu] if theirs else None
        peer = "" if theirs is None else "DuckDB" if kind == "rows" else "Pillow"
        note(f"{what}, {sizes[-1]:,} {kind}", mine, other, unit="CPU s", peer=peer)


_KINDS: Mapping[str, Callable[[Path, int], Lines]] = {"rows": of_rows, "images": of_images, "models": of_models}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--models", type=int, nargs="*", default=[20, 100])
    given = vars(parser.parse_args())
    for kind, measure in _KINDS.items():
        found = []
        for size in given[kind]:
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(Path(folder), size))
            print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
        if found:
            report(kind, given[kind], found)


if __name__ == "__main__":
    main()
