"""Examples of a version batch by batch, shuffled, for as many ranks as train together. Never opens the catalog.

Promises about the sequence of ids of an epoch:

- it is a pure function of the version, `splits`, `seed`, the epoch, `batch` and `world`: neither the number of workers
  nor the layout of files changes it;
- a consumer that stops after any batch, or is killed, and resumes in another process from the state of that batch gets
  exactly the rest: no example twice, none missing;
- ranks are disjoint and together cover all examples, without padding. Each rank gets as many batches as the others, all
  full but the last one, whose size differs between ranks by at most one (fewer examples than ranks: some get none);
- the state is the same for every rank after the same number of batches, so one of them may save it for all.

Every order of all examples is equally likely: no block of rows is shuffled as one. Sealed Parquet is compressed and
cannot be read row by row, so the needed columns are unpacked once into a file that the system maps into memory. The
file has no name once it is mapped, so it ends with its reader.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.loading.decoding import Decoder, Size
from speciate.datasets.loading.loader import Example, admit_media, examples, items, packs
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.workspace.scratch import scratch_folder
from speciate.workspace.workspace import Folders

_BLOCK_BYTES, _BLOCK_ROWS = 8 * 1024 * 1024, 8192
"""Rows fetched at once, then cut into batches."""

Batch = TypeVar("Batch")
Places = npt.NDArray[np.int64]
_BATCH = 16_384
_MEMORY = "256MB"


class Sequenced(TypedDict):
    """What the order of a stream's examples follows from."""

    version: str
    splits: list[str] | None
    seed: int
    shuffle: bool
    batch: int
    world: int


class StreamState(Sequenced):
    epoch: int
    step: int
    """Batches of the epoch that were delivered."""


