"""Datasets of the Hugging Face hub, or of a server that speaks its API: the files of one commit, into the cache.

Runs in the worker, which may use the network. No fetched file is opened here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from speciate import hf_hub
from speciate.datasets.sources.archives import member_path
from speciate.datasets.sources.listing import ExcludedFile
from speciate.errors import Code, SpeciateError
from speciate.workspace.blobs import write_durably
from speciate.workspace.workspace import Folders

_REF = re.compile(r"hf:(?P<repo>[\w.\-]+/[\w.\-]+)(?:/(?P<below>[^@]+?))?/?(?:@(?P<revision>[\w.\-/]+))?")
_NO_DATA = re.compile(r"(?i)(.*/)?(\..*|readme\.md|.*\.py|.*\.ipynb)")


class HubRef(NamedTuple):
    """`hf:org/name`, `hf:org/name@revision`, `hf:org/name/folder@revision`."""

    repo: str
    below: str
    """The folder or file in it; empty for all."""
    revision: str | None


class FetchedRepository(NamedTuple):
    path: Path
    revision: str
    """The commit."""
    excluded: list[ExcludedFile]


def parse_hub_ref(text: str) -> HubRef:
    found = _REF.fullmatch(text)
    if found is None:
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} names no dataset of a hub.",
            "Write hf:org/name, hf:org/name@revision, or hf:org/name/folder for a part of it.",
        )
    below = found["below"] or ""
    if below and isinstance(why := member_path(below), str):
        raise SpeciateError(Code.INVALID, f"{text!r} names no folder of a dataset: {why}", "Write hf:org/name/folder.")
    return HubRef(found["repo"], below, found["revision"])


def fetch(source: str, folders: Folders) -> FetchedRepository:
    """The files that `source` names. Existing files are not fetched again; a complete commit needs no network.

    NOT_FOUND for an unknown dataset or revision, REFUSED for one that needs an account or has no room on the disk,
    UNAVAILABLE without a connection, MISSING_EXTRA without the library.
    """
    ref = parse_hub_ref(source)
    cache = folders.cache / "hub" / ref.repo.replace("/", "--")
    if ref.revision and hf_hub.COMMIT.fullmatch(ref.revision):
        complete = _complete(cache, ref.revision, ref.below)
        if complete.exists():
            excluded = [ExcludedFile(*each) for each in json.loads(complete.read_bytes())]
            return FetchedRepository(_path(cache, ref.revision, ref), ref.revision, excluded)
    found = hf_hub.find_revision("dataset", ref.repo, ref.revision)
    names, excluded = _choose_files(found.files, ref)
    hf_hub.download(found, names, cache / found.commit)
    write_durably(_complete(cache, found.commit, ref.below), json.dumps(excluded).encode())
    return FetchedRepository(_path(cache, found.commit, ref), found.commit, excluded)


def _choose_files(files: Iterable[hf_hub.RemoteFile], ref: HubRef) -> tuple[list[str], list[ExcludedFile]]:
    """The names of the files to fetch. Cards and code are no data."""
    excluded: list[ExcludedFile] = []
    kept: list[str] = []
    for file in files:
        if not (file.name == ref.below or file.name.startswith(f"{ref.below}/" if ref.below else "")):
            continue
        if isinstance(reason := member_path(file.name), str):
            excluded.append(ExcludedFile(file.name, reason))
        elif not _NO_DATA.fullmatch(file.name):
            kept.append(file.name)
    if not kept:
        where = f" below {ref.below!r}" if ref.below else ""
        raise SpeciateError(
            Code.NOT_FOUND, f"'hf:{ref.repo}' holds no data files{where}.", "Call create_dataset with another source."
        )
    return kept, excluded


def _path(cache: Path, commit: str, ref: HubRef) -> Path:
    return cache / commit / ref.below if ref.below else cache / commit


def _complete(cache: Path, commit: str, below: str) -> Path:
    """A file beside the commit's folder that exists once all files (below a folder) were fetched; lists the excluded
    ones."""
    part = f".{hashlib.sha256(below.encode()).hexdigest()[:32]}" if below else ""
    return cache / f"{commit}{part}.complete"
