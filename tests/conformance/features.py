"""Tools, resources and prompts with the names and answers that the official conformance suite asks for.

Loaded by `speciate serve --fixture` only (a hidden flag). They exercise the library and our wire; our own tools are
tested elsewhere.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

import anyio
import mcp_types as t
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from pydantic import BaseModel, Field

from speciate.server.mcp.app import Server
from speciate.server.mcp.library import add_handler

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SOUND = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

Ctx = Context[Any, Any]
Answer = t.CallToolResult | t.InputRequiredResult


def register(server: Server) -> None:
    server.http_options |= {"event_store": Events(), "retry_interval": 100}
    add_handler(server.mcp, "logging/setLevel", t.SetLevelRequestParams, _set_level)
    for declare in (_contents, _conversations, _questions, _schemas, _changes, _resources, _prompts):
        declare(server.mcp)


async def _set_level(ctx: ServerRequestContext[Any, Any], params: t.SetLevelRequestParams) -> t.EmptyResult:
    return t.EmptyResult()


class Events(EventStore):
    """Events of streams in memory, so that a client may take up a broken stream."""

    def __init__(self) -> None:
        self._events: list[tuple[str, t.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: t.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        if not 0 < last <= len(self._events):
            return None
        stream = self._events[last - 1][0]
        for number, (owner, message) in enumerate(self._events[last:], last + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def text(words: str) -> t.TextContent:
    return t.TextContent(type="text", text=words)


def done(words: str) -> t.CallToolResult:
    return t.CallToolResult(content=[text(words)])


def embedded(uri: str, mime: str, words: str) -> t.EmbeddedResource:
    contents = t.TextResourceContents(uri=uri, mime_type=mime, text=words)
    return t.EmbeddedResource(type="resource", resource=contents)


PICTURE = t.ImageContent(type="image", data=PIXEL, mime_type="image/png")


def _contents(mcp: MCPServer) -> None:
    @mcp.tool()
    def test_simple_text() -> t.CallToolResult:
        """One text."""
        return done("This is a simple text response for testing.")

    @mcp.tool()
    def test_image_content() -> t.CallToolResult:
        """One image."""
        return t.CallToolResult(content=[PICTURE])

    @mcp.tool()
    def test_audio_content() -> t.CallToolResult:
        """One sound."""
        return t.CallToolResult(content=[t.AudioContent(type="audio", data=SOUND, mime_type="audio/wav")])

    @mcp.tool()
    def test_embedded_resource() -> t.CallToolResult:
        """One embedded resource."""
        return t.CallToolResult(
            content=[embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]
        )

    @mcp.tool()
    def test_multiple_content_types() -> t.CallToolResult:
        """Text, image and resource."""
        mixed = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
        return t.CallToolResult(content=[text("Multiple content types test:"), PICTURE, mixed])

    @mcp.tool()
    def test_error_handling() -> str:
        """Fails."""
        raise ToolError("This tool intentionally returns an error for testing")


def _conversations(mcp: MCPServer) -> None:
    """Tools that talk to the client while they run."""

    @mcp.tool()
    async def test_tool_with_logging(ctx: Ctx) -> t.CallToolResult:
        """Three lines of log."""
        for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.info(line)
            await anyio.sleep(0.05)
        return done("logged")

    @mcp.tool()
    async def test_tool_with_progress(ctx: Ctx) -> t.CallToolResult:
        """Progress in three steps."""
        for step in (0, 50, 100):
            await ctx.report_progress(step, 100, f"Completed step {step} of 100")
            await anyio.sleep(0.05)
        return done("done")

    @mcp.tool()
    async def test_sampling(prompt: str, ctx: Ctx) -> t.CallToolResult:
        """Asks the client's model."""
        message = t.SamplingMessage(role="user", content=text(prompt))
        answer = await ctx.session.create_message(messages=[message], max_tokens=100)
        return done(f"LLM response: {answer.content.text if isinstance(answer.content, t.TextContent) else ''}")

    @mcp.tool()
    async def test_elicitation(message: str, ctx: Ctx) -> t.CallToolResult:
        """Asks the user."""
        return await elicited(ctx, message, Response, "User response")

    @mcp.tool()
    async def test_elicitation_sep1034_defaults(ctx: Ctx) -> t.CallToolResult:
        """Asks with defaults."""
        return await elicited(ctx, "Please review and update the form fields with defaults", Defaults, "Elicitation")

    @mcp.tool()
    async def test_elicitation_sep1330_enums(ctx: Ctx) -> t.CallToolResult:
        """Asks with choices."""
        return await elicited(ctx, "Please select options from the enum fields", Choices, "Elicitation")

    @mcp.tool()
    async def test_reconnection(ctx: Ctx) -> t.CallToolResult:
        """Closes its stream half-way; the client takes it up again."""
        await ctx.close_sse_stream()
        await anyio.sleep(0.2)
        return done("Reconnection test completed")

    @mcp.tool()
    async def test_missing_capability(ctx: Ctx) -> t.CallToolResult:
        """Needs sampling; says so to clients without it."""
        capabilities = ctx.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            needed = t.MissingRequiredClientCapabilityErrorData(
                required_capabilities=t.ClientCapabilities(sampling=t.SamplingCapability())
            )
            data = needed.model_dump(by_alias=True, mode="json", exclude_none=True)
            raise MCPError(code=t.MISSING_REQUIRED_CLIENT_CAPABILITY, message="sampling is needed", data=data)
        return done("sampling is there")


