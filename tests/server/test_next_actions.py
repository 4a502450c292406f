"""What follows a dataset, a model and a failed job: next calls that work as they stand."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import speciate.tools
from speciate import use_cases
from speciate.datasets import versions
from speciate.errors import Call, CallAgain, Code, SpeciateError, complete
from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.jobs.kinds import Kinds
from speciate.jobs.pool import Pool
from speciate.models.registry import ModelVersion
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.server.job_view import job_view
from speciate.server.mcp.app import declarations
from speciate.server.next_actions import NO_ARGUMENTS, TOOL_OF_KIND, after_dataset, after_model, next_calls
from speciate.server.tool_api import App, DryRun, JobStarted
from speciate.serving.predict import Input
from speciate.settings import Settings
from speciate.tools.datasets import _limit_of, add_examples, create_dataset, curate_dataset, describe_dataset
from speciate.tools.evaluation import evaluate_models
from speciate.tools.models import describe_model
from speciate.tools.predictions import Predictions, predict
from speciate.tools.status import get_status
from speciate.tools.use_cases import define_use_case
from speciate.training.networks.stopping import Diverged
from speciate.use_cases import Definition, Objective, Suites
from speciate.workspace.clock import SystemClock
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate
from tests.evaluation import world as evaluation_world
from tests.predictions.world import note, texts
from tests.serving.world import USE_CASE, move, scaled, trained, version
from tests.training.world import make_dataset


def test_a_dataset_that_is_being_made_is_named_with_its_job(workspace: Workspace) -> None:
    pool = Pool(workspace.folders, workspace.settings, size=1)
    app = App(workspace, Engine(workspace), pool)  # an engine that was not started: nothing runs
    started = create_dataset(app, "films", rows=[{"text": "a", "label": "x"}], label="label")
    assert isinstance(started, JobStarted)
    assert [each.tool for each in started.next_actions] == ["wait_for_job", "describe_dataset"]
    with pytest.raises(SpeciateError) as caught:
        describe_dataset(app, "films")
    assert caught.value.code is Code.NOT_FOUND
    assert f"{started.job} is making it" in caught.value.message
    assert f"wait_for_job(job='{started.job}')" in caught.value.recovery
    app.engine.control(started.job, "cancel")
    with pytest.raises(SpeciateError, match=f"{started.job}, which was to make it, is cancelled"):
        describe_dataset(app, "films")
    with pytest.raises(SpeciateError, match="There is no dataset 'film';"):
        describe_dataset(app, "film")
    pool.close()


def test_the_status_says_what_comes_before_the_first_use_case(workspace: Workspace) -> None:
    app = App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
    [first] = get_status(app).next_actions
    assert (first.tool, first.arguments["dry_run"]) == ("create_dataset", True)
    data.ingest(workspace, "films", rows=data.review_rows(40), label="label", inputs=["text"])
    look, define = get_status(app).next_actions
    assert (look.tool, look.arguments) == ("describe_dataset", {"dataset": "films@v1"})
    assert define.tool == "define_use_case"
    define_use_case(app, **define.arguments)
    assert get_status(app).next_actions == ()
    assert get_status(app).use_cases[0].next_actions


def test_a_version_that_is_being_made_is_named_with_its_job(workspace: Workspace) -> None:
    make_dataset(
        workspace, "films", "text", {"text": ["a", "b"]}, labels=["x", "y"], splits=["train", "test"], inputs=["text"]
    )
    pool = Pool(workspace.folders, workspace.settings, size=1)
    app = App(workspace, Engine(workspace), pool)
    with pytest.raises(SpeciateError, match="no version 2; the newest is v1"):
        describe_dataset(app, "films@v2")
    for started in (
        add_examples(app, "films", rows=[{"text": "c", "label": "x"}]),
        curate_dataset(app, "films@v1", [{"op": "filter", "where": "label = 'x'"}]),
    ):
        assert isinstance(started, JobStarted)
        with pytest.raises(SpeciateError, match=f"no version 2 yet; .* {started.job} .* is making the next") as caught:
            describe_dataset(app, "films@v2")
        assert f"wait_for_job(job='{started.job}')" in caught.value.recovery
        app.engine.control(started.job, "cancel")
    pool.close()


@pytest.mark.parametrize(
    ("sql", "rows"),
    [(None, 20), ("SELECT 1", 20), ("SELECT id FROM examples LIMIT 55", 55), ("SELECT 1 limit 9000;", 500),
     ("SELECT 1 LIMIT 30 OFFSET 5", 30), ("SELECT 1 LIMIT 0", 1), ("SELECT 'limit 7' AS x", 20)],
)  # fmt: skip
def test_a_page_holds_as_many_rows_as_the_statement_asks_for(sql: str | None, rows: int) -> None:
    assert _limit_of(sql) == rows


def test_what_a_made_dataset_leads_to(workspace: Workspace, tmp_path: Path) -> None:
    database = workspace.database
    manifest = data.ingest(workspace, "digits", source=data.digit_folder(tmp_path / "digits", 60), label="folder")
    look, define = after_dataset(database, manifest.ref)
    assert (look.tool, look.arguments) == ("describe_dataset", {"dataset": "digits@v1"})
    assert define.tool == "define_use_case"
    pool = Pool(workspace.folders, workspace.settings, size=1)
    given = {**define.arguments, "objective": Objective(**define.arguments["objective"])}
    made = define_use_case(App(workspace, Engine(workspace), pool), **given)
    pool.close()
    assert (made.use_case, use_cases.get(database, "digits-use").task) == ("digits-use", "image-classification")
    _, then = after_dataset(database, manifest.ref)
    assert (then.tool, then.arguments["use_case"], then.arguments["dataset"]) == ("specialize", "digits-use", "digits")
    for more in ({"incumbent": "column:expert"}, {"suites": Suites(core="letters:test")}):  # of other data
        other = Definition(
            name="digits-use", task="image-classification", objective=Objective(metric="accuracy"), **more
        )
        workspace.database.transact(partial(use_cases.define, definition=other, policy="auto"))
        _, define = after_dataset(database, manifest.ref)
        assert (define.tool, define.arguments["name"]) == ("define_use_case", "digits-use-2")
    assert after_dataset(database, "gone@v1") == ()


def test_of_other_tasks_no_use_case_is_offered_and_without_labels_none(workspace: Workspace, tmp_path: Path) -> None:
    definition = Definition(name="prices", task="tabular-regression", objective=Objective(metric="mae"))
    workspace.database.transact(lambda tx: use_cases.define(tx, definition))
    source = data.digit_folder(tmp_path / "digits", 60)
    data.ingest(workspace, "digits", source=source, label="folder")
    assert after_dataset(workspace.database, "digits")[-1].tool == "define_use_case"
    data.ingest(workspace, "plain", source=source)
    assert versions.resolve(workspace.database, "plain").label is None
    assert {each.tool for each in after_dataset(workspace.database, "plain")} == {"describe_dataset"}


def test_what_was_logged_goes_to_the_use_case_that_was_asked_whatever_its_labels_look_like(
    workspace: Workspace,
) -> None:
    database = workspace.database
    for name, task in (("classes", "text-classification"), ("desk", "text-generation")):
        metric = "accuracy" if name == "classes" else "exact_match"
        definition = Definition(name=name, task=task, objective=Objective(metric=metric))
        database.transact(lambda tx, definition=definition: use_cases.define(tx, definition))
    own = AnswerLog(log_folder(workspace.folders, "desk"), Settings().log, SystemClock())
    for place, each in enumerate(note(own, texts(*(f"What is {n} and {n}?" for n in range(30))), output="no idea")):
        own.feedback({"prediction": each, "label": f"sum {place % 3}", "source": "human"})
    own.close()
    made = data.ingest(workspace, "asked", source="log:desk?labelled=true")
    cut = {"op": "split", "fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}}
    split = curate(workspace, "asked", cut)
    for ref in (made.ref, split.manifest.ref):  # the latter by the version that it was made from
        then = after_dataset(database, ref)[-1]
        assert (then.tool, then.arguments["use_case"], then.arguments["dataset"]) == ("specialize", "desk", "asked")


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
    [(tool, arguments)] = made.then(ours)
    [given] = arguments["inputs"]
    assert (tool, arguments["use_case"], given["dataset"]) == ("predict", USE_CASE, "films@v1")
    answered = predict(made.app, use_case=USE_CASE, inputs=[Input(**given)])
    assert isinstance(answered, Predictions)
    assert [each.error for each in answered.predictions] == [None]


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
        assert job_view(made.app.engine, ended, log_lines=0).next_actions == shown.next_actions
    part = ended.model_copy(update={"parent": job.id})
    [then] = job_view(made.app.engine, part, log_lines=0).next_actions
    assert (then.tool, then.arguments) == ("wait_for_job", {"job": job.id}), "the larger job judges it"


def test_the_calls_of_an_error_are_offered_where_they_are_harmless() -> None:
    column = "train_model(name='x')"  # a name of anybody's is an argument, whatever it looks like
    error = SpeciateError(
        Code.INVALID,
        "There is no such column.",
        "Name another.",
        next=[
            Call("describe_dataset", {"dataset": column}, "for its columns"),
            Call("manage_data", {"action": "gc"}),
            Call("list_options", {"kind": "task"}),
            Call("list_options", {"kind": "task"}),
        ],
    )
    assert str(error).endswith(
        f"Name another. Call describe_dataset(dataset={column!r}) for its columns. Call manage_data(action='gc'). "
        "Call list_options(kind='task'). Call list_options(kind='task')."
    )
    offered = [(each.tool, each.arguments) for each in next_calls(pickle.loads(pickle.dumps(error)).next_documents())]
    assert offered == [("describe_dataset", {"dataset": column}), ("list_options", {"kind": "task"})]


def test_three_are_enough() -> None:
    many = [Call("get_job", {"job": f"job-{n}"}).document() for n in range(10)]
    assert [each.arguments["job"] for each in next_calls(many)] == ["job-0", "job-1", "job-2"]


def test_a_failed_job_offers_what_its_error_names(made: Made) -> None:
    job = made.app.engine.submit("gc", {})
    error = {
        "class": "user",
        "message": "no",
        "recovery": "Call get_status().",
        "next": [Call("get_status").document()],
    }
    failed = job.model_copy(update={"state": State.FAILED, "error": error})
    [then] = job_view(made.app.engine, failed, log_lines=0).next_actions
    assert (then.tool, then.arguments) == ("get_status", {})
    older = failed.model_copy(update={"error": {"class": "user", "message": "no", "recovery": "Call get_status()."}})
    assert job_view(made.app.engine, older, log_lines=0).next_actions == ()


def test_a_failed_training_is_offered_whole_with_what_must_change(made: Made) -> None:
    spec = {
        "name": "net",
        "dataset": "films@v1",
        "method": "full",
        "hyperparameters": {"learning_rate": 1.0, "batch_size": 64},
    }
    job = made.app.engine.submit("gc", {}).model_copy(update={"kind": "train", "spec": spec})
    error = Diverged(12, 1.0, "the loss is no number")
    told = {"class": "user", "message": error.message, "recovery": error.recovery, "next": error.next_documents()}
    failed = job.model_copy(update={"state": State.FAILED, "error": json.loads(json.dumps(told))})
    [then] = job_view(made.app.engine, failed, log_lines=0).next_actions
    assert then.tool == "train_model"
    assert then.arguments == {**spec, "hyperparameters": {"learning_rate": 0.1, "batch_size": 64}}


def test_the_spec_of_a_failed_job_has_the_arguments_of_its_tool() -> None:
    for kind, name in TOOL_OF_KIND.items():
        declared = next(each for each in declarations(speciate.tools, "__tool__") if each.name == name)
        fields = Kinds()[kind].spec.model_fields.keys()
        assert fields - declared.arguments.model_fields.keys() - NO_ARGUMENTS == set(), kind


def test_a_call_again_is_completed_from_the_call_that_was_refused() -> None:
    again = CallAgain("train_model", {"hyperparameters": {"batch_size": 8, "parts": None}, "teacher": None})
    assert str(again) == (
        "Call train_model again with hyperparameters={'batch_size': 8} and without hyperparameters.parts, teacher."
    )
    given = {"name": "m", "teacher": "t@v1", "hyperparameters": {"parts": ["a"], "seed": 1}, "idempotency_key": "k"}
    kept = {"name": "m", "hyperparameters": {"seed": 1, "batch_size": 8}}
    assert complete(again.document(), "train_model", given) == {"tool": "train_model", "arguments": kept}
    assert complete(again.document(), "specialize", given) is None
    assert complete(again.document(), "train_model", None) is None
    assert next_calls([again.document()]) == ()
    [shown] = next_calls([CallAgain("", {"name": "n"}).document()], "train_model", {"name": "m", "hyperparameters": {}})
    assert shown.arguments == {"name": "n", "hyperparameters": {}}


def test_a_dataset_goes_on_with_the_use_case_that_decided_on_it(workspace: Workspace) -> None:
    """One that decided on another dataset would get no decision, and one that decided on none comes after."""
    evaluation_world.make_dataset(workspace)
    evaluation_world.make_dataset(workspace, "weeds")
    for name in ("alpha", "flowering"):
        evaluation_world.define(workspace, name=name)

    def suggested(dataset: str) -> Any:
        then = after_dataset(workspace.database, f"{dataset}@v1")[-1]
        return then.arguments["use_case"] if then.tool == "specialize" else then.tool

    assert suggested("flowers") == "alpha"
    evaluation_world.train_model(workspace)
    evaluation_world.evaluate_models(workspace, models=["points"], use_case="flowering", latency=False)
    assert suggested("flowers") == "flowering"
    assert suggested("weeds") == "alpha"
