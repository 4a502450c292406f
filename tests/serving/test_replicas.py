"""A deployment of two replicas under constant traffic: versions come and go, one replica is killed, and a client that
asks once more, a tenth of a second after it lost its connection, is always answered."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.promotion.request_counters import BadCount, RequestCounters
from speciate.serving import deployments, request_metrics
from speciate.serving.deployment_folder import DeploymentFolder, Refused, State, Target, Wanted, deployment_folder
from speciate.serving.deployments import DeploymentKeeper, deployment_view, waits_for_another
from speciate.serving.hourly_tallies import HOUR, HourlyTallies, RequestRecord, read_hours
from speciate.settings import Bake, Serving, Settings
from speciate.workspace.workspace import Workspace
from tests.serving.test_deployment import until
from tests.serving.test_traffic import QUESTION
from tests.serving.world import USE_CASE, move, scaled, spoil, trained, version

CONNECTIONS, PROMOTIONS = 16, 10
PATIENCE = 240.0
_PAUSE = 0.1
"""Seconds: the kernel still hands connections to a process that is dying, and resets them."""
OPTIONS = Serving(replicas=2)
TARGET = Target(generation=1, model="m@v1", path="models/m", task="text-classification", modality="text")


# Folders and sums


def folder_of(tmp_path: Path, replicas: int = 2) -> DeploymentFolder:
    folder = DeploymentFolder(tmp_path / "slots" / "reviews")
    folder.create()
    folder.want(Wanted(use_case="reviews", options=Serving(replicas=replicas), target=TARGET))
    return folder


def test_replicas_share_what_is_wanted_and_write_apart(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    first, second = folder.replicas()
    second.create()
    assert (first.path, second.shared) == (folder.path, folder.path)
    assert (first.number, second.number, second.use_case) == (0, 1, "reviews")
    assert second.wanted() == folder.wanted()
    second.keep_port(4711)
    assert (folder.port(), folder.token()) == (4711, second.token())
    folder.stop()
    assert second.stopped
    first.tell(State(pid=1))
    second.tell(State(pid=2))
    assert (first.state().pid, second.state().pid) == (1, 2)
    first.claim()
    second.claim()  # one does not keep the other out
    folder.want(Wanted(use_case="reviews", options=Serving()))
    assert [each.is_wanted for each in folder.replicas()] == [True, False], "what it noted is still heard"
    assert [each.number for each in folder_of(tmp_path / "other", 1).replicas()] == [0]


def test_a_version_serves_once_every_replica_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    first, second = folder.replicas()
    second.create()
    for each in (first, second):
        each.claim()
        each.tell(State(pid=1, port=4711, serving="m@v0"))
    first.tell(State(pid=1, port=4711, serving="m@v1"))
    view = deployment_view(folder)
    assert (view.serving, view.loading, view.state, view.live, view.replicas) == (None, "m@v1", "loading", 2, 2)
    second.tell(State(pid=1, port=4711, serving="m@v1"))
    assert (deployment_view(folder).serving, deployment_view(folder).state) == ("m@v1", "serving")
    second.tell(State(pid=1, port=4711, serving="m@v0", refused={"generation": 1, "model": "m@v1", "why": "x", "at": 0}))  # type: ignore[arg-type]  # fmt: skip  # noqa: E501
    assert (deployment_view(folder).refused or "").startswith("m@v1")


def test_replicas_of_an_older_version_restart_in_turn(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    first, second = folder.replicas()
    second.create()
    for each in (first, second):
        each.tell(State(pid=1, serving="m@v1"))
    assert not waits_for_another(first), "the first one may go"
    first.tell(State(pid=2))
    assert waits_for_another(second), "until the other one serves again"
    assert not waits_for_another(first)
    first.tell(State(pid=2, problem="Port 80 cannot be used"))
    assert not waits_for_another(second), "one that cannot start keeps nobody from it"
    refused = Refused(generation=2, model="m@v2", why="x", at=0)
    first.tell(State(pid=2, refused=refused))
    assert not waits_for_another(second), "nor one that serves nothing, as what is wanted was refused"
    for coming in (State(refused=refused), State(pid=3, refused=refused, loading="m@v1")):
        first.tell(coming)
        assert waits_for_another(second), "it begins with what served before"
    assert not waits_for_another(folder_of(tmp_path / "alone", 1))


def test_one_that_served_long_ago_begins_with_what_the_first_one_served(tmp_path: Path) -> None:
    first, second = folder_of(tmp_path).replicas()
    second.create()
    old, newer = (TARGET.model_copy(update={"generation": each, "model": f"m@v{each}"}) for each in (2, 5))
    second.keep_good(old)
    assert second.good() == old
    first.keep_good(newer)
    assert second.good() == newer
    first.keep_good(TARGET)  # it passed what is wanted, which the other one refused
    assert second.good() == old


def test_fewer_replicas_are_not_wanted_while_any_lives(workspace: Workspace) -> None:
    trained(workspace)
    deployments.start_deployment(workspace, USE_CASE, replicas=2)
    second = deployment_folder(workspace.folders, USE_CASE).replicas()[1]
    second.create()
    claim = second.claim()
    with pytest.raises(SpeciateError) as refused:
        deployments.start_deployment(workspace, USE_CASE, replicas=1)
    assert refused.value.code == Code.CONFLICT
    os.close(claim)
    assert deployments.start_deployment(workspace, USE_CASE, replicas=1).replicas == 1


def test_problems_and_canaries_are_those_of_all(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    canary = TARGET.model_copy(update={"model": "m@v2"})
    folder.want(Wanted(use_case="reviews", options=OPTIONS, target=TARGET, canary=canary, percent=5.0))
    first, second = folder.replicas()
    second.create()
    first.claim()
    first.tell(State(pid=1, serving="m@v1", canary="m@v2"))
    second.tell(State(problem="Port 4711 cannot be used"))
    view = deployment_view(folder)
    assert (view.state, view.problem, view.canary) == ("serving", "Port 4711 cannot be used", "m@v2 (5 %)")
    second.claim()
    second.tell(State(pid=2, serving="m@v1", loading="m@v2"))
    assert deployment_view(folder).canary is None
    second.tell(State(pid=2, serving="m@v1", canary_refused=Refused(generation=1, model="m@v2", why="x", at=0)))
    assert deployment_view(folder).canary == "m@v2: x"


def test_what_replicas_counted_is_one_sum(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for number, replica in enumerate(folder.replicas()):
        replica.create()
        counters = request_metrics.CounterFile(replica.counters)
        hours = HourlyTallies(replica.hours)
        for each in range(10 + number):
            bad = each < 2 + number
            outcome = request_metrics.Outcome(0.1, failed=bad, not_finite=False, unusable=False)
            counters.add(("production", 1, "m@v1"), 100.0 + each, outcome)
            hours.add(("production", 1, "m@v1"), 100.0 + each, RequestRecord(0.1, bad, False, False))
        counters.write(now=True)
        hours.write(now=True)
    (found,) = request_metrics.read_all_counters(folder)
    assert (found.requests, found.failed.bad, found.first, found.last) == (21, 5, 102.0, 110.0)
    assert found.failed.without_worst == BadCount(10, 2), "the worst minute is the worse of the two"
    assert RequestCounters.of(json.loads(json.dumps(found.document()))) == found
    (hour,) = read_hours(folder.hours, 0, HOUR)
    assert (hour.requests, hour.failed, sum(hour.durations.values())) == (21, 5, 21)


# Real processes


class Client(threading.Thread):
    """One connection that asks without a pause. After a lost connection it asks once more, over another one."""

    def __init__(self, port: int, token: str, stop: threading.Event) -> None:
        super().__init__()
        self._port, self._token, self._stop_asking = port, token, stop
        self.answers, self.lost, self.failures = Counter[str](), 0, list[str]()
        self.seconds: list[float] = []

    def run(self) -> None:
        self._connect()
        while not self._stop_asking.is_set():
            began = time.monotonic()
            try:
                try:
                    self._ask()
                except (OSError, http.client.HTTPException):
                    self.lost += 1
                    time.sleep(_PAUSE)
                    self._connection.close()
                    self._connect()
                    self._ask()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                self._connection.close()
                self._connect()
            self.seconds.append(time.monotonic() - began)
        self._connection.close()

    def _connect(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def _ask(self) -> None:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        self._connection.request("POST", "/predict", json.dumps({"inputs": [{"text": QUESTION}]}), headers)
        response = self._connection.getresponse()
        said = json.loads(response.read())
        if response.status == 200:
            self.answers[str(response.getheader("x-model-version"))] += 1
        else:
            self.failures.append(f"{response.status}: {said}")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(
        tmp_path / "workspace", settings=Settings(policy="auto", bake=Bake(rollback="tell"), serving=OPTIONS)
    )
    yield workspace
    folder = deployment_folder(workspace.folders, USE_CASE)
    folder.create()
    folder.stop()
    until(lambda: not any(each.alive() for each in folder.replicas()), 60)
    workspace.close()


def serving(workspace: Workspace) -> str | None:
    found = deployments.deployment_of(workspace.folders, USE_CASE)
    return found.serving if found and found.live == 2 else None


@pytest.mark.slow
def test_ten_promotions_two_rollbacks_a_refusal_and_a_kill_fail_no_request(workspace: Workspace) -> None:
    first = trained(workspace)
    good = [version(workspace, first, scaled(0.001 + 0.0005 * i), f"good-{i}") for i in range(1, PROMOTIONS + 1)]
    broken = version(workspace, first, scaled(1.5), "broken")
    spoil(workspace, broken)
    move(workspace, first.ref)
    pool = Pool(workspace.folders, workspace.settings)
    keeper = DeploymentKeeper(workspace, pool)
    keeper.start()
    deployments.start_deployment(workspace, USE_CASE)
    until(lambda: serving(workspace) == first.ref, PATIENCE)
    shown = deployments.deployment_of(workspace.folders, USE_CASE)
    assert shown
    assert shown.url
    folder, stop = deployment_folder(workspace.folders, USE_CASE), threading.Event()
    port, token = int(shown.url.rpartition(":")[2]), shown.token.read_text()
    clients = [Client(port, token, stop) for _ in range(CONNECTIONS)]
    began, before, served = time.monotonic(), first.ref, {first.ref}
    for client in clients:
        client.start()
    try:
        for number, ref in enumerate(good, 1):
            moves = [(ref, "promote")]
            if number in (4, 8):
                moves.append((before, "rollback"))
            for model, action in moves:
                move(workspace, model, action)
                until(lambda model=model: serving(workspace) == model, PATIENCE)  # type: ignore[misc]
                served.add(model)
                before = model
            if number == 6:
                move(workspace, broken)
                until(lambda: all(each.state().refused for each in folder.replicas()), PATIENCE)
                assert {each.state().serving for each in folder.replicas()} == {before}
                move(workspace, before)
                until(lambda: not any(each.state().refused for each in folder.replicas()), PATIENCE)
            if number == 7:
                os.kill(folder.replicas()[1].state().pid, signal.SIGKILL)
                until(lambda: serving(workspace) == before, PATIENCE)  # noqa: B023 - it is over before it changes
            time.sleep(1)
    finally:
        stop.set()
        for client in clients:
            client.join(60)
        keeper.stop()
        keeper.look()
        pool.close()
    answers = sum((client.answers for client in clients), Counter[str]())
    lost = sum(client.lost for client in clients)
    seconds = sorted(each for client in clients for each in client.seconds)
    print(
        f"\n{answers.total()} requests in {time.monotonic() - began:.0f} s over {CONNECTIONS} connections, 2 replicas: "
        f"p50 {1000 * seconds[len(seconds) // 2]:.1f} ms, p99 {1000 * seconds[int(0.99 * len(seconds))]:.1f} ms, "
        f"slowest {1000 * seconds[-1]:.0f} ms; {lost} connections lost at the kill, 0 failed after one more try"
    )
    assert [failure for client in clients for failure in client.failures] == []
    assert 0 < lost <= CONNECTIONS, "those of the replica that was killed, once each"
    assert set(answers) <= served
    counted = request_metrics.read_all_counters(folder)
    assert sum(each.failed.bad for each in counted) == 0
    kinds = Counter(event.type for event in workspace.database.events_after(0) if event.type.startswith("slot."))
    assert kinds["slot.died"] == 1
    assert kinds["slot.serving"] == PROMOTIONS + 3, "a move is told once, however many replicas make it"
