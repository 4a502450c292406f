"""How things are named: references such as `lesions@v3:train`, `hf:org/name` and `triage@production`, and readable ids.

An id is a noun, a hyphen and twelve characters without look-alikes. One that is made from a key is a function of the
key, so that a repeated request names the same row."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NamedTuple, NewType

from speciate.errors import Call, Code, SpeciateError

SPLITS = ("train", "validation", "test")
SOURCES = ("new", "hf", "timm", "torchvision", "pkg", "api", "path")
_DATASET = re.compile(
    r"(?P<name>[A-Za-z0-9_][\w.\-]{0,63}?)(@(v(?P<version>[1-9]\d*)|(?P<tag>[A-Za-z][\w\-]{0,63})))?"
    r"(\.\.(?P<until>v[1-9]\d*|[A-Za-z][\w\-]{0,63}))?(:(?P<split>[A-Za-z0-9_\-]+))?"
)
_TAG = re.compile(r"(?!v\d+$)[A-Za-z][\w\-]{0,63}")
_MODEL = re.compile(r"(?P<name>[A-Za-z0-9_][\w.\-]{0,63})(@(?P<at>v[1-9]\d*|[a-z][a-z0-9_\-]*))?")


class DatasetRef(NamedTuple):
    """`version` and `tag` None is the newest, `split` None is every row."""

    name: str
    version: int | None = None
    split: str | None = None
    tag: str | None = None

    def __str__(self) -> str:
        at = f"@v{self.version}" if self.version else f"@{self.tag}" if self.tag else ""
        return f"{self.name}{at}" + (f":{self.split}" if self.split else "")


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


class DatasetRange(NamedTuple):
    """What a query is about: a version, or where `since` is given what changed from that to it."""

    ref: DatasetRef
    since: DatasetRef | None


def dataset_ref(text: str) -> DatasetRef:
    found = dataset_range(text)
    if found.since is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} is a range of versions, which only query_dataset understands.",
            f"Call again with dataset={str(found.ref)!r}.",
        )
    return found.ref


def dataset_range(text: str) -> DatasetRange:
    """`name`, `name@v3`, `name@TAG`, each with `:split`; or `name@v3..v5`: what v5 changed since v3."""
    match = _DATASET.fullmatch(text)
    if not match or (match["until"] and "@" not in text):
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} is not a dataset: write 'name', 'name@v3', 'name@TAG', 'name@v3:test', or 'name@v3..v5' for "
            "what changed between two versions.",
            next=[Call("describe_dataset", {}, "for the datasets there are")],
        )
    name, split = match["name"], match["split"]
    first = DatasetRef(name, int(match["version"]) if match["version"] else None, split, match["tag"])
    if match["until"] is None:
        return DatasetRange(first, None)
    return DatasetRange(_at(name, match["until"], split), first)


def check_tag(tag: str) -> str:
    """INVALID for what could not stand behind the @ of a dataset."""
    if not _TAG.fullmatch(tag):
        raise SpeciateError(
            Code.INVALID,
            f"{tag!r} cannot be a tag: letters, digits, _ and -, at most 64, beginning with a letter, and not as v3.",
            "Call again with such a tag, for example 'gold'.",
        )
    return tag


def _at(name: str, at: str, split: str | None) -> DatasetRef:
    if re.fullmatch(r"v\d+", at):
        return DatasetRef(name, int(at[1:]), split)
    return DatasetRef(name, None, split, at)


_COMPARED = ("column", "constant", "nearest", "ensemble", "code", "inspect")
"""What evaluate_models takes beside models."""


def is_model_ref(text: str) -> bool:
    """Whether `model_ref` reads it."""
    source, colon, rest = text.partition(":")
    return bool((colon and source in SOURCES and rest) or _MODEL.fullmatch(text))


def model_ref(text: str) -> ModelRef:
    source, colon, rest = text.partition(":")
    if colon and source in SOURCES and rest:
        return ModelRef(rest, source=source)
    match = _MODEL.fullmatch(text)
    if not match and source in _COMPARED:
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} answers in an evaluation alone: it has no weights and no version.",
            "define_use_case takes it as incumbent, too.",
            next=[Call("evaluate_models", {"models": [text], "dataset": "NAME"})],
        )
    if not match:
        raise SpeciateError(
            Code.INVALID,
            f"{text!r} is not a model: write 'name', 'name@v3', 'USECASE@production', or a source such as "
            f"'pkg:NAME', 'hf:org/name', 'path:/dir' (sources: {', '.join(SOURCES)}).",
            next=[Call("list_options", {"kind": "method"}, "for what can be trained")],
        )
    at = match["at"] or ""
    if re.fullmatch(r"v\d+", at):
        return ModelRef(match["name"], version=int(at[1:]))
    return ModelRef(match["name"], alias=at or None)


JobId = NewType("JobId", str)

ALPHABET, LENGTH = "23456789abcdefghjkmnpqrstvwxyz", 12
"""Alphabet and length of an id: 30 characters without look-alikes, 58 bits. Of a million ids two are equal once in a
million."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")


def _encode(data: bytes) -> str:
    number, out = int.from_bytes(data[:8], "big"), []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        out.append(ALPHABET[digit])
    return "".join(out)


def new_id(noun: str) -> str:
    """A random id such as `job-7f3kq2m8xz`."""
    return f"{noun}-{_encode(secrets.token_bytes(8))}"


def id_from_key(noun: str, key: str) -> str:
    """An id that is the same for the same key, on every machine."""
    return f"{noun}-{_encode(hashlib.sha256(key.encode()).digest())}"


def check_name(noun: str, name: str) -> str:
    """Return a user's name for a thing, or refuse it: letters, digits, `_ - .`, at most 64, starting with no sign."""
    if not _NAME.fullmatch(name):
        raise SpeciateError(
            Code.INVALID,
            f"{name!r} cannot name a {noun}: a name has at most 64 letters from a to z, digits, '_', '-' and '.', "
            "and begins with a letter or digit.",
            "Call again with another name.",
        )
    return name
