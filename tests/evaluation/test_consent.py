"""The gate `consent`: who agreed is asked of the rows that a model learned from."""

from __future__ import annotations

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation import gates
from speciate.evaluation.contamination import count_without_consent
from speciate.evaluation.reports import report
from speciate.promotion import verify_evidence
from speciate.use_cases import Definition, Gate, Objective, gates_in_force
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


def test_a_model_of_deleted_data_is_none_of_those_whose_consent_nobody_can_know(workspace: Workspace) -> None:
    def lacking(candidate: str) -> dict[str, int] | None:
        done = world.evaluate_models(workspace, dataset="tales", models=[candidate], use_case="telling", latency=False)
        assert done["decision"]["verdict"] == "hold"
        return report.find_report(workspace.database, done["evaluation"]).row(candidate).without_consent

    kinds = ["good" if number % 2 else "bad" for number in range(120)]
    texts = [f"{kind} {kind} tale number {number} of many" for number, kind in enumerate(kinds)]
    columns, splits = {"text": texts, "agreed": ["yes"] * 120}, ["train"] * 60 + ["validation"] * 20 + ["test"] * 40
    make_dataset(workspace, "tales", "text", columns, labels=kinds, splits=splits, inputs=["text"])
    taken = {"text": [f"{each}, again" for each in texts], "agreed": ["no"] * 120}
    make_dataset(workspace, "taken", "text", taken, labels=kinds, splits=splits, inputs=["text"])
    given = {"text": [f"{each}, once more" for each in texts], "agreed": ["yes"] * 120}
    make_dataset(workspace, "gone", "text", given, labels=kinds, splits=splits, inputs=["text"])
    world.define(
        workspace, name="telling", task="text-classification", incumbent="constant:",
        gates=(Gate(rule="consent", column="agreed", if_unknown="accept"),),
        objective={"metric": "accuracy", "target": 0.6},
    )  # fmt: skip
    made = train_now(workspace, name="teller", dataset="taken", method="classical", use_case="telling")
    other = train_now(workspace, "job-y", name="other", dataset="gone", method="classical", use_case="telling")
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM dataset_versions WHERE name = 'gone'"))
    assert lacking(other["model"]) == {}
    assert lacking(made["model"]) == {"agreed": 80}
    assert lacking(f"ensemble:{made['model']}+{other['model']}") == {"agreed": 80}, "what is known speaks against it"
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM dataset_versions WHERE name = 'taken'"))
    assert lacking(made["model"]) == {}


@pytest.mark.parametrize(
    ("if_unknown", "lacking", "outcome"),
    [
        ("ask", None, "not_known"), ("accept", None, "pass"), ("refuse", None, "fail"), ("ask", {"agreed": 1}, "fail"),
        ("accept", {"agreed": 1}, "fail"), ("ask", {"other": 0}, "fail"), ("ask", {"agreed": 0}, "pass"),
    ],
)  # fmt: skip
def test_only_of_data_that_are_not_here_a_use_case_may_ask_a_person(
    if_unknown: str, lacking: dict[str, int] | None, outcome: str
) -> None:
    candidate = row().model_copy(update={"without_consent": lacking})
    asked = Gate.model_validate({"rule": "consent", "column": "agreed", "if_unknown": if_unknown})
    assert gates.judge(asked, evidence(candidate)).outcome == outcome
    document = {
        "decision": {"candidate": candidate.model},
        "report": {"leaderboard": [{"model": candidate.model, "without_consent": lacking}]},
    }
    assert verify_evidence._consent(asked.model_dump(), document) == {outcome}


def test_voices_are_asked_for_where_speech_is_made_and_nowhere_else() -> None:
    def rules(task: str, metric: str, *own: Gate) -> list[Gate]:
        definition = Definition(name="some", task=task, objective=Objective(metric=metric), gates=own)
        return [gate for gate in gates_in_force(definition) if gate.rule == "consent"]

    distortion = "mel_cepstral_distortion"
    assert rules("text-to-speech", distortion) == [Gate(rule="consent", column="consent", if_unknown="ask")]
    assert rules("text-to-speech", distortion, ASKED) == [ASKED]
    assert rules("text-to-image", "frechet_distance") == []
    assert rules("automatic-speech-recognition", "wer") == []
