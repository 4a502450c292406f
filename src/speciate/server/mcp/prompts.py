"""Prompts: the playbooks in `prompts/*.md`, offered as MCP prompts that carry the state they are about.

A file begins with TOML between lines of `+++`:

- `title`, `description`: what a client lists.
- `about`: addresses of resources that are sent beside the text; their variables are arguments. What one names must be
  there, else the prompt is refused with the names that are.
- `about_if_known`: likewise, but what is named may be yet to be made. The text sees the variable `known`.
- `[[arguments]]`: `name`, `description`, `required`. Those called `use_case`, `dataset`, `model`, `job` and
  `evaluation` are completed.

The text is a Jinja2 template; an argument that was left out is empty.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mcp.server.mcpserver.exceptions as mcp_errors
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import Message, Prompt, PromptArgument, UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, EmbeddedResource, InputRequiredResult, TextResourceContents

import speciate.prompts
from speciate.errors import unknown
from speciate.server.untrusted import clean_text

if TYPE_CHECKING:
    from jinja2 import Environment

_FENCE = "+++\n"
_VARIABLE = re.compile(r"\{(\w+)\}")


class Playbook(NamedTuple):
    """One file of `prompts/`."""

    name: str
    title: str
    description: str
    arguments: tuple[PromptArgument, ...]
    about: tuple[str, ...]
    about_if_known: tuple[str, ...]
    text: str


def playbooks(folder: Path | None = None) -> list[Playbook]:
    """All playbooks, by name."""
    folder = folder or Path(next(iter(speciate.prompts.__path__)))
    return [read_playbook(path) for path in sorted(folder.glob("*.md"))]


def read_playbook(path: Path) -> Playbook:
    head, _, text = path.read_text().removeprefix(_FENCE).partition(f"\n{_FENCE}")
    found = tomllib.loads(head)
    return Playbook(
        name=path.stem,
        title=found["title"],
        description=found["description"],
        arguments=tuple(PromptArgument(**each) for each in found["arguments"]),
        about=tuple(found.get("about", ())),
        about_if_known=tuple(found.get("about_if_known", ())),
        text=text.strip(),
    )


def fill(playbook: Playbook, given: Mapping[str, str], *, known: bool) -> str:
    """The text with its arguments. `known`: what `about_if_known` names is there."""
    values = {each.name: given.get(each.name, "") for each in playbook.arguments}
    return clean_text(_environment().from_string(playbook.text).render(values, known=known))


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined  # no start of the daemon waits for it

    made = Environment(undefined=StrictUndefined)  # Markdown: nothing to escape
    made.filters["quoted"] = functools.partial(json.dumps, ensure_ascii=False)  # as in a call
    return made


def offer_prompts(server: MCPServer[Any]) -> None:
    for playbook in playbooks():
        server.add_prompt(
            _Playbook(
                name=playbook.name,
                title=playbook.title,
                description=playbook.description,
                arguments=list(playbook.arguments),
                fn=functools.partial(_messages, server, playbook),
            )
        )


def check_name(name: str, offered: Sequence[str]) -> None:
    """Raises an error that a client shows; the library's own is an internal one."""
    if name not in offered:
        raise MCPError(INVALID_PARAMS, clean_text(unknown("prompt", name, offered).message))


class _Playbook(Prompt):
    """The library's, but for its ValueError for missing arguments, which clients would see as an internal error."""

    async def render(
        self, arguments: dict[str, Any] | None, context: Context[Any, Any]
    ) -> list[Message] | InputRequiredResult:
        given = arguments or {}
        known = {each.name: each for each in self.arguments or ()}
        for name, each in known.items():
            if each.required and not str(given.get(name) or "").strip():
                raise MCPError(INVALID_PARAMS, f"The prompt {self.name} needs {name}: {each.description}")
        if wrong := sorted(given.keys() - known.keys()):
            raise MCPError(INVALID_PARAMS, clean_text(unknown("argument", wrong[0], known).message))
        return await super().render({name: str(value) for name, value in given.items()}, context)


async def _messages(server: MCPServer[Any], playbook: Playbook, **given: str) -> list[UserMessage]:
    messages = [UserMessage(await _embedded(server, _address(uri, given))) for uri in playbook.about]
    known = False
    for uri in playbook.about_if_known:
        try:
            messages.append(UserMessage(await _embedded(server, _address(uri, given))))
            known = True
        except MCPError:
            continue
    return [*messages, UserMessage(fill(playbook, given, known=known))]


def _address(uri: str, given: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: given.get(found[1], ""), uri)


async def _embedded(server: MCPServer[Any], uri: str) -> EmbeddedResource:
    """Raises MCPError where what the address names is not there."""
    try:
        found = await server.read_resource(uri)
    except (mcp_errors.ResourceNotFoundError, mcp_errors.ResourceError) as error:
        raise MCPError(INVALID_PARAMS, clean_text(str(error))) from error
    assert not isinstance(found, InputRequiredResult)  # no resource of ours asks
    (content,) = found
    return EmbeddedResource(
        type="resource",
        resource=TextResourceContents(uri=uri, mime_type=content.mime_type, text=str(content.content)),
    )