class Stream:
    """`for batch in stream:` gives the rest of the current epoch as lists of examples and then moves on to the next.

    with Stream(folders, manifest, splits=["train"], batch=64, seed=7) as stream:
        stream.resume(saved)
        for batch in stream:
            learn(batch)
            saved = stream.state()

    `columns`: the user's columns that come with each example; None: all. `size`: height and width that images are
    brought to. `workers`: sandboxed processes that decode (default: one per core); they live until `close`. NOT_FOUND
    for a split or column that the version lacks.
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
        self._rows = map_rows(folders, manifest, list(dict.fromkeys(names)), splits)
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
        """Yields the batches as tables of fixed, hidden and user's columns; nothing is decoded."""
        return self._delivered(self._read_tables())

    def state(self) -> StreamState:
        """JSON: after which batch of which epoch this is, and of what."""
        return {**self._what(), "epoch": self._epoch, "step": self._step}

    def resume(self, state: Mapping[str, object]) -> None:
        """Continue after the batch at which `state` was taken. INVALID if it is of another sequence."""
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

    def _what(self) -> Sequenced:
        return {
            "version": self._manifest.id,
            "splits": self._splits,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "batch": self._batch,
            "world": self._world,
        }

    def _delivered(self, batches: Generator[Batch]) -> Generator[Batch]:
        """Counts delivered batches, not those that were read ahead."""
        with contextlib.closing(batches):
            for batch in batches:
                self._step += 1
                yield batch
        self._epoch, self._step = self._epoch + 1, 0

    def _read_examples(self) -> Generator[list[Example]]:
        if self._decoder is None:
            for table in self._read_tables():
                yield examples(table, admit_media(self._manifest, table), self._columns)
            return
        ahead, tables = itertools.tee(self._read_tables())
        with contextlib.closing(self._decoder.decode(item for table in ahead for item in items(table))) as media:
            for table in tables:
                yield examples(table, list(itertools.islice(media, table.num_rows)), self._columns)

    def _read_tables(self) -> Generator[pa.Table]:
        """Tables from the current step on. Rows are fetched for many batches at once."""
        table, places = self._rows
        if self._shuffle:
            places = places[epoch_order(self._manifest.id, self._seed, self._epoch, len(places))]
        rows_at_once = min(_BLOCK_ROWS, _BLOCK_BYTES * table.num_rows // max(table.nbytes, 1))
        steps_at_once = max(1, rows_at_once // self._batch)
        for first in range(self._step, len(self), steps_at_once):
            steps = range(first, min(first + steps_at_once, len(self)))
            shares = [rank_share(places, step, self._batch, self._rank, self._world) for step in steps]
            block, start = self._rows.take(np.concatenate(shares)), 0
            for own in shares:
                yield block.slice(start, len(own))
                start += len(own)


def _check(manifest: Manifest, noun: str, wanted: Collection[str], known: Collection[str]) -> None:
    for name in wanted:
        if name not in known:
            raise unknown(noun, name, known, next=[Call("describe_dataset", {"dataset": manifest.ref})])


def epoch_order(version: str, seed: int, epoch: int, count: int) -> Places:
    """A permutation of range(count): it sorts `count` numbers of 64 bits from Philox, equal ones in their first order.

    Philox's key is the first half of sha256 of the JSON list [version, seed, epoch]. The output of a bit generator is
    fixed for good (NEP 19), which numpy does not promise of `Generator.permutation`.
    """
    digest = hashlib.sha256(json.dumps([version, seed, epoch]).encode()).digest()
    numbers = np.random.Philox(key=np.frombuffer(digest[:16], "<u8")).random_raw(count)
    return np.argsort(numbers, kind="stable")


def step_count(count: int, batch: int, world: int) -> int:
    """How many batches each rank gets."""
    return -(-count // (batch * world))


def rank_share(places: Places, step: int, batch: int, rank: int, world: int) -> Places:
    """This rank's own of the next batch * world places: `batch` of them; of the last, shorter rest an equal part.

    Equal means that no two ranks differ by more than one, so with fewer than `world` left some ranks get none.
    """
    together = places[step * batch * world : (step + 1) * batch * world]
    return together[len(together) * rank // world : len(together) * (rank + 1) // world]


class MappedRows(NamedTuple):
    """Rows of a version in a file that the system maps into memory: read on demand, dropped if memory is short."""

    table: pa.Table
    """In no particular order."""
    sorted: Places
    """Where the rows lie in the table, in order of their ids."""

    def take(self, places: Places) -> pa.Table:
        """The rows at these places of the table. Chunk by chunk: Arrow would first make one piece of all text."""
        chunks = self.table.to_batches()
        starts = np.cumsum([0, *(chunk.num_rows for chunk in chunks)])
        order = np.argsort(places, kind="stable")
        ascending = places[order]
        bounds = np.searchsorted(ascending, starts)
        pieces = [
            chunk.take(pa.array(ascending[low:high] - start))
            for chunk, start, low, high in zip(chunks, starts, bounds, bounds[1:], strict=False)
            if high > low
        ]
        found = pa.Table.from_batches(pieces, self.table.schema).combine_chunks()
        return found.take(pa.array(np.argsort(order, kind="stable")))


def map_rows(
    folders: Folders, manifest: Manifest, columns: Sequence[str], splits: Collection[str] | None
) -> MappedRows:
    """The rows of quality ok, only of these splits if they are given; of `columns` those that the version has."""
    query = f"FROM {version_rows.relation(folders, manifest)}"
    folders.cache.mkdir(parents=True, exist_ok=True)
    with (
        scratch_folder(folders.cache) as folder,
        duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "temp_directory": str(folder)}) as connection,
    ):
        there = {row[0] for row in connection.execute(f"DESCRIBE {query}").fetchall()}
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns if name in there)
        wanted = ["quality = 'ok'"]
        if splits is not None:
            wanted.append(f"list_contains([{', '.join(map(version_rows.quoted, sorted(splits)))}]::VARCHAR[], split)")
        file = folder / "rows.arrow"
        reader = connection.sql(f"SELECT {names} {query} WHERE {' AND '.join(wanted)}").to_arrow_reader(_BATCH)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    return MappedRows(table, pc.sort_indices(table, [("id", "ascending")]).to_numpy().astype("int64"))
