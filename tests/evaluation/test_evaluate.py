from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import resolve
from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions
from speciate.evaluation.evaluate import EvaluateSpec, plan
from speciate.evaluation.holdout_reuse import LooksOnRows, level_for
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.answering import Answer, answer_all
from speciate.evaluation.predictors.by_source import from_column
from speciate.evaluation.predictors.memory_use import measure_memory
from speciate.evaluation.reports import error_analysis, report, slice_metrics
from speciate.evaluation.reports.describe_evaluation import against_baseline
from speciate.evaluation.reports.leaderboard_chart import draw_leaderboard
from speciate.evaluation.statistics import units_needed
from speciate.governance import approvals
from speciate.jobs.job import Job, State
from speciate.jobs.run import Run, Stopped
from speciate.lineage import model_report
from speciate.models.registry import resolve as resolve_registered
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec
from speciate.refs import JobId
from speciate.settings import Settings
from speciate.tasks.task import Prediction
from speciate.training import train
from speciate.training.planning.training_plan import plan_training
from speciate.training.train_spec import TrainSpec
from speciate.vocabulary import Family
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.training.world import make_dataset, train_now


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
    found = report.find_report(flowers.database, result["evaluation"])
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
        "baseline": "column:rules", "candidate": "points@v1", "count": 3,
    }  # fmt: skip
    cut = slice_metrics.slices_by_column(asked)
    assert {one["value"] for one in cut["slices"]} == {"north", "south"}
    assert sum(one["n"] for one in cut["slices"]) == 200
    assert all(one["p_holm"] >= one["p_value"] for one in cut["slices"])
    assert {one["value"] for one in slice_metrics.slices_by_column(asked | {"column": "label"})["slices"]} == {
        "yes",
        "no",
    }
    wrong = error_analysis.worst_examples(asked)
    assert 0 < len(wrong["examples"]) <= 3
    assert all(example["truth"] != example["output"] for example in wrong["examples"])
    with pytest.raises(SpeciateError, match="did you mean 'site'"):
        slice_metrics.slices_by_column(asked | {"column": "sites"})


