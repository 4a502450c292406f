"""Structures from PDB and mmCIF files: what is read, beside Biopython; and that no file that lacks something passes."""

from __future__ import annotations

import gzip
import io

import gemmi
import numpy as np
import pytest
from Bio.PDB import MMCIFParser, PDBParser
from Bio.PDB.Polypeptide import is_aa
from Bio.SeqIO.PdbIO import PdbSeqresIterator

from speciate.modalities.biology import protein_structures
from speciate.modalities.biology.protein import PROTEIN, sequence_of
from speciate.modalities.contract import DecodeError
from tests.modalities.protein_samples import deposited, mmcif, pdb, small


def refused(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        PROTEIN.decode(data)
    return caught.value


@pytest.mark.parametrize("name", ["2gtl.pdb", "2gtl.cif"])
def test_a_deposited_entry_is_read_as_biopython_reads_it(name: str) -> None:
    read = protein_structures.read(deposited(name))
    parser = PDBParser(QUIET=True) if name.endswith("pdb") else MMCIFParser(QUIET=True)
    theirs = parser.get_structure("2GTL", io.StringIO(deposited(name).decode()))[0]
    residues = [residue for chain in theirs for residue in chain if is_aa(residue, standard=True)]
    places, _ = protein_structures.alpha_carbons(read.structure)
    assert places == pytest.approx(np.array([residue["CA"].coord for residue in residues]), abs=1e-3)
    listed = [str(record.seq) for record in PdbSeqresIterator(io.StringIO(deposited("2gtl.pdb").decode()))]
    assert protein_structures.chains(read.structure) == listed
    assert read.fields["atoms"] == len(list(theirs.get_atoms()))
    assert read.fields["structure_id"] == "2GTL"
    assert read.fields["method"] == "X-RAY DIFFRACTION"
    assert read.fields["resolution"] == 3.5
    assert read.fields["ligand_names"] == "CA,CMO,HEM,ZN"
    assert read.fields["ligands"] == 29


def test_residues_that_the_model_lacks_stand_in_the_sequence_and_are_counted() -> None:
    media = protein_structures.read(deposited("7ok9.pdb")).structure
    measures = PROTEIN.measure(media)
    remark = [line for line in deposited("7ok9.pdb").decode().splitlines() if line.startswith("REMARK 465   ")]
    told = [line for line in remark if line[15:18].strip() and line[21:26].strip().lstrip("-").isdigit()]
    assert measures["missing_residues"] == len(told) == 1745
    assert measures["residues"] == 7850
    assert (media["coordinates"][media["seen"] == 0] == 0).all()
    assert np.isfinite(media["coordinates"]).all()


def test_an_entry_is_the_same_from_both_of_its_files() -> None:
    one, other = (PROTEIN.decode(deposited(name)) for name in ("2gtl.pdb", "2gtl.cif"))
    assert PROTEIN.fingerprint(one) == PROTEIN.fingerprint(other)
    assert PROTEIN.sketch(one) == PROTEIN.sketch(other)
    moved = small()
    moved[0][0][5][0].pos.x += 1
    assert PROTEIN.fingerprint(PROTEIN.decode(pdb(moved))) != PROTEIN.fingerprint(PROTEIN.decode(pdb(small())))


@pytest.mark.parametrize("name", ["2gtl.pdb", "2gtl.cif", "7ok9.pdb", "7ok9.cif"])
def test_an_entry_that_is_cut_is_partial_wherever_that_is(name: str) -> None:
    data = deposited(name)
    for share in (0.1, 0.35, 0.5, 0.75, 0.95, 0.9999):
        cut = data[: int(len(data) * share)]
        assert refused(cut).quality == "partial"
        assert refused(cut[: cut.rindex(b"\n") + 1]).quality == "partial"  # no line is broken


def test_rows_taken_from_the_middle_are_missed_where_the_file_counts_them() -> None:
    lines = deposited("2gtl.pdb").splitlines(keepends=True)
    atoms = [place for place, line in enumerate(lines) if line.startswith(b"ATOM")]
    assert (
        "19,618 atoms where MASTER counts 19,648" in refused(b"".join(lines[: atoms[50]] + lines[atoms[80] :])).detail
    )
    rows = deposited("2gtl.cif").splitlines(keepends=True)
    waterless = [row for row in rows if not (row.startswith(b"HETATM") and b" HEM " in row)]
    assert "chains have no atoms" in refused(b"".join(waterless)).detail


def test_other_counts_than_those_of_the_file_are_told() -> None:
    data = pdb(small("AB", models=2))
    whole = b"NUMMDL    2\n" + data
    assert sequence_of(PROTEIN.decode(whole))
    assert "2 models begin, 2 end, 3 are declared" in refused(whole.replace(b"NUMMDL    2", b"NUMMDL    3")).detail
    assert "2 models begin, 1 end" in refused(data[: data.rindex(b"ENDMDL")] + b"END").detail
    seqres = b"SEQRES   1 A    5  ASP CYS CYS SER TYR\n"
    assert "lists 5 of 9 residues" in refused(seqres.replace(b"    5", b"    9") + pdb(small(residues=5))).detail
    lost = b"SEQRES   1 Z    3  ASP CYS CYS\n" + pdb(small(residues=5))
    assert "Chain 'Z' has a sequence and no atoms" in refused(lost).detail


def test_of_several_models_master_counts_the_first_or_all() -> None:
    whole = pdb(small("AB", models=3)).removesuffix(b"END")
    atoms, ters = whole.count(b"\nATOM "), whole.count(b"\nTER")
    assert atoms % 3 == ters % 3 == 0 < ters

    def counted(atoms: int, ters: int) -> bytes:
        return whole + b"MASTER".ljust(50) + b"%5d%5d%5d%5d" % (atoms, ters, 0, 0) + b"\nEND"

    for said in ((atoms // 3, ters // 3), (atoms, ters)):
        assert PROTEIN.inspect(counted(*said)).fields["models"] == 3
    wrong = refused(counted(atoms // 3 + 1, ters // 3))
    assert wrong.quality == "partial"
    assert f"{atoms // 3:,} atoms where MASTER counts {atoms // 3 + 1:,}" in wrong.detail


def test_a_pdb_file_ends_with_end_and_an_mmcif_file_with_its_last_category() -> None:
    data = pdb(small())
    assert refused(data[: data.rindex(b"END")]).quality == "partial"
    entry = gemmi.read_pdb_string(deposited("2gtl.pdb"))
    entry.setup_entities()
    undivided = mmcif(entry, divided=False)
    assert sequence_of(PROTEIN.decode(undivided)) == sequence_of(PROTEIN.decode(deposited("2gtl.pdb")))
    rows = undivided[: undivided.index(b"\n\n", undivided.index(b"_atom_site."))].rsplit(b"\n", 20)[0] + b"\n"
    assert "ends with its atoms" in refused(rows).detail
    assert refused(rows[:-30]).quality == "partial"


def test_what_is_called_a_structure_and_is_none_is_an_error() -> None:
    for data in (b"", b"\n\n", b"A letter to whom it may concern.\n", b"data_table\nloop_\n_a.b\n1\n2\n", bytes(3000)):
        assert refused(data).quality == "error"
    assert not protein_structures.looks_like(b"ATOMIC weights of the elements\n")
    assert not protein_structures.looks_like(b"data_\n")
    changed = pdb(small()).replace(b"\nATOM ", b"\nATXM ", 1)
    assert "is no record of the format" in refused(changed).detail


def test_a_structure_without_amino_acids_is_an_error() -> None:
    structure = small()
    for residue in structure[0][0]:
        residue.name = "DA"
    assert "no chain of amino acids" in refused(pdb(structure)).detail
    bare = b"\n".join(line for line in pdb(small()).split(b"\n") if b" CA " not in line)
    assert refused(bare).quality == "partial"


def test_a_gzip_bomb_is_refused_and_a_cut_gzip_file_is_partial() -> None:
    line = b"HETATM    1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O  \n"
    bomb = gzip.compress(line * 3_800_000, compresslevel=1, mtime=0)
    assert len(bomb) < 3_000_000
    assert refused(bomb).quality == "refused"
    packed = gzip.compress(pdb(small()), mtime=0)
    assert refused(packed[:-200]).quality == "partial"
    assert sequence_of(PROTEIN.decode(packed + packed[:0])) == sequence_of(PROTEIN.decode(pdb(small())))


def test_alternative_places_modified_residues_and_insertions_are_read() -> None:
    structure = small(residues=12)
    structure[0][0][3].name = "MSE"
    first = structure[0][0][5].find_atom("CA", "*")
    first.altloc = "A"
    other = first.clone()
    other.altloc, other.pos.x = "B", first.pos.x + 2
    structure[0][0][5].add_atom(other)
    structure[0][0][7].seqid.num, structure[0][0][7].seqid.icode = structure[0][0][6].seqid.num, "A"
    media = PROTEIN.decode(pdb(structure))
    assert not isinstance(media, str)
    assert media["sequence"] == "DCCMYEDRREIR"
    assert media["coordinates"][5, 1, 0] == pytest.approx(first.pos.x, abs=1e-3)


def test_an_image_shows_the_chain_and_is_the_same_each_time() -> None:
    media = PROTEIN.decode(pdb(small()))
    picture = PROTEIN.thumbnail(media)
    assert picture.shape == (320, 320, 3)
    assert 0.03 < (picture.min(axis=2) < 200).mean() < 0.6
    assert (picture == PROTEIN.thumbnail(PROTEIN.decode(mmcif(small())))).all()
    several = PROTEIN.thumbnail(PROTEIN.decode(deposited("2gtl.cif")))
    assert len(np.unique(several.reshape(-1, 3), axis=0)) > 500


def unclosed(residues: int, declared: int) -> bytes:
    """An mmCIF whose atoms come last, without `#`, of a chain that declares its sequence."""
    document = gemmi.cif.read_string(mmcif(small(residues=residues)))
    block = document[0]
    atoms = block.find_mmcif_category("_atom_site.")
    rows = [list(row) for row in atoms]
    tags = list(atoms.tags)
    own, given = tags.index("_atom_site.label_seq_id"), tags.index("_atom_site.auth_seq_id")
    for row in rows:
        row[own] = str(int(row[given]) - int(rows[0][given]) + 1)
    made = gemmi.cif.Document()
    new = made.add_new_block("made")
    sequence = new.init_loop("_entity_poly_seq.", ["entity_id", "num", "mon_id"])
    entity = rows[0][tags.index("_atom_site.label_entity_id")]
    for number in range(1, declared + 1):
        sequence.add_row([entity, str(number), "ALA"])
    loop = new.init_loop("", tags)
    for row in rows:
        loop.add_row(row)
    return made.as_string().rstrip().rstrip("#").rstrip().encode() + b"\n"


def test_an_unclosed_list_of_atoms_is_whole_if_it_reaches_the_declared_end() -> None:
    assert len(sequence_of(PROTEIN.decode(unclosed(9, 9)))) == 9
    short = refused(unclosed(9, 12))
    assert short.quality == "partial"
    assert "add a last line '#'" in short.detail


def test_reasons_name_the_file_and_not_a_sequence() -> None:
    table = b"data_table\nloop_\n_a_b\n1\n2\n"
    for data, reason in (
        (gzip.compress(b"not a structure"), "A gzip file that holds neither a PDB nor an mmCIF file"),
        (table, "A CIF file that holds no macromolecule"),
    ):
        with pytest.raises(DecodeError, match=reason):
            PROTEIN.decode(data)
    late = b"data_x\n" + b"# a comment\n" * 800 + mmcif(small()).partition(b"\n")[2]
    assert sequence_of(PROTEIN.decode(gzip.compress(late))) == sequence_of(PROTEIN.decode(mmcif(small())))
