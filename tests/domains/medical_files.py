"""Makers of medical test data: a NIfTI folder laid out like the Medical Segmentation Decathlon (organs, half of them
with a lesion), CT phantoms of the chest as DICOM (`chest`), and mixed rows of bedside rounds (`write`)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image
from sklearn.datasets import load_digits

from tests.modalities import dicom_samples as samples
from tests.modalities.nifti_samples import Organ, organ, packed, written


def decathlon(root: Path, seeds: Iterable[int], *, side: int = 20) -> Path:
    """`imagesTr`, `labelsTr` and `dataset.json` below `root / "scans"`; returns a table of findings beside it."""
    folder = root / "scans"
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    rows = []
    for seed in seeds:
        lesion = seed % 2 == 0
        made = organ(seed, lesion=lesion, side=side)
        name = f"p{seed:03}.nii.gz"
        (folder / "imagesTr" / name).write_bytes(packed(written(made.voxels)))
        (folder / "labelsTr" / name).write_bytes(packed(written(made.labels)))
        rows.append({"scan": name, "finding": "lesion" if lesion else "clear"})
    card = {"labels": {"0": "background", "1": "organ", "2": "lesion"}}
    (folder / "dataset.json").write_text(json.dumps(card))
    with (root / "findings.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["scan", "finding"])
        writer.writeheader()
        writer.writerows(rows)
    return root / "findings.csv"


def sent_again(made: Organ, seed: int) -> bytes:
    """The same scan from another machine: another scale, some noise, other axes and type."""
    noise = np.random.default_rng(seed).normal(0, 2, made.voxels.shape)
    values = ((made.voxels + noise) * 2.5 + 40).astype(np.float32)
    return packed(written(values[::-1].copy(), np.diag([-2.0, 1.0, 1.5, 1.0])))


Voxels = npt.NDArray[np.int16]
_AIR, _WATER, _LUNG, _BONE, _NODULE = -1000, 30, -820, 500, 800


def chest(chance: np.random.Generator, nodule: bool, shape: tuple[int, int, int]) -> Voxels:
    """(D, H, W) in Hounsfield units: a parametric CT phantom, in some patients with a nodule in a lung; each patient's
    body has its own shape."""
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


RATE = 8_000
URGENCY = ("rest", "check", "call")
_WHO = ("The patient", "She", "He", "Bed four", "The new arrival", "Mr Ito", "Mrs Okafor")
_GOOD = ("feels well", "sleeps quietly", "has no pain", "eats with appetite", "walks alone")
_BAD = ("feels worse", "sleeps badly", "has strong pain", "eats nothing", "cannot walk")
_WHEN = ("today", "since last night", "as before", "at noon", "since the visit")


class Rounds(NamedTuple):
    folder: Path
    labels: Path
    copies: list[tuple[str, str]]
    """Names of rows with the same image."""


def write(folder: Path, count: int = 220, seed: int = 0) -> Rounds:
    """`folder/rows/0001/{scan.png, note.txt, hum.wav}` and `folder/labels.csv`.

    The digits, 0 and 1, come with scikit-learn; a 1 and a bad note are a reason each, and the urgency counts the
    reasons: `rest`, `check`, `call`. No part tells the urgency alone, and the hum tells nothing. Some notes and hums
    are missing. Every sixth image comes a second time, compressed, with another note: the same image with another
    answer."""
    digits, chance = load_digits(), np.random.default_rng(seed)
    drawn = np.flatnonzero(digits.target < 2)[:count]
    lines, copies, number = ["name,urgency"], list[tuple[str, str]](), 0
    for place, digit in enumerate(drawn):
        first = f"{number:04}"
        for suffix in ("png", "jpg")[: 2 if place % 6 == 0 else 1]:
            bad = int(chance.integers(2))
            name = f"{number:04}"
            below = folder / "rows" / name
            below.mkdir(parents=True)
            pixels = (digits.images[digit] * 15).astype(np.uint8)
            Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(below / f"scan.{suffix}")
            if number % 12:
                words = [chance.choice(_WHO), chance.choice(_BAD if bad else _GOOD), chance.choice(_WHEN)]
                (below / "note.txt").write_text(" ".join(words) + ".")
            if number % 5:
                time = np.arange(int(RATE * chance.uniform(0.4, 1.0))) / RATE
                hum = 0.2 * np.sin(2 * np.pi * chance.uniform(120, 240) * time) + chance.normal(0, 0.02, len(time))
                soundfile.write(below / "hum.wav", hum.astype(np.float32), RATE)
            lines.append(f"{name},{URGENCY[int(digits.target[digit]) + bad]}")
            if suffix == "jpg":
                copies.append((first, name))
            number += 1
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return Rounds(folder / "rows", folder / "labels.csv", copies)
