"""Registered model versions: rows in the catalog, immutable folders `models/NAME/vN/` on disk.

A version's files are hard links to those in the run folder that made them, so a registration moves nothing, can be
repeated, and leaves the run folder complete for a rebuild. A model that others serve is a version without weights: its
card says where it is served and what it is called there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate import hosts, secrets
from speciate.errors import Call, Code, SpeciateError, near_names, unknown
from speciate.models import packaged, providers, sealed, signature
from speciate.models.endpoints import Endpoint
from speciate.models.model_card import SERVED, ModelCard
from speciate.refs import ModelRef, check_name, model_ref
from speciate.settings import in_force
from speciate.vocabulary import find_task
from speciate.workspace import tombstones
from speciate.workspace.blobs import make_folder, sync_folder, write_durably
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Folders, Workspace

_NEWEST = "SELECT card FROM model_versions WHERE name = ? ORDER BY version DESC LIMIT 1"
_VERSION = "SELECT card FROM model_versions WHERE name = ? AND version = ?"
_VERSIONS = "SELECT card FROM model_versions WHERE name = ? ORDER BY version"
_NEWEST_OF_EACH = "SELECT arg_max(card, version) FROM model_versions GROUP BY name ORDER BY name"
_NEWEST_OF_THESE = """
SELECT arg_max(card, version) FROM model_versions WHERE list_contains(?::VARCHAR[], name) GROUP BY name ORDER BY name
"""
_NEWEST_MADE_BY = """
SELECT card FROM (SELECT name, arg_max(card, version) AS card FROM model_versions GROUP BY name)
WHERE card ->> '$.method' = ? ORDER BY name
"""
_LAST_OF_EACH = "SELECT name, max(version) FROM model_versions GROUP BY name ORDER BY name"
_NAMES = "SELECT DISTINCT name FROM model_versions ORDER BY name"
_USE_CASES = "SELECT DISTINCT name FROM use_cases ORDER BY name"
_ALIAS = "SELECT model FROM aliases WHERE use_case = ? AND alias = ?"
_ALIASES_OF = "SELECT alias FROM aliases WHERE use_case = ?"
_SAME = "SELECT card FROM model_versions WHERE name = ? AND id = ?"
_NEXT = "SELECT coalesce(max(version), 0) + 1 FROM model_versions WHERE name = ?"
_INSERT = "INSERT INTO model_versions VALUES (?, ?, ?, ?, ?, ?)"
_FETCHED = "SELECT card FROM model_versions WHERE card ->> '$.recipe.repository' = ? ORDER BY created DESC, version"
_USE_CASE_OF_NAME = "SELECT count(*) FROM use_cases WHERE name = ?"


class ModelVersion(NamedTuple):
    card: ModelCard
    place: Path | None
    """The folder with the files; None if others serve it."""
    keys: tuple[Path, ...] | None = None
    """Public keys, one of which must have signed it; None if no signature is required."""

    @property
    def path(self) -> Path:
        """The folder with the files, to be loaded. Raises INVALID if others serve the model, REFUSED if a signature is
        required and there is no valid one."""
        if self.place is None:
            where = self.card.endpoint.host if self.card.endpoint else "others"
            raise SpeciateError(
                Code.INVALID,
                f"{self.ref!r} is served by {where}: there are no weights of it here, which this needs.",
                "evaluate_models takes it, and define_use_case as incumbent; here, name a model that was trained.",
            )
        if self.keys is not None and self.card.version:
            signature.check(self.place, self.card, self.keys)
        return self.place

    @property
    def ref(self) -> str:
        return self.card.ref


def resolve(database: Database, folders: Folders, ref: ModelRef | str) -> ModelVersion:
    """The version that a ref means now: `name`, `name@v3`, `USECASE@production`, `pkg:NAME`, `api:PROVIDER/MODEL`, or
    `hf:org/name` of a fetched model.

    Raises NOT_FOUND with near names, MISSING_EXTRA for a package that is not installed, INVALID for sources that
    cannot be resolved without a network.
    """
    ref = model_ref(ref) if isinstance(ref, str) else ref
    if ref.source == "pkg":
        return ModelVersion(packaged.card(ref.name), packaged.locate(ref.name))
    if ref.source == "api":
        return ModelVersion(providers.card(ref.name), None)
    if (card := fetched(database, ref)) is not None:
        return ModelVersion(card, version_folder(folders, card.name, card.version), _keys(folders))
    if ref.source:
        fetch = (
            f"register_model(name={name_of(ref)!r}, source='{ref}') fetches it (with task='text-generation' where it "
            "writes texts: without a task it cannot be evaluated); then call again"
        )
        raise SpeciateError(
            Code.INVALID,
            f"'{ref}' cannot be used here: its weights are not in this workspace.",
            f"{fetch if ref.source in ('hf', 'timm', 'path') else 'Use a registered model'}, or one of: "
            + ", ".join(f"pkg:{name}" for name in packaged.PACKAGED)
            + ".",
        )
    if ref.alias:
        return resolve(database, folders, _behind_alias(database, ref))
    row = database.read_one(*((_VERSION, [ref.name, ref.version]) if ref.version else (_NEWEST, [ref.name])))
    if row is None:
        raise _no_version(database, ref)
    card = ModelCard.model_validate_json(row[0])
    place = None if card.endpoint else version_folder(folders, card.name, card.version)
    return ModelVersion(card, place, _keys(folders))


def _keys(folders: Folders) -> tuple[Path, ...] | None:
    trust = in_force(folders.root).trust
    return tuple(trust.keys(folders.root)) if trust.require_signature else None


def fetched(database: Database, ref: ModelRef) -> ModelCard | None:
    """The newest version that was fetched from `hf:org/name[@REVISION]`; None if there is none."""
    if ref.source != "hf":
        return None
    repository, _, revision = ref.name.partition("@")
    for (text,) in database.read(_FETCHED, [repository]):
        card = ModelCard.model_validate_json(text)
        if not revision or revision in (card.recipe.get("revision"), card.recipe.get("wanted")):
            return card
    return None


def name_of(ref: ModelRef) -> str:
    """The name of a model that is fetched from there: `org--name`."""
    place = ref.name.partition("@")[0].replace("/", "--")
    return re.sub(r"[^\w.\-]", "-", place, flags=re.ASCII).lstrip(".-")[:64]


def versions(database: Database, name: str) -> list[ModelCard]:
    """All versions of a name, oldest first."""
    return [ModelCard.model_validate_json(card) for (card,) in database.read(_VERSIONS, [name])]


def newest_of_each(database: Database, names: Sequence[str] | None = None) -> list[ModelCard]:
    """The newest version of each name, or of each of these, by name."""
    found = database.read(_NEWEST_OF_EACH) if names is None else database.read(_NEWEST_OF_THESE, [list(names)])
    return [ModelCard.model_validate_json(card) for (card,) in found]


def newest_made_by(database: Database, method: str) -> list[ModelCard]:
    """The newest version of each name, by name, where that method made it."""
    return [ModelCard.model_validate_json(card) for (card,) in database.read(_NEWEST_MADE_BY, [method])]


def last_of_each(database: Database) -> list[tuple[str, int]]:
    """Each name with the number of its newest version: a cheap way to notice a new one."""
    return [(name, version) for name, version in database.read(_LAST_OF_EACH)]


def names(database: Database) -> list[str]:
    return [name for (name,) in database.read(_NAMES)]


def endpoint_of(database: Database, ref: str) -> Endpoint | None:
    """Where the model of this exact ref is served; None for one that is not served, or no longer a version."""
    if ref.startswith(providers.API):
        return providers.endpoint(ref)
    name, _, version = ref.partition("@v")
    row = database.read_one(_VERSION, [name, int(version)]) if version.isdecimal() else None
    return ModelCard.model_validate_json(row[0]).endpoint if row else None


def check_free(database: Database, name: str) -> None:
    """Raise CONFLICT if a use case has this name: `NAME@production` would mean two things."""
    if database.read(_USE_CASE_OF_NAME, [name])[0][0]:
        raise SpeciateError(
            Code.CONFLICT,
            f"{name!r} is the name of a use case; use cases and models share their names.",
            f"Call again with another name, such as {name + '-model'!r}.",
        )


def register(tx: Transaction, folders: Folders, card: ModelCard, staged: Path | None) -> ModelCard:
    """Make `staged` (sealed, in the run folder) the next version of `card.name`. The same id is the same version.

    `staged` None: others serve it, and its folder holds the card alone.
    """
    if known := tx.execute(_SAME, [card.name, card.id]):
        return ModelCard.model_validate_json(known[0][0])
    version: int = max(tx.execute(_NEXT, [card.name])[0][0], tombstones.last_buried(tx, "model", card.name) + 1)
    while _taken(card, staged, version_folder(folders, card.name, version)):
        version += 1
    card = card.model_copy(update={"version": version, "created": tx.now})
    _publish(staged, version_folder(folders, card.name, version), card)
    tx.execute(_INSERT, [card.name, version, card.id, card.model_dump_json(), card.job, tx.now])
    tx.event(f"model:{card.name}", "model.created", {"model": card.ref, "id": card.id, "job": card.job})
    return card


def version_folder(folders: Folders, name: str, version: int) -> Path:
    return folders.models / name / f"v{version}"


def served_card(
    workspace: Workspace,
    name: str,
    endpoint: Endpoint,
    *,
    task: str | None,
    license: str | None,  # noqa: A002 - as cards call it
) -> ModelCard:
    """The card of a version that others serve, to be registered. Touches no network.

    Any difference makes another version, also a price or a key's name: money is counted and sent by them. Raises
    INVALID for a malformed name, CONFLICT for a use case's, NOT_FOUND for an unknown task.
    """
    check_name("model", name)
    check_free(workspace.database, name)
    if task is not None:
        find_task(task)
    facts = json.dumps([endpoint.model_dump(), task, license], sort_keys=True)
    identity = f"endpoint-{hashlib.sha256(facts.encode()).hexdigest()}"
    return ModelCard(name=name, id=identity, task=task, method=SERVED, endpoint=endpoint, license=license)


def commands_needed(endpoint: Endpoint, private_hosts: Collection[str] = ()) -> tuple[str, ...]:
    """Commands that a person must still run before the endpoint can be called; DATASET is what will be sent there."""
    commands = []
    try:
        hosts.check_url(endpoint.base_url, private_hosts)
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


def _taken(card: ModelCard, staged: Path | None, target: Path) -> bool:
    """Whether another model lies there whose row the catalog lost. Our own leftovers do not count."""
    manifest = target / sealed.MANIFEST
    if manifest.is_file():
        return staged is None or manifest.read_bytes() != (staged / sealed.MANIFEST).read_bytes()
    return (target / sealed.CARD).is_file() and card.id not in (target / sealed.CARD).read_text()


def _publish(staged: Path | None, target: Path, card: ModelCard) -> None:
    """Put the files in place in one step, for good. Leftovers of a registration that was not committed are replaced."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    for leftover in (temporary, target):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        make_folder(target.parent)
        temporary.mkdir()
        for path in sorted(staged.iterdir()) if staged else ():
            os.link(path, temporary / path.name)
        write_durably(temporary / sealed.CARD, json.dumps(card.model_dump(), indent=1).encode())  # and all names
        temporary.rename(target)
        sync_folder(target.parent)
    except BaseException:  # a full disk, say
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _behind_alias(database: Database, ref: ModelRef) -> ModelRef:
    row = database.read_one(_ALIAS, [ref.name, ref.alias])
    if row is None:
        use_cases = [name for (name,) in database.read(_USE_CASES)]
        if ref.name not in use_cases:
            raise unknown("use case", ref.name, use_cases, next=[Call("get_status", {}, "for all, or define_use_case")])
        aliases, asked = [alias for (alias,) in database.read(_ALIASES_OF, [ref.name])], str(ref.alias)
        near = [alias for alias in aliases if alias.startswith(asked)] or near_names(asked, aliases, 1)
        meant = f"; did you mean '{ref.name}@{near[0]}'?" if near else "."
        raise SpeciateError(
            Code.NOT_FOUND,
            f"No model is behind '{ref}'{meant}",
            next=[Call("get_status", {"use_case": ref.name}, "; promote_model or specialize put a model there")],
        )
    return model_ref(row[0])


def _no_version(database: Database, ref: ModelRef) -> SpeciateError:
    known = names(database)
    if ref.name in known:
        newest = versions(database, ref.name)[-1].version
        return SpeciateError(
            Code.NOT_FOUND,
            f"The model {ref.name!r} has no version {ref.version}; its newest is v{newest}.",
            f"Use {ref.name!r} for the newest.",
        )
    advice = f"Call train_model or specialize to make one; answers in a dataset's column are named 'column:{ref.name}'."
    return unknown("model", ref.name, known, advice)
