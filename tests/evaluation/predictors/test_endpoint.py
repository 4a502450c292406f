from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.errors import SpeciateError
from speciate.evaluation import answer_cache
from speciate.evaluation.reports import report
from speciate.models import registry as serving
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.evaluation.predictors.answering import Answering, answering


@pytest.fixture
def served(flowers: Workspace) -> Iterator[Answering]:
    with answering() as server:
        register(flowers, "oracle", server)
        yield server


def register(workspace: Workspace, name: str, server: Answering, **endpoint: Any) -> None:
    where = server.endpoint(**{"usd_per_1m_input": 1.0, "usd_per_1m_output": 2.0} | endpoint)
    card = serving.served_card(workspace, name, where, task=None, license=None)
    workspace.database.transact(lambda tx: serving.register(tx, workspace.folders, card, None))


def test_a_public_model_is_compared_with_ones_own(flowers: Workspace, served: Answering) -> None:
    result = world.evaluate_models(flowers, models=["points", "oracle"])
    found = report.find_report(flowers.database, result["evaluation"])
    row = found.row("oracle@v1")
    assert row.value == pytest.approx(0.955)  # the clouds overlap
    assert (row.errors, row.coverage) == (0, 1.0)
    assert row.usd_per_1k == pytest.approx(1000 * (100 * 1.0 + 1 * 2.0) / 1e6)
    assert row.p50_ms is not None
    assert row.served_model == "oracle-1"
    assert not row.control.weights_owned
    assert row.control.offline  # it is on this machine
    compared = found.compare("points@v1", "oracle@v1")
    assert compared is not None
    assert compared.minimum_detectable_effect is not None
    assert found.row("points").usd_per_1k is not None
    assert found.row("points").usd_per_1k < row.usd_per_1k  # type: ignore[operator]  # neither is None


def test_an_endpoint_on_this_machine_that_no_person_listed_is_refused_before_there_is_a_job(
    flowers: Workspace, served: Answering
) -> None:
    flowers.settings = Settings(policy="auto")
    with pytest.raises(SpeciateError, match="no person listed that host"):
        world.evaluate_models(flowers, models=["points", "oracle"])
    assert served.asked == []


@pytest.fixture
def few(flowers: Workspace) -> str:
    """A dataset with sixty rows to be tested."""
    return world.make_dataset(flowers, "few", splits={"train": 10, "test": 60}).name


def test_no_recorded_answer_is_asked_again(flowers: Workspace, served: Answering, few: str) -> None:
    spec: dict[str, Any] = {"models": ["oracle", "points"], "latency": False, "dataset": few}
    first = world.evaluate_models(flowers, **spec)
    asked = len(served.asked)
    assert asked == 60
    second = world.evaluate_models(flowers, **spec, metrics=["mcc"])
    assert len(served.asked) == asked
    rows = [result["report"]["leaderboard"] for result in (first, second)]
    assert {row["model"]: row["usd_per_1k"] for row in rows[0]}["oracle@v1"] == pytest.approx(
        {row["model"]: row["usd_per_1k"] for row in rows[1]}["oracle@v1"]
    )


def test_other_words_are_another_question(flowers: Workspace, served: Answering, few: str) -> None:
    world.evaluate_models(flowers, models=["oracle", "points"], dataset=few, latency=False)
    world.evaluate_models(
        flowers, models=["oracle", "points"], dataset=few, latency=False,
        prompt={"template": "Point:\nx: {x}\ny: {y}\nOne of\n{labels}", "few_shot": 2},
    )  # fmt: skip
    assert len(served.asked) == 120
    assert served.asked[-1].startswith("Point:\nx: ")


def test_repeats_are_asked_and_averaged_before_models_are_compared(
    flowers: Workspace, served: Answering, few: str
) -> None:
    result = world.evaluate_models(flowers, models=["points", "oracle"], dataset=few, repeats=3, latency=False)
    found = report.find_report(flowers.database, result["evaluation"])
    assert len(served.asked) == 180
    assert (found.row("oracle").n, found.row("oracle").repeats, found.row("points").repeats) == (60, 3, 1)
    folder = flowers.folders.evaluations / result["evaluation"]
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert sum(row["model"] == "oracle@v1" for row in rows) == 180
    scores = pq.read_table(folder / "scores.parquet").to_pylist()
    assert sum((row["model"], row["metric"]) == ("oracle@v1", "accuracy") for row in scores) == 60


