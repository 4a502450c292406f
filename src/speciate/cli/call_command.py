"""`speciate call TOOL name=value ...`: one tool from a shell, and with `--wait` the job that it starts."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.cli.daemon_commands import check_exists
from speciate.cli.output import Progress, check_image_path, format_table, say, write_image
from speciate.environment import check_there, made_unnamed, workspace_path
from speciate.errors import Code, SpeciateError, unknown
from speciate.server.client import Client, JobFailed, ToolDeclaration, ToolResult, connect
from speciate.server.untrusted import clean_text
from speciate.workspace.lock import is_held

if TYPE_CHECKING:
    from speciate.server.job_view import JobView


_LINES = (".csv", ".tsv", ".jsonl")
_LINES_SHOWN, _LONGEST_LINE = 6, 300


def call(arguments: argparse.Namespace) -> int:
    """0: answered, and with `--wait` the job succeeded. 1: it did not."""
    if arguments.help and arguments.tool is None:
        say(arguments.usage())
        return 0
    if arguments.help:
        return _describe_tool(arguments)
    check_exists(arguments)
    if arguments.tool is None:
        return _list_tools(arguments)
    image = check_image_path(arguments.image, (".png",)) if arguments.image else None
    workspace = workspace_path(arguments.workspace)
    if not workspace.exists() and (_declaration(arguments).get("annotations") or {}).get("readOnlyHint"):
        check_there(workspace)
    made = None if workspace.exists() else made_unnamed(workspace)
    client = connect(arguments.workspace)
    given = _parse_arguments(arguments.args) | _parse_pairs(arguments)
    result, images = client.call_with_images(arguments.tool, **given)
    code = 0
    if arguments.wait and "job" in result and not given.get("dry_run"):
        result, code = _wait(client, result["job"])
        _show_answers(result)
        _show_verdict(result)
    say(json.dumps(result, indent=2, ensure_ascii=False))
    _write_images(image, images)
    if made:  # a refusal brings the daemon's word
        sys.stderr.write(f"{clean_text(made)}\n")
    return code


def _parse_arguments(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID, f"--args is not JSON: {error}.", "Write it like --args '{\"limit\": 5}', or as limit=5."
        ) from None
    if not isinstance(given, dict):
        raise SpeciateError(Code.INVALID, f"--args is not a JSON object: {text!r}.", "Write '{...}'.")
    return given


def _parse_pairs(arguments: argparse.Namespace) -> dict[str, Any]:
    """`name=value` by the tool's schema: a text is taken as it is, so `version=1` may name a model that is called 1.
    `name=@FILE` is what the file holds."""
    if not arguments.pairs:
        return {}
    fields = _declaration(arguments)["inputSchema"]["properties"]
    given = {}
    for pair in arguments.pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise SpeciateError(Code.INVALID, f"{pair!r} is no argument.", f"Write {pair}=VALUE, or --args JSON.")
        kind = fields.get(name, {}).get("type")
        given[name] = _in_file(name, value[1:], kind) if value.startswith("@") else _by_kind(value, kind)
    return given


def _in_file(name: str, path: str, kind: str | None) -> Any:
    """Its text; for an argument that is no text its JSON, or of a `.jsonl` the list of its lines."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SpeciateError(
            Code.INVALID, f"{name}=@{path}: the file cannot be read: {reason}.",
            "Name a file that is here. For a text that begins with @, use --args JSON.",
        ) from None  # fmt: skip
    if kind == "string":
        return text
    try:
        return [json.loads(line) for line in text.splitlines() if line] if path.endswith(".jsonl") else json.loads(text)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID, f"{name}=@{path}: the file is not JSON: {error}.", "Write its value as JSON, or JSON lines."
        ) from None


def _by_kind(value: str, kind: str | None) -> Any:
    try:
        return value if kind == "string" else json.loads(value)
    except ValueError:
        return value


def _wait(client: Client, job: str) -> tuple[ToolResult, int]:
    """What `get_job` says at its end, and 0 where it succeeded. An interrupt leaves the job running, and says so."""
    progress = Progress()

    def show(view: JobView) -> None:
        progress.show(_progress_line(view))

    code = 0
    try:
        client.wait(job, show)
    except JobFailed as error:
        sys.stderr.write(f"{clean_text(str(error))}\n")
        code = 1
    except KeyboardInterrupt:
        progress.clear()
        sys.stderr.write(f"{job} goes on: speciate call wait_for_job job={job} --wait\n")
        raise
    finally:
        progress.clear()
    return client.call("get_job", job=job), code


