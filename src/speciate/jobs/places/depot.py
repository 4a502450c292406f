"""Files by content on a shared disk: what runs read is moved there once, and checked when it is read.

    DEPOT/OWNER/objects/ab/abcdef...   sha256 of the content is the name; never changed
    DEPOT/OWNER/runs/JOB.ATTEMPT/      the folder of a run (jobs/folder.py), with sent.json and manifest.json

`sent.json` is what the daemon sends: the spec, and under which name below a run's own root each object is found.
`manifest.json` is what the node says that it left: the sha256 of each file. OWNER is of one workspace in one folder, so
that a copy of the workspace has another. Standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunDocument, read_checked, write_checked, write_whole

SENT, MANIFEST = "sent.json", "manifest.json"
_OBJECTS, _RUNS, _MOVING = "objects", "runs", ".moving"
_WHOSE = "workspace"
_CHUNK = 1 << 20
_KEPT = ("outputs", "checkpoints")
_HASH_CHARACTERS = 64
_MISSING = (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)
"""Error numbers for a file that was there and is gone: ELOOP is a link in its place."""


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


class Depot:
    def __init__(self, root: Path) -> None:
        """`root`: DEPOT/OWNER."""
        self.root = root
        self._objects = root / _OBJECTS

    def make(self, workspace: str) -> None:
        """`workspace`: written there, so that a person knows whose it is. Raises OSError where DEPOT itself is not
        there: a folder that is made in the place of a disk that is not mounted would be a second depot."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        if not (self.root / _WHOSE).exists():
            write_whole(self.root / _WHOSE, f"{workspace}\n", 0o600)
        for name in (_OBJECTS, _RUNS):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        (self._objects / _MOVING).mkdir(exist_ok=True)

    def run(self, run_id: str) -> Path:
        return self.root / _RUNS / run_id

    def runs(self) -> list[Path]:
        return sorted((self.root / _RUNS).iterdir()) if (self.root / _RUNS).is_dir() else []

    def object(self, sha256: str) -> Path:
        return self._objects / sha256[:2] / sha256

    def put(self, source: Path, known: str | None = None) -> tuple[str, int]:
        """The sha256 of a file that is in the depot afterwards, and how many bytes were moved for that.

        `known`: its sha256, where that is known; then one that is there costs a look. Raises OSError.
        """
        if known is not None and self._has(known, source.stat().st_size):
            return known, 0
        partial = self._objects / _MOVING / os.urandom(8).hex()
        try:
            with source.open("rb") as reader, partial.open("xb") as writer:
                sha256, size = _copy(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
            if self._has(sha256, size):
                return sha256, 0
            partial.chmod(0o444)
            self.object(sha256).parent.mkdir(exist_ok=True)
            partial.replace(self.object(sha256))
            return sha256, size
        finally:
            partial.unlink(missing_ok=True)

    def _has(self, sha256: str, size: int) -> bool:
        try:
            return self.object(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def take(self, entry: Entry, target: Path) -> None:
        """A copy of an object, checked while it is read. Raises DAMAGED, after which the object is gone, so that it is
        moved anew; and OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.object(entry.sha256).open("rb") as reader, target.open("xb") as writer:
            sha256, _ = _copy(reader, writer)
        if sha256 != entry.sha256:
            target.unlink()
            self.object(entry.sha256).unlink(missing_ok=True)
            raise SpeciateError(
                Code.DAMAGED, f"{entry.name} in the depot is not what was put there.", "The next attempt gets it anew."
            )

    def sweep(self, keep: Collection[str], live: Collection[str]) -> int:
        """Delete every object but those named, and every run's folder but those of `live` (JOB.ATTEMPT); bytes freed.
        Nothing may be moved in meanwhile. Raises OSError."""
        wanted, freed = set(keep), 0
        for folder in self.runs():
            if folder.name not in live:
                shutil.rmtree(folder)
            elif (folder / SENT).exists():
                wanted |= {each.sha256 for each in read_sent(folder).inputs}
        for path in self._objects.rglob("*") if self._objects.is_dir() else ():
            if path.is_file() and path.name not in wanted:
                freed += path.stat().st_size
                path.unlink(missing_ok=True)
        return freed

    def objects(self) -> Iterator[str]:
        return (path.name for path in self._objects.rglob("*") if len(path.name) == _HASH_CHARACTERS)


def _copy(reader: IO[bytes], writer: IO[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := reader.read(_CHUNK):
        digest.update(chunk)
        writer.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def write_sent(folder: Path, sent: Sent) -> None:
    write_checked(folder / SENT, {**sent._asdict(), "inputs": [list(each) for each in sent.inputs]})


def read_sent(folder: Path) -> Sent:
    """Raises DAMAGED, FileNotFoundError."""
    document: dict[str, Any] = read_checked(folder / SENT, "The next attempt gets a new one.")
    return Sent(**{**document, "inputs": tuple(Entry(*each) for each in document["inputs"])})


# What comes back


def files_left(folder: Path) -> Iterator[Path]:
    """Regular files below what a run leaves, relative to its folder; no link is followed."""
    for top in (*_KEPT, *(path.name for path in sorted(folder.glob("best-*")))):
        for here, _, names in os.walk(folder / top):
            for name in sorted(names):
                path = Path(here) / name
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path.relative_to(folder)


def write_manifest(folder: Path) -> None:
    """Write the hashes of what a run left, on the node, once nothing writes there any more."""
    found: dict[str, str] = {}
    for name in files_left(folder):
        with (folder / name).open("rb") as file:
            found[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    write_whole(folder / MANIFEST, json.dumps(found))


def read_manifest(folder: Path) -> dict[str, str] | None:
    """None where the node did not come to that."""
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(f"{folder / MANIFEST} cannot be read: {error}") from error
    return {str(name): str(sha256) for name, sha256 in found.items()}


def bring(source: Path, target: Path, *, manifest: Mapping[str, str] | None, outputs: bool) -> None:
    """Copy what a run left; its outputs only where they are wanted. With a manifest, every file that it names is there
    and is what the node wrote, or DAMAGED is raised. Without one, what is there is taken: checkpoints and results say
    themselves whether they are whole."""
    names = [Path(name) for name in manifest] if manifest is not None else list(files_left(source))
    for name in names:
        if not (source / name).parent.resolve().is_relative_to(source.resolve()) or ".." in name.parts:
            raise _not_as_written(name)
        if name.parts[0] == "outputs" and not outputs:
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        partial = target / f".{os.urandom(8).hex()}.partial"
        try:
            descriptor = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as reader, partial.open("xb") as writer:
                sha256, _ = _copy(reader, writer)
            if manifest is not None and sha256 != manifest[name.as_posix()]:
                raise _not_as_written(name)
            partial.replace(target / name)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            if manifest is not None:
                raise _not_as_written(name) from None
        finally:
            partial.unlink(missing_ok=True)


def _not_as_written(name: Path) -> SpeciateError:
    return SpeciateError(
        Code.DAMAGED, f"{name} that came back is not what the node wrote.", "The next attempt writes it anew."
    )


def mirror(source: Path, target: Path, most: int = 64 << 20) -> None:
    """Append to `target` what a file that only grows has more; nothing beyond `most` bytes. Raises OSError."""
    try:
        with source.open("rb") as reader:
            have = target.stat().st_size if target.exists() else 0
            reader.seek(have)
            while have < most and (chunk := reader.read(min(_CHUNK, most - have))):
                with target.open("ab") as writer:
                    writer.write(chunk)
                have += len(chunk)
    except FileNotFoundError:
        return
