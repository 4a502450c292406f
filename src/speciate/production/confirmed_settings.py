"""Settings that decide what needs a person, as a person confirmed them with a signature, beside what the file says now.

A text editor changes settings.toml without a row in the audit. Where a key is enrolled, what differs is told, and the
stricter of both holds until a person confirms: in the daemon, and in the processes of runs and deployments, which get
the daemon's `cage` and `trust` (`settings.hold`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from speciate.settings import Settings

_NAMES = ("policy", "policies", "private_hosts", "cage", "roots", "trust")


def snapshot(settings: Settings) -> dict[str, Any]:
    """As JSON."""
    found: dict[str, Any] = settings.model_dump(mode="json", include=set(_NAMES))
    return found


def differences(settings: Settings, confirmed: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that is not as it was confirmed."""
    now = snapshot(settings)
    return [
        f"{name} in settings.toml is {json.dumps(now[name])}, and {json.dumps(confirmed.get(name))} was confirmed"
        for name in _NAMES
        if now[name] != confirmed.get(name)
    ]


def stricter(settings: Settings, confirmed: Mapping[str, Any]) -> Settings:
    """Of both, setting by setting, whatever lets less happen without a person."""
    try:
        before = Settings.model_validate({name: confirmed[name] for name in _NAMES if name in confirmed})
    except ValidationError:  # of a later version: nothing of it can be compared
        before = Settings()
    named = {*settings.policies, *before.policies}
    policies = {name: _person(settings.policy_of(name), before.policy_of(name)) for name in named}
    policy = _person(settings.policy, before.policy)
    required = settings.trust.require_signature or before.trust.require_signature
    return settings.model_copy(
        update={
            "policy": policy,
            "policies": {name: own for name, own in policies.items() if own != policy or name in settings.policies},
            "private_hosts": tuple(host for host in settings.private_hosts if host in before.private_hosts),
            "cage": "required" if "required" in (settings.cage, before.cage) else settings.cage,
            "roots": before.roots if settings.roots != before.roots else settings.roots,
            "trust": settings.trust.model_copy(
                update={
                    "require_signature": required,
                    "public_keys": tuple(key for key in settings.trust.public_keys if key in before.trust.public_keys),
                }
            ),
        }
    )


def _person(now: str, before: str) -> str:
    return "person" if "person" in (now, before) else now
