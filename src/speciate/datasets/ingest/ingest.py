"""The job kind `ingest`: from files, a table or inline rows to the first or next version of a dataset.

Foreign bytes are decoded in sandboxed processes only, several at a time; this process reads what they wrote. Every item
gets a quality (ok, partial, refused, error) with a reason and stays in the version: only rows of quality ok are ever
loaded. Files are named by content, and the next attempt uses finished parts again, so that a run that was killed ends
in the same version as one that was not.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator

from speciate.datasets import next_version
from speciate.datasets.columns import SHORTENED, alike_class_warnings, clean, is_shortened, rename
from speciate.datasets.content_hash import HASHING, unpack_lanes
from speciate.datasets.gathering import manifests
from speciate.datasets.ingest import ingest_place
from speciate.datasets.ingest.append import (
    AppendedVersion,
    Grouping,
    ParentVersion,
    append_draft,
    has_user_groups,
    is_log,
    no_groups_error,
    require_groups,
    splits_of,
)
from speciate.datasets.ingest.checkpoints import StoredMedia, packs_with_any
from speciate.datasets.ingest.draft import ColumnChoices, Draft, draft_rows, finish_draft, quality_report
from speciate.datasets.ingest.excerpts import cut_excerpts, group_excerpts
from speciate.datasets.ingest.raw_files import file_state
from speciate.datasets.ingest.row_validation import RowValidationContext, validate_table
from speciate.datasets.ingest.survey import (
    Survey,
    SurveyContext,
    survey_media,
    survey_rows,
    survey_tables,
    with_checked_channels,
    with_excluded_files,
)
from speciate.datasets.loading.decoding import Timestamps, ask_for_timestamps
from speciate.datasets.next_version import PackedVersion, collect, commit, pack_version
from speciate.datasets.readers.rows import Row
from speciate.datasets.readers.time_series import SERIES, series_of_channels
from speciate.datasets.roles import Roles, says_answers
from speciate.datasets.sources import answer_log, own_export, sandbox_calls
from speciate.datasets.sources.labels import LabelsFile, join_labels
from speciate.datasets.sources.listing import Listing, check_source, is_path
from speciate.datasets.sources.prepare import add_hint, check_source_name, prepare_source
from speciate.datasets.splits import FRACTIONS, are_equal_fractions, checked_fractions
from speciate.datasets.targets import NaturalTarget, natural_target
from speciate.datasets.version_report import ForeignReport, VersionReport
from speciate.datasets.version_rows import ancestors
from speciate.datasets.versions import Manifest, Part, Version, names, packed_lanes, version
from speciate.environment import cores, free_memory_mb
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find
from speciate.models import packaged
from speciate.refs import check_name, dataset_ref
from speciate.sandbox import SandboxPolicy, check
from speciate.settings import Settings
from speciate.workspace.blobs import Blobs
from speciate.workspace.workspace import Folders, Workspace

_SHOWN = 5
_MOST_CLASSES = 20
"""Most classes of a column that is offered as the label."""
_BYTES_PER_ROW, _BYTES_PER_OLD_ROW = 1_000, 900
"""Memory that a row takes while a version is split, compared and sealed, and one that it had before: 820 and 730 were
measured with 10^6 and 10^7 rows of six short columns. Some 400 of a new row are in use when it is asked."""


class Labels(BaseModel):
    """A table of labels beside the media."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path = Field(description="CSV, JSON, JSONL, Parquet or Arrow.")
    key: str = Field(
        description="Column with the path relative to this file or the source, or the file name; of rows of a table "
        "a column that both have."
    )
    column: str | None = Field(None, description="Column with the label; None: its columns are joined only.")


class IngestSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    """Name of the dataset; with `add` a ref of the version that is added to."""
    source: Path | str | None = None
    """An absolute path of a folder or file, `hf:org/name`, `pkg:NAME`, `gym:TASK` or `log:USE_CASE`."""
    rows: str | None = None
    """sha256 of the blob that holds inline rows: a blob of their own can be purged."""
    modality: str = "auto"
    label: str | None = None
    """A column, or `folder`: the first folder below the source (and below train/, test/)."""
    labels: Labels | None = None
    inputs: tuple[str, ...] = ()
    group_by: str | None = None
    """A column, `folder`, or a regular expression whose first group is the key."""
    reader: str | None = None
    fractions: dict[str, float] | None = None
    """Shares of train, validation and test; None: the usual ones. They hold for what is added later, too."""
    seed: int = 0
    add: bool = False
    """Append to the existing rows, in their roles; label, inputs, group_by, modality and reader are then ignored."""

    @field_validator("fractions")
    @classmethod
    def _are_shares(cls, fractions: dict[str, float] | None) -> dict[str, float] | None:
        return None if fractions is None else checked_fractions(fractions)


