"""Rows as files that never change: their names, their rights, and how they are laid out."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets import content_hash
from speciate.datasets.content_hash import row_digests, seal_rows

TABLE = pa.table({"id": ["a", "b"], "x": [1.0, 2.5]})


def test_a_file_is_named_by_its_bytes_and_nobody_writes_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    file = seal_rows(TABLE, folder)
    assert file == folder / f"{hashlib.sha256(file.read_bytes()).hexdigest()[:32]}.parquet"
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert [*folder.iterdir()] == [file]
    assert pq.read_table(file).equals(TABLE)
    assert pq.read_metadata(file).row_group(0).column(0).compression == "ZSTD"


def test_the_same_rows_are_the_same_file_as_young_as_its_last_use(tmp_path: Path) -> None:
    first = seal_rows(TABLE, tmp_path)
    before = first.stat()
    os.utime(first, (1, 1))
    assert seal_rows(TABLE, tmp_path) == first
    assert first.stat().st_mtime > before.st_mtime - 60
    assert first.stat().st_ino == before.st_ino
    assert [*tmp_path.iterdir()] == [first]


def test_a_file_is_laid_out_in_small_pages_by_its_columns_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few rows of a group are read without unpacking all of it; the columns are looked at without their rows."""
    rows = 64 * 16_385 + 63
    table = pa.table({"x": np.random.default_rng(0).random(rows)})
    expected, written, usual = tmp_path / "expected", list[tuple[int, object]](), pq.write_table
    how = {"compression": "zstd", "row_group_size": 16_385, "use_dictionary": False}
    usual(table, expected, data_page_size=32_768, write_batch_size=1024, **how)

    def noted(given: pa.Table, *to: Any, **more: Any) -> None:
        written.append((given.num_rows, more.get("row_group_size")))
        usual(given, *to, **more)

    monkeypatch.setattr(content_hash.pq, "write_table", noted)
    assert seal_rows(table, tmp_path).read_bytes() == expected.read_bytes()
    assert written == [(0, None), (rows, 16_385)]
    assert isinstance(written[1][1], int)


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(table: pa.Table, path: Path, **how: object) -> None:
        assert re.fullmatch(r"\.rows\.\d+\.[0-9a-f]{8}", path.name), "no reader takes it for a sealed file"
        path.write_bytes(b"half")
        raise OSError("no space")

    monkeypatch.setattr(content_hash.pq, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        seal_rows(TABLE, tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_rows_and_their_folder_are_on_disk_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[str]()
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.path.realpath(f"/proc/self/fd/{number}")))
    file = seal_rows(TABLE, tmp_path)
    synced = [each for each in synced if each.startswith(str(tmp_path))]
    assert Path(synced[0]).parent == tmp_path
    assert synced[0] != str(file), "before it has its name"
    assert synced[1:] == [str(tmp_path)]


@pytest.mark.parametrize(
    ("rows", "groups"),
    [(1, [1]), (16_385, [16_384, 1]), (64 * 16_385 + 63, [16_385] * 64 + [63]), (64 * 122_881, [122_880] * 64 + [64])],
)
def test_a_file_has_some_64_groups_none_of_them_tiny_or_huge(rows: int, groups: list[int], tmp_path: Path) -> None:
    footer = pq.read_metadata(seal_rows(pa.table({"x": pa.nulls(rows)}), tmp_path))
    assert [footer.row_group(place).num_rows for place in range(footer.num_row_groups)] == groups


@pytest.mark.parametrize(
    ("rows", "different", "dictionary"),
    [(4095, 4095, True), (4096, 4096, False), (4096, 2049, False), (4096, 2048, True), (9000, 2048, True)],
)
def test_a_column_of_ever_other_values_gets_no_dictionary(
    rows: int, different: int, dictionary: bool, tmp_path: Path
) -> None:
    """By the first 4,096 rows; a short file is not judged."""
    values = [f"v{place % different if place < 4096 else place}" for place in range(rows)]
    lists = [[value] for value in values]
    footer = pq.read_metadata(seal_rows(pa.table({"x": values, "y": lists}), tmp_path)).row_group(0)
    assert [footer.column(place).has_dictionary_page for place in range(2)] == [dictionary, True]


def test_the_digest_of_a_row_is_that_of_its_cells_without_where_they_came_from() -> None:
    table = pa.table({"id": ["a", "b"], "source": ["one", "two"], "label": ["x", None], "n": [1.0, 0.5]})
    expected = [hashlib.sha256(text).digest() for text in (b'{"label":"x","n":1}', b'{"n":0.5}')]
    assert [*row_digests(table.drop_columns(["id"]))] == expected
    assert [*row_digests(table.select(["source"]))] == []


def test_rows_are_hashed_in_batches_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2 * 16_384 + 5
    table = pa.table({"x": pa.array(range(count), pa.int64())})
    found = [*row_digests(table)]
    assert len(set(found)) == count
    assert found[20_000] == hashlib.sha256(b'{"x":20000}').digest()
    sizes = list[int]()
    usual = content_hash.canonical_rows
    monkeypatch.setattr(content_hash, "canonical_rows", lambda batch: sizes.append(len(batch)) or usual(batch))
    assert [*row_digests(table)] == found
    assert sizes == [16_384, 16_384, 5]
    sizes.clear()
    long = pa.table({"text": ["x" * (8 << 20)] * 5})  # 32 MiB at once
    assert len(set(row_digests(long))) == 1
    assert sizes == [3, 2]
    sizes.clear()
    assert len(list(row_digests(pa.table({"text": ["x" * (33 << 20)] * 2})))) == 2
    assert sizes == [1, 1]
