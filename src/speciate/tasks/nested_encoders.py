"""Frozen base models inside another representation: each reads a part of a mixed row.

Weights that no package has are kept flat in the model's folder, each file under the encoder's id; a model folder has no
folders in it. To be loaded they are linked into a folder of their own, under the names that they have in one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from speciate.tasks.representations import Embeddings
from speciate.tasks.task import Representation, RepresentationSettings
from speciate.workspace.workspace import Folders

NESTED = "embeddings"
"""Kind of a representation that needs its model's folder."""
_BETWEEN = "--"

Rebuild = Callable[[RepresentationSettings], Embeddings]


def encoders_of(representation: Representation) -> Sequence[Embeddings]:
    """Encoders inside a representation of several; empty for others."""
    found: Any = getattr(representation, "encoders", None)
    inside: Sequence[Embeddings] = found() if found is not None else ()
    return inside


def has_nested(settings: RepresentationSettings) -> bool:
    """Whether base models are inside it."""
    return any(each is not settings and each.get("kind") == NESTED for each in _objects(settings))


def keep(representation: Representation, folder: Path) -> None:
    """Write into a model folder what the encoders inside need."""
    for each in {one.encoder.id: one for one in encoders_of(representation)}.values():
        with tempfile.TemporaryDirectory() as place:
            each.encoder.keep(Path(place))
            for file in sorted(Path(place).iterdir()):
                shutil.move(file, folder / f"{each.encoder.id}{_BETWEEN}{file.name}")


def rebuild(settings: RepresentationSettings, folder: Path, cache: Folders | None, threads: int) -> Embeddings:
    """The one with these settings, from its model's folder."""
    start = f"{settings['encoder']}{_BETWEEN}"
    files = [file for file in folder.iterdir() if file.name.startswith(start)]
    if not files:
        return Embeddings.rebuild(settings, folder, cache, threads)
    place = Path(tempfile.mkdtemp(prefix="encoder-"))
    for file in files:
        _place(file, place / file.name.removeprefix(start))
    made = Embeddings.rebuild(settings, place, cache, threads)
    weakref.finalize(made, shutil.rmtree, place, True)
    return made


def _place(file: Path, target: Path) -> None:
    """Put the same file there, without its bytes where the disk is the same; links by name are not read."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _objects(value: Any) -> Iterator[RepresentationSettings]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)
