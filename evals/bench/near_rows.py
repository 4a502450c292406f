"""Near-duplicates of rows and series: how many jittered copies are found, how many ordinary rows are taken for copies,
and what it costs.

    python evals/bench/near_rows.py [ROWS]      # default 100,000

The cost is that of validating the rows of a table and of splitting them, in this process, with and without sketches in
interleaved pairs. Reading the file and sealing the version, which take as long in both arms, are left out.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn import datasets

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, SKETCH
from speciate.datasets.ingest.row_validation import row_verdicts
from speciate.datasets.similarity.near_duplicates import clusters
from speciate.datasets.splits import split_rows
from speciate.modalities.row_similarity import ROWS, sketch_row
from speciate.modalities.series_similarity import SERIES, sketch_series
from speciate.modalities.tabular import TABULAR

Numbers = npt.NDArray[np.float64]
_COPIES, _PAIRS = 200, 5


def row_codes(rows: Numbers) -> list[bytes]:
    return [sketch_row({f"x{at}": x for at, x in enumerate(row)}) or b"" for row in rows.tolist()]


def series_codes(series: Numbers) -> list[bytes]:
    return [sketch_series(each.astype(np.float32)) or b"" for each in series]


def taken_for_copies(codes: list[bytes], pairs: Callable[[list[bytes]], npt.NDArray[np.int64]]) -> float:
    """The share of different media that are near another."""
    distinct = sorted(set(codes))
    return len(np.unique(pairs(distinct))) / len(distinct)


def found(codes: list[bytes], originals: list[int], pairs: Callable[[list[bytes]], npt.NDArray[np.int64]]) -> float:
    """The share of copies, which are the last of `codes`, that are in one cluster with their originals."""
    distinct = sorted(set(codes))
    place = {code: at for at, code in enumerate(distinct)}
    cluster = clusters(len(distinct), pairs(distinct))
    copies = codes[len(codes) - len(originals) :]
    alike = [cluster[place[codes[at]]] == cluster[place[copy]] for at, copy in zip(originals, copies, strict=True)]
    return float(np.mean(alike))


def report_rows(name: str, rows: Numbers) -> None:
    chance = np.random.default_rng(0)
    count = min(_COPIES, len(rows) // 2)
    shares = []
    for jitter in (0.001, 0.003, 0.01):
        originals = chance.choice(len(rows), count, replace=False)
        copies = rows[originals] + chance.normal(size=(count, rows.shape[1])) * jitter * rows.std(axis=0)
        shares.append(found(row_codes(np.concatenate([rows, copies])), originals.tolist(), ROWS.pairs))
    taken = taken_for_copies(row_codes(rows), ROWS.pairs)
    print(f"{name:28} {rows.shape!s:13} taken {taken:.4f}   found at 0.1, 0.3, 1 %: {[round(x, 3) for x in shares]}")


def report_series(name: str, series: Numbers) -> None:
    chance = np.random.default_rng(0)
    originals = chance.choice(len(series), _COPIES, replace=False)
    taken, spread = series[originals], series[originals].std(axis=2, keepdims=True)
    shares = []
    for jitter, low, high in ((0.01, 0, None), (0.05, 0, None), (0.01, 12, 110), (0.01, 30, 100)):
        copies = (taken + chance.normal(size=taken.shape) * jitter * spread)[:, :, low:high]
        shares.append(found(series_codes(series) + series_codes(copies), originals.tolist(), SERIES.pairs))
    wrong = taken_for_copies(series_codes(series), SERIES.pairs)
    print(f"{name:28} {series.shape!s:13} taken {wrong:.4f}   found at 1, 5 %, excerpts of 77, 55 %: "
          f"{[round(x, 3) for x in shares]}")  # fmt: skip


def seconds(table: pa.Table, *, sketched: bool) -> float:
    """Of processor time, for validating and splitting. `sketched`: near-copies are looked for."""
    started = time.process_time()
    verdicts = row_verdicts(table, TABULAR.name, table.column_names)
    count = table.num_rows
    rows = pa.table({
        "id": verdicts["key"], "split": pa.nulls(count, pa.string()), "label": pa.nulls(count, pa.string()),
        "group_key": pa.nulls(count, pa.string()), "quality": verdicts["quality"], "source": verdicts["key"],
        CONTENT: verdicts["content"], FINGERPRINT: verdicts["fingerprint"], KEY: verdicts["key"],
        SKETCH: verdicts["sketch"] if sketched else pa.nulls(count, pa.binary()),
    })  # fmt: skip
    split_rows(rows, TABULAR.name)
    return time.process_time() - started


def main() -> None:
    chance = np.random.default_rng(1)
    for name in ("iris", "wine", "diabetes", "breast_cancer", "digits"):
        report_rows(name, getattr(datasets, f"load_{name}")().data.astype(np.float64))
    for width, count in ((1, 2000), (2, 2000), (3, 2000), (4, 2000), (4, 20_000), (8, 20_000)):
        report_rows(f"normal, {width} columns", chance.normal(size=(count, width)))
    report_rows("whole numbers to 100", chance.integers(0, 100, (20_000, 4)).astype(np.float64))
    time_ = np.arange(128)
    waves = np.sin(time_ * np.where(np.arange(1000) % 2, 0.2, 0.35)[:, None] + chance.uniform(0, 6, (1000, 1)))
    report_series("two sines in noise of 0.2", (waves + chance.normal(size=waves.shape) * 0.2)[:, None])
    report_series("one of two templates, 0.1", (np.sin(time_ * np.where(np.arange(1000) % 2, 0.2, 0.35)[:, None])
                                                + chance.normal(size=waves.shape) * 0.1)[:, None])  # fmt: skip
    report_series("random walks", np.cumsum(chance.normal(size=(1000, 1, 128)), axis=2))
    report_series("sines without noise", np.sin(time_ * chance.uniform(0.1, 0.5, (1000, 1)) + 1)[:, None])
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    table = pa.table({f"x{at}": chance.normal(size=count) for at in range(8)}
                     | {"kind": chance.choice(["a", "b", "c"], count)})  # fmt: skip
    ratios = []
    for _ in range(_PAIRS):
        with_, without = seconds(table, sketched=True), seconds(table, sketched=False)
        ratios.append(with_ / without)
        print(f"{count:,} rows: {with_:.2f} s with sketches, {without:.2f} s without, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
