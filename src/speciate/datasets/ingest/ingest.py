"""The job kind `ingest`: from files, a table or inline rows to the first or next version of a dataset.

Foreign bytes are decoded in sandboxed processes only, several at a time; what this process reads is what they wrote.
Every item gets a quality (ok, partial, refused, error) with a reason, and stays in the version whatever it is: only
rows of quality ok are ever loaded. Files are named by content, and finished parts are used again by the next attempt,
so that a run that was killed ends in the same version as one that was not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets import next_version
from speciate.datasets.columns import SHORTENED, is_shortened, rename
from speciate.datasets.content_hash import unpack_lanes
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
from speciate.datasets.ingest.row_validation import RowValidationContext, validate_table
from speciate.datasets.ingest.survey import (
    Survey,
    SurveyContext,
    survey_media,
    survey_rows,
    survey_tables,
    with_excluded_files,
)
from speciate.datasets.loading.decoding import Timestamps, ask_for_timestamps
from speciate.datasets.next_version import collect, commit, pack_version
from speciate.datasets.roles import Roles, says_answers
from speciate.datasets.sources import own_export, sandbox_calls
from speciate.datasets.sources.labels import LabelsFile, join_labels
from speciate.datasets.sources.listing import Listing, check_source
from speciate.datasets.sources.prepare import add_hint, prepare_source
from speciate.datasets.sources.prepare import check_source_name as check_what_is_named
from speciate.datasets.version_rows import ancestors
from speciate.datasets.versions import Manifest, Part, Version, names, packed_lanes, version
from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find
from speciate.refs import check_name, dataset_ref
from speciate.sandbox import check
from speciate.settings import Settings
from speciate.workspace.blobs import Blobs
from speciate.workspace.workspace import Folders, Workspace

_SHOWN = 5


class Labels(BaseModel):
    """A table of labels beside the media."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path = Field(description="CSV, JSON, JSONL, Parquet or Arrow.")
    key: str = Field(description="Column with the path relative to this file or the source, or the file name.")
    column: str = Field(description="Column with the label.")


class IngestSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    """Of the dataset; with `add` a ref of the version that is added to."""
    source: Path | str | None = None
    """An absolute path of a folder or file, `hf:org/name`, `pkg:NAME`, `gym:TASK` or `log:USE_CASE`."""
    rows: str | None = None
    """sha256 of the blob that holds inline rows (inline_rows.py)."""
    modality: str = "auto"
    label: str | None = None
    """A column, or `folder`: the first folder below the source (and below train/, test/)."""
    labels: Labels | None = None
    inputs: tuple[str, ...] = ()
    group_by: str | None = None
    """A column, `folder`, or a regular expression whose first group is the key."""
    reader: str | None = None
    seed: int = 0
    add: bool = False
    """To the rows that are there, in their roles: then label, inputs, group_by, modality and reader say nothing."""


# In the daemon


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
    size = check_what_is_named(spec.source, spec.reader, workspace.folders) if spec.source is not None else 0
    if spec.labels is not None:
        check_source(spec.labels.path)
    check(workspace.settings.cage)
    payload = {
        "spec": spec.model_dump(mode="json"),
        "cage": workspace.settings.cage,
        "earlier": _stored_version(workspace, spec) if found is None else None,
        "parent": _parent(workspace, spec.name, found) if found is not None else None,
    }
    resolved = {"name": spec.name, "source": str(spec.source or "rows"), "modality": spec.modality}
    if found is not None:
        resolved["dataset"] = found.manifest.ref
    return Plan(payload=payload, resources=Resources(cpu=1, memory_mb=1024), bytes=size or None, resolved=resolved)


def _stored_version(workspace: Workspace, spec: IngestSpec) -> dict[str, Any] | None:
    """The version whose media are stored already, and whose rows keep their split; another seed asks for another."""
    if spec.name not in names(workspace.database):
        return None
    found = version(workspace.database, spec.name)
    same = found.operation.get("seed", 0) == spec.seed
    return {"manifest": found.manifest.model_dump(mode="json"), "keeps_splits": same}


def _parent(workspace: Workspace, ref: str, found: Version) -> dict[str, Any]:
    asked = dataset_ref(ref)
    newest = asked.version is None and asked.tag is None
    return {
        "manifest": found.manifest.model_dump(mode="json"),
        "lanes": packed_lanes(workspace.database, found.manifest).hex(),
        "report": found.report,
        "before": _parts_before(workspace, found),
        "dealt_by": _newest_group_by(workspace, found),
        "onto": found.manifest.version if newest else None,
    }


