"""Results and errors as clients get them."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

from mcp_types import ImageContent, ResourceLink, TextContent

from speciate.errors import Code, SpeciateError
from speciate.server.mcp.render import ERROR, JOB, document, render, render_error
from speciate.server.tool_api import JobStarted, Result, ToolImage


class Shown(Result):
    name: str
    note: str | None = None
    untrusted: dict[str, Any]


def test_text_and_structure_say_the_same() -> None:
    result = render(Shown(name="a", untrusted={"rows": [["x\u202ey", None]]}))
    text = result.content[0]
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == result.structured_content
    assert result.structured_content == {"name": "a", "untrusted": {"rows": [["x\ufffdy", None]]}}


def test_a_picture_goes_out_beside_the_numbers() -> None:
    result = render((Shown(name="a", untrusted={}), ToolImage(b"png")))
    picture = result.content[1]
    assert isinstance(picture, ImageContent)
    assert (base64.b64decode(picture.data), picture.mime_type) == (b"png", "image/png")


def test_a_started_job_is_linked_and_marked() -> None:
    result = render(JobStarted(job="job-a", kind="train", state="queued"))
    link = result.content[1]
    assert isinstance(link, ResourceLink)
    assert link.uri == "speciate://jobs/job-a"
    assert (result.meta or {})[JOB] == "job-a"


def test_an_error_says_what_why_and_the_next_call() -> None:
    result = render_error("get_job", SpeciateError(Code.NOT_FOUND, "There is no job 'x\x1b'.", "Call list_jobs()."))
    text = result.content[0]
    assert isinstance(text, TextContent)
    assert text.text == "get_job (not_found): There is no job 'x\ufffd'.\nNext: Call list_jobs()."
    assert result.is_error
    assert result.structured_content is None
    assert (result.meta or {})[ERROR]["code"] == "not_found"


def test_an_endless_error_is_cut() -> None:
    text = render_error("t", SpeciateError(Code.INVALID, "x" * 100_000)).content[0]
    assert isinstance(text, TextContent)
    assert len(text.text) < 4_100


class Inner(NamedTuple):
    value: float | None
    items: tuple[int, ...]


def test_named_tuples_are_shown_by_their_names() -> None:
    class Outer(NamedTuple):
        inner: Inner
        more: dict[str, Inner]

    shown = document(Outer(Inner(None, (1, 2)), {"a": Inner(2.0, ())}))
    assert shown == {"inner": {"items": [1, 2]}, "more": {"a": {"value": 2.0, "items": []}}}
