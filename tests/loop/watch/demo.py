"""`make demo-loop`: digits from a second source arrive in production, quality falls, labels are asked for, the model
is trained, promoted and baked, under a clock that runs fast. Prints the timeline and draws it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.jobs.kinds import KINDS
from speciate.loop.watch import rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.tools.watches import watch_use_case
from tests.loop.watch import digits
from tests.loop.watch.digits import USE_CASE, Loop

_QUIET, _MOST = 14, 90
_A_DAY = 40
_WIDTH, _HEIGHT, _LEFT, _TOP = 900, 300, 50, 20


class Day(NamedTuple):
    number: int
    right: float
    """Share of the day's answers."""
    state: str
    because: str


def live(loop: Loop, folder: Path, shifted: list[float]) -> list[Day]:
    old, new = digits.own(), digits.other()
    print("Training the first model on scikit-learn's digits ...", flush=True)
    loop.start(folder, old)
    watch_use_case(
        loop.app, USE_CASE, [Trigger(on="data_shift"), Trigger(on="quality_regression")],
        Policy(action="auto", labels=300),
    )  # fmt: skip
    found: list[Day] = []
    said = ""
    for number in range(_MOST):
        if number == _QUIET:
            shifted.append(loop.clock.now())
            print(f"day {number:3}  from now on MNIST's digits are asked", flush=True)
        right = loop.ask(new if number >= _QUIET else old, _A_DAY)
        loop.days(1)
        decision = loop.look()
        if decision.memory.state == "labelling":
            loop.label(30)
        found.append(Day(number, right, decision.memory.state, decision.because))
        if decision.because != said:
            print(f"day {number:3}  {right:4.0%} right  {decision.memory.state:9}  {decision.because}", flush=True)
            said = decision.because
        if decision.ended is not None and decision.ended.outcome == "promoted":
            break
    return found


def draw(days: Sequence[Day]) -> str:
    """Accuracy over time as SVG, with a band for each state of the watch."""
    step = (_WIDTH - 2 * _LEFT) / max(1, len(days))
    colours = {"mining": "#F0E442", "labelling": "#56B4E9", "learning": "#009E73", "baking": "#E69F00"}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for day in days:
        if day.state in colours:
            left = _LEFT + day.number * step
            parts.append(
                f'<rect x="{left:.1f}" y="{_TOP}" width="{step + 0.5:.1f}" height="{_HEIGHT - 60}" '
                f'fill="{colours[day.state]}" opacity="0.5"><title>day {day.number}: {day.because}</title></rect>'
            )
    points = " ".join(
        f"{_LEFT + (day.number + 0.5) * step:.1f},{_TOP + (1 - day.right) * (_HEIGHT - 60):.1f}" for day in days
    )
    parts.append(f'<polyline points="{points}" fill="none" stroke="black" stroke-width="2"/>')
    shift = _LEFT + _QUIET * step
    parts.append(
        f'<line x1="{shift:.1f}" x2="{shift:.1f}" y1="{_TOP}" y2="{_HEIGHT - 40}" stroke="#D55E00" '
        'stroke-dasharray="4"/>'
    )
    for place, (state, colour) in enumerate(colours.items()):
        left = _LEFT + place * 110
        parts.append(f'<rect x="{left}" y="{_HEIGHT - 26}" width="12" height="12" fill="{colour}" opacity="0.5"/>')
        parts.append(f'<text x="{left + 18}" y="{_HEIGHT - 16}">{state}</text>')
    parts.append(
        f'<text x="{_LEFT + 460}" y="{_HEIGHT - 16}">line: share of right answers; dashes: another source</text>'
    )
    parts += [
        f'<text x="8" y="{_TOP + (1 - share) * (_HEIGHT - 60) + 4:.0f}">{share:.0%}</text>' for share in (0, 0.5, 1)
    ]
    return "\n".join([*parts, "</svg>"])


def main(target: Path) -> int:
    shifted: list[float] = []
    kinds = [] if "monitor" in KINDS else [digits.stand_in(lambda one: bool(shifted) and one.end > shifted[0])]
    with tempfile.TemporaryDirectory() as name, digits.loop(Path(name), kinds) as loop:
        days = live(loop, Path(name), shifted)
        for each in reversed(rows.episodes(loop.app.workspace.database, USE_CASE)):
            print(f"episode {each.number}: {', '.join(each.causes)} -> {each.outcome}: {each.because}")
        before, after = days[_QUIET].right, loop.ask(digits.other(), 300)
        print(f"Of the new source {before:.0%} were right on its first day, and {after:.0%} are now.")
    target.write_text(draw(days))
    print(f"Drawn: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-loop.svg")))