class StoredVersion(BaseModel):
    """The newest version of the dataset: its media are stored already."""

    model_config = ConfigDict(frozen=True)
    manifest: Manifest
    keeps_splits: bool
    """Whether its rows keep their splits; other fractions that are named, or another seed, ask for other splits."""


class Parent(BaseModel):
    """The version that rows are appended to."""

    model_config = ConfigDict(frozen=True)
    manifest: Manifest
    lanes: str
    report: Mapping[str, Any]
    """As the catalog keeps it."""
    before: tuple[Part, ...]
    """Files of its ancestors that it does not hold wholly."""
    dealt_by: str | None = None
    """`group_by` of the newest step `split` of its curation."""
    onto: int | None
    """The version that must still be the newest; None if the caller named a version or a tag."""


class Payload(BaseModel):
    """What the plan found out for the run."""

    model_config = ConfigDict(frozen=True)
    spec: IngestSpec
    cage: SandboxPolicy
    earlier: StoredVersion | None
    parent: Parent | None
    now: float | None = None
    """When it was planned, by the workspace's clock; None in plans of before."""
    requested: tuple[str, ...] = ()
    """Answers of a log about which episodes of a watch asked, drawn at random."""
    place: str | None = None
    """Where it runs; None: on this machine."""

    @property
    def stored(self) -> Manifest | None:
        """The version whose media are stored already."""
        return self.parent.manifest if self.parent else self.earlier.manifest if self.earlier else None


def plan(spec: IngestSpec, workspace: Workspace) -> Plan:
    """Checks all that names and sizes can tell."""
    if (spec.source is None) == (spec.rows is None):
        given = "Neither source nor rows was" if spec.source is None else "Both source and rows were"
        tool = "add_examples" if spec.add else "create_dataset"
        raise SpeciateError(Code.INVALID, f"{given} given.", f"Call {tool} with one of source and rows.")
    if spec.rows is not None and not load_inline_rows(workspace.folders, spec.rows):
        raise SpeciateError(Code.INVALID, "rows is empty: there is nothing to ingest.", "Call again with rows.")
    if spec.add and dataset_ref(spec.name).split is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{spec.name!r} names a split, and rows cannot be added to one by name.",
            f"Call add_examples with dataset={spec.name.rpartition(':')[0]!r}; a column 'split' says where rows lie.",
        )
    found = version(workspace.database, spec.name) if spec.add else None
    if found is None:
        check_name("dataset", spec.name)
    else:
        spec = _in_its_roles(spec, found, workspace)
    if spec.modality != "auto":
        find(spec.modality)
    size = check_source_name(spec.source, spec.reader, workspace.folders) if spec.source is not None else 0
    if spec.labels is not None:
        check_source(spec.labels.path)
    spec = _without_links(spec)
    check(workspace.settings.cage)
    payload = Payload(
        spec=spec,
        cage=workspace.settings.cage,
        earlier=_stored_version(workspace, spec) if found is None else None,
        parent=_parent(workspace, spec.name, found) if found is not None else None,
        now=workspace.clock.now(),
        requested=_requested(spec, workspace),
    )
    resolved = {"name": spec.name, "source": str(spec.source or "rows"), "modality": spec.modality}
    if found is not None:
        resolved["dataset"] = found.manifest.ref
    resources = Resources(cpu=1, memory_mb=1024 + (found.manifest.rows * _BYTES_PER_OLD_ROW >> 20 if found else 0))
    before = payload.parent.before if payload.parent else ()
    labels = spec.labels.path if spec.labels else None
    made = found.manifest.ref if found is not None else spec.name
    where = ingest_place.find_place(made, spec.source, labels, payload.stored, before, resources, workspace)
    if where.place is not None:
        resolved["place"] = where.place
    elif where.why_here:
        resolved["runs_here"] = where.why_here
    return Plan(
        payload=payload.model_copy(update={"place": where.place}).model_dump(mode="json"),
        resources=where.resources,
        inputs=where.inputs,
        sources=where.sources,
        departures=where.departures,
        bytes=size or None,
        resolved=resolved,
        preload_next=_next_imports(spec.modality),
    )


