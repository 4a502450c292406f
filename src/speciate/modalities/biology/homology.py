"""Homologous sequences of residues: those that align over most of the shorter one, with enough equal residues.

Two sequences are homologous here if their best local alignment (Smith & Waterman 1981; BLOSUM62, a gap costs 11 and 1)
is as long as 80 % of the shorter one and has equal residues in 30 % of its columns, the threshold of benchmarks that
split proteins (TAPE, Rao et al. 2019; DeepLoc, Almagro Armenteros et al. 2017). The shorter an alignment, the more of
it is equal by chance: below about a hundred columns the required share is higher, 32 % of 80 columns and 72 % of 20, by
the curve of Rost (1999).

Aligning all with all is quadratic, so only pairs that share seeds are aligned, as in MMseqs2 (Steinegger & Söding
2017): five residues in an alphabet of thirteen kinds (that of Linclust, 2018), in four spaced patterns (Ma et al.
2002), several of them on nearly the same diagonal, which seldom happens by chance. The result depends on the two
sequences alone. `evals/bench/structures.py` measures misses of the seeds, and the time.

Peptides are too short for seeds and for that curve. Two sequences of which the shorter has 8 to 50 residues are near
copies, too, if a semi-global alignment (free ends) has 80 % of the shorter's residues equal: by chance about one pair
of octapeptides in ten million. Candidates share as many runs of three residues as 20 % changes must leave (the q-gram
lemma; Ukkonen 1992), so none is missed for lack of a candidate unless gaps break more of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.connected_components import unite

SEPARATOR = b"/"
"""Byte between the chains of one code: two codes are homologous if any of their chains are."""
IDENTITY, COVERAGE = 0.3, 0.8
_SHORTEST, _SHORT, _NEAR_COPY = 8, 50, 0.8
"""Residues of peptides, and the share of equal ones that makes near copies of them."""
_RUN, _RUN_SLACK, _ROWS = 3, 2, 2000
_OPEN, _EXTEND = 11, 1
_KINDS = ("LM", "IV", "C", "A", "G", "ST", "P", "FY", "W", "EQBZ", "DN", "KR", "H")
_FREQUENCIES = (0.121, 0.128, 0.014, 0.083, 0.071, 0.119, 0.047, 0.068, 0.011, 0.107, 0.095, 0.114, 0.023)
"""Frequencies of those kinds in known proteins (Swiss-Prot): the less frequent a seed is, the more it says."""
_PATTERNS = ((0, 1, 3, 5, 6), (0, 1, 2, 5, 6), (0, 1, 2, 4, 6), (0, 3, 4, 5, 6))
_SPAN = 7
_DRIFT = 8
"""Seeds are on nearly the same diagonal with so many insertions or deletions between them, or fewer."""
_LEAST = 45
"""Natural logarithm of how rare the seeds of a pair must be together."""
_HITS = 2_000_000
"""Pairs of seeds in one batch: some 200 MB."""
_MOST_HITS = 1_000_000_000
"""Most pairs of seeds. Beyond it a seed is compared only with the next equal ones, in the order of the sequences."""
_LEAST_REACH = 32
_MANY = 3_000_000
"""After so many alignments only pairs that join separate groups are aligned."""
_DIAGONAL_BITS, _WEIGHT_BITS, _LONGEST = 18, 6, 1 << 17
_MOST_REPEATS = 8
"""Most repeats of one seed within a sequence; a homopolymer has no other seeds."""
_SIGNS = bytes(code for code in range(1, 128) if not chr(code).isalpha() or chr(code) in "juo")
_RARE_LETTERS = bytes.maketrans(b"JUO" + _SIGNS + bytes(range(128, 256)), b"LCK" + len(_SIGNS) * b"*" + 128 * b"X")
"""Letters that BLOSUM62 lacks -> the nearest ones; other signs -> the one that stands for all of them there; what is no
ASCII -> any residue."""
_STANDARD = frozenset("ARNDCQEGHILKMFPSTWYV")
"""Standard residues: none of them aligns with another as well as with itself."""

_LETTERS, _COMPARED, _WORD = 32, 1 << 15, 64
"""Letters by the last bits of their code, the same for both cases; pairs that are compared at once; bits of a word."""
_FEW_COLUMNS = 1000

Places = npt.NDArray[np.int64]
_NO_PAIRS = np.zeros((0, 2), np.int64)


class Homology:
    """PairwiseSimilarity of sequences, chains of one code divided by SEPARATOR."""

    def pairs(self, codes: Sequence[bytes], threshold: float | None = None) -> Places:
        """(M, 2) places of homologous codes, the smaller first, ascending; of different codes.

        `threshold`: share of equal residues, None: IDENTITY, of peptides _NEAR_COPY. For long sequences a lower one
        finds hardly more, as such pairs share few seeds; peptides must share a run of three residues. Raises
        MISSING_EXTRA without parasail.
        """
        chains = [code.split(SEPARATOR) for code in codes]
        distinct = sorted(set(chain.from_iterable(chains)))
        number = {sequence: place for place, sequence in enumerate(distinct)}
        akin = _homologous(distinct, IDENTITY if threshold is None else threshold)
        found = np.concatenate([akin, _near_peptides(distinct, threshold, akin)])
        if len(distinct) == len(codes) == sum(map(len, chains)):  # each code is one sequence
            places = np.argsort([number[own[0]] for own in chains])
            return np.unique(np.sort(places[found], axis=1), axis=0)
        owners: list[list[int]] = [[] for _ in distinct]
        for place, own in enumerate(chains):
            for sequence in set(own):
                owners[number[sequence]].append(place)
        linked = {(own[0], other) for own in owners for other in own[1:]}
        for a, b in found.tolist():
            linked |= {(min(i, j), max(i, j)) for i in owners[a] for j in owners[b] if i != j}
        return np.array(sorted(linked), np.int64).reshape(-1, 2)


def least_identity(columns: int) -> float:
    """The share of equal residues that tells homology from chance in an alignment of so many columns (Rost 1999, n =
    0)."""
    columns = min(max(columns, 11), 450)
    return float(min(1.0, 4.8 * columns ** (-0.32 * (1 + np.exp(-columns / 1000)))))


def _homologous(sequences: Sequence[bytes], threshold: float) -> Places:
    """(M, 2) among different sequences in ascending order."""
    aligner, common = _Aligner(sequences, threshold), _CommonResidues(sequences)
    needed = _least_equal(threshold)[
        np.minimum(np.ceil(COVERAGE * common.lengths - 1e-9).astype(np.int64), _FEW_COLUMNS)
    ]
    found, aligned, parent = [_NO_PAIRS], 0, np.arange(len(sequences))
    for candidates in _candidates(sequences):
        pairs = candidates
        if aligned > _MANY:
            parent = unite(parent, *np.concatenate(found).T)
            found = [np.concatenate(found)]
            pairs = pairs[parent[pairs[:, 0]] != parent[pairs[:, 1]]]
        pairs = pairs[common.most(pairs) >= needed[common.shorter(pairs)]]
        aligned += len(pairs)
        found.append(pairs[[aligner.akin(a, b) for a, b in pairs.tolist()]] if len(pairs) else pairs)
    return np.concatenate(found)


def _least_equal(threshold: float) -> npt.NDArray[np.float64]:
    """By the fewest columns of an alignment: equal residues that make it one of homologous sequences."""
    columns = np.arange(_FEW_COLUMNS + 1)
    needed = np.array([max(threshold, least_identity(int(count))) * count for count in columns])
    return np.minimum.accumulate(needed[::-1])[::-1]


def _near_peptides(sequences: Sequence[bytes], threshold: float | None, known: Places = _NO_PAIRS) -> Places:
    """(M, 2) near copies of which the shorter is a peptide, without the pairs that are `known`."""
    least = _NEAR_COPY if threshold is None else threshold
    candidates, library, common = _peptide_candidates(sequences, least), _parasail(), _CommonResidues(sequences)
    count = len(sequences)
    candidates = candidates[~np.isin(candidates @ [count, 1], np.sort(known, axis=1) @ [count, 1])]
    candidates = candidates[common.most(candidates) >= least * common.lengths[common.shorter(candidates)]]
    texts = {place: common.texts[place].decode("ascii") for place in np.unique(candidates).tolist()}

    def are_near_copies(first: str, second: str) -> bool:
        found = library.sg_stats_striped_32(first, second, _OPEN, _EXTEND, library.blosum62)
        return bool(found.matches >= least * min(len(first), len(second)))

    near = [are_near_copies(texts[a], texts[b]) for a, b in candidates.tolist()]
    found: Places = candidates[np.array(near, bool)]
    return found


class _CommonResidues:
    """How many residues of two sequences can be equal at most, however they are aligned: the length of their longest
    common subsequence, by bits of one machine word (Hyyrö 2004), of many pairs at once. No bound for a pair whose
    shorter sequence is longer than a word or whose longer one is longer than two."""

    def __init__(self, sequences: Sequence[bytes]) -> None:
        self.texts = [sequence.translate(_RARE_LETTERS) for sequence in sequences]
        self.lengths = np.array([len(text) for text in self.texts], np.int64)
        short = np.flatnonzero(self.lengths <= 2 * _WORD)
        self._row = np.full(len(sequences), -1)
        self._row[short] = np.arange(len(short))
        width = int(self.lengths[short].max(initial=0))
        joined = b"".join(self.texts[place].ljust(width, b"\0") for place in short.tolist())
        self._letters = np.frombuffer(joined, np.uint8).reshape(len(short), width) % _LETTERS

    def shorter(self, pairs: Places) -> Places:
        """(M,) the place of the shorter of each pair, the first of equally long ones."""
        return np.asarray(np.where(self.lengths[pairs[:, 0]] <= self.lengths[pairs[:, 1]], pairs[:, 0], pairs[:, 1]))

    def most(self, pairs: Places) -> Places:
        """(M,)"""
        short = self.shorter(pairs)
        long = pairs.sum(axis=1) - short
        most = self.lengths[short].copy()
        bounded = np.flatnonzero((most <= _WORD) & (self._row[long] >= 0))
        for start in range(0, len(bounded), _COMPARED):
            places = bounded[start : start + _COMPARED]
            most[places] = self._subsequences(self._row[short[places]], self._row[long[places]])
        return most

    def _subsequences(self, short: Places, long: Places) -> Places:
        rows, row = np.unique(short, return_inverse=True)
        places = np.zeros((len(rows), _LETTERS), np.uint64)  # bits: where the sequence has the letter
        for bit, letters in enumerate(self._letters[rows, :_WORD].T):
            places[np.arange(len(rows)), letters] |= np.uint64(1) << np.uint64(bit)
        places[:, 0] = 0  # behind the end
        free = np.full(len(short), ~np.uint64(0))
        for letters in self._letters[long].T:
            met = free & places[row, letters]
            free = (free + met) | (free - met)
        return np.bitwise_count(~free).astype(np.int64)


def _peptide_candidates(sequences: Sequence[bytes], least: float) -> Places:
    """(M, 2) pairs of a peptide and a sequence of up to twice the length of one that share enough runs."""
    from scipy.sparse import csr_array

    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    all_ = np.flatnonzero((lengths >= _SHORTEST) & (lengths <= 2 * _SHORT))
    short = np.flatnonzero(lengths[all_] <= _SHORT)
    if not len(short):
        return _NO_PAIRS
    rows, columns = _distinct_runs([sequences[place] for place in all_.tolist()])
    starts = np.searchsorted(rows, np.arange(len(all_) + 1))
    shape = len(all_), int(columns.max()) + 1
    table = csr_array((np.ones(len(columns), np.int32), columns, starts), shape=shape)
    counts = np.diff(starts)
    changes = np.floor((1 - least) * lengths[all_] + 1e-9).astype(np.int64)
    needed = np.maximum(counts - _RUN * changes - _RUN_SLACK, 1)
    is_short, length = lengths[all_] <= _SHORT, lengths[all_]
    found = [_NO_PAIRS]
    for start in range(0, len(short), _ROWS):
        rows = short[start : start + _ROWS]
        common = (table[rows] @ table.T).tocoo()
        first, second = rows[common.coords[0]], common.coords[1].astype(np.int64)
        once = (first < second) | ~is_short[second]  # two short ones are there from both sides
        first, second, shared = first[once], second[once], common.data[once]
        enough = shared >= needed[np.where(length[first] <= length[second], first, second)]
        found.append(all_[np.sort(np.stack([first[enough], second[enough]], axis=1), axis=1)])
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _distinct_runs(sequences: Sequence[bytes]) -> tuple[Places, Places]:
    """(M,), (M,): which sequence has which run of residues, each once, by ascending sequence; runs are numbered."""
    letters = np.frombuffer(b"".join(sequences), np.uint8).astype(np.int64)
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    owner = np.repeat(np.arange(len(sequences)), lengths)
    begin = np.flatnonzero(owner[: 1 - _RUN] == owner[_RUN - 1 :])
    runs = np.zeros(len(begin), np.int64)
    for place in range(_RUN):
        runs = (runs << 8) | letters[begin + place]
    _, number = np.unique(runs, return_inverse=True)
    distinct = np.unique((owner[begin] << (8 * _RUN)) | number)
    return distinct >> (8 * _RUN), distinct & ((1 << (8 * _RUN)) - 1)


def _parasail() -> Any:
    try:
        import parasail
    except ImportError as error:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            "Which sequences are akin is found out with parasail, which is not installed.",
            "Run: pip install 'speciate[bio]'",
        ) from error
    return parasail


class _Aligner:
    def __init__(self, sequences: Sequence[bytes], threshold: float) -> None:
        self._library = _parasail()
        self._sequences = [sequence.translate(_RARE_LETTERS).decode("ascii") for sequence in sequences]
        self._threshold = threshold
        self._query, self._profile = -1, None

    def akin(self, a: int, b: int) -> bool:
        """Fastest if pairs of the same `a` follow each other."""
        library, first, second = self._library, self._sequences[a], self._sequences[b]
        shorter, longer = sorted((first, second), key=len)
        if self._threshold <= 1 and shorter in longer and _STANDARD.issuperset(shorter):
            return True  # no alignment has a higher score, and all of its columns are equal
        if a != self._query:
            self._query, self._profile = a, library.profile_create_stats_sat(first, library.blosum62)
        found = library.sw_stats_striped_profile_sat(self._profile, second, _OPEN, _EXTEND)
        if found.saturated:
            found = library.sw_stats_striped_32(first, second, _OPEN, _EXTEND, library.blosum62)
        columns: int = found.length
        if not columns or columns < COVERAGE * min(len(first), len(second)):
            return False
        return bool(found.matches >= max(self._threshold, least_identity(columns)) * columns)


class _Seeds(NamedTuple):
    """The seeds of one pattern, in the order of their places."""

    places: Places
    """Place of each seed's first residue among all residues."""
    codes: npt.NDArray[np.int64]


