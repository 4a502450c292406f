"""Which files are one mixed row together, by their names alone. Pure.

Four layouts are known, and the one in which most files find company is taken:

    0001.png 0001.txt 0001.wav                   files that share all but their suffix: parts called by modality
    images/0001.png reports/0001.txt             a folder for each part, the same names in all: parts called as these
    0001/scan.nii.gz 0001/report.txt             a folder for each example: parts called as the files in it
    0001/a83.png 0001/b17.txt                    the same where names in it have nothing in common: by modality

A folder within an example's is one part of several files. A name such as `scan.dicom.zip` or `report.text` says itself
of which modality the part is.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from speciate.modalities.multimodal import MOST_PARTS, PartName, part_name

_SAME_MODALITY = 0.95
"""So many files of a part must be of one modality: a few may be damaged or misnamed."""
_UNLIKE = re.compile(r"[^\w-]+")
_DIVIDERS = " _-."


class NamedFile(NamedTuple):
    """A file as a layout sees it."""

    place: int
    """Place of the file in the listing."""
    folders: tuple[str, ...]
    """Below those that all files share and those that are splits."""
    name: str
    modality: str | None
    """None if none reads it."""
    split: str = ""
    """Files of several splits are never one example."""


class Row(NamedTuple):
    """The files of one example."""

    key: tuple[str, ...]
    """Folders and name, by which it is called."""
    parts: dict[PartName, list[int]]
    """The places of each part's files: several where the part is a folder."""
    is_folder: bool
    """Whether `key` is a folder."""


class GroupedFiles(NamedTuple):
    rows: list[Row]
    left: list[int]
    """Places of files that belong to no example."""
    how: str
    """For people."""


class _Member(NamedTuple):
    key: tuple[str, ...]
    part: str
    """Name that the part would get; several files of one part share it."""
    file: NamedFile
    in_folder: bool = False
    """Whether the part is a folder of files."""


class _Layout(NamedTuple):
    how: str
    members: list[_Member]
    is_folder: bool
    by_modality: bool
    """Whether parts are called by their modality, not by `part`."""


def group_files(files: Sequence[NamedFile]) -> GroupedFiles | None:
    """None if no two files belong together."""
    found = [each for each in map(_rows, _layouts(files)) if each is not None]
    best = max(found, key=_worth, default=None)
    if best is None or not _worth(best)[0]:
        return None
    taken = {place for row in best.rows for places in row.parts.values() for place in places}
    return best._replace(left=[file.place for file in files if file.place not in taken])


def group_by_folder(files: Sequence[NamedFile]) -> GroupedFiles:
    """The groups of our own exports, where each example is a folder."""
    members = []
    for file in files:
        folders, part, inside = file.folders, stem(file.name), False
        if folders and part_name(folders[-1]):
            folders, part, inside = folders[:-1], folders[-1], True
        members.append(_Member(folders, part, file, inside))
    return _group_by_layout(files, _Layout("a folder for each example", members, is_folder=True, by_modality=False))


def group_by_key(files: Sequence[NamedFile]) -> GroupedFiles:
    """The groups of our own shards: the name up to the first dot is the example's, the rest the part's."""
    members = []
    for file in files:
        key, _, rest = file.name.partition(".")
        members.append(_Member((*file.folders, key), stem(rest), file))
    return _group_by_layout(files, _Layout("keys", members, is_folder=False, by_modality=False))


def _group_by_layout(files: Sequence[NamedFile], layout: _Layout) -> GroupedFiles:
    rows = _rows_of_layout(layout, {})
    taken = {place for row in rows for places in row.parts.values() for place in places}
    return GroupedFiles(rows, [file.place for file in files if file.place not in taken], layout.how)


def stem(name: str) -> str:
    """A file's name without its suffix, of which `.gz` is a part."""
    base = name[:-3] if name.lower().endswith(".gz") else name
    return base.rpartition(".")[0] or base


def suffix(name: str) -> str:
    return name[len(stem(name)) :].lower()


def _layouts(files: Sequence[NamedFile]) -> Iterable[_Layout]:
    deepest = max((len(file.folders) for file in files), default=0)
    beside = [_Member((*file.folders, stem(file.name)), file.modality, file) for file in files if file.modality]
    yield _Layout("files that share their name", beside, is_folder=False, by_modality=True)
    for depth in range(deepest):
        below = [file for file in files if len(file.folders) > depth and file.modality]
        yield _Layout(
            "a folder for each part",
            [
                _Member(
                    (*file.folders[:depth], *file.folders[depth + 1 :], stem(file.name)), file.folders[depth], file
                )
                for file in below
            ],
            is_folder=False,
            by_modality=False,
        )  # fmt: skip
    for depth in range(deepest):
        inside = [_in_folder(file, depth) for file in files if len(file.folders) > depth]
        yield _Layout("a folder for each example", inside, is_folder=True, by_modality=False)
        yield _Layout("a folder for each example", inside, is_folder=True, by_modality=True)


