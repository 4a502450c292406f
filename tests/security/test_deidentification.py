"""No value that was planted in a DICOM file survives its de-identification, tag by tag and byte by byte."""

from __future__ import annotations

import datetime
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from speciate.modalities.medical.deidentification.deidentifier import deidentify
from speciate.modalities.medical.deidentification.profile import OPTIONS, action, listed, parse_profile, rows
from speciate.modalities.medical.deidentification.pseudonyms import Pseudonyms, shift_date
from speciate.server.client import Client, ToolError
from tests.domains.calling import answers_of_page, ended
from tests.security import planted, scans
from tests.server.processes import Daemons

KEY = Pseudonyms(b"0123456789abcdef0123456789abcdef")
EVERYTHING = "+".join(("basic", *(option for option in OPTIONS if option != "retain_full_dates")))
PROFILES = ("basic", *(f"basic+{option}" for option in OPTIONS), EVERYTHING)


def read(data: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data))


def does(each: planted.Planted, profile: str) -> str:
    """What the table says of a planted value, which may lie in something that goes as a whole."""
    chosen = parse_profile(profile)
    for tag in each.way:
        row = listed(tag)
        if row is not None and (said := action(tag, "SQ", row.name, chosen)) in "XZD":
            return said
    row = listed(each.tag)
    return action(each.tag, each.vr, row.name if row else pydicom.datadict.keyword_for_tag(each.tag), chosen)


def survivors(data: bytes, traces: Sequence[bytes]) -> list[bytes]:
    return [trace for trace in traces if trace in data]


def test_the_plants_are_in_every_row_of_the_table_and_in_the_file() -> None:
    file = planted.file()
    covered = {f"{each.tag:08X}" for each in file.planted} | {f"{tag:08X}" for each in file.planted for tag in each.way}
    wanted = {row.tag.replace("XXXXXX", "003000").replace("XX", "00") for row in rows()} - {"ODD"}
    assert {tag for tag in wanted - covered if int(tag[:4], 16) >= 8} == set()
    traces = [each.trace for each in file.planted if each.trace is not None]
    assert len(traces) == len(set(traces)) > 2_500
    assert [trace for trace in (*traces, *file.elsewhere) if trace not in file.data] == []


FAST = {("basic", False), ("basic+retain_full_dates", False), (EVERYTHING, True)}
"""Nothing is kept; what EVERYTHING lacks; all else at once."""


@pytest.mark.parametrize(
    ("profile", "implicit"),
    [
        pytest.param(*each, marks=() if each in FAST else pytest.mark.slow)
        for each in (*((profile, False) for profile in PROFILES), ("basic", True), (EVERYTHING, True))
    ],
)
def test_nothing_planted_survives_but_what_an_option_keeps(profile: str, implicit: bool) -> None:
    file = planted.file(implicit=implicit)
    made = deidentify(file.data, parse_profile(profile), KEY)
    after = read(made.data)
    days = KEY.days("ZQPATIENT1 (ZQISSUER)")
    kept, moved = set[bytes](), set[bytes]()
    for each in file.planted:
        said, there = does(each, profile), planted.found(after, each)
        told = f"{each.tag:08X} of {each.way}: {said}"
        if said == "X" or (said in "ZD" and each.way and there is None):
            assert there is None, told
        elif said == "K" or (said == "C" and each.vr == "TM" and "modified_dates" in profile):
            assert there is not None, told
            assert str(there.value) == str(each.value) or there.value == each.value, told
            kept.add(each.trace or b"")
        elif said == "C" and each.vr in ("DA", "DT") and "modified_dates" in profile:
            assert str(there.value) == shift_date(each.value, days), told
            moved.add(str(there.value).encode())
        elif there is not None:
            assert str(there.value) != str(each.value), told
    may = b"\n".join(kept | moved)  # a day that was moved may be one on which something else was planted
    gone = [each.trace for each in file.planted if each.trace is not None and each.trace not in may]
    assert len(gone) > 2_000
    assert survivors(made.data, gone) == []
    assert survivors(made.data, file.elsewhere) == []
    assert np.array_equal(after.pixel_array, planted.PIXELS)


@pytest.mark.parametrize("profile", ["basic", EVERYTHING])
def test_it_says_what_was_done(profile: str) -> None:
    after = read(deidentify(planted.file().data, parse_profile(profile), KEY).data)
    assert after.PatientIdentityRemoved == "YES"
    assert str(parse_profile(profile))[:20] in after.DeidentificationMethod
    codes = [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
    assert codes[0] == "113100"
    assert len(codes) == 1 + len(parse_profile(profile).options)
    assert after.LongitudinalTemporalInformationModified == ("REMOVED" if profile == "basic" else "MODIFIED")
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID


def test_files_keep_their_references_to_each_other() -> None:
    picture = Dataset()
    picture.SOPClassUID, picture.SOPInstanceUID, picture.StudyInstanceUID = planted.CT, "1.2.3.1", "1.2.3.2"
    picture.SeriesInstanceUID, picture.FrameOfReferenceUID, picture.PatientID = "1.2.3.3", "1.2.3.4", "A"
    contour, image, roi, series, study, frame, contours = (Dataset() for _ in range(7))
    contour.ReferencedSOPClassUID, contour.ReferencedSOPInstanceUID = planted.CT, "1.2.3.1"
    image.ContourImageSequence = [contour]
    roi.ContourSequence = [image]
    series.SeriesInstanceUID, series.ContourImageSequence = "1.2.3.3", [contour]
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = "1.2.3.4", [study]
    contours.SOPClassUID, contours.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.9"
    contours.StudyInstanceUID, contours.PatientID = "1.2.3.2", "A"
    contours.ROIContourSequence, contours.ReferencedFrameOfReferenceSequence = [roi], [frame]
    one, other = (read(deidentify(_bytes(each), parse_profile("basic"), KEY).data) for each in (picture, contours))
    for inside in (
        other.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0],
        other.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
        .ContourImageSequence[0],
    ):  # fmt: skip
        assert inside.ReferencedSOPInstanceUID == one.SOPInstanceUID != "1.2.3.1"
        assert inside.ReferencedSOPClassUID == planted.CT
    assert other.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID == one.FrameOfReferenceUID
    assert other.StudyInstanceUID == one.StudyInstanceUID
    assert other.PatientID == one.PatientID == KEY.name("A")


