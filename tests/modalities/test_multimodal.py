"""Mixed rows: every part is summarized by its own modality, what is missing is seen, and any part can be near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speciate.datasets.similarity import near_duplicates
from speciate.modalities.bundles import bundle
from speciate.modalities.contract import DecodeError
from speciate.modalities.multimodal import MULTIMODAL, PartName, parse_part_names, part_name
from speciate.modalities.part_sketches import PartSketch, drop_part, pack_sketches, unpack_sketches
from tests.modalities.dicom_samples import encoded, series
from tests.modalities.mixed_samples import mixed
from tests.modalities.samples import chirp, encode, photo, sound

TEXT = b"A report that is long enough to be told from others: what was seen, where it was seen, how large it was, and \
what else the reader should know of it before the next visit."


def another(seed: int) -> bytes:
    return encode(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)))


def judged(parts: dict[str, bytes], *missing: str) -> DecodeError | dict[str, str | int | float]:
    try:
        return MULTIMODAL.summarize(mixed(parts, missing)).header.fields
    except DecodeError as error:
        return error


def test_fields_of_a_part_bear_its_name_and_what_is_missing_is_said() -> None:
    fields = judged({"scan.image": photo(), "text.text": TEXT}, "speech.audio")
    assert isinstance(fields, dict)
    assert (fields["parts"], fields["missing"]) == ("scan.image, text", "speech.audio")
    assert (fields["scan_width"], fields["scan_format"], fields["text_bytes"]) == (96, "PNG", len(TEXT))
    assert parse_part_names(str(fields["parts"])) == [PartName("scan", "image"), PartName("text", "text")]


@pytest.mark.parametrize(
    ("part", "data", "quality", "says"),
    [
        ("scan.image", photo()[:-40], "partial", "The part 'scan'"),
        ("speech.audio", b"RIFF" + bytes(40), "partial", "The part 'speech'"),
        ("report.text", b"\xff\xfe\xfa no text", "partial", "The part 'report'"),
        ("report.text", b"A" * (9 << 20), "refused", "The part 'report'"),
        ("scan.picture", photo(), "error", "names no part"),
        ("scan.multimodal", photo(), "error", "names no part"),
    ],
)
def test_one_damaged_part_spoils_the_row_and_is_named(part: str, data: bytes, quality: str, says: str) -> None:
    found = judged({"fine.image": photo("JPEG"), part: data})
    assert isinstance(found, DecodeError)
    assert found.quality == quality
    assert says in found.detail


def test_a_part_of_several_files_is_a_folder_and_one_lost_file_of_it_is_told() -> None:
    slices = {f"scan.dicom/{place}.dcm": encoded(each) for place, each in enumerate(series())}
    media = MULTIMODAL.decode(bundle({**slices, "report.text": TEXT}))
    assert sorted(media) == ["report.text", "scan.dicom"]
    del slices["scan.dicom/2.dcm"]
    found = judged({**slices, "report.text": TEXT})
    assert isinstance(found, DecodeError)
    assert "The part 'scan'" in found.detail


def test_a_row_needs_a_part_and_names_must_differ() -> None:
    for parts in ({}, {"a.image": photo(), "a.text": TEXT}, {"a.image": photo(), "a.image/1": photo()}):
        assert isinstance(judged(parts, "b.audio"), DecodeError)


def test_what_is_missing_makes_no_other_example() -> None:
    few, told = (MULTIMODAL.summarize(mixed({"a.image": photo()}, missing)) for missing in ((), ("b.audio",)))
    assert few.fingerprint == told.fingerprint
    assert few.sketch == told.sketch
    pixels = MULTIMODAL.features(MULTIMODAL.decode(mixed({"a.image": photo()}, ["b.audio"])))
    assert np.array_equal(pixels, MULTIMODAL.features(MULTIMODAL.decode(mixed({"a.image": photo()}))))


def test_rows_are_near_where_any_part_is() -> None:
    samples = (chirp() * 32_000).astype(np.int16)
    rows = [
        {"a.image": photo(), "b.text": TEXT},
        {
            "a.image": photo("JPEG"),
            "b.text": b"Quite another report, of a liver without any finding.",
        },  # the same image
        {"a.image": another(1), "b.text": TEXT + b" And a word."},  # nearly the same text as the first
        {
            "a.image": another(2),
            "b.text": b"Quite another report, of a liver without any finding.",
        },  # a short text, as the second has it
        {"c.audio": sound("WAV", samples), "a.image": another(3)},
        {"c.audio": sound("FLAC", samples)},  # the same sound
        {"d.image": photo()},  # the same image as another part
    ]
    sketches = [MULTIMODAL.sketch(MULTIMODAL.decode(mixed(row))) for row in rows]
    assert near_duplicates.near_duplicate_pairs(sketches, MULTIMODAL.sketching).tolist() == [[0, 1], [0, 2], [4, 5]]
    assert near_duplicates.near_duplicate_pairs(sketches, MULTIMODAL.sketching, part="a").tolist() == [[0, 1]]
    cut = [drop_part(sketch, "c.audio") for sketch in sketches]
    assert near_duplicates.near_duplicate_pairs(cut, MULTIMODAL.sketching).tolist() == [[0, 1], [0, 2]]


def test_a_window_cuts_the_one_part_that_has_an_axis() -> None:
    data = mixed({"speech.audio": sound("WAV"), "scan.image": photo()})
    whole, cut = MULTIMODAL.decode(data), MULTIMODAL.decode_window(data, 0.1, 0.3)
    assert np.array_equal(cut["speech.audio"], whole["speech.audio"][1600:4800])
    assert np.array_equal(cut["scan.image"], whole["scan.image"])
    still = MULTIMODAL.decode_window(mixed({"scan.image": photo()}, ["speech.audio"]), 0.0, 0.0)
    assert still["speech.audio"] is None


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12),
        st.tuples(st.binary(min_size=16, max_size=16), st.none() | st.binary(max_size=80)),
        max_size=6,
    )
)
def test_sketches_of_parts_come_apart_as_they_were_put_together(parts: dict[str, tuple[bytes, bytes | None]]) -> None:
    made = {name: PartSketch(*each) for name, each in parts.items()}
    sketch = pack_sketches(made)
    assert unpack_sketches(sketch) == made
    for end in range(len(sketch)):
        try:
            assert set(unpack_sketches(sketch[:end])) < set(made)
        except ValueError:
            continue


@given(st.text(max_size=50))
def test_names_of_parts_can_be_columns(text: str) -> None:
    part = part_name(f"{text}.image")
    assert part is None or (len(part.own) <= 40 and "/" not in part.own and "." not in part.own)
