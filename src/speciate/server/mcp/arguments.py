"""What a tool may be called with: compact JSON schemas, and one readable sentence for whatever does not fit them.

The schema that a model reads costs tokens on every turn, so titles go, references are written out and an optional
argument is one that may be left out rather than a union with null. Recursive models are not written out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from speciate.errors import Call, Code, SpeciateError, closest
from speciate.finite import is_finite
from speciate.server.mcp.guesses import owners
from speciate.server.tool_api import LISTED_ELSEWHERE

Schema = dict[str, Any]
"""A JSON schema, draft 2020-12."""
ToolArguments = Mapping[str, Any]
"""Arguments of a tool as a client sent them, not validated."""
ParsedArguments = dict[str, Any]
"""Arguments by the types of the tool's function, validated, with defaults."""

MOST_WRITTEN_OUT = 200
"""Characters. A longer argument is listed by the names of its fields; `list_options(kind='argument')` has all of it."""
_LENGTHS = ("maxLength", "minLength", "pattern")
_FAR, _FAR_ITEMS = 1000, 11
"""An upper bound of that much is met by nobody by chance: of a number, of a list."""
_SHOWN = 4
"""Mistakes of one call that are spelled out, at most."""
_ALIKE = ("next_actions", "estimate")
"""Fields of most results, always of one form: the instructions say it once."""
_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


def input_schema(model: type[BaseModel]) -> Schema:
    """The JSON schema of a tool's arguments, as short as it can be said."""
    schema = compact_schema(model.model_json_schema())
    return {"type": "object", "properties": schema.get("properties", {}), **_without(schema, "type", "properties")}


def output_schema(annotation: Any) -> Schema:
    """The JSON schema of a result. Fields that may be None are optional: answers leave them out."""
    schema = compact_schema(TypeAdapter(annotation).json_schema())
    return schema if schema.get("type") == "object" else {"type": "object", **schema}


def as_listed(tool: str, schema: Schema) -> Schema:
    """The arguments as `tools/list` shows them: what few calls need is named there and shown by `list_options`. Bounds
    that nobody meets by chance (lengths, above 0) are left to the refusal, and so are unknown arguments and fields."""
    fields = {name: _listed_field(f"{tool}.{name}", field) for name, field in schema["properties"].items()}
    return _without(schema, "additionalProperties") | {"properties": fields}


def is_deferred(field: Schema) -> bool:
    """Whether an argument is too long to be written out in `tools/list`."""
    inner = field.get("items", field)
    return "properties" in inner and len(json.dumps(field, separators=(",", ":"))) > MOST_WRITTEN_OUT


def _listed_field(name: str, field: Schema) -> Schema:
    if not is_deferred(field):
        listed: Schema = _without_obvious(field)
        return listed
    fields = field.get("items", field)["properties"]
    said = field.get("description", "").split("\n")[0]
    if not all(each in said for each in fields):  # else the description has said them all
        where = f"list_options(kind='argument', name='{name}')"
        said = f"{said} Fields: {', '.join(fields)}; {where}".strip()
    short = {"type": field["type"], "description": said.removesuffix(".")}
    return short | ({"items": {"type": "object"}} if field["type"] == "array" else {})


def _without_obvious(part: Any) -> Any:
    """Without what a caller would not have done otherwise: lengths, defaults of nothing, "above 0"; and last stops. The
    description shows the form of a map."""
    if isinstance(part, list):
        return [_without_obvious(each) for each in part]
    if not isinstance(part, dict):
        return part
    kept: Schema = {}
    for key, value in part.items():
        if key == "properties":
            kept[key] = {name: _without_obvious(each) for name, each in value.items()}
        elif key == "description":
            kept[key] = value.removesuffix(".")
        elif key == "additionalProperties" or (key == "enum" and part.get(LISTED_ELSEWHERE)):
            continue
        elif key in ("enum", "const", "default", "examples") or not isinstance(value, dict | list):
            kept |= {} if _is_obvious(key, value) else {key: value}
        else:
            kept[key] = _without_obvious(value)
    return kept


def _is_obvious(key: str, value: Any) -> bool:
    if key in ("minimum", "exclusiveMinimum", "minItems"):
        return bool(value <= 1)
    if key in ("maximum", "maxItems"):
        return bool(value >= (_FAR if key == "maximum" else _FAR_ITEMS))
    if key == "default":
        return value is False or value in (0, "", "none", [])
    return key in (*_LENGTHS, "writeOnly", LISTED_ELSEWHERE)


