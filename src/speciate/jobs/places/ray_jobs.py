"""Ray by the REST interface of its jobs, nothing else: Ray's library is never imported here, so versions may differ.

A launch has the submission id that we choose, so a second one is refused by Ray itself, and the claim stands behind
that. Ray retries no entrypoint, so attempts are ours. Several nodes are as many jobs of Ray's, which may begin one
after the other, or on one machine: those that have begun wait for the rest.

Whoever holds the token may read what a job was given, and run
any code: nothing that is sent holds a key.
"""

from __future__ import annotations

import json
import shlex
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from speciate.environment import LIBRARIES
from speciate.jobs.places.cluster import Finding, Launch
from speciate.jobs.places.lease import name_of
from speciate.jobs.places.verdict import Status
from speciate.settings import Place, is_loopback

_STATUS = {
    "PENDING": Status.PENDING, "RUNNING": Status.RUNNING,
    "STOPPED": Status.DEAD, "SUCCEEDED": Status.DEAD, "FAILED": Status.DEAD,
}  # fmt: skip
"""Words of Ray that are understood. From any other nothing is concluded."""
_STARVED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
"""Ray's word for a launch that found no room for 15 minutes. It never began, so it is launched again."""
_KEPT = ("HOME", "PATH", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES")
_KEYS_OF_A_BUCKET = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)  # fmt: skip
"""Names by which a node is given its role, where no file of keys is there. No value of them is sent."""
_SINGLY = 4
"""Runs that are asked about one by one: a listing holds every job that the cluster remembers, of everybody."""
_SECONDS, _CONNECT_SECONDS = 30.0, 5.0
_MOST_BYTES = 64 << 20
_LOOK_SECONDS = 0.5
_STORAGE = """for each in /proc/[0-9]*; do
case "$(tr '\\0' ' ' < $each/cmdline 2> /dev/null)" in
*/gcs_server\\ *--redis_address=[!\\ ]*) echo storage=redis ;;
*/gcs_server\\ *) if tr '\\0' '\\n' < $each/environ 2> /dev/null | grep -q '^RAY_gcs_storage=rocksdb'
then echo storage=rocksdb; else echo storage=memory; fi ;;
esac; done 2> /dev/null; true"""
"""Looks at the arguments of the head's own process: no interface of Ray says where it keeps what it knows."""
_SAID = "storage="
_ANSWERS = [f"{_SAID}{where}" for where in ("redis", "rocksdb", "memory")]


class _Answer(NamedTuple):
    status: int
    text: str

    def document(self) -> Any:
        """Raises ConnectionError where it is no JSON: something else listens there."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise ConnectionError(f"no JSON was answered: {self.text[:100]!r}") from error


class _End:
    """Ends a call that is not over in time, however slowly an answer drips: a timeout is of one read alone."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.passed = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called at each step of the call: once it has a connection, that is what is ended."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self.passed:
                self._shut()

    def _pass(self) -> None:
        self.passed = True
        self._shut()

    def _shut(self) -> None:
        with self._lock, suppress(OSError):
            if self._socket is not None:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of TLS, too, what is below it