def _next_imports(modality: str) -> tuple[str, ...]:
    """Those of a frozen network, where a package has one that reads such media: a probe is an early training."""
    has_one = any(
        (entry.modality, entry.task) == (modality, "feature-extraction") and packaged.installed(name)
        for name, entry in packaged.PACKAGED.items()
    )
    return ("networks",) if has_one and cores() > 1 else ()


def require_memory(rows: int, old_rows: int, free_mb: float) -> None:
    """Raises UNAVAILABLE where the rows of a version cannot fit: else the system would end the run, again and again."""
    needed = (rows * _BYTES_PER_ROW + old_rows * _BYTES_PER_OLD_ROW) / 2**20
    if needed > free_mb:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"A version of {rows + old_rows:,} rows takes at least {needed:,.0f} MB of memory, and "
            f"{free_mb:,.0f} MB are free.",
            "Bring fewer rows (a sample, or one dataset a part), or run this on a machine with more memory.",
        )


def _requested(spec: IngestSpec, workspace: Workspace) -> tuple[str, ...]:
    source = str(spec.source or "")
    is_log = source.startswith(f"{answer_log.KIND}:")
    return answer_log.requested_at_random(source, workspace.database) if is_log else ()


def _stored_version(workspace: Workspace, spec: IngestSpec) -> StoredVersion | None:
    if spec.name not in names(workspace.database):
        return None
    found = version(workspace.database, spec.name)
    in_force = found.report.get("split", {}).get("fractions", FRACTIONS)
    alike = spec.fractions is None or are_equal_fractions(spec.fractions, in_force)
    return StoredVersion(manifest=found.manifest, keeps_splits=alike and found.operation.get("seed", 0) == spec.seed)


def _parent(workspace: Workspace, name: str, found: Version) -> Parent:
    ref = dataset_ref(name)
    newest = ref.version is None and ref.tag is None
    return Parent(
        manifest=found.manifest,
        lanes=packed_lanes(workspace.database, found.manifest).hex(),
        report=dict(found.report),
        before=_parts_before(workspace, found),
        dealt_by=_newest_group_by(workspace, found),
        onto=found.manifest.version if newest else None,
    )


def _newest_group_by(workspace: Workspace, found: Version) -> str | None:
    """`group_by` of the newest step `split` of its curation."""
    line = (found, *ancestors(workspace.database, found))
    steps = [step for each in line for step in reversed(each.operation.get("steps", ())) if step.get("op") == "split"]
    return next((str(step["group_by"]) for step in steps if step.get("group_by")), None)


def _parts_before(workspace: Workspace, found: Version) -> tuple[Part, ...]:
    """Files of its ancestors that it does not hold wholly."""
    parts = [part for each in (found, *ancestors(workspace.database, found)) for part in each.manifest.parts]
    whole = {part.file for part in found.manifest.parts if part.removed is None}
    once = {part.file: part for part in parts if part.file not in whole}
    return tuple(once.values())


def _in_its_roles(spec: IngestSpec, found: Version, workspace: Workspace) -> IngestSpec:
    """The spec with the roles of columns from the ingest that the version goes back to."""
    manifest = found.manifest
    line = [each.operation for each in (found, *ancestors(workspace.database, found))]
    operation = next((each for each in line if each.get("op") in ("ingest", "add_examples")), {})
    labels = spec.labels or operation.get("labels")
    column = labels.get("column") if isinstance(labels, dict) else labels and labels.column
    roles = {
        "modality": manifest.modality,
        "label": operation.get("label") or (column if manifest.label else None),
        "group_by": operation.get("group_by"),
        "reader": spec.reader or operation.get("reader"),
        "fractions": operation.get("fractions"),
        "seed": operation.get("seed", 0),
        "inputs": _named_inputs(line, manifest.modality),
    }
    return spec.model_copy(update=roles)


def _named_inputs(line: Sequence[Mapping[str, Any]], modality: str) -> tuple[str, ...]:
    """Columns of the source that make the input: the parts of mixed rows, or the channels of a series. Older additions
    to series do not say them, and what they were added to does."""
    if modality not in ("multimodal", "time-series"):
        return ()
    named = [each.get("inputs") or () for each in line if each.get("op") in ("ingest", "add_examples")]
    return tuple(next(filter(None, named), ()) if modality == "time-series" else next(iter(named), ()))


