"""One whole turn, for real: another source of digits arrives in the middle of a week, labels are asked for and given, a
model is trained, promoted and baked, through the tools and with a clock that is set ahead. What it took is in the
ledger."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from speciate.loop import ledger
from speciate.loop.watch import report, rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.predictions.label_queue import next_labels
from speciate.tools.watches import watch_use_case
from tests.loop.watch import digits
from tests.loop.watch.digits import DAY, USE_CASE, Loop, TravellingClock

pytestmark = pytest.mark.slow

_JUDGED = "SELECT manifest FROM dataset_versions WHERE name = 'digits-judged' ORDER BY version DESC LIMIT 1"
_QUIET = 10
_JOBS = "SELECT id, key, parent, executor, coalesce(run_seconds, 0) FROM jobs"


def test_a_shift_is_found_labelled_learned_promoted_and_baked(tmp_path: Path) -> None:
    with digits.loop(tmp_path, [], clock=TravellingClock(time.time() - 120 * DAY)) as loop:
        old, new = digits.own(), digits.other()
        loop.start(tmp_path, old)
        old.ask(1000)  # the first model learned from these
        watch_use_case(loop.app, USE_CASE, [Trigger(on="data_shift")], Policy(action="auto", labels=200))
        before_old = [loop.ask(old, 40)]
        for _ in range(_QUIET):
            loop.days(1)
            assert loop.look().because == "no trigger fired"
            before_old.append(loop.ask(old, 40))
        before_new = loop.ask(new, 10)
        states: list[str] = []
        labels = 0
        for _ in range(60):
            loop.ask(new, 40)
            loop.days(1)
            decision = loop.look()
            states.append(decision.memory.state)
            print(decision.because)
            if decision.memory.state == "labelling":
                queue = next_labels(loop.app.workspace, USE_CASE, count=30)
                assert {each.drawn for each in queue.items} <= {"random", "uncertain"}
                labels += loop.label(30)
            if decision.ended is not None and decision.ended.outcome == "promoted":
                break
        database = loop.app.workspace.database
        done = [each for each in rows.episodes(database, USE_CASE) if each.outcome == "promoted"]
        assert done, [(each.outcome, each.because) for each in rows.episodes(database, USE_CASE)]
        assert {"mining", "labelling", "learning", "baking", "idle"} <= set(states)
        assert labels <= 200
        assert done[0].model not in (None, "digits-model@v1")
        after_old, after_new = loop.ask(old, 300), loop.ask(new, 400)
        lost = sum(before_old) / len(before_old) - before_new
        print(before_old, before_new, after_old, after_new, labels)
        assert before_new < 0.4
        assert after_new - before_new >= 0.5 * lost, (before_new, after_new)
        assert after_old >= sum(before_old) / len(before_old) - 0.03
        [[text]] = database.read(_JUDGED)
        manifest = json.loads(text)
        assert set(manifest["splits"]) == {"test"}, "what judges is never learned from"
        [[actor]] = database.read("SELECT actor FROM audit WHERE after = ?", [done[0].model])
        assert actor == "watch"
        _the_ledger_has_each_minute_once(loop)


def _the_ledger_has_each_minute_once(loop: Loop) -> None:
    """Of the episodes, by what began them, and of monitoring: those of the jobs below the watch's keys, no others."""
    workspace = loop.app.workspace
    jobs = {name: rest for name, *rest in workspace.database.read(_JOBS)}

    def root(name: str) -> str:
        key, parent, *_ = jobs[name]
        return root(parent) if parent else key or ""

    took = Counter[str]()
    for name, (_, _, executor, seconds) in jobs.items():
        parts = root(name).split("/")
        whose = "others" if parts[0] != "watch" else "monitoring" if parts[2] == "monitor" else "episodes"
        took[whose] += seconds / 60 if executor == "local" else 0.0
    found = ledger.document(ledger.ledger(workspace))
    assert {each["cause"]: each["minutes"] for each in found["remodelled"]} == {
        "data_shift": pytest.approx(took["episodes"])
    }
    numbers = [each.number for each in rows.episodes(workspace.database, USE_CASE)]
    told = [report.episode_report(workspace, USE_CASE, number).minutes for number in numbers]
    assert sum(told) == pytest.approx(took["episodes"], abs=0.01 * len(told))
    assert found["monitoring_minutes"] == pytest.approx(took["monitoring"])
    assert len(took) == 3
    assert min(took.values()) > 0
