"""What a slot needs of the version behind an alias to serve it, and examples to try it on.

The examples come from the dataset that the version was trained on; a service process gathers them.
"""

from __future__ import annotations

import json

from speciate import usecases
from speciate.datasets import versions
from speciate.errors import SpeciateError
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool
from speciate.models import registry
from speciate.production.aliases import Alias
from speciate.serving.folder import SlotFolder, Target
from speciate.workspace.workspace import Workspace

_GATHER = "speciate.serving.examples:gather"
_SECONDS = 60.0


def target_of(workspace: Workspace, pool: Pool, folder: SlotFolder, alias: Alias) -> Target:
    """Raises NOT_FOUND where the version is gone, INVALID where others serve it."""
    version = registry.resolve(workspace.database, workspace.folders, alias.model)
    card, path, root = version.card, version.path, workspace.folders.root
    assert card.task, "only endpoints have none"
    assert card.modality
    return Target(
        generation=alias.generation,
        model=alias.model,
        path=str(path.relative_to(root) if path.is_relative_to(root) else path),
        task=card.task,
        modality=card.modality,
        inputs=card.inputs,
        parts=card.parts,
        ignored_parts=card.ignored_parts,
        bytes=card.bytes or 0,
        warmup=_warmup(workspace, pool, folder, card.dataset),
        slowest_ms=usecases.get(workspace.database, alias.use_case).limits.p95_latency_ms,
    )


def _warmup(workspace: Workspace, pool: Pool, folder: SlotFolder, dataset: str | None) -> str | None:
    """A file with examples, in the cache, so that it goes when something is forgotten. None where the dataset is gone,
    or none of it can be asked as it lies."""
    if dataset is None:
        return None
    try:
        manifest = versions.resolve(workspace.database, dataset)
        payload = {"root": str(workspace.folders.root), "manifest": manifest.model_dump(mode="json")}
        text = pool.ask_for_file(_GATHER, payload, lambda path, _: path.read_text(), _SECONDS)
    except SpeciateError:
        return None
    if not json.loads(text):
        return None
    path = workspace.folders.cache / "warmup" / f"{folder.use_case}-{manifest.name}-v{manifest.version}.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(path, text, 0o600)
    return str(path)
