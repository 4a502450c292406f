"""A request's body, read as it comes and never beyond its limit: JSON, or a form with files.

What is too large is refused at its header where that says so, else at the first byte beyond the limit. Files of a form
go through a temporary file once they exceed a megabyte.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from speciate.modalities.bundles import bundle
from speciate.serving.folder import Target
from speciate.serving.schema import MOST_INPUTS, named_parts

MEMBER = "member"
"""Name of the fields whose files are one example together, such as the slices of a series."""
_MOST_FIELDS = 4096
_LONGEST_NAME = 255


class TooLarge(Exception):
    """The body exceeds the limit."""


class Unreadable(Exception):
    """The body is not what its type says; the text says why."""


async def read(request: Request, target: Target, most: int) -> Any:
    """The body as `schema.check` takes it. Raises TooLarge, Unreadable, or ClientDisconnect."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise TooLarge
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request, target, most)
    if kind != "application/json" and not kind.endswith("+json"):
        raise Unreadable(f"Content-Type is {kind!r}; send application/json or multipart/form-data.")
    return await read_json(request, most)


async def read_json(request: Request, most: int) -> Any:
    """The body as JSON, whatever its type says. Raises TooLarge, Unreadable, or ClientDisconnect."""
    data = b"".join([chunk async for chunk in _limited(request, most)])
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"The body is not JSON: {error}.") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise TooLarge
        yield chunk


async def _form(request: Request, target: Target, most: int) -> dict[str, Any]:
    parser = MultiPartParser(
        request.headers, _limited(request, most), max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS, max_part_size=most
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise Unreadable(f"The form cannot be read: {getattr(error, 'message', error)}.") from None
    try:
        return {"inputs": await _inputs(form, target)}
    finally:
        await form.close()


async def _inputs(form: FormData, target: Target) -> list[dict[str, Any]]:
    """Each file, `text` and `row` is an input; of mixed rows all fields together are one, of `member`s all files."""
    fields = form.multi_items()
    if (parts := named_parts([name for name, _ in fields], target)) is not None:
        cells = {}
        for name, value in fields:
            cells[parts[name]] = {"data": await _base64(value)} if isinstance(value, UploadFile) else {"value": value}
        return [{"parts": cells}] if cells else []
    if fields and all(name == MEMBER for name, _ in fields):
        members: dict[str, bytes] = {}
        for place, (_, value) in enumerate(fields):
            if isinstance(value, UploadFile):
                name = value.filename or str(place)
                if not name.isprintable() or len(name) > _LONGEST_NAME:
                    raise Unreadable(f"{name[:_LONGEST_NAME]!a} is no name for a file of an example.")
                members[name] = await value.read()
        return [{"data": base64.b64encode(bundle(members)).decode()}]
    return [await _input(name, value) for name, value in fields[: MOST_INPUTS + 1]]


async def _input(name: str, value: UploadFile | str) -> dict[str, Any]:
    if isinstance(value, UploadFile):
        return {"data": await _base64(value)}
    if name == "row":
        try:
            return {"row": json.loads(value, parse_constant=_no_constant)}
        except ValueError as error:
            raise Unreadable(f"The field 'row' is not JSON: {error}.") from None
    return {name: value}


async def _base64(file: UploadFile) -> str:
    return base64.b64encode(await file.read()).decode()


__all__ = ["MEMBER", "ClientDisconnect", "TooLarge", "Unreadable", "read", "read_json"]