def test_groups_are_slices_where_they_are_asked_for_the_worst_first(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    asked = {
        "folder": str(flowers.folders.evaluations / result["evaluation"]), "metric": "accuracy", "column": "group_key",
        "baseline": "column:rules", "candidate": "points@v1",
    }  # fmt: skip
    cut = slice_metrics.slices_by_column(asked)
    assert (len(cut["slices"]), cut["left_out"]) == (20, 80)
    assert {one["n"] for one in cut["slices"]} == {2}
    deltas = [one["delta"] for one in cut["slices"]]
    assert deltas == sorted(deltas)
    assert deltas[0] < 0
    assert all(one["interval"] is None and one["p_value"] is None for one in cut["slices"]), "a group is one unit"
    turned = slice_metrics.slices_by_column(asked | {"baseline": "points@v1", "candidate": "column:rules"})
    assert turned["slices"][0]["delta"] <= -0.5
    assert "group_key" not in {one["column"] for one in slice_metrics.slices_by_columns(asked)["columns"]}


def test_any_model_can_be_the_baseline_of_a_description(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["constant:", "points"], use_case="flowering", latency=False)
    found = report.find_report(flowers.database, result["evaluation"])
    turned = {c.candidate: c for c in against_baseline(found, "points@v1")}
    assert set(turned) == {"column:rules", "constant:"}
    assert all(c.delta is not None and c.delta < 0 for c in turned.values())
    assert all(c.p_holm is not None and c.p_value is not None and c.p_holm >= c.p_value for c in turned.values())
    assert draw_leaderboard(found, "points@v1", "constant:").startswith(b"\x89PNG")


def test_numbers_are_compared_by_their_errors(workspace: Workspace) -> None:
    world.make_dataset(workspace, "sums", numeric=True)
    model = world.train_model(workspace, "adder", dataset="sums")
    result = world.evaluate_models(workspace, dataset="sums", models=["constant:", model], latency=False)
    assert [row["model"] for row in result["report"]["leaderboard"]] == ["adder@v1", "constant:"]
    found = report.find_report(workspace.database, result["evaluation"])
    assert set(found.row("adder").metrics) == {"mae", "rmse", "r2"}
    compared = found.compare("constant:", "adder@v1", "rmse")
    assert compared is not None
    assert compared.method == "jackknife_t"


def test_examples_without_a_reference_are_counted_in_one_note(workspace: Workspace) -> None:
    x = [float(i % 9) for i in range(90)]
    y: list[float | None] = [2 * one for one in x]
    y[0], y[1], y[3], y[89], y[85] = float("inf"), None, float("nan"), float("inf"), None
    splits = ["train"] * 60 + ["validation"] * 10 + ["test"] * 20
    make_dataset(workspace, "sums", "tabular", {"x": x, "y": y}, labels=["-"] * 90, splits=splits, inputs=["x"])
    how = {"method": "classical", "task": "tabular-regression", "target": "y"}
    trained = train_now(workspace, name="adder", dataset="sums", hyperparameters={"candidates": ["ridge"]}, **how)
    assert [note for note in trained["report"]["notes"] if "without" in note] == [
        "3 examples without 'y' were excluded."
    ]
    result = world.evaluate_models(workspace, dataset="sums", models=["adder"], latency=False)
    assert "2 of 20 examples without 'y' were left out." in result["report"]["notes"]


def test_a_model_is_not_judged_by_what_it_has_learned_from(flowers: Workspace) -> None:
    def renamed(rows: pa.Table) -> pa.Table:
        splits = pc.replace_substring_regex(rows["split"], "^train$", "again")
        return rows.set_column(rows.column_names.index("split"), "split", splits)

    world.make_version(flowers, renamed)
    result = world.evaluate_models(flowers, dataset="flowers:again", models=["points"], use_case="flowering")
    assert result["decision"]["verdict"] == "hold"
    assert "120 of these examples were in its training data" in result["decision"]["reasons"][0]
    assert "has seen 120" in result["report"]["notes"][0]


def test_a_model_whose_data_are_gone_cannot_be_shown_to_be_unseen(flowers: Workspace) -> None:
    world.make_dataset(flowers, "other", splits={"train": 80, "validation": 40, "test": 20})
    model = world.train_model(flowers, "stray", dataset="other")
    flowers.database.transact(lambda tx: tx.execute("DELETE FROM dataset_versions WHERE name = 'other'"))
    result = world.evaluate_models(flowers, models=[model], use_case="flowering", latency=False)
    assert result["decision"]["verdict"] == "inconclusive"
    assert any("data that it learned from are not here" in reason for reason in result["decision"]["reasons"])


def test_the_incumbent_alone_is_measured_and_not_decided_on(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["column:rules"], use_case="flowering")
    assert "decision" not in result
    assert result["no_decision"] == "there is no model beside the incumbent column:rules"
    assert result["report"]["notes"] == [f"No decision is made: {result['no_decision']}."]


def test_every_named_model_gets_a_verdict_and_what_is_none_gets_no_say(flowers: Workspace) -> None:
    world.train_model(flowers, "rival", seed=1)
    models = ["points", "rival", "ensemble:points+rival", "constant:"]
    result = world.evaluate_models(flowers, models=models, use_case="flowering", latency=False)
    together = "ensemble:points@v1+rival@v1"
    assert {each["candidate"] for each in result["decisions"]} == {"points@v1", "rival@v1", together}
    assert result["report"]["candidate"] == together


def test_a_candidate_that_is_no_model_gives_no_decision_and_says_so(flowers: Workspace) -> None:
    spec: dict[str, Any] = {"models": ["points"], "candidate": "constant:", "use_case": "flowering", "latency": False}
    result = world.evaluate_models(flowers, **spec)
    assert "decision" not in result
    assert result["no_decision"] == "the candidate constant: is no model to be judged"


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


def test_a_suite_goes_before_the_dataset_that_stands_in_for_it(flowers: Workspace) -> None:
    spec = EvaluateSpec(models=("points",), suite="core", dataset="flowers:validation", use_case="flowering")
    assert plan(spec, flowers).resolved["dataset"] == "flowers@v1:validation"
    world.define(flowers, suites={"core": "flowers:test"})
    assert plan(spec, flowers).resolved["dataset"] == "flowers@v1:test"


def test_the_core_suite_of_a_use_case_that_names_none_is_what_it_decided_on_first(flowers: Workspace) -> None:
    asked: dict[str, Any] = {"dataset": None, "models": ["points"], "use_case": "flowering", "latency": False}
    with pytest.raises(SpeciateError, match="'flowering' has no core suite yet: its first decision makes one"):
        world.evaluate_models(flowers, **asked, suite="core")
    with pytest.raises(SpeciateError, match="the suite 'core' is of a use case, and use_case names none"):
        world.evaluate_models(flowers, **asked | {"use_case": None}, suite="core")
    with pytest.raises(SpeciateError, match=r"has no suite 'heldout'.*suites={'heldout': 'NAME:test'}"):
        world.evaluate_models(flowers, **asked, suite="heldout")
    world.evaluate_models(flowers, **asked | {"dataset": "flowers"})
    again = world.evaluate_models(flowers, **asked, suite="core")
    assert again["report"]["dataset"] == "flowers@v1:test"
    assert "decision" in again


def test_another_dataset_than_the_first_decisions_gives_none_until_it_is_the_core_suite(flowers: Workspace) -> None:
    world.make_dataset(flowers, "easy", splits={"test": 50})
    first = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    assert first["decision"]["verdict"] == "promote"
    asked: dict[str, Any] = {"dataset": "easy", "models": ["points"], "use_case": "flowering", "latency": False}
    easy = world.evaluate_models(flowers, **asked)
    assert "decision" not in easy
    assert "has decided on flowers@v1:test before" in easy["no_decision"]
    chose = world.evaluate_models(flowers, **asked | {"dataset": "flowers:validation"})
    assert "flowers@v1:validation is another suite" in chose["no_decision"]
    world.define(flowers, suites={"core": "easy:test"})
    assert "decision" in world.evaluate_models(flowers, **asked)


@pytest.mark.parametrize("split", ["validation", "train"])
def test_rows_that_chose_or_taught_models_are_marked_wherever_they_judge_and_decide_nothing(
    flowers: Workspace, split: str
) -> None:
    asked: dict[str, Any] = {"dataset": f"flowers:{split}", "models": ["points"], "latency": False}
    plain = plan(EvaluateSpec(models=("points",), dataset=f"flowers:{split}"), flowers).resolved
    words = "models are chosen" if split == "validation" else "models learn"
    assert words in plain["warnings"][0]
    result = world.evaluate_models(flowers, **asked, use_case="flowering")
    assert result["report"]["judged_split"] == split
    assert words in result["report"]["notes"][0]
    assert [row["seen"] for row in result["report"]["leaderboard"] if row["model"] == "points@v1"] == [
        world.SIZES[split]
    ]
    assert "decision" not in result
    assert f"holds {split} rows" in result["no_decision"]
    stored = report.find_report(flowers.database, result["evaluation"])
    assert report.learning_split_words(stored.judged_split).startswith(f"{split} rows")
    older = stored.model_dump(mode="json", exclude={"judged_split"})
    assert report.Report.model_validate(older).judged_split == split, "one from before this was kept is marked, too"
    shown = model_report.model_report(flowers, "points@v1").evaluations
    assert [each.judged_split for each in shown] == [split]
    on_test = world.evaluate_models(flowers, **asked | {"dataset": "flowers:test"}, use_case="flowering")
    assert "judged_split" not in on_test["report"]
    assert on_test["decision"]["verdict"] == "promote"


def test_no_suite_is_a_split_that_models_learn_from_or_are_chosen_by(flowers: Workspace) -> None:
    with pytest.raises(SpeciateError, match="no verdict can rest on 'validation'"):
        world.define(flowers, suites={"core": "flowers:validation"})


def test_a_decision_on_validation_rows_from_before_promotes_nothing(flowers: Workspace) -> None:
    made = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)["decision"]["id"]
    flowers.database.transact(
        lambda tx: tx.execute(
            "UPDATE decisions SET evidence = replace(evidence, 'flowers@v1:test', 'flowers@v1:validation')"
        )
    )
    spec = PromoteSpec(use_case="flowering", model="points@v1", decision=made)
    refused = promote_now(flowers, spec)
    assert refused["state"] == "refused"
    assert "rests on validation rows, by which models are chosen" in " ".join(refused["reasons"])


