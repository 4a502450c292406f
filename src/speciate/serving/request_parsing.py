"""Read a request's body (JSON, or a form with files), never beyond its limit, and check it against the model's inputs.

Forms of an input: `text`; `row` (column -> value); `data` (a file's bytes, as Base64 in JSON); `parts` of mixed rows
(part -> {value} or {data}). There is no form for a path: clients over HTTP must not name files of this machine.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from speciate.errors import closest
from speciate.modalities import find
from speciate.modalities.bundles import bundle
from speciate.modalities.multimodal import part_name
from speciate.predictions.entities import LONGEST, entity_problem
from speciate.serving.deployment_folder import Target
from speciate.serving.items import FREE_COLUMNS, Cell, Item
from speciate.serving.routing import LONGEST_KEY

MEMBER = "member"
"""Name of the fields whose files are one example together, such as the slices of a series."""
MOST_INPUTS = 256
KEY = "key"
"""Field that identifies the sender: while there is a canary, the same version answers the same key."""
ENTITY, ENTITY_HEADER = "entity", "x-request-entity"
"""Field and header that say who or what asks; kept only as a hash (predictions/entities.py)."""
_MOST_FIELDS = 4096
_LONGEST_NAME, _LONGEST_ID = 255, 64
_FORMS = ("text", "row", "data", "parts")
_OTHER_FIELDS = ("id", "mime")


class TooLarge(Exception):
    """The body exceeds the limit."""


class Unreadable(Exception):
    """The body is not what its type says; the text says why."""


async def read(request: Request, target: Target, most: int) -> Any:
    """The body, for `check_request`. Raises TooLarge, Unreadable, or ClientDisconnect."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise TooLarge
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, target, most)
    if kind != "application/json" and not kind.endswith("+json"):
        raise Unreadable(f"Content-Type is {kind!r}; send application/json or multipart/form-data.")
    return await read_json(request, most)


async def read_json(request: Request, most: int) -> Any:
    """The body as JSON, whatever its type says. Raises TooLarge, Unreadable, or ClientDisconnect."""
    data = b"".join([chunk async for chunk in _chunks_within(request, most)])
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"The body is not JSON: {error}.") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


