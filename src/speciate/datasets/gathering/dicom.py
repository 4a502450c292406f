"""A folder of DICOM files as hospitals send it, as series, whatever the files are called and wherever they lie.

Headers are read in sandboxed processes, several at a time and without pixels; dicom_headers.py decides from them. A
file that is not an image is excluded with the reason; a broken one stays in its series, which becomes partial by its
name.

Outlines and segmentations beside a series become cells of its column `mask` (`label_maps`). An RTSTRUCT or SEG file
belongs to the series that it names or, if it names none, to the only one in its frame of reference. Of several SEG
files of a series all are drawn, because each may hold one region; of several RTSTRUCT files the latest, because they
are states of one.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import pyarrow as pa
from pydantic import ValidationError

from speciate.datasets.gathering.dicom_headers import (
    DicomExample,
    DicomFiles,
    FileWithHeader,
    Header,
    group_into_examples,
    without_copies,
)
from speciate.datasets.sources.listing import ExcludedFile, Listing, SourceFile, with_splits
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import ServiceAnswer
from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.dicom import member_name, stack_of
from speciate.modalities.medical.dicom_elements import walk_elements
from speciate.modalities.medical.dicom_instances import NOT_IMAGES, decode_errors, instance_name, read_header, slices
from speciate.modalities.medical.dicom_regions import Scan, draw_regions, regions
from speciate.modalities.segmentation_masks import MASK, mask_cell

_HEADERS = "speciate.datasets.gathering.dicom_headers:read_headers"
_DIGESTS = "speciate.datasets.gathering.dicom_headers:digests"
_CHUNK = 256
"""Files per question to a process."""
_SECONDS = 300.0


_REGIONS = ("RTSTRUCT", "SEG")
_NO_NAME = re.compile(r"[^0-9A-Za-z.]")
_SERVICE = "speciate.datasets.gathering.dicom:read_regions"


class RegionsRequest(TypedDict):
    scan: list[str]
    """Paths of its instances."""
    of: list[str]
    """Paths of annotations."""


class RegionsAnswer(TypedDict):
    cell: str | None
    unused: list[tuple[str, str]]
    """Path and reason."""


class _SortedFiles(NamedTuple):
    known: list[FileWithHeader]
    annotations: list[FileWithHeader]
    whole: list[SourceFile]
    """Bundles, which are examples already."""
    excluded: list[ExcludedFile]
    whose: dict[str, dict[str, str]]
    """Name of a file -> its patient, study and series."""
    named: set[str]
    """Names of files that name a patient and may be excluded."""


_NAMED = (
    "{count:,} refused DICOM files hold, or may hold, names or ids of patients in clear. They are not in the dataset, "
    "so de-identification does not rewrite them: do not pass on the source folder."
)


def gather(found: Listing, context: SourceContext) -> Listing:
    """The listing with an entry for each volume or image.

    A listing without any is left as it is: each of its files then reports its own fault.
    """
    known, annotations, whole, excluded, whose, named = _sort_files(found, context)
    known, twice = without_copies(_with_digests(known, found, context))
    excluded += [ExcludedFile(each.file.name, f"A copy of {each.of.name!r}.") for each in twice]
    made, without = _examples_with_images(group_into_examples(known))
    excluded += without
    if not made and not whole:
        return found
    files = _source_files(found, made)
    headers = [each.files[0].header for each in made]
    scans = [AnnotatedScan(file, of.series, of.frame_of_reference) for file, of in zip(files, headers, strict=True)]
    listing = found._replace(
        files=with_splits(sorted([*whole, *files], key=lambda file: file.name), "media"),
        excluded=[*found.excluded, *sorted(excluded)],
        notes=(*found.notes, *_notes(made)),
    )
    listing = with_masks(listing, scans, annotations, context)
    inside = len(whole) + sum(len(each.files) for each in made)
    count = sum(item.name in named for item in listing.excluded)
    return listing._replace(
        known={item.name: whose[item.name] for item in listing.excluded if item.name in whose},
        notes=(*listing.notes, *_account(listing, inside, annotations)),
        remarks=(*listing.remarks, *([_NAMED.format(count=count)] if count else [])),
    )


def _account(listing: Listing, inside: int, annotations: Sequence[FileWithHeader]) -> tuple[str, ...]:
    """Counts every file by its destination, so that the sender can check."""
    excluded = {item.name for item in listing.excluded}
    regions = sum(each.file.name not in excluded for each in annotations)
    if not excluded and not regions:
        return ()
    total = inside + regions + len(excluded)
    of_regions = f", {regions:,} hold their regions" if regions else ""
    return (f"Of {total:,} files {inside:,} are in examples{of_regions} and {len(excluded):,} are excluded.",)


def _sort_files(found: Listing, context: SourceContext) -> _SortedFiles:
    known, annotations, whole = list[FileWithHeader](), list[FileWithHeader](), list[SourceFile]()
    excluded, whose, named = list[ExcludedFile](), dict[str, dict[str, str]](), set[str]()
    for file, answer in zip(
        found.files, _ask_about_files(_HEADERS, "headers", found.files, found, context), strict=True
    ):
        if isinstance(answer, str):
            excluded.append(ExcludedFile(file.name, answer))
        elif answer["kind"] == "bundle":
            whole.append(file)
        elif answer["kind"] == "none":
            excluded.append(ExcludedFile(file.name, str(answer["reason"])))
            named |= {file.name} if answer.get("named") is True else set()
        else:
            header = _header(answer)
            named |= {file.name} if header.named else set()
            whose[file.name] = _columns_of(header)
            if header.modality in _REGIONS:
                annotations.append(FileWithHeader(file, header))
            elif header.modality in NOT_IMAGES:
                reason = f"A DICOM file that is no image: {NOT_IMAGES[header.modality]} ({header.modality})."
                excluded.append(ExcludedFile(file.name, reason))
            else:
                known.append(FileWithHeader(file, header))
    return _SortedFiles(known, annotations, whole, excluded, whose, named)


def _columns_of(header: Header) -> dict[str, str]:
    """The columns that tell whose an excluded file is."""
    columns = {"patient": header.patient, "study": header.study, "series": header.series}
    return {name: value for name, value in columns.items() if value}


def _with_digests(known: Sequence[FileWithHeader], found: Listing, context: SourceContext) -> list[FileWithHeader]:
    """Digests of files that claim to be the same instance; only their bytes are compared."""
    times = Counter(each.header.instance for each in known)
    same = [each for each in known if times[each.header.instance] > 1 and each.header.instance]
    answers = _ask_about_files(_DIGESTS, "digests", [each.file for each in same], found, context)
    digests = {each.file.name: str(answer) for each, answer in zip(same, answers, strict=True)}
    return [each._replace(digest=digests.get(each.file.name, "")) for each in known]


def _ask_about_files(
    service: str, key: str, files: Sequence[SourceFile], found: Listing, context: SourceContext
) -> list[Any]:
    """An answer for each file, in order; a sentence if its process failed."""
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]

    def ask(chunk: Sequence[SourceFile]) -> list[Any]:
        payload = DicomFiles(paths=[str(file.path) for file in chunk])
        try:
            answers = context.pool.ask(service, payload, _SECONDS, readable=found.readable)[key]
            if isinstance(answers, list) and len(answers) == len(chunk):
                return answers
            reason = "The process that reads headers gave an answer that cannot be read."
        except SpeciateError as error:
            reason = f"The reader of headers failed on this file: {error.message}"
        if len(chunk) > 1:  # one of them is at fault
            return [answer for file in chunk for answer in ask([file])]
        return [reason]

    with ThreadPoolExecutor(max(1, context.pool.size), thread_name_prefix="headers") as threads:
        return [answer for answers in threads.map(ask, chunks) for answer in answers]


def _examples_with_images(found: Sequence[DicomExample]) -> tuple[list[DicomExample], list[ExcludedFile]]:
    """Examples with at least one image; the files of the others are excluded."""
    made = [each for each in found if any(known.header.kind == "image" for known in each.files)]
    excluded = [
        ExcludedFile(known.file.name, f"A DICOM file without an image ({known.header.modality or 'of no modality'}).")
        for each in found
        if all(known.header.kind != "image" for known in each.files)
        for known in each.files
    ]
    return made, excluded


def _source_files(found: Listing, made: Sequence[DicomExample]) -> list[SourceFile]:
    """Names are the folder that the files share and the identifier of their series."""
    shared = {id(each): _folder([known.file.name for known in each.files]) for each in made}
    per_series = Counter(_key(each) for each in made)
    per_folder = Counter(shared[id(each)] for each in made)
    ambiguous = _ambiguous(made)
    taken: set[str] = set()
    files: list[SourceFile] = []
    for each in made:
        first, header = each.files[0].file, each.files[0].header
        within = _within(header, ambiguous)
        alone = header.series and per_series[_key(each)] == 1
        also = (header.series,) if alone else ()
        within = within if alone or not header.series else (header.series, *within)
        if len(each.files) == 1:
            files.append(first._replace(also=(*also, header.instance), within=within))
            taken.add(first.name)
            continue
        folder = shared[id(each)]
        leaf = _NO_NAME.sub("_", header.series) + (f" ({each.what.replace('/', ' ')})" if each.what else "")
        name = _free("/".join(filter(None, (folder, leaf))), taken)
        path = found.source / folder if per_folder[folder] == 1 and (found.source / folder).is_dir() else first.path
        parts = tuple((member_name(number), known.file.path) for number, known in enumerate(each.files, 1))
        files.append(SourceFile(path, name, None, None, parts, also, within))
    return files


def _within(header: Header, ambiguous: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    """The names by which labels may name all of its study or patient, the finest first."""
    coarse = (("study", header.study), ("accession", header.accession), ("patient_id", header.patient_id),
              ("patient", header.patient))  # fmt: skip
    return tuple(dict.fromkeys(value for kind, value in coarse if value and (kind, value) not in ambiguous))


def _ambiguous(made: Sequence[DicomExample]) -> frozenset[tuple[str, str]]:
    """Accession numbers of several studies and ids of several patients (of two hospitals): they identify nothing."""
    of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in made:
        header = each.files[0].header
        of["accession", header.accession].add(header.study)
        of["patient_id", header.patient_id].add(header.patient)
    return frozenset(key for key, values in of.items() if len(values) > 1)


def _key(each: DicomExample) -> tuple[str, str, str]:
    header = each.files[0].header
    return header.patient, header.study, header.series


def _folder(names: Sequence[str]) -> str:
    """The folder that all share; empty if it is the source."""
    return os.path.commonpath([os.path.dirname(name) for name in names])


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} {number}"
    taken.add(free)
    return free


def _header(answer: Any) -> Header:
    """Raises REFUSED for an invalid answer: it comes from a process that met foreign bytes."""
    try:
        return Header.model_validate(answer)
    except ValidationError as error:
        raise SpeciateError(
            Code.REFUSED,
            "A process that reads headers gave an answer that cannot be read.",
            "Call create_dataset again.",
        ) from error


def _notes(made: Sequence[DicomExample]) -> tuple[str, ...]:
    files = sum(len(each.files) for each in made)
    patients = len({each.files[0].header.patient for each in made})
    notes = [f"{files:,} DICOM files are {len(made):,} examples of {patients:,} patients."]
    if apart := sum(bool(each.what) and not each.what.startswith("instance") for each in made):
        notes.append(f"{apart:,} of them are parts of a series that are volumes of their own, such as localizers.")
    return tuple(notes)


class AnnotatedScan(NamedTuple):
    """An example that regions may be drawn on."""

    file: SourceFile
    series: str
    frame_of_reference: str


def with_masks(
    found: Listing, scans: Sequence[AnnotatedScan], annotations: Sequence[FileWithHeader], context: SourceContext
) -> Listing:
    """The listing with the column, if there are annotations; those that do not fit their scan are excluded."""
    if not annotations:
        return found
    matched, excluded = _match_annotations(scans, annotations)
    files = list(matched)
    with ThreadPoolExecutor(max(1, context.pool.size)) as threads:
        answers = list(threads.map(lambda name: _ask_for_regions(found, name, matched[name], context), files))
    cells: dict[str, str] = {}
    for name, answer in zip(files, answers, strict=True):
        if answer["cell"] is not None:
            cells[name] = str(answer["cell"])
        by_path = {str(each.file.path): each.file for each in matched[name]}
        excluded += [ExcludedFile(by_path[path].name, str(why)) for path, why in answer["unused"] if path in by_path]
    column = pa.table({MASK: pa.array([cells.get(file.name) for file in found.files], pa.string())})
    note = f"{len(cells):,} examples have regions in the column {MASK!r}."
    return found._replace(
        labels=column if cells else found.labels,
        excluded=[*found.excluded, *sorted(excluded)],
        notes=(*found.notes, note),
    )


def _match_annotations(
    scans: Sequence[AnnotatedScan], annotations: Sequence[FileWithHeader]
) -> tuple[dict[str, list[FileWithHeader]], list[ExcludedFile]]:
    """Name of an example -> its annotations."""
    by_series: dict[str, list[AnnotatedScan]] = defaultdict(list)
    by_frame: dict[str, list[AnnotatedScan]] = defaultdict(list)
    for scan in scans:
        by_series[scan.series].append(scan)
        by_frame[scan.frame_of_reference].append(scan)
    matched: dict[str, list[FileWithHeader]] = defaultdict(list)
    excluded: list[ExcludedFile] = []
    for each in sorted(annotations, key=lambda each: each.header.when, reverse=True):
        header = each.header
        of = [scan for uid in header.of_series for scan in by_series.get(uid, ())]
        if not of and not header.of_series and header.frame_of_reference:
            of = by_frame.get(header.frame_of_reference, [])
        if len(of) != 1:
            why = f"{len(of)} examples here are what they may be of" if of else "their scan is not here"
            excluded.append(ExcludedFile(each.file.name, f"Regions that are not used: {why}."))
        elif _has_outlines(each) and any(map(_has_outlines, matched[of[0].file.name])):
            excluded.append(ExcludedFile(each.file.name, "Outlines of which there is a later state."))
        else:
            matched[of[0].file.name].append(each)
    return {name: found for name, found in matched.items() if found}, excluded


def _has_outlines(annotation: FileWithHeader) -> bool:
    return annotation.header.modality == "RTSTRUCT"


def _ask_for_regions(
    found: Listing, name: str, annotations: Sequence[FileWithHeader], context: SourceContext
) -> ServiceAnswer | RegionsAnswer:
    scan = next(file for file in found.files if file.name == name)
    paths = [str(path) for _, path in scan.parts] or [str(scan.path)]
    drawn_on = [str(each.file.path) for each in annotations]
    try:
        request = RegionsRequest(scan=paths, of=drawn_on)
        return context.pool.ask(_SERVICE, request, _SECONDS, readable=found.readable)
    except SpeciateError as error:
        return {"cell": None, "unused": [(path, f"Regions that cannot be read: {error.message}") for path in drawn_on]}


def read_regions(payload: RegionsRequest) -> RegionsAnswer:
    """The service."""
    try:
        scan = _scan(payload["scan"])
    except DecodeError as error:
        why = f"Regions that are not used: their scan is no volume ({error.detail})"
        return {"cell": None, "unused": [(path, why) for path in payload["of"]]}
    found, unused = [], list[tuple[str, str]]()
    for path in payload["of"]:
        try:
            found += regions(_whole(path), scan)
        except DecodeError as error:
            unused.append((path, f"Regions that are not used: {error.detail}"))
    if not found:
        return {"cell": None, "unused": unused}
    try:
        shown = draw_regions(found, scan)
    except DecodeError as error:
        return {
            "cell": None,
            "unused": [(path, f"Regions that are not used: {error.detail}") for path in payload["of"]],
        }
    return {"cell": mask_cell(shown.labels, shown.names), "unused": unused}


def _scan(paths: Sequence[str]) -> Scan:
    placed = []
    for path in paths:
        with Path(path).open("rb") as file:
            dataset = read_header(file)
        with decode_errors(""):
            placed += slices(dataset, instance_name(dataset))
    return Scan.of(placed, stack_of(placed, len(paths)))


def _whole(path: str) -> Any:
    import pydicom

    walk_elements(Path(path).read_bytes())  # what ends early is no whole drawing
    with decode_errors(""):
        return pydicom.dcmread(path, force=True)
