"""Near-duplicates: which examples are nearly the same, by their sketches, and which one of a cluster leads it.

Every caller searches here: splits (splits.py), the operation `deduplicate`, and the evaluation, for test rows that a
model has nearly seen. Whether two sketches are near is decided by the modality: `grep "def near" modalities/`. Mixed
rows that are near in any part stay on one side of a split and count as seen; `deduplicate`, which throws rows away,
wants them near in every part. By vectors, `deduplicate` uses `leaders_by_cosine`.

Sketches that share a key are candidates, and candidates are compared whole: locality-sensitive hashing (Indyk and
Motwani 1998). It finds the pairs that the keys promise, with two exceptions that hardly change a cluster. Equal
sketches are paired with the first of them only, so that a million blank pages make a million pairs. In a crowd (a key
that very many share) each sketch is compared with the next ones only, in the order of the sketches.

For `deduplicate` a cluster has a leader that each member is near: items come in an order of preference, and one that is
near no leader so far becomes one (leader clustering, Hartigan 1975). So no chain of near pairs joins items that are not
alike. For splits a chain does join them (`clusters`, single link): two near examples must never be on two sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.similarity import known_pairs
from speciate.modalities import connected_components
from speciate.modalities.contract import PackedCodes, PairwiseSimilarity, Sketches, Sketching, SketchingByPart
from speciate.modalities.hashing import mix
from speciate.workspace.workspace import Folders

_COMPARISONS = 20_000_000
"""Limit of comparisons within crowds, all items and keys together; but see `_LEAST`."""
_LEAST = 32
"""Items of its crowd with which each item is compared at least, whatever that takes."""
_MANY = 2_000_000
"""Pairs from which on only pairs that join separate clusters are searched."""
_CHUNK = 1 << 16

Places = npt.NDArray[np.int64]
_BLOCK = 2048


def near_duplicate_pairs(
    sketches: pa.ChunkedArray | Sequence[bytes | None],
    sketching: Sketching | SketchingByPart | PairwiseSimilarity,
    threshold: float | None = None,
    part: str | None = None,
    folders: Folders | None = None,
) -> Places:
    """(M, 2) places of near-duplicates, the smaller first, in ascending order; a null is near nothing. `part`: of
    mixed rows the part that is compared, instead of all. `folders`: of the workspace that remembers the answer.

    Complete as far as `sketching.keys` is, where the same key is shared by at most 32 different sketches, or by at most
    20,000,000 / (sketches x keys) of them if that is more. From 2,000,000 pairs on further ones are left out where
    others join the same clusters. A `PairwiseSimilarity` defines its own pairs.
    """
    if isinstance(sketching, PairwiseSimilarity):
        return _pairs_by_similarity(_array(sketches, pa.large_binary()), sketching, threshold, folders)
    if isinstance(sketching, SketchingByPart):
        whole = sketches.to_pylist() if isinstance(sketches, pa.ChunkedArray) else sketches
        columns = sketching.columns(whole, part).values()
        each = [
            near_duplicate_pairs(column.sketches, column.sketching, threshold, folders=folders) for column in columns
        ]
        return np.unique(np.concatenate([np.zeros((0, 2), np.int64), *each]), axis=0)
    places, codes = _matrix(sketches, sketching.width)
    firsts, inverse = _distinct(codes)
    same = np.stack([places[firsts[inverse]], places], axis=1)
    repeated = np.flatnonzero(firsts[inverse] != np.arange(len(codes)))
    repeated = repeated[_compared(codes, repeated, repeated, sketching, threshold)]
    firsts = firsts[_by_first_bytes(codes[firsts])]
    different = codes[firsts]
    found = known_pairs.ask(
        sketching, threshold, different, lambda: _near_pairs(different, sketching, threshold), folders
    )
    together = np.concatenate([same[repeated], places[firsts][found]])
    together.sort(axis=1)
    return together[np.lexsort((together[:, 1], together[:, 0]))]


def near_any_of(
    mine: pa.ChunkedArray | Sequence[bytes | None],
    theirs: pa.ChunkedArray | Sequence[bytes | None],
    sketching: Sketching | SketchingByPart | PairwiseSimilarity,
    folders: Folders | None = None,
) -> npt.NDArray[np.bool_]:
    """(len(mine),) whether each is near one of `theirs`, however many of either are equal: the pairs of all of them
    would link equal sketches to their first alone. A null is near nothing. It is as complete as those pairs are: in a
    crowd, a near one may be passed over."""
    mine, theirs = _array(mine), _array(theirs)
    if isinstance(sketching, SketchingByPart):
        near = np.zeros(len(mine), bool)
        for column in sketching.columns([*mine.to_pylist(), *theirs.to_pylist()]).values():
            near |= near_any_of(column.sketches[: len(mine)], column.sketches[len(mine) :], column.sketching, folders)
        return near
    encoded = pa.concat_arrays([mine, theirs]).dictionary_encode()
    if not len(encoded.dictionary):
        return np.zeros(len(mine), bool)
    kinds = np.asarray(encoded.indices.fill_null(-1), np.int64)
    own, different = kinds[: len(mine)], encoded.dictionary
    there = np.isin(np.arange(len(different)), kinds[len(mine) :])
    both = np.unique(own[(own >= 0) & there[own]])  # twice in the list, for equal sketches need not be near
    twice = pa.chunked_array([different, different.take(pa.array(both))])
    pairs = near_duplicate_pairs(twice, sketching, folders=folders)
    a, b = np.concatenate([np.arange(len(different)), both])[pairs].T
    found = np.zeros(len(different), bool)
    found[a[there[b]]] = True
    found[b[there[a]]] = True
    return (own >= 0) & found[own]


def clusters(count: int, pairs: Places) -> Places:
    """(count,) the number of each item's connected component, from 0, in the order of their first items."""
    return connected_components.clusters(count, pairs[:, 0], pairs[:, 1])


