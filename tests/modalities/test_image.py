"""What only images can do wrong."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from speciate.modalities.contract import DecodeError
from speciate.modalities.image import IMAGE
from tests.modalities.samples import digit, photo


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:  # noqa: A002 - Pillow's word
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of one gray, `side` x `side`: some kilobytes that decode to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    data = bomb(side)
    tracemalloc.start()
    with pytest.raises(DecodeError) as refused:
        IMAGE.decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.quality == "refused"
    assert peak < 4_000_000


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_a_truncated_picture_is_quarantined(format: str, share: float) -> None:  # noqa: A002 - Pillow's word
    data = photo(format)
    with pytest.raises(DecodeError) as refused:
        IMAGE.decode(data[: int(len(data) * share)])
    assert refused.value.quality in ("partial", "error")


def test_many_frames_are_no_picture() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    with pytest.raises(DecodeError, match="3 frames"):
        IMAGE.decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))


def test_gray_pictures_get_three_channels() -> None:
    media = IMAGE.decode(digit())
    assert media.shape == (8, 8, 3)
    assert (media[..., 0] == media[..., 2]).all()


def test_transparency_is_shown_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert (IMAGE.decode(encode(clear)) == 255).all()


def test_sixteen_bits_keep_their_range() -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8))
    media = IMAGE.decode(encode(ramp))
    assert media.min() == 0
    assert media.max() == 255


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert IMAGE.decode(encode(Image.new("RGB", (30, 10)), "JPEG", exif=exif)).shape == (30, 10, 3)


def test_the_container_does_not_matter() -> None:
    image = Image.open(io.BytesIO(photo()))
    assert IMAGE.fingerprint(IMAGE.decode(photo())) == IMAGE.fingerprint(IMAGE.decode(encode(image, "BMP")))


def test_pictures_of_any_size_have_vectors_of_one_length() -> None:
    assert IMAGE.describe(IMAGE.decode(digit())).shape == IMAGE.describe(IMAGE.decode(photo())).shape
