"""A model that reads a column which alone gives the answer is promoted once a person agreed to that column."""

from __future__ import annotations

from typing import Any

from speciate.governance import approvals
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


def make_told(flowers: Workspace) -> None:
    """The column `site` is a code of the label, and is read."""
    manifest = world.make_dataset(flowers, "told", inputs=("x", "y", "site"))
    position = {"yes": "s", "no": "n"}
    world.make_version(
        flowers,
        lambda table: table.set_column(
            table.column_names.index("site"), "site", [[position[label] for label in table["label"].to_pylist()]]
        ),
        manifest.name,
    )


def judge(flowers: Workspace, name: str, dataset: str = "told:test") -> dict[str, Any]:
    asked = {"dataset": dataset, "models": [name], "use_case": "flowering", "latency": False}
    return world.evaluate_models(flowers, **asked)


def promoted(flowers: Workspace, model: str, policy: str = "auto") -> dict[str, Any]:
    _, job = world.prepare(flowers, "promote", {})
    asked = PromoteSpec(use_case="flowering", model=model)
    settings = Settings.model_validate({"policy": policy})
    return flowers.database.transact(lambda tx: promote.act(tx, asked, job, settings))


def test_an_evaluation_says_which_inputs_tell_the_answer(flowers: Workspace) -> None:
    make_told(flowers)
    world.train_model(flowers, "teller", dataset="told")
    asked = {"dataset": "told", "models": ["column:rules", "teller"], "metrics": ["accuracy"], "latency": False}
    notes = world.evaluate_models(flowers, **asked)["report"]["notes"]
    assert any(note.startswith("teller@v1 reads 'site'") for note in notes)


def test_a_person_is_asked_once_for_a_column_that_tells_the_answer(flowers: Workspace) -> None:
    make_told(flowers)
    world.define(flowers)
    world.train_model(flowers, "teller", dataset="told")
    first = judge(flowers, "teller")
    assert first["decision"]["verdict"] == "promote"
    asked = promoted(flowers, "teller@v1")
    assert asked["state"] == "needs_approval"
    assert "teller@v1 reads 'site' (accuracy alone 1.000" in str(asked["reasons"])
    shown = approvals.get(flowers.database, asked["approval"]["id"]).evidence
    assert shown["telling_inputs"][0]["column"] == "site"
    assert shown["telling_inputs"][0]["accuracy"] == 1

    assert approvals.decide(flowers, asked["approval"]["id"], False, "grace").result is None
    again = promoted(flowers, "teller@v1")
    assert again["state"] == "needs_approval", "a refusal is no acceptance"
    assert approvals.decide(flowers, again["approval"]["id"], True, "grace").result is not None

    world.train_model(flowers, "rival", dataset="told", hyperparameters={"candidates": ["neighbours"]})
    world.define(flowers, incumbent=None)
    judge(flowers, "rival")
    reasons = promoted(flowers, "rival@v1")["reasons"]
    assert "may be a copy of it" not in str(reasons), "the column was accepted for this use case"


def test_a_model_that_does_not_read_the_column_is_promoted_without_a_question(flowers: Workspace) -> None:
    make_told(flowers)
    world.define(flowers)
    world.train_model(flowers, "plain", dataset="flowers")
    assert judge(flowers, "plain")["decision"]["verdict"] == "promote"
    assert promoted(flowers, "plain@v1")["state"] == "applied"