def _pairs_by_similarity(
    codes: pa.LargeBinaryArray, similarity: PairwiseSimilarity, threshold: float | None, folders: Folders | None
) -> Places:
    """(M, 2) places of near codes. Equal codes are compared once, in an order that does not depend on the input's."""
    places = np.flatnonzero(np.asarray(codes.is_valid()))
    if not len(places):
        return np.zeros((0, 2), np.int64)
    codes = codes.drop_null() if codes.null_count else codes
    order = np.asarray(pc.sort_indices(codes), np.int64)  # equal ones in the order of their places
    codes = codes.take(pa.array(order))
    starts = np.append(True, np.asarray(pc.not_equal(codes[1:], codes[:-1]), bool))
    different = np.cumsum(starts) - 1
    firsts, places = places[order[starts]], places[order]  # of each code
    same = np.stack([firsts[different], places], axis=1)[~starts]
    packed = _packed(codes if starts.all() else codes.filter(pa.array(starts)))
    del codes, order, different, places
    among = known_pairs.ask(similarity, threshold, packed, lambda: similarity.pairs(packed, threshold), folders)
    found = firsts[among]
    together = np.sort(np.concatenate([same, found]), axis=1)
    return together[np.lexsort((together[:, 1], together[:, 0]))]


def _packed(codes: pa.LargeBinaryArray) -> PackedCodes:
    _, offsets, data = codes.buffers()
    starts = np.frombuffer(offsets, np.int64)[codes.offset : codes.offset + len(codes) + 1]
    return PackedCodes(np.frombuffer(data or b"", np.uint8), starts)


