"""The tools from Python and from a shell: `speciate.connect(workspace).call("tool", **arguments)`.

A call is one stateless MCP request on a connection of its own, so a client is only a path and may be shared by
threads. Standard library only: the package starts in milliseconds.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speciate import __version__
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.server.dial import dial
from speciate.server.frames import Message
from speciate.server.protocol import MCP, encode

_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "speciate", "version": __version__},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_REPEATS = 3


class ToolError(SpeciateError):
    """A tool refused. `str` is the text that an agent would read."""

    def __init__(self, code: Code, message: str, recovery: str, text: str) -> None:
        super().__init__(code, message, recovery)
        self.text = text

    def __str__(self) -> str:
        return self.text


ToolResult = dict[str, Any]
"""A tool's structured result, by the tool's output schema."""
ToolDeclaration = dict[str, Any]
"""A tool as tools/list declares it: name, description, inputSchema and more."""


class Client:
    """The tools of one workspace. The daemon is started when it is needed."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace

    def call(self, tool: str, /, **arguments: Any) -> ToolResult:
        """Call a tool and return its structured result. Relative paths are relative to the current folder.

        Raises ToolError for what the tool refuses, with its code; SpeciateError UNAVAILABLE where no daemon can be
        had, or where the daemon ended in the middle of a call that may not be repeated without an idempotency_key.
        """
        result, _ = self.call_with_images(tool, **arguments)
        return result

    def call_with_images(self, tool: str, /, **arguments: Any) -> tuple[ToolResult, tuple[bytes, ...]]:
        """As `call`, with the images that the tool shows beside its result, each a PNG file."""
        for _ in range(_REPEATS):
            answer, read_only = self._ask("tools/call", {"name": tool, "arguments": arguments})
            if answer is not None:
                return _result(answer), _images(answer)
            if tool not in read_only and not arguments.get("idempotency_key"):
                break
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The daemon ended before it answered {tool}, so what it changes may have been done or not.",
            "Repeat the call with an idempotency_key; look first with get_status or list_jobs.",
        )

    def tools(self) -> list[ToolDeclaration]:
        """What tools/list says of each tool: name, description, inputSchema and more. Raises UNAVAILABLE."""
        for _ in range(_REPEATS):
            answer, _ = self._ask("tools/list", {})
            if answer is not None:
                listed: list[ToolDeclaration] = answer["result"]["tools"]
                return listed
        raise SpeciateError(Code.UNAVAILABLE, "The daemon ended before it listed its tools.", "Call again.")

    def _ask(self, method: str, parameters: Mapping[str, object]) -> tuple[Message | None, Sequence[str]]:
        """The answer, None where the daemon ended before it, and the names of the tools that only read."""
        dialled = dial(self.workspace, MCP, client="python")
        try:
            dialled.line.send(encode(_request(method, parameters)))
            answer = _answer(dialled.line.receive)
        except ConnectionError:
            answer = None
        finally:
            dialled.line.close()
        return answer, dialled.answer["read_only"]


def connect(workspace: str | Path | None = None) -> Client:
    """The tools of a workspace; None: $SPECIATE_HOME, else ./.speciate where it exists, else ~/.speciate."""
    return Client(workspace_path(str(workspace) if workspace else None))


def _request(method: str, parameters: Mapping[str, object]) -> Message:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**parameters, "_meta": _META}}


def _answer(receive: Callable[[], bytes]) -> Message | None:
    """The response among the frames; None where the connection ends without one."""
    while line := receive():
        message: Message = json.loads(line)
        if message.get("id") == 1:
            return message
    return None


def _images(answer: Message) -> tuple[bytes, ...]:
    parts = answer["result"]["content"]
    return tuple(base64.b64decode(part["data"]) for part in parts if part["type"] == "image")


def _result(answer: Message) -> ToolResult:
    if "error" in answer:
        raise SpeciateError(Code.INVALID, answer["error"]["message"])
    result = answer["result"]
    if result.get("isError"):
        text = "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
        error = result.get("_meta", {}).get("speciate/error", {})
        code = error.get("code", Code.INTERNAL)
        raise ToolError(Code(code), error.get("message", text), error.get("recovery", ""), text)
    structured: ToolResult = result["structuredContent"]
    return structured
