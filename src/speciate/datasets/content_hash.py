"""Content hashes: rows as Parquet files that never change, named by their content, and LtHash over all rows of a
version.

LtHash (1,024 lanes of 16 bits) is an order-free, incremental hash of a multiset. The hash of a version is the lane-wise
sum of the hashes of its rows' digests, so adding or removing rows costs only those rows, and neither order nor history
matters. The version's id is the sha256 of the lanes. Source: Bellare and Micciancio's AdHash; Lewi et al., "Securing
Update Propagation with Homomorphic Hashing" (2019), with its parameters. What makes lanes of a digest is SHAKE-128 or
AES instead of BLAKE2X: `hashing` of a manifest says which.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from speciate.datasets.columns import PROVENANCE
from speciate.datasets.row_json import canonical_rows
from speciate.workspace.blobs import make_folder, sync_folder

_ROW_GROUPS = 64
"""Row groups of a file, where none gets fewer or more rows than below. Rows lie by id, so that a question for few ids,
or with few answers, passes most of them over; each one costs a reader a look at its place and its bounds."""
_LEAST_GROUP, _MOST_GROUP = 16_384, 122_880
_PAGE, _PAGE_ROWS = 1 << 15, 1024
"""Bytes and rows of a page: what a few rows of a group need is unpacked, and not all of it."""
_SAMPLE = 4096
"""Rows by which a column is judged."""
_BATCH = 16_384
_BATCH_BYTES = 32 << 20
LANES = 1024
HASHING = 2
"""How new versions hash; a version that comes of another one hashes as that one does, so that ids can be compared."""
_BLOCK = 16
_BLOCKS = 2 * LANES // _BLOCK
_AT_ONCE = 256
"""Rows: what is made of them stays in a processor's cache."""
Lanes = npt.NDArray[np.uint16]  # (1024,)


def seal_rows(table: pa.Table, folder: Path) -> Path:
    """The path of the sealed file in `folder`, on disk and read-only on return. The same rows: the same file."""
    make_folder(folder)
    temporary = folder / f".rows.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            row_group_size=max(_LEAST_GROUP, min(table.num_rows // _ROW_GROUPS, _MOST_GROUP)),
            data_page_size=_PAGE,
            write_batch_size=_PAGE_ROWS,
            use_dictionary=_repeating(table),
        )
        with temporary.open("rb") as file:
            target = folder / f"{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.parquet"
            if target.exists():
                os.utime(target)  # it may have been garbage until now: it is as young as what names it
                sync_folder(folder)  # who put it there may have been killed before that
                return target
            os.fsync(file.fileno())
        temporary.chmod(0o444)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)
    return target


def _repeating(table: pa.Table) -> bool | list[str]:
    """The columns, as Parquet calls them, that a dictionary is worth its time for: not those of ever other values."""
    if table.num_rows < _SAMPLE:
        return True
    head = table.slice(0, _SAMPLE)
    other = {
        field.name
        for field in table.schema
        if not pa.types.is_nested(field.type) and 2 * len(head[field.name].unique()) > _SAMPLE
    }
    empty = pa.BufferOutputStream()
    pq.write_table(table.slice(0, 0), empty)
    schema = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [path for place in range(len(schema)) if (path := schema.column(place).path) not in other]


def row_digests(table: pa.Table) -> Iterator[bytes]:
    """sha256 of each row: content, label, group, split, quality and the user's columns, without provenance.

    Neither an empty cell nor the type of a numeric column changes the digest: both change when rows are added.
    """
    names = [name for name in table.column_names if name not in PROVENANCE]
    if not names:
        return
    for batch in table.select(names).to_batches(_rows_at_once(table)):
        rows = canonical_rows(batch)
        data, ends = memoryview(rows.buffers()[2]), np.frombuffer(rows.buffers()[1], np.int64)[: len(rows) + 1].tolist()
        yield from [hashlib.sha256(data[start:end]).digest() for start, end in pairwise(ends)]


