"""Who lets a model into production: a line of settings.toml, which is changed here with a row in the audit.

Nothing in the surface of tools leads here: the command line calls it on a terminal. The running daemon keeps the policy
that it began with, so it must end for the new one to hold.
"""

from __future__ import annotations

import re

from speciate.jobs.folder import write_whole
from speciate.production import audit
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_LINE = re.compile(r"^policy\s*=.*\n?", re.MULTILINE)


def change(workspace: Workspace, policy: str, by: str) -> audit.Row:
    """Write `policy` into settings.toml, whose other lines stay, after the row that tells of it.

    Raises ValidationError for a policy that there is not.
    """
    before, after = workspace.settings.policy, Settings.model_validate({"policy": policy}).policy

    def record(tx: Transaction) -> audit.Row:
        row = audit.append(
            tx, actor=by, action="policy", use_case=audit.WORKSPACE, before=before, after=after, evidence={}
        )  # fmt: skip
        tx.event("workspace:policy", "policy.changed", {"before": before, "after": after, "by": by, "audit": row.hash})
        return row

    row = workspace.database.transact(record)
    path = workspace.folders.root / "settings.toml"
    text = path.read_text() if path.exists() else ""
    write_whole(path, f'policy = "{after}"\n{_LINE.sub("", text)}')
    return row
