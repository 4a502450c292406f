"""A fixture for a daemon: a kind of job that sends a key to a service, which sends it back in its answer."""

from __future__ import annotations

import logging
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.secrets import SecretRequest
from speciate.server.mcp.app import Server
from speciate.workspace.workspace import Workspace


class Asking(BaseModel):
    host: str
    preload: str = ""


def plan(spec: Asking, workspace: Workspace) -> Plan:
    return Plan(payload=spec.model_dump(), preload=spec.preload, secrets=(SecretRequest("planted", spec.host),))


def run(run: Run) -> dict[str, Any]:
    """Ends by the worst that a library could do with what a service says."""
    run.progress(0, 1, "requests")
    asked = urllib.request.Request(
        f"http://{run.payload['host']}/", headers={"Authorization": f"Bearer {run.secret('planted')}"}
    )
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:  # lives meanwhile
        try:
            urllib.request.urlopen(asked, timeout=60)
        except urllib.error.HTTPError as error:
            said = error.read().decode()
        assert child.stdin
        child.stdin.write(b"\n")
    print(said, flush=True)
    logging.getLogger("library").warning("refused: %s", said)
    raise PermissionError(said)


KIND = Kind(name="keyed", spec=Asking, plan=plan, run=f"{Path(__file__).resolve()}:run")


def register(server: Server) -> None:
    server.engine.kinds.add(KIND)
    app = server._app

    @server.mcp.tool()
    def start_asking(host: str, preload: str = "") -> dict[str, Any]:
        """A job that sends a key to `host`."""
        return {"job": app.engine.submit("keyed", {"host": host, "preload": preload}).id}
