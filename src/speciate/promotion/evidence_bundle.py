"""Bundles of evidence: what a decision rests on, signed, for somebody outside who trusts nothing here.

`verify_evidence.py`, one file of standard library beside the bundle, checks it offline. Rows are in it as digests
alone; rows of the audit that are about other use cases, or that name a place on this machine, as their hash. Where a
purge took rows away, nothing of them is here but their number.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate import use_cases
from speciate.datasets import version_rows, versions
from speciate.datasets.exports.card import licence, lineage
from speciate.environment import config_folder
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import decisions, judged_rows, suites
from speciate.evaluation.decisions import StoredDecision
from speciate.evaluation.judged_rows import RowPreimage
from speciate.evaluation.reports.report import Report, find_report
from speciate.governance import approval_keys, approvals, audit
from speciate.governance.evidence_key import EvidenceKey, evidence_key
from speciate.jobs.atomic_folder import check_free, hidden_folder_beside
from speciate.models import registry, sealed
from speciate.promotion import aliases, verify_evidence
from speciate.refs import dataset_ref
from speciate.tasks.example_targets import TARGET_OPTIONAL
from speciate.training import provenance
from speciate.use_cases import UseCase
from speciate.vocabulary import find_metric, find_task
from speciate.workspace.blobs import sync_folder, sync_tree
from speciate.workspace.filesystem import require_space
from speciate.workspace.workspace import Workspace

SCRIPT, ROWS = "verify_evidence.py", "rows.jsonl"
MOST_ROWS = 1_000_000
"""Judged rows of a bundle: the call answers within seconds."""
_OF_WORKSPACE = ("key_enroll", "key_revoke", "policy", "policies", "settings", "accept", "sign")
"""Rows of the audit about the whole workspace that are shown."""
_PLACE = re.compile(r"(?<![\w.:/\\-])(?:~|/[\w.@+~-]+)(?:/[\w.@+~-]+)+/?")
_HIDDEN = "[a place on the machine]"
_README = """\
A bundle of evidence by speciate: what was decided on a model, on which evidence, and by whom.

To check it, offline, in any Python from 3.9 on:

    python3 -I verify_evidence.py {name} --key FINGERPRINT

FINGERPRINT is of the key that signed. Ask the owner for it by another way than the one on which this came: on the
owner's machine, `speciate evidence key` shows it. Take verify_evidence.py from speciate's source or package, if you
can: a copy that comes with a bundle is only worth what its giver is worth.

