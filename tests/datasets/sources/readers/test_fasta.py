"""FASTA as sequence databases write it."""

from __future__ import annotations

from pathlib import Path

from speciate.datasets.sources.readers.fasta import read_fasta
from speciate.datasets.sources.readers.rows import REASON


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
