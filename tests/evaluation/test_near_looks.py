"""Rows that come again, changed a little and under other names, are no fresh rows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from speciate.datasets.columns import SKETCH
from speciate.evaluation import evaluate, near_looks
from speciate.evaluation.reports import report
from speciate.modalities import find
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.evaluation.test_contamination import text
from tests.training.world import define, make_dataset

TRAINED, TESTED = 80, 60


def tales(workspace: Workspace, name: str, tested: list[str], kinds: list[str]) -> None:
    texts = [text(number, kinds[number]) for number in range(TRAINED)] + tested
    prints = [hashlib.sha256(each.encode()).hexdigest() for each in texts]
    columns = {"text": texts, SKETCH: [find("text").sketch(each) for each in texts]}
    make_dataset(
        workspace, name, "text", {**columns, "_content": prints, "_fingerprint": prints}, labels=kinds,
        splits=["train"] * 60 + ["validation"] * 20 + ["test"] * TESTED, inputs=["text"],
    )  # fmt: skip


def judged(workspace: Workspace, dataset: str, model: str) -> dict[str, Any]:
    return world.evaluate_models(workspace, dataset=dataset, models=[model], use_case="telling", latency=False)


def test_near_copies_of_judged_rows_count_as_looked_at(workspace: Workspace) -> None:
    kinds = ["good" if number % 3 else "bad" for number in range(TRAINED + TESTED)]
    tested = [text(TRAINED + number, kinds[TRAINED + number]) for number in range(TESTED)]
    tales(workspace, "tales", tested, kinds)
    tales(workspace, "retold", [f"{each} so they say" for each in tested], kinds)
    tales(workspace, "others", [text(500 + number, kinds[TRAINED + number]) for number in range(TESTED)], kinds)
    made = [
        world.train_model(workspace, f"teller-{learner}", dataset="tales", hyperparameters={"candidates": [learner]})
        for learner in ("logistic", "svm", "neighbours")
    ]
    for model in made[:2]:
        world.evaluate_models(workspace, dataset="tales", models=[model], latency=False)
    define(workspace, "telling", "text-classification", 0.6)

    again = judged(workspace, "retold", made[2])
    decision = report.find_report(workspace.database, again["evaluation"]).decision
    assert decision is not None
    assert (decision.earlier_candidates, decision.looks) == (2, 2)
    assert decision.level > 0.95
    assert any(
        "of these 60 rows are near-copies of rows of tales@v1:test, which 2 evaluation(s) judged" in each
        for each in again["report"]["notes"]
    )

    define(workspace, "telling-anew", "text-classification", 0.6)
    fresh = world.evaluate_models(workspace, dataset="others", models=[made[2]], use_case="telling-anew", latency=False)
    decision = report.find_report(workspace.database, fresh["evaluation"]).decision
    assert decision is not None
    assert (decision.earlier_candidates, decision.looks, decision.level) == (0, 0, 0.95)


def test_rows_of_a_dataset_that_was_deleted_are_left_out(workspace: Workspace) -> None:
    kinds = ["good" if number % 3 else "bad" for number in range(TRAINED + TESTED)]
    tested = [text(TRAINED + number, kinds[TRAINED + number]) for number in range(TESTED)]
    for name, suffix in (("tales", ""), ("retold", " so they say")):
        tales(workspace, name, [each + suffix for each in tested], kinds)
    model = world.train_model(workspace, "teller", dataset="tales")
    world.evaluate_models(workspace, dataset="tales", models=[model], latency=False)
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM dataset_versions WHERE name = 'tales'"))
    define(workspace, "telling", "text-classification", 0.6)
    world.evaluate_models(
        workspace, dataset="retold", models=["constant:"], use_case="telling", latency=False
    )  # and is not refused


def test_a_dataset_that_goes_between_plan_and_run_stops_no_evaluation(workspace: Workspace) -> None:
    kinds = ["good" if number % 3 else "bad" for number in range(TRAINED + TESTED)]
    tested = [text(TRAINED + number, kinds[TRAINED + number]) for number in range(TESTED)]
    for name, suffix in (("tales", ""), ("retold", " so they say")):
        tales(workspace, name, [each + suffix for each in tested], kinds)
    model = world.train_model(workspace, "teller", dataset="retold")
    world.evaluate_models(workspace, dataset="tales", models=["constant:"], latency=False)
    asked = evaluate.EvaluateSpec(models=(model,), dataset="retold", latency=False)
    planned = evaluate.plan(asked, workspace)
    (workspace.folders.datasets / "tales.parquet").unlink()
    result = world.perform_plan(workspace, evaluate.KIND, planned)
    assert any("tales@v1:test: not_checked" in note for note in result["report"]["notes"])


def test_near_copies_within_a_suite_are_one_independent_unit(workspace: Workspace) -> None:
    """Three retellings of each of 20 texts are no 60 observations, whatever their ids and groups say."""
    kinds = ["good" if number % 3 else "bad" for number in range(TRAINED)]
    own = [text(TRAINED + number, "good") for number in range(TESTED // 3)]
    tested = [f"{each}{more}" for each in own for more in ("", " so they say", " as it is told")]
    kinds += ["good" if number % 2 else "bad" for number in range(TESTED // 3) for _ in range(3)]
    tales(workspace, "tales", tested, kinds)
    model = world.train_model(workspace, "teller", dataset="tales")
    result = world.evaluate_models(workspace, dataset="tales", models=["constant:", model], latency=False)
    found = report.find_report(workspace.database, result["evaluation"])
    assert found.n == TESTED
    assert 20 <= found.clusters <= 24  # a sketch may miss one
    assert any("nearly equal rows count as one group" in note for note in found.notes)
    constant = found.row("constant:").interval
    assert constant is not None
    assert constant[1] - constant[0] > 0.3, "of 20 observations; 60 would give 0.25"


def test_suites_that_are_too_many_to_be_compared_are_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["good" if number % 3 else "bad" for number in range(TRAINED + TESTED)]
    tested = [text(TRAINED + number, kinds[TRAINED + number]) for number in range(TESTED)]
    for name, suffix in (("tales", ""), ("retold", " so they say"), ("again", " as you know"), ("last", " it is said")):
        tales(workspace, name, [each + suffix for each in tested], kinds)
    for name in ("tales", "retold", "again"):
        world.evaluate_models(workspace, dataset=name, models=["constant:"], latency=False)
    monkeypatch.setattr(near_looks, "MOST_SUITES", 1)
    notes = world.evaluate_models(workspace, dataset="last", models=["constant:"], latency=False)["report"]["notes"]
    assert any(note.startswith("Near-copies of rows of 2 older suites: not_checked, since") for note in notes)
    assert sum("rows are near-copies of rows of" in note for note in notes) == 1