class Response(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: str = Field(
        default="active", description="User status", json_schema_extra={"enum": ["active", "inactive", "pending"]}
    )
    verified: bool = Field(default=True, description="Verification status")


def _titled(*choices: tuple[str, str]) -> list[Any]:
    return [{"const": value, "title": title} for value, title in choices]


class Choices(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})  # noqa: N815
    titledSingle: str = Field(  # noqa: N815
        json_schema_extra={
            "oneOf": _titled(("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option"))
        }
    )
    legacyEnum: str = Field(  # noqa: N815
        json_schema_extra={"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    )
    untitledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2", "option3"]}}
    )
    titledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={
            "items": {"anyOf": _titled(("value1", "First Choice"), ("value2", "Second Choice"), ("value3", "Third"))}
        }
    )


async def elicited(ctx: Ctx, message: str, schema: type[BaseModel], what: str) -> t.CallToolResult:
    answer = await ctx.elicit(message=message, schema=schema)
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    return done(f"{what} completed: action={answer.action}, content={content}")


# Questions of the newer era: a result that asks, and a second call with the answers


def form(message: str, **properties: str) -> t.ElicitRequest:
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(question: str, tokens: int = 100) -> t.CreateMessageRequest:
    message = t.SamplingMessage(role="user", content=text(question))
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams(messages=[message], max_tokens=tokens))


def ask(state: str | None = None, **requests: Any) -> t.InputRequiredResult:
    return t.InputRequiredResult(input_requests=requests, request_state=state)


def answered(ctx: Ctx, *names: str) -> dict[str, Any] | None:
    """The answers to all of these questions, or None where one is missing."""
    given = ctx.input_responses or {}
    return {name: given[name] for name in names} if all(name in given for name in names) else None


def _questions(mcp: MCPServer) -> None:
    @mcp.tool()
    async def test_input_required_result_elicitation(ctx: Ctx) -> Answer:
        """Asks for a name."""
        if answers := answered(ctx, "user_name"):
            given = answers["user_name"]
            return done(f"Hello, {(given.content or {}).get('name')}!")
        return ask(user_name=form("What is your name?", name="string"))

    @mcp.tool()
    async def test_input_required_result_sampling(ctx: Ctx) -> Answer:
        """Asks the client's model."""
        if answers := answered(ctx, "capital_question"):
            return done(f"The model said: {answers['capital_question'].content}")
        return ask(capital_question=sample("What is the capital of France?"))

    @mcp.tool()
    async def test_input_required_result_list_roots(ctx: Ctx) -> Answer:
        """Asks for roots."""
        if answers := answered(ctx, "client_roots"):
            return done(f"Roots: {[str(root.uri) for root in answers['client_roots'].roots]}")
        return ask(client_roots=t.ListRootsRequest())

    @mcp.tool()
    async def test_input_required_result_request_state(ctx: Ctx) -> Answer:
        """Asks and keeps state."""
        if answered(ctx, "confirm") and ctx.request_state == "asked":
            return done("state-ok")
        return ask("asked", confirm=form("Please confirm", ok="boolean"))

    @mcp.tool()
    async def test_input_required_result_multiple_inputs(ctx: Ctx) -> Answer:
        """Asks three things at once."""
        if answered(ctx, "user_name", "greeting", "client_roots"):
            return done("all there")
        return ask(
            "asked",
            user_name=form("What is your name?", name="string"),
            greeting=sample("Generate a greeting", 50),
            client_roots=t.ListRootsRequest(),
        )

    @mcp.tool()
    async def test_input_required_result_multi_round(ctx: Ctx) -> Answer:
        """Asks twice."""
        if ctx.request_state == "round 2" and answered(ctx, "step2"):
            return done("both rounds done")
        if ctx.request_state == "round 1" and answered(ctx, "step1"):
            return ask("round 2", step2=form("Step 2: What is your favorite color?", color="string"))
        return ask("round 1", step1=form("Step 1: What is your name?", name="string"))

    @mcp.tool()
    async def test_input_required_result_tampered_state(ctx: Ctx) -> Answer:
        """Its state is sealed by the server."""
        if answered(ctx, "confirm"):
            return done("untampered")
        return ask("sealed", confirm=form("Please confirm", ok="boolean"))

    @mcp.tool()
    async def test_input_required_result_capabilities(ctx: Ctx) -> Answer:
        """Asks only what the client can answer."""
        can = ctx.client_capabilities
        requests: dict[str, Any] = {}
        if can and can.sampling is not None:
            requests["thought"] = sample("Say anything")
        if can and can.elicitation is not None:
            requests["name"] = form("What is your name?", name="string")
        return ask(**requests) if requests and not ctx.input_responses else done("nothing to ask")


