"""Constant traffic while versions come and go: no request fails, and every answer is of a version meant to serve.

16 connections keep asking. Meanwhile a daemon's keeper follows 20 promotions, 2 rollbacks, 3 versions that do not load
and 1 that is too slow; once the keeper dies and another goes on. Each version answers with a confidence of its own, so
that the header cannot lie about who answered.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.jobs.pool import Pool
from speciate.models import estimators, registry
from speciate.models.registry import ModelVersion
from speciate.serving import deployments
from speciate.serving.deployment_folder import deployment_folder
from speciate.serving.deployments import DeploymentKeeper
from speciate.settings import Bake, Settings
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.serving.test_deployment import until
from tests.serving.world import USE_CASE, move, scaled, spoil, trained, version

CONNECTIONS, SWAPS = 16, 20
QUESTION = "a good film 7"
LIMIT_MS = 15.0
PATIENCE = 240.0


class Answered(NamedTuple):
    asked_at: float
    at: float
    status: int
    model: str
    confidence: float


class Meant(NamedTuple):
    """From `moved_at` a version was meant to serve; at `seen_at` at the latest it did."""

    model: str
    moved_at: float
    seen_at: float


class Client(threading.Thread):
    """One connection, kept open, that asks again as soon as it was answered."""

    def __init__(self, port: int, token: str, stop: threading.Event) -> None:
        super().__init__()
        self._port, self._token, self._stop_asking = port, token, stop
        self.answers: list[Answered] = []
        self.failures: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        body = json.dumps({"inputs": [{"text": QUESTION}]})
        while not self._stop_asking.is_set():
            began = time.monotonic()
            try:
                connection.request("POST", "/predict", body, headers)
                response = connection.getresponse()
                said = json.loads(response.read())
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                return
            if response.status != 200:
                self.failures.append(f"{response.status}: {said}")
                continue
            model, confidence = response.getheader("x-model-version", ""), said["predictions"][0]["confidence"]
            self.answers.append(Answered(began, time.monotonic(), response.status, model, confidence))
        connection.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto", bake=Bake(rollback="tell")))
    yield workspace
    folder = deployment_folder(workspace.folders, USE_CASE)
    folder.create()
    folder.stop()
    until(lambda: not folder.alive(), 60)
    workspace.close()


def slowly(folder: Path) -> None:
    """The same task by neighbours among so many points that an answer takes too long."""
    points = np.random.default_rng(0).random((200_000, _width(folder)), dtype=np.float32)
    many = {
        "points": points, "indices": np.zeros(0, np.int32), "starts": np.zeros(0, np.int32),
        "width": np.asarray(points.shape[1]), "answers": np.ones((len(points), 2), np.float32),
        "nearest": np.asarray(5), "votes": np.asarray(True),
    }  # fmt: skip
    (folder / "estimator.safetensors").unlink()
    estimators.save_arrays(many, folder / "estimator.safetensors", {"form": "neighbours"})


def _width(folder: Path) -> int:
    arrays, _ = estimators.load_arrays(folder / "estimator.safetensors")
    return int(max(array.shape[0] if array.ndim == 1 else max(array.shape) for array in arrays.values()))


def confidence_of(workspace: Workspace, ref: str) -> float:
    found = registry.resolve(workspace.database, workspace.folders, ref)
    [said] = predictor.load(found.path).predict([Example("0", QUESTION, None, "0", "", {})])
    assert said.confidence is not None
    return said.confidence


@pytest.mark.slow
def test_traffic_goes_on_over_swaps_rollbacks_and_bad_candidates(workspace: Workspace) -> None:
    first = trained(workspace)
    good = [version(workspace, first, scaled(0.001 + 0.0005 * i), f"good-{i}") for i in range(1, SWAPS + 1)]
    broken = [version(workspace, first, scaled(1.5 + i), f"broken-{i}") for i in range(3)]
    for ref in broken:
        spoil(workspace, ref)
    slow = version(workspace, first, slowly, "slow")
    expected = {ref: confidence_of(workspace, ref) for ref in [first.ref, *good]}
    assert len(set(expected.values())) == len(expected), "each version is to be told from the others"
    _limit(workspace, first)

    move(workspace, first.ref)
    pool = Pool(workspace.folders, workspace.settings)
    keeper = DeploymentKeeper(workspace, pool)
    keeper.start()
    deployments.start_deployment(workspace, USE_CASE)
    until(lambda: serving(workspace) == first.ref, PATIENCE)
    shown = deployments.deployment_of(workspace.folders, USE_CASE)
    assert shown
    assert shown.url
    port, stop = int(shown.url.rpartition(":")[2]), threading.Event()
    clients = [Client(port, shown.token.read_text(), stop) for _ in range(CONNECTIONS)]
    began = time.monotonic()
    for client in clients:
        client.start()

    meant = [Meant(first.ref, began, began)]
    try:
        for number, ref in enumerate(good, 1):
            if number in (5, 12):
                _refuses(workspace, broken[number // 6], meant[-1].model)
            if number == 8:
                _refuses(workspace, slow, meant[-1].model)
            if number == 15:
                _refuses(workspace, broken[1], meant[-1].model)
            if number in (6, 13):
                _swaps(workspace, meant[-2].model, meant, "rollback")
            if number == 10:  # the daemon dies, and the next one adopts
                keeper.stop()
                time.sleep(2)
                keeper = DeploymentKeeper(workspace, pool)
                keeper.start()
            _swaps(workspace, ref, meant)
    finally:
        stop.set()
        for client in clients:
            client.join(60)
        keeper.stop()
        keeper.look()  # what was noted since it looked last
        pool.close()
    seconds = time.monotonic() - began

    answers = [answer for client in clients for answer in client.answers]
    failed = sum(len(client.failures) for client in clients)
    took = sorted(answer.at - answer.asked_at for answer in answers)
    print(
        f"\n{len(answers)} requests in {seconds:.0f} s over {CONNECTIONS} connections: {len(answers) / seconds:.0f}/s, "
        f"p50 {1000 * took[len(took) // 2]:.1f} ms, p99 {1000 * took[int(0.99 * len(took))]:.1f} ms, "
        f"slowest {1000 * took[-1]:.0f} ms; {failed} failed; {SWAPS} swaps, 2 rollbacks, 4 refused"
    )
    assert [failure for client in clients for failure in client.failures] == []
    assert {answer.model for answer in answers} == {one.model for one in meant}
    assert all(answer.confidence == pytest.approx(expected[answer.model], abs=1e-6) for answer in answers)
    assert [answer for answer in answers if answer.model not in _may_serve(meant, answer)] == []
    kinds = Counter(event.type for event in workspace.database.events_after(0) if event.type.startswith("slot."))
    assert (kinds["slot.refused"], kinds["slot.serving"], kinds["slot.died"]) == (4, SWAPS + 3, 0)


def serving(workspace: Workspace) -> str | None:
    found = deployments.deployment_of(workspace.folders, USE_CASE)
    return found.serving if found else None


def _limit(workspace: Workspace, first: ModelVersion) -> None:
    """A use case that allows an answer so many milliseconds."""
    from speciate import use_cases
    from speciate.use_cases import Definition, Objective, UseCaseLimits

    definition = Definition(
        name=USE_CASE, task="text-classification", objective=Objective(metric="accuracy", target=None),
        limits=UseCaseLimits(p95_latency_ms=LIMIT_MS),
    )  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))


def _swaps(workspace: Workspace, ref: str, meant: list[Meant], action: str = "promote") -> None:
    began = time.monotonic()
    move(workspace, ref, action)
    until(lambda: serving(workspace) == ref, PATIENCE)
    meant.append(Meant(ref, began, time.monotonic()))


def _refuses(workspace: Workspace, ref: str, before: str) -> None:
    """A candidate that must not serve; then back to what serves, as a person would go."""
    move(workspace, ref)
    until(
        lambda: (
            (found := deployments.deployment_of(workspace.folders, USE_CASE)) and (found.refused or "").startswith(ref)
        ),
        PATIENCE,
    )
    assert serving(workspace) == before
    move(workspace, before)
    until(lambda: (found := deployments.deployment_of(workspace.folders, USE_CASE)) and found.refused is None, PATIENCE)


def _may_serve(meant: list[Meant], answer: Answered) -> set[str]:
    """The version known to serve when the request began, and whichever was on its way until it was answered."""
    known = max(place for place, one in enumerate(meant) if one.seen_at <= answer.asked_at)
    return {one.model for place, one in enumerate(meant) if place >= known and one.moved_at <= answer.at}
