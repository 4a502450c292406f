"""Whether models can be merged at all, as far as cards, settings and the headers of their weights tell.

Nothing heavy is imported: the plan asks this before there is a job. What must agree: the task, the labels or units of
the answers, the inputs, the network and its preprocessing to the last setting, and every tensor's name and shape. What
may differ: the numbers, and the calibration."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models import sealed
from speciate.models.language.causal_lm import is_causal_lm
from speciate.models.model_card import ModelCard
from speciate.models.registry import ModelVersion
from speciate.tasks import input_ranges
from speciate.training.merging import merge_weights

PREDICTOR = "predictor.json"
CALIBRATION = frozenset({"temperature", "thresholds", "known", "sampling"})
_IGNORED_KEYS: Mapping[str, frozenset[str]] = {
    PREDICTOR: CALIBRATION,
    "backbone.json": frozenset({"base_model"}),
    "config.json": frozenset({"_name_or_path", "transformers_version"}),
    "generation_config.json": frozenset({"transformers_version"}),
}
"""File -> keys, at any depth, that say nothing of what a network computes."""
_DIFFERENCES_SHOWN = 3
_CARD_FIELDS = (
    ("task", "made for different tasks"),
    ("modality", "reading different modalities"),
    ("labels", "answering with different labels"),
    ("inputs", "reading different columns"),
    ("parts", "reading different parts"),
)


def check_mergeable(versions: Sequence[ModelVersion]) -> None:
    """Raises INVALID with the reason, and what could be merged instead."""
    for version in versions:
        _check_network(version)
    first = versions[0]
    for other in versions[1:]:
        _check_cards(first.card, other.card)
        _check_files(first, other)
        _check_tensors(first, other)


def differences(first: Any, second: Any, ignored: Collection[str], path: str = "") -> list[str]:
    """`a.b` of each value that differs between two JSON documents."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            found
            for key in sorted(first.keys() | second.keys())
            if key not in ignored
            for found in differences(first.get(key), second.get(key), ignored, f"{path}.{key}" if path else key)
        ]
    return [] if first == second else [path]


class WeightShape(NamedTuple):
    """What plans ask of a folder's weights."""

    counts_batches: bool
    """Whether there is BatchNorm in it."""
    largest: int
    """Numbers in the largest tensor."""


def weight_shape(folder: Path) -> WeightShape:
    kept = merge_weights.stored_tensors(folder)
    sizes = [_numbers(each.shape) for each in kept.values()]
    return WeightShape(any(name.endswith(merge_weights.BATCH_COUNTER) for name in kept), max(sizes, default=0))


def has_head_of(base: Path, folder: Path) -> bool:
    """Whether every tensor of the folder has a beginning in the base: then the head's changes can be told, too."""
    theirs = merge_weights.stored_tensors(base)
    return all(
        name in theirs and theirs[name].shape == kept.shape
        for name, kept in merge_weights.stored_tensors(folder).items()
    )


def is_network(folder: Path) -> bool:
    """A backbone with the head of a task."""
    return "backbone" in _predictor(folder)


def is_writer(folder: Path) -> bool:
    """A language model, ours or as its publisher left it."""
    return "language" in _predictor(folder) or (not (folder / PREDICTOR).is_file() and is_causal_lm(folder))


def _predictor(folder: Path) -> Mapping[str, Any]:
    """What predictor.json says; empty where it cannot be read."""
    try:
        found: Mapping[str, Any] = foreign_files.read_json(folder / PREDICTOR)
    except (OSError, ValueError):
        return {}
    return found


def _numbers(dimensions: Sequence[int]) -> int:
    size = 1
    for each in dimensions:
        size *= each
    return size


def _check_network(version: ModelVersion) -> None:
    """Fitted estimators have no weights that lie near each other, however alike their data were."""
    folder = version.path
    if (folder / "adapter_config.json").is_file():
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} is an adapter: the mean of its two factors is not the mean of the changes that they make.",
            "Merge it into its base's weights first; what 'lora' makes here is merged already.",
        )
    if (
        not version.card.version
        or not (is_network(folder) or is_writer(folder))
        or not merge_weights.weight_files(folder)
    ):
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} was made by {version.card.method!r}: there is no network of ours in it whose weights could "
            "be merged.",
            "Name versions that 'full', 'lora' or 'sft' made from one base model; others can be asked together: "
            "evaluate_models(models=['ensemble:A+B'], ...).",
        )


def _check_cards(first: ModelCard, other: ModelCard) -> None:
    for name, what in _CARD_FIELDS:
        one, two = getattr(first, name), getattr(other, name)
        if one != two:
            raise _apart(first.ref, other.ref, f"{what} ({_short(one)}; {_short(two)})")


def _check_files(first: ModelVersion, other: ModelVersion) -> None:
    ours, theirs = _others(first.path), _others(other.path)
    if ours != theirs:
        raise _apart(first.ref, other.ref, f"different networks: of their files, {_some(ours ^ theirs)} is in one only")
    for name in sorted(ours):
        one, two = (first.path / name).read_bytes(), (other.path / name).read_bytes()
        if one == two:
            continue
        found = [f"the file {name}"]
        if name.endswith(".json"):
            found = differences(json.loads(one), json.loads(two), _IGNORED_KEYS.get(name, frozenset()))
        if found:
            raise _apart(first.ref, other.ref, f"not built alike: {_some(found)} differs in {name}")


def _check_tensors(first: ModelVersion, other: ModelVersion) -> None:
    ours, theirs = merge_weights.stored_tensors(first.path), merge_weights.stored_tensors(other.path)
    if ours.keys() != theirs.keys():
        raise _apart(first.ref, other.ref, f"different networks: one lacks {_some(ours.keys() ^ theirs.keys())}")
    for name, kept in ours.items():
        if kept.shape != theirs[name].shape:
            raise _apart(first.ref, other.ref, f"of different sizes: {name} is {kept.shape} and {theirs[name].shape}")


def _others(folder: Path) -> set[str]:
    """Names of its files that are no weights. What each saw in training may differ."""
    apart = (sealed.MANIFEST, sealed.CARD, input_ranges.FILE)
    return {path.name for path in folder.iterdir() if path.suffix != merge_weights.WEIGHTS and path.name not in apart}


def _some(names: Collection[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - _DIFFERENCES_SHOWN} more" if len(found) > _DIFFERENCES_SHOWN else ""
    return ", ".join(repr(each[:64]) for each in found[:_DIFFERENCES_SHOWN]) + more


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _apart(first: str, other: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{first} and {other} cannot be merged: they are {why}.",
        "Merge versions of one base model for one task and one set of labels; others can be asked together: "
        f"evaluate_models(models=['ensemble:{first}+{other}'], ...).",
    )
