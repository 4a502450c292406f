"""Tables read by sandboxed processes, and readers that a caller forces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_iris

from speciate.datasets.readers.formats import parse_reader
from speciate.datasets.readers.rows import REASON
from speciate.datasets.sources.listing import Listing
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext, ask_table
from speciate.errors import Code, SpeciateError
from tests.datasets.source_context import source_context


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceContext]:
    with source_context(tmp_path_factory.mktemp("tables")) as made:
        yield made


@pytest.fixture
def context(shared: SourceContext, tmp_path: Path) -> SourceContext:
    return shared._replace(work=tmp_path / "work")


def asked(context: SourceContext, found: Listing, place: int = 0) -> list[dict[str, object]]:
    table = ask_table(context.pool, found.files[place].path, found.reader, found.modality, readable=found.readable)
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.arff", "a.ts", "a.fasta", "a.parquet"])
def test_every_format_comes_out_of_the_cage(context: SourceContext, tmp_path: Path, name: str) -> None:
    texts = {
        "a.csv": "a,b\n1,x\n", "a.tsv": "a\tb\n1\tx\n", "a.json": '[{"a": 1}]', "a.jsonl": '{"a": 1}\n',
        "a.arff": "@relation r\n@attribute a numeric\n@data\n1\n", "a.fasta": ">a\nACD\n",
        "a.ts": "@problemName p\n@classLabel true x\n@data\n1,2,3:x\n",
    }  # fmt: skip
    path = tmp_path / name
    if name in texts:
        path.write_text(texts[name])
    else:
        pq.write_table(load_iris_table(), path)
    found = prepare_source(path, context)
    assert found.layout == "table"
    assert len(asked(context, found)) == (1 if name in texts else 150)


def load_iris_table():  # type: ignore[no-untyped-def]  # pyarrow has no types
    import pyarrow as pa

    data = load_iris()
    return pa.table({name: data.data[:, i] for i, name in enumerate(data.feature_names)})


def test_a_format_that_the_name_does_not_tell(context: SourceContext, tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("a;b\n1;2\n")
    assert asked(context, prepare_source(tmp_path / "a.dat", context, reader="csv")) == [{"a": 1, "b": 2}]


def test_a_layout_that_is_forced(context: SourceContext, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("who,when,x,kind\n" + "".join(f"{i % 2},{i // 2},{i},{'ab'[i % 2]}\n" for i in range(8)))
    assert asked(context, prepare_source(path, context, reader="long:who,when")) == [
        {"who": 0, "kind": "a", "series": [[0, 2, 4, 6]], "channel_names": "x"},
        {"who": 1, "kind": "b", "series": [[1, 3, 5, 7]], "channel_names": "x"},
    ]


def test_files_that_are_forced_to_be_examples(context: SourceContext, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.csv").write_text("x\n1\n2\n")
    found = prepare_source(folder, context, modality="time-series", reader="files")
    assert (found.layout, len(found.files), found.excluded) == ("media", 3, [])


def test_a_hundred_thousand_columns_are_refused_in_one_sentence(context: SourceContext, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{i}" for i in range(100_000)) + "\n" + ",".join(["1"] * 100_000) + "\n")
    with pytest.raises(SpeciateError, match="it has 100,000 columns, more than 20,000") as raised:
        asked(context, prepare_source(path, context))
    assert raised.value.code is Code.REFUSED
    assert "reader='wide'" in raised.value.recovery


def test_a_file_that_vanished_is_one_clear_error(context: SourceContext, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("a,b\n1,2\n")
    found = prepare_source(folder, context)
    (folder / "b.csv").unlink()
    assert asked(context, found) == [{"a": 1, "b": 2}]
    with pytest.raises(SpeciateError, match=r"'b\.csv' cannot be read: No such file"):
        asked(context, found, 1)


def test_bad_rows_come_with_their_reason(context: SourceContext, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,x\n2,\xff\n3\n4,y\n")
    reasons = [row[REASON] for row in asked(context, prepare_source(tmp_path / "a.csv", context))]
    assert reasons == [None, None, "line 3 is not UTF-8", "line 4: 1 cell where the header has 2"]


@pytest.mark.parametrize("reader", ["parquet", "arrow", "json", "arff", "ts"])
def test_another_format_than_the_file_has_is_one_clear_error(
    context: SourceContext, tmp_path: Path, reader: str
) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SpeciateError, match="cannot be read") as raised:
        ask_table(context.pool, tmp_path / "a.csv", parse_reader(reader))
    assert raised.value.code is Code.INVALID


def test_nothing_to_read_is_one_clear_error(context: SourceContext, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".secret").write_text("x")
    for name in ("empty", "hidden", "nowhere"):
        with pytest.raises(SpeciateError) as raised:
            prepare_source(tmp_path / name, context)
        assert raised.value.recovery
