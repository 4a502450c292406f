"""The vectors of queries: asked of the pool once each, kept in the cache, never waited for longer than a search may.

The first query of a process finds no encoder loaded. It is answered by words alone, while the pool loads it; the same
query has its vector the next time.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool

PATIENCE_SECONDS = 0.06
"""What a search may wait: a loaded encoder takes a few milliseconds."""
_SERVICE = "speciate.models.meaning:embed_query"
_LOADING_SECONDS = 180.0
_KEPT = 2_000
"""Queries in the cache; then it begins anew."""

Vector = npt.NDArray[np.float32]


class Asked:
    """Thread-safe. One query at a time is asked of the pool, so that others keep their processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="query-vectors")
        self._waiting: dict[str, Future[Vector | None]] = {}
        self._lock = threading.Lock()

    def vector(self, pool: Pool, text: str, encoder: str, patience: float = PATIENCE_SECONDS) -> Vector | None:
        """(width,) of unit length; None where it is not there in time, or another encoder would answer."""
        text = " ".join(text.lower().split())
        if not text:
            return None
        path = self._folder / f"{hashlib.sha256(f'{encoder} {text}'.encode()).hexdigest()[:32]}.npy"
        if (known := _read(path)) is not None:
            return known
        with self._lock:
            if len(self._waiting) > 8:  # somebody asks faster than the pool answers
                return None
            future = self._waiting.get(text)
            if future is None:
                future = self._waiting[text] = self._threads.submit(self._ask, pool, text, encoder, path)
                future.add_done_callback(lambda _: self._waiting.pop(text, None))
        try:
            return future.result(patience)
        except (FutureTimeout, SpeciateError):
            return None

    def _ask(self, pool: Pool, text: str, encoder: str, path: Path) -> Vector | None:
        answer = pool.ask(_SERVICE, {"text": text}, _LOADING_SECONDS)
        if answer["encoder"] != encoder:
            return None
        vector = np.asarray(answer["vector"], np.float32)
        _keep(path, vector)
        return vector


def _read(path: Path) -> Vector | None:
    try:
        with path.open("rb") as opened:
            found: Vector = np.load(opened, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return found if found.ndim == 1 and found.dtype == np.float32 else None


def _keep(path: Path, vector: Vector) -> None:
    """What cannot be kept is asked again another time."""
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
