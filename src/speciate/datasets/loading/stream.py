"""Examples of a version batch by batch, shuffled, for as many ranks as train together. Never opens the catalog.

What is promised of the sequence of ids of an epoch:

- it is a pure function of the version, `splits`, `seed`, the epoch, `batch` and `world`: neither the number of workers
  nor the layout of files changes it;
- who stops after any batch, or is killed, and resumes in another process from the state of that batch gets exactly the
  rest: no example twice, none missing;
- ranks are disjoint and together cover all examples, without padding. Each rank gets as many batches as the others, all
  full but the last one, whose size differs between ranks by at most one (fewer examples than ranks: some get none);
- the state is the same for every rank after the same number of batches, so one of them may save it for all.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.loading.decoding import Decoder, Size
from speciate.datasets.loading.loader import Example, admitted, examples, items, packs
from speciate.datasets.loading.mapped_rows import mapped
from speciate.datasets.loading.shuffling import order, share, step_count
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, unknown
from speciate.workspace.workspace import Folders

_BLOCK_BYTES, _BLOCK_ROWS = 8 * 1024 * 1024, 8192
"""So much is fetched from the rows at once, then cut into batches."""

Batch = TypeVar("Batch")


class Stream:
    """`for batch in stream:` gives the rest of the current epoch as lists of examples and then moves on to the next.

    with Stream(folders, manifest, splits=["train"], batch=64, seed=7) as stream:
        stream.resume(saved)
        for batch in stream:
            learn(batch)
            saved = stream.state()

    `columns`: the user's columns that come with each example; None: all. `size`: height and width that images are
    brought to. `workers`: caged processes that decode (default: one per core); they live until `close`. NOT_FOUND for a
    split or column that the version lacks.
    """

    def __init__(
        self,
        folders: Folders,
        manifest: Manifest,
        *,
        batch: int,
        splits: Collection[str] | None = None,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        ahead: int = 2,
        columns: Sequence[str] | None = None,
        size: Size | None = None,
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            raise SpeciateError(
                Code.INVALID,
                f"batch={batch}, rank={rank}, world={world}: a batch holds an example, ranks go from 0 to world - 1.",
            )
        if size is not None and manifest.modality != "image":
            raise SpeciateError(Code.INVALID, f"size={size} is for images; {manifest.ref} holds {manifest.modality}.")
        self._columns = list(manifest.columns) if columns is None else list(columns)
        _check(manifest, "split", splits or (), manifest.splits)
        _check(manifest, "column", self._columns, manifest.columns)
        own = () if manifest.inputs else (CONTENT,)
        names = ("id", "label", "group_key", "split", *own, START, STOP, *manifest.inputs, *self._columns)
        self._rows = mapped(folders, manifest, list(dict.fromkeys(names)), splits)
        self._manifest, self._batch, self._rank, self._world = manifest, batch, rank, world
        self._seed, self._shuffle = seed, shuffle
        self._splits = None if splits is None else sorted(splits)
        self._epoch, self._step = epoch, 0
        self._decoder = None
        if not manifest.inputs:
            place = packs(folders, manifest)
            self._decoder = Decoder(folders, place, manifest.modality, workers=workers, ahead=ahead, size=size)

    def __len__(self) -> int:
        """Batches of one epoch."""
        return step_count(len(self._rows.sorted), self._batch, self._world)

    def __iter__(self) -> Iterator[list[Example]]:
        return self._delivered(self._read_examples())

    def tables(self) -> Iterator[pa.Table]:
        """The same batches as tables of fixed, hidden and user's columns; nothing is decoded."""
        return self._delivered(self._read_tables())

    def state(self) -> dict[str, Any]:
        """JSON: after which batch of which epoch this is, and of what."""
        return self._what() | {"epoch": self._epoch, "step": self._step}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on after the batch at which `state` was taken. INVALID where it was taken of another sequence."""
        other = [
            f"{name} {state.get(name)!r}, not {value!r}"
            for name, value in self._what().items()
            if state.get(name) != value
        ]
        if other:
            raise SpeciateError(
                Code.INVALID,
                f"The state is of another sequence of examples: it has {'; '.join(other)}.",
                "Open the stream with the version and the parameters that the state names, or start an epoch anew.",
            )
        epoch, step = state.get("epoch"), state.get("step")
        if not (isinstance(epoch, int) and isinstance(step, int) and epoch >= 0 and 0 <= step <= len(self)):
            raise SpeciateError(
                Code.INVALID,
                f"The state names batch {step!r} of epoch {epoch!r}, and an epoch has {len(self)} batches.",
            )
        self._epoch, self._step = epoch, step

    def close(self) -> None:
        """End the processes that decode."""
        if self._decoder is not None:
            self._decoder.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _what(self) -> dict[str, Any]:
        return {
            "version": self._manifest.id,
            "splits": self._splits,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "batch": self._batch,
            "world": self._world,
        }

    def _delivered(self, batches: Generator[Batch]) -> Generator[Batch]:
        """Counts what was handed over, not what was read ahead."""
        with contextlib.closing(batches):
            for batch in batches:
                self._step += 1
                yield batch
        self._epoch, self._step = self._epoch + 1, 0

    def _read_examples(self) -> Generator[list[Example]]:
        if self._decoder is None:
            for table in self._read_tables():
                yield examples(table, admitted(self._manifest, table), self._columns)
            return
        ahead, tables = itertools.tee(self._read_tables())
        with contextlib.closing(self._decoder.decode(item for table in ahead for item in items(table))) as media:
            for table in tables:
                yield examples(table, list(itertools.islice(media, table.num_rows)), self._columns)

    def _read_tables(self) -> Generator[pa.Table]:
        """From the current step on. Rows are fetched for many batches at once."""
        table, places = self._rows
        if self._shuffle:
            places = places[order(self._manifest.id, self._seed, self._epoch, len(places))]
        rows_at_once = min(_BLOCK_ROWS, _BLOCK_BYTES * table.num_rows // max(table.nbytes, 1))
        steps_at_once = max(1, rows_at_once // self._batch)
        for first in range(self._step, len(self), steps_at_once):
            steps = range(first, min(first + steps_at_once, len(self)))
            shares = [share(places, step, self._batch, self._rank, self._world) for step in steps]
            block, start = self._rows.take(np.concatenate(shares)), 0
            for own in shares:
                yield block.slice(start, len(own))
                start += len(own)


def _check(manifest: Manifest, noun: str, wanted: Collection[str], known: Collection[str]) -> None:
    for name in wanted:
        if name not in known:
            raise unknown(noun, name, known, f"Call describe_dataset(dataset={manifest.ref!r}).")
