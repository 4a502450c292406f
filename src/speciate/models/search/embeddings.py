"""Embeddings of model descriptions and queries, by the packaged sentence encoder, if it is installed.

The texts of the index are embedded by a job (`speciate refresh`), each once: the file stores vectors by the digests of
the texts, so a newer index embeds new texts alone. A query is embedded in a process of the pool, once, and cached; a
search waits for it at most PATIENCE_SECONDS. The first query of a process finds no encoder loaded: it is answered by
words alone while the pool loads it. The daemon only multiplies.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypedDict
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.models import packaged
from speciate.models.encoders import Encoder, load_encoder

PACKAGE = "minilm"
_FILE = "meanings.npz"
_LONGEST = 240
"""Characters of a text that are embedded: the purpose of a model is at the beginning, and long texts take long."""
_FORM = "1"
"""Raise it when `texts` changes: then all are embedded anew."""

Vectors = npt.NDArray[np.float32]


class IndexVectors(NamedTuple):
    """`vectors` (N, width) of unit length, zeros for texts without a vector; `encoder`: its id."""

    vectors: Vectors
    encoder: str


def vectors_file(folder: Path) -> Path:
    """Where the vectors of a workspace's index are, below `cache/models/`."""
    return folder / _FILE


def texts(table: pa.Table) -> list[str]:
    """The text that is embedded for each model (index.SCHEMA)."""
    columns = (table[name].to_pylist() for name in ("ref", "what", "tasks", "modalities"))
    return [
        f"{' '.join((*(tasks or ()), *(modalities or ())))}: {what or ref}"[:_LONGEST]
        for ref, what, tasks, modalities in zip(*columns, strict=True)
    ]


def read_vectors(folder: Path, wanted: Sequence[str]) -> IndexVectors | None:
    """The vectors of these texts; None if none were made, or the encoder is no longer installed."""
    path = vectors_file(folder)
    if not path.is_file() or not packaged.installed(PACKAGE):
        return None
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            digests, vectors, encoder = kept["digests"], kept["vectors"], str(kept["encoder"])
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
    keys = _digests(wanted)
    places = np.searchsorted(digests, keys) if len(digests) else np.zeros(len(keys), int)
    places = np.minimum(places, max(len(digests) - 1, 0))
    found = np.zeros((len(keys), vectors.shape[1]), np.float32)
    known = digests[places] == keys if len(digests) else np.zeros(len(keys), bool)
    found[known] = vectors[places[known]]
    return IndexVectors(found, encoder)


def embed_texts(folder: Path, wanted: Sequence[str], progress: Callable[[int, int], None]) -> int:
    """Store the vectors of these texts in `folder`, computing the missing ones. Returns how many were computed.

    `progress(done, total)` may raise to stop: vectors computed until then are kept. Runs in a worker: it loads a
    network."""
    encoder = _encoder()
    before = read_vectors(folder, wanted)
    if before is not None and before.encoder == encoder.id:
        vectors = before.vectors
        missing = np.flatnonzero(~vectors.any(axis=1))
    else:
        vectors, missing = np.zeros((len(wanted), encoder.width), np.float32), np.arange(len(wanted))
    done = 0
    try:
        asked = [wanted[place] for place in missing.tolist()]
        for places, made in encoder.embed(asked) if asked else ():  # asked for none it would be loaded
            vectors[missing[places]] = made
            done += len(places)
            progress(done, len(missing))
    finally:
        if done or before is None:
            _save_vectors(vectors_file(folder), wanted, vectors, encoder.id)
    return done


def _save_vectors(target: Path, wanted: Sequence[str], vectors: Vectors, encoder: str) -> None:
    there = vectors.any(axis=1)
    digests, first = np.unique(_digests(wanted)[there], return_index=True)
    kept = vectors[there][first].astype(np.float16)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.npz")
    np.savez(temporary, digests=digests, vectors=kept, encoder=np.array(encoder))
    temporary.replace(target)


class QueryText(TypedDict):
    text: str


class QueryVector(TypedDict):
    encoder: str
    vector: list[float]


def embed_query(payload: QueryText) -> QueryVector:
    """A service of the pool: the vector of `payload["text"]`, and the encoder that made it."""
    encoder = _encoder()
    ((_, vectors),) = encoder.embed([str(payload["text"])[:_LONGEST]])
    return {"encoder": encoder.id, "vector": [round(float(number), 6) for number in vectors[0]]}


@cache
def _encoder() -> Encoder:
    """The encoder in one precision, so that vectors of a job and of the pool, and of other machines, are the same."""
    return load_encoder(f"pkg:{PACKAGE}", precision="float32")


def _digests(wanted: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([hashlib.sha256(f"{_FORM}{text}".encode()).digest()[:15] + b"." for text in wanted], "S16")


PATIENCE_SECONDS = 0.06
"""The longest wait of a search: a loaded encoder takes a few milliseconds."""
_SERVICE = "speciate.models.search.embeddings:embed_query"
_LOADING_SECONDS = 180.0
_KEPT = 2_000
"""Queries in the cache; then it begins anew."""

Vector = npt.NDArray[np.float32]


class QueryVectors:
    """Thread-safe. One query at a time is asked of the pool, so that others keep their processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="query-vectors")
        self._waiting: dict[Path, Future[Vector | None]] = {}
        self._lock = threading.Lock()

    def vector(self, pool: Pool, text: str, encoder: str, patience: float = PATIENCE_SECONDS) -> Vector | None:
        """(width,) of unit length; None if it is not there in time, or the pool has another encoder."""
        text = " ".join(text.lower().split())
        if not text:
            return None
        path = self._folder / f"{hashlib.sha256(f'{encoder} {text}'.encode()).hexdigest()[:32]}.npy"
        if (known := _read_query(path)) is not None:
            return known
        with self._lock:
            if len(self._waiting) > 8:  # queries come faster than the pool answers
                return None
            future = self._waiting.get(path)
            if future is None:
                if (known := _read_query(path)) is not None:  # it came since we looked
                    return known
                future = self._waiting[path] = self._threads.submit(self._ask, pool, text, encoder, path)
                future.add_done_callback(lambda _: self._waiting.pop(path, None))
        try:
            return future.result(patience)
        except (FutureTimeout, SpeciateError):
            return None

    def _ask(self, pool: Pool, text: str, encoder: str, path: Path) -> Vector | None:
        answer = pool.ask(_SERVICE, {"text": text}, _LOADING_SECONDS)
        if answer["encoder"] != encoder:
            return None
        vector = np.asarray(answer["vector"], np.float32)
        _keep_query(path, vector)
        return vector


def _read_query(path: Path) -> Vector | None:
    try:
        with path.open("rb") as opened:
            found: Vector = np.load(opened, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return found if found.ndim == 1 and found.dtype == np.float32 else None


def _keep_query(path: Path, vector: Vector) -> None:
    """If it cannot be stored, the query is embedded again another time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sum(1 for _ in path.parent.iterdir()) >= _KEPT:
            for old in path.parent.iterdir():
                old.unlink(missing_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.npy")
        np.save(temporary, vector)
        temporary.replace(path)
    except OSError:
        pass
