"""Published labels and the user's: what decides, what only proposes, and how answers are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.models.published.label_map import (
    SYNONYMS,
    LabelMap,
    decide,
    is_unnamed,
    map_class,
    map_labels,
    map_tags,
    propose,
)


@pytest.mark.parametrize(
    ("published", "wanted", "label", "how"),
    [
        ("POSITIVE", ("POSITIVE", "NEGATIVE"), "POSITIVE", "same"),
        ("Positive", ("positive", "negative"), "positive", "spelling"),
        ("tabby, tabby cat", ("tabby cat", "dog"), "tabby cat", "spelling"),
        ("dogs", ("dog", "cat"), "dog", "spelling"),
        ("sports_ball", ("sports ball",), "sports ball", "spelling"),
        ("trafficLight", ("traffic light",), "traffic light", "spelling"),
        ("B-PER", ("person",), "person", "synonym"),
        ("NEGATIVE", ("good", "bad"), "bad", "synonym"),
        ("automobile", ("car", "truck"), "car", "synonym"),
        ("toxicity", ("toxic", "fine"), "toxic", "likeness"),
        ("motor vehicle", ("vehicle",), "vehicle", "likeness"),
        ("LABEL_1", ("good", "bad"), None, "unnamed"),
        ("class 3", ("good", "bad"), None, "unnamed"),
        ("7", ("good", "bad"), None, "unnamed"),
        ("tripod", ("cat", "dog"), None, "none"),
    ],
)
def test_a_label_is_proposed_by_what_tells_most(
    published: str, wanted: tuple[str, ...], label: str | None, how: str
) -> None:
    found = propose([published], wanted)[published]
    assert (found.label, found.how) == (label, how)


def test_likeness_and_unnamed_labels_never_decide() -> None:
    table = decide(["toxicity", "motorcycle", "LABEL_0", "fine"], ["toxic", "bicycle", "fine"])
    assert table.pairs == {"fine": "fine"}
    assert table.uncovered == ("toxic", "bicycle")


PUBLISHED_SETS = [
    (("NEGATIVE", "NEUTRAL", "POSITIVE"), ("good", "bad"), {"NEGATIVE": "bad", "POSITIVE": "good"}),
    (("1 star", "2 stars", "3 stars", "4 stars", "5 stars"), ("negative", "positive"), {}),
    (("O", "PER", "ORG", "LOC", "MISC"), ("person", "company", "place"), {"PER": "person"}),
    (
        ("person", "bicycle", "car", "motorcycle", "bus", "truck", "dog", "sofa"),
        ("pedestrian", "bike", "vehicle", "couch"),
        {"bicycle": "bike", "sofa": "couch"},
    ),
    (
        ("admiration", "anger", "joy", "sadness", "fear", "surprise", "neutral"), ("happy", "angry", "sad", "praise"),
        {"anger": "angry", "joy": "happy", "sadness": "sad"},
    ),
    (("contradiction", "neutral", "entailment"), ("entailment", "not_entailment"), {"entailment": "entailment"}),
    (("ham", "spam"), ("spam", "not spam"), {"ham": "not spam", "spam": "spam"}),
    (("toxic", "severe_toxic", "obscene", "threat"), ("toxic", "clean"), {"toxic": "toxic"}),
]  # fmt: skip


@pytest.mark.parametrize(("published", "wanted", "pairs"), PUBLISHED_SETS)
def test_of_eight_published_sets_no_automatic_pair_is_wrong(
    published: tuple[str, ...], wanted: tuple[str, ...], pairs: dict[str, str]
) -> None:
    assert decide(published, wanted).pairs == pairs


def test_two_wanted_labels_of_one_spelling_decide_nothing() -> None:
    assert decide(["Cat"], ["cat", "CAT"]).pairs == {}
    assert decide(["cat"], ["cat", "CAT"]).pairs == {"cat": "cat"}


def test_a_given_table_stands_for_all_that_would_be_proposed() -> None:
    table = decide(["LABEL_0", "good"], ["good", "bad"], {"LABEL_0": "bad"})
    assert table.pairs == {"LABEL_0": "bad"}
    assert table.uncovered == ("good",)


def test_what_no_label_means_lowers_the_ceiling() -> None:
    table = LabelMap({"tabby": "cat"}, ("cat", "dog"))
    assert table.ceiling(["cat", "cat", "dog", "cat"]) == 0.75
    assert table.ceiling([]) is None


def test_probabilities_of_one_meaning_are_added_and_the_rest_lies_elsewhere() -> None:
    table = LabelMap({"tabby": "cat", "tiger cat": "cat", "beagle": "dog"}, ("bird", "cat", "dog"))
    found = map_class(table, {"tabby": 0.3, "tiger cat": 0.1, "beagle": 0.1, "tripod": 0.5})
    assert found.label == "cat"
    assert found.probabilities == pytest.approx({"bird": 0.0, "cat": 0.8, "dog": 0.2})
    assert found.elsewhere == pytest.approx(0.5)
    assert map_class(table, {"tripod": 1.0}).label is None


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=8), st.data())
def test_mapped_probabilities_are_shares(weights: list[float], data: st.DataObject) -> None:
    names = [f"p{place}" for place in range(len(weights))]
    total = sum(weights)
    pairs = {name: data.draw(st.sampled_from(("a", "b"))) for name in names if data.draw(st.booleans())}
    found = map_class(
        LabelMap(pairs, ("a", "b", "c")), dict(zip(names, (each / total for each in weights), strict=True))
    )
    inside = sum(share / total for name, share in zip(names, weights, strict=True) if name in pairs)
    assert found.elsewhere == pytest.approx(1 - inside, abs=1e-9)
    assert (found.label is None) == (not pairs)
    if pairs:
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert found.probabilities["c"] == 0


def test_several_labels_and_tags_lose_those_outside_and_count_them() -> None:
    table = LabelMap({"joy": "happy", "love": "happy"}, ("happy",))
    assert map_labels(table, ["joy", "love", "fear"]) == (["happy"], 1)
    tags = LabelMap({"PER": "person", "O": "O"}, ("person", "O"))
    assert map_tags(tags, ["B-PER", "I-PER", "O", "B-MISC"], "O", prefixed=True) == (
        ["B-person", "I-person", "O", "O"], 1,
    )  # fmt: skip
    assert map_tags(tags, ["PER", "PER", "O", "PER"], "O", prefixed=True)[0] == [
        "B-person", "I-person", "O", "B-person",
    ]  # fmt: skip


def test_no_word_is_a_synonym_of_two_things() -> None:
    words = [word for row in SYNONYMS for word in row]
    assert len(words) == len(set(words))
    assert not any(is_unnamed(word) for word in words)
