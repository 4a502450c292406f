"""Which DICOM files are one example together, from what their headers say: pure.

Slices of one series are one volume. What does not fit into it by its nature is an example of its own: localizers and
slices in another orientation, further volumes in the same positions (echoes, phases, times), films, and pictures that
are no slices. What does not fit by mistake stays in, so that decoding names it: a series is never mended in silence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from speciate.datasets.sources.gathering.dicom_headers import STACKS
from speciate.datasets.sources.listing import SourceFile
from speciate.modalities.scans.dicom_geometry import orientations

_SLICED = ("CT", "MR", "PT", "NM")
"""Modalities whose single frames are slices, so that one without a position is a mistake."""
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_STACK_NAMES = dict(zip(STACKS, ("time", "acquisition", "echo", "b-value", "trigger", "at", "type"), strict=True))


@dataclass(frozen=True)
class Header:
    """Of one file (dicom_headers.py)."""

    kind: str
    storage: str
    modality: str
    patient: str
    patient_id: str
    study: str
    series: str
    accession: str
    instance: str
    frame_of_reference: str
    number: float | None
    localizer: bool
    frames: int
    position: Sequence[float] | None
    orientation: Sequence[float] | None
    stacks: Sequence[str]


class Annotation(NamedTuple):
    """A file of outlines or of a segmentation."""

    file: SourceFile
    modality: str
    of_series: tuple[str, ...]
    """UIDs of the series that it names."""
    frame_of_reference: str
    when: str
    """Date and time, as text that sorts."""


class Known(NamedTuple):
    file: SourceFile
    header: Header
    digest: str = ""
    """Of its bytes, where another file says that it is the same instance."""


class Example(NamedTuple):
    files: list[Known]
    """In an order that is independent of their names."""
    what: str = ""
    """Why it is not all of its series: `localizer`, `echo 2`; empty where it is what the series is about."""


class Twice(NamedTuple):
    file: SourceFile
    of: SourceFile


def without_copies(files: Sequence[Known]) -> tuple[list[Known], list[Twice]]:
    """The same instance in files of the same bytes is one: the one whose name comes first stays."""
    seen: dict[tuple[str, str], SourceFile] = {}
    kept: list[Known] = []
    twice: list[Twice] = []
    for known in sorted(files, key=lambda each: each.file.name):
        key = (known.header.instance, known.digest)
        if known.digest and known.header.instance and key in seen:
            twice.append(Twice(known.file, seen[key]))
        else:
            seen[key] = known.file
            kept.append(known)
    return kept, twice


def examples(files: Iterable[Known]) -> list[Example]:
    """Of all series, in the order of patients, studies and series. A file that is no picture belongs to its series
    where that has pictures: it broke off."""
    series: dict[tuple[str, str, str], list[Known]] = defaultdict(list)
    for known in files:
        series[known.header.patient, known.header.study, known.header.series].append(known)
    found: list[Example] = []
    for (_, _, uid), members in sorted(series.items()):
        ordered = sorted(members, key=_order)
        found += _of_series(ordered) if uid else [Example([each]) for each in ordered]
    return found


def _order(known: Known) -> tuple[bool, float, str, str]:
    header = known.header
    return header.number is None, header.number or 0.0, header.instance, known.digest


def _of_series(members: Sequence[Known]) -> list[Example]:
    alone = [each for each in members if not _is_slice(each.header)]
    slices = [each for each in members if _is_slice(each.header)]
    made = [Example([each], "" if len(members) == 1 else _numbered(each)) for each in alone]
    localizers = [each for each in slices if each.header.localizer]
    groups = [("", group) for group in _by_orientation([each for each in slices if not each.header.localizer])]
    groups += [("localizer", group) for group in _by_orientation(localizers)]
    for place, (what, group) in enumerate(groups):
        name = what if len(groups) == 1 or place == 0 else what or "other orientation"
        same = sum((other or "other orientation") == name for other, _ in groups[1:place])
        name = f"{name} {same + 1}" if same else name
        made += [Example(stack, " ".join(filter(None, (name, told)))) for told, stack in _stacks(group)]
    return made


def _is_slice(header: Header) -> bool:
    if header.kind != "image":
        return True
    if header.frames > 1 or header.storage == _CAPTURE:
        return False
    return header.modality in _SLICED or (header.position is not None and header.orientation is not None)


def _numbered(known: Known) -> str:
    number = known.header.number
    return f"instance {number:g}" if number is not None else f"instance {known.header.instance}"


def _by_orientation(slices: Sequence[Known]) -> list[list[Known]]:
    """The largest first. Slices without an orientation stay with it: they lack what they should have."""
    turned = [each for each in slices if each.header.orientation is not None]
    lost = [each for each in slices if each.header.orientation is None]
    kinds = orientations([each.header.orientation for each in turned])
    counts = Counter(kinds)
    groups = [
        [each for each, kind in zip(turned, kinds, strict=True) if kind == one]
        for one in sorted(counts, key=lambda one: (-counts[one], one))
    ]
    if not groups:
        return [lost] if lost else []
    groups[0] = sorted(groups[0] + lost, key=_order)
    return groups


def _stacks(slices: Sequence[Known]) -> list[tuple[str, list[Known]]]:
    """Several volumes in the same positions, told apart by the first element that does so for all of them."""
    times = Counter(each.header.position for each in slices if each.header.position is not None)
    if min(times.values(), default=1) < 2 or len(set(times.values())) != 1 or sum(times.values()) != len(slices):
        return [("", list(slices))]
    for place, keyword in enumerate(STACKS):
        apart: dict[str, list[Known]] = defaultdict(list)
        for each in slices:
            apart[each.header.stacks[place]].append(each)
        if len(apart) == next(iter(times.values())) and all(_each_once(group) for group in apart.values()):
            return [(f"{_STACK_NAMES[keyword]} {value}", apart[value]) for value in sorted(apart)]
    return [("", list(slices))]


def _each_once(slices: Sequence[Known]) -> bool:
    return len({each.header.position for each in slices}) == len(slices)
