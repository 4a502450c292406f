"""Proteins: sequences of one-letter codes, from FASTA or a column of a table; and structures, from PDB and mmCIF files.

A sequence is a text, a structure a dict with its sequence in it (protein_structures.py): sequence models call
`sequence_of`, which takes both.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.biology import protein_structures
from speciate.modalities.biology.homology import HOMOLOGY, SEPARATOR
from speciate.modalities.biology.protein_structures import Structure, alpha_carbons
from speciate.modalities.biology.sequence_properties import sequence_properties
from speciate.modalities.contract import (
    LARGEST_THUMBNAIL,
    DecodeError,
    FileSummary,
    Header,
    Modality,
    Pixels,
    Vector,
)
from speciate.modalities.drawing import text_card
from speciate.modalities.hashing import hash_vector

ALPHABET = frozenset("ACDEFGHIKLMNPQRSTVWYBXZJUO")
"""IUPAC: the twenty, B X Z J for ambiguous, U selenocysteine, O pyrrolysine."""
_LONGEST = protein_structures.MOST_RESIDUES  # residues; titin has 35,000
_RESIDUE_BYTES = 4 * 3 * 4 + 4 + 4 + 1
_DISTANCES = np.array([*range(4, 32, 2), *range(32, 64, 4), *range(64, 129, 16)], np.float64)
"""Ångström: the edges of the bins in which alpha carbons are apart."""
_SHAPE = len(_DISTANCES) - 1 + 3
_SAMPLED = 1500  # alpha carbons of which all distances are taken

Media = str | Structure


class Protein(Modality[Media]):
    name = "protein"
    suffixes = (".fasta", ".fa", ".faa", ".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz")
    analyzer = "char"
    ngrams = (1, 3)
    has_properties = True
    sketching = HOMOLOGY
    thumbnail_side = LARGEST_THUMBNAIL

    def sniff(self, head: bytes, name: str) -> bool:
        lines = head.split(b"\n")
        fasta = lines[0].startswith(b">") and len(lines) > 1 and is_sequence(lines[1].decode("latin-1"))
        return fasta or protein_structures.looks_like(head)

    def inspect(self, data: bytes) -> Header:
        if not _is_structure(data):
            return Header(len(data), {"bytes": len(data)})
        return _header(protein_structures.read(data))

    def decode(self, data: bytes) -> Media:
        """One record of FASTA, a bare sequence, or a structure. Files of many records are read as tables."""
        if _is_structure(data):
            return protein_structures.read(data).structure
        if data.startswith(protein_structures.GZIP):
            raise DecodeError("error", "A gzip file that holds neither a PDB nor an mmCIF file of a macromolecule.")
        if data.lstrip()[:5].lower() == b"data_":
            raise DecodeError("error", "A CIF file that holds no macromolecule: it has no category such as _atom_site.")
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError as error:
            raise DecodeError("error", f"Not a sequence: byte {data[error.start]} at {error.start}.") from error
        lines = text.splitlines()
        records = sum(line.startswith(">") for line in lines)
        if records > 1:
            raise DecodeError("error", f"{records} records in one example.")
        if records and not lines[0].startswith(">"):
            raise DecodeError("error", "Residues before the header line.")
        return self.admit("".join(line.strip() for line in lines[records:]))

    def summarize(self, data: bytes) -> FileSummary:
        """Structures are read once for both."""
        if not _is_structure(data):
            return super().summarize(data)
        read = protein_structures.read(data)
        media = read.structure
        return FileSummary(_header(read), self.fingerprint(media), self.measure(media), self.sketch(media))

    def admit(self, value: Any) -> str:
        """Upper case, without spaces and the terminal stop sign `*`."""
        if not isinstance(value, str) or not value.strip():
            raise DecodeError("error", "The sequence is empty.")
        sequence = "".join(value.split()).upper().removesuffix("*")
        if len(sequence) > _LONGEST:
            raise DecodeError("refused", f"{len(sequence):,} residues, more than {_LONGEST:,}.")
        if strange := sorted(set(sequence) - ALPHABET):
            raise DecodeError("error", f"Not amino acids: {''.join(strange)[:20]!r}.")
        if not sequence:
            raise DecodeError("error", "The sequence is empty.")
        return sequence

    def fingerprint(self, media: Media) -> str:
        """The sequence; of a structure the chains and a hash of where their atoms are, to a hundredth of an Ångström.
        It is the same for PDB and mmCIF."""
        if isinstance(media, str):
            return media
        places = hashlib.sha256((media["coordinates"] * 100).round().astype("<i4").tobytes())
        return f"{'/'.join(protein_structures.chains(media))} {places.hexdigest()}"

    def measure(self, media: Media) -> dict[str, int | float]:
        """Number of residues; of a structure also how many residues and atoms of the backbone its model lacks, and how
        wide it is."""
        if isinstance(media, str):
            return {"residues": len(media)}
        seen = media["seen"]
        there = seen.any(axis=1)
        return {
            "residues": len(media["sequence"]),
            "chains": int(media["chain"][-1]) + 1,
            "missing_residues": int((~there).sum()),
            "missing_backbone_atoms": int((seen[there] == 0).sum()),
            "gyration_radius": round(_gyration(protein_structures.alpha_carbons(media)[0]), 2),
        }

    def describe(self, media: Media) -> str:
        return media if isinstance(media, str) else "/".join(protein_structures.chains(media))

    def properties(self, media: Media) -> Vector:
        return sequence_properties(sequence_of(media))

    def features(self, media: Media) -> Vector:
        """(D,): runs of one to three residues; then, zeros for a sequence, how far alpha carbons are apart as shares,
        by how much the radius of gyration exceeds that of a compact chain so long, relative contact order (Plaxco et
        al. 1998), and the share of residues that are not seen."""
        runs = hash_vector(sequence_of(media), 1, 3)
        shape = np.zeros(_SHAPE, np.float32) if isinstance(media, str) else _shape(media)
        return np.concatenate([runs, shape])

    def thumbnail(self, media: Media) -> Pixels:
        return text_card(media) if isinstance(media, str) else draw_backbone(media)

    def sketch(self, media: Media) -> bytes | None:
        """The sequences of the chains, for alignment."""
        if isinstance(media, str):
            return media.encode()
        return SEPARATOR.join(chain.encode() for chain in sorted(set(protein_structures.chains(media))))


def sequence_of(media: Media) -> str:
    """A letter for each residue: of a structure its chains one after another."""
    return media if isinstance(media, str) else media["sequence"]


def is_sequence(text: str) -> bool:
    """Whether a cell can only be a sequence: five residues or more, all capitals, no spaces."""
    text = text.strip()
    return len(text) >= 5 and set(text.removesuffix("*")) <= ALPHABET


def _is_structure(data: bytes) -> bool:
    return protein_structures.looks_like(data[: protein_structures.HEAD])


def _header(read: protein_structures.ParsedStructure) -> Header:
    return Header(_RESIDUE_BYTES * len(read.structure["sequence"]), read.fields)


def _shape(media: Structure) -> Vector:
    """(_SHAPE,)"""
    places, residues = protein_structures.alpha_carbons(media)
    step = -(-len(places) // _SAMPLED)
    sampled, number = places[::step], residues[::step]
    first, second = np.triu_indices(len(sampled), 1)
    apart = np.linalg.norm(sampled[first] - sampled[second], axis=1)
    counts = np.histogram(apart, _DISTANCES)[0] / max(len(apart), 1)
    close = (apart < 8) & (media["chain"][number[first]] == media["chain"][number[second]])
    order = float((number[second] - number[first])[close].mean()) / len(media["sequence"]) if close.any() else 0.0
    compact = 2.2 * len(places) ** 0.38  # Ångström; Skolnick & Kolinski's fit to globular proteins
    shape = [_gyration(places) / compact - 1, order, 1 - len(places) / len(media["sequence"])]
    return np.array([*counts, *shape], np.float64).astype(np.float32)


def _gyration(places: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean()))


_FINER = 2
"""Drawn so many times as large, then made small: lines without steps."""
_MARGIN, _WIDEST, _THINNEST = 16, 7.0, 1.5
_GAP = 4.6
"""Ångström: neighbours farther apart than this are not joined. Alpha carbons are 3.8 apart."""
_PALE = 0.65
_CHAINS = np.array(
    [(31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207), (140, 86, 75),
     (227, 119, 194), (188, 189, 34), (127, 127, 127)], np.float64
)  # fmt: skip
_COURSE = np.array([(40, 60, 200), (0, 160, 200), (40, 170, 60), (230, 170, 0), (210, 40, 30)], np.float64)


def draw_backbone(structure: Structure) -> Pixels:
    """(320, 320, 3): alpha carbons joined by lines, seen along the direction in which they are least spread, near ones
    on top and far ones paler. A single chain goes from blue to red in the order of its residues; of several chains each
    has its own colour."""
    from PIL import Image, ImageDraw

    places, residues = alpha_carbons(structure)
    seen = _turned(places)
    side = LARGEST_THUMBNAIL * _FINER
    extent = max(float(np.ptp(seen[:, :2], axis=0).max()), 8.0)
    scale = (side - 2 * _MARGIN * _FINER) / extent
    middle = (seen[:, :2].max(axis=0) + seen[:, :2].min(axis=0)) / 2
    flat = (seen[:, :2] - middle) * (scale, -scale) + side / 2
    depth = seen[:, 2] - seen[:, 2].min()
    depth /= max(float(depth.max()), 1e-9)  # 1 is near
    width = float(np.clip(1.6 * scale, _THINNEST * _FINER, _WIDEST * _FINER))
    colours = _colours(structure["chain"][residues], residues / max(len(structure["sequence"]) - 1, 1))
    card = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(card)
    for place in _joined(places, structure["chain"][residues], depth):
        near = (depth[place] + depth[place + 1]) / 2
        paled = colours[place] + (255 - colours[place]) * _PALE * (1 - near)
        line = [tuple(flat[place]), tuple(flat[place + 1])]
        thick = round(width * (0.6 + 0.4 * near))
        draw.line(line, fill="white", width=thick + 2 * _FINER)  # an edge, so that crossings can be seen
        draw.line(line, fill=tuple(paled.round().astype(int).tolist()), width=thick)
        for x, y in line:
            radius = thick / 2 - 0.5
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=tuple(paled.round().astype(int).tolist())
            )
    if len(places) == 1:
        draw.ellipse((side / 2 - 8, side / 2 - 8, side / 2 + 8, side / 2 + 8), fill="black")
    return np.asarray(card.resize((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL), Image.Resampling.LANCZOS))


def _turned(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(S, 3) along the directions in which they are spread, most first, turned and not mirrored."""
    centred = places - places.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(3)] < 0, -1, 1)  # the same each time
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    return np.asarray(centred @ axes)


def _joined(places: npt.NDArray[np.float64], chain: npt.NDArray[np.int32], depth: npt.NDArray[np.float64]) -> list[int]:
    """Places of alpha carbons that are joined to the next one, the farthest first."""
    near = np.linalg.norm(np.diff(places, axis=0), axis=1) < _GAP
    joined = np.flatnonzero(near & (np.diff(chain) == 0))
    if not len(joined):  # of a model of a few residues, or one with alpha carbons far apart
        joined = np.flatnonzero(np.diff(chain) == 0)
    found: list[int] = joined[np.argsort(depth[joined] + depth[joined + 1], kind="stable")].tolist()
    return found


def _colours(chain: npt.NDArray[np.int32], course: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(S, 3)"""
    if chain[-1]:
        return _CHAINS[chain % len(_CHAINS)]
    steps = np.linspace(0, 1, len(_COURSE))
    return np.stack([np.interp(course, steps, channel) for channel in _COURSE.T], axis=1)


PROTEIN = Protein()
