"""The files of a dataset version, as `Plan.inputs` of a run that reads them at a place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from speciate.datasets import version_rows
from speciate.datasets.loading.loader import packs
from speciate.datasets.versions import Manifest
from speciate.workspace.packs import index_path
from speciate.workspace.workspace import Folders


def version_files(manifest: Manifest, folders: Folders, *, media: bool) -> Iterator[Path]:
    """`media`: also the packs that its media lie in."""
    yield from version_rows.files(folders, manifest)
    if media:
        for pack in packs(folders, manifest):
            yield from (pack, index_path(pack))


def as_inputs(paths: Iterable[Path], folders: Folders) -> tuple[str, ...]:
    """Relative to the workspace's root, or absolute outside of it; each once."""
    root = folders.root
    inside = (path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths)
    return tuple(dict.fromkeys(inside))
