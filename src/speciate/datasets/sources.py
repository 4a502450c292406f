"""What lies at a source: the files to read and how they are laid out, from names and sizes alone.

Nothing here opens a foreign file for more than its first bytes, so it may run outside the cage.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.modalities import find, table

TABLES = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".ts": "ts",
    ".fasta": "fasta", ".fa": "fasta", ".faa": "fasta",
}  # fmt: skip
"""Suffix -> format of files that hold many examples."""

_SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_SPLIT_SUFFIX = re.compile(rf"(?:^|_)({'|'.join(_SPLIT_NAMES)})$", re.IGNORECASE)
_NOT_EXAMPLES = re.compile(r"(?i)(readme|license|licence|copying|notice)(\..*)?")
_HEAD = 4096
_MOST_FILES = 5_000_000

Layout = Literal["table", "media"]


class SourceFile(NamedTuple):
    path: Path
    name: str
    """Below the source, with `/`."""
    split: str | None
    """From a folder train/, test/ ... or a file name such as X_TRAIN.ts, where the source has several of them."""
    folder: str | None
    """The first folder below the source and its split: the class where label is `folder`."""


class Listing(NamedTuple):
    source: Path
    layout: Layout
    modality: str
    """`auto` where only the cells of a table can tell."""
    files: list[SourceFile]


def listing(source: Path, modality: str, skip: Path | None = None) -> Listing:
    """Every file of the source in the order of names. Hidden files, README, LICENSE and `skip` are no examples."""
    files = [file for file in _walk(source) if file.path != skip]
    if not files:
        raise SpeciateError(
            Code.INVALID,
            f"{str(source)!r} holds no files to read.",
            "Call create_dataset with a folder or file of data.",
        )
    layout, found = _layout(files, modality)
    if layout == "table":
        files = [file for file in files if _suffix(file.path) in TABLES]
    return Listing(source, layout, found, _with_splits(files))


def check_source(source: Path) -> int:
    """Refuse at once what cannot be a source: an empty or unreadable file, an empty folder. Its bytes, where a file."""
    try:
        if source.is_dir():
            if next(_walk(source), None) is None:
                raise SpeciateError(
                    Code.INVALID, f"The folder {str(source)!r} holds no files.", "Call again with a folder of data."
                )
            return 0
        size = source.stat().st_size
        with source.open("rb"):
            pass
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


def normal_split(name: object) -> str | None:
    """`train`, `validation` or `test` for the usual spellings; another name as it is; None where there is none."""
    text = str(name).strip() if name is not None else ""
    return _SPLIT_NAMES.get(text.lower(), text[:64]) or None


def _with_splits(files: list[SourceFile]) -> list[SourceFile]:
    """Names mean splits only where two different ones occur: `blood_test.csv` alone is about blood, not for testing."""
    found = {file.split for file in files}
    if len(found - {None}) != 1:
        return files
    whole = None not in found  # all lie in one folder `train`: its folders are still the classes
    return [file._replace(split=None, folder=file.folder if whole else _first_folder(file.name)) for file in files]


def _first_folder(name: str) -> str | None:
    return name.partition("/")[0] if "/" in name else None


def _walk(source: Path) -> Iterator[SourceFile]:
    if source.is_file():
        yield SourceFile(source, source.name, _split_of_name(source.stem), None)
        return
    count = 0
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            if name.startswith(".") or _NOT_EXAMPLES.fullmatch(name):
                continue
            count += 1
            if count > _MOST_FILES:
                raise SpeciateError(
                    Code.REFUSED, f"{str(source)!r} holds more than {_MOST_FILES:,} files.", "Choose a smaller folder."
                )
            path = Path(folder) / name
            if path.is_symlink() and not path.resolve().is_relative_to(source.resolve()):
                continue  # a link must not widen what the caller may read
            yield _file(source, path)


def _file(source: Path, path: Path) -> SourceFile:
    *folders, name = path.relative_to(source).parts
    split = None
    if folders and folders[0].lower() in _SPLIT_NAMES:
        split = _SPLIT_NAMES[folders[0].lower()]
        folders = folders[1:]
    elif _suffix(path) in TABLES:
        split = _split_of_name(Path(name).stem)
    return SourceFile(path, path.relative_to(source).as_posix(), split, folders[0] if folders else None)


def _split_of_name(stem: str) -> str | None:
    found = _SPLIT_SUFFIX.search(stem)
    return _SPLIT_NAMES[found[1].lower()] if found else None


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _layout(files: list[SourceFile], modality: str) -> tuple[Layout, str]:
    """Whether files are examples or tables of examples, and of which modality."""
    suffixes = Counter(_suffix(file.path) for file in files)
    tables = sum(count for suffix, count in suffixes.items() if suffix in TABLES)
    if modality == "time-series" and len(files) > 1 and suffixes[".csv"] + suffixes[".tsv"] > len(files) / 2:
        return "media", modality  # a folder of recordings
    if modality != "auto":
        own = sum(suffixes[suffix] for suffix in find(modality).suffixes if suffix not in TABLES)
        return ("table" if tables > own or (own == 0 and tables) else "media"), modality
    if tables * 2 >= len(files):
        return "table", "auto"
    votes = Counter(name for file in files[:200] if (name := _sniff(file.path)))
    if votes:
        return "media", votes.most_common(1)[0][0]
    shown = ", ".join(f"{suffix or 'none'} ({count})" for suffix, count in suffixes.most_common(5))
    raise SpeciateError(
        Code.INVALID,
        f"No modality fits these files (suffixes: {shown}).",
        "Call list_options(kind='modality'), then create_dataset with modality=...",
    )


def _sniff(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    known = ("image", *(name for name in table() if name != "image"))
    return next((name for name in known if find(name).sniff(head, path.name)), None)
