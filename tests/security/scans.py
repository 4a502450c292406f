"""Small scans with people in them: names in headers, in file names, in private attributes, and in columns beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
PEOPLE = ("ZQDOE^ZQJANE", "ZQROE^ZQRICHARD", "ZQMILES^ZQMARY", "ZQPARK^ZQPETER")
TRACES = (
    *(part.encode() for name in PEOPLE for part in name.split("^")),
    *(f"ZQMRN{number}".encode() for number in range(len(PEOPLE))),
    b"ZQHOSPITAL", b"ZQPRIVATE", b"ZQDOCTOR", b"19480312", b"1.2.3.99.",
)  # fmt: skip
"""Bytes that name somebody, or lead to them."""


def scan(patient: int, slice_: int = 0, *, side: int = 32, seed: int | None = None) -> Dataset:
    """A slice of a patient, one millimetre from the next."""
    chance = np.random.default_rng(patient if seed is None else seed)
    pixels = np.clip(chance.normal(300 + 250 * (patient % 2), 60, (side, side)), 0, 4000).astype(np.uint16)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = CT, "CT"
    dataset.SOPInstanceUID = f"1.2.3.99.{patient}.3.{slice_ + 1}"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"1.2.3.99.{patient}.2", f"1.2.3.99.{patient}.1"
    dataset.FrameOfReferenceUID = f"1.2.3.99.{patient}.4"
    dataset.PatientName, dataset.PatientID = PEOPLE[patient % 4], f"ZQMRN{patient}"
    dataset.PatientBirthDate, dataset.StudyDate = "19480312", f"202003{patient % 28 + 1:02}"
    dataset.InstitutionName, dataset.ReferringPhysicianName = "ZQHOSPITAL", "ZQDOCTOR^WHO"
    dataset.SeriesDescription = f"AX CHEST {PEOPLE[patient % 4].split('^', maxsplit=1)[0]}"
    dataset.InstanceNumber = slice_ + 1
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, slice_], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    dataset.private_block(0x0099, "ZQPRIVATE", create=True).add_new(1, "LO", "ZQPRIVATE")
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = side, side, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = np.roll(pixels, slice_).tobytes()
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, dataset.SOPInstanceUID
    dataset.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def folder(root: Path, patients: int = 4, slices: int = 3) -> Path:
    """A folder a patient, named after them, with a series each; and a table of labels that names them, too."""
    lines = ["file,finding,comment,ward,room"]
    for patient in range(patients):
        name = PEOPLE[patient % 4].replace("^", "_")
        for number in range(slices):
            save(scan(patient, number), root / name / f"{name}_{number}.dcm")
        finding = "nodule" if patient % 2 else "clear"
        lines.append(f"1.2.3.99.{patient}.2,{finding},seen with {name.replace('_', ' ')},ward {patient % 2},{patient}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root
