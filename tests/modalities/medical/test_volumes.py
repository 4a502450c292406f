"""What is known of a decoded volume, whichever file held it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from speciate.modalities.medical.nifti import NIFTI
from speciate.modalities.medical.volumes import PLANE, PLANES, Volume, draw_planes, layout_of, resample, shown_range
from tests.modalities.nifti_samples import organ


def scan(seed: int, *, lesion: bool = True, side: int = 32) -> Volume:
    voxels = organ(seed, lesion=lesion, side=side).voxels.transpose(2, 1, 0).astype(np.float32)
    return {"voxels": voxels, "spacing": np.array([1.5, 1.0, 2.0], np.float32)}


def near(a: Volume, b: Volume) -> bool:
    rows = [np.frombuffer(NIFTI.sketch(each) or b"", np.uint8)[np.newaxis] for each in (a, b)]
    share = set(PLANES.keys(rows[0])[0]) & set(PLANES.keys(rows[1])[0])
    return bool(share) and bool(PLANES.near(*rows)[0])


def with_voxels(volume: Volume, voxels: np.typing.NDArray[np.floating]) -> Volume:
    return {**volume, "voxels": voxels.astype(np.float32)}


@pytest.mark.parametrize("seed", range(6))
def test_copies_are_near_and_other_patients_are_not(seed: int) -> None:
    volume, chance = scan(seed), np.random.default_rng(seed)
    voxels = volume["voxels"]
    assert near(volume, with_voxels(volume, voxels * 3.7 + 12))  # another scale
    assert near(volume, with_voxels(volume, voxels + chance.normal(0, 4, voxels.shape)))
    assert near(volume, with_voxels(volume, resample(voxels, (20, 26, 24))))
    assert near(volume, {**volume, "window": [40, 400]})
    assert not any(near(volume, scan(other)) for other in range(20) if other != seed)


def test_planes_that_agree_in_one_place_alone_are_not_near() -> None:
    """Three planes must: two scans with the same axial slice in the middle are not yet the same scan."""
    one, other = scan(1), scan(2)
    middle = slice(12, 17)
    other["voxels"][middle] = one["voxels"][middle]
    rows = [np.frombuffer(NIFTI.sketch(each) or b"", np.uint8)[np.newaxis] for each in (one, other)]
    first = [np.ascontiguousarray(row[:, : PLANE.width]) for row in rows]
    assert PLANE.near(*first)[0]
    assert not PLANES.near(*rows)[0]


@pytest.mark.parametrize("shape", [(20, 30, 25), (7, 9, 40), (1, 30, 5), (40, 8, 64)])
def test_resampling_is_trilinear_where_it_grows_and_a_mean_where_it_shrinks(shape: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(0).normal(size=(10, 15, 5)).astype(np.float32)
    grown = resample(voxels, (20, 30, 25))
    sides = zip(grown.shape, voxels.shape, strict=True)
    places = np.meshgrid(*[(np.arange(new) + 0.5) * old / new - 0.5 for new, old in sides], indexing="ij")
    assert np.allclose(grown, ndimage.map_coordinates(voxels, places, order=1, mode="nearest"), atol=1e-5)
    halved = resample(grown, voxels.shape)
    assert np.allclose(halved, grown.reshape(10, 2, 15, 2, 5, 5).mean((1, 3, 5)), atol=1e-5)
    found = resample(voxels, shape)
    assert found.shape == shape
    assert np.allclose(resample(np.full_like(voxels, 3.5), shape), 3.5)


def test_slices_put_together_are_the_whole() -> None:
    volume = scan(0)
    parts = [NIFTI.window(volume, start, stop)["voxels"] for start, stop in ((0, 7), (7, 20), (20, 999))]
    assert (np.concatenate(parts) == volume["voxels"]).all()
    assert NIFTI.window(volume, 3, 4)["voxels"].shape[0] == 1


def test_planes_are_drawn_in_their_true_proportions() -> None:
    volume = scan(0)  # 28 x 36 x 32 voxels of 1.5 x 1 x 2 mm
    axial, coronal, sagittal = layout_of(volume, 320).boxes
    assert axial.width / axial.height == pytest.approx(64 / 36, rel=0.02)
    assert coronal.width / coronal.height == pytest.approx(64 / 42, rel=0.02)
    assert sagittal.width / sagittal.height == pytest.approx(36 / 42, rel=0.02)
    picture = NIFTI.thumbnail(volume)
    assert max(picture.shape) == 320
    single = NIFTI.thumbnail(NIFTI.window(volume, 14, 15))
    assert single.shape[1] / single.shape[0] == pytest.approx(64 / 36, rel=0.02)


def test_the_head_is_up_and_the_right_is_on_the_left() -> None:
    voxels = np.zeros((40, 40, 40), np.float32)
    voxels[30:, :, :10] = 1  # towards the head, on the patient's right
    volume: Volume = {"voxels": voxels, "spacing": np.ones(3, np.float32), "window": [0.5, 1]}
    coronal = layout_of(volume, 320).boxes[1]
    drawn = NIFTI.thumbnail(volume)[coronal.top : coronal.top + coronal.height, : coronal.width, 0]
    rows, columns = np.nonzero(drawn > 128)
    assert rows.max() < coronal.height * 0.3
    assert columns.max() < coronal.width * 0.3


def test_a_mask_is_drawn_in_colour_where_most_of_it_is() -> None:
    volume = scan(0)
    labels = np.zeros(volume["voxels"].shape, np.uint8)
    labels[3:6, 20:30, 4:9] = 1
    picture = draw_planes(volume, labels)
    coloured = np.ptp(picture.astype(int), axis=2) > 20
    for box in layout_of(volume, 320).boxes:
        assert coloured[box.top : box.top + box.height, box.left : box.left + box.width].any()
    assert not (np.ptp(draw_planes(volume).astype(int), axis=2) > 0).any()
    assert (draw_planes(volume, np.zeros_like(labels)) == draw_planes(volume)).all()


def test_its_own_window_shows_a_volume_before_percentiles_do() -> None:
    volume = scan(0)
    assert shown_range({**volume, "window": [40.0, 400.0]}) == (-160.0, 240.0)
    assert shown_range({**volume, "window": [40.0, -1.0]}) == shown_range(volume)
    assert shown_range({**volume, "window": [float("nan"), 400.0]}) == shown_range(volume)


@pytest.mark.parametrize("value", [0, 7, -1e30, 3e38])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 1), (3, 1, 1), (40, 2, 2)])
def test_a_volume_that_shows_nothing_is_described_and_near_to_none(shape: tuple[int, int, int], value: float) -> None:
    volume: Volume = {"voxels": np.full(shape, value, np.float32), "spacing": np.array([1e5, 1e-5, 1], np.float32)}
    assert np.isfinite(NIFTI.describe(volume)).all()
    assert NIFTI.sketch(volume) is None
    assert max(NIFTI.thumbnail(volume).shape) <= 320


def test_a_description_tells_the_scans_with_a_lesion() -> None:
    """Something in it is farther apart between the two kinds than within them."""
    without, with_ = (
        np.stack([NIFTI.describe(scan(seed, lesion=lesion)) for seed in range(12)]) for lesion in (False, True)
    )
    apart = np.abs(without.mean(0) - with_.mean(0)) / (without.std(0) + with_.std(0) + 1e-6)
    assert apart.max() > 1