def _newest_group_by(workspace: Workspace, found: Version) -> str | None:
    """Of the steps `split` of curation."""
    line = (found, *ancestors(workspace.database, found))
    steps = [step for each in line for step in reversed(each.operation.get("steps", ())) if step.get("op") == "split"]
    return next((str(step["group_by"]) for step in steps if step.get("group_by")), None)


def _parts_before(workspace: Workspace, found: Version) -> list[dict[str, Any]]:
    """The files of the versions that it goes back to, which it has not itself or not whole."""
    parts = [part for each in (found, *ancestors(workspace.database, found)) for part in each.manifest.parts]
    whole = {part.file for part in found.manifest.parts if part.removed is None}
    once = {part.file: part for part in parts if part.file not in whole}
    return [part.model_dump(mode="json") for part in once.values()]


def _in_its_roles(spec: IngestSpec, found: Version, workspace: Workspace) -> IngestSpec:
    """The spec with what the ingest that the version goes back to said of its columns."""
    manifest = found.manifest
    line = [each.operation for each in (found, *ancestors(workspace.database, found))]
    operation = next((each for each in line if each.get("op") in ("ingest", "add_examples")), {})
    labels = spec.labels or operation.get("labels")
    column = labels["column"] if isinstance(labels, dict) else labels and labels.column
    roles = {
        "modality": manifest.modality,
        "label": operation.get("label") or (column if manifest.label else None),
        "group_by": operation.get("group_by"),
        "reader": spec.reader or operation.get("reader"),
        "seed": operation.get("seed", 0),
        "inputs": tuple(operation.get("inputs", ())) if manifest.modality == "multimodal" else (),
    }
    return spec.model_copy(update=roles)


# In the worker


def run(run: Run) -> dict[str, Any]:
    """Reads, seals, and returns what `commit` registers."""
    spec = IngestSpec.model_validate(run.payload["spec"])
    parent, earlier = _parent_of(run), run.payload["earlier"]
    stored = parent.manifest if parent else Manifest.model_validate(earlier["manifest"]) if earlier else None
    read = _read_source(spec, run, stored, parent)
    packs = _packs(run, read, stored)
    operation = {"op": "ingest", **spec.model_dump(mode="json", exclude={"name", "rows", "add"}, exclude_none=True)}
    operation |= {"revision": read.revision} if read.revision else {}
    operation |= {name: list(role) if name == "inputs" else role for name, role in read.told.items()}
    operation |= {"label": read.drafted.label} if read.drafted.implied else {}
    if parent is not None:
        found = append_draft(run.folders, parent, read.drafted, spec.seed, packs)
        counts = found.counts._asdict()
        report = found.report | counts | {"warnings": [*_warnings_of_addition(found), *read.drafted.warnings]}
        return pack_version(
            found.sealed,
            parents=(parent.manifest.ref,),
            operation=operation | {"op": "add_examples"} | counts,
            report=report,
            result={"report": report},
            onto=run.payload["parent"]["onto"],
        )
    kept = splits_of(run.folders, stored) if stored is not None and earlier["keeps_splits"] else {}
    done = finish_draft(read.drafted, spec.seed, kept)
    sealed = next_version.seal_first(run.folders, done.table, _manifest(spec, read.drafted, packs))
    report = quality_report(done.table)
    report["untrusted"] |= {"renamed": read.drafted.renamed | read.renamed, **read.untrusted}
    shown = len(read.untrusted.get("set_aside", {}))
    report |= {
        "split": done.split,
        "set_aside": read.excluded,
        **({"set_aside_shown": f"first {shown} of {read.excluded:,}"} if read.excluded else {}),
        "warnings": [*_warnings(read), *read.drafted.warnings, *done.warnings, *([read.hint] if read.hint else [])],
    }
    return pack_version(sealed, operation=operation, report=report, result={"report": report})


