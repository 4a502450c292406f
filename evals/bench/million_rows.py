"""A table of a million rows: write it, add 1 %, take 1 % away, ask it, compare versions, split it. Ours beside peers.

Peers have the same rows in the same run, and the arms of a line take turns: Lance (pylance), HF `datasets`, plain
DuckDB on our own sealed files (in this process, with all cores and with one), and GroupShuffleSplit, which
neither stratifies nor knows near-duplicates. Ours answers through a sandboxed service process, as `query_dataset` does,
with the digests of files checked when they are first read, and takes rows away by the run of `curate_dataset`.
What ours writes is synced to disk; what peers write is not.

    pip install pylance    # into the environment that runs this; without it that arm is left out
    python evals/bench/million_rows.py [--rows 1000000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import datasets
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from figures import note
from sklearn.model_selection import GroupShuffleSplit

from speciate.datasets import curate, next_version, version_rows
from speciate.datasets.content_hash import pack_lanes
from speciate.datasets.inspect import describe
from speciate.datasets.inspect.query import query
from speciate.datasets.next_version import SealedVersion
from speciate.datasets.splits import assign_splits, count_leaks, members_of
from speciate.datasets.versions import Manifest
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.settings import Settings
from speciate.workspace.workspace import Folders

try:
    import lance
except ImportError:
    lance = None

Arm = Callable[[], object]
OURS, LANCE, DUCK, DUCK_1, HF = "speciate", "Lance", "DuckDB", "DuckDB, one thread", "HF datasets"
GONE = "x4 > 2.4"
PAGE = 20
_NOTHING: Mapping[str, Arm] = MappingProxyType({})


class Question(NamedTuple):
    """The same question to everybody."""

    what: str
    sql: str
    """Over `examples`."""
    where: str | None
    """For a scan: the condition that is in the SQL."""
    finish: Callable[[pa.Table], object]
    """What a scan's rows still need."""
    columns: tuple[str, ...] | None = None


def grouped(table: pa.Table) -> object:
    return table.group_by(["city", "label"]).aggregate([([], "count_all"), ("x0", "mean")])


def questions(id_: str) -> list[Question]:
    group = "x1 > 0.5 AND quality = 'ok'"
    return [
        Question(
            "filter and group",
            f"SELECT city, label, count(*), avg(x0) FROM examples WHERE {group} GROUP BY ALL",
            group,
            grouped,
            ("city", "label", "x0"),
        ),
        Question("where, 1 in 740", "SELECT * FROM examples WHERE x1 > 3", "x1 > 3", len),
        Question("where, 1 in 20,000", "SELECT * FROM examples WHERE x1 > 3.9", "x1 > 3.9", len),
        Question("where id", f"SELECT * FROM examples WHERE id = '{id_}'", f"id = '{id_}'", len),
        Question("average", "SELECT avg(x2) FROM examples", None, lambda t: pc.mean(t["x2"]), ("x2",)),
    ]


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


class Cost(NamedTuple):
    wall: float
    cpu: float
    """Of this process."""


