"""One action of the control connection: its request, whether only a person may cause it, and what it works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from speciate.governance.approval_signatures import Question
from speciate.governance.audit import Proof
from speciate.governance.roles import Level
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.control.messages import Request
from speciate.serving.deployments import DeploymentKeeper
from speciate.unix_sockets import Account
from speciate.workspace.workspace import Workspace

OpenPages = Callable[[Level, Account, Sequence[Mapping[str, Any]], bool], str]
"""(level, account, sealed keys, whether a key signed it) -> a link that begins one session of the pages."""

Answer = Mapping[str, Any]
"""One JSON object for the command line; its keys depend on the action."""


@dataclass(frozen=True)
class ControlContext:
    """The parts of the daemon that actions use."""

    workspace: Workspace
    engine: Engine
    pool: Pool
    keeper: DeploymentKeeper
    started: float
    """When the daemon began, by the workspace's clock."""
    count_clients: Callable[[], int]
    open_pages: OpenPages | None = None
    """None in a process that serves none."""


class Person(NamedTuple):
    """The person who decides."""

    name: str
    """The account, by the kernel."""
    proof: Proof
    """For the evidence of the row: the signature, and a name that the client claimed where it is another one."""


R = TypeVar("R", bound=Request)


class OpenAction(NamedTuple, Generic[R]):
    """An action that needs no person: `why` not."""

    request: type[R]
    run: Callable[[ControlContext, R], Answer]
    why: str


class PersonAction(NamedTuple, Generic[R]):
    """An action that only a person may cause: if a key is enrolled, by a signature of the question."""

    request: type[R]
    run: Callable[[ControlContext, R, Person], Answer]
    question: Callable[[ControlContext, R], Question]
