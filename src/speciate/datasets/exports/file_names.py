"""File names from foreign text: safe on every system, in a shell and in a spreadsheet; Unicode stays. Pure.

`files_of` gives a mixed row as the files of its parts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from speciate.datasets.sources.listing import modality_of
from speciate.modalities import find
from speciate.modalities.bundles import bundle, members_of
from speciate.modalities.multimodal import MISSING, MULTIMODAL, PartName, part_name

_LONGEST = 180
"""Bytes of UTF-8: file systems take 255, and a counter or a suffix may be added."""
_LONGEST_SUFFIX = 16
# Reserved on one system or another; control, direction and invisible characters; halves of surrogate pairs.
_RESERVED = re.compile(
    '[<>:"/\\\\|?*\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\U000e0000-\U000e007f\ud800-\udfff]'
)
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_PASSED_OVER = re.compile(r"(?i)(readme|license|licence|copying|notice)(\..*)?|metadata\.\w+")
"""Names that a reader of folders does not take for examples."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,15}$")

# First bytes -> suffix, of media whose name lost theirs (a row of a table has none).
_MAGIC = (
    (b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"), (b"\xff\xfb", ".mp3"),
    (b"\x1a\x45\xdf\xa3", ".mkv"),
)  # fmt: skip
_RIFF = {b"WEBP": ".webp", b"WAVE": ".wav", b"AVI ": ".avi"}
_PART_MAGIC = ((b"\x1f\x8b", ".nii.gz"), (b"ply", ".ply"), (b"glTF", ".glb"), (b"solid", ".stl"))
SUFFIX = MULTIMODAL.suffixes[0]


def safe_name(text: str) -> str:
    """One component of a path: never empty, hidden, `..`, a device, nor what a spreadsheet takes for a formula."""
    name = _RESERVED.sub("_", unicodedata.normalize("NFC", text)).strip(" .")
    name = _cut(name, _LONGEST).rstrip(" .")
    if not name or name[0] in "=+-@~" or name.startswith("__") or _DEVICES.fullmatch(name):
        name = f"_{name.lstrip('_=+-@~')}"
    return f"_{name}" if _PASSED_OVER.fullmatch(name) else name


def file_name(source: str, suffixes: tuple[str, ...], head: Callable[[], bytes]) -> str:
    """A file name from where a medium came (`photos/cat.png`, `table.parquet#12`), with its own suffix where that is
    one of `suffixes`, else with one that fits its first bytes, which `head` reads."""
    path, _, row = source.partition("#")
    base = path.rpartition("/")[2]
    stem, suffix = split_suffix(base)
    if row:
        stem, suffix = f"{stem}-{row}", ""
    if suffix.lower() not in suffixes:
        suffix = magic_suffix(head()) or suffix or (suffixes[0] if suffixes else ".bin")
    name = safe_name(stem) + suffix
    return f"_{name}" if _PASSED_OVER.fullmatch(name) else name


def split_suffix(name: str) -> tuple[str, str]:
    """(`cat`, `.png`); a suffix is short and plain, or none."""
    found = _SUFFIX.search(name)
    return (name[: found.start()], found[0]) if found and found.start() else (name, "")


def magic_suffix(head: bytes) -> str:
    """What the first 16 bytes say of the format; empty if they say nothing."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return ".m4a" if head[8:12] == b"M4A " else ".mp4"
    return next((suffix for magic, suffix in _MAGIC if head.startswith(magic)), "")


class UniqueNames:
    """Makes names unique within folders, also if a file system folds case."""

    def __init__(self) -> None:
        self._taken: dict[str, set[str]] = {}
        self._next: dict[tuple[str, str], int] = {}

    def claim(self, folder: str, name: str) -> str:
        """`name`, or `name-2` and so on if the folder has it already."""
        taken = self._taken.setdefault(_fold_case(folder), set())
        stem, suffix = split_suffix(name)
        key = (_fold_case(folder), _fold_case(name))
        chosen, number = name, self._next.get(key, 2)
        while _fold_case(chosen) in taken:
            chosen = f"{stem}-{number}{suffix}"
            number += 1
        self._next[key] = number
        taken.add(_fold_case(chosen))
        return chosen


def _fold_case(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _cut(text: str, longest: int) -> str:
    return text.encode()[:longest].decode(errors="ignore")


def files_of(data: bytes) -> dict[str, bytes]:
    """Name -> bytes of each part that is there: `scan.png`, `report.txt`; `series.dicom/0001.dcm` of several files.

    A name says the modality itself (`cloud.point-cloud.ply`) if the suffix would tell another one.
    """
    found: dict[str, bytes] = {}
    for member, file in members_of(data).items():
        head, _, rest = member.partition("/")
        part = part_name(head)
        if head == MISSING or part is None:
            continue
        found["/".join([head, *map(safe_name, rest.split("/"))]) if rest else _name(part, file)] = file
    return found


def as_single_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Parts of several files as one bundle each, for formats without folders within an example."""
    single = {name: file for name, file in files.items() if "/" not in name}
    for part in {name.partition("/")[0] for name in files if "/" in name}:
        inside = {name.partition("/")[2]: file for name, file in files.items() if name.startswith(f"{part}/")}
        single[part + SUFFIX] = bundle(inside)
    return dict(sorted(single.items()))


def _name(part: PartName, file: bytes) -> str:
    suffixes = find(part.modality).suffixes or (".bin",)
    known = next((suffix for magic, suffix in _PART_MAGIC if file.startswith(magic)), "") or magic_suffix(file[:16])
    suffix = known if known in suffixes else suffixes[0]
    short = f"{part.own}{suffix}"
    return short if modality_of(file[:4096], short) == part.modality else f"{part}{suffix}"
