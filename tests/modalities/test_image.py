"""What only images can do wrong."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speciate.modalities.contract import DecodeError
from speciate.modalities.image import IMAGE, MOST_PIXELS
from tests.drawn import drawn
from tests.modalities.samples import digit, encode, flat_png, flower, frames, photo

JPEGS = [photo("JPEG"), encode(flower(), "JPEG", progressive=True), frames("MPO")]


def oriented(orientation: int, format_: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(flower(), format_, exif=exif, quality=95)


def refusal(data: bytes) -> DecodeError | None:
    found = []
    for read in (IMAGE.decode, IMAGE.summarize):
        try:
            read(data)
        except DecodeError as error:
            found.append(error)
    assert len(found) in (0, 2), found
    return found[0] if found else None


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_our_budget_is_below_pillows(side: int) -> None:
    assert side**2 > MOST_PIXELS
    refused = refusal(flat_png(side))
    assert refused is not None
    assert refused.quality == "refused"


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_many_frames_the_first_is_the_image(format: str) -> None:  # noqa: A002 - Pillow's word
    data = frames(format)
    assert IMAGE.inspect(data).fields["frames"] == 3
    assert IMAGE.decode(data).shape == (64, 96, 3)
    assert np.abs(IMAGE.decode(data).astype(int) - np.asarray(flower())).mean() < 12


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_a_cut_in_a_later_frame_is_a_cut(format: str) -> None:  # noqa: A002 - Pillow's word
    """Though the first frame, which is all that is used, is whole."""
    data = frames(format)
    cut = refusal(data[: int(len(data) * 0.97)])
    assert cut is not None
    assert cut.quality == "partial"


def test_an_animation_with_fewer_frames_than_declared_is_partial() -> None:
    data = frames("PNG")
    second = data.index(b"fcTL", data.index(b"fcTL") + 4) - 4
    cut = refusal(data[:second] + data[data.index(b"IEND") - 4 :])
    assert cut is not None
    assert cut.detail == "1 frames of 3."


@pytest.mark.parametrize("rows_per_strip", [64, 1000])
def test_rows_that_a_tiff_declares_and_does_not_hold_are_missed(rows_per_strip: int) -> None:
    """Pillow alone leaves them black."""
    data = bytearray(photo("TIFF"))
    for tag, value in ((257, 1000), (278, rows_per_strip)):
        entry = data.index(struct.pack("<H", tag) + b"\4\0\1\0\0\0")
        data[entry + 8 : entry + 12] = struct.pack("<I", value)
    with Image.open(io.BytesIO(bytes(data))) as image:
        assert image.size == (96, 1000)
    cut = refusal(bytes(data))
    assert cut is not None
    assert cut.quality == "partial"


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_tiff_is_whole(compression: str, mode: str) -> None:
    if compression == "jpeg" and mode in ("1", "P", "I;16", "F"):
        return  # there is no such file
    image = flower(97, 65).convert("L").convert("I;16") if mode == "I;16" else flower(97, 65).convert(mode)
    assert refusal(encode(image, "TIFF", compression=compression)) is None


def test_gray_images_get_three_channels() -> None:
    media = IMAGE.decode(digit())
    assert media.shape == (8, 8, 3)
    assert (media[..., 0] == media[..., 2]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_shown_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0)).convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    assert (IMAGE.decode(encode(clear, **options)) == 255).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGB"])
def test_colours_are_the_same_however_they_are_coded(mode: str) -> None:
    media = IMAGE.decode(encode(flower().convert(mode), "JPEG", quality=95))
    assert np.abs(media.astype(int) - np.asarray(flower())).mean() < 4


def test_a_palette_is_looked_up() -> None:
    palette = flower().quantize(64)
    assert (IMAGE.decode(encode(palette)) == np.asarray(palette.convert("RGB"))).all()


def test_one_bit_is_black_and_white() -> None:
    assert set(IMAGE.decode(encode(flower().convert("1"))).ravel()) == {0, 255}


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(format: str) -> None:  # noqa: A002 - Pillow's word
    ramp = Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8))
    media = IMAGE.decode(encode(ramp, format))
    assert media.min() == 0
    assert media.max() == 255
    assert (IMAGE.decode(encode(Image.fromarray(np.full((8, 8), 32768, np.uint16)), format)) == 127).all()


def test_floats_are_stretched_to_their_range_and_gaps_are_dark() -> None:
    values = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -3
    media = IMAGE.decode(encode(Image.fromarray(values), "TIFF"))[..., 0]
    assert media[0, :3].tolist() == [0, 0, 0]
    assert media[7, 7] == 255


def test_floats_without_a_number_are_no_image() -> None:
    refused = refusal(encode(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"))
    assert refused is not None
    assert refused.quality == "error"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(orientation: int) -> None:
    """Also for the sketch: a JPEG's comes from another decode."""
    data = oriented(orientation)
    media = IMAGE.decode(data)
    assert media.shape == ((96, 64, 3) if orientation >= 5 else (64, 96, 3))
    judged, seen = IMAGE.summarize(data).sketch, IMAGE.sketch(media)
    assert judged is not None
    assert seen is not None
    assert IMAGE.sketching.near(*(np.frombuffer(each, np.uint8)[np.newaxis] for each in (judged, seen))).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format_", ["JPEG", "MPO", "PNG", "WEBP", "TIFF"])
