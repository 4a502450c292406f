"""Kind `screen`: which published models are worth fetching for a use case, by their small files alone.

Kilobytes are read of each: the list of its files, its licence and its config.json. A model stays if its licence is
allowed, its weights are safetensors, its head does the task, and its labels could be right more often than the
commonest answer. The most promising ones stay as long as bytes are left; the report says why the others do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate import hf_hub, use_cases
from speciate.datasets import versions
from speciate.datasets.columns import class_name
from speciate.errors import Code, SpeciateError
from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run, Transient
from speciate.models import licenses, registry, trust
from speciate.models.fetch import repository_of
from speciate.models.published import label_map
from speciate.models.published.adapters.text import entailment
from speciate.models.published.architectures import PublishedHead, check_head
from speciate.refs import model_ref
from speciate.tasks.example_targets import is_label
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Workspace

MOST_CANDIDATES = 40
_CONFIG = "config.json"
_KEPT = 5


class ScreenSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    dataset: str
    models: tuple[str, ...] = Field(min_length=1, max_length=MOST_CANDIDATES)
    """`hf:org/name`, `timm:NAME`, or what was fetched already."""
    max_bytes: int = Field(4 << 30, gt=0)
    """Most bytes that may be fetched, all models together."""
    keep: int = Field(_KEPT, ge=1, le=20)


class ScreenPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    models: tuple[str, ...]
    here: Mapping[str, str]
    """Models that are fetched already: as named in the call -> the ref of the version."""
    folders: Mapping[str, str]
    licenses_here: Mapping[str, str | None]
    task: str
    modality: str
    labels: Mapping[str, int]
    """Labels with their counts; empty where only a run knows them."""
    licenses: tuple[str, ...]
    max_bytes: int
    keep: int


class Screened(NamedTuple):
    """A model that may be fetched."""

    ref: str
    version: str | None
    """The version of a model that is here already; None for another one."""
    name: str
    """The model's name in the registry."""
    bytes: int
    """Bytes to be fetched."""
    ceiling: float | None
    downloads: int


class Dropped(NamedTuple):
    ref: str
    why: str


def plan(spec: ScreenSpec, workspace: Workspace) -> Plan[ScreenPayload]:
    use_case = use_cases.get(workspace.database, spec.use_case)
    manifest = versions.resolve(workspace.database, spec.dataset)
    task, here, folders, known = find_task(use_case.task), dict[str, str](), dict[str, str](), dict[str, str | None]()
    for name in spec.models:
        ref = model_ref(name)
        if ref.source == "timm" or (ref.source == "hf" and registry.fetched(workspace.database, ref) is None):
            continue
        version = registry.resolve(workspace.database, workspace.folders, ref)
        here[name], folders[name], known[name] = version.ref, str(version.path), version.card.license
    labelled = task.family in ("classification", "ordinal") and is_label(manifest, use_case.target_column)
    payload = ScreenPayload(
        models=tuple(dict.fromkeys(spec.models)),
        here=here,
        folders=folders,
        licenses_here=known,
        task=task.name,
        modality=manifest.modality,
        labels=manifest.labels if labelled else {},
        licenses=tuple(licenses.wanted(use_case.limits.licenses)),
        max_bytes=spec.max_bytes,
        keep=spec.keep,
    )
    return Plan(
        payload=payload,
        resources=Resources(cpu=0.5, memory_mb=300),
        use_case=spec.use_case,
        resolved={"dataset": manifest.ref, "task": task.name},
    )


def run(run: Run) -> Mapping[str, object]:
    """`{candidates, dropped}`: the most promising first. A hub that cannot be reached is asked again later."""
    payload = run.read_payload(ScreenPayload)
    fitting, dropped = list[Screened](), list[Dropped]()
    for place, ref in enumerate(payload.models):
        run.progress(place, len(payload.models), "models", ref)
        try:
            here = payload.here.get(ref)
            fitting.append(_screen_here(payload, ref, here) if here else _screen_on_hub(run, payload, ref))
        except SpeciateError as error:
            if error.code is Code.UNAVAILABLE:
                raise Transient(f"{error.message} {error.recovery}") from error
            dropped.append(Dropped(ref, error.message))
    kept, beyond = choose(fitting, payload.max_bytes, payload.keep)
    return {
        "candidates": [each._asdict() for each in kept],
        "dropped": [each._asdict() for each in (*dropped, *beyond)],
    }


