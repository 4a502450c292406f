"""Who asked for what over the network: a line for each request, in a file for each day of UTC.

What was changed stands in the audit, under the token's name; this says who looked. Addresses are kept without what
stands behind `?`, for somebody's words in a search are nobody else's business, and without the names of examples, which
a purge could not take out again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import NamedTuple

from speciate.governance.tokens import Token

Networks = tuple[IPv4Network | IPv6Network, ...]

KEPT_DAYS = 90
_LONGEST = 300
"""Characters of a path."""
_OF_EXAMPLES = ("/examples/", "/part/examples/", "/media/", "/asked/")
_DAY = 86_400.0
_TAIL_BYTES = 1 << 18
_MOST_OF_NOBODY = 16 << 20
"""Bytes of a day's file, from which on requests without a token are noted no more: else anybody could fill the disk."""
_log = logging.getLogger(__name__)


class Request(NamedTuple):
    token: Token | None
    """None: nobody was signed in."""
    method: str
    path: str
    status: int | None
    """None: it goes on being answered."""
    peer: str
    """IP address, as the proxy told it."""
    called: str = ""
    """Over MCP: the method, and the name of a tool or prompt."""


class RequestLog:
    """Writes down who asked one workspace for what over the network. Thread-safe. `now`: seconds since the epoch."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder, self._now, self._lock = folder, now, threading.Lock()
        self._swept = ""

    def add(self, request: Request) -> None:
        """A disk that is full keeps nobody from reading."""
        at, token = self._now(), request.token
        line = {
            "at": round(at, 3), "token": token.name if token else None, "id": token.id if token else None,
            "role": token.role if token else None, "method": request.method[:16],
            "path": _without_example(request.path)[:_LONGEST], "status": request.status, "peer": request.peer,
            **({"called": request.called} if request.called else {}),
        }  # fmt: skip
        data = (json.dumps(line, ensure_ascii=True) + "\n").encode()
        path = self._folder / f"{_day(at)}.jsonl"
        with self._lock:
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    if token is not None or os.fstat(descriptor).st_size < _MOST_OF_NOBODY:
                        os.write(descriptor, data)
                finally:
                    os.close(descriptor)
                self._sweep(at)
            except OSError as error:
                _log.warning("a request was not noted: %s", error)

    def _sweep(self, at: float) -> None:
        """Once a day."""
        if self._swept == _day(at):
            return
        self._swept = _day(at)
        for old in self._folder.glob("*.jsonl"):
            if old.stem < _day(at - KEPT_DAYS * _DAY):
                old.unlink(missing_ok=True)

    def newest(self, most: int) -> list[dict[str, object]]:
        """The last lines, newest first, of the newest files."""
        found = list[dict[str, object]]()
        for path in sorted(self._folder.glob("*.jsonl"), reverse=True)[:3]:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                for line in reversed(file.read().splitlines()):
                    try:
                        found.append(json.loads(line))
                    except ValueError:  # cut off at either end
                        continue
                    if len(found) == most:
                        return found
        return found


def client_address(forwarded: str | None, peer: str, proxies: Networks) -> str:
    """Who asked a proxy: the last address of X-Forwarded-For, which the proxy itself wrote; the ones before it anybody
    could. The other end of the connection where that is no proxy, or said nothing."""
    if not is_from(peer, proxies):
        return peer
    try:
        return str(ip_address((forwarded or "").rpartition(",")[2].strip()))
    except ValueError:
        return peer


def is_from(peer: str, networks: Networks) -> bool:
    """Whether an IP address lies in one of the networks."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # at a listener of both families
    return any(address in each for each in networks)


def _without_example(path: str) -> str:
    return next((f"{begin}…" for begin in _OF_EXAMPLES if path.startswith(begin)), path)


def _day(stamp: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(stamp))