def test_a_decision_keeps_what_it_rests_on_and_a_person_is_shown_it(flowers: Workspace) -> None:
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    kept = decisions.get(flowers.database, result["decision"]["id"]).decision
    assert (kept.dataset, kept.n, kept.level, kept.looks) == ("flowers@v1:test", 200, 0.95, 0)
    assert kept.interval == tuple(result["report"]["comparisons"][0]["interval"])
    spec = PromoteSpec(use_case="flowering", model="points@v1", propose=True)
    _, job = world.prepare(flowers, "promote", {})
    asked = flowers.database.transact(lambda tx: promote.act(tx, spec, job, flowers.settings))
    evidence = approvals.get(flowers.database, asked["approval"]["id"]).evidence
    assert (evidence["dataset"], evidence["n"]) == ("flowers@v1:test", 200)
    assert tuple(evidence["interval"]) == kept.interval


def test_a_repeated_look_at_a_suite_is_counted_and_told(flowers: Workspace) -> None:
    for _ in range(2):
        result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    assert "1 earlier evaluation(s)" in result["decision"]["reasons"][-1]
    assert decisions.get(flowers.database, result["decision"]["id"]).decision.looks == 1


def test_the_rows_that_a_verdict_asks_for_are_counted_as_the_next_look_will_judge_them(flowers: Workspace) -> None:
    first = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    target = round(first["report"]["leaderboard"][0]["value"] - 0.005, 3)
    world.define(flowers, objective={"metric": "accuracy", "target": target})
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    kept = decisions.get(flowers.database, result["decision"]["id"]).decision
    found = report.find_report(flowers.database, result["evaluation"])
    measured = found.row("points@v1").metrics["accuracy"]
    later = level_for(1, LooksOnRows(candidates=kept.earlier_candidates + 1))
    total = units_needed(measured.n, measured.standard_error or 0.0, measured.value - target, later)
    assert total is not None
    assert later > kept.level
    assert kept.needed_examples == pytest.approx(total - measured.n, rel=0.002)  # the report is rounded


