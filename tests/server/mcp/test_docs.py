"""The guides as resources: each page of docs/ whole, long ones in parts, a wrong name refused, names completed."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import mcp_types as t
import pytest
from mcp import Client, MCPError

from speciate.server.mcp.app import Server
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app

PAGES = sorted((Path(__file__).parents[3] / "docs").glob("*.md"))


async def _whole(client: Client, name: str) -> str:
    """A guide read as its parts say, none of which is over 4,000 tokens (of four bytes)."""
    text, uri = "", f"speciate://docs/{name}"
    while uri:
        (read,) = (await client.read_resource(uri)).contents
        assert isinstance(read, t.TextResourceContents)
        assert read.mime_type == "text/markdown"
        assert len(read.text.encode()) <= 16_000
        part, _, further = read.text.partition("\n\nPart ")
        text += part
        uri = re.findall(r"Read (speciate://docs/\S+);", further)[0] if further else ""
    return text


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_every_guide_is_a_resource(workspace: Workspace, era: str) -> None:
    server = Server(make_app(workspace))

    async def main() -> None:
        with anyio.fail_after(120):
            async with Client(server.mcp, mode=era) as client:
                for page in PAGES:
                    assert await _whole(client, page.stem) == page.read_text()
                for wrong in (
                    "serving.txt",
                    "../README",
                    "%2e%2e%2fREADME",
                    "/etc/passwd",
                    "design%2Fengine",
                    "tree?part=99",
                ):
                    with pytest.raises(
                        MCPError, match=r"There is no guide|not found|Unknown|[Nn]o resource|has \d+ parts"
                    ):
                        await client.read_resource(f"speciate://docs/{wrong}")
                ref = t.ResourceTemplateReference(type="ref/resource", uri="speciate://docs/{page}{?part}")
                done = await client.complete(ref, {"name": "page", "value": "pre"})
                assert done.completion.values == ["predictions"]

    anyio.run(main)
