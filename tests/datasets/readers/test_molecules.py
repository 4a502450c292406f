"""SDF and SMILES files as tables."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from rdkit import Chem

from speciate.datasets.readers.molecules import read_sdf, read_smiles
from speciate.datasets.readers.rows import REASON
from speciate.errors import Code, SpeciateError
from tests.modalities.molecule_samples import ASPIRIN, CAFFEINE, block, record

NCI = Path(Chem.__file__).parents[1] / "Data" / "NCI" / "first_200.props.sdf"


def test_records_become_rows_with_their_data_items(tmp_path: Path) -> None:
    path = tmp_path / "a.sdf"
    path.write_text(record(CAFFEINE, "caffeine", mass=194.19, note="a\nb") + record(ASPIRIN, mass=180, smiles="x"))
    rows = read_sdf(path, ()).to_pylist()
    assert [row["smiles"] for row in rows] == [Chem.CanonSmiles(CAFFEINE), Chem.CanonSmiles(ASPIRIN)]
    assert [row["name"] for row in rows] == ["caffeine", None]
    assert [row["mass"] for row in rows] == [194.19, 180.0]
    assert [row["note"] for row in rows] == ["a\nb", None]
    assert [row["smiles_"] for row in rows] == [None, "x"]


def test_a_file_of_others_is_read_as_rdkit_reads_it() -> None:
    rows = read_sdf(NCI, ()).to_pylist()
    theirs = list(Chem.SDMolSupplier(str(NCI)))
    assert [row["smiles"] for row in rows] == [Chem.CanonSmiles(Chem.MolToSmiles(each)) for each in theirs]
    assert [row["AMW"] for row in rows] == [float(each.GetProp("AMW")) for each in theirs]


def test_a_cut_file_keeps_its_whole_records_and_names_the_last(tmp_path: Path) -> None:
    whole = "".join(record(CAFFEINE, f"m{i}", mass=i) for i in range(4))
    path = tmp_path / "cut.sdf.gz"
    for cut in (len(whole) - 3, len(whole) - 40, len(whole) - 300):
        path.write_bytes(gzip.compress(whole[:cut].encode()))
        rows = read_sdf(path, ()).to_pylist()
        assert [row[REASON] is None for row in rows] == [True, True, True, False]
        assert "does not end with '$$$$'" in rows[3][REASON]


def test_a_damaged_record_is_a_bad_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sdf"
    fewer = "\n".join(line for place, line in enumerate(record(CAFFEINE, "b").split("\n")) if place != 6)
    impossible = block("CC(C)(C)C").split("\n")
    impossible[5] = impossible[5].replace(" C ", " N ")
    path.write_text(
        record(CAFFEINE, "a") + fewer + "\n".join(impossible) + "$$$$\n" + "junk\n$$$$\n" + record(CAFFEINE, "b")
    )
    rows = read_sdf(path, ()).to_pylist()
    assert [row["smiles"] is None for row in rows] == [False, True, True, True, False]
    assert all(rows[place][REASON] for place in (1, 2, 3))


def test_lines_of_smiles_have_names_and_perhaps_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.smi"
    path.write_text(f"SMILES Name\n{CAFFEINE}\tcaffeine anhydrous\n\n{ASPIRIN}\n")
    assert read_smiles(path, ()).to_pylist() == [
        {"name": "caffeine anhydrous", "smiles": CAFFEINE}, {"name": None, "smiles": ASPIRIN},
    ]  # fmt: skip


def test_without_rdkit_the_install_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sdf"
    path.write_text(record(CAFFEINE))
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(SpeciateError) as refused:
        read_sdf(path, ())
    assert refused.value.code is Code.MISSING_EXTRA
    assert "speciate[chem]" in str(refused.value)
