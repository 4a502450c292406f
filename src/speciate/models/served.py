"""Models that others serve, as versions of the registry: where they are and what they are called there, no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection

from speciate import peers, secrets
from speciate.errors import SpeciateError
from speciate.ids import check_name
from speciate.models import registry
from speciate.models.card import SERVED, Card
from speciate.models.endpoints import Endpoint
from speciate.vocabulary import find_task
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace


def prepare(
    workspace: Workspace,
    name: str,
    endpoint: Endpoint,
    *,
    task: str | None,
    license: str | None,  # noqa: A002 - as cards call it
) -> Card:
    """The card of a version to be made. Raises INVALID for a name that is none, CONFLICT for a use case's, NOT_FOUND
    for a task that there is not. No network is touched.

    Whatever is told apart makes another version: also a price or a key's name, by which money is counted and sent.
    """
    check_name("model", name)
    registry.check_free(workspace.database, name)
    if task is not None:
        find_task(task)
    told = json.dumps([endpoint.model_dump(), task, license], sort_keys=True)
    identity = f"endpoint-{hashlib.sha256(told.encode()).hexdigest()}"
    return Card(name=name, id=identity, task=task, method=SERVED, endpoint=endpoint, license=license)


def register(tx: Transaction, workspace: Workspace, card: Card) -> Card:
    """The next version of its name. The same card is the same version."""
    return registry.register(tx, workspace.folders, card, None)


def needs(endpoint: Endpoint, private_hosts: Collection[str] = ()) -> tuple[str, ...]:
    """What a person must yet type before it can be asked; DATASET is what will be sent there."""
    commands = []
    try:
        peers.check_url(endpoint.base_url, private_hosts)
    except SpeciateError:
        commands.append(f"speciate hosts add {endpoint.host}")
    if endpoint.secret is not None:
        try:
            secrets.get(endpoint.secret, endpoint.host)
        except SpeciateError:
            commands.append(f"speciate secret set {endpoint.secret} --host {endpoint.host}")
    if not endpoint.is_local:
        commands.append(f"speciate allow DATASET --host {endpoint.host} --usd CAP")
    return tuple(commands)
