"""Outlines and segmentations that lie beside DICOM series, as cells of a column `mask` (see `label_maps`), read
in caged processes.

An RTSTRUCT or SEG file belongs to the series that it names or, where it names none, to the only one in its frame of
reference. Of several SEG files of a series all are drawn, for each may hold one region; of several RTSTRUCT files the
latest, for they are states of one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.sources.gathering.dicom_tree import Annotation
from speciate.datasets.sources.listing import Listing, SourceFile
from speciate.datasets.sources.unpacking import Desk
from speciate.datasets.sources.walk import SetAside
from speciate.errors import SpeciateError
from speciate.modalities.contract import DecodeError
from speciate.modalities.scans.dicom import stack_of
from speciate.modalities.scans.dicom_elements import walked
from speciate.modalities.scans.dicom_instances import header, named, quiet, slices
from speciate.modalities.scans.dicom_regions import Scan, drawn, regions
from speciate.modalities.scans.label_maps import MASK, mask_cell

_SERVICE = "speciate.datasets.sources.gathering.dicom_masks:read_regions"
_SECONDS = 300.0


class Scanned(NamedTuple):
    """An example that regions may be drawn on."""

    file: SourceFile
    series: str
    frame_of_reference: str


def with_masks(found: Listing, scans: Sequence[Scanned], annotations: Sequence[Annotation], desk: Desk) -> Listing:
    """The listing with the column, where there are annotations; those that do not fit their scan are set aside."""
    if not annotations:
        return found
    matched, aside = _matched(scans, annotations)
    files = list(matched)
    with ThreadPoolExecutor(max(1, desk.pool.size)) as threads:
        answers = list(threads.map(lambda name: _ask(found, name, matched[name], desk), files))
    cells: dict[str, str] = {}
    for name, answer in zip(files, answers, strict=True):
        if answer["cell"] is not None:
            cells[name] = str(answer["cell"])
        by_path = {str(each.file.path): each.file for each in matched[name]}
        aside += [SetAside(by_path[path].name, str(why)) for path, why in answer["unused"] if path in by_path]
    column = pa.table({MASK: pa.array([cells.get(file.name) for file in found.files], pa.string())})
    note = f"{len(cells):,} examples have regions in the column {MASK!r}."
    return found._replace(
        labels=column if cells else found.labels,
        set_aside=[*found.set_aside, *sorted(aside)],
        notes=(*found.notes, note),
    )


def _matched(
    scans: Sequence[Scanned], annotations: Sequence[Annotation]
) -> tuple[dict[str, list[Annotation]], list[SetAside]]:
    """Name of an example -> its annotations."""
    by_series: dict[str, list[Scanned]] = defaultdict(list)
    by_frame: dict[str, list[Scanned]] = defaultdict(list)
    for scan in scans:
        by_series[scan.series].append(scan)
        by_frame[scan.frame_of_reference].append(scan)
    matched: dict[str, list[Annotation]] = defaultdict(list)
    aside: list[SetAside] = []
    for each in sorted(annotations, key=lambda each: each.when, reverse=True):
        of = [scan for uid in each.of_series for scan in by_series.get(uid, ())]
        if not of and not each.of_series and each.frame_of_reference:
            of = by_frame.get(each.frame_of_reference, [])
        if len(of) != 1:
            why = f"{len(of)} examples here are what they may be of" if of else "their scan is not here"
            aside.append(SetAside(each.file.name, f"Regions that are not used: {why}."))
        elif each.modality == "RTSTRUCT" and any(other.modality == "RTSTRUCT" for other in matched[of[0].file.name]):
            aside.append(SetAside(each.file.name, "Outlines of which there is a later state."))
        else:
            matched[of[0].file.name].append(each)
    return {name: found for name, found in matched.items() if found}, aside


def _ask(found: Listing, name: str, annotations: Sequence[Annotation], desk: Desk) -> dict[str, Any]:
    scan = next(file for file in found.files if file.name == name)
    paths = [str(path) for _, path in scan.parts] or [str(scan.path)]
    drawn_on = [str(each.file.path) for each in annotations]
    try:
        return desk.pool.ask(_SERVICE, {"scan": paths, "of": drawn_on}, _SECONDS, readable=found.readable)
    except SpeciateError as error:
        return {"cell": None, "unused": [[path, f"Regions that cannot be read: {error.message}"] for path in drawn_on]}


# In the caged process


def read_regions(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: `{scan: paths of its instances, of: paths of annotations}` -> `{cell, unused: [[path, reason]]}`."""
    try:
        scan = _scan(payload["scan"])
    except DecodeError as error:
        why = f"Regions that are not used: their scan is no volume ({error.detail})"
        return {"cell": None, "unused": [[path, why] for path in payload["of"]]}
    found, unused = [], []
    for path in payload["of"]:
        try:
            found += regions(_whole(path), scan)
        except DecodeError as error:
            unused.append([path, f"Regions that are not used: {error.detail}"])
    if not found:
        return {"cell": None, "unused": unused}
    try:
        shown = drawn(found, scan)
    except DecodeError as error:
        return {
            "cell": None,
            "unused": [[path, f"Regions that are not used: {error.detail}"] for path in payload["of"]],
        }
    return {"cell": mask_cell(shown.labels, shown.names), "unused": unused}


def _scan(paths: Sequence[str]) -> Scan:
    placed = []
    for path in paths:
        with Path(path).open("rb") as file:
            dataset = header(file)
        with quiet(""):
            placed += slices(dataset, named(dataset))
    return Scan.of(placed, stack_of(placed, len(paths)))


def _whole(path: str) -> Any:
    import pydicom

    walked(Path(path).read_bytes())  # what ends early is no whole drawing
    with quiet(""):
        return pydicom.dcmread(path, force=True)
