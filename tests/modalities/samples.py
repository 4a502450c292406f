"""Small real files of each modality, one of each format; and what claims to be far too large."""

from __future__ import annotations

import functools
import io
import json
import math
import struct
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from tests.modalities import (
    dicom_samples,
    episode_samples,
    mesh_samples,
    mixed_samples,
    molecule_samples,
    nifti_samples,
    protein_samples,
    video_samples,
)


class Sample(NamedTuple):
    modality: str
    file: str
    data: bytes
    declares: bool = True
    """Whether the format says how long it is or where it ends, so that what is cut off anywhere is known to be."""

    @property
    def label(self) -> str:
        return f"{self.modality} {self.file}"


@functools.cache
def _flower() -> Image.Image:
    return Image.fromarray(load_sample_image("flower.jpg"))


def flower(width: int = 96, height: int = 64) -> Image.Image:
    """A photograph that comes with scikit-learn, made small."""
    return _flower().resize((width, height))


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:  # noqa: A002 - Pillow's word
    buffer = io.BytesIO()
    image.save(buffer, format, **options)  # type: ignore[arg-type]  # each format has its own options
    return buffer.getvalue()


def photo(format: str = "PNG") -> bytes:  # noqa: A002 - Pillow's word
    return encode(flower(), format)


def digit() -> bytes:
    return encode(Image.fromarray((load_digits().images[0] * 15).astype(np.uint8)))


def frames(format: str) -> bytes:  # noqa: A002 - Pillow's word
    """Three frames of one animation, or three pages."""
    images = [flower().rotate(angle) for angle in (0, 90, 180)]
    data = encode(images[0], format, save_all=True, append_images=images[1:])
    return data[:-4] if format == "TIFF" else data  # Pillow leaves four bytes behind the last page