@pytest.mark.slow(reason="test_suites.py: every candidate widens the level")
def test_models_that_were_judged_on_these_rows_before_widen_the_next_verdict(flowers: Workspace) -> None:
    world.train_model(flowers, "others")
    world.evaluate_models(flowers, models=["others"], use_case="flowering", latency=False)
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    kept = decisions.get(flowers.database, result["decision"]["id"]).decision
    assert (kept.earlier_candidates, kept.looks) == (1, 1)
    assert kept.level > 0.99
    (gate,) = [each for each in kept.gates if each.gate.rule == "fresh_rows"]
    assert "these test rows judged 1 candidate(s) in 1 evaluation(s) before" in gate.reason


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"of_a_group": 1000}, "of one group, which says nothing of other groups"),
        ({"of_a_group": 100}, "about 18 more groups (20 in all) would"),
    ],
)
def test_a_handful_of_groups_gives_no_promotion(flowers: Workspace, made: dict[str, Any], said: str) -> None:
    world.make_dataset(flowers, "few", splits={"test": 200}, **made)
    world.define(flowers, objective={"metric": "accuracy"}, incumbent="constant:")
    result = world.evaluate_models(flowers, dataset="few", models=["points"], use_case="flowering", latency=False)
    assert result["decision"]["verdict"] == "inconclusive"
    assert said in " ".join(result["decision"]["reasons"])


def test_rows_that_are_all_alike_decide_nothing(flowers: Workspace) -> None:
    world.make_dataset(flowers, "same", splits={"test": 50}, alike=True)
    result = world.evaluate_models(flowers, dataset="same", models=["points"], use_case="flowering", latency=False)
    assert "all 50 rows of same@v1:test are the same example" in result["no_decision"]


