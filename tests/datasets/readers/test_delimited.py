"""CSV and TSV as people and spreadsheets write them."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.readers.delimited import read_csv, read_tsv
from speciate.datasets.readers.rows import REASON
from speciate.errors import Code, SpeciateError


def rows(path: Path, data: bytes | str, text: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    found: list[dict[str, Any]] = (read_tsv if ".tsv" in path.name else read_csv)(path, text).to_pylist()
    return found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_an_encoding_that_declares_itself(tmp_path: Path, encoding: str) -> None:
    assert rows(tmp_path / "a.csv", "größe,b\nälter,1\n".encode(encoding)) == [{"größe": "älter", "b": 1}]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.csv"), ("\t", "a.tsv")])
def test_delimiters_and_line_ends(tmp_path: Path, delimiter: str, name: str, end: str) -> None:
    data = end.join(delimiter.join(cells) for cells in (("a", "b"), ("1", "x"), ("2", "y"))) + end
    assert rows(tmp_path / name, data) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_a_compressed_table(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv.gz", gzip.compress(b"a,b\n1,2\n")) == [{"a": 1, "b": 2}]
    with pytest.raises(SpeciateError, match="its compression is broken"):
        rows(tmp_path / "a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000)[:-12])


def test_lines_that_are_not_utf8_are_bad_rows_and_the_others_stay(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", b"text,label\ngood,1\ncaf\xe9,1\nfine,2\nsound,2\n")
    assert [row["text"] for row in found] == ["good", "fine", "sound", None]
    assert found[-1][REASON] == "line 3 is not UTF-8"


@pytest.mark.parametrize(
    "data",
    [b"text,label\n" + b"ol\xe9,good\n" * 9, "caf\xe9,b\n1,2\n".encode("cp1252"), "a,b\n1,2\n".encode("utf-16-le")],
    ids=["most rows", "header", "utf-16 without a mark"],
)
def test_a_file_whose_encoding_is_not_certain_says_so(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SpeciateError, match="save it as UTF-8"):
        rows(tmp_path / "a.csv", data)


def test_cells_keep_their_values(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", "f;comma;code;n\n=SUM(A1:A9);1,5;007;10\n\"=cmd|'/c calc'!A0\";2,25;123;11\n")
    assert found == [
        {"f": "=SUM(A1:A9)", "comma": "1,5", "code": "007", "n": 10},
        {"f": "=cmd|'/c calc'!A0", "comma": "2,25", "code": "123", "n": 11},
    ]


def test_times_and_fractions_are_no_codes(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "a,b\n0.5,10\n-0.25,20\n") == [{"a": 0.5, "b": 10}, {"a": -0.25, "b": 20}]


def test_ragged_lines_are_bad_rows(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", "a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert [(row["a"], row["b"]) for row in found] == [(1, 2), (7, 8), (None, None), (None, None)]
    assert {row[REASON] for row in found} == {
        None, "line 3: 1 cell where the header has 2", "line 4: 3 cells where the header has 2",
    }  # fmt: skip


@pytest.mark.parametrize("quote", ["", '"'])
def test_names_of_rows_that_the_header_does_not_name_are_left_out(tmp_path: Path, quote: str) -> None:
    """As R writes a table; the cells of each line are one more than the header's."""
    lines = ["weight,feed", "1,26.5,NA", "2,27.6,5.2"]
    table = "\n".join(",".join(f"{quote}{cell}{quote}" for cell in line.split(",")) for line in lines[:1]) + "\n"
    found = rows(tmp_path / "a.csv", table + "\n".join(f"{quote}{line[0]}{quote}{line[1:]}" for line in lines[1:]))
    assert found == [{"weight": 26.5, "feed": None}, {"weight": 27.6, "feed": 5.2}]
    ragged = rows(tmp_path / "b.csv", "a,b\n1,2,3\n4,5\n6,7\n")
    assert [row["a"] for row in ragged] == [4, 6, None], "one line too long is a bad row"


def test_a_decimal_comma_under_a_single_name_is_no_name_of_a_row(tmp_path: Path) -> None:
    assert all(row[REASON] for row in rows(tmp_path / "a.csv", "price\n1,5\n2,5\n"))


