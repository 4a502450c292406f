"""Made-up families of proteins, of which some live in heat: their residues are charged more often (E, K) and less often
amides, serine and threonine, by about as much as Cambillau & Claverie (2000) found of hyperthermophiles."""

from __future__ import annotations

import math
import random
from pathlib import Path

import gemmi

LETTERS = "ARNDCQEGHILKMFPSTWYV"
SHARES = [8.3, 5.5, 4.1, 5.5, 1.4, 3.9, 6.7, 7.1, 2.3, 5.9, 9.7, 5.8, 2.4, 3.9, 4.7, 6.6, 5.4, 1.1, 2.9, 6.9]
_HEAT = {"E": 1.4, "K": 1.4, "I": 1.3, "Y": 1.25, "V": 1.15, "N": 0.85, "S": 0.75, "T": 0.85, "H": 0.7, "Q": 0.5}
_THREE = dict(zip(LETTERS, gemmi.expand_one_letter_sequence(LETTERS, gemmi.ResidueKind.AA), strict=True))


def drawn(chance: random.Random, length: int, *, hot: bool) -> str:
    shares = [share * (_HEAT.get(letter, 1.0) if hot else 1.0) for letter, share in zip(LETTERS, SHARES, strict=True)]
    return "".join(chance.choices(LETTERS, shares, k=length))


def relative(root: str, identity: float, chance: random.Random, *, hot: bool) -> str:
    """So many residues stay; the others change, and for each thirty of those a few come or go."""
    fresh = drawn(chance, len(root), hot=hot)
    letters = [old if chance.random() < identity else new for old, new in zip(root, fresh, strict=True)]
    for _ in range(round((1 - identity) * len(root) / 30)):
        at, length = chance.randrange(len(letters)), chance.randint(1, 4)
        letters[at : at + (length if chance.random() < 0.5 else 0)] = []
    return "".join(letters)


def families(count: int = 60, size: int = 4, seed: int = 0) -> list[list[str]]:
    """Every other family lives in heat; relatives share 60 to 90 % with the root."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        hot = number % 2 == 0
        root = drawn(chance, chance.randint(90, 200), hot=hot)
        made.append([relative(root, chance.uniform(0.6, 0.9), chance, hot=hot) for _ in range(size)])
    return made


def fasta(path: Path, made: list[list[str]]) -> Path:
    """The family is told in the name of a sequence alone, where nobody looks for it."""
    lines = [
        f">f{number}_{place} heat={'hot' if number % 2 == 0 else 'cold'}\n{sequence}\n"
        for number, family in enumerate(made) for place, sequence in enumerate(family)
    ]  # fmt: skip
    path.write_text("".join(lines))
    return path


def structure(sequence: str, seed: int = 0) -> bytes:
    """A PDB file: the backbone as one helix, the last residue without its oxygen."""
    made = gemmi.Structure()
    made.name = "MADE"
    model, chain = gemmi.Model(1), gemmi.Chain("A")
    chance = random.Random(seed)
    serial = 0
    for number, letter in enumerate(sequence, 1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = _THREE[letter], gemmi.SeqId(number, " ")
        for name, element, radius, ahead, up in (
            ("N", "N", 1.55, -0.47, -0.9), ("CA", "C", 2.28, 0.0, 0.0), ("C", "C", 1.68, 0.45, 1.1),
            ("O", "O", 1.95, 0.6, 2.3),
        )[: 3 if number == len(sequence) else 4]:  # fmt: skip
            atom = gemmi.Atom()
            serial += 1
            atom.name, atom.element, atom.serial = name, gemmi.Element(element), serial
            angle = 1.7453 * number + ahead
            atom.pos = gemmi.Position(
                radius * math.cos(angle) + chance.gauss(0, 0.02), radius * math.sin(angle), 1.5 * number + up
            )
            residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    made.add_model(model)
    made.setup_entities()
    text: str = made.make_pdb_string()
    return text.encode()