evidence.json     the decision with gates and intervals, requirements, model, data, approvals (canonical JSON)
audit.jsonl       the trail of the workspace; rows about other matters as their hash
judged-*.txt      a line for each judged row: digests of its id, of the example and of all that the judgement read of it
signature.json    Ed25519, over the bytes of evidence.json, which holds the digests of all other files
"""


class EvidenceRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    path: Path
    """Absolute; nothing is there yet."""
    evaluation: str | None = None
    """Default: the one that production rests on."""
    rows: bool = False
    """Whether the judged rows leave, too, in a file of their own beside the bundle."""


class EvidenceReport(NamedTuple):
    bundle: Path
    key: str
    """Fingerprint, to be compared by another way."""
    decision: str
    candidate: str
    verdict: str
    in_production: bool
    bytes: int
    rows: int
    """Judged rows that the bundle has digests of."""
    notes: tuple[str, ...]


class JudgedMember(NamedTuple):
    """A suite as the bundle has it."""

    document: dict[str, Any]
    text: bytes | None
    clear: tuple[RowPreimage, ...]


class _Chosen(NamedTuple):
    stored: StoredDecision
    row: audit.Row | None
    """Row of the audit that let the candidate serve, if it does."""


class Party(NamedTuple):
    name: str
    kind: Literal["agent", "person, signed", "person, unsigned", "software"]
    did: str
    stamp: float


def write_evidence(workspace: Workspace, request: EvidenceRequest) -> EvidenceReport:
    """Write a new folder with the bundle and the script that checks it, whole or not at all.

    Raises NOT_FOUND where nothing was decided, CONFLICT where something is at the path, UNAVAILABLE for a full disk.
    """
    check_free(request.path)
    chosen = _choose(workspace, request)
    judged = _judged(workspace, chosen.stored, keep_clear=request.rows)
    if request.rows and not any(each.clear for each in judged):
        raise SpeciateError(
            Code.CONFLICT,
            "The judged rows are no longer here as they were judged, so they cannot leave in clear.",
            "Call again without rows: the bundle has their digests.",
        )
    key, made = evidence_key(workspace.identity), workspace.clock.now()
    name = bundle_name(chosen.stored, made)
    document, members = _document(workspace, chosen, judged, key, name, made)
    data = pack(document, members, key)
    clear = b"".join(verify_evidence.canonical(row._asdict()) + b"\n" for each in judged[:1] for row in each.clear)
    require_space(next(folder for folder in request.path.parents if folder.exists()), len(data) + len(clear))
    try:
        with hidden_folder_beside(request.path) as folder:
            (folder / name).write_bytes(data)
            (folder / SCRIPT).write_bytes(script())
            if request.rows:
                (folder / ROWS).write_bytes(clear)
            check_free(request.path)
            sync_tree(folder)
            folder.rename(request.path)
            sync_folder(request.path.parent)
    except OSError as error:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The bundle could not be written: {error.strerror or error}. Nothing is at the path.",
            "Free some space or name another path, then repeat the call.",
        ) from error
    return EvidenceReport(
        bundle=request.path / name, key=verify_evidence.fingerprint(key.public), decision=chosen.stored.decision.id,
        candidate=chosen.stored.decision.candidate, verdict=chosen.stored.decision.verdict,
        in_production=chosen.row is not None, bytes=len(data), rows=sum(each.document["rows"] for each in judged),
        notes=_notes(document, judged),
    )  # fmt: skip


def pack(document: Mapping[str, Any], members: Mapping[str, bytes], key: EvidenceKey) -> bytes:
    """The bytes of a bundle: `document` gets the digests of the members, and is signed."""
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members.items()}
    text = verify_evidence.canonical({**document, "members": listed})
    signature = {
        "algorithm": "ed25519", "public_key": key.public.hex(), "fingerprint": verify_evidence.fingerprint(key.public),
        "signature": key.private.sign(verify_evidence.CONTEXT + text).hex(),
    }  # fmt: skip
    everything = {
        **members, verify_evidence.DOCUMENT: text, verify_evidence.SIGNATURE: verify_evidence.canonical(signature)
    }  # fmt: skip
    return verify_evidence.layout(sorted(everything.items()))


def script() -> bytes:
    """The source of the program that checks bundles."""
    return Path(verify_evidence.__file__).read_bytes()


def bundle_name(stored: StoredDecision, made: float) -> str:
    """What the file is called: an old bundle does not pass under the name of a new one."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", stored.decision.candidate)
    day = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(made))
    return f"{stored.use_case}.{model}.{stored.decision.id[-12:]}.{day}.evidence.zip"


# What it is about


def _choose(workspace: Workspace, request: EvidenceRequest) -> _Chosen:
    database = workspace.database
    use_case = use_cases.get(database, request.use_case)
    alias = aliases.read(database, use_case.name)
    serving = alias.model if alias else None
    row = _promotion_row(database, use_case.name, serving)
    if request.evaluation is None:
        return _in_production(workspace, use_case, serving, row)
    report = find_report(database, request.evaluation)
    found = [each for each in decisions.of_evaluation(database, request.evaluation) if each.use_case == use_case.name]
    wanted = report.decision.candidate if report.decision else None
    found.sort(key=lambda each: each.decision.candidate != wanted)
    if not found:
        call = Call("describe_evaluation", {"evaluation": request.evaluation}, "says why")
        raise SpeciateError(Code.NOT_FOUND, f"{request.evaluation} made no decision for {use_case.name}.", next=[call])
    rests_on = row is not None and approval_keys.evidence_of(row).get("decision") == found[0].decision.id
    return _Chosen(found[0], row if rests_on else None)


def _promotion_row(database: Any, use_case: str, serving: str | None) -> audit.Row | None:
    rows = [row for row in audit.of_use_case(database, use_case) if row.action == "promote" and row.after == serving]
    return rows[-1] if rows else None


