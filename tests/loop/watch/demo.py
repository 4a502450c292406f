"""`make demo-loop`, `python -m tests.loop.watch.demo [FILE.svg [SEED]]`: digits from a second source arrive in
production, quality falls, labels are asked for, the model is trained, promoted and baked, under a clock that runs fast.
Prints the timeline and draws it."""

from __future__ import annotations

import html
import itertools
import statistics
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.jobs.kinds import KINDS
from speciate.loop.watch import rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.tools.watches import watch_use_case
from tests.loop.watch import digits
from tests.loop.watch.digits import FIRST, USE_CASE, Loop

_QUIET, _MOST = 14, 120
_A_DAY, _LABELS_A_DAY = 40, 30
_UNSEEN, _OLD = 1000, 797
"""Place of the first row that the first model did not learn from, and how many there are."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 380, 50, 74, 64
_COLOURS = {"mining": "#F0E442", "labelling": "#56B4E9", "learning": "#009E73", "baking": "#E69F00"}


class Day(NamedTuple):
    number: int
    right: float
    """Share of the day's answers."""
    state: str
    because: str
    asked: int
    """Labels since the beginning."""
    answered: int


class Mark(NamedTuple):
    """A moment that the timeline and the chart name."""

    day: int
    text: str


def live(loop: Loop, folder: Path, shifted: list[float], seed: int = 0) -> tuple[list[Day], list[Mark]]:
    """Until a model was promoted and survived its bake, or `_MOST` days."""
    old, new = digits.own(seed), digits.other(seed)
    print("Training the first model on scikit-learn's digits ...", flush=True)
    loop.start(folder, old)
    old.ask(_UNSEEN)
    watch_use_case(
        loop.app, USE_CASE, [Trigger(on="data_shift"), Trigger(on="quality_regression")],
        Policy(action="auto", labels=300),
    )  # fmt: skip
    found, marks, said, answered = list[Day](), list[Mark](), "", 0
    print("\n day  right  labels  state      because", flush=True)
    for number in range(_MOST):
        if number == _QUIET:
            shifted.append(loop.clock.now())
            marks.append(Mark(number, "another source"))
            print(f"{number:4}  from now on MNIST's digits are asked", flush=True)
        right = loop.ask(new if number >= _QUIET else old, _A_DAY)
        loop.days(1)
        decision = loop.look()
        state, because = decision.memory.state, decision.because
        if state == "labelling":
            answered += loop.label(_LABELS_A_DAY)
        [[asked]] = loop.app.workspace.database.read("SELECT count(*) FROM label_requests")
        found.append(Day(number, right, state, because, asked, answered))
        if decision.taken and state == "mining" and decision.memory.round == 1:
            marks.append(Mark(number, f"alarm, episode {decision.memory.episode}"))
        if state == "baking" and found[-2].state != "baking":
            marks.append(Mark(number, "promoted"))
        if decision.ended is not None:
            marks.append(Mark(number, "baked" if decision.ended.outcome == "promoted" else decision.ended.outcome))
        listed = [cause.evidence.get("signals") for cause in decision.taken]
        signals = [name for each in listed if isinstance(each, list) for name in each]
        because += f" ({', '.join(signals)})" if signals else ""
        if because != said:
            lines = textwrap.wrap(because, 88)
            print(f"{number:4}  {right:5.0%}  {answered:6}  {state:9}  {lines[0]}", flush=True)
            print("".join(f"{'':32}{line}\n" for line in lines[1:]), end="", flush=True)
            said = because
        if decision.ended is not None and decision.ended.outcome == "promoted":
            break
    return found, marks


def right_of_old(loop: Loop, seed: int, model: str) -> float:
    """Of all rows of the first source that the first model did not learn from: the same for each model."""
    old = digits.own(seed)
    old.ask(_UNSEEN)
    return loop.right_of(model, old.ask(_OLD))


