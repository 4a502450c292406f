"""A folder outside the workspace that is there whole or not at all: what runs export.

Everything is written into a hidden folder beside the path and renamed at the end, so that whoever stops the run,
nothing half done stands at the path; what a killed run left there is removed by the next one to the same path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunResult, write_whole
from speciate.jobs.run import Run
from speciate.workspace.blobs import make_folder, sync_folder, sync_tree
from speciate.workspace.filesystem import FULL, find_refusal

_DONE = "finished.json"
_UNSHIPPED = ".exporting"


def check_free(path: Path, what: str = "exports") -> None:
    """CONFLICT where anything is there. INVALID where nothing can be: below a file, or in a folder that this account
    may not write in."""
    if os.path.lexists(path):
        raise SpeciateError(
            Code.CONFLICT, f"{str(path)!r} exists already, and {what} never overwrite.", "Call again with a new path."
        )
    nearest = next(each for each in path.absolute().parents if os.path.lexists(each))
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return
    why = "this account may not write there" if nearest.is_dir() else "that is no folder"
    raise SpeciateError(
        Code.INVALID,
        f"{str(path)!r} cannot be made in {str(nearest)!r}: {why}.",
        "Call again with a path in a folder.",
    )


def earlier_result(run: Run, path: Path) -> RunResult | None:
    """The result of an earlier attempt that was killed after its export stood at the path."""
    for earlier in run.resume_from:
        with contextlib.suppress(FileNotFoundError):
            done = json.loads((earlier.checkpoints / _DONE).read_text())
            if path.is_dir() and _identity(path) == done["identity"]:
                result: RunResult = done["result"]
                return result
    return None


def _identity(folder: Path) -> list[int]:
    """Stays when a folder is renamed."""
    found = folder.stat()
    return [found.st_dev, found.st_ino]


@contextlib.contextmanager
def hidden_folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, locked while we write, gone at the end unless it was renamed.

    A full disk is raised with the path: it may be another one than the workspace's.
    """
    make_folder(path.parent)
    name = f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}"
    for leftover in path.parent.glob(f"{name}.*{_UNSHIPPED}"):
        with _lock_folder(leftover) as ours:
            if ours:
                shutil.rmtree(leftover, ignore_errors=True)
    folder = path.with_name(f"{name}.{os.urandom(4).hex()}{_UNSHIPPED}")
    folder.mkdir()
    with _lock_folder(folder):
        try:
            yield folder
        except OSError as error:
            refused = find_refusal(error)
            if refused is None or refused.number not in FULL or refused.path is not None:
                raise
            raise OSError(refused.number, os.strerror(refused.number), str(path)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[bool]:
    """Whether we hold the folder's lock; the kernel frees that of whoever dies."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone, or no folder
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def move_into_place(run: Run, folder: Path, path: Path, result: Mapping[str, object]) -> None:
    """From here on the export is there, on the disk, also for an attempt that comes after a kill."""
    sync_tree(folder)
    write_whole(run.checkpoints / _DONE, json.dumps({"identity": _identity(folder), "result": result}))
    check_free(path)
    try:
        folder.rename(path)
    except OSError:
        check_free(path)  # somebody was faster
        raise
    sync_folder(path.parent)
