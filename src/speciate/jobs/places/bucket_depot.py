"""A depot in a bucket, by `obstore` (extra `s3`), which is imported once a bucket is used.

A bucket has no folders and no link(2). What replaces them:

    claimed         a put that fails where the name is there (If-None-Match: *). If the answer to one was lost, the
                    repeated put is refused though the first was ours: then the content says whose it is
    lease           a plain put: one node alone writes it
    log, metrics    what came since the last time, as a new object NAME@OFFSET, because an object cannot grow
    clear           sent.json goes first, so whoever claims a room that is being cleared finds nothing sent, and leaves

A node works in a folder of its own disk and copies from there at each beat. Every object that is large is put under a
name that nobody else writes, so an upload in parts, which cannot be conditional, harms nobody; until its last part is
there, nobody sees it.
"""

from __future__ import annotations

import configparser
import errno
import hashlib
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlsplit

from speciate.errors import SpeciateError
from speciate.jobs.folder import LOG, METRICS, PROGRESS, RESULT, is_growing
from speciate.jobs.places.depot import (
    MOST_READ,
    OBJECTS,
    RUNS,
    SENT,
    WHOSE,
    Entry,
    check_taken,
    files_left,
    is_left,
    read_sent,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig, S3Config, S3Credential

_CHUNK = 8 << 20
_MOST_GROWTH = 64 << 20
_CREATE_TRIES = 3
_KEYS = Path("~/.aws/credentials")
"""Keys of this machine, or of the node: the section `speciate`, else `default`. Without the file: the environment's, or
the role of the machine."""
_KEYS_LAST = timedelta(minutes=1)
_RETRY: RetryConfig = {
    "max_retries": 4, "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
}  # fmt: skip
_DETAIL = "\n\nDebug source"
_BAD_KEY = "invalid path"
"""In what the library says of a listing with a key that it cannot name."""
_log = logging.getLogger(__name__)


class Bucket(NamedTuple):
    store: ObjectStore
    url: str


def open_bucket(url: str) -> Bucket:
    """`url`: s3://BUCKET/PREFIX?endpoint=...&region=.... Raises OSError where obstore is not installed."""
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise OSError("a bucket needs obstore: pip install 'speciate[s3]'") from error
    parts = urlsplit(url)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    endpoint = asked.get("endpoint", "")
    config: S3Config = {"region": asked.get("region", "us-east-1")}
    if endpoint:
        config |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    with _as_os_errors():
        store = S3Store(
            parts.netloc, prefix=parts.path.strip("/") or None, config=config,
            client_options={"timeout": "30s", "connect_timeout": "5s", "allow_http": endpoint.startswith("http:")},
            retry_config=_RETRY, credential_provider=_renewed if _keys() is not None else None,
        )  # fmt: skip
    return Bucket(store, url)


def _renewed() -> S3Credential:
    """The keys as they are now: whoever gives keys for some hours replaces the file, and a run may take days."""
    keys = _keys()
    if keys is None:
        raise OSError(f"{_KEYS} holds no keys any more")
    return keys


def _keys() -> S3Credential | None:
    """None where the file has none for us."""
    known = configparser.ConfigParser(interpolation=None)
    try:
        known.read(_KEYS.expanduser())
    except (configparser.Error, UnicodeDecodeError) as error:  # its words may quote a key
        raise OSError(f"{_KEYS} cannot be read: {type(error).__name__}") from None
    for section in ("speciate", "default"):
        if section in known and (key_id := known[section].get("aws_access_key_id")):
            return {
                "access_key_id": key_id,
                "secret_access_key": known[section].get("aws_secret_access_key", ""),
                "token": known[section].get("aws_session_token"),
                "expires_at": datetime.now(UTC) + _KEYS_LAST,
            }
    return None


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Errors of the library name addresses and objects, and no key; what follows its first lines is for its makers."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise OSError(str(error).partition(_DETAIL)[0]) from None
    except ValueError as error:  # no object can have such a name
        raise FileNotFoundError(str(error)) from None


class _Objects:
    """Objects below one prefix."""

    def __init__(self, bucket: Bucket, inside: str) -> None:
        self._store, self._inside = bucket.store, inside

    def key(self, name: str) -> str:
        return f"{self._inside}/{name}"

    def size(self, name: str) -> int | None:
        import obstore

        try:
            with _as_os_errors():
                return int(obstore.head(self._store, self.key(name))["size"])
        except FileNotFoundError:
            return None

    def get(self, name: str) -> bytes | None:
        import obstore

        try:
            with _as_os_errors():
                found = obstore.get(self._store, self.key(name))
                if found.meta["size"] > MOST_READ:
                    raise OSError(errno.EFBIG, "it is too large to be what was written", name)
                return bytes(found.bytes())
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        import obstore

        with _as_os_errors():
            obstore.put(self._store, self.key(name), data, use_multipart=False)

    def create(self, name: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for tries in range(_CREATE_TRIES):
            try:
                with _as_os_errors():
                    try:
                        obstore.put(self._store, self.key(name), data, mode="create", use_multipart=False)
                    except (AlreadyExistsError, PreconditionError):
                        found = self.get(name)
                        if found is None:  # refused while another put of it went on, which then failed
                            raise OSError(f"{self.key(name)} was refused, and is not there") from None
                        return found == data
                return True
            except OSError:  # two at the same moment may both be told to try again
                if tries == _CREATE_TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def upload(self, name: str, source: Path) -> None:
        import obstore

        with _as_os_errors(), source.open("rb") as file:
            obstore.put(self._store, self.key(name), file, chunk_size=_CHUNK, max_concurrency=2)

    def download(self, name: str, target: Path) -> str:
        """Its sha256. Raises FileNotFoundError."""
        import obstore

        digest = hashlib.sha256()
        with _as_os_errors():
            stream = obstore.get(self._store, self.key(name)).stream(min_chunk_size=_CHUNK)
            with target.open("xb") as writer:
                for chunk in stream:
                    digest.update(chunk)
                    writer.write(chunk)
        return digest.hexdigest()

    def names(self, below: str = "") -> dict[str, int]:
        """Name -> bytes of each object whose name begins with the folder `below`."""
        import obstore

        try:
            with _as_os_errors():
                return {
                    self._name(each["path"]): int(each["size"])
                    for page in obstore.list(self._store, self.key(below))
                    for each in page
                }
        except OSError as error:
            if _BAD_KEY not in str(error):
                raise
        return self._names_around(below)

    def _names_around(self, below: str) -> dict[str, int]:
        """As `names`, folder by folder. The library cannot name a key with `//` or `..`, which somebody else has put
        there, and lists nothing beside one: whatever else lies in such a folder is left out, too."""
        try:
            folders, found = self.level(below)
        except OSError as error:
            if _BAD_KEY not in str(error):
                raise
            _log.warning("%s/%s is left as it is: %s", self._inside, below, error)
            return {}
        for each in folders:
            found |= self._names_around(each)
        return found

    def level(self, below: str = "") -> tuple[list[str], dict[str, int]]:
        """Names of the folders in the folder `below`, and of its objects with their bytes."""
        import obstore

        with _as_os_errors():
            found = obstore.list_with_delimiter(self._store, self.key(below).rstrip("/"))
        return (
            [self._name(each) for each in found["common_prefixes"]],
            {self._name(each["path"]): int(each["size"]) for each in found["objects"]},
        )

    def _name(self, key: object) -> str:
        return str(key).removeprefix(f"{self._inside}/")

    def delete(self, names: Collection[str]) -> None:
        import obstore

        if names:
            with _as_os_errors():
                obstore.delete(self._store, [self.key(name) for name in names])


class BucketRoom:
    look_seconds = 5.0
    log = Path("/dev/null")

    def __init__(self, bucket: Bucket, inside: str) -> None:
        """`inside`: OWNER/runs/JOB.ATTEMPT."""
        self._objects, self._run = _Objects(bucket, inside), inside.rpartition("/")[2]
        self.where = f"{bucket.url}#{inside}"
        self._carried: dict[str, tuple[int, int]] = {}
        self._grown: dict[str, int] = {}
        self._beat: int | None = None

    def is_there(self) -> bool:
        return self.has(SENT)

    def has(self, name: str) -> bool:
        return self._objects.size(name) is not None

    def read(self, name: str) -> bytes | None:
        return self._objects.get(name)

    def write(self, name: str, data: str) -> None:
        self._objects.put(name, data.encode())

    def create(self, name: str, data: str) -> bool:
        """A room that is being cleared has no `sent.json` any more: whoever creates something there has nothing."""
        if not self._objects.create(name, data.encode()):
            return False
        if self.is_there():
            return True
        self._objects.delete([name])
        return False

    def left(self) -> Iterator[str]:
        return (name for name in self._objects.names() if is_left(name))

    def fetch(self, name: str, target: Path) -> str:
        return self._objects.download(name, target)

    def mirror(self, target: Path, beat: int | None) -> None:
        """A node copies at each beat, so nothing is looked for before the next one."""
        if beat is not None and beat == self._beat:
            return
        growing = {name.rpartition("@")[0] for name in self._objects.level()[1] if "@" in name}
        for name in sorted(growing):
            have = self._grown.setdefault(name, 0)
            if not is_growing(name):
                continue
            with (target / name).open("ab") as writer:
                writer.truncate(have)  # by an earlier daemon, or one that died while it wrote
                while have < _MOST_GROWTH and (chunk := self._objects.get(f"{name}@{have}")):
                    writer.write(chunk)
                    have += len(chunk)
            self._grown[name] = have
        self._beat = beat

    def look_anew(self) -> None:
        """Nothing is remembered: a bucket shows what was written last."""

    def clear(self) -> None:
        self._objects.delete([SENT])
        self._objects.delete(list(self._objects.names()))

    def work_folder(self, scratch: Path) -> Path:
        folder = scratch / RUNS / self._run
        folder.mkdir(mode=0o700, parents=True)
        return folder

    def carry(self, folder: Path, *, last: bool) -> None:
        for path in (*(folder / name for name in (LOG, PROGRESS)), *folder.glob(f"{METRICS}*.jsonl")):
            self._carry_growth(path)
        there = {}
        for path in files_left(folder):
            name, stamp = path.as_posix(), _stamp(folder / path)
            if stamp is None or (not last and path.parts[0] == "outputs"):
                continue
            there[name] = stamp
            if self._carried.get(name) != stamp:
                self._objects.upload(name, folder / path)
                if _stamp(folder / path) == stamp:  # else it was written meanwhile, and goes again
                    self._carried[name] = stamp
        gone = [name for name in self._carried if name not in there]
        self._objects.delete([name for name in gone if name.endswith(f"/{RESULT}")])  # first: it says that all is there
        self._objects.delete(gone)
        for name in gone:
            del self._carried[name]

    def _carry_growth(self, path: Path) -> None:
        have = self._grown.get(path.name, 0)
        try:
            with path.open("rb") as reader:
                reader.seek(have)
                while have < _MOST_GROWTH and (chunk := reader.read(_CHUNK)):
                    self._objects.put(f"{path.name}@{have}", chunk)
                    have += len(chunk)
                    self._grown[path.name] = have
        except FileNotFoundError:
            return


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    except FileNotFoundError:
        return None


class BucketDepot:
    def __init__(self, bucket: Bucket, owner: str) -> None:
        self._bucket, self._owner = bucket, owner
        self._objects = _Objects(bucket, owner)

    def is_there(self) -> bool:
        return self._objects.size(WHOSE) is not None

    def make(self, workspace: str) -> None:
        if not self.is_there():
            self._objects.put(WHOSE, f"{workspace}\n".encode())

    def room(self, run_id: str) -> BucketRoom:
        return BucketRoom(self._bucket, f"{self._owner}/{RUNS}/{run_id}")

    def runs(self) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self._objects.level(RUNS)[0])

    def put(self, source: Path, known: str | None = None) -> tuple[str, int]:
        size = source.stat().st_size
        if known is None or self._objects.size(_object(known)) != size:
            with source.open("rb") as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            if self._objects.size(_object(known)) != size:
                self._objects.upload(_object(known), source)
                return known, size
        return known, 0

    def take(self, entry: Entry, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256 = self._objects.download(_object(entry.sha256), target)
        try:
            check_taken(entry, sha256)
        except SpeciateError:
            target.unlink()
            self._objects.delete([_object(entry.sha256)])
            raise

    def sweep(self, keep: Collection[str], live: Collection[str]) -> int:
        wanted = {_object(sha256) for sha256 in keep}
        for name in self.runs():
            room = self.room(name)
            if name not in live:
                room.clear()
            elif room.has(SENT):
                wanted |= {_object(each.sha256) for each in read_sent(room).inputs}
        unwanted = {name: size for name, size in self._objects.names(OBJECTS).items() if name not in wanted}
        self._objects.delete(list(unwanted))
        return sum(unwanted.values())

    def objects(self) -> Iterator[str]:
        return (name.rpartition("/")[2] for name in self._objects.names(OBJECTS))


def _object(sha256: str) -> str:
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"
