"""An app over a fresh workspace, with inline jobs that need no process."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job
from speciate.jobs.kinds import Finished, Kind, Kinds, NextStep
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace


class Greeting(BaseModel):
    name: str = "world"


def greet(tx: Transaction, spec: Greeting, job: Job, settings: Settings) -> dict[str, Any]:
    if spec.name == "nobody":
        raise SpeciateError(Code.INVALID, "Nobody can be greeted.", "Call it with a name.")
    return {"greeting": f"hello {spec.name}"}


def open_end(spec: Greeting, children: Any, now: float) -> NextStep:
    """A composite that runs until it is cancelled: its child waits for a need that never ends."""
    return () if spec.name == "for ever" else Finished(result={})


GREET = Kind(name="greet", spec=Greeting, act=greet)
WAIT = Kind(name="wait", spec=Greeting, next=open_end)


def make_app(workspace: Workspace) -> App:
    engine = Engine(workspace, Kinds(extra=(GREET, WAIT)))
    return App(workspace, engine, Pool(workspace.folders, workspace.settings, size=0))
