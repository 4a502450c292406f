"""All that is known of a model here: its versions, where they come from, how good they were found, who serves by them,
and whether their files are still what was sealed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.datasets.exports.card import escape_markdown
from speciate.errors import SpeciateError
from speciate.evaluation.endpoints import endpoint_history
from speciate.evaluation.reports.report import Report
from speciate.models import registry, sealed, signature
from speciate.models.endpoints import Endpoint
from speciate.models.fetch import PUBLISHED
from speciate.models.model_card import ModelCard, Recipe
from speciate.models.registry import ModelVersion
from speciate.models.search import known_models
from speciate.refs import model_ref
from speciate.settings import in_force
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_ALIASES = "SELECT use_case || '@' || alias, model FROM aliases ORDER BY 1"
_EVALUATIONS = (
    "SELECT id, report FROM evaluations WHERE contains(',' || models || ',', ?) ORDER BY created DESC LIMIT 20"
)
_EVALUATION_TIMES = "SELECT id, models, created FROM evaluations ORDER BY created DESC"
_DATASET = "SELECT parents, operation FROM dataset_versions WHERE name = ? AND version = ?"
_DEEPEST = 16
_README, _LONGEST, _SHOWN = "README.md", 200_000, 6_000
"""Bytes of a publisher's card that are read, and characters that are shown."""
_FENCE = re.compile(r"(`{3,}|~{3,})")


class EvaluationResult(NamedTuple):
    """How one evaluation found a version, by its main metric."""

    evaluation: str
    dataset: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    n: int
    judged_split: str | None = None
    """Where it is no test split."""


class Trust(NamedTuple):
    """`intact`: whether every file has the hash that was sealed; None where there are no files here."""

    id: str
    intact: bool | None
    problem: str | None
    source: str
    revision: str | None
    set_aside: int
    license: str | None
    signature: signature.State
    signed_by: str | None
    """The file of the key, where it is one that the settings name."""


class Provider(NamedTuple):
    served: tuple[str, ...]
    """What it says that it serves, as it was heard last."""
    checked: float | None
    """When it was asked the pinned questions last; None: never."""
    self_disagreement: float | None
    """The share of them that it then answered in two ways."""
    changed: float | None
    """When it was last seen to be another model."""
    why: tuple[str, ...]
    may_not_hold: tuple[str, ...]
    """Evaluations from before, the newest first."""
    check: str
    """How it is asked again."""


class ModelReport(NamedTuple):
    versions: tuple[ModelCard, ...]
    shown: ModelCard
    """The version that the rest is about."""
    aliases: dict[str, str]
    lineage: tuple[str, ...]
    """From the version to what it was made from: models first, then its dataset and that one's parents."""
    evaluations: tuple[EvaluationResult, ...]
    trust: Trust
    provider: Provider | None
    """Where others serve it: whether that is still what it was."""
    access: known_models.Access
    card: str
    """Ours, in Markdown."""
    readme: str | None
    """The publisher's README: foreign text."""


def model_report(workspace: Workspace, model: str) -> ModelReport:
    """Raises what `registry.resolve` raises."""
    version = registry.resolve(workspace.database, workspace.folders, model)
    card, database = version.card, workspace.database
    own = tuple(registry.versions(database, card.name)) if card.version else (card,)
    evaluations = tuple(_evaluation_results(database, version.ref))
    aliases = {alias: behind for alias, behind in database.read(_ALIASES) if model_ref(behind).name == card.name}
    lineage = tuple(_lineage(database, card))
    trust = _trust(version, workspace)
    return ModelReport(
        versions=own,
        shown=card,
        aliases=aliases,
        lineage=lineage,
        evaluations=evaluations,
        trust=trust,
        provider=provider_state(database, card.endpoint, version.ref) if card.endpoint else None,
        access=known_models.access({"ref": version.ref, "format": None}, known_models.AccessContext.now(workspace)),
        card=model_card_text(card, evaluations, lineage, trust.source),
        readme=_readme(version),
    )


def _evaluation_results(database: Database, ref: str) -> list[EvaluationResult]:
    found = []
    for name, text in database.read(_EVALUATIONS, [f",{ref},"]):
        report = Report.model_validate_json(text)
        found += [
            EvaluationResult(name, report.dataset, row.metric, row.value, row.interval, row.n, report.judged_split)
            for row in report.leaderboard
            if row.model == ref
        ]
    return found