def _in_folder(file: NamedFile, depth: int) -> _Member:
    key = file.folders[: depth + 1]
    if len(file.folders) > depth + 1:
        return _Member(key, file.folders[depth + 1], file, in_folder=True)
    part = stem(file.name)
    short = part.replace(key[-1], "", 1).strip(_DIVIDERS) if part.startswith(key[-1]) else part
    return _Member(key, short, file)


def _rows(layout: _Layout) -> GroupedFiles | None:
    """None if the names do not fit: most parts occur in one example only, or are of several modalities."""
    members = layout.members
    if not members:
        return None
    modalities: dict[str, str] = {}
    if not layout.by_modality:
        seen: dict[str, list[_Member]] = defaultdict(list)
        for member in members:
            seen[member.part].append(member)
        for part, of_it in seen.items():
            modality = _modality(of_it)
            if modality is None:
                return None
            modalities[part] = modality
    rows = _rows_of_layout(layout, modalities)
    counts = Counter(part for row in rows for part in row.parts)
    once = sum(count == 1 for count in counts.values())
    if not rows or len(counts) > MOST_PARTS or (len(rows) > 1 and 2 * once > len(counts)):
        return None
    return GroupedFiles(rows, [], layout.how)


def _modality(members: Sequence[_Member]) -> str | None:
    """The modality of the files of one part, empty if none reads them; None if there are several.

    A folder of several files may hold companions of its medium: images and texts beside the mesh or the series.
    """
    if named := part_name(members[0].part):
        return named.modality
    counts = Counter(member.file.modality for member in members if member.file.modality)
    if any(member.in_folder for member in members):
        counts = Counter({name: n for name, n in counts.items() if name not in ("image", "text")}) or counts
        return counts.most_common(1)[0][0] if counts else ""
    if not counts:
        return ""
    first, count = counts.most_common(1)[0]
    return first if count >= _SAME_MODALITY * len(members) else None


def _rows_of_layout(layout: _Layout, modalities: dict[str, str]) -> list[Row]:
    keyed: dict[tuple[str, tuple[str, ...]], list[_Member]] = defaultdict(list)
    for member in layout.members:
        keyed[member.file.split, member.key].append(member)
    name: Callable[[Sequence[_Member]], dict[PartName, list[int]] | None]
    name = _by_modality if layout.by_modality else lambda members: _by_part(members, modalities)
    rows = []
    for split, key in sorted(keyed):
        parts = name(keyed[split, key])
        if parts is None:
            return []
        if parts:
            rows.append(Row(key, dict(sorted(parts.items())), layout.is_folder))
    return rows


def _by_part(members: Sequence[_Member], modalities: dict[str, str]) -> dict[PartName, list[int]] | None:
    """None where two files would be the same part."""
    parts: dict[PartName, list[int]] = defaultdict(list)
    for member in members:
        named = part_name(member.part)
        modality = named.modality if named else modalities.get(member.part) or member.file.modality
        if not modality:
            continue
        own = named.own if named else _UNLIKE.sub("_", member.part)[:40] or modality
        part = PartName(own, modality)
        if part in parts and not member.in_folder:
            return None
        parts[part].append(member.file.place)
    return dict(parts) if len({part.own for part in parts}) == len(parts) else None


def _by_modality(members: Sequence[_Member]) -> dict[PartName, list[int]] | None:
    """The first part of a modality has its name, the next is `image_2`. None if a part would have several files."""
    parts: dict[PartName, list[int]] = {}
    counts = Counter[str]()
    for member in sorted(members, key=lambda member: member.file.name):
        modality = member.file.modality
        if member.in_folder:
            return None
        if modality:
            counts[modality] += 1
            own = modality if counts[modality] == 1 else f"{modality}_{counts[modality]}"
            parts[PartName(own, modality)] = [member.file.place]
    return parts


def _worth(found: GroupedFiles) -> tuple[int, int, int]:
    """How many files have company, in how many rows, and how few parts explain it. The first of equals wins."""
    together = sum(sum(map(len, row.parts.values())) for row in found.rows if len(row.parts) > 1)
    return together, len(found.rows), -len({part for row in found.rows for part in row.parts})
