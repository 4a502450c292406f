"""Small molecules as files, written by RDKit."""

from __future__ import annotations

from rdkit import Chem
from rdkit.Chem import AllChem

CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def block(smiles: str, *, v3000: bool = False, name: str = "") -> str:
    molecule = Chem.MolFromSmiles(smiles)
    AllChem.Compute2DCoords(molecule)
    molecule.SetProp("_Name", name)
    return Chem.MolToV3KMolBlock(molecule) if v3000 else Chem.MolToMolBlock(molecule)


def record(smiles: str, name: str = "", /, **items: object) -> str:
    """Of an SDF file."""
    told = "".join(f"> <{key}>\n{value}\n\n" for key, value in items.items())
    return f"{block(smiles, name=name)}{told}$$$$\n"


FILES = {
    "caffeine.mol": block(CAFFEINE).rstrip().encode(),
    "aspirin.mol": block(ASPIRIN, v3000=True).rstrip().encode(),
}
"""Each says where it ends."""
ENDLESS = {
    "caffeine.sdf": record(CAFFEINE, "caffeine", mass=194.19).encode(),
    "aspirin.smi": f"{ASPIRIN} aspirin\n".encode(),
}


def bomb() -> bytes:
    return block(ASPIRIN, v3000=True).replace("COUNTS 13 13", "COUNTS 2000000000 13").encode()
