"""Small scans in each kind of NIfTI, written by nibabel: an organ with or without a lesion; and a header beyond the
budget. Whoever needs many makes them by `organ`.
"""

from __future__ import annotations

import gzip
import io
from typing import NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from speciate.modalities.bundles import bundle


class Organ(NamedTuple):
    voxels: npt.NDArray[np.int16]
    """(x, y, z) as in RAS: an ellipsoid of 100 in 0, with noise, and a sphere of 160 in it where there is a lesion."""
    labels: npt.NDArray[np.uint8]
    """1 is the organ, 2 the lesion."""


def organ(seed: int, *, lesion: bool = True, side: int = 24) -> Organ:
    chance = np.random.default_rng(seed)
    shape = side, side + 4, side - 4
    x, y, z = (place / length for place, length in zip(np.indices(shape), shape, strict=True))
    centre, radii = chance.uniform(0.45, 0.55, 3), chance.uniform(0.28, 0.42, 3)
    inside = sum(((place - c) / r) ** 2 for place, c, r in zip((x, y, z), centre, radii, strict=True)) < 1
    where = centre + chance.uniform(-0.45, 0.45, 3) * radii
    spot = sum((place - w) ** 2 for place, w in zip((x, y, z), where, strict=True)) < chance.uniform(0.09, 0.13) ** 2
    labels = inside.astype(np.uint8)
    if lesion:
        labels[spot & inside] = 2
    values = np.array([0, 100, 160])[labels] + chance.normal(0, 8, shape)
    return Organ(values.round().astype(np.int16), labels)


def written(
    voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.float64] | None = None, *, version: int = 1
) -> nib.Nifti1Image:
    """2 x 1 x 1.5 mm unless an affine is given."""
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    return kind(voxels, np.diag([2.0, 1.0, 1.5, 1.0]) if affine is None else affine)


def packed(image: nib.Nifti1Image) -> bytes:
    return gzip.compress(image.to_bytes(), 6, mtime=0)


def pair(image: nib.Nifti1Image) -> dict[str, bytes]:
    """Name -> bytes of a .hdr and its .img."""
    pair = nib.Nifti1Pair(image.dataobj, image.affine, image.header)
    files = {kind: nib.FileHolder(fileobj=io.BytesIO()) for kind in ("header", "image")}
    pair.to_file_map(files)
    return {f"organ.{suffix}": files[kind].fileobj.getvalue() for kind, suffix in (("header", "hdr"), ("image", "img"))}


def files() -> dict[str, bytes]:
    scaled = written(organ(1).voxels)
    scaled.header.set_slope_inter(0.5, -10)
    turned = np.array([[0, 0, -3.0, 40], [1.0, 0, 0, -9], [0, 1.2, 0, 5], [0, 0, 0, 1]])
    return {
        "scaled.nii.gz": packed(scaled),
        "turned.nii": written(organ(2).voxels.astype(np.float32), turned).to_bytes(),
        "second.nii": written(organ(3).voxels.astype(">i4"), version=2).to_bytes(),
        "slice.nii.gz": packed(written(organ(4).voxels[:, :, 10:11])),
    }


def bundled() -> bytes:
    return bundle(pair(written(organ(5).voxels)))


def bomb() -> bytes:
    """A header of 10 GB of voxels, which the stream behind it does hold: packed, it has 0.01 MB of that here."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((2000, 2000, 1250))
    header["magic"], header["vox_offset"] = b"n+1", 352
    return gzip.compress(header.binaryblock + bytes(4) + bytes(10_000_000), 9, mtime=0)
