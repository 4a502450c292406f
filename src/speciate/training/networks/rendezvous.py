"""How the processes of a training on several nodes find each other, before torch connects them.

The leader listens on one address of its node and writes it, with a key, into `team.json` of its run; the depot brings
that to the other nodes. Whoever knows the key gets a connection, over which the leader's orders come, and by whose end
each side knows that the other is gone. Nothing is encrypted, and torch's own connections ask for no key: the network
between the nodes must be one where nobody else is.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import write_whole

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_KEY_BYTES, _RANK_BYTES, _PROOF_BYTES = 32, 4, 32
_SHOW_SECONDS = 10.0
"""Seconds that somebody who connects has to show the key."""
_MOST_STRANGERS, _NOBODY = 128, -1
"""Connections at once that have not shown it yet; the rank of one without it."""
_LOOK_SECONDS = 0.2
_MEETING = timedelta(minutes=10)
_FAR, _DISCARD = ("198.51.100.1", "2001:db8::1"), 9
"""Addresses that nobody has, by which a default route is found, and a port. Nothing is sent there."""


class Network(NamedTuple):
    host: str
    """Address of this node."""
    interface: str


class MeetingPlace(NamedTuple):
    host: str
    port: int
    key: bytes


def own_network(interface: str | None) -> Network:
    """By `interface`, else by the default route, else loopback. UNAVAILABLE where this node has no such interface."""
    if interface is not None:
        if not (found := _addresses().get(interface)):
            there = ", ".join(sorted(_addresses()))
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"This node has no interface {interface!r} with an address; it has {there}.",
                "A person sets `interface` in [executors.NAME] of settings.toml.",
            )
        return Network(found[0], interface)
    for far in _FAR:
        with contextlib.suppress(OSError):
            return _way_to(far)
    return Network("127.0.0.1", LOOPBACK)


def _way_to(host: str) -> Network:
    """The network of this node by which `host` is reached. Raises OSError where there is no route."""
    with socket.socket(_family(host), socket.SOCK_DGRAM) as way:
        way.connect((host, _DISCARD))  # sends nothing
        own = way.getsockname()[0]
    return Network(own, next((name for name, there in _addresses().items() if own in there), LOOPBACK))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _addresses() -> Mapping[str, list[str]]:
    """The addresses of each interface, IPv4 first."""
    import psutil  # which accelerate needs

    kinds = (socket.AF_INET, socket.AF_INET6)
    found = {
        name: [each.address for kind in kinds for each in there if each.family == kind and "%" not in each.address]
        for name, there in psutil.net_if_addrs().items()
    }
    return {name: there for name, there in found.items() if there}


def gather(network: Network, file: Path, ranks: Collection[int]) -> Iterator[socket.socket]:
    """A connection to the process of each rank, in their order, once all are there. `file` says where.

    Whoever else connects holds up nobody: all are heard at once, and each for a short time alone.
    """
    key, there = os.urandom(_KEY_BYTES), dict[int, socket.socket]()
    with (
        socket.create_server((network.host, 0), family=_family(network.host), backlog=_MOST_STRANGERS) as server,
        selectors.DefaultSelector() as watch,
    ):
        server.setblocking(False)
        watch.register(server, selectors.EVENT_READ)
        place = {"host": network.host, "port": server.getsockname()[1], "key": key.hex()}
        write_whole(file, json.dumps(place), 0o600)
        while len(there) < len(ranks):
            for ready, _ in watch.select(_LOOK_SECONDS):
                stranger: _Stranger | None = ready.data
                if stranger is None:
                    with contextlib.suppress(OSError):  # gone again
                        stranger = _Stranger(server.accept()[0], key)
                        watch.register(stranger.connection, selectors.EVENT_READ, stranger)
                elif (rank := stranger.rank()) is not None:
                    watch.unregister(stranger.connection)
                    if rank in ranks and rank not in there:
                        there[rank] = stranger.connection
                        stranger.connection.setblocking(True)
                    else:
                        stranger.connection.close()
            _turn_away(watch)
        _turn_away(watch, most=0)
    return (there[rank] for rank in sorted(there))


def _turn_away(watch: selectors.BaseSelector, most: int = _MOST_STRANGERS) -> None:
    """Those who had their time, and the first of more than `most`."""
    strangers: list[_Stranger] = [each.data for each in watch.get_map().values() if each.data is not None]
    for place, stranger in enumerate(strangers):
        if len(strangers) - place > most or time.monotonic() > stranger.until:
            watch.unregister(stranger.connection)
            stranger.connection.close()


class _Stranger:
    """Somebody who connected and has not shown the key yet. Raises OSError where nobody is there any more."""

    def __init__(self, connection: socket.socket, key: bytes) -> None:
        self.connection, self._key, self._asked, self._said = connection, key, os.urandom(_KEY_BYTES), b""
        self.until = time.monotonic() + _SHOW_SECONDS
        connection.setblocking(False)
        connection.sendall(self._asked)

    def rank(self) -> int | None:
        """None until it has said all; _NOBODY without the key."""
        try:
            more = self.connection.recv(_RANK_BYTES + _PROOF_BYTES - len(self._said))
        except OSError:
            return _NOBODY
        self._said += more
        if more and len(self._said) < _RANK_BYTES + _PROOF_BYTES:
            return None
        rank, proof = self._said[:_RANK_BYTES], self._said[_RANK_BYTES:]
        return int.from_bytes(rank) if hmac.compare_digest(proof, _proof(self._key, self._asked + rank)) else _NOBODY


def _proof(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, said, hashlib.sha256)


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := connection.recv(count - len(data))):
            raise ConnectionError("the other side is gone")
        data += more
    return data


def wait_for_place(file: Path) -> MeetingPlace:
    """Where to meet. Waits for as long as its node lets this process live."""
    while not file.exists():
        time.sleep(_LOOK_SECONDS)
    found = json.loads(file.read_text())
    return MeetingPlace(found["host"], found["port"], bytes.fromhex(found["key"]))


def join(place: MeetingPlace, rank: int) -> socket.socket:
    """The connection to the leader. Raises OSError."""
    connection = socket.create_connection((place.host, place.port), timeout=_MEETING.total_seconds())
    connection.settimeout(None)
    number = rank.to_bytes(_RANK_BYTES)
    connection.sendall(number + _proof(place.key, _read(connection, _KEY_BYTES) + number))
    return connection


class Rendezvous(NamedTuple):
    """torch's own meeting, by which it connects the processes."""

    store: Any
    """torch's, through which each process finds the others."""
    leader: str
    """Address of its node."""
    interface: str

    @classmethod
    def open(cls, network: Network, size: int, tell: Callable[[Mapping[str, Any]], None]) -> Rendezvous:
        """The leader's. It listens on the one address that the others know."""
        server = socket.create_server((network.host, 0), family=_family(network.host))
        port = server.getsockname()[1]
        store = _store(network.host, port, size, is_master=True, master_listen_fd=server.detach())
        tell({"meet": [network.host, port]})
        return cls(store, *network)

    @classmethod
    def find(cls, where: tuple[str, int], size: int) -> Rendezvous:
        host, port = where
        return cls(_store(host, port, size, is_master=False), host, _way_to(host).interface)


def _store(host: str, port: int, size: int, **more: Any) -> Any:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch does not say that it exports it

    return TCPStore(host, port, size, timeout=_MEETING, wait_for_workers=False, **more)
