"""What a plan settles for the published models of an evaluation: tables of labels, prompts, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.published_models import check_named_models, settle_labels, show_labels
from speciate.tasks.example_targets import is_label
from speciate.vocabulary import Task

_COPIES = 2.5
"""Memory of a loaded model over the size of its weights: four bytes a number where the file has two, and a batch."""


class SettledModels(NamedTuple):
    models: list[EvaluatedModel]
    resolved: dict[str, Any]
    """For `dry_run`: `labels` of each published model."""


def settle_models(
    models: Sequence[EvaluatedModel],
    task: Task,
    manifest: Manifest,
    target: str | None,
    label_maps: Mapping[str, Mapping[str, str]],
    prompts: Mapping[str, Sequence[str]],
) -> SettledModels:
    """Raises as `settle_labels` does, and INVALID for a table or prompts of a model that takes no part."""
    wanted = _wanted_labels(manifest, target, task)
    published = [one for one in _every(models) if one.published is not None]
    named = {name for one in published if one.published for name in (one.published.ref, one.name)}
    check_named_models(label_maps, "label_maps", named)
    check_named_models(prompts, "prompts", named)
    shown: dict[str, Any] = {}

    def settle(model: EvaluatedModel) -> EvaluatedModel:
        members = tuple(settle(member) for member in model.members)
        model = model.model_copy(update={"members": members}) if members else model
        if model.published is None:
            return model
        ref = model.published.ref
        labels = settle_labels(
            model.published, task.name, model.modality or "", wanted, label_maps.get(ref, label_maps.get(model.name)),
            prompts.get(ref, prompts.get(model.name, ())),
        )  # fmt: skip
        if found := show_labels(labels, wanted, task.family):
            shown[model.name] = found
        return model.model_copy(update={"published": labels})

    settled = [settle(model) for model in models]
    return SettledModels(settled, {"labels": shown} if shown else {})


def settle_horizon(models: Iterable[EvaluatedModel], horizon: int | None) -> int | None:
    """`horizon`: of models that were trained here; without one the fewest steps that a published forecaster gives.
    Raises INVALID for a published forecaster of fewer steps."""
    steps = {one.name: one.published.steps for one in _every(models) if one.published and one.published.steps}
    if not steps:
        return horizon
    shortest = min(steps, key=lambda name: steps[name] or 0)
    if horizon is not None and (steps[shortest] or 0) < horizon:
        raise SpeciateError(
            Code.INVALID,
            f"{shortest} forecasts {steps[shortest]} steps, and {horizon} are asked for.",
            f"Leave it out, or compare it with models of {steps[shortest]} steps at most.",
        )
    return horizon if horizon is not None else steps[shortest]


def _wanted_labels(manifest: Manifest, target: str | None, task: Task) -> Mapping[str, int]:
    """The labels with their counts; empty where only the run knows them: in another column, or several in a cell."""
    known = is_label(manifest, target) and task.family in ("classification", "ordinal")
    return manifest.labels if known else {}


def weights_mb(models: Iterable[EvaluatedModel]) -> int:
    """Published models are large: what the largest takes, and those that stay loaded beside it."""
    sizes = [(one.bytes or 0) * _COPIES for one in _every(models) if one.published is not None]
    return int(sum(sizes) / 2**20)


def _every(models: Iterable[EvaluatedModel]) -> list[EvaluatedModel]:
    return [one for each in models for one in (each, *each.members)]
