"""What an evaluation sends out of the house and what that costs, settled before anything is sent: keys, consent, money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.datasets.versions import Manifest
from speciate.evaluation.contestants import Contestant
from speciate.models.endpoints import Endpoint
from speciate.workspace.workspace import Workspace


class Outlay(NamedTuple):
    secrets: tuple[tuple[str, str], ...]
    """Name and host of each key that the run needs."""
    usd: float | None
    """About what the answers cost that are not recorded yet; None where a price is not known, 0 where nothing is sent."""
    resolved: dict[str, Any]


def check(
    workspace: Workspace, manifest: Manifest, split: str, contestants: Sequence[Contestant], family: str, spec: Any
) -> Outlay:
    endpoints = of(contestants)
    return Outlay((), None if endpoints else 0.0, {})


def of(contestants: Sequence[Contestant]) -> list[Endpoint]:
    """The endpoints among them and their members, each once."""
    every = [one for each in contestants for one in (each, *each.members)]
    return list({one.endpoint.identity: one.endpoint for one in every if one.endpoint is not None}.values())
