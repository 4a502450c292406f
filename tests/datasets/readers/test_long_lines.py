"""No line makes a reader slow out of proportion: patterns that look twice at the same characters would need minutes."""

from __future__ import annotations

import contextlib
import importlib
import time
from pathlib import Path

import pytest

from speciate.datasets.readers.read_table import READERS
from speciate.errors import SpeciateError

LENGTH = 1 << 16
CASES = {
    "arff": (
        ("@relation r\n@attribute a string\n@data\n", " ", "x'"),
        ("@relation r\n@attribute a string\n@data\n'", "\\'", ""),
        ("@relation r\n@attribute a ", " ", ""), ("@relation r\n@attribute a {", "a,", ""),
    ),
    "csv": (("a\n", "7", "x\n"), ("a\n", '"7', "\n"), ("a\n", " ", '"')),
    "fasta": (
        (">sp|P1|X OS=", " ", "x\nAC"), (">x ", "[a=", "\nAC"), (">x [b=1]", "[a=", "\nAC"), (">x ", 'a="x ', "\nAC"),
        (">sp|P1|X ", "OS=a ", "\nAC"), (">", "a", "\nAC"),
    ),
    "jsonl": (("", "[", ""), ('{"a":"', "\\", "")),
    "sdf": (("x\n\n\n  0  0  V2000\nM  END\n>", "<", "\n\n$$$$\n"), ("x\n\n\n", " ", "\n$$$$\n")),
    "smi": (("C ", " ", ""), ("", "(", "")),
    "ts": (("@data\n", " ", ""), ("@problemName x\n@timeStamps false\n@classLabel true a b\n@data\n", "1,", ":a")),
}  # fmt: skip


@pytest.mark.parametrize("format_", sorted(CASES))
def test_long_lines_take_no_longer_than_their_length_deserves(tmp_path: Path, format_: str) -> None:
    module, _, function = READERS[format_].partition(":")
    read = getattr(importlib.import_module(module), function)
    path = tmp_path / "file"
    for begin, unit, end in CASES[format_]:
        path.write_text(begin + unit * (LENGTH // len(unit)) + end)
        began = time.process_time()
        with contextlib.suppress(SpeciateError):
            read(path, ())
        assert time.process_time() - began < 4, f"{begin[-30:]!r}, then {unit!r}, then {end!r}"


def test_a_bracket_that_is_never_closed_takes_nothing_from_those_before_and_after(tmp_path: Path) -> None:
    module, _, function = READERS["fasta"].partition(":")
    path = tmp_path / "a.fasta"
    path.write_text(">p [gene=ins] [note=open kind=toxin\nAC\n")
    (row,) = getattr(importlib.import_module(module), function)(path, ()).to_pylist()
    assert (row["gene"], row["kind"], row["description"]) == ("ins", "toxin", "[gene=ins] [note=open kind=toxin")