def test_a_budget_is_a_hard_stop_and_what_was_paid_is_kept(flowers: Workspace, served: Answering) -> None:
    spec: dict[str, Any] = {"models": ["oracle", "points"], "latency": False, "prompt": {"max_tokens": 8}}
    with pytest.raises(SpeciateError, match="budget is spent"):
        world.evaluate_models(flowers, **spec, budget_usd=0.012)
    paid = len(served.asked)
    assert 50 < paid < 150
    assert paid * 102e-6 <= 0.012
    world.evaluate_models(flowers, **spec, budget_usd=1)
    assert len(served.asked) == 200


def test_a_served_model_that_changes_is_said(flowers: Workspace, served: Answering) -> None:
    def change(number: int) -> None:
        if number == 100:
            served.model = "oracle-2"

    served.before = change
    result = world.evaluate_models(flowers, models=["oracle", "points"], latency=False)
    notes = " ".join(result["report"]["notes"])
    assert "oracle-1 and oracle-2: what answered changed" in notes


def test_an_ensemble_answers_with_its_members_recorded_answers(flowers: Workspace, served: Answering) -> None:
    models = ["oracle", "ensemble:oracle+points+column:rules"]
    result = world.evaluate_models(flowers, models=models, latency=False)
    assert len(served.asked) == 200
    rows = {row["model"]: row for row in result["report"]["leaderboard"]}
    together = rows["ensemble:oracle@v1+points@v1+column:rules"]
    assert 0.9 < together["value"] <= 1.0


@pytest.mark.slow(reason="test_judge.py: what answers and verdicts cost, by job")
def test_what_was_paid_is_known_by_job_and_host(flowers: Workspace, served: Answering) -> None:
    world.evaluate_models(flowers, models=["oracle", "points"], latency=False)
    jobs = {path.name.split(".")[0] for path in flowers.folders.predictions.glob("*/*.parquet")}
    (paid,) = [each for job in jobs if (each := answer_cache.paid(flowers.folders, job))]
    assert set(paid) == {f"127.0.0.1:{served.server_port}"}
    assert 0.0204 - 1e-9 <= sum(paid.values()) < 0.03  # more where a connection was lost: what that cost nobody said


@pytest.mark.slow(reason="the one that is as good is replaced, below")
def test_a_public_model_that_is_better_is_not_replaced(flowers: Workspace, served: Answering) -> None:
    world.make_dataset(flowers, "few", splits={"train": 6, "validation": 4, "test": 2})
    weak = world.train_model(flowers, "weak", dataset="few", hyperparameters={"candidates": ["boosting"]})
    world.define(
        flowers, incumbent="oracle", objective={"metric": "accuracy"}, gates=[{"rule": "not_worse", "value": 0.0}]
    )
    result = world.evaluate_models(flowers, models=[weak], use_case="flowering", latency=False)
    compared = result["report"]["comparisons"][0]
    assert compared["interval"][1] < 0
    assert result["decision"]["verdict"] == "hold"


def test_a_public_model_is_replaced_by_one_that_is_as_good_and_cheaper(flowers: Workspace, served: Answering) -> None:
    world.define(
        flowers, incumbent="oracle", objective={"metric": "accuracy"}, gates=[{"rule": "not_worse", "value": 0.1}]
    )
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    assert result["decision"]["verdict"] == "promote"
    found = report.find_report(flowers.database, result["evaluation"])
    assert found.break_even is not None
    assert found.break_even.baseline == "oracle@v1"


def test_nobody_knows_what_a_public_model_has_seen_so_it_is_never_surely_better(
    flowers: Workspace, served: Answering
) -> None:
    result = world.evaluate_models(flowers, models=["oracle"], use_case="flowering", latency=False)
    assert result["decision"]["verdict"] == "inconclusive"
    assert any("whether it saw these is unknown" in reason for reason in result["decision"]["reasons"])


def test_an_endpoint_that_never_says_what_it_took_cannot_pass_the_cap(flowers: Workspace, served: Answering) -> None:
    """Each answer then counts as what it cost at most, also for what is asked later in the same job."""
    served.tells_usage = False
    spec: dict[str, Any] = {"models": ["oracle", "points"], "prompt": {"max_tokens": 8}}
    with pytest.raises(SpeciateError, match="budget is spent"):
        world.evaluate_models(flowers, **spec, budget_usd=0.02)
    first = len(served.asked)
    assert 0 < first < 60
    jobs = {path.name.split(".")[0] for path in flowers.folders.predictions.glob("*/*")}
    paid = sum(sum(answer_cache.paid(flowers.folders, job).values()) for job in jobs)
    assert 0.015 < paid <= 0.02
