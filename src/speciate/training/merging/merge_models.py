"""Kind `merge`: several versions of models of ours become the next version of a model, without a training.

The base of a merge is the version, or the published weights, from which all of them were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from speciate import foreign_files
from speciate.datasets import versions as datasets
from speciate.datasets.versions import Manifest
from speciate.environment import cores
from speciate.errors import Code, SpeciateError, closest
from speciate.evaluation.contamination import learned_from
from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import model_folder, registry
from speciate.models.model_card import ModelCard, Recipe
from speciate.models.model_folder import check_weights
from speciate.models.registry import ModelVersion
from speciate.refs import check_name, dataset_ref, model_ref
from speciate.training import train
from speciate.training.merging import mergeable
from speciate.training.merging.merge_spec import (
    METHODS_ON_A_BASE,
    Member,
    MergeParameters,
    MergePayload,
    MergeSpec,
    usual_weights,
)
from speciate.workspace.workspace import Workspace

_MB = 1_000_000
_PROCESS_MB = 1200
"""Memory of a worker with torch, and of a small network that answers validation examples."""
_BYTES = 4
_COPIES_IN_MEMORY = 3
"""Copies of a tensor, beside those of the models: changes, signs, what is kept."""


def plan(spec: MergeSpec, workspace: Workspace) -> Plan[MergePayload]:
    """Raises NOT_FOUND, INVALID or CONFLICT for what cannot be merged or would mean nothing."""
    check_name("model", spec.name)
    registry.check_free(workspace.database, spec.name)
    versions = _versions(spec, workspace)
    weights = usual_weights(spec.method, spec.models, spec.weights)
    parameters = _parameters(spec)
    mergeable.check_mergeable(versions)
    base = find_common_base(workspace, versions)
    base_folder, base_has_head = _base(workspace, base, versions[0], spec)
    ordered = _order_versions(spec, versions, weights)
    versions, weights = [version for version, _ in ordered], tuple(weight for _, weight in ordered)
    shape = mergeable.weight_shape(versions[0].path)
    manifest = _manifest(spec, workspace, versions, shape.counts_batches)
    payload = MergePayload(
        name=spec.name,
        method=spec.method,
        members=tuple(Member(ref=each.ref, id=each.card.id, folder=str(each.path)) for each in versions),
        weights=weights,
        parameters=parameters,
        base=base,
        base_folder=base_folder,
        base_has_head=base_has_head,
        card=_shared(versions),
        recipe=_trained(versions[0]) or versions[0].card.recipe,
        manifest=manifest,
        learned_from=_learned(workspace, versions),
        counts_batches=shape.counts_batches,
        threads=max(1, int(min(2, workspace.settings.capacity.cpu or cores()))),
    )
    memory = _PROCESS_MB + (len(versions) + 1 + _COPIES_IN_MEMORY) * shape.largest * _BYTES // _MB
    return Plan(
        payload=payload,
        resources=Resources(cpu=1, memory_mb=memory),
        bytes=sum(path.stat().st_size for path in versions[0].path.iterdir()),
        peak_memory_mb=memory,
        resolved={
            "models": [each.ref for each in versions],
            "weights": list(weights),
            "base_model": base,
            "dataset": manifest.ref if manifest else None,
        },
        preload="torch",
    )


def _versions(spec: MergeSpec, workspace: Workspace) -> list[ModelVersion]:
    fewest = 1 if spec.method in METHODS_ON_A_BASE else 2
    if len(spec.models) < fewest or (spec.method == "slerp" and len(spec.models) != 2):
        count = "two models" if spec.method == "slerp" else f"at least {fewest} model(s)"
        raise SpeciateError(
            Code.INVALID,
            f"{spec.method!r} merges {count}; {len(spec.models)} came.",
            f"Call merge_models again with {count}" + (", or method='soup'." if spec.method == "slerp" else "."),
        )
    found = [registry.resolve(workspace.database, workspace.folders, ref) for ref in spec.models]
    refs = [version.ref for version in found]
    if twice := sorted({ref for ref in refs if refs.count(ref) > 1}):
        raise SpeciateError(
            Code.INVALID, f"{twice[0]} is named more than once.", "Name it once, with a greater weight."
        )
    return found


def _order_versions(
    spec: MergeSpec, versions: Sequence[ModelVersion], weights: Sequence[float]
) -> list[tuple[ModelVersion, float]]:
    """By id where the order means nothing: sums are rounded in their order, and the same merge is the same bytes."""
    pairs = list(zip(versions, weights, strict=True))
    return pairs if spec.method == "slerp" else sorted(pairs, key=lambda pair: (pair[0].card.id, pair[0].ref))


def _parameters(spec: MergeSpec) -> MergeParameters:
    try:
        return MergeParameters.model_validate(spec.hyperparameters).settled(spec.method)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        known = MergeParameters.model_fields
        said = "" if name in known else f" {closest(name, known)}"
        raise SpeciateError(
            Code.INVALID,
            f"hyperparameters.{name} is {first['input']!r}: {first['msg']}.{said}",
            "; ".join(f"{each}: {field.description}" for each, field in known.items()),
        ) from error


def _base(workspace: Workspace, base: str, first: ModelVersion, spec: MergeSpec) -> tuple[str | None, bool]:
    """Where the base's weights lie, for methods that need them; whether it has the same head.

    A base in its publisher's own form has other names for its weights: the run makes our network of it first.
    """
    if spec.method not in METHODS_ON_A_BASE:
        return None, False
    ref = model_ref(base)
    version = registry.resolve(workspace.database, workspace.folders, ref) if ref.source != "path" else None
    folder = version.path if version else Path(ref.name)
    if version is None:
        check_weights(folder)
    if mergeable.is_writer(first.path):  # no part of it came with the task
        return str(folder), True
    head = (
        model_folder.has_backbone(folder)
        and _same_answers(folder, first.path)
        and mergeable.has_head_of(folder, first.path)
    )
    if not head and spec.weights and min(spec.weights) <= 0:
        raise SpeciateError(
            Code.INVALID,
            f"{base} has no head for {', '.join(first.card.labels[:3]) or first.card.task}, so the heads are averaged, "
            f"and in a mean the weights {list(spec.weights)} mean nothing.",
            "Give weights greater than 0.",
        )
    return str(folder), head


def _same_answers(base: Path, folder: Path) -> bool:
    """Whether the two heads speak of the same labels or units: shapes alone would not tell."""
    try:
        one, two = (foreign_files.read_json(each / mergeable.PREDICTOR)["readout"] for each in (base, folder))
    except (OSError, ValueError, KeyError):
        return False
    return not mergeable.differences(one, two, mergeable.CALIBRATION)


def _manifest(
    spec: MergeSpec, workspace: Workspace, versions: Sequence[ModelVersion], counts_batches: bool
) -> Manifest | None:
    """What to measure on: what the caller names, else what all members learned from. Raises INVALID where it is
    needed and there is none."""
    first = versions[0].card
    named = spec.dataset or _same([version.card.dataset for version in versions])
    if named is None or _trained(versions[0]) is None:
        if spec.method == "greedy" or counts_batches:
            why = "a greedy soup chooses by validation examples" if spec.method == "greedy" else _WHY_NORMS
            raise SpeciateError(
                Code.INVALID,
                f"{why}, and these models have learned from different datasets.",
                "Call merge_models again with dataset: one of this task with the splits 'train' and 'validation'.",
            )
        return None
    manifest = datasets.resolve(workspace.database, dataset_ref(named)._replace(split=None))
    lacking = [name for name in first.inputs if name not in manifest.inputs]
    if manifest.modality != first.modality or lacking:
        what = f"lacks the input {lacking[0]!r}" if lacking else f"holds {manifest.modality}, not {first.modality}"
        raise SpeciateError(
            Code.INVALID, f"{manifest.ref} {what}.", "Name a dataset like those that the models learned from."
        )
    needed = ["validation"] if spec.method == "greedy" else []
    needed += ["train"] if counts_batches else []
    for split in needed:
        if not manifest.splits.get(split):
            raise SpeciateError(
                Code.INVALID,
                f"{manifest.ref} has no split {split!r}, and "
                + (_WHY_NORMS if split == "train" else "a greedy soup chooses by validation examples")
                + ".",
                "Name another dataset, or method='soup'." if split == "validation" else "Name another dataset.",
            )
    return manifest.model_copy(update={"inputs": first.inputs or manifest.inputs})


_WHY_NORMS = "the statistics of BatchNorm have no mean, and are counted anew on training examples"


def _shared(versions: Sequence[ModelVersion]) -> Mapping[str, object]:
    """Fields of the merge's card that its members decide."""
    first = versions[0].card
    names = ("task", "modality", "inputs", "parts", "labels", "parameters")
    return {name: getattr(first, name) for name in names} | {
        "license": _license(versions),
        "use_case": _same([each.card.use_case for each in versions]),
    }


