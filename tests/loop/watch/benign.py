"""`python -m tests.loop.watch.benign`: what is asked changes, and nobody is hurt by it.

MNIST's digits are in production, and from day 14 on only those below five. The right answer is to ask for labels, to
find nothing, to say how small a gain could have been seen, and to leave people alone.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np

from speciate.loop.watch import rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.tools.watches import watch_use_case
from tests.loop.watch import digits
from tests.loop.watch.digits import USE_CASE, Source

_QUIET, _DAYS, _A_DAY, _LABELS_A_DAY = 14, 90, 40, 30
_LEARNED = 2000
"""Rows of which the first model's dataset is made."""


def part(source: Source, begin: int, end: int, below: int = 10) -> Source:
    """Rows [begin, end) that show a digit below this."""
    made = Source(np.zeros((0, 64), np.int64), [])
    kept = [place for place in range(begin, min(end, len(source.rows))) if int(source.labels[place][1:]) < below]
    made.rows, made.labels = [source.rows[place] for place in kept], [source.labels[place] for place in kept]
    return made


def main() -> int:
    every = digits.other()
    usual, few = part(every, _LEARNED, 3000), part(every, 3000, 5000, below=5)
    with tempfile.TemporaryDirectory() as name, digits.loop(Path(name), []) as loop:
        loop.start(Path(name), part(every, 0, _LEARNED))
        triggers = [Trigger(on="data_shift"), Trigger(on="quality_regression")]
        watch_use_case(loop.app, USE_CASE, triggers, Policy(action="auto", labels=300))
        right: dict[bool, list[float]] = {False: [], True: []}
        answered, said = 0, ""
        for day in range(_DAYS):
            changed = day >= _QUIET
            right[changed].append(loop.ask(few if changed else usual, _A_DAY))
            loop.days(1)
            decision = loop.look()
            if decision.memory.state == "labelling":
                answered += loop.label(_LABELS_A_DAY)
            if decision.because != said:
                print(textwrap.fill(f"{day:4}  {answered:4} labels  {decision.memory.state:9}  {decision.because}", 120,
                                    subsequent_indent=" " * 29), flush=True)  # fmt: skip
                said = decision.because
        database = loop.app.workspace.database
        for each in reversed(rows.episodes(database, USE_CASE)):
            print(f"Episode {each.number}: {', '.join(each.causes)} -> {each.outcome}; a gain of {each.smallest_gain}"
                  " could have been seen")  # fmt: skip
        [[promoted]] = database.read("SELECT count(*) FROM audit WHERE actor = 'watch'")
        means = {changed: sum(found) / len(found) for changed, found in right.items()}
        print(f"Right: {means[False]:.1%} before the change, {means[True]:.1%} after it. Labels: {answered}. "
              f"Promotions by the watch: {promoted}. {_DAYS} days.")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
