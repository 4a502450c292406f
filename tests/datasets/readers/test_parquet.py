"""Parquet and Arrow, with what Hugging Face writes into their schemas."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from speciate.datasets.readers.parquet import read_arrow, read_parquet
from speciate.datasets.readers.rows import REASON
from speciate.errors import Code, SpeciateError

TABLE = pa.table({"a": [1, 2], "b": pa.array(["x", "y"]).dictionary_encode()})
CLASSES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})


def written(folder: Path) -> dict[str, Path]:
    pq.write_table(TABLE, folder / "a.parquet")
    pyarrow.feather.write_feather(TABLE, str(folder / "a.feather"))
    with pa.OSFile(str(folder / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return {path.suffix: path for path in folder.iterdir()}


def test_the_three_forms(tmp_path: Path) -> None:
    files = written(tmp_path)
    for table in (
        read_parquet(files[".parquet"], ()),
        read_arrow(files[".feather"], ()),
        read_arrow(files[".arrow"], ()),
    ):
        assert table.to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
        assert table.schema.field("b").type == pa.string()


def test_class_numbers_become_names(tmp_path: Path) -> None:
    found = datasets.Dataset.from_dict({"text": ["p", "q", "r"], "label": [0, 1, -1]}, features=CLASSES)
    found.to_parquet(str(tmp_path / "a.parquet"))
    found.save_to_disk(tmp_path / "saved")
    expected = [{"text": "p", "label": "bad"}, {"text": "q", "label": "good"}, {"text": "r", "label": None}]
    assert read_parquet(tmp_path / "a.parquet", ()).to_pylist() == expected
    assert read_arrow(tmp_path / "saved" / "data-00000-of-00001.arrow", ()).to_pylist() == expected


@pytest.mark.parametrize("told", ["nonsense", "[]", json.dumps({"info": {"features": {"a": {"_type": "ClassLabel"}}}})])
def test_nonsense_in_a_schema_is_passed_over(tmp_path: Path, told: str) -> None:
    pq.write_table(TABLE.replace_schema_metadata({"huggingface": told}), tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet", ())["a"].to_pylist() == [1, 2]


def test_columns_of_one_name_are_numbered(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet", ()).to_pylist() == [{"a": 1, "a_2": 2}]


def test_invalid_buffers_are_one_clear_error(tmp_path: Path) -> None:
    table = pa.table({"a": [f"text {i}" for i in range(50)]})
    offsets = np.array([0, *np.cumsum([len(f"text {i}") for i in range(50)])], np.int32).tobytes()
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    far = bytearray(offsets)
    far[40:44] = (2**31 - 1).to_bytes(4, "little")
    data = path.read_bytes()
    assert offsets in data
    path.write_bytes(data.replace(offsets, bytes(far)))
    with pytest.raises(SpeciateError, match="cannot be read") as raised:
        read_arrow(path, ())
    assert raised.value.code is Code.INVALID


def test_half_a_file_is_one_clear_error(tmp_path: Path) -> None:
    for suffix, path in written(tmp_path).items():
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(SpeciateError) as raised:
            (read_parquet if suffix == ".parquet" else read_arrow)(path, ())
        assert raised.value.code is Code.INVALID


def test_a_cell_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    cells = pa.array([b"good", b"\xff\xfe", None, b"fine"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(cells), cells.buffers(), cells.null_count)
    table = pa.table({"text": text, "n": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for found in (read_parquet(tmp_path / "a.parquet", ()), read_arrow(tmp_path / "a.arrow", ())):
        assert found["n"].to_pylist() == [1, 3, 4, None]
        assert found[REASON].to_pylist() == [None, None, None, "Row 2: the cell of 'text' is not UTF-8."]


@pytest.mark.parametrize(("content", "reader"), [(b"text,label\nwords,a\n", "csv"), (b'{"text": "words"}\n', "jsonl")])
def test_text_under_a_wrong_name_names_its_reader(tmp_path: Path, content: bytes, reader: str) -> None:
    for name, read in (("a.parquet", read_parquet), ("a.arrow", read_arrow)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpeciateError) as raised:
            read(tmp_path / name, ())
        assert f"reader='{reader}'" in raised.value.recovery
        (tmp_path / name).write_bytes(b"PAR1\0\0\n" + content)
        with pytest.raises(SpeciateError) as raised:
            read(tmp_path / name, ())
        assert raised.value.recovery == "Mend the file, then repeat the call."