def test_another_key_gives_other_pseudonyms_and_no_key_of_its_own_stays_in_the_file() -> None:
    file = planted.file()
    one, other = (deidentify(file.data, parse_profile("basic"), key).data for key in (KEY, Pseudonyms(b"x" * 32)))
    assert read(one).PatientID != read(other).PatientID
    assert read(one).StudyInstanceUID != read(other).StudyInstanceUID
    assert KEY.key not in one


def test_dates_of_a_patient_keep_their_intervals_and_patients_move_differently() -> None:
    before = ["19480229", "19990101", "20261129"]
    files = [_of_a_day(*each) for each in zip(("ZQPATIENT1", "ZQPATIENT1", "ZQPATIENT2"), before, strict=True)]
    profile = parse_profile("basic+modified_dates")
    dates = [read(deidentify(_bytes(each), profile, KEY).data).StudyDate for each in files]
    days = [_days(a, b) for a, b in itertools.pairwise(dates)]
    assert days[0] == _days(before[0], before[1])
    assert days[1] != _days(before[1], before[2])
    assert not set(before) & set(dates)


def test_a_second_pass_changes_nothing_but_pseudonyms() -> None:
    once = deidentify(planted.file().data, parse_profile("basic"), KEY)
    twice = deidentify(once.data, parse_profile("basic"), KEY)
    a, b = read(once.data), read(twice.data)
    assert a.dir() == b.dir()
    assert np.array_equal(b.pixel_array, planted.PIXELS)


def test_a_known_descriptor_stays_and_a_name_in_it_goes() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientID = planted.CT, "1.2.3.1", "A1"
    dataset.SeriesDescription, dataset.StudyDescription = "T2 AX FLAIR 5mm John Smith 1948", "Smith, J."
    after = read(deidentify(_bytes(dataset), parse_profile("basic+clean_descriptors"), KEY).data)
    assert after.SeriesDescription == "T2 AX FLAIR 5mm"
    assert "StudyDescription" not in after


def test_a_safe_private_attribute_stays_and_its_neighbours_go() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientID = planted.CT, "1.2.3.1", "A1"
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x08, "CS", "ZQIMAGENUM")
    after = read(deidentify(_bytes(dataset), parse_profile("basic+retain_safe_private"), KEY).data)
    assert after.private_block(0x0019, "SIEMENS MR HEADER")[0x0C].value == 1000
    assert 0x08 not in after.private_block(0x0019, "SIEMENS MR HEADER")
    assert not list(after.group_dataset(0x0099))


def test_an_age_above_89_is_told_as_90() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientAge = planted.CT, "1.2.3.1", "097Y"
    after = read(deidentify(_bytes(dataset), parse_profile("basic+retain_patient_characteristics"), KEY).data)
    assert after.PatientAge == "090Y"


def _of_a_day(patient: str, date: str) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID, made.PatientID, made.StudyDate = planted.CT, "1.2.3.1", patient, date
    return made


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _days(one: str, other: str) -> int:
    return (datetime.date.fromisoformat(other) - datetime.date.fromisoformat(one)).days


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text(f'roots = ["{tmp_path}"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECIATE_HOME", str(daemons.workspace))
    yield daemons.connect()
    daemons.close()


@pytest.mark.slow
def test_from_a_folder_to_an_export_nobody_is_named(client: Client, tmp_path: Path) -> None:
    scans.folder(tmp_path / "sent")
    report = answers_of_page(client, "deidentification.md")["curate_dataset"]["steps"][0]["audit"]
    assert (report["files"], report["not_possible"]) == (4, 0)
    assert report["columns"]["dropped"] == ["comment"]
    left = _everything(tmp_path / "shared")
    assert [trace for trace in scans.TRACES if trace in left] == []
    assert (tmp_path / "workspace" / "deidentification.key").read_bytes() not in left
    files = sorted(tmp_path.glob("shared/*/*/*/*.dcm"))
    assert [path.name for path in files] == ["00001.dcm", "00002.dcm", "00003.dcm"] * 4
    assert {read(path.read_bytes()).PatientID for path in files} == {path.parts[-4] for path in files}
    for format_ in ("dicom", "folder"):
        with pytest.raises(ToolError, match=r"(?s)may name people.*steps=\[\{'op': 'deidentify'\}\]"):
            client.call("export_dataset", dataset="scans@v1", format=format_, path="never")
    named = ended(client, "export_dataset", dataset="scans@v1", format="dicom", path="named", identified=True)
    assert named["report"]["examples"] == 4
    assert scans.TRACES[0] in _everything(tmp_path / "named")
    ended(client, "create_dataset", name="again", source="shared")
    sql = "SELECT label, group_key, split, deidentified, slices FROM examples ORDER BY ALL"
    rows = [client.call("query_dataset", dataset=name, sql=sql)["untrusted"]["rows"] for name in ("scans", "again")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4


def _everything(folder: Path) -> bytes:
    """Names and bytes of all files."""
    return b"\n".join(str(path).encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
