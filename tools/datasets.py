"""Datasets: make one from files or rows, see what it holds, ask it with SQL, look at it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from speciate.datasets import versions
from speciate.datasets.intake.inline_rows import keep_rows
from speciate.datasets.look import describe, preview, query
from speciate.datasets.sources.listing import ELSEWHERE
from speciate.datasets.sources.named_columns import check_named_columns
from speciate.predictions.folder import LOG
from speciate.production import logged
from speciate.refs import dataset_range, dataset_ref
from speciate.server.roots import check_readable
from speciate.server.surface import (
    App,
    Cursor,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    Limit,
    NextAction,
    Picture,
    Result,
    start_job,
    tool,
)  # fmt: skip
from speciate.tasks.truth import answer_columns

DatasetText = Annotated[str, Field(description="`name`, `name@v3` or `name@v3:test`.")]
Source = Annotated[
    str | None,
    Field(
        description="Folder, file or archive: images, audio, video, text, CSV, JSON, Parquet, .ts, ARFF, FASTA, PDB, "
        "SDF, SMILES, DICOM, NIfTI, STL, PLY, LAS, LeRobot, MCAP; hf:, pkg:, gym:, log:USE_CASE."
    ),
]
Reader = Annotated[
    str | None,
    Field(description="Where the guess is wrong: csv, parquet ..., files, wide, long:ID,TIME, csv+long."),
]
GroupBy = Annotated[
    str | None, Field(description="Column, 'folder', or regex over the path, group 1 the key: never split apart.")
]
Sql = Annotated[
    str | None,
    Field(description="One SELECT over examples (id split label group_key quality reason source, your columns)."),
]
Rows = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000, description="Inline rows.")]
Where = Annotated[str | None, Field(description="SQL condition.")]


class LabelsFile(Result):
    path: str
    key: Annotated[str, Field(description="Column with path or file name.")]
    column: str


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
    name: str,
    source: Source = None,
    rows: Rows | None = None,
    modality: Annotated[str, Field(description="list_options(kind='modality')")] = "auto",
    label: Annotated[str | None, Field(description="Column, or 'folder'.")] = None,
    labels: LabelsFile | None = None,
    inputs: Annotated[list[str] | None, Field(description="Columns that a model may see.")] = None,
    group_by: GroupBy = None,
    reader: Reader = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Make a dataset (or its next version) from files or rows; starts a job. Afterwards call describe_dataset.

    To add to one, call add_examples.
    """
    spec = _source(app, source, rows, labels, reader) | {
        "name": name,
        "modality": modality,
        "label": label,
        "inputs": inputs or [],
        "group_by": group_by,
    }
    if spec["source"] and labels is None and reader is None and modality != "time-series":
        check_named_columns(app.pool, Path(spec["source"]), label, inputs or [], group_by)
    then = (NextAction(tool="describe_dataset", arguments={"dataset": name}),)
    return start_job(app, "ingest", spec, idempotency_key=idempotency_key, dry_run=dry_run, next_actions=then)


