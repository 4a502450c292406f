"""A few sandboxed processes that answer at once what needs foreign bytes, a user's SQL or a model.

A process takes one question at a time and keeps what it has loaded for the next. It is killed and replaced when it
exceeds its time, its memory or crashes, so one bad question costs one process and nobody else's answer. What cannot
be done within seconds belongs in a job.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

from speciate.errors import Code, SpeciateError
from speciate.sandbox import warm
from speciate.sandbox.client import Access, AnswerTimeout, OnPart, ProcessDied, RemoteError, SandboxClient
from speciate.sandbox.process import Limits
from speciate.settings import Settings
from speciate.workspace.workspace import Folders

_LIMITS = Limits(memory_mb=4096, file_mb=768)  # the largest volume and a part of 64 MB, decoded
_log = logging.getLogger(__name__)
_QUESTIONS_PER_LIFE = 1000
"""Questions after which a process is replaced: libraries leak, and a captured process should not live for ever."""
_IDLE_SECONDS, _HOLDING_SECONDS = 900.0, 3600.0
"""Until a process that nobody asks ends; of one that holds a model, which whoever asks next waits for."""
_LONGEST_ANSWER = 64 << 20  # bytes
SERVICE_MODULE = "speciate.jobs.pool_process"
"""The module of a process that answers `ask_service`; its argument is the workspace's folder."""

FAMILIES = ("", "classical", "torch", "transformers", "published")
"""What a process has imported: the libraries of such models. Each can do what those before it can: the last has all
that publishers' own processors need of transformers."""

_APART = FAMILIES[-1]
"""Such models have processes of their own also where none has imports from its start: what another network's process
left out of transformers cannot be had there."""

Readable = frozenset[Path]
ServiceAnswer = dict[str, Any]
"""JSON that a sandboxed process answered. It met foreign bytes: the caller knows the keys and checks the values."""
Content = TypeVar("Content")


class FileAnswer(TypedDict):
    """What a service answers whose answer is a file: see `Pool.ask_for_file`."""

    file: str
    """Name of the file in the process's working folder."""


class ImageAnswer(TypedDict):
    """What a service answers that draws."""

    png: str
    """A PNG file in base64."""


CALL_SECONDS = 43.0
"""`patience` of a question that is all that a tool asks: no call takes more than 45 s."""


class Busy(SpeciateError):
    """UNAVAILABLE: no process was free in time, so the question was never asked."""


class PoolProcessEnded(SpeciateError):
    """UNAVAILABLE: the process did not answer in time or died. What it had loaded is gone with it."""


def ask_service(
    client: SandboxClient,
    service: str,
    payload: Mapping[str, object],
    seconds: float,
    parse_constant: Callable[[str], float] | None = None,
    on_part: OnPart | None = None,
) -> ServiceAnswer:
    """The answer of a service in a process of SERVICE_MODULE, or the SpeciateError that the service raised.

    AnswerTimeout or ProcessDied where there is neither. `parse_constant`: as of `json.loads`; `on_part`: as of
    `SandboxClient.ask`.
    """
    try:
        answer = parse_reply(client.ask({"service": service, "payload": payload}, seconds, parse_constant, on_part))
    except RemoteError as error:
        raise ProcessDied("its service has no such form of error", (str(error),)) from None
    if isinstance(answer, SpeciateError):
        raise answer
    return answer


def parse_reply(reply: Any) -> ServiceAnswer | SpeciateError:
    """The answer or the error in a reply, which may be anything: foreign bytes are read where it was written."""
    failure: Any = reply.get("error") if isinstance(reply, dict) else None
    if failure is None and isinstance(reply, dict) and isinstance(reply.get("answer"), dict):
        return cast(ServiceAnswer, reply["answer"])
    try:
        message, recovery, foreign = (str(failure[part]) for part in ("message", "recovery", "foreign"))
        return SpeciateError(Code(failure["code"]), message, recovery, foreign)
    except (TypeError, KeyError, ValueError):
        raise ProcessDied from None


class _Server(SandboxClient):
    """A process of the pool."""

    def __init__(self, folders: Folders, settings: Settings, readable: Readable, family: str) -> None:
        self.readable, self.family, self.asked = readable, family, 0
        self.holds_model, self.idle_since = False, 0.0
        self.healthy = False  # whether it answered the last question, in time and in form
        sealed = (folders.blobs, folders.packs, folders.datasets, folders.features, folders.models, folders.evaluations)
        access = Access(
            (*sealed, *sorted(readable)),
            _LIMITS,
            code=False,
            longest_answer=_LONGEST_ANSWER,
            fork=settings.fork_sandboxes,
            family=family,
        )
        super().__init__(SERVICE_MODULE, folders.cache / "pool", settings.cage, access, str(folders.root))

    def file(self, name: str) -> Path:
        """The file of this name in the process's own folder; anything else is refused."""
        path = self.scratch / name
        if path.parent != self.scratch or path.is_symlink() or not path.is_file():
            raise SpeciateError(Code.REFUSED, f"A service named {name!r}, which is no file in its own folder.")
        return path