async def _chunks_within(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise TooLarge
        yield chunk


async def _read_form(request: Request, target: Target, most: int) -> Mapping[str, list[Item]]:
    parser = MultiPartParser(
        request.headers,
        _chunks_within(request, most),
        max_files=_MOST_FIELDS,
        max_fields=_MOST_FIELDS,
        max_part_size=most,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise Unreadable(f"The form cannot be read: {getattr(error, 'message', error)}.") from None
    try:
        return {"inputs": await _inputs(form, target)}
    finally:
        await form.close()


async def _inputs(form: FormData, target: Target) -> list[Item]:
    """Each file, `text` and `row` is an input; of mixed rows all fields together are one, of `member`s all files."""
    fields = form.multi_items()
    if (parts := named_parts([name for name, _ in fields], target)) is not None:
        cells: dict[str, Cell] = {}
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


async def _input(name: str, value: UploadFile | str) -> Item:
    if isinstance(value, UploadFile):
        return {"data": await _base64(value)}
    if name == "row":
        try:
            return {"row": json.loads(value, parse_constant=_no_constant)}
        except ValueError as error:
            raise Unreadable(f"The field 'row' is not JSON: {error}.") from None
    return cast(Item, {name: value})  # `check_request` refuses other names


async def _base64(file: UploadFile) -> str:
    return base64.b64encode(await file.read()).decode()


class Problem(NamedTuple):
    where: str
    what: str


class CheckedRequest(NamedTuple):
    items: list[Item]
    """For `predict_worker.answer`, each with its `id`."""
    problems: list[Problem]


def forms(target: Target) -> tuple[str, ...]:
    """The forms that an input of this model may have."""
    if target.parts:
        return "parts", "data"
    if target.modality == "tabular":
        return ("row",)
    written = find(target.modality).analyzer is not None
    named, free = bool(target.inputs), not target.inputs and target.modality in FREE_COLUMNS
    return (*(("text",) if written else ()), *(("row",) if named else ()), "data", *(("row",) if free else ()))


def request_schema(target: Target) -> Mapping[str, object]:
    """The schema of a request's body, as JSON Schema (2020-12)."""
    item: dict[str, Any] = {"id": {"type": "string", "maxLength": _LONGEST_ID}}
    allowed = forms(target)
    if "text" in allowed:
        item["text"] = {"type": "string"}
    if "row" in allowed:
        item["row"] = {"type": "object", "required": list(target.inputs)}
        if target.columns:
            item["row"]["properties"] = {name: {"type": [kind, "null"]} for name, kind in target.columns}
    if "data" in allowed:
        item |= {"data": {"type": "string", "contentEncoding": "base64"}, "mime": {"type": "string"}}
    if "parts" in allowed:
        part = {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": {"value": {}, "data": {}}}
        item["parts"] = {"type": "object", "properties": dict.fromkeys((*target.parts, *target.ignored_parts), part)}
    one = {
        "type": "object", "properties": item, "additionalProperties": False,
        "oneOf": [{"required": [form]} for form in allowed],
    }  # fmt: skip
    inputs = {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS, "items": one}
    key = {"type": "string", "maxLength": LONGEST_KEY}
    entity = {"type": "string", "minLength": 1, "maxLength": LONGEST, "writeOnly": True}
    return {
        "type": "object", "required": ["inputs"], "additionalProperties": False,
        "properties": {"inputs": inputs, KEY: key, ENTITY: entity},
    }  # fmt: skip


def check_request(body: Any, target: Target) -> CheckedRequest:
    """A request's body as items, or what is wrong with it."""
    if not isinstance(body, dict) or not isinstance(inputs := body.get("inputs"), list):
        return CheckedRequest([], [Problem("", 'The body must be an object like {"inputs": [...]}.')])
    problems = [
        Problem(name, f"There is no such field; {closest(name, ('inputs', KEY, ENTITY))}")
        for name in sorted(set(body) - {"inputs", KEY, ENTITY})
    ]
    if not isinstance(key := body.get(KEY, ""), str) or len(key) > LONGEST_KEY:
        problems.append(Problem(KEY, f"A key is a text of at most {LONGEST_KEY} characters."))
    if ENTITY in body and (wrong := entity_problem(body[ENTITY])):
        problems.append(Problem(ENTITY, wrong))
    if not 1 <= len(inputs) <= MOST_INPUTS:
        problems.append(Problem("inputs", f"1 to {MOST_INPUTS} inputs fit into a request, and this has {len(inputs)}."))
    items: list[Item] = []
    for place, given in enumerate(inputs[:MOST_INPUTS]):
        where = f"inputs[{place}]"
        found = _input_problems(given, target, where)
        problems += found
        if not found:
            items.append({"id": given.get("id", str(place)), **_item(given, target)})
    return CheckedRequest(items, problems)


def header_entity(headers: Mapping[str, str]) -> str | Problem | None:
    """Who asks, as the header says in UTF-8; None where it says nothing."""
    if (given := headers.get(ENTITY_HEADER)) is None:
        return None
    try:
        entity = given.encode("latin-1").decode()  # headers are bytes, which are read as Latin-1
    except ValueError:
        return Problem(ENTITY_HEADER, "An entity in a header is a text in UTF-8.")
    wrong = entity_problem(entity)
    return Problem(ENTITY_HEADER, wrong) if wrong else entity


def _input_problems(given: Any, target: Target, where: str) -> list[Problem]:
    if not isinstance(given, dict):
        return [Problem(where, f"An input is an object such as {_example(target)}.")]
    allowed = forms(target)
    problems = [
        Problem(f"{where}.{name}", f"There is no such field; {closest(name, (*allowed, *_OTHER_FIELDS))}")
        for name in map(str, given)
        if name not in (*_FORMS, *_OTHER_FIELDS)
    ]
    there = [form for form in _FORMS if form in given]
    if len(there) != 1 or there[0] not in allowed:
        named = " or ".join(allowed)
        problems.append(Problem(where, f"Give exactly one of {named}: this model reads {target.modality}."))
        return problems
    if not isinstance(given.get("id", ""), str) or len(given.get("id", "")) > _LONGEST_ID:
        problems.append(Problem(f"{where}.id", f"An id is a text of at most {_LONGEST_ID} characters."))
    form, value = there[0], given[there[0]]
    return problems + _CHECKS[form](value, target, f"{where}.{form}")


def _text_problems(value: Any, target: Target, where: str) -> list[Problem]:
    return [] if isinstance(value, str) else [Problem(where, "This must be a text.")]


def _row_problems(value: Any, target: Target, where: str) -> list[Problem]:
    if not isinstance(value, dict):
        return [Problem(where, "A row is an object: column -> value.")]
    return [Problem(f"{where}.{name}", "This column is missing.") for name in target.inputs if name not in value]


def _part_problems(value: Any, target: Target, where: str) -> list[Problem]:
    if not isinstance(value, dict) or not value:
        return [Problem(where, f"Parts are an object with some of {', '.join(target.parts)}.")]
    known, problems = _parts(target), []
    for name, cell in value.items():
        if name not in known:
            problems.append(Problem(f"{where}.{name}", f"There is no such part; {closest(str(name), target.parts)}"))
        elif not isinstance(cell, dict) or list(cell) not in (["value"], ["data"]):
            problems.append(Problem(f"{where}.{name}", 'A part is {"value": ...} or {"data": BASE64}.'))
    if not problems and not any(known[name] in target.parts for name in value):
        problems.append(Problem(where, f"The model reads none of these parts; it reads {', '.join(target.parts)}."))
    return problems


_CHECKS = {"text": _text_problems, "data": _text_problems, "row": _row_problems, "parts": _part_problems}


def _item(given: Mapping[str, Any], target: Target) -> Item:
    if "parts" in given:
        known = _parts(target)
        return {"parts": {known[name]: cell for name, cell in given["parts"].items() if known[name] in target.parts}}
    return cast(Item, {form: given[form] for form in ("text", "row", "data") if form in given})


def _parts(target: Target) -> dict[str, str]:
    """What a part may be called -> NAME.MODALITY, of those that are read and those that an input may bring beside."""
    there = (*target.parts, *target.ignored_parts)
    own = {part.own: name for name in there if (part := part_name(name))}
    return own | {name: name for name in there}


def _example(target: Target) -> str:
    shown = {"text": '"..."', "row": "{COLUMN: VALUE}", "data": "BASE64", "parts": "{PART: {...}}"}
    form = forms(target)[0]
    return f'{{"{form}": {shown[form]}}}'


def named_parts(names: Sequence[str], target: Target) -> dict[str, str] | None:
    """Field names of a form -> parts, where all of them are parts of this model."""
    known = _parts(target)
    return {name: known[name] for name in names} if target.parts and set(names) <= set(known) else None
