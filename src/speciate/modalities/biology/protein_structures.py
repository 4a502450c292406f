"""Structures of proteins from PDB and mmCIF files, plain or gzipped: read by gemmi, checked against the file's own
declarations.

Every reader takes a file that was cut for a smaller structure. So a PDB file must end with END, have as many atoms, TER
and SEQRES records as its MASTER record counts (of several models the first one's atoms and TER, as format 3.2 has it,
or those of all, as those before), a chain for every SEQRES and no line that is no record; an mmCIF file
must end with `#`, or with the last residue that it declares; one without any `#` may also end with a category after
its atoms. All of its loops must be whole, and every chain that it names must have atoms. What a file says nothing about
cannot be missed: a PDB file without MASTER from whose middle whole lines were taken reads as one with fewer atoms.

Of several models the first is read, of alternative places of an atom the first. Only chains of amino acids are kept.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError, Vector

if TYPE_CHECKING:
    import gemmi


BACKBONE = ("N", "CA", "C", "O")
MOST_RESIDUES = 100_000
_MOST_BYTES, _MOST_ATOMS = 192 << 20, 2_000_000
"""The largest entries of the archive are a few million atoms; their mmCIF files are some hundred megabytes."""
HEAD = 1 << 16
"""Bytes in which a file says what it is: comments and further categories may come first."""
GZIP = b"\x1f\x8b"
_FARTHEST = 1e5
"""Ångström; coordinates beyond it are damage."""

_RECORDS = frozenset((
    "HEADER", "OBSLTE", "TITLE", "SPLIT", "CAVEAT", "COMPND", "SOURCE", "KEYWDS", "EXPDTA", "NUMMDL", "MDLTYP",
    "AUTHOR", "REVDAT", "SPRSDE", "JRNL", "REMARK", "DBREF", "DBREF1", "DBREF2", "SEQADV", "SEQRES", "MODRES", "HET",
    "HETNAM", "HETSYN", "FORMUL", "HELIX", "SHEET", "TURN", "SSBOND", "LINK", "LINKR", "CISPEP", "SLTBRG", "HYDBND",
    "SITE", "CRYST1", "ORIGX1", "ORIGX2", "ORIGX3", "SCALE1", "SCALE2", "SCALE3", "MTRIX1", "MTRIX2", "MTRIX3",
    "TVECT", "MODEL", "ATOM", "SIGATM", "ANISOU", "SIGUIJ", "TER", "HETATM", "ENDMDL", "CONECT", "MASTER", "END",
    "USER", "PARENT", "FTNOTE",
))  # fmt: skip
_FIRST_RECORDS = tuple(
    name.ljust(6).encode() for name in (
        "HEADER", "TITLE", "CAVEAT", "COMPND", "SOURCE", "KEYWDS", "EXPDTA", "AUTHOR", "REMARK", "SEQRES", "CRYST1",
        "MODEL", "ATOM", "HETATM", "DBREF", "HELIX", "USER", "NUMMDL", "PARENT",
    )
)  # fmt: skip
_CLOSE_IT = "If it is whole, add a last line '#'."
_BLOCK = re.compile(rb"(?:\s++|#[^\n]*+\n)*+data_", re.IGNORECASE)  # never looks twice at the same blank
_MACROMOLECULE = re.compile(
    rb"(?mi)^[ \t]*_(?:entry|atom_sites?|atom_type|audit_\w+|struct\w*|cell|software|entity\w*|chem_comp|exptl\w*|"
    rb"symmetry|citation\w*|database_\w+|pdbx_\w+)\."
)


class Structure(TypedDict):
    """The chains of amino acids of one model, one after another; R residues."""

    sequence: str
    """(R,) letters, also of residues that the sequence has and the model lacks."""
    chain: npt.NDArray[np.int32]
    """(R,) the number of each residue's chain, from 0."""
    coordinates: Vector
    """(R, 4, 3) in Ångström, of N, CA, C and O; 0 for an atom that is not resolved."""
    seen: npt.NDArray[np.uint8]
    """(R, 4)"""


class ParsedStructure(NamedTuple):
    structure: Structure
    fields: dict[str, str | int | float]
    """The file's facts beside the model."""


def looks_like(head: bytes) -> bool:
    """Whether the first bytes are those of a PDB or mmCIF file, or of a gzipped one."""
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, HEAD)
        except zlib.error:
            return False
    return _is_mmcif(head) or _is_pdb(head)


