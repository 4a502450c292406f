from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from speciate.evaluation import decisions, evaluate
from speciate.evaluation import suites as suites_store
from speciate.governance import approvals
from speciate.jobs.kinds import Plan
from speciate.promotion import aliases, promote
from speciate.promotion.evidence import PromoteSpec
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


@pytest.fixture
def suites(flowers: Workspace) -> Workspace:
    """The use case has a regression suite beside its core."""
    world.make_dataset(flowers, "mended", splits={"train": 10, "test": 400})
    world.define(flowers, suites={"core": "flowers:test", "regression": "mended:test"})
    return flowers


def promoted(workspace: Workspace, policy: str = "auto", **spec: Any) -> dict[str, Any]:
    _, job = world.prepare(workspace, "promote", {})
    asked = PromoteSpec.model_validate({"use_case": "flowering", "model": "points@v1"} | spec)
    settings = Settings.model_validate({"policy": policy})
    return workspace.database.transact(lambda tx: promote.act(tx, asked, job, settings))


def test_a_promotion_needs_a_passing_decision_on_every_suite(suites: Workspace) -> None:
    core = world.evaluate_models(suites, dataset=None, models=["points"], use_case="flowering", latency=False)
    assert core["decision"]["verdict"] == "promote"
    assert core["further_suites"] == ["regression"]
    refused = promoted(suites)
    assert refused["state"] == "refused"
    assert refused["next"][0]["arguments"]["suite"] == "regression"
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


@pytest.fixture
def guarded(flowers: Workspace) -> Workspace:
    """The candidate was judged by a target that it cannot be shown to reach."""
    world.define(flowers, objective={"metric": "accuracy", "target": 0.92})
    first = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    assert first["decision"]["verdict"] != "promote"
    return flowers


def without_its_errors(workspace: Workspace) -> Callable[[pa.Table], pa.Table]:
    """The attack: of the test rows those that the candidate gets right."""
    (evaluation,) = workspace.database.read("SELECT id FROM evaluations ORDER BY created DESC LIMIT 1")[0]
    scores = pq.read_table(workspace.folders.evaluations / evaluation / "scores.parquet").to_pylist()
    wrong = {s["example"] for s in scores if (s["model"], s["metric"], s["value"]) == ("points@v1", "accuracy", 0.0)}
    assert 0 < len(wrong) < 100
    return lambda rows: rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(sorted(wrong)))))


def judge(workspace: Workspace, dataset: str = "flowers:test", **more: Any) -> dict[str, Any]:
    asked = {"models": ["points"], "use_case": "flowering", "latency": False, "dataset": dataset} | more
    return world.evaluate_models(workspace, **asked)


@pytest.mark.parametrize("policy", ["auto", pytest.param("person", marks=pytest.mark.slow)])
def test_rows_that_the_candidate_gets_wrong_cannot_be_curated_away_without_a_person(
    guarded: Workspace, policy: str
) -> None:
    world.make_version(guarded, without_its_errors(guarded))
    unnamed = judge(guarded)
    assert unnamed["report"]["dataset"] == "flowers@v1:test", "the newest version is not the suite"
    assert "dataset='flowers@v2:test'" in unnamed["report"]["notes"][0]
    assert unnamed["decision"]["verdict"] != "promote"
    named = judge(guarded, "flowers@v2:test")
    assert named["decision"]["verdict"] == "promote"
    told = named["decision"]["reasons"][-1]
    assert "of the 200 rows that were judged before, on flowers@v1:test: another suite" in told
    assert told.endswith("evaluate on dataset='flowers@v1:test'")
    asked = promoted(guarded, policy=policy, evaluation=named["evaluation"])
    assert asked["state"] == "needs_approval"
    assert "only a person accepts it" in asked["reasons"][-1]
    assert aliases.read(guarded.database, "flowering") is None


def test_once_a_person_moved_the_use_case_the_new_suite_is_its_own(guarded: Workspace) -> None:
    world.make_version(guarded, without_its_errors(guarded))
    named = judge(guarded, "flowers@v2:test")
    asked = promoted(guarded, evaluation=named["evaluation"])
    assert approvals.decide(guarded, asked["approval"]["id"], True, "grace").result is not None
    world.train_model(guarded, "rival", hyperparameters={"candidates": ["neighbours"]})
    again = judge(guarded, models=["rival"])
    assert again["report"]["dataset"] == "flowers@v2:test"
    assert "another suite" not in str(again["decision"]["reasons"])


