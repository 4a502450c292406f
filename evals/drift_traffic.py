"""Whether the detectors of `monitor` are quiet under traffic whose rows depend on each other, and how soon they see a
change.

    python evals/drift_traffic.py run OUT.jsonl [SEEDS [FEWER [PROCESSES]]]    resumes where OUT ends
    python evals/drift_traffic.py show OUT.jsonl                               the tables

Each stream (drift_streams.py) has twelve weekly windows; the first is the reference. On the same streams: `entity`
(the detectors with entities), `hours` (the same detectors, and nobody says who asks), `rows` (rows taken for
independent, as until now), and river's ADWIN, Page-Hinkley and KSWIN (drift_rivals.py; `PYTHONPATH` has river).
Signals: inputs (embeddings), confidence, answers, words. An alarm is that of the product: its thresholds and its
shares among signals (monitor_run.SHARES). KSWIN, and changes, take FEWER seeds: KSWIN needs half a second for what
ADWIN does in ten milliseconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from drift_rivals import by_rows, labels_by_rows, river_alarms, values_by_rows
from drift_streams import CHANGES, QUIET, REGIMES, WEEK, Week, stream

from speciate.loop.drift import evidence, shift_tests
from speciate.loop.drift.dependence import units_of
from speciate.loop.drift.kernel_features import kernel_features, whiten
from speciate.loop.monitor_run import REFERENCE, SCALAR_SHARE, SHARES
from speciate.loop.monitor_sample import SAMPLE

SIGNALS = ("inputs", "confidence", "answers", "words")
WEEKS, CHANGED_WEEKS, SINCE = 12, 20, 6
RIVER = ("ADWIN", "ADWIN, delta 1e-6", "Page-Hinkley")
SLOW = ("KSWIN, alpha 1e-4",)
CHANGED = ("independent", "entity .2")
_MONTHS = (WEEKS - 1) * 7 / 30.44
_NEVER = 99
First = dict[str, int | None]


class _Job(NamedTuple):
    regime: str
    change: str
    seed: int
    methods: tuple[str, ...]


class _Columns(NamedTuple):
    at: Any
    entity: Any
    period: Any
    values: dict[str, Any]


def _columns(weeks: Sequence[Week]) -> _Columns:
    return _Columns(
        np.concatenate([each.at for each in weeks]), np.concatenate([each.entity for each in weeks]),
        np.concatenate([np.full(len(each.at), place) for place, each in enumerate(weeks)]),
        {"inputs": np.concatenate([each.embedding for each in weeks]),
         "confidence": np.concatenate([each.confidence for each in weeks]),
         "answers": np.concatenate([each.label for each in weeks]),
         "words": np.concatenate([each.words for each in weeks])},
    )  # fmt: skip


def windows(weeks: Sequence[Week], method: str, seed: int) -> First:
    """The week of each signal's first alarm, by the test `entity`, `hours` or `rows` of each window."""
    rng, all_rows = np.random.default_rng([seed, 7]), _columns(weeks)
    looks: dict[str, list[evidence.LogFactors]] = {name: [] for name in SIGNALS}
    found: First = dict.fromkeys(SIGNALS)
    for week in range(1, len(weeks)):
        past, own = np.flatnonzero(all_rows.period < week), np.flatnonzero(all_rows.period == week)
        past, own = rng.permutation(past)[:REFERENCE], np.sort(rng.permutation(own)[:SAMPLE])
        for name, p in _p_values(all_rows, past, own, method, rng).items():
            looks[name].append(evidence.of_p(p))
            limit = evidence.threshold(WEEK, SHARES.get(name, SCALAR_SHARE))
            if found[name] is None and evidence.detector(looks[name]) >= limit:
                found[name] = week
    return found


def _p_values(rows: _Columns, past: Any, own: Any, method: str, rng: np.random.Generator) -> dict[str, float]:
    values = rows.values
    if method == "rows":
        found = {"inputs": by_rows(values["inputs"][past], values["inputs"][own], rng)}
        found |= {name: values_by_rows(values[name][past], values[name][own], rng) for name in ("confidence", "words")}
        return found | {"answers": labels_by_rows(values["answers"][past], values["answers"][own], rng)}
    both = np.concatenate([past, own])
    names = rows.entity[both] if method == "entity" else np.full(len(both), "")
    units = units_of(names, rows.at[both], rows.period[both])
    white = whiten(values["inputs"][both])
    found = {"inputs": shift_tests.largest_distance([white, kernel_features(white, rng)], units, rng).p}
    found |= {name: shift_tests.largest_gap(values[name][both], units, rng).p for name in ("confidence", "words")}
    return found | {"answers": shift_tests.share_distance(values["answers"][both], units, rng).p}


