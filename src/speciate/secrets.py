"""Keys of named services, outside every workspace: `~/.config/speciate/secrets.json`, for its owner's eyes alone.

Each is bound to the hosts that it may be sent to. A person stores them (`speciate secret set`); no tool reads or sets
one. The supervisor of a run reads those that the run's plan names and hands them over through a pipe. Standard library
only, for the supervisor's sake.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from speciate.environment import config_folder
from speciate.errors import Code, SpeciateError, closest
from speciate.hosts import check_host
from speciate.refs import check_name

LONGEST = 3000
"""Characters of a key."""


class SecretRequest(NamedTuple):
    """A key that a run needs, and the host that it will be sent to. No key itself."""

    name: str
    host: str


class StoredSecret(NamedTuple):
    """What may be shown of a key."""

    name: str
    hosts: tuple[str, ...]
    stamp: float
    """When it was set, in seconds since the epoch."""


class _Secret(NamedTuple):
    hosts: tuple[str, ...]
    value: str
    stamp: float

    def __repr__(self) -> str:
        return f"_Key({self.hosts})"


def file() -> Path:
    return config_folder() / "secrets.json"


def inodes(workspace: Path | None = None) -> frozenset[tuple[int, int]]:
    """Device and inode of every file beside the keys, and of the catalog, the tokens and the other files at the top of
    the workspace: by these they are known under any name, such as a hard link. What is sealed is none of them, for it
    is linked into exports."""
    paths = [Path(folder, name) for folder, _, names in os.walk(config_folder()) for name in names]
    if workspace is not None:
        with contextlib.suppress(OSError):
            paths += [*workspace.iterdir(), *workspace.glob("slots/*/token")]
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            info = path.stat()
            if not stat.S_ISDIR(info.st_mode):
                found.add((info.st_dev, info.st_ino))
    return frozenset(found)


def get(name: str, host: str) -> str:
    """The key, for this host. Raises NOT_FOUND with near names, REFUSED where it is bound to other hosts or where its
    file is open to others."""
    known = _read()
    set_it = f"A person stores it on a terminal: speciate secret set {name} --host {host}"
    if name not in known:
        raise SpeciateError(Code.NOT_FOUND, f"There is no key {name!r} in {file()}; {closest(name, known)}", set_it)
    found = known[name]
    if host not in found.hosts:
        raise SpeciateError(
            Code.REFUSED, f"The key {name!r} is bound to {', '.join(found.hosts)}; it is never sent to {host}.", set_it
        )
    return found.value


def list_secrets() -> list[StoredSecret]:
    """All keys by name, without what they are."""
    return [StoredSecret(name, key.hosts, key.stamp) for name, key in sorted(_read().items())]


def put(name: str, hosts: Sequence[str], value: str) -> StoredSecret:
    """Store a key, in place of the one of that name: its hosts are always given with it, so that nobody can widen them
    who does not have it. Raises INVALID for a name, a host or a key that cannot be one."""
    check_name("key", name)
    bound = tuple(dict.fromkeys(check_host(host) for host in hosts))
    if not bound:
        raise SpeciateError(Code.INVALID, f"{name!r} needs a host that it may be sent to.", "Name one: --host HOST")
    _check(value)
    with _open_for_change() as known:
        known[name] = _Secret(bound, value, time.time())
    return StoredSecret(name, bound, known[name].stamp)


def remove(name: str) -> None:
    """Raises NOT_FOUND with near names."""
    with _open_for_change() as known:
        if known.pop(name, None) is None:
            raise SpeciateError(
                Code.NOT_FOUND, f"There is no key {name!r}; {closest(name, known)}", "See: speciate secret list"
            )


def _check(value: str) -> None:
    """A key goes into a header of HTTP as it is. The error never quotes it."""
    if not value or len(value) > LONGEST or not value.isascii() or not value.isprintable() or value != value.strip():
        raise SpeciateError(
            Code.INVALID,
            f"A key is one line of 1 to {LONGEST} printable ASCII characters, and this is not.",
            "Copy it again, whole and alone.",
        )


@contextlib.contextmanager
def _open_for_change() -> Iterator[dict[str, _Secret]]:
    """The keys, to be changed in place: read and written under a lock, and not written where the body raises."""
    folder = config_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)  # the folder itself: a lock file would be one more to keep
    try:
        _check_private(lock, folder, "700")
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read()
        yield known
        _write(known)
        os.fsync(lock)
    finally:
        os.close(lock)


def _write(known: dict[str, _Secret]) -> None:
    """Whole or not at all. Only one writes at a time, so what lies at the temporary name is a killed writer's."""
    temporary = file().with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as opened:
        json.dump({name: key._asdict() for name, key in known.items()}, opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(file())


def _read() -> dict[str, _Secret]:
    try:
        with file().open() as opened:
            _check_private(opened.fileno(), file(), "600")
            return {str(name): _Secret(tuple(key["hosts"]), key["value"], key["stamp"]) for name, key in _items(opened)}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SpeciateError(
            Code.UNAVAILABLE, f"{file()} cannot be read: {error.strerror}.", "Mend that, then repeat the call."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise SpeciateError(  # without its cause, which may hold the whole text
            Code.INVALID, f"{file()} is not as it was written.", "Mend it, or remove it and set the keys again."
        ) from None


def _items(opened: IO[str]) -> Iterable[tuple[str, Any]]:
    loaded: Mapping[str, Any] = json.load(opened)
    return loaded.items()


def _check_private(descriptor: int, path: Path, mode: str) -> None:
    info = os.fstat(descriptor)
    if info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise SpeciateError(
            Code.REFUSED,
            f"{path} must belong to you alone (mode 0{mode}): others could read or swap your keys.",
            f"Where nobody did, run: chmod {mode} {path}; where somebody may have, replace the keys, too.",
        )
