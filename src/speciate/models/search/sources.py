"""Sources of published models, their visible table, and the Hugging Face hub. Third parties come by entry point.

A source reads installed packages, or asks a server; `entries` may take long and runs in a worker. Nothing is guessed:
unknown fields are None, so an unknown licence is no licence, and an unknown size is no small one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
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
    """A line of text for search: names, families, training data."""
    access: Literal["weights", "api"]
    tasks: tuple[str, ...] = ()
    """Names of `vocabulary.TASKS` that it does without training here."""
    modalities: tuple[str, ...] = ()
    parameters: int | None = None
    license: str | None = None
    """SPDX id where there is one (licenses.py)."""
    published: tuple[Figure, ...] = ()
    usd_per_1m_input: FiniteFloat | None = None
    usd_per_1m_output: FiniteFloat | None = None
    usd_per_image: FiniteFloat | None = None
    """US dollars for an image that it makes, else for one (or a page) that it reads."""
    usd_per_minute: FiniteFloat | None = None
    """US dollars for a minute of sound."""
    context_tokens: int | None = None
    released: str | None = Field(None, pattern=r"\d{4}(-\d{2}(-\d{2})?)?")
    base_model: str | None = None
    """The ref of the model that it was made from."""
    relation: Relation | None = None
    """How it was made from `base_model`, if the source says so."""
    hub: str | None = None
    """The repository with its weights, `org/name`."""
    revision: str | None = None
    format: Literal["safetensors", "pickle"] | None = None
    """Format of its weights, if the source says so."""
    bytes: int | None = None
    gflops: FiniteFloat | None = None
    languages: tuple[str, ...] = ()
    downloads: int | None = None
    likes: int | None = None
    gated: bool | None = None


class Source(Protocol):
    """A place where models are published."""

    name: str
    what: str
    package: str | None
    """The distribution that it reads; None where it reads none."""

    def installed(self) -> bool: ...

    def origin(self) -> str:
        """The origin of current entries, such as `timm 1.0.31`."""
        ...

    def entries(self) -> Iterator[Entry]:
        """The entries in a fixed order. Malformed ones are left out."""
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


SOURCES = {
    "pkg": "speciate.models.search.package_sources:PACKAGES",
    "timm": "speciate.models.search.package_sources:TIMM",
    "timm_results": "speciate.models.search.timm_results:TIMM_RESULTS",
    "torchvision": "speciate.models.search.package_sources:TORCHVISION",
    "mteb": "speciate.models.search.package_sources:MTEB",
    "open_clip": "speciate.models.search.package_sources:OPEN_CLIP",
    "segmentation_models": "speciate.models.search.package_sources:SEGMENTATION_MODELS",
    "transformers": "speciate.models.search.package_sources:TRANSFORMERS",
    "pipelines": "speciate.models.search.text_classifier_sources:PIPELINES",
    "llm_guard": "speciate.models.search.text_classifier_sources:LLM_GUARD",
    "textattack": "speciate.models.search.text_classifier_sources:TEXT_ATTACK",
    "pysentimiento": "speciate.models.search.text_classifier_sources:PYSENTIMIENTO",
    "prices": "speciate.models.search.package_sources:PRICES",
    "litellm": "speciate.models.search.price_list:PRICE_LIST",
    "hub": "speciate.models.search.sources:HUB",
}
"""Name -> "module:object". If several sources know a field of a model, the first counts."""
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


MOST = 5_000
"""Models that are requested, most downloaded first: at 100 a page, some 50 requests of the 500 that anybody may make in
five minutes."""
_WANTED = (
    "author", "baseModels", "cardData", "createdAt", "downloads", "gated", "lastModified", "library_name", "likes",
    "pipeline_tag", "safetensors", "sha", "tags", "model-index",
)  # fmt: skip
_MODALITY = {"text": "text", "token": "text", "image": "image", "object": "image", "audio": "audio",
             "automatic": "audio", "video": "video", "tabular": "tabular", "time": "time-series"}  # fmt: skip
"""First word of a task -> the modality of its models."""
_FIGURES = 20


class Hub:
    """The most used models of a Hugging Face hub, as its API lists them now. Needs a network. Figures in a card are its
    author's: `published` has them under the dataset's name, unchecked."""

    name, what, package = "hub", "the most used models of the Hugging Face hub, asked now", "huggingface_hub"

    def installed(self) -> bool:
        return hf_hub.is_installed()

    def origin(self) -> str:
        return hf_hub.server()

    def entries(self) -> Iterator[Entry]:
        """Raises what `hf_hub.list_models` raises."""
        for model in hf_hub.list_models(MOST, _WANTED):
            try:
                yield _entry(model)
            except (ValidationError, TypeError, ValueError, AttributeError):
                continue  # malformed


def _entry(model: Any) -> Entry:
    card = model.card_data.to_dict() if model.card_data is not None else {}
    task = model.pipeline_tag if model.pipeline_tag in TASKS else None
    sizes = model.safetensors
    tags = [str(tag) for tag in model.tags or ()]
    license_ = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    reads = _MODALITY.get((model.pipeline_tag or "").partition("-")[0])
    base, relation = _base(model.base_models, card, tags)
    return Entry(
        ref=f"hf:{model.id}",
        what=" ".join([model.id, model.pipeline_tag or "", model.library_name or "", *tags[:20]])[:1_000],
        access="weights",
        tasks=(task,) if task else (),
        modalities=(reads,) if reads else (),
        parameters=int(sizes.total) if sizes is not None and sizes.total else None,
        license=spdx(license_),
        published=tuple(_figures(card)),
        released=model.created_at.date().isoformat() if model.created_at else None,
        base_model=base,
        relation=relation,
        hub=model.id,
        revision=model.sha,
        format="safetensors" if sizes is not None or "safetensors" in tags else None,
        languages=tuple(_listed(card.get("language"))),
        downloads=model.downloads,
        likes=model.likes,
        gated=bool(model.gated) if model.gated is not None else None,
    )


def _figures(card: Mapping[str, Any]) -> Iterator[Figure]:
    for result in (card.get("eval_results") or ())[:_FIGURES]:
        try:
            yield Figure(
                benchmark=str(result.dataset_name)[:64], metric=str(result.metric_type)[:64], value=result.metric_value
            )
        except ValidationError:
            continue


def _base(field: Any, card: Mapping[str, Any], tags: list[str]) -> tuple[str | None, Relation | None]:
    """The base model and the relation to it. The hub has both in a field of its own, and again in tags such as
    `base_model:quantized:org/name`; a card may name the base alone. Of several, as in a merge, the first counts."""
    bases = field if isinstance(field, dict) else {"models": field}
    relation = bases.get("relation")
    models = _listed(bases.get("models"))
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
