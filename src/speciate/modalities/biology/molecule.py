"""Small molecules, as canonical SMILES: from MOL and SDF files, or a column of a table. RDKit reads them.

Coordinates of atoms are not kept: learners see the bonds alone.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import LARGEST_THUMBNAIL, DecodeError, Header, Modality, Pixels, Sketches, Vector
from speciate.modalities.hashing import mix

if TYPE_CHECKING:
    from rdkit.Chem import Mol

END = "M  END"
"""Ends the atoms of a MOL file or of a record of an SDF file."""
_BITS = 2048
_RADIUS = 2
_LONGEST, _MOST_BYTES, _MOST_ATOMS = 5_000, 2 << 20, 2_000
_COUNTS = re.compile(r"\s*(\d{1,3})\s*(\d{1,3})[^\n]*V([23])000\s*$")
_COUNTS_V3 = re.compile(r"M {2}V30 COUNTS (\d+) (\d+)")
_SMILES = re.compile(r"[A-Za-z0-9@+\-\[\]()=#$:/\\.%*~]+")
_NUMBERS = 10


class Bits:
    """The bits of Morgan fingerprints (Rogers & Hahn 2010): near by the share of common ones (Tanimoto).

    Candidates agree in four of 64 MinHash values: at a similarity of 0.8 a pair is one in 9,998 of 10,000 cases, at 0.6
    in 89 of 100.
    """

    width = _BITS // 8
    threshold = 0.8
    """Tanimoto coefficient: the same skeleton with a small change. Molecules with one scaffold are grouped by that."""

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 16)"""
        least = np.empty((len(sketches), len(_SALTS)), np.uint64)
        for place, bits in enumerate(np.unpackbits(sketches, axis=1)):
            on = np.flatnonzero(bits).astype(np.uint64)
            least[place] = mix(on[np.newaxis] ^ _SALTS[:, np.newaxis]).min(axis=1) if len(on) else 0
        bands = least.reshape(len(sketches), -1, 4)
        found = np.arange(1, bands.shape[1] + 1, dtype=np.uint64)[np.newaxis].repeat(len(sketches), axis=0)
        for row in range(4):
            found = mix(found ^ bands[:, :, row])
        return found

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        common = np.bitwise_count(a & b).sum(axis=1, dtype=np.int64)
        either = np.bitwise_count(a | b).sum(axis=1, dtype=np.int64)
        least = self.threshold if threshold is None else threshold
        return np.asarray(common >= least * np.maximum(either, 1))


