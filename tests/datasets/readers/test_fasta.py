"""FASTA as sequence databases write it."""

from __future__ import annotations

from pathlib import Path

from speciate.datasets.readers.fasta import read_fasta
from speciate.datasets.readers.rows import REASON


def test_records_with_keys_in_their_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text("\ufeff>p1 kind=toxin of a snail\nACD\nEFG\n\n>p2\nKLM\n")
    assert read_fasta(path, ()).to_pylist() == [
        {"kind": "toxin", "name": "p1", "description": "kind=toxin of a snail", "sequence": "ACDEFG"},
        {"kind": None, "name": "p2", "description": None, "sequence": "KLM"},
    ]


def test_a_record_with_foreign_bytes_is_a_bad_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_bytes(b"stray\n>p1\nACD\n>p2 caf\xe9\nEFG\n>p3\nKL\xffM\nKKK\n>p4\nAAA\n")
    rows = read_fasta(path, ()).to_pylist()
    assert [row["name"] for row in rows if row[REASON] is None] == ["p1", "p4"]
    assert [row[REASON] for row in rows if row[REASON]] == [
        "Line 1 has residues before the first header line.", "Line 4 is not UTF-8.", "Line 7 is not UTF-8.",
    ]  # fmt: skip


def test_headers_of_uniprot_and_of_the_ncbi_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(
        ">sp|P01308|INS_HUMAN Insulin OS=Homo sapiens OX=9606 GN=INS PE=1 SV=1\nMALW\n"
        ">NP_000198.1 insulin [gene=INS] [organism=Homo sapiens] tm=61.5\nMALW\n"
    )
    first, second = read_fasta(path, ()).to_pylist()
    assert (first["accession"], first["entry"]) == ("P01308", "INS_HUMAN")
    assert (first["OS"], first["OX"]) == ("Homo sapiens", 9606)
    assert (first["GN"], first["PE"], first["SV"], first["gene"]) == ("INS", 1, 1, None)
    assert first["description"] == "Insulin OS=Homo sapiens OX=9606 GN=INS PE=1 SV=1"
    assert (second["gene"], second["organism"], second["tm"], second["OX"]) == ("INS", "Homo sapiens", 61.5, None)


def test_values_with_blanks_are_quoted_and_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text('>a note="from \\"frog\\" skin" tm=61 code=007 x=1e3\nAC\n>b note=" tm=-3.5 code=12 x=2\nAC\n')
    rows = read_fasta(path, ()).to_pylist()
    assert [row["note"] for row in rows] == ['from "frog" skin', '"']
    assert [row["tm"] for row in rows] == [61.0, -3.5]
    assert [row["code"] for row in rows] == ["007", "12"]
    assert [row["x"] for row in rows] == [1000.0, 2.0]
    assert [row["x"] for row in read_fasta(path, ("x",)).to_pylist()] == ["1e3", "2"]


def test_long_identifiers_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(">a run=9007199254740993 n=123456789012345\nAC\n>b run=9007199254740992 n=1\nAC\n")
    rows = read_fasta(path, ()).to_pylist()
    assert [row["run"] for row in rows] == ["9007199254740993", "9007199254740992"]
    assert [row["n"] for row in rows] == [123456789012345, 1]
