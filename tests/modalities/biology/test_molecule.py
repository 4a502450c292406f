"""Molecules: what is the same, what is near, what is said of them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, rdFingerprintGenerator

from speciate.datasets.similarity import near_duplicates
from speciate.modalities.biology.molecule import MOLECULE, Bits, is_smiles
from speciate.modalities.contract import DecodeError
from tests.modalities.molecule_samples import ASPIRIN, CAFFEINE, block


def refused(data: bytes | str) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        MOLECULE.decode(data) if isinstance(data, bytes) else MOLECULE.admit(data)
    return caught.value


def test_one_molecule_is_the_same_however_it_is_written() -> None:
    spellings = [ASPIRIN, "O=C(O)c1ccccc1OC(C)=O", "c1cccc(OC(=O)C)c1C(O)=O", "[H]OC(=O)c1ccccc1OC(C)=O"]
    blocks = [MOLECULE.decode(block(ASPIRIN, v3000=v3000).encode()) for v3000 in (False, True)]
    assert {MOLECULE.admit(each) for each in spellings} | set(blocks) == {Chem.CanonSmiles(ASPIRIN)}
    assert MOLECULE.admit("C[C@H](N)C(=O)O") != MOLECULE.admit("C[C@@H](N)C(=O)O")


def test_mirror_images_in_space_are_told_apart() -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles("C[C@H](N)C(=O)O"))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    assert MOLECULE.decode(Chem.MolToMolBlock(molecule).encode()) == Chem.CanonSmiles("C[C@H](N)C(=O)O")


def test_what_is_said_of_a_molecule_is_true() -> None:
    said = MOLECULE.row_fields(MOLECULE.admit(ASPIRIN))
    assert said == {
        "formula": "C9H8O4", "inchi_key": "BSYNRYMUTXBXSQ-UHFFFAOYSA-N", "scaffold": "c1ccccc1",
        "weight": 180.159, "heavy_atoms": 13, "rings": 1,
    }  # fmt: skip
    assert "scaffold" not in MOLECULE.row_fields("CCO")


def test_what_is_no_molecule_is_refused_with_the_reason() -> None:
    assert "Not SMILES" in refused("C1CC").detail
    assert "Not SMILES" in refused("ethanol, pure").detail
    assert "Impossible bonds" in refused("C(C)(C)(C)(C)C").detail
    assert refused("C" * 5001).quality == "refused"
    lines = block(CAFFEINE).encode().split(b"\n")
    assert refused(b"\n".join(lines[:20])).quality == "partial"
    assert refused(b"\n".join(lines[:9] + lines[10:])).quality == "error"  # one atom fewer than it counts
    assert refused(b"\n".join([*lines[:4], *[b"not an atom"] * 24, *lines[-2:]])).quality == "error"
    assert refused(b"C C C\nO").quality == "error"
    two = block(CAFFEINE) + "$$$$\n" + block(ASPIRIN) + "$$$$\n"
    assert "2 records" in refused(two.encode()).detail


def test_near_is_what_shares_most_bits() -> None:
    smiles = [Chem.CanonSmiles(each) for each in
              (CAFFEINE, "CCn1c(=O)c2c(ncn2C)n(C)c1=O", ASPIRIN, "CCCCCCCCCCCC", "CCCCCCCCCCCCC")]  # fmt: skip
    codes = [MOLECULE.sketch(each) for each in smiles]
    assert near_duplicates.near_duplicate_pairs(codes, Bits()).tolist() == [
        [3, 4]
    ]  # bits do not tell how long a chain of carbon is
    assert near_duplicates.near_duplicate_pairs(codes, Bits(), 0.5).tolist() == [[0, 1], [3, 4]]
    generator = rdFingerprintGenerator.GetMorganGenerator(2, fpSize=2048)
    bits = [generator.GetFingerprint(Chem.MolFromSmiles(each)) for each in smiles]
    rows = np.frombuffer(b"".join(code for code in codes if code), np.uint8).reshape(len(codes), -1)
    first, second = np.triu_indices(len(smiles), 1)
    for least in (0.1, 0.3, 0.56, 0.9):
        wanted = [DataStructs.TanimotoSimilarity(bits[a], bits[b]) >= least for a, b in zip(first, second, strict=True)]
        assert Bits().near(rows[first], rows[second], least).tolist() == wanted


def test_a_word_is_smiles_by_its_letters_alone() -> None:
    assert is_smiles("CC(=O)O")
    assert not is_smiles("a b")