class Molecule(Modality[str]):
    name = "molecule"
    suffixes = (".mol", ".sdf", ".smi", ".smiles")
    sketching = Bits()
    default_group = "scaffold"
    thumbnail_side = LARGEST_THUMBNAIL

    def sniff(self, head: bytes, name: str) -> bool:
        text = head.decode("latin-1")
        if any(_COUNTS.match(line) for line in text.splitlines()[3:4]):
            return True
        first = text.split(None, 1)[:1]
        return name.lower().endswith((".smi", ".smiles")) and bool(first and _SMILES.fullmatch(first[0]))

    def inspect(self, data: bytes) -> Header:
        return Header(_MOST_BYTES, {"bytes": len(data), **_words(self.decode(data))})

    def decode(self, data: bytes) -> str:
        """A MOL file, an SDF file of one record, or a line of SMILES. Files of many records are read as tables."""
        if len(data) > _MOST_BYTES:
            raise DecodeError("refused", f"{len(data):,} bytes, more than {_MOST_BYTES:,}.")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError("error", f"Not a molecule: byte {data[error.start]} at {error.start}.") from error
        lines = text.splitlines()
        if not any(_COUNTS.match(line) for line in lines[3:4]):
            words = text.split()
            if len(words) > 2 or "\n" in text.strip():
                raise DecodeError("error", "Neither a MOL nor an SDF file, nor one line of SMILES.")
            return self.admit(words[0] if words else "")
        records = [line.strip() for line in lines].count("$$$$")
        if records > 1:
            raise DecodeError("error", f"{records} records in one example.")
        return from_block(text)

    def admit(self, value: Any) -> str:
        """SMILES, or the text of a MOL file, in a cell."""
        if not isinstance(value, str) or not value.strip():
            raise DecodeError("error", "The molecule is empty.")
        if any(_COUNTS.match(line) for line in value.splitlines()[3:4]):
            return from_block(value)
        value = value.strip()
        if len(value) > _LONGEST:
            raise DecodeError("refused", f"{len(value):,} characters of SMILES, more than {_LONGEST:,}.")
        if not _SMILES.fullmatch(value):
            raise DecodeError("error", f"Not SMILES: {value[:40]!r}.")
        chem = _chem()
        molecule = chem.MolFromSmiles(value, sanitize=False)
        if molecule is None:
            raise DecodeError("error", f"Not SMILES: {value[:40]!r}.")
        return _canonical(molecule)

    def fingerprint(self, media: str) -> str:
        return media

    def measure(self, media: str) -> dict[str, int | float]:
        from rdkit.Chem import Descriptors

        molecule, descriptors = _molecule(media), cast("Any", Descriptors)
        return {
            "weight": round(float(descriptors.MolWt(molecule)), 3),
            "heavy_atoms": molecule.GetNumHeavyAtoms(),
            "rings": molecule.GetRingInfo().NumRings(),
        }

    def row_fields(self, media: str) -> dict[str, str | int | float]:
        return {**_words(media), **self.measure(media)}

    def describe(self, media: str) -> Vector:
        """(2058,): how often each kind of neighbourhood of an atom occurs, by its logarithm; then numbers about the
        whole: atoms, rings, hydrogen bonds and the like, none of them fitted to a property."""
        from rdkit.Chem import rdFingerprintGenerator

        molecule = _molecule(media)
        counts = rdFingerprintGenerator.GetMorganGenerator(_RADIUS, fpSize=_BITS).GetCountFingerprintAsNumPy(molecule)
        return np.concatenate([np.log1p(counts.astype(np.float64)), _numbers(molecule)]).astype(np.float32)

    def features(self, media: str) -> Vector:
        """(2048,): the bits of the Morgan fingerprint."""
        return np.unpackbits(np.frombuffer(_bits(media), np.uint8)).astype(np.float32)

    def thumbnail(self, media: str) -> Pixels:
        from PIL import Image
        from rdkit.Chem.Draw import rdMolDraw2D

        canvas = rdMolDraw2D.MolDraw2DCairo(LARGEST_THUMBNAIL, LARGEST_THUMBNAIL)
        options: Any = canvas.drawOptions()
        options.fixedBondLength = 32.0
        rdMolDraw2D.PrepareAndDrawMolecule(canvas, _molecule(media))
        canvas.FinishDrawing()
        return np.asarray(Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB"))

    def sketch(self, media: str) -> bytes | None:
        return _bits(media)


def from_block(text: str) -> str:
    """Canonical SMILES of a MOL file, or of one record of an SDF file."""
    lines = text.splitlines()
    counted = _COUNTS_V3.search(text) or _COUNTS.match(lines[3] if len(lines) > 3 else "")
    if counted is None:
        raise DecodeError("error", "It counts no atoms and bonds.")
    if (atoms := int(counted[1])) > _MOST_ATOMS:
        raise DecodeError("refused", f"{atoms:,} atoms, more than {_MOST_ATOMS:,}.")
    ends = [number for number, line in enumerate(lines) if line.rstrip() == END]
    if not ends:
        raise DecodeError("partial", f"It does not reach {END!r}: atoms or bonds are missing.")
    if "$$$$" not in text and any(line.startswith(">") for line in lines[ends[0] :]):
        raise DecodeError("partial", "Its record does not end with '$$$$'.")
    chem = _chem()
    try:
        molecule = chem.MolFromMolBlock("\n".join(lines[: ends[0] + 1]) + "\n", sanitize=False, strictParsing=True)
    except Exception as error:
        raise DecodeError("error", f"A damaged MOL file: {str(error)[:200]}") from error
    if molecule is None:
        raise DecodeError("error", "A damaged MOL file: its atoms and bonds are not as many or not what it says.")
    return _canonical(molecule)


def is_smiles(text: str) -> bool:
    """Whether a cell may be SMILES, by its characters."""
    return _SMILES.fullmatch(text.strip()) is not None


def _chem() -> Any:
    try:
        from rdkit import Chem, RDLogger
    except ImportError as error:
        raise DecodeError("error", "Molecules need RDKit. Run: pip install 'speciate[chem]'") from error
    log: Any = RDLogger
    log.DisableLog("rdApp.*")  # a molecule's fault is in its reason
    return Chem


def _canonical(molecule: Mol) -> str:
    """Raises DecodeError without atoms, with too many, or with impossible bonds."""
    chem = _chem()
    try:
        if problems := chem.DetectChemistryProblems(molecule):
            raise DecodeError("error", f"Impossible bonds: {problems[0].Message()[:200]}")
        chem.SanitizeMol(molecule)
        chem.AssignStereochemistry(molecule, cleanIt=True, force=True)
        if molecule.GetNumConformers() and molecule.GetConformer().Is3D():
            chem.AssignStereochemistryFrom3D(molecule)
        smiles: str = chem.MolToSmiles(chem.RemoveHs(molecule))
        again = chem.MolFromSmiles(smiles)
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError("error", f"Not a molecule: {type(error).__name__}: {str(error)[:200]}") from error
    if again is None or not again.GetNumAtoms():
        raise DecodeError("error", "It has no atoms.")
    if again.GetNumAtoms() > _MOST_ATOMS:
        raise DecodeError("refused", f"{again.GetNumAtoms():,} atoms, more than {_MOST_ATOMS:,}.")
    return str(chem.MolToSmiles(again))


@lru_cache(maxsize=64)
def _molecule(smiles: str) -> Mol:
    molecule: Mol = _chem().MolFromSmiles(smiles)
    return molecule


def _words(smiles: str) -> dict[str, str | int | float]:
    """Formula, InChIKey, and the scaffold (Bemis & Murcko 1996): rings and their linkers; none without rings."""
    from rdkit.Chem import inchi, rdMolDescriptors
    from rdkit.Chem.Scaffolds import MurckoScaffold

    molecule = _molecule(smiles)
    key_of: Any = inchi.MolToInchiKey
    scaffold_of: Any = MurckoScaffold.MurckoScaffoldSmiles
    found: dict[str, str] = {
        "formula": rdMolDescriptors.CalcMolFormula(molecule),
        "inchi_key": key_of(molecule),
        "scaffold": scaffold_of(mol=molecule),
    }
    return {name: word for name, word in found.items() if word}


def _bits(smiles: str) -> bytes:
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(_RADIUS, fpSize=_BITS)
    return np.packbits(generator.GetFingerprintAsNumPy(_molecule(smiles))).tobytes()


def _numbers(molecule: Mol) -> npt.NDArray[np.float64]:
    """(10,)"""
    from rdkit.Chem import rdMolDescriptors

    found = [
        molecule.GetNumHeavyAtoms(),
        rdMolDescriptors.CalcNumHeteroatoms(molecule),
        rdMolDescriptors.CalcNumHBD(molecule),
        rdMolDescriptors.CalcNumHBA(molecule),
        rdMolDescriptors.CalcNumRotatableBonds(molecule),
        rdMolDescriptors.CalcNumAromaticRings(molecule),
        rdMolDescriptors.CalcNumAliphaticRings(molecule),
        rdMolDescriptors.CalcTPSA(molecule) / 10,
        10 * rdMolDescriptors.CalcFractionCSP3(molecule),
        abs(sum(atom.GetFormalCharge() for atom in molecule.GetAtoms())),
    ]
    assert len(found) == _NUMBERS
    return np.log1p(np.array(found, np.float64))


_SALTS = mix(np.arange(1, 65, dtype=np.uint64))

MOLECULE = Molecule()