def _trained(version: ModelVersion) -> Recipe | None:
    """The recipe of a training by which examples are read and judged; a merge keeps that of its first member."""
    recipe = version.card.recipe
    found: Recipe = recipe if "spec" in recipe else recipe.get("merge", {}).get("trained", {})
    return found if "spec" in found else None


def _learned(workspace: Workspace, versions: Sequence[ModelVersion]) -> tuple[Manifest, ...] | None:
    found: dict[str, Manifest] = {}
    for version in versions:
        learned = learned_from(workspace.database, workspace.folders, version.card)
        if learned is None:
            return None
        found |= {manifest.ref: manifest for manifest in learned}
    return tuple(found.values())


def _license(versions: Sequence[ModelVersion]) -> str | None:
    """Licenses of all members, which all hold; None where one is not known."""
    names = [version.card.license for version in versions]
    known = sorted({name for name in names if name is not None})
    return " AND ".join(known) if known and None not in names else None


def _same(values: Sequence[Any]) -> Any:
    """The one value that all have, else None."""
    return values[0] if len(set(values)) == 1 else None


KIND = Kind(
    name="merge",
    spec=MergeSpec,
    plan=plan,
    run="speciate.training.merging.merge_run:run",
    collect=train.collect,
    commit=train.commit,
    limits=Limits(silence_seconds=1800),
)


