"""The neighbours of an example or a text; the daemon's side. Vectors that are missing are a job's work."""

from __future__ import annotations

import base64
import time
from typing import Any, NamedTuple

from speciate.datasets.similarity import extractors
from speciate.datasets.similarity.nearest import SHOWN
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job, State
from speciate.jobs.pool import Pool
from speciate.modalities import find as find_modality
from speciate.workspace.workspace import Folders

_NEAREST = "speciate.datasets.similarity.nearest:nearest"
_DRAW = "speciate.datasets.look.contact_sheet:draw_thumbnails"
_WAIT_SECONDS = 15.0
_SECONDS = 35.0
"""Of the whole call but for the picture: a model that a text needs may take half of it to load."""
_MOST_DRAWN = 36


class Question(NamedTuple):
    """What is nearest to example `id`, or to `text`, among the usable examples, of one split where that is named?"""

    id: str | None
    text: str | None
    extractor: str | None
    split: str | None
    k: int


class Neighbours(NamedTuple):
    """`nearest`: ids with their distance, 1 - cosine. `rows`: foreign text, first the example that was asked about.

    `picture`: PNG of the same examples in the same order; None where they are cells of a table.
    """

    extractor: str
    nearest: list[tuple[str, float]]
    columns: tuple[str, ...]
    rows: list[list[Any]]
    picture: bytes | None


def find(engine: Engine, pool: Pool, manifest: Manifest, question: Question) -> Neighbours | Job:
    """The neighbours, or the job that embeds the version where that takes longer than one may wait.

    Raises INVALID, NOT_FOUND or MISSING_EXTRA for the question, UNAVAILABLE where the job failed.
    """
    if (question.id is None) == (question.text is None):
        raise SpeciateError(
            Code.INVALID,
            "Neither id nor text was given." if question.id is None else "Both id and text were given.",
            "Call find_similar with one of them.",
        )
    name = extractors.resolve(question.extractor, manifest.modality, engine.workspace)
    folders = engine.workspace.folders
    payload = {
        "root": str(folders.root),
        "manifest": manifest.model_dump(mode="json"),
        **question._asdict(),
        "extractor": name,
    }
    end = time.monotonic() + _SECONDS
    answer = pool.ask(_NEAREST, payload, _SECONDS)
    if "missing" in answer:
        job = engine.wait(_embedding(engine, manifest, name, answer["extractor"]).id, timeout=_WAIT_SECONDS)
        if job.state not in ENDED:
            return job
        answer = _after(job, pool, payload, max(end - time.monotonic(), 1))
    nearest = [(str(id), float(distance)) for id, distance in answer["neighbours"]]  # noqa: A001 - the field
    picture = _picture(pool, folders, manifest, [row[0] for row in answer["rows"]])
    return Neighbours(name, nearest, SHOWN, answer["rows"], picture)


def _embedding(engine: Engine, manifest: Manifest, name: str, extractor: str) -> Job:
    """The job that is at it, or a new one: a key for each time that it was needed."""
    spec, number = {"dataset": manifest.ref, "extractor": name}, 0
    while True:
        job = engine.submit("embed", spec, key=f"embed/{manifest.ref}/{manifest.id[:16]}/{extractor}/{number}")
        if job.state not in ENDED:
            return job
        number += 1


def _after(job: Job, pool: Pool, payload: dict[str, Any], timeout: float) -> dict[str, Any]:
    if job.state != State.SUCCEEDED:
        why = (job.error or {}).get("message") or job.reason or job.state
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The examples could not be embedded: {why}",
            f"Call get_job(job={job.id!r}), or find_similar with another extractor.",
        )
    answer = pool.ask(_NEAREST, payload, timeout)
    if "missing" in answer:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"{answer['missing']:,} examples have no vector although {job.id} has ended.",
            "Repeat the call.",
        )
    return answer


def _picture(pool: Pool, folders: Folders, manifest: Manifest, ids: list[str]) -> bytes | None:
    if manifest.inputs and find_modality(manifest.modality).window_unit is None:
        return None
    payload = {
        "root": str(folders.root),
        "manifest": manifest.model_dump(mode="json"),
        "ids": ids[:_MOST_DRAWN],
    }
    return base64.b64decode(pool.ask(_DRAW, payload)["png"])
