"""The job kind `curate`: operations on a dataset, one after another, as one next version.

Steps are parsed first, each into an operation with its parameters, or one clear error. The plan checks all steps as far
as the manifest allows and resolves names; the run applies the steps to the whole table and seals the result. Nothing is
sealed between steps, so a step that fails leaves nothing behind.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.datasets import next_version, operations, split_warnings, version_rows
from speciate.datasets.columns import QUALITIES, clean
from speciate.datasets.content_hash import unpack_lanes
from speciate.datasets.ingest.draft import quality_report, split_report, split_sizes
from speciate.datasets.leaks import leak_warnings
from speciate.datasets.next_version import NewVersion, PackedVersion, pack_version
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    ROWS_CHECKED,
    Operation,
    Others,
    Outcome,
    Outside,
    Reference,
    usable_rows,
)
from speciate.datasets.similarity import extractors
from speciate.datasets.split_warnings import empty_split_warnings
from speciate.datasets.version_report import Dealing, SplitReport, StepReport, VersionReport
from speciate.datasets.versions import Manifest, packed_lanes, resolve, version
from speciate.environment import cores
from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.jobs.allowances import Spend
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Resources
from speciate.jobs.kinds import Kind, Plan, granted
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.refs import dataset_ref
from speciate.sandbox import check
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders, Workspace

_PAID = ("speciate.evaluation.answer_cache", "paid")
"""This module stands above this floor, so it is named by string."""
_BYTES_PER_ROW = 1_000
_MANY_ROWS, _MOST_CORES = 10_000, 8
_EXTRAS = {"sklearn": "classical", "cleanlab": "curate", "pydicom": "medical", "scipy": "medical"}
WrittenStep = Mapping[str, object]
"""`op`, and its parameters: other keys for each operation."""
Resolve = Callable[[Reference, str | None, "Step"], str | None]
"""A reference of a step and its kind -> its full name; None for an extractor is the modality's own."""


class CurateSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    steps: tuple[WrittenStep, ...] = Field(min_length=1, max_length=20)


class Payload(BaseModel):
    """What the plan found out for the run."""

    model_config = ConfigDict(frozen=True)
    manifest: Manifest
    lanes: str
    report: Mapping[str, Any]
    """As the catalog keeps it."""
    steps: tuple[WrittenStep, ...]
    checked: int
    """How many steps the plan checked completely; the others are checked in the run."""
    others: dict[str, Manifest]
    models: dict[str, str]
    """Ref -> folder."""
    inputs: dict[str, tuple[str, ...]] = {}
    """Ref -> the columns that the model reads."""
    onto: int | None
    cage: str
    outside: dict[str, Mapping[str, Any]] = {}
    """For each step that asks models, by its number: `Outside.payload`."""


