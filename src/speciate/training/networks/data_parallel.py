"""Processes that train one network together: each learns from its share of every batch, and all take the same step.

The first one leads: it decides, evaluates, saves and keeps the time. The others are forks of it, made before anything
was computed; they build the same trainings and take the steps that they are order. Gradients are summed once in a step.

They live and die together. Each follower holds the attempt's claim, as every fork does, and one end of a pipe of the
leader's: when that closes, it ends at once, wherever it is. When a follower dies, the leader ends itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from speciate.datasets.loading.stream import Places
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.jobs.folder import Outcome
from speciate.jobs.run import Run
from speciate.training.networks.optimizer import Precision
from speciate.training.networks.stopping import Diverged
from speciate.training.resource_usage import is_out_of_memory

if TYPE_CHECKING:
    import torch


_MEMORY = 77
"""Exit code of a follower that ran out of it."""
_MOURNING_SECONDS, _AGREEING_SECONDS = 5.0, 60.0
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"

Recipe = Mapping[str, Any]
"""What `build` takes to make a training anew, as JSON."""


class StepOrder(NamedTuple):
    """A step to take. `optimized`: parameters that have moments, where the state comes with the step; else None."""

    step: int
    precision: Precision
    optimized: list[str] | None = None
    identity: Mapping[str, Any] | None = None


class Stepping(Protocol):
    """A training, as far as a team knows it."""

    def order(self, whole: bool) -> StepOrder:
        """The step that it is about to take, with the state where that was not left by its last step, or `whole`."""
        ...

    def shared(self, optimized: Sequence[str]) -> list[torch.Tensor]:
        """What all must have alike, in one order: weights and moments, themselves and no copies."""
        ...

    def follow(self, order: StepOrder) -> None: ...


class Team(Protocol):
    """The processes that take the steps of one training."""

    @property
    def size(self) -> int: ...

    @property
    def rank(self) -> int: ...

    @property
    def device(self) -> str | None:
        """Device of this process; None: as its payload says."""
        ...

    def of(self, recipe: Recipe) -> Team:
        """The same processes, for the training that `build` makes of `recipe`."""
        ...

    def begin(self, training: Stepping) -> None:
        """Called before a step."""
        ...

    def add(self, parameters: Sequence[torch.Tensor], loss: float, counted: int) -> tuple[float, int]:
        """The sums over the team of `loss` and `counted`, and in place those of the gradients. One that nobody has
        stays None."""
        ...


class Alone:
    """A team of one."""

    size, rank = 1, 0
    device: str | None = None

    def of(self, recipe: Recipe) -> Team:
        return self

    def begin(self, training: Stepping) -> None:
        pass

    def add(self, parameters: Sequence[torch.Tensor], loss: float, counted: int) -> tuple[float, int]:
        return loss, counted


ALONE = Alone()


def own_share(team: Team, places: Places) -> Places:
    """Places of the batch that this process learns from; none where there are fewer than processes.

    Taken in turns, as neighbours in a batch are of like length.
    """
    return places[team.rank :: team.size]


def seed_of(*key: int) -> int:
    """Seed for the chance of one process in one step: 32 bits of the key alone, so that nothing has to be kept."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")


Order = Mapping[str, Any]
"""A line of the leader: `{"build"}`, `{"step"}` or another order with its arguments, as JSON."""


class Follower:
    """Takes the steps that it is order."""

    def __init__(self, rank: int, size: int, device: str, orders: queue.SimpleQueue[Order]) -> None:
        self.rank, self.size, self.device, self._orders = rank, size, device, orders

    def of(self, recipe: Recipe) -> Follower:
        return self

    def begin(self, training: Stepping) -> None:
        pass

    def add(self, parameters: Sequence[torch.Tensor], loss: float, counted: int) -> tuple[float, int]:
        return _add(parameters, loss, counted)

    def go(self, build: Callable[..., Stepping]) -> NoReturn:
        """Follow the leader's orders until it is gone."""
        training: Stepping | None = None
        while True:
            order = self._orders.get()
            if "build" in order:
                training = None  # freed before the next is made
                training = build(**order["build"])
                continue
            assert training is not None, "a step comes after what it is a step of"
            step_order = StepOrder(**order["step"])
            with contextlib.suppress(Diverged):  # so says the leader, by the same numbers
                training.follow(step_order)


@contextlib.contextmanager
def gather_team(run: Run, size: int, device: str, threads: int, follow: Callable[[Follower], None]) -> Iterator[Team]:
    """The leader's team of `size` processes on `device`s. `follow`, in each of the others, never needs to return.

    To be entered before anything was computed. Left by an error or without one, no follower lives any more.
    """
    if size == 1:
        yield ALONE
        return
    import accelerate  # noqa: F401 - once for all, which takes seconds and computes nothing

    join, crew = _Join(size, device, threads, run.folder.path / "rendezvous"), _Crew(run)
    try:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # no request to stop hits a half-made fork
        try:
            for rank in range(1, size):
                crew.fork(partial(_serve, rank, join, follow))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        crew.watch()
        with crew.together():
            own_device = join(0)
        yield Leader(crew, size, own_device)
    finally:
        crew.close()


class _Join(NamedTuple):
    """accelerate's process group over loopback: NCCL between GPUs, gloo between processors."""

    size: int
    device: str
    threads: int
    rendezvous: Path

    def __call__(self, rank: int) -> str:
        """The device of this process. Returns when all are there."""
        from accelerate import PartialState
        from accelerate.utils import patch_environment

        with patch_environment(
            rank=rank, local_rank=rank, world_size=self.size, local_world_size=self.size,
            omp_num_threads=self.threads, gloo_socket_ifname=_LOOPBACK, nccl_socket_ifname=_LOOPBACK,
        ):  # fmt: skip
            where = f"file://{self.rendezvous}"
            PartialState._reset_state()  # which is one for a whole process: what trained alone here before has made it
            state = PartialState(cpu=self.device == "cpu", init_method=where, rank=rank, world_size=self.size)
        if state.num_processes != self.size:
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"{self.size} processes were to train together on {self.device}, but torch cannot connect them there.",
                "Install a torch that knows the GPUs, or leave them out.",
                next=[CallAgain("train_model", {"resources": {"gpu": 0}})],
            )
        return str(state.device)