ADDRESS = {
    "$anchor": "addressDef",
    "type": "object",
    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
}
SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": ADDRESS},
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _schemas(mcp: MCPServer) -> None:
    @mcp.tool()
    def json_schema_2020_12_tool(name: str = "", address: dict[str, Any] | None = None) -> t.CallToolResult:
        """Arguments in JSON Schema 2020-12."""
        return done(json.dumps({"name": name, "address": address}))

    library_tools = mcp.list_tools

    async def list_tools() -> list[t.Tool]:
        """The library makes schemas from annotations; this one has keywords that no annotation says."""
        return [
            tool.model_copy(update={"input_schema": SCHEMA_2020_12})
            if tool.name == "json_schema_2020_12_tool"
            else tool
            for tool in await library_tools()
        ]

    mcp.list_tools = list_tools  # type: ignore[method-assign]

    @mcp.tool()
    def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
    ) -> t.CallToolResult:
        """An argument that travels in a header too."""
        return done(region)


def _changes(mcp: MCPServer) -> None:
    @mcp.tool()
    async def test_trigger_tool_change(ctx: Ctx) -> t.CallToolResult:
        """Says that tools changed."""
        await ctx.notify_tools_changed()
        return done("told")

    @mcp.tool()
    async def test_trigger_prompt_change(ctx: Ctx) -> t.CallToolResult:
        """Says that prompts changed."""
        await ctx.notify_prompts_changed()
        return done("told")


def _resources(mcp: MCPServer) -> None:
    @mcp.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """A text."""
        return "This is the content of the static text resource."

    @mcp.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """An image."""
        return base64.b64decode(PIXEL)

    @mcp.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:  # noqa: A002 - the suite's name
        """A text made from the address."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @mcp.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        """One to subscribe to."""
        return "Watched resource content"


def _prompts(mcp: MCPServer) -> None:
    @mcp.prompt()
    def test_simple_prompt() -> list[UserMessage]:
        """A text."""
        return [UserMessage(content=text("This is a simple prompt for testing."))]

    @mcp.prompt()
    def test_prompt_with_arguments(
        arg1: Annotated[str, Field(description="First test argument")],
        arg2: Annotated[str, Field(description="Second test argument")],
    ) -> list[UserMessage]:
        """Two arguments in a text."""
        return [UserMessage(content=text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]

    @mcp.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803 - the suite's name
        """A resource in a message."""
        resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
        return [UserMessage(content=resource), UserMessage(content=text("Please process the embedded resource above."))]

    @mcp.prompt()
    def test_prompt_with_image() -> list[UserMessage]:
        """An image in a message."""
        return [UserMessage(content=PICTURE), UserMessage(content=text("Please analyze the image above."))]

    @mcp.prompt()
    async def test_input_required_result_prompt(ctx: Ctx) -> list[UserMessage] | t.InputRequiredResult:
        """Asks before it answers."""
        if answers := answered(ctx, "user_context"):
            return [UserMessage(content=text(f"With context {answers['user_context'].content}"))]
        return ask(user_context=form("What context should the prompt use?", context="string"))
