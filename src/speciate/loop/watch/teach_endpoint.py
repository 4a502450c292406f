"""A teacher that others serve: a chat endpoint is asked for the labels of logged answers, and held to those of people.

A line in `[watch.teachers]` consents to the teacher. An endpoint elsewhere also needs the consent for the dataset to
which its labels are added (`speciate allow DATASET --host HOST --usd CAP`), and never costs more than it allows or is
left of the month. An endpoint may serve another model at any moment, so it is checked all along:

    people's labels | some answers, people's labels | some answers, people's labels | ...

Of each of these parts its labels are kept where it still agreed with people right after it. From the first part on
where it surely did not, it is asked no more. Nothing that it says is kept in a cache: what it said last week proves
nothing about today.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate import hosts, secrets
from speciate.datasets import consent, versions
from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints import answer_parsing, prompts
from speciate.evaluation.endpoints.answer_parsing import UnreadableAnswer
from speciate.evaluation.endpoints.chat_client import Reply
from speciate.evaluation.endpoints.concurrent_calls import Budget, BudgetSpent, ask_all
from speciate.evaluation.endpoints.pricing import price_of
from speciate.evaluation.endpoints.prompts import Prompt, PromptForm
from speciate.jobs.allowances import Spend
from speciate.jobs.egress import Departure
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run, Stopped
from speciate.loop.watch.facts import Taught
from speciate.models.endpoints import Endpoint
from speciate.predictions.feedback import matches_label
from speciate.predictions.quality import wilson_interval
from speciate.predictions.reading import LoggedAnswer
from speciate.use_cases import UseCase
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Workspace

AGREEMENT, LEAST = 0.8, 30
"""Share of people's labels that a teacher must give, too, and how many of these there must be."""
_FAMILIES = ("classification", "ordinal", "multi-label")
_READ = ("text", "tabular", "protein")
"""Modalities whose logged inputs are words: others would have to be opened first."""
_PARTS, _CHECKS = 4, 10
"""So many parts, after each of which it is held to so many labels of people."""
_SPENT = "spent.json"


class EndpointPayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    log: Path
    teacher: str
    endpoint: Endpoint
    modality: str
    family: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    n: int
    since: float
    until: float
    dataset: str | None
    """Dataset whose consent pays; None for an endpoint on this machine."""
    budget_usd: float | None
    private_hosts: tuple[str, ...] = ()


class Planned(NamedTuple):
    payload: EndpointPayload
    secrets: tuple[secrets.SecretRequest, ...]
    spends: tuple[Spend, ...]
    departures: tuple[Departure, ...]


def plan(
    workspace: Workspace, endpoint: Endpoint, teacher: str, use_case: UseCase, log: Path, dataset: str | None, n: int,
    since: float, until: float, budget_usd: float | None,
) -> Planned:  # fmt: skip
    """Raises INVALID for a task or medium that no endpoint labels here, or without a price; REFUSED without the consent
    of a person, a key, or, at a private address, a listed host."""
    family = find_task(use_case.task).family
    manifest = versions.version(workspace.database, dataset).manifest if dataset else None
    if family not in _FAMILIES or manifest is None or not manifest.labels or manifest.modality not in _READ:
        raise SpeciateError(
            Code.INVALID, f"{teacher} cannot teach {use_case.name!r}: an endpoint labels texts and table rows with "
            "classes here.",
            "A person names a version of this workspace in [watch.teachers] of settings.toml.",
        )  # fmt: skip
    hosts.check_url(endpoint.base_url, workspace.settings.private_hosts)
    named: tuple[secrets.SecretRequest, ...] = ()
    if endpoint.secret is not None:
        secrets.get(endpoint.secret, endpoint.host)
        named = (secrets.SecretRequest(endpoint.secret, endpoint.host),)
    budget, spends, leaving = None, tuple[Spend, ...](), tuple[Departure, ...]()
    if not endpoint.is_local:
        allowed = consent.check(workspace.database, manifest.ref, endpoint.host)
        if price_of(endpoint) is None:
            raise SpeciateError(
                Code.INVALID, f"What {endpoint.model!r} at {endpoint.host} costs is not known, so no cap can be kept.",
                "Register it with usd_per_1m_input and usd_per_1m_output.",
            )  # fmt: skip
        budget = min(allowed.left_usd, allowed.left_usd if budget_usd is None else budget_usd)
        spends = (Spend(dataset=manifest.name, host=endpoint.host, usd=budget),)
        leaving = consent.departures(workspace.database, [manifest.ref], endpoint.host)
    payload = EndpointPayload(
        log=log, teacher=teacher, endpoint=endpoint, modality=manifest.modality, family=family,
        labels=tuple(sorted(manifest.labels)), columns=tuple(manifest.inputs), n=n, since=since, until=until,
        dataset=manifest.name if spends else None, budget_usd=budget,
        private_hosts=tuple(workspace.settings.private_hosts),
    )  # fmt: skip
    return Planned(payload, named, spends, leaving)