class _Crew:
    """The followers, as their leader holds them."""

    def __init__(self, run: Run) -> None:
        self._run, self._closing = run, False
        self._pids, self._pipes = list[int](), list[int]()
        self._watches = list[threading.Thread]()
        self.current: Leader | None = None
        """Leader whose training they hold."""

    def fork(self, serve: Callable[[int], NoReturn]) -> None:
        """`serve`, in the new process, gets the end of the pipe that it reads its orders from."""
        reading, writing = os.pipe()
        self._pipes.append(writing)
        if (pid := os.fork()) == 0:
            for pipe in self._pipes:  # else they would keep each other's open, and their own
                os.close(pipe)
            serve(reading)
        os.close(reading)
        self._pids.append(pid)

    def watch(self) -> None:
        """Once all are there: a process with threads is not to be forked."""
        for rank, pid in enumerate(self._pids, 1):
            self._watches.append(threading.Thread(target=self._watch, args=(rank, pid), daemon=True))
            self._watches[-1].start()

    def tell(self, order: Mapping[str, Any]) -> None:
        line = json.dumps(order).encode() + b"\n"
        for pipe in self._pipes:
            left = memoryview(line)
            while left:
                left = left[os.write(pipe, left) :]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails in here because a follower died is no error of the training: the watch ends this process."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            if not is_out_of_memory(error):
                for watch in self._watches:
                    watch.join(_MOURNING_SECONDS)
            raise

    def close(self) -> None:
        """Returns when all are gone."""
        self._closing = True
        for pipe in self._pipes:
            os.close(pipe)
        if not self._watches:
            self.watch()
        for watch in self._watches:
            watch.join()

    def _watch(self, rank: int, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        if self._closing:
            return
        if os.waitstatus_to_exitcode(status) == _MEMORY:
            self._run.folder.end(Outcome(1, "memory", f"process {rank + 1} of the training ran out of memory"))
        os.kill(os.getpid(), signal.SIGKILL)  # it may wait for the dead one, and cannot be asked


class Leader:
    rank = 0

    def __init__(self, crew: _Crew, size: int, device: str, recipe: Recipe | None = None) -> None:
        self._crew, self.size, self.device, self._recipe = crew, size, device, recipe

    def of(self, recipe: Recipe) -> Leader:
        return Leader(self._crew, self.size, self.device, recipe)

    def begin(self, training: Stepping) -> None:
        new = self._crew.current is not self
        with self._crew.together():
            if new:
                self._crew.tell({"build": self._recipe})
                self._crew.current = self
            order = training.order(new)
            self._crew.tell({"step": order._asdict()})
            if order.optimized is not None:
                _spread(training.shared(order.optimized))

    def add(self, parameters: Sequence[torch.Tensor], loss: float, counted: int) -> tuple[float, int]:
        with self._crew.together():
            return _add(parameters, loss, counted)


def receive(training: Stepping, order: StepOrder, identity: Mapping[str, Any]) -> None:
    """The leader's state. RuntimeError where what was built here is not what the leader has."""
    if order.identity != json.loads(json.dumps(identity)):
        raise RuntimeError("the processes of this training built different networks")
    assert order.optimized is not None
    _spread(training.shared(order.optimized))


def _serve(rank: int, join: _Join, follow: Callable[[Follower], None], reading: int) -> NoReturn:
    """All of a follower's life, in its own process."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the leader saves, and ends all
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(reading, orders), daemon=True).start()
        follow(Follower(rank, join.size, join(rank), orders))
    except SpeciateError:  # which the leader finds, too, and says better than by being killed
        threading.Event().wait(_AGREEING_SECONDS)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not return into the leader's program
        traceback.print_exc()
        code = _MEMORY if is_out_of_memory(error) else 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def _listen(reading: int, orders: queue.SimpleQueue[Order]) -> None:
    with os.fdopen(reading, "rb") as pipe:
        for line in pipe:
            orders.put(json.loads(line))
    os._exit(0)  # the leader is gone, or needs nobody any more


def _add(parameters: Sequence[torch.Tensor], loss: float, counted: int) -> tuple[float, int]:
    import torch
    from accelerate.utils import reduce

    gradients = [each.grad if each.grad is not None else torch.zeros_like(each) for each in parameters]
    there = [float(each.grad is not None) for each in parameters]
    facts = torch.tensor([*there, loss, counted], dtype=torch.float32, device=gradients[0].device)
    summed = reduce(torch.cat([*(each.reshape(-1) for each in gradients), facts]), "sum")
    *each_there, loss, counted = summed[-len(facts) :].tolist()
    found = summed.split([each.numel() for each in parameters] + [len(facts)])
    for parameter, gradient, some in zip(parameters, found[:-1], each_there, strict=True):
        parameter.grad = gradient.view_as(parameter) if some else None
    return loss, round(counted)


def _spread(tensors: Sequence[torch.Tensor]) -> None:
    """The leader's values, in place."""
    from accelerate.utils import broadcast

    for tensor in tensors:
        broadcast(tensor.detach())


def places_per_process(team: Team, size: int) -> int:
    """Places of a batch of `size` that one process takes, at most."""
    return -(-size // team.size)
