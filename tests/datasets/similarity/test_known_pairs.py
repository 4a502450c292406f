from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.similarity import known_pairs
from speciate.datasets.similarity.near_duplicates import Places, near_any_of, near_duplicate_pairs
from speciate.modalities.biology.homology import HOMOLOGY
from speciate.modalities.contract import PairwiseSimilarity, Sketching
from speciate.modalities.hashing import TEXT_SKETCHES
from speciate.modalities.series_similarity import SeriesSimilarity
from speciate.workspace.workspace import Folders
from tests.drawn import drawn

RULES = pytest.mark.parametrize("rule", [TEXT_SKETCHES, HOMOLOGY], ids=["sketches", "similarity"])
PEPTIDE = b"GLWSKIKEVGKEAAKAAAKAAGKAALGAVSEAV"


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_pairs, "_WORTH_SECONDS", 0.0)
    monkeypatch.setattr(known_pairs, "_latest", {})


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.cache.mkdir()
    return made


def another_process() -> None:
    known_pairs._latest.clear()


def codes_of(rule: object, count: int = 12, seed: int = 0) -> list[bytes | None]:
    """Copies of two strangers, a few bytes of each changed, and a null."""
    random = np.random.default_rng(seed)
    if rule is HOMOLOGY:
        bases = [np.frombuffer(PEPTIDE, np.uint8), random.permutation(np.frombuffer(PEPTIDE, np.uint8))]
    else:
        bases = list(random.integers(0, 200, (2, TEXT_SKETCHES.width), np.uint8))
    found: list[bytes | None] = [None]
    for place in range(count):
        own = bases[place % 2].copy()
        own[random.integers(0, len(own), 2)] = ord("A")
        found.append(own.tobytes())
    return found


def stored(folders: Folders) -> list[Path]:
    return sorted(folders.cache.rglob("*.parquet"))


def refuse(*_: object) -> Places:
    raise AssertionError("computed anew")


@RULES
@given(seed=st.integers(0, 2**32), count=st.integers(2, 14))
@settings(deadline=None, max_examples=drawn(25))
def test_stored_pairs_are_those_that_are_computed(
    tmp_path_factory: pytest.TempPathFactory, rule: Sketching | PairwiseSimilarity, seed: int, count: int
) -> None:
    folders, codes = Folders(tmp_path_factory.mktemp("root")), codes_of(rule, count, seed)
    random = np.random.default_rng(seed)
    anew = near_duplicate_pairs(codes, rule)
    another_process()
    assert np.array_equal(near_duplicate_pairs(codes, rule, folders=folders), anew)
    another_process()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(rule), "pairs" if rule is HOMOLOGY else "keys", refuse)
        assert np.array_equal(near_duplicate_pairs(codes, rule, folders=folders), anew)
        order = random.permutation(len(codes)).tolist()  # the same rows, as another version sorts them
        mixed = near_duplicate_pairs([codes[place] for place in order], rule, folders=folders)
    assert connected(mixed, order) == connected(anew, list(range(len(codes))))


def connected(pairs: Places, places: Sequence[int]) -> set[frozenset[int]]:
    """Which of the rows `places` hang together: equal ones are linked to their first alone."""
    found: list[set[int]] = []
    for a, b in pairs.tolist():
        touched = [each for each in found if each & {places[a], places[b]}]
        found = [each for each in found if each not in touched] + [{places[a], places[b]}.union(*touched)]
    return {frozenset(each) for each in found}


@RULES
def test_a_changed_dataset_asks_anew(folders: Folders, rule: Sketching | PairwiseSimilarity) -> None:
    codes = codes_of(rule)
    near_duplicate_pairs(codes, rule, folders=folders)
    changed = [each and bytes([each[0] ^ 1]) + each[1:] for each in codes[:2]] + codes[2:]
    for number, other in enumerate([codes[:-1], [*codes, *codes_of(rule, 2, seed=9)], changed], 2):
        another_process()
        found = near_duplicate_pairs(other, rule, folders=folders)
        assert len(stored(folders)) == number
        another_process()
        assert np.array_equal(found, near_duplicate_pairs(other, rule))


def test_another_threshold_and_another_rule_are_other_questions(folders: Folders) -> None:
    codes = codes_of(HOMOLOGY)
    at = [near_duplicate_pairs(codes, HOMOLOGY, threshold, folders=folders) for threshold in (None, 0.99)]
    assert len(at[0]) > len(at[1])
    keys = {known_pairs._key(SeriesSimilarity(joint=joint), None, [b"a"]) for joint in (False, True)}
    keys |= {known_pairs._key(HOMOLOGY, None, each) for each in ([b"a"], [b"a", b""], [b"", b"a"])}
    assert len(keys) == 5


def test_whether_rows_are_near_those_of_a_training_is_read_from_the_split_of_all(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation asks of the test rows and those that a model learned from: together they are the version's."""
    codes = codes_of(HOMOLOGY)
    mine, theirs = codes[:5], codes[5:]
    anew = near_any_of(mine, theirs, HOMOLOGY)
    another_process()
    near_duplicate_pairs(codes, HOMOLOGY, folders=folders)
    another_process()
    monkeypatch.setattr(type(HOMOLOGY), "pairs", refuse)
    assert near_any_of(mine, theirs, HOMOLOGY, folders).tolist() == anew.tolist()


def test_what_is_damaged_or_belongs_to_other_rows_is_not_used(folders: Folders) -> None:
    codes, others = codes_of(HOMOLOGY), codes_of(HOMOLOGY, seed=1)
    anew = near_duplicate_pairs(codes, HOMOLOGY, folders=folders)
    (mine,) = stored(folders)
    near_duplicate_pairs(others, HOMOLOGY, folders=folders)
    (theirs,) = set(stored(folders)) - {mine}

    mine.write_bytes(theirs.read_bytes())
    another_process()
    assert np.array_equal(near_duplicate_pairs(codes, HOMOLOGY, folders=folders), anew)
    assert mine.read_bytes() != theirs.read_bytes()

    data = bytearray(theirs.read_bytes())
    data[len(data) // 2] ^= 1
    mine.write_bytes(data)
    another_process()
    assert np.array_equal(near_duplicate_pairs(codes, HOMOLOGY, folders=folders), anew)
    another_process()
    assert np.array_equal(near_duplicate_pairs(codes, HOMOLOGY, folders=folders), anew)


def test_pairs_that_are_found_at_once_are_not_kept(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_pairs, "_WORTH_SECONDS", 60.0)
    near_duplicate_pairs(codes_of(HOMOLOGY), HOMOLOGY, folders=folders)
    assert stored(folders) == []


def test_of_a_rule_that_is_not_ours_nobody_knows_when_it_changes(folders: Folders) -> None:
    class Foreign:
        def pairs(self, codes: Sequence[bytes], threshold: float | None = None) -> Places:
            return HOMOLOGY.pairs(codes, threshold)

    near_duplicate_pairs(codes_of(HOMOLOGY), Foreign(), folders=folders)
    assert stored(folders) == []