def _show_answers(job: ToolResult) -> None:
    """The first lines of the file that `predict` wrote: of one row that is its answer."""
    made = job.get("result") or {}
    path = Path(str(made.get("path", "")))
    if job["kind"] != "predict" or path.suffix.lower() not in _LINES:
        return
    with path.open(errors="replace") as file:
        lines = [line.rstrip("\n")[:_LONGEST_LINE] for line in islice(file, _LINES_SHOWN)]
    sys.stderr.write("".join(f"{clean_text(line)}\n" for line in lines))


def _show_verdict(job: ToolResult) -> None:
    """In a line what `specialize` came to."""
    made = job.get("result") or {}
    if job["kind"] != "specialize" or not made.get("decision"):
        return
    told = [f"verdict {made['decision']['verdict']}", f"model {made.get('model') or 'none'}"]
    if state := (made.get("promotion") or {}).get("state"):
        told.append(f"promotion {state}")
    sys.stderr.write(f"{clean_text(', '.join(told))}\n")


def _progress_line(view: JobView) -> str:
    """With the steps that run, of a job of many, and how far they are where that is known."""
    parts = [f"{view.job} {view.kind} {view.state}"]
    if steps := [child.step for child in view.children if child.step and child.state in ("starting", "running")]:
        parts.append(", ".join(steps))
    if (done := view.progress) is not None and (done.done or done.total):
        parts.append(f"{done.done:g}{f' of {done.total:g}' if done.total else ''} {done.unit}".rstrip())
    if view.eta_seconds and view.eta_seconds >= 1:
        parts.append(f"about {view.eta_seconds:.0f} s left")
    if view.reason and view.state == "queued":
        parts.append(view.reason)
    return clean_text(", ".join(parts))


def _tools(arguments: argparse.Namespace) -> list[ToolDeclaration]:
    """As the workspace's daemon declares them; where there is no workspace, as this program does."""
    if workspace_path(arguments.workspace).exists():
        return connect(arguments.workspace).tools()
    return _own_tools()


def _own_tools() -> list[ToolDeclaration]:
    offered = importlib.import_module("speciate.server.mcp.app").offered_tools()  # a second of imports
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in offered]


def _declaration(arguments: argparse.Namespace) -> ToolDeclaration:
    return _tool_named(arguments.tool, _tools(arguments))


def _tool_named(name: str, declared: Sequence[ToolDeclaration]) -> ToolDeclaration:
    tools = {tool["name"]: tool for tool in declared}
    if name not in tools:
        raise unknown("tool", name, tools, "`speciate call` lists the tools.")
    return tools[name]


def _write_images(path: Path | None, images: Sequence[bytes]) -> None:
    """What is said of them goes to standard error: standard output is the result alone."""
    for number, data in enumerate(images, 1):
        if path is None:
            sys.stderr.write(f"{len(images)} image(s) beside this: --image FILE.png writes them.\n")
            return
        target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        sys.stderr.write(f"{write_image(target, data)}\n")
    if path is not None and not images:
        sys.stderr.write(f"This call shows no image, so {path} was not written.\n")


def _describe_tool(arguments: argparse.Namespace) -> int:
    """What it is for, and its arguments: name, kind, default and meaning. As the daemon declares it where one runs, and
    else as this program does: no daemon is started to be asked."""
    declared = _tools(arguments) if is_held(workspace_path(arguments.workspace) / "daemon.lock") else _own_tools()
    tool = _tool_named(arguments.tool, declared)
    schema = tool["inputSchema"]
    needed = schema.get("required", ())
    rows = [
        [
            name,
            _kind_of(field),
            "needed" if name in needed else json.dumps(field["default"]) if "default" in field else "",
            _meaning(field),
        ]
        for name, field in schema["properties"].items()
    ]
    say(f"{tool['description']}\n\n{format_table(rows, ['argument', 'kind', 'default', 'meaning'])}")
    return 0


def _kind_of(field: Mapping[str, Any]) -> str:
    """`string`, `a, b or c`, `list of string`, `object` ..., by its JSON schema."""
    if "enum" in field:
        return " or ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(map(_kind_of, field["anyOf"])))
    if field.get("type") == "array":
        return f"list of {_kind_of(field.get('items', {}))}"
    return str(field.get("const", field.get("type", "object" if "$ref" in field else "any")))


def _meaning(field: Mapping[str, Any]) -> str:
    bounds = [f"{sign} {field[key]:g}" for key, sign in _BOUNDS.items() if key in field]
    return " ".join(filter(None, [field.get("description", ""), f"({', '.join(bounds)})" if bounds else ""]))


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _list_tools(arguments: argparse.Namespace) -> int:
    """Each with the first sentence of what it is for."""
    tools = _tools(arguments)
    firsts = (tool["description"].partition(". ")[0].partition("\n")[0].rstrip(".") for tool in tools)
    say(format_table([[tool["name"], f"{first}."] for tool, first in zip(tools, firsts, strict=True)]))
    return 0
