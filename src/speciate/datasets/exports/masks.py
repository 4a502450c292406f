"""Formats `dicom-seg`, `rtstruct` and `nifti`: masks as the field keeps them, beside their scans.

The column (by default `mask`) holds reference masks, or what a model answered: `curate_dataset` with the step `answer`
writes answers into a column. A mask that does not fit its scan, or shows nothing where a format needs a region, is left
out, and the report and `metadata.csv` say why.

`dicom-seg`, `rtstruct`: `PATIENT/STUDY/SERIES/00001.dcm` as archives have them, and the masks of a series beside its
folder, `PATIENT/STUDY/SERIES.seg.dcm` or `SERIES.rtstruct.dcm`. `nifti`: `images/SPLIT/NAME.nii.gz` and
`masks/SPLIT/NAME.nii.gz`, in the same voxels, with `masks/labels.json` beside; of DICOM the masks alone.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.exports.cells import CsvFile, as_json, notes_of_nulls
from speciate.datasets.exports.file_names import UniqueNames, safe_name
from speciate.datasets.exports.folders import folder_names, write_dicom
from speciate.datasets.exports.format import ExportContent, ReportProgress, WriteReport, has_files
from speciate.datasets.operations.operation import provenance_columns
from speciate.datasets.sources.sandbox_calls import SourceContext, unpack_into
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.segmentation_masks import MASK
from speciate.settings import in_force
from speciate.workspace.packs import index_path

_WRITE = "speciate.datasets.exports.mask_files:write"
_SHOWN = 3
_ALONE = (
    "Scans of DICOM do not become NIfTI: only their masks were written. The formats dicom-seg and rtstruct write both."
)
_SUFFIXES = re.compile(r"(?i)(\.nii|\.hdr|\.img)?(\.gz)?$|\.(dcm|dicom|zip)$")
_FILE, _WHY = "mask_file", "mask_left_out"


class WrittenMask(NamedTuple):
    files: tuple[Path, ...]
    """Paths in the work folder; empty where the mask was left out."""
    why: str | None
    labels: tuple[str, ...]


class Masks:
    """`kind`: as mask_files.py calls the format."""

    files = True
    once = True
    column = MASK

    def __init__(self, name: str, modalities: Sequence[str], suffix: str) -> None:
        self.name = name
        self.again = None if name == "nifti" else "."
        self._modalities, self._suffix = tuple(modalities), suffix

    def misfit(self, manifest: Manifest) -> str | None:
        if manifest.modality not in self._modalities or not has_files(manifest):
            return f"its examples are no {' or '.join(each.upper() for each in self._modalities)} files."
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        assert export.media is not None
        if export.windows:
            raise SpeciateError(
                Code.INVALID,
                "Rows are windows of their scans, and a mask is of a whole scan.",
                "Export a version from before the step 'window'.",
            )
        work = folder / ".masks"
        masks = _written_masks(export, self.name, work)
        if not any(each.files for each in masks):
            why = next((each.why for each in masks if each.why), "the column is empty")
            shutil.rmtree(work, ignore_errors=True)
            raise SpeciateError(
                Code.INVALID,
                f"No mask of the column {export.column!r} can be written: {why}.",
                "Name another column, or see docs/datasets.md for what a cell of masks is.",
            )
        place = self._beside_series if self.name != "nifti" else self._beside_images
        escaped = place(export, masks, folder, progress)
        shutil.rmtree(work, ignore_errors=True)
        alone = (_ALONE,) if self.name == "nifti" and export.manifest.modality == "dicom" else ()
        return WriteReport({}, escaped, (*alone, *_notes(masks), *notes_of_nulls(export.rows)))

    def _beside_series(
        self, export: ExportContent, masks: Sequence[WrittenMask], folder: Path, progress: ReportProgress
    ) -> int:
        assert export.media is not None
        names, series = UniqueNames(), dict[str, str]()
        with CsvFile(folder / "metadata.csv", [*_header(export), _FILE, _WHY]) as metadata:
            for row, (cells, mask) in enumerate(zip(folder_names(export.rows), masks, strict=True)):
                content = export.media.contents[row]
                if content not in series:
                    series[content] = write_dicom(export.media.read(row), folder, names, cells)
                beside = series[content].removesuffix("/00001.dcm")
                above, _, own = beside.rpartition("/")
                moved = [
                    _move(file, folder, f"{above}/{names.claim(above, own + self._suffix)}") for file in mask.files
                ]
                metadata.write([[series[content], *_cells(export, row), " ".join(moved), mask.why]])
                progress(1)
        return metadata.escaped

    def _beside_images(
        self, export: ExportContent, masks: Sequence[WrittenMask], folder: Path, progress: ReportProgress
    ) -> int:
        assert export.media is not None
        names, labels = UniqueNames(), dict[str, dict[str, str]]()
        with CsvFile(folder / "metadata.csv", [*_header(export), _FILE, _WHY]) as metadata:
            for piece in export.pieces():
                for row in range(piece.start, piece.start + piece.rows.num_rows):
                    mask, stem = masks[row], _stem(export.media.names[row])
                    stem = names.claim(piece.name, stem)
                    image = _write_image(export, row, folder, f"images/{piece.name}", stem)
                    moved = [
                        _move(file, folder, f"masks/{piece.name}/{stem}{_number(place, mask)}{self._suffix}")
                        for place, file in enumerate(mask.files, 1)
                    ]
                    labels |= {each: {str(k): name for k, name in enumerate(mask.labels, 1)} for each in moved}
                    metadata.write([[image, *_cells(export, row), " ".join(moved), mask.why]])
                    progress(1)
        (folder / "masks" / "labels.json").write_text(as_json(labels) + "\n", encoding="utf-8")
        return metadata.escaped


def _written_masks(export: ExportContent, kind: str, work: Path) -> list[WrittenMask]:
    """Writes the masks by a sandboxed process, one for each row of the export; the files lie in `work`."""
    assert export.media is not None
    assert export.folders is not None
    assert export.column is not None
    cells = export.rows[export.column].to_pylist()
    maker = provenance_columns(export.column)[0]
    makers = export.rows[maker].to_pylist() if maker in export.rows.column_names else [None] * len(cells)
    wanted = [row for row, cell in enumerate(cells) if cell not in (None, "")]
    items = [
        {
            "content": export.media.contents[row], "name": export.column, "predicted_by": makers[row],
            "cell": cells[row] if isinstance(cells[row], str) else json.dumps(cells[row]),
        }
        for row in wanted
    ]  # fmt: skip
    folders, settings = export.folders, in_force(export.folders.root)
    packs = [folders.root / pack for pack in export.manifest.packs]
    readable = [path for pack in packs for path in (pack, index_path(pack))]
    context = SourceContext(Pool(folders, settings, size=0), settings.cage, folders, work)
    payload = {
        "format": kind, "modality": export.manifest.modality, "packs": [str(pack) for pack in packs], "items": items
    }  # fmt: skip
    answer = unpack_into(work, _WRITE, payload, readable=readable, context=context)
    masks = [WrittenMask((), None, ()) for _ in cells]
    for row, made in zip(wanted, answer["made"], strict=True):
        files = tuple(work / Path(str(name)).name for name in made["files"])
        masks[row] = WrittenMask(files, made["why"], tuple(str(label) for label in made["labels"]))
    return masks


def _move(file: Path, folder: Path, target: str) -> str:
    place = folder / target
    place.parent.mkdir(parents=True, exist_ok=True)
    file.rename(place)
    return target


def _header(export: ExportContent) -> list[str]:
    taken = {"file_name", _FILE, _WHY}
    return ["file_name", *(f"user_{name}" if name.lower() in taken else name for name in _shown(export))]


def _shown(export: ExportContent) -> list[str]:
    """Masks are in their files."""
    return [name for name in export.rows.column_names if name != export.column]


def _cells(export: ExportContent, row: int) -> list[Any]:
    return [export.rows[name][row].as_py() for name in _shown(export)]


def _stem(name: str) -> str:
    """A name without the suffixes of scans alone: a series may be called by its UID, which ends in `.1`."""
    return safe_name(_SUFFIXES.sub("", name))


def _number(place: int, mask: WrittenMask) -> str:
    return f"-{place}" if len(mask.files) > 1 else ""


def _write_image(export: ExportContent, row: int, folder: Path, below: str, stem: str) -> str:
    """A NIfTI file as it came in, a pair as two; a DICOM scan is not converted."""
    assert export.media is not None
    if export.manifest.modality != "nifti":
        return ""
    data = export.media.read(row)
    (folder / below).mkdir(parents=True, exist_ok=True)
    if is_bundle(data):
        for name, member in members_of(data).items():
            kind = ".hdr" if ".hdr" in name.lower() else ".img"
            zipped = ".gz" if name.lower().endswith(".gz") else ""
            (folder / below / f"{stem}{kind}{zipped}").write_bytes(member)
        return f"{below}/{stem}.hdr"
    suffix = ".nii.gz" if data.startswith(b"\x1f\x8b") else ".nii"
    (folder / below / f"{stem}{suffix}").write_bytes(data)
    return f"{below}/{stem}{suffix}"


def _notes(masks: Sequence[WrittenMask]) -> list[str]:
    """Which masks were left out, and why."""
    notes = []
    why = Counter(each.why for each in masks if each.why)
    if why:
        shown = "; ".join(f"{reason} ({count})" for reason, count in why.most_common(_SHOWN))
        notes.append(f"{sum(why.values()):,} masks were left out: {shown}.")
    if without := sum(not each.files and each.why is None for each in masks):
        notes.append(f"{without:,} rows have no mask.")
    return notes


DICOM_SEG = Masks("dicom-seg", ["dicom"], ".seg.dcm")
RTSTRUCT = Masks("rtstruct", ["dicom"], ".rtstruct.dcm")
NIFTI = Masks("nifti", ["nifti", "dicom"], ".nii.gz")
