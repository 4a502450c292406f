"""Where units such as frames begin in files of media, as their modality tells it: read in caged processes, several at a
time, and checked here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.decoding import kept_reader, nonsense
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities import find
from speciate.modalities.contract import DecodeError

_SERVICE = "speciate.datasets.loading.marks:read_marks"
_CHUNK = 32  # files
_SECONDS = 300.0

Marks = npt.NDArray[np.float64]
"""(M + 1,) ascending: where each of M units begins in the modality's `window_unit`, and where the last one ends."""


def marks(pool: Pool, packs: Sequence[Path], modality: str, contents: Sequence[str], unit: str) -> Iterator[Marks]:
    """Of each file that `contents` names in `packs`, in order. INVALID where one cannot be read any more."""
    chunks = [contents[start : start + _CHUNK] for start in range(0, len(contents), _CHUNK)]
    about = {"modality": modality, "packs": [str(pack) for pack in packs], "unit": unit}
    with ThreadPoolExecutor(pool.size, thread_name_prefix="marks") as threads:
        for found in threads.map(lambda chunk: _ask(pool, about, chunk), chunks):
            yield from found


def read_marks(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {packs, modality, unit, contents} -> {file, counts, failure}.

    The file has the marks of the first of the contents, one after another; it ends before one that cannot be read.
    """
    kind, reader = find(payload["modality"]), kept_reader(tuple(payload["packs"]))
    path, counts, failure = Path.cwd() / "marks", list[int](), None
    with path.open("wb") as file:
        for content in payload["contents"]:
            try:
                found = np.asarray(kind.marks(reader.get(content), payload["unit"]), "<f8")
            except (DecodeError, SpeciateError) as error:
                failure = error.message if isinstance(error, SpeciateError) else str(error)
                break
            file.write(found.tobytes())
            counts.append(len(found))
    return {"file": path.name, "counts": counts, "failure": failure}


def _ask(pool: Pool, about: dict[str, Any], contents: Sequence[str]) -> list[Marks]:
    def read(path: Path, answer: dict[str, Any]) -> list[Marks]:
        """Checked: it comes from a process that met foreign bytes."""
        data, counts = path.read_bytes(), answer["counts"]
        if answer["failure"] is not None and len(counts) < len(contents):
            raise SpeciateError(
                Code.INVALID,
                f"A file cannot be read any more: {answer['failure']}",
                "Restore the packs from a backup of the workspace, or create the dataset again from its source.",
            )
        if len(counts) != len(contents) or min(counts) < 2 or 8 * sum(counts) != len(data):
            raise nonsense()
        found = np.split(np.frombuffer(data, "<f8"), np.cumsum(counts)[:-1])
        if not all(np.isfinite(each).all() and (np.diff(each) > 0).all() for each in found):
            raise nonsense()
        return found

    return pool.ask_for_file(_SERVICE, {**about, "contents": list(contents)}, read, _SECONDS)
