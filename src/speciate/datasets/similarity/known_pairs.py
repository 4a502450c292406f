"""Pairs of near-duplicates that were found before: a split, its report and every evaluation ask for the same.

`cache/near/KEY.parquet` answers one question. KEY is the sha256 of all that decides the answer: the rule, its
threshold, and every sketch in order. So changed rows and another rule are other questions, and nobody has to say that
something changed. What is gone or damaged is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate import __version__
from speciate.errors import SpeciateError
from speciate.modalities.contract import PackedCodes, PairwiseSimilarity, Sketches, Sketching
from speciate.workspace import integrity
from speciate.workspace.workspace import Folders

_COMPUTES = 1
"""Raised when a rule comes to find other pairs among the same sketches."""
_WORTH_SECONDS = 0.05
"""Processor time beyond which the answer is kept: below it, it is found again as fast as it is read."""
_MOST_PAIRS = 5_000_000
_LOST = "They are computed again."

Places = npt.NDArray[np.int64]
Rule = Sketching | PairwiseSimilarity
_latest: dict[str, _Answer] = {}
"""The last answer of this process, by its key."""


class _Answer(NamedTuple):
    pairs: Places
    seconds: float
    """Processor time that it took to find them, 0 where they were read."""


def ask(
    rule: Rule,
    threshold: float | None,
    codes: Sequence[bytes] | Sketches,
    find: Callable[[], Places],
    folders: Folders | None,
) -> Places:
    """(M, 2) the pairs among different codes that `find` returns, or returned before. This process remembers its last
    answer; with `folders` the workspace remembers those that took long. Of a rule that is not ours nobody knows when it
    changes, so its answers are never kept."""
    key = _key(rule, threshold, codes)
    ours = folders if type(rule).__module__.startswith(f"{__name__.partition('.')[0]}.") else None
    known = _latest.get(key) or (_read(_path(ours, key), key) if ours else None)
    if known is None:
        begin = time.process_time()
        found = find()
        known = _Answer(found, time.process_time() - begin)
    _latest.clear()
    _latest[key] = known
    if ours and known.seconds >= _WORTH_SECONDS and len(known.pairs) <= _MOST_PAIRS:
        _write(_path(ours, key), key, known.pairs)
    return known.pairs


def _key(rule: Rule, threshold: float | None, codes: Sequence[bytes] | Sketches) -> str:
    kind = type(rule)
    set_to = vars(rule) if hasattr(rule, "__dict__") else rule
    digest = hashlib.sha256(
        f"{__version__} {_COMPUTES} {kind.__module__}.{kind.__qualname__} {set_to} {threshold} {len(codes)} ".encode()
    )
    if isinstance(codes, np.ndarray):
        digest.update(np.ascontiguousarray(codes).data)
    else:
        packed = PackedCodes.of(codes)
        digest.update(np.diff(packed.starts).tobytes())
        digest.update(packed.data[packed.starts[0] : packed.starts[-1]].data)
    return digest.hexdigest()


def _path(folders: Folders, key: str) -> Path:
    return folders.cache / "near" / f"{key}.parquet"


def _read(path: Path, key: str) -> _Answer | None:
    try:
        table = integrity.read_table(path, _LOST)
    except FileNotFoundError:
        return None
    except SpeciateError:
        table = pa.table({})
    if (table.schema.metadata or {}).get(b"question") != key.encode():
        path.unlink(missing_ok=True)
        return None
    return _Answer(np.stack([np.asarray(table[name], np.int64) for name in ("first", "second")], axis=1), 0.0)


def _write(path: Path, key: str, pairs: Places) -> None:
    if path.exists():
        return
    table = pa.table({"first": pairs[:, 0], "second": pairs[:, 1]}).replace_schema_metadata({"question": key})
    with contextlib.suppress(FileNotFoundError):  # the cache is emptied meanwhile
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        with temporary.open("w+b") as file:
            integrity.write_table(table, file)
        temporary.replace(path)