def run(run: Run) -> PackedVersion:
    """Reads, seals, and returns what `commit` registers."""
    payload = Payload.model_validate(run.payload)
    _refuse_led_elsewhere(payload, run.folders)
    if payload.place is None:
        return _make_version(payload, run)
    ingest_place.begin(run)
    made = _make_version(payload, run)
    ingest_place.hand_over(run, made["manifest"], payload.stored)
    return made


def adopt(folder: RunFolder) -> None:
    """Takes the files of a version that a node made into the workspace, once they are checked."""
    payload = Payload.model_validate(folder.spec()["payload"])
    if payload.place is not None:
        parent = payload.parent
        known = None if parent is None else ingest_place.KnownParent(parent.manifest, parent.lanes, parent.onto)
        name = payload.spec.name if parent is None else parent.manifest.name
        ingest_place.adopt(folder, name, str(payload.spec.source), payload.stored, known, payload.cage)


def _paths(spec: IngestSpec) -> list[Path]:
    """Where its source and its labels lie, as far as they are files or folders."""
    found = [spec.source] if spec.source is not None and is_path(spec.source) else []
    return [Path(path) for path in (*found, *([spec.labels.path] if spec.labels else []))]


def _without_links(spec: IngestSpec) -> IngestSpec:
    real = {path: path.resolve() for path in _paths(spec)}
    source = spec.source and real.get(Path(spec.source), spec.source)
    labels = spec.labels and spec.labels.model_copy(update={"path": real[spec.labels.path]})
    return spec.model_copy(update={"source": source, "labels": labels})


def _refuse_led_elsewhere(payload: Payload, folders: Folders) -> None:
    """Raises REFUSED where a path leads elsewhere than at the call, which was asked whether it may be read."""
    for path in _paths(payload.spec):
        moved = payload.place is not None and path.is_relative_to(folders.root)
        if not moved and path.resolve() != path:
            raise SpeciateError(
                Code.REFUSED,
                f"{str(path)!r} leads elsewhere than when the call was made.",
                "Make the same call again, with the path of the data themselves.",
            )


def _make_version(payload: Payload, run: Run) -> PackedVersion:
    spec, parent, earlier, stored = payload.spec, payload.parent, payload.earlier, payload.stored
    read = _read_source(payload, run, stored)
    require_memory(read.draft.table.num_rows, parent.manifest.rows if parent else 0, free_memory_mb())
    packs = _packs(run, read, stored)
    operation = {"op": "ingest", **spec.model_dump(mode="json", exclude={"name", "rows", "add"}, exclude_none=True)}
    operation |= {"revision": read.revision} if read.revision else {}
    operation |= {name: list(role) if isinstance(role, tuple) else role for name, role in read.roles.items()}
    operation |= {"label": read.draft.label} if read.draft.implied else {}
    if parent is not None:
        lanes = unpack_lanes(bytes.fromhex(parent.lanes))
        version = ParentVersion(parent.manifest, lanes, parent.report, parent.before)
        draft = read.draft._replace(keeps_apart=is_log(spec.source))
        found = append_draft(run.folders, version, draft, spec.seed, packs)
        counts = found.counts
        report: VersionReport = {
            **found.report,
            "added": counts.added,
            "already_there": counts.already_there,
            "dropped_before": counts.dropped_before,
            "label_conflicts": counts.label_conflicts,
            "warnings": [*read.remarks, *_warnings_of_addition(found), *read.draft.warnings],
        }
        report["untrusted"] = {**(report.get("untrusted") or {}), **read.untrusted}
        return pack_version(
            found.sealed,
            parents=(parent.manifest.ref,),
            operation=operation | {"op": "add_examples"} | counts._asdict(),
            report=report,
            result={"report": report},
            onto=parent.onto,
        )
    earlier_splits = {} if earlier is None or not earlier.keeps_splits else splits_of(run.folders, earlier.manifest)
    warnings, drafts, read = warnings_of_source(read), [read.draft], read.without_rows()
    done = finish_draft(
        drafts.pop(), spec.seed, earlier_splits, fractions=spec.fractions or FRACTIONS, folders=run.folders
    )
    hashing = earlier.manifest.hashing if earlier is not None else HASHING
    sealed = next_version.seal_first(run.folders, done.table, _manifest(spec, read.draft, packs), hashing)
    report = quality_report(done.table)
    report["untrusted"] |= {"renamed": read.draft.renamed | read.renamed, **read.untrusted}
    refused = done.table.filter(pc.equal(done.table["quality"], "refused"))
    if refused.num_rows:
        shown = _set_aside(read.untrusted.get("set_aside", {}), refused)
        report["untrusted"]["set_aside"] = shown
        report["set_aside_shown"] = f"first {len(shown)} of {refused.num_rows:,}"
    report |= {
        "split": done.split,
        "set_aside": refused.num_rows,
        "warnings": [*warnings, *done.warnings, *([read.hint] if read.hint else [])],
    }
    return pack_version(sealed, operation=operation, report=report, result={"report": report})


