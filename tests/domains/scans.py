"""A folder of NIfTI scans as the Medical Segmentation Decathlon lays one out: organs, half of them with a lesion."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

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