def plan(spec: CurateSpec, workspace: Workspace) -> Plan[Payload]:
    ref = dataset_ref(spec.dataset)
    if ref.split is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{spec.dataset!r} names a split, and operations are about the whole dataset.",
            f"Call again with dataset={str(ref._replace(split=None))!r}; to keep one split use the step "
            f"{{'op': 'filter', 'where': \"split = '{ref.split}'\"}}.",
        )
    found = version(workspace.database, ref)
    manifest = found.manifest
    check(workspace.settings.cage)
    others: dict[str, Manifest] = {}
    models: dict[str, str] = {}
    cards: dict[int, ModelCard] = {}
    chosen: set[str] = set()  # extractors

    parts = {part.own: part.modality for part in version_rows.part_names(workspace.folders, manifest)}

    def full_name(kind: Reference, name: str | None, step: Step) -> str | None:
        if name is None:
            return None
        if kind == "extractor":
            of_part = parts.get(getattr(step.parameters, "part", None) or "")
            resolved = extractors.resolve(name, of_part or manifest.modality, workspace, parts.values())
            chosen.add(resolved)
            return resolved
        if kind == "dataset":
            other = resolve(workspace.database, name)
            others[other.ref] = other
            return other.ref
        model = registry.resolve(workspace.database, workspace.folders, name)
        cards[step.number] = model.card
        models[model.ref] = str(model.path)
        return model.ref

    steps = resolve_steps(parse_steps(spec.steps), full_name)
    checked = preflight_steps(steps, manifest, others, cards)
    _check_first_rows(steps[0], manifest, workspace.folders)
    outside = _outside(steps, manifest, others, workspace)
    steps = [_name_models(step, outside.get(step.number)) for step in steps]
    payload = Payload(
        manifest=manifest,
        lanes=packed_lanes(workspace.database, manifest).hex(),
        report=found.report,
        steps=tuple(step.as_json() for step in steps),
        checked=checked,
        others=others,
        models=models,
        inputs={card.ref: card.inputs for card in cards.values()},
        onto=manifest.version if ref.version is None and ref.tag is None else None,
        cage=workspace.settings.cage,
        outside={str(number): dict(each.payload) for number, each in outside.items()},
    )
    rows = manifest.rows + sum(other.rows for other in others.values())
    torch = bool(chosen - {extractors.DESCRIPTOR}) or bool(outside)
    costs = [each.usd for each in outside.values()]
    requests = {"asked": [dict(each.resolved) for each in outside.values()]} if outside else {}
    classical = any(step.operation.needs for step in steps)
    made = Plan[Payload](
        payload=payload,
        resources=Resources(
            cpu=_cores(steps, rows, workspace.settings),
            memory_mb=(2048 if torch else 1024) + rows * _BYTES_PER_ROW // 2**20,
        ),
        resolved={"dataset": manifest.ref, "rows": manifest.rows, "steps": list(payload.steps), **requests},
        unchecked=_unchecked(steps, checked),
        secrets=tuple(sorted({key for each in outside.values() for key in each.secrets})),
        spends=_spends(outside),
        departures=tuple(dict.fromkeys(leaving for each in outside.values() for leaving in each.departures)),
        usd=None if None in costs else sum(cost for cost in costs if cost is not None) if costs else None,
        preload="torch" if torch else "classical" if classical else "data",
    )
    return granted(
        made,
        [step.with_step(error) for step in steps if step.number in outside for error in outside[step.number].missing],
    )


def _check_model(step: Step, card: ModelCard, manifest: Manifest) -> None:
    """INVALID for a model that cannot answer these examples."""
    if card.modality not in (None, manifest.modality):
        raise step.with_step(
            SpeciateError(
                Code.INVALID,
                f"{card.ref} reads {card.modality}, and {manifest.ref} holds {manifest.modality}.",
                f"Name a model that reads {manifest.modality}.",
            )
        )
    if lacking := [name for name in card.inputs if name not in manifest.columns]:
        raise step.with_step(
            SpeciateError(
                Code.INVALID,
                f"{card.ref} reads the column {lacking[0]!r}, which {manifest.ref} lacks.",
                "Name a model that was trained on columns of this dataset, or make the column in a step before.",
            )
        )


def _check_first_rows(step: Step, manifest: Manifest, folders: Folders) -> None:
    """What the stored rows tell of the first step: those of a later one are made by the steps before it."""
    if step.operation.check_rows is None:
        return
    there = version_rows.stored_columns(folders, manifest)
    rows = version_rows.read(folders, manifest, [name for name in ROWS_CHECKED if name in there])
    try:
        step.operation.check_rows(rows, step.parameters, manifest)
    except SpeciateError as error:
        raise step.with_step(error) from error


def _unchecked(steps: Sequence[Step], checked: int) -> tuple[str, ...]:
    """What only the rows tell: of the first step what its operation says, of a later one what the steps before it
    leave, and all of one behind a step whose columns are not known yet."""
    told = [f"{each}: {each.operation.unchecked}" for each in steps if each.operation.unchecked]
    told += [
        f"{each}: whether the rows that the steps before it leave do for it"
        for each in steps[1:]
        if each.operation.check_rows is not None
    ]
    told += [f"{each}: its columns, which the steps before it make" for each in steps[checked:]]
    return tuple(told)


