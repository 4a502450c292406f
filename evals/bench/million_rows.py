"""A table of a million rows: ask it, add 1 %, compare versions, split it. Ours beside what a user would pick.

Peers on the same rows in the same run, interleaved, medians of the rounds: HF `datasets` (query with filter and
group-by over its Arrow table in pandas-free pyarrow, adding 1 % by `concatenate_datasets` and `save_to_disk`), and
scikit-learn's GroupShuffleSplit, which neither stratifies nor knows near-duplicates. Ours answers through a sandboxed
service process, as `query_dataset` does.

    python evals/bench/million_rows.py [--rows 1000000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.model_selection import GroupShuffleSplit

from speciate.datasets import next_version
from speciate.datasets.inspect import describe
from speciate.datasets.inspect.query import query
from speciate.datasets.next_version import SealedVersion
from speciate.datasets.splits import assign_splits, count_leaks, members_of
from speciate.datasets.versions import Manifest
from speciate.jobs.pool import Pool
from speciate.settings import Settings
from speciate.workspace.workspace import Folders

SQL = "SELECT city, label, count(*), avg(x0) FROM examples WHERE x1 > 0.5 AND quality = 'ok' GROUP BY ALL"


def rows(first: int, count: int, chance: np.random.Generator) -> pa.Table:
    """A table as ingest makes it: five numbers, a city, a label of ten; groups of ten rows."""
    keys = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(first, first + count)]
    text = pa.string()
    return pa.table(
        {
            "id": [f"ex-{key[:20]}" for key in keys],
            "split": pa.array(chance.choice(["train", "validation", "test"], count, p=[0.7, 0.15, 0.15]), text),
            "label": pa.array(chance.choice(list("abcdefghij"), count), text),
            "group_key": pa.array([f"g{i // 10}" for i in range(first, first + count)], text),
            "quality": pa.array(["ok"] * count, text),
            "reason": pa.nulls(count, text),
            "source": [f"table.csv#{i + 1}" for i in range(first, first + count)],
            "_content": keys,
            "_fingerprint": keys,
            "_key": keys,
            **{f"x{i}": chance.normal(size=count).round(3) for i in range(5)},
            "city": pa.array(chance.choice([f"city {i}" for i in range(100)], count), text),
        }
    )


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(what: str, mine: list[float], theirs: list[float], peer: str) -> None:
    ours, other = statistics.median(mine), statistics.median(theirs)
    print(f"{what:34}{ours:9.3f} s   {peer}: {other:8.3f} s   ratio {ours / other:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    count, rounds = arguments.rows, arguments.rounds
    chance = np.random.default_rng(0)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {count:,} rows, medians of {rounds} rounds")
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as root:
        folders = Folders(Path(root) / "workspace")
        folders.make()
        theirs_at = Path(root) / "hf"
        base, added = rows(0, count, chance), rows(count, count // 100, chance)
        empty = Manifest(name="set", version=0, id="", modality="tabular", parts=(), columns={}, label="label", rows=0)
        first = next_version.seal_first(folders, base, empty)
        hf = datasets.Dataset(base)
        hf.save_to_disk(theirs_at / "0")
        asking(folders, first, theirs_at / "0", rounds)
        second = adding(folders, first, added, hf, theirs_at, rounds)
        comparing(folders, first.manifest, second.manifest, rounds)
        splitting(base, rounds)


def asking(folders: Folders, first: SealedVersion, theirs: Path, rounds: int) -> None:
    pool = Pool(folders, Settings())
    stored = datasets.load_from_disk(str(theirs))

    def ours() -> None:
        query(pool, folders, first.manifest, sql=SQL, limit=1000)

    def other() -> None:
        table = stored.data.table
        chosen = table.filter(pc.and_(pc.greater(table["x1"], 0.5), pc.equal(table["quality"], "ok")))
        chosen.group_by(["city", "label"]).aggregate([([], "count_all"), ("x0", "mean")])

    ours()
    pairs = [(seconds(ours), seconds(other)) for _ in range(3 * rounds)]
    report("filter and group-by", *map(list, zip(*pairs, strict=True)), "HF datasets, its Arrow table")
    pool.close()


def adding(
    folders: Folders, first: SealedVersion, added: pa.Table, hf: datasets.Dataset, theirs: Path, rounds: int
) -> SealedVersion:
    pairs, second, before = [], first, size(folders.datasets)
    for number in range(1, rounds + 1):
        began = time.perf_counter()
        second = next_version.seal_appended(folders, first.manifest, first.lanes, added)
        mine = time.perf_counter() - began
        more = size(folders.datasets) - before
        if number < rounds:  # the same rows seal the same file: take it away, so that it is written again
            (folders.root / second.manifest.parts[-1].file).unlink()

        def other(target: Path = theirs / str(number)) -> None:
            datasets.concatenate_datasets([hf, datasets.Dataset(added)]).save_to_disk(target)

        pairs.append((mine, seconds(other)))
        theirs_more = size(theirs / str(number))
        shutil.rmtree(theirs / str(number))
    report("seal 1 % more", *map(list, zip(*pairs, strict=True)), "HF save_to_disk")
    print(f"    bytes more: ours {more / before:.2%}, HF datasets {theirs_more / size(theirs / '0'):.0%}")
    return second


def comparing(folders: Folders, first: Manifest, second: Manifest, rounds: int) -> None:
    pool = Pool(folders, Settings())
    describe.ask_for_difference(pool, folders, first, second)
    times = [seconds(lambda: describe.ask_for_difference(pool, folders, first, second)) for _ in range(3 * rounds)]
    print(f"{'difference of the two versions':34}{statistics.median(times):9.3f} s   (no peer has one)")
    pool.close()


def splitting(base: pa.Table, rounds: int) -> None:
    def plain() -> None:
        groups = np.asarray(base["group_key"].combine_chunks().dictionary_encode().indices)
        next(GroupShuffleSplit(1, test_size=0.3, random_state=0).split(groups, groups=groups))

    pairs = [(seconds(lambda: assign_splits(members_of(base, "tabular"))), seconds(plain)) for _ in range(rounds)]
    report("split by group, stratified", *map(list, zip(*pairs, strict=True)), "GroupShuffleSplit")
    members = members_of(base, "tabular")
    assert count_leaks(members, assign_splits(members)) == (0, 0, 0)


if __name__ == "__main__":
    main()
