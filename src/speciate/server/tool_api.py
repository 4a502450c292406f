"""What a tool is made of: the `tool` decorator, the `App` that every tool gets, and the pieces that results share.

A tool is a plain synchronous function in `tools/`; it knows nothing of MCP and can be called directly. This module
imports no MCP library either, so declarations load in milliseconds.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)  # fmt: skip

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_jsonable_python

from speciate.errors import Code, SpeciateError
from speciate.governance.roles import ACTS, Act, act_of_tool
from speciate.governance.tokens import Token
from speciate.jobs.engine import Engine, invalid_spec
from speciate.jobs.job import ENDED, Job
from speciate.jobs.kinds import Kind, NotGranted, rounded
from speciate.jobs.pool import Pool
from speciate.refs import id_from_key
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

Function = TypeVar("Function", bound=Callable[..., Any])
Answer = TypeVar("Answer", bound=BaseModel)
Spec = TypeVar("Spec", bound=BaseModel)
Arguments = ParamSpec("Arguments")

# Arguments that many tools take

IdempotencyKey = Annotated[str | None, Field(max_length=200, description="Safe repeats.")]
DryRunFlag = Annotated[bool, Field(description="Only estimate.")]
Limit = Annotated[int, Field(ge=1, le=500, description="Page size.")]
Cursor = Annotated[str | None, Field(description="A next_cursor.")]

LISTED_ELSEWHERE = "x-listed-elsewhere"
"""In a schema: `tools/list` leaves this enumeration to the argument that the description names."""


ToolSet = Literal["all", "core"]


class Caller(NamedTuple):
    """Who calls. `folder` is None over HTTP, where only absolute paths mean anything."""

    folder: Path | None
    client: str
    transport: str
    tools: ToolSet = "all"
    """Which tools the connection is shown; each may be called all the same."""
    token: Token | None = None
    """By which it came over the network. None: an account of this machine, which may call everything."""

    def may(self, act: Act) -> bool:
        return self.token is None or act in ACTS[self.token.role]

    def may_call(self, tool: str, *, read_only: bool) -> bool:
        return self.may(act_of_tool(tool, read_only=read_only))


IN_PROCESS = Caller(None, "in-process", "python")

Progress = Callable[[float, float | None, str], None]
"""(done, total, message) to the client."""


@dataclass(frozen=True)
class App:
    """The first argument of every tool and resource: the open workspace and who asks."""

    workspace: Workspace
    engine: Engine
    pool: Pool
    caller: Caller = IN_PROCESS
    progress: Progress | None = None
    """None where nobody could hear of it."""


# Results


class Result(BaseModel):
    """What a tool returns. A field that is None is left out of the answer.

    Text that others wrote (cells, cards, logs, file names) belongs below one field named `untrusted`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    untrusted_characters: ClassVar[int] = 12_000
    """How much foreign text one answer may hold; raise it where the caller chooses the amount."""

    def df(self) -> Any:
        """The table in this result as a frame of pandas, else of polars, else of Arrow. A list may go on behind
        `next_cursor`; `Client.table` reads all pages of a query. Raises INVALID where there is no table."""
        frames = importlib.import_module("speciate.server.result_frames")  # pyarrow is not needed to declare tools
        table = frames.table_of(self.model_dump(mode="python"))
        if table is None:
            raise SpeciateError(
                Code.INVALID,
                f"{type(self).__name__} has no table.",
                f"Read its fields: {', '.join(type(self).model_fields)}.",
            )
        return frames.frame(table)


class NextAction(Result):
    """A call worth making next, with its arguments filled in."""

    tool: str
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    purpose: str | None = None


class JobStarted(Result):
    """The job is on disk: it survives whatever happens to this connection."""

    job: str
    kind: str
    state: str
    eta_seconds: float | None = None
    next_actions: tuple[NextAction, ...] = ()


class Estimate(Result):
    seconds: float | None = None
    usd: float | None = Field(None, description="Calls, and processor time here by usd_per_hour of settings.toml.")
    bytes: int | None = None
    peak_memory_mb: int | None = None
    p95_latency_ms: float | None = None
    known_from: tuple[str, ...] = ()


class DryRun(Result):
    """What would happen. Nothing was started."""

    valid: bool = Field(description="False: the call would be refused now; `refused` says why.")
    estimate: Estimate
    resolved: Mapping[str, Any]
    refused: str | None = Field(None, description="Why, and what to do.")
    not_checked: tuple[str, ...] | None = Field(None, description="What only the job can tell.")


class ToolImage(NamedTuple):
    """An image beside a result: return `(result, ToolImage(data))`. At most 1,024 pixels a side."""

    data: bytes
    mime: str = "image/png"


