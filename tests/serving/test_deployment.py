"""A deployment follows what is wanted: the next version serves once it is ready, and one that is unfit never does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.serving.deployment import Deployment, NoVersionServes
from speciate.serving.deployment_folder import DeploymentFolder, Target, Wanted
from speciate.serving.request_metrics import Metrics
from speciate.settings import Serving
from tests.conftest import ManualClock
from tests.serving.fakes import FakeProcess, target


class Stage:
    """A deployment's folder, and the processes that its versions get."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.folder, self.clock = DeploymentFolder(path / "reviews"), clock
        self.folder.create()
        self.processes: dict[str, dict[str, Any]] = {}
        self.launched: list[FakeProcess] = []
        self.listened: list[str | None] = []
        """What its state said to serve when clients were let in."""
        self._deployments: list[Deployment] = []

    def want(self, version: Target) -> None:
        self.folder.want(Wanted(use_case="reviews", options=Serving(load_seconds=20), target=version))

    def begin(self, found: Wanted | None = None) -> Deployment:
        """`found`: what its process read when it began."""
        wanted = found or self.folder.wanted()
        assert wanted
        deployment = Deployment(self.folder, wanted, self._launch, Metrics("reviews"), self.clock, self._listen)
        deployment.start(pid=1, port=1)
        self._deployments.append(deployment)
        return deployment

    def _listen(self) -> None:
        self.listened.append(self.folder.state().serving)

    def _launch(self, version: Target) -> FakeProcess:
        self.launched.append(FakeProcess(version, **self.processes.get(version.model, {})))
        return self.launched[-1]

    def notes(self, kind: str) -> list[dict[str, Any]]:
        return [entry.data for entry in self.folder.unheard()[0] if entry.type == kind]

    def close(self) -> None:
        for deployment in self._deployments:
            deployment.end(5)
        assert all(process.ended for process in self.launched)


@pytest.fixture
def stage(tmp_path: Path, clock: ManualClock) -> Iterator[Stage]:
    stage = Stage(tmp_path, clock)
    yield stage
    stage.close()


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def serves(deployment: Deployment, model: str) -> Callable[[], bool]:
    return lambda: deployment.state.serving == model and deployment.state.loading is None


def answer(deployment: Deployment) -> str:
    said = deployment.submit([{"text": "a"}], 20).answers[0].result(20)["output"]
    assert isinstance(said, str)
    return said


def test_the_next_version_serves_once_it_is_ready_and_the_old_one_ends(stage: Stage) -> None:
    stage.want(target(1))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    assert answer(deployment) == "words@v1"
    stage.want(target(2))
    until(serves(deployment, "words@v2"))
    assert answer(deployment) == "words@v2"
    until(lambda: stage.launched[0].ended)
    moves = [(note["before"], note["model"]) for note in stage.notes("slot.serving")]
    assert moves == [(None, "words@v1"), ("words@v1", "words@v2")]


def test_clients_are_let_in_before_the_state_says_that_the_first_version_serves(stage: Stage) -> None:
    stage.want(target(1))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    stage.want(target(2))
    until(serves(deployment, "words@v2"))
    assert stage.listened == [None]


def test_what_is_wanted_while_a_deployment_begins_is_served(stage: Stage) -> None:
    """A promotion between its first look and its own watch of the folder."""
    stage.folder.want(Wanted(use_case="reviews", options=Serving(load_seconds=20), target=None))
    found = stage.folder.wanted()
    stage.want(target(1))
    deployment = stage.begin(found)
    until(serves(deployment, "words@v1"))


def test_a_request_in_the_middle_of_a_swap_is_answered_by_the_version_that_took_it(stage: Stage) -> None:
    gate = threading.Event()
    stage.processes["words@v1"] = {"gate": gate}
    stage.want(target(1))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    taken = deployment.submit([{"text": "a"}], 20)
    assert stage.launched[0].busy.wait(20)
    stage.want(target(2))
    until(serves(deployment, "words@v2"))
    assert answer(deployment) == "words@v2"
    assert not taken.answers[0].done()
    gate.set()
    assert taken.answers[0].result(20)["output"] == taken.target.model == "words@v1"


UNFIT = [
    pytest.param({"failure": "Its files have changed."}, {}, "Its files have changed", id="does not load"),
    pytest.param({"nan": True}, {}, "NaN or infinite numbers", id="answers NaN"),
    pytest.param({"seconds": 0.03}, {"slowest_ms": 10.0}, "too slow", id="is too slow"),
]