def _near_pairs(codes: Sketches, sketching: Sketching, threshold: float | None) -> Places:
    """(M, 2) among different sketches."""
    count = len(codes)
    keys = sketching.keys(codes)  # (N, B)
    reach = max(_COMPARISONS // max(keys.size, 1), _LEAST)
    found = [np.zeros((0, 2), np.int64)]
    size, cluster = 0, None
    for candidates in _each_once(_candidates(keys, reach), count):
        pair = candidates
        if cluster is not None:
            pair = pair[cluster[pair[:, 0]] != cluster[pair[:, 1]]]
        pair = pair[_compared(codes, pair[:, 0], pair[:, 1], sketching, threshold)]
        if not len(pair):
            continue
        found.append(pair)
        size += len(pair)
        if cluster is not None:
            cluster = clusters(int(cluster.max()) + 1, cluster[pair])[cluster]
        elif size > _MANY:
            found = [_unique(np.concatenate(found), count)]
            size = len(found[0])
            cluster = clusters(count, found[0]) if size > _MANY else None
    return _unique(np.concatenate(found), count)


def _compared(
    codes: Sketches, first: Places, second: Places, sketching: Sketching, threshold: float | None
) -> npt.NDArray[np.bool_]:
    """(M,), by chunks: the rows of a million pairs at once would take gigabytes."""
    parts = [
        sketching.near(codes[first[start : start + _CHUNK]], codes[second[start : start + _CHUNK]], threshold)
        for start in range(0, len(first), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _candidates(keys: npt.NDArray[np.uint64], reach: int) -> Iterator[tuple[Places, Places]]:
    """Pairs of rows, the smaller first, that agree in a column of `keys` and stand within `reach` in its crowd."""
    count, columns = keys.shape
    bits = np.uint64(max(count - 1, 1).bit_length())
    row = np.arange(count, dtype=np.uint64)
    for column in range(columns):
        # A number of key and row sorts faster than rows by key. Where two keys come together, `near` tells them apart.
        sorted_ = np.sort(((mix(keys[:, column]) >> bits) << bits) | row)
        rows = (sorted_ & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
        key = sorted_ >> bits
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])) if count else np.zeros(0, np.int64)
        sizes = np.diff(np.append(starts, count))
        after = np.repeat(starts + sizes, sizes) - np.arange(count) - 1  # how many of its crowd follow each
        yield from _following(rows, np.minimum(after, reach))


def _each_once(chunks: Iterator[tuple[Places, Places]], count: int) -> Iterator[Places]:
    """(M, 2): small chunks together, for pairs that are near share several keys."""
    kept, size = [np.zeros((0, 2), np.int64)], 0
    for first, second in chunks:
        if size + len(first) > _CHUNK:
            yield _unique(np.concatenate(kept), count)
            kept, size = [], 0
        kept.append(np.stack([first, second], axis=1))
        size += len(first)
    yield _unique(np.concatenate(kept), count)


def _following(rows: Places, after: Places) -> Iterator[tuple[Places, Places]]:
    """Each of `rows` with the `after` ones that follow it, in chunks."""
    having = np.flatnonzero(after)
    after = after[having]
    ends = np.cumsum(after)
    begin = 0
    while begin < len(having):
        done = ends[begin] - after[begin]
        end = max(int(np.searchsorted(ends, done + _CHUNK, side="right")), begin + 1)
        times = after[begin:end]
        left = np.repeat(having[begin:end], times)
        step = np.arange(1, len(left) + 1) - np.repeat(ends[begin:end] - times - done, times)
        yield rows[left], rows[left + step]
        begin = end


def _unique(pairs: Places, count: int) -> Places:
    """Each pair once: as one number it is sorted faster than as a row. A million rows fit: 2**40 is below 2**63."""
    return np.stack(np.divmod(np.unique(pairs[:, 0] * count + pairs[:, 1]), max(count, 1)), axis=1)


def _matrix(sketches: pa.ChunkedArray | Sequence[bytes | None], width: int) -> tuple[Places, Sketches]:
    """(N,) places of what is not null, and (N, width) what lies there."""
    array = _array(sketches)
    places = np.flatnonzero(np.asarray(array.is_valid()))
    fixed = array.drop_null().cast(pa.binary(width))
    start = fixed.offset * width
    data = np.frombuffer(fixed.buffers()[1] or b"", np.uint8)[start : start + len(fixed) * width]
    return places, data.reshape(-1, width)


def _array(
    sketches: pa.ChunkedArray | Sequence[bytes | None],
    kind: pa.DataType = pa.binary(),  # noqa: B008 - never changed
) -> pa.Array:
    if not isinstance(sketches, pa.ChunkedArray):
        return pa.array(sketches, kind)
    return (sketches if sketches.type == kind else sketches.cast(kind)).combine_chunks()


def _distinct(codes: Sketches) -> tuple[Places, Places]:
    """Where each different sketch comes first, and (N,) which of those each sketch is.

    By sorting hashes. Should two sketches share one, their copies are not found equal, but `near` still sees them.
    """
    padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    hashes = np.zeros(len(codes), np.uint64)
    for word in padded.view("<u8").T:
        hashes = mix(hashes ^ word)
    order = np.argsort(hashes, kind="stable")
    other = (hashes[order][1:] != hashes[order][:-1]) | (codes[order][1:] != codes[order][:-1]).any(axis=1)
    starts = np.append(True, other) if len(codes) else np.zeros(0, bool)
    inverse = np.empty(len(codes), np.int64)
    inverse[order] = np.cumsum(starts) - 1
    return order[starts], inverse


def _by_first_bytes(codes: Sketches) -> Places:
    """An order in which like sketches often stand together, and which no other order of the input changes."""
    wide = np.zeros((len(codes), 8), np.uint8)
    head = codes[:, :8]
    wide[:, : head.shape[1]] = head
    return np.argsort(wide.view(">u8").ravel().astype(np.uint64), kind="stable")


def leaders_by_pairs(order: Sequence[int], kind: Places, pairs: Places) -> Places:
    """(N,) the place of each item's leader. Items of one `kind` (N,) are alike; `pairs` (M, 2) says which kinds are."""
    kinds = int(kind.max()) + 1 if len(kind) else 0
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(kinds + 1))
    leader_of_kind = np.full(kinds, -1)
    for item in order:
        own = int(kind[item])
        if leader_of_kind[own] < 0:
            leader_of_kind[own] = item
            near = both[starts[own] : starts[own + 1], 1]
            leader_of_kind[near[leader_of_kind[near] < 0]] = item
    return np.asarray(leader_of_kind[kind])