def _cores(steps: Sequence[Step], rows: int, settings: Settings) -> int:
    """One, unless a step would keep one busy for seconds and computes on several."""
    if rows < _MANY_ROWS or not any(step.operation.takes_cores(step.parameters) for step in steps):
        return 1
    return max(1, min(_MOST_CORES, int(settings.capacity.cpu or cores())))


def _outside(steps: Sequence[Step], manifest: Manifest, others: Others, workspace: Workspace) -> dict[int, Outside]:
    """The needs of each step that asks models, by the step's number. Raises if consent, a key or a price is missing."""
    found = dict[int, Outside]()
    for step in steps:
        if not step.operation.outside:
            continue
        module, _, function = step.operation.outside.partition(":")
        try:
            outside = getattr(import_module(module), function)(step.parameters, manifest, others, workspace)
        except SpeciateError as error:
            raise step.with_step(error) from error
        if outside is not None:
            found[step.number] = outside
    return found


def _spends(outside: Mapping[int, Outside]) -> tuple[Spend, ...]:
    """One sum per dataset and host, for all steps that ask there; without a bound if one step has none."""
    found = dict[tuple[str, str], list[float | None]]()
    for step in outside.values():
        for each in step.spends:
            found.setdefault((each.dataset, each.host), []).append(each.usd)
    return tuple(
        Spend(dataset=dataset, host=host, usd=None if None in usd else sum(each for each in usd if each is not None))
        for (dataset, host), usd in found.items()
    )


def _name_models(step: Step, outside: Outside | None) -> Step:
    return step._replace(parameters=step.parameters.model_copy(update=dict(outside.names))) if outside else step


def run(run: Run) -> PackedVersion:
    """Applies the steps in order and seals the next version."""
    payload = run.read_payload(Payload)
    parent, steps = payload.manifest, parse_steps(payload.steps)
    pool = Pool(run.folders, Settings(cage=payload.cage), size=1)
    context = Context(run, parent, pool, payload.others, payload.models, payload.inputs)
    whole, results, only_removes = version_rows.read(run.folders, parent), list[StepReport](), True
    rows = whole
    before = payload.report.get("split", {})
    known = {name: before[name] for name in ("made_by", "fractions", "seed") if before.get(name) is not None}
    how = cast(Dealing, known)
    shares: list[str] = []
    try:
        for step in steps:
            context.progress(step.number - 1, len(steps), "steps", step.operation.name)
            if step.number > payload.checked:
                preflight_step(step, context.manifest, payload.others)
            context.outside = payload.outside.get(str(step.number), {})
            outcome = _apply_step(step, rows, context)
            results.append(_result(step, rows, outcome))
            only_removes = only_removes and outcome.only_removes and outcome.manifest is None
            rows = version_rows.sort_by_id(outcome.rows)
            context.manifest = _manifest_so_far(outcome.manifest or context.manifest, rows)
            if outcome.split_made_by is not None:
                how = {"made_by": outcome.split_made_by, **outcome.dealing}
                shares = split_warnings.uneven_split_warnings(split_sizes(rows), outcome.dealing.get("fractions", {}))
        context.progress(len(steps), len(steps), "steps", "writing the version")
    finally:
        pool.close()
        shutil.rmtree(run.folder.path / "scratch", ignore_errors=True)
    lanes = unpack_lanes(bytes.fromhex(payload.lanes))
    if only_removes:
        gone = whole.filter(pc.invert(pc.is_in(whole["id"], value_set=rows["id"].combine_chunks())))
        del whole
        sealed = next_version.seal_without(run.folders, parent, lanes, gone, context.manifest, rows)
        del gone
    else:
        del whole
        sealed = next_version.seal_changed(run.folders, parent, lanes, rows, context.manifest)
    split: SplitReport = {
        **split_report(rows, parent.modality, made=True, inputs=context.manifest.inputs, folders=run.folders), **how,
    }  # fmt: skip
    warnings = [
        *empty_split_warnings(split_sizes(rows), how.get("fractions", {}), split),
        *split_warnings.few_units_warnings(split),
        *split_warnings.missing_label_warnings(split["missing_labels"]),
        *leak_warnings(split),
    ]
    report: VersionReport = {**quality_report(rows), "split": split, "warnings": [*warnings, *shares]}
    shown = {name: value for name, value in report.items() if name in (*QUALITIES, "split", "warnings")}
    return pack_version(
        sealed,
        parents=tuple(dict.fromkeys((parent.ref, *sorted(payload.others)))),
        operation={"op": "curate", "steps": [step.as_json() for step in steps]},
        report=report | {"steps": results},
        result={"steps": results, "report": shown},
        onto=payload.onto,
    )


