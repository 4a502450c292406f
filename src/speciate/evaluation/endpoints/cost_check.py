"""The cost check of an evaluation, before anything is sent to an endpoint: keys, consent, money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speciate import hosts, secrets
from speciate.datasets import consent
from speciate.datasets.version_rows import mean_length
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints import prompts
from speciate.evaluation.endpoints.pricing import CHARACTERS_PER_TOKEN, estimate, price_of
from speciate.evaluation.endpoints.prompts import Prompt
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.jobs.allowances import Spend
from speciate.jobs.egress import Departure
from speciate.models.endpoints import Endpoint
from speciate.secrets import SecretRequest
from speciate.workspace.workspace import Workspace

TIMED, TIMED_FOR_A_LIMIT = 24, 72
"""Calls whose latency is measured, one at a time; 72 are the fewest that bound a p95 from above."""
WARM_UP = 2
_ANSWER_TOKENS = {"labels": 8, "json_schema": 20, "free": 200}
"""About what an answer takes, for estimates."""
_FREE = ("generation", "transcription")
_MEDIUM_TOKENS = {"image": 1000}
_AUDIO_TOKENS_PER_SECOND = 12.0


class CostCheck(NamedTuple):
    secrets: tuple[SecretRequest, ...]
    usd: float | None
    """About what all answers cost; None where a price is not known, 0 where nothing is sent."""
    allowances: dict[str, float]
    """By host, what a person allowed to be spent on this dataset and is left."""
    resolved: Mapping[str, object]
    departures: tuple[Departure, ...] = ()
    """By host, the dataset and those that its rows came from."""
    missing: tuple[SpeciateError, ...] = ()
    """Keys and consents without which nothing may start: `jobs.kinds.granted` raises them."""

    def spends(self, dataset: str, budget_usd: float | None) -> tuple[Spend, ...]:
        return tuple(Spend(dataset=dataset, host=host, usd=budget_usd) for host in sorted(self.allowances))


class PlannedCalls(NamedTuple):
    """What the prompts will be made of, as far as the catalog tells."""

    manifest: Manifest
    family: str
    labels: tuple[str, ...]
    prompt: Prompt
    examples: int
    repeats: int
    timed: int


class PlannedVerdicts(NamedTuple):
    """What a judge will be asked at most: `calls`, each with so many `characters` and `answers` beside the example."""

    endpoint: Endpoint
    calls: int
    characters: int
    answer_tokens: int
    answers: int


def check_cost(
    workspace: Workspace,
    planned: PlannedCalls,
    models: Sequence[EvaluatedModel],
    budget_usd: float | None,
    verdicts: PlannedVerdicts | None = None,
) -> CostCheck:
    """Raises SpeciateError where a prompt does not fit, or costs cannot be counted. Keys and consents that lack are
    `missing`: list prices are known without them, so there is an estimate, but no plan that may start."""
    answering = endpoints_of(models)
    if answering:
        _check_prompt(planned)
    costs = [(endpoint, *_cost(workspace, planned, endpoint)) for endpoint in answering]
    if verdicts is not None:
        costs.append((verdicts.endpoint, *_cost_of_verdicts(workspace, planned, verdicts)))
    if not costs:
        return CostCheck((), 0.0, {}, {})
    allowances, resolved, missing = dict[str, float](), [], list[SpeciateError]()
    for endpoint, calls, usd in costs:
        hosts.check_url(endpoint.base_url, workspace.settings.private_hosts)  # refused here, before there is a job
        try:
            if endpoint.secret is not None:
                secrets.get(endpoint.secret, endpoint.host)
        except SpeciateError as error:
            missing.append(error)
        try:
            if not endpoint.is_local:
                allowed = consent.check(workspace.database, planned.manifest.ref, endpoint.host)
                allowances[endpoint.host] = allowed.left_usd
        except SpeciateError as error:
            missing.append(error)
        price = price_of(endpoint)
        if price is None and not endpoint.is_local:
            raise SpeciateError(
                Code.INVALID,
                f"What {endpoint.model!r} at {endpoint.host} costs is not known, so no cap could be kept.",
                "Call register_model with its usd_per_1m_input and usd_per_1m_output, or install the published prices: "
                "pip install 'speciate[endpoints]'.",
            )
        resolved.append(
            {
                "model": endpoint.model,
                "host": endpoint.host,
                "calls": calls,
                "usd": usd,
                "price": price.source if price else "unknown",
            }
        )
    known = [usd for _, _, usd in costs if usd is not None]
    named = {SecretRequest(endpoint.secret, endpoint.host) for endpoint, _, _ in costs if endpoint.secret is not None}
    usd = round(sum(known), 6) if len(known) == len(costs) else None
    over = {"budget_usd": budget_usd, "enough": usd <= budget_usd} if usd is not None and budget_usd else {}
    leaving = (consent.departures(workspace.database, [planned.manifest.ref], host) for host in sorted(allowances))
    departures = tuple(each for found in leaving for each in found)
    lacking = tuple({each.message: each for each in missing}.values())
    return CostCheck(tuple(sorted(named)), usd, allowances, {"endpoints": resolved, **over}, departures, lacking)


def endpoints_of(models: Sequence[EvaluatedModel]) -> list[Endpoint]:
    """The endpoints among them and their members, each once."""
    every = [one for each in models for one in (each, *each.members)]
    return list({one.endpoint.identity: one.endpoint for one in every if one.endpoint is not None}.values())


def _check_prompt(planned: PlannedCalls) -> None:
    training = planned.manifest.splits.get("train", 0)
    if planned.prompt.few_shot > training:
        raise SpeciateError(
            Code.INVALID,
            f"few_shot is {planned.prompt.few_shot}, but {planned.manifest.ref} has {training} training examples.",
            f"Call again with few_shot={training} or less." if training else "Call again without few_shot.",
        )
    prompts.prompt_form(
        planned.prompt.model_copy(update={"few_shot": 0}), planned.family, planned.manifest.modality,
        labels=planned.labels or ("a label of the target column",), columns=planned.manifest.inputs,
    )  # fmt: skip


def _cost(workspace: Workspace, planned: PlannedCalls, endpoint: Endpoint) -> tuple[int, float | None]:
    """Calls, and about what they cost as if none were recorded."""
    calls = planned.examples * planned.repeats + planned.timed
    each = _characters(workspace, planned.manifest)
    words = 600 + len(planned.prompt.template or "") + sum(map(len, planned.labels)) * (1 + planned.prompt.few_shot)
    output = planned.prompt.output or ("free" if planned.family in _FREE else "labels")
    answer = min(planned.prompt.max_tokens, _ANSWER_TOKENS[output])
    per_call = estimate(price_of(endpoint), round(words + each * (1 + planned.prompt.few_shot)), answer)
    return calls, None if per_call is None else round(calls * per_call, 6)


def _cost_of_verdicts(
    workspace: Workspace, planned: PlannedCalls, verdicts: PlannedVerdicts
) -> tuple[int, float | None]:
    """Texts to judge are taken to be as long as answers of the family usually are, and the reference, too."""
    text = CHARACTERS_PER_TOKEN * (_ANSWER_TOKENS["free"] if planned.family in _FREE else _ANSWER_TOKENS["labels"])
    characters = 1200 + verdicts.characters + _characters(workspace, planned.manifest) + text * (1 + verdicts.answers)
    per_call = estimate(price_of(verdicts.endpoint), round(characters), verdicts.answer_tokens)
    return verdicts.calls, None if per_call is None else round(verdicts.calls * per_call, 6)


def _characters(workspace: Workspace, manifest: Manifest) -> float:
    """About how many an example is worth."""
    length = mean_length(workspace.folders, manifest)
    media = {
        "image": _MEDIUM_TOKENS["image"] * CHARACTERS_PER_TOKEN,
        "audio": _AUDIO_TOKENS_PER_SECOND * length * CHARACTERS_PER_TOKEN,
    }
    return media.get(manifest.modality, max(length, 20.0 * len(manifest.inputs)))