def river_windows(weeks: Sequence[Week], names: tuple[str, ...]) -> dict[str, First]:
    first = weeks[0]
    centre = first.embedding.mean(0)
    axes = np.linalg.svd(first.embedding - centre, full_matrices=False)[2][:3]
    period = np.concatenate([np.full(len(each.at), place) for place, each in enumerate(weeks[1:], 1)])
    found: dict[str, First] = {name: dict.fromkeys(SIGNALS) for name in names}

    def take(signal: str, parts: list[Any]) -> None:
        alarms = river_alarms(parts[0].astype(float), np.concatenate(parts[1:]).astype(float), period, names)
        for name, week in alarms.items():
            if week is not None:
                found[name][signal] = min(week, found[name][signal] or _NEVER)

    for axis in axes:
        take("inputs", [(each.embedding - centre) @ axis for each in weeks])
    take("confidence", [each.confidence for each in weeks])
    take("answers", [each.label for each in weeks])
    take("words", [each.words for each in weeks])
    return found


def one(job: _Job) -> dict[str, Any]:
    change = CHANGES.get(job.change, QUIET)
    weeks = stream(REGIMES[job.regime], job.seed, WEEKS if change is QUIET else CHANGED_WEEKS, change, SINCE)
    found: dict[str, First] = {}
    seconds: dict[str, float] = {}
    for method in job.methods:
        began = time.process_time()
        if method in ("entity", "hours", "rows"):
            found[method] = windows(weeks, method, job.seed)
        else:
            found |= river_windows(weeks, (method,))
        seconds[method] = round(time.process_time() - began, 3)
    return {"regime": job.regime, "change": job.change, "seed": job.seed, "first": found, "seconds": seconds}


def jobs(seeds: int, fewer: int) -> list[_Job]:
    """Seed by seed, so that a run that is cut short has some of each."""
    found = []
    for seed in range(seeds):
        found += [_Job(regime, "", seed, ("entity", "hours", *RIVER)) for regime in REGIMES]
        if seed < fewer:
            found += [_Job(regime, "", seed, ("rows", *SLOW)) for regime in REGIMES]
            found += [
                _Job(regime, change, seed, ("entity", "hours", "rows", *RIVER))
                for change in CHANGES
                for regime in CHANGED
            ]
    return found


def run(out: Path, seeds: int = 200, fewer: int = 20, processes: int = 2) -> None:
    done = {(row["regime"], row["change"], row["seed"], *row["first"]) for row in _rows(out)}
    left = [job for job in jobs(seeds, fewer) if (*job[:3], *job.methods) not in done]
    with ProcessPoolExecutor(processes) as pool, out.open("a") as file:
        for row in pool.map(one, left, chunksize=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
    show(out)


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def show(out: Path) -> None:
    rows = _rows(out)
    methods = list(dict.fromkeys(name for row in rows for name in row["first"]))
    print(f"Quiet streams of {WEEKS} weeks with an alarm of any of four signals, of how many; in brackets % a month\n")
    print(f"| regime | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    for regime in REGIMES:
        cells = []
        for method in methods:
            of = [row["first"][method] for row in rows
                  if (row["regime"], row["change"]) == (regime, "") and method in row["first"]]  # fmt: skip
            alarms = sum(any(week is not None for week in each.values()) for each in of)
            cells.append(f"{alarms} of {len(of)} ({100 * alarms / max(1, len(of)) / _MONTHS:.1f})" if of else "")
        print(f"| {regime} | {' | '.join(cells)} |")
    print(f"\nA change with week {SINCE}: windows to the alarm, median, and share found in {CHANGED_WEEKS - SINCE} "
          "windows; in brackets streams with a false alarm before\n")  # fmt: skip
    print(f"| regime, change, signal | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    for regime in REGIMES:
        for change, spec in CHANGES.items():
            of = [row for row in rows if (row["regime"], row["change"]) == (regime, change)]
            for signal in (("inputs",) if spec.inputs(9) else SIGNALS[1:]) if of else ():
                cells = [_delay([row["first"][method][signal] for row in of if method in row["first"]])
                         for method in methods]  # fmt: skip
                print(f"| {regime}, {change}, {signal} | {' | '.join(cells)} |")
    seconds = {name: [row["seconds"][name] for row in rows if name in row["seconds"] and not row["change"]]
               for name in methods}  # fmt: skip
    print("\nCPU s a quiet stream: " + ", ".join(f"{name} {np.mean(each):.2f}" for name, each in seconds.items()))


def _delay(firsts: list[int | None]) -> str:
    if not firsts:
        return ""
    before = sum(week is not None and week < SINCE for week in firsts)
    delays = [_NEVER if week is None else week - SINCE + 1 for week in firsts if week is None or week >= SINCE]
    if not delays:
        return f"({before})"
    median = float(np.median(delays))
    found = np.mean([each < _NEVER for each in delays])
    return f"{'never' if median >= _NEVER / 2 else f'{median:g}'}, {found:.2f} ({before})"


if __name__ == "__main__":
    if sys.argv[1] == "show":
        show(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[2]), *map(int, sys.argv[3:]))
