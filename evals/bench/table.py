"""All benches, one after another, as one table: what, ours, the peer's, the ratio with its interval, the goal, and what
it was when last recorded.

    python evals/bench/table.py [--only NAME ...]   into evals/LOG.md, and for machines into evals/bench/recorded.jsonl
    python evals/bench/table.py --smoke             each with next to nothing, to see that it runs; records nothing

A peer that is not installed is left out, as its bench says. A figure that lies outside the interval of the last record
is marked: by one run nobody knows whether the code or the machine is another one, so look at the load first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from figures import FILE, Figure

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
RECORDED = _HERE / "recorded.jsonl"
_LOG = _ROOT / "evals" / "LOG.md"


class Bench(NamedTuple):
    arguments: Sequence[str] = ()
    smoke: Sequence[str] = ()


BENCHES: Mapping[str, Bench] = {
    "first_result": Bench(smoke=("--rounds", "1", "--calls", "5")),
    "jobs_per_second": Bench(smoke=("--rounds", "1", "--workers", "4", "--jobs", "64")),
    "job_start": Bench(smoke=("--rounds", "1", "--preload", "data")),
    "predicting": Bench(smoke=("--calls", "5", "--texts", "60")),
    "million_rows": Bench(("--rounds", "3"), ("--rows", "5000", "--rounds", "1")),
    "ingest": Bench(("--files", "4000"), ("--files", "40", "--rounds", "1", "--without-datasets")),
    "loader": Bench(smoke=("--images", "128", "--rows", "0", "--rounds", "1", "--workers", "1")),
    "similar": Bench(smoke=("--rounds", "1", "--many", "2000", "--few", "500")),
    "growth": Bench(smoke=("--jobs", "100", "--models", "10", "--rounds", "1")),
    "through_tools": Bench(smoke=("--rows", "500", "--images", "40", "--models", "3")),
}


class Record(NamedTuple):
    commit: str
    when: str
    load: float
    cores: int
    figures: Sequence[Figure]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*BENCHES], default=[*BENCHES])
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    found, failed = list[Figure](), list[str]()
    for name in asked.only:
        figures = run(name, smoke=asked.smoke)
        if figures is None:
            failed.append(name)
        found += figures or []
    record = Record(_commit(), time.strftime("%Y-%m-%d"), round(os.getloadavg()[0], 1), os.cpu_count() or 1, found)
    table = render(record, last_recorded(RECORDED))
    print(table)
    if failed:
        print(f"Failed: {', '.join(failed)}")
    if not asked.smoke and found:
        with RECORDED.open("a") as file:
            file.write(json.dumps({**record._asdict(), "figures": [each._asdict() for each in found]}) + "\n")
        _LOG.write_text(with_section(_LOG.read_text(), table))
    sys.exit(1 if failed else 0)


def run(name: str, *, smoke: bool) -> list[Figure] | None:
    """What the bench noted; None where it failed."""
    bench = BENCHES[name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures"
        arguments = bench.smoke if smoke else bench.arguments
        ended = subprocess.run(
            [sys.executable, str(_HERE / f"{name}.py"), *arguments], env={**os.environ, FILE: str(file)}, check=False
        )
        lines = file.read_text().splitlines() if file.exists() else []
    return None if ended.returncode else [Figure(**json.loads(line)) for line in lines]


def last_recorded(path: Path) -> dict[tuple[str, str, str], tuple[Figure, str]]:
    """Bench, what and peer -> the last figure, and its commit."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        record: dict[str, Any] = json.loads(line)
        for each in record["figures"]:
            figure = Figure(**each)
            found[_key(figure)] = figure, str(record["commit"])
    return found


def _key(figure: Figure) -> tuple[str, str, str]:
    return figure.bench, figure.what, figure.peer


def render(record: Record, before: Mapping[tuple[str, str, str], tuple[Figure, str]]) -> str:
    """A section of the log, in Markdown."""
    lines = [
        f"## {record.when}: `make bench` at {record.commit}", "",
        f"{record.cores} cores, load {record.load} at the end. Ratios: ours / peer, median (least to most).", "",
        "| bench | what | speciate | peer | ratio | goal | last recorded |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for each in record.figures:
        peer = "" if each.theirs is None else f"{each.peer} {each.theirs:.4g}"
        ratio = "" if each.ratio is None else f"{each.ratio:.2f} ({each.low:.2f} to {each.high:.2f})"
        lines.append(
            f"| {each.bench} | {each.what}, {each.unit} | {each.ours:.4g} | {peer} | {ratio} | {_goal(each)} "
            f"| {_before(each, before.get(_key(each)))} |"
        )
    return "\n".join(lines) + "\n"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    word = {True: "kept", False: "**missed**", None: "cannot tell"}[figure.reached]
    return f"{'>=' if figure.more else '<='} {figure.goal:g}{'' if figure.ratio is None else ' x'}: {word}"


def _before(figure: Figure, known: tuple[Figure, str] | None) -> str:
    if known is None:
        return ""
    before, commit = known
    if figure.ratio is None or before.ratio is None or before.low is None or before.high is None:
        return f"{before.ours:.4g} ({commit})"
    if before.low <= figure.ratio <= before.high:
        return f"{before.ratio:.2f} ({commit})"
    better = (figure.ratio > before.ratio) is figure.more
    return f"**{before.ratio:.2f}: {'better' if better else 'worse'}** ({commit})"


def with_section(log: str, section: str) -> str:
    """The log with a section more, the newest first."""
    head, mark, rest = log.partition("\n## ")
    return f"{head}\n{section}{mark}{rest}"


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
