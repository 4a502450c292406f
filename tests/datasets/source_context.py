"""A place to prepare sources in: a pool of sandboxed processes over an empty workspace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.jobs.pool import Pool
from speciate.settings import Settings
from speciate.workspace.workspace import Folders


@contextmanager
def source_context(folder: Path) -> Iterator[SourceContext]:
    folders = Folders(folder / "workspace")
    folders.make()
    pool = Pool(folders, Settings())
    try:
        yield SourceContext(pool, "required", folders, folder / "work")
    finally:
        pool.close()
