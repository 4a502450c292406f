"""What a source of models tells: entries with what is known of each, nothing guessed.

A source reads what is installed, or asks a server; `entries` may take long and runs in a worker. What a source does not
say stays None: an unknown licence is no licence, an unknown size is no small one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from speciate import hf_hub
from speciate.errors import unknown
from speciate.models.licenses import spdx
from speciate.vocabulary import TASKS

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


class PackageSource:
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


# The places where models are published: a visible table. Third parties come by entry point.


SOURCES = {
    "pkg": "speciate.models.search.package_sources:PACKAGES",
    "timm": "speciate.models.search.package_sources:TIMM",
    "torchvision": "speciate.models.search.package_sources:TORCHVISION",
    "mteb": "speciate.models.search.package_sources:MTEB",
    "open_clip": "speciate.models.search.package_sources:OPEN_CLIP",
    "segmentation_models": "speciate.models.search.package_sources:SEGMENTATION_MODELS",
    "transformers": "speciate.models.search.package_sources:TRANSFORMERS",
    "prices": "speciate.models.search.package_sources:PRICES",
    "hub": "speciate.models.search.sources:HUB",
}
"""Name -> "module:object". Where several tell the same of a model, the first stands."""
GROUP = "speciate.sources"
"""Entry point group of third parties: name = "module:object"."""


def find(name: str) -> Source:
    """The source of this name, or NOT_FOUND with near names."""
    known = table()
    if name not in known:
        raise unknown("source", name, known, f"Sources are: {', '.join(known)}.")
    module, _, attribute = known[name].partition(":")
    found: Source = getattr(importlib.import_module(module), attribute)
    return found


@cache
def table() -> dict[str, str]:
    """Ours first, which a third party cannot replace."""
    return {**SOURCES, **{p.name: p.value for p in entry_points(group=GROUP) if p.name not in SOURCES}}


# The most used models of a Hugging Face hub, as its API lists them now. Needs a network.
#
# What a card says of figures is what its author says: `published` holds it under the dataset's name, with no
# judgement.


MOST = 5_000
"""Models that are asked for, most downloaded first: at 100 a page, some 50 requests of the 500 that anybody may make in
five minutes."""
_WANTED = (
    "author", "baseModels", "cardData", "createdAt", "downloads", "gated", "lastModified", "library_name", "likes",
    "pipeline_tag", "safetensors", "sha", "tags", "model-index",
)  # fmt: skip
_MODALITY = {"text": "text", "token": "text", "image": "image", "object": "image", "audio": "audio",
             "automatic": "audio", "video": "video", "tabular": "tabular", "time": "time-series"}  # fmt: skip
"""First word of a task -> what its models read."""
_FIGURES = 20


class Hub:
    name, what, package = "hub", "the most used models of the Hugging Face hub, asked now", "huggingface_hub"

    def installed(self) -> bool:
        return hf_hub.is_installed()

    def origin(self) -> str:
        return hf_hub.server()

    def entries(self) -> Iterator[Entry]:
        """Raises as `hub.listed` does."""
        for told in hf_hub.list_models(MOST, _WANTED):
            try:
                yield _entry(told)
            except (ValidationError, TypeError, ValueError, AttributeError):
                continue  # one that makes no sense


def _entry(told: Any) -> Entry:
    card = told.card_data.to_dict() if told.card_data is not None else {}
    task = told.pipeline_tag if told.pipeline_tag in TASKS else None
    sizes = told.safetensors
    tags = [str(tag) for tag in told.tags or ()]
    license_ = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    reads = _MODALITY.get((told.pipeline_tag or "").partition("-")[0])
    base, relation = _base(told.base_models, card, tags)
    return Entry(
        ref=f"hf:{told.id}",
        what=" ".join([told.id, told.pipeline_tag or "", told.library_name or "", *tags[:20]])[:1_000],
        access="weights",
        tasks=(task,) if task else (),
        modalities=(reads,) if reads else (),
        parameters=int(sizes.total) if sizes is not None and sizes.total else None,
        license=spdx(license_),
        published=tuple(_figures(card)),
        released=told.created_at.date().isoformat() if told.created_at else None,
        base_model=base,
        relation=relation,
        hub=told.id,
        revision=told.sha,
        format="safetensors" if sizes is not None or "safetensors" in tags else None,
        languages=tuple(_listed(card.get("language"))),
        downloads=told.downloads,
        likes=told.likes,
        gated=bool(told.gated) if told.gated is not None else None,
    )


def _figures(card: dict[str, Any]) -> Iterator[Figure]:
    for result in (card.get("eval_results") or ())[:_FIGURES]:
        try:
            yield Figure(
                benchmark=str(result.dataset_name)[:64], metric=str(result.metric_type)[:64], value=result.metric_value
            )
        except ValidationError:
            continue


def _base(told: Any, card: dict[str, Any], tags: list[str]) -> tuple[str | None, Relation | None]:
    """What it was made from and how. The hub says both in a field of its own, and again in tags such as
    `base_model:quantized:org/name`; a card may name the base alone. Of several, as of a merge, the first stands."""
    said = told if isinstance(told, dict) else {"models": told}
    relation = said.get("relation")
    models = _listed(said.get("models"))
    named = [each.get("id") if isinstance(each, dict) else getattr(each, "id", each) for each in models]
    for tag in tags:
        _, kind, name = (*tag.split(":", 2), "", "")[:3]
        if tag.startswith("base_model:") and kind in RELATIONS:
            named.append(name)
            relation = relation or kind
    named += _listed(card.get("base_model"))
    relation = relation or card.get("base_model_relation")
    base = next((f"hf:{name}" for name in named if isinstance(name, str) and hf_hub.is_repository(name)), None)
    return base, relation if base is not None and relation in RELATIONS else None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] if value else []


HUB = Hub()