class SourceContent(NamedTuple):
    draft: Draft
    survey: Survey
    renamed: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Columns of the labels that the media have too -> their stored names."""
    revision: str | None = None
    untrusted: ForeignReport = {}  # noqa: RUF012 - never changed
    """Notes and excluded files, as the report quotes them."""
    roles: own_export.MarkedRoles = {}  # noqa: RUF012 - never changed
    """Roles of columns that the caller left to the export that was read."""
    hint: str = ""
    """How the source may be meant otherwise."""
    brought: frozenset[str] | None = None
    """For media: the columns that tables brought; the others were measured. None: all."""
    remarks: tuple[str, ...] = ()
    """Warnings about the source: how it is understood, what it holds."""
    listed: int = 0
    """How many files were read: media, or tables."""
    of_files: int = 0
    """How many there are of them, read or not."""

    def without_rows(self) -> SourceContent:
        """All that is known of them but the rows."""
        draft, survey = self.draft, self.survey
        draft = draft._replace(table=draft.table.schema.empty_table())
        survey = replace(survey, table=survey.table.schema.empty_table(), items=survey.items.schema.empty_table())
        return self._replace(draft=draft, survey=survey)


def _read_source(payload: Payload, run: Run, stored: Manifest | None) -> SourceContent:
    """Every item, validated."""
    work = (run.folder.path if payload.place is None else run.folders.root) / "work"  # on the node's own disk
    work.mkdir(exist_ok=True)
    size = cores() if payload.place is None else run.cores
    pool = Pool(run.folders, Settings(cage=payload.cage), size=size)
    try:
        context = sandbox_calls.SourceContext(pool, payload.cage, run.folders, work, payload.now or time.time(),
                                              frozenset(payload.requested))  # fmt: skip
        return read_source(payload, run, stored, context)
    finally:
        pool.close()
        shutil.rmtree(work, ignore_errors=True)


def read_source(
    payload: Payload, run: Run, stored: Manifest | None, context: sandbox_calls.SourceContext
) -> SourceContent:
    """The items of the source, or of a sample where the context names one, validated."""
    spec, parent, pool, work = payload.spec, payload.parent, context.pool, context.work
    if spec.rows is not None:
        survey = survey_rows(load_inline_rows(context.folders, spec.rows), spec.modality)
        validation = RowValidationContext(run, pool, work, frozenset((work,)))
        return SourceContent(_draft_survey(spec, survey, parent, validation), survey)
    assert spec.source is not None
    labels = LabelsFile(spec.labels.path, spec.labels.key) if spec.labels else None
    never = [name for name in (spec.label, spec.group_by, spec.labels and spec.labels.column) if name]
    inputs = parent.manifest.inputs if parent else spec.inputs
    found = prepare_source(
        spec.source, context, modality=spec.modality, reader=spec.reader, labels=labels,
        inputs=spec.inputs, never=never, label=spec.label, column=inputs[0] if len(inputs) == 1 else None,
    )  # fmt: skip
    found, listed = _sampled(found, context.sample), len(found.files)
    found = found._replace(readable=found.readable | {work})
    survey, renamed = _survey_listing(found, run, context, stored, spec.label, spec.inputs)
    survey = with_excluded_files(survey, found.excluded, found.source.name, found.known)
    roles = _roles_of_export(spec, found.marker, survey)
    spec = spec.model_copy(update=roles)
    label, group_by = (spec.labels and spec.labels.column) or spec.label, spec.group_by
    spec = spec.model_copy(
        update={"label": renamed.get(label or "", label), "group_by": renamed.get(group_by or "", group_by)}
    )
    with add_hint(found.hint):
        draft = _draft_survey(spec, survey, parent, RowValidationContext(run, pool, work, found.readable))
    if survey.media and (found.about is not None or (found.marker is not None and found.marker.windows)):
        grouped = group_excerpts(draft.table, draft.modality)
        unit = find(draft.modality).window_unit
        draft = draft._replace(table=own_export.with_windows(grouped, unit))
    excluded = {item.name: item.reason for item in found.excluded[:_SHOWN]}
    notes = [*found.notes, *survey.joined.notes]
    untrusted: ForeignReport = {"notes": notes, "set_aside": excluded} if notes or excluded else {}
    outside = manifests.outside_remark(survey.table, found.files[0].path) if _is_plain_table(found) else ""
    remarks = tuple(filter(None, (*found.remarks, survey.joined.guess, outside)))
    columns = found.labels.column_names if found.labels is not None else ()
    return SourceContent(
        draft, survey, renamed, found.revision, untrusted, roles, found.hint,
        brought=frozenset(columns) if survey.media else None, remarks=remarks,
        listed=len(found.files), of_files=listed,
    )  # fmt: skip


def _is_plain_table(found: Listing) -> bool:
    return found.layout == "table" and len(found.files) == 1 and found.marker is None


_MOST_OF_A_STEM = 8
"""Files that are taken to belong together, as an image, its mask, its caption and what else is of it."""


def _sampled(found: Listing, sample: sandbox_calls.Sample | None) -> Listing:
    """Some media, drawn by their names, with what lies beside each: files of one stem come together."""
    if sample is None or found.layout == "table":
        return found
    stems: dict[str, list[int]] = {}
    common = Counter(_stem(file.name) for file in found.files)
    for place, file in enumerate(found.files):
        stem = _stem(file.name)  # of names with dots, such as 1.2.840.dcm, it may be that of all
        stem = stem if common[stem] <= _MOST_OF_A_STEM else file.name.rpartition(".")[0] or file.name
        stems.setdefault(stem, []).append(place)
    left, places = sample.media_bytes, list[int]()
    for stem in sorted(stems, key=lambda stem: sha256(stem.encode(errors="surrogateescape")).digest()):
        if len(places) >= sample.files:
            break
        size = sum(file_state(found.files[place]).size for place in stems[stem])
        if size <= left and (len(places) + len(stems[stem]) <= sample.files or not places):
            left, places = left - size, [*places, *stems[stem]]
    if len(places) == len(found.files):
        return found
    if not places or found.about is not None:
        raise sandbox_calls.NotLookedAtError(f"{len(found.files):,} files, too many or too long for a sample")
    sample.is_part, places = True, sorted(places)
    labels = None if found.labels is None else found.labels.take(pa.array(places))
    return found._replace(files=[found.files[place] for place in places], labels=labels)


def _stem(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0] or file}"


def _roles_of_export(spec: IngestSpec, marker: own_export.Marker | None, survey: Survey) -> own_export.MarkedRoles:
    """Roles of columns that our own export names and the caller does not."""
    if marker is None or spec.add:
        return {}
    roles = marker.roles(survey.table.column_names)
    inputs = roles.get("inputs", ())
    if spec.label or spec.labels is not None:
        roles.pop("label", None)
    if spec.group_by:
        roles.pop("group_by", None)
    if spec.inputs or {spec.label, spec.group_by} & {*inputs} or spec.modality not in ("auto", marker.modality):
        roles.pop("inputs", None)
    return roles


def _survey_listing(
    found: Listing,
    run: Run,
    source: sandbox_calls.SourceContext,
    stored: Manifest | None,
    label: str | None,
    inputs: Sequence[str],
) -> tuple[Survey, dict[str, str]]:
    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        run.progress(done, total, "files", "reading")

    pool, most = source.pool, source.sample.table_bytes if source.sample is not None else None
    context = SurveyContext(run, pool, source.work, progress, most)
    if found.layout == "table":
        survey = survey_tables(found, context, label, inputs)
        return survey, survey.joined.renamed
    before = [run.folders.root / pack for pack in stored.packs] if stored else []
    survey = survey_media(found, context, StoredMedia(before))
    if found.labels is None:
        return survey, {}
    if found.about is not None:
        packs = [*before, *survey.packs]

        def ask(contents: Sequence[str], unit: str) -> dict[str, Timestamps]:
            return dict(zip(contents, ask_for_timestamps(pool, packs, survey.modality, contents, unit), strict=True))

        return cut_excerpts(survey, found.labels, found.about, ask)
    joined = join_labels(survey.table, found.labels)
    return Survey(survey.modality, True, joined.table, survey.items, survey.packs), joined.renamed


def _draft_survey(spec: IngestSpec, survey: Survey, parent: Parent | None, validation: RowValidationContext) -> Draft:
    def validate(table: pa.Table, roles: Roles) -> pa.Table:
        return validate_table(table, pc.equal(survey.items["quality"], "ok"), roles, validation)

    columns = survey.table.column_names
    choices = ColumnChoices(spec.label, series_of_channels(spec.inputs, columns), spec.group_by)
    if parent is None:
        draft = draft_rows(survey, choices, validate)
        if spec.group_by in columns and is_log(spec.source):
            draft = require_groups(draft, Grouping(spec.name, spec.group_by, draft.inputs))
        return draft
    manifest = parent.manifest
    by = spec.group_by or _column_of_split(parent)
    grouping = Grouping(manifest.ref, by if by in manifest.columns else None, manifest.inputs)
    if is_log(spec.source) and grouping.column is not None and grouping.column not in columns:
        raise no_groups_error(grouping)
    inputs, labelled = _source_input_names(manifest, survey, spec), manifest.label is not None
    survey = with_checked_channels(survey, inputs, manifest, validation.run.folders)
    choices = choices._replace(
        inputs=inputs, numeric=manifest.numeric if labelled else None, implied=labelled,
        group_by=by if by in columns else spec.group_by,
    )  # fmt: skip
    draft = draft_rows(survey, choices, validate)
    if is_log(spec.source) and has_user_groups(validation.run.folders, manifest):
        draft = require_groups(draft, grouping)
    return draft


def _column_of_split(parent: Parent) -> str | None:
    """The column that the split was made by, if the rows came without groups and it is not an input."""
    by, manifest = parent.dealt_by, parent.manifest
    return None if by in manifest.inputs or by not in manifest.columns else by


def _source_input_names(manifest: Manifest, survey: Survey, spec: IngestSpec) -> tuple[str, ...]:
    """The dataset's inputs by the names that the source gives them."""
    there = [name for name in survey.table.column_names if name != "label" or spec.label != "label"]
    named = {stored: name for name, stored in rename(there).items()}
    if lacking := [name for name in manifest.inputs if name not in named]:
        if lacking == [SERIES]:
            lacking = [name for name in spec.inputs if name not in there] or lacking
        raise SpeciateError(
            Code.INVALID,
            f"The source lacks column(s) that a model of {manifest.ref} sees: {', '.join(lacking[:20])}.",
            "Call add_examples with a source that has them.",
        )
    return tuple(named[name] for name in manifest.inputs)


