"""Datasets: make one from files or rows, see what it holds, ask it with SQL, look at it."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

from pydantic import Field

from speciate.datasets import describe, preview, query, versions
from speciate.refs import dataset_ref
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

DatasetText = Annotated[str, Field(description="`name`, `name@v3` or `name@v3:test`.")]
Source = Annotated[str | None, Field(description="Folder or file: images, text, CSV, JSONL, Parquet, .ts, FASTA.")]
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


class Column(Result):
    name: str
    type: str


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
    difference: dict[str, int] | None = None


class DatasetList(Result):
    datasets: tuple[DatasetView, ...]


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
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Make a dataset (or its next version) from files or rows; starts a job. Afterwards call describe_dataset."""
    spec = {
        "name": name,
        "source": str(check_readable(app, source)) if source is not None else None,
        "rows": rows,
        "modality": modality,
        "label": label,
        "labels": labels and {**labels.model_dump(), "path": str(check_readable(app, labels.path))},
        "inputs": inputs or [],
        "group_by": group_by,
    }
    then = (NextAction(tool="describe_dataset", arguments={"dataset": name}),)
    return start_job(app, "ingest", spec, idempotency_key=idempotency_key, dry_run=dry_run, next_actions=then)


@tool(read_only=True)
def describe_dataset(
    app: App, dataset: DatasetText | None = None, compare_to: DatasetText | None = None
) -> DatasetView | DatasetList:
    """Splits, labels, quality and columns of a dataset; of all without `dataset`. For rows, call query_dataset."""
    database = app.workspace.database
    if dataset is None:
        return DatasetList(datasets=tuple(map(_overview, describe.newest_versions(database))))
    found = versions.version(database, dataset)
    if compare_to is None:
        return _view(found)
    old = versions.resolve(database, compare_to)
    between = describe.difference(app.pool, app.workspace.folders, old, found.manifest)
    return _view(found).model_copy(update={"difference": between._asdict()})


@tool(read_only=True)
def query_dataset(
    app: App,
    dataset: DatasetText,
    sql: Sql = None,
    where: Where = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> QueryResult:
    """Rows of a dataset by SQL, of every quality. To look at media, call preview_dataset."""
    manifest = versions.resolve(app.workspace.database, dataset)
    page = query.query(
        app.pool, app.workspace.folders, manifest,
        sql=sql, where=where, split=dataset_ref(dataset).split, limit=limit, cursor=cursor,
    )  # fmt: skip
    return QueryResult(columns=tuple(page.columns), untrusted=ForeignRows(rows=page.rows), next_cursor=page.next_cursor)


@tool(read_only=True)
def preview_dataset(
    app: App,
    dataset: DatasetText,
    where: Where = None,
    ids: list[str] | None = None,
    count: Annotated[int, Field(ge=1, le=36)] = 12,
) -> tuple[QueryResult, Picture]:
    """See examples as one picture, with their rows in reading order. For rows alone, call query_dataset."""
    manifest = versions.resolve(app.workspace.database, dataset)
    sheet = preview.contact_sheet(
        app.pool, app.workspace.folders, manifest,
        where=where, ids=ids, split=dataset_ref(dataset).split, count=count,
    )  # fmt: skip
    return QueryResult(columns=tuple(sheet.columns), untrusted=ForeignRows(rows=sheet.rows)), Picture(sheet.png)


def _view(found: versions.Version) -> DatasetView:
    manifest = found.manifest
    return _overview(found, _LABELS_SHOWN).model_copy(
        update={
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
        split_audit=found.report.get("split"),
    )


def _not_shown(**counts: int) -> str | None:
    parts = [f"{count:,} more {name}" for name, count in counts.items() if count > 0]
    return f"and {', '.join(parts)}; query_dataset gives them by SQL" if parts else None
