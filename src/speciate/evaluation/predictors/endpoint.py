"""A model that others serve, asked over HTTP.

Latency is measured apart, one call at a time, on answers that are kept for that alone: those that many calls at once
brought say nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speciate.datasets.loading.loader import Example, example_keys
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.endpoints import answer_parsing, prompts
from speciate.evaluation.endpoints.cached_client import CachedClient, served_models
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.endpoints.concurrent_calls import Limits
from speciate.evaluation.endpoints.cost_check import TIMED, TIMED_FOR_A_LIMIT, WARM_UP
from speciate.evaluation.endpoints.prompts import PromptForm
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, PredictorRequest
from speciate.evaluation.statistics import quantile_interval
from speciate.models.endpoints import Endpoint

_ONE_AT_A_TIME = Limits(bounds=Bounds(least=1, start=1, most=1))


def recorded_answers(request: PredictorRequest) -> list[Answer | None]:
    """The answers that are in the cache, None for the others; nothing is asked."""
    form = _form(request)
    client = CachedClient(request.run, request.task, _endpoint(request), prompts.digest(form))
    keys = [AnswerKey(name) for name in example_keys(request.examples)]
    known = client.recorded(keys)
    return [_answer(form, known[key]) if key in known else None for key in keys]


def _form(request: PredictorRequest) -> PromptForm:
    task = request.task
    return prompts.prompt_form(
        task.prompt, task.family, task.dataset.modality,
        labels=request.labels, columns=task.dataset.inputs, training=request.training_examples,
    )  # fmt: skip


def predict_endpoint(request: PredictorRequest) -> ModelAnswers:
    task, examples = request.task, request.examples
    endpoint, form = _endpoint(request), _form(request)
    client = CachedClient(request.run, task, endpoint, prompts.digest(form))
    names = example_keys(examples)
    times = [[AnswerKey(name, repeat) for name in names] for repeat in range(task.repeats)]
    examples_by_key = {key: example for time_ in times for key, example in zip(time_, examples, strict=True)}
    answers = client.answers(
        examples_by_key, lambda key: prompts.request(form, examples_by_key[key]), request.on_progress
    )
    cost = Cost(usd_per_1k([answers[key] for key in examples_by_key]))
    if task.latency:
        cost = _measure_latency(client, form, request, endpoint)._replace(usd_per_1k=cost.usd_per_1k)
    repeats = tuple([_answer(form, answers[key]) for key in time_] for time_ in times)
    served = served_models(answers.values())
    return ModelAnswers(
        request.evaluated_model, repeats, cost, served, tuple(client.notes(request.evaluated_model.name, served))
    )


def _endpoint(request: PredictorRequest) -> Endpoint:
    if request.evaluated_model.endpoint is None:
        raise TypeError(f"{request.evaluated_model.name} has no endpoint")
    return request.evaluated_model.endpoint


def _measure_latency(client: CachedClient, form: PromptForm, request: PredictorRequest, endpoint: Endpoint) -> Cost:
    """Latency of single calls, on examples drawn anew for it; few examples are asked repeatedly."""
    examples, count = request.examples, TIMED_FOR_A_LIMIT if request.task.limits_latency else TIMED
    order = np.random.default_rng(request.task.seed).permutation(len(examples))
    sample = [examples[order[place % len(order)]] for place in range(count + WARM_UP)]
    examples_by_key: dict[AnswerKey, Example] = {
        AnswerKey(name, -1 - place // len(order)): example
        for place, (name, example) in enumerate(zip(example_keys(sample), sample, strict=True))
    }
    answers = client.answers(
        examples_by_key, lambda key: prompts.request(form, examples_by_key[key]), limits=_ONE_AT_A_TIME
    )
    timed = [answers[key] for key in examples_by_key][WARM_UP:]
    times = [1000 * answer.latency_s for answer in timed if answer.latency_s is not None and answer.error is None]
    first = [1000 * answer.ttft_s for answer in timed if answer.ttft_s is not None]
    if not times:
        return Cost()
    return Cost(
        p50_ms=float(np.median(times)),
        p95=quantile_interval(times, 0.95),
        device=f"{endpoint.host}, one call at a time",
        ttft_ms=float(np.median(first)) if first else None,
    )


def _answer(form: PromptForm, answer: CachedAnswer) -> Answer:
    if answer.error is not None or answer.output is None:
        return Answer(None, error=answer.error or "no answer")
    try:
        return Answer(*answer_parsing.parse_answer(form, answer.output))
    except answer_parsing.UnreadableAnswer as error:
        return Answer(None, error=str(error)[:300])


def usd_per_1k(answers: Sequence[CachedAnswer]) -> float | None:
    """US dollars for 1,000 answers, as paid when they were given; None if one price is not known."""
    paid = [answer.usd for answer in answers if answer.error is None or answer.usd is not None]
    known = [usd for usd in paid if usd is not None]
    return 1000 * sum(known) / len(answers) if known and len(known) == len(paid) else None
