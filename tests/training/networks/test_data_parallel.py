"""Several processes that train one network together take the steps that one would, and live and die together."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RESUMABLE, Outcome
from speciate.jobs.run import Run
from speciate.tasks.families.retrieval import Retrieval
from speciate.training.networks import rendezvous
from speciate.training.networks.data_parallel import Alone, own_share
from speciate.training.networks.optimizer import LoopParameters
from tests.training.networks.processes import KILL, TERMINATE, attempt, attempt_on_nodes
from tests.training.networks.world import checkpoints, training

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


@pytest.fixture(scope="module", autouse=True)
def used_before() -> Iterator[None]:
    """What torch imports at its first step: here once, and not in every fork. And what accelerate keeps for a whole
    process, as trl's trainers leave it in one that trains next to nobody."""
    training().run_until(1)
    accelerate.PartialState(cpu=True)
    yield
    accelerate.PartialState._reset_state()


class Two(Alone):
    """The team as a training sees it before its first step."""

    size = 2


def result(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.outputs / "result.json").read_text())
    return {name: value for name, value in found.items() if name != "_check"}


def gone(run: Run) -> bool:
    """Whether no process of the team lives."""
    pids = [int(line) for line in (run.folder.path / "pids").read_text().split()]
    return len(pids) > 1 and not any(lives(pid) for pid in pids)


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("task_head", "more"),
    [
        ("labels", {}),
        pytest.param("tags", {"micro": 2}, marks=pytest.mark.slow),
        ("tags", {"batch": 2, "size": 3}),
        pytest.param("boxes", {"size": 3}, marks=pytest.mark.slow(reason="three processes are in the one before")),
    ],
)
def test_they_take_the_steps_that_one_process_takes(tmp_path: Path, task_head: str, more: dict[str, Any]) -> None:
    """Shares of unequal size, micro-batches, losses over words and boxes, and a process that gets no example."""
    given = {"task_head": task_head, "steps": 6, **more}
    code, one = attempt(tmp_path / "one", **given | {"size": 1})
    assert code == 0
    code, several = attempt(tmp_path / "several", **given)
    assert code == 0
    assert gone(several)
    assert result(several)["losses"] == pytest.approx(result(one)["losses"], rel=1e-5)
    assert result(several)["norms"] == pytest.approx(result(one)["norms"], rel=1e-4)
    weights, others = (load_file(run.outputs / "weights.safetensors") for run in (one, several))
    for name, each in weights.items():
        torch.testing.assert_close(others[name], each, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "nodes"), [(2, 2), pytest.param(4, 2, marks=pytest.mark.slow(reason="two processes on each"))]
)
def test_on_several_nodes_they_take_the_steps_that_one_process_takes(tmp_path: Path, size: int, nodes: int) -> None:
    given = {"task_head": "labels", "steps": 6}
    code, one = attempt(tmp_path / "one", **given | {"size": 1})
    assert code == 0
    codes, several = attempt_on_nodes(tmp_path, nodes=nodes, **given | {"size": size})
    assert codes == [0] * nodes
    assert result(several)["losses"] == pytest.approx(result(one)["losses"], abs=1e-6)
    weights, others = (load_file(run.outputs / "weights.safetensors") for run in (one, several))
    for name, each in weights.items():
        torch.testing.assert_close(others[name], each, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_minus_nine_on_any_node_ends_all_and_the_next_attempt_has_the_same_end(
    tmp_path: Path, rank: int, uninterrupted: str
) -> None:
    codes, run = attempt_on_nodes(tmp_path, rank=rank, take=7, signal=KILL)
    assert codes[0] == -signal.SIGKILL
    assert codes[1] == (0 if rank == 0 else -signal.SIGKILL), "who follows ends when the leader is gone"
    assert run.folder.outcome() is None
    codes, run = attempt_on_nodes(tmp_path, 2)
    assert codes == [0, 0]
    assert result(run)["resumed_at"] > 5
    assert result(run)["digest"] == uninterrupted


def test_a_node_without_memory_says_so(tmp_path: Path) -> None:
    codes, run = attempt_on_nodes(tmp_path, rank=1, take=3)
    assert codes[0] == -signal.SIGKILL
    assert (outcome := run.folder.outcome()) is not None
    assert outcome.kind == "memory"


def test_who_has_no_key_is_turned_away(tmp_path: Path) -> None:
    met: list[socket.socket] = []
    network = rendezvous.own_network("lo")
    waits = threading.Thread(target=lambda: met.extend(rendezvous.gather(network, tmp_path / "team", [1])))
    waits.start()
    place = rendezvous.wait_for_place(tmp_path / "team")
    assert place.host == "127.0.0.1"
    for stranger in (place._replace(key=bytes(32)), place):  # the second has the key, and a rank that nobody has
        with rendezvous.join(stranger, 7) as connection:
            assert connection.recv(1) == b""
        assert not met
    with rendezvous.join(place, 1) as ours:
        waits.join(10)
        met[0].sendall(b"x")
        assert ours.recv(1) == b"x"
        met[0].close()
    assert (tmp_path / "team").stat().st_mode & 0o777 == 0o600


def test_strangers_hold_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by silence nor a byte at a time, nor by their number."""
    monkeypatch.setattr(rendezvous, "_MOST_STRANGERS", 8)
    network, met = rendezvous.own_network("lo"), list[socket.socket]()
    waits = threading.Thread(target=lambda: met.extend(rendezvous.gather(network, tmp_path / "team", [1])), daemon=True)
    waits.start()
    place = rendezvous.wait_for_place(tmp_path / "team")
    strangers = [socket.create_connection((place.host, place.port)) for _ in range(20)]
    for each in strangers:
        with contextlib.suppress(OSError):  # turned away
            each.sendall(b"x")
    began = time.monotonic()
    with rendezvous.join(place, 1):
        waits.join(5)
        assert len(met) == 1
        assert time.monotonic() - began < 5, "and one stranger alone may take ten"
    for each in (*strangers, *met):
        each.close()


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(SpeciateError, match=r"no interface 'ib7'.*lo") as refused:
        rendezvous.own_network("ib7")
    assert refused.value.code is Code.UNAVAILABLE


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The end of two processes, each with dropout of its own."""
    code, run = attempt(tmp_path_factory.mktemp("whole"))
    assert code == 0
    return str(result(run)["digest"])


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow(reason="1 is killed, too")), 1])
def test_kill_minus_nine_of_any_of_them_ends_all_and_the_next_attempt_has_the_same_end(
    tmp_path: Path, rank: int, uninterrupted: str
) -> None:
    for number, take in ((1, 7), (2, 6)):
        code, run = attempt(tmp_path, number, rank=rank, take=take, signal=KILL)
        assert code == -signal.SIGKILL
        assert run.folder.outcome() is None
        wait_for_the_last(run)
    code, run = attempt(tmp_path, 3)
    assert code == 0
    assert result(run)["resumed_at"] > 5
    assert result(run)["digest"] == uninterrupted


