"""The parts of a split one by one: fractions, strata, audits, and what is said of labels that a split lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from speciate.datasets.columns import FINGERPRINT, KEY, ORIGIN, SKETCH
from speciate.datasets.splits import (
    Members,
    are_equal_fractions,
    audit_split,
    checked_fractions,
    components,
    count_leaks,
    find_missing_labels,
    group_names,
    made_by,
    members_of,
    near_pairs,
    readmit_refused,
    split_rows,
    strata,
    units_without_copies,
)
from speciate.sample_size import highest_target, smallest_difference
from tests.datasets import sealed

# Fractions


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        ({"test": 0.25, "train": 0.75}, {"train": 0.75, "test": 0.25}),
        ({"train": 0.33, "validation": 0.33, "test": 0.33}, {"train": 1 / 3, "validation": 1 / 3, "test": 1 / 3}),
        (
            {"train": 0.34, "validation": 0.34, "test": 0.33},
            {"train": 34 / 101, "validation": 34 / 101, "test": 33 / 101},
        ),
        ({"train": 1.0, "test": 0.0}, {"train": 1.0, "test": 0.0}),
        ({"train": 0.7, "validation": 0.2, "test": 0.1}, {"train": 0.7, "validation": 0.2, "test": 0.1}),
        ({"train": 0.5, "test": 0.5 + 1e-10}, {"train": 0.5, "test": 0.5 + 1e-10}),
    ],
)
def test_fractions_make_a_whole(given: dict[str, float], checked: dict[str, float]) -> None:
    found = checked_fractions(given)
    assert found == pytest.approx(checked, abs=1e-12)
    assert [*found] == [*checked]


def test_fractions_that_made_a_whole_stay_to_the_last_digit() -> None:
    given = {"train": 0.7, "validation": 0.2, "test": 0.1}  # which sum to 0.9999999999999999
    assert checked_fractions(given) == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": 0.5, "tests": 0.5}, "no split 'tests': fractions are of train, validation, test"),
        ({"train": 0.5, "b": 0.2, "a": 0.3}, "no split 'a'"), ({}, "at least one"),
        ({"train": 1.1, "test": -0.1}, "none below 0"), ({"train": 0.5}, "sum to 0.5, and not to 1"),
        ({"train": 0.988}, "sum to 0.988"), ({"train": 1.012}, "sum to 1.012"), ({"train": float("nan")}, "sum to nan"),
    ],
)  # fmt: skip
def test_what_is_no_share_of_one_whole_is_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked_fractions(given)


def test_fractions_are_equal_but_for_rounding() -> None:
    assert are_equal_fractions({"train": 1.0}, {"train": 1.0, "test": 0.0})
    assert are_equal_fractions({"train": 1.0, "test": 0.0}, {"train": 1.0})
    assert are_equal_fractions({"train": 0.5, "test": 0.5}, {"train": 0.5 + 1e-10, "test": 0.5 - 1e-10})
    assert not are_equal_fractions({"train": 0.5, "test": 0.5}, {"train": 0.5 + 1e-8, "test": 0.5})
    assert not are_equal_fractions({"train": 1.0}, {"test": 1.0})
    assert not are_equal_fractions({"train": 0.8, "test": 0.2}, {"train": 0.8, "validation": 0.2})


def test_a_report_says_by_what_shares_a_split_was_made() -> None:
    assert made_by({"train": 2 / 3, "test": 1 / 3}) == (
        "speciate: 66.67/33.33 train/test, groups and near-duplicates together, stratified"
    )


# Strata


def test_classes_are_strata_in_their_own_order_and_a_missing_one_is_the_first() -> None:
    assert strata(["b", None, "a", "b"]).tolist() == [2, 0, 1, 2]
    assert strata(pa.chunked_array([["b", None], ["a", "b"]])).tolist() == [2, 0, 1, 2]
    assert strata([]).tolist() == []
    assert strata([None, None]).tolist() == [0, 0]


def test_texts_of_which_most_occur_once_are_one_stratum() -> None:
    assert strata(["a", "b", "c", "d", "d"]).tolist() == [1, 1, 1, 4, 4]
    assert strata(["a", "b", "d", "d"]).tolist() == [1, 2, 3, 3], "half is not most"
    assert strata(["a", None, "b", None, None, "c", "e"]).tolist() == [1, 0, 1, 0, 0, 1, 1]


def test_numbers_are_strata_by_their_tenths() -> None:
    numbers = np.random.default_rng(0).permutation(200).astype(float)
    expected = (numbers // 20 + 1).astype(int).tolist()
    assert strata(numbers.tolist()).tolist() == expected
    assert strata(pa.chunked_array([pa.array(numbers)])).tolist() == expected
    assert strata([1.0, None, 2.0]).tolist()[1] == 0
    assert strata(pa.chunked_array([pa.array([1.0, None, 2.0])])).tolist()[1] == 0
    assert len(set(strata([5.0] * 10).tolist())) == 1
    assert strata(pa.chunked_array([["1", "2", "2"]])).tolist() == [1, 2, 2], "a text of digits is no number"


# Components and leaks


def members(groups: list[Any], contents: list[Any], pairs: list[tuple[int, int]] | None = None, **more: Any) -> Members:
    keys = [f"k{at}" for at in range(len(groups))]
    given = np.array(pairs or [], np.int64).reshape(-1, 2)
    return Members(keys, groups, contents, np.zeros(len(keys), np.int64), given, **more)


def test_leaks_are_counted_by_what_crosses() -> None:
    found = members(
        ["g", "g", "h", "h", None, None, "i", "i"], ["a", "b", "b", "c", "c", "d", "e", "e"],
        [(0, 2), (4, 5), (0, 5), (6, 7)],
    )  # fmt: skip
    splits = ["train", "test", "train", "train", "test", "test", None, "train"]
    assert count_leaks(found, splits) == (1, 2, 1)
    assert count_leaks(found, ["train"] * 8) == (0, 0, 0)
    assert count_leaks(found, [None] * 8) == (0, 0, 0)
    assert components(found).tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("groups", "contents", "pairs", "copies", "units"),
    [
        ([None] * 4, list("abcd"), [], ["x", "x", "y", None], 3),
        ([None] * 4, list("abcd"), [(1, 2)], ["x", "x", "y", None], 2),  # its copy stands for it
        ([None] * 4, list("abcd"), [(0, 1)], [None] * 4, 3),
        (["g", None, "g", None], list("abcd"), [], ["x", "x", None, None], 2),
        ([], [], [], [], 0),
        ([None] * 3, ["a", "a", "b"], [], ["x", "y", "y"], 1),
    ],
)
def test_units_are_counted_as_if_copies_were_gone(
    groups: list[Any], contents: list[Any], pairs: list[tuple[int, int]], copies: list[Any], units: int
) -> None:
    assert units_without_copies(members(groups, contents, pairs), copies) == units


# Audits


def test_an_audit_says_what_crosses_what_drifts_and_what_the_test_part_can_show() -> None:
    groups = ["a", "a", "b", "b", "c", "c", None, None]
    found = members(groups, [str(at) for at in range(8)], [(0, 4), (6, 7)])._replace(
        strata=np.array([0, 0, 1, 1, 0, 0, 1, 1])
    )
    splits = ["train", "train", "train", "train", "test", "test", "test", None]
    report = audit_split(found, splits, [f"id{at}" for at in range(8)])
    assert report == {
        "groups_across": 0, "identical_after_normalising_across": 0, "near_duplicates_across": 1,
        "label_drift": round(2 / 3 - 4 / 7, 4), "test_rows": 3, "test_units": 2, "units": 3, "test_groups": 1,
        "highest_target": highest_target(2), "smallest_difference": smallest_difference(2),
        "highest_target_at_best": highest_target(3), "near_duplicate_examples": [["id0", "id4"]],
    }  # fmt: skip
    assert "near_duplicate_examples" not in audit_split(found, splits)
    numbers = audit_split(found, splits, numeric=True)
    assert {"highest_target", "smallest_difference", "highest_target_at_best"}.isdisjoint(numbers)
    assert numbers["test_rows"] == 3


def test_an_audit_names_five_pairs_at_most_and_no_pair_that_crosses_nothing() -> None:
    pairs = [(0, 1), *((at, at + 10) for at in range(10))]
    found = members([None] * 20, [None] * 20, pairs)
    report = audit_split(found, ["train"] * 10 + ["test"] * 10, [f"id{at}" for at in range(20)])
    assert report["near_duplicates_across"] == 10
    assert report["near_duplicate_examples"] == [[f"id{at}", f"id{at + 10}"] for at in range(5)]


@pytest.mark.parametrize(
    ("uncompared", "pairs", "across", "not_checked"),
    [(0, [], 0, None), (3, [], 0, 3), (4, [], "not_checked", None), (4, [(0, 3)], 1, None)],
)
def test_what_was_not_compared_is_not_told_as_none(
    uncompared: int, pairs: list[tuple[int, int]], across: Any, not_checked: int | None
) -> None:
    found = members([None] * 4, [None] * 4, pairs, uncompared=uncompared)
    report = audit_split(found, ["train", "train", "test", "test"])
    assert report["near_duplicates_across"] == across
    assert report.get("near_duplicates_not_checked") == not_checked


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ([None] * 4, {"label_drift": 0.0}),
        (["train", "train", None, None], {"label_drift": 0.0, "units": 4}),
        (["test", "train", "train", "train"], {"label_drift": 0.0, "units": 4, "test_rows": 1, "test_units": 1}),
    ],
)
def test_a_split_without_a_test_part_shows_nothing(splits: list[str | None], expected: dict[str, Any]) -> None:
    report = audit_split(members([None] * 4, [None] * 4), splits)
    assert {name: report[name] for name in expected} == expected  # type: ignore[literal-required]
    assert ("test_rows" in report) == ("test" in splits)
    assert ("units" in report) == (splits != [None] * 4)
    assert "test_groups" not in report
    assert "highest_target_at_best" not in report


# Rows


def rows(count: int, **columns: Any) -> pa.Table:
    names = [f"r{at}" for at in range(count)]
    return sealed.rows({"id": names, KEY: names, FINGERPRINT: names, "label": ["x"] * count, **columns})


def test_rows_are_split_anew_but_for_those_that_are_kept_and_those_that_cannot_be_used() -> None:
    count = 40
    quality = ["excluded" if at % 10 == 0 else "ok" for at in range(count)]
    splits = ["test" if at < 20 else None for at in range(count)]
    table = rows(count, quality=quality, split=splits, label=list("ab") * 20)
    kept = split_rows(table, "tabular")
    found = kept.splits.to_pylist()
    assert [name is None for name in found] == [each != "ok" for each in quality]
    assert {found[at] for at in range(20) if at % 10} == {"test"}
    anew = split_rows(table, "tabular", keep=False).splits.to_pylist()
    assert anew != found
    assert anew.count("test") < 10
    other = split_rows(table, "tabular", keep=False, seed=1).splits.to_pylist()
    assert other != anew
    halves = split_rows(table, "tabular", keep=False, fractions={"train": 0.5, "test": 0.5}).splits.to_pylist()
    assert halves.count("test") == 18
    assert kept.audit["units"] == 36
    assert kept.audit["missing_labels"] == []
    assert "highest_target" in kept.audit


def test_rows_are_balanced_by_another_column_and_grouped_by_one() -> None:
    count = 60
    table = rows(count, kind=[str(at % 3) for at in range(count)], pig=[f"p{at // 4}" for at in range(count)])
    found = members_of(table, "tabular", stratify_by="kind", group_by="pig")
    assert found.strata.tolist() == [at % 3 + 1 for at in range(count)]
    assert components(found).tolist() == [at // 4 for at in range(count)]
    by_pig = split_rows(table, "tabular", group_by="pig", stratify_by="kind", keep=False).splits.to_pylist()
    assert all(len(set(by_pig[at : at + 4])) == 1 for at in range(0, count, 4))
    plain = members_of(table, "tabular")
    assert len(set(components(plain).tolist())) == count
    assert plain.uncompared == count
    numbers = split_rows(rows(20).set_column(2, "label", pa.array(np.arange(20.0))), "tabular").audit
    assert "highest_target" not in numbers


def test_windows_stay_with_the_whole_that_they_came_from() -> None:
    table = rows(5, **{ORIGIN: pa.array([None, "r0", "r0", "gone", "gone"], pa.string())})
    assert components(members_of(table, "tabular")).tolist() == [0, 0, 0, 1, 1]


def test_without_sketches_nothing_is_near() -> None:
    table = rows(3)
    assert near_pairs(table, "tabular").shape == (0, 2)
    assert near_pairs(table.drop_columns([SKETCH]), "text").shape == (0, 2)
    assert members_of(table.drop_columns([SKETCH]), "text").uncompared == 3


REFUSED = "Its group or near-duplicates lie in the splits 'a' and 'b'"


def test_rows_that_were_refused_for_their_splits_are_usable_again_where_they_have_a_label() -> None:
    table = rows(
        4, quality=["refused", "refused", "excluded", "refused"], label=["x", None, "x", "x"],
        reason=[f"{REFUSED}: in any of them it would leak.", REFUSED, "too long", None],
    )  # fmt: skip
    back = readmit_refused(table)
    assert back["quality"].to_pylist() == ["ok", "refused", "excluded", "refused"]
    assert back["reason"].to_pylist()[0] is None
    assert back["reason"].to_pylist()[1:3] == table["reason"].to_pylist()[1:3]
    unlabelled = readmit_refused(table.set_column(2, "label", pa.nulls(4, pa.string())))
    assert unlabelled["quality"].to_pylist() == ["ok", "ok", "excluded", "refused"]


def test_a_row_without_a_group_gets_the_least_of_what_it_belongs_with() -> None:
    table = rows(
        6, group_key=["z", None, "y", None, None, "z"], **{FINGERPRINT: ["1", "1", "1", "2", "2", "3"]}
    )  # fmt: skip
    found = group_names(table, "tabular", ["n5", "n4", "n3", "n2", "n1", "n0"])
    assert found.to_pylist() == ["z", "y", "y", "n1", "n1", "z"]


# Labels that a split lacks


def missing(labels: list[Any], splits: list[Any], *, made: bool = True, **columns: Any) -> list[Any]:
    table = rows(len(labels), label=labels, split=splits, **columns)
    return list(find_missing_labels(table, members_of(table, "tabular"), made=made))


def test_labels_that_a_split_lacks_are_told_the_commonest_first() -> None:
    labels = ["a", "a", "b", "b", "c", "c", "c", "d", None]
    splits = ["train", "test", "train", "train", "test", "test", "test", "train", "test"]
    found = missing(labels, splits)
    assert [(each["label"], each["examples"], each["splits"]) for each in found] == [
        ("c", 3, ["train"]), ("b", 2, ["test"]), ("d", 1, ["test"]),
    ]  # fmt: skip
    assert [each["why"] for each in found] == [
        "the shares left none of its 3 examples, in 3 sets that stay together",
        "the shares left none of its 2 examples, in 2 sets that stay together",
        "it is the only one",
    ]
    assert {each["why"] for each in missing(labels, splits, made=False)} == {"the source's own split has it so"}
    three = missing(labels, [*splits[:-1], "validation"])
    assert [each["splits"] for each in three] == [
        ["train", "validation"], ["validation"], ["validation", "test"], ["validation", "test"],
    ]  # fmt: skip
    assert three[2]["why"] == "it has 2 examples"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"group_key": ["g"] * 3 + [None] * 5}, "its 3 examples are of one group"),
        ({FINGERPRINT: ["f"] * 3 + list("abcde")}, "its 3 examples are identical"),
        ({ORIGIN: pa.array(["r0", "r0", "r0", *[None] * 5], pa.string())},
         "its 3 examples are near-duplicates of one another and stay together"),
        ({"group_key": ["g", "g", None] + [None] * 5, FINGERPRINT: ["1", "2", "2", *"abcde"]},
         "its 3 examples stay together as groups or copies"),
        ({"group_key": ["g", "g", None] + [None] * 5},
         "it has 3 examples, of which 2 sets stay together as groups or near-duplicates"),
        ({}, "the shares left none of its 3 examples, in 3 sets that stay together"),
    ],
)  # fmt: skip
def test_why_a_split_lacks_a_label(columns: dict[str, Any], why: str) -> None:
    splits = ["train"] * 3 + ["train", "train", "test", "test", "validation"]
    [found] = missing(list("aaa") + list("bbbbb"), splits, **columns)
    assert (found["label"], found["splits"], found["why"]) == ("a", ["validation", "test"], why)


@pytest.mark.parametrize(
    ("labels", "splits", "told"),
    [
        (["a", "b", "b"], ["train", "test", "test"], 2),
        (["a", "b", "c"], ["train", "test", "test"], 0),  # texts that occur once
        (["a", "b", "c", "c"], ["train", "test", "test", "test"], 3),  # half of them
        (["a", "b", "b"], ["train"] * 3, 0),
        (["a", "b", "b"], ["holdout", "train", "train"], 0),  # one that counts
    ],
)
def test_labels_are_looked_for_where_they_are_classes(labels: list[str], splits: list[str], told: int) -> None:
    assert len(missing(labels, splits)) == told


def test_no_more_than_fifty_labels_are_told_and_numbers_are_none() -> None:
    labels = [f"l{at // 2:03}" for at in range(120)]
    found = missing(labels, ["train", "train", "test", "test"] * 30)
    assert [each["label"] for each in found] == [f"l{at:03}" for at in range(50)]
    table = rows(4, split=["train", "train", "test", "test"])
    numeric = table.set_column(2, "label", pa.array([1.0, 1.0, 2.0, 2.0]))
    assert find_missing_labels(numeric, members_of(numeric, "tabular"), made=True) == []
