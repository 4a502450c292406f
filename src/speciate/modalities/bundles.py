"""An example of several files as one file: a series of slices, a mesh with its materials, a scan with its report.

So all files of an example have one digest, and are stored, purged and exported as one. A bundle is a ZIP without
compression. Its order and its dates depend on the members alone, so the same members give the same bytes, and any tool
can open it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from speciate.modalities.contract import DecodeError

HEAD = b"PK\x03\x04"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows
MOST_MEMBERS = 20_000
_AROUND, _AROUND_MEMBER = 22, 76
"""Bytes of a ZIP beside its members: at its end, and for each member beside its name, which stands there twice."""
_BROKEN = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


def bundle(members: Mapping[str, bytes]) -> bytes:
    """The bytes of a bundle; members in the order of their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, _DATE), members[name])
    return buffer.getvalue()


def is_bundle(data: bytes) -> bool:
    """Whether bytes, or the first of them, are those of a bundle."""
    return data.startswith(HEAD)


def members_of(data: bytes) -> dict[str, bytes]:
    """Name -> bytes, in the order of the names. Raises DecodeError if it is no bundle, is damaged, or is compressed:
    bundles are not, and without compression no budget beyond the file's own length is needed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = archive.infolist()
            if len(found) > MOST_MEMBERS:
                raise DecodeError("refused", f"{len(found):,} files in one example, more than {MOST_MEMBERS:,}.")
            if any(info.compress_type != zipfile.ZIP_STORED for info in found):
                raise DecodeError("refused", "A ZIP with compressed members is no bundle; unpack it.")
            if sum(info.file_size for info in found) > len(data):
                raise DecodeError("error", "Its members overlap.")
            return {info.filename: archive.read(info) for info in sorted(found, key=lambda info: info.filename)}
    except _BROKEN as error:
        raise DecodeError("error", f"A damaged bundle: {str(error)[:200]}") from error


def size_of_members(data: bytes) -> int | None:
    """Bytes of all members together; None if these are not the bytes that `bundle` makes, by their length."""
    if not is_bundle(data):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = archive.infolist()
    except _BROKEN:
        return None
    size = sum(info.file_size for info in found)
    around = _AROUND + sum(_AROUND_MEMBER + 2 * len(info.filename.encode()) for info in found)
    return size if len(data) == size + around else None
