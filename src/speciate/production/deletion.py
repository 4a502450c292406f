"""Deleting versions that nothing needs any more: what still needs them, the question to a person, the deed.

What DESIGN's promise 11 asks for decides what is needed: every answer that production gave leads to a model version,
its job and its data. So a model that serves or ever served stays, and a dataset version stays as long as a model that
learned from it. That another version came from it is provenance alone, and no reason to stay: the later one has its
own rows, and how they came to be is handed down to it. Catalog rows go at once, with the number kept taken; then `gc`
deletes the files that no other version needs, the run folders that made them, and the backups that still have the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from speciate import usecases
from speciate.datasets import versions
from speciate.datasets.ancestry import hand_down
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, unknown
from speciate.models import registry
from speciate.models.card import Card
from speciate.production import approvals, consents, mentions
from speciate.production.approvals import Approval
from speciate.production.forget import enqueue
from speciate.production.tidy import KIND as GC
from speciate.production.tidy import named
from speciate.refs import dataset_ref, model_ref
from speciate.workspace.database import Transaction
from speciate.workspace.tombstones import Noun, bury
from speciate.workspace.workspace import Workspace

_TAGS = "SELECT tag FROM dataset_tags WHERE name = ? AND version = ? ORDER BY tag"
_CARDS = "SELECT card FROM model_versions ORDER BY name, version"
_ALIASES = "SELECT use_case || '@' || alias, model FROM aliases ORDER BY ALL"
_SERVED = "SELECT DISTINCT after, use_case FROM audit WHERE after IS NOT NULL ORDER BY ALL"
_STANDING = """
SELECT decisions.evaluation, evaluations.dataset, decisions.candidate, decisions.use_case
FROM decisions JOIN evaluations ON evaluations.id = decisions.evaluation
JOIN aliases ON aliases.model = decisions.candidate AND aliases.use_case = decisions.use_case
ORDER BY decisions.created
"""
_DELETE_DATASET = "DELETE FROM dataset_versions WHERE name = ? AND version = ?"
_LEFT = "SELECT 1 FROM dataset_versions WHERE name = ? LIMIT 1"
_DELETE_MODEL = "DELETE FROM model_versions WHERE name = ? AND version = ?"
_MANIFESTS = "SELECT manifest FROM dataset_versions"
_MADE = """
SELECT jobs.id, jobs.attempt FROM {table} made JOIN jobs ON jobs.id = made.job WHERE made.name = ? AND made.version = ?
"""
_MODEL_PREFIX = "model:"


class Doomed(NamedTuple):
    """Versions of one name."""

    noun: Noun
    name: str
    numbers: tuple[int, ...]

    @property
    def refs(self) -> list[str]:
        return [f"{self.name}@v{number}" for number in self.numbers]


class Need(NamedTuple):
    """Why a version stays, and what would free it."""

    what: str
    recovery: str


class Needed(NamedTuple):
    ref: str
    """`name@v3`, or `name` for all versions."""
    by: str | None
    """The version that was made from it; None where it is needed for another reason."""
    need: Need


def resolve(workspace: Workspace, ref: str) -> Doomed:
    """`name@v3`, or `name` for all versions, of a dataset or a model. Raises NOT_FOUND, and INVALID where both have it.

    `model:NAME` says that a model is meant.
    """
    database = workspace.database
    text = ref.removeprefix(_MODEL_PREFIX)
    name = text.partition("@")[0].partition(":")[0]
    datasets, models = versions.names(database), registry.names(database)
    if name in models and (ref.startswith(_MODEL_PREFIX) or name not in datasets):
        model = model_ref(text)
        if model.version is None:
            return Doomed("model", name, tuple(card.version for card in registry.versions(database, name)))
        return Doomed("model", name, (registry.resolve(database, workspace.folders, model).card.version,))
    if name not in datasets:
        raise unknown("dataset or model", text, [*datasets, *models], "Call describe_dataset() for the datasets.")
    if name in models:
        raise SpeciateError(
            Code.INVALID,
            f"{name!r} is a dataset and a model.",
            f"Call again with ref='{_MODEL_PREFIX}{text}' for the model, or rename one of them.",
        )
    wanted = dataset_ref(text)
    if wanted.split:
        raise SpeciateError(
            Code.INVALID, f"{text!r} is a split; versions are deleted whole.", "Call again without the split."
        )
    if wanted.version is None and wanted.tag is None:
        rows = database.read("SELECT version FROM dataset_versions WHERE name = ? ORDER BY version", [name])
        return Doomed("dataset", name, tuple(number for (number,) in rows))
    return Doomed("dataset", name, (versions.resolve(database, wanted).version,))


def ask(tx: Transaction, doomed: Doomed, hours: float) -> Approval:
    """Ask a person. Raises REFUSED with everything that still needs one of the versions, CONFLICT for jobs at work."""
    check(tx, doomed)
    arguments = {"noun": doomed.noun, "name": doomed.name, "versions": list(doomed.numbers)}
    evidence = {"deletes": doomed.refs, "also": "Their files and older backups follow. It cannot be undone."}
    return approvals.request(tx, "delete", arguments, evidence, subject=f"{doomed.noun}:{doomed.name}", hours=hours)


def apply_approved(tx: Transaction, arguments: dict[str, Any], by: str, *, surplus: bool = False) -> dict[str, Any]:
    """What `approvals.decide` calls once a person said yes: the same checks again, then the deed. `surplus`: nobody
    did, the settings say so; then backups from before stay."""
    doomed = Doomed(arguments["noun"], arguments["name"], tuple(arguments["versions"]))
    check(tx, doomed)
    files = _files(tx, doomed)
    if doomed.noun == "dataset":
        hand_down(tx, doomed.refs)
    for number in doomed.numbers:
        tx.execute(_DELETE_DATASET if doomed.noun == "dataset" else _DELETE_MODEL, [doomed.name, number])
    if doomed.noun == "dataset" and not tx.execute(_LEFT, [doomed.name]):
        consents.end_all(tx, doomed.name, by)
    bury(tx, doomed.noun, doomed.name, doomed.numbers)
    tx.event(f"{doomed.noun}:{doomed.name}", f"{doomed.noun}.deleted", {"versions": list(doomed.numbers), "by": by})
    spec = {"doomed": files, **({"surplus": True} if surplus else {})}
    return {"deleted": doomed.refs, "job": enqueue(tx, GC, spec)}


def _files(tx: Transaction, doomed: Doomed) -> list[str]:
    """What only these versions need, relative to the root: sealed files or weights, and the runs that made them."""
    table = "dataset_versions" if doomed.noun == "dataset" else "model_versions"
    made = [
        (job, attempts)
        for number in doomed.numbers
        for job, attempts in tx.execute(_MADE.format(table=table), [doomed.name, number])
    ]
    runs = [f"runs/{job}.{attempt}" for job, attempts in made for attempt in range(1, attempts + 1)]
    if doomed.noun == "model":
        return [*runs, *(f"models/{doomed.name}/v{number}" for number in doomed.numbers)]
    manifests = [Manifest.model_validate_json(text) for (text,) in tx.execute(_MANIFESTS)]
    gone = [each for each in manifests if each.name == doomed.name and each.version in doomed.numbers]
    return [*runs, *sorted(named(gone) - named(each for each in manifests if each not in gone))]


def check(tx: Transaction, doomed: Doomed) -> None:
    """Raise REFUSED where something still needs one of the versions, CONFLICT where a job works with them."""
    found = needs(tx, doomed)
    if found:
        raise SpeciateError(
            Code.REFUSED,
            f"{', '.join(doomed.refs)} cannot be deleted: " + "; ".join(need.what for need in found) + ".",
            found[0].recovery,
        )
    mentions.refuse_busy(tx, [doomed.name])


def needs(tx: Transaction, doomed: Doomed) -> list[Need]:
    """Everything that must go, or move, first."""
    return _of_datasets(tx, doomed) if doomed.noun == "dataset" else _of_models(tx, doomed)


def _of_datasets(tx: Transaction, doomed: Doomed) -> list[Need]:
    found = [
        Need(f"{doomed.name}@v{number} has the tag {tag!r}", _call("untag", doomed.name, tag=tag))
        for number in doomed.numbers
        for (tag,) in tx.execute(_TAGS, [doomed.name, number])
    ]
    for card in _cards(tx):
        for learned in (card.dataset, *card.beside):
            if (learned or "").partition(":")[0] in doomed.refs:
                found.append(Need(f"{card.ref} was trained on {learned}", _call("delete", card.ref)))
    for evaluation, dataset, candidate, use_case in tx.execute(_STANDING):
        if dataset.partition(":")[0] in doomed.refs:
            why = f"{evaluation} on it is why {candidate} serves {use_case}"
            found.append(Need(why, f"Promote another model for {use_case!r} first: specialize or promote_model."))
    return found + _suites(tx, doomed)


def _suites(tx: Transaction, doomed: Doomed) -> list[Need]:
    """A suite without a version means the newest: it needs that one."""
    newest = tx.execute("SELECT max(version) FROM dataset_versions WHERE name = ?", [doomed.name])[0][0]
    tags = {tag for number in doomed.numbers for (tag,) in tx.execute(_TAGS, [doomed.name, number])}
    found = []
    for name in usecases.names(tx):
        for suite, text in usecases.get(tx, name).suites.model_dump(exclude_none=True).items():
            ref = dataset_ref(text)
            same = ref.tag in tags if ref.tag else (ref.version or newest) in doomed.numbers
            if ref.name == doomed.name and same:
                how = f"Call define_use_case(name={name!r}, suites=...) with another {suite} suite."
                found.append(Need(f"it is the {suite} suite of {name}", how))
    return found


def _of_models(tx: Transaction, doomed: Doomed) -> list[Need]:
    named = {*doomed.refs, doomed.name}
    return list(dict.fromkeys(each.need for each in needed_models(tx) if each.ref in named and each.by not in named))


def needed_models(tx: Transaction) -> Iterator[Needed]:
    """Every model that something needs, all at once: whoever asks of many versions asks this once."""
    for alias, model in tx.execute(_ALIASES):
        how = f"Promote another model for {alias.partition('@')[0]!r} first."
        yield Needed(model, None, Need(f"{model} is {alias}", how))
    for model, use_case in tx.execute(_SERVED):
        why = f"{model} served {use_case}, and every answer of production must stay traceable"
        how = "It stays; delete other versions, or call manage_data(action='purge')."
        yield Needed(model, None, Need(why, how))
    for card in _cards(tx):
        need = Need(f"{card.ref} was made from it", _call("delete", card.ref))
        yield from (Needed(text, card.ref, need) for text in dict.fromkeys(_origins(card)) if "@v" in text)
    for name in usecases.names(tx):
        if incumbent := usecases.get(tx, name).incumbent:
            how = f"Call define_use_case(name={name!r}) with another incumbent."
            yield Needed(incumbent, None, Need(f"it is the incumbent of {name}", how))


def _origins(card: Card) -> Sequence[str]:
    return [card.base_model or "", *mentions.strings(card.recipe)]


def _cards(tx: Transaction) -> list[Card]:
    return [Card.model_validate_json(card) for (card,) in tx.execute(_CARDS)]


def _call(action: str, ref: str, **more: str) -> str:
    rest = "".join(f", {name}={value!r}" for name, value in more.items())
    return f"Call manage_data(action={action!r}, ref={ref!r}{rest})."
