"""No file makes a modality slow out of proportion, however long its blanks, its lines or its repeats are.

What looks twice at the same bytes needs a minute for 64 KiB of them and hours for more; what looks once,
milliseconds. The bound lies far from both, and counts the processor's time, so that a busy machine does no harm.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from speciate.modalities import MODALITIES, find
from speciate.modalities.contract import DecodeError

UNITS = (
    b" ", b"\n", b"\t", b"#", b"7", b"a", b"\0", b"\xff", b'"', b"'", b",", b"-", b">", b"<", b"[a=", b"{", b"(", b"C1",
    b"#\n", b" #\n", b"1 ", b"\r\n", b"v 1 1 1\n", b"f 1 2 3\n", b"ATOM\n", b"data_\n", b"loop_\n", b";\n", b"M  V30 ",
    b"facet ", b"element vertex 0\n",
)  # fmt: skip
BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    "audio": (b"RIFF\xff\xff\xff\x7fWAVEfmt ", b"fLaC", b"OggS", b"ID3\x03\0\0\0"),
    "dicom": (bytes(128) + b"DICM",),
    "episode": (b"\x89MCAP0\r\n",),
    "image": (b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0"),
    "mesh": (b"ply\nformat ascii 1.0\n", b"OFF\n", b"solid x\n", b"glTF", b'{"asset":', b"mtllib a.mtl\nv 1 1 1\n"),
    "molecule": (b"\n\n\n", b"x\n\n\n  1  0  V2000\n", b"C "),
    "nifti": (b"\\\x01\0\0" + bytes(340) + b"n+1\0", b"\x1f\x8b\x08\0"),
    "point-cloud": (b"ply\nformat ascii 1.0\n", b"FIELDS x y z\n", b"LASF", b"\x93NUMPY\x01\0\x76\0", b"PK\x03\x04"),
    "protein": (b"data_x\n", b"data_x\nloop_\n_atom_site.id\n", b"HEADER    x\n", b">x "),
    "video": (b"\0\0\0\x20ftypisom", b"\x1aE\xdf\xa3"),
}


def slowest(name: str, size: int) -> tuple[float, str]:
    """Seconds of processor time, and of which call and bytes."""
    modality, found = find(name), (0.0, "")
    for begin in (b"", *BEGINNINGS.get(name, ())):
        for unit in UNITS:
            data = (begin + unit * (size // len(unit)))[:size]
            for call in (_sniffed(modality), modality.inspect, modality.decode):
                found = max(found, (_seconds(call, data), f"{begin[:20]!r} and then {unit!r}"))
    return found


def _sniffed(modality: Any) -> Callable[[bytes], Any]:
    return lambda data: modality.sniff(data[:4096], "file")


def _seconds(call: Callable[[bytes], Any], data: bytes) -> float:
    began = time.process_time()
    with contextlib.suppress(DecodeError):
        call(data)
    return time.process_time() - began


@pytest.mark.parametrize("name", sorted(MODALITIES))
def test_long_runs_take_no_longer_than_their_length_deserves(name: str) -> None:
    slowest(name, 4096)  # what it needs is loaded now
    seconds, what = slowest(name, 1 << 16)
    assert seconds < 1, what


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODALITIES))
def test_nor_do_those_of_four_mebibytes(name: str) -> None:
    slowest(name, 4096)
    seconds, what = slowest(name, 4 << 20)
    print(f"{name}: {seconds:.2f} s, {what}")
    assert seconds < 40, what
