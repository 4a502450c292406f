"""`manage_data` as an agent calls it: it asks, it never decides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.versions import resolve
from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, DryRun, JobStarted
from speciate.settings import Settings
from speciate.tools.data_management import NeedsApproval, TagResult, manage_data
from speciate.workspace.backup import AutomaticBackups
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import copied, review_rows, seeded


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with sixteen reviews, to be copied."""
    root = tmp_path_factory.mktemp("reviews") / "workspace"
    return seeded(root, "reviews", rows=review_rows(16), label="label", group_by="film")


@pytest.fixture
def workspace(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


@pytest.fixture
def app(workspace: Workspace) -> Iterator[App]:
    engine, pool = Engine(workspace), Pool(workspace.folders, Settings(cage="where_possible"), size=1)
    yield App(workspace, engine, pool)
    pool.close()


@pytest.fixture
def reviews(app: App) -> str:
    return resolve(app.workspace.database, "reviews").ref


def test_a_purge_waits_for_a_person_who_sees_what_would_go(app: App, reviews: str) -> None:
    asked = manage_data(app, "purge", ref="reviews", group="film-1")
    assert isinstance(asked, NeedsApproval)
    assert asked.evidence["versions"] == {reviews: 4}
    assert asked.evidence["examples"] == 4
    assert "speciate approve" in asked.approval.how
    assert datetime.fromisoformat(asked.approval.until).timestamp() == pytest.approx(asked.approval.expires, abs=1)
    assert app.engine.list() == []
    question = approvals.get(app.workspace.database, asked.approval.id)
    assert (question.action, question.state, question.arguments["group"]) == ("purge", "pending", "film-1")
    again = manage_data(app, "purge", ref="reviews", group="film-1")
    assert isinstance(again, NeedsApproval)
    assert again.approval.id == asked.approval.id


def test_a_repeat_with_its_key_gets_the_first_answer_though_what_it_named_is_gone(app: App, reviews: str) -> None:
    first = manage_data(app, "delete", ref=reviews, idempotency_key="k")
    assert isinstance(first, NeedsApproval)
    made = approvals.decide(app.workspace, first.approval.id, True, "grace")
    assert made.result is not None
    assert made.result["deleted"] == [reviews]
    assert manage_data(app, "delete", ref=reviews, idempotency_key="k") == first
    with pytest.raises(SpeciateError, match="There is no dataset or model 'reviews"):
        manage_data(app, "delete", ref=reviews)


def test_a_dry_run_asks_nobody(app: App, reviews: str) -> None:
    for arguments in ({"action": "purge", "ref": "reviews", "group": "film-0"}, {"action": "delete", "ref": reviews}):
        assert isinstance(manage_data(app, **arguments, dry_run=True), DryRun)
    assert approvals.list_approvals(app.workspace.database, app.workspace.clock.now()) == []


def test_rows_that_are_not_there_and_a_dataset_that_is_not_there_are_told_apart(app: App, reviews: str) -> None:
    with pytest.raises(SpeciateError, match="No version of 'reviews' holds the group 'film-99'") as refused:
        manage_data(app, "purge", ref="reviews", group="film-99")
    assert "SELECT DISTINCT group_key" in str(refused.value)
    with pytest.raises(SpeciateError, match="No version of 'reviews' holds the example 'ex-99'") as refused:
        manage_data(app, "purge", ref="reviews", example="ex-99")
    assert "SELECT id FROM examples" in str(refused.value)
    with pytest.raises(SpeciateError, match="did you mean 'reviews'"):
        manage_data(app, "purge", ref="review", example="ex-1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"action": "purge", "ref": "reviews"}, "takes ref, one of example and group; got ref"),
        (
            {"action": "purge", "ref": "reviews"},
            r"manage_data\(action='purge', ref=\.\.\., example=\.\.\. or group=\.\.\.\) again",
        ),
        ({"action": "purge", "ref": "reviews", "group": "a", "example": "b"}, "got example, group, ref"),
        ({"action": "gc", "ref": "reviews"}, "takes no more arguments; got ref"),
        (
            {"action": "tag", "ref": "reviews@v1"},
            r"takes ref, tag; got ref\.\s.*\(action='tag', ref=\.\.\., tag=\.\.\.\) again",
        ),
        ({"action": "purge", "ref": "reviews@v1", "group": "a"}, "is one version"),
    ],
)
def test_arguments_that_do_not_fit_the_action_are_refused(app: App, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SpeciateError, match=said) as caught:
        manage_data(app, **arguments)
    assert caught.value.code is Code.INVALID


def test_tags_and_garbage_need_nobody(app: App, reviews: str, clock: ManualClock) -> None:
    tagged = manage_data(app, "tag", ref=reviews, tag="gold")
    assert isinstance(tagged, TagResult)
    assert (tagged.state, tagged.dataset, tagged.was) == ("succeeded", reviews, None)
    moved = manage_data(app, "tag", ref=reviews, tag="gold")
    assert isinstance(moved, TagResult)
    assert moved.was == reviews
    with pytest.raises(SpeciateError, match="has the tag 'gold'"):
        manage_data(app, "delete", ref=reviews)
    assert isinstance(manage_data(app, "untag", ref="reviews", tag="gold"), JobStarted)
    for blob in app.workspace.folders.blobs.glob("??/*"):
        os.utime(blob, (clock.now(), clock.now()))
    clock.advance(2 * 24 * 3600)
    assert AutomaticBackups(app.workspace).save()
    first = manage_data(app, "gc")
    assert isinstance(first, DryRun), "the first time in a workspace it only shows what would go"
    assert "Nothing was deleted" in first.resolved["note"]
    listed = manage_data(app, "gc", dry_run=True)
    assert isinstance(listed, DryRun)
    assert listed.resolved["kinds"].keys() == {"blobs"}  # this test's rows were given to no job
    assert isinstance(manage_data(app, "gc"), JobStarted)
