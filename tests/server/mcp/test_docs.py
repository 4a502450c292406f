"""The guides as resources: each page of docs/ whole, a wrong name refused with the right one, names completed."""

from __future__ import annotations

from pathlib import Path

import anyio
import mcp_types as t
import pytest
from mcp import Client, MCPError

from speciate.server.mcp.app import Server
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app

PAGES = sorted((Path(__file__).parents[3] / "docs").glob("*.md"))


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_every_guide_is_a_resource(workspace: Workspace, era: str) -> None:
    server = Server(make_app(workspace))

    async def main() -> None:
        with anyio.fail_after(60):
            async with Client(server.mcp, mode=era) as client:
                for page in PAGES:
                    (read,) = (await client.read_resource(f"speciate://docs/{page.stem}")).contents
                    assert isinstance(read, t.TextResourceContents)
                    assert (read.text, read.mime_type) == (page.read_text(), "text/markdown")
                for wrong in ("serving.txt", "../README", "%2e%2e%2fREADME", "/etc/passwd", "design%2Fengine"):
                    with pytest.raises(MCPError, match=r"There is no guide|not found|Unknown|[Nn]o resource"):
                        await client.read_resource(f"speciate://docs/{wrong}")
                ref = t.ResourceTemplateReference(type="ref/resource", uri="speciate://docs/{page}")
                done = await client.complete(ref, {"name": "page", "value": "pre"})
                assert done.completion.values == ["predictions"]

    anyio.run(main)
