"""One flipped byte, anywhere in a file that says itself what it should be, is found."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.errors import Code, SpeciateError
from speciate.workspace import integrity

pytestmark = pytest.mark.durable

TABLE = pa.table({"id": [f"row-{number}" for number in range(300)], "value": list(range(300))})


def sealed(path: Path, table: pa.Table = TABLE) -> Path:
    with path.open("w+b") as file:
        integrity.write_table(table, file, compression="zstd")
    return path


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Change one bit in place, as a disk would: the time of writing may or may not tell."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


def test_whoever_reads_parquet_reads_sealed_parquet(tmp_path: Path) -> None:
    path = sealed(tmp_path / "rows.parquet")
    assert pq.read_table(path) == TABLE
    assert integrity.read_table(path, "") == TABLE
    assert integrity.has_own_checksum(path)
    assert duckdb.sql(f"SELECT sum(value) FROM '{path}' WHERE id >= 'row-29'").fetchall()[0][0] > 0
    with pq.ParquetFile(path, memory_map=True) as file:
        assert sum(len(batch) for batch in file.iter_batches(64)) == 300


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flip_is_found(tmp_path_factory: pytest.TempPathFactory, share: float, bit: int) -> None:
    path = sealed(tmp_path_factory.mktemp("flip") / "rows.parquet")
    flip(path, int(share * path.stat().st_size), bit)
    with pytest.raises(SpeciateError) as caught:
        integrity.read_table(path, "Rows are lost.")
    assert caught.value.code is Code.DAMAGED
    assert str(path) in caught.value.message


def test_a_flip_in_any_byte_of_a_small_file_is_found(tmp_path: Path) -> None:
    path = sealed(tmp_path / "rows.parquet", TABLE.slice(0, 3))
    whole = path.read_bytes()
    missed = []
    for place in range(len(whole)):
        flip(path, place)
        if integrity.examine(path) is None:
            missed.append(place)
        path.write_bytes(whole)
    assert missed == []


@pytest.mark.parametrize("place", range(-12, 0))
def test_a_flip_at_the_very_end_is_found(tmp_path: Path, place: int) -> None:
    path = sealed(tmp_path / "rows.parquet")
    flip(path, path.stat().st_size + place)
    with pytest.raises(SpeciateError, match="is damaged"):
        integrity.read_table(path, "")


def test_a_cut_and_an_empty_file_are_found(tmp_path: Path) -> None:
    path = sealed(tmp_path / "rows.parquet")
    whole = path.read_bytes()
    for left in (0, 3, 11, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:left])
        with pytest.raises(SpeciateError, match="is damaged"):
            integrity.read_table(path, "")


def test_a_name_of_the_content_needs_no_seal(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "new")
    name = hashlib.sha256((tmp_path / "new").read_bytes()).hexdigest()[:32]
    path = (tmp_path / "new").rename(tmp_path / f"{name}.parquet")
    assert integrity.read_table(path, "") == TABLE
    flip(path, 40)
    with pytest.raises(SpeciateError, match="it should be"):
        integrity.read_table(path, "")


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, looked = sealed(tmp_path / "rows.parquet"), list[Path]()
    examine = integrity.examine
    monkeypatch.setattr(integrity, "examine", lambda path: looked.append(path) or examine(path))
    for _ in range(3):
        integrity.check(path, "")
    assert len(looked) == 1
    os.utime(path, (1, 1))
    integrity.check(path, "")
    assert len(looked) == 2


def test_what_was_restored_is_whole_again(tmp_path: Path) -> None:
    path = sealed(tmp_path / "rows.parquet")
    whole, stamp = path.read_bytes(), path.stat()
    flip(path, 30)
    with pytest.raises(SpeciateError):
        integrity.check(path, "")
    path.write_bytes(whole)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    integrity.check(path, "")


def test_the_footer_alone_is_checked_without_the_rows(tmp_path: Path) -> None:
    path = sealed(tmp_path / "rows.parquet")
    flip(path, 20)
    integrity.check_footer(path, "")
    flip(path, path.stat().st_size - 30)
    with pytest.raises(SpeciateError, match="its footer"):
        integrity.check_footer(path, "")
    pq.write_table(TABLE, tmp_path / "older.parquet")
    integrity.check_footer(tmp_path / "older.parquet", "")
    integrity.check(tmp_path / "older.parquet", "")
