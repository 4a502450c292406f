"""A canary answers its share beside what serves, by the request's key, and goes, comes and is refused by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.serving import request_metrics
from speciate.serving.deployment import Deployment
from speciate.serving.deployment_folder import Target, Wanted
from speciate.serving.routing import to_canary
from speciate.settings import Serving
from tests.conftest import ManualClock
from tests.serving.fakes import POISON, target
from tests.serving.test_api import Server
from tests.serving.test_deployment import Stage, serves, until

KEYS = [f"user-{number}" for number in range(60)]


@pytest.fixture
def stage(tmp_path: Path, clock: ManualClock) -> Iterator[Stage]:
    stage = Stage(tmp_path, clock)
    yield stage
    stage.close()


def want(stage: Stage, version: Target, canary: Target | None = None, percent: float = 0.0) -> None:
    options = Serving(load_seconds=20)
    stage.folder.want(
        Wanted(use_case="reviews", options=options, target=version, canary=canary, percent=percent)
    )  # fmt: skip


def answered(deployment: Deployment, key: str) -> str:
    return str(deployment.submit([{"text": "a"}], 20, key).answers[0].result(20)["output"])


def to_v2(percent: float) -> set[str]:
    return {key for key in KEYS if to_canary("reviews", "words@v2", key, percent)}


def test_each_key_has_its_version_and_a_larger_share_only_adds_keys(stage: Stage) -> None:
    want(stage, target(1), target(2), 20)
    deployment = stage.begin()
    until(lambda: deployment.state.canary == "words@v2")
    first = {key for key in KEYS if answered(deployment, key) == "words@v2"}
    assert first == to_v2(20) != set()
    want(stage, target(1), target(2), 60)
    until(lambda: deployment.wanted.percent == 60)
    second = {key for key in KEYS if answered(deployment, key) == "words@v2"}
    assert second == to_v2(60) > first
    assert len(stage.launched) == 2, "the share needs no loading"


def test_a_canary_that_is_wanted_no_more_answers_nothing_and_ends(stage: Stage) -> None:
    want(stage, target(1), target(2), 50)
    deployment = stage.begin()
    until(lambda: deployment.state.canary == "words@v2")
    want(stage, target(1))
    until(lambda: deployment.state.canary is None)
    assert {answered(deployment, key) for key in KEYS} == {"words@v1"}
    until(lambda: stage.launched[1].ended)


def test_a_canary_that_comes_into_production_serves_without_being_loaded_again(stage: Stage) -> None:
    want(stage, target(1), target(2), 50)
    deployment = stage.begin()
    until(lambda: deployment.state.canary == "words@v2")
    want(stage, target(2, generation=9))
    until(serves(deployment, "words@v2"))
    assert {answered(deployment, key) for key in KEYS} == {"words@v2"}
    assert deployment.state.canary is None
    assert len(stage.launched) == 2
    until(lambda: stage.launched[0].ended)


def test_a_refused_canary_costs_production_nothing(stage: Stage) -> None:
    stage.processes["words@v2"] = {"failure": "Its files have changed."}
    want(stage, target(1), target(2), 50)
    deployment = stage.begin()
    until(lambda: deployment.state.canary_refused)
    assert {answered(deployment, key) for key in KEYS} == {"words@v1"}
    [note] = stage.notes("slot.refused")
    assert (note["model"], note["alias"], note["serving"]) == ("words@v2", "canary", "words@v1")
    want(stage, target(1))
    until(lambda: deployment.state.canary_refused is None)


def test_production_goes_first_where_both_are_to_be_loaded(stage: Stage) -> None:
    (stage.folder.path / "warmup.json").write_text(json.dumps([{"text": "x"}]))
    stage.processes["words@v2"] = {"gate": threading.Event()}
    want(stage, target(1), target(2, warmup="warmup.json"), 50)
    deployment = stage.begin()
    until(lambda: len(stage.launched) == 2 and stage.launched[1].busy.is_set())
    want(stage, target(3))
    until(serves(deployment, "words@v3"))
    assert stage.notes("slot.refused") == []


def test_requests_are_counted_for_each_move_of_an_alias(stage: Stage) -> None:
    want(stage, target(1, generation=4), target(2, generation=7), 50)
    server = Server(stage.folder.path, stage.clock, target(1, generation=4, slowest_ms=10_000.0), Serving())
    server.deployment.folder.want(
        server.deployment.wanted.model_copy(update={"canary": target(2, generation=7), "percent": 50.0})
    )  # fmt: skip
    until(lambda: server.deployment.state.canary == "words@v2")
    try:
        for key in KEYS:
            said = server.ask({"inputs": [{"text": "a"}]}, headers={"x-request-key": key})
            expected = "words@v2" if key in to_v2(50) else "words@v1"
            assert said.headers["x-model-version"] == said.body["model"] == expected
            by_body = server.ask({"inputs": [{"text": "a"}], "key": key})
            assert by_body.body["model"] == expected
        poisoned = next(key for key in KEYS if key in to_v2(50))
        server.ask({"inputs": [{"text": POISON}], "key": poisoned})
        drawn = {server.ask({"inputs": [{"text": "a"}]}).body["model"] for _ in range(40)}
        assert drawn == {"words@v1", "words@v2"}, "without a key it is drawn for each request"
        metrics = server.ask(path="/metrics").body
        assert 'speciate_canary_percent{model="words@v2",use_case="reviews"} 50.0' in metrics
        assert 'speciate_requests_total{model="words@v2",status="200",use_case="reviews"}' in metrics
    finally:
        server.close()
    found = {counters.key: counters for counters in request_metrics.read_counters(server.deployment.folder.counters)}
    one, two = found["production", 4, "words@v1"], found["canary", 7, "words@v2"]
    assert one.requests + two.requests == 2 * len(KEYS) + 41
    assert (one.failed.bad, two.failed.bad) == (0, 1)
    assert 0 < one.slow.n <= one.requests, "those that were computed alone"
    assert server.deployment.folder.unheard()[0][-1].type != "production.answered"
    kinds = {
        (note.type, note.data["model"]) for note in server.deployment.folder.unheard()[0] if "answered" in note.type
    }
    assert kinds == {("production.answered", "words@v1"), ("canary.answered", "words@v2")}


def test_a_deployment_that_begins_again_counts_on(stage: Stage, clock: ManualClock) -> None:
    outcome, key = (
        request_metrics.Outcome(0.1, failed=False, not_finite=False, unusable=False),
        ("production", 1, "words@v1"),
    )
    for _ in range(2):
        counts = request_metrics.CounterFile(stage.folder.counters)
        counts.add(key, clock.now(), outcome)
        counts.time(key, clock.now(), slow=True)
        counts.write(now=True)
    [counters] = request_metrics.read_counters(stage.folder.counters)
    assert (counters.requests, counters.slow.bad) == (2, 2)
    stage.folder.counters.write_text('[{"of": "another version"}]')
    assert request_metrics.read_counters(stage.folder.counters) == []


def test_what_serves_is_not_dropped_for_the_canaries_beside_it(stage: Stage, clock: ManualClock) -> None:
    counts = request_metrics.CounterFile(stage.folder.counters)
    outcome, serves = (
        request_metrics.Outcome(0.1, failed=False, not_finite=False, unusable=False),
        ("production", 1, "words@v1"),
    )
    for number in range(20):
        counts.add(serves, clock.now(), outcome)
        counts.add(("canary", number, "words@v2"), clock.now(), outcome)
    counts.write(now=True)
    found = {counters.key: counters.requests for counters in request_metrics.read_counters(stage.folder.counters)}
    assert found[serves] == 20
    assert len(found) == 8
