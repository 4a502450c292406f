"""All that is known of a model here: its versions, where they come from, how good they were found, who serves by them,
and whether their files are still what was sealed."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from speciate.errors import SpeciateError
from speciate.evaluation.report import Report
from speciate.models import known, registry, sealed
from speciate.models import signature as signing
from speciate.models.card import Card
from speciate.models.fetching import PUBLISHED
from speciate.models.registry import ModelVersion
from speciate.production import model_card
from speciate.production.provider import Provider, provider
from speciate.refs import model_ref
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_ALIASES = "SELECT use_case || '@' || alias, model FROM aliases ORDER BY 1"
_EVALUATIONS = (
    "SELECT id, report FROM evaluations WHERE contains(',' || models || ',', ?) ORDER BY created DESC LIMIT 20"
)
_DATASET = "SELECT parents, operation FROM dataset_versions WHERE name = ? AND version = ?"
_DEEPEST = 16
_README, _LONGEST = "README.md", 20_000


class Judged(NamedTuple):
    """How one evaluation found a version, by its main metric."""

    evaluation: str
    dataset: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    n: int


class Trust(NamedTuple):
    """`intact`: whether every file has the hash that was sealed; None where there are no files here."""

    id: str
    intact: bool | None
    problem: str | None
    source: str
    revision: str | None
    set_aside: int
    license: str | None
    signature: signing.State
    signed_by: str | None
    """The file of the key, where it is one that the settings name."""


class Dossier(NamedTuple):
    versions: tuple[Card, ...]
    shown: Card
    """The version that the rest is about."""
    aliases: dict[str, str]
    lineage: tuple[str, ...]
    """From the version to what it was made from: models first, then its dataset and that one's parents."""
    evaluations: tuple[Judged, ...]
    trust: Trust
    provider: Provider | None
    """Where others serve it: whether that is still what it was."""
    access: known.Access
    card: str
    """Ours, in Markdown."""
    readme: str | None
    """Its publisher's: foreign text."""


def dossier(workspace: Workspace, model: str) -> Dossier:
    """Raises what `registry.resolve` raises."""
    version = registry.resolve(workspace.database, workspace.folders, model)
    card, database = version.card, workspace.database
    own = tuple(registry.versions(database, card.name)) if card.version else (card,)
    evaluations = tuple(_judged(database, version.ref))
    aliases = {alias: behind for alias, behind in database.read(_ALIASES) if model_ref(behind).name == card.name}
    lineage = tuple(_lineage(database, card))
    trust = _trust(version, workspace)
    return Dossier(
        versions=own,
        shown=card,
        aliases=aliases,
        lineage=lineage,
        evaluations=evaluations,
        trust=trust,
        provider=provider(database, card.endpoint, version.ref) if card.endpoint else None,
        access=known.access({"ref": version.ref, "format": None}, known.Here.now(workspace)),
        card=model_card.text(card, evaluations, lineage, trust.source),
        readme=_readme(version),
    )


def _judged(database: Database, ref: str) -> list[Judged]:
    found = []
    for name, text in database.read(_EVALUATIONS, [f",{ref},"]):
        report = Report.model_validate_json(text)
        found += [
            Judged(name, report.dataset, row.metric, row.value, row.interval, row.n)
            for row in report.leaderboard
            if row.model == ref
        ]
    return found


def _lineage(database: Database, card: Card) -> list[str]:
    """Models, nearest first: of a merge its parents, then teachers, then what they began with. Then the data of all of
    them that are no further away than a parent, and what was replayed."""
    found: list[str] = []
    left = [*card.parents, *card.teachers, *([card.base_model] if card.base_model else [])]
    data = [card.dataset, *card.beside]
    while left and len(found) < _DEEPEST:
        name = left.pop(0)
        if name in found:
            continue
        found.append(name)
        ref = model_ref(name)
        before = [each for each in registry.versions(database, ref.name) if each.version == ref.version]
        if not ref.source and before:
            left += [*before[0].parents, *([before[0].base_model] if before[0].base_model else [])]
            data += [before[0].dataset] if name in card.parents else []
    known = [each for dataset in data for each in _datasets(database, dataset)]
    return [*found, *dict.fromkeys(known)]


def _datasets(database: Database, dataset: str | None) -> list[str]:
    """The version that was learned from, and what it was made from, nearest first."""
    found: list[str] = []
    left = [dataset] if dataset else []
    while left and len(found) < _DEEPEST:
        ref = left.pop(0).partition(":")[0]
        if ref in found:
            continue
        found.append(ref)
        name, _, version = ref.partition("@v")
        for parents, _operation in database.read(_DATASET, [name, int(version or 0)]):
            left += json.loads(parents)
    return found


def _trust(version: ModelVersion, workspace: Workspace) -> Trust:
    card, intact, problem = version.card, None, None
    if version.place is not None and card.version:
        try:
            intact = sealed.check(version.place) == card.id
            problem = None if intact else "The folder holds another model than the one that was registered."
        except SpeciateError as error:
            intact, problem = False, error.message
    recipe: dict[str, Any] = card.recipe if card.method == PUBLISHED else {}
    made = f"job {card.job}" if card.job else card.method
    return Trust(
        id=card.id, intact=intact, problem=problem, source=str(recipe.get("source") or made),
        revision=recipe.get("revision"), set_aside=len(recipe.get("set_aside", ())), license=card.license,
        **_signed(version, workspace),
    )  # fmt: skip


def _signed(version: ModelVersion, workspace: Workspace) -> dict[str, Any]:
    if version.place is None or not version.card.version:
        return {"signature": "none", "signed_by": None}
    found = signing.look(version.place, workspace.settings.trust.keys(workspace.folders.root))
    return {"signature": found.state, "signed_by": found.signer or found.key}


def _readme(version: ModelVersion) -> str | None:
    if version.place is None or not (version.place / _README).is_file():
        return None
    with (version.place / _README).open(errors="replace") as file:
        return file.read(_LONGEST)
