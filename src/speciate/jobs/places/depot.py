"""What a depot does, whether it is a folder on a shared disk (`folder_depot.py`) or a bucket (`bucket_depot.py`).

    DEPOT/OWNER/objects/ab/abcdef...   sha256 of the content is the name; never changed
    DEPOT/OWNER/runs/JOB.ATTEMPT/      the room of a run, with sent.json and manifest.json

What runs read is moved there once, and checked when it is read. `sent.json` is what the daemon sends: the spec, and
under which name below a run's own root each object is found. `manifest.json` is what the node says that it left: the
sha256 of each file. OWNER is of one workspace in one folder, so that a copy of the workspace has another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import EXIT, RESULT, Outcome, RunDocument, from_checked, is_best, to_checked, to_outcome

SENT, MANIFEST, LOOKED = "sent.json", "manifest.json", "looked"
OBJECTS, RUNS, WHOSE = "objects", "runs", "workspace"
_KEPT = ("outputs", "checkpoints")
_CHUNK = 1 << 20
_NAME_BYTES, _PART_BYTES = 800, 255
"""Bytes of a name below a run's folder, and of each of its parts, that any depot can hold."""
MOST_READ = 64 << 20
"""Bytes of a file that is read whole."""


class Entry(NamedTuple):
    """A file that a run reads: `name` is relative to the run's own root."""

    name: str
    sha256: str
    bytes: int


class Sent(NamedTuple):
    version: str
    """Version of speciate, here and there."""
    spec: RunDocument
    inputs: tuple[Entry, ...]
    moved: Mapping[str, str]
    """Absolute path here -> name below the run's root there: in the spec's texts each is replaced."""
    hold: float
    scratch: str | None
    interface: str | None = None
    """By which several nodes talk."""


class Room(Protocol):
    """The room of a run in a depot. Every method raises OSError where the depot does not answer."""

    where: str
    """What a node is given to open it. Holds no key."""
    log: Path
    """Where a cluster's own log of the launch may be written."""
    look_seconds: float
    """Pause of a node between two looks at requests of the daemon."""

    def is_there(self) -> bool:
        """Whether anything was ever sent, and was not cleared."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""

    def write(self, name: str, data: str) -> None:
        """All of it or nothing."""

    def create(self, name: str, data: str) -> bool:
        """Whether it is ours: of all who create one name, one alone gets True, also where an answer is lost. `data` is
        like nobody else's."""

    def left(self) -> Iterable[str]:
        """Names of the files that a run leaves."""

    def fetch(self, name: str, target: Path) -> str:
        """Copy a file that a run left; its sha256. Raises FileNotFoundError where there is no such regular file."""

    def mirror(self, target: Path, beat: int | None) -> None:
        """Bring a folder here up to date with what grows there. `beat`: of the lease; None: it beats no more."""

    def look_anew(self) -> None:
        """Make sure that what is read next is not what this machine remembers."""

    def clear(self) -> None:
        """Delete all of it. A launch that comes later finds nothing to begin with."""

    def work_folder(self, scratch: Path) -> Path:
        """On a node: the folder in which the run works."""

    def carry(self, folder: Path, *, last: bool) -> None:
        """On a node: copy what the run has written by now to where the daemon sees it. `last`: nothing writes there any
        more, so all of it but how the run ended."""


class Depot(Protocol):
    """Every method raises OSError where the depot does not answer."""

    def is_there(self) -> bool:
        """Whether OWNER's part can be seen. Not so where nothing was ever moved, or a disk is not mounted."""

    def make(self, workspace: str) -> None:
        """`workspace`: written there, so that a person knows whose it is. Raises OSError where DEPOT itself is not
        there."""

    def room(self, run_id: str) -> Room: ...

    def put(self, source: Path, known: str | None = None) -> tuple[str, int]:
        """The sha256 of a file that is in the depot afterwards, and how many bytes were moved for that.

        `known`: its sha256, where that is known; then one that is there costs a look.
        """

    def take(self, entry: Entry, target: Path) -> None:
        """A copy of an object, checked while it is read. Raises DAMAGED, after which the object is gone, so that it is
        moved anew."""

    def sweep(self, keep: Collection[str], live: Collection[str]) -> int:
        """Delete every object but those named, and every room but those of `live` (JOB.ATTEMPT); bytes freed. Nothing
        may be moved in meanwhile."""

    def runs(self) -> list[str]: ...

    def objects(self) -> Iterator[str]: ...


def copy(reader: IO[bytes], writer: IO[bytes]) -> tuple[str, int]:
    """The sha256 and the bytes of what was copied."""
    digest, size = hashlib.sha256(), 0
    while chunk := reader.read(_CHUNK):
        digest.update(chunk)
        writer.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def check_taken(entry: Entry, sha256: str) -> None:
    if sha256 != entry.sha256:
        raise SpeciateError(
            Code.DAMAGED, f"{entry.name} in the depot is not what was put there.", "The next attempt gets it anew."
        )


