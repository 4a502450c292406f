"""What only NIfTI can do wrong: what a header says, what a stream holds, and which way the axes go."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.modalities.bundles import bundle
from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.nifti import NIFTI
from tests.drawn import drawn
from tests.modalities.nifti_samples import bomb, bundled, organ, packed, pair, written

PLAIN = written(organ(1).voxels).to_bytes()


def refusal(data: bytes) -> DecodeError:
    found = []
    for read in (NIFTI.decode, NIFTI.summarize):
        with pytest.raises(DecodeError) as caught:
            read(data)
        found.append(caught.value)
    assert found[0].args == found[1].args
    return found[0]


def changed(place: int, form: str, *values: float, data: bytes = PLAIN) -> bytes:
    return data[:place] + struct.pack(form, *values) + data[place + struct.calcsize(form) :]


def test_voxels_are_what_nibabel_says_they_are() -> None:
    image = written(organ(1).voxels)
    image.header.set_slope_inter(0.25, -3)
    data = packed(image)
    wanted = nib.Nifti1Image.from_bytes(gzip.decompress(data)).get_fdata()  # x to the left of RAS: to the right
    found = NIFTI.decode(data)
    assert found["voxels"].dtype == np.float32
    assert np.allclose(found["voxels"], wanted[::-1, ::-1].transpose(2, 1, 0))
    assert found["spacing"].tolist() == [1.5, 1.0, 2.0]


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_the_same_scan_is_the_same_volume_whichever_way_it_was_stored(
    axes: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    voxels, affine = organ(3).voxels, np.diag([2.0, 1.0, 1.5, 1.0])
    turn = np.array(list(zip(axes, flips, strict=True)))
    stored = nib.apply_orientation(voxels, turn)
    turned = affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
    own, other = NIFTI.decode(written(voxels, affine).to_bytes()), NIFTI.decode(written(stored, turned).to_bytes())
    assert NIFTI.fingerprint(own) == NIFTI.fingerprint(other)


def test_left_and_right_are_told_apart() -> None:
    voxels = organ(3).voxels
    mirrored = written(voxels, np.diag([-2.0, 1.0, 1.5, 1.0])).to_bytes()
    assert NIFTI.fingerprint(NIFTI.decode(mirrored)) != NIFTI.fingerprint(NIFTI.decode(written(voxels).to_bytes()))
    assert NIFTI.inspect(mirrored).fields["orientation"] == "LAS"


def test_a_pair_of_files_is_one_volume() -> None:
    single = NIFTI.decode(written(organ(5).voxels).to_bytes())
    assert NIFTI.fingerprint(NIFTI.decode(bundled())) == NIFTI.fingerprint(single)
    files = pair(written(organ(5).voxels))
    zipped = bundle({f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()})
    assert NIFTI.fingerprint(NIFTI.decode(zipped)) == NIFTI.fingerprint(single)
    assert refusal(files["organ.hdr"]).quality == "error"
    assert refusal(bundle({"organ.hdr": files["organ.hdr"]})).quality == "error"
    short = refusal(bundle(files | {"organ.img": files["organ.img"][:-1]}))
    assert short.quality == "partial"


def test_a_megabyte_that_unpacks_to_ten_gigabytes_is_refused_by_its_header() -> None:
    assert "2000 x 2000 x 1250" in str(refusal(bomb()))


def test_a_stream_longer_than_its_header_says_is_not_unpacked() -> None:
    """The header is honest about 27 KB; 200 MB follow."""
    data = gzip.compress(PLAIN + bytes(200_000_000), 1, mtime=0)
    NIFTI.decode(PLAIN)  # what is loaded late is no part of it
    tracemalloc.start()
    refused = refusal(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.quality == "refused"
    assert peak < 2_000_000 + 4 * len(data)


def test_several_streams_in_one_file_are_one() -> None:
    half = len(PLAIN) // 2
    data = gzip.compress(PLAIN[:half]) + gzip.compress(PLAIN[half:])
    assert NIFTI.fingerprint(NIFTI.decode(data)) == NIFTI.fingerprint(NIFTI.decode(PLAIN))


@pytest.mark.parametrize("missing", [1, 100, 26_000])
def test_fewer_voxels_than_declared_are_partial(missing: int) -> None:
    assert refusal(PLAIN[:-missing]).quality == "partial"
    assert refusal(gzip.compress(PLAIN[:-missing])).quality == "partial"


def test_more_bytes_than_declared_are_an_error() -> None:
    assert refusal(PLAIN + b"\0").quality == "error"


def test_a_stream_without_its_end_is_partial() -> None:
    data = gzip.compress(PLAIN)
    assert {refusal(data[:-missing]).quality for missing in (1, 4, 8, 100, len(data) // 2)} == {"partial"}


def test_a_damaged_stream_is_known_by_its_checksum() -> None:
    data = bytearray(gzip.compress(PLAIN))
    data[-5] ^= 1
    assert refusal(bytes(data)).quality == "error"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"Not a scan, whatever it is called.\n" * 50, "magic"),
        (changed(344, "4s", b"n+9\0"), "magic"),  # type: ignore[arg-type]  # bytes
        (changed(344, "4s", b"ni1\0"), "another file"),  # type: ignore[arg-type]  # bytes
        (bytes(344) + b"n+1\0" + bytes(100), "dimensions"),
        (changed(40, "<h", 9), "damaged|dimensions"),
        (changed(42, "<h", -24), "-24 x 28"),
        (changed(42, "<h", 0), "0 x 28"),
        (changed(70, "<h", 1234), "damaged"),
        (changed(108, "<f", 0), "begin at byte"),
        (changed(108, "<f", float("nan")), "begin at byte"),
        (changed(108, "<f", -400), "begin at byte"),
        (changed(280, "<f", float("nan")), "spacing"),
        (changed(280, "<4f", 0, 0, 0, 0), "spacing"),
        (changed(280, "<8f", 1, 0, 0, 0, 1, 0, 0, 0), "two axes|spacing"),
        (changed(252, "<2h", 1, 0, data=changed(256, "<3f", 9, 9, 9)), "damaged"),
    ],
)
def test_a_header_that_makes_no_sense_is_an_error(data: bytes, says: str) -> None:
    refused = refusal(data)
    assert refused.quality == "error"
    assert any(word in str(refused) for word in says.split("|")), refused


def test_nan_spacing_without_a_transform_is_an_error() -> None:
    plain = changed(252, "<2h", 0, 0)
    assert NIFTI.inspect(plain).fields["transform"] == "none"
    assert "spacing" in str(refusal(changed(80, "<f", float("nan"), data=plain)))


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 5, 4, 1, 3), (6, 5, 4, 2, 2)])
def test_several_volumes_in_one_file_are_refused_by_name(shape: tuple[int, ...]) -> None:
    refused = refusal(written(np.zeros(shape, np.int16)).to_bytes())
    assert refused.quality == "refused"
    assert "four_to_three" in str(refused)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 4, 1), (6, 5, 4, 1, 1)])
def test_axes_of_length_one_do_not_matter(shape: tuple[int, ...]) -> None:
    found = NIFTI.decode(written(np.arange(np.prod(shape), dtype=np.int16).reshape(shape)).to_bytes())
    assert sorted(found["voxels"].shape) == sorted((*shape, 1, 1)[:3])


@pytest.mark.parametrize("kind", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_voxels_of_several_numbers_are_refused(kind: np.dtype[np.generic]) -> None:
    assert refusal(written(np.zeros((3, 3, 3), kind)).to_bytes()).quality == "refused"


def test_what_is_no_number_becomes_nothing() -> None:
    voxels = organ(1).voxels.astype(np.float32)
    voxels[:5], voxels[6, 0, 0] = np.nan, np.inf
    found = NIFTI.decode(written(voxels).to_bytes())["voxels"]
    assert np.isfinite(found).all()
    assert (found[:, :, -5:] == 0).all()
    assert refusal(written(np.full((3, 3, 3), np.nan, np.float32)).to_bytes()).quality == "error"


def test_transforms_that_say_different_things_are_told() -> None:
    image = written(organ(1).voxels)
    image.set_qform(np.diag([2.0, 1.0, 1.5, 1.0]), 1)
    assert NIFTI.inspect(image.to_bytes()).fields["transforms_agree"] == 1
    image.set_qform(np.diag([-2.0, 1.0, 1.5, 1.0]), 1)
    assert NIFTI.inspect(image.to_bytes()).fields["transforms_agree"] == 0


def test_units_are_millimetres_whatever_the_header_counts_in() -> None:
    image = written(organ(1).voxels, np.diag([2000.0, 1000.0, 1500.0, 1.0]))
    image.header.set_xyzt_units("micron")
    assert NIFTI.decode(image.to_bytes())["spacing"].tolist() == [1.5, 1.0, 2.0]


@settings(deadline=None, max_examples=drawn(150))
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_header_breaks_it(flips: list[tuple[int, int]]) -> None:
    data = bytearray(PLAIN)
    for place, value in flips:
        data[place] = value
    try:
        found = NIFTI.decode(bytes(data))
    except DecodeError:
        return
    assert np.isfinite(found["voxels"]).all()
    assert np.isfinite(found["spacing"]).all()
    NIFTI.summarize(bytes(data))