def _in_production(workspace: Workspace, use_case: UseCase, serving: str | None, row: audit.Row | None) -> _Chosen:
    if serving is None:
        status = Call("get_status", {"use_case": use_case.name})
        raise SpeciateError(
            Code.NOT_FOUND,
            f"Nothing is in production for {use_case.name}.",
            "Name an evaluation: export_evidence(use_case=..., evaluation=...).",
            next=[status],
        )
    decision = approval_keys.evidence_of(row).get("decision") if row else None
    if decision is None:
        evaluate = Call("evaluate_models", {"models": [serving], "use_case": use_case.name})
        raise SpeciateError(
            Code.NOT_FOUND, f"{serving} serves {use_case.name} without a decision: a person let it.", next=[evaluate]
        )
    return _Chosen(decisions.get(workspace.database, str(decision)), row)


# Rows


def _judged(workspace: Workspace, stored: StoredDecision, *, keep_clear: bool) -> list[JudgedMember]:
    """The suites of the decision and of those beside it, the decision's first."""
    found: list[JudgedMember] = []
    for each in (stored, *_further(workspace, stored)):
        found.append(_judged_suite(workspace, each, keep_clear=keep_clear and not found))
    return found


def _further(workspace: Workspace, stored: StoredDecision) -> list[StoredDecision]:
    """The newest decisions on the same candidate on the further suites of the requirements that were judged by."""
    database, made = workspace.database, use_cases.get(workspace.database, stored.use_case, stored.use_case_version)
    newest = [
        decisions.newest(database, stored.use_case, stored.decision.candidate, suite=suite)
        for suite in made.suites.further
        if suite != stored.decision.suite
    ]
    return [each for each in newest if each is not None and each.use_case_version == stored.use_case_version]


def _judged_suite(workspace: Workspace, stored: StoredDecision, *, keep_clear: bool) -> JudgedMember:
    decision, suite = stored.decision, suites.suite_of(workspace.database, stored.evaluation)
    document: dict[str, Any] = {
        "role": decision.suite, "dataset": decision.dataset, "evaluation": stored.evaluation, "member": None,
        "suite": None, "rows": 0, "target": None, "beside": {},
    }  # fmt: skip
    if suite is None:
        return JudgedMember({**document, "state": "which rows were judged was not kept then"}, None, ())
    if len(suite.rows) > MOST_ROWS:
        raise SpeciateError(
            Code.INVALID,
            f"{len(suite.rows):,} rows were judged, and a bundle holds at most {MOST_ROWS:,}.",
            "Judge the model on a sample of them: curate_dataset(steps=[{'op': 'sample', ...}]) under another name.",
        )
    packed = judged_rows.to_bytes(suite.rows)
    rows = _rows_of(workspace, stored, suite.target)
    whole = rows is not None and judged_rows.suite_id(suite.rows) == verify_evidence.suite_id(
        [(_digest(row.example), _digest(row.judged)) for row in rows]
    )
    if whole and rows is not None:
        lines = sorted(f"{_digest(row.example)} {_digest(row.judged)} {_digest(row.id)}" for row in rows)
        text = "".join(f"{line[130:]} {line[:129]}\n" for line in lines)
        state = "their digests are those of the rows that are here"
    else:
        width = judged_rows.WIDTH
        halves = (packed[place : place + width].hex() for place in range(0, len(packed), width))
        text = "".join(f"{half[:width]} {half[width:]}\n" for half in halves)
        state = "the rows are no longer here as they were judged, so the digests are short ones"
    if len(suite.rows) < decision.n:
        state += f"; {decision.n - len(suite.rows)} rows were forgotten since by a purge, or were no units of their own"
    document |= {
        "member": f"judged-{decision.suite}.txt", "suite": judged_rows.suite_id(suite.rows), "rows": len(suite.rows),
        "target": suite.target, "state": state,
        "beside": {
            facet: {"suite": judged_rows.suite_id(cells), "rows": len(cells)}
            for facet, cells in suite.facets.items()
            if facet != judged_rows.ROWS
        },
    }  # fmt: skip
    return JudgedMember(document, text.encode(), tuple(rows or ()) if whole and keep_clear else ())


def _rows_of(workspace: Workspace, stored: StoredDecision, target: str | None) -> list[RowPreimage] | None:
    """The rows as the version has them now; None where it is gone."""
    try:
        ref = dataset_ref(stored.decision.dataset)
        manifest = versions.resolve(workspace.database, ref)
        there = version_rows.stored_columns(workspace.folders, manifest)
        column = target if target in there else None
        wanted = judged_rows.columns_of(there, column)
        splits = None if ref.split is None else {ref.split}
        table = version_rows.read(workspace.folders, manifest, wanted, splits=splits, usable=True)
    except (SpeciateError, OSError):
        return None
    task = use_cases.get(workspace.database, stored.use_case, stored.use_case_version).task
    return list(judged_rows.preimages(table, column, optional=find_task(task).family in TARGET_OPTIONAL))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# The document