_FRESH = ("new", "timm")


class Lineage(NamedTuple):
    """A model and what it was trained on from, nearest first."""

    refs: tuple[str, ...]

    @property
    def root(self) -> str:
        return self.refs[-1]


def lineage_of(workspace: Workspace, card: ModelCard) -> Lineage:
    """Ends at published or fresh weights, or where a version is gone."""
    found = [card.ref]
    while card.base_model is not None:
        ref = model_ref(card.base_model)
        found.append(card.base_model)
        if ref.source:
            break
        try:
            card = registry.resolve(workspace.database, workspace.folders, ref).card
        except SpeciateError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            break
    return Lineage(tuple(found))


def common_ancestor(lines: Sequence[Lineage]) -> str | None:
    """The nearest that all of them began with; None where there is none, or only fresh weights."""
    return next(
        (
            ref
            for ref in lines[0].refs
            if model_ref(ref).source not in _FRESH and all(ref in other.refs for other in lines[1:])
        ),
        None,
    )


def find_common_base(workspace: Workspace, versions: Sequence[ModelVersion]) -> str:
    """Raises INVALID where they have no beginning in common.

    Networks that began with the same weights stay in one valley, where their mean is as good as they are (Frankle et
    al. 2020; Wortsman et al. 2022). Networks with fresh weights do not, even of the same seed: the mean of their
    weights is noise. So fresh weights are no common base.
    """
    lines = [lineage_of(workspace, version.card) for version in versions]
    if (found := common_ancestor(lines)) is not None:
        return found
    roots = "; ".join(f"{each.refs[0]} with {each.root}" for each in lines[:4])
    fresh = all(model_ref(each.root).source in _FRESH for each in lines)
    why = ", and weights that begin at chance end in different valleys, whose middle is no solution" if fresh else ""
    raise SpeciateError(
        Code.INVALID,
        f"These models have no base in common: they began {roots}{why}.",
        "Merge versions that were trained from one model: train_model(..., base_model='pkg:NAME'), or "
        f"continue_from={versions[0].ref!r} on other data or with another seed.",
    )
