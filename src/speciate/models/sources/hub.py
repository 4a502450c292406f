"""The most used models of a Hugging Face hub, as its API lists them now. Needs a network.

What a card says of figures is what its author says: `published` holds it under the dataset's name, with no judgement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from speciate import hub
from speciate.models.licenses import spdx
from speciate.models.sources.contract import RELATIONS, Entry, Figure, Relation
from speciate.vocabulary import TASKS

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
        return hub.installed()

    def origin(self) -> str:
        return hub.server()

    def entries(self) -> Iterator[Entry]:
        """Raises as `hub.listed` does."""
        for told in hub.listed(MOST, _WANTED):
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
    base = next((f"hf:{name}" for name in named if isinstance(name, str) and hub.is_repository(name)), None)
    return base, relation if base is not None and relation in RELATIONS else None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] if value else []


SOURCE = Hub()