def draw(days: Sequence[Day], marks: Sequence[Mark]) -> str:
    """Accuracy and answered labels over time as SVG, with a band for each state of the watch."""
    step, height = (_WIDTH - 2 * _LEFT) / max(1, len(days)), _HEIGHT - _TOP - _BOTTOM
    most = max(1, *(day.asked for day in days))

    def line(values: Sequence[float], style: str) -> str:
        points = " ".join(
            f"{_LEFT + (place + 0.5) * step:.1f},{_TOP + (1 - value) * height:.1f}"
            for place, value in enumerate(values)
        )
        return f'<polyline points="{points}" fill="none" {style}/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for state, each in itertools.groupby(days, lambda day: day.state):
        if state in _COLOURS:
            band = list(each)
            parts.append(
                f'<rect x="{_LEFT + band[0].number * step:.1f}" y="{_TOP}" width="{len(band) * step:.1f}" '
                f'height="{height}" fill="{_COLOURS[state]}" opacity="0.5">'
                f"<title>from day {band[0].number}: {html.escape(band[0].because)}</title></rect>"
            )
    parts.append(
        line([day.answered / most for day in days], 'stroke="#0072B2" stroke-width="2" stroke-dasharray="6 3"')
    )
    parts.append(line([day.right for day in days], 'stroke="black" stroke-width="2"'))
    for place, mark in enumerate(marks):
        x, y = _LEFT + mark.day * step, 16 + 18 * (place % 3)
        end = "end" if x > _WIDTH - 200 else "start"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{_TOP + height}" stroke="#D55E00"/>')
        parts.append(
            f'<text x="{x + (-4 if end == "end" else 4):.1f}" y="{y + 4}" text-anchor="{end}">'
            f"day {mark.day}: {html.escape(mark.text)}</text>"
        )
    for share in (0, 0.5, 1):
        y = _TOP + (1 - share) * height + 4
        parts.append(f'<text x="{_LEFT - 6}" y="{y:.0f}" text-anchor="end">{share:.0%}</text>')
        parts.append(f'<text x="{_WIDTH - _LEFT + 6}" y="{y:.0f}" fill="#0072B2">{share * most:.0f}</text>')
    parts += [
        f'<text x="{_LEFT + day * step:.1f}" y="{_TOP + height + 16}" text-anchor="middle">{day}</text>'
        for day in range(0, len(days) + 1, 7)
    ]
    for place, (state, colour) in enumerate(_COLOURS.items()):
        left = _LEFT + place * 100
        parts.append(f'<rect x="{left}" y="{_HEIGHT - 26}" width="12" height="12" fill="{colour}" opacity="0.5"/>')
        parts.append(f'<text x="{left + 18}" y="{_HEIGHT - 16}">{state}</text>')
    parts.append(f'<text x="{_LEFT + 420}" y="{_HEIGHT - 16}">black: right answers of each day</text>')
    parts.append(f'<text x="{_LEFT + 630}" y="{_HEIGHT - 16}" fill="#0072B2">dashed: answered labels</text>')
    return "\n".join([*parts, "</svg>"])


def main(target: Path, seed: int = 0) -> int:
    shifted: list[float] = []
    kinds = [] if "monitor" in KINDS else [digits.stand_in(lambda one: bool(shifted) and one.end > shifted[0])]
    with tempfile.TemporaryDirectory() as name, digits.loop(Path(name), kinds) as loop:
        days, marks = live(loop, Path(name), shifted, seed)
        print()
        for each in reversed(rows.episodes(loop.app.workspace.database, USE_CASE)):
            print(textwrap.fill(
                f"Episode {each.number}: {', '.join(each.causes)} -> {each.outcome}: {each.because}", 120,
                subsequent_indent="  ",
            ))  # fmt: skip
        promoted = next((mark.day for mark in marks if mark.text == "promoted"), len(days))
        before = statistics.fmean(day.right for day in days[:_QUIET])
        fallen = statistics.fmean(day.right for day in days[_QUIET:promoted])
        after = loop.ask(digits.other(seed), 1000)
        was, still = (right_of_old(loop, seed, model) for model in (FIRST, loop.serving()))
    recovered = (after - fallen) / (before - fallen)
    print(f"Right of what was asked: {before:.0%} before the change, {fallen:.0%} until a promotion, {after:.0%} now.")
    print(f"So {recovered:.0%} of the loss is recovered.")
    print(f"Right of {_OLD} rows of the old source: {was:.1%} by the first model, {still:.1%} now.")
    print(f"Labels: {days[-1].asked} asked for, {days[-1].answered} answered. Days since the change: "
          f"{days[-1].number - _QUIET}.")  # fmt: skip
    target.write_text(draw(days, marks))
    print(f"Drawn: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-loop.svg"), int(*sys.argv[2:3] or (0,))))