def leaders_by_cosine(
    order: Sequence[int], units: npt.NDArray[np.float32], threshold: float, threads: int = 1
) -> Places:
    """(N,) the place of each item's leader. `units`: (N, D) of length 1; exact, in blocks of matrix products.

    Each thread takes whole products, which are the same ones whatever their number, so the result is, too."""
    leader = np.full(len(units), -1)
    leaders = np.zeros(0, np.int64)
    with ThreadPoolExecutor(threads, thread_name_prefix="cosines") as pool:
        for start in range(0, len(order), _BLOCK):
            block = np.asarray(order[start : start + _BLOCK])
            _assign_to_leaders(block, leaders, leader, units, threshold, pool if threads > 1 else None)
            rest = block[leader[block] < 0]
            alike = units[rest] @ units[rest].T >= threshold
            for row, item in enumerate(rest):
                if leader[item] < 0:
                    free = rest[alike[row] & (leader[rest] < 0)]
                    leader[free] = leader[item] = item
            leaders = np.concatenate([leaders, rest[leader[rest] == rest]])
    return leader


def _assign_to_leaders(
    block: Places,
    leaders: Places,
    leader: Places,
    units: npt.NDArray[np.float32],
    threshold: float,
    pool: ThreadPoolExecutor | None,
) -> None:
    """Each of the block to the most similar leader where one is near; of equals to the first."""
    best, similarity = np.full(len(block), -1), np.full(len(block), -np.inf, np.float32)
    chunks = [leaders[start : start + _BLOCK] for start in range(0, len(leaders), _BLOCK)]
    own = units[block]

    def nearest(chunk: Places) -> tuple[Places, npt.NDArray[np.float32]]:
        found = own @ units[chunk].T
        place = found.argmax(axis=1)
        return chunk[place], found[np.arange(len(block)), place]

    for place, value in (pool.map if pool else map)(nearest, chunks):
        closer = value > similarity
        best[closer], similarity[closer] = place[closer], value[closer]
    near = similarity >= threshold
    leader[block[near]] = best[near]