def read(data: bytes) -> ParsedStructure:
    """Raises nothing but DecodeError."""
    try:
        import gemmi
    except ImportError as error:
        raise DecodeError("error", "Structures need gemmi. Run: pip install 'speciate[bio]'") from error
    text = _unpacked(data)
    mmcif = _is_mmcif(text)
    if not mmcif and not _is_pdb(text):
        raise DecodeError("error", "The file is empty." if not text.strip() else "Neither a PDB nor an mmCIF file.")
    try:
        model = _from_mmcif(gemmi, text) if mmcif else _from_pdb(gemmi, text)
        model.setup_entities()
        model.assign_label_seq_id()
        return _parse_model(gemmi, model, {"bytes": len(data), "format": "mmCIF" if mmcif else "PDB"})
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError("error", f"Not readable: {type(error).__name__}: {str(error)[:200]}") from error


def chains(structure: Structure) -> list[str]:
    """The sequence of each."""
    edges = [0, *(np.flatnonzero(np.diff(structure["chain"])) + 1).tolist(), len(structure["sequence"])]
    return [structure["sequence"][start:stop] for start, stop in pairwise(edges)]


def alpha_carbons(structure: Structure) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(S, 3) those that are seen, and (S,) which residues they are of."""
    places = np.flatnonzero(structure["seen"][:, 1])
    return structure["coordinates"][places, 1].astype(np.float64), places


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(GZIP):
        if len(data) > _MOST_BYTES:
            raise DecodeError("refused", f"{len(data):,} bytes, more than {_MOST_BYTES:,}.")
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            text = file.read(_MOST_BYTES + 1)
    except EOFError as error:
        raise DecodeError("partial", "The gzip file ends early.") from error
    except (OSError, zlib.error) as error:
        raise DecodeError("error", f"A damaged gzip file: {error}.") from error
    if len(text) > _MOST_BYTES:
        raise DecodeError("refused", f"It unpacks to more than {_MOST_BYTES:,} bytes.")
    return text


def _is_mmcif(text: bytes) -> bool:
    return _BLOCK.match(text[:HEAD]) is not None and _MACROMOLECULE.search(text[:HEAD]) is not None


def _is_pdb(text: bytes) -> bool:
    """Whether a text is PDB, by its first line that is not blank: a record, and no word that only begins like one."""
    line = text[:4096].lstrip().split(b"\n", 1)[0].rstrip()
    if not line.ljust(6).startswith(_FIRST_RECORDS):
        return False
    return not line.startswith((b"ATOM ", b"HETATM")) or line[11:12] == b" "


def _from_pdb(library: Any, text: bytes) -> gemmi.Structure:
    counts = _Counts(text)
    structure: gemmi.Structure = library.read_pdb_string(text)
    read = sum(model.count_atom_sites() for model in structure)
    if read != counts.atoms:
        raise DecodeError("error", f"{read:,} atoms can be read of {counts.atoms:,}.")
    return structure


class _Counts:
    """Counts a PDB file's records. Raises DecodeError if the declared numbers differ."""

    def __init__(self, text: bytes) -> None:
        self.atoms = 0
        self._ters = self._seqres = self._models = self._ends = 0
        self._first: tuple[int, int] | None = None  # atoms and TER of the first model, if it has an end
        self._listed: dict[bytes, list[int]] = {}
        self._master = b""
        self._announced = 0
        with_atoms = set[bytes]()
        for number, line in self._records(text):
            name = line[:6].rstrip()
            if name in (b"ATOM", b"HETATM"):
                if len(line) < 54:
                    raise DecodeError("partial", f"Line {number:,} ends in the middle of an atom.")
                self.atoms += 1
                with_atoms.add(line[21:22])
            else:
                self._count(name, line)
        if not self.atoms:
            raise DecodeError("partial", "It has no atoms.")
        if self.atoms > _MOST_ATOMS:
            raise DecodeError("refused", f"{self.atoms:,} atoms, more than {_MOST_ATOMS:,}.")
        self._check(with_atoms)

    def _records(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Lines up to END. Raises DecodeError without END, or for a line that is no record."""
        for number, line in enumerate(map(bytes.rstrip, text.split(b"\n")), 1):
            if not line:
                continue
            name = line[:6].rstrip()
            if name == b"END":
                return
            if name.decode("latin-1") not in _RECORDS:
                raise DecodeError("error", f"Line {number:,} is no record of the format: {line[:6]!r}.")
            yield number, line
        raise DecodeError("partial", f"It does not end with END: {self.atoms:,} atoms are there, more may be missing.")

    def _count(self, name: bytes, line: bytes) -> None:
        match name:
            case b"TER":
                self._ters += 1
            case b"SEQRES":
                self._seqres += 1
                listed = self._listed.setdefault(line[11:12], [_number(line[13:17]), 0])
                listed[1] += len(line[19:70].split())
            case b"MODEL":
                self._models += 1
            case b"ENDMDL":
                self._ends += 1
                self._first = self._first or (self.atoms, self._ters)
            case b"NUMMDL":
                self._announced = _number(line[10:14])
            case b"MASTER":
                self._master = line

    def _check(self, with_atoms: set[bytes]) -> None:
        counted = _number(self._master[50:55]), _number(self._master[55:60])
        atoms, ters = self._first if self._first and counted != (self.atoms, self._ters) else (self.atoms, self._ters)
        found = {
            "atoms": (atoms, counted[0]),
            "TER records": (ters, counted[1]),
            "SEQRES records": (self._seqres, _number(self._master[65:70])),
        }
        for what, (there, expected) in found.items():
            if self._master and there != expected:
                raise DecodeError("partial", f"{there:,} {what} where MASTER counts {expected:,}.")
        if self._models != self._ends or self._announced not in (0, self._models):
            raise DecodeError(
                "partial",
                f"{self._models} models begin, {self._ends} end, {self._announced or self._models} are declared.",
            )
        for chain, (expected, there) in self._listed.items():
            if expected and there != expected:
                raise DecodeError(
                    "partial", f"Chain {chain.decode('latin-1')!r} lists {there} of {expected} residues in SEQRES."
                )
        if lacking := sorted(set(self._listed) - with_atoms):
            raise DecodeError("partial", f"Chain {lacking[0].decode('latin-1')!r} has a sequence and no atoms.")


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _from_mmcif(library: Any, text: bytes) -> gemmi.Structure:
    closed = text.rstrip().rsplit(b"\n", 1)[-1].strip() == b"#"
    try:
        document = library.cif.read_string(text)
    except ValueError as error:
        cut = any(word in str(error) for word in ("Wrong number of values", "unterminated", "expected value"))
        raise DecodeError("partial" if cut else "error", f"Not valid mmCIF: {str(error)[:200]}.") from error
    block = document[0]
    atoms = block.find("_atom_site.", ["id", "label_asym_id"])
    if not len(atoms):
        raise DecodeError("partial", "It has no atoms.")
    if len(atoms) > _MOST_ATOMS:
        raise DecodeError("refused", f"{len(atoms):,} atoms, more than {_MOST_ATOMS:,}.")
    last = block.get_mmcif_category_names()[-1]
    if not closed and last == "_atom_site." and not _reaches_the_last_residue(block):
        raise DecodeError(
            "partial",
            f"It ends with its atoms and without '#', so nothing says that the {len(atoms):,} that are there are all. "
            f"{_CLOSE_IT}",
        )
    if not closed and last != "_atom_site." and b"\n#" in text.replace(b"\r", b""):
        raise DecodeError(
            "partial", f"Its last category, {last.strip('_.')!r}, does not end with '#' as the others do. {_CLOSE_IT}"
        )
    named = {row[0] for row in block.find("_struct_asym.", ["id"])}
    if lacking := sorted(named - {row[1] for row in atoms}):
        raise DecodeError("partial", f"{len(lacking)} of {len(named)} chains have no atoms, such as {lacking[0]!r}.")
    structure: gemmi.Structure = library.make_structure_from_block(block)
    read = sum(model.count_atom_sites() for model in structure)
    if read != len(atoms):
        raise DecodeError("error", f"{read:,} atoms can be read of {len(atoms):,}.")
    return structure


def _reaches_the_last_residue(block: Any) -> bool:
    """Whether the last chain with a declared sequence has the backbone of its last residue: then no residue of an
    unclosed list of atoms can be missing at its end."""
    last = {row[0]: row[1] for row in block.find("_entity_poly_seq.", ["entity_id", "num"])}
    rows = [
        (row[0], row[1], row[2].strip("\"'"))
        for row in block.find("_atom_site.", ["label_entity_id", "label_seq_id", "label_atom_id"])
        if row[0] in last
    ]
    if not rows or rows[-1][1] != last[rows[-1][0]]:
        return False
    return {"C", "O"} <= {atom for entity, number, atom in rows[-30:] if (entity, number) == rows[-1][:2]}


def _parse_model(library: Any, model: gemmi.Structure, fields: dict[str, str | int | float]) -> ParsedStructure:
    found = [_chain(library, model, chain) for chain in model[0]]
    kept = [chain for chain in found if chain is not None]
    if not kept:
        raise DecodeError("error", "It has no chain of amino acids.")
    if (residues := sum(len(chain.letters) for chain in kept)) > MOST_RESIDUES:
        raise DecodeError("refused", f"{residues:,} residues, more than {MOST_RESIDUES:,}.")
    coordinates = np.concatenate([chain.coordinates for chain in kept])
    if not np.abs(coordinates).max() < _FARTHEST:  # also where one is not a number
        raise DecodeError("error", "Coordinates that are no places.")
    seen = np.concatenate([chain.seen for chain in kept])
    if not seen[:, 1].any():
        raise DecodeError("partial", "Not one alpha carbon is there.")
    structure = Structure(
        sequence="".join(chain.letters for chain in kept),
        chain=np.repeat(np.arange(len(kept), dtype=np.int32), [len(chain.letters) for chain in kept]),
        coordinates=coordinates.astype(np.float32),
        seen=seen,
    )
    return ParsedStructure(structure, fields | _fields_of(model, found.count(None)))


class _Chain(NamedTuple):
    letters: str
    coordinates: npt.NDArray[np.float64]
    """(R, 4, 3)"""
    seen: npt.NDArray[np.uint8]


def _chain(library: Any, model: gemmi.Structure, chain: gemmi.Chain) -> _Chain | None:
    """None if it is not of amino acids."""
    polymer = chain.get_polymer()
    if not len(polymer) or polymer.check_polymer_type() not in (
        library.PolymerType.PeptideL,
        library.PolymerType.PeptideD,
    ):
        return None
    entity = model.get_entity_of(polymer)
    listed = [library.Entity.first_mon(name) for name in entity.full_sequence] if entity else []
    residues = list(polymer.first_conformer())
    places = [(residue.label_seq or 0) - 1 for residue in residues]
    if not listed or len(set(places)) < len(places) or not 0 <= min(places) <= max(places) < len(listed):
        listed, places = [residue.name for residue in residues], list(range(len(residues)))
    coordinates, seen = np.zeros((len(listed), 4, 3)), np.zeros((len(listed), 4), np.uint8)
    for place, residue in zip(places, residues, strict=True):
        for number, name in enumerate(BACKBONE):
            if (atom := residue.find_atom(name, "*")) is not None:
                coordinates[place, number] = atom.pos.x, atom.pos.y, atom.pos.z
                seen[place, number] = 1
    return _Chain("".join(_letter(library, name) for name in listed), coordinates, seen)


def _letter(library: Any, name: str) -> str:
    """One-letter code of a residue, of a modified one that of its parent; X without one."""
    letter: str = library.find_tabulated_residue(name).one_letter_code.strip().upper()
    return letter or "X"


def _fields_of(model: gemmi.Structure, others: int) -> dict[str, str | int | float]:
    fields: dict[str, str | int | float] = {"models": len(model)}
    name = dict(model.info).get("_entry.id", "")
    method = dict(model.info).get("_exptl.method", "")
    if name:
        fields["structure_id"] = name[:64]
    if method:
        fields["method"] = method.split(";")[0].strip()[:64]
    if model.resolution > 0 and math.isfinite(model.resolution):
        fields["resolution"] = float(model.resolution)
    ligands = [residue.name for chain in model[0] for residue in chain.get_ligands()]
    if ligands:
        fields["ligand_names"] = ",".join(sorted(set(ligands)))[:64]
    waters = sum(len(list(chain.get_waters())) for chain in model[0])
    with_polymers = sum(len(chain.get_polymer()) > 0 for chain in model[0])
    return fields | {
        "atoms": model[0].count_atom_sites(),
        "ligands": len(ligands),
        "waters": waters,
        "other_chains": with_polymers - (len(model[0]) - others),
    }
