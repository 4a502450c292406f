"""The files at a source: every file below a folder, excluded files with their reasons, and how the files are laid out.

Names, sizes and first bytes decide. No foreign file is opened for more than its first bytes, so this may run outside
the sandbox. A link is followed only to a file inside the folder: it must not widen what the caller may read. Folders
are not followed through links, so that none is walked twice.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from speciate import foreign_files, secrets
from speciate.datasets.readers.formats import LEAST_STEPS, Reader, format_of, is_recording, table_suffix
from speciate.errors import Call, Code, SpeciateError
from speciate.modalities import find, table
from speciate.modalities.medical.dicom_elements import looks_like_dicom

if TYPE_CHECKING:
    import pyarrow as pa

    from speciate.datasets.sources.labels import LabelsFile
    from speciate.datasets.sources.own_export import Marker


_SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_SPLIT_WORD = rf"({'|'.join(_SPLIT_NAMES)})"
_SPLIT_SUFFIX = re.compile(rf"(?:^|[_\-.]){_SPLIT_WORD}$", re.IGNORECASE)
_SPLIT_FOLDER = re.compile(rf"{_SPLIT_WORD}(?:\d{{4}})?", re.IGNORECASE)  # COCO says train2017
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_CARDS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_HEAD = 4096
_VOTERS = 200
ELSEWHERE = ("hf:", "pkg:", "gym:", "log:")
"""Prefixes of sources that are no paths: a hub, a package, reasoning-gym, the log of a use case."""
IN_TABLES = ("text", "tabular", "protein", "molecule", "time-series")
"""Modalities whose examples come in tables as often as in files of their own."""

Layout = Literal["table", "media"]
MOST_FILES = 5_000_000
_ABOUT = re.compile(
    r"(?i)(readme|licen[sc]e|copying|notice)(\.(md|markdown|mdown|rst|txt|text|html?|pdf|org|adoc|asciidoc|rtf|docx?|odt))?"
)
"""Files about the data, recognised with a text's suffix: `car/License.png` is an image of a class."""
_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class SourceFile(NamedTuple):
    path: Path
    name: str
    """Path below the source, with `/`; unique in a listing."""
    split: str | None
    """From a folder train/, test/ ... or a file name such as X_TRAIN.ts, where the source has several of them."""
    folder: str | None
    """The first folder below the source and its split: the class where label is `folder`."""
    parts: tuple[tuple[str, Path], ...] = ()
    """Where several files are one example: the name and the path of each, as they stand in its bundle
    (modalities/bundles.py). `path` is then the first of them, or the folder that they share."""
    also: tuple[str, ...] = ()
    """The file's other names in a table of labels, such as the identifier of a series."""
    within: tuple[str, ...] = ()
    """Names that it shares with others in a table of labels, the finest first: its study, its patient."""


class ExcludedFile(NamedTuple):
    r"""A file that is not read. `name` is below the source; bytes in it that are not UTF-8 are written as `\xff`."""

    name: str
    reason: str


class Listing(NamedTuple):
    source: Path
    """The root of all names."""
    layout: Layout
    modality: str
    """`auto` if only the cells of a table can tell."""
    files: list[SourceFile]
    readable: frozenset[Path]
    """Folders that a sandboxed process must be able to read: the source and unpacked archives."""
    reader: Reader = Reader()
    labels: pa.Table | None = None
    """Media: columns that were found beside them, a row per file in the order of `files`, null if none names it."""
    about: tuple[int, ...] | None = None
    """Which of `files` each row of `labels` is about, where several may be about parts of one."""
    excluded: list[ExcludedFile] = []  # noqa: RUF012 - never changed
    """Files that are not read, each with the reason."""
    known: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    """Name of an excluded file -> its columns that are known all the same, such as its patient: a purge finds it."""
    revision: str | None = None
    """For a source on a hub: the commit that was read."""
    marker: Marker | None = None
    """For an export of ours: which role each column plays."""
    notes: tuple[str, ...] = ()
    """Sentences for the report: how it was read, and which labels found no file. They quote foreign names."""
    join: LabelsFile | None = None
    """Tables: the file whose columns their rows get."""
    remarks: tuple[str, ...] = ()
    """Sentences for the report's warnings, such as how the source is understood and what would change that. They
    quote foreign names only where those are cleaned."""
    hint: str = ""
    """A sentence with a call that would read it otherwise, without foreign words; empty if there is none."""