def outline(schema: Schema) -> Schema:
    """The result's schema as `tools/list` shows it: fields with their types, and of objects in them the names alone;
    the forms of an answer (a job, or what a dry run says) side by side. Whatever fits the whole schema fits this one;
    `list_options(kind='result')` shows the whole."""
    fields: Schema = {}
    for form in schema.get("anyOf", [schema]):
        for name, field in form.get("properties", {}).items():
            short = _outlined_field(name, field)
            fields[name] = short if fields.get(name, short) == short else _of_both(fields[name], short)
    return {"type": "object", "properties": fields} if fields else {"type": "object"}


def _of_both(one: Schema, other: Schema) -> Schema:
    """What a field may be that two forms of an answer have: of any value where their types differ."""
    if one.get("type") != other.get("type"):
        return {}
    values = [each.get("enum", [each["const"]] if "const" in each else []) for each in (one, other)]
    both = {"enum": list(dict.fromkeys([*values[0], *values[1]]))} if all(values) else {}
    return {"type": one["type"], **both}


def written_result(annotation: Any) -> Schema:
    """The schema of a result as a reader wants it: all fields, and nothing that is about what is sent."""
    read: Schema = _without_bounds(output_schema(annotation))
    return read


def _without_bounds(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_bounds(each) for each in part]
    if not isinstance(part, dict):
        return part
    kept: Schema = {}
    for key, value in part.items():
        if key == "properties":
            kept[key] = {name: _without_bounds(each) for name, each in value.items()}
        elif key in ("minItems", "maxItems", "default", "required", "writeOnly", *_LENGTHS) or (
            key == "additionalProperties" and value is False
        ):
            continue
        else:
            kept[key] = value if key in ("enum", "const", "examples") else _without_bounds(value)
    return kept


def _outlined_field(name: str, field: Schema) -> Schema:
    if name in _ALIKE:
        return {"type": field["type"]}
    short = _outlined(field)
    said = field.get("description", "")
    return short | {"description": said} if said and "description" not in short else short


def _outlined(field: Schema) -> Schema:
    """Without bounds and defaults, which are about what is sent, not about what is read."""
    if field.get("type") == "array":
        inner = _outlined(field.get("items", {}))
        return {"type": "array", "items": inner} if inner else {"type": "array"}
    if fields := field.get("properties"):
        return {"type": "object", "description": ", ".join(fields)}
    return {key: field[key] for key in ("type", "enum", "const") if key in field}


def parse(tool: str, model: type[BaseModel], schema: Schema, given: ToolArguments) -> ParsedArguments:
    """The call's arguments with their defaults, validated; `schema` is the model's `input_schema`.

    Raises SpeciateError INVALID that names the mistakes, what is valid, and the call to make.
    """
    unquoted = _unquoted(given, schema)
    if odd := [name for name, value in unquoted.items() if not is_finite(value)]:
        raise SpeciateError(
            Code.INVALID,
            f"{', '.join(map(repr, odd[:_SHOWN]))} holds NaN or an infinite number, which JSON does not have.",
            f"Call {tool} again with finite numbers.",
        )
    try:
        arguments = model.model_validate(unquoted)
    except ValidationError as error:
        raise _refusal(tool, schema, error.errors(include_url=False)) from None
    return {name: getattr(arguments, name) for name in model.model_fields}


def _unquoted(given: ToolArguments, schema: Schema) -> ToolArguments:
    """Lists and objects that a client sent as JSON text, taken for what they are."""
    return {name: _unquote(value, schema["properties"].get(name, {})) for name, value in given.items()}


