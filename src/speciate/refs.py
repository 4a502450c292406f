"""How datasets and models are named in arguments: `lesions@v3:train`, `hf:org/name`, `triage@production`."""

from __future__ import annotations

import re
from typing import NamedTuple

from speciate.errors import Code, SpeciateError

SPLITS = ("train", "validation", "test")
_SOURCES = ("hf", "timm", "pkg", "api", "path")
_DATASET = re.compile(r"(?P<name>[A-Za-z0-9_][\w.\-]{0,63})(@v(?P<version>[1-9]\d*))?(:(?P<split>[A-Za-z0-9_\-]+))?")
_MODEL = re.compile(r"(?P<name>[A-Za-z0-9_][\w.\-]{0,63})(@(?P<at>v[1-9]\d*|[a-z][a-z0-9_\-]*))?")


class DatasetRef(NamedTuple):
    """`version` None is the newest, `split` None is every row."""

    name: str
    version: int | None = None
    split: str | None = None

    def __str__(self) -> str:
        version = f"@v{self.version}" if self.version else ""
        return f"{self.name}{version}" + (f":{self.split}" if self.split else "")


class ModelRef(NamedTuple):
    """A registered model, or one by its source.

    `source` is None for registered names (`name`, `name@v3`) and aliases of a use case (`triage@production`).
    """

    name: str
    source: str | None = None
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.source:
            return f"{self.source}:{self.name}"
        at = f"@v{self.version}" if self.version else f"@{self.alias}" if self.alias else ""
        return self.name + at


def dataset_ref(text: str) -> DatasetRef:
    match = _DATASET.fullmatch(text)
    if not match:
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} is not a dataset: write 'name', 'name@v3' or 'name@v3:test'.",
            "Call describe_dataset() for the datasets there are.",
        )
    version = match["version"]
    return DatasetRef(match["name"], int(version) if version else None, match["split"])


def model_ref(text: str) -> ModelRef:
    source, colon, rest = text.partition(":")
    if colon and source in _SOURCES and rest:
        return ModelRef(rest, source=source)
    match = _MODEL.fullmatch(text)
    if not match:
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} is not a model: write 'name', 'name@v3', 'USECASE@production', or a source such as "
            f"'pkg:NAME', 'hf:org/name', 'path:/dir' (sources: {', '.join(_SOURCES)}).",
            "Call list_options(kind='method') for what can be trained.",
        )
    at = match["at"] or ""
    if re.fullmatch(r"v\d+", at):
        return ModelRef(match["name"], version=int(at[1:]))
    return ModelRef(match["name"], alias=at or None)