def _lineage(database: Database, card: ModelCard) -> list[str]:
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
    recipe: Recipe = card.recipe if card.method == PUBLISHED else {}
    made = f"job {card.job}" if card.job else card.method
    signed = _signature_state(version, workspace)
    return Trust(
        id=card.id, intact=intact, problem=problem, source=str(recipe.get("source") or made),
        revision=recipe.get("revision"), set_aside=len(recipe.get("set_aside", ())), license=card.license,
        signature=signed.state, signed_by=signed.by,
    )  # fmt: skip


class _SignatureState(NamedTuple):
    state: signature.State
    by: str | None


def _signature_state(version: ModelVersion, workspace: Workspace) -> _SignatureState:
    if version.place is None or not version.card.version:
        return _SignatureState("none", None)
    found = signature.verify(version.place, in_force(workspace.folders.root).trust.keys(workspace.folders.root))
    return _SignatureState(found.state, found.signer or found.key)


def _readme(version: ModelVersion) -> str | None:
    """The publisher's card without its programs, which nobody reads to choose a model; at most `_SHOWN` characters."""
    if version.place is None or not (version.place / _README).is_file():
        return None
    with (version.place / _README).open(errors="replace") as file:
        text = _without_programs(file.read(_LONGEST))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[the first {_SHOWN:,} of {len(text):,} characters]"


def _without_programs(text: str) -> str:
    """Blocks between fences as `[code]`; one that is not closed goes to the end, as Markdown has it."""
    kept: list[str] = []
    fence = ""
    for line in text.split("\n"):
        if fence:
            fence = "" if line.startswith(fence) and not line.strip(fence[0] + " \t") else fence
        elif opened := _FENCE.match(line):
            fence = opened[1]
            kept.append("[code]")
        else:
            kept.append(line)
    return "\n".join(kept)


_UNKNOWN = "not known"
_OBLIGATIONS = {
    "Apache-2.0": "Keep the licence and notices; say what was changed.",
    "MIT": "Keep the licence and the notice.",
    "BSD-3-Clause": "Keep the licence and the notice; do not use the makers' names to promote.",
    "CC-BY-4.0": "Name the makers and what was changed.",
    "CC-BY-SA-4.0": "Name the makers; what is made from it goes on under the same licence.",
    "CC-BY-NC-4.0": "Not for commercial use; name the makers.",
    "CC-BY-NC-SA-4.0": "Not for commercial use; name the makers; pass on under the same licence.",
    "GPL-3.0-only": "What is made from it and given away goes on under the same licence, with its source.",
    "AGPL-3.0-only": "As the GPL, also for what is only served.",
    "LicenseRef-gemma": "Its own terms of use hold, also for what is made from it.",
    "LicenseRef-llama3": "Its own terms hold; name it in what is made from it.",
}
"""License -> what it obliges to, in a sentence; no legal advice."""


def model_card_text(
    card: ModelCard, evaluations: Sequence[EvaluationResult], lineage: Sequence[str], source: str
) -> str:
    """The card of a version as Markdown, from facts alone, with the known sections of Mitchell et al. 2019 ("Model
    Cards for Model Reporting")."""
    lines = [f"# {card.ref}", "", "## What it is", ""]
    facts = {
        "task": card.task, "reads": card.modality, "method": card.method, "made from": card.base_model,
        "learned numbers": f"{card.parameters:,}" if card.parameters is not None else None,
        "bytes": f"{card.bytes:,}" if card.bytes is not None else None, "source": source,
        "trained for": card.use_case, "id (sha256)": card.id or None,
    }  # fmt: skip
    lines += [f"- {name}: {value}" for name, value in facts.items() if value is not None]
    lines += _member_lines(card.recipe.get("members", ()))
    lines += ["", "## How good it was found", ""]
    lines += [_evaluation_line(each) for each in evaluations] or [
        "No evaluation here holds it: evaluate_models makes one."
    ]
    if card.metrics:
        said = ", ".join(f"{name} {value:.4g}" for name, value in sorted(card.metrics.items()))
        nested = (card.recipe.get("parameters") or {}).get("thorough")
        how = (
            "By rows that had no part in the choice" if nested else "On the data that chose it, so slightly optimistic"
        )
        lines += ["", f"{how}: {said}."]
    if record := card.recipe.get("export"):
        lines += ["", "## What its export was measured by", "", *_export_lines(record)]
    lines += ["", "## What it learned from", ""]
    lines += [f"- {each}" for each in lineage] or [f"Its data are {_UNKNOWN} here."]
    lines += ["", "## Licence", "", _license(card)]
    lines += ["", "## Intended use and limits", "", *_limits(card)]
    return "\n".join(lines) + "\n"