class _SourceContent(NamedTuple):
    drafted: Draft
    survey: Survey
    renamed: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Columns of the labels that the media have too -> as which they are stored."""
    revision: str | None = None
    excluded: int = 0
    untrusted: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """Notes and what was excluded, as the report quotes them."""
    told: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """Roles that the caller left to the export that was read."""
    hint: str = ""
    """How else the source may be meant."""


def _read_source(spec: IngestSpec, run: Run, stored: Manifest | None, parent: ParentVersion | None) -> _SourceContent:
    """Every item, judged."""
    work = run.folder.path / "work"
    work.mkdir(exist_ok=True)
    pool = Pool(run.folders, Settings(cage=run.payload["cage"]), size=cores())
    try:
        if spec.rows is not None:
            survey = survey_rows(load_inline_rows(run.folders, spec.rows), spec.modality)
            return _SourceContent(_draft_survey(spec, survey, parent, run, pool, work, frozenset((work,))), survey)
        assert spec.source is not None
        labels = LabelsFile(spec.labels.path, spec.labels.key) if spec.labels else None
        preparing = sandbox_calls.SourceContext(pool, run.payload["cage"], run.folders, work)
        never = [name for name in (spec.label, spec.group_by, spec.labels and spec.labels.column) if name]
        sees = parent.manifest.inputs if parent else spec.inputs
        found = prepare_source(
            spec.source, preparing, modality=spec.modality, reader=spec.reader, labels=labels,
            inputs=spec.inputs, never=never, label=spec.label, column=sees[0] if len(sees) == 1 else None,
        )  # fmt: skip
        found = found._replace(readable=found.readable | {work})
        survey, renamed = _survey_listing(found, run, pool, stored, spec.label)
        survey = with_excluded_files(survey, found.excluded, found.source.name)
        told = _roles_of_export(spec, found.marker, survey)
        spec = spec.model_copy(update=told)
        label, group_by = (spec.labels.column if spec.labels else spec.label), spec.group_by
        spec = spec.model_copy(
            update={"label": renamed.get(label or "", label), "group_by": renamed.get(group_by or "", group_by)}
        )
        with add_hint(found.hint):
            drafted = _draft_survey(spec, survey, parent, run, pool, work, found.readable)
        if survey.media and (found.about is not None or (found.marker is not None and found.marker.windows)):
            kept = group_excerpts(drafted.table, drafted.modality)
            unit = find(drafted.modality).window_unit
            drafted = drafted._replace(table=own_export.with_windows(kept, unit))
        excluded = {item.name: item.reason for item in found.excluded[:_SHOWN]}
        untrusted = {"notes": list(found.notes), "set_aside": excluded} if found.notes or excluded else {}
        return _SourceContent(
            drafted, survey, renamed, found.revision, len(found.excluded), untrusted, told, found.hint
        )
    finally:
        pool.close()
        shutil.rmtree(work, ignore_errors=True)


def _roles_of_export(spec: IngestSpec, marker: own_export.Marker | None, survey: Survey) -> dict[str, Any]:
    """What an export of ours says of its columns and the caller does not."""
    if marker is None or spec.add:
        return {}
    roles = marker.roles(survey.table.column_names)
    roles = {name: role for name, role in roles.items() if not getattr(spec, name)}
    if spec.labels is not None:
        roles.pop("label", None)
    if {spec.label, spec.group_by} & {*roles.get("inputs", ())} or spec.modality not in ("auto", marker.modality):
        roles.pop("inputs", None)
    return roles


def _survey_listing(
    found: Listing, run: Run, pool: Pool, stored: Manifest | None, label: str | None
) -> tuple[Survey, dict[str, str]]:
    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        run.progress(done, total, "files", "reading")

    context = SurveyContext(run, pool, run.folder.path / "work", progress)
    if found.layout == "table":
        return survey_tables(found, context, label), {}
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


def _draft_survey(
    spec: IngestSpec,
    survey: Survey,
    parent: ParentVersion | None,
    run: Run,
    pool: Pool,
    work: Path,
    readable: frozenset[Path],
) -> Draft:
    def judge(table: pa.Table, roles: Roles) -> pa.Table:
        wanted = pc.equal(survey.items["quality"], "ok")
        return validate_table(table, wanted, roles, RowValidationContext(run, pool, work, readable))

    wishes, asked = ColumnChoices(spec.label, spec.inputs, spec.group_by), survey.table.column_names
    if parent is None:
        drafted = draft_rows(survey, wishes, judge)
        if spec.group_by in asked and is_log(spec.source):
            drafted = require_groups(drafted, Grouping(spec.name, spec.group_by, drafted.inputs))
        return drafted
    manifest = parent.manifest
    by = spec.group_by or _column_of_split(run, manifest)
    grouping = Grouping(manifest.ref, by if by in manifest.columns else None, manifest.inputs)
    if is_log(spec.source) and grouping.column is not None and grouping.column not in asked:
        raise no_groups_error(grouping)
    inputs, labelled = _source_input_names(manifest, survey, spec.label), manifest.label is not None
    wishes = wishes._replace(
        inputs=inputs, numeric=manifest.numeric if labelled else None, implied=labelled,
        group_by=by if by in asked else spec.group_by,
    )  # fmt: skip
    drafted = draft_rows(survey, wishes, judge)
    if is_log(spec.source) and has_user_groups(run.folders, manifest):
        drafted = require_groups(drafted, grouping)
    return drafted


def _column_of_split(run: Run, manifest: Manifest) -> str | None:
    """The column that the split was made by, where the rows came without groups and no model sees it."""
    by: str | None = run.payload["parent"].get("dealt_by")
    return None if by in manifest.inputs or by not in manifest.columns else by


def _source_input_names(manifest: Manifest, survey: Survey, label: str | None) -> tuple[str, ...]:
    """The dataset's inputs by the names that the source gives them."""
    there = [name for name in survey.table.column_names if name != "label" or label != "label"]
    named = {stored: name for name, stored in rename(there).items()}
    if lacking := [name for name in manifest.inputs if name not in named]:
        raise SpeciateError(
            Code.INVALID,
            f"The source lacks column(s) that a model of {manifest.ref} sees: {', '.join(lacking[:20])}.",
            "Call add_examples with a source that has them.",
        )
    return tuple(named[name] for name in manifest.inputs)


