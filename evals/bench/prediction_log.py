"""What the prediction log costs: answers per second and p99 of two slots with the same model, one of which logs.

Both slots run at once, each in a workspace of its own (the second is a copy), and are asked in turns, so that a busy
machine is busy for both; the figures are medians of the pairs' ratios. The texts hold an address of mail each, so that
redaction has something to do; at the end none of them may be in the log, and no answer may have been missed.

    python evals/bench/prediction_log.py [--pairs 5] [--seconds 4]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import serving
from serving import USE_CASE, Load, Served, load, prepare, start_slot

from speciate.predictions import reading
from speciate.predictions.log_files import log_folder
from speciate.serving.deployment_folder import deployment_folder
from speciate.workspace.workspace import Folders

COMMAND = str(Path(sys.executable).parent / "speciate")


class Cost(NamedTuple):
    load: Load
    cpu_ms: float
    """Of the slot's own process (not of the version's) for each answer: it tells more than clocks on a busy machine."""


def measure(served: Served, slot: psutil.Process, connections: int, seconds: float) -> Cost:
    before, began = sum(slot.cpu_times()[:2]), time.monotonic()
    found = asyncio.run(load(served.port, served.token, connections, seconds))
    answers = found.per_second * (time.monotonic() - began)
    return Cost(found, 1000 * (sum(slot.cpu_times()[:2]) - before) / answers)


def compare(slots: dict[str, tuple[Served, psutil.Process]], connections: int, pairs: int, seconds: float) -> None:
    found: dict[str, list[Cost]] = {name: [] for name in slots}
    for number in range(pairs):
        for name, (served, slot) in list(slots.items()) if number % 2 == 0 else reversed(list(slots.items())):
            cost = measure(served, slot, connections, seconds)
            found[name].append(cost)
            print(f"  {connections:3} connections  {name:8} {cost.load}  {cost.cpu_ms:.3f} ms of CPU per answer")
    on, off = found["log on"], found["log off"]
    for name in ("per_second", "p50_ms", "p99_ms"):
        told([getattr(a.load, name) / getattr(b.load, name) for a, b in zip(on, off, strict=True)], connections, name)
    told([a.cpu_ms / b.cpu_ms for a, b in zip(on, off, strict=True)], connections, "CPU per answer")
    more = statistics.median(a.cpu_ms - b.cpu_ms for a, b in zip(on, off, strict=True))
    print(f"{connections} connections, CPU per answer: {1000 * more:+.0f} microseconds with the log\n")


def told(ratios: list[float], connections: int, name: str) -> None:
    middle = statistics.median(ratios)
    print(f"{connections} connections, {name}: on / off x{middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def process_of(root: Path) -> psutil.Process:
    return psutil.Process(deployment_folder(Folders(root), USE_CASE).state().pid)


def stop(root: Path) -> None:
    folder = deployment_folder(Folders(root), USE_CASE)
    folder.stop()
    while folder.alive():
        time.sleep(0.1)
    subprocess.run([COMMAND, "stop", "--workspace", str(root)], check=False, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    plain = serving.texts
    serving.texts = lambda count: [
        (f"{text} ada{n}@example.org", label) for n, (text, label) in enumerate(plain(count))
    ]
    with tempfile.TemporaryDirectory() as folder:
        on, off = Path(folder) / "on", Path(folder) / "off"
        client = prepare(on, "classical")
        del client
        subprocess.run([COMMAND, "backup", str(off), "--workspace", str(on)], check=True, stdout=subprocess.DEVNULL)
        (off / "settings.toml").write_text('policy = "auto"\n[log]\nsample = 0.0\n')
        try:
            slots = {name: (start_slot(root), process_of(root)) for name, root in (("log on", on), ("log off", off))}
            for connections in (1, 16):
                compare(slots, connections, arguments.pairs, arguments.seconds)
        finally:
            for root in (on, off):
                stop(root)
        held = reading.contents(log_folder(Folders(on), USE_CASE))
        print(f"logged {held.answers} answers, missed {held.missed}, torn {held.torn}, {held.bytes / 1e6:.1f} MB")
        assert (held.missed, held.torn) == (0, 0)
        assert b"@example.org" not in b"".join(
            path.read_bytes() for path in log_folder(Folders(on), USE_CASE).path.rglob("*.jsonl")
        )


if __name__ == "__main__":
    main()