class Agreement(NamedTuple):
    """How many answers of an endpoint agreed with labels of people."""

    asked: int = 0
    right: int = 0

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else 0.0

    def plus(self, other: Agreement) -> Agreement:
        return Agreement(self.asked + other.asked, self.right + other.right)

    def is_lost(self) -> bool:
        """Whether it surely agrees less often than it must."""
        return self.asked > 0 and wilson_interval(self.share, self.asked, 0.95)[1] < AGREEMENT


class Rounds(NamedTuple):
    """What it is asked, in order."""

    first: list[LoggedAnswer]
    """Answers that people labelled."""
    parts: list[tuple[list[LoggedAnswer], list[LoggedAnswer]]]
    """Answers to label, and answers that people labelled."""


def rounds(known: Sequence[LoggedAnswer], open_: Sequence[LoggedAnswer], labels: Mapping[str, object]) -> Rounds:
    """`known`: which people labelled, as `labels` says. Half of them come first; the rest, then again those, after each
    part, one label after another: a teacher that always gives one label fails the first check, whichever it is. Pure.
    """
    half = max(LEAST, len(known) // 2)
    queues: dict[str, deque[LoggedAnswer]] = {}
    for each in [*known[half:], *known[:half]]:
        queues.setdefault(json.dumps(labels[each.id], sort_keys=True), deque()).append(each)
    size = max(1, -(-len(open_) // _PARTS))
    parts = []
    for begin in range(0, len(open_), size):
        in_turn = [each for one_of_each in zip_longest(*queues.values()) for each in one_of_each if each is not None]
        checks = in_turn[:_CHECKS]
        for each in checks:  # the next part is held to others first, and to other labels
            label = json.dumps(labels[each.id], sort_keys=True)
            queues[label] = queue = queues.pop(label)
            queue.append(queue.popleft())
        parts.append((list(open_[begin : begin + size]), checks))
    return Rounds(list(known[:half]), parts)


def run(
    run: Run, payload: EndpointPayload, known: Sequence[LoggedAnswer], open_: Sequence[LoggedAnswer],
    labels: Mapping[str, object],
) -> tuple[Taught, dict[str, object]]:  # fmt: skip
    """How often it gave people's labels, and the labels that it gave to others: none where it is not trusted."""
    asker = _Asker(run, payload)
    planned = rounds(known, open_, labels)
    kept: dict[str, object] = {}
    why = ""
    try:
        found = _agreement(planned.first, asker.ask(planned.first), labels)
        if len(planned.first) < LEAST:
            because = f"{found.asked} of its answers can be held to labels of people, and {LEAST} are needed"
            return _taught(payload, found, False, because), {}
        if found.share >= AGREEMENT:
            for part, checks in planned.parts:
                said = asker.ask(part)
                now = _agreement(checks, asker.ask(checks), labels)
                found = found.plus(now)
                if now.is_lost():
                    why = f"; then on {now.right} of {now.asked}: it is asked no more, and {len(kept)} labels stay"
                    break
                kept |= said
    except BudgetSpent:
        found, why = (found, "; then the money was spent") if kept else (Agreement(), "; the money was spent")
    said_of = f"it gave the label of people on {found.right} of {found.asked}, and {AGREEMENT:.0%} are needed{why}"
    trusted = bool(kept) or (found.share >= AGREEMENT and not why)
    return _taught(payload, found, trusted, said_of), kept


def _taught(payload: EndpointPayload, found: Agreement, trusted: bool, because: str) -> Taught:
    return Taught(
        teacher=payload.teacher, checked=found.asked, agreement=found.share if found.asked else None, trusted=trusted,
        because=because, interval=wilson_interval(found.share, found.asked, 0.95) if found.asked else None,
    )  # fmt: skip


def _agreement(
    asked: Sequence[LoggedAnswer], given: Mapping[str, object], labels: Mapping[str, object]
) -> Agreement:  # fmt: skip
    """An answer that did not come, or is no label, is none."""
    right = sum(each.id in given and matches_label(given[each.id], labels[each.id]) for each in asked)
    return Agreement(len(asked), right)


class _Asker:
    """Asks the endpoint, and keeps on disk what it cost: a kill leaves the worst case of calls in flight."""

    def __init__(self, run: Run, payload: EndpointPayload) -> None:
        self._run, self._payload, self._usd = run, payload, 0.0
        self._before = sum(spent_usd(earlier) for earlier in run.resume_from)
        self._key = None if payload.endpoint.secret is None else run.secret(payload.endpoint.secret)
        self._form: PromptForm = prompts.prompt_form(
            Prompt(), payload.family, payload.modality, labels=payload.labels, columns=payload.columns
        )

    def ask(self, answers: Sequence[LoggedAnswer]) -> dict[str, object]:
        """Answer -> the label that it gives; without those that it does not label. Raises BudgetSpent."""
        payload, before = self._payload, self._usd
        host = payload.endpoint.host
        budget = payload.budget_usd
        if budget is not None:
            budget = min(budget, self._run.allowances.get(host, budget))
        named = [(each.id, example) for each in answers if (example := _example(each, payload)) is not None]
        found: dict[str, object] = {}

        def record(place: int, reply: Reply) -> None:
            name = named[place][0]
            if reply.text is not None and reply.error is None and (label := self._label(reply.text)) is not None:
                found[name] = label

        summary = ask_all(
            payload.endpoint, [prompts.request(self._form, example) for _, example in named], key=self._key,
            record=record, spending=lambda usd: self._note(before + usd), stopping=lambda: self._run.stopping,
            budget=Budget(budget, self._before + before), private_hosts=payload.private_hosts,
            permit=self._run.permit(host),
        )  # fmt: skip
        if summary.unanswered:
            raise Stopped
        return found

    def _label(self, text: str) -> object | None:
        try:
            output: object = answer_parsing.parse_answer(self._form, text).output
        except UnreadableAnswer:
            return None
        return output

    def _note(self, usd: float) -> None:
        self._usd = usd
        file = self._run.outputs / _SPENT
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps({"usd": usd}))
        temporary.replace(file)


def _example(answer: LoggedAnswer, payload: EndpointPayload) -> Example | None:
    kept = answer.input or {}
    if payload.modality == "tabular":
        row = kept.get("row")
        if row is None:
            return None
        media: object = {name: row.get(name) for name in payload.columns or row}
    elif "text" in kept:
        media = str(kept["text"])
    else:
        return None
    return Example(answer.id, media, None, answer.id, "", {})


def spent_usd(folder: RunFolder) -> float:
    """USD that an attempt cost at most."""
    try:
        return float(json.loads((folder.outputs / _SPENT).read_text())["usd"])
    except (OSError, ValueError, KeyError):
        return 0.0


def paid(folder: RunFolder) -> dict[tuple[str, str], float]:
    """USD by dataset and host, of this attempt and those before it at most."""
    spec = folder.spec()
    payload = spec["payload"]
    if not payload.get("endpoint") or payload.get("dataset") is None:
        return {}
    attempts = [folder, *(RunFolder(Path(path)) for path in spec.get("resume_from", ()))]
    host = Endpoint.model_validate(payload["endpoint"]).host
    return {(payload["dataset"], host): sum(map(spent_usd, attempts))}
