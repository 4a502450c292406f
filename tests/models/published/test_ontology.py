"""Kinds of things by WordNet: its file format, ambiguous words, and the table of labels that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.models.published import ontology
from speciate.models.published.label_map import decide, propose
from speciate.models.published.ontology import Ontology

_SYNSETS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "entity": (["entity"], []),
    "animal": (["animal", "beast"], ["entity"]),
    "bird": (["bird"], ["animal"]),
    "cat": (["cat", "true_cat"], ["animal"]),
    "tabby": (["tabby", "tabby_cat"], ["cat"]),
    "queen": (["tabby", "queen"], ["cat"]),
    "tabby cloth": (["tabby"], ["entity"]),
    "rodent": (["rodent", "gnawer"], ["animal"]),
    "mouse": (["mouse"], ["rodent"]),
    "machine": (["machine"], ["entity"]),
    "computer mouse": (["mouse", "computer_mouse"], ["machine"]),
    "crane": (["crane"], ["bird"]),
    "lifting crane": (["Crane"], ["machine"]),
    "espresso": (["espresso"], ["coffee"]),
    "coffee": (["coffee", "java"], ["entity"]),
}
"""Name -> its words, and what it is a kind of."""


def write_wordnet(folder: Path, synsets: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> Path:
    """The two files in WordNet's format, with its licence before them. A line's place is its synset's number."""
    header = b"  1 This software and database is being provided to you\n  2 for tests\n"

    def line(name: str, places: Mapping[str, int]) -> bytes:
        words, above = synsets[name]
        said = " ".join(f"{word} 0" for word in words)
        pointers = "".join(f" @ {places.get(each, 0):08d} n 0000" for each in above)
        more = " ~ 00000001 n 0000" if above else ""
        count = len(above) + bool(above)
        head = f"{places.get(name, 0):08d} 05 n {len(words):02x} {said} {count:03d}"
        return f"{head}{pointers}{more} | what {name} is\n".encode()

    places, at = dict[str, int](), len(header)
    for name in synsets:
        places[name], at = at, at + len(line(name, {}))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.noun").write_bytes(header + b"".join(line(name, places) for name in synsets))
    by_word: dict[str, list[int]] = {}
    for name, (words, _) in synsets.items():
        for word in words:
            by_word.setdefault(word.lower(), []).append(places[name])
    rows = [
        f"{word} n {len(found)} 1 @ {len(found)} 0 {' '.join(f'{place:08d}' for place in found)}  \n".encode()
        for word, found in sorted(by_word.items())
    ]
    (folder / "index.noun").write_bytes(header + b"".join(rows))
    return folder


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wordnet(tmp_path_factory.mktemp("wordnet"), _SYNSETS)


@pytest.mark.parametrize(
    ("label", "by_synset", "kinds"),
    [
        ("tabby, tabby cat", False, ["cat", "animal"]),
        ("Espresso", False, ["coffee"]),
        ("java", False, ["coffee"]),
        ("crane", False, []),  # a bird, or a machine
        ("mouse", False, []),  # a rodent, or a part of a computer
        ("mouse", True, ["rodent", "animal"]),
        ("tabby", False, []),
        ("tabby", True, []),  # the cloth has no other word
        ("computer mouse", False, []),  # a machine, which nobody wants
        ("unheard of", False, []),
        ("", False, []),
    ],
)
def test_a_kind_counts_if_every_meaning_of_the_label_is_one(
    wordnet: Path, label: str, by_synset: bool, kinds: list[str]
) -> None:
    wanted = ["cat", "rodent", "coffee", "animal"]
    assert Ontology(wordnet).kinds(label, wanted, by_synset=by_synset) == kinds


@given(st.sets(st.text("abcdefghij_", min_size=1, max_size=6), min_size=1, max_size=40), st.data())
def test_every_word_of_an_index_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, words: set[str], data: st.DataObject
) -> None:
    folder = write_wordnet(tmp_path_factory.mktemp("words"), {word: ([word], []) for word in words})
    found = Ontology(folder)
    for word in words:
        label = word.replace("_", " ").strip()
        if label.replace(" ", "_") == word and "  " not in label:
            assert found.kinds(label, [label]) == [label]
    other = data.draw(st.text("abcdefghijk", min_size=1, max_size=7))
    assert bool(found.kinds(other, [other])) == (other in words)


def test_a_kind_of_one_wanted_label_decides_and_of_two_does_not(wordnet: Path) -> None:
    found = propose(["tabby, tabby cat", "crane", "espresso"], ["cat", "coffee"], Ontology(wordnet))
    assert [(each.label, each.how, each.decided) for each in found.values()] == [
        ("cat", "ontology", True), (None, "none", False), ("coffee", "ontology", True),
    ]  # fmt: skip
    both = propose(["tabby, tabby cat"], ["cat", "animal"], Ontology(wordnet))["tabby, tabby cat"]
    assert not both.decided


def test_wordnet_is_used_where_it_is_and_missed_nowhere(wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ontology.find() is None
    assert not decide(["espresso"], ["coffee", "tea"]).pairs
    monkeypatch.setenv("WNSEARCHDIR", str(wordnet))
    table = decide(["espresso"], ["coffee", "tea"])
    assert (table.pairs, table.uncovered) == ({"espresso": "coffee"}, ("tea",))
