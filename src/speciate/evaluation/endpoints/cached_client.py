"""A client of an endpoint that asks no question twice: each answer is in the cache before the next call.

The cache holds the text of an answer; it is parsed again each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, overload

from speciate.evaluation import answer_cache
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer, Journal
from speciate.evaluation.endpoints.chat_client import Reply, Request
from speciate.evaluation.endpoints.concurrent_calls import Budget, Limits, ask_all
from speciate.evaluation.endpoints.pricing import price_of
from speciate.evaluation.payload import EvaluationPayload
from speciate.jobs.run import Run, Stopped
from speciate.models.endpoints import Endpoint

_USUAL = Limits()


class CachedClient:
    """With one endpoint, in one form: `form` is a digest of all that changes an answer and stands in no key."""

    def __init__(self, run: Run, task: EvaluationPayload, endpoint: Endpoint, form: str) -> None:
        self._run, self._task, self._endpoint = run, task, endpoint
        self._fingerprint = answer_cache.digest(f"{endpoint.identity} {form}")
        self._lost = answer_cache.count_lost_calls(run.folders, self._fingerprint)

    def answers(
        self,
        keys: Collection[AnswerKey],
        request: Callable[[AnswerKey], Request],
        on_progress: Callable[[int], None] = lambda done: None,
        limits: Limits = _USUAL,
    ) -> dict[AnswerKey, CachedAnswer]:
        """The answers to these keys, cached or new; `on_progress` gets their number so far.

        Raises Stopped, or SpeciateError where they cannot be asked.
        """
        run = self._run
        known = answer_cache.read(run.folders, self._fingerprint, keys)
        missing = [key for key in keys if key not in known or known[key].passing]
        done = len(keys) - len(missing)
        on_progress(done)
        if not missing:
            return known
        with Journal(run.folders, self._fingerprint, run.folder.path.name) as journal:

            def record(place: int, reply: Reply) -> None:
                nonlocal done
                answer = _cached_answer(reply)._replace(host=self._endpoint.host)
                journal.keep([(missing[place], answer)])
                known[missing[place]] = answer
                done += 1
                on_progress(done)

            summary = ask_all(
                self._endpoint, _Requests(request, missing), key=self._key(), record=record,
                begin=lambda place, worst: journal.begin(missing[place], self._endpoint.host, worst),
                stopping=lambda: run.stopping, budget=self._budget(), limits=limits, seed=self._task.seed,
                private_hosts=self._task.private_hosts, permit=run.permit(self._endpoint.host),
            )  # fmt: skip
        if summary.unanswered:
            raise Stopped
        return known

    def recorded(self, keys: Collection[AnswerKey]) -> dict[AnswerKey, CachedAnswer]:
        """The answers to these keys that are in the cache and that another call would not change; nothing is asked."""
        known = answer_cache.read(self._run.folders, self._fingerprint, keys)
        return {key: answer for key, answer in known.items() if not answer.passing}

    def notes(self, name: str, served: Sequence[str]) -> list[str]:
        """What a reader should know of this endpoint, here called `name`."""
        notes = []
        if len(served) > 1:
            notes.append(f"{name} was served as {' and '.join(served)}: what answered changed during these answers.")
        if self._lost:
            notes.append(
                f"{self._lost} calls to {name} were under way when a run was killed: they were asked again, and may "
                "have been paid twice."
            )
        if price_of(self._endpoint) is None:
            notes.append(f"What {name} costs is not known: it has no price of its own, and none is published.")
        return notes

    def _key(self) -> str | None:
        return None if self._endpoint.secret is None else self._run.secret(self._endpoint.secret)

    def _budget(self) -> Budget:
        """The least of what the caller and the person who let the data leave allow; of that, this job's share."""
        task, paid = self._task, answer_cache.paid(self._run.folders, self._run.job)
        allowances = {**task.allowances, **self._run.allowances}
        left = [] if task.budget_usd is None else [task.budget_usd - sum(paid.values())]
        if (allowed := allowances.get(self._endpoint.host)) is not None:
            left.append(allowed - paid.get(self._endpoint.host, 0.0))
        return Budget(max(0.0, min(left)) if left else None)


def served_models(answers: Iterable[CachedAnswer]) -> tuple[str, ...]:
    """What the endpoint said that it served, the first one first."""
    return tuple(dict.fromkeys(answer.served_model for answer in answers if answer.served_model))


class _Requests(Sequence[Request]):
    """Made when their turn comes: a thousand images at once would fill the memory."""

    def __init__(self, request: Callable[[AnswerKey], Request], keys: Sequence[AnswerKey]) -> None:
        self._request, self._keys = request, keys

    @overload
    def __getitem__(self, place: int) -> Request: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Request]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return _Requests(self._request, self._keys[place])
        return self._request(self._keys[place])

    def __len__(self) -> int:
        return len(self._keys)


def _cached_answer(reply: Reply) -> CachedAnswer:
    return CachedAnswer(
        output=reply.text,
        error=reply.error,
        passing=reply.retryable,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        usd=reply.usd,
        usd_at_most=reply.usd_at_most,
        latency_s=reply.latency_s,
        ttft_s=reply.ttft_s,
        attempts=reply.attempts,
        served_model=reply.served_model,
        created=reply.created or time.time(),
    )
