"""Processes that train one network together: each learns from its share of every batch, and all take the same step.

The first one leads: it decides, evaluates, saves and keeps the time. On its machine the others are forks of it, made
before anything was computed; they build the same trainings and take the steps that they are order. Gradients are summed
once in a step.

They live and die together. Each follower holds the attempt's claim, as every fork does, and one end of a pipe of the
leader's: when that closes, it ends at once, wherever it is. When a follower dies, the leader ends itself.

On several nodes (`rendezvous.py`) a connection stands in the place of the pipe. Whether all are gone is then for the
nodes' leases to say (`jobs/places/team.py`), because a network that is away looks like a death."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from speciate.datasets.loading.stream import Places
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.jobs.folder import TEAM, Outcome
from speciate.jobs.run import Run, Transient
from speciate.training.networks import rendezvous
from speciate.training.networks.optimizer import Precision
from speciate.training.networks.stopping import Diverged
from speciate.training.resource_usage import is_out_of_memory

if TYPE_CHECKING:
    import torch


_MEMORY = 77
"""Exit code of a follower that ran out of it."""
_NO_MEMORY = b"memory"
"""Last word of a follower of another node that ran out of it."""
_MOURNING_SECONDS, _AGREEING_SECONDS, _LEAVING_SECONDS = 5.0, 60.0, 10.0

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
"""A line of the leader: `{"meet"}`, `{"build"}` or `{"step"}` with its arguments, as JSON."""


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
def gather_team(
    run: Run, size: int, device: str, threads: int, follow: Callable[[Follower], None], nodes: int = 1
) -> Iterator[Team]:
    """The leader's team of `size` processes on `device`s, as many on each of `nodes`. `follow`, in each of the others,
    never needs to return; on other nodes than the first nothing does.

    To be entered before anything was computed. Left by an error or without one, no follower of this machine lives any
    more.
    """
    if size == 1:
        yield ALONE
        return
    import accelerate  # noqa: F401 - once for all, which takes seconds and computes nothing

    join, crew = _Join(size, size // nodes, device, threads, run.folder.path / "rendezvous"), _Crew(run)
    if run.node:
        _serve_node(run, join, follow)
    try:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # no request to stop hits a half-made fork
        try:
            for rank in range(1, join.on_node):
                crew.fork(partial(_serve, rank, join, follow))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if nodes == 1:
            crew.watch()
            with crew.together():
                own_device = join(0)
        else:
            network = rendezvous.own_network(run.interface)
            for connection in rendezvous.gather(network, run.folder.path / TEAM, range(join.on_node, size)):
                crew.take(connection)
            crew.watch()
            with crew.together():
                own_device = join(0, rendezvous.Rendezvous.open(network, size, crew.tell))
        yield Leader(crew, size, own_device)
    finally:
        crew.close()


class _Join(NamedTuple):
    """accelerate's process group: NCCL between GPUs, gloo between processors. `on_node`: processes on each node."""

    size: int
    on_node: int
    device: str
    threads: int
    file: Path
    """Where those of one machine meet."""

    def __call__(self, rank: int, there: rendezvous.Rendezvous | None = None) -> str:
        """The device of this process. Returns when all are there. `there`: where those of several nodes meet."""
        from accelerate import PartialState
        from accelerate.utils import patch_environment

        interface = there.interface if there else rendezvous.LOOPBACK
        with patch_environment(
            rank=rank, local_rank=rank % self.on_node, world_size=self.size, local_world_size=self.on_node,
            omp_num_threads=self.threads, gloo_socket_ifname=interface, nccl_socket_ifname=interface,
            **({"master_addr": there.leader, "master_port": 1} if there else {}),  # asked for, and not used
        ):  # fmt: skip
            how = {"store": there.store} if there else {"init_method": f"file://{self.file}"}
            PartialState._reset_state()  # which is one for a whole process: what trained alone here before has made it
            state = PartialState(cpu=self.device == "cpu", rank=rank, world_size=self.size, **how)
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
        self._connections = list[socket.socket]()
        self._watches, self._distant = list[threading.Thread](), list[threading.Thread]()
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

    def take(self, connection: socket.socket) -> None:
        """A follower on another node."""
        self._connections.append(connection)

    def watch(self) -> None:
        """Once all are there: a process with threads is not to be forked."""
        for rank, pid in enumerate(self._pids, 1):
            self._watches.append(threading.Thread(target=self._watch, args=(rank, pid), daemon=True))
            self._watches[-1].start()
        for rank, connection in enumerate(self._connections, len(self._pids) + 1):
            self._distant.append(threading.Thread(target=self._watch_distant, args=(rank, connection), daemon=True))
            self._distant[-1].start()

    def tell(self, order: Mapping[str, Any]) -> None:
        line = json.dumps(order).encode() + b"\n"
        for connection in self._connections:
            connection.sendall(line)
        for pipe in self._pipes:
            left = memoryview(line)
            while left:
                left = left[os.write(pipe, left) :]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails in here because a follower died is no error of the training: the watch ends this process. Raises
        Transient where a network failed, and nobody died."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            if is_out_of_memory(error):
                raise
            for watch in (*self._watches, *self._distant):
                watch.join(_MOURNING_SECONDS)
            if self._connections:
                raise Transient(f"the nodes of the training cannot reach each other: {error}") from error
            raise

    def close(self) -> None:
        """Returns when all of this machine are gone; those of other nodes are told."""
        self._closing = True
        for pipe in self._pipes:
            os.close(pipe)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        if not (self._watches or self._distant):
            self.watch()
        for watch in self._watches:
            watch.join()
        for watch in self._distant:  # its node ends it, wherever it is
            watch.join(_LEAVING_SECONDS)

    def _watch(self, rank: int, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        if self._closing:
            return
        self._end(rank, out_of_memory=os.waitstatus_to_exitcode(status) == _MEMORY)

    def _watch_distant(self, rank: int, connection: socket.socket) -> None:
        said, more = b"", b"-"
        with contextlib.suppress(OSError):
            while more:
                more = connection.recv(len(_NO_MEMORY))
                said += more
        if not self._closing:
            self._end(rank, out_of_memory=said == _NO_MEMORY)

    def _end(self, rank: int, *, out_of_memory: bool) -> NoReturn:
        if out_of_memory:
            self._run.folder.end(Outcome(1, "memory", f"process {rank + 1} of the training ran out of memory"))
        os.kill(os.getpid(), signal.SIGKILL)  # it may wait for the dead one, and cannot be asked
        raise AssertionError


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


def _serve_node(run: Run, join: _Join, follow: Callable[[Follower], None]) -> NoReturn:
    """All that another node than the first does: its processes, this one among them, follow the leader there."""
    where = rendezvous.wait_for_place(run.folder.path / TEAM)
    first = run.node * join.on_node
    for rank in range(first + 1, first + join.on_node):
        if os.fork() == 0:
            _serve_distant(run, rank, join, follow, where)
    _serve_distant(run, first, join, follow, where)


def _serve_distant(
    run: Run, rank: int, join: _Join, follow: Callable[[Follower], None], where: rendezvous.MeetingPlace
) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        connection = rendezvous.join(where, rank)
    except OSError as error:  # or the leader is gone: then nobody asks why this one ended
        why = f"its process cannot reach that of the first node at {where.host}: {error}"
        run.folder.end(Outcome(1, "transient", why, "A person sets `interface` in [executors.NAME] of settings.toml."))
        os._exit(1)
    _serve(rank, join, follow, connection.detach(), where)


def _serve(
    rank: int,
    join: _Join,
    follow: Callable[[Follower], None],
    reading: int,
    where: rendezvous.MeetingPlace | None = None,
) -> NoReturn:
    """All of a follower's life, in its own process. `reading`: a pipe, or on another node than the first a
    connection."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the leader saves, and ends all
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(reading, orders), daemon=True).start()
        there = rendezvous.Rendezvous.find(orders.get()["meet"], join.size) if join.on_node < join.size else None
        follow(Follower(rank, join.size, join(rank, there), orders))
    except SpeciateError:  # which the leader finds, too, and says better than by being killed
        threading.Event().wait(_AGREEING_SECONDS)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not return into the leader's program
        traceback.print_exc()
        code = _MEMORY if is_out_of_memory(error) else 1
        if where is not None:
            _say_last_word(reading, error)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _say_last_word(connection: int, error: BaseException) -> None:
    if is_out_of_memory(error):
        with contextlib.suppress(OSError):
            os.write(connection, _NO_MEMORY)
    elif isinstance(error, RuntimeError | OSError):  # torch's, if the leader is gone: then `_listen` ends this process
        threading.Event().wait(_MOURNING_SECONDS)


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
