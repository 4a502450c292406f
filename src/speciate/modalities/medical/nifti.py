"""Scans in NIfTI-1 and NIfTI-2 (.nii, .nii.gz; .hdr with .img), decoded to volumes with nibabel's headers.

Nothing is unpacked before the header is within the budget, and then never more than it declares, so neither a header
nor a gzip stream can fill the memory. The bytes must be as many as declared. The scale (scl_slope, scl_inter) is
applied; values that are no finite number become 0: NaN mostly marks voxels outside. The affine turns the axes to those
of the patient; if both of NIfTI's transforms are given, the sform counts, and `transforms_agree` says whether the qform
is the same.

One file is one volume: series in time and several channels are refused by name, as are complex and RGB voxels.
FreeSurfer's .mgz and ANALYZE 7.5, which does not say which side is left, are not read.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.contract import DecodeError, Header
from speciate.modalities.medical.volumes import MOST_VOXELS, Volume, VolumeModality

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header


_GZIP = b"\x1f\x8b"
_FIRST = 348, 540
"""Bytes of the headers of NIfTI-1 and NIfTI-2."""
_SINGLE, _PAIRED = ("n+1", "n+2"), ("ni1", "ni2")
_AXES = "LPS"
_MILLIMETRES = (1.0, 1000.0, 1.0, 0.001, 1.0, 1.0, 1.0, 1.0)
"""Millimetres of NIfTI's units of length: unknown, metre, millimetre, micron; there are no others."""
_LONGEST_START = 64 << 20  # bytes before the voxels: header and extensions
_FARTHEST_SPACING = 1e-6, 1e6  # millimetres
_TOLERANCE = 1e-3


class Nifti(VolumeModality):
    name = "nifti"
    suffixes = (".nii", ".nii.gz", ".hdr")

    def sniff(self, head: bytes, name: str) -> bool:
        if head.startswith(_GZIP):
            head = _begun(head, _FIRST[1])
        return _version(head) is not None or name.lower().endswith((".nii", ".nii.gz"))

    def inspect(self, data: bytes) -> Header:
        return _opened(data).header()

    def decode(self, data: bytes) -> Volume:
        return _opened(data).volume()


class _Parts(NamedTuple):
    """The files of an example, as they lie there."""

    header: bytes
    voxels: bytes
    """Bytes of the voxels' file; those of `header` if one file holds both."""
    paired: bool


class _File(NamedTuple):
    """The checked declarations of a file, and where its voxels lie."""

    parts: _Parts
    nifti: Nifti1Header
    shape: tuple[int, int, int]
    """Sides in the file's order of axes, the first fastest."""
    affine: npt.NDArray[np.float64]
    """(4, 4), in millimetres."""
    start: int

    def header(self) -> Header:
        import nibabel as nib

        nifti, sides = self.nifti, [int(side) for side in self.shape]
        order = _order(self.affine)
        depth, height, width = (sides[axis] for axis in order.axes)
        spacing = nib.affines.voxel_sizes(self.affine)
        fields = {
            "slices": depth, "rows": height, "columns": width,
            **{f"spacing_{name}_mm": round(float(spacing[i]), 5) for name, i in zip("zyx", order.axes, strict=True)},
            "orientation": "".join(nib.aff2axcodes(self.affine)),
            "transform": "sform" if nifti["sform_code"] > 0 else "qform" if nifti["qform_code"] > 0 else "none",
            "transforms_agree": int(_agree(nifti)),
            "oblique_degrees": round(float(np.degrees(nib.affines.obliquity(self.affine)).max()), 2),
            "voxel_type": nifti.get_data_dtype().name,
        }  # fmt: skip
        return Header(4 * math.prod(sides), fields)

    def volume(self) -> Volume:
        import nibabel as nib

        dtype = self.nifti.get_data_dtype()
        count = math.prod(self.shape)
        raw = _exactly(self.parts.voxels, self.start, count * dtype.itemsize)
        voxels = _scaled(np.frombuffer(raw, dtype, count), self.nifti)
        order = _order(self.affine)
        turned = nib.apply_orientation(voxels.reshape(self.shape, order="F"), order.turns)
        spacing = nib.affines.voxel_sizes(self.affine)[list(order.axes)].astype(np.float32)
        return {"voxels": np.ascontiguousarray(turned.transpose(2, 1, 0)), "spacing": spacing}


