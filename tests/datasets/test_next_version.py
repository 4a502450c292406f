"""A chain of parts holds the same rows, has the same id and shows the same changes as if each version stood alone."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets import next_version, version_rows
from speciate.datasets.inspect.changes import compare_versions
from speciate.datasets.next_version import SealedVersion
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Folders
from tests.drawn import drawn

Row = tuple[str | None, str, float | None]
"""Label, quality, value."""
rows_strategy = st.dictionaries(
    st.integers(0, 40).map(lambda i: f"ex-{i:03}"),
    st.tuples(
        st.sampled_from(["cat", "dog", None]),
        st.sampled_from(["ok", "ok", "ok", "partial"]),
        st.sampled_from([0.5, 1.0, None, float("nan")]),
    ),
    min_size=1,
)
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "split", "label", "group_key", "quality", "reason", "source")),
        *((name, pa.string()) for name in ("_content", "_fingerprint", "_key")),
        ("value", pa.float64()),
    ]
)


def table(rows: Mapping[str, Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "id": name, "split": "train", "label": label, "quality": quality, "source": f"{name}.png",
                "_content": name, "_fingerprint": name, "_key": name, "value": value,
            }
            for name, (label, quality, value) in rows.items()
        ],
        _SCHEMA,
    )  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.make()
    return made


def empty() -> Manifest:
    return Manifest(name="set", version=0, id="", modality="text", parts=(), columns={}, label="label", rows=0)


def plain(found: pa.Table) -> list[str]:
    return [repr(row) for row in found.sort_by("id").to_pylist()]


def counts(folders: Folders, old: Manifest, new: Manifest) -> dict[str, Any]:
    return compare_versions(
        {"root": str(folders.root), "old": old.model_dump(mode="json"), "new": new.model_dump(mode="json")}
    )


@settings(deadline=None, max_examples=drawn(10, 3))
@given(st.lists(rows_strategy, min_size=2, max_size=12))
def test_any_history_ends_in_the_version_that_a_fresh_start_gives(history: list[dict[str, Row]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        folders = Folders(Path(root))
        folders.make()
        now = next_version.seal_first(folders, table(history[0]), empty())
        for before, rows in pairwise(history):
            old = now.manifest
            now = next_version.seal_changed(folders, old, now.lanes, table(rows))
            anew = next_version.seal_first(folders, table(rows), empty())
            assert now.manifest.id == anew.manifest.id
            assert plain(version_rows.read(folders, now.manifest)) == plain(table(rows))
            kept = ("id", "columns", "splits", "labels", "rows")
            assert now.manifest.model_dump(include=set(kept)) == anew.manifest.model_dump(include=set(kept))
            assert len(now.manifest.parts) <= next_version.MOST_PARTS
            with duckdb.connect() as connection:
                source = version_rows.relation(folders, now.manifest)
                assert connection.execute(f"SELECT count(*) FROM {source}").fetchall() == [(len(rows),)]
            found = counts(folders, old, now.manifest)
            assert found["added"] == len(rows.keys() - before.keys())
            assert found["removed"] == len(before.keys() - rows.keys())
            both = rows.keys() & before.keys()
            assert found["changed"] == sum(repr(rows[name]) != repr(before[name]) for name in both)
            assert sum(move[2] for move in found["label_moves"]) == sum(
                rows[name][0] != before[name][0] for name in both
            )
            assert counts(folders, anew.manifest, now.manifest) == {
                "added": 0, "removed": 0, "changed": 0, "label_moves": [],
            }  # fmt: skip


@settings(deadline=None, max_examples=drawn(15, 5))
@given(st.lists(rows_strategy, min_size=2, max_size=12))
def test_rows_that_are_appended_bit_by_bit_make_the_same_version_as_all_at_once(pieces: list[dict[str, Row]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        folders = Folders(Path(root))
        folders.make()
        now, everything = next_version.seal_first(folders, table(pieces[0]), empty()), dict(pieces[0])
        for piece in pieces[1:]:
            new = {name: row for name, row in piece.items() if name not in everything}
            everything |= new
            now = next_version.seal_appended(folders, now.manifest, now.lanes, table(new))
        anew = next_version.seal_first(folders, table(everything), empty())
        assert (now.manifest.id, now.manifest.rows) == (anew.manifest.id, anew.manifest.rows)
        assert (now.manifest.labels, now.manifest.splits) == (anew.manifest.labels, anew.manifest.splits)
        assert plain(version_rows.read(folders, now.manifest)) == plain(table(everything))


@settings(deadline=None, max_examples=drawn(15, 5))
@given(st.lists(rows_strategy, min_size=2, max_size=9), st.data())
def test_rows_that_are_taken_away_leave_the_version_that_the_others_make(
    history: list[dict[str, Row]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as root:
        folders = Folders(Path(root))
        folders.make()
        now = next_version.seal_first(folders, table(history[0]), empty())
        for rows in history[1:]:  # several parts, of which some have lost rows
            now = next_version.seal_changed(folders, now.manifest, now.lanes, table(rows))
        rows = dict(history[-1])
        for _ in range(3):
            gone = data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=max(0, len(rows) - 1)))
            left = {name: row for name, row in rows.items() if name not in gone}
            taken = table({name: rows[name] for name in gone})
            now = next_version.seal_without(folders, now.manifest, now.lanes, taken)
            anew = next_version.seal_first(folders, table(left), empty())
            kept = {"id", "columns", "splits", "labels", "rows"}
            assert now.manifest.model_dump(include=kept) == anew.manifest.model_dump(include=kept)
            assert (now.lanes == anew.lanes).all()
            assert plain(version_rows.read(folders, now.manifest)) == plain(table(left))
            rows = left
        with pytest.raises(SpeciateError, match="would be left"):
            next_version.seal_without(folders, now.manifest, now.lanes, table(rows))


def test_a_small_change_of_many_rows_writes_little(folders: Folders) -> None:
    rows: dict[str, Row] = {f"ex-{i:05}": ("cat", "ok", i / 7) for i in range(20_000)}
    first = next_version.seal_first(folders, table(rows), empty())
    written = sum(path.stat().st_size for path in folders.datasets.rglob("*.parquet"))
    rows["ex-00007"] = ("dog", "ok", 1.0)
    del rows["ex-00008"]
    second = next_version.seal_changed(folders, first.manifest, first.lanes, table(rows))
    more = sum(path.stat().st_size for path in folders.datasets.rglob("*.parquet")) - written
    assert len(second.manifest.parts) == 2
    assert more < written / 20


def test_a_change_of_most_rows_starts_a_new_base(folders: Folders) -> None:
    rows: dict[str, Row] = {f"ex-{i}": ("cat", "ok", 1.0) for i in range(10)}
    first = next_version.seal_first(folders, table(rows), empty())
    second = next_version.seal_changed(
        folders, first.manifest, first.lanes, table(dict.fromkeys(rows, ("dog", "ok", 1.0)))
    )
    assert len(second.manifest.parts) == 1


def test_a_new_column_costs_only_the_rows_that_have_a_value_in_it(folders: Folders) -> None:
    rows: dict[str, Row] = {f"ex-{i}": ("cat", "ok", 1.0) for i in range(100)}
    first = next_version.seal_first(folders, table(rows), empty())
    noted = table(rows).append_column("note", pa.array(["seen", *[None] * 99], pa.string()))
    second = next_version.seal_changed(folders, first.manifest, first.lanes, noted)
    assert [part.rows for part in second.manifest.parts] == [100, 1]
    assert second.manifest.columns == {"value": "DOUBLE", "note": "VARCHAR"}
    assert second.manifest.id == next_version.seal_first(folders, noted, empty()).manifest.id
    assert counts(folders, first.manifest, second.manifest)["changed"] == 1


def test_a_column_that_goes_or_changes_its_type_is_written_anew(folders: Folders) -> None:
    rows: dict[str, Row] = {f"ex-{i}": ("cat", "ok", 1.5) for i in range(20)}
    first = next_version.seal_first(folders, table(rows), empty())
    without = table(rows).drop_columns(["value"])
    assert "value" not in next_version.seal_changed(folders, first.manifest, first.lanes, without).manifest.columns
    text = table(rows).set_column(10, "value", pa.array(["1.5"] * 20))
    second = next_version.seal_changed(folders, first.manifest, first.lanes, text)
    assert second.manifest.columns == {"value": "VARCHAR"}
    assert second.manifest.id == next_version.seal_first(folders, text, empty()).manifest.id


def without(folders: Folders, now: SealedVersion, keep: pa.Table) -> list[Manifest]:
    """The two ways to take rows away."""
    whole = version_rows.read(folders, now.manifest)
    mask = pc.is_in(whole["id"], value_set=keep["id"].combine_chunks())
    return [
        next_version.seal_without(folders, now.manifest, now.lanes, whole.filter(pc.invert(mask))).manifest,
        next_version.seal_changed(folders, now.manifest, now.lanes, whole.filter(mask)).manifest,
    ]


def test_a_column_goes_with_the_last_rows_that_came_with_it(folders: Folders) -> None:
    rows = table({f"ex-{i}": ("cat", "ok", 1.0) for i in range(20)})
    more = table({"ex-20": ("cat", "ok", 1.0)}).append_column("note", pa.array(["seen"]))
    first = next_version.seal_first(folders, rows, empty())
    second = next_version.seal_appended(folders, first.manifest, first.lanes, more)
    assert second.manifest.columns == {"value": "DOUBLE", "note": "VARCHAR"}
    for left in without(folders, second, rows):
        assert left.columns == {"value": "DOUBLE"}
        assert version_rows.read(folders, left, list(left.columns)).num_rows == 20


def test_a_version_that_still_names_such_a_column_is_read_with_nothing_in_it(folders: Folders) -> None:
    """As versions were stored before."""
    rows = table({f"ex-{i}": ("cat", "ok", 1.0) for i in range(20)})
    first = next_version.seal_first(folders, rows, empty()).manifest
    columns = {"value": "DOUBLE", 'a "note"': "VARCHAR", "count": "BIGINT", "many": "VARCHAR[]"}
    stale = first.model_copy(update={"columns": columns})
    for asked in (None, list(columns)):
        read = version_rows.read(folders, stale, asked)
        assert {name: read[name].null_count for name in columns} == {"value": 0, **dict.fromkeys([*columns][1:], 20)}
        assert read['a "note"'].type == pa.string()
    counted = """SELECT count("a ""note\"""), count(count), count(value) FROM"""
    assert duckdb.sql(f"{counted} {version_rows.relation(folders, stale)}").fetchall() == [(0, 0, 20)]
    lanes, left = next_version.seal_first(folders, rows, empty()).lanes, version_rows.read(folders, stale).slice(1)
    later = next_version.seal_changed(folders, stale, lanes, left)
    assert later.manifest.columns == {"value": "DOUBLE"}


def test_an_input_and_a_new_column_stay_though_no_row_has_a_value_in_them(folders: Folders) -> None:
    rows = table({f"ex-{i}": ("cat", "ok", 1.0) for i in range(20)})
    more = table({"ex-20": ("cat", "ok", 1.0)}).append_column("note", pa.array(["seen"]))
    first = next_version.seal_first(folders, rows, empty().model_copy(update={"inputs": ("value", "note")}))
    second = next_version.seal_appended(folders, first.manifest, first.lanes, more)
    noted = rows.append_column("note", pa.nulls(20, pa.string()))
    new = next_version.seal_changed(folders, first.manifest, first.lanes, noted).manifest
    for left in (*without(folders, second, rows), new):
        assert version_rows.read(folders, left, ["note"])["note"].null_count == 20


def test_the_types_of_columns_are_those_of_the_rows_that_are_left(folders: Folders) -> None:
    fractions = table({f"ex-{i}": ("cat", "ok", i + 0.5) for i in range(20)})
    whole = table({f"ex-{i}": ("cat", "ok", 1.0) for i in (20, 21)}).set_column(10, "value", pa.array([1, 2]))
    for base, added in ((fractions, whole), (whole, fractions)):
        first = next_version.seal_first(folders, base, empty())
        second = next_version.seal_appended(folders, first.manifest, first.lanes, added)
        for each in (second.manifest, *without(folders, second, base), *without(folders, second, added)):
            read = version_rows.read(folders, each)
            assert each.columns == next_version.user_columns(read)


def test_a_version_without_any_row_is_never_made(folders: Folders) -> None:
    first = next_version.seal_first(folders, table({"ex-1": ("cat", "ok", 1.0)}), empty())
    with pytest.raises(SpeciateError, match="Nothing of"):
        next_version.seal_changed(folders, first.manifest, first.lanes, table({}))


def test_whole_numbers_that_become_fractions_make_no_other_version(folders: Folders) -> None:
    rows: dict[str, Row] = {"ex-1": ("cat", "ok", 1.0), "ex-2": ("dog", "ok", 2.0)}
    fractions = table(rows)
    whole = fractions.set_column(10, "value", pa.array([1, 2], pa.int64()))
    assert (
        next_version.seal_first(folders, whole, empty()).manifest.id
        == next_version.seal_first(folders, fractions, empty()).manifest.id
    )


def test_an_id_that_occurs_twice_is_refused_before_anything_is_made(folders: Folders) -> None:
    rows: dict[str, Row] = {"ex-1": ("cat", "ok", 1.0), "ex-2": ("dog", "ok", 2.0)}
    first = next_version.seal_first(folders, table(rows), empty())
    twice = pa.concat_tables([table(rows), table(rows)])
    for make in (
        lambda: next_version.seal_first(folders, twice, empty()),
        lambda: next_version.seal_changed(folders, first.manifest, first.lanes, twice),
        lambda: next_version.seal_appended(folders, first.manifest, first.lanes, twice),
    ):
        with pytest.raises(SpeciateError, match="the same id"):
            make()


def test_a_manifest_lists_the_most_frequent_of_very_many_labels(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_version, "MOST_LABELS", 2)
    rows: dict[str, Row] = {f"ex-{i}": (label, "ok", 1.0) for i, label in enumerate("aaabbc")}
    first = next_version.seal_first(folders, table(rows), empty())
    assert first.manifest.labels == {"a": 3, "b": 2}
    counted = first.manifest.model_copy(update={"labels": {"a": 3, "b": 2, "c": 1}})  # as a run has counted them
    same = next_version.seal_without(folders, first.manifest, first.lanes, table({}), counted)
    assert same.manifest.labels == {"a": 3, "b": 2}


def test_a_workspace_may_lie_below_a_folder_that_looks_like_a_partition(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "seed=7")
    folders.make()
    made = next_version.seal_first(folders, table({"ex-1": ("cat", "ok", 1.0)}), empty()).manifest
    with duckdb.connect() as connection:
        named = connection.execute(f"DESCRIBE SELECT * FROM {version_rows.relation(folders, made)}").fetchall()
    assert "seed" not in {row[0] for row in named}


def test_a_version_of_before_and_all_that_come_of_it_hash_as_it_did(folders: Folders) -> None:
    rows: dict[str, Row] = {f"ex-{i:03}": ("cat", "ok", float(i)) for i in range(20)}
    sealed = next_version.seal_first(folders, table(rows), empty(), 1)
    stored = sealed.manifest.model_dump(mode="json")
    del stored["hashing"]
    first = Manifest.model_validate(stored)
    more = {"ex-100": ("dog", "ok", 1.5)}
    other = {**rows, "ex-000": ("dog", "ok", 0.0)}
    anew: dict[str, Row] = dict.fromkeys(rows, ("dog", "ok", 9.0))
    for now, held in (
        (next_version.seal_appended(folders, first, sealed.lanes, table(more)), rows | more),
        (next_version.seal_changed(folders, first, sealed.lanes, table(other)), other),
        (next_version.seal_changed(folders, first, sealed.lanes, table(anew)), anew),
        (next_version.seal_changed(folders, first, sealed.lanes, table(rows)), rows),
    ):
        assert now.manifest.hashing == 1
        assert now.manifest.id == next_version.seal_first(folders, table(held), empty(), 1).manifest.id
        assert now.manifest.id != next_version.seal_first(folders, table(held), empty()).manifest.id
