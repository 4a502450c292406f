"""What tools that change something share: once per key, and jobs."""

from __future__ import annotations

import pytest

from speciate.errors import Code, SpeciateError
from speciate.exports.convert import ConvertSpec
from speciate.jobs.job import fingerprint
from speciate.refs import id_from_key
from speciate.server.tool_api import (
    App,
    DryRun,
    JobStarted,
    Result,
    make_sparse_spec,
    make_spec,
    once,
    spec_json,
    start_job,
)
from speciate.training.merging.merge_spec import MergeSpec
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app


class Count(Result):
    number: int


@pytest.fixture
def app(workspace: Workspace) -> App:
    return make_app(workspace)


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tx: Transaction) -> Count:
        self.calls += 1
        return Count(number=self.calls)


def test_the_same_key_and_arguments_give_the_same_answer(app: App) -> None:
    counter = Counter()
    first, second = (once(app, "count", {"a": 1}, "key", counter, answer=Count) for _ in range(2))
    assert first == second
    assert counter.calls == 1


def test_the_same_key_with_other_arguments_is_a_conflict(app: App) -> None:
    once(app, "count", {"a": 1}, "key", Counter(), answer=Count)
    with pytest.raises(SpeciateError) as raised:
        once(app, "count", {"a": 2}, "key", Counter(), answer=Count)
    assert raised.value.code is Code.CONFLICT


def test_without_a_key_every_call_counts(app: App) -> None:
    counter = Counter()
    for _ in range(2):
        once(app, "count", {}, None, counter, answer=Count)
    assert counter.calls == 2


def test_what_failed_is_not_remembered(app: App) -> None:
    def fail(tx: Transaction) -> Count:
        raise SpeciateError(Code.REFUSED, "Not today.", "Come back.")

    with pytest.raises(SpeciateError):
        once(app, "count", {}, "key", fail, answer=Count)
    assert once(app, "count", {}, "key", Counter(), answer=Count) == Count(number=1)


def test_a_started_job_is_there_and_says_how_to_wait(app: App) -> None:
    started = start_job(app, "greet", {"name": "you"}, idempotency_key="k")
    assert isinstance(started, JobStarted)
    assert app.engine.get(started.job).result == {"greeting": "hello you"}
    assert started.next_actions[0].tool == "wait_for_job"
    again = start_job(app, "greet", {"name": "you"}, idempotency_key="k")
    assert isinstance(again, JobStarted)
    assert again.job == started.job


def test_a_dry_run_starts_nothing(app: App) -> None:
    assert isinstance(start_job(app, "greet", {}, dry_run=True), DryRun)
    assert app.engine.list() == []


def test_a_key_that_started_a_job_does_nothing_else(app: App) -> None:
    start_job(app, "greet", {"name": "you"}, idempotency_key="k")
    with pytest.raises(SpeciateError, match="'k' was used before") as raised:
        once(app, "count", {}, "k", Counter(), answer=Count)
    assert raised.value.code is Code.CONFLICT


def test_a_key_that_changed_something_starts_no_job(app: App) -> None:
    once(app, "count", {}, "k", Counter(), answer=Count)
    with pytest.raises(SpeciateError, match="'k' was used before") as raised:
        start_job(app, "greet", {"name": "you"}, idempotency_key="k")
    assert raised.value.code is Code.CONFLICT
    assert app.engine.list() == []


def test_a_key_cannot_take_the_place_of_a_composites_step(app: App) -> None:
    parent = app.engine.submit("wait", {"name": "for ever"})
    started = start_job(app, "greet", {}, idempotency_key=f"{parent.id}/train")
    assert isinstance(started, JobStarted)
    assert started.job != id_from_key("job", f"{parent.id}/train")


def test_a_repeat_by_another_client_is_the_same_call(app: App) -> None:
    first, second = (start_job(app, "greet", {"actor": who}, idempotency_key="k") for who in ("one", "another"))
    assert first == second


def test_a_stored_spec_holds_what_was_set_and_no_defaults() -> None:
    full = make_spec(ConvertSpec, model="m@v1", format="onnx", tolerance=None)
    assert spec_json(full) == {"model": "m@v1", "format": "onnx", "tolerance": None}
    sparse = make_sparse_spec(MergeSpec, name="n", models=["a@v1", "b@v1"], method="soup", weights=None)
    assert spec_json(sparse) == {"name": "n", "models": ["a@v1", "b@v1"], "method": "soup"}
    assert fingerprint("merge", spec_json(sparse)) == fingerprint(
        "merge", {"method": "soup", "models": ("a@v1", "b@v1"), "name": "n"}
    ), "a key that was used before there were typed specs still names its job"


def test_a_spec_that_is_not_valid_is_refused_as_a_call_is() -> None:
    with pytest.raises(SpeciateError, match="tolerance: Input should be greater") as caught:
        make_spec(ConvertSpec, model="m@v1", format="onnx", tolerance=-1.0)
    assert caught.value.code is Code.INVALID