def chirp(seconds: float = 0.6, sample_rate: int = 16_000) -> npt.NDArray[np.float32]:
    """(T,): a tone that rises and swells, with a little noise."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(0).normal(0, 0.01, len(time))
    return (np.sin(2 * np.pi * (300 * time + 800 * time**2)) * time / seconds * 0.6 + noise).astype(np.float32)


def sound(format: str, samples: npt.NDArray[np.float32 | np.int16] | None = None, **options: object) -> bytes:  # noqa: A002
    """`samples`: (T,) or (T, C); without them the chirp."""
    buffer = io.BytesIO()
    options.setdefault("samplerate", 16_000)
    soundfile.write(buffer, chirp() if samples is None else samples, format=format, **options)
    return buffer.getvalue()


def outline(corners: int, seed: int = 0) -> bytes:
    """A polygon with so many corners, a little off a circle, as well-known text."""
    turn = np.arange(corners) * 2 * np.pi / corners
    away = 1 + np.random.default_rng(seed).normal(0, 0.02, corners) + 0.4 * (np.arange(corners) % 2)
    ring = [f"{r * np.cos(t):.4f} {r * np.sin(t):.4f}" for r, t in zip(away, turn, strict=True)]
    return f"POLYGON (({', '.join([*ring, ring[0]])}))\n".encode()


def flat_png(side: int) -> bytes:
    """A PNG of one gray, `side` x `side`: some kilobytes that decode to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = math.gcd(side, 100)  # packed once, and repeated
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(bytes((side + 1) * rows)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">I", (side * (side + 1)) % 65_521 << 16 | 1)  # Adler-32 of so many zeros
    data = b"\x78\xda" + packed * (side // rows) + b"\x03\x00" + checksum
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _endless_flac() -> bytes:
    """Its header claims 2**36 - 1 samples."""
    data = bytearray(sound("FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    return bytes(data)


_WAVES = b"x,y\n" + b"".join(b"%.3f,%.3f\n" % (np.sin(i / 3), np.cos(i / 3)) for i in range(40))

_LETTER = """Grüße aus Zürich! Yesterday we saw the film that everybody speaks of. ☃
It was a joy from start to end, though a little long; take the late show, which is never full.
""".encode()

SAMPLES = [
    # A text, a sequence or a table that ends early is a shorter one.
    Sample(
        "text",
        "text.txt",
        "Grüße aus Zürich: the film was a joy, from start to end, and the music that they chose for it stays with "
        "whoever hears it for days. ☃\n".encode(),
        declares=False,
    ),
    Sample(
        "protein",
        "insulin.fasta",
        b">sp|P01308|INS_HUMAN Insulin\n"
        b"MALWMRLLPLLALLALWGPDPAAAFVNQHLCGSHLVEALYLVCGERGFFYTPKTRREAEDLQ\nVGQVELGGGPGAG\n",
        declares=False,
    ),
    Sample("time-series", "recording.csv", _WAVES, declares=False),
    Sample("time-series", "recording.tsv", _WAVES.replace(b",", b"\t"), declares=False),
    Sample(
        "tabular",
        "row.json",
        json.dumps({"age": 61, "sex": "f", "pressure": 128.5, "smoker": False, "note": None}).encode(),
    ),
    *(
        Sample("image", f"picture.{format_.lower()}", photo(format_))
        for format_ in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF")
    ),
    Sample("image", "progressive.jpg", encode(flower(), "JPEG", progressive=True)),
    Sample("image", "packed.tiff", encode(flower(), "TIFF", compression="tiff_lzw")),
    *(
        Sample("image", f"frames.{format_.lower()}", frames(format_))
        for format_ in ("GIF", "WEBP", "TIFF", "PNG", "MPO")
    ),
    *(Sample("audio", f"chirp.{format_.lower()}", sound(format_)) for format_ in ("WAV", "FLAC", "OGG", "MP3")),
    Sample("audio", "chirp.opus", sound("OGG", subtype="OPUS")),
    Sample("audio", "float.wav", sound("WAV", subtype="FLOAT")),
    Sample("audio", "chirp.m4a", video_samples.sound_file(chirp())),
    Sample("audio", "stereo.mp3", sound("MP3", np.stack([chirp(), chirp()], axis=1), samplerate=44_100)),
    *(Sample("video", name, data) for name, data in video_samples.VIDEOS.items()),
    Sample("outline", "star.wkt", outline(24), declares=False),  # the line end behind it means nothing
]

BOMBS: dict[str, bytes] = {
    "text": b"A" * (8 * 1024 * 1024 + 1),
    "protein": b">long\n" + b"A" * 100_001,
    "time-series": b"0," * 10_000 + b"0" + b"\n" * 10_000,
    "tabular": b'{"a": "' + b"A" * 1024 * 1024 + b'"}',
    "image": flat_png(20_000),
    "audio": _endless_flac(),
    "video": video_samples.ENDLESS,
    "outline": b"POLYGON ((" + b"0 1, " * 100_001 + b"0 1))",
}
"""Modality -> a file beyond its budget."""

SAMPLES += [Sample("dicom", name, data) for name, data in dicom_samples.FILES.items()]
BOMBS["dicom"] = dicom_samples.bomb()

SAMPLES += [Sample("episode", name, data) for name, data in episode_samples.FILES.items()]
BOMBS["episode"] = episode_samples.bomb()

SAMPLES += [Sample("nifti", name, data) for name, data in nifti_samples.files().items()]
BOMBS["nifti"] = nifti_samples.bomb()

SAMPLES += [Sample("mesh", name, data, declares) for name, (data, declares) in mesh_samples.MESHES.items()]
SAMPLES += [Sample("mesh", name, data) for name, data in mesh_samples.BUNDLES.items()]
BOMBS["mesh"] = mesh_samples.endless("mesh")

SAMPLES += [Sample("point-cloud", name, data, declares) for name, (data, declares) in mesh_samples.CLOUDS.items()]
BOMBS["point-cloud"] = mesh_samples.endless("ascii")

SAMPLES += [Sample("protein", name, data) for name, data in protein_samples.files().items()]

SAMPLES += [Sample("molecule", name, data) for name, data in molecule_samples.FILES.items()]
SAMPLES += [Sample("molecule", name, data, declares=False) for name, data in molecule_samples.ENDLESS.items()]
BOMBS["molecule"] = molecule_samples.bomb()

_FIRST = {sample.modality: sample.data for sample in reversed(SAMPLES)}
SAMPLES += [Sample("multimodal", name, data) for name, data in mixed_samples.rows(_FIRST).items()]
BOMBS["multimodal"] = mixed_samples.bomb(BOMBS["image"])