def wait_for_the_last(run: Run) -> None:
    """Each of them holds `lock` as it holds the attempt's claim: as long as it lives, which here is a moment."""
    with (run.folder.path / "lock").open("a") as file:
        signal.alarm(60)  # ends the tests where one stays
        fcntl.flock(file, fcntl.LOCK_EX)
        signal.alarm(0)


def test_a_request_to_stop_saves_and_ends_all(tmp_path: Path, uninterrupted: str) -> None:
    code, run = attempt(tmp_path, rank=0, take=5, signal=TERMINATE)
    assert code == RESUMABLE
    assert gone(run)
    assert (saved := checkpoints(run).newest()) is not None
    assert saved.state.facts["step"] == 5
    code, run = attempt(tmp_path, 2)
    assert code == 0
    assert result(run) == {"digest": uninterrupted, "resumed_at": 5}


def test_a_follower_is_not_stopped_by_the_signal_that_its_group_gets(tmp_path: Path, uninterrupted: str) -> None:
    code, run = attempt(tmp_path, rank=1, take=5, signal=TERMINATE)
    assert code == 0
    assert result(run)["digest"] == uninterrupted


def test_a_follower_without_memory_is_tried_again_smaller(tmp_path: Path) -> None:
    code, run = attempt(tmp_path, rank=1, take=3)
    assert code == -signal.SIGKILL
    assert (outcome := run.folder.outcome()) is not None
    assert outcome.kind == "memory"
    wait_for_the_last(run)


def test_what_all_of_them_refuse_is_said_once_and_well(tmp_path: Path) -> None:
    code, run = attempt(tmp_path, invalid=True)
    assert code == 1
    assert run.folder.outcome() == Outcome(1, "user", "Nothing to learn.", "Add examples.")


@pytest.mark.slow(reason="they resume after a kill, and one process in bfloat16, in others")
def test_in_bfloat16_they_resume_to_the_bit(tmp_path: Path) -> None:
    ends = []
    for name, stop in (("whole", None), ("stopped", TERMINATE)):
        more: dict[str, Any] = {"rank": 0, "take": 5, "signal": stop} if stop else {}
        code, run = attempt(tmp_path / name, precision="bfloat16", epochs=2, **more)
        if stop:
            assert code == RESUMABLE
            code, run = attempt(tmp_path / name, 2, precision="bfloat16", epochs=2)
        assert code == 0
        ends.append(result(run)["digest"])
    assert ends[0] == ends[1]


@pytest.mark.parametrize(("task_head", "batch_norm"), [(Retrieval.fit(["a", "b"], {}), False), (None, True)])
def test_what_needs_the_whole_batch_is_refused(task_head: Any, batch_norm: bool) -> None:
    with pytest.raises(SpeciateError, match="2 processes would divide batches of 8") as refused:
        training(LoopParameters(batch_size=8), task_head=task_head, batch_norm=batch_norm, team=Two())
    assert refused.value.code == Code.INVALID
    assert "'gpu': 1" in refused.value.recovery


def test_each_holds_its_share_in_memory() -> None:
    assert training(LoopParameters(batch_size=9), batch_norm=False, team=Two()).micro_batch == 5
    assert own_share(Two(), torch.arange(5).numpy()).tolist() == [0, 2, 4]
