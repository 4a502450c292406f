"""A model that was just made leads to its evaluation: beside what it must beat, on what it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from speciate.tools.evaluation import evaluate_models
from speciate.tools.models import describe_model

from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.jobs.pool import Pool
from speciate.models.registry import ModelVersion
from speciate.server.jobview import view
from speciate.server.next_evaluations import after_model
from speciate.server.surface import App, DryRun
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.serving.world import USE_CASE, move, scaled, trained, version
from tests.training.world import make_dataset


class Made:
    """A version that was trained without a use case, and further ones of other cards."""

    def __init__(self, workspace: Workspace, pool: Pool) -> None:
        self.app = App(workspace, Engine(workspace), pool)
        self.workspace = workspace
        self.first: ModelVersion = trained(workspace)

    def another(self, mark: str, **card: Any) -> str:
        """A version like the first, with another card."""
        like = self.first._replace(card=self.first.card.model_copy(update=card))
        return version(self.workspace, like, scaled(1 + len(mark) / 10), mark)

    def then(self, ref: str) -> list[tuple[str, dict[str, Any]]]:
        return [(each.tool, each.arguments) for each in after_model(self.workspace, ref)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    workspace = Workspace(tmp_path_factory.mktemp("made") / "workspace", settings=Settings(policy="auto"))
    pool = Pool(workspace.folders, workspace.settings)
    yield Made(workspace, pool)
    pool.close()
    workspace.close()


def taken(made: Made, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the tool makes of a suggestion as it stands."""
    found = evaluate_models(made.app, **arguments, dry_run=True)
    assert isinstance(found, DryRun)
    assert found.valid
    return found.resolved


def test_a_first_model_is_held_to_the_constant_answer_and_a_later_one_to_the_version_before(made: Made) -> None:
    [(tool, arguments)] = made.then(made.first.ref)
    assert (tool, arguments) == (
        "evaluate_models", {"models": ["constant:", made.first.ref], "dataset": "films@v1:test"}
    )  # fmt: skip
    assert taken(made, arguments)["baseline"] == "constant:"
    second = made.another("a")
    [(_, arguments)] = made.then(second)
    resolved = taken(made, arguments)
    assert (resolved["baseline"], resolved["candidate"]) == (made.first.ref, second)
    assert resolved["dataset"] == "films@v1:test"


def test_what_it_began_at_is_the_rival_where_that_can_answer(made: Made) -> None:
    began = made.another("bb", base_model=made.first.ref)
    assert made.then(began)[0][1]["models"] == [made.first.ref, began]
    features = made.another("ccc", base_model="pkg:minilm")
    assert made.then(features)[0][1]["models"][0].startswith("films-model@v"), "a backbone gives no answers"


def test_with_a_use_case_its_incumbent_takes_part_by_itself_and_the_suite_is_the_one_that_decides(made: Made) -> None:
    ours = made.another("dddd", use_case=USE_CASE)
    [(_, arguments)] = made.then(ours)
    assert arguments == {"models": [ours], "use_case": USE_CASE, "dataset": "films@v1:test"}
    assert taken(made, arguments)["baseline"] == "constant:"
    move(made.workspace, made.first.ref)
    assert taken(made, made.then(ours)[0][1])["baseline"] == made.first.ref
    move(made.workspace, ours)
    assert made.then(ours) == [("predict", {"use_case": USE_CASE})]


def test_where_the_dataset_has_no_test_split_the_way_to_one_comes_first(made: Made) -> None:
    make_dataset(
        made.workspace, "whole", "text", {"text": [f"film {n}" for n in range(8)]}, labels=["good", "bad"] * 4,
        splits=["train"] * 8, inputs=["text"],
    )  # fmt: skip
    [(tool, arguments)] = made.then(made.another("eeeee", dataset="whole@v1"))
    assert (tool, arguments) == ("curate_dataset", {"dataset": "whole", "steps": [{"op": "split"}]})


def test_what_is_gone_or_was_not_made_of_data_leads_nowhere(made: Made) -> None:
    assert made.then("films-model@v99") == []
    assert made.then(made.another("ffffff", dataset=None)) == []


def test_the_model_itself_and_the_job_that_made_it_lead_there(made: Made) -> None:
    shown = describe_model(made.app, made.first.ref)
    assert [each.tool for each in shown.next_actions] == ["evaluate_models"]
    job = made.app.engine.submit("gc", {})
    ended = job
    for kind in ("train", "merge", "convert"):
        ended = job.model_copy(update={"kind": kind, "state": State.SUCCEEDED, "result": {"model": made.first.ref}})
        assert view(made.app.engine, ended, log_lines=0).next_actions == shown.next_actions
    part = ended.model_copy(update={"parent": job.id})
    [then] = view(made.app.engine, part, log_lines=0).next_actions
    assert (then.tool, then.arguments) == ("wait_for_job", {"job": job.id}), "the larger job judges it"