def _packs(run: Run, read: SourceContent, stored: Manifest | None) -> list[str]:
    """Relative paths of the packs that hold the media: new ones, and those of an earlier version."""
    root = run.folders.root
    before: Iterable[Path] = [root / pack for pack in stored.packs] if stored and read.survey.media else []
    used = packs_with_any(list(before), read.survey.items["content"]) if read.survey.media else []
    return [pack.relative_to(root).as_posix() for pack in (*used, *read.survey.packs)]


def _manifest(spec: IngestSpec, draft: Draft, packs: Sequence[str]) -> Manifest:
    return Manifest(
        name=spec.name, version=0, id="", modality=draft.modality, parts=(), packs=tuple(packs), columns={},
        inputs=draft.inputs, label=draft.label, numeric=draft.numeric, rows=0,
    )  # fmt: skip


def _set_aside(excluded: Mapping[str, str], refused: pa.Table) -> dict[str, str]:
    """Some refused items with their reasons: files that were not read first, then others."""
    more = zip(
        refused["source"].slice(0, _SHOWN).to_pylist(), refused["reason"].slice(0, _SHOWN).to_pylist(), strict=True
    )
    return dict(list((dict(excluded) | {name: why for name, why in more if name not in excluded}).items())[:_SHOWN])


def warnings_of_source(read: SourceContent) -> list[str]:
    """What may be understood otherwise than it was meant."""
    return [*read.remarks, *warnings_of_rows(read)]