def test_rows_that_join_leave_the_suite_and_its_promotions_as_they_are(flowers: Workspace) -> None:
    judge(flowers)
    world.make_version(flowers, lambda rows: pa.concat_tables([rows, renamed(rows.slice(150, 40))]))
    more = judge(flowers)
    assert more["report"]["dataset"] == "flowers@v2:test"
    assert promoted(flowers)["state"] == "applied"


def renamed(rows: pa.Table) -> pa.Table:
    """Rows of new examples, with the test split."""
    for name in ("id", "_content", "_fingerprint"):
        rows = rows.set_column(
            rows.schema.get_field_index(name), name, pc.binary_join_element_wise(rows[name], "x", "-")
        )
    return rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(["test"] * rows.num_rows))


def test_relabelled_rows_and_other_answers_of_the_system_in_use_need_a_person(flowers: Workspace) -> None:
    judge(flowers)
    world.make_version(flowers, lambda rows: replaced(rows, "rules", "no"))
    assert judge(flowers)["report"]["dataset"] == "flowers@v1:test"
    other = judge(flowers, "flowers@v2:test")
    assert "other answers of the system in use" in str(other["decision"]["reasons"])
    assert promoted(flowers, evaluation=other["evaluation"])["state"] == "needs_approval"
    assert promoted(flowers)["state"] == "applied", "the newest decision on the suite itself counts"


def test_a_column_that_a_gate_slices_by_is_part_of_the_suite(flowers: Workspace) -> None:
    world.define(flowers, gates=[{"rule": "no_slice_worse", "column": "site"}])
    judge(flowers)
    world.make_version(flowers, lambda rows: replaced(rows, "site", "north"))
    assert judge(flowers)["report"]["dataset"] == "flowers@v1:test"
    other = judge(flowers, "flowers@v2:test")
    assert "other values to slice or score by on 67 rows" in str(other["decision"]["reasons"])
    world.define(flowers)
    assert judge(flowers)["report"]["dataset"] == "flowers@v2:test", "without the gate nothing depends on it"


def test_what_a_judgement_reads_beside_the_reference(flowers: Workspace) -> None:
    manifest = world.make_dataset(flowers, "wide")
    columns = {"site": "VARCHAR", "rejected": "VARCHAR", "tests": "VARCHAR", "environment": "VARCHAR", "x": "DOUBLE"}
    manifest = manifest.model_copy(update={"columns": columns, "inputs": ("x",)})
    read = suites_store.columns_read
    assert read(manifest, "tabular-classification", None, "core", None) == set()
    assert read(manifest, "preference", None, "core", None) == {"rejected"}
    assert read(manifest, "behaviour-cloning", None, "core", None) == {"environment"}
    assert read(manifest, "text-generation", None, "core", "code_passes") == {"tests"}
    assert read(manifest, "text-generation", None, "core", "mine.py:score") == set(columns) - {"x"}


def replaced(rows: pa.Table, column: str, value: str) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(column), column, pa.array([value] * rows.num_rows))


def test_a_look_without_a_use_case_binds_a_first_decision_too(flowers: Workspace) -> None:
    world.define(flowers, objective={"metric": "accuracy", "target": 0.92})
    world.evaluate_models(flowers, models=["points"], latency=False)
    world.make_version(flowers, without_its_errors(flowers))
    judge(flowers, "flowers@v2:test")
    asked = promoted(flowers)
    assert asked["state"] == "needs_approval"
    assert "rows that were judged before, on flowers@v1:test" in asked["reasons"][0]


def test_another_name_for_the_label_column_hides_no_look(flowers: Workspace) -> None:
    world.define(flowers, objective={"metric": "accuracy", "target": 0.92})
    world.evaluate_models(flowers, models=["points"], latency=False)
    drop = without_its_errors(flowers)
    world.make_version(flowers, lambda rows: drop(rows).append_column("answer", drop(rows)["label"]))
    flowers.database.transact(lambda tx: tx.execute("UPDATE judged_suites SET target = 'answer'"))
    judge(flowers, "flowers@v2:test")
    assert promoted(flowers)["state"] == "needs_approval"


def test_a_look_at_another_version_or_the_same_weights_binds_other_use_cases(flowers: Workspace) -> None:
    world.define(flowers, name="elsewhere")
    judge(flowers, use_case="elsewhere")
    world.make_version(flowers, lambda rows: rows.slice(0, rows.num_rows - 20))
    evaluation = judge(flowers, "flowers@v2:test")["evaluation"]
    copy = "INSERT INTO model_versions SELECT 'copied', version, id, card, job, created FROM model_versions"
    flowers.database.transact(lambda tx: tx.execute(copy))

    def lost(candidate: str) -> int:
        change = suites_store.change_since_elsewhere(flowers.database, "flowering", evaluation, candidate)
        return change.missing if change else 0

    assert [lost(name) for name in ("points@v1", "points@v7", "copied@v1", "rival@v1")] == [20, 20, 20, 0]


