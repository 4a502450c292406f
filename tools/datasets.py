"""Datasets: make one from files or rows, describe, query, preview and curate it, and find similar examples."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from speciate.datasets import versions
from speciate.datasets.curate import KIND as CURATE
from speciate.datasets.curate import CurateSpec
from speciate.datasets.ingest.ingest import KIND as INGEST
from speciate.datasets.ingest.ingest import IngestSpec, store_inline_rows
from speciate.datasets.ingest.preview import NOT_UNDERSTOOD, preview_source
from speciate.datasets.inspect import contact_sheet, describe, query
from speciate.datasets.similarity import nearest_neighbours
from speciate.datasets.similarity.nearest_neighbours import NeighbourQuery
from speciate.datasets.sources.listing import ELSEWHERE
from speciate.datasets.sources.sandbox_calls import check_labels_file, check_named_columns
from speciate.jobs.job import Job
from speciate.predictions import answer_lookup
from speciate.predictions.log_files import LOG
from speciate.refs import dataset_range, dataset_ref
from speciate.server.roots import check_readable, check_refs
from speciate.server.tool_api import (  # fmt: skip
    App,
    Cursor,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    Limit,
    NextAction,
    Result,
    ToolImage,
    fitting,
    make_spec,
    show_started,
    start_job,
    tool,
)
from speciate.tasks.example_targets import answer_columns

DatasetText = Annotated[str, Field(description="name, name@v3, name@v3:test.")]
Source = Annotated[
    str | None,
    Field(
        description="Folder, file or archive: media, text, CSV, JSON, Parquet, .ts, ARFF, FASTA, PDB, SDF, SMILES, "
        "DICOM, NIfTI, STL, PLY, LAS, LeRobot, MCAP; hf:, pkg:, gym:, log:USE_CASE."
    ),
]
Reader = Annotated[
    str | None,
    Field(description="If the guess is wrong: csv ..., files, wide, long:ID,TIME, csv+long."),
]
GroupBy = Annotated[
    str | None, Field(description="Never split apart: column, 'folder', or regex on the path, group 1 the key.")
]
Sql = Annotated[
    str | None,
    Field(description="One SELECT over examples (id split label group_key quality reason source, your columns)."),
]
Rows = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000, description="Inline rows.")]
Where = Annotated[str | None, Field(description="SQL condition.")]


class LabelsFile(Result):
    path: str
    key: Annotated[str, Field(description="Column with path or file name; of tables: the column that both share.")]
    column: Annotated[str | None, Field(description="Label; null: join columns only.")] = None


_ROWS, _MOST_ROWS = 20, 500
_LIMIT = re.compile(r"\blimit\s+(\d{1,9})(?:\s+offset\s+\d+)?\s*;?\s*$", re.IGNORECASE)
_COLUMNS_SHOWN = 60
_LABELS_SHOWN = 50
_LABELS_IN_LIST = 10
_STEPS_SHOWN = 10


class Column(Result):
    name: str
    type: str


class Step(Result):
    version: int
    operation: str
    rows: int
    job: str | None = None


class Difference(Result):
    added: int
    removed: int
    changed: int
    label_moves: Annotated[tuple[tuple[str | None, str | None, int], ...], Field(description="From, to, how many.")]


class DatasetView(Result):
    version: str
    parents: tuple[str, ...]
    modality: str
    examples: int
    splits: dict[str, int]
    labels: dict[str, int]
    quality: dict[str, int]
    inputs: tuple[str, ...] | None = None
    columns: tuple[Column, ...] | None = None
    not_shown: str | None = None
    split_audit: dict[str, Any] | None = None
    warnings: tuple[str, ...] | None = None
    tags: dict[str, int] | None = None
    history: tuple[Step, ...] | None = None
    difference: Difference | None = None


class DatasetList(Result):
    datasets: tuple[DatasetView, ...]
    next_cursor: str | None = None


class ForeignRows(Result):
    rows: list[list[Any]]


class QueryResult(Result):
    columns: tuple[str, ...]
    untrusted: ForeignRows
    next_cursor: str | None = None


@tool()
def create_dataset(
    app: App,
    name: Annotated[str, Field(description="New, or gets its next version.")],
    source: Source = None,
    rows: Rows | None = None,
    modality: Annotated[str, Field(description="list_options(kind='modality')")] = "auto",
    label: Annotated[str | None, Field(description="Column, or 'folder'.")] = None,
    labels: Annotated[
        LabelsFile | None,
        Field(
            description="A table: {path, key: its column of file names, of tables the shared one; column?: label, "
            "null: join only}."
        ),
    ] = None,
    inputs: Annotated[list[str] | None, Field(description="Columns that a model may see.")] = None,
    group_by: GroupBy = None,
    fractions: Annotated[dict[str, float] | None, Field(description="{train, validation, test}.")] = None,
    reader: Reader = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Make a dataset (or its next version) from files or rows; starts a job. Afterwards call describe_dataset.

    To add to one, call add_examples; to clean or split it, curate_dataset.
    """
    origin = _source(app, source, rows, labels, reader)
    if origin["source"] and labels is None and reader is None and modality != "time-series":
        check_named_columns(app.pool, Path(origin["source"]), label, inputs or [], group_by)
    spec = make_spec(
        IngestSpec, **origin, name=name, modality=modality, label=label, inputs=inputs or [], group_by=group_by,
        **({"fractions": fractions} if fractions is not None else {}),  # a call without is the same as before
    )  # fmt: skip
    then = (NextAction(tool="describe_dataset", arguments={"dataset": name}),)
    answer = start_job(app, INGEST, spec, idempotency_key=idempotency_key, dry_run=dry_run, next_actions=then)
    return answer if isinstance(answer, JobStarted) else _with_preview(app, answer, spec)