def _parent_of(run: Run) -> ParentVersion | None:
    said = run.payload["parent"]
    if said is None:
        return None
    before = tuple(Part.model_validate(part) for part in said["before"])
    lanes = unpack_lanes(bytes.fromhex(said["lanes"]))
    return ParentVersion(Manifest.model_validate(said["manifest"]), lanes, said["report"], before)


def _packs(run: Run, read: _SourceContent, stored: Manifest | None) -> list[str]:
    """Relative paths of the packs that hold the media: new ones, and those of an earlier version."""
    root = run.folders.root
    before: Iterable[Path] = [root / pack for pack in stored.packs] if stored and read.survey.media else []
    used = packs_with_any(list(before), read.survey.items["content"]) if read.survey.media else []
    return [pack.relative_to(root).as_posix() for pack in (*used, *read.survey.packs)]


def _manifest(spec: IngestSpec, drafted: Draft, packs: Sequence[str]) -> Manifest:
    return Manifest(
        name=spec.name, version=0, id="", modality=drafted.modality, parts=(), packs=tuple(packs), columns={},
        inputs=drafted.inputs, label=drafted.label, numeric=drafted.numeric, rows=0,
    )  # fmt: skip


def _warnings(read: _SourceContent) -> list[str]:
    drafted = read.drafted
    if drafted.label is None and says_answers(drafted.inputs, drafted.table.column_names):
        return []
    if drafted.label is None:
        hint = (
            " The folders look like classes: label='folder' takes them."
            if _folders_look_like_classes(read.survey)
            else ""
        )
        return [
            f"No label was named: there is nothing to learn or to compare with until label_examples gives some.{hint}"
        ]
    said = ["The column 'label' is the label, for none was named."] if drafted.implied else []
    usable = drafted.table.filter(pa.compute.equal(drafted.table["quality"], "ok"))["label"]
    if count := sum(map(is_shortened, [] if drafted.numeric else usable.unique().to_pylist())):
        said.append(SHORTENED.format(count=count))
    if not drafted.numeric and len(usable.unique()) == 1:
        said.append("All usable examples have one and the same label: a model needs at least two classes.")
    return said


def _folders_look_like_classes(survey: Survey) -> bool:
    """Every medium lies in a folder, and those are at least two and few."""
    folders = survey.items["folder"]
    several = pa.compute.count_distinct(folders, mode="all").as_py()
    return survey.media and not folders.null_count and 2 <= several <= folders.length() // 2


def _warnings_of_addition(found: AppendedVersion) -> list[str]:
    counts, split = found.counts, found.report.get("split", {})
    across = split.get("near_duplicates_across", 0) + split.get("groups_across", 0)
    said = {
        f"{counts.dropped_before} items were in an earlier version and dropped since, so they stay out; to have them "
        "back, add to the version that held them.": counts.dropped_before,
        f"{counts.label_conflicts} items are there already with another label, which stands; label_examples changes "
        "it.": counts.label_conflicts,
        f"{found.refused} items were refused, for they belong with examples of several splits; a step 'split' of "
        "curate_dataset deals everything out anew.": found.refused,
        "Groups or near-duplicates lie in several splits, as the source has them; see the split's audit.": across,
    }
    return [*(text for text, count in said.items() if count), *found.warnings]


KIND = Kind(
    name="ingest", spec=IngestSpec, plan=plan, run="speciate.datasets.ingest.ingest:run", collect=collect, commit=commit
)


# Rows that come with a call lie in a blob of their own, which a spec names by its sha256: so they can be forgotten.


def store_inline_rows(workspace: Workspace, rows: Sequence[dict[str, Any]]) -> str:
    """On disk when this returns."""
    return Blobs(workspace.folders.blobs).put(json.dumps(list(rows), sort_keys=True).encode("utf-8", "surrogatepass"))


def load_inline_rows(folders: Folders, sha256: str) -> list[dict[str, Any]]:
    """NOT_FOUND where they were forgotten meanwhile."""
    rows: list[dict[str, Any]] = json.loads(Blobs(folders.blobs).get(sha256))
    return rows
