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


def predict_endpoint(asked: PredictorRequest) -> ModelAnswers:
    task, examples = asked.task, asked.examples
    endpoint = _endpoint(asked)
    form = prompts.prompt_form(
        task.prompt, task.family, task.dataset.modality,
        labels=asked.labels, columns=task.dataset.inputs, training=asked.lessons,
    )  # fmt: skip
    talk = CachedClient(asked.run, task, endpoint, prompts.digest(form))
    names = example_keys(examples)
    times = [[AnswerKey(name, repeat) for name in names] for repeat in range(task.repeats)]
    wanted = {key: example for time_ in times for key, example in zip(time_, examples, strict=True)}
    known = talk.answers(wanted, lambda key: prompts.request(form, wanted[key]), asked.tell)
    cost = Cost(usd_per_1k([known[key] for key in wanted]))
    if task.latency:
        cost = _measure_latency(talk, form, asked, endpoint)._replace(usd_per_1k=cost.usd_per_1k)
    repeats = tuple([_answer(form, known[key]) for key in time_] for time_ in times)
    served = served_models(known.values())
    return ModelAnswers(
        asked.evaluated_model, repeats, cost, served, tuple(talk.notes(asked.evaluated_model.name, served))
    )


def _endpoint(asked: PredictorRequest) -> Endpoint:
    if asked.evaluated_model.endpoint is None:
        raise TypeError(f"{asked.evaluated_model.name} has no endpoint")
    return asked.evaluated_model.endpoint


def _measure_latency(talk: CachedClient, form: PromptForm, asked: PredictorRequest, endpoint: Endpoint) -> Cost:
    """Latency of single calls, on examples drawn anew for it; few examples are asked again and again."""
    examples, count = asked.examples, TIMED_FOR_A_LIMIT if asked.task.limits_latency else TIMED
    order = np.random.default_rng(asked.task.seed).permutation(len(examples))
    drawn = [examples[order[place % len(order)]] for place in range(count + WARM_UP)]
    wanted: dict[AnswerKey, Example] = {
        AnswerKey(name, -1 - place // len(order)): example
        for place, (name, example) in enumerate(zip(example_keys(drawn), drawn, strict=True))
    }
    known = talk.answers(wanted, lambda key: prompts.request(form, wanted[key]), limits=_ONE_AT_A_TIME)
    heard = [known[key] for key in wanted][WARM_UP:]
    times = [1000 * kept.latency_s for kept in heard if kept.latency_s is not None and kept.error is None]
    first = [1000 * kept.ttft_s for kept in heard if kept.ttft_s is not None]
    if not times:
        return Cost()
    return Cost(
        p50_ms=float(np.median(times)),
        p95=quantile_interval(times, 0.95),
        device=f"{endpoint.host}, one call at a time",
        ttft_ms=float(np.median(first)) if first else None,
    )


def _answer(form: PromptForm, kept: CachedAnswer) -> Answer:
    if kept.error is not None or kept.output is None:
        return Answer(None, error=kept.error or "no answer")
    try:
        return Answer(*answer_parsing.parse_answer(form, kept.output))
    except answer_parsing.UnreadableAnswer as error:
        return Answer(None, error=str(error)[:300])


def usd_per_1k(answers: Sequence[CachedAnswer]) -> float | None:
    """As paid when they were given; None where one's price is not known."""
    paid = [kept.usd for kept in answers if kept.error is None or kept.usd is not None]
    known = [usd for usd in paid if usd is not None]
    return 1000 * sum(known) / len(answers) if known and len(known) == len(paid) else None
