"""A verdict that cannot be told leads to the calls that would settle it."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.evaluation.reports.report import Decision, GateResult
from speciate.evaluation.settling import settling_calls
from speciate.promotion.evidence import PromoteSpec
from speciate.use_cases import Gate
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.evaluation.test_evaluate import promote_now


def doubt(rule: Any, metric: str | None = None) -> GateResult:
    return GateResult(gate=Gate(rule=rule, metric=metric), outcome="inconclusive", reason="cannot tell")


def decision(*gates: GateResult, **more: Any) -> Decision:
    given = {"verdict": "inconclusive", "reasons": (), "candidate": "m@v1", "baseline": "constant:", "gates": gates}
    return Decision.model_validate({**given, "dataset": "flowers@v1:test", **more})


AGAIN = "Call evaluate_models(models=['m@v1'], use_case='flowering', dataset='flowers:test')"


@pytest.mark.parametrize(
    ("made", "core", "calls"),
    [
        (
            decision(doubt("reaches"), needed_examples=1200, rows=300),
            None,
            ["Call add_examples(dataset='flowers') with at least 1,200 more rows (1,500 in all) of the split 'test'.",
             f"{AGAIN} once they are there."],
        ),
        (
            decision(doubt("reaches"), needed_examples=1200, needed_groups=40, groups=20),
            "flowers:test",
            ["Call add_examples(dataset='flowers') with rows of at least 40 more groups (60 in all) of the split "
             "'test'.",
             f"{AGAIN} once they are there."],
        ),
        (
            decision(doubt("reaches"), needed_examples=1200),  # from before `rows` was noted
            None,
            ["Call add_examples(dataset='flowers') with at least 1,200 more rows of the split 'test'.",
             f"{AGAIN} once they are there."],
        ),
        (
            decision(doubt("fresh_rows")),
            None,
            ["Call add_examples(dataset='flowers') with fresh rows of the split 'test'.",
             f"{AGAIN} once they are there."],
        ),
        (
            decision(doubt("not_worse"), needed_examples=7, rows=5),
            "flowers@v1:test",
            ["Call add_examples(dataset='flowers') with at least 7 more rows (12 in all) of the split 'test', and name "
             "its new version as suites.core of flowering."],
        ),
        (
            decision(doubt("not_worse"), needed_examples=86_883, needed_groups=86_883, rows=300, groups=300),
            None,
            [],  # no advice: 290 times what there is
        ),
        (
            decision(doubt("not_worse"), needed_examples=900, rows=20),  # 45 times, and yet a day's labels
            None,
            ["Call add_examples(dataset='flowers') with at least 900 more rows (920 in all) of the split 'test'.",
             f"{AGAIN} once they are there."],
        ),
        (decision(doubt("at_most", "p95_latency_ms")), None, [f"{AGAIN}."]),
        (decision(), None, [f"{AGAIN}."]),  # overtaken by others
        (decision(doubt("unseen")), None, []),
        (decision(doubt("not_worse")), None, []),  # the estimate points the other way
        (decision(doubt("not_worse"), verdict="hold", needed_examples=3), None, []),
    ],
)  # fmt: skip
def test_each_doubt_leads_to_what_settles_it(made: Decision, core: str | None, calls: list[str]) -> None:
    assert [str(call) for call in settling_calls(made, "flowering", core)] == calls


def test_a_small_test_split_leads_to_more_rows_of_it(workspace: Workspace) -> None:
    world.make_dataset(workspace, splits={"train": 120, "validation": 60, "test": 40})
    world.define(workspace, objective={"metric": "accuracy", "target": 0.9})
    world.train_model(workspace)
    result = world.evaluate_models(workspace, models=["points"], use_case="flowering", latency=False)
    made = result["decision"]
    assert made["verdict"] == "inconclusive"
    assert [call["tool"] for call in made["settle"]] == ["add_examples", "evaluate_models"]
    assert made["settle"][0]["arguments"] == {"dataset": "flowers"}
    assert f"{made['needed_groups']:,} more groups (" in made["settle"][0]["purpose"]
    refused = promote_now(workspace, PromoteSpec(use_case="flowering", model="points@v1"))
    assert refused["state"] == "refused"
    assert [call["tool"] for call in refused["next"]] == ["describe_evaluation", "add_examples", "evaluate_models"]
