"""What it costs to know which DICOM files are one series, beside reading them by pydicom alone: files per second.

The same files for all, 512 x 512 as scanners write them (or --side), every second series stored plainly and the others
as lossless JPEG 2000; each arm on one core, in an order that turns. `headers` is our reader without its sandbox,
`gather`
all of a source's indexing in sandboxed processes with what follows from it, on as many cores as there are. The arms of
pydicom read what we read (`specific_tags`), all of the header, or all of the file and its pixels (of every tenth file).
CPU seconds count, for machines are shared; what passed by the clock stands beside them.

    python evals/bench/dicom_index.py [--files 5000] [--side 512] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from speciate.datasets.gathering.dicom_headers import TAGS, read_headers
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.jobs.pool import Pool
from speciate.settings import Settings
from speciate.workspace.workspace import Folders

SLICES = 50
ROOT = "1.2.826.0.1.3680043.8.498."


def make(folder: Path, count: int, side: int) -> None:
    """Series of SLICES slices; every second series is compressed, and its slices share one codestream in turn."""
    chance = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(side), np.arange(side))
    planes = [(smooth + chance.integers(0, 40, (side, side))).astype(np.uint16) for _ in range(2)]
    plain = [_instance(plane) for plane in planes]
    packed = [_instance(plane) for plane in planes]
    for each in packed:
        each.compress(JPEG2000Lossless)
    names = chance.permutation(count)
    for number in range(count):
        series, place = divmod(number, SLICES)
        made = (packed if series % 2 else plain)[place % 2]
        made.SeriesInstanceUID, made.SOPInstanceUID = f"{ROOT}8.{series}", f"{ROOT}9.{series}.{place}"
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.StudyInstanceUID, made.PatientID = f"{ROOT}7.{series // 2}", f"P{series // 2}"
        made.InstanceNumber, made.ImagePositionPatient = place + 1, [0, 0, 2.5 * place]
        made.save_as(folder / f"{names[number]:08}", enforce_file_format=True)


def _instance(plane: np.ndarray) -> FileDataset:  # type: ignore[type-arg]  # evals are not checked
    """With about as many elements as a scanner writes: pydicom's sample of a CT, with other pixels."""
    found = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    found.file_meta = meta
    found.Rows, found.Columns = plane.shape
    found.PixelRepresentation, found.PixelData = 0, plane.tobytes()
    found.pop("DataSetTrailingPadding", None)
    return found


def arms(files: list[Path], folder: Path, work: Path) -> dict[str, Callable[[], int]]:
    paths = [str(path) for path in files]

    def headers() -> int:
        chunks = [paths[start : start + 256] for start in range(0, len(paths), 256)]
        return sum(each["kind"] == "image" for chunk in chunks for each in read_headers({"paths": chunk})["headers"])

    def gather() -> int:
        folders = Folders(work / f"workspace-{time.monotonic_ns()}")
        folders.make()
        pool = Pool(folders, Settings(), size=os.cpu_count() or 1)
        try:
            return sum(
                len(file.parts) for file in prepare_source(folder, SourceContext(pool, "required", folders, work)).files
            )
        finally:
            pool.close()

    def bare(tags: list[str] | None) -> int:
        seen = 0
        for path in paths:
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            seen += bool(found.SeriesInstanceUID) and len(found.ImagePositionPatient) == 3
        return seen

    def decode(some: list[str]) -> int:
        return sum(pydicom.dcmread(path).pixel_array.ndim == 2 for path in some)

    tenth = paths[::10]
    is_packed = [
        pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_compressed for path in tenth
    ]
    packed = [path for path, is_so in zip(tenth, is_packed, strict=True) if is_so]
    plain = [path for path, is_so in zip(tenth, is_packed, strict=True) if not is_so]

    return {
        "headers": headers,
        "gather": gather,
        "pydicom, our tags": lambda: bare(TAGS),
        "pydicom, header": lambda: bare(None),
        "plain pixels": lambda: decode(plain),
        "JPEG 2000 pixels": lambda: decode(packed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sent"
        folder.mkdir()
        make(folder, asked.files, asked.side)
        files = sorted(folder.iterdir())
        found = arms(files, folder, Path(name))
        seconds: dict[str, list[float]] = {arm: [] for arm in found}
        wall: dict[str, list[float]] = {arm: [] for arm in found}
        for round_ in range(asked.rounds):
            order = list(found)
            for arm in order[round_ % len(order) :] + order[: round_ % len(order)]:
                started, spent = time.perf_counter(), _processor()
                done = found[arm]()
                seconds[arm].append((_processor() - spent) / done)
                wall[arm].append((time.perf_counter() - started) / done)
                assert done == len(files) or "pixels" in arm, arm
        cost = {arm: statistics.median(all_) for arm, all_ in seconds.items()}
        size = f"{len(files):,} files of {asked.side} x {asked.side}"
        print(f"{size}, {asked.rounds} rounds, load {os.getloadavg()[0]:.1f}; per file, median, and times decoding")
        for arm, each in cost.items():
            plain, packed = (cost[f"{kind} pixels"] / each for kind in ("plain", "JPEG 2000"))
            passed = 1000 * statistics.median(wall[arm])
            told = f"{1000 * each:8.3f} ms of CPU {passed:8.3f} ms passed"
            print(f"{arm:<18} {told}   {plain:6.1f} x plain {packed:6.1f} x packed")


def _processor() -> float:
    """CPU seconds of this process and those that it has ended: what others do on the machine is no part of it."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
