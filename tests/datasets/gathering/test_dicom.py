"""Folders of DICOM files as hospitals send them: what becomes an example, and what is excluded with which reason."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydicom.data
import pytest
from pydicom.dataset import Dataset

from speciate.datasets import version_rows
from speciate.datasets.gathering.dicom_headers import read_headers
from speciate.datasets.sources.labels import order_labels
from speciate.datasets.sources.listing import Listing
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.datasets.versions import resolve, version
from speciate.modalities.segmentation_masks import mask_of
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.source_context import source_context
from tests.modalities import dicom_samples as samples
from tests.modalities.medical.test_dicom_regions import outlines, segmentation, square

CORONAL = [1, 0, 0, 0, 0, -1]


def put(folder: Path, made: Sequence[Dataset | bytes], seed: int = 0) -> None:
    """Files without a suffix, whose names say nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for each in made:
        name = f"{rng.integers(1 << 40):010x}"
        (folder / name).write_bytes(each if isinstance(each, bytes) else samples.encoded(each))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceContext]:
    with source_context(tmp_path_factory.mktemp("work")) as found:
        yield found


def gathered(folder: Path, place: SourceContext) -> Listing:
    return prepare_source(folder, place)


def rows(workspace: Workspace, name: str = "set") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = version_rows.read(workspace.folders, resolve(workspace.database, name)).to_pylist()
    return found


def mess(folder: Path) -> None:
    """Three series of two patients with one name, mixed in one folder, and what comes with them."""
    voxels = samples.phantom(8, 24)
    whole = samples.series(voxels, number=1)
    gap = [each for each in samples.series(voxels, number=2) if each.InstanceNumber != 4]
    twice = samples.series(voxels, number=3, PatientID="P2")
    twice.append(samples.series(voxels + 7, number=3, PatientID="P2", SOPInstanceUID=samples.uid(9, 3, 99))[2])
    cut = samples.series(voxels, number=4, PatientID="P2", Modality="MR")
    put(folder, whole, 1)
    put(folder, gap, 2)
    put(folder, twice, 3)
    put(folder, [*cut[:-1], samples.encoded(cut[-1])[:-300]], 4)
    put(folder, [samples.encoded(whole[5])], 5)  # a copy under another name
    (folder / "notes.dcm").write_text("Please read before use.\n" * 20)
    put(folder, [samples.real("test-SR.dcm"), samples.real("dicomdirtests/DICOMDIR")], 6)


def test_a_mess_is_sorted_and_faults_are_named(workspace: Workspace, tmp_path: Path) -> None:
    mess(tmp_path / "sent")
    data.ingest(workspace, "set", source=tmp_path / "sent")
    found = rows(workspace)
    assert Counter(row["quality"] for row in found) == {"ok": 1, "partial": 3, "refused": 4}
    by_series = {row["series"]: row for row in found if row["quality"] in ("ok", "partial")}
    ok = by_series[samples.uid(8, 1)]
    assert (ok["quality"], ok["steps"], ok["instances"], ok["patient"], ok["group_key"]) == ("ok", 8, 8, "P1", "P1")
    assert by_series[samples.uid(8, 2)]["reason"] == (
        "One slice is missing: between 5 and 10 mm (instance 3 and instance 5), at gaps of 2.5 mm."
    )
    assert by_series[samples.uid(8, 3)]["reason"] == (
        "One slice is there twice: at 5 mm (instance 3 and instance 3, with different pixels)."
    )
    broken = by_series[samples.uid(8, 4)]
    (named,) = re.findall(r"1 of 8 instances cannot be used. '(\w+)' \(instance 8\): The file ends", broken["reason"])
    assert (tmp_path / "sent" / named).stat().st_size < len(samples.encoded(samples.series()[0])) - 200
    assert {row["patient"] for row in by_series.values()} == {"P1", "P2"}
    refused = sorted(str(row["reason"]) for row in found if row["quality"] == "refused")
    assert refused[0].startswith("A DICOM file that is no image: a report (SR).")
    assert refused[1].startswith("A copy of '")
    assert refused[2].startswith("An index of DICOM files (DICOMDIR)")
    assert refused[3] == "No DICOM file, though it is called one."
    whose = {str(row["reason"])[:9]: row["group_key"] for row in found if row["quality"] == "refused"}
    assert whose["A copy of"] == "P1"
    report = version(workspace.database, "set").report
    assert report["set_aside"] == report["refused"] == 4
    assert report["warnings"][0].startswith("3 refused DICOM files hold, or may hold, names or ids of patients")
    notes = report["untrusted"]["notes"]
    assert "32 DICOM files are 4 examples of 2 patients." in notes[0]
    assert notes[-1] == "Of 36 files 32 are in examples and 4 are excluded."
    assert sum(1 for path in (tmp_path / "sent").iterdir()) == 36
    assert report["set_aside_shown"] == "first 4 of 4"


