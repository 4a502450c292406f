"""The Hugging Face hub, or a server that speaks its API: what a repository holds at one commit, and its files.

Through the hub's own library, in worker processes that may use the network. Nothing that is fetched is opened here but
to compare it with the hash that the server told. What was begun goes on where it ended, also where a kill ended it: the
library alone begins a file anew in every process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypedDict
from urllib.parse import urlsplit

from speciate import hosts
from speciate.environment import go_online, hub_endpoint
from speciate.errors import Code, SpeciateError

Kind = Literal["model", "dataset"]
COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.\-]+/[\w.\-]+")
_SPARE = 1 << 30  # bytes of the disk that stay free
_SECONDS = 30.0
_BLOCK = 1 << 20
_LARGEST = 50 * 10**9  # bytes of a file that the hub gives over plain HTTP
_PARTIAL = ".cache/partial"
_LOOK_S = 0.2


class RemoteFile(NamedTuple):
    """A file of a repository as the server lists it. Its name is foreign text."""

    name: str
    size: int
    sha256: str | None
    """For large files: the sha256 of their content."""
    blob: str | None
    """For small files: the sha1 that git gives their content."""


class Revision(NamedTuple):
    kind: Kind
    repository: str
    commit: str
    files: tuple[RemoteFile, ...]
    details: RepositoryDetails
    """What else is told of it."""


class RepositoryDetails(TypedDict, total=False):
    """What the hub or a README says of a repository, unchecked."""

    card: Mapping[str, Any]
    """The front matter of its README."""
    gated: Any
    downloads: int | None
    likes: int | None
    tags: Sequence[str]
    task: str | None
    library: str | None


def is_repository(name: str) -> bool:
    """Whether it is `org/name` and leads nowhere else."""
    return bool(_REPOSITORY.fullmatch(name)) and not any(part.strip(".") == "" for part in name.split("/"))


def find_revision(kind: Kind, repository: str, wanted: str | None, token: str | None = None) -> Revision:
    """What a repository holds at a branch, tag or commit; None: its main branch.

    NOT_FOUND for a repository or revision that is not shown, REFUSED for one that needs an account, UNAVAILABLE without
    a connection, MISSING_EXTRA without the library.
    """
    api = _api(kind, repository, token)
    try:
        info = api.repo_info(repository, repo_type=kind, revision=wanted, files_metadata=True, timeout=_SECONDS)
        commit = str(info.sha)
        if not COMMIT.fullmatch(commit):
            raise ValueError("the answer names no commit")
        files = tuple(_remote_file(sibling) for sibling in info.siblings or [])
    except Exception as error:  # of the library, its HTTP client or the disk: each has classes of its own
        raise _explain_error(error, kind, repository) from error
    return Revision(kind, repository, commit, tuple(sorted(files)), _details(info))


def list_models(most: int, expand: Sequence[str]) -> Iterator[Any]:
    """The most downloaded models, as the library's ModelInfo with the fields that `expand` names; UNAVAILABLE where
    the server stops answering."""
    api = _api("model", "every/model", None)
    try:
        yield from api.list_models(sort="downloads", limit=most, expand=list(expand))
    except Exception as error:  # as above
        raise _explain_error(error, "model", "every/model") from error


def is_installed() -> bool:
    return importlib.util.find_spec("huggingface_hub") is not None


def server() -> str:
    """Which hub is asked."""
    return urlsplit(hub_endpoint()).netloc


def download(
    found: Revision,
    names: Sequence[str],
    folder: Path,
    token: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """These files of a repository, below `folder`. Those that are there whole are not fetched again.

    `progress(done, total)` in bytes, before each file and each ten million bytes; it may raise to stop. REFUSED where
    the disk has no room or a file is not what the server listed, else as `revision`.
    """
    api = _api(found.kind, found.repository, token)
    wanted = [file for file in found.files if file.name in set(names)]
    total = sum(file.size for file in wanted)
    (folder / _PARTIAL).mkdir(parents=True, exist_ok=True)
    with _lock_folder(folder / _PARTIAL, lambda: progress(0, total)):
        _check_room(found, total - sum(_size_of(_partial_path(folder, file)) for file in wanted), folder)
        done = 0
        for file in wanted:
            progress(done, total)
            if not _is_whole(folder / file.name, file):
                _fetch_file(api, found, file, folder, _offset_progress(done, total, progress))
            done += file.size
    progress(total, total)


def _offset_progress(done: int, total: int, progress: Callable[[int, int], None]) -> Callable[[int], None]:
    return lambda there: progress(done + there, total)


@contextlib.contextmanager
def _lock_folder(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """No other process fetches into it meanwhile; `wait` is called while one does, and may raise."""
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait()
                time.sleep(_LOOK_S)
        yield
    finally:
        os.close(lock)


def _fetch_file(api: Any, found: Revision, file: RemoteFile, folder: Path, tell: Callable[[int], None]) -> None:
    """A file, whole and compared. What an earlier process had of it is kept; where that spoils it, it begins anew."""
    target, partial = folder / file.name, folder / _PARTIAL / _key(file)
    target.unlink(missing_ok=True)
    while True:
        begun = _size_of(partial)
        if begun > file.size:
            partial.unlink()
            continue
        with partial.open("r+b" if begun else "wb") as opened:
            opened.seek(begun)
            growing = _CountingFile(opened, tell)
            try:
                _transfer(api, found, file, growing, begun)
            except Exception as error:  # as above
                raise growing.stopped or _explain_error(error, found.kind, found.repository) from error
        if _is_whole(partial, file):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)
            return
        partial.unlink()
        if not begun:
            raise SpeciateError(
                Code.REFUSED,
                f"{file.name!r} of {found.repository!r} is not what {hub_endpoint()} listed: another size or hash.",
                "Call again; where it happens again, the server or something on the way is not to be trusted.",
            )


class _CountingFile:
    """A file that is written piece by piece; `tell` hears how long it is before each, and may raise to stop."""

    def __init__(self, file: IO[bytes], tell: Callable[[int], None]) -> None:
        self._file, self._tell = file, tell
        self.stopped: Exception | None = None
        self.seek, self.tell, self.truncate = file.seek, file.tell, file.truncate

    def write(self, piece: bytes) -> int:
        try:
            self._tell(self._file.tell())
        except Exception as error:
            self.stopped = error
            raise
        written = self._file.write(piece)
        self._file.flush()  # a kill leaves what has come
        return written


def _transfer(api: Any, found: Revision, file: RemoteFile, into: _CountingFile, begun: int) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    where = {"repo_type": found.kind, "revision": found.commit}
    if file.size > _LARGEST:
        raise SpeciateError(
            Code.INVALID,
            f"{file.name!r} of 'hf:{found.repository}' has {file.size:,} bytes; up to {_LARGEST:,} are fetched here.",
            f"Download it yourself (hf download {found.repository}) and name the folder: source='path:/dir'.",
        )
    http_get(
        hf_hub_url(found.repository, file.name, endpoint=api.endpoint, **where),
        into,  # type: ignore[arg-type]  # of a file, it uses no more than this
        resume_size=begun,
        headers=build_hf_headers(token=api.token) | {"Accept-Encoding": "identity"},
        expected_size=file.size,
        displayed_filename="file",
    )


def _key(file: RemoteFile) -> str:
    """Another content is another file."""
    return hashlib.sha256(repr(tuple(file)).encode()).hexdigest()


def _partial_path(folder: Path, file: RemoteFile) -> Path:
    whole = folder / file.name
    return whole if whole.is_file() else folder / _PARTIAL / _key(file)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether it has the size and the hash that were listed; a name of a link is none."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return False
    if file.sha256 is not None:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    if file.blob is None:
        return True
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest() == file.blob


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK):
            yield block


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_room(found: Revision, size: int, folder: Path) -> None:
    if size > shutil.disk_usage(folder).free - _SPARE:
        raise SpeciateError(
            Code.REFUSED,
            f"'hf:{found.repository}' has {size:,} bytes to fetch, for which the disk has no room.",
            "Name a part of it, or free some space.",
        )


def _api(kind: Kind, repository: str, token: str | None) -> Any:
    if not is_repository(repository):
        raise SpeciateError(Code.INVALID, f"{repository!r} names no {kind} of a hub.", "Write hf:org/name.")
    go_online()
    try:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"Fetching 'hf:{repository}' needs the package 'huggingface_hub'.",
            "Run: pip install 'speciate[hub]'",
        ) from None
    disable_progress_bars()
    huggingface_hub.set_client_factory(_client)
    return huggingface_hub.HfApi(endpoint=hub_endpoint(), token=token or False)


def _client() -> Any:
    """A client as the library makes its own, but that it reaches private addresses only where HF_ENDPOINT names
    them."""
    from huggingface_hub.utils._http import default_client_factory

    return hosts.guard(default_client_factory(), {server().lower()})


def _remote_file(sibling: Any) -> RemoteFile:
    large = sibling.lfs or {}
    sha256 = large.get("sha256") if isinstance(large, dict) else None
    return RemoteFile(str(sibling.rfilename), int(sibling.size or 0), sha256, None if sha256 else sibling.blob_id)


def _details(info: Any) -> RepositoryDetails:
    card = getattr(info, "card_data", None)
    return {
        "card": card.to_dict() if card is not None else {},
        "gated": getattr(info, "gated", None),
        "downloads": getattr(info, "downloads", None),
        "likes": getattr(info, "likes", None),
        "tags": list(getattr(info, "tags", None) or ()),
        "task": getattr(info, "pipeline_tag", None),
        "library": getattr(info, "library_name", None),
    }


def _explain_error(error: Exception, kind: Kind, repository: str) -> SpeciateError:
    from huggingface_hub import errors

    if isinstance(error, SpeciateError):
        return error
    source = f"'hf:{repository}'"
    sentence = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return SpeciateError(
            Code.REFUSED,
            f"{source} is shown only to accounts that accepted its terms.",
            "A person accepts them on its page, then runs: speciate secret set huggingface; or downloads it, and you "
            "name the folder.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SpeciateError(
            Code.NOT_FOUND,
            f"What was asked of {source} names no revision, branch or tag that is there.",
            "Call without @revision.",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.EntryNotFoundError | errors.HFValidationError):
        return SpeciateError(
            Code.NOT_FOUND,
            f"{hub_endpoint()} shows no {kind} {source} to the public.",
            "Check the name, or download it yourself and name the folder.",
        )
    return SpeciateError(
        Code.UNAVAILABLE,
        f"{source} could not be fetched from {hub_endpoint()}: {sentence}.",
        "Check the connection, then call again: what was fetched is kept.",
    )
