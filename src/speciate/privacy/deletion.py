"""Deleting versions that nothing needs any more: what still needs them, the question to a person, the deed.

What DESIGN's promise 11 asks for decides what is needed: every answer that production gave leads to a model version,
its job and its data. So a model that serves or ever served stays, and a dataset version stays as long as a model that
learned from it. That another version came from it is provenance alone, and no reason to stay: the later one has its
own rows, and how they came to be is handed down to it. Catalog rows go at once, with the number kept taken; then `gc`
deletes the files that no other version needs, the run folders that made them, and the backups that still have the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple, TypedDict

from speciate import use_cases
from speciate.datasets import versions
from speciate.datasets.versions import Manifest, keep_ancestry
from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.governance import approvals, consents
from speciate.governance.approvals import Approval, ApprovalArguments
from speciate.jobs.store import enqueue_job
from speciate.models import registry
from speciate.privacy import garbage, gc, references
from speciate.privacy.gc import KIND as GC
from speciate.privacy.gc import GarbageSurvey, SurplusVersions, needed_files
from speciate.refs import JobId, dataset_ref, model_ref
from speciate.workspace.database import Transaction
from speciate.workspace.tombstones import Noun, bury_versions
from speciate.workspace.workspace import Workspace

_TAGS = "SELECT tag FROM dataset_tags WHERE name = ? AND version = ? ORDER BY tag"
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
ACTOR = "retention"


class VersionsToDelete(NamedTuple):
    """Versions of one name."""

    noun: Noun
    name: str
    numbers: tuple[int, ...]

    @property
    def refs(self) -> list[str]:
        return [f"{self.name}@v{number}" for number in self.numbers]


class Blocker(NamedTuple):
    """Why a version stays, and what would free it."""

    what: str
    recovery: str
    stays: bool = False
    """Nothing frees the version, so no other recovery is worth a call."""


class NeededVersion(NamedTuple):
    ref: str
    """`name@v3`, or `name` for all versions."""
    by: str | None
    """The version that was made from it; None where it is needed for another reason."""
    need: Blocker


def resolve_versions(workspace: Workspace, ref: str) -> VersionsToDelete:
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
            return VersionsToDelete("model", name, tuple(card.version for card in registry.versions(database, name)))
        return VersionsToDelete("model", name, (registry.resolve(database, workspace.folders, model).card.version,))
    if name not in datasets:
        raise unknown(
            "dataset or model", text, [*datasets, *models], next=[Call("describe_dataset", {}, "for the datasets")]
        )
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
        return VersionsToDelete("dataset", name, tuple(number for (number,) in rows))
    return VersionsToDelete("dataset", name, (versions.resolve(database, wanted).version,))


def request_deletion(tx: Transaction, doomed: VersionsToDelete, hours: float) -> Approval:
    """Ask a person. Raises REFUSED with everything that still needs one of the versions, CONFLICT for jobs at work."""
    check_deletable(tx, doomed)
    arguments = {"noun": doomed.noun, "name": doomed.name, "versions": list(doomed.numbers)}
    evidence = {"deletes": doomed.refs, "also": "Their files and older backups follow. It cannot be undone."}
    return approvals.request(tx, "delete", arguments, evidence, subject=f"{doomed.noun}:{doomed.name}", hours=hours)


class StartedDeletion(TypedDict):
    deleted: list[str]
    job: JobId


def apply_approved(tx: Transaction, arguments: ApprovalArguments, by: str, *, surplus: bool = False) -> StartedDeletion:
    """What `approvals.decide` calls once a person said yes: the same checks again, then the deed. `surplus`: nobody
    did, the settings say so; then backups from before stay."""
    doomed = VersionsToDelete(arguments["noun"], arguments["name"], tuple(arguments["versions"]))
    check_deletable(tx, doomed)
    files = _files(tx, doomed)
    if doomed.noun == "dataset":
        keep_ancestry(tx, doomed.refs)
    for number in doomed.numbers:
        tx.execute(_DELETE_DATASET if doomed.noun == "dataset" else _DELETE_MODEL, [doomed.name, number])
    if doomed.noun == "dataset" and not tx.execute(_LEFT, [doomed.name]):
        consents.end_all(tx, doomed.name, by)
    bury_versions(tx, doomed.noun, doomed.name, doomed.numbers)
    tx.event(f"{doomed.noun}:{doomed.name}", f"{doomed.noun}.deleted", {"versions": list(doomed.numbers), "by": by})
    spec = {"doomed": files, **({"surplus": True} if surplus else {})}
    return {"deleted": doomed.refs, "job": enqueue_job(tx, GC, spec)}


def _files(tx: Transaction, doomed: VersionsToDelete) -> list[str]:
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
    return [*runs, *sorted(needed_files(gone) - needed_files(each for each in manifests if each not in gone))]


_PURGE = "To remove rows of a person everywhere, call manage_data(action='purge')."


def check_deletable(tx: Transaction, doomed: VersionsToDelete) -> None:
    """Raise REFUSED where something still needs one of the versions, CONFLICT where a job works with them."""
    found = blockers(tx, doomed)
    if found:
        raise SpeciateError(
            Code.REFUSED,
            f"{', '.join(doomed.refs)} cannot be deleted: " + "; ".join(need.what for need in found) + ".",
            next((need for need in found if need.stays), found[0]).recovery,
        )
    references.refuse_busy(tx, [doomed.name])


def blockers(tx: Transaction, doomed: VersionsToDelete) -> list[Blocker]:
    """Everything that must go, or move, first."""
    return _of_datasets(tx, doomed) if doomed.noun == "dataset" else _of_models(tx, doomed)


def _of_datasets(tx: Transaction, doomed: VersionsToDelete) -> list[Blocker]:
    found = [
        Blocker(f"{doomed.name}@v{number} has the tag {tag!r}", _call("untag", doomed.name, tag=tag))
        for number in doomed.numbers
        for (tag,) in tx.execute(_TAGS, [doomed.name, number])
    ]
    served = {model for model, _ in tx.execute(_SERVED)}
    for each in references.model_origins(tx):
        if not each.datasets.isdisjoint(doomed.refs):
            what = f"{each.card.ref} was trained on {', '.join(sorted(each.datasets.intersection(doomed.refs)))}"
            if each.card.ref in served:
                found.append(Blocker(f"{what} and served", f"It stays. {_PURGE}", stays=True))
            else:
                found.append(Blocker(what, _call("delete", each.card.ref)))
    for evaluation, dataset, candidate, use_case in tx.execute(_STANDING):
        if dataset.partition(":")[0] in doomed.refs:
            why = f"{evaluation} on it is why {candidate} serves {use_case}"
            found.append(Blocker(why, f"Promote another model for {use_case!r} first: specialize or promote_model."))
    return found + _suites(tx, doomed)


def _suites(tx: Transaction, doomed: VersionsToDelete) -> list[Blocker]:
    """A suite without a version means the newest: it needs that one."""
    newest = tx.execute("SELECT max(version) FROM dataset_versions WHERE name = ?", [doomed.name])[0][0]
    tags = {tag for number in doomed.numbers for (tag,) in tx.execute(_TAGS, [doomed.name, number])}
    found = []
    for name in use_cases.names(tx):
        for suite, text in use_cases.get(tx, name).suites.model_dump(exclude_none=True).items():
            ref = dataset_ref(text)
            same = ref.tag in tags if ref.tag else (ref.version or newest) in doomed.numbers
            if ref.name == doomed.name and same:
                how = f"Call define_use_case(name={name!r}, suites=...) with another {suite} suite."
                found.append(Blocker(f"it is the {suite} suite of {name}", how))
    return found


def _of_models(tx: Transaction, doomed: VersionsToDelete) -> list[Blocker]:
    named = {*doomed.refs, doomed.name}
    return list(dict.fromkeys(each.need for each in needed_models(tx) if each.ref in named and each.by not in named))


def needed_models(tx: Transaction) -> Iterator[NeededVersion]:
    """Every model that something needs, all at once, so that a caller with many versions reads once."""
    for alias, model in tx.execute(_ALIASES):
        how = f"Promote another model for {alias.partition('@')[0]!r} first."
        yield NeededVersion(model, None, Blocker(f"{model} is {alias}", how))
    for model, use_case in tx.execute(_SERVED):
        why = f"{model} served {use_case}, and every answer of production must stay traceable"
        yield NeededVersion(model, None, Blocker(why, f"It stays; delete other versions. {_PURGE}", stays=True))
    for each in references.model_origins(tx):
        ref = each.card.ref
        need = Blocker(f"{ref} was made from it", _call("delete", ref))
        yield from (NeededVersion(text, ref, need) for text in dict.fromkeys(each.made_from) if "@v" in text)
    for name in use_cases.names(tx):
        if incumbent := use_cases.get(tx, name).incumbent:
            how = f"Call define_use_case(name={name!r}) with another incumbent."
            yield NeededVersion(incumbent, None, Blocker(f"it is the incumbent of {name}", how))


def _call(action: str, ref: str, **more: str) -> str:
    rest = "".join(f", {name}={value!r}" for name, value in more.items())
    return f"Call manage_data(action={action!r}, ref={ref!r}{rest})."


_VERSIONS = "SELECT name, version FROM model_versions ORDER BY name, version"
_WANTED = """
SELECT candidate FROM decisions WHERE verdict = 'promote'
UNION SELECT arguments ->> 'model' FROM approvals WHERE state = 'pending' AND arguments ->> 'model' IS NOT NULL
UNION SELECT made.name || '@v' || made.version
FROM model_versions made JOIN jobs ON jobs.id = made.job JOIN jobs whole ON whole.id = jobs.parent
WHERE whole.state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')
"""
_UNFINISHED = """
SELECT spec || coalesce(plan, '') FROM jobs LEFT JOIN job_plans ON job_plans.job = jobs.id
WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')
"""


def surplus_versions(tx: Transaction, keep: int | None) -> list[VersionsToDelete]:
    """Model versions beyond the newest `keep` (`retention.keep_versions`) that nothing needs, by name.

    They go with the same refusals as at a person's request: versions that serve or ever served, origins of other
    versions and incumbents stay. So do versions that a decision lets into production, that a pending approval or an
    unfinished job names, and those of an unfinished composite. All reasons are read once for all versions: there may be
    thousands, and this blocks writers.
    """
    if keep is None:
        return []
    numbers: dict[str, list[int]] = {}
    for name, version in tx.execute(_VERSIONS):
        numbers.setdefault(name, []).append(version)
    if not any(len(found) > keep for found in numbers.values()):
        return []
    needed: dict[str, set[str | None]] = {ref: {None} for (ref,) in tx.execute(_WANTED)}
    for each in needed_models(tx):
        needed.setdefault(each.ref, set()).add(each.by)
    unfinished = "\n".join(text for (text,) in tx.execute(_UNFINISHED))
    found = []
    for name, known in numbers.items():
        may = (n for n in known[:-keep] if _may_go(f"{name}@v{n}", name, needed, unfinished))
        doomed = VersionsToDelete("model", name, tuple(may))
        if doomed.numbers and _is_deletable(tx, doomed):
            found.append(doomed)
    return found


def delete_surplus(tx: Transaction, keep: int | None) -> list[str]:
    """Delete them; their files follow by a job `gc` for each name. Their refs."""
    dropped = []
    for doomed in surplus_versions(tx, keep):
        arguments = {"noun": doomed.noun, "name": doomed.name, "versions": doomed.numbers}
        apply_approved(tx, arguments, ACTOR, surplus=True)
        dropped += doomed.refs
    return dropped


def survey_with_surplus(workspace: Workspace) -> GarbageSurvey:
    """What housekeeping would delete now, surplus versions included."""
    keep = workspace.settings.retention.keep_versions
    found = workspace.database.transact(lambda tx: surplus_versions(tx, keep))
    folders = workspace.folders.models
    sizes = [garbage.size(folders / doomed.name / f"v{number}") for doomed in found for number in doomed.numbers]
    surplus = SurplusVersions(refs=[ref for doomed in found for ref in doomed.refs], bytes=sum(sizes))
    return gc.survey(workspace).model_copy(update={"versions": surplus if found else None})


def _may_go(ref: str, name: str, needed: Mapping[str, Set[str | None]], unfinished: str) -> bool:
    """`needed`: version, or name for all of its versions -> who needs it. What a version says of itself is no need."""
    return ref not in unfinished and not {*needed.get(ref, ()), *needed.get(name, ())} - {ref}


def _is_deletable(tx: Transaction, doomed: VersionsToDelete) -> bool:
    """Whether the versions may be deleted, by the same check as where a person asks."""
    try:
        check_deletable(tx, doomed)
    except SpeciateError:
        return False
    return True