_PAGE, _PAGE_BYTES = 20, 14_000


def fitting(items: Sequence[Result], limit: int) -> int:
    """How many of the first items one page holds: with long ones it ends before `limit`, and its cursor goes on. A
    caller who asks for more than the usual page gets more."""
    left = _PAGE_BYTES * max(1, limit // _PAGE)
    for number, item in enumerate(items):
        left -= len(item.model_dump_json(exclude_none=True).encode())
        if left < 0 and number:
            return number
    return len(items)


# Declaring a tool


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One tool as it is declared; `mcp/app.py` turns it into what the protocol wants."""

    name: str
    description: str
    function: Callable[..., Any]
    arguments: type[BaseModel]
    """The parameters after the App as one strict model."""
    result: Any
    """The annotation of the result without images: a model, or a union of models."""
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


DECLARED: dict[str, Declaration] = {}
"""Every tool whose module was imported, by name."""


def tool(
    *, read_only: bool = False, destructive: bool = False, idempotent: bool = False, open_world: bool = False
) -> Callable[[Function], Function]:
    """Declare a tool: its name, its docstring, its annotated parameters (the first one is the App) and its result.

    The function stays as it is; the declaration hangs on it as `__tool__`.
    """

    def declare(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        declaration = Declaration(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or ""),
            function=function,
            arguments=_arguments(function, hints),
            result=_without_images(hints["return"]),
            read_only=read_only,
            destructive=destructive,
            idempotent=idempotent or read_only,
            open_world=open_world,
        )
        function.__tool__ = DECLARED[declaration.name] = declaration  # type: ignore[attr-defined]  # functions take attributes
        return function

    return declare


def _arguments(function: Callable[..., Any], hints: Mapping[str, Any]) -> type[BaseModel]:
    """The parameters after the first as one strict model."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    fields: dict[str, Any] = {
        parameter.name: (
            hints[parameter.name],
            ... if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for parameter in parameters
    }
    return create_model(function.__name__, __config__=ConfigDict(extra="forbid", frozen=True), **fields)


def _without_images(annotation: Any) -> Any:
    """A result's type without images: of `tuple[Result, *tuple[ToolImage, ...]]` its first part; of a union those parts
    that are no tuples."""
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    if isinstance(annotation, UnionType):
        return reduce(operator.or_, (each for each in get_args(annotation) if get_origin(each) is not tuple))
    return annotation


JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class ResourceDeclaration:
    name: str
    uri: str
    description: str
    function: Callable[..., Any]
    mime: str


def resource(uri: str, mime: str = JSON) -> Callable[[Function], Function]:
    """Declare a resource: `uri` is a template whose variables are the parameters after the App.

    The function returns a Result, shown as JSON, or text of another `mime`. Hangs the declaration on the function as
    `__resource__`.
    """

    def declare(function: Function) -> Function:
        function.__resource__ = ResourceDeclaration(  # type: ignore[attr-defined]  # functions take attributes
            name=function.__name__, uri=uri, description=inspect.cleandoc(function.__doc__ or ""), function=function,
            mime=mime,
        )  # fmt: skip
        return function

    return declare


# What tools that change something share


def make_spec(spec: Callable[Arguments, Spec], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Spec:
    """`spec(...)`. Raises INVALID, as the engine does, for arguments that the spec does not take."""
    try:
        return spec(*args, **kwargs)
    except ValidationError as error:
        raise invalid_spec(error) from error


def make_sparse_spec(spec: Callable[Arguments, Spec], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Spec:
    """As `make_spec`, without the arguments that are None: the stored spec then leaves them out, too."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    return make_spec(cast(Callable[..., Spec], spec), *args, **given)


def start_job(
    app: App,
    kind: Kind[Spec, Any, Any] | str,
    spec: Spec | Mapping[str, Any],
    *,
    idempotency_key: str | None = None,
    dry_run: bool = False,
    next_actions: Sequence[NextAction] = (),
    after: Sequence[str] = (),
) -> JobStarted | DryRun:
    """Submit a job, durable on return; with `dry_run` only check and estimate it. `after`: jobs that must succeed
    first. The stored spec holds the fields that were set, and no defaults: a key's calls are compared by it.

    Raises SpeciateError for everything that the kind's plan can refuse, unless it waits for others, and CONFLICT where
    the key was used for another call.
    """
    kind, spec = kind if isinstance(kind, str) else kind.name, spec_json(spec)
    if dry_run:
        refused: str | None = None
        try:
            plan = app.engine.plan(kind, spec)
        except NotGranted as error:  # what it would cost is known without the key or the consent that it lacks
            plan, refused = error.plan, str(error)
        estimate = Estimate(
            seconds=rounded(plan.seconds),
            usd=rounded(plan.usd),
            bytes=plan.bytes,
            peak_memory_mb=plan.peak_memory_mb or plan.resources.memory_mb or None,
            p95_latency_ms=rounded(plan.p95_latency_ms),
            known_from=plan.known_from,
        )
        return DryRun(
            valid=refused is None, estimate=estimate, resolved=plan.resolved, refused=refused,
            not_checked=plan.unchecked or None,
        )  # fmt: skip
    if idempotency_key is None:
        return show_started(app.engine.submit(kind, spec, after=after), next_actions)
    if app.workspace.database.read(_ANSWER, [idempotency_key]):
        raise key_conflict(kind, idempotency_key)
    return show_started(app.engine.submit(kind, spec, key=_job_key(idempotency_key), after=after), next_actions)


def spec_json(spec: BaseModel | Mapping[str, Any]) -> Mapping[str, Any]:
    """A job's spec as it is stored: the fields that were set."""
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, BaseModel) else spec


def _job_key(idempotency_key: str) -> str:
    """Apart from the keys of steps (`JOB/STEP`), which a caller could otherwise take."""
    return f"call/{idempotency_key}"


def show_started(job: Job, next_actions: Sequence[NextAction] = ()) -> JobStarted:
    """How a started job is shown: the next call is to wait for it, then what the caller names."""
    waiting = NextAction(tool="wait_for_job", arguments={"job": job.id})
    return JobStarted(
        job=job.id,
        kind=job.kind,
        state=job.shown_state,
        eta_seconds=None if job.state in ENDED else job.estimate,
        next_actions=(waiting, *next_actions)[:3],
    )


_ANSWER = "SELECT fingerprint, answer FROM answers WHERE key = ?"
_JOB_OF_KEY = "SELECT 1 FROM jobs WHERE id = ?"
_KEEP_ANSWER = "INSERT INTO answers (key, tool, fingerprint, answer, stamp) VALUES (?, ?, ?, ?, ?)"


def once(
    app: App,
    tool: str,
    arguments: Mapping[str, Any],
    idempotency_key: str | None,
    function: Callable[[Transaction], Answer],
    *,
    answer: type[Answer],
) -> Answer:
    """Run `function(tx)` as one atomic step, at most once per key: a repeat gets the first answer again.

    For changes that need no job. `arguments` are all of the call's but the key; `answer` is the model that
    `function` returns. Raises SpeciateError CONFLICT where the key was used with other arguments.
    """
    if idempotency_key is None:
        return app.workspace.database.transact(function)
    key, fingerprint = idempotency_key, _fingerprint(tool, arguments)

    def step(tx: Transaction) -> Answer:
        if rows := tx.execute(_ANSWER, [key]):
            if rows[0][0] != fingerprint:
                raise key_conflict(tool, key)
            return answer.model_validate_json(rows[0][1])
        if tx.execute(_JOB_OF_KEY, [id_from_key("job", _job_key(key))]):
            raise key_conflict(tool, key)
        made = function(tx)
        tx.execute(_KEEP_ANSWER, [key, tool, fingerprint, made.model_dump_json(), tx.now])
        return made

    return app.workspace.database.transact(step)


def once_done(
    app: App,
    tool: str,
    arguments: Mapping[str, Any],
    idempotency_key: str | None,
    function: Callable[[], Answer],
    *,
    answer: type[Answer],
) -> Answer:
    """As `once`, for what takes long and may be done twice: it does not hold up the catalog's writer, and is done
    again where it ended before its answer was kept."""
    if idempotency_key is None:
        return function()
    fingerprint = _fingerprint(tool, arguments)
    if rows := app.workspace.database.read(_ANSWER, [idempotency_key]):
        if rows[0][0] != fingerprint:
            raise key_conflict(tool, idempotency_key)
        return answer.model_validate_json(rows[0][1])
    made = function()
    return once(app, tool, arguments, idempotency_key, lambda tx: made, answer=answer)


def key_conflict(tool: str, key: str) -> SpeciateError:
    return SpeciateError(
        Code.CONFLICT,
        f"idempotency_key {key!r} was used before with other arguments or for another call, so {tool} changed nothing.",
        "Repeat the call with another key, or with the first arguments to get the first answer.",
    )


def _fingerprint(tool: str, arguments: Mapping[str, Any]) -> str:
    document = json.dumps([tool, to_jsonable_python(dict(arguments))], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()
