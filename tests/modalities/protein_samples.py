"""Structures as files: forty residues of a haemoglobin of the earthworm (entry 2GTL, which comes with tmtools), written
by gemmi and Biopython; and the whole entry as it was deposited."""

from __future__ import annotations

import gzip
import io
from functools import cache
from pathlib import Path

import gemmi
import tmtools
from Bio.PDB import MMCIFIO, PDBIO, PDBParser

ENTRY = Path(tmtools.__file__).parent / "data"
_RESIDUES = 40


def deposited(name: str) -> bytes:
    """`2gtl.pdb`, `2gtl.cif`, `7ok9.pdb`, `7ok9.cif`: with SEQRES, ligands, missing residues."""
    return (ENTRY / name).read_bytes()


def small(chains: str = "A", models: int = 1, residues: int = _RESIDUES) -> gemmi.Structure:
    """The first residues of some chains, without ligands."""
    entry = gemmi.read_pdb(str(ENTRY / "2gtl.pdb"))
    made = gemmi.Structure()
    made.name = "2GTL"
    for number in range(1, models + 1):
        model = gemmi.Model(number)
        for name in chains:
            chain = gemmi.Chain(name)
            for residue in list(entry[0][name].get_polymer())[:residues]:
                chain.add_residue(residue)
            model.add_chain(chain)
        made.add_model(model)
    made.setup_entities()
    return made


def pdb(structure: gemmi.Structure) -> bytes:
    return structure.make_pdb_string().rstrip().encode()


def mmcif(structure: gemmi.Structure, *, divided: bool = True) -> bytes:
    """`divided`: with `#` between its categories, as the archive has it; else with blank lines, gemmi's own style."""
    document = structure.make_mmcif_document()
    text = document.as_string(gemmi.cif.Style.Pdbx) if divided else document.as_string()
    return text.rstrip().encode()


def by_biopython(kind: type[PDBIO | MMCIFIO]) -> bytes:
    text = io.StringIO(pdb(small()).decode())
    writer = kind()
    writer.set_structure(PDBParser(QUIET=True).get_structure("2GTL", text))
    written = io.StringIO()
    writer.save(written)
    return written.getvalue().rstrip().encode()


@cache
def files() -> dict[str, bytes]:
    """Name -> bytes, each of which says where it ends."""
    one = small()
    return {
        "globin.pdb": pdb(one),
        "globin.cif": mmcif(one),
        "models.ent": pdb(small("AB", models=2, residues=12)),
        "biopython.pdb": by_biopython(PDBIO),
        "biopython.mmcif": by_biopython(MMCIFIO),
        "globin.pdb.gz": gzip.compress(pdb(one), mtime=0),
        "globin.cif.gz": gzip.compress(mmcif(one), mtime=0),
    }
