"""What a person sets: who lets a model into production, and which hosts at private addresses may be asked. Lines of
settings.toml, which are changed here with a row in the audit.

Nothing in the surface of tools leads here: the command line calls it on a terminal. The running daemon keeps what it
began with, so it must end for the new settings to hold.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from speciate import use_cases
from speciate.errors import Code, SpeciateError, unknown
from speciate.governance import audit
from speciate.hosts import check_host
from speciate.jobs.folder import write_whole
from speciate.settings import Settings
from speciate.workspace.blobs import sync_folder
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def change(
    workspace: Workspace, policy: str, by: str, use_case: str | None = None, proof: Mapping[str, Any] = _NOTHING
) -> audit.Row:
    """Write `policy` into settings.toml, whose other lines stay, after the row that tells of it; of one use case alone
    where it is named. `proof`: what the row's evidence has, too.

    Raises ValidationError for a policy that there is not, NOT_FOUND for such a use case.
    """
    settings, after = workspace.settings, Settings.model_validate({"policy": policy}).policy
    if use_case is None:
        return _change(workspace, "policy", settings.policy, after, after, by, proof)
    name = use_cases.get(workspace.database, use_case).name
    policies: dict[str, str] = {**settings.policies, name: after}
    before = f"{name}: {settings.policy_of(name)}"
    return _change(workspace, "policies", before, f"{name}: {after}", policies, by, proof)


def add_host(workspace: Workspace, host: str, by: str, proof: Mapping[str, Any] = _NOTHING) -> audit.Row:
    """List a host that is this machine or leads to private addresses, so that endpoints there may be asked.

    Raises INVALID for what is no host.
    """
    before = workspace.settings.private_hosts
    return _change_hosts(workspace, (*dict.fromkeys((*before, check_host(host))),), by, proof)


def remove_host(workspace: Workspace, host: str, by: str, proof: Mapping[str, Any] = _NOTHING) -> audit.Row:
    """Raises NOT_FOUND with near names."""
    before = workspace.settings.private_hosts
    if host.lower() not in before:
        raise unknown("listed host", host, before, "See: speciate hosts list")
    return _change_hosts(workspace, tuple(each for each in before if each != host.lower()), by, proof)


def _change_hosts(workspace: Workspace, after: tuple[str, ...], by: str, proof: Mapping[str, Any]) -> audit.Row:
    before = workspace.settings.private_hosts
    return _change(workspace, "private_hosts", " ".join(before), " ".join(after), list(after), by, proof)


def confirm(workspace: Workspace, differences: list[str], by: str, proof: Mapping[str, Any]) -> audit.Row:
    """A row that says that settings.toml is as a person wants it; nothing is written into it."""
    told = {"differences": differences, **proof}
    return workspace.database.transact(lambda tx: _record(tx, "settings", None, None, by, told))


def _change(
    workspace: Workspace,
    name: str,
    before: str,
    after: str,
    value: str | list[str] | dict[str, str],
    by: str,
    proof: Mapping[str, Any],
) -> audit.Row:
    """Write a setting, after the row that tells of it; other lines stay as they are."""
    path = workspace.folders.root / "settings.toml"
    text = path.read_text() if path.exists() else ""
    changed = f"{name} = {_toml(value)}\n" + re.sub(rf"(?m)^{name}\s*=.*\n?", "", text)
    _check(changed, tomllib.loads(text) | {name: value}, name)

    row = workspace.database.transact(lambda tx: _record(tx, name, before, after, by, dict(proof)))
    write_whole(path, changed)
    sync_folder(path.parent)
    return row


def _record(
    tx: Transaction, name: str, before: str | None, after: str | None, by: str, evidence: audit.Evidence
) -> audit.Row:
    row = audit.append_row(
        tx, actor=by, action=name, use_case=audit.WORKSPACE, before=before, after=after, evidence=evidence
    )  # fmt: skip
    tx.event("workspace:policy", "policy.changed", {"before": before, "after": after, "by": by, "audit": row.hash})
    return row


def _toml(value: str | list[str] | dict[str, str]) -> str:
    """JSON's texts and lists are TOML's, too; its objects are not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {json.dumps(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


def _check(changed: str, wanted: dict[str, object], name: str) -> None:
    """That the text says this and nothing else: what a person wrote may take more than a line."""
    try:
        said = tomllib.loads(changed)
    except tomllib.TOMLDecodeError:
        said = {}
    if said != wanted:
        raise SpeciateError(
            Code.INVALID, f"{name} in settings.toml takes more than a line.", "Write it in one line, then call again."
        )
