"""When garbage is collected by itself, and which versions go with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from speciate.governance import approvals
from speciate.jobs.engine import Engine
from speciate.jobs.executors import Alive, Ended
from speciate.jobs.folder import Outcome, RunFolder, write_whole
from speciate.jobs.kinds import Kinds
from speciate.jobs.run import Run
from speciate.loop.housekeeping import Housekeeper, due
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.privacy import deletion, gc, references
from speciate.settings import Capacity, Retention, Settings
from speciate.workspace.backup import AutomaticBackups, automatic_backups
from speciate.workspace.database import Transaction
from speciate.workspace.disk_space import GB
from speciate.workspace.workspace import Folders, Workspace
from tests.conftest import ManualClock
from tests.data import fresh
from tests.jobs.test_reconcile import Stage
from tests.jobs.work import KINDS
from tests.promotion import world

_HOUR = 3600.0


@pytest.mark.parametrize(
    ("hours_ago", "hours", "busy", "low", "expected"),
    [
        (23, 24, False, False, False), (24, 24, False, False, True), (24, 24, True, False, False),
        (7 * 24, 24, True, False, True), (0.9, 24, True, True, False), (1, 24, True, True, True),
        (9_999, 0, False, True, False),
    ],
)  # fmt: skip
def test_it_is_daily_when_idle_weekly_when_busy_hourly_when_the_disk_is_full_and_never_where_a_person_says_so(
    hours_ago: float, hours: float, busy: bool, low: bool, expected: bool
) -> None:
    assert due(hours_ago * _HOUR, hours, busy=busy, low=low) is expected


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock, stage: Stage) -> Iterator[Engine]:
    settings = Settings(policy="auto", capacity=Capacity(cpu=4, memory_mb=1000), retention=Retention(keep_versions=2))
    workspace = Workspace(fresh(tmp_path / "w", manual=True), clock=clock, settings=settings)
    yield Engine(workspace, Kinds(extra=KINDS), executor=stage)
    workspace.close()


def _make(workspace: Workspace, name: str, count: int, **card: object) -> None:
    for number in range(count):
        staged = workspace.folders.root / f"staged-{name}-{number}"
        staged.mkdir()
        (staged / "weights").write_text(f"{name} {number}" * 100)
        made = ModelCard.model_validate({"name": name, "id": f"{name}-{number}", "method": "classical", **card})
        workspace.database.transact(partial(_register, workspace.folders, made, staged))


def _register(folders: Folders, card: ModelCard, staged: Path, tx: Transaction) -> ModelCard:
    return registry.register(tx, folders, card, staged)


def _left(workspace: Workspace) -> list[str]:
    return [f"{name}@v{n}" for name in registry.names(workspace.database) for n in _numbers(workspace, name)]


def _numbers(workspace: Workspace, name: str) -> list[int]:
    return sorted(card.version for card in registry.versions(workspace.database, name))


def test_a_day_after_the_workspace_began_and_then_daily(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    workspace, keeper = engine.workspace, Housekeeper(engine.workspace, engine)
    assert keeper.look() is None, "nothing has happened yet"
    world.define(workspace)
    assert keeper.look() is None
    clock.advance(24 * _HOUR)
    assert keeper.look() is None, "it only says what would go"
    assert gc.announced(workspace.database)
    clock.advance(23 * _HOUR)
    assert keeper.look() is None, "a person has a day to look at that"
    clock.advance(1 * _HOUR)
    first = keeper.look()
    assert first is not None
    assert keeper.look() is None, "one at a time"
    engine.tick()
    folder = RunFolder(workspace.folders.runs / f"{first}.1")
    folder.outputs.mkdir(parents=True)
    (folder.outputs / "result.json").write_text('{"freed": {}, "bytes": 0}')
    stage.truth[f"{first}.1"] = Ended(Outcome(0, "ok"))
    engine.tick()
    assert str(engine.get(first).state) == "succeeded"
    clock.advance(23 * _HOUR)
    assert keeper.look() is None
    clock.advance(1 * _HOUR)
    assert keeper.look() not in {None, first}


def test_it_waits_for_runs_unless_the_disk_is_nearly_full(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    workspace, keeper = engine.workspace, Housekeeper(engine.workspace, engine)
    job = engine.submit("work", {})
    engine.tick()
    stage.truth[f"{job.id}.1"] = Alive()
    clock.advance(30 * _HOUR)
    assert keeper.look() is None
    assert gc.announced(workspace.database), "to say what would go is in nobody's way"
    clock.advance(24 * _HOUR)
    assert keeper.look() is None
    workspace.room.usage = lambda folder: (10 * GB, GB // 4)
    assert keeper.look() is not None


def test_older_versions_go_but_for_those_that_something_needs(engine: Engine, clock: ManualClock) -> None:
    workspace = engine.workspace
    world.define(workspace)
    for name in ("plain", "served", "base", "passed", "asked", "busy"):
        _make(workspace, name, 4, **({"task": "image-classification"} if name == "served" else {}))
    _make(workspace, "child", 1, base_model="base@v1")
    world.judge(workspace, "served@v1")
    world.ask_promotion(workspace, "served@v1")
    world.judge(workspace, "passed@v1", baseline="served@v1", evaluation="evaluation-2")
    workspace.database.transact(
        lambda tx: approvals.request(tx, "promote", {"model": "asked@v2"}, {}, subject="use_case:digits", hours=72)
    )
    engine.submit("work", {"trace": "busy@v1"})
    shown = deletion.survey_with_surplus(workspace).versions
    assert shown
    gone = {"plain@v1", "plain@v2", "served@v2", "base@v2", "passed@v2", "asked@v1", "busy@v2"}
    assert (set(shown.refs), shown.bytes > 1000) == (gone, True)
    before = set(_left(workspace))
    clock.advance(8 * 24 * _HOUR)
    assert Housekeeper(workspace, engine).look() is None
    assert set(_left(workspace)) == before, "the first time it only says so"
    clock.advance(24 * _HOUR)
    assert Housekeeper(workspace, engine).look() is not None
    assert before - set(_left(workspace)) == gone
    rows = workspace.database.read("SELECT data ->> 'by' FROM events WHERE type = 'model.deleted'")
    assert set(rows) == {("retention",)}


def test_without_a_setting_no_version_goes(engine: Engine) -> None:
    _make(engine.workspace, "plain", 4)
    assert engine.workspace.database.transact(lambda tx: deletion.delete_surplus(tx, None)) == []


def test_many_versions_cost_no_look_at_everything_each(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, looks, origins = engine.workspace, list[int](), references.model_origins
    for name in ("first", "second"):
        _make(workspace, name, 12)
    monkeypatch.setattr(references, "model_origins", lambda tx: (looks.append(1), origins(tx))[1])
    dropped = workspace.database.transact(lambda tx: deletion.delete_surplus(tx, 2))
    assert len(dropped) == 20
    assert len(looks) <= 5, "once for all, and twice for each name"
    assert workspace.database.read("SELECT count(*) FROM jobs WHERE kind = 'gc'") == [(2,)]


def test_what_the_settings_let_go_leaves_older_backups_and_what_a_person_deletes_does_not(
    engine: Engine, stage: Stage, clock: ManualClock
) -> None:
    workspace, backups = engine.workspace, AutomaticBackups(engine.workspace)
    _make(workspace, "plain", 4)
    first = backups.save()
    workspace.database.transact(lambda tx: deletion.delete_surplus(tx, 2))
    _sweep(engine, stage)
    clock.advance(_HOUR)
    second = backups.save()
    assert _numbers(workspace, "plain") == [3, 4]
    assert automatic_backups(workspace.folders.backups) == [first, second]
    assert gc.backups(workspace), "they are still asked for what the catalog lost"
    asked = {"noun": "model", "name": "plain", "versions": [3]}
    workspace.database.transact(lambda tx: deletion.apply_approved(tx, asked, "ada"))
    _sweep(engine, stage)
    clock.advance(_HOUR)
    third = backups.save()
    assert automatic_backups(workspace.folders.backups) == [third]


def _sweep(engine: Engine, stage: Stage) -> None:
    """Run the waiting job `gc` as a worker does."""
    workspace = engine.workspace
    ((name, text),) = workspace.database.read("SELECT id, spec FROM jobs WHERE kind = 'gc' AND state = 'queued'")
    engine.tick()
    folder = RunFolder(workspace.folders.runs / f"{name}.1")
    payload = gc.plan(gc.GcSpec.model_validate_json(text), workspace).payload_json()
    folder.create({"payload": payload, "job": name, "workspace": str(workspace.folders.root)})
    write_whole(folder.outputs / "result.json", json.dumps(gc.run(Run(folder))))
    stage.truth[f"{name}.1"] = Ended(Outcome(0, "ok"))
    engine.tick()
    assert str(engine.get(name).state) == "succeeded"