def _document(
    workspace: Workspace, chosen: _Chosen, judged: Sequence[JudgedMember], key: EvidenceKey, name: str, made: float
) -> tuple[dict[str, Any], dict[str, bytes]]:
    stored, database = chosen.stored, workspace.database
    use_case = use_cases.get(database, stored.use_case, stored.use_case_version)
    places = _places(workspace)
    trail = audit.all_rows(database)
    shown = {
        row.seq for row in trail if _is_shown(row, stored.use_case) and without_places(list(row), places) == list(row)
    }
    told = _approvals(workspace, stored, trail)
    body = {
        "format": verify_evidence.FORMAT, "format_version": 1, "name": name, "made": made,
        "workspace": workspace.identity,
        "key": {"algorithm": "ed25519", "public": key.public.hex()},
        "software": _software(workspace, stored),
        "use_case": {
            "name": use_case.name, "version": use_case.version, "created": use_case.created,
            "definition": use_case.model_dump(mode="json", exclude={"version", "created"}),
            "gates": _gates(use_case, stored.decision.suite),
        },
        "policy": _policy(workspace, stored.use_case, trail, chosen.row),
        **_judgement(workspace, stored),
        "further": [
            {**_judgement(workspace, each), "gates": _gates(use_case, each.decision.suite)}
            for each in _further(workspace, stored)
        ],
        "production": {"row": chosen.row.seq, "stamp": chosen.row.stamp} if chosen.row else None,
        "judged": [each.document for each in judged],
        "model": _model(workspace, stored.decision.candidate),
        "data": _data(workspace, stored, judged),
        "approvals": told,
        "parties": [party._asdict() for party in _parties(trail, stored, chosen.row)],
        "audit": {
            "rows": len(trail), "head": trail[-1].hash if trail else audit.GENESIS, "withheld": len(trail) - len(shown),
        },
        "keys": _withheld_keys(trail, shown),
    }  # fmt: skip
    members = {
        "README.txt": _README.format(name=name).encode(),
        SCRIPT: script(),
        verify_evidence.AUDIT: b"".join(
            verify_evidence.canonical(row._asdict() if row.seq in shown else {"seq": row.seq, "hash": row.hash}) + b"\n"
            for row in trail
        ),
        **{each.document["member"]: each.text for each in judged if each.text is not None},
    }
    clean: dict[str, Any] = without_places(body, places)
    return clean, members


def _gates(use_case: UseCase, suite: str) -> list[dict[str, Any]]:
    return [gate.model_dump(mode="json") for gate in use_case.gates_on(suite)]


def _is_shown(row: audit.Row, use_case: str) -> bool:
    if row.use_case == audit.WORKSPACE:
        mine = row.action != "policies" or str(row.after).partition(":")[0] == use_case
        return row.action in _OF_WORKSPACE and mine
    return row.use_case == use_case


def _places(workspace: Workspace) -> tuple[str, ...]:
    """Names of folders of this machine, the longest first."""
    found = {str(workspace.folders.root), str(workspace.folders.root.resolve()), str(config_folder()), str(Path.home())}
    return tuple(sorted((each for each in found if len(each) > 1), key=len, reverse=True))


def without_places(value: Any, places: Sequence[str]) -> Any:
    """A JSON value whose texts name no folder of a machine."""
    if isinstance(value, str):
        for each in places:
            value = value.replace(each, _HIDDEN)
        return _PLACE.sub(_HIDDEN, value)
    if isinstance(value, Mapping):
        return {without_places(name, places): without_places(each, places) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each, places) for each in value]
    return value


