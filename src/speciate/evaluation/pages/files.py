"""Pages of evaluations below the workspace's exports, named by what they hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

from speciate.evaluation.pages.contents import gather
from speciate.evaluation.pages.page import page
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Folders, Workspace


def write_page(workspace: Workspace, pool: Pool, evaluation: str, baseline: str | None = None) -> Path:
    """The file of this evaluation's page: the same page is one file, another one another, and none is overwritten.

    Raises NOT_FOUND for an evaluation or a baseline that is not there.
    """
    text = page(gather(workspace, pool, evaluation, baseline))
    folder = _folder(workspace.folders, evaluation)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.html"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return path


def delete_pages(folders: Folders, evaluation: str) -> None:
    """All pages of an evaluation: they can be made again, of what is left of it."""
    folder = _folder(folders, evaluation)
    for path in folder.glob("*.html"):
        path.unlink(missing_ok=True)


def _folder(folders: Folders, evaluation: str) -> Path:
    return folders.exports / "evaluations" / evaluation