class _Crowds(NamedTuple):
    """The seeds of one pattern, equal ones together."""

    places: Places
    weights: npt.NDArray[np.int64]
    """How rare each is."""
    rank: Places
    """The place of each seed, in the order of `begin`."""
    after: Places
    """How many equal ones follow each, as far as they are compared."""
    begin: Places
    """Places, ascending: of which each rank is."""


def _candidates(sequences: Sequence[bytes]) -> Iterator[Places]:
    """(M, 2) pairs that share enough seeds, by their first ones."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if not len(lengths) or int(lengths.max()) < _SPAN:
        return
    starts = np.concatenate([[0], np.cumsum(lengths + 1)])
    owner = np.repeat(np.arange(len(sequences)), lengths + 1)
    kinds = _kinds(b"\n".join(sequences) + b"\n")
    crowds = [_crowds(kinds, owner, pattern) for pattern in _PATTERNS]
    for first, last in _blocks(crowds, starts):
        yield _sharing(crowds, starts, owner, first, last)


def _kinds(text: bytes) -> npt.NDArray[np.int64]:
    table = np.full(256, -1, np.int64)
    for number, letters in enumerate(_KINDS):
        table[list(letters.encode())] = number
    return table[np.frombuffer(text, np.uint8)]


def _crowds(kinds: npt.NDArray[np.int64], owner: Places, pattern: tuple[int, ...]) -> _Crowds:
    """`owner`: the sequence of each residue."""
    count = len(kinds) - _SPAN + 1
    windows = np.stack([kinds[place : place + count] for place in range(_SPAN)])
    begin = np.flatnonzero((windows >= 0).all(axis=0))
    letters = windows[list(pattern)][:, begin]
    codes = np.zeros(len(begin), np.int64)
    for row in letters:
        codes = codes * len(_KINDS) + row
    rarity = (-np.log(_FREQUENCIES)[letters].sum(axis=0)).round().astype(np.int64)
    order = np.argsort(codes, kind="stable")
    few = np.zeros(len(order), bool)
    few[order] = ~_is_repeated(codes[order], owner[begin[order]])
    begin, codes, rarity, order = begin[few], codes[few], rarity[few], (np.cumsum(few) - 1)[order[few[order]]]
    ordered = codes[order]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    after = np.searchsorted(ordered, ordered, side="right") - np.arange(len(order)) - 1
    reach = max(_LEAST_REACH, _MOST_HITS // max(len(order), 1))
    return _Crowds(begin[order], rarity[order], rank, np.minimum(after, reach), begin)


def _is_repeated(codes: npt.NDArray[np.int64], owner: Places) -> npt.NDArray[np.bool_]:
    """(N,) whether as many equal seeds of the same sequence are ahead of it as count. Both ascending, codes first."""
    repeated = np.zeros(len(codes), bool)
    repeated[_MOST_REPEATS:] = (codes[_MOST_REPEATS:] == codes[:-_MOST_REPEATS]) & (
        owner[_MOST_REPEATS:] == owner[:-_MOST_REPEATS]
    )
    return repeated


def _blocks(crowds: Sequence[_Crowds], starts: Places) -> Iterator[tuple[int, int]]:
    """Sequences from the first up to the last, so many that their seeds have about _HITS equals."""
    hits = np.zeros(len(starts) - 1, np.int64)
    for each in crowds:
        owner = np.searchsorted(starts, each.places, side="right") - 1
        np.add.at(hits, owner, each.after)
    block = np.cumsum(hits) // _HITS
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(hits)]
    yield from pairwise(edges)


def _sharing(crowds: Sequence[_Crowds], starts: Places, owner: Places, first: int, last: int) -> Places:
    """Pairs whose smaller one lies from `first` up to `last`.

    A pair of equal seeds is one number, by whose, on which diagonal and how rare they are, so that sorting puts those
    that count together next to each other.
    """
    count = len(starts) - 1
    keys = []
    for each in crowds:
        low, high = np.searchsorted(each.begin, (starts[first], starts[last]))
        rank = each.rank[low:high]
        times = each.after[rank]
        ahead = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
        other = np.repeat(rank, times) + 1 + ahead
        here, there = np.repeat(each.begin[low:high], times), each.places[other]
        mine, theirs = owner[here], owner[there]
        apart = mine != theirs
        here, there, mine, theirs = here[apart], there[apart], mine[apart], theirs[apart]
        diagonal = (here - starts[mine]) - (there - starts[theirs]) + _LONGEST
        pair = (mine - first) * count + theirs
        keys.append((((pair << _DIAGONAL_BITS) | diagonal) << _WEIGHT_BITS) | each.weights[other[apart]])
    ordered = np.sort(np.concatenate(keys))
    if not len(ordered):
        return _NO_PAIRS
    line = ordered >> _WEIGHT_BITS
    runs = np.flatnonzero(np.append(True, np.diff(line) > _DRIFT))
    rarity = np.add.reduceat(ordered & ((1 << _WEIGHT_BITS) - 1), runs)
    pair = np.unique(line[runs[rarity >= _LEAST]] >> _DIAGONAL_BITS)
    return np.stack([first + pair // count, pair % count], axis=1)


HOMOLOGY = Homology()