@tool()
def add_examples(
    app: App,
    dataset: DatasetText,
    source: Annotated[str | None, Field(description="As of create_dataset.")] = None,
    rows: Rows | None = None,
    labels: Annotated[LabelsFile | None, Field(description="As of create_dataset: {path, key, column?}.")] = None,
    reader: Annotated[str | None, Field(description="As of create_dataset.")] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Add files or rows to a dataset as its next version; starts a job.

    Known examples are skipped; old ones keep their split. For a new dataset, call create_dataset; to change labels,
    label_examples.
    """
    spec = make_spec(IngestSpec, **_source(app, source, rows, labels, reader), name=dataset, add=True)
    then = (NextAction(tool="describe_dataset", arguments={"dataset": dataset_ref(dataset).name}),)
    answer = start_job(app, INGEST, spec, idempotency_key=idempotency_key, dry_run=dry_run, next_actions=then)
    return answer if isinstance(answer, JobStarted) else _with_preview(app, answer, spec)


def _with_preview(app: App, answer: DryRun, spec: IngestSpec) -> DryRun:
    """With what a look at the source says. Not valid where a part was looked at that the job would fail for."""
    shown = preview_source(spec, app.workspace)
    whole = str(shown["looked_at"]).startswith("all ")
    understood = shown["looked_at"] != NOT_UNDERSTOOD
    return answer.model_copy(
        update={
            "resolved": {**answer.resolved, **shown},
            "valid": answer.valid and understood,
            "refused": answer.refused if understood else str(shown["warnings"][0]),
            "not_checked": (*(answer.not_checked or ()), *(() if whole else (_REST,))) or None,
        }
    )


_REST = "The source beyond what was looked at."


def _source(
    app: App, source: str | None, rows: list[dict[str, Any]] | None, labels: LabelsFile | None, reader: str | None
) -> dict[str, Any]:
    """The source arguments for the job's spec: paths checked, inline rows in a blob of their own."""
    if source is not None and not source.startswith(ELSEWHERE):
        source = str(check_readable(app, source))
    if labels is not None:
        labels = labels.model_copy(update={"path": str(check_readable(app, labels.path))})
        check_labels_file(app.pool, Path(labels.path), labels.key, labels.column)
    return {
        "source": source,
        "rows": store_inline_rows(app.workspace, rows) if rows is not None else None,
        "labels": labels and labels.model_dump(exclude_none=True),
        "reader": reader,
    }


@tool(read_only=True)
def describe_dataset(
    app: App,
    dataset: DatasetText | None = None,
    compare_to: Annotated[str | None, Field(description="An older version: what changed.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> tuple[DatasetView | DatasetList, *tuple[ToolImage, ...]]:
    """Describe a dataset: splits, labels, quality, columns, history, a chart. Without `dataset`: a list of all.

    For rows, call query_dataset; for media, preview_dataset.
    """
    database = app.workspace.database
    if dataset is None:
        left = [name for name in versions.names(database) if cursor is None or name > cursor]
        listed = tuple(_overview(found) for found in describe.newest_versions(database, left[:limit]))
        most = fitting(listed, limit)
        return (DatasetList(datasets=listed[:most], next_cursor=left[most - 1] if len(left) > most else None),)
    found = versions.version(database, dataset)
    shown = _view(found).model_copy(update=_history(app, found.manifest.name))
    if compare_to is not None:
        old = versions.resolve(database, compare_to)
        between = describe.ask_for_difference(app.pool, app.workspace.folders, old, found.manifest)
        shown = shown.model_copy(update={"difference": Difference(**between._asdict())})
    chart = describe.ask_for_charts(app.pool, app.workspace.folders, found.manifest)
    if chart.png is None:
        return (shown.model_copy(update={"warnings": (*(shown.warnings or ()), chart.missing)}),)
    return shown, ToolImage(chart.png)


@tool(read_only=True)
def query_dataset(
    app: App,
    dataset: Annotated[str, Field(description="name, name@v3, name@v3:test; name@v3..v5: changed rows; log:USE_CASE.")],
    sql: Sql = None,
    where: Where = None,
    limit: Annotated[int | None, Field(ge=1, le=500, description="Default: the LIMIT of sql, else 20.")] = None,
    cursor: Cursor = None,
) -> QueryResult:
    """Query rows of a dataset by SQL, of every quality; of a version range the changed rows.

    To see media, call preview_dataset; for counts, describe_dataset.
    """
    limit = limit or _limit_of(sql)
    if dataset.startswith(LOG):
        folder, since = answer_lookup.log_location(app.workspace, dataset.removeprefix(LOG))
        page = query.query_log(app.pool, folder, since, sql=sql, where=where, limit=limit, cursor=cursor)
        rows = ForeignRows(rows=page.rows)
        return QueryResult(columns=tuple(page.columns), untrusted=rows, next_cursor=page.next_cursor)
    wanted = dataset_range(dataset)
    database = app.workspace.database
    page = query.query(
        app.pool, app.workspace.folders, versions.resolve(database, wanted.ref),
        since=versions.resolve(database, wanted.since) if wanted.since else None,
        sql=sql, where=where, split=wanted.ref.split, limit=limit, cursor=cursor,
    )  # fmt: skip
    return QueryResult(columns=tuple(page.columns), untrusted=ForeignRows(rows=page.rows), next_cursor=page.next_cursor)


def _limit_of(sql: str | None) -> int:
    """Rows that the statement asks for, within what a page may hold."""
    found = _LIMIT.search(sql or "")
    return min(max(int(found[1]), 1), _MOST_ROWS) if found else _ROWS


@tool(read_only=True)
def preview_dataset(
    app: App,
    dataset: DatasetText,
    where: Where = None,
    ids: Annotated[list[str] | None, Field(max_length=36, description="These examples.")] = None,
    count: Annotated[int, Field(ge=1, le=36, description="The first ones.")] = 12,
) -> tuple[QueryResult, ToolImage]:
    """Show examples as one image, with their rows in reading order. For rows alone, call query_dataset.

    To see excluded examples, pass `ids` or filter on `quality`.
    """
    manifest = versions.resolve(app.workspace.database, dataset)
    sheet = contact_sheet.ask_for_contact_sheet(
        app.pool, app.workspace.folders, manifest,
        where=where, ids=ids, split=dataset_ref(dataset).split, count=count, answers=answer_columns(manifest),
    )  # fmt: skip
    return QueryResult(columns=tuple(sheet.columns), untrusted=ForeignRows(rows=sheet.rows)), ToolImage(sheet.png)


def _view(found: versions.Version) -> DatasetView:
    manifest = found.manifest
    return _overview(found, _LABELS_SHOWN).model_copy(
        update={
            "split_audit": found.report.get("split"),
            "warnings": tuple(found.report.get("warnings", ())) or None,
            "inputs": manifest.inputs[:_COLUMNS_SHOWN],
            "columns": tuple(
                Column(name=name, type=kind) for name, kind in islice(manifest.columns.items(), _COLUMNS_SHOWN)
            ),
            "not_shown": _not_shown(
                columns=len(manifest.columns) - _COLUMNS_SHOWN,
                inputs=len(manifest.inputs) - _COLUMNS_SHOWN,
                labels=len(manifest.labels) - _LABELS_SHOWN,
            ),
        }
    )


def _overview(found: versions.Version, labels: int = _LABELS_IN_LIST) -> DatasetView:
    """View of a version without columns and inputs, and with the first few labels."""
    manifest = found.manifest
    return DatasetView(
        version=manifest.ref,
        parents=tuple(found.parents),
        modality=manifest.modality,
        examples=describe.usable(found),
        splits=manifest.splits,
        labels=dict(islice(manifest.labels.items(), labels)),
        quality=describe.quality(found),
        not_shown=_not_shown(labels=len(manifest.labels) - labels),
    )


def _history(app: App, name: str) -> dict[str, Any]:
    steps = versions.history(app.workspace.database, name, _STEPS_SHOWN)
    shown = tuple(Step(version=s.version, operation=s.operation, rows=s.rows, job=s.job) for s in steps)
    return {"history": shown, "tags": versions.tags(app.workspace.database, name) or None}


def _not_shown(**counts: int) -> str | None:
    parts = [f"{count:,} more {name}" for name, count in counts.items() if count > 0]
    return f"and {', '.join(parts)}; query_dataset gives them by SQL" if parts else None


Steps = Annotated[
    list[dict[str, Any]],
    Field(
        min_length=1,
        max_length=20,
        description="In order, as {op: 'filter', where: 'width > 64'}; list_options(kind='operation').",
    ),
]


@tool()
def curate_dataset(
    app: App,
    dataset: Annotated[str, Field(description="name, name@v3 or name@TAG.")],
    steps: Steps,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Make the next version of a dataset by operations (filter, split, deduplicate ...); starts a job.

    For labels of single examples, call label_examples; for new rows, add_examples.
    """
    then = (NextAction(tool="describe_dataset", arguments={"dataset": dataset.partition("@")[0]}),)
    spec = make_spec(CurateSpec, dataset=dataset, steps=[_with_checked_model(app, step) for step in steps])
    return start_job(app, CURATE, spec, idempotency_key=idempotency_key, dry_run=dry_run, next_actions=then)


def _with_checked_model(app: App, step: dict[str, Any]) -> dict[str, Any]:
    """Checks and completes the path of a file in `model`; in other fields such words are data."""
    return {name: check_refs(app, value) if name == "model" else value for name, value in step.items()}


class Neighbour(Result):
    id: str
    distance: float = Field(description="1 - cosine.")


class NeighbourRows(Result):
    rows: list[list[Any]]


class SimilarExamples(Result):
    extractor: str
    neighbours: tuple[Neighbour, ...]
    columns: tuple[str, ...]
    untrusted: NeighbourRows = Field(description="With id: first the example itself.")


@tool(read_only=True)
def find_similar(
    app: App,
    dataset: DatasetText,
    id: Annotated[str | None, Field(description="An example; or text.")] = None,  # noqa: A002 - the argument's name
    text: Annotated[str | None, Field(max_length=20_000, description="Words; for images, a caption.")] = None,
    extractor: Annotated[str | None, Field(description="list_options(kind='extractor')")] = None,
    k: Annotated[int, Field(ge=1, le=100, description="How many.")] = 10,
) -> tuple[SimilarExamples | JobStarted, *tuple[ToolImage, ...]]:
    """Find the usable examples nearest to an example or a text, with an image.

    A job, where embedding takes long. For rows by condition, call query_dataset.
    """
    manifest = versions.resolve(app.workspace.database, dataset)
    neighbours = NeighbourQuery(id, text, extractor, dataset_ref(dataset).split, k)
    found = nearest_neighbours.find_neighbours(app.engine, app.pool, manifest, neighbours)
    if isinstance(found, Job):
        arguments = {"dataset": dataset, "id": id, "text": text, "extractor": extractor, "k": k}
        again = {name: value for name, value in arguments.items() if value is not None}
        return (show_started(found, (NextAction(tool="find_similar", arguments=again),)),)
    answer = SimilarExamples(
        extractor=found.extractor,
        neighbours=tuple(Neighbour(id=near, distance=distance) for near, distance in found.nearest),
        columns=found.columns,
        untrusted=NeighbourRows(rows=found.rows),
    )
    return (answer,) if found.contact_sheet is None else (answer, ToolImage(found.contact_sheet))