def cost(function: Arm) -> Cost:
    cpu, began = time.process_time(), time.perf_counter()
    function()
    return Cost(time.perf_counter() - began, time.process_time() - cpu)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(
    what: str,
    rounds: int,
    arms: Mapping[str, Arm],
    *,
    cpu: bool = False,
    before: Mapping[str, Arm] = _NOTHING,
    goals: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """The arms take turns, and begin with another one in each round. A ratio is the median of those of the rounds.

    `before`: what is done before an arm, and not timed. `goals`: peer -> the most that ours may take, in its times.
    """
    found: dict[str, list[Cost]] = {name: [] for name in arms}
    names = list(arms)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name in before:
                before[name]()
            found[name].append(cost(arms[name]))
    print(what)
    for name, costs in found.items():
        wall = statistics.median(each.wall for each in costs)
        line = f"    {name:20}{1000 * wall:9.1f} ms"
        if cpu:
            line += f"  cpu {1000 * statistics.median(each.cpu for each in costs):9.1f} ms"
        if name != OURS and OURS in found:
            line += f"   ours / it {ratio([each.wall for each in found[OURS]], [each.wall for each in costs])}"
            if cpu:
                line += f", cpu {ratio([each.cpu for each in found[OURS]], [each.cpu for each in costs])}"
        print(line, flush=True)
        if name != OURS and OURS in found:
            ours, theirs = ([1000 * (each.cpu if cpu else each.wall) for each in found[one]] for one in (OURS, name))
            unit = "ms of CPU" if cpu else "ms"
            note(what, ours, theirs, unit=unit, peer=name, goal=goals.get(name))


def ratio(mine: list[float], theirs: list[float]) -> str:
    each = sorted(a / max(b, 1e-9) for a, b in zip(mine, theirs, strict=True))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["write", "ask", "compare", "split"])
    arguments = parser.parse_args()
    count, rounds = arguments.rows, arguments.rounds
    chance = np.random.default_rng(0)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {count:,} rows, {rounds} rounds, (least to most)")
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as root:
        folders = Folders(Path(root) / "workspace")
        folders.make()
        base, added = rows(0, count, chance), rows(count, count // 100, chance)
        history = writing(folders, Path(root), base, added, rounds if "write" in arguments.only else 1)
        if "ask" in arguments.only:
            asking(folders, history, Path(root), 3 * rounds)
        if "compare" in arguments.only:
            comparing(folders, history, rounds)
        if "split" in arguments.only:
            splitting(base, rounds)


def writing(folders: Folders, root: Path, base: pa.Table, added: pa.Table, rounds: int) -> list[SealedVersion]:
    """The versions: all, 1 % more, and without some of them. Each write is into a folder of its own."""
    empty = Manifest(name="set", version=0, id="", modality="tabular", parts=(), columns={}, label="label", rows=0)
    number = itertools.count()
    history = list[SealedVersion]()

    def fresh(kind: str) -> Path:
        return root / f"{kind}-{next(number)}"

    def ours() -> None:
        history[:] = [next_version.seal_first(folders, base, empty)]

    def plain() -> None:
        pq.write_table(base, fresh("parquet"), compression="zstd")

    arms: dict[str, Arm] = {OURS: ours}
    if lance is not None:
        arms[LANCE] = lambda: lance.write_dataset(base, fresh("lance"))
    arms |= {HF: lambda: datasets.Dataset(base).save_to_disk(fresh("hf")), "Parquet alone": plain}
    clear = {OURS: lambda: shutil.rmtree(folders.datasets / "set", ignore_errors=True)}
    measure("write all rows", rounds, arms, cpu=True, before=clear, goals={LANCE: 3.0})
    made = {OURS: folders.datasets} | {kind: each for kind in ("lance", "hf") for each in root.glob(f"{kind}-*")}
    print("    MB: " + ", ".join(f"{name} {size(path) / 1e6:.0f}" for name, path in made.items()))
    (first,) = history
    hf = datasets.Dataset(base)

    def forget(number: int) -> None:
        """The same rows seal the same file: it is to be written again."""
        for part in history[number].manifest.parts if number < len(history) else ():
            if part not in history[number - 1].manifest.parts:
                (folders.root / (part.removed or part.file)).unlink()

    def append() -> None:
        history[1:] = [next_version.seal_appended(folders, first.manifest, first.lanes, added)]

    appending: dict[str, Arm] = {OURS: append}
    if lance is not None:
        lance.write_dataset(base, root / "rows.lance")
        appending[LANCE] = lambda: lance.write_dataset(added, root / "rows.lance", mode="append")
    appending[HF] = lambda: datasets.concatenate_datasets([hf, datasets.Dataset(added)]).save_to_disk(fresh("hf"))
    measure("1 % more", rounds, appending, cpu=True, before={OURS: lambda: forget(1)}, goals={LANCE: 2.0})
    if lance is not None:  # once, so that both have the same versions
        shutil.rmtree(root / "rows.lance")
        lance.write_dataset(base, root / "rows.lance")
        lance.write_dataset(added, root / "rows.lance", mode="append")

    second = history[1]

    def take() -> None:
        """The run of `curate_dataset` with one step: its process, the condition, the report and the new version."""
        folder = RunFolder(folders.runs / f"job_filter.{next(number)}")
        step = {"op": "filter", "where": f"NOT ({GONE})"}
        payload = curate.Payload(
            manifest=second.manifest, lanes=pack_lanes(second.lanes).hex(), report={}, steps=(step,), checked=1,
            others={}, models={}, onto=None, cage=Settings().cage,
        )  # fmt: skip
        folder.create({
            "job": "job_filter", "kind": "curate", "attempt": 1, "entry": curate.KIND.run,
            "payload": payload.model_dump(mode="json"), "workspace": str(folders.root),
        })  # fmt: skip
        made = next_version.unpack_version(curate.run(Run(folder)))
        history[2:] = [SealedVersion(made.manifest, made.lanes)]

    def put_back() -> None:
        lance.dataset(root / "rows.lance", version=2).restore()

    taking: dict[str, Arm] = {OURS: take}
    if lance is not None:
        taking[LANCE] = lambda: lance.dataset(root / "rows.lance").delete(GONE)
    measure("0.8 % less by a step", rounds, taking, before={OURS: lambda: forget(2), LANCE: put_back})
    if lance is not None:
        assert lance.dataset(root / "rows.lance").count_rows() == history[2].manifest.rows
    return history


def asking(folders: Folders, history: list[SealedVersion], root: Path, rounds: int) -> None:
    """Each question to the first version (all rows in one file) and to the newest (an added file, removed rows)."""
    pool = Pool(folders, Settings())
    all_cores, one_core = duckdb.connect(), duckdb.connect(config={"threads": 1})
    ids = version_rows.read(folders, history[0].manifest, ["id"])["id"]
    for name, sealed, number in (("first version", history[0], 1), ("newest version", history[-1], None)):
        manifest = sealed.manifest.model_copy(update={"version": number or len(history)})
        source = version_rows.relation(folders, manifest)
        stored = lance.dataset(root / "rows.lance", version=number) if lance is not None else None
        for asked in questions(ids[len(ids) // 3].as_py()):
            scan = all(word not in asked.sql for word in ("GROUP", "avg"))
            sql = asked.sql.replace("examples", source) + (f" LIMIT {PAGE}" if scan else "")

            def lances(asked: Question = asked, scan: bool = scan, stored: Any = stored) -> None:
                columns = list(asked.columns) if asked.columns else None
                asked.finish(stored.to_table(columns=columns, filter=asked.where, limit=PAGE if scan else None))

            def ours(sql: str = asked.sql, manifest: Manifest = manifest, scan: bool = scan) -> None:
                query(pool, folders, manifest, sql=sql, limit=PAGE if scan else 1000, whole=True)

            arms: dict[str, Arm] = {
                OURS: ours,
                DUCK: lambda sql=sql: all_cores.execute(sql).fetchall(),
                DUCK_1: lambda sql=sql: one_core.execute(sql).fetchall(),
            }
            if stored is not None:
                arms[LANCE] = lances
            ours()
            measure(f"{asked.what}, {name}", rounds, arms, goals={DUCK: 1.5})
    pool.close()


def comparing(folders: Folders, history: list[SealedVersion], rounds: int) -> None:
    pool = Pool(folders, Settings())
    first, second = (
        each.manifest.model_copy(update={"version": number + 1}) for number, each in enumerate(history[:2])
    )

    def ours() -> None:
        describe.ask_for_difference(pool, folders, first, second)

    ours()
    measure("difference of two versions (no peer has one)", 3 * rounds, {OURS: ours})
    pool.close()


def splitting(base: pa.Table, rounds: int) -> None:
    def plain() -> None:
        groups = np.asarray(base["group_key"].combine_chunks().dictionary_encode().indices)
        next(GroupShuffleSplit(1, test_size=0.3, random_state=0).split(groups, groups=groups))

    ours: Arm = lambda: assign_splits(members_of(base, "tabular"))  # noqa: E731
    measure("split by group, stratified", rounds, {OURS: ours, "GroupShuffleSplit": plain})
    members = members_of(base, "tabular")
    assert count_leaks(members, assign_splits(members)) == (0, 0, 0)


if __name__ == "__main__":
    main()