def reviews(count: int = 200) -> list[str]:
    return ["text,label,x", *(f'"text, number {i}","{"ab"[i % 2]}",{i / 3}' for i in range(count))]


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ('"one that opens,a,1.5', "line 100: a quote is opened and not closed"),
        ('one that ends",a', "line 100: a quote is opened and not closed"),
        ('he said "no,a,1.5', None),
        ('text,a,"1.5', "line 100: a quote is opened and not closed"),
    ],
)
def test_a_stray_quote_costs_its_line_at_most(tmp_path: Path, line: str, bad: str | None) -> None:
    lines = reviews()
    lines[99] = line
    lines[150] = "too,few"
    found = rows(tmp_path / "a.csv", "\n".join(lines))
    reasons = [row[REASON] for row in found if row[REASON]]
    whole = {row["text"]: row["x"] for row in found if not row[REASON]}
    assert len(found) == 200
    assert {f"text, number {i}" for i in range(200) if i not in (98, 149)} <= set(whole)
    assert whole["text, number 150"] == 50.0  # the column is still of numbers
    if line.startswith('"one'):  # as many cells as the header: its quote is a character
        assert whole['"one that opens'] == 1.5
        bad = None
    if line.startswith("he said"):
        assert whole['he said "no'] == 1.5
    assert reasons == [*filter(None, [bad]), "line 151: 2 cells where the header has 3"]


def test_two_stray_quotes_swallow_nothing_between_them(tmp_path: Path) -> None:
    lines = ["text,label", *(f"words {i},a" for i in range(100))]
    lines[20], lines[60] = '"words that open,a', 'words that close",a'
    assert len([row for row in rows(tmp_path / "a.csv", "\n".join(lines)) if row["text"]]) == 100


def test_cells_of_several_lines_stay_whole(tmp_path: Path) -> None:
    cell = "a list:\n" + "- one, two\n" * 7 + 'and "" a quote'
    lines = ["text,label", f'"{cell}",a', '"plain",b', "one cell", f'"{cell}",b']
    found = rows(tmp_path / "a.csv", "\n".join(lines))
    assert [row["text"] for row in found] == [cell.replace('""', '"'), "plain", cell.replace('""', '"'), None]
    assert found[-1][REASON] == "line 12: 1 cell where the header has 2"


def test_columns_of_one_name_are_numbered(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "a,a,a_2,a\n1,2,3,4\n") == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]


def test_a_type_follows_from_all_of_a_column(tmp_path: Path) -> None:
    data = "a\n" + "1\n" * 1_000_000 + "x\n"
    found = rows(tmp_path / "a.csv", data)
    assert (found[0]["a"], found[-1]["a"], len(found)) == ("1", "x", 1_000_001)


@pytest.mark.slow
def test_a_huge_cell(tmp_path: Path) -> None:
    cell = "word\n" * 1_000_000
    assert rows(tmp_path / "a.csv", f'a,b\n"{cell}",1\n')[0]["a"] == cell
    broken = f'a,b\n"{cell}",1\nx,1\ny,1\n'.encode() + b"\xff,2\n"
    assert [row[REASON] for row in rows(tmp_path / "a.csv", broken)][-1] == "line 1000005 is not UTF-8"


def test_a_first_line_of_numbers_is_a_row_unless_it_counts(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.tsv", "1\t0.5\t0.25\n2\t0.1\t0.2\n")[0] == {"f0": 1, "f1": 0.5, "f2": 0.25}
    assert rows(tmp_path / "a.csv", "0,1,2\n5,6,7\n") == [{"0": 5, "1": 6, "2": 7}]


def test_an_empty_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SpeciateError) as raised:
        rows(tmp_path / "a.csv", "")
    assert raised.value.code is Code.INVALID
    assert rows(tmp_path / "a.csv", "a,b\n") == []


def test_many_columns(tmp_path: Path) -> None:
    data = ",".join(f"c{i}" for i in range(20_000)) + "\n" + ",".join(["1"] * 20_000) + "\n"
    assert len(rows(tmp_path / "a.csv", data)[0]) == 20_000


CELL = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20)


@settings(deadline=None)
@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=20), st.binary(max_size=30))
def test_whatever_the_bytes_it_is_a_table_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.csv"
    lines = ["name,value", *(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells)]
    whole = "\n".join(lines).encode() + b"\n"
    assert len(rows(path, whole)) == len(cells)
    with contextlib.suppress(SpeciateError):
        rows(path, whole[: len(whole) // 2] + noise + whole[len(whole) // 2 :])


def test_whole_numbers_too_long_for_64_bits_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "card,stamp,mass,x\n12345678901234567890,1234567890123456789,12345678901234567890,1\n"
        "12345678901234567891,1234567890123456788,0.5,2\n"
    )
    rows = read_csv(path, ()).to_pylist()
    assert [row["card"] for row in rows] == ["12345678901234567890", "12345678901234567891"]
    assert [row["stamp"] for row in rows] == [1234567890123456789, 1234567890123456788]
    assert [row["mass"] for row in rows] == [12345678901234567890.0, 0.5]
    assert [row["x"] for row in rows] == [1, 2]
