"""What the typed methods of a client return: the results that tools declare, and images beside them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from speciate.server.tool_api import Declaration

R = TypeVar("R")
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Shown(Generic[R]):
    """A result with the images that the tool shows beside it, each a PNG file. A notebook shows the first."""

    result: R
    images: tuple[bytes, ...] = ()

    def save(self, path: str | Path) -> Path:
        """Write the first image. Raises IndexError where there is none."""
        path = Path(path)
        path.write_bytes(self.images[0])
        return path

    def df(self) -> Any:
        """The table in the result, as a frame. Raises INVALID where it has none."""
        return getattr(self.result, "df")()  # noqa: B009 - results are Results, and R is any of them

    def _repr_png_(self) -> bytes | None:
        return self.images[0] if self.images else None


def parse_result(module: str, tool: str, document: Mapping[str, Any]) -> Any:
    """The result as the tool in `module` declares it, from what the daemon said."""
    return read_result(getattr(importlib.import_module(module), tool).__tool__, document)


def read_result(declaration: Declaration, document: Mapping[str, Any]) -> Any:
    adapter, schema = _reader(declaration.name, declaration.result)
    return adapter.validate_python(_with_nones(document, schema, schema.get("$defs", {})))


@cache
def _reader(name: str, annotation: Any) -> tuple[TypeAdapter[Any], Schema]:
    adapter = TypeAdapter(annotation)
    return adapter, adapter.json_schema()


def _with_nones(value: Any, schema: Schema, definitions: Schema) -> Any:
    """With a None for each field that has no default: answers leave out what is None."""
    if isinstance(value, list):
        inner: Schema = next((each["items"] for each in _choices(schema, definitions) if "items" in each), {})
        return [_with_nones(item, inner, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    fits = (each for each in _choices(schema, definitions) if _fits(value, each))
    found: Schema = next(fits, {})
    fields = found.get("properties", {})
    left_out = {name: None for name in found.get("required", ()) if name not in value}
    other = found.get("additionalProperties")
    rest = other if isinstance(other, dict) else {}
    return {name: _with_nones(part, fields.get(name, rest), definitions) for name, part in value.items()} | left_out


def _choices(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """The schema itself, what it refers to, or what it is one of."""
    if "$ref" in schema:
        yield from _choices(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for each in schema.get("anyOf", ()):
        yield from _choices(each, definitions)
    if "type" in schema:
        yield schema


def _fits(value: Mapping[str, Any], schema: Schema) -> bool:
    fields = schema.get("properties", {})
    lacking = [name for name in schema.get("required", ()) if name not in value]
    nullable = all({"type": "null"} in fields[name].get("anyOf", ()) for name in lacking)
    known = not fields or schema.get("additionalProperties", True) is not False or value.keys() <= fields.keys()
    return schema.get("type") == "object" and nullable and known
