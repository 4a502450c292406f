"""Similar examples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.datasets import versions
from speciate.datasets.similarity import neighbours
from speciate.datasets.similarity.neighbours import Question
from speciate.jobs.job import Job
from speciate.refs import dataset_ref
from speciate.server.surface import App, JobStarted, NextAction, Picture, Result, started, tool

DatasetText = Annotated[str, Field(description="`name`, `name@v3` or `name@v3:test`.")]


class Neighbour(Result):
    id: str
    distance: float = Field(description="1 - cosine.")


class Rows(Result):
    rows: list[list[Any]]


class Similar(Result):
    extractor: str
    neighbours: tuple[Neighbour, ...]
    columns: tuple[str, ...]
    untrusted: Rows = Field(description="With id: first the example itself.")


@tool(read_only=True)
def find_similar(
    app: App,
    dataset: DatasetText,
    id: str | None = None,  # noqa: A002 - the argument's name
    text: Annotated[str | None, Field(max_length=20_000)] = None,
    extractor: Annotated[str | None, Field(description="list_options(kind='extractor')")] = None,
    k: Annotated[int, Field(ge=1, le=100)] = 10,
) -> tuple[Similar | JobStarted, *tuple[Picture, ...]]:
    """The usable examples nearest to one of them or to a text, with a picture; a job where embedding takes long.

    For rows by condition, call query_dataset.
    """
    manifest = versions.resolve(app.workspace.database, dataset)
    question = Question(id, text, extractor, dataset_ref(dataset).split, k)
    found = neighbours.find(app.engine, app.pool, manifest, question)
    if isinstance(found, Job):
        asked = {"dataset": dataset, "id": id, "text": text, "extractor": extractor, "k": k}
        again = {name: value for name, value in asked.items() if value is not None}
        return (started(found, (NextAction(tool="find_similar", arguments=again),)),)
    answer = Similar(
        extractor=found.extractor,
        neighbours=tuple(Neighbour(id=near, distance=distance) for near, distance in found.nearest),
        columns=found.columns,
        untrusted=Rows(rows=found.rows),
    )
    return (answer,) if found.picture is None else (answer, Picture(found.picture))