def _judgement(workspace: Workspace, stored: StoredDecision) -> dict[str, Any]:
    """A decision, and of its report what bears on it."""
    report = find_report(workspace.database, stored.evaluation)
    decision = stored.decision
    kept = {"dataset", "metric", "better", "n", "clusters", "notes"} | (
        {"order", "candidate"} if report.order else set()
    )
    return {
        "decision": {
            **decision.model_dump(mode="json"), "use_case_version": stored.use_case_version,
            "evaluation": stored.evaluation, "created": stored.created,
        },
        "report": {
            **report.model_dump(mode="json", include=kept),
            "leaderboard": [row.model_dump(mode="json") for row in report.leaderboard],
            "comparisons": _comparisons(report, decision.candidate),
        },
        "metrics": _metrics(report),
        **({"before": _before(report, decision.candidate)} if report.order else {}),
    }  # fmt: skip


def _comparisons(report: Report, candidate: str) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json") for each in report.comparisons if candidate in (each.baseline, each.candidate)]


def _before(report: Report, candidate: str) -> list[dict[str, Any]]:
    """What was decided on each candidate that comes before this one in the order, with what that rests on."""
    order = [each.model for each in report.order]
    earlier = set(order[: order.index(candidate)] if candidate in order else order)
    return [
        {"decision": each.model_dump(mode="json"), "comparisons": _comparisons(report, each.candidate)}
        for each in report.decisions
        if each.candidate in earlier
    ]


def _metrics(report: Report) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({name for row in report.leaderboard for name in row.metrics} | {report.metric}):
        try:
            metric = find_metric(name)
        except SpeciateError:  # a judge's or a scorer's
            found[name] = {"better": report.better, "bounded": True}
            continue
        found[name] = {"better": "higher" if metric.sign > 0 else "lower", "bounded": metric.bounded}
    return found


def _policy(
    workspace: Workspace, use_case: str, trail: Sequence[audit.Row], promotion: audit.Row | None
) -> dict[str, Any]:
    """Who had to agree when it was promoted, as far as the trail says so."""
    now = workspace.settings.policy_of(use_case)
    until = promotion.seq if promotion else len(trail) + 1
    of_workspace, own = None, None
    after: audit.Row | None = None
    for row in trail:
        mine = row.action == "policies" and str(row.after).partition(":")[0] == use_case
        if row.action != "policy" and not mine:
            continue
        if row.seq > until:
            after = after or row
        elif mine:
            own = row
        else:
            of_workspace = row
    if (known := own or of_workspace) is not None:
        return {"now": now, "then": str(known.after).rpartition(": ")[2], "from": f"row {known.seq} of the audit"}
    if after is not None:
        return {"now": now, "then": str(after.before).rpartition(": ")[2], "from": f"changed in row {after.seq}"}
    return {"now": now, "then": now, "from": "no change is in the audit; as the settings say"}


def _approvals(workspace: Workspace, stored: StoredDecision, trail: Sequence[audit.Row]) -> list[dict[str, Any]]:
    """Questions to a person about this decision or these requirements, oldest first."""
    answered = {
        approval_keys.evidence_of(row).get("approval"): row for row in trail if row.action in ("approve", "deny")
    }
    now, found = workspace.clock.now(), []
    for each in reversed(approvals.list_approvals(workspace.database, now)):
        arguments = each.arguments
        about = arguments.get("decision") == stored.decision.id
        requirements = each.action == "define_use_case" and arguments.get("version") == stored.use_case_version
        if arguments.get("use_case") != stored.use_case or not (about or requirements):
            continue
        row = answered.get(each.id)
        found.append(
            {
                "id": each.id, "action": each.action, "state": each.state_at(now), "created": each.created,
                "expires": each.expires, "decided_by": each.decided_by, "decided_at": each.decided_at,
                "asked_by": arguments.get("actor"), "asked_because": each.evidence.get("asked_because"),
                "hash": each.hash, "row": row.seq if row else None,
            }
        )  # fmt: skip
    return found


