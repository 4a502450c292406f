"""Asks caged processes for the tables in files; what comes back is Parquet that they wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.sources.readers import Question
from speciate.datasets.sources.readers.choice import Reader
from speciate.jobs.pool import Pool

_SECONDS = 600.0
_SERVICE = "speciate.datasets.sources.readers:read_table"


def ask_table(
    pool: Pool,
    path: Path,
    reader: Reader = Reader(),  # noqa: B008 - never changed
    modality: str = "auto",
    *,
    readable: Iterable[Path] = (),
    text: Sequence[str] = (),
    label: str | None = None,
) -> pa.Table:
    """A table file; a row that cannot be read has a reason in REASON.

    `text`: columns that are taken as they are written, so that `007` stays `007`. `label`: the column that holds that
    of series. INVALID where the file is no such table, REFUSED beyond a budget, UNAVAILABLE where its process died.
    """
    question = Question(path, reader, modality, tuple(text), label)
    allowed = frozenset(readable) or frozenset((path,))
    return pool.ask_for_file(_SERVICE, question.payload(), _read_parquet, _SECONDS, readable=allowed)


def _read_parquet(path: Path, answer: dict[str, Any]) -> pa.Table:
    return pq.read_table(path)
