"""The gate `consent`: who agreed is asked of the rows that a model learned from."""

from __future__ import annotations

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation import gates
from speciate.evaluation.contamination import count_without_consent
from speciate.evaluation.reports import report
from speciate.use_cases import Gate
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.evaluation.test_gates import evidence, row
from tests.training.world import make_dataset, train_now

ASKED = Gate(rule="consent", column="agreed")


def test_rows_that_say_anything_but_yes_are_counted_and_those_of_the_test_split_are_not(workspace: Workspace) -> None:
    cells = ["yes", "True", "1", " granted ", "no", None, "", "yes", "no"]
    splits = ["train"] * 5 + ["validation"] * 3 + ["test"]
    texts = [f"text {place}" for place in range(9)]
    manifest = make_dataset(
        workspace, "faces", "text", {"text": texts, "agreed": cells}, labels=["a"] * 9, splits=splits, inputs=["text"]
    )  # fmt: skip
    assert count_without_consent(workspace.folders, [manifest], "agreed") == 3
    assert count_without_consent(workspace.folders, [manifest, manifest], "asked") == 16


@pytest.mark.parametrize(
    ("lacking", "outcome"), [({"agreed": 0}, "pass"), ({"agreed": 2}, "fail"), ({"other": 0}, "fail"), (None, "fail")]
)
def test_the_gate_holds_only_where_every_row_is_known_to_say_yes(lacking: dict[str, int] | None, outcome: str) -> None:
    candidate = row().model_copy(update={"without_consent": lacking})
    assert gates.judge(ASKED, evidence(candidate)).outcome == outcome


def test_a_gate_without_its_column_is_refused_and_so_is_a_column_elsewhere(workspace: Workspace) -> None:
    for wrong in (Gate(rule="consent"), Gate(rule="offline", column="agreed")):
        with pytest.raises(SpeciateError, match="column"):
            world.define(workspace, gates=(wrong,))


def test_a_model_that_learned_from_rows_without_consent_is_held(workspace: Workspace) -> None:
    kinds = ["good" if number % 2 else "bad" for number in range(120)]
    texts = [f"{kind} {kind} tale number {number} of many" for number, kind in enumerate(kinds)]
    agreed = ["no" if number == 3 else "yes" for number in range(120)]
    make_dataset(
        workspace, "tales", "text", {"text": texts, "agreed": agreed}, labels=kinds,
        splits=["train"] * 60 + ["validation"] * 20 + ["test"] * 40, inputs=["text"],
    )  # fmt: skip
    world.define(
        workspace, name="telling", task="text-classification", incumbent="constant:", gates=(ASKED,),
        objective={"metric": "accuracy", "target": 0.6},
    )  # fmt: skip
    made = train_now(workspace, name="teller", dataset="tales", method="classical", use_case="telling")
    result = world.evaluate_models(
        workspace, dataset="tales", models=[made["model"]], use_case="telling", latency=False
    )
    assert report.find_report(workspace.database, result["evaluation"]).row("teller").without_consent == {"agreed": 1}
    assert result["decision"]["verdict"] == "hold"
    assert "1 rows that it learned from do not say yes in 'agreed'" in result["decision"]["reasons"]