@tool()
def add_examples(
    app: App,
    dataset: DatasetText,
    source: Source = None,
    rows: Rows | None = None,
    labels: LabelsFile | None = None,
    reader: Reader = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Add files or rows to a dataset, in the roles its columns have; starts a job that makes the next version.

    What is there already adds nothing; old examples keep their split.
    """
    spec = _source(app, source, rows, labels, reader) | {"name": dataset, "add": True}
    then = (NextAction(tool="describe_dataset", arguments={"dataset": dataset_ref(dataset).name}),)
    return start_job(app, "ingest", spec, idempotency_key=idempotency_key, dry_run=dry_run, next_actions=then)


def _source(
    app: App, source: str | None, rows: list[dict[str, Any]] | None, labels: LabelsFile | None, reader: str | None
) -> dict[str, Any]:
    """Where examples come from, as the job's spec says it: paths checked, inline rows in a blob of their own."""
    if source is not None and not source.startswith(ELSEWHERE):
        source = str(check_readable(app, source))
    return {
        "source": source,
        "rows": keep_rows(app.workspace, rows) if rows is not None else None,
        "labels": labels and {**labels.model_dump(), "path": str(check_readable(app, labels.path))},
        "reader": reader,
    }


@tool(read_only=True)
def describe_dataset(
    app: App,
    dataset: DatasetText | None = None,
    compare_to: DatasetText | None = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> tuple[DatasetView | DatasetList, *tuple[Picture, ...]]:
    """Splits, labels, quality, columns, history and a chart of a dataset; of all in short without `dataset`.

    For rows, call query_dataset.
    """
    database = app.workspace.database
    if dataset is None:
        left = [name for name in versions.names(database) if cursor is None or name > cursor]
        listed = tuple(_overview(found) for found in describe.newest_versions(database, left[:limit]))
        return (DatasetList(datasets=listed, next_cursor=left[limit - 1] if len(left) > limit else None),)
    found = versions.version(database, dataset)
    shown = _view(found).model_copy(update=_history(app, found.manifest.name))
    if compare_to is not None:
        old = versions.resolve(database, compare_to)
        between = describe.difference(app.pool, app.workspace.folders, old, found.manifest)
        shown = shown.model_copy(update={"difference": Difference(**between._asdict())})
    chart = describe.charts(app.pool, app.workspace.folders, found.manifest)
    if chart.png is None:
        return (shown.model_copy(update={"warnings": (*(shown.warnings or ()), chart.missing)}),)
    return shown, Picture(chart.png)


@tool(read_only=True)
def query_dataset(
    app: App,
    dataset: Annotated[
        str, Field(description="`name`, `name@v3`, `name@v3:test`; `name@v3..v5`: what changed; `log:USE_CASE`.")
    ],
    sql: Sql = None,
    where: Where = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> QueryResult:
    """Rows of a dataset by SQL, of every quality; of a range the changed ones, with `change` and `label_before`.

    To look at media, call preview_dataset.
    """
    if dataset.startswith(LOG):
        folder, since = logged.place(app.workspace, dataset.removeprefix(LOG))
        page = query.query_log(app.pool, folder, since, sql=sql, where=where, limit=limit, cursor=cursor)
        rows = ForeignRows(rows=page.rows)
        return QueryResult(columns=tuple(page.columns), untrusted=rows, next_cursor=page.next_cursor)
    asked = dataset_range(dataset)
    database = app.workspace.database
    page = query.query(
        app.pool, app.workspace.folders, versions.resolve(database, asked.ref),
        since=versions.resolve(database, asked.since) if asked.since else None,
        sql=sql, where=where, split=asked.ref.split, limit=limit, cursor=cursor,
    )  # fmt: skip
    return QueryResult(columns=tuple(page.columns), untrusted=ForeignRows(rows=page.rows), next_cursor=page.next_cursor)


@tool(read_only=True)
def preview_dataset(
    app: App,
    dataset: DatasetText,
    where: Where = None,
    ids: Annotated[list[str] | None, Field(max_length=36)] = None,
    count: Annotated[int, Field(ge=1, le=36)] = 12,
) -> tuple[QueryResult, Picture]:
    """See examples as one picture, with their rows in reading order; set-aside ones where `ids` or a `where` on
    quality names them. For rows alone, call query_dataset."""
    manifest = versions.resolve(app.workspace.database, dataset)
    sheet = preview.contact_sheet(
        app.pool, app.workspace.folders, manifest,
        where=where, ids=ids, split=dataset_ref(dataset).split, count=count, answers=answer_columns(manifest),
    )  # fmt: skip
    return QueryResult(columns=tuple(sheet.columns), untrusted=ForeignRows(rows=sheet.rows)), Picture(sheet.png)


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
    """Without columns and inputs, and with the first few labels."""
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