def test_every_candidate_on_these_rows_widens_the_level_whoever_asked(flowers: Workspace) -> None:
    for number, learner in enumerate(("logistic", "neighbours", "svm"), 1):
        world.train_model(flowers, "rival", hyperparameters={"candidates": [learner]})
        world.evaluate_models(flowers, models=[f"rival@v{number}"], latency=False)
    world.evaluate_models(flowers, models=["rival@v1"], latency=False)
    beside = {"baselines": ["rival@v3"], "models": ["points"], "use_case": "flowering", "latency": False}
    result = world.evaluate_models(flowers, **beside)
    kept = decisions.get(flowers.database, result["decision"]["id"]).decision
    assert (kept.looks, kept.earlier_candidates) == (4, 3)
    assert [each["candidate"] for each in result["decisions"]] == ["points@v1"]
    assert kept.level > 0.95
    assert " ".join(kept.reasons).count("rows judged 3 candidate") == 1
    assert any("judged 3 candidate(s) in 4 evaluation(s) before" in each for each in kept.reasons)
    fresh = world.make_dataset(flowers, "fresh", splits={"test": 50})
    world.define(flowers, name="elsewhere")
    alone = judge(flowers, f"{fresh.ref}:test", use_case="elsewhere")
    assert decisions.get(flowers.database, alone["decision"]["id"]).decision.looks == 0


def spent_by(workspace: Workspace, model: str, dataset: str = "flowers:test") -> int:
    result = judge(workspace, dataset, models=[model])
    kept = decisions.get(workspace.database, result["decision"]["id"]).decision
    return kept.earlier_candidates


@pytest.mark.slow(reason="every candidate counts once, and rows that join leave the suite, in others")
def test_who_asks_again_while_rows_join_looks_again_and_who_repeats_does_not(flowers: Workspace) -> None:
    assert [spent_by(flowers, "points") for _ in range(2)] == [0, 0]
    for number, name in enumerate("ab", 1):
        more = pa.array([name, name])
        world.make_version(flowers, lambda rows, more=more: pa.concat_tables([rows, of_name(rows.slice(150, 2), more)]))
        assert [spent_by(flowers, "points") for _ in range(2)] == [number, number]


def of_name(rows: pa.Table, name: pa.Array) -> pa.Table:
    rows = renamed(rows)
    for column in ("id", "_content", "_fingerprint"):
        cells = pc.binary_join_element_wise(rows[column].combine_chunks(), name, "-")
        rows = rows.set_column(rows.schema.get_field_index(column), column, cells)
    return rows


def test_what_is_in_use_was_a_candidate_once(flowers: Workspace) -> None:
    judge(flowers)
    assert promoted(flowers)["state"] == "applied"
    spent = []
    for number, learner in enumerate(("logistic", "neighbours", "svm"), 1):
        world.train_model(flowers, "rival", hyperparameters={"candidates": [learner]})
        spent.append(spent_by(flowers, f"rival@v{number}"))
    assert spent == [1, 2, 3]


