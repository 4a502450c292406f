"""A folder of others that a caller named as `path:/dir`: its id, for plans, and a copy that cannot change, for runs.

The id is that of the sealed copy, which holds the same files: so it is the same wherever the folder lies, and a run
notices if the folder has changed since it was planned.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
from pathlib import Path

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models import model_folder, pickled_weights, sealed, trust

_OURS = (sealed.MANIFEST, sealed.CARD, sealed.PREDICTOR)


def folder_id(folder: Path) -> str:
    """Reads every loadable file once; of those with an unchanged size and time the hash is remembered. Raises as
    `trust.choose` does, and INVALID for a folder that export_model wrote."""
    if sealed.is_sealed_export(folder):
        raise SpeciateError(
            Code.INVALID,
            f"{str(folder)!r} was written by export_model: it is no published model.",
            f"Take it back with register_model(name='NAME', source={f'path:{folder}'!r}) and name that model.",
        )
    model_folder.check_weights(folder)
    names = trust.entries(folder)
    trust.refuse_adapter(names, f"path:{folder}")
    pickled_weights.refuse(folder, names)
    hashes = {}
    for name in _files(folder):
        info = (folder / name).stat()
        hashes[trust.flat_name(name)] = _hash(folder / name, info.st_size, info.st_mtime_ns)
    return hashlib.sha256(json.dumps(hashes, indent=1, sort_keys=True).encode()).hexdigest()


def checked_copy(folder: Path, identity: str, cache: Path) -> Path:
    """The sealed copy with this id, in the cache; made if it is not there. INVALID if the folder has another id now."""
    kept = cache / "published" / f"path-{identity[:32]}"
    if (kept / sealed.MANIFEST).is_file() and sealed.check(kept) == identity:
        return kept
    made = kept.with_name(f".{kept.name}.{os.getpid()}")
    for leftover in (made, kept):
        shutil.rmtree(leftover, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        trust.copy(folder, _files(folder), made)
        trust.check(made)
        if sealed.seal(made) != identity:
            raise SpeciateError(
                Code.INVALID,
                f"{str(folder)!r} has changed since it was planned.",
                "Call again: it is then evaluated as it is now.",
            )
        with contextlib.suppress(OSError):  # another run may have made it meanwhile
            made.rename(kept)
        sealed.check(kept)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(made, ignore_errors=True)
    return kept


def _files(folder: Path) -> list[str]:
    return [name for name in trust.choose(trust.entries(folder)).files if name not in _OURS]


@functools.lru_cache(maxsize=256)
def _hash(path: Path, size: int, changed: int) -> str:
    with foreign_files.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
