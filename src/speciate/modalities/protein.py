"""Amino acid sequences: one-letter codes, from FASTA or a column of a table."""

from __future__ import annotations

from typing import Any

from speciate.modalities.contract import DecodeError, Header, Modality, Pixels, Vector
from speciate.modalities.drawing import text_card
from speciate.modalities.hashing import hashed
from speciate.modalities.homology import HOMOLOGY

ALPHABET = frozenset("ACDEFGHIKLMNPQRSTVWYBXZJUO")
"""IUPAC: the twenty, B X Z J for ambiguous, U selenocysteine, O pyrrolysine."""
_LONGEST = 100_000  # residues; titin has 35,000


class Protein(Modality[str]):
    name = "protein"
    suffixes = (".fasta", ".fa", ".faa")
    analyzer = "char"
    ngrams = (1, 3)
    sketching = HOMOLOGY

    def sniff(self, head: bytes, name: str) -> bool:
        lines = head.split(b"\n")
        return lines[0].startswith(b">") and len(lines) > 1 and is_sequence(lines[1].decode("latin-1"))

    def inspect(self, data: bytes) -> Header:
        return Header(len(data), {"bytes": len(data)})

    def decode(self, data: bytes) -> str:
        """One record of FASTA, or a bare sequence. Files of many records are read as tables."""
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

    def fingerprint(self, media: str) -> str:
        return media

    def measure(self, media: str) -> dict[str, int | float]:
        return {"residues": len(media)}

    def describe(self, media: str) -> str:
        return media

    def features(self, media: str) -> Vector:
        return hashed(media, 1, 3)

    def thumbnail(self, media: str) -> Pixels:
        return text_card(media)

    def sketch(self, media: str) -> bytes | None:
        """The sequence itself: who is akin is told by aligning."""
        return media.encode()


def is_sequence(text: str) -> bool:
    """Whether a cell can only be a sequence: five residues or more, all capitals, no spaces."""
    text = text.strip()
    return len(text) >= 5 and set(text.removesuffix("*")) <= ALPHABET


PROTEIN = Protein()
