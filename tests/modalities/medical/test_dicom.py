"""What DICOM files become: where slices lie, on which scale their values are, and what is wrong with a series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence

from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.dicom import DICOM, of_series
from speciate.modalities.medical.dicom_elements import DEFLATED, looks_like_dicom, walk_elements
from speciate.modalities.medical.dicom_geometry import Slice, stack_slices
from tests.drawn import drawn
from tests.modalities import dicom_samples as samples

Series = list[FileDataset]


def decoded(made: Series) -> Any:
    return DICOM.decode(samples.shuffled(made))


def refusal(made: Series) -> str:
    with pytest.raises(DecodeError) as caught:
        decoded(made)
    assert caught.value.quality == "partial"
    return caught.value.detail


def test_slices_are_sorted_by_where_they_lie_and_values_are_hounsfield_units() -> None:
    voxels = samples.phantom()
    made = samples.series(voxels)
    for number, each in enumerate(made):
        each.InstanceNumber = len(made) - number  # numbers count the other way
    volume = decoded(made)
    assert (volume["voxels"] == voxels.clip(-1024)).all()
    assert volume["spacing"].tolist() == pytest.approx([2.5, 0.7, 0.8])
    assert volume["window"] == [40, 400]


def test_an_enhanced_instance_is_the_same_volume_as_its_series() -> None:
    series, enhanced = decoded(samples.series(gap=3.0)), DICOM.decode(samples.encoded(samples.enhanced()))
    assert (series["voxels"] == enhanced["voxels"]).all()
    assert DICOM.fingerprint(series) == DICOM.fingerprint(enhanced)


ORIENTATIONS = {
    "head first, seen from above": ((1, 0, 0, 0, -1, 0), lambda v: v[::-1, ::-1]),
    "coronal": ((1, 0, 0, 0, 0, -1), lambda v: v.transpose(1, 0, 2)[::-1]),
    "sagittal": ((0, 1, 0, 0, 0, -1), lambda v: v.transpose(1, 2, 0)[::-1, :, ::-1]),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_axes_lie_as_in_the_patient_however_the_slices_lay(name: str) -> None:
    """The first from the feet to the head, the second from front to back, the third from right to left."""
    orientation, turned = ORIENTATIONS[name]
    columns, rows = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(columns, rows)
    voxels = samples.phantom(5, 24)
    made = samples.series(voxels, ImageOrientationPatient=list(orientation))
    for place, each in enumerate(made):
        each.ImagePositionPatient = [float(value) for value in normal * 2.5 * place]
    assert (decoded(made)["voxels"] == turned(voxels.clip(-1024))).all()


def _without(*numbers: int) -> Series:
    return [each for each in samples.series(samples.phantom(9, 16)) if each.InstanceNumber not in numbers]


def _changed(change: Callable[[FileDataset], None], number: int = 4) -> Series:
    made = samples.series(samples.phantom(9, 16))
    change(made[number - 1])
    return made


def _again(voxels: Any) -> Series:
    made = samples.series(samples.phantom(9, 16))
    twin = samples.series(voxels, SOPInstanceUID=samples.uid(9, 9, 9))[3]
    twin.InstanceNumber = 44
    return [*made, twin]


def _placed(height: float) -> Callable[[FileDataset], None]:
    return lambda each: setattr(each, "ImagePositionPatient", [-11.2, -11.2, height])


def _smaller(each: FileDataset) -> None:
    each.Rows = 8
    each.PixelData = each.PixelData[: 8 * 16 * 2]


FAULTS = {
    "missing": (
        lambda: _without(4),
        "One slice is missing: between 5 and 10 mm (instance 3 and instance 5), at gaps of 2.5 mm.",
    ),
    "missing twice": (
        lambda: _without(3, 6, 7),
        "3 slices are missing: between 2.5 and 7.5 mm (instance 2 and instance 4), between 10 and 17.5 mm (instance 5 "
        "and instance 8), at gaps of 2.5 mm.",
    ),
    "twice, the same": (
        lambda: _again(samples.phantom(9, 16)),
        "One slice is there twice: at 7.5 mm (instance 4 and instance 44, with identical pixels).",
    ),
    "twice, another": (
        lambda: _again(samples.phantom(9, 16, seed=1)),
        "One slice is there twice: at 7.5 mm (instance 4 and instance 44, with different pixels).",
    ),
    "turned": (
        lambda: _changed(lambda each: setattr(each, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1])),
        "Slices of mixed orientation: 1\\0\\0\\0\\1\\0 in 8 of 9; 1\\0\\0\\0\\0\\-1 in instance 4.",
    ),
    "uneven": (
        lambda: _changed(_placed(8.3)),
        "Slices at uneven gaps: 2.5 mm, but 3.3 mm between 5 and 8.3 mm (instance 3 and instance 4), 1.7 mm between "
        "8.3 and 10 mm (instance 4 and instance 5).",
    ),
    "smaller": (lambda: _changed(_smaller), "Slices of mixed size: 16 x 16 in 8 of 9; 8 x 16 in instance 4."),
    "spaced": (
        lambda: _changed(lambda each: setattr(each, "PixelSpacing", [0.9, 0.8])),
        "Slices of mixed pixel spacing: 0.7 x 0.8 mm in 8 of 9; 0.9 x 0.8 mm in instance 4.",
    ),
    "lost": (
        lambda: _changed(lambda each: delattr(each, "ImagePositionPatient")),
        "1 of 9 slices have no position: instance 4.",
    ),
    "two volumes": (
        lambda: [*samples.series(), *samples.series(samples.phantom(seed=2))],
        "12 slices lie in 6 positions: several volumes in one series, with nothing in their headers that tells which "
        "slice is of which.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_series_is_named(fault: str) -> None:
    make, reason = FAULTS[fault]
    assert refusal(make()) == reason


def test_one_broken_instance_is_named_and_its_series_is_not_used() -> None:
    files = [samples.encoded(each) for each in samples.series()]
    files[2] = files[2][:-100]
    with pytest.raises(DecodeError, match=r"1 of 6 instances cannot be used. 00003.dcm \(instance 3\): The file ends"):
        DICOM.decode(of_series(files))
    assert DICOM.inspect(of_series(files)).fields["instances"] == 6
    files[4] = files[4][:-100]
    with pytest.raises(DecodeError, match=r"2 of 6 instances cannot be used\. .* And 1 more: 00005\.dcm\.$"):
        DICOM.decode(of_series(files))


def test_files_of_several_series_are_no_volume() -> None:
    with pytest.raises(DecodeError, match="Files of 2 series"):
        decoded([*samples.series(number=1), *samples.series(number=2)])


def test_a_file_without_pixels_says_what_it_is() -> None:
    for name, what in (("test-SR", "a report"), ("rtstruct", "outlines"), ("waveform_ecg", "a waveform")):
        with pytest.raises(DecodeError, match=f"no image: {what}") as caught:
            DICOM.decode(samples.real(f"{name}.dcm"))
        assert caught.value.quality == "error"


def test_headers_tell_a_bomb_before_a_pixel_is_decoded() -> None:
    for data in (samples.bomb(), samples.encoded(_frames(2_000_000))):
        with pytest.raises(DecodeError, match="more than") as caught:
            DICOM.decode(data)
        assert caught.value.quality == "refused"


def _frames(count: int) -> FileDataset:
    made = samples.film()
    made.NumberOfFrames = count
    return made


def test_fewer_frames_than_declared_are_partial() -> None:
    with pytest.raises(DecodeError):
        DICOM.decode(samples.encoded(_frames(6)))


def test_more_is_brighter_also_where_white_was_least() -> None:
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4) * 100
    plain = samples.dataset(pixels, Modality="DX", WindowCenter=500, WindowWidth=400)
    inverted = samples.dataset(
        pixels, Modality="DX", WindowCenter=500, WindowWidth=400, PhotometricInterpretation="MONOCHROME1"
    )
    one, other = DICOM.decode(samples.encoded(plain)), DICOM.decode(samples.encoded(inverted))
    assert (one["voxels"] + other["voxels"] == 65_535).all()
    assert other["window"] == [65_035, 400]


def test_colours_become_their_luminance() -> None:
    shown = DICOM.decode(samples.encoded(samples.film()))["voxels"]
    assert shown.shape == (5, 24, 24)
    assert float(shown.max()) == pytest.approx(0.299 * 200 + 0.587 * 120 + 0.114 * 40, abs=0.01)


def test_the_same_image_is_the_same_in_every_lossless_syntax() -> None:
    names = ("", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless", "_padded")
    volumes = [DICOM.decode(samples.real(f"MR_small{name}.dcm")) for name in names]
    assert len({DICOM.fingerprint(volume) for volume in volumes}) == 1


def test_a_deflated_file_is_read_and_a_deflated_bomb_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples.real("image_dfl.dcm")
    assert walk_elements(data).syntax == DEFLATED
    assert DICOM.decode(data)["voxels"].shape == (1, 512, 512)
    monkeypatch.setattr("speciate.modalities.medical.dicom_elements.MOST_INFLATED", 1000)
    with pytest.raises(DecodeError, match="more than 1,000 bytes") as caught:
        DICOM.decode(data)
    assert caught.value.quality == "refused"


def test_patients_are_known_by_id_and_issuer_and_texts_are_bounded_and_clean() -> None:
    odd = {"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": "T1\u200b\u202e" + "a" * 40}
    made = samples.series(IssuerOfPatientID="North", **odd)[0]
    fields = DICOM.inspect(samples.encoded(made)).fields
    assert fields["patient"] == "P1 (North)"
    assert fields["series_description"] == "T1" + "a" * 40
    assert "Doe" not in str(fields)


def test_a_tilted_gantry_is_no_fault() -> None:
    made = samples.series()
    for place, each in enumerate(made):
        each.ImagePositionPatient = [0, 0.6 * place, 2.5 * place]
    assert decoded(made)["voxels"].shape == (6, 32, 32)
    assert DICOM.inspect(samples.shuffled(made)).fields["tilt_degrees"] == pytest.approx(13.5, abs=0.01)


def test_lengths_are_columns_in_millimetres() -> None:
    fields = DICOM.inspect(samples.shuffled(samples.series())).fields
    assert [fields[name] for name in ("slice_spacing", "row_spacing", "column_spacing")] == [2.5, 0.7, 0.8]
    assert "slice_spacing" not in DICOM.inspect(samples.encoded(samples.film())).fields
    assert "tilt_degrees" not in fields
    assert "slice_spacing" not in DICOM.inspect(samples.real("CT_small.dcm")).fields


def test_files_without_a_preamble_are_known_by_their_first_element() -> None:
    whole = samples.real("CT_small.dcm")
    assert looks_like_dicom(whole[132:])  # file meta information
    made = walk_elements(samples.real("no_meta_group_length.dcm"))
    assert made.syntax is not None
    assert looks_like_dicom(samples.real("ExplVR_LitEndNoMeta.dcm"))
    for text in (b"\x08\x00 this is no file of DICOM", b"\x08\x00\x05\x00" + b"\xff" * 20, b"II*\0" + bytes(400)):
        assert not looks_like_dicom(text)


@settings(max_examples=drawn(40), deadline=None)
@given(st.data())
def test_a_volume_is_the_same_in_every_order_and_a_missing_slice_is_always_named(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 40))
    gap = data.draw(st.floats(0.3, 12))
    angle = data.draw(st.floats(-0.7, 0.7))
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    normal = np.cross(orientation[:3], orientation[3:])
    made = [
        Slice(f"instance {i}", (4, 4), tuple(np.round(normal * gap * i, 4)), orientation, (1.0, 1.0), gap, str(i))
        for i in range(count)
    ]
    order = data.draw(st.permutations(range(count)))
    found = stack_slices([made[place] for place in order])
    assert [order[place] for place in found.order] == list(range(count))
    assert found.spacing[0] == pytest.approx(gap, rel=1e-3)
    lost = data.draw(st.integers(1, count - 2))
    if count > 3:
        with pytest.raises(DecodeError, match=f"One slice is missing.*instance {lost - 1} and instance {lost + 1}"):
            stack_slices([made[place] for place in order if place != lost])


def test_sequences_of_an_unknown_length_are_walked_to_their_end() -> None:
    made = samples.enhanced()
    made["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    assert isinstance(made.PerFrameFunctionalGroupsSequence, Sequence)
    data = samples.encoded(made)
    assert walk_elements(data).pixels
    for share in (0.3, 0.5, 0.7):
        with pytest.raises(DecodeError):
            walk_elements(data[: int(len(data) * share)])
