"""Vectors of a version's rows, each computed once for all versions and datasets that hold the same medium.

For workers: what decodes does so in the cage; the rest is arrays. Flat in memory but for the vectors themselves.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate import features
from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.loading.decoding import Decoder
from speciate.datasets.loading.loader import admitted, items, packs
from speciate.datasets.similarity.descriptors import describe
from speciate.datasets.similarity.extractors import DESCRIPTOR, Extractor
from speciate.datasets.similarity.extractors import load as load_extractor
from speciate.datasets.versions import Manifest
from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.modalities.mixed.multimodal import PartName
from speciate.models.encoders import Vectors
from speciate.workspace.workspace import Folders

_BATCH = 512
"""Media that are decoded before a model embeds them."""
_PART_ROWS, _PART_SECONDS = 65_536, 30.0
"""What was computed is kept at the latest after so many, or so long."""


class Filled(NamedTuple):
    computed: int
    cached: int


def _silent(done: int, total: int) -> None:
    pass


def vectors(
    folders: Folders,
    manifest: Manifest,
    rows: pa.Table,
    extractor: str | None = None,
    progress: Callable[[int, int], None] = _silent,
    part: PartName | None = None,
) -> Vectors:
    """(N, D) float32 of usable rows, in their order: what is cached, the rest computed now and cached.

    `part`: of mixed rows that all have it, as if it were the whole. `extractor` None: the modality's descriptor.
    `progress(done, total)` counts what is computed and may raise to stop.
    Raises NOT_FOUND, INVALID or MISSING_EXTRA for the extractor, INVALID where a medium no longer decodes.
    """
    modality = part.modality if part else manifest.modality
    chosen = load_extractor(extractor or DESCRIPTOR, modality, folders, cores())
    fill(folders, manifest, rows, chosen, progress, part)
    cached = features.read(folders, chosen.id, keys(rows, part))
    if not cached.known.all():
        raise SpeciateError(
            Code.UNAVAILABLE,
            "Vectors that were just computed are gone: something removed them meanwhile.",
            "Repeat the call.",
        )
    return cached.vectors


def fill(
    folders: Folders,
    manifest: Manifest,
    rows: pa.Table,
    extractor: Extractor,
    progress: Callable[[int, int], None] = _silent,
    part: PartName | None = None,
) -> Filled:
    """Compute and cache the vectors that usable rows lack. What was computed is kept, whatever ends it."""
    names = keys(rows, part)
    lacking = missing(folders, extractor, names)
    rest, names = rows.take(pa.array(lacking)), names.take(pa.array(lacking))
    waiting: list[Vectors] = []
    written = done = 0
    since = time.monotonic()

    def keep() -> None:
        nonlocal written, since
        if done > written:
            features.write(folders, extractor.id, names.slice(written, done - written), np.concatenate(waiting))
        waiting.clear()
        written, since = done, time.monotonic()

    try:
        for computed in _computed(folders, manifest, rest, extractor, part):
            waiting.append(computed)
            done += len(computed)
            if done - written >= _PART_ROWS or time.monotonic() - since >= _PART_SECONDS:
                keep()
            progress(done, rest.num_rows)
    finally:
        keep()
    return Filled(done, rows.num_rows - done)


def missing(folders: Folders, extractor: Extractor, names: pa.Array) -> npt.NDArray[np.int64]:
    """Places of the keys without a vector, each key once."""
    lacking = np.flatnonzero(~features.known(folders, extractor.id, names))
    codes = np.asarray(names.take(pa.array(lacking)).dictionary_encode().indices)
    return lacking[np.sort(np.unique(codes, return_index=True)[1])].astype(np.int64)


def keys(rows: pa.Table, part: PartName | None = None) -> pa.Array:
    """(N,) under what the vectors are cached: the content, which part and which window of it the example is."""
    content = rows[CONTENT].combine_chunks()
    content = content if part is None else pc.binary_join_element_wise(content, str(part), "#")
    if START not in rows.column_names or rows[START].null_count == rows.num_rows:
        return content
    bounds = [rows[name].combine_chunks().cast(pa.string()) for name in (START, STOP)]
    windows = pc.binary_join_element_wise(content, *bounds, ":")
    return pc.coalesce(windows, content)


def _computed(
    folders: Folders, manifest: Manifest, rows: pa.Table, extractor: Extractor, part: PartName | None
) -> Iterator[Vectors]:
    """(B, D) at a time, in the order of the rows."""
    if extractor.caged:
        yield from describe(folders, manifest, rows, part)
        return
    for whole in _media(folders, manifest, rows):
        media = whole if part is None else [media[str(part)] for media in whole]
        batches = list(extractor.embed(media))
        order = np.concatenate([places for places, _ in batches])
        found = np.empty((len(media), batches[0][1].shape[1]), np.float32)
        found[order] = np.concatenate([batch for _, batch in batches])
        yield found


def _media(folders: Folders, manifest: Manifest, rows: pa.Table) -> Iterator[list[Any]]:
    if manifest.inputs:
        for start in range(0, rows.num_rows, _BATCH):
            yield admitted(manifest, rows.slice(start, _BATCH))
        return
    with Decoder(folders, packs(folders, manifest), manifest.modality) as decoder:
        decoded = decoder.decode(items(rows))
        while media := list(itertools.islice(decoded, _BATCH)):
            yield media