def _member_lines(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """The learners that the model answers by, and their weights."""
    if not members:
        return []
    told = [
        f"{each['learner']} on {escape_markdown(each['reads'])}" + (f": {each['settings']}" if each["settings"] else "")
        for each in members
    ]
    if len(told) > 1:
        told = [f"{each['weight']:.2f} {what}" for each, what in zip(members, told, strict=True)]
    first = [f"A weighted mean of {len(told)} learners:", ""] if len(told) > 1 else []
    return ["", "## What it is made of", "", *first, *(f"- {each}" for each in told)]


def _export_lines(record: Mapping[str, Any]) -> list[str]:
    said = f"- Made from {record['parent']}; {record['how']}."
    return [said, *(f"- {gate['name']}: {gate['outcome']}, {gate['reason']}" for gate in record["gates"])]


def _evaluation_line(found: EvaluationResult) -> str:
    value = "no value" if found.value is None else f"{found.value:.4g}"
    interval = f" (95 %: {found.interval[0]:.4g} to {found.interval[1]:.4g})" if found.interval else ""
    return f"- {found.metric} {value}{interval} on {found.n} examples of {found.dataset}, {found.evaluation}"


def _license(card: ModelCard) -> str:
    if card.license is None:
        return f"The licence is {_UNKNOWN}. Where a licence is wanted, that counts as none."
    return f"{card.license}. {_OBLIGATIONS.get(card.license, 'Read its terms before use.')}"


def _part_names(parts: Sequence[str]) -> str:
    """NAME.MODALITY as users call it."""
    return ", ".join(escape_markdown(name.rpartition(".")[0]) for name in parts)


def _limits(card: ModelCard) -> list[str]:
    said = []
    if card.labels:
        shown = ", ".join(escape_markdown(each) for each in card.labels[:20]) + (
            " ..." if len(card.labels) > 20 else ""
        )
        said.append(f"- It answers with one of {len(card.labels)} labels ({shown}), whatever it is shown.")
    if card.inputs:
        said.append(f"- It needs {', '.join(escape_markdown(each) for each in card.inputs)} of each example.")
    if card.parts:
        beside = (
            f"; what else a row may bring ({_part_names(card.ignored_parts)}) is passed over"
            if card.ignored_parts
            else ""
        )
        said.append(f"- Of a row it reads {_part_names(card.parts)}{beside}.")
    if card.dataset:
        said.append(f"- It is judged for data like {card.dataset}; for other data nothing is known.")
    else:
        said.append("- Nothing was measured here on data of yours, unless the list above says so.")
    return said


def provider_state(database: Database, endpoint: Endpoint, ref: str) -> Provider:
    """How constant the endpoint behind the model `ref` is: its last check with the pinned questions, and the
    evaluations that are older than its last change."""
    known = endpoint_history.history_of(database, endpoint)
    change = known.changes[0] if known.changes else None
    rows = database.read(_EVALUATION_TIMES) if change else []
    return Provider(
        served=known.served,
        checked=known.fingerprint.asked if known.fingerprint else None,
        self_disagreement=round(known.fingerprint.disagreement, 3) if known.fingerprint else None,
        changed=change.at if change else None,
        why=change.why if change else (),
        may_not_hold=tuple(
            name for name, models, created in rows if change and created < change.at and ref in models.split(",")
        ),
        check=f"speciate fingerprint {ref}",
    )


def provider_alerts(database: Database) -> list[str]:
    """A line for each model that was judged before its endpoint changed: no evaluation has asked it since."""
    newest: dict[str, endpoint_history.Change] = {}
    for change in endpoint_history.changes(database):
        newest.setdefault(change.identity, change)
    if not newest:
        return []
    judged: dict[str, float] = {}
    for _, models, created in database.read(_EVALUATION_TIMES):
        for ref in models.split(","):
            judged.setdefault(ref, created)
    refs = _served(database, judged)
    return [
        f"{ref}: what {each.host} serves as {each.model!r} changed: {'; '.join(each.why)}. Evaluations from before may "
        f"not hold: evaluate_models(models=[{ref!r}], ...) asks it again."
        for ref, identity in refs.items()
        if (each := newest.get(identity)) is not None and judged[ref] < each.at
    ]


def _served(database: Database, judged: dict[str, float]) -> dict[str, str]:
    """Those of these refs that are of endpoints -> identity of the endpoint."""
    found = {}
    for ref in judged:
        endpoint = registry.endpoint_of(database, ref)
        if endpoint is not None:
            found[ref] = endpoint.identity
    return found
