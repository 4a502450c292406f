"""A model folder that cannot change unnoticed: `files.json` lists the sha256 of every file that loading reads.

`model.json` (the card) is not in the list: it gets its version number after the weights are sealed, and nothing that
loads a model believes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from speciate.errors import Code, SpeciateError

MANIFEST, CARD = "files.json", "model.json"


def seal(folder: Path) -> str:
    """Hash and flush every file, write the manifest, and return the folder's id: the sha256 of the manifest."""
    hashes = {}
    for path in sorted(folder.iterdir()):
        if path.name not in (MANIFEST, CARD):
            hashes[path.name] = file_hash(path)
            _flush(path)
    text = json.dumps(hashes, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text)
    _flush(folder / MANIFEST)
    _flush(folder)
    return hashlib.sha256(text.encode()).hexdigest()


def check(folder: Path) -> str:
    """The folder's id, after every file was found as it was sealed. Raises NOT_FOUND or REFUSED."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise SpeciateError(
            Code.NOT_FOUND, f"{folder} holds no model: it has no {MANIFEST}.", "Train the model again with train_model."
        ) from None
    for name, expected in _listed(folder, text).items():
        path = folder / name
        if not path.is_file() or file_hash(path) != expected:
            raise SpeciateError(
                Code.REFUSED,
                f"{path} is not what was sealed: the file is gone or its sha256 has changed (or {MANIFEST}, which "
                "lists it, has).",
                "Train the model again with train_model, or restore the file from a copy.",
            )
    return hashlib.sha256(text).hexdigest()


def _listed(folder: Path, text: bytes) -> dict[str, str]:
    try:
        listed = json.loads(text)
        if isinstance(listed, dict):
            return listed
    except (ValueError, RecursionError):
        pass
    raise SpeciateError(
        Code.REFUSED,
        f"{folder / MANIFEST} is not what was sealed: it is no list of files.",
        "Train the model again with train_model, or restore the file from a copy.",
    )


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
