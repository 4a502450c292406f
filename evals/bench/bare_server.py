"""The peer of `first_result.py`: the smallest honest MCP server that the official SDK makes, with one tool."""

from mcp.server import MCPServer
from pydantic import BaseModel

server = MCPServer("bare", log_level="ERROR")


class Page(BaseModel):
    jobs: list[str]
    next_cursor: str | None = None


@server.tool()
def list_jobs(limit: int = 20) -> Page:
    """The jobs there are."""
    return Page(jobs=[])


if __name__ == "__main__":
    server.run("stdio")
