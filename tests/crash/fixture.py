"""What the daemon of the crash suite serves beside its tools: jobs whose lives leave a trace, and alias moves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcp.server.mcpserver.exceptions import ToolError

from speciate.errors import SpeciateError
from speciate.promotion import aliases
from speciate.server.mcp.app import Server
from tests.crash.traced import KIND


def register(server: Server) -> None:
    server.engine.kinds.add(KIND)
    app = server._app

    @server.mcp.tool()
    def start_work(key: str, seconds: float, trace: str, preload: str = "") -> dict[str, Any]:
        """A job that lives for `seconds` and traces its life."""
        job = app.engine.submit("traced", {"seconds": seconds, "trace": trace, "preload": preload}, key=key)
        return {"job": job.id}

    @server.mcp.tool()
    def move_alias(use_case: str, model: str) -> dict[str, Any]:
        """Compare-and-swap from what is read now."""
        current = aliases.read(app.workspace.database, use_case)
        try:
            moved = app.workspace.database.transact(
                lambda tx: aliases.move(
                    tx, use_case=use_case, model=model, expected=current.model if current else aliases.NOTHING,
                    action="promote", actor="crash-suite", evidence={},
                )
            )  # fmt: skip
        except SpeciateError as error:
            raise ToolError(str(error)) from error
        return {"generation": moved.generation}