def test_copies_of_test_rows_are_no_further_evidence(flowers: Workspace) -> None:
    """Under new ids and groups, with and without hashes that tell."""

    def copied(rows: pa.Table, number: int) -> pa.Table:
        rows = rows.filter(pc.equal(rows["split"], "test"))
        for name in ("id", "group_key", "_fingerprint", *(["_content"] if number % 2 else [])):
            renamed = pc.binary_join_element_wise(rows[name], str(number), "-")
            rows = rows.set_column(rows.schema.get_field_index(name), name, renamed)
        return rows

    world.make_version(flowers, lambda rows: pa.concat_tables([rows, *(copied(rows, n) for n in range(5))]))
    widths = []
    for version in ("v1", "v2"):
        asked = {"models": ["column:rules", "points"], "dataset": f"flowers@{version}", "latency": False}
        report = world.evaluate_models(flowers, **asked)["report"]
        (low, high) = report["comparisons"][0]["interval"]
        widths.append((report["n"], high - low))
    (once, wide), (often, narrow) = widths
    assert often == 6 * once
    assert narrow == pytest.approx(wide, rel=0.1)
    assert "these 1,200 rows lie in 100 groups" in str(report["notes"])


@pytest.mark.usefixtures("measured_costs")
def test_costs_of_local_models_have_an_interval_and_a_load(flowers: Workspace) -> None:
    world.train_model(flowers, "again")
    result = world.evaluate_models(flowers, models=["points", "again"], use_case="flowering")
    found = report.find_report(flowers.database, result["evaluation"])
    for name in ("points@v1", "again@v1"):
        row = found.row(name)
        assert row.usd_interval is not None
        assert row.usd_per_1k is not None
        assert row.usd_interval[0] <= row.usd_per_1k <= row.usd_interval[1] * 1.5
        assert row.busy is not None
        assert row.p95_interval is not None


def test_the_constant_answer_to_absolute_errors_is_the_median(flowers: Workspace) -> None:
    world.make_dataset(flowers, "numbers", numeric=True)
    world.train_model(flowers, "sums", dataset="numbers")
    values = {}
    for metric in ("mae", "rmse"):
        world.evaluate_models(flowers, dataset="numbers", models=["constant:", "sums"], metrics=[metric], latency=False)
        answers = pq.read_table(max(flowers.folders.evaluations.glob("*/predictions.parquet"), key=_age)).to_pylist()
        (values[metric],) = {each["number"] for each in answers if each["model"] == "constant:"}
    rows = pq.read_table(flowers.folders.datasets / "numbers.parquet").to_pylist()
    learned = [each["label"] for each in rows if each["split"] == "train"]
    assert values["mae"] == pytest.approx(np.median(learned))
    assert values["rmse"] == pytest.approx(np.mean(learned))


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns


def test_the_reference_may_be_a_column_whose_values_the_label_does_not_have(flowers: Workspace) -> None:
    changes: dict[str, Any] = {"target_column": "site", "incumbent": None, "objective": {"metric": "f1"}}
    world.define(flowers, **changes, positive_label="south")
    world.train_model(flowers, "sites", use_case="flowering")
    result = world.evaluate_models(flowers, models=["sites"], use_case="flowering", latency=False)
    assert result["report"]["metric"] == "f1"
    world.define(flowers, **changes, positive_label="west")
    with pytest.raises(SpeciateError, match="'west' does not occur in 'site'"):
        world.evaluate_models(flowers, models=["sites"], use_case="flowering", latency=False)


def test_memory_is_that_of_one_copy_in_a_process_of_its_own(flowers: Workspace) -> None:
    world.define(flowers, limits={"max_memory_mb": 4000})
    alone = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    beside = world.evaluate_models(flowers, models=["constant:", "points"], use_case="flowering", latency=False)
    first, second = (
        report.find_report(flowers.database, one["evaluation"]).row("points").memory_mb for one in (alone, beside)
    )
    assert first is not None
    assert first > 0
    assert second == pytest.approx(first, rel=0.2, abs=5)


def test_memory_that_cannot_be_measured_is_unknown(flowers: Workspace) -> None:
    manifest = resolve(flowers.database, "flowers")
    assert measure_memory(flowers.folders, flowers.folders.root / "nowhere", manifest, ["flowers-0000"]) is None