def _rows_at_once(table: pa.Table) -> int:
    """Rows at once: so many that their JSON stays small, however long texts are."""
    return int(max(1, min(_BATCH, _BATCH_BYTES * table.num_rows // max(table.nbytes, 1))))


def lanes(digests: Iterable[bytes], hashing: int = HASHING) -> Lanes:
    """The sum of the lanes of all rows. `digests`: 32 bytes each; a row that occurs twice counts twice.

    `hashing`: how a digest becomes lanes, as the manifest of the version says; 1 or 2.
    """
    expand: Callable[[Sequence[bytes]], Lanes] = _Shake() if hashing == 1 else _Aes()
    total = np.zeros(LANES, np.uint16)
    rest = iter(digests)
    while some := list(islice(rest, _AT_ONCE)):
        total += expand(some).sum(axis=0, dtype=np.uint16)  # wraps modulo 2**16
    return total


class _Shake:
    """Hashing 1: SHAKE-128 of the digest, 2 KiB of it."""

    def __call__(self, digests: Sequence[bytes]) -> Lanes:
        hashed = b"".join([hashlib.shake_128(digest).digest(2 * LANES) for digest in digests])
        return np.frombuffer(hashed, "<u2").reshape(-1, LANES)


class _Aes:
    """Hashing 2: of the halves a, b of a digest, and for each block i, with two public permutations P and Q:

        w = P(a ^ i) ^ b,   block i = Q(w) ^ w

    P and Q are AES-128 under fixed keys, so that many rows are one call. docs/design/versions.md says why it is safe.
    """

    def __init__(self) -> None:
        keys = [hashlib.sha256(f"speciate rows {name}".encode()).digest()[:16] for name in "PQ"]
        # No message is encrypted: a permutation is what ECB is for one block.
        self._p, self._q = (Cipher(algorithms.AES(key), modes.ECB()).encryptor() for key in keys)
        numbers = np.zeros((_BLOCKS, _BLOCK), np.uint8)
        numbers[:, -1] = np.arange(_BLOCKS)
        self._numbers = numbers.view(np.uint64).ravel()  # of all blocks of a row
        shape = (_AT_ONCE, 2 * LANES // 8)
        self._blocks, self._repeated = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
        self._permuted = np.empty(_AT_ONCE * 2 * LANES + _BLOCK, np.uint8)  # OpenSSL wants a block more

    def __call__(self, digests: Sequence[bytes]) -> Lanes:
        halves = np.frombuffer(b"".join(digests), f"V{_BLOCK}").reshape(-1, 2)
        blocks, repeated = self._blocks[: len(digests)], self._repeated[: len(digests)]
        repeated.view(halves.dtype)[:] = halves[:, :1]  # a, in each block of its row
        np.bitwise_xor(repeated, self._numbers, out=blocks)
        repeated.view(halves.dtype)[:] = halves[:, 1:]
        np.bitwise_xor(self._permute(self._p, blocks), repeated, out=blocks)
        blocks ^= self._permute(self._q, blocks)
        return blocks.view("<u2")

    def _permute(self, permutation: CipherContext, blocks: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Each block of 16 bytes; to be used before the next call."""
        count = permutation.update_into(blocks.view(np.uint8).reshape(-1).data, self._permuted.data)
        return self._permuted[:count].view(np.uint64).reshape(blocks.shape)


def version_id(total: Lanes) -> str:
    """The sha256 that names a version, the same on machines of any byte order."""
    return hashlib.sha256(pack_lanes(total)).hexdigest()


def pack_lanes(total: Lanes) -> bytes:
    """The lanes as they are stored: 2 KiB, little-endian."""
    return total.astype("<u2").tobytes()


def unpack_lanes(data: bytes) -> Lanes:
    return np.frombuffer(data, "<u2").astype(np.uint16)