def _unquote(value: Any, schema: Schema) -> Any:
    if not isinstance(value, str) or schema.get("type") not in ("array", "object"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


# Mistakes in words


def _refusal(tool: str, schema: Schema, details: Sequence[ErrorDetails]) -> SpeciateError:
    sentences = list(dict.fromkeys(_error_sentence(tool, schema, detail) for detail in details))
    more = f"; and {len(sentences) - _SHOWN} more" if len(sentences) > _SHOWN else ""
    required = schema.get("required", ())
    known = ", ".join(f"{name} (required)" if name in required else name for name in schema["properties"])
    return SpeciateError(
        Code.INVALID,
        "; ".join(sentences[:_SHOWN]) + more + ".",
        f"Call {tool} again; its arguments are: {known}." if known else f"Call {tool} again, without arguments.",
        next=_whole_arguments(tool, schema, details),
    )


def _whole_arguments(tool: str, schema: Schema, details: Sequence[ErrorDetails]) -> list[Call]:
    """For a mistake in an argument of which `tools/list` names the fields alone: the call that shows them."""
    wrong = dict.fromkeys(str(detail["loc"][0]) for detail in details if detail["loc"])
    deferred = [name for name in wrong if is_deferred(schema["properties"].get(name, {}))]
    return [
        Call("list_options", {"kind": "argument", "name": f"{tool}.{name}"}, "for what it takes") for name in deferred
    ]


def _error_sentence(tool: str, schema: Schema, detail: ErrorDetails) -> str:
    path, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        where = f" in {_name(path[:-1])}" if len(path) > 1 else ""
        names = _schema_at(schema, path[:-1]).get("properties", {})
        name = str(path[-1])
        owner = owners(name, tool) if len(path) == 1 else ""
        return f"there is no argument {_quote_value(name)}{where}, {closest(name, names).rstrip('.?')}{owner}"
    if kind == "missing":
        return f"{_name(path)} is missing"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"{_name(path)} has {context['actual_length']} items, and must have {bound}"
    found = _schema_at(schema, path)
    value = "a value that is not shown" if found.get("writeOnly") else _quote_value(detail["input"])
    if kind in ("literal_error", "enum", "const"):
        return f"{_name(path)} is {value}, which is none of: {_choices(found) or context.get('expected', '')}"
    if "type" in found and kind.endswith(("_type", "_parsing", "_from_float", "_attributes_type")):
        must = f"{_name(path)} is {value}, and must be {_KINDS.get(found['type'], found['type'])}"
        return f"{must}{_json_mistake(detail['input'])}" if found["type"] in ("array", "object") else must
    reason = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{_name(path)} is {value}: it {reason}" if reason.startswith("should") else f"{_name(path)}: {reason}"


def _json_mistake(value: object) -> str:
    """Where a text that begins as JSON ceases to be JSON; empty for other values."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return ""
    try:
        json.loads(value)
    except (ValueError, RecursionError) as error:
        return f"; as JSON it is cut off or wrong: {error}"
    return ""


def _name(path: Sequence[int | str]) -> str:
    """`('limits', 'licenses', 0)` as `'limits.licenses[0]'`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return repr(text)


def _quote_value(value: Any) -> str:
    """At most 80 characters; the end of a longer text is left out within its quotation marks."""
    text = repr(value)
    end = f"...{text[-1]}" if isinstance(value, str) else "..."
    return text if len(text) <= 80 else text[: 80 - len(end)] + end


def _choices(schema: Schema) -> str:
    return ", ".join(repr(choice) for choice in schema.get("enum", [schema["const"]] if "const" in schema else []))


def _schema_at(schema: Schema, path: Sequence[int | str]) -> Schema:
    """The part of a written-out schema that describes the value at `path`; empty where a union is in the way."""
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part, {})
    return schema


# Shorter schemas


def compact_schema(schema: Schema) -> Schema:
    """The schema of a model without titles, references and unions with null: what it says, in fewer words."""
    definitions = schema.get("$defs", {})
    compact = _inline_references(_without(schema, "$defs"), definitions, ())
    assert isinstance(compact, dict)
    return compact


def _inline_references(part: Any, definitions: Mapping[str, Schema], above: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_inline_references(item, definitions, above) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        if name in above:
            raise ValueError(f"{name} contains itself; a tool's schema must end somewhere")
        beside = _without(part, "$ref")
        return _inline_references({**definitions[name], **beside}, definitions, (*above, name))
    return _without_titles(part, definitions, above)


def _without_titles(part: Schema, definitions: Mapping[str, Schema], above: tuple[str, ...]) -> Schema:
    kept: Schema = {}
    for key, value in part.items():
        if key == "properties":
            kept[key] = {
                name: _optional(_inline_references(field, definitions, above)) for name, field in value.items()
            }
        elif key in ("title", "discriminator"):
            continue
        elif key in ("enum", "const", "default", "required", "examples"):
            kept[key] = value
        else:
            kept[key] = _inline_references(value, definitions, above)
    nullable = {name for name, field in part.get("properties", {}).items() if _null_in(field)}
    if nullable and "required" in kept:
        kept["required"] = [name for name in kept["required"] if name not in nullable]
    if not kept.get("required", True):
        del kept["required"]
    return kept


def _null_in(field: Schema) -> bool:
    return {"type": "null"} in field.get("anyOf", ())


def _optional(field: Schema) -> Schema:
    """`X or null, by default null` as an X that may be left out."""
    if _null_in(field):
        others = [choice for choice in field["anyOf"] if choice != {"type": "null"}]
        rest = _without(field, "anyOf")
        field = {**others[0], **rest} if len(others) == 1 else {"anyOf": others, **rest}
    return _without(field, "default") if field.get("default", ...) is None else field


def _without(schema: Schema, *keys: str) -> Schema:
    return {key: value for key, value in schema.items() if key not in keys}