@pytest.mark.parametrize("together", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_of_two_that_were_planned_together_the_one_that_ends_last_counts_the_other(
    flowers: Workspace, together: bool
) -> None:
    world.train_model(flowers, "rival", hyperparameters={"candidates": ["neighbours"]})

    def planned(model: str) -> Plan:
        spec = {"models": [model], "dataset": "flowers", "use_case": "flowering", "latency": False}
        return evaluate.KIND.plan(evaluate.EvaluateSpec.model_validate(spec), flowers)

    asked = planned("points")
    unaware = planned("rival")
    first = world.ask(flowers, evaluate.KIND, asked, 1.0)
    second = world.ask(flowers, evaluate.KIND, unaware if together else planned("rival"), 2.0)
    overtaking = world.finish(flowers, evaluate.KIND, *second)
    known = decisions.get(flowers.database, overtaking["decision"]["id"]).decision
    assert known.earlier_candidates == (0 if together else 1)
    verdict = world.finish(flowers, evaluate.KIND, *first)["decision"]["verdict"]
    assert verdict == ("inconclusive" if together else "promote")


def test_a_verdict_that_another_evaluation_overtook_is_no_promotion(flowers: Workspace) -> None:
    world.train_model(flowers, "rival", hyperparameters={"candidates": ["neighbours"]})
    planned = evaluate.KIND.plan(
        evaluate.EvaluateSpec(models=("points",), dataset="flowers", use_case="flowering", latency=False), flowers
    )
    world.evaluate_models(flowers, models=["rival"], latency=False)
    result = world.perform_plan(flowers, evaluate.KIND, planned)
    assert result["decision"]["verdict"] == "inconclusive"
    assert "1 other candidate(s) were judged on these rows meanwhile" in result["decision"]["reasons"][0]


def test_a_promotion_rests_on_the_decision_that_was_named_and_says_what_is_wrong_with_it(flowers: Workspace) -> None:
    world.train_model(flowers, "rival", hyperparameters={"candidates": ["neighbours"]})
    about_points = judge(flowers)
    refused = promoted(flowers, model="rival@v1", evaluation=about_points["evaluation"])
    assert refused["state"] == "refused"
    assert f"{about_points['evaluation']} decided on points@v1, not on rival@v1" in refused["reasons"][0]
    assert refused["next"][0]["tool"] == "evaluate_models"
    world.define(flowers, objective={"metric": "accuracy", "target": 0.81})
    changed = promoted(flowers)
    assert "its requirements are now version 2" in changed["reasons"][0]
    asked = {"models": ["points@v1"], "use_case": "flowering", "dataset": "flowers:test"}
    assert changed["next"] == [{"tool": "evaluate_models", "arguments": asked}]


def test_an_older_decision_that_is_named_against_a_newer_one_needs_a_person(flowers: Workspace) -> None:
    first = judge(flowers)
    world.make_version(flowers, lambda rows: pa.concat_tables([rows, wrong_rows(rows)]))
    newer = judge(flowers)
    assert newer["decision"]["verdict"] == "hold"
    asked = promoted(flowers, evaluation=first["evaluation"])
    assert asked["state"] == "needs_approval"
    assert f"Decision {newer['decision']['id']} on points@v1 is newer" in asked["reasons"][-1]


def wrong_rows(rows: pa.Table) -> pa.Table:
    """New test examples with the other label."""
    fresh = renamed(rows)
    turned = pc.if_else(pc.equal(fresh["label"], "yes"), "no", "yes")
    return fresh.set_column(fresh.schema.get_field_index("label"), "label", turned)


@pytest.mark.parametrize("verdict", ["promote", "hold"])
def test_a_dry_run_says_what_the_promotion_would_come_to(flowers: Workspace, verdict: str) -> None:
    if verdict == "hold":
        world.define(flowers, objective={"metric": "accuracy", "target": 0.999})
    judge(flowers)
    expected = promote.dry_run(flowers, PromoteSpec(use_case="flowering", model="points"))
    done = promoted(flowers)
    assert expected.state == done["state"]
    assert expected.to in (None, done.get("to"))
    assert (expected.state == "refused") == (list(expected.reasons) == done["reasons"])


def test_purged_rows_leave_what_was_judged_and_the_suite_goes_on(flowers: Workspace) -> None:
    judge(flowers)
    gone = pq.read_table(flowers.folders.datasets / "flowers.parquet").slice(200, 5)
    flowers.database.transact(lambda tx: suites_store.forget(tx, gone["_content"].to_pylist()))
    world.make_version(flowers, lambda rows: rows.filter(pc.invert(pc.is_in(rows["id"], gone["id"].combine_chunks()))))
    assert judge(flowers)["report"]["dataset"] == "flowers@v2:test"
    assert promoted(flowers)["state"] == "applied"


def test_evaluations_from_before_rows_were_kept_bind_as_far_as_their_versions_are_there(guarded: Workspace) -> None:
    for table in ("judged_suites", "judged_models", "suites"):
        guarded.database.transact(lambda tx, table=table: tx.execute(f"DELETE FROM {table}"))
    world.make_version(guarded, without_its_errors(guarded))
    assert judge(guarded)["report"]["dataset"] == "flowers@v1:test"
    named = judge(guarded, "flowers@v2:test")
    assert promoted(guarded, evaluation=named["evaluation"])["state"] == "needs_approval"


def test_a_verdict_on_a_further_suite_is_none_on_promotion(suites: Workspace) -> None:
    asked: dict[str, Any] = {"dataset": None, "models": ["points"], "use_case": "flowering", "latency": False}
    core = world.evaluate_models(suites, **asked)
    further = world.evaluate_models(suites, **asked, suite="regression")
    refused = promoted(suites, evaluation=further["evaluation"])
    assert refused["state"] == "refused"
    assert "was made on the regression suite, and a promotion rests on the core" in refused["reasons"][0]
    assert promoted(suites, evaluation=core["evaluation"])["state"] == "applied"