def warnings_of_rows(read: SourceContent) -> list[str]:
    """Those among them that follow from the rows that were read."""
    return [*_warnings_of_label(read), *read.draft.warnings]


def _warnings_of_label(read: SourceContent) -> list[str]:
    draft = read.draft
    if draft.label is None and says_answers(draft.inputs, draft.table.column_names):
        return []
    if draft.label is None and (natural := _natural_target(draft)):
        return [f"{natural.what}: the target of {natural.task}.{_possible_labels(read)}"]
    if draft.label is None:
        hint = (
            " The folders look like classes: label='folder' takes them."
            if _folders_look_like_classes(read.survey)
            else ""
        )
        return [
            f"No label was named: there is nothing to learn or to compare with until label_examples gives some."
            f"{hint or _possible_labels(read)}"
        ]
    warnings = ["The column 'label' is the label because none was named."] if draft.implied else []
    usable = draft.table.filter(pa.compute.equal(draft.table["quality"], "ok"))["label"]
    if count := sum(map(is_shortened, [] if draft.numeric else usable.unique().to_pylist())):
        warnings.append(SHORTENED.format(count=count))
    if not draft.numeric:
        warnings += alike_class_warnings(
            {str(row["values"]): row["counts"] for row in pc.value_counts(usable).to_pylist()}
        )
    if not draft.numeric and len(usable.unique()) == 1:
        warnings.append("All usable examples have one and the same label: a model needs at least two classes.")
    return warnings


