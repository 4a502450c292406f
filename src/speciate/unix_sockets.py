"""Unix sockets between local processes, and which account is at the other end, by the kernel.

What a client says of itself plays no part. Linux answers with `SO_PEERCRED` and `SO_PEERGROUPS`, macOS with
`LOCAL_PEERCRED`; the groups are those of the process when it connected. Standard library only: the shim starts through
it."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import struct
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

LONGEST_PATH = 100
"""Bytes of a socket's path; the system ends at 104 (macOS) or 108."""


class ForeignSocket(OSError):
    """The socket, or who listens there, belongs to somebody else. `owner` is the uid."""

    def __init__(self, path: Path, owner: int) -> None:
        super().__init__(f"{path} belongs to the user with uid {owner}")
        self.owner = owner


def connect(path: Path, owners: Collection[int], timeout: float | None = None) -> socket.socket:
    """A connection to whoever listens at `path`. Raises Foreign where that is none of `owners`, else OSError."""
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode):
        raise FileNotFoundError(f"{path} is no socket")
    if found.st_uid not in owners:
        raise ForeignSocket(path, found.st_uid)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(os.fspath(path))
        if (owner := peer_account(connection).uid) not in owners:
            raise ForeignSocket(path, owner)
    except BaseException:
        connection.close()
        raise
    return connection


def listen(path: Path, backlog: int) -> socket.socket:
    """A socket for this user alone, in the place of a leftover. The caller holds the lock of whoever may be there."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


_PEERGROUPS = 59  # SO_PEERGROUPS, which the module socket does not name
_BUFFER = 1024  # bytes: the most that Python reads of an option, which are 256 groups
_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED = 0, 1, "=IIhxx16I"  # sys/un.h and sys/ucred.h of macOS


class Account(NamedTuple):
    """User and groups of the process that connected."""

    uid: int
    groups: frozenset[int]

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    @property
    def remote(self) -> bool:
        """Whether it came over the network, by a token: the kernel says nothing of who that is."""
        return False

    @property
    def use_cases(self) -> tuple[str, ...]:
        """Which it may change; empty: all."""
        return ()


def own_account() -> Account:
    """User and groups of this process."""
    return Account(os.getuid(), frozenset({os.getgid(), *os.getgroups()}))


def peer_account(connection: socket.socket) -> Account:
    """Raises OSError where the kernel does not say."""
    if sys.platform == "darwin":
        return from_xucred(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, struct.calcsize(_XUCRED)))
    if not hasattr(socket, "SO_PEERCRED"):
        raise OSError(f"on {sys.platform} nothing here knows how to ask who is at the other end of a socket")
    _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        listed = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _BUFFER)
        groups = frozenset(struct.unpack(f"{len(listed) // 4}I", listed))
    except OSError:  # more than fit
        groups = _groups_on_file(uid, gid)
    return Account(uid, groups | {gid})


def _groups_on_file(uid: int, gid: int) -> frozenset[int]:
    """The account's groups as the system's files have them now."""
    try:
        return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return frozenset()


def from_xucred(data: bytes) -> Account:
    """What macOS answers: a version, the user, and up to 16 groups, the first of which is the effective one."""
    _, uid, count, *groups = struct.unpack(_XUCRED, data)
    return Account(uid, frozenset(groups[: max(0, count)]))


def may_connect(account: Account, group: int | None) -> bool:
    """Whether it may use this daemon: as its own user, as root, or as a member of the group that the daemon serves."""
    return may_end_daemon(account) or (group is not None and group in account.groups)


def may_end_daemon(account: Account) -> bool:
    """Whether it could end or replace this process without being asked: as its own user, or as root."""
    return account.uid in {os.getuid(), 0}


def may_succeed(account: Account, group: int | None) -> bool:
    """Whether this daemon leaves because this one brings a newer version: whoever is only served may not end it."""
    return group is None or may_end_daemon(account)
