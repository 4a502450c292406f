"""Sends thumbnails and views of examples, with ranges, and with a policy that runs nothing."""

from __future__ import annotations

import re

from starlette.responses import Response

from speciate.datasets import versions
from speciate.datasets.inspect import viewer
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.server.web.visit import Visit

_TYPES = {".png": "image/png", ".wav": "audio/wav", ".mp4": "video/mp4", ".bin": "application/octet-stream"}
FOREIGN_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""Content security policy of an answer with what others made: opened by itself, it runs nothing."""
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def manifest_of(visit: Visit) -> Manifest:
    """The version that the path names."""
    return versions.resolve(visit.database, f"{visit.path['name']}@v{visit.path['version']}")


def sheet(visit: Visit, asked_for: str | None) -> Response:
    """Thumbnails of a page."""
    return _response(visit.parts.media.sheet(manifest_of(visit), visit.path["sheet"]), "image/png", None)


def view(visit: Visit, asked_for: str | None) -> Response:
    part = visit.path["part"]
    if part not in viewer.FILES and part != viewer.VIDEO:
        raise SpeciateError(Code.NOT_FOUND, "There is no such file of an example.")
    data = visit.parts.media.file(manifest_of(visit), visit.path["id"], part, visit.asked("of") or "")
    return sent(data, part, asked_for)


def sent(data: bytes, part: str, asked_for: str | None) -> Response:
    """A file of a view by its name."""
    return _response(data, _TYPES[part[part.rindex(".") :]], asked_for)


def _response(data: bytes, kind: str, asked_for: str | None) -> Response:
    headers = {"content-security-policy": FOREIGN_POLICY, "accept-ranges": "bytes"}
    begin, end = byte_range(asked_for, len(data)) or (0, len(data))
    if begin >= end:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{len(data)}"})
    if (begin, end) == (0, len(data)) and asked_for is None:
        return Response(data, media_type=kind, headers=headers)
    headers["content-range"] = f"bytes {begin}-{end - 1}/{len(data)}"
    return Response(data[begin:end], 206, media_type=kind, headers=headers)


def byte_range(asked_for: str | None, size: int) -> tuple[int, int] | None:
    """The begin and the end of one range; None for none, or for several, which may be answered with all."""
    found = _RANGE.fullmatch(asked_for or "")
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        return max(0, size - int(found[2])), size
    end = size if found[2] == "" else min(size, int(found[2]) + 1)
    return int(found[1]), end
