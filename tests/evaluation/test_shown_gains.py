"""A gain that other rows show: read from a stored evaluation, at the level that is asked for, and of nothing else."""

from __future__ import annotations

import pytest

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.evaluation import shown_gains
from speciate.evaluation.reports.report import Comparison, Report
from speciate.evaluation.shown_gains import ShownGain, is_sure
from speciate.use_cases import UseCase
from speciate.workspace.workspace import Workspace
from tests.evaluation.test_gates import row
from tests.promotion import world

_INSERT = "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, NULL, 0)"


def compared(candidate: str, low: float, p_value: float | None) -> Comparison:
    return Comparison(
        metric="accuracy", baseline="m@v1", candidate=candidate, delta=0.1, interval=(low, 0.2), p_value=p_value,
        method="bonett_price", minimum_detectable_effect=0.05, standard_error=0.02, n=50, clusters=50,
    )  # fmt: skip


def stored(workspace: Workspace, use_case: str = "digits", metric: str = "accuracy") -> UseCase:
    world.define(workspace)
    rows = [row(name) for name in ("m@v1", "m@v2", "m@v3", "m@v4")]
    report = Report(
        dataset="digits-judged@v1:test", use_case=use_case, use_case_version=1, metric=metric, better="higher", n=50,
        clusters=50, baseline="m@v1", candidate="m@v2", leaderboard=tuple(rows),
        comparisons=(compared("m@v2", 0.02, 0.001), compared("m@v3", 0.001, 0.04), compared("m@v4", -0.01, 0.2)),
    )  # fmt: skip
    cells = ["evaluation-9", use_case, report.dataset, "m@v1,m@v2,m@v3,m@v4", report.model_dump_json()]
    workspace.database.transact(lambda tx: tx.execute(_INSERT, cells))
    return use_cases.get(workspace.database, "digits")


def test_who_is_surely_better_there_is_said_at_the_level_that_is_asked_for(workspace: Workspace) -> None:
    definition, database = stored(workspace), workspace.database
    usual = shown_gains.of(database, ShownGain(evaluation="evaluation-9"), definition)
    assert usual == ("m@v2", "m@v3")
    strict = shown_gains.of(database, ShownGain(evaluation="evaluation-9", level=0.995), definition)
    assert strict == ("m@v2",)


@pytest.mark.parametrize("other", [{"use_case": "letters"}, {"metric": "f1_macro"}])
def test_an_evaluation_of_something_else_shows_nothing(workspace: Workspace, other: dict[str, str]) -> None:
    definition = stored(workspace, **other)
    for evaluation in ("evaluation-9", "evaluation-10"):
        with pytest.raises(SpeciateError) as caught:
            shown_gains.of(workspace.database, ShownGain(evaluation=evaluation), definition)
        assert caught.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("low", "p_value", "sure"), [(0.1, 0.001, True), (0.1, 0.02, False), (0.0, 0.001, False), (0.1, None, False)]
)
def test_both_the_interval_and_the_p_value_must_say_so(low: float, p_value: float | None, sure: bool) -> None:
    assert is_sure(low, p_value, 0.99) is sure
