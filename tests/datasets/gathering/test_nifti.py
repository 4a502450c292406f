"""From files to scans: pairs, and masks in every layout that datasets have; what fits no scan is excluded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from speciate.datasets.gathering.nifti import label_names
from speciate.datasets.sources.labels import LabelsFile
from speciate.datasets.sources.listing import Listing
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.modalities.segmentation_masks import LabelMap, mask_of
from tests.datasets.source_context import source_context
from tests.modalities.nifti_samples import organ, packed, pair, written

ORGANS = [organ(seed) for seed in range(4)]
SCANS = [packed(written(each.voxels)) for each in ORGANS]
MASKS = [packed(written(each.labels)) for each in ORGANS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceContext]:
    with source_context(tmp_path_factory.mktemp("work")) as found:
        yield found


def read(place: SourceContext, root: Path, files: dict[str, bytes], labels: LabelsFile | None = None) -> Listing:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return prepare_source(root, place, labels=labels)


def masks(found: Listing) -> dict[str, LabelMap | None]:
    assert found.labels is not None
    cells = found.labels["mask"].to_pylist()
    return {file.name: cell and mask_of(cell) for file, cell in zip(found.files, cells, strict=True)}


def test_the_decathlons_folders_are_scans_with_masks_by_name(place: SourceContext, tmp_path: Path) -> None:
    files = {f"imagesTr/liver_{i}.nii.gz": SCANS[i] for i in range(3)} | {"imagesTs/liver_9.nii.gz": SCANS[3]}
    files |= {f"labelsTr/liver_{i}.nii.gz": MASKS[i] for i in range(3)}
    files["dataset.json"] = json.dumps({"labels": {"0": "background", "1": "liver", "2": "tumour"}}).encode()
    found = read(place, tmp_path, files)
    assert found.modality == "nifti"
    read_masks = masks(found)
    assert list(read_masks) == [*(f"imagesTr/liver_{i}.nii.gz" for i in range(3)), "imagesTs/liver_9.nii.gz"]
    assert read_masks["imagesTs/liver_9.nii.gz"] is None
    for i in range(3):
        mask = read_masks[f"imagesTr/liver_{i}.nii.gz"]
        assert mask is not None
        assert mask.labels == ["liver", "tumour"]
        assert (mask.pixels == ORGANS[i].labels[::-1, ::-1].transpose(2, 1, 0)).all()


def test_of_several_channels_of_a_case_the_first_is_read(place: SourceContext, tmp_path: Path) -> None:
    files = {f"imagesTr/case_{i:03}_{channel:04}.nii.gz": SCANS[i] for i in range(2) for channel in range(2)}
    files |= {f"labelsTr/case_{i:03}.nii.gz": MASKS[i] for i in range(2)}
    files["dataset.json"] = json.dumps({"labels": {"background": 0, "organ": 1, "lesion": 2}}).encode()
    found = read(place, tmp_path, files)
    assert [name.removesuffix(".nii.gz") for name in masks(found)] == [
        "imagesTr/case_000_0000",
        "imagesTr/case_001_0000",
    ]
    assert all(mask is not None and mask.labels == ["organ", "lesion"] for mask in masks(found).values())
    assert ["channel" in reason for name, reason in found.excluded if "0001" in name] == [True, True]


def test_numbers_of_four_digits_are_no_channels(place: SourceContext, tmp_path: Path) -> None:
    files = {f"images/{i:04}.nii.gz": SCANS[i] for i in range(3)} | {
        f"masks/{i:04}_mask.nii.gz": MASKS[i] for i in range(3)
    }
    assert [mask is not None for mask in masks(read(place, tmp_path, files)).values()] == [True] * 3


def test_a_mask_beside_its_scan_is_known_by_its_name(place: SourceContext, tmp_path: Path) -> None:
    files = {"a/scan.nii.gz": SCANS[0], "a/scan_seg.nii.gz": MASKS[0], "b/scan.nii.gz": SCANS[1]}
    files["b/lonely_seg.nii.gz"] = MASKS[1]  # nothing is called lonely: a scan like others
    found = masks(read(place, tmp_path, files))
    assert {name: mask is not None for name, mask in found.items()} == {
        "a/scan.nii.gz": True, "b/lonely_seg.nii.gz": False, "b/scan.nii.gz": False,
    }  # fmt: skip
    mask = found["a/scan.nii.gz"]
    assert mask is not None
    assert mask.labels == ["1", "2"]


def test_masks_that_do_not_fit_are_excluded_with_the_reason(place: SourceContext, tmp_path: Path) -> None:
    files = {f"images/{i}.nii.gz": SCANS[0] for i in range(6)}
    files["labels/0.nii.gz"] = packed(written(ORGANS[0].labels[:-1]))
    files["labels/1.nii.gz"] = packed(written(ORGANS[0].labels, np.diag([2.5, 1, 1.5, 1])))
    files["labels/2.nii.gz"] = packed(written(ORGANS[0].labels + np.float32(0.5)))
    files["labels/3.nii.gz"] = MASKS[0][:-20]
    files["labels/4.nii.gz"] = packed(written(-ORGANS[0].labels.astype(np.int16)))
    files["labels/6.nii.gz"] = MASKS[0]
    found = read(place, tmp_path, files)
    assert set(masks(found).values()) == {None}
    reasons = dict(found.excluded)
    assert "23 x 28" not in reasons["labels/0.nii.gz"]
    assert "20 x 28 x 23 voxels" in reasons["labels/0.nii.gz"]
    assert "2.5 mm" in reasons["labels/1.nii.gz"]
    assert "whole numbers" in reasons["labels/2.nii.gz"]
    assert "ends early" in reasons["labels/3.nii.gz"]
    assert "whole numbers" in reasons["labels/4.nii.gz"]
    assert "without its scan" in reasons["labels/6.nii.gz"]


def test_masks_stand_beside_labels_from_a_table(place: SourceContext, tmp_path: Path) -> None:
    files = {f"images/{i}.nii.gz": SCANS[i] for i in range(2)} | {f"labels/{i}.nii.gz": MASKS[i] for i in range(2)}
    table = tmp_path / "grades.csv"
    table.write_text("scan,grade\n0.nii.gz,low\n1.nii.gz,high\n")
    found = read(place, tmp_path / "scans", files, LabelsFile(table, "scan"))
    assert found.labels is not None
    assert found.labels["grade"].to_pylist() == ["low", "high"]
    assert None not in masks(found).values()


def test_a_header_and_its_voxels_are_one_example(place: SourceContext, tmp_path: Path) -> None:
    files = {
        f"scan.{kind}": data
        for kind, data in zip(("hdr", "img"), pair(written(ORGANS[0].voxels)).values(), strict=True)
    }
    files |= {
        f"scan_mask.{kind}": data
        for kind, data in zip(("hdr", "img"), pair(written(ORGANS[0].labels)).values(), strict=True)
    }
    found = read(place, tmp_path, files | {"alone.img": b"1234"})
    assert [(file.name, [name for name, _ in file.parts]) for file in found.files] == [
        ("scan.hdr", ["scan.hdr", "scan.img"])
    ]
    assert masks(found)["scan.hdr"] is not None
    assert dict(found.excluded)["alone.img"].startswith("Voxels without a header")


@pytest.mark.parametrize("card", [None, [], {"labels": 3}, {"labels": {"a": "b", "-1": "c", "2": "", "3": None}}])
def test_a_card_that_says_nothing_names_nothing(card: object) -> None:
    assert label_names(card) == {}