def is_path(source: Path | str) -> bool:
    """Whether a source is a file or folder here, and none of ELSEWHERE."""
    return not str(source).startswith(ELSEWHERE)


def check_source(source: Path) -> int:
    """Refuse at once an empty or unreadable file, or an empty folder. Returns the bytes of a file."""
    try:
        if source.is_dir():
            if next(source.iterdir(), None) is None:
                raise SpeciateError(
                    Code.INVALID, f"The folder {str(source)!r} holds no files.", "Call again with a folder of data."
                )
            return 0
        if not source.is_file() and source.exists():
            raise SpeciateError(
                Code.INVALID, f"{str(source)!r} is neither a file nor a folder.", "Call again with a path of data."
            )
        with foreign_files.open_file(source) as file:
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise SpeciateError(
            Code.NOT_FOUND, f"There is no file or folder {str(source)!r}.", "Call again with a path that exists."
        ) from None
    except OSError as error:
        raise SpeciateError(
            Code.INVALID, f"{str(source)!r} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    if size == 0:
        raise SpeciateError(Code.INVALID, f"The file {str(source)!r} is empty.", "Call again with a file of data.")
    return size


def find_source_files(source: Path, workspace: Path) -> FoundFiles:
    """The files at a source, which may be one file, without those of the workspace."""
    return walk_folder(source, workspace) if source.is_dir() else FoundFiles([source], [])


class DetectedLayout(NamedTuple):
    listing: Listing
    tables: list[SourceFile]
    """Tables that lie beside media: they may hold labels."""


def detect_layout(source: Path, files: list[SourceFile], modality: str, reader: Reader) -> DetectedLayout:
    """Whether files are examples or tables of examples, their modality, and the meaning of their names.

    INVALID if there are none or no modality fits.
    """
    files = _without_cards(files)
    if not files:
        raise SpeciateError(
            Code.INVALID,
            f"{str(source)!r} holds no files to read.",
            "Call create_dataset with a file or folder of data.",
        )
    layout, found = _layout(files, modality, reader)
    of_tables = [bool(table_suffix(file.path.name)) for file in files]
    if layout == "table":
        kept = files if reader.format else [file for file, is_table in zip(files, of_tables, strict=True) if is_table]
        chosen = set(kept)
        rest, tables = [file for file in files if file not in chosen], []
    else:
        own = () if found == "time-series" and _are_waveforms(files) else find(found).suffixes
        tables = [
            file for file, is_table in zip(files, of_tables, strict=True)
            if is_table and reader.layout != "files" and not file.path.name.lower().endswith(own)
        ]  # fmt: skip
        beside = set(tables)
        kept, rest = [file for file in files if file not in beside], []
    excluded = [ExcludedFile(file.name, "No table; the other files here are tables.") for file in rest]
    listing = Listing(source, layout, found, with_splits(kept, layout), frozenset((source,)), reader, excluded=excluded)
    return DetectedLayout(listing, tables)


def name_below(source: Path, path: Path) -> str:
    """The name of a file: its path below the source with `/`, or its own where it is the source."""
    return path.name if path == source else str(path).removeprefix(os.path.join(source, ""))


def normalise_split(name: object) -> str | None:
    """`train`, `validation` or `test` for the usual spellings; another name as it is; None without one."""
    text = str(name).strip() if name is not None else ""
    return _SPLIT_NAMES.get(text.lower(), text[:64]) or None


def split_of_file(stem: str) -> str | None:
    """The split in a file's name without its suffix: `X_TRAIN`, `dev`, `instances_val2017`, `test-00000-of-00002`."""
    found = _SPLIT_SUFFIX.search(re.sub(r"(?<=[a-z])\d{4}$", "", _SHARD.sub("", stem)))
    return _SPLIT_NAMES[found[1].lower()] if found else None


def named_files(files: Iterable[tuple[Path, str]]) -> list[SourceFile]:
    """Files with their names below the source, in the given order, without splits."""
    return [SourceFile(path, name, None, None) for path, name in sorted(files, key=lambda file: file[1])]


def with_splits(files: list[SourceFile], layout: Layout) -> list[SourceFile]:
    """Splits from the names. They count only if two different ones occur: `blood_test.csv` alone is about blood.

    Folders that all files share mean nothing while there are others below them.
    """
    shared = shared_folders(files)
    found = [_with_split(file, shared, layout) for file in files]
    if len({file.split for file in found} - {None}) != 1:
        return found
    whole = all(file.split for file in found)  # all lie in one folder `train`: its folders are still the classes
    return [
        file._replace(split=None, folder=file.folder if whole else _first_folder(file.name, shared)) for file in found
    ]


def _with_split(file: SourceFile, shared: int, layout: Layout) -> SourceFile:
    *folders, name = file.name.split("/")[shared:]
    split = None
    if folders and (match := _SPLIT_FOLDER.fullmatch(folders[0])):
        split = _SPLIT_NAMES[match[1].lower()]
        folders = folders[1:]
    elif layout == "table":
        split = split_of_file(name[: len(name) - len(table_suffix(name))])
    return file._replace(split=split, folder=folders[0] if folders else None)


def _first_folder(name: str, shared: int) -> str | None:
    parts = name.split("/")[shared:]
    return parts[0] if len(parts) > 1 else None


def shared_folders(files: Sequence[SourceFile]) -> int:
    """How many leading folders all files share and have others below, none of them named as a split."""
    parts = [file.name.split("/") for file in files]
    first, last = min(parts, default=[]), max(parts, default=[])
    shared = 0
    while (
        shared + 2 < min(map(len, parts), default=0)
        and first[shared] == last[shared]
        and not _SPLIT_FOLDER.fullmatch(first[shared])
    ):
        shared += 1
    return shared


def _without_cards(files: list[SourceFile]) -> list[SourceFile]:
    """The files without the JSON in which Hugging Face `datasets` describes Parquet and Arrow files beside it."""
    if not any(format_of(file.path.name) in ("parquet", "arrow") for file in files):
        return files
    return [file for file in files if file.path.name not in _CARDS]


def _layout(files: list[SourceFile], modality: str, reader: Reader) -> tuple[Layout, str]:
    if reader.layout == "files":
        return "media", modality if modality != "auto" else _majority_modality(files)
    if reader.format is not None or reader.layout is not None:
        return "table", modality
    names = [file.path.name for file in files]
    tables = sum(bool(table_suffix(name)) for name in names)
    if modality == "multimodal":  # tables among its files are labels, parts, or say which files belong together
        return "media", modality
    if modality == "time-series" and tables:
        return ("media" if _are_recordings(files) or _are_waveforms(files) else "table"), modality
    if modality != "auto":
        suffixes = (*find(modality).suffixes, *find(modality).borrows)
        own = sum(name.lower().endswith(suffixes) for name in names if not table_suffix(name))
        return (
            "media" if own and (own >= tables or modality not in IN_TABLES) else "table" if tables else "media"
        ), modality
    media = [find(name).suffixes for name in table() if name not in IN_TABLES]
    heavy = sum(name.lower().endswith(suffixes) for name in names for suffixes in media)
    if tables * 2 >= len(files) and tables > heavy:
        return "table", "auto"
    return "media", _majority_modality(files)


def _are_waveforms(files: list[SourceFile]) -> bool:
    """Whether the files that are no tables, which then label them, are DICOM."""
    found = [file for file in files if not table_suffix(file.path.name)][:_VOTERS]
    return 2 * sum(looks_like_dicom(_head(file.path)) for file in found) > len(found)


def _are_recordings(files: list[SourceFile]) -> bool:
    """Whether each file of numbers is one series: several, and most are CSV that looks like one; no splits."""
    found = [file for file in files if format_of(file.path.name) == "csv"]
    if len(found) < 2 or 2 * len(found) <= len(files):
        return False
    if all(split_of_file(file.path.name.partition(".")[0]) for file in found):
        return False
    heads = [head for file in found[:_VOTERS] if (head := _head(file.path)).count(b"\n") > LEAST_STEPS]
    return 2 * sum(map(is_recording, heads)) > len(heads)


def _majority_modality(files: list[SourceFile]) -> str:
    """The modality that most of the first files look like."""
    votes = Counter(name for file in files[:_VOTERS] if (name := modality_of_file(file.path)))
    if votes:
        return votes.most_common(1)[0][0]
    suffixes = Counter(file.path.suffix.lower() for file in files)
    common = ", ".join(f"{suffix or 'none'} ({count})" for suffix, count in suffixes.most_common(5))
    raise SpeciateError(
        Code.INVALID,
        f"No modality fits these files (suffixes: {common}).",
        next=[Call("list_options", {"kind": "modality"}, ", then create_dataset with modality=..")],
    )


def modality_of_file(path: Path) -> str | None:
    """The modality of its first bytes and its name; None if no modality recognises it."""
    return modality_of(_head(path), path.name)


def modality_of(head: bytes, name: str) -> str | None:
    """The modality of a file's first 4 KiB and its name; None if no modality recognises it."""
    known = ("image", *(modality for modality in table() if modality != "image"))
    return next((modality for modality in known if find(modality).sniff(head, name)), None)


def _head(path: Path) -> bytes:
    try:
        with foreign_files.open_file(path.resolve()) as file:  # `walk` allows links that stay inside
            return file.read(_HEAD)
    except (OSError, RuntimeError):
        return b""


class FoundFiles(NamedTuple):
    files: list[Path]
    """The files, in the order of their names."""
    excluded: list[ExcludedFile]
    about: list[str] = []  # noqa: RUF012 - never changed
    """READMEs and licences, by their names below the folder: no examples, and no fault."""


def walk_folder(
    folder: Path, workspace: Path | None = None, *, links: bool = True, most: int | None = None
) -> FoundFiles:
    """Hidden files and `__*` folders are ignored; every other file is in one of the lists.

    `links`: whether links to files inside are followed. `workspace`: its own files are excluded under any name, as keys
    are; None for a folder that a sandboxed process filled. REFUSED beyond `most` files; None: MOST_FILES.
    """
    root = folder.resolve()
    files: list[str] = []
    excluded: list[ExcludedFile] = []
    about: list[str] = []
    most = MOST_FILES if most is None else most
    left = [str(folder)]
    own = secrets.inodes(workspace)
    numbers = {number for _, number in own}  # checked first, because they cost no stat
    while left:
        here = left.pop()
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            excluded.append(
                ExcludedFile(_printable_path(here, folder), f"The folder cannot be read: {error.strerror}.")
            )
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            reason = _reason_to_exclude(entry, root, links=links)
            if reason is None and entry.inode() in numbers and (entry.stat().st_dev, entry.inode()) in own:
                reason = "It is a file of a person's keys or of the workspace itself, under another name."
            if reason is not None:
                excluded.append(ExcludedFile(_printable_path(entry.path, folder), reason))
            elif entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("__"):
                    left.append(entry.path)
            elif _ABOUT.fullmatch(entry.name):
                about.append(_printable_path(entry.path, folder))
            else:
                files.append(entry.path)
        if len(files) > most:
            raise SpeciateError(
                Code.REFUSED, f"{str(folder)!r} holds more than {most:,} files.", "Choose a smaller folder."
            )
    files.sort(key=lambda path: path.split("/"))  # as paths compare, without making them do it
    return FoundFiles([Path(path) for path in files], sorted(excluded), sorted(about))


def _reason_to_exclude(entry: os.DirEntry[str], root: Path, *, links: bool) -> str | None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "Its name is not UTF-8."
    try:
        if entry.is_symlink():
            return _reason_to_exclude_link(Path(entry.path), root) if links else "A link."
        if entry.is_dir():
            return None
        if not entry.is_file():
            return f"It is {_KINDS.get(stat.S_IFMT(entry.stat().st_mode), 'no file')}."
        if not os.access(entry.path, os.R_OK):
            return "It may not be read by this user."
    except OSError as error:  # a path too long for the system, or removed meanwhile
        return f"It cannot be examined: {error.strerror}."
    return None


def _reason_to_exclude_link(path: Path, root: Path) -> str | None:
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return "A link to nothing."
    except (OSError, RuntimeError):  # Python 3.11 says RuntimeError where links go in a circle
        return "A link that leads in a circle."
    if not target.is_relative_to(root):
        return "A link that leads out of the source."
    if target.is_dir():
        return "A link to a folder."
    if not target.is_file():
        return "A link to what is no file."
    return None if os.access(target, os.R_OK) else "It may not be read by this user."


def _printable_path(path: str, folder: Path) -> str:
    return os.fsencode(os.path.relpath(path, folder)).decode(errors="backslashreplace")
