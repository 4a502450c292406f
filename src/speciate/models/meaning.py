"""What models are for as vectors, by the packaged encoder of sentences, where it is installed.

The texts of the index are embedded by a job (`speciate refresh`), each once: the file of vectors is kept by the digests
of the texts, so a newer index embeds what is new. A query is embedded in a process of the pool. Neither happens in the
daemon, which only multiplies.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate.models import packaged
from speciate.models.encoders import Encoder, load_encoder

PACKAGE = "minilm"
_FILE = "meanings.npz"
_LONGEST = 240
"""Characters of a text that are embedded: what a model is for stands at the beginning, and long texts take long."""
_FORM = "1"
"""Raise it where `texts` says other things: then all are embedded anew."""

Vectors = npt.NDArray[np.float32]


class Meanings(NamedTuple):
    """`vectors` (N, width) of unit length, zeros where a text has none yet; `encoder` names what computed them."""

    vectors: Vectors
    encoder: str


def file(folder: Path) -> Path:
    """Where the vectors of a workspace's index are, below `cache/models/`."""
    return folder / _FILE


def texts(table: pa.Table) -> list[str]:
    """What is embedded of each model (index.SCHEMA)."""
    columns = (table[name].to_pylist() for name in ("ref", "what", "tasks", "modalities"))
    return [
        f"{' '.join((*(tasks or ()), *(modalities or ())))}: {what or ref}"[:_LONGEST]
        for ref, what, tasks, modalities in zip(*columns, strict=True)
    ]


def read(folder: Path, wanted: Sequence[str]) -> Meanings | None:
    """The vectors of these texts; None where none were made, or the encoder is not installed any more."""
    path = file(folder)
    if not path.is_file() or not packaged.installed(PACKAGE):
        return None
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            digests, vectors, encoder = kept["digests"], kept["vectors"], str(kept["encoder"])
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
    asked = _digests(wanted)
    places = np.searchsorted(digests, asked) if len(digests) else np.zeros(len(asked), int)
    places = np.minimum(places, max(len(digests) - 1, 0))
    found = np.zeros((len(asked), vectors.shape[1]), np.float32)
    known = digests[places] == asked if len(digests) else np.zeros(len(asked), bool)
    found[known] = vectors[places[known]]
    return Meanings(found, encoder)


def embed(folder: Path, wanted: Sequence[str], progress: Callable[[int, int], None]) -> int:
    """Keep in `folder` the vectors of these texts, and compute those that it lacks. Returns how many were computed.

    `progress(done, total)` may raise to stop: what was computed until then is kept. Runs in a worker: it loads a
    network."""
    encoder = _encoder()
    before = read(folder, wanted)
    if before is not None and before.encoder == encoder.id:
        vectors = before.vectors
        missing = np.flatnonzero(~vectors.any(axis=1))
    else:
        vectors, missing = np.zeros((len(wanted), encoder.width), np.float32), np.arange(len(wanted))
    done = 0
    try:
        for places, made in encoder.embed([wanted[place] for place in missing.tolist()]):
            vectors[missing[places]] = made
            done += len(places)
            progress(done, len(missing))
    finally:
        if done or before is None:
            _keep(file(folder), wanted, vectors, encoder.id)
    return done


def _keep(target: Path, wanted: Sequence[str], vectors: Vectors, encoder: str) -> None:
    there = vectors.any(axis=1)
    digests, first = np.unique(_digests(wanted)[there], return_index=True)
    kept = vectors[there][first].astype(np.float16)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.npz")
    np.savez(temporary, digests=digests, vectors=kept, encoder=np.array(encoder))
    temporary.replace(target)


def embed_query(payload: dict[str, Any]) -> dict[str, Any]:
    """A service of the pool: the vector of `payload["text"]`, and the encoder that made it."""
    encoder = _encoder()
    ((_, vectors),) = encoder.embed([str(payload["text"])[:_LONGEST]])
    return {"encoder": encoder.id, "vector": [round(float(number), 6) for number in vectors[0]]}


@cache
def _encoder() -> Encoder:
    """In one precision, so that vectors of a job and of the pool, and of other machines, are the same."""
    return load_encoder(f"pkg:{PACKAGE}", precision="float32")


def _digests(wanted: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([hashlib.sha256(f"{_FORM}{text}".encode()).digest()[:15] + b"." for text in wanted], "S16")