def test_names_of_files_mean_nothing(tmp_path: Path, place: SourceContext) -> None:
    """The same series under other names, in another order, is the same bytes."""
    made = samples.series()
    for number in (1, 2):
        put(tmp_path / f"sent{number}", made, number)
    one, two = (gathered(tmp_path / f"sent{number}", place).files for number in (1, 2))
    assert [file.name for file in one] == [file.name for file in two] == [samples.uid(8, 1)]
    contents = [[(name, path.read_bytes()) for name, path in files[0].parts] for files in (one, two)]
    assert contents[0] == contents[1]
    assert [name for name, _ in contents[0]] == [f"{number:05}.dcm" for number in range(1, 7)]


def test_localizers_and_other_orientations_are_examples_of_their_own(tmp_path: Path, place: SourceContext) -> None:
    scout = samples.series(
        samples.phantom(2), ImageOrientationPatient=CORONAL, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    turned = samples.series(samples.phantom(3), ImageOrientationPatient=CORONAL)
    for number, each in enumerate([*scout, *turned]):
        each.SOPInstanceUID, each.ImagePositionPatient = samples.uid(9, 1, 50 + number), [0, 10 + 2.5 * number, 0]
    put(tmp_path / "sent", [*samples.series(), *scout, *turned])
    found = gathered(tmp_path / "sent", place)
    sizes = {file.name: len(file.parts) for file in found.files}
    uid = samples.uid(8, 1)
    assert sizes == {uid: 6, f"{uid} (localizer)": 2, f"{uid} (other orientation)": 3}
    assert "2 of them are parts of a series" in found.notes[1]


def test_echoes_in_the_same_positions_are_volumes_of_their_own(tmp_path: Path, place: SourceContext) -> None:
    second = samples.series(EchoNumbers=2)
    for each in second:
        each.SOPInstanceUID += ".2"
    put(tmp_path / "sent", [*samples.series(EchoNumbers=1), *second])
    uid = samples.uid(8, 1)
    assert [file.name for file in gathered(tmp_path / "sent", place).files] == [f"{uid} (echo 1)", f"{uid} (echo 2)"]


def test_a_file_that_ends_within_its_header_stays_with_its_series_where_that_can_be_read(
    tmp_path: Path, place: SourceContext
) -> None:
    made = [samples.encoded(each) for each in samples.series()]
    at = made[2].index(b"\x28\x00\x10\x00US")  # Rows
    put(tmp_path / "sent", [*made[:2], made[2][:at], *made[3:], made[0][:300]])
    found = gathered(tmp_path / "sent", place)
    assert [len(file.parts) for file in found.files] == [6]
    assert [reason for _, reason in found.excluded] == ["A DICOM file without an image (of no modality)."]


def test_images_that_are_no_slices_stay_single(tmp_path: Path, place: SourceContext) -> None:
    pixels = samples.phantom()[0].clip(0).astype(np.uint16)
    views = [
        samples.dataset(pixels, Modality="DX", InstanceNumber=number, SOPInstanceUID=samples.uid(9, 9, number))
        for number in (1, 2)
    ]
    put(tmp_path / "sent", [*views, samples.film(), samples.enhanced()])
    assert [len(file.parts) for file in gathered(tmp_path / "sent", place).files] == [0, 0, 0, 0]


def test_patients_are_identified_by_id_and_issuer_and_else_by_study(workspace: Workspace, tmp_path: Path) -> None:
    """All of them are called Jane Doe."""
    who: list[dict[str, str]] = [
        {"IssuerOfPatientID": "North"}, {"IssuerOfPatientID": "South"},
        {"PatientID": ""}, {"PatientID": "", "StudyInstanceUID": "1.9"},
    ]  # fmt: skip
    for number, elements in enumerate(who, 1):
        put(tmp_path / "sent", samples.series(samples.phantom(3, seed=number), number=number, **elements), number)
    data.ingest(workspace, "set", source=tmp_path / "sent")
    first = f"unknown, of study {samples.uid(7, 1)}"
    assert {row["group_key"] for row in rows(workspace)} == {"P1 (North)", "P1 (South)", first, "unknown, of study 1.9"}


def test_labels_may_name_series_studies_or_patients(tmp_path: Path, place: SourceContext) -> None:
    """A row about a patient is about all series of that patient."""
    for number in (1, 2, 3, 4):
        person = 1 + (number > 2)
        voxels = samples.phantom(3, 24, seed=number)
        study = samples.uid(7, person)
        put(
            tmp_path / "sent",
            samples.series(voxels, number=number, PatientID=f"P{person}", StudyInstanceUID=study),
            number,
        )
    files = gathered(tmp_path / "sent", place).files
    for key, names in (
        ("series", [samples.uid(8, number) for number in (1, 2, 3, 4)]),
        ("study", [samples.uid(7, 1), samples.uid(7, 2)]),
        ("patient", ["P1", "P2"]),
    ):
        found = ["no" if i < len(names) / 2 else "yes" for i in range(len(names))]
        table = pa.table({key: [*names, "P3"], "found": [*found, "no"]})
        labels = order_labels(table, key, files, tmp_path / "labels.csv")
        assert labels.table["found"].to_pylist() == ["no", "no", "yes", "yes"]
        assert labels.notes == ("'labels.csv': a row names a file that is not there: 'P3'.",)


def test_an_id_of_two_hospitals_names_nobody(tmp_path: Path, place: SourceContext) -> None:
    for number, issuer in ((1, "North"), (2, "South")):
        put(tmp_path / "sent", samples.series(number=number, IssuerOfPatientID=issuer), number)
    files = gathered(tmp_path / "sent", place).files
    named = pa.table({"patient": ["P1", "P1 (South)"], "found": ["no", "yes"]})
    assert order_labels(named, "patient", files, tmp_path / "labels.csv").table["found"].to_pylist() == [None, "yes"]


def test_outlines_and_segmentations_become_a_column_of_their_scan(tmp_path: Path, place: SourceContext) -> None:
    one, two = samples.series(number=1), samples.series(samples.phantom(seed=3), number=2)
    labels = np.zeros((6, 32, 32), np.uint8)
    labels[2:4, 5:9, 5:9] = 1
    later = outlines(one, {"liver": [(1, square(4, 6, 10, 12))]})
    earlier = outlines(one, {"old": [(1, square(0, 0, 2, 2))]})
    later.StructureSetDate, earlier.StructureSetDate = "20260102", "20260101"
    lost = outlines(samples.series(number=3), {"lost": [(1, square(4, 6, 10, 12))]})
    put(tmp_path / "sent", [*one, *two, later, earlier, lost, segmentation(two, labels, ["tumour"])])
    found = gathered(tmp_path / "sent", place)
    assert [file.name for file in found.files] == [samples.uid(8, 1), samples.uid(8, 2)]
    assert found.labels is not None
    liver, tumour = (mask_of(cell) for cell in found.labels["mask"].to_pylist())
    assert (liver.labels, int(liver.pixels.sum())) == (["liver"], 36)
    assert tumour.labels == ["tumour"]
    assert (tumour.pixels == labels).all()
    assert sorted(reason for _, reason in found.excluded) == [
        "Outlines of which there is a later state.",
        "Regions that are not used: their scan is not here.",
    ]
    assert found.notes[-2:] == (
        "2 examples have regions in the column 'mask'.",
        "Of 16 files 12 are in examples, 2 hold their regions and 2 are excluded.",
    )


def test_a_directory_of_real_files_is_read(workspace: Workspace, tmp_path: Path) -> None:
    """pydicom's example of a file set: three patients, one DICOMDIR of several, series of MR and CT, three CR."""
    source = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"
    shutil.copytree(source, tmp_path / "disc", ignore=shutil.ignore_patterns("TINY_ALPHA"))
    data.ingest(workspace, "set", source=tmp_path / "disc")
    found = rows(workspace)
    assert Counter(row["quality"] for row in found)["refused"] == 7
    used = [row for row in found if row["quality"] != "refused"]
    assert sum(row["instances"] for row in used) == 31
    assert {row["patient"] for row in used} == {"77654033", "98890234"}


def test_what_is_no_dicom_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    whole = samples.encoded(samples.series()[0])
    cases = {
        "moved.dcm": (b"xx" + whole, "A damaged DICOM file: its header does not begin where it should"),
        "photo.dcm": (b"\x89PNG\r\n\x1a\n" + bytes(200), "No DICOM file but a PNG image."),
        "empty.dcm": (b"", "The file is empty."),
        "note.dcm": (b"A letter about a scan.\n" * 9, "No DICOM file, though it is called one."),
        "note.txt": (b"A letter about a scan.\n" * 9, "No DICOM file."),
    }
    for name, (content, _) in cases.items():
        (tmp_path / name).write_bytes(content)
    answers = read_headers({"paths": [str(tmp_path / name) for name in cases]})["headers"]
    assert [answer["kind"] for answer in answers] == ["none"] * len(cases)
    for answer, (_, reason) in zip(answers, cases.values(), strict=True):
        assert answer["reason"].startswith(reason)
    assert [answer.get("named") for answer in answers] == [True, False, False, False, False]
