"""One whole turn, for real: another source of digits arrives, labels are asked for and given, a model is trained,
promoted and baked, through the tools and with a clock that is set. The monitoring job alone is a stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speciate.loop.watch import rows
from speciate.loop.watch.definition import Policy, Trigger
from speciate.predictions.label_queue import next_labels
from speciate.tools.watches import watch_use_case
from tests.loop.watch import digits
from tests.loop.watch.digits import USE_CASE

pytestmark = pytest.mark.slow

_JUDGED = "SELECT manifest FROM dataset_versions WHERE name = 'digits-judged' ORDER BY version DESC LIMIT 1"


def test_a_shift_is_found_labelled_learned_promoted_and_baked(tmp_path: Path) -> None:
    shifted: list[float] = []
    alarms = digits.stand_in(lambda window: bool(shifted) and window.end > shifted[0])
    with digits.loop(tmp_path, [alarms]) as loop:
        old, new = digits.own(), digits.other()
        loop.start(tmp_path, old)
        watch_use_case(loop.app, USE_CASE, [Trigger(on="data_shift")], Policy(action="auto", labels=200))
        before_old = loop.ask(old, 300)
        for _ in range(6):
            loop.ask(old, 30)
            loop.days(1)
            assert loop.look().because == "no trigger fired"
        shifted.append(loop.clock.now())
        before_new = loop.ask(new, 200)
        states: list[str] = []
        labels = 0
        for _ in range(60):
            loop.ask(new, 30)
            loop.days(1)
            decision = loop.look()
            states.append(decision.memory.state)
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
        assert labels <= 400, "of two months"
        # the first candidates may fall short: the core suite chose a model before, and is strict
        assert done[0].model not in (None, "digits-model@v1")
        after_old, after_new = loop.ask(old, 300), loop.ask(new, 400)
        assert before_new < 0.4
        assert after_new - before_new >= 0.5 * (before_old - before_new), (before_new, after_new)
        assert after_old >= before_old - 0.03
        [[text]] = database.read(_JUDGED)
        manifest = json.loads(text)
        assert set(manifest["splits"]) == {"test"}, "what judges is never learned from"
        [[actor]] = database.read("SELECT actor FROM audit WHERE after = ?", [done[0].model])
        assert actor == "watch"
