"""Datasets of the Hugging Face hub, or of a server that speaks its API: the files of one commit, into the cache.

Runs in the worker, which may use the network. Nothing that is fetched is opened here.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.sources.archives import place
from speciate.datasets.sources.walk import SetAside
from speciate.environment import go_online, hub_endpoint
from speciate.errors import Code, SpeciateError
from speciate.workspace.blobs import write_durably
from speciate.workspace.workspace import Folders

_REF = re.compile(r"hf:(?P<repo>[\w.\-]+/[\w.\-]+)(?:/(?P<below>[^@]+?))?/?(?:@(?P<revision>[\w.\-/]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_DATA = re.compile(r"(?i)(.*/)?(\..*|readme\.md|.*\.py|.*\.ipynb)")
_SPARE = 1 << 30  # bytes of the disk that stay free
_SECONDS = 30.0


class HubRef(NamedTuple):
    """`hf:org/name`, `hf:org/name@revision`, `hf:org/name/folder@revision`."""

    repo: str
    below: str
    """The folder or file of it that is meant; empty for all."""
    revision: str | None


class Fetched(NamedTuple):
    path: Path
    revision: str
    """The commit."""
    set_aside: list[SetAside]


def parse_hub_ref(text: str) -> HubRef:
    found = _REF.fullmatch(text)
    if found is None:
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} names no dataset of a hub.",
            "Write hf:org/name, hf:org/name@revision, or hf:org/name/folder for a part of it.",
        )
    below = found["below"] or ""
    if below and isinstance(why := place(below), str):
        raise SpeciateError(Code.INVALID, f"{text!r} names no folder of a dataset: {why}", "Write hf:org/name/folder.")
    return HubRef(found["repo"], below, found["revision"])


def fetch(source: str, folders: Folders) -> Fetched:
    """The files that `source` names. Files that are there already are not fetched again; a commit that was fetched
    whole needs no network.

    NOT_FOUND for a dataset or revision that is not there, REFUSED for one that needs an account or has no room on the
    disk, UNAVAILABLE without a connection, MISSING_EXTRA without the library.
    """
    ref = parse_hub_ref(source)
    cache = folders.cache / "hub" / ref.repo.replace("/", "--")
    if ref.revision and _COMMIT.fullmatch(ref.revision):
        complete = _complete(cache, ref.revision, ref.below)
        if complete.exists():
            aside = [SetAside(*each) for each in json.loads(complete.read_bytes())]
            return Fetched(_path(cache, ref.revision, ref), ref.revision, aside)
    go_online()
    try:
        import huggingface_hub
    except ImportError:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"Fetching {source!r} needs the package 'huggingface_hub'.",
            "Run: pip install 'speciate[hub]'",
        ) from None
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = huggingface_hub.HfApi(endpoint=hub_endpoint(), token=False)
    try:
        info = api.dataset_info(ref.repo, revision=ref.revision, files_metadata=True, timeout=_SECONDS)
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise ValueError("the answer names no commit")
        names, aside = _wanted(info.siblings or [], ref, folders.cache)
        for name in names:
            huggingface_hub.hf_hub_download(
                ref.repo, name, repo_type="dataset", revision=commit, local_dir=cache / commit,
                endpoint=hub_endpoint(), token=False, etag_timeout=_SECONDS,
            )  # fmt: skip
    except SpeciateError:
        raise
    except Exception as error:  # of the library, its HTTP client or the disk: each has classes of its own
        raise _clear(error, source) from error
    write_durably(_complete(cache, commit, ref.below), json.dumps(aside).encode())
    return Fetched(_path(cache, commit, ref), commit, aside)


def _wanted(siblings: list[Any], ref: HubRef, cache: Path) -> tuple[list[str], list[SetAside]]:
    """The names of the files to fetch. Cards and code are no data."""
    aside: list[SetAside] = []
    kept: list[Any] = []
    for sibling in sorted(siblings, key=lambda sibling: str(sibling.rfilename)):
        name = str(sibling.rfilename)
        if not (name == ref.below or name.startswith(f"{ref.below}/" if ref.below else "")):
            continue
        if isinstance(reason := place(name), str):
            aside.append(SetAside(name, reason))
        elif not _NO_DATA.fullmatch(name):
            kept.append(sibling)
    if not kept:
        where = f" below {ref.below!r}" if ref.below else ""
        raise SpeciateError(
            Code.NOT_FOUND, f"'hf:{ref.repo}' holds no data files{where}.", "Call create_dataset with another source."
        )
    size = sum(int(sibling.size or 0) for sibling in kept)
    if size > shutil.disk_usage(cache).free - _SPARE:
        raise SpeciateError(
            Code.REFUSED,
            f"'hf:{ref.repo}' has {size:,} bytes of data, for which the disk has no room.",
            f"Name a part of it, such as hf:{ref.repo}/FOLDER, or free some space.",
        )
    return [str(sibling.rfilename) for sibling in kept], aside


def _path(cache: Path, commit: str, ref: HubRef) -> Path:
    return cache / commit / ref.below if ref.below else cache / commit


def _complete(cache: Path, commit: str, below: str) -> Path:
    """Beside the commit's folder: there once all files of it, or all below a folder of it, were fetched; holds what was
    set aside."""
    part = f".{hashlib.sha256(below.encode()).hexdigest()[:32]}" if below else ""
    return cache / f"{commit}{part}.complete"


def _clear(error: Exception, source: str) -> SpeciateError:
    from huggingface_hub import errors

    said = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return SpeciateError(
            Code.REFUSED, f"{source!r} is shown to accounts alone that accepted its terms.", "Download it yourself and "
            "call create_dataset with the folder.",
        )  # fmt: skip
    if isinstance(error, errors.RevisionNotFoundError):
        return SpeciateError(
            Code.NOT_FOUND, f"{source!r} names no revision of that dataset.", "Call without @revision."
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.EntryNotFoundError | errors.HFValidationError):
        return SpeciateError(
            Code.NOT_FOUND,
            f"{hub_endpoint()} shows no dataset {source!r} to the public.",
            "Check the name, or download it yourself and call create_dataset with the folder.",
        )
    return SpeciateError(
        Code.UNAVAILABLE,
        f"{source!r} could not be fetched from {hub_endpoint()}: {said}.",
        "Check the connection, then call create_dataset again: what was fetched is kept.",
    )
