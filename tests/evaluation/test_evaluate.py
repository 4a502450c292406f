from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.datasets.loader import load_examples
from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions, mistakes, report, slices
from speciate.evaluation.answers import Answer, answer_all, from_column
from speciate.evaluation.describe import against_baseline
from speciate.evaluation.evaluate import EvaluateSpec, plan
from speciate.evaluation.leaderboard import draw
from speciate.evaluation.run import EvaluationTask
from speciate.jobs.run import Run, Stopped
from speciate.tasks.contract import Prediction
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


def refusal(workspace: Workspace, **spec: Any) -> SpeciateError:
    with pytest.raises(SpeciateError) as caught:
        plan(EvaluateSpec.model_validate({"dataset": "flowers"} | spec), workspace)
    return caught.value


def test_a_model_is_compared_with_the_incumbent_and_decided_on(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering")
    assert result["decision"]["verdict"] == "promote"
    assert [row["model"] for row in result["report"]["leaderboard"]] == ["points@v1", "column:rules"]
    compared = result["report"]["comparisons"][0]
    assert compared["interval"][0] > 0
    assert compared["minimum_detectable_effect"] > 0
    kept = decisions.newest(flowers.database, "flowering", "points@v1")
    assert kept is not None
    assert kept.decision.id == result["decision"]["id"]
    assert kept.evaluation == result["evaluation"]
    found = report.find(flowers.database, result["evaluation"])
    assert found.dataset == "flowers@v1:test"
    assert (found.n, found.clusters) == (200, 100)
    assert found.row("points").p95_ms is not None
    types = [event.type for event in flowers.database.events_after(0)][-2:]
    assert types == ["evaluation.created", "decision.made"]


def test_answers_and_scores_are_kept_as_rows(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["constant:", "points"], latency=False)
    folder = flowers.folders.evaluations / result["evaluation"]
    predictions = pq.read_table(folder / "predictions.parquet").to_pylist()
    scores = pq.read_table(folder / "scores.parquet").to_pylist()
    assert len(predictions) == 400
    assert "decision" not in result
    right = [row["value"] for row in scores if (row["model"], row["metric"]) == ("points@v1", "accuracy")]
    assert sum(right) / len(right) == pytest.approx(result["report"]["leaderboard"][0]["value"])


def test_slices_and_worst_examples_come_from_the_stored_rows(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    asked = {
        "folder": str(flowers.folders.evaluations / result["evaluation"]), "metric": "accuracy", "column": "site",
        "baseline": "column:rules", "candidate": "points@v1", "count": 3, "numeric": False,
    }  # fmt: skip
    cut = slices.by_column(asked)
    assert {one["value"] for one in cut["slices"]} == {"north", "south"}
    assert sum(one["n"] for one in cut["slices"]) == 200
    assert all(one["p_holm"] >= one["p_value"] for one in cut["slices"])
    wrong = mistakes.worst(asked)
    assert 0 < len(wrong["examples"]) <= 3
    assert all(example["truth"] != example["output"] for example in wrong["examples"])
    with pytest.raises(SpeciateError, match="did you mean 'site'"):
        slices.by_column(asked | {"column": "sites"})


def test_any_model_can_be_the_baseline_of_a_description(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["constant:", "points"], use_case="flowering", latency=False)
    found = report.find(flowers.database, result["evaluation"])
    turned = {c.candidate: c for c in against_baseline(found, "points@v1")}
    assert set(turned) == {"column:rules", "constant:"}
    assert all(c.delta is not None and c.delta < 0 for c in turned.values())
    assert all(c.p_holm is not None and c.p_value is not None and c.p_holm >= c.p_value for c in turned.values())
    assert draw(found).startswith(b"\x89PNG")


def test_numbers_are_compared_by_their_errors(workspace: Workspace) -> None:
    world.make_dataset(workspace, "sums", numeric=True)
    model = world.train_model(workspace, "adder", dataset="sums")
    result = world.evaluate_models(workspace, dataset="sums", models=["constant:", model], latency=False)
    assert [row["model"] for row in result["report"]["leaderboard"]] == ["adder@v1", "constant:"]
    found = report.find(workspace.database, result["evaluation"])
    assert set(found.row("adder").metrics) == {"mae", "rmse", "r2"}
    compared = found.compare("constant:", "adder@v1", "rmse")
    assert compared is not None
    assert compared.method == "bootstrap_bca"


def test_a_model_is_not_judged_by_what_it_has_learned_from(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, dataset="flowers:train", models=["points"], use_case="flowering")
    assert result["decision"]["verdict"] == "hold"
    assert "120 of these examples were in its training data" in result["decision"]["reasons"][0]
    assert "has seen 120" in result["report"]["notes"][0]


def test_the_incumbent_alone_is_measured_and_not_decided_on(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["column:rules"], use_case="flowering")
    assert "decision" not in result
    assert result["report"]["notes"] == ["No decision is made: there is no model beside the incumbent column:rules."]


def test_a_weaker_baseline_gives_no_decision(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", baseline="constant:")
    assert "decision" not in result
    assert "is not the incumbent column:rules" in result["report"]["notes"][0]


def test_an_easier_suite_than_the_core_one_gives_no_decision(flowers: Workspace) -> None:
    world.make_dataset(flowers, "easy", splits={"test": 50})
    world.define(flowers, suites={"core": "flowers:test"})
    easy = world.evaluate_models(flowers, dataset="easy", models=["points"], use_case="flowering", latency=False)
    assert "decision" not in easy
    core = world.evaluate_models(flowers, dataset=None, models=["points"], use_case="flowering", latency=False)
    assert core["decision"]["verdict"] == "promote"


def test_the_model_in_production_is_the_incumbent(flowers: Workspace) -> None:
    world.train_model(flowers, "rival", seed=1)
    flowers.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('flowering', 'production', 'points@v1', 1, 0)")
    )
    result = world.evaluate_models(flowers, models=["rival"], use_case="flowering", latency=False)
    assert result["report"]["baseline"] == "points@v1"


def test_without_a_test_split_the_refusal_names_the_next_call(workspace: Workspace) -> None:
    world.make_dataset(workspace, "bare", splits={"train": 20})
    error = refusal(workspace, dataset="bare", models=["constant:"])
    assert error.code == Code.INVALID
    assert "no examples in the split 'test'; it has train (20)" in error.message
    assert "create_dataset" in error.recovery
    assert "'bare:train'" in error.recovery


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"models": ["pointz"]}, "did you mean 'points'"),
        ({"models": ["column:rulez"]}, "did you mean 'rules'"),
        ({"models": ["points"], "use_case": "flowerin"}, "did you mean 'flowering'"),
        ({"models": ["points"], "metrics": ["mae"]}, "is for regression"),
        ({"models": ["points"], "metrics": ["recall"]}, "positive_label"),
        ({"models": ["points"], "dataset": "flower"}, "did you mean 'flowers'"),
        ({"models": ["points"], "dataset": None}, "No dataset was named"),
    ],
)
def test_bad_requests_are_refused_before_a_job_exists(flowers: Workspace, spec: dict[str, Any], said: str) -> None:
    assert said in str(refusal(flowers, **spec))