def test_the_memory_of_an_evaluation_grows_with_what_it_keeps(flowers: Workspace) -> None:
    small = plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers).resources.memory_mb
    world.make_dataset(flowers, "many", splits={"test": 20_000})
    large = plan(EvaluateSpec(models=("points",), dataset="many"), flowers).resources.memory_mb
    assert large > small + 20


def test_the_model_in_production_is_the_incumbent(flowers: Workspace) -> None:
    world.train_model(flowers, "rival", seed=1)
    flowers.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('flowering', 'production', 'points@v1', 1, 0, NULL)")
    )
    result = world.evaluate_models(flowers, models=["rival"], use_case="flowering", latency=False)
    assert result["report"]["baseline"] == "points@v1"


def test_without_a_test_split_the_refusal_names_the_next_call(workspace: Workspace) -> None:
    world.make_dataset(workspace, "bare", splits={"train": 20})
    error = refusal(workspace, dataset="bare", models=["constant:"])
    assert error.code == Code.INVALID
    assert "no examples in the split 'test'; it has train (20)" in error.message
    assert "curate_dataset(dataset='bare', steps=[{'op': 'split'}])" in error.recovery
    assert "bare:train" not in error.recovery  # what the models have learned from


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
    task = EvaluationPayload.model_validate(made.payload_json())
    examples = _examples(flowers, task)
    first, _ = world.prepare(flowers, "evaluate", made.payload_json())
    asked: list[int] = []
    told: list[int] = []

    def ask(chunk: Any) -> list[Prediction]:
        asked.append(len(chunk))
        return [Prediction("yes", 0.5, None) for _ in chunk]

    def all_of(run: Run) -> list[Answer]:
        return answer_all(run, "a model", examples, ask, told.append)

    answers = all_of(Run(first))
    resumed, _ = world.prepare(flowers, "evaluate", made.payload_json(), resume_from=[str(first.path)])
    assert all_of(Run(resumed)) == answers
    assert sum(asked) == len(examples)
    assert told[-1] == len(examples)


def test_a_failing_example_is_an_error_row_and_costs_only_itself(flowers: Workspace) -> None:
    made = plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers)
    task = EvaluationPayload.model_validate(made.payload_json())
    examples = _examples(flowers, task)
    folder, _ = world.prepare(flowers, "evaluate", made.payload_json())

    def ask(chunk: Any) -> list[Prediction]:
        if any(example.id == examples[3].id for example in chunk):
            raise ValueError("cannot read it")
        return [Prediction("yes", 0.5, None) for _ in chunk]

    answers = answer_all(Run(folder), "a model", examples, ask, lambda count: None)
    assert [i for i, answer in enumerate(answers) if answer.error] == [3]
    assert answers[3] == Answer(None, error="ValueError: cannot read it")


def test_a_run_that_is_asked_to_stop_stops_between_chunks(flowers: Workspace) -> None:
    made = plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers)
    folder, _ = world.prepare(flowers, "evaluate", made.payload_json())
    (folder.path / "cancel").touch()
    task = EvaluationPayload.model_validate(json.loads(json.dumps(made.payload_json())))
    with pytest.raises(Stopped):
        answer_all(Run(folder), "a model", _examples(flowers, task), lambda chunk: [], lambda count: None)


def test_an_empty_cell_of_the_system_in_use_is_an_error(flowers: Workspace) -> None:
    example = _examples(
        flowers,
        EvaluationPayload.model_validate(
            plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers).payload_json()
        ),
    )[0]
    empty = example._replace(columns={"rules": None})
    assert from_column([example, empty], "rules", "classification")[1].error == "the column holds no answer"


def test_stored_answers_are_read_as_the_task_writes_its_targets() -> None:
    def stored(cell: object, family: Family) -> Answer:
        return from_column([Example("1", "Ada met Bob", None, "1", "test", {"said": cell})], "said", family, "text")[0]

    assert stored("b|a", "multi-label").output == ["a", "b"]
    assert stored("B O B", "tokens").output == ["B", "O", "B"]
    assert stored("B O", "tokens").error == "the column holds no answer: 2 tags for 3 words or residues, 'Ada met Bob'"
    assert stored("  two  words ", "transcription").output == "two words"
    assert stored("[0.5, 1]", "retrieval").output == [0.5, 1]