def write_sent(room: Room, sent: Sent) -> None:
    document = {**sent._asdict(), "inputs": [list(each) for each in sent.inputs]}
    if sent.interface is None:
        del document["interface"]  # a node with an earlier version knows no such key, and says which it has
    room.write(SENT, to_checked(document))


def read_sent(room: Room) -> Sent:
    """Raises DAMAGED, FileNotFoundError, OSError."""
    data = room.read(SENT)
    if data is None:
        raise FileNotFoundError(f"{room.where} holds no {SENT}")
    document = from_checked(data, f"{room.where}/{SENT}", "The next attempt gets a new one.")
    try:
        return Sent(**{**document, "inputs": tuple(Entry(*each) for each in document["inputs"])})
    except (KeyError, TypeError) as error:
        raise SpeciateError(
            Code.DAMAGED, f"{room.where}/{SENT} is not what was sent.", "The next attempt gets a new one."
        ) from error


def read_outcome(room: Room) -> Outcome | None:
    data = room.read(EXIT)
    return None if data is None else to_outcome(data, f"{room.where}/{EXIT}")


# What comes back


def files_left(folder: Path) -> Iterator[Path]:
    """Regular files below what a run leaves, relative to its folder; no link is followed. The result of a folder comes
    after all that it counts on."""
    return (path for path in _regular(folder) if is_left(path.as_posix()))


def unfit(folder: Path) -> list[str]:
    """Names of the files that a run leaves and no depot can hold, as a person may read them."""
    return [ascii(path.as_posix()) for path in _regular(folder) if not is_left(path.as_posix())]


def _regular(folder: Path) -> Iterator[Path]:
    for top in (*_KEPT, *(path.name for path in sorted(folder.glob("best-*")) if is_best(path.name))):
        for here, _, names in os.walk(folder / top, topdown=False):
            for name in sorted(names, key=lambda name: (name == RESULT, name)):
                path = Path(here) / name
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    if stat.S_ISREG(path.lstat().st_mode):
                        yield path.relative_to(folder)


def is_left(name: str) -> bool:
    """Whether a name below a run's room is of what it leaves, and one that any depot can hold.

    >>> is_left("outputs/model/weights"), is_left("best-1/result.json"), is_left("log"), is_left("outputs")
    (True, True, False, False)
    >>> [is_left(f"outputs/{name}") for name in (".", "../spec.json", "a//b", "a\\nb", "n" * 256, "\\ud800")]
    [False, False, False, False, False, False]
    """
    top, _, rest = name.partition("/")
    parts = rest.split("/")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return False
    return (
        (top in _KEPT or is_best(top))
        and not any(part in ("", ".", "..") for part in parts)
        and not any(character < " " or character == "\x7f" for character in name)
        and max(lengths) <= _PART_BYTES
        and len(name.encode()) <= _NAME_BYTES
    )


def write_manifest(room: Room, folder: Path) -> None:
    """Write the hashes of what a run left, on the node, once nothing writes there any more."""
    found: dict[str, str] = {}
    for name in files_left(folder):
        with (folder / name).open("rb") as file:
            found[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    room.write(MANIFEST, json.dumps(found))


def read_manifest(room: Room) -> dict[str, str] | None:
    """None where the node did not come to that. Raises DAMAGED."""
    data = room.read(MANIFEST)
    if data is None:
        return None
    try:
        return {str(name): str(sha256) for name, sha256 in json.loads(data).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise _not_as_written(MANIFEST) from error


def bring(room: Room, target: Path, *, manifest: Mapping[str, str] | None, outputs: bool) -> None:
    """Copy what a run left; its outputs only where they are wanted. With a manifest, every file that it names is there
    and is what the node wrote, or DAMAGED is raised. Without one, what is there is taken: checkpoints and results say
    themselves whether they are whole."""
    for name in manifest if manifest is not None else list(room.left()):
        if not is_left(name):
            raise _not_as_written(name)
        if name.startswith("outputs/") and not outputs:
            continue
        partial = target / f".{os.urandom(8).hex()}.partial"
        try:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            sha256 = room.fetch(name, partial)
            if manifest is not None and sha256 != manifest[name]:
                raise _not_as_written(name)
            partial.replace(target / name)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
            if manifest is not None:
                raise _not_as_written(name) from None
        finally:
            partial.unlink(missing_ok=True)


def _not_as_written(name: str) -> SpeciateError:
    said = ascii(name[:_PART_BYTES])[1:-1]
    return SpeciateError(
        Code.DAMAGED, f"{said} that came back is not what the node wrote.", "The next attempt writes it anew."
    )