class RayJobs:
    def __init__(self, place: Place) -> None:
        assert place.address is not None, "settings refuse a place of this kind without one"
        self._address, self._token_file = place.address.rstrip("/"), place.token_file
        self._plain = urlsplit(self._address).scheme == "http" and not is_loopback(self._address)
        self._kept = (*_KEPT, *(_KEYS_OF_A_BUCKET if place.in_bucket else ()))
        self._tls = ssl.create_default_context()

    def launch(self, launch: Launch) -> None:
        for node in range(launch.resources.nodes):
            self._launch(launch, node)

    def _launch(self, launch: Launch, node: int) -> None:
        answer, name = self._post(launch, node), name_of(launch.name, node)
        if answer.status != 200 and "already exists" in answer.text:
            if not self._is_starved(name):
                return
            self._ask("DELETE", _path(name))
            answer = self._post(launch, node)
        if answer.status != 200:
            raise ConnectionError(_refusal(answer))

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        if len(names) <= _SINGLY:
            return {name: _status(self._job(name)) for name in names}
        answer = self._ask("GET", "/api/jobs/")
        listed = answer.document() if answer.status == 200 else None
        if not isinstance(listed, list):
            raise ConnectionError(_refusal(answer))
        found = {str(each.get("submission_id")): each for each in listed if isinstance(each, dict)}
        return {name: _status(found.get(name)) for name in names}

    def stop(self, name: str, *, force: bool, nodes: int = 1) -> None:
        """Ray kills 3 seconds after it asked, either way."""
        for node in range(nodes):
            answer = self._ask("POST", f"{_path(name_of(name, node))}/stop")
            if answer.status not in (200, 404):
                raise ConnectionError(_refusal(answer))

    def log(self, launch: Launch) -> str:
        answer = self._ask("GET", f"{_path(launch.name)}/logs")
        return _logs(answer)

    def findings(self) -> Iterator[Finding]:
        try:
            began = time.monotonic()
            answer = self._ask("GET", "/api/version")
            took = time.monotonic() - began
            known = answer.document() if answer.status == 200 else None
            if not isinstance(known, dict) or "ray_version" not in known:
                raise ConnectionError(_refusal(answer))
            self._list_nothing()
            yield Finding("cluster", True, f"Ray {known['ray_version']}, answered in {took:.2f} s")
        except OSError as error:
            yield Finding("cluster", False, str(error))
            return
        yield self._token()
        if self._token_file is not None and (mode := self._token_file.stat().st_mode) & 0o077:
            others = f"{self._token_file} has mode {mode & 0o777:o}, so others may read it: chmod 600"
            yield Finding("token_file", False, others)
        if self._plain:
            seen = f"whoever is on the way to {self._address} sees the token"
            yield Finding("transport", True, f"plain HTTP, as allow_plain says: {seen}")

    def findings_by_job(self, name: str, seconds: float) -> Iterator[Finding]:
        """Where the head keeps what it knows. A job without resources runs on the head."""
        try:
            said = self._run(name, _STORAGE, seconds)
        except OSError as error:
            yield Finding("head", False, str(error))
            return
        # Ray's log begins with the script itself.
        where = [line.removeprefix(_SAID) for line in said.splitlines() if line in _ANSWERS]
        if not where:
            yield Finding("head", True, "its storage is not seen from a job there")
        elif where[-1] != "memory":
            yield Finding("head", True, f"keeps what it knows in {where[-1]}")
        else:
            forgets = (
                "keeps what it knows in memory: when it restarts it forgets its jobs. Runs are still found by their "
            )
            yield Finding("head", False, f"{forgets}folders; those that wait are launched again")

    def _token(self) -> Finding:
        """Whether somebody without a token is turned away: else whoever reaches the address runs code on the nodes."""
        try:
            answer = self._ask("GET", "/api/jobs/", token=False)
        except OSError as error:
            return Finding("token", False, f"a call without a token was not answered: {error}")
        if answer.status == 401:
            return Finding("token", True, "a call without it is refused")
        return Finding(
            "token", False,
            f"a call without a token was answered with {answer.status}, so whoever reaches {self._address} may run any "
            "code there: start the cluster with RAY_AUTH_MODE=token",
        )  # fmt: skip

    def _list_nothing(self) -> None:
        """Raises OSError unless our token is taken."""
        answer = self._ask("GET", _path("speciate-doctor"))
        if answer.status not in (200, 404):
            raise ConnectionError(_refusal(answer))

    def _run(self, name: str, script: str, seconds: float) -> str:
        """What a short script on the head says. Raises OSError."""
        answer = self._ask("POST", "/api/jobs/", {"entrypoint": script, "submission_id": name})
        if answer.status != 200:
            raise ConnectionError(_refusal(answer))
        end = time.monotonic() + seconds
        while _status(self._job(name)) is not Status.DEAD:
            if time.monotonic() > end:
                self.stop(name, force=True)
                raise TimeoutError(f"a job on its head did not end within {seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)
        answer = self._ask("GET", f"{_path(name)}/logs")
        said = _logs(answer)
        with suppress(OSError):
            self._ask("DELETE", _path(name))
        return said

    def _post(self, launch: Launch, node: int) -> _Answer:
        asked = launch.resources
        body = {
            "entrypoint": _script([*launch.argv, *([str(node)] if node else [])], self._kept),
            "submission_id": name_of(launch.name, node),
            # Without any of these Ray starts it on the head, beyond its resources.
            "entrypoint_num_cpus": asked.cpu / asked.nodes or 1,
            **({"entrypoint_num_gpus": asked.gpu // asked.nodes} if asked.gpu else {}),
            **({"entrypoint_memory": (asked.memory_mb << 20) // asked.nodes} if asked.memory_mb else {}),
        }
        return self._ask("POST", "/api/jobs/", body)

    def _job(self, name: str) -> Mapping[str, Any] | None:
        answer = self._ask("GET", _path(name))
        if answer.status == 404:
            return None
        found = answer.document() if answer.status == 200 else None
        if not isinstance(found, dict):
            raise ConnectionError(_refusal(answer))
        return found

    def _is_starved(self, name: str) -> bool:
        job = self._job(name)
        return job is not None and job.get("error_type") == _STARVED

    def _ask(self, method: str, path: str, body: object = None, *, token: bool = True) -> _Answer:
        """Raises OSError: PermissionError where our token is refused."""
        import httpx2

        headers = {"Authorization": f"Bearer {_read(self._token_file)}"} if token and self._token_file else {}
        timeout = httpx2.Timeout(_SECONDS, connect=_CONNECT_SECONDS)
        end, data = _End(_SECONDS), bytearray()
        try:
            with (
                end,
                httpx2.Client(trust_env=False, verify=self._tls, timeout=timeout) as client,  # through no proxy
                client.stream(
                    method, self._address + path, json=body, headers=headers, extensions={"trace": end.trace}
                ) as answer,
            ):
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > _MOST_BYTES:
                        break
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
            if not end.passed:
                raise ConnectionError(f"{self._address}: {str(error) or type(error).__name__}") from None
        if end.passed or len(data) > _MOST_BYTES:  # what seems whole may have been cut off
            raise ConnectionError(f"{self._address} answers without an end")
        if token and answer.status_code in (401, 403):
            raise PermissionError(f"{self._address} refuses {'the token' if headers else 'a call without token_file'}")
        return _Answer(answer.status_code, data.decode(errors="replace"))


def _path(name: str) -> str:
    return f"/api/jobs/{quote(name, safe='')}"


def _status(job: Mapping[str, Any] | None) -> Status:
    if job is None or job.get("error_type") == _STARVED:
        return Status.UNKNOWN
    return _STATUS.get(str(job.get("status")), Status.SILENT)


def _logs(answer: _Answer) -> str:
    found = answer.document() if answer.status == 200 else None
    return str(found.get("logs") or "") if isinstance(found, dict) else ""


def _refusal(answer: _Answer) -> str:
    return f"it answered {answer.status}: {answer.text.strip()[-300:]}"


def _read(token_file: Path) -> str:
    """Read for each call: a token may be replaced. Raises OSError."""
    text = token_file.read_text(errors="replace").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise PermissionError(f"{token_file} holds no token")
    return text


def _script(argv: Sequence[str], kept: Sequence[str]) -> str:
    """The entrypoint. Nothing else of Ray's own environment goes on: its token may be there."""
    passed = " ".join(f'${{{name}+{name}="${name}"}}' for name in kept)
    given = shlex.join(f"{name}={value}" for name, value in (LIBRARIES | {"PYTHONUNBUFFERED": "1"}).items())
    return f"exec env -i {passed} {given} {shlex.join(argv)}"
