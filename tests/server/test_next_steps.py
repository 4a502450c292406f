"""What comes after create_dataset: first the wait, then a look, and calls that work as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from speciate.tools.datasets import create_dataset, describe_dataset
from speciate.tools.use_cases import define_use_case

from speciate import usecases
from speciate.clock import SystemClock
from speciate.datasets import versions
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.predictions.folder import log_folder
from speciate.predictions.log import Log
from speciate.server.next_steps import after_dataset
from speciate.server.surface import App, JobStarted
from speciate.settings import Settings
from speciate.usecases import Definition, Objective
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate
from tests.predictions.world import note, texts


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
    assert (made.use_case, usecases.get(database, "digits-use").task) == ("digits-use", "image-classification")
    _, then = after_dataset(database, manifest.ref)
    assert (then.tool, then.arguments["use_case"], then.arguments["dataset"]) == ("specialize", "digits-use", "digits")
    assert after_dataset(database, "gone@v1") == ()


def test_of_other_tasks_no_use_case_is_offered_and_without_labels_none(workspace: Workspace, tmp_path: Path) -> None:
    definition = Definition(name="prices", task="tabular-regression", objective=Objective(metric="mae"))
    workspace.database.transact(lambda tx: usecases.define(tx, definition))
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
        database.transact(lambda tx, definition=definition: usecases.define(tx, definition))
    own = Log(log_folder(workspace.folders, "desk"), Settings().log, SystemClock())
    for place, each in enumerate(note(own, texts(*(f"What is {n} and {n}?" for n in range(30))), output="no idea")):
        own.feedback({"prediction": each, "label": f"sum {place % 3}", "source": "human"})
    own.close()
    made = data.ingest(workspace, "asked", source="log:desk?labelled=true")
    cut = {"op": "split", "fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}}
    split = curate(workspace, "asked", cut)
    for ref in (made.ref, split.manifest.ref):  # the latter by the version that it was made from
        then = after_dataset(database, ref)[-1]
        assert (then.tool, then.arguments["use_case"], then.arguments["dataset"]) == ("specialize", "desk", "asked")