def test_the_size_is_that_of_the_upright_image(format_: str, orientation: int) -> None:
    data = oriented(orientation, format_)
    height, width, _ = IMAGE.decode(data).shape
    for fields in (IMAGE.inspect(data).fields, IMAGE.summarize(data).header.fields):
        assert (fields["width"], fields["height"]) == (width, height)


def test_a_png_that_says_last_how_it_lies_is_judged_upright() -> None:
    plain, exif = encode(flower()), Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    fields = IMAGE.summarize(plain[:-12] + late + plain[-12:]).header.fields
    assert (fields["width"], fields["height"]) == (64, 96)


def test_the_container_does_not_matter() -> None:
    image = Image.open(io.BytesIO(photo()))
    assert IMAGE.summarize(photo()).fingerprint == IMAGE.summarize(encode(image, "BMP")).fingerprint


def test_what_is_written_beside_a_jpegs_image_does_not_matter() -> None:
    plain, marked = (encode(flower(), "JPEG", comment=text) for text in ("", "holidays"))
    assert plain != marked
    assert IMAGE.summarize(plain).fingerprint == IMAGE.summarize(marked).fingerprint
    fingerprints = {IMAGE.summarize(oriented(each)).fingerprint for each in range(1, 9)}
    assert len(fingerprints) == 8


def test_bytes_behind_a_jpeg_are_no_damage() -> None:
    assert refusal(photo("JPEG") + bytes(100)) is None
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xd9 as chance has it \xff\xda"  # of a phone's moving photograph
    assert refusal(photo("JPEG") + film) is None
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9".encode("latin-1")
    cut = encode(flower(), "JPEG", exif=exif)[:-100]
    assert b"\xff\xd9" in cut
    assert (found := refusal(cut)) is not None
    assert found.quality == "partial"


@settings(max_examples=drawn(150), deadline=None)
@given(st.data())
def test_a_scaled_decode_fails_where_a_whole_one_fails(data: st.DataObject) -> None:
    """What ingest took for usable must decode when a model is trained."""
    whole = data.draw(st.sampled_from(JPEGS))
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(2, len(whole) - 1), max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    refusal(bytes(damaged))
    refusal(bytes(damaged[:cut]))


@settings(max_examples=drawn(60), deadline=None)
@given(st.integers(60, 3_000), st.integers(1, 40))
def test_a_png_that_lost_bytes_inside_is_never_taken_whole(place: int, missing: int) -> None:
    """Its chunks carry sums. JPEG has none, so what is missing in its middle cannot always be told."""
    data = photo()
    assert refusal(data[:place] + data[place + missing :]) is not None


def test_images_of_any_size_have_vectors_of_one_length() -> None:
    assert IMAGE.describe(IMAGE.decode(digit())).shape == IMAGE.describe(IMAGE.decode(photo())).shape


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2), (33, 31)])
def test_images_of_any_shape_are_judged(size: tuple[int, int]) -> None:
    for format_ in ("PNG", "JPEG"):
        judged = IMAGE.summarize(encode(flower(*size), format_))
        assert 0 <= judged.measures["brightness"] <= 1
        IMAGE.thumbnail(IMAGE.decode(encode(flower(*size), format_)))