def _parties(trail: Sequence[audit.Row], stored: StoredDecision, promotion: audit.Row | None) -> list[Party]:
    """Who asked and who decided, as the trail has it. A name of an agent is the one that its client gave."""
    found = []
    signed = {row.stamp for row in trail if row.action == "approve" and "signed" in approval_keys.evidence_of(row)}
    for row in trail:
        told = approval_keys.evidence_of(row)
        about = told.get("decision") == stored.decision.id or (promotion is not None and row.seq == promotion.seq)
        if row.use_case != stored.use_case or not about:
            continue
        what = {"promote": "a promotion", audit.CANARY: "a canary"}.get(row.action, row.action)
        approver, asker = told.get("approved_by"), told.get("asked_by")
        if asker and asker != approver:
            found.append(Party(str(asker), "agent", f"asked for {what} (row {row.seq})", row.stamp))
        if approver:
            kind: Literal["person, signed", "person, unsigned"] = (
                "person, signed" if "signed" in told or row.stamp in signed else "person, unsigned"
            )
            how = "overrode the objections to" if told.get("override") else "approved"
            found.append(Party(str(approver), kind, f"{how} {what} (row {row.seq})", row.stamp))
        else:
            found.append(Party("speciate", "software", f"did it under the automatic policy (row {row.seq})", row.stamp))
    return found


def _withheld_keys(trail: Sequence[audit.Row], shown: Iterable[int]) -> list[dict[str, Any]]:
    """Keys of people whose enrollment names a place and is here as its hash alone."""
    found, clear = [], set(shown)
    for row in trail:
        if row.action == approval_keys.ENROLL and row.seq not in clear:
            told = approval_keys.evidence_of(row)
            found.append(
                {
                    "row": row.seq,
                    "fingerprint": row.after,
                    **{name: told.get(name) for name in ("name", "kind", "public")},
                }
            )
    return found


def _model(workspace: Workspace, ref: str) -> dict[str, Any]:
    """The manifest of a version, without what its recipe says of this machine."""
    card = registry.resolve(workspace.database, workspace.folders, ref)
    facts = card.card.model_dump(
        mode="json",
        include={
            "id", "task", "modality", "method", "base_model", "parents", "dataset", "beside", "teachers", "inputs",
            "parts", "parameters", "bytes", "license", "created",
        },
    )  # fmt: skip
    files = None
    if card.place is not None and card.card.id:
        try:
            files = json.loads((card.place / sealed.MANIFEST).read_bytes())
        except (OSError, ValueError):
            files = None
    return {**facts, "ref": card.card.ref, "labels": len(card.card.labels), "files": files}


def _data(workspace: Workspace, stored: StoredDecision, judged: Sequence[JudgedMember]) -> list[dict[str, Any]]:
    """Manifests of the versions that were judged and learned from, and of those that they were made from."""
    card = registry.resolve(workspace.database, workspace.folders, stored.decision.candidate).card
    wanted = [*(each.document["dataset"] for each in judged), card.dataset, *card.beside]
    found: dict[str, dict[str, Any]] = {}
    for ref in dict.fromkeys(each.partition(":")[0] for each in wanted if each):
        try:
            chain = lineage(workspace.database, ref)
        except SpeciateError:
            found.setdefault(ref, {"ref": ref, "deleted": True})
            continue
        for each in chain:
            manifest = each.manifest
            found.setdefault(
                manifest.ref,
                {
                    "ref": manifest.ref, "id": manifest.id, "modality": manifest.modality, "rows": manifest.rows,
                    "splits": manifest.splits, "columns": manifest.columns, "inputs": manifest.inputs,
                    "label": manifest.label, "parents": each.parents, "made_by": each.operation.get("op"),
                    "created": each.created, "license": licence(chain), "purged": each.report.get("purged"),
                    "deleted": False,
                },
            )  # fmt: skip
    return list(found.values())


def _software(workspace: Workspace, stored: StoredDecision) -> dict[str, Any]:
    """Software of this process, and of the training as its recipe has it."""
    card = registry.resolve(workspace.database, workspace.folders, stored.decision.candidate).card
    now = provenance.record(1)
    kept = {name: value for name, value in now.items() if name not in ("threads", "cores", "processor")}
    trained = card.recipe.get("environment")
    return {**kept, "trained_with": trained if isinstance(trained, Mapping) else None}


def _notes(document: Mapping[str, Any], judged: Sequence[JudgedMember]) -> tuple[str, ...]:
    found = [
        f"Suite {each.document['role']}: {each.document['state']}."
        for each in judged
        if "short" in each.document["state"]
    ]
    if any(party["kind"] == "person, unsigned" for party in document["parties"]):
        found.append(
            "A person's approval is in it without a signature: no key was enrolled then (speciate key enroll)."
        )
    if document["audit"]["withheld"]:
        found.append(
            f"Rows of the audit about other matters are in it as hashes alone: {document['audit']['withheld']}."
        )
    return tuple(found)