class _Order(NamedTuple):
    turns: npt.NDArray[np.float64]
    """As nibabel turns an array, to x, y, z of `_AXES`."""
    axes: tuple[int, int, int]
    """Which of the file's axes become z, y and x."""


class Grid(NamedTuple):
    """Where the voxels of a file lie, for others in the same places."""

    shape: tuple[int, int, int]
    """Sides in the file's order of axes."""
    affine: npt.NDArray[np.float64]
    """(4, 4), in millimetres."""

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """(D, H, W), as the file is decoded."""
        z, y, x = _order(self.affine).axes
        return self.shape[z], self.shape[y], self.shape[x]

    def in_file_order(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(D, H, W) -> an array of `shape`: what decoding did, undone."""
        import nibabel as nib

        own = nib.io_orientation(self.affine)
        back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(tuple(_AXES)), own)
        found: npt.NDArray[Any] = nib.apply_orientation(volume.transpose(2, 1, 0), back)
        return found


def grid(data: bytes) -> Grid:
    """Raises DecodeError if it is no NIfTI."""
    file = _opened(data)
    return Grid(file.shape, file.affine)


def _opened(data: bytes) -> _File:
    """The header, read and within the budgets. Raises DecodeError if it is none, or declares something unsupported."""
    if not data:
        raise DecodeError("error", "The file is empty.")
    parts = _parts(data)
    head = parts.header[: _FIRST[1]] if not parts.header.startswith(_GZIP) else _begun(parts.header, _FIRST[1])
    version = _version(head)
    if version is None:
        raise DecodeError("error", "Not a NIfTI file: its header has no magic of NIfTI-1 or NIfTI-2.")
    if version[1] != parts.paired:
        raise DecodeError("error", "The voxels lie in another file: a .hdr needs its .img, and a .nii has both.")
    if len(head) < _FIRST[version[0] - 1]:
        raise DecodeError("partial", "The file ends within its header.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd headers; important faults are checked here
        return _checked(parts, _read(head, version))


def _parts(data: bytes) -> _Parts:
    if not is_bundle(data):
        return _Parts(data, data, paired=False)
    members = members_of(data)
    by_kind = {name.lower().removesuffix(".gz").rpartition(".")[2]: content for name, content in members.items()}
    if len(members) != 2 or by_kind.keys() != {"hdr", "img"}:
        raise DecodeError("error", f"Not a pair of .hdr and .img: {', '.join(members)[:100]}.")
    return _Parts(by_kind["hdr"], by_kind["img"], paired=True)


def _version(head: bytes) -> tuple[int, bool] | None:
    """1 or 2, and whether the voxels lie in another file; None if it is no NIfTI."""
    for version, magic in ((1, head[344:347]), (2, head[4:7])):
        text = magic.decode("latin-1")
        if text in (_SINGLE[version - 1], _PAIRED[version - 1]):
            return version, text in _PAIRED
    return None


def _read(head: bytes, version: tuple[int, bool]) -> Nifti1Header:
    try:
        from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
        from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
    except ImportError as error:
        raise DecodeError("error", "NIfTI is read by nibabel: pip install 'speciate[medical]'.") from error

    kinds: Any = ((Nifti1Header, Nifti1PairHeader), (Nifti2Header, Nifti2PairHeader))
    number, paired = version
    found: Nifti1Header = _call(lambda: kinds[number - 1][paired](head[: _FIRST[number - 1]], check=False))
    return found


def _checked(parts: _Parts, nifti: Nifti1Header) -> _File:
    dims = [int(side) for side in nifti["dim"]]
    if not 1 <= dims[0] <= 7:
        raise DecodeError("error", f"The header declares {dims[0]} dimensions.")
    sides = dims[1 : dims[0] + 1] + [1] * (3 - min(dims[0], 3))
    if min(sides) < 1:
        raise DecodeError("error", f"The header declares sides of {' x '.join(map(str, sides))} voxels.")
    if (volumes := math.prod(sides[3:])) > 1:
        raise DecodeError(
            "refused",
            f"It holds {volumes} volumes, in time or channels, and one is an example: save each as a file of its own "
            "(nibabel.four_to_three).",
        )
    shape = sides[0], sides[1], sides[2]
    if math.prod(shape) > MOST_VOXELS:
        raise DecodeError("refused", f"{' x '.join(map(str, shape))} voxels, more than {MOST_VOXELS:,}.")
    dtype = _call(nifti.get_data_dtype)
    if dtype.kind not in "iuf":
        raise DecodeError("refused", f"Voxels of type {dtype.name!r:.40}: one number each is read.")
    start = float(nifti["vox_offset"])
    least = 0 if parts.paired else int(nifti.sizeof_hdr)
    if not (math.isfinite(start) and least <= start <= _LONGEST_START):
        raise DecodeError("error", f"The voxels begin at byte {start:g}, which cannot be.")
    return _File(parts, nifti, shape, _affine(nifti), int(start))


def _affine(nifti: Nifti1Header) -> npt.NDArray[np.float64]:
    import nibabel as nib

    affine = _call(nifti.get_best_affine)
    affine = np.array(affine, np.float64)
    affine[:3] *= _MILLIMETRES[int(nifti["xyzt_units"]) % 8]
    sizes = nib.affines.voxel_sizes(affine)
    low, high = _FARTHEST_SPACING
    if not np.isfinite(affine).all() or not ((sizes >= low) & (sizes <= high)).all():
        shown = " x ".join(f"{side:g}" for side in sizes)
        raise DecodeError("error", f"A spacing of {shown} mm, which is none: it must be finite and positive.")
    if np.isnan(nib.io_orientation(affine)).any():
        raise DecodeError("error", "The header's transform puts two axes onto one.")
    return affine


def _order(affine: npt.NDArray[np.float64]) -> _Order:
    import nibabel as nib

    own = nib.io_orientation(affine)
    x, y, z = (int(np.flatnonzero(own[:, 0] == axis)[0]) for axis in range(3))
    return _Order(nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt(tuple(_AXES))), (z, y, x))


def _scaled(values: npt.NDArray[Any], nifti: Nifti1Header) -> npt.NDArray[np.float32]:
    """(N,) with slope and intercept, finite."""
    slope, intercept = _call(nifti.get_slope_inter)
    with np.errstate(all="ignore"):
        voxels = values.astype(np.float32)
        if slope is not None and (slope, intercept) != (1.0, 0.0):
            voxels *= np.float32(slope)
            voxels += np.float32(intercept)
    finite = np.isfinite(voxels)
    if not finite.any():
        raise DecodeError("error", "No voxel is a finite number.")
    voxels[~finite] = 0
    return voxels


def _agree(nifti: Nifti1Header) -> bool:
    """Whether both transforms are the same; also if one is missing."""
    if nifti["qform_code"] <= 0 or nifti["sform_code"] <= 0:
        return True
    sform = nifti.get_sform()
    try:
        return bool(np.allclose(_call(nifti.get_qform), sform, atol=_TOLERANCE * float(np.abs(sform).max())))
    except DecodeError:
        return False


def _call(ask: Callable[[], Any]) -> Any:
    """The result of a function of nibabel, which raises for a senseless header, such as a quaternion longer than 1."""
    try:
        return ask()
    except Exception as error:
        raise DecodeError("error", f"The header is damaged: {error}.") from error


def _begun(data: bytes, length: int) -> bytes:
    """The first unpacked bytes; fewer if the stream ends early or is damaged."""
    try:
        return zlib.decompressobj(31).decompress(data[: 64 * 1024], length)
    except zlib.error:
        return b""


def _exactly(data: bytes, start: int, length: int) -> memoryview:
    """`length` bytes from `start` on, unpacked if they are packed; there must be exactly so many."""
    whole = _unpacked(data, start + length) if data.startswith(_GZIP) else data
    if len(whole) < start + length:
        raise DecodeError("partial", f"{max(len(whole) - start, 0):,} bytes of voxels where {length:,} are declared.")
    if len(whole) > start + length:
        raise DecodeError("error", f"More bytes than the {length:,} of voxels that the header declares.")
    return memoryview(whole)[start:]


def _unpacked(data: bytes, most: int) -> bytearray:
    """Never more than `most` bytes and one; a stream may be made of several, as of bgzip."""
    found = bytearray()
    while data:
        stream = zlib.decompressobj(31)
        try:
            found += stream.decompress(data, most + 1 - len(found))
        except zlib.error as error:
            raise DecodeError("error", f"The gzip stream is damaged: {error}.") from error
        if len(found) > most:
            raise DecodeError("refused", f"It unpacks to more than the {most:,} bytes that its header declares.")
        if not stream.eof:
            raise DecodeError("partial", f"The gzip stream ends early, after {len(found):,} bytes.")
        data = stream.unused_data.lstrip(b"\0")
    return found


NIFTI = Nifti()