def test_a_resumed_evaluation_asks_no_recorded_answer_again(flowers: Workspace) -> None:
    made = plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers)
    task = EvaluationTask.model_validate(made.payload)
    examples = _examples(flowers, task)
    first, _ = world.prepare(flowers, "evaluate", made.payload)
    asked: list[int] = []

    def ask(chunk: Any) -> list[Prediction]:
        asked.append(len(chunk))
        return [Prediction("yes", 0.5, None) for _ in chunk]

    def all_of(run: Run) -> list[Answer]:
        return answer_all(run, task.contestants[0], task.dataset.id, examples, ask, 0, len(examples))

    answers = all_of(Run(first))
    resumed, _ = world.prepare(flowers, "evaluate", made.payload, resume_from=[str(first.path)])
    assert all_of(Run(resumed)) == answers
    assert sum(asked) == len(examples)


def test_a_failing_example_is_an_error_row_and_costs_only_itself(flowers: Workspace) -> None:
    made = plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers)
    task = EvaluationTask.model_validate(made.payload)
    examples = _examples(flowers, task)
    folder, _ = world.prepare(flowers, "evaluate", made.payload)

    def ask(chunk: Any) -> list[Prediction]:
        if any(example.id == examples[3].id for example in chunk):
            raise ValueError("cannot read it")
        return [Prediction("yes", 0.5, None) for _ in chunk]

    answers = answer_all(Run(folder), task.contestants[0], "id", examples, ask, 0, len(examples))
    assert [i for i, answer in enumerate(answers) if answer.error] == [3]
    assert answers[3] == Answer(None, error="ValueError: cannot read it")


def test_a_run_that_is_asked_to_stop_stops_between_chunks(flowers: Workspace) -> None:
    made = plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers)
    folder, _ = world.prepare(flowers, "evaluate", made.payload)
    (folder.path / "cancel").touch()
    task = EvaluationTask.model_validate(json.loads(json.dumps(made.payload)))
    with pytest.raises(Stopped):
        answer_all(Run(folder), task.contestants[0], "id", _examples(flowers, task), lambda chunk: [], 0, 1)


def test_an_empty_cell_of_the_system_in_use_is_an_error(flowers: Workspace) -> None:
    example = _examples(
        flowers,
        EvaluationTask.model_validate(plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers).payload),
    )[0]
    empty = example._replace(columns={"rules": None})
    assert from_column([example, empty], "rules", numeric=False)[1].error == "the column holds no answer"


def _examples(workspace: Workspace, task: EvaluationTask) -> list[Any]:
    return load_examples(workspace.folders, task.dataset, ["test"])
