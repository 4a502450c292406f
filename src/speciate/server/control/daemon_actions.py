"""Actions on the daemon itself, its settings and its catalog: stop, drain, back up, change the policy or the hosts."""

from __future__ import annotations

import os
from collections.abc import Mapping

from speciate import __version__
from speciate.governance import authorization, policy
from speciate.governance.approval_keys import SettingsSnapshot
from speciate.governance.approval_signatures import Question
from speciate.hosts import check_host
from speciate.jobs.recovery import jobs_paused_as_copied
from speciate.loop import verification
from speciate.server.control.action import Answer, ControlContext, Person
from speciate.server.control.messages import BackupRequest, HostRequest, PolicyRequest, Request
from speciate.settings import load
from speciate.workspace import catalog_identity
from speciate.workspace.backup import automatic_backups, back_up

_JOBS = "SELECT if(state = 'dead', 'failed', state) AS shown, count(*) FROM jobs GROUP BY shown ORDER BY shown"


def status(context: ControlContext, request: Request) -> Answer:
    workspace, authority = context.workspace, authorization.authority_of(context.workspace)
    saved = automatic_backups(workspace.folders.backups)
    return {
        "workspace": str(workspace.folders.root),
        "pid": os.getpid(),
        "version": __version__,
        "running_seconds": round(workspace.elapsed.most(context.started), 1),
        "clients": context.count_clients(),
        "jobs": dict(workspace.database.read(_JOBS)),
        "policy": workspace.settings.policy,
        "newest_backup": saved[-1].name if saved else None,
        "salvaged": str(workspace.salvaged) if workspace.salvaged else None,
        "identity": workspace.identity,
        "signed": authority.required,
        "approvals": authority.sentence(),
        "problems": list(authority.problems),
        "policies": dict(workspace.settings.policies),
        "private_hosts": list(workspace.settings.private_hosts),
        "copy_of": catalog_identity.original_of(workspace.database),
        "paused_as_copied": len(jobs_paused_as_copied(workspace.database)),
    }


def stop(context: ControlContext, request: Request) -> Answer:
    return {"pid": os.getpid(), "version": __version__}


def drain(context: ControlContext, request: Request) -> Answer:
    """Start nothing more, then leave. Runs continue under their supervisors."""
    context.engine.drain()
    return stop(context, request)


def resume(context: ControlContext, request: Request) -> Answer:
    """What was paused because the workspace is a copy."""
    return {"jobs": [job.id for job in context.engine.resume_copied()]}


def make_backup(context: ControlContext, request: BackupRequest) -> Answer:
    return back_up(context.workspace, request.target)._asdict()


def change_policy(context: ControlContext, request: PolicyRequest, by: Person) -> Answer:
    """The next daemon reads the new settings; runs continue."""
    policy.change(context.workspace, request.policy, by.name, request.use_case, by.proof)
    return stop(context, request)


def change_host(context: ControlContext, request: HostRequest, by: Person) -> Answer:
    """As for the policy, the next daemon reads it."""
    change = policy.add_host if request.add else policy.remove_host
    change(context.workspace, request.host, by.name, by.proof)
    return stop(context, request)


def confirm_settings(context: ControlContext, request: Request, by: Person) -> Answer:
    """Confirm what settings.toml says now, as it was shown; the next daemon follows it."""
    differences = list(authorization.authority_of(context.workspace).differences)
    policy.confirm(context.workspace, differences, by.name, by.proof)
    return stop(context, request)


def inventory(context: ControlContext, request: Request) -> Answer:
    """What the catalog refers to, for who compares the files with it."""
    return verification.inventory(context.workspace).model_dump(mode="json")


def about_policy(context: ControlContext, request: PolicyRequest) -> Question:
    settings, use_case = context.workspace.settings, request.use_case
    arguments = {"policy": request.policy, "use_case": use_case}
    now, changed = settings.policy, dict[str, object](policy=request.policy)
    if use_case is not None:
        now, changed = settings.policy_of(use_case), {"policies": {**settings.policies, use_case: request.policy}}
    return Question("policy", "policy", arguments, {"now": now, "settings": _confirmed_settings(context, changed)})


def about_host(context: ControlContext, request: HostRequest) -> Question:
    add, host = request.add, check_host(request.host)
    now = context.workspace.settings.private_hosts
    after = list(dict.fromkeys((*now, host))) if add else [each for each in now if each != host]
    settings = _confirmed_settings(context, {"private_hosts": after})
    return Question("host", "host", {"add": add, "host": host}, {"now": list(now), "settings": settings})


def about_settings(context: ControlContext, request: Request) -> Question:
    now = authorization.settings_snapshot(load(context.workspace.folders.root))
    shown = {"before": authorization.authority_of(context.workspace).confirmed, "settings": now}
    return Question("settings", "settings", {}, shown)


def _confirmed_settings(context: ControlContext, changed: Mapping[str, object]) -> SettingsSnapshot:
    """What a person will have confirmed of the settings after this change: what somebody else wrote is not among it."""
    return authorization.authority_of(context.workspace).confirmed | dict(changed)