def choose(fitting: Sequence[Screened], max_bytes: int, keep: int) -> tuple[list[Screened], list[Dropped]]:
    """The most promising ones, as long as bytes are left. Those with the highest ceiling first, then those that are
    fetched most, then the smallest."""
    best_first = sorted(fitting, key=lambda each: (-(each.ceiling or 0.0), -each.downloads, each.bytes, each.ref))
    kept, beyond, left = list[Screened](), list[Dropped](), max_bytes
    for each in best_first:
        if len(kept) == keep:
            beyond.append(Dropped(each.ref, f"{keep} others promise as much or more."))
        elif each.bytes > left:
            beyond.append(Dropped(each.ref, f"Its {each.bytes:,} bytes are more than the {left:,} that are left."))
        else:
            kept.append(each)
            left -= each.bytes
    return kept, beyond


def _screen_here(payload: ScreenPayload, ref: str, version: str) -> Screened:
    _check_license(payload, ref, payload.licenses_here.get(ref))
    ceiling = _ceiling(payload, ref, check_head(Path(payload.folders[ref]), ref, payload.task))
    return Screened(ref, version, version.partition("@")[0], 0, ceiling, 0)


def _screen_on_hub(run: Run, payload: ScreenPayload, ref: str) -> Screened:
    name = model_ref(ref)
    repository, revision = repository_of(name)
    found = hf_hub.find_revision("model", repository, revision)
    chosen = trust.choose(file.name for file in found.files)
    metadata = found.details.get("card") or {}
    stated = str(metadata.get("license") or "") or next(
        (tag.removeprefix("license:") for tag in found.details.get("tags", ()) if tag.startswith("license:")), ""
    )
    _check_license(payload, ref, licenses.spdx(stated))
    folder = run.folders.cache / "published" / repository.replace("/", "--") / found.commit  # where `fetch` goes on
    hf_hub.download(found, [_CONFIG], folder)
    seen = run.folder.path / "screened" / repository.replace("/", "--")
    seen.mkdir(parents=True, exist_ok=True)
    if (folder / _CONFIG).is_file():
        (seen / _CONFIG).write_bytes((folder / _CONFIG).read_bytes())
    trust.check(seen)
    for other in chosen.files:  # their names tell whether there is a tokenizer, say
        (seen / other).touch()
    ceiling = _ceiling(payload, ref, check_head(seen, ref, payload.task))
    size = sum(file.size for file in found.files if file.name in chosen.files)
    return Screened(ref, None, registry.name_of(name), size, ceiling, found.details.get("downloads") or 0)


def _check_license(payload: ScreenPayload, ref: str, license_: str | None) -> None:
    if payload.licenses and license_ not in payload.licenses:
        raise SpeciateError(
            Code.REFUSED,
            f"The licence of {ref!r} is {license_ or 'not known'}; the use case allows {', '.join(payload.licenses)}.",
        )


def _ceiling(payload: ScreenPayload, ref: str, head: PublishedHead) -> float | None:
    """The share of the dataset's examples that could be right; None where only a run knows. INVALID if that is no more
    than what the commonest label gets, or if the head is one for something else."""
    task = find_task(payload.task)
    if find_task(head.task).family != task.family or not head.reads(payload.modality):
        raise SpeciateError(Code.INVALID, f"{ref!r} is a model for {head.task!r}, and the task is {task.name!r}.")
    by_words = head.zero_shot or (head.labels is not None and entailment(head.labels) is not None)
    if not payload.labels or head.labels is None or by_words:
        return 1.0 if payload.labels and by_words else None
    table = label_map.decide(tuple(dict.fromkeys(head.labels)), tuple(payload.labels))
    if not table.pairs:
        named = ", ".join(class_name(label) for label in head.labels[:5])
        raise SpeciateError(
            Code.INVALID,
            f"No label of {ref!r} ({named}) is known to mean one of yours; evaluate_models takes a table of them.",
        )
    total, covered = sum(payload.labels.values()), set(table.pairs.values())
    ceiling = sum(count for label, count in payload.labels.items() if label in covered) / max(total, 1)
    commonest = max(payload.labels.values()) / max(total, 1)
    if ceiling <= commonest:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} has labels for {ceiling:.0%} of the examples; the commonest label alone is right for "
            f"{commonest:.0%}.",
        )
    return ceiling


KIND = Kind(
    name="screen", spec=ScreenSpec, plan=plan, run="speciate.evaluation.screening:run",
    limits=Limits(silence_seconds=300),
)  # fmt: skip
