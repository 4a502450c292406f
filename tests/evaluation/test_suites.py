from __future__ import annotations

from typing import Any

import pytest

from speciate.evaluation import decisions
from speciate.promotion import promote
from speciate.promotion.promote import PromoteSpec
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


@pytest.fixture
def suites(flowers: Workspace) -> Workspace:
    """The use case has a regression suite beside its core."""
    world.make_dataset(flowers, "mended", splits={"train": 10, "test": 400})
    world.define(flowers, suites={"core": "flowers:test", "regression": "mended:test"})
    return flowers


def promoted(workspace: Workspace) -> dict[str, Any]:
    _, job = world.prepare(workspace, "promote", {})
    spec = PromoteSpec(use_case="flowering", model="points@v1")
    return workspace.database.transact(lambda tx: promote.act(tx, spec, job, Settings(policy="auto")))


def test_a_promotion_needs_a_passing_decision_on_every_suite(suites: Workspace) -> None:
    core = world.evaluate_models(suites, dataset=None, models=["points"], use_case="flowering", latency=False)
    assert core["decision"]["verdict"] == "promote"
    assert core["further_suites"] == ["regression"]
    refused = promoted(suites)
    assert refused["state"] == "refused"
    assert "suite='regression'" in refused["reasons"][0]
    further = world.evaluate_models(
        suites, dataset=None, suite="regression", models=["points"], use_case="flowering", latency=False
    )
    assert further["decision"]["verdict"] == "promote"
    kept = decisions.newest(suites.database, "flowering", "points@v1", suite="regression")
    assert kept is not None
    assert {each.gate.rule for each in kept.decision.gates} == {"unseen", "not_worse"}
    assert promoted(suites)["state"] == "applied"


def test_being_worse_on_the_regression_suite_holds_a_candidate_back(suites: Workspace) -> None:
    world.evaluate_models(suites, dataset=None, models=["points"], use_case="flowering", latency=False)
    world.make_dataset(suites, "perfect", splits={"train": 10, "test": 400}, wrong=0.0)
    world.define(suites, suites={"core": "flowers:test", "regression": "perfect:test"})
    world.evaluate_models(suites, dataset=None, models=["points"], use_case="flowering", latency=False)
    further = world.evaluate_models(
        suites, dataset=None, suite="regression", models=["points"], use_case="flowering", latency=False
    )
    assert further["decision"]["verdict"] == "hold"
    reasons = promoted(suites)["reasons"]
    assert any(reason.startswith("On the regression suite: The verdict") for reason in reasons)