def _apply_step(step: Step, rows: pa.Table, context: Context) -> Outcome:
    """INVALID if no usable example would be left, or if ids are no longer unique."""
    try:
        outcome = step.operation.apply(rows, step.parameters, context)
    except SpeciateError as error:
        raise step.with_step(error) from error
    if (again := _not_unique(outcome.rows)) is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{step} gave several rows the id {again!r}, and an id names one example.",
            "Call again without the step, and fix the operation: new rows need ids of their own.",
        )
    before, after = int(usable_rows(rows).sum()), int(usable_rows(outcome.rows).sum())
    if not outcome.rows.num_rows or (before and not after):
        raise SpeciateError(
            Code.INVALID,
            f"{step} would leave no usable example: it saw {rows.num_rows} rows, {before} of them usable.",
            next=[
                Call(
                    "query_dataset",
                    {"dataset": context.manifest.name},
                    "to see what is there, then curate_dataset with a step that keeps some",
                )
            ],
        )
    return outcome


def _not_unique(rows: pa.Table) -> str | None:
    """The first id that several rows have, or `null` for a missing one."""
    ids = rows["id"].combine_chunks()
    if not ids.null_count and pc.count_distinct(ids).as_py() == len(ids):
        return None
    found = pc.value_counts(ids).filter(pc.greater(pc.value_counts(ids).field("counts"), 1))
    return str(found.field("values")[0].as_py()) if len(found) else "null"


def _manifest_so_far(manifest: Manifest, rows: pa.Table) -> Manifest:
    """The manifest with the fields that follow from the rows, for the next step."""
    follows: Mapping[str, object] = {
        "columns": next_version.user_columns(rows),
        "splits": next_version.count_values(rows, "split"),
        "labels": {} if manifest.numeric else next_version.count_values(rows, "label"),
        "rows": rows.num_rows,
    }
    return manifest.model_copy(update=follows)


def _result(step: Step, before: pa.Table, outcome: Outcome) -> StepReport:
    result: StepReport = {"op": step.operation.name, "before": before.num_rows, "after": outcome.rows.num_rows}
    if outcome.flagged_column is not None:
        result["flagged_column"] = clean(outcome.flagged_column)
    if outcome.audit:
        result["audit"] = dict(outcome.audit)
    return result


class _CurateOutputs(NamedTuple):
    """`paid`: USD by host, of all attempts so far."""

    paid: Mapping[str, float]
    version: NewVersion


def collect(folder: RunFolder) -> _CurateOutputs:
    return _CurateOutputs({host: usd for (_, host), usd in paid(folder).items()}, next_version.collect(folder))


def paid(folder: RunFolder) -> dict[tuple[str, str], float]:
    """USD by dataset and host, at most, of all attempts so far."""
    spec = folder.spec()
    if not spec["payload"]["outside"]:
        return {}
    module, function = _PAID
    spent = getattr(import_module(module), function)(Folders(Path(spec["workspace"])), spec["job"])
    return {(spec["payload"]["manifest"]["name"], host): usd for host, usd in spent.items()}


def commit(tx: Transaction, job: Job, collected: _CurateOutputs) -> Mapping[str, object]:
    result = next_version.commit(tx, job, collected.version)
    spent = {host: round(usd, 6) for host, usd in sorted(collected.paid.items())}
    return result | ({"spent_usd": spent} if spent else {})


