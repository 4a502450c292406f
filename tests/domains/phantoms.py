"""Chests of a CT as parametric phantoms: two or three series of each patient, in some patients with a nodule in a lung.

All come from a generator alone and are written as a hospital sends them: mixed in one folder, without suffixes, under
names that say nothing.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.modalities import dicom_samples as samples

Voxels = npt.NDArray[np.int16]
_AIR, _WATER, _LUNG, _BONE, _NODULE = -1000, 30, -820, 500, 800


def chest(chance: np.random.Generator, nodule: bool, shape: tuple[int, int, int]) -> Voxels:
    """(D, H, W) in Hounsfield units; each patient's body has a form of its own."""
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]].astype(np.float32)
    middle = np.array(shape, np.float32) / 2 + chance.uniform(-1, 1, 3)
    wide, deep = shape[2] * chance.uniform(0.38, 0.46), shape[1] * chance.uniform(0.3, 0.4)
    body = np.full(shape, _AIR, np.float32)
    body[((x - middle[2]) / wide) ** 2 + ((y - middle[1]) / deep) ** 2 < 1] = _WATER
    lungs = np.zeros(shape, bool)
    for side in (-1, 1):
        centre = middle[2] + side * wide * 0.48
        inside = ((x - centre) / (wide * 0.36)) ** 2 + ((y - middle[1]) / (deep * 0.66)) ** 2
        lungs |= inside + ((z - middle[0]) / (shape[0] * 0.75)) ** 2 < 1
    body[lungs] = _LUNG
    spine = (x - middle[2]) ** 2 + (y - middle[1] - deep * 0.75) ** 2 < 6
    body[spine] = _BONE
    for _ in range(25):  # vessels
        at = np.argwhere(lungs)[chance.integers(lungs.sum())]
        body[at[0], at[1], at[2]] = _WATER
    if nodule:
        at = np.argwhere(lungs)[chance.integers(lungs.sum())]
        away = np.sqrt((2.0 * (z - at[0])) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2)
        body[(away < chance.uniform(3.0, 4.5)) & lungs] = _NODULE
    return body.astype(np.int16)


def hospital(folder: Path, patients: int, shape: tuple[int, int, int] = (12, 40, 40), seed: int = 0) -> Path:
    """Files below `folder/sent`, and `folder/findings.csv`, a row per patient; the latter's path."""
    chance = np.random.default_rng(seed)
    sent = folder / "sent"
    sent.mkdir(parents=True)
    number = 0
    rows = [("patient", "finding")]
    for patient in range(patients):
        ill = patient % 2 == 1
        body = chest(chance, ill, shape)
        rows.append((f"P{patient:03}", "nodule" if ill else "none"))
        for _ in range(int(chance.integers(2, 4))):
            number += 1
            noisy = body + chance.normal(0, 25, body.shape).astype(np.int16)
            gap = float(chance.choice([2.0, 2.5]))
            for each in samples.series(noisy, gap, number, PatientID=f"P{patient:03}", PatientName="Doe^Jane",
                                       StudyInstanceUID=samples.uid(7, patient)):  # fmt: skip
                (sent / f"{chance.integers(1 << 60):015x}").write_bytes(samples.encoded(each))
    with (folder / "findings.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "findings.csv"
