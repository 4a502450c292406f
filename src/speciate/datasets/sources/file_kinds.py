"""What a file is by its first bytes, for people: to say why a file cannot be used, and that a suffix is wrong.

Only formats with a sure sign are known. Modalities decide what is read (listing.py); this decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from speciate import foreign_files
from speciate.datasets.columns import clean
from speciate.datasets.sources.listing import SourceFile

HEAD = 1024
"""Bytes that are looked at."""
WEB_PAGE = "a web page (HTML)"
_MOST_FILES = 10_000
_SHOWN = 5


class FileKind(NamedTuple):
    what: str
    suffixes: tuple[str, ...]
    sign: re.Pattern[bytes]
    """Matches at the first byte."""


def _kind(what: str, suffixes: str, sign: bytes) -> FileKind:
    return FileKind(what, tuple(suffixes.split()), re.compile(sign, re.DOTALL))


_KINDS = (
    _kind(WEB_PAGE, ".html .htm .xhtml", rb"(?i)\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype html|html|head|body)\b"),
    _kind("a PNG image", ".png .apng", rb"\x89PNG\r\n\x1a\n"),
    _kind("a JPEG image", ".jpg .jpeg .jpe .jfif .mpo", rb"\xff\xd8\xff"),
    _kind("a GIF image", ".gif", rb"GIF8[79]a"),
    _kind("a WebP image", ".webp", rb"RIFF.{4}WEBP"),
    _kind("a TIFF image", ".tif .tiff .dng .svs", rb"II\*\0|MM\0\*"),
    _kind("WAV audio", ".wav .wave .bwf", rb"RIFF.{4}WAVE"),
    _kind("FLAC audio", ".flac", rb"fLaC"),
    _kind("an AVI video", ".avi", rb"RIFF.{4}AVI "),
    _kind("a Matroska or WebM video", ".mkv .webm .mka .mk3d", rb"\x1aE\xdf\xa3"),
    _kind("a PDF document", ".pdf", rb"%PDF-"),
    _kind("a DICOM file", ".dcm .dicom .ima", rb".{128}DICM"),
    _kind("a Parquet table", ".parquet", rb"PAR1"),
    _kind("a 7z archive", ".7z", rb"7z\xbc\xaf\x27\x1c"),
    _kind("an mmCIF or CIF file", ".cif .mmcif .mcif", rb"data_[\w.-]+\s*[\r\n]+\s*(?:#|loop_|_)"),
    _kind("a PDB file", ".pdb .ent .pdb1", rb"HEADER    [ A-Z]|ATOM  [ \d]{5} |CRYST1[ \d.]{9}"),
)  # fmt: skip
_KNOWN = frozenset(suffix for kind in _KINDS for suffix in kind.suffixes)


def kind_of(head: bytes) -> FileKind | None:
    """None for bytes without a sure sign."""
    return next((kind for kind in _KINDS if kind.sign.match(head[:HEAD])), None)


def explain(data: bytes, reason: str, suffixes: Sequence[str]) -> str:
    """Why bytes cannot be decoded: the decoder's reason, unless the file is empty or a page; and what it is, if that is
    another format than those of `suffixes`."""
    if not data:
        return "The file is empty."
    if not data[:HEAD].strip() and not data.strip():
        return "The file holds nothing but blanks."
    kind = kind_of(data)
    if kind is None or set(kind.suffixes) & set(suffixes):
        return reason
    if kind.what == WEB_PAGE:
        return f"The file is {WEB_PAGE}: the download failed, or asked for a login."
    return f"{reason} By its first bytes it is {kind.what}."


def wrong_suffix_notes(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """A note that counts files whose bytes are of another format than their suffix says; of the first 10,000."""
    found: list[tuple[str, FileKind]] = []
    for file in files[:_MOST_FILES]:
        suffix = file.path.suffix.lower()
        if suffix not in _KNOWN or file.parts:
            continue
        kind = kind_of(_head(file))
        if kind is not None and suffix not in kind.suffixes:
            found.append((file.name, kind))
    if not found:
        return ()
    shown = ", ".join(f"{clean(name)!r} is {kind.what}" for name, kind in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    verb = "file is not what its suffix says" if len(found) == 1 else "files are not what their suffixes say"
    return (f"{len(found):,} {verb}: {shown}{more}. The bytes decide.",)


def _head(file: SourceFile) -> bytes:
    try:
        with foreign_files.open_file(file.path.resolve()) as opened:  # a link may lead to another file of the source
            return opened.read(HEAD)
    except (OSError, RuntimeError):
        return b""
