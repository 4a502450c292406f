from __future__ import annotations

import pytest

from speciate import modalities, use_cases
from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.promotion.requirements import RequirementChange, change_requirements, check_possible
from speciate.settings import Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace

PERSON = Settings(policy="person")


def ask(workspace: Workspace, target: float) -> RequirementChange:
    definition = Definition(
        name="digits", task="image-classification", objective=Objective(metric="accuracy", target=target)
    )
    return workspace.database.transact(lambda tx: change_requirements(tx, definition, PERSON))


def test_a_looser_objective_in_production_is_in_force_once_a_person_agreed(workspace: Workspace) -> None:
    assert ask(workspace, 0.9).approval is None
    workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('digits', 'production', 'm@v1', 1, 0, NULL)")
    )
    asked = ask(workspace, 0.8)
    assert asked.approval is not None
    assert asked.approval.evidence["loosened"] == ["objective.target"]
    assert use_cases.get(workspace.database, "digits").objective.target == 0.9
    decided = approvals.decide(workspace, asked.approval.id, approve=True, by="ada")
    assert decided.approval.state == "approved"
    assert use_cases.get(workspace.database, "digits").objective.target == 0.8


def test_asking_again_for_what_waits_asks_one_question(workspace: Workspace) -> None:
    ask(workspace, 0.9)
    workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('digits', 'production', 'm@v1', 1, 0, NULL)")
    )
    first, again = ask(workspace, 0.8), ask(workspace, 0.8)
    assert first.approval is not None
    assert again.approval == first.approval


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("tabular", "did you mean 'tabular-classification'"),
        ("video-classification", "text-classification"),
        ("image-clasification", "did you mean 'image-classification'"),
    ],
)
def test_a_task_that_nothing_can_do_is_refused_with_those_that_can_be_done(
    workspace: Workspace, task: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {name: where for name, where in modalities.table().items() if name != "video"}
    monkeypatch.setattr(modalities, "table", lambda: without)
    definition = Definition(name="digits", task=task, objective=Objective(metric="accuracy"))
    with pytest.raises(SpeciateError, match="No installed modality") as caught:
        check_possible(workspace, definition)
    assert said in str(caught.value)
    assert "video-regression" not in str(caught.value)


def test_an_incumbent_that_is_not_there_is_refused(workspace: Workspace) -> None:
    def definition(incumbent: str) -> Definition:
        objective = Objective(metric="accuracy")
        return Definition(name="digits", task="image-classification", objective=objective, incumbent=incumbent)

    for elsewhere in ("column:rules", "constant:", "api:openai/gpt-4o-mini"):
        check_possible(workspace, definition(elsewhere))
    with pytest.raises(SpeciateError, match="nothing") as caught:
        check_possible(workspace, definition("nothing"))
    assert caught.value.code is Code.NOT_FOUND
