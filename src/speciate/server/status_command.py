"""`speciate status`: what the daemon does, or whether a workspace without one has lost its catalog. Starts nothing."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from speciate.environment import workspace_path
from speciate.server.dial import NoDaemon
from speciate.server.online import check_exists, control
from speciate.workspace import lost


def status(arguments: argparse.Namespace) -> int:
    """Raises REFUSED, as a call would, for a catalog that is gone."""
    check_exists(arguments)
    try:
        said = json.dumps(control(arguments, "status"), indent=2)
    except NoDaemon as none:
        with contextlib.suppress(OSError):  # another user's folder, of which nothing can be told
            if refused := lost.missing(workspace_path(arguments.workspace)):
                raise refused from none
        said = str(none)
    sys.stdout.write(said + "\n")
    return 0
