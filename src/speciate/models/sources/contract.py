"""What a source of models tells: entries with what is known of each, nothing guessed.

A source reads what is installed, or asks a server; `entries` may take long and runs in a worker. What a source does not
say stays None: an unknown licence is no licence, an unknown size is no small one.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Relation = Literal["quantized", "adapter", "merge", "finetune"]
"""How a model was made from another, in the hub's words."""
RELATIONS: tuple[Relation, ...] = get_args(Relation)


class Figure(BaseModel):
    """A published value of one metric on one benchmark, in the unit of whoever published it (usually percent)."""

    model_config = ConfigDict(frozen=True)
    benchmark: str
    metric: str
    value: FiniteFloat


class Entry(BaseModel):
    """One model as one source knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ref: str
    """As models are named in arguments: `timm:NAME`, `hf:org/name`, `api:PROVIDER/MODEL`, `pkg:NAME` ..."""
    what: str
    """A line of text: names, families, data that it was trained on. What a search by words looks in."""
    access: Literal["weights", "api"]
    tasks: tuple[str, ...] = ()
    """Names of `vocabulary.TASKS`: those that it does without training here."""
    modalities: tuple[str, ...] = ()
    parameters: int | None = None
    license: str | None = None
    """SPDX id where there is one (licenses.py)."""
    published: tuple[Figure, ...] = ()
    usd_per_1m_input: FiniteFloat | None = None
    usd_per_1m_output: FiniteFloat | None = None
    context_tokens: int | None = None
    released: str | None = Field(None, pattern=r"\d{4}(-\d{2}(-\d{2})?)?")
    base_model: str | None = None
    """The ref of what it was made from."""
    relation: Relation | None = None
    """How it was made from `base_model`, where the source says so."""
    hub: str | None = None
    """The repository with its weights, `org/name`."""
    revision: str | None = None
    format: Literal["safetensors", "pickle"] | None = None
    """Of its weights, where the source says so."""
    bytes: int | None = None
    gflops: FiniteFloat | None = None
    languages: tuple[str, ...] = ()
    downloads: int | None = None
    likes: int | None = None
    gated: bool | None = None


class Source(Protocol):
    """One of the places where models are published."""

    name: str
    what: str
    package: str | None
    """The distribution that it reads; None where it reads none."""

    def installed(self) -> bool: ...

    def origin(self) -> str:
        """What entries of now are told by, such as `timm 1.0.31`."""
        ...

    def entries(self) -> Iterator[Entry]:
        """In a fixed order. An entry that the source tells in a way that makes no sense is left out."""
        ...


class Packaged:
    """A source that reads what a distribution brings."""

    name: str
    what: str
    package: str

    def installed(self) -> bool:
        try:
            metadata.distribution(self.package)
        except metadata.PackageNotFoundError:
            return False
        return True

    def origin(self) -> str:
        return f"{self.package} {metadata.version(self.package)}"
