"""Ingest beside a bare decode and sha256 by as many processes, and beside Hugging Face `datasets`, on one folder.

The folder holds JPEGs of 256 x 256: crops of scikit-learn's two photographs with noise, in ten folders of classes.
`job` is a whole job, from the call to its end, with the start of its worker and the commit; `run` is what the worker
does. Bare: a pool of as many processes as ingest has, each decoding to RGB with Pillow and hashing the file's bytes.
`datasets`: imagefolder into an empty cache, then every image decoded, with as many processes. Rounds are interleaved,
figures are medians of times and of the ratios within each round.

    python evals/bench/ingest.py [--files 10000] [--rounds 3] [--without-datasets]
    python evals/bench/ingest.py --memory 100000     peak memory of a whole ingest's processes, small pictures
    python evals/bench/ingest.py --rows 1000000      a table of seven columns, as CSV and as Parquet
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from figures import note
from PIL import Image
from pyarrow import csv
from sklearn.datasets import load_sample_images

from speciate.datasets.ingest import ingest
from speciate.datasets.ingest.ingest import IngestSpec
from speciate.environment import cores
from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace

SIDE, CLASSES, QUALITY = 256, 10, 85


def make_jpegs(folder: Path, count: int, side: int = SIDE) -> None:
    """`folder/CLASS/N.jpg`; no two alike."""
    photos, chance = load_sample_images().images, np.random.default_rng(0)
    for i in range(count):
        photo = photos[i % len(photos)]
        top, left = (int(chance.integers(0, limit - side)) for limit in photo.shape[:2])
        noisy = photo[top : top + side, left : left + side] + chance.normal(0, 6, (side, side, 3))
        path = folder / str(i % CLASSES) / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)


def decode_and_hash(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB")
    return hashlib.sha256(data).hexdigest()


def bare(folder: Path) -> None:
    with multiprocessing.Pool(cores()) as pool:
        pool.map(decode_and_hash, sorted(map(str, folder.rglob("*.jpg"))), chunksize=64)


def as_job(engine: Engine, **spec: Any) -> dict[str, Any]:
    job = engine.submit("ingest", spec)
    ended = engine.wait(job.id, timeout=3600)
    assert ended.state == "succeeded", ended.error
    return ended.result or {}


def as_run(workspace: Workspace, folder: Path, **spec: Any) -> None:
    """In this process, as the worker does it."""
    plan = ingest.plan(IngestSpec(**spec), workspace)
    run = RunFolder(folder)
    run.create(
        {
            "payload": json.loads(plan.model_dump_json())["payload"],
            "job": "job-bench",
            "workspace": str(workspace.folders.root),
        }
    )
    ingest.run(Run(run))


def with_datasets(folder: Path, cache: Path) -> None:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    loaded = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(cache), num_proc=cores())
    loaded.map(lambda row: {"mode": row["image"].convert("RGB").mode}, remove_columns=["image"], num_proc=cores())


def seconds(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def one_round(root: Path, folder: Path, number: int, *, datasets: bool) -> dict[str, float]:
    """Seconds of each side."""
    place = root / f"round-{number}"
    workspace = Workspace(place / "workspace", settings=Settings(policy="auto"))
    engine = Engine(workspace)
    engine.start()
    spec: dict[str, Any] = {"source": str(folder), "label": "folder"}
    taken = {
        "bare": seconds(lambda: bare(folder)),
        "job": seconds(lambda: as_job(engine, name="pictures", **spec)),
        "run": seconds(lambda: as_run(workspace, place / "run", name="again", **spec)),
    }
    if datasets:
        taken["datasets"] = seconds(lambda: with_datasets(folder, place / "cache"))
    engine.stop()
    workspace.close()
    shutil.rmtree(place)
    return taken


def compare(root: Path, files: int, rounds: int, *, datasets: bool) -> None:
    folder = root / "pictures"
    make_jpegs(folder, files)
    pairs = [one_round(root, folder, number, datasets=datasets) for number in range(rounds)]
    times = {name: [taken[name] for taken in pairs] for name in pairs[0]}
    for name, taken in times.items():
        ratio = statistics.median(other / own for other, own in zip(times["bare"], taken, strict=True))
        middle = statistics.median(taken)
        print(f"{name:9} {middle:6.2f} s, {files / middle:7.0f} files/s, {ratio:.2f} x bare")
        if name in {"job", "run"}:
            for peer in times.keys() - {"job", "run"}:
                ours, theirs = ([files / each for each in times[one]] for one in (name, peer))
                goal = 0.95 if (name, peer) == ("run", "bare") else None
                note(f"ingest of {files:,} JPEG, {name}", ours, theirs, unit="files/s", peer=peer, goal=goal, more=True)


class Peak:
    """The most memory that this process's descendants and what it grew by held at once, in bytes."""

    def __init__(self) -> None:
        self._me, self.bytes, self._over = psutil.Process(), 0, threading.Event()
        self._before = self._me.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            total = max(0, self._me.memory_info().rss - self._before)
            for child in self._me.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    continue
            self.bytes = max(self.bytes, total)

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        return self.bytes / 2**20


def measured(root: Path, name: str, **spec: Any) -> None:
    """One whole job, with its peak memory."""
    workspace = Workspace(root / f"workspace-{name}", settings=Settings(policy="auto"))
    engine = Engine(workspace)
    engine.start()
    peak = Peak()
    taken = seconds(lambda: as_job(engine, name=name, **spec))
    print(f"{name}: {taken:.1f} s, peak {peak.stop():.0f} MiB in all processes")
    engine.stop()
    workspace.close()


def make_table(count: int) -> pa.Table:
    chance = np.random.default_rng(0)
    columns = {f"x{i}": chance.normal(size=count).round(4) for i in range(4)}
    return pa.table(
        {
            **columns,
            "city": chance.choice(["Oslo", "Lima", "Pune", "Kyiv"], count),
            "visits": chance.integers(0, 500, count),
            "kind": chance.choice(["a", "b", "c"], count),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-datasets", action="store_true")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--rows", type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        print(f"load {os.getloadavg()[0]:.1f}, {cores()} cores")
        if asked.memory:
            make_jpegs(root / "small", asked.memory, side=16)
            measured(root, "small", source=str(root / "small"), label="folder")
        elif asked.rows:
            table = make_table(asked.rows)
            csv.write_csv(table, root / "table.csv")
            pq.write_table(table, root / "table.parquet")
            for suffix in ("csv", "parquet"):
                measured(root, suffix, source=str(root / f"table.{suffix}"), label="kind")
        else:
            compare(root, asked.files, asked.rounds, datasets=not asked.without_datasets)


if __name__ == "__main__":
    main()