@pytest.mark.parametrize(("how", "limits", "why"), UNFIT)
def test_an_unfit_version_gets_no_traffic_and_the_old_one_goes_on(
    stage: Stage, how: dict[str, Any], limits: dict[str, Any], why: str
) -> None:
    (stage.folder.path / "warmup.json").write_text(json.dumps([{"text": "x"}]))
    stage.processes["words@v2"] = how
    stage.want(target(1, warmup="warmup.json"))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    stage.want(target(2, warmup="warmup.json", **limits))
    until(lambda: deployment.state.refused)
    assert answer(deployment) == "words@v1"
    state = stage.folder.state()
    assert state.refused
    assert (state.serving, state.refused.model) == ("words@v1", "words@v2")
    assert why in state.refused.why
    [note] = stage.notes("slot.refused")
    assert (note["model"], note["serving"]) == ("words@v2", "words@v1")
    until(lambda: stage.launched[1].ended)


def test_what_an_example_says_is_quoted_in_the_log_alone(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A purge empties the log; state and journal it could not reach, for the deployment keeps them."""
    (stage.folder.path / "warmup.json").write_text(json.dumps([{"text": "x"}]))
    stage.processes["words@v2"] = {"error": "ValueError: cannot read 'Jane Roe'"}
    stage.want(target(1))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    stage.want(target(2, warmup="warmup.json"))
    until(lambda: deployment.state.refused)
    for name in ("state.json", "journal.jsonl"):
        written = (stage.folder.path / name).read_text()
        assert "cannot answer an example" in written
        assert "Jane Roe" not in written
    assert "Jane Roe" in caplog.text


def test_a_refused_version_that_is_promoted_again_is_tried_again(stage: Stage) -> None:
    stage.processes["words@v2"] = {"failure": "The disk is away."}
    stage.want(target(1))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    stage.want(target(2))
    until(lambda: deployment.state.refused)
    del stage.processes["words@v2"]
    stage.want(target(2, generation=3))
    until(serves(deployment, "words@v2"))
    assert deployment.state.refused is None


def test_back_to_what_serves_needs_no_loading_and_forgets_the_refusal(stage: Stage) -> None:
    stage.processes["words@v2"] = {"failure": "Its files have changed."}
    stage.want(target(1))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    stage.want(target(2))
    until(lambda: deployment.state.refused)
    stage.want(target(1, generation=3))
    until(lambda: deployment.state.refused is None)
    assert [process.target.model for process in stage.launched] == ["words@v1", "words@v2"]


def test_a_version_that_is_wanted_no_more_while_it_is_loaded_never_serves(stage: Stage) -> None:
    (stage.folder.path / "warmup.json").write_text(json.dumps([{"text": "x"}]))
    stage.processes["words@v2"] = {"gate": threading.Event()}
    stage.want(target(1))
    deployment = stage.begin()
    until(serves(deployment, "words@v1"))
    stage.want(target(2, warmup="warmup.json"))
    until(lambda: len(stage.launched) == 2 and stage.launched[1].busy.is_set())
    stage.want(target(3))
    until(serves(deployment, "words@v3"))
    assert [note["model"] for note in stage.notes("slot.serving")] == ["words@v1", "words@v3"]
    assert stage.notes("slot.refused") == []


def test_a_deployment_that_is_started_again_begins_with_what_served_last_where_the_wanted_one_is_unfit(
    stage: Stage,
) -> None:
    stage.processes["words@v2"] = {"failure": "Its files have changed."}
    stage.want(target(1))
    first = stage.begin()
    until(serves(first, "words@v1"))
    stage.want(target(2))
    until(lambda: first.state.refused)
    first.end(5)
    again = stage.begin()
    until(serves(again, "words@v1"))
    assert again.state.refused
    assert answer(again) == "words@v1"
    assert len(stage.notes("slot.refused")) == 1


def test_a_replica_that_never_served_begins_with_what_the_first_one_served_where_the_wanted_one_is_unfit(
    stage: Stage,
) -> None:
    stage.processes["words@v2"] = {"failure": "Its files have changed."}
    stage.want(target(1))
    first = stage.begin()
    until(serves(first, "words@v1"))
    stage.want(target(2))
    until(lambda: first.state.refused)
    stage.folder = DeploymentFolder(stage.folder.path / "replicas" / "1")
    stage.folder.create()
    until(serves(stage.begin(), "words@v1"))


def test_where_the_first_version_is_unfit_nothing_serves_and_it_is_told(stage: Stage) -> None:
    stage.processes["words@v1"] = {"failure": "Its files have changed."}
    stage.want(target(1))
    deployment = stage.begin()
    until(lambda: deployment.state.refused)
    with pytest.raises(NoVersionServes, match="Its files have changed"):
        deployment.submit([{"text": "a"}], 1)


def test_the_first_answer_of_each_version_is_noted_once(stage: Stage) -> None:
    stage.want(target(1))
    deployment = stage.begin()
    for model in ("words@v1", "words@v1", "words@v2"):
        deployment.answered(model)
    assert [note["model"] for note in stage.notes("production.answered")] == ["words@v1", "words@v2"]
