"""Two or more processes that train the tiny network together: the entry of a worker, in which any of them may die."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import TEAM
from speciate.jobs.run import Run
from speciate.models.backbones.contract import Item
from speciate.training.networks import durable_training
from speciate.training.networks.batches import Items, PreparedItems
from speciate.training.networks.data_parallel import Follower, Team, gather_team
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.training_loop import Training
from speciate.worker import main
from tests.training.networks.test_training_loop import BOXES, TAGS, Squares
from tests.training.networks.world import WIDTH, TinyBackbone, TwoLabels, checkpoints, held, media, new_run, training

ENTRY = f"{Path(__file__).resolve()}:work"
TASK_HEADS: dict[str, tuple[Any, type[TinyBackbone]]] = {
    "labels": (TwoLabels(), TinyBackbone), "tags": (TAGS, TinyBackbone), "boxes": (BOXES, Squares),
}  # fmt: skip


class Acting:
    """Items that do something when they are taken for the `at`th time, in one process of the team."""

    def __init__(self, items: Items, at: int, act: Callable[[], None]) -> None:
        self._items, self._left, self._act, self.lengths = items, at, act, items.lengths

    def take(self, places: npt.NDArray[np.int64]) -> list[Item]:
        self._left -= 1
        if not self._left:
            self._act()
        return self._items.take(places)


def work(run: Run) -> dict[str, Any]:
    """{size, micro, precision, task_head, rank, take, signal}: which process does what at which batch that it takes.

    {invalid}: the data are, as each process finds by itself. {nodes}: as many, of which the spec says which this is.
    """
    torch.set_num_threads(1)
    given = run.payload
    os.set_inheritable(lock := os.open(run.folder.path / "lock", os.O_RDWR | os.O_CREAT), True)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (run.folder.path / "pids").write_text("")

    def build(team: Team) -> Training:
        with (run.folder.path / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")

        def act() -> None:
            if "signal" not in given:
                raise MemoryError
            os.kill(os.getpid(), given["signal"])

        def around(items: Items) -> Items:
            return Acting(items, given["take"], act) if team.rank == given.get("rank") else items

        return _training(given, around, team)

    def check() -> None:
        if given.get("invalid"):
            raise SpeciateError(Code.INVALID, "Nothing to learn.", "Add examples.")

    def follow(team: Follower) -> None:
        check()
        team.go(lambda: build(team))

    with gather_team(run, given["size"], "cpu", 1, follow, given.get("nodes", 1)) as team:
        check()
        learning = build(team.of({}))
        resumed = checkpoints(run).newest()
        if given.get("steps"):
            with learning.random_states:
                steps = [learning.advance() for _ in range(given["steps"])]
            weights = {name: each.detach().clone() for name, each in learning._weights().items()}
            save_file(weights, run.outputs / "weights.safetensors")
            return {"losses": [step.loss for step in steps], "norms": [step.grad_norm for step in steps]}
        durable_training._SAVE_SHARE = 0  # before each step, however long it takes
        durable_training.train_durably(run, learning, held(), save_seconds=0.0)
    return {"digest": learning.digest(), "resumed_at": resumed.state.facts["step"] if resumed else 0}


def _training(given: dict[str, Any], around: Callable[[Items], Items], team: Team) -> Training:
    parameters = LoopParameters(
        num_train_epochs=given.get("epochs", 4), batch_size=given.get("batch", 8),
        per_device_train_batch_size=given.get("micro"),
        learning_rate=0.01, precision=given.get("precision", "float32"),
    )  # fmt: skip
    if "task_head" not in given:  # with dropout: each process draws its own
        return training(parameters, batch_norm=given.get("batch_norm", False), around=around, team=team)
    task_head, kind = TASK_HEADS[given["task_head"]]
    torch.manual_seed(0)
    backbone = kind()
    module: Any = backbone.module
    module.dropout.p, module.running = 0.0, torch.nn.Identity()
    words, _ = media(25)
    targets: Any = np.arange(25) % 2
    if task_head is TAGS:
        targets = [np.array(one) % 4 - 1 for one in words]
    elif task_head is BOXES:
        targets = [np.full((at % 4, 5), 0.5, np.float32) * (0, 1, 1, 1, 1) for at in range(25)]
    head = torch.nn.Linear(WIDTH, 2) if given["task_head"] == "labels" else task_head.head(WIDTH)
    items = around(PreparedItems(words, backbone.prepare, backbone.length))
    return Training(backbone, head, task_head, items, targets, parameters, 0, team=team)


def attempt(folder: Path, number: int = 1, **payload: Any) -> tuple[int, Run]:
    """A worker in a session of its own, as a supervisor starts it, and how it ended."""
    run = new_run(folder, number, entry=ENTRY, payload={"size": 2, **payload})
    if (pid := os.fork()) == 0:
        os.setsid()
        os._exit(main(str(run.folder.path)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), run


def attempt_on_nodes(folder: Path, number: int = 1, nodes: int = 2, **payload: Any) -> tuple[list[int], Run]:
    """As `attempt`, by a worker for each node. What brings `team.json` to the other nodes is one folder for all."""
    lead, *others = (
        new_run(folder / f"node{node}", number, entry=ENTRY, payload={"size": 2, "nodes": nodes, **payload}, node=node)
        for node in range(nodes)
    )
    pids = []
    for run in (lead, *others):
        if run is not lead:
            (run.folder.path / TEAM).symlink_to(lead.folder.path / TEAM)
        if (pid := os.fork()) == 0:
            os.setsid()
            os._exit(main(str(run.folder.path)))
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids], lead


TERMINATE, KILL = signal.SIGTERM, signal.SIGKILL
