"""Which sequences are akin: families in which residues changed, came and went, and strangers."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any, cast

import numpy as np
import parasail
import pytest

from speciate.datasets.similarity import near_duplicates
from speciate.modalities.biology import homology
from speciate.modalities.biology.homology import HOMOLOGY, least_identity

LETTERS = "ARNDCQEGHILKMFPSTWYV"
SHARES = [8.3, 5.5, 4.1, 5.5, 1.4, 3.9, 6.7, 7.1, 2.3, 5.9, 9.7, 5.8, 2.4, 3.9, 4.7, 6.6, 5.4, 1.1, 2.9, 6.9]
"""Percent of each residue in known proteins."""


def protein(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(LETTERS, SHARES, k=length))


def relative(sequence: str, identity: float, chance: random.Random) -> str:
    """A homologue: so many residues stay, a gap for every forty that do not."""
    changed = [letter if chance.random() < identity else chance.choices(LETTERS, SHARES)[0] for letter in sequence]
    for _ in range(round((1 - identity) * len(sequence) / 40)):
        at, length = chance.randrange(len(changed)), chance.randint(1, 5)
        changed[at : at + length] = protein(chance, length) if chance.random() < 0.5 else ""
    return "".join(changed)


def families(count: int, size: int, identity: float, seed: int = 0) -> list[list[str]]:
    chance = random.Random(seed)
    roots = [protein(chance, chance.randint(90, 260)) for _ in range(count)]
    return [[root, *(relative(root, identity, chance) for _ in range(size - 1))] for root in roots]


def by_definition(a: str, b: str) -> bool:
    """What the module's first lines say, by another of parasail's algorithms, from the alignment written out."""
    found = parasail.sw_trace_scan_32(a, b, 11, 1, parasail.blosum62)
    first, second = found.traceback.query, found.traceback.ref
    same = sum(x == y for x, y in zip(first, second, strict=True))
    needed = max(homology.IDENTITY, least_identity(len(first)))
    return len(first) >= homology.COVERAGE * min(len(a), len(b)) and same >= needed * len(first)


def akin(sequences: list[str], threshold: float | None = None) -> set[tuple[int, int]]:
    found = HOMOLOGY.pairs([sequence.encode() for sequence in sequences], threshold)
    return {cast("tuple[int, int]", tuple(pair)) for pair in found.tolist()}


def test_what_is_found_is_what_aligning_all_with_all_finds() -> None:
    sequences = [each for family in families(12, 5, 0.7) for each in family]
    truth = {
        pair for pair in combinations(range(len(sequences)), 2) if by_definition(*(sequences[place] for place in pair))
    }
    found = akin(sequences)
    assert found <= truth
    assert len(found) >= 0.98 * len(truth) > 100
    clusters = near_duplicates.clusters(len(sequences), np.array(sorted(truth)))
    assert near_duplicates.clusters(len(sequences), np.array(sorted(found))).tolist() == clusters.tolist()


def test_strangers_are_not_akin() -> None:
    chance = random.Random(1)
    assert not akin([protein(chance, chance.randint(15, 300)) for _ in range(400)])


def test_a_peptide_needs_more_equal_residues_than_a_long_chain() -> None:
    assert least_identity(20) == pytest.approx(0.72, abs=0.01)
    assert least_identity(80) == pytest.approx(0.32, abs=0.01)
    assert least_identity(5) == 1
    assert least_identity(10_000) == least_identity(450) < 0.2
    peptide = "KWKLFKKIEKVGQNIRDGII"
    assert akin([peptide, "KWKLFKKIEKVGQNVRDGII"]) == {(0, 1)}
    assert not akin([peptide, "KWALFAKIEAVGANIADGAI"])


def changed(peptide: str, share: float, chance: random.Random) -> str:
    """A peptide of which so many residues, and no fewer, are others."""
    letters = list(peptide)
    for at in chance.sample(range(len(letters)), int((1 - share) * len(letters) + 1e-9)):
        letters[at] = chance.choice([letter for letter in LETTERS if letter != letters[at]])
    return "".join(letters)


def test_peptides_of_which_four_fifths_are_equal_are_near_and_strangers_are_not() -> None:
    chance = random.Random(11)
    peptides = [protein(chance, chance.randint(8, 40)) for _ in range(300)]
    assert not akin(peptides)
    copies = [changed(peptide, 0.8, chance) for peptide in peptides]
    pieces = [peptide[2:] + "G" for peptide in peptides if len(peptide) >= 20]
    everything = peptides + copies
    assert {(at, at + 300) for at in range(300)} - akin(everything) == set()
    assert len(akin(everything)) < 310
    longer = [peptide for peptide in peptides if len(peptide) >= 20]
    assert {(at, at + len(longer)) for at in range(len(longer))} <= akin([*longer, *pieces])


def test_a_threshold_of_peptides_is_the_share_of_equal_residues() -> None:
    chance = random.Random(12)
    roots = [protein(chance, 20) for _ in range(60)]
    related = [changed(root, share, chance) for root, share in zip(roots, [0.9, 0.7, 0.5] * 20, strict=True)]
    found = {share: len({pair for pair in akin(roots + related, share) if pair[1] - pair[0] == 60})
             for share in (0.9, 0.7, 0.5)}  # fmt: skip
    assert found[0.9] == 20
    assert found[0.7] >= 38
    assert found[0.5] > found[0.7] + 5


def test_a_domain_within_a_longer_chain_is_akin_to_it_and_a_scrap_of_it_is_not() -> None:
    chance = random.Random(2)
    domain, tail = protein(chance, 120), protein(chance, 200)
    other = domain[:40] + protein(chance, 160)
    assert akin([domain, tail + domain]) == {(0, 1)}
    assert not akin([domain, other])


def test_a_higher_threshold_keeps_near_copies_alone() -> None:
    chance = random.Random(3)
    root = protein(chance, 200)
    sequences = [root, relative(root, 0.97, chance), relative(root, 0.6, chance)]
    assert akin(sequences) == {(0, 1), (0, 2), (1, 2)}
    assert akin(sequences, 0.9) == {(0, 1)}


def test_complexes_are_akin_by_any_of_their_chains() -> None:
    chance = random.Random(4)
    shared, mine, yours = (protein(chance, 100) for _ in range(3))
    assert akin([f"{mine}/{shared}", f"{shared}/{yours}", yours[::-1]]) == {(0, 1)}
    assert akin([f"{mine}/{shared}", f"{yours}/{relative(shared, 0.8, chance)}"]) == {(0, 1)}


def test_order_and_company_change_nothing() -> None:
    sequences = [each for family in families(8, 3, 0.5, seed=5) for each in family]
    found = {frozenset(sequences[place] for place in pair) for pair in akin(sequences)}
    again = [*sorted(sequences, key=lambda sequence: sequence[::-1]), protein(random.Random(6), 80)]
    assert {frozenset(again[place] for place in pair) for pair in akin(again)} == found
    first = sequences[:12]
    assert {pair for pair in found if pair <= set(first)} == {
        frozenset(first[place] for place in pair) for pair in akin(first)
    }


def test_letters_beyond_the_twenty_align() -> None:
    chance = random.Random(7)
    root = protein(chance, 100)
    assert akin([root, root.replace("C", "U").replace("K", "O").replace("L", "J")]) == {(0, 1)}
    assert akin([root, root[:50] + "XXXXX" + root[55:]]) == {(0, 1)}


def test_nothing_and_what_is_too_short_to_share_seeds_have_no_kin() -> None:
    assert not akin([])
    assert not akin(["ACDEF", "ACDEG"])
    assert near_duplicates.near_duplicate_pairs([b"ACDEF", None, b"ACDEF"], HOMOLOGY).tolist() == [[0, 2]]


def test_equal_sequences_are_near_and_lead_to_their_kin() -> None:
    chance = random.Random(8)
    root = protein(chance, 90)
    other = relative(root, 0.7, chance)
    codes = [protein(chance, 90).encode(), other.encode(), root.encode(), None, other.encode()]
    assert near_duplicates.clusters(5, near_duplicates.near_duplicate_pairs(codes, HOMOLOGY)).tolist() == [
        0,
        1,
        1,
        2,
        1,
    ]


def test_what_would_only_join_what_is_joined_is_not_aligned_in_large_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = sorted(each for family in families(6, 8, 0.7, seed=9) for each in family)
    everything = near_duplicates.clusters(len(sequences), HOMOLOGY.pairs([each.encode() for each in sequences]))
    monkeypatch.setattr(homology, "_MANY", 10)
    monkeypatch.setattr(homology, "_HITS", 500)
    found = HOMOLOGY.pairs([each.encode() for each in sequences])
    assert near_duplicates.clusters(len(sequences), found).tolist() == everything.tolist()
    assert len(found) < 6 * 28


def test_bytes_that_are_no_letters_align_as_any_residue() -> None:
    chance = random.Random(10)
    root, other = protein(chance, 120).encode(), protein(chance, 120).encode()
    odd = root[:60] + "é".encode() + root[62:]
    assert HOMOLOGY.pairs([root, odd, other]).tolist() == [[0, 1]]
    assert HOMOLOGY.pairs([root[:30], root[:14] + b"\xff" + root[15:30]]).tolist() == [[0, 1]]


@pytest.mark.parametrize("threshold", [None, 0.5, 1.0])
@pytest.mark.parametrize(
    "alphabet",
    [LETTERS.encode(), LETTERS.lower().encode() + b"BZXJUObzxjuo*-", b"ACGT", bytes(range(1, 128)), b"\xc3\xa9AC1"],
    ids=["residues", "rare letters and both cases", "few letters", "signs", "no ASCII"],
)
def test_near_peptides_are_those_that_aligning_every_candidate_finds(alphabet: bytes, threshold: float | None) -> None:
    """Those that cannot be near by their letters alone are left out before, and none that is."""
    chance = random.Random(0)
    some = [bytes(chance.choices(alphabet, k=chance.randint(4, 50))) for _ in range(12)]
    for _ in range(60):
        changed = bytearray(chance.choice(some[:12]))
        for _ in range(chance.randint(0, 4)):
            at = chance.randrange(len(changed))
            changed[at : at + chance.randint(0, 1)] = bytes(chance.choices(alphabet, k=chance.randint(0, 2))) or b"A"
        some.append(bytes(changed))
    least = homology._NEAR_COPY if threshold is None else threshold

    def is_near(pair: list[int]) -> bool:
        first, second = (some[place].translate(homology._RARE_LETTERS).decode("ascii") for place in pair)
        found = parasail.sg_stats_scan_32(first, second, homology._OPEN, homology._EXTEND, parasail.blosum62)
        return bool(found.matches >= least * min(len(first), len(second)))

    every = homology._peptide_candidates(some, least).tolist()
    near = homology._near_peptides(some, threshold).tolist()
    assert near == [pair for pair in every if is_near(pair)]
    assert near


def longest_common_subsequence(first: bytes, second: bytes) -> int:
    best = [0] * (len(second) + 1)
    for letter in first:
        before = best[:]
        for place, other in enumerate(second):
            best[place + 1] = before[place] + 1 if letter == other else max(before[place + 1], best[place])
    return best[-1]


def test_residues_that_can_be_equal_are_those_of_the_longest_common_subsequence() -> None:
    chance = random.Random(5)
    some = [protein(chance, chance.randint(1, 130)).encode() for _ in range(40)]
    some += [b"A" * 64, b"A" * 128, b"a" * 65, b"C", b"CA" * 32]
    pairs = np.array(list(combinations(range(len(some)), 2)), np.int64)
    found = homology._CommonResidues(some).most(pairs).tolist()
    for (a, b), most in zip(pairs.tolist(), found, strict=True):
        shorter, longer = sorted((some[a].upper(), some[b].upper()), key=len)
        bounded = len(shorter) <= 64 and len(longer) <= 128
        assert most == (longest_common_subsequence(shorter, longer) if bounded else len(shorter))


@pytest.mark.parametrize("threshold", [0.3, 0.6, 1.0])
def test_no_homologue_is_left_out_for_too_few_common_residues(threshold: float) -> None:
    chance = random.Random(3)
    roots = [protein(chance, length) for length in (14, 30, 63, 64, 65, 90, 127, 128, 129)]
    some = {relative(root, chance.uniform(0.3, 1), chance) for root in roots for _ in range(12)}
    sequences = sorted(each.encode() for each in some | {each[: len(each) // 2] for each in some})
    aligner = homology._Aligner(sequences, threshold)
    every = [pair for few in homology._candidates(sequences) for pair in few.tolist()]
    akin = [pair for pair in every if aligner.akin(*pair)]
    assert homology._homologous(sequences, threshold).tolist() == akin
    assert len(every) > len(akin) > 20


def test_repeats_of_one_residue_are_akin_at_little_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = list[int]()
    measured = homology._crowds

    def counted(*arguments: Any) -> Any:
        found = measured(*arguments)
        seeds.append(len(found.places))
        return found

    monkeypatch.setattr(homology, "_crowds", counted)
    assert len(akin(["A" * (300 + i) for i in range(20)])) == 190
    assert sum(seeds) <= 4 * 20 * 8


def test_an_excerpt_is_akin_to_the_whole_as_its_alignment_says() -> None:
    chance = random.Random(13)
    for _ in range(60):
        whole = chance.choice([protein(chance, 60), chance.choice(LETTERS) * 60, protein(chance, 4) * 15])
        begin = chance.randint(0, 30)
        excerpt = whole[begin : begin + chance.randint(20, 30)]
        assert homology._Aligner([excerpt.encode(), whole.encode()], homology.IDENTITY).akin(0, 1)
        assert by_definition(excerpt, whole)
