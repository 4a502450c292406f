"""A model that others serve, asked over HTTP.

Each answer is on disk before the next question is put, by what was asked and of whom, so that none is paid for twice.
What is kept is the text that came; what it says is read again each time. Latency is measured apart, one call at a time,
on answers that are kept for that alone: those that many calls at once brought say nothing about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from speciate.datasets.loading.keys import keys
from speciate.datasets.loading.loader import Example
from speciate.evaluation import recorded
from speciate.evaluation.answers import Answer
from speciate.evaluation.compare import Cost
from speciate.evaluation.endpoints import prompts, readings
from speciate.evaluation.endpoints.asking import Budget, Limits, ask_all
from speciate.evaluation.endpoints.chat import Reply, Request
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.endpoints.pricing import price_of
from speciate.evaluation.endpoints.prompts import Form
from speciate.evaluation.outlay import TIMED, TIMED_FOR_A_LIMIT, WARM_UP
from speciate.evaluation.predictors.contract import Asked, Sheet
from speciate.evaluation.recorded import Journal, Kept, Key
from speciate.evaluation.statistics import quantile_interval
from speciate.jobs.run import Stopped
from speciate.models.endpoints import Endpoint

_ONE_AT_A_TIME = Limits(bounds=Bounds(least=1, start=1, most=1))


class Question(NamedTuple):
    key: Key
    example: Example


def hand_in(asked: Asked) -> Sheet:
    task, examples = asked.task, asked.examples
    endpoint = _endpoint(asked)
    form = prompts.form(
        task.prompt, task.family, task.dataset.modality,
        labels=asked.labels, columns=task.dataset.inputs, training=asked.lessons,
    )  # fmt: skip
    talk = _Talk(asked, endpoint, form)
    names = keys(examples)
    times = [[Key(name, repeat) for name in names] for repeat in range(task.repeats)]
    wanted = {key: example for time_ in times for key, example in zip(time_, examples, strict=True)}
    known = talk.answers(wanted, Limits(), asked.tell)
    cost = Cost(_usd_per_1k([known[key] for key in wanted]))
    if task.latency:
        cost = talk.timed(examples, TIMED_FOR_A_LIMIT if task.limits_latency else TIMED, task.seed)._replace(
            usd_per_1k=cost.usd_per_1k
        )
    repeats = tuple([_answer(form, known[key]) for key in time_] for time_ in times)
    served = tuple(dict.fromkeys(kept.served_model for kept in known.values() if kept.served_model))
    return Sheet(asked.contestant, repeats, cost, served, talk.notes(served))


def _endpoint(asked: Asked) -> Endpoint:
    if asked.contestant.endpoint is None:
        raise TypeError(f"{asked.contestant.name} has no endpoint")
    return asked.contestant.endpoint


class _Talk:
    """With one endpoint, about one suite, in one form."""

    def __init__(self, asked: Asked, endpoint: Endpoint, form: Form) -> None:
        self._asked, self._endpoint, self._form = asked, endpoint, form
        self._fingerprint = recorded.digest(f"{endpoint.identity} {prompts.digest(form)}")
        self._lost = recorded.lost(asked.run.folders, self._fingerprint)

    def answers(self, wanted: dict[Key, Example], limits: Limits, tell: Callable[[int], None]) -> dict[Key, Kept]:
        """What is known of these, after asking what was not. Raises Stopped, or SpeciateError where that cannot be."""
        run = self._asked.run
        known = recorded.read(run.folders, self._fingerprint, wanted)
        missing = [
            Question(key, example) for key, example in wanted.items() if key not in known or known[key].passing
        ]  # fmt: skip
        done = len(wanted) - len(missing)
        tell(done)
        if not missing:
            return known
        with Journal(run.folders, self._fingerprint, run.folder.path.name, durable=True) as journal:

            def record(place: int, reply: Reply) -> None:
                nonlocal done
                kept = _kept(reply)._replace(host=self._endpoint.host)
                journal.keep([(missing[place].key, kept)])
                known[missing[place].key] = kept
                done += 1
                tell(done)

            told = ask_all(
                self._endpoint, _Requests(self._form, missing), key=self._key(), record=record,
                begin=lambda place: journal.begin(missing[place].key), stopping=lambda: run.stopping,
                budget=self._budget(), limits=limits, seed=self._asked.task.seed,
            )  # fmt: skip
        if told.unanswered:
            raise Stopped
        return known

    def timed(self, examples: Sequence[Example], count: int, seed: int) -> Cost:
        """Latency of single calls, on examples drawn anew for it; few examples are asked again and again."""
        order = np.random.default_rng(seed).permutation(len(examples))
        drawn = [examples[order[place % len(order)]] for place in range(count + WARM_UP)]
        wanted = {
            Key(name, -1 - place // len(order)): example
            for place, (name, example) in enumerate(zip(keys(drawn), drawn, strict=True))
        }
        known = self.answers(wanted, _ONE_AT_A_TIME, lambda done: None)
        heard = [known[key] for key in wanted][WARM_UP:]
        times = [1000 * kept.latency_s for kept in heard if kept.latency_s is not None and kept.error is None]
        first = [1000 * kept.ttft_s for kept in heard if kept.ttft_s is not None]
        if not times:
            return Cost()
        return Cost(
            p50_ms=float(np.median(times)),
            p95=quantile_interval(times, 0.95),
            device=f"{self._endpoint.host}, one call at a time",
            ttft_ms=float(np.median(first)) if first else None,
        )

    def notes(self, served: Sequence[str]) -> tuple[str, ...]:
        name, notes = self._asked.contestant.name, []
        if len(served) > 1:
            notes.append(f"{name} was served as {' and '.join(served)}: what answered changed during these answers.")
        if self._lost:
            notes.append(
                f"{self._lost} calls to {name} were under way when a run was killed: they were asked again, and may "
                "have been paid twice."
            )
        if price_of(self._endpoint) is None:
            notes.append(f"What {name} costs is not known: it has no price of its own, and none is published.")
        return tuple(notes)

    def _key(self) -> str | None:
        return None if self._endpoint.secret is None else self._asked.run.secret(self._endpoint.secret)

    def _budget(self) -> Budget:
        """The least of what the caller and the person who let the data leave allow."""
        task, paid = self._asked.task, recorded.paid(self._asked.run.folders, self._asked.run.job)
        left = [] if task.budget_usd is None else [task.budget_usd - sum(paid.values())]
        if (allowed := task.allowances.get(self._endpoint.host)) is not None:
            left.append(allowed - paid.get(self._endpoint.host, 0.0))
        return Budget(max(0.0, min(left)) if left else None)


class _Requests(Sequence[Request]):
    """Made when their turn comes: a thousand pictures at once would fill the memory."""

    def __init__(self, form: Form, questions: Sequence[Question]) -> None:
        self._form, self._questions = form, questions

    @overload
    def __getitem__(self, place: int) -> Request: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Request]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return _Requests(self._form, self._questions[place])
        return prompts.request(self._form, self._questions[place].example)

    def __len__(self) -> int:
        return len(self._questions)


def _kept(reply: Reply) -> Kept:
    return Kept(
        output=reply.text,
        error=reply.error,
        passing=reply.retryable,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        usd=reply.usd,
        latency_s=reply.latency_s,
        ttft_s=reply.ttft_s,
        attempts=reply.attempts,
        served_model=reply.served_model,
        created=reply.created or time.time(),
    )


def _answer(form: Form, kept: Kept) -> Answer:
    if kept.error is not None or kept.output is None:
        return Answer(None, error=kept.error or "no answer")
    try:
        return Answer(*readings.read(form, kept.output))
    except readings.Unreadable as error:
        return Answer(None, error=str(error)[:300])


def _usd_per_1k(answers: Sequence[Kept]) -> float | None:
    """As paid when they were given; None where one's price is not known."""
    paid = [kept.usd for kept in answers if kept.error is None or kept.usd is not None]
    known = [usd for usd in paid if usd is not None]
    return 1000 * sum(known) / len(answers) if known and len(known) == len(paid) else None
