"""What the keeper makes of a bake: a rollback with its evidence, or an event that it holds; each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate import use_cases
from speciate.governance import audit
from speciate.loop.status import status
from speciate.predictions import answer_lookup, quality
from speciate.predictions.feedback import make_feedback
from speciate.predictions.log import AnsweringModel
from speciate.promotion import aliases
from speciate.promotion.bake import Quality, current_automatic_rollback, quality_from_feedback, quality_of
from speciate.promotion.request_counters import BadCount
from speciate.promotion.rollback import roll_back
from speciate.serving import in_process_counters, predict, record_feedback, request_metrics
from speciate.serving.bake_watch import BakeWatch
from speciate.serving.deployment_folder import Refused, State, deployment_folder
from speciate.serving.request_metrics import Outcome
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.promotion import world

DAY = 86_400.0


@pytest.fixture(scope="module")
def promoted(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions were promoted; the second bakes. Closed, to be copied."""
    root = tmp_path_factory.mktemp("promoted") / "workspace"
    with data.to_copy(blank, root, ManualClock()) as workspace:
        world.promote_two(workspace)
    return root


@pytest.fixture
def workspace(promoted: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(promoted, tmp_path / "workspace", clock) as workspace:
        yield workspace


@pytest.fixture
def baker(workspace: Workspace) -> BakeWatch:
    deployment_folder(workspace.folders, "digits").create()
    return BakeWatch(workspace)


def serve(
    workspace: Workspace,
    clock: ManualClock,
    requests: int,
    *,
    fails: int = 0,
    alias: str = "production",
    overloaded: bool = False,
) -> None:
    """As a deployment would count them, one each second; every `fails`-th request fails, or its turn comes too late."""
    moved = aliases.read(workspace.database, "digits", alias)
    assert moved
    counts = request_metrics.CounterFile(deployment_folder(workspace.folders, "digits").counters)
    for number in range(requests):
        failed = bool(fails) and number % fails == 0
        outcome = Outcome(0.01, failed=failed and not overloaded, not_finite=False, unusable=False)
        outcome = outcome._replace(overloaded=failed and overloaded)
        counts.add((alias, moved.generation, moved.model), clock.now() + number, outcome)
    counts.write(now=True)


def serving(workspace: Workspace) -> str | None:
    alias = aliases.read(workspace.database, "digits")
    return alias.model if alias else None


def events(workspace: Workspace, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    return [(event.type, event.data) for event in workspace.database.events_after(0) if event.type in kinds]


def test_what_the_daemon_answers_itself_is_counted_where_no_deployment_runs(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    moved = aliases.read(workspace.database, "digits")
    assert moved
    fine = Outcome(0.01, failed=False, not_finite=False, unusable=False)
    for _ in range(workspace.settings.bake.requests - 1):
        in_process_counters.count(workspace, moved, fine)
    clock.advance(25 * 3600)
    baker.look(now=True)
    assert events(workspace, "promotion.survived") == [], "a request is lacking"
    in_process_counters.count(workspace, moved, fine)
    baker.look(now=True)
    [(_, told)] = events(workspace, "promotion.survived")
    assert told["requests"] == workspace.settings.bake.requests


def test_answers_of_the_daemon_that_fail_roll_back_too(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    moved = aliases.read(workspace.database, "digits")
    assert moved
    for number in range(300):
        clock.advance(1)
        outcome = request_metrics.FAILED if number % 5 == 0 else Outcome(0.01, False, False, False)
        in_process_counters.count(workspace, moved, outcome)
    baker.look(now=True)
    assert serving(workspace) == "m@v1"


def test_a_broken_limit_rolls_back_with_its_evidence_once(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    serve(workspace, clock, 300, fails=5)
    baker.look(now=True)
    baker.look(now=True)
    assert serving(workspace) == "m@v1"
    row = audit.of_use_case(workspace.database, "digits")[-1]
    assert (row.actor, row.action, row.before, row.after) == ("bake", "rollback", "m@v2", "m@v1")
    assert '"failed": 60' in row.evidence
    [(_, told)] = events(workspace, "bake.rolled_back")
    assert (told["model"], told["to"], told["audit"]) == ("m@v2", "m@v1", row.hash)
    shown = current_automatic_rollback(workspace.database, "digits")
    assert shown
    assert (shown.model, shown.alias, shown.reasons) == ("m@v2", "production", tuple(told["reasons"]))
    world.judge(workspace, "m@v3", baseline="m@v1")
    world.ask_promotion(workspace, "m@v3")
    assert current_automatic_rollback(workspace.database, "digits") is None
    assert audit.verify(workspace.database).problems == ()


def test_an_overload_takes_nothing_back_and_is_told(workspace: Workspace, baker: BakeWatch, clock: ManualClock) -> None:
    serve(workspace, clock, 2000, fails=2, overloaded=True)
    baker.look(now=True)
    assert serving(workspace) == "m@v2"
    clock.advance(DAY)
    baker.look(now=True)
    [(_, told)] = events(workspace, "promotion.survived")
    assert (told["requests"], told["failed"], told["overloaded"]) == (1000, 0, 1000)


def test_what_holds_is_told_once_and_watched_no_more(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    serve(workspace, clock, 1000)
    baker.look(now=True)
    assert events(workspace, "promotion.survived") == []
    clock.advance(DAY)
    baker.look(now=True)
    BakeWatch(workspace).look(now=True)  # the next daemon
    [(_, told)] = events(workspace, "promotion.survived")
    assert (told["model"], told["generation"], told["requests"]) == ("m@v2", 2, 1000)
    serve(workspace, clock, 300, fails=2)
    baker.look(now=True)
    assert serving(workspace) == "m@v2", "its bake is over"


def test_what_is_back_after_it_had_survived_is_not_tried_again(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    serve(workspace, clock, 1000)
    clock.advance(DAY)
    baker.look(now=True)
    world.judge(workspace, "m@v3", baseline="m@v2")
    world.ask_promotion(workspace, "m@v3")
    serve(workspace, clock, 300, fails=2)
    baker.look(now=True)
    assert serving(workspace) == "m@v2"
    clock.advance(30 * DAY)
    baker.look(now=True)
    assert len(events(workspace, "promotion.survived")) == 1


def test_what_bakes_again_and_breaks_goes_back_to_what_was_never_rolled_back(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    world.judge(workspace, "m@v3", baseline="m@v2")
    world.ask_promotion(workspace, "m@v3")
    for expected in ("m@v2", "m@v1"):
        serve(workspace, clock, 300, fails=2)
        baker.look(now=True)
        assert serving(workspace) == expected
    serve(workspace, clock, 300, fails=2)
    baker.look(now=True)
    assert serving(workspace) == "m@v1", "there is nothing left to go back to"
    [(_, told)] = events(workspace, "bake.broken")
    assert told["model"] == "m@v1"


def test_where_a_person_decides_it_is_only_told(workspace: Workspace, clock: ManualClock, baker: BakeWatch) -> None:
    workspace.settings = Settings.model_validate({"bakes": {"digits": {"rollback": "tell"}}})
    serve(workspace, clock, 300, fails=2)
    baker.look(now=True)
    assert serving(workspace) == "m@v2"
    [(_, told)] = events(workspace, "bake.broken")
    assert "requests failed" in told["reasons"][0]
    found = status(workspace)
    assert found.use_cases[0].bake == "broken"
    assert any("m@v2 broke a limit of its bake and serves on" in alert for alert in found.alerts)


def test_a_version_that_its_deployment_refused_goes_back(workspace: Workspace, baker: BakeWatch) -> None:
    refused = Refused(generation=2, model="m@v2", why="it answers with NaN", at=1.0)
    deployment_folder(workspace.folders, "digits").tell(State(serving="m@v1", refused=refused))
    baker.look(now=True)
    assert serving(workspace) == "m@v1"
    assert "it answers with NaN" in audit.of_use_case(workspace.database, "digits")[-1].evidence


def test_an_older_refusal_is_no_reason(workspace: Workspace, baker: BakeWatch) -> None:
    refused = Refused(generation=1, model="m@v2", why="it answers with NaN", at=1.0)
    deployment_folder(workspace.folders, "digits").tell(State(serving="m@v1", refused=refused))
    baker.look(now=True)
    assert serving(workspace) == "m@v2"


def test_a_canary_that_breaks_is_ended_and_production_stays(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    world.judge(workspace, "m@v3", baseline="m@v2")
    world.ask_promotion(workspace, "m@v3", percent=10)
    serve(workspace, clock, 300)
    serve(workspace, clock, 300, fails=5, alias="canary")
    baker.look(now=True)
    assert (serving(workspace), aliases.read(workspace.database, "digits", "canary")) == ("m@v2", None)
    row = audit.of_use_case(workspace.database, "digits")[-1]
    assert (row.actor, row.action, row.before) == ("bake", "canary_end", "m@v3")
    assert audit.verify(workspace.database).problems == ()
    result = world.ask_promotion(workspace, "m@v3")
    assert result["state"] == "needs_approval", "production saw what the evidence did not"


def test_a_canary_that_holds_is_told_and_stays_a_canary(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    world.judge(workspace, "m@v3", baseline="m@v2")
    world.ask_promotion(workspace, "m@v3", percent=10)
    serve(workspace, clock, 1000, alias="canary")
    clock.advance(DAY)
    baker.look(now=True)
    [(_, told)] = events(workspace, "canary.survived")
    assert told["model"] == "m@v3"
    assert serving(workspace) == "m@v2"


def test_answers_that_were_wrong_take_it_back(workspace: Workspace, baker: BakeWatch) -> None:
    said = Quality(BadCount(100, 60), None, 0.1)
    BakeWatch(workspace, lambda _, use_case, model, before, since: said if before == "m@v1" else None).look(now=True)
    assert serving(workspace) == "m@v1"


def test_feedback_is_read_now_and_then_and_of_each_version_apart(workspace: Workspace, clock: ManualClock) -> None:
    reads: list[str] = []

    def read(_: Workspace, use_case: str, model: str, before: str | None, since: float) -> None:
        reads.append(model)

    baker = BakeWatch(workspace, read)
    for _ in range(3):
        baker.look(now=True)
    clock.advance(301)
    baker.look()
    assert reads == ["m@v2"] * 2


def test_feedback_in_the_log_takes_a_version_back(workspace: Workspace, baker: BakeWatch, clock: ManualClock) -> None:
    """60 answers were labelled, and every second label says something else; the target allows one in ten."""
    clock.advance(1)
    for number in range(60):
        answer = [{"id": "0", "output": "seven", "confidence": 0.9, "error": None}]
        about, items = AnsweringModel("m@v2", 0, "text"), [{"id": "0", "text": "x"}]
        [prediction] = predict.log_answers(workspace, "digits", about, items, answer, 1.0)
        label = "seven" if number % 2 else "one"
        record_feedback.add_feedback(
            workspace, make_feedback(prediction=prediction, label=label, source="human", drawn="random")
        )
    found = quality_of(workspace, "digits", "m@v2", "m@v1", clock.now() - 1)
    assert found
    assert (found.judged, found.before, round(found.allowed or 0, 6)) == (BadCount(60, 30), None, 0.1)
    baker.look(now=True)
    assert serving(workspace) == "m@v1"
    assert "30 of 60 requests were wrong by feedback" in audit.of_use_case(workspace.database, "digits")[-1].evidence
    answer_lookup.logs_of(workspace).close()


def said(model: str, drawn: str, measure: str, n: int, mean: float) -> quality.Quality:
    return quality.Quality(model, measure, drawn, n, mean, None, None)  # type: ignore[arg-type]  # as words


def test_what_feedback_counts_for(workspace: Workspace) -> None:
    use_case = use_cases.get(workspace.database, "digits")
    right = [said("m@v2", "any", "right", 10, 0.5), said("m@v2", "random", "right", 20, 0.75)]
    before = [said("m@v1", "random", "right", 40, 0.95)]
    found = quality_from_feedback([*right, *before], use_case, "m@v2", "m@v1")
    assert found
    assert (found.judged, found.before, round(found.allowed or 0, 6)) == (BadCount(20, 5), BadCount(40, 2), 0.1)
    any_ = quality_from_feedback([right[0], *before], use_case, "m@v2", "m@v1")
    assert any_ == Quality(BadCount(10, 5), None, None), "complaints are held to complaints alone"
    scores = quality_from_feedback([said("m@v2", "any", "score", 10, 0.25)], use_case, "m@v2", None)
    assert scores == Quality(BadCount(10, 7), None, None)
    assert quality_from_feedback([said("m@v2", "any", "absolute_error", 10, 3.0)], use_case, "m@v2", None) is None


def test_a_move_in_between_is_not_judged_by_older_counts(
    workspace: Workspace, baker: BakeWatch, clock: ManualClock
) -> None:
    serve(workspace, clock, 300, fails=2)
    workspace.database.transact(
        lambda tx: roll_back(tx, "digits", expected="m@v2", to=None, reason="a person was quicker", actor="ada")
    )
    baker.look(now=True)
    assert [row.actor for row in audit.of_use_case(workspace.database, "digits")] == ["ada"] * 3
