"""From the call that starts a sandboxed process until it has run: this tree's sandbox beside that of another checkout.
Interleaved pairs, in turns which comes first. Status 1 where this one is slower than 1.10 times.

    git worktree add ../before COMMIT
    python evals/bench/sandbox_start.py ../before [--pairs 100]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ARM = Path(__file__).parent / "arms" / "sandbox_starts.py"
PROGRAMS = ("python", "true")
MOST = 1.10


class Arm:
    """A process that starts what it is told, with the sandbox of one tree."""

    def __init__(self, tree: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree.absolute() / "src")}
        self._process = subprocess.Popen(
            [sys.executable, str(ARM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        self.module = self._read()

    def time(self, program: str) -> list[float]:
        assert self._process.stdin
        self._process.stdin.write(f"{program}\n")
        self._process.stdin.flush()
        times: list[float] = self._read()
        return times

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("before", type=Path, help="a checkout of another commit")
    parser.add_argument("--pairs", type=int, default=100)
    given = parser.parse_args()
    before, after = Arm(given.before), Arm(Path(__file__).parents[2])
    print(f"before: {before.module}\nafter:  {after.module}")
    worst = 0.0
    try:
        for program in PROGRAMS:
            pairs = measured(before, after, program, given.pairs)
            for what, place in (("start", 0), ("start to reaped", 1)):
                old, new = ([pair[arm][place] for pair in pairs] for arm in (0, 1))
                ratio = statistics.median(new) / statistics.median(old)
                paired = statistics.median(n / o for o, n in zip(old, new, strict=True))
                worst = max(worst, ratio) if what == "start" else worst
                medians = f"before {statistics.median(old):6.2f} ms, after {statistics.median(new):6.2f} ms"
                ratios = f"ratio {ratio:.3f} (median of {len(pairs)} pairs {paired:.3f})"
                print(f"{program:7} {what:16} {medians}, {ratios}")
    finally:
        before.end()
        after.end()
    print(f"slower than {MOST:.2f} times: {'yes' if worst > MOST else 'no'}")
    return int(worst > MOST)


def measured(before: Arm, after: Arm, program: str, count: int) -> list[tuple[list[float], list[float]]]:
    for arm in (before, after):
        for _ in range(3):
            arm.time(program)
    pairs = []
    for number in range(count):
        first, second = (before, after) if number % 2 else (after, before)
        found = {id(arm): arm.time(program) for arm in (first, second)}
        pairs.append((found[id(before)], found[id(after)]))
    return pairs


if __name__ == "__main__":
    sys.exit(main())