def _natural_target(draft: Draft) -> NaturalTarget | None:
    return natural_target(draft.modality, draft.inputs, next_version.user_columns(draft.table))


def _possible_labels(read: SourceContent) -> str:
    """A sentence with the call that takes a column as the label; empty if none has few values that repeat."""
    draft, names = read.draft, {stored: name for name, stored in read.draft.renamed.items()}
    usable = draft.table.filter(pc.equal(draft.table["quality"], "ok"))
    found = [
        names.get(name, name)
        for name in next_version.user_columns(usable)
        if name not in draft.inputs
        and (read.brought is None or names.get(name, name) in read.brought)
        and _repeats(usable[name])
    ]
    if not found:
        return ""
    others = f" (or {', '.join(map(repr, found[1:_SHOWN]))})" if found[1:] else ""
    return f" To learn a class instead, call create_dataset again with label={clean(found[0])!r}{others}."


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether it looks like classes: texts or whole numbers, in every row, few of them."""
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)) or column.null_count:
        return False
    several = int(pc.count_distinct(column).as_py())
    return 2 <= several <= min(_MOST_CLASSES, len(column) // 4)


def _folders_look_like_classes(survey: Survey) -> bool:
    """Whether every medium lies in a folder, and the folders are at least two and few."""
    folders = survey.items["folder"]
    several = pa.compute.count_distinct(folders, mode="all").as_py()
    return survey.media and not folders.null_count and 2 <= several <= folders.length() // 2


def _warnings_of_addition(found: AppendedVersion) -> list[str]:
    counts = found.counts
    warnings = {
        f"{counts.dropped_before} items were in an earlier version and dropped since, so they stay out; to have them "
        "back, add to the version that held them.": counts.dropped_before,
        f"{counts.label_conflicts} items are there already with another label, which is kept; label_examples changes "
        "it.": counts.label_conflicts,
        f"{found.refused} items were refused because they belong with examples of several splits; a step 'split' of "
        "curate_dataset makes the split anew.": found.refused,
    }
    return [*(text for text, count in warnings.items() if count), *found.warnings]


def store_inline_rows(workspace: Workspace, rows: Sequence[Row]) -> str:
    """The sha256 of a blob of the rows, which is on disk on return."""
    return Blobs(workspace.folders.blobs).put(json.dumps(list(rows), sort_keys=True).encode("utf-8", "surrogatepass"))


def load_inline_rows(folders: Folders, sha256: str) -> list[Row]:
    """NOT_FOUND if they were purged meanwhile."""
    rows: list[Row] = json.loads(Blobs(folders.blobs).get(sha256))
    return rows


KIND = Kind(
    name="ingest", spec=IngestSpec, plan=plan, run="speciate.datasets.ingest.ingest:run", collect=collect,
    commit=commit, adopt=adopt, preload="data",
)  # fmt: skip