class Pool:
    """Asks services in sandboxed processes, `size` of them at most. Thread-safe; processes start when first needed.

    A service is a function `function(payload) -> dict` of this package, named "module:function"; both dicts
    are JSON. It may read the workspace's sealed folders, not the catalog.
    """

    def __init__(self, folders: Folders, settings: Settings, size: int = 2) -> None:
        self._folders, self._settings, self._size = folders, settings, size
        self._room = threading.Condition()
        self._idle: list[_Server] = []
        self._busy: set[_Server] = set()
        self._slots = 0  # processes that live or are being started
        self._closed = False
        self._others: set[SandboxClient] = set()

    def ask(
        self,
        service: str,
        payload: Mapping[str, object],
        timeout: float = 20.0,
        *,
        readable: frozenset[Path] = frozenset(),
        patience: float = 0.0,
        family: str = "",
    ) -> ServiceAnswer:
        """The service's answer, or the SpeciateError that it raised.

        `readable`: more files or folders that this question may read. UNAVAILABLE where `timeout` seconds were not
        enough, or the process ran out of memory or crashed. Waiting for a free process is part of them, and so is
        starting one; with more `patience` (seconds, for all of it) they begin once a process that was started before
        is free, so that a busy machine alone is no reason to give up. `family`: one of FAMILIES, for a model
        that needs it; the process has the imports from its start.
        """
        with self._answered(service, payload, timeout, readable, patience, family) as (_, answer):
            return answer

    def ask_for_file(
        self,
        service: str,
        payload: Mapping[str, object],
        read: Callable[[Path, ServiceAnswer], Content],
        timeout: float = 20.0,
        *,
        readable: frozenset[Path] = frozenset(),
    ) -> Content:
        """As `ask`, for an answer too big for JSON: what `read(path, answer)` makes of the file that the service wrote.

        The service writes into its working folder and names the file in `answer["file"]`; the file is deleted when
        `read` returns. It comes from a process that met foreign bytes: `read` must check it.
        """
        with self._answered(service, payload, timeout, readable) as (server, answer):
            path = server.file(str(answer["file"]))
            try:
                return read(path, answer)
            finally:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _answered(
        self,
        service: str,
        payload: Mapping[str, object],
        timeout: float,
        readable: Readable,
        patience: float = 0.0,
        family: str = "",
    ) -> Iterator[tuple[_Server, ServiceAnswer]]:
        """The answer, and the process that gave it while it is still ours."""
        begun = time.monotonic()
        end = deadline = begun + max(timeout, patience)
        free_by = max(end - timeout, begun + timeout) if patience else end
        with self._server(readable, family, min(free_by, end), free_by - begun) as server:
            if patience and server.asked:
                deadline = min(end, time.monotonic() + timeout)
            server.asked += 1
            server.holds_model |= bool(family)
            try:
                answer = ask_service(server, service, payload, deadline - time.monotonic())
            except AnswerTimeout:
                raise _too_slow_error(service, deadline - begun) from None
            except ProcessDied as error:
                _log.warning("the process of %s: %s", service, error)
                raise _died_error(service) from None
            except SpeciateError:
                server.healthy = True
                raise
            server.healthy = True
            yield server, answer

    def warm(self) -> None:
        """Start a process where none lives, so that the first question need not wait for its imports."""
        with self._room:
            if self._closed or self._slots or not self._size:
                return
        try:
            with self._server(frozenset(), "", time.monotonic(), 0.0) as server:
                server.healthy = True
        except (SpeciateError, OSError) as error:  # the first question says so to whoever asks it
            _log.info("no process was started ahead: %s", error)

    def end_idle(self, seconds: float = _IDLE_SECONDS, holding: float = _HOLDING_SECONDS) -> None:
        """End the processes that nobody has asked for so long, those that hold a model after `holding`: half a gigabyte
        is much for a machine on which somebody works. With the last of them their warm parent ends."""
        now = time.monotonic()
        with self._room:
            ended = [each for each in self._idle if now - each.idle_since >= (holding if each.holds_model else seconds)]
            self._idle = [each for each in self._idle if each not in ended]
        for server in ended:
            server.end()
            self._free_slot()

    @property
    def size(self) -> int:
        """How many questions are answered at once."""
        return self._size

    @property
    def busy(self) -> int:
        """How many questions are being answered now."""
        return len(self._busy)

    def close(self) -> None:
        """Kill every process. Questions in flight end with UNAVAILABLE."""
        with self._room:
            self._closed = True
            idle, self._idle = self._idle, []
            busy: list[SandboxClient] = [*self._busy, *self._others]
            self._room.notify_all()
        for server in idle:
            server.end()
        for client in busy:
            client.interrupt()

    @contextlib.contextmanager
    def ends_with_it(self, client: SandboxClient) -> Iterator[None]:
        """`close` interrupts the question of this process, too. UNAVAILABLE if the pool is closed."""
        with self._room:
            if self._closed:
                raise _closed_error()
            self._others.add(client)
        try:
            yield
        finally:
            with self._room:
                self._others.discard(client)

    @contextlib.contextmanager
    def _server(self, readable: Readable, family: str, deadline: float, timeout: float) -> Iterator[_Server]:
        """A process for one question: taken back when that went well, replaced otherwise."""
        imported = self._settings.fork_sandboxes and warm.offered(family)
        server = self._take(readable, family if imported or family == _APART else "", deadline, timeout)
        server.healthy = False
        try:
            yield server
        finally:
            with self._room:
                self._busy.discard(server)
                keep = server.healthy and server.asked < _QUESTIONS_PER_LIFE and not self._closed
                if keep:
                    server.idle_since = time.monotonic()
                    self._idle.append(server)
                    self._room.notify()
            if not keep:
                server.end()
                self._free_slot()

    def _take(self, readable: Readable, family: str, deadline: float, timeout: float) -> _Server:
        """An idle process with the same readable folders, or a new one, where need be in the place of an idle one."""
        self._end_dead()
        with self._room:
            self._room.wait_for(self._can_take, max(0.0, deadline - time.monotonic()))
            if self._closed:
                raise _closed_error()
            if server := self._pick(readable, family):
                self._busy.add(server)
                return server
            replaced = self._idle.pop(0) if self._idle and self._slots >= self._size else None
            if replaced is None:
                if self._slots >= self._size:
                    raise Busy(
                        Code.UNAVAILABLE,
                        f"All {self._size} service processes were busy for {timeout:g} s.",
                        "Repeat the call in a moment.",
                    )
                self._slots += 1
        try:
            if replaced is not None:
                replaced.end()
            server = _Server(self._folders, self._settings, readable, family)
        except BaseException:
            self._free_slot()
            raise
        with self._room:
            if not self._closed:
                self._busy.add(server)
                return server
        server.end()
        self._free_slot()
        raise _closed_error()

    def _end_dead(self) -> None:
        """Idle ones that died since, as where the machine's memory ran out: no question is to fail for that."""
        with self._room:
            dead = [each for each in self._idle if not each.rests]
            self._idle = [each for each in self._idle if each not in dead]
        for server in dead:
            server.end()
            self._free_slot()

    def _can_take(self) -> bool:
        return self._closed or bool(self._idle) or self._slots < self._size

    def _free_slot(self) -> None:
        with self._room:
            self._slots -= 1
            self._room.notify()

    def _pick(self, readable: Readable, family: str) -> _Server | None:
        """One of the same family first: each leaves to others what they have loaded. Who needs no imports takes any;
        where there is no room for another one, one that has more will do. Nobody gets one that lacks its imports: a
        fork is sooner there."""
        alike = [place for place in reversed(range(len(self._idle))) if self._idle[place].readable == readable]
        able = FAMILIES[FAMILIES.index(family) :] if self._slots >= self._size else (family,)
        will_do = [place for place in alike if not family or self._idle[place].family in able]
        best = min(will_do, key=lambda place: self._idle[place].family != family, default=None)
        return None if best is None else self._idle.pop(best)


def _closed_error() -> SpeciateError:
    return SpeciateError(Code.UNAVAILABLE, "The workspace is closing.", "Repeat the call in a moment.")


def _too_slow_error(service: str, seconds: float) -> SpeciateError:
    return PoolProcessEnded(
        Code.UNAVAILABLE,
        f"{service.rpartition(':')[2]!r} did not finish within {seconds:.3g} s and was stopped.",
        "Ask for less (fewer rows, a narrower condition, a smaller file).",
    )


def _died_error(service: str) -> SpeciateError:
    return PoolProcessEnded(
        Code.UNAVAILABLE,
        f"The process that ran {service.rpartition(':')[2]!r} was ended: it needed more than {_LIMITS.memory_mb} MB "
        "of memory or more than the machine has left, or it crashed on this input.",
        "Ask for less (fewer rows, a narrower condition, a smaller file).",
    )
