"""The job kind `fingerprint`: asks an endpoint the pinned questions, and says whether it still serves what it served.

Nothing of the user's is sent, yet an endpoint elsewhere is asked only where a person allowed some dataset for its host:
what the questions cost counts there, within `budget_usd` and what is left of the consent.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from speciate import hosts, secrets
from speciate.datasets import consent
from speciate.datasets.consent import Consent
from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints import endpoint_history, pinned_questions
from speciate.evaluation.endpoints.chat_client import Reply, Request
from speciate.evaluation.endpoints.concurrent_calls import Budget, CallSummary, Limits, ask_all
from speciate.evaluation.endpoints.endpoint_history import AnswerDigest, Fingerprint
from speciate.evaluation.endpoints.pricing import at_most, price_of
from speciate.jobs.allowances import Spend
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run, Stopped
from speciate.models import registry
from speciate.models.endpoints import Endpoint
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

BUDGET_USD = 0.25
_LIMITS = Limits(
    attempts=3, backoff_s=0.5, longest_backoff_s=8.0, patience_s=120.0, first_faults=4, failures_in_a_row=8
)
"""A question that goes unanswered is no great loss: another fingerprint may be taken any time."""
_SPENT = "spent.json"
_EARLIER = (
    "SELECT e.id FROM evaluations e WHERE e.created < ? AND contains(',' || e.models || ',', ?) ORDER BY e.created DESC"
)


class FingerprintSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(description="A registered endpoint or api:PROVIDER/MODEL.")
    dataset: str | None = Field(None, description="Whose consent pays; default: the one with most left for the host.")
    budget_usd: float = Field(BUDGET_USD, gt=0)


class FingerprintPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    endpoint: Endpoint
    budget_usd: float | None
    """None for an endpoint on this machine, which costs nothing."""
    dataset: str | None
    """The dataset whose consent pays for the questions."""
    private_hosts: tuple[str, ...] = ()
    model: str


class FingerprintResult(TypedDict, total=False):
    model: str
    changed: bool | None
    """None where nothing was known before."""
    self_disagreement: float
    served: list[str]
    spent_usd: float
    why: list[str]
    evaluations_that_may_not_hold: list[str]


def plan(spec: FingerprintSpec, workspace: Workspace) -> Plan[FingerprintPayload]:
    """Raises INVALID for a model that nobody serves or that has no price, REFUSED without a key, a consent or, at a
    private address, a listed host."""
    card = registry.resolve(workspace.database, workspace.folders, spec.model).card
    endpoint = card.endpoint
    if endpoint is None:
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref!r} is not served by others: its files are here, and describe_model compares them with what was "
            "sealed.",
            "Name a model that was registered with an endpoint, or api:PROVIDER/MODEL.",
        )
    hosts.check_url(endpoint.base_url, workspace.settings.private_hosts)
    named: tuple[secrets.SecretRequest, ...] = ()
    if endpoint.secret is not None:
        secrets.get(endpoint.secret, endpoint.host)
        named = (secrets.SecretRequest(endpoint.secret, endpoint.host),)
    allowed = None if endpoint.is_local else _consent(spec, workspace, endpoint)
    price = price_of(endpoint)
    if price is None and not endpoint.is_local:
        raise SpeciateError(
            Code.INVALID,
            f"What {endpoint.model!r} at {endpoint.host} costs is not known, so no cap can be kept.",
            "Register it with usd_per_1m_input and usd_per_1m_output.",
        )
    worst = sum(price.usd(at_most(each)) for each in pinned_questions.pinned_requests({})) if price else None
    budget = None if endpoint.is_local else min(spec.budget_usd, allowed.left_usd if allowed else 0.0)
    return Plan(
        payload=FingerprintPayload(
            endpoint=endpoint,
            budget_usd=budget,
            dataset=allowed.dataset if allowed else None,
            private_hosts=tuple(workspace.settings.private_hosts),
            model=card.ref,
        ),
        usd=worst,
        spends=(Spend(dataset=allowed.dataset, host=endpoint.host, usd=spec.budget_usd),) if allowed else (),
        secrets=named,
        resolved={"host": endpoint.host, "calls": len(pinned_questions.PINNED_QUESTIONS) * pinned_questions.PASSES}
        | ({"consent": allowed.dataset} if allowed else {}),
    )


def _consent(spec: FingerprintSpec, workspace: Workspace, endpoint: Endpoint) -> Consent:
    """The one that pays: that of the dataset, else the one in force that has most left."""
    if spec.dataset is not None:
        return consent.check(workspace.database, spec.dataset, endpoint.host)
    found: list[Consent] = []
    for each in consent.list_consents(workspace.database):
        if each.host == endpoint.host:
            try:
                found.append(consent.check(workspace.database, each.dataset, endpoint.host))
            except SpeciateError:
                continue  # its time is over, or its money is spent
    if not found:
        raise SpeciateError(
            Code.REFUSED,
            f"Nothing is asked of {endpoint.host}: no person allowed any dataset for it, or what was allowed is spent.",
            f"A person decides, on a terminal: speciate allow DATASET --host {endpoint.host} --usd CAP",
        )
    return max(found, key=lambda each: each.left_usd)


def run(run: Run) -> Mapping[str, object]:
    """Ask, each reply on disk as soon as it is there; a later attempt asks anew, for what counts is one time."""
    payload = run.read_payload(FingerprintPayload)
    endpoint, budget = payload.endpoint, payload.budget_usd
    if budget is not None:
        budget = min(budget, run.allowances.get(endpoint.host, budget))
    key = None if endpoint.secret is None else run.secret(endpoint.secret)
    spending = _SpendingFile(run, budget)
    sampling = _sampling(run, endpoint, key, spending)
    requests = pinned_questions.pinned_requests(sampling)
    replies: dict[int, Reply] = {}

    def record(place: int, reply: Reply) -> None:
        replies[place] = reply
        run.progress(len(replies), len(requests), "answers")

    _ask(run, endpoint, key, requests, record, spending)
    found = fingerprint(replies, time.time())
    if not found.whole:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"{endpoint.model!r} at {endpoint.host} answered too few of the pinned questions to be compared.",
            "Call again when it is up; nothing was stored.",
        )
    return {"fingerprint": found.model_dump(mode="json")}


def fingerprint(replies: dict[int, Reply], asked_at: float) -> Fingerprint:
    """The fingerprint of an endpoint. `replies`: by the place of their request. What a model withheld or cut is an
    answer, too; a refusal of the request is none."""
    count = len(pinned_questions.PINNED_QUESTIONS)
    answers = tuple(
        tuple(_answer_digest(replies.get(time_ * count + question)) for time_ in range(pinned_questions.PASSES))
        for question in range(count)
    )
    answered = [reply for _, reply in sorted(replies.items()) if reply.status == 200]
    return Fingerprint(
        form=pinned_questions.FORM,
        asked=asked_at,
        answers=answers,
        served=tuple(dict.fromkeys(reply.served_model for reply in answered if reply.served_model)),
        systems=tuple(dict.fromkeys(reply.system_fingerprint for reply in answered if reply.system_fingerprint)),
    )


def _answer_digest(reply: Reply | None) -> AnswerDigest | None:
    if reply is None or reply.retryable or reply.status != 200:
        return None
    text = " ".join((reply.text or "").split()) if reply.error is None else f"\0{reply.error}"
    return AnswerDigest(
        digest=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16], logprob=reply.logprob
    )


def _sampling(run: Run, endpoint: Endpoint, key: str | None, spending: _SpendingFile) -> Mapping[str, object]:
    """The most telling form of the questions that the endpoint takes."""
    for sampling in pinned_questions.SAMPLINGS[:-1]:
        replies: list[Reply] = []
        _ask(
            run,
            endpoint,
            key,
            pinned_questions.pinned_requests(sampling)[:1],
            lambda _, reply, replies=replies: replies.append(reply),
            spending,
        )
        if replies and replies[0].status != 400:
            return sampling
    return pinned_questions.SAMPLINGS[-1]


class _SpendingFile:
    """USD of this attempt, on disk before each call: a kill leaves the worst case of calls in flight."""

    def __init__(self, run: Run, budget: float | None) -> None:
        self._file, self.budget, self.usd = run.outputs / _SPENT, budget, 0.0
        self.before = sum(spent_usd(earlier) for earlier in run.resume_from)

    def write(self, usd: float) -> None:
        self.usd = usd
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps({"usd": usd}))
        temporary.replace(self._file)


def spent_usd(folder: RunFolder) -> float:
    """USD that an attempt cost at most."""
    try:
        return float(json.loads((folder.outputs / _SPENT).read_text())["usd"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _ask(
    run: Run, endpoint: Endpoint, key: str | None, requests: list[Request], record: Any, spending: _SpendingFile
) -> CallSummary:
    before = spending.usd
    summary = ask_all(
        endpoint, requests, key=key, record=record, spending=lambda usd: spending.write(before + usd),
        stopping=lambda: run.stopping, budget=Budget(spending.budget, spending.before + before), limits=_LIMITS,
        private_hosts=run.read_payload(FingerprintPayload).private_hosts, permit=run.permit(endpoint.host),
    )  # fmt: skip
    if summary.unanswered:
        raise Stopped
    return summary


class Collected(NamedTuple):
    endpoint: Endpoint
    model: str
    usd: float
    found: Fingerprint


def collect(folder: RunFolder) -> Collected:
    payload, result = FingerprintPayload.model_validate(folder.spec()["payload"]), folder.result() or {}
    return Collected(
        endpoint=payload.endpoint,
        model=payload.model,
        usd=spent_usd(folder),
        found=Fingerprint.model_validate(result["fingerprint"]),
    )


def paid(folder: RunFolder) -> dict[tuple[str, str], float]:
    """USD by dataset and host, of this attempt and those before it at most."""
    spec = folder.spec()
    payload = FingerprintPayload.model_validate(spec["payload"])
    if payload.dataset is None:
        return {}
    attempts = [folder, *(RunFolder(Path(path)) for path in spec.get("resume_from", ()))]
    return {(payload.dataset, payload.endpoint.host): sum(map(spent_usd, attempts))}


def commit(tx: Transaction, job: Job, collected: Collected) -> FingerprintResult:
    endpoint, found = collected.endpoint, collected.found
    likeness = endpoint_history.store_fingerprint(tx, endpoint, found, job.id)
    result: FingerprintResult = {
        "model": collected.model,
        "changed": None if likeness is None else likeness.changed,
        "self_disagreement": round(found.disagreement, 3),
        "served": list(found.served),
    }
    if endpoint.is_local is False:
        result["spent_usd"] = collected.usd
    if likeness is not None and likeness.changed:
        earlier = [row[0] for row in tx.execute(_EARLIER, [tx.now, f",{collected.model},"])]
        result["why"], result["evaluations_that_may_not_hold"] = list(likeness.why), earlier
    return result


KIND = Kind(
    name="fingerprint",
    spec=FingerprintSpec,
    plan=plan,
    run="speciate.evaluation.endpoints.endpoint_fingerprint:run",
    collect=collect,
    commit=commit,
    paid=paid,
)
