"""The tools from Python and from a shell.

`client = speciate.connect()`; `client.describe_dataset(dataset="scans")` returns what the tool declares, with types;
`client.call("describe_dataset", dataset="scans")` the same as JSON. A call is one stateless MCP request on a connection
of its own, so a client is only a path and may be shared by threads. Standard library only, until a typed method or
`table` is called: the package starts in milliseconds.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate import __version__
from speciate.environment import check_there, workspace_path
from speciate.errors import Code, SpeciateError
from speciate.server.client_methods import SHOWS_IMAGES, ToolMethods
from speciate.server.dial import dial
from speciate.server.frames import Message
from speciate.server.protocol import MCP

_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "speciate", "version": __version__},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_REPEATS = 3
_LONGEST_WAIT = 45
_PACE_SECONDS = 10
"""How long somebody who wants progress may hear nothing."""
_ROWS_A_PAGE = 500
_CUT = re.compile(r"… \[[\d,]+ more characters\]$")
"""What the daemon writes at the end of a text that it cut as the answer became too long."""
_LONGEST_CELL = 2_000
"""Characters of a cell that a query returns; a longer one ends in an ellipsis."""

if TYPE_CHECKING:
    import pyarrow as pa

    from speciate.server.job_view import JobView


class ToolError(SpeciateError):
    """A tool refused. `str` is the text that an agent would read."""

    def __init__(self, code: Code, message: str, recovery: str, text: str) -> None:
        super().__init__(code, message, recovery)
        self.text = text

    def __str__(self) -> str:
        return self.text


_ENDED = ("succeeded", "failed", "cancelled", "dead")
ToolResult = dict[str, Any]
"""A tool's structured result, by the tool's output schema."""
ToolDeclaration = dict[str, Any]
"""A tool as tools/list declares it: name, description, inputSchema and more."""


class JobFailed(SpeciateError):
    """A job that was waited for ended otherwise than by success. `job` is what `get_job` says of it."""

    def __init__(self, code: Code, message: str, recovery: str, job: JobView) -> None:
        super().__init__(code, message, recovery)
        self.job = job


class Client(ToolMethods):
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

    def wait(self, job: object, progress: Callable[[JobView], None] | None = None) -> JobView:
        """Wait until a job ended, however long, and return it. `job`: its id, or the result that started it; what is
        no job (a `dry_run`, an answer that was there at once) is refused. `progress` hears of every change.

        Raises JobFailed for a job that failed or was cancelled; an interrupt leaves the job as it is.
        """
        name = job if isinstance(job, str) else getattr(job, "job", None)
        if name is None:
            raise SpeciateError(Code.INVALID, f"{type(job).__name__} is no job.", "Wait for what started one.")
        while True:
            until: Any = "change" if progress else "end"
            view = self.wait_for_job(
                job=name, until=until, timeout_seconds=_PACE_SECONDS if progress else _LONGEST_WAIT
            )
            if progress:
                progress(view)
            if view.state in _ENDED:
                break
        if view.state != "succeeded":
            error = view.error
            said = error.message if error else f"The job ended as {view.state}."
            raise JobFailed(Code.CONFLICT, f"{name} {view.state}: {said}", error.recovery or "" if error else "", view)
        return view

    def table(self, dataset: str, *, sql: str | None = None, where: str | None = None) -> pa.Table:
        """All rows of a query as an Arrow table (`.to_pandas()` makes a frame of it). Arguments as of `query_dataset`;
        the log of a use case is `log:NAME`. Raises INVALID where a cell is too long for an answer."""
        arrow = importlib.import_module("pyarrow")
        columns: tuple[str, ...] = ()
        rows: list[Any] = []
        cursor, limit = None, _ROWS_A_PAGE
        while True:
            page = self.query_dataset(dataset=dataset, sql=sql, where=where, limit=limit, cursor=cursor)
            texts = [cell for row in page.untrusted.rows for cell in row if isinstance(cell, str)]
            too_long = any(len(text) > _LONGEST_CELL and text.endswith("…") for text in texts)
            if too_long or any(map(_CUT.search, texts)):
                if limit == 1 or too_long:
                    raise SpeciateError(
                        Code.INVALID,
                        "A cell is longer than an answer may be, so the table would not be whole.",
                        "Select shorter columns, or call export_dataset(format='parquet') and read its files.",
                    )
                limit = max(1, limit // 2)
                continue
            columns, cursor = tuple(page.columns), page.next_cursor
            rows.extend(page.untrusted.rows)
            if cursor is None:
                return arrow.table({name: [row[number] for row in rows] for number, name in enumerate(columns)})

    def _call_typed(self, module: str, tool: str, names: Mapping[str, Any]) -> Any:
        arguments = {name: value for name, value in names.items() if name != "self" and value is not None}
        document, images = self.call_with_images(tool, **arguments)
        results = importlib.import_module("speciate.server.client_results")
        result = results.parse_result(module, tool, document)
        return results.Shown(result, images) if tool in SHOWS_IMAGES else result

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
        try:
            request = json.dumps(_request(method, parameters), allow_nan=False).encode() + b"\n"
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"The arguments are no JSON: {error}.",
                "JSON has no NaN and no infinity: write None for a number that is not known.",
            ) from error
        dialled = dial(self.workspace, MCP, client="python")
        try:
            dialled.line.send(request)
            answer = _answer(dialled.line.receive)
        except ConnectionError:
            answer = None
        finally:
            dialled.line.close()
        return answer, dialled.answer["read_only"]


def connect(workspace: str | Path | None = None) -> Client:
    """The tools of a workspace; None: $SPECIATE_HOME, else ./.speciate where it exists, else ~/.speciate.

    Raises NOT_FOUND for a named one that is not there.
    """
    found = workspace_path(str(workspace) if workspace else None)
    if workspace:
        check_there(found)
    return Client(found)


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