class Step(NamedTuple):
    number: int
    """Number of the step, from 1."""
    operation: Operation
    parameters: BaseModel

    def __str__(self) -> str:
        return f"Step {self.number} ({self.operation.name})"

    def as_json(self) -> WrittenStep:
        """The step as a caller may write it again."""
        return {"op": self.operation.name, **self.parameters.model_dump(mode="json", exclude_none=True)}

    def with_step(self, error: SpeciateError) -> SpeciateError:
        """The error with the number and name of this step."""
        return SpeciateError(error.code, f"{self}: {error.message}", error.recovery, error.foreign)


def parse_steps(written: Sequence[WrittenStep]) -> list[Step]:
    """NOT_FOUND for an unknown operation or parameter, INVALID for a wrong value, MISSING_EXTRA for a missing
    library."""
    return [_parse_step(number, dict(step)) for number, step in enumerate(written, 1)]


def resolve_steps(steps: Sequence[Step], resolve: Resolve) -> list[Step]:
    """The steps with full names in all parameters that refer to something."""
    return [_resolve_step(step, resolve) for step in steps]


def preflight_steps(
    steps: Sequence[Step], manifest: Manifest, others: Others, cards: Mapping[int, ModelCard]
) -> int:  # fmt: skip
    """Raises faults that are known before the run; returns how many steps could be checked. `cards`: of the models that
    steps ask, by number; each must read what the steps before it leave."""
    known: Manifest | None = manifest
    for step in steps:
        if known is None:
            return step.number - 1
        if step.number in cards:
            _check_model(step, cards[step.number], known)
        known = preflight_step(step, known, others)
    return len(steps)


def preflight_step(step: Step, manifest: Manifest, others: Others) -> Manifest | None:
    try:
        return step.operation.preflight(step.parameters, manifest, others)
    except SpeciateError as error:
        raise step.with_step(error) from error


def missing_packages(operation: Operation) -> tuple[str, ...]:
    """How to install the libraries that an operation lacks."""
    lacking = [name for name in operation.needs if importlib.util.find_spec(name) is None]
    extras = dict.fromkeys(_EXTRAS.get(name) for name in lacking)
    return tuple(f"pip install 'speciate[{extra}]'" if extra else f"pip install {lacking[0]}" for extra in extras)


def _parse_step(number: int, written: dict[str, object]) -> Step:
    name = written.pop("op", None)
    if not isinstance(name, str):
        raise SpeciateError(
            Code.INVALID,
            f"Step {number} has no op.",
            f"Name one of: {', '.join(sorted(operations.table()))}; list_options(kind='operation') says what they do.",
        )
    operation = operations.find(name)
    form = operation.parameters
    how = f"Call list_options(kind='operation', name={name!r}) for its parameters."
    for key in written:
        if key not in form.model_fields:
            error = unknown(f"parameter of {name}", key, form.model_fields, how)
            raise SpeciateError(Code.INVALID, f"Step {number}: {error.message}", how)
    try:
        step = Step(number, operation, form.model_validate(written))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"{place}: {first['msg']}" if place else first["msg"].removeprefix("Value error, ")
        raise SpeciateError(Code.INVALID, f"Step {number} ({name}): {message}.", how) from error
    if lacking := missing_packages(operation):
        raise SpeciateError(Code.MISSING_EXTRA, f"{step} needs a library that is not installed.", f"Run: {lacking[0]}")
    return step


def _resolve_step(step: Step, resolve: Resolve) -> Step:
    names: dict[str, str | None] = {}
    for parameter, kind in step.operation.refers.items():
        try:
            names[parameter] = resolve(kind, getattr(step.parameters, parameter), step)
        except SpeciateError as error:
            raise step.with_step(error) from error
    return step._replace(parameters=step.parameters.model_copy(update=names))


KIND = Kind(
    name="curate",
    spec=CurateSpec,
    plan=plan,
    run="speciate.datasets.curate:run",
    collect=collect,
    commit=commit,
    paid=paid,
    preload="classical",
)
