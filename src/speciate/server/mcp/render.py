"""The one place that turns results and errors into what a client is sent.

Some clients show a model only the structured content, others only the text, so both say the same: the text is the
same document as compact JSON. Errors are text alone, for clients drop the rest.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from pydantic import BaseModel

from speciate.errors import SpeciateError, complete
from speciate.server.mcp.arguments import ToolArguments
from speciate.server.tool_api import JobStarted, Result, ToolImage
from speciate.server.untrusted import FIELD, clean, clean_text

JOB = "speciate/job"
"""Key of `_meta` that holds the id of the job which a call started."""
ERROR = "speciate/error"
"""Key of `_meta` that holds code, message and recovery of an error, for programs."""

_LONGEST_ERROR = 4_000
_LONGEST_ADVICE = 2_000
"""Characters of advice that stay whole where the rest is cut."""
_LONGEST_FOREIGN = 1_000
_LONGEST_WORD = 80
_LONG = re.compile(r"[^\s,]{1000,}")
"""What no name and no path is."""


ToolDocument = dict[str, Any]
"""A tool's result as JSON, by the tool's output schema."""


def document(result: Any) -> ToolDocument:
    """A result, a model or a NamedTuple, as the JSON document that clients see: without fields that are None."""
    characters = result.untrusted_characters if isinstance(result, Result) else Result.untrusted_characters
    shown: ToolDocument = clean(_to_json(result), characters)
    return shown


def _to_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _to_json(part) for name, part in value._asdict().items() if part is not None}
    if isinstance(value, dict):
        return {key: _to_json(part) for key, part in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, list | tuple) else value


def render(result: Any) -> CallToolResult:
    """A tool's result: a model, or a model with images."""
    model, *images = result if isinstance(result, tuple) else (result,)
    shown = document(model)
    content: list[ContentBlock] = [text(compact(shown))]
    content += [_image(image) for image in images]
    meta = None
    if isinstance(model, JobStarted):
        content.append(job_link(model.job))
        meta = {JOB: model.job}
    return CallToolResult(content=content, structured_content=shown, _meta=meta)


def render_error(tool: str, error: SpeciateError, arguments: ToolArguments | None = None) -> CallToolResult:
    """What failed, why, what is valid and the next call, as a tool error that the model reads. What a library said of
    it is the last line, as JSON below `untrusted`. `arguments`: of the call that was refused, where it is known."""
    said, advice = _shortened(error.message), _shortened(error.recovery)
    if len(said) + len(advice) > _LONGEST_ERROR and len(advice) < _LONGEST_ADVICE:
        left = _LONGEST_ERROR - _LONGEST_ADVICE
        said = said if len(said) <= left else f"{said[:left]}… [{len(said) - left:,} more characters]"
    recovery = f"\nNext: {advice}" if advice else ""
    message = clean_text(f"{tool[:_LONGEST_WORD]} ({error.code}): {said}{recovery}")
    if len(message) > _LONGEST_ERROR:
        message = f"{message[:_LONGEST_ERROR]}… [{len(message) - _LONGEST_ERROR:,} more characters]"
    meta: dict[str, object] = {
        "code": error.code,
        "message": clean_text(said),
        "recovery": clean_text(advice),
    }
    calls = [whole for each in error.next_documents() if (whole := complete(each, tool, arguments))]
    if calls:
        meta["next"] = [clean(each, _LONGEST_FOREIGN) for each in calls]
    if error.foreign:
        foreign = clean({FIELD: {"error_text": error.foreign}}, _LONGEST_FOREIGN)
        message, meta = f"{message}\n{compact(foreign)}", meta | foreign
    return CallToolResult(content=[text(message)], is_error=True, _meta={ERROR: meta})


def _shortened(words: str) -> str:
    """A value that is as long as a file is named by its beginning, so that what to do next is not cut off."""
    return _LONG.sub(
        lambda found: f"{found[0][:_LONGEST_WORD]}… [{len(found[0]) - _LONGEST_WORD:,} more characters]", words
    )


def compact(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def job_link(job: str) -> ResourceLink:
    uri, what = f"speciate://jobs/{job}", "State, progress and result of the job"
    return ResourceLink(type="resource_link", uri=uri, name=job, description=what, mime_type="application/json")


def _image(image: ToolImage) -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(image.data).decode(), mime_type=image.mime)
