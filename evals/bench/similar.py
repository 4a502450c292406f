"""Similar examples at 100,000 x 384, and duplicates by embedding at 20,000 x 384, beside bare numpy on the same.

`find_similar` is timed as the daemon's side does it: a question to a sandboxed process that reads cached Parquet. The
first
answer starts that process and reads the vectors; the peer loads a .npy file for it. Later ones are one product of a
matrix and a vector on both sides. Rounds are interleaved; figures are medians. The vectors are random: nothing about
recall is measured, which needs no measuring where the search is exact.

    python evals/bench/similar.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from figures import note

from speciate import features
from speciate.datasets import next_version, version_rows, versions
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, START, STOP
from speciate.datasets.operations.deduplicate import _normalise
from speciate.datasets.similarity import embed, extractors, nearest_neighbours
from speciate.datasets.similarity.near_duplicates import leaders_by_cosine
from speciate.datasets.similarity.nearest_neighbours import NeighbourQuery
from speciate.datasets.versions import Manifest
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace

WIDTH = 384
MANY, FEW = 100_000, 20_000
THRESHOLD = 0.9

Vectors = npt.NDArray[np.float32]


def version(workspace: Workspace, count: int) -> Manifest:
    """A version of so many texts, its vectors random and in the cache."""
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    texts, whole = pa.nulls(count, pa.string()), pa.nulls(count, pa.float64())
    rows = pa.table(
        {
            "id": [f"ex-{digest[:10]}" for digest in digests],
            "split": ["train"] * count,
            "label": ["a"] * count,
            "group_key": texts,
            "quality": ["ok"] * count,
            "reason": texts,
            "source": [f"rows#{number}" for number in range(count)],
            CONTENT: digests,
            FINGERPRINT: digests,
            KEY: digests,
            START: whole,
            STOP: whole,
            "text": [f"text {number}" for number in range(count)],
        }
    )
    about = Manifest(
        name=f"texts-{count}", version=0, id="", modality="text", parts=(), columns={}, inputs=("text",), rows=0
    )
    sealed = next_version.seal_first(workspace.folders, rows, about)
    vectors = np.random.default_rng(0).standard_normal((count, WIDTH), dtype=np.float32)
    vectors[count // 2 : count // 2 + count // 10] = vectors[: count // 10] + 0.01  # a tenth has a near copy
    features.write(workspace.folders, extractors.load("descriptor", "text", workspace.folders).id, digests, vectors)
    return workspace.database.transact(
        lambda tx: versions.register(tx, sealed.manifest, sealed.lanes, operation={"op": "bench"}, report={}, job=None)
    )


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare_search(units: Vectors, place: int) -> object:
    distance = 1 - units @ units[place]
    near = np.argpartition(distance, 11)[:11]
    return near[np.argsort(distance[near])]


def bare_load(file: Path, place: int) -> object:
    vectors = np.load(file)
    return bare_search(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), place)


def bare_duplicates(units: Vectors) -> int:
    """How many pairs are near: every block with every later one."""
    found = 0
    for start in range(0, len(units), 2048):
        found += int((units[start : start + 2048] @ units[start:].T >= THRESHOLD).sum())
    return found


def report(what: str, pairs: list[tuple[float, float]], goal: float | None = None) -> None:
    ours, bare = ([1000 * each for each in side] for side in zip(*pairs, strict=True))
    found = note(what, ours, bare, unit="ms", peer="numpy", goal=goal)
    print(f"{what:38} speciate {found.ours:7.0f} ms, numpy {found.theirs:7.0f} ms, ratio {found.ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--few", type=int, default=FEW)
    given = parser.parse_args()
    rounds: int = given.rounds
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace", settings=Settings())
        engine = Engine(workspace)
        many, few = version(workspace, given.many), version(workspace, given.few)
        rows = version_rows.read(workspace.folders, many)
        file, ids = Path(folder) / "vectors.npy", rows["id"].to_pylist()
        vectors = embed.row_vectors(workspace.folders, many, rows)
        np.save(file, vectors)
        units = _normalise(vectors)

        def search(pool: Pool, place: int) -> None:
            nearest_neighbours.find_neighbours(
                engine, pool, many, NeighbourQuery(ids[place], None, "descriptor", None, 10)
            )

        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {rounds} interleaved rounds, medians")
        first, later = list[tuple[float, float]](), list[tuple[float, float]]()
        for number in range(rounds):
            pool = Pool(workspace.folders, workspace.settings)
            first.append((seconds(lambda p=pool, n=number: search(p, n)), seconds(lambda n=number: bare_load(file, n))))
            for place in range(20):
                later.append(
                    (seconds(lambda p=pool, n=place: search(p, n)), seconds(lambda n=place: bare_search(units, n)))
                )
            pool.close()
        report(f"find_similar, {given.many:,}, first", first, 1.5)
        report(f"find_similar, {given.many:,}, repeated", later, 1.5)

        fewer = version_rows.read(workspace.folders, few)
        order = list(range(given.few))

        def deduplicate() -> None:
            leaders_by_cosine(order, _normalise(embed.row_vectors(workspace.folders, few, fewer)), THRESHOLD)

        held = _normalise(embed.row_vectors(workspace.folders, few, fewer))
        report(
            f"duplicates by embedding, {given.few:,}",
            [(seconds(deduplicate), seconds(lambda: bare_duplicates(held))) for _ in range(rounds)],
        )
        engine.stop()
        workspace.close()


if __name__ == "__main__":
    main()
