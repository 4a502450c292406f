"""The peer of `first_result.py`: the smallest honest MCP servers that the official SDK makes, with the same two tools.

`list_options` answers from memory, `list_jobs` from a DuckDB catalog of its own with the same statement as ours.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from mcp.server import MCPServer
from pydantic import BaseModel

from speciate.jobs import rows
from speciate.workspace.clock import SystemClock
from speciate.workspace.database import Database
from speciate.workspace.schema import migrate

server = MCPServer("bare", log_level="ERROR")
folder = TemporaryDirectory()
catalog = Path(folder.name) / "catalog.duckdb"
migrate(catalog)
database = Database(catalog, SystemClock())


class Option(BaseModel):
    name: str
    what: str


class Options(BaseModel):
    options: list[Option]


class Page(BaseModel):
    jobs: list[str]
    next_cursor: str | None = None


MODALITIES = Options(options=[Option(name=f"modality-{number}", what="something to choose") for number in range(5)])


@server.tool()
def list_options(kind: str) -> Options:
    """What can be chosen."""
    return MODALITIES


@server.tool()
def list_jobs(limit: int = 20) -> Page:
    """The jobs there are."""
    return Page(jobs=[job.id for job in rows.select(database, "true", [], f"created DESC, id DESC LIMIT {limit}")])


if __name__ == "__main__":
    server.run("stdio")