def _examples(workspace: Workspace, task: EvaluationPayload) -> list[Any]:
    return load_examples(workspace.folders, task.dataset, ["test"])


def test_an_incumbent_that_is_not_there_is_refused_before_anything_runs(flowers: Workspace) -> None:
    world.define(flowers, name="mistyped", incumbent="column:rulez")
    got = refusal(flowers, models=["points"], use_case="mistyped")
    assert "did you mean 'rules'" in got.message
    assert "define_use_case" in got.recovery


def test_what_was_planned_before_an_upgrade_runs_after_it(flowers: Workspace) -> None:
    now = plan(EvaluateSpec(models=("points",), dataset="flowers"), flowers).payload_json()
    before = {("contestants" if name == "models" else name): value for name, value in now.items()}
    assert EvaluationPayload.model_validate(before) == EvaluationPayload.model_validate(now)


def test_a_copy_of_what_serves_cannot_replace_it(flowers: Workspace) -> None:
    """It would pass each gate about not being worse, and nothing would change but the name."""
    first = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    promoted = PromoteSpec(use_case="flowering", model="points@v1", evaluation=first["evaluation"])
    assert promote_now(flowers, promoted)["state"] == "applied"
    twin = world.train_model(flowers, "twin")
    assert identity(flowers, twin) == identity(flowers, "points")
    second = world.evaluate_models(flowers, models=[twin], use_case="flowering", latency=False)
    assert second["decision"]["verdict"] == "hold"
    assert second["decision"]["same_model"] == "points@v1"
    assert "same model as points@v1" in second["decision"]["reasons"][0]
    assert "needed_examples" not in second["decision"]
    refused = promote_now(flowers, promoted.model_copy(update={"model": twin, "evaluation": second["evaluation"]}))
    assert refused["state"] == "refused"
    assert "it is the same model as points@v1" in str(refused["reasons"])

    other = world.train_model(flowers, "other", hyperparameters={"candidates": ["boosting"]})
    third = world.evaluate_models(flowers, models=[other], use_case="flowering", latency=False)
    assert "same_model" not in third["decision"]


def identity(workspace: Workspace, model: str) -> str:
    return resolve_registered(workspace.database, workspace.folders, model).card.id


def promote_now(workspace: Workspace, spec: PromoteSpec) -> dict[str, Any]:
    job = Job(id=JobId("job-x"), kind="promote", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)
    settings = Settings.model_validate({"policy": "auto"})
    return workspace.database.transact(lambda tx: promote.act(tx, spec, job, settings))


def test_the_answers_of_the_system_in_use_are_no_input(flowers: Workspace) -> None:
    """With the use case the column is left out, and the plan says so; without it the plan and the evaluation warn."""
    world.make_dataset(flowers, "ruled", inputs=("x", "y", "rules"))
    asked = {"name": "ruled-model", "dataset": "ruled", "method": "classical"}
    planned = train.plan(TrainSpec.model_validate(asked | {"use_case": "flowering"}), flowers)
    assert planned.payload.manifest.inputs == ("x", "y")
    assert planned.resolved["warnings"] == [
        "The input 'rules' of ruled@v1 holds the answers of the system in use for flowering: it is left out, so "
        "models do without that system."
    ]
    assert plan_training(flowers, "ruled", use_case="flowering").warnings[-1] == planned.resolved["warnings"][0]

    world.define(flowers, incumbent="constant:")  # a later version: the column still holds those answers
    planned = train.plan(TrainSpec.model_validate(asked | {"use_case": "flowering"}), flowers)
    assert planned.payload.manifest.inputs == ("x", "y")

    alone = train.plan(TrainSpec.model_validate(asked), flowers)
    assert alone.payload.manifest.inputs == ("x", "y", "rules")
    assert "copies that system and cannot replace it" in alone.resolved["warnings"][0]
    model = world.train_model(flowers, "ruled-model", dataset="ruled")
    result = world.evaluate_models(flowers, dataset="ruled", models=["column:rules", model], latency=False)
    assert any(f"{model} reads 'rules'" in note for note in result["report"]["notes"])
