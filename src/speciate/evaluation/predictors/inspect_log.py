"""Answers of a finished run of inspect-ai, from its log, beside those of our models on the same examples.

A sample is about the example that has its id, else about those whose text is its input, but for white space. Epochs
are repeats. An example without a sample has an error for an answer; samples without an example are counted and named.
What an answer says is read as that of a public model. Its seconds were taken while many calls were under way, so no
p95 is made of them.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from speciate.datasets.loading.loader import Example, example_keys
from speciate.errors import Code, SpeciateError
from speciate.evaluation import answer_cache
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer, Journal
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.endpoints import answer_parsing, prompts
from speciate.evaluation.endpoints.pricing import Usage, price_of
from speciate.evaluation.endpoints.prompts import KEYS, PromptForm
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, PredictorRequest
from speciate.evaluation.predictors.endpoint import usd_per_1k
from speciate.evaluation.predictors.inspect_log_process import LogRequest, Sample
from speciate.jobs.pool import Pool, ServiceAnswer
from speciate.models import providers
from speciate.settings import in_force

_SERVICE = "speciate.evaluation.predictors.inspect_log_process:read"
_SECONDS = 300.0
_NAMED = 5
_NO_SAMPLE = "the log has no sample about this example"


def read_inspect_log(request: PredictorRequest) -> ModelAnswers:
    evaluated_model = request.evaluated_model
    form = PromptForm(request.task.prompt, request.task.family, request.task.dataset.modality, request.labels, ())
    if form.family not in KEYS:
        raise SpeciateError(
            Code.INVALID,
            f"Answers of the family {form.family!r} are not read from logs of inspect-ai.",
            f"Leave {evaluated_model.name} out; there are {', '.join(KEYS)}.",
        )
    model, status, samples, unreadable = _read_log(request)
    by_example, unmatched, twice = match_samples(samples, request.examples, form.modality)
    if not by_example:
        raise SpeciateError(
            Code.INVALID,
            f"None of the {len(samples)} samples of {evaluated_model.name} is about an example of "
            f"{request.task.shown}: neither is its id one's id, nor its input one's text.",
            "Name the dataset that inspect-ai was given, or give its samples the examples' ids: query_dataset.",
        )
    epochs = sorted({epoch for _, epoch in by_example})
    shown = list(zip(example_keys(request.examples), request.examples, strict=True))
    times = [
        [(AnswerKey(name, repeat), by_example.get((example.id, epoch))) for name, example in shown]
        for repeat, epoch in enumerate(epochs)
    ]
    answers = {key: _to_cache(sample, model) for time_ in times for key, sample in time_ if sample is not None}
    _store_answers(request, answers)
    request.on_progress(len(request.examples))
    repeats = tuple([_answer(form, sample) for _, sample in time_] for time_ in times)
    notes = _notes(request, unmatched, [key for key, sample in times[0] if sample is None], twice, unreadable, status)
    return ModelAnswers(evaluated_model, repeats, _cost(list(answers.values())), (model,), tuple(notes))


def match_samples(
    samples: Sequence[Sample], examples: Sequence[Example], modality: str
) -> tuple[dict[tuple[str, int], Sample], list[str], int]:
    """By example and epoch; ids of samples about none; how many samples were left out since another one came first."""
    ids = {example.id for example in examples}
    by_text: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        text = prompts.as_text(modality, example.media) if modality in prompts.PROMPT_MODALITIES else None
        if text is not None:
            by_text[_normalize_space(text)].append(example.id)
    by_example: dict[tuple[str, int], Sample] = {}
    unmatched, twice = dict[str, None](), 0
    for sample in sorted(samples, key=lambda sample: sample.id not in ids):
        found = [sample.id] if sample.id in ids else by_text.get(_normalize_space(sample.input), [])
        fresh = [each for each in found if (each, sample.epoch) not in by_example]
        by_example |= {(each, sample.epoch): sample for each in fresh}
        twice += bool(found) and not fresh
        if not found:
            unmatched[sample.id] = None
    return by_example, list(unmatched), twice


def _normalize_space(text: str) -> str:
    return " ".join(text.split())


def _read_log(request: PredictorRequest) -> tuple[str, str, list[Sample], int]:
    """Model, how the run ended, its samples, and how many of them could not be read."""
    file = Path(request.evaluated_model.path or "")
    samples: list[Sample] = []
    start: int | None = 0
    reply: ServiceAnswer = {}
    unreadable = 0
    with contextlib.closing(Pool(request.run.folders, in_force(request.run.folders.root), size=1)) as pool:
        while start is not None:
            question = LogRequest(file=str(file), identity=request.evaluated_model.identity, start=start)
            reply = pool.ask(_SERVICE, question, _SECONDS, readable=frozenset({file}))
            samples += [Sample(**each) for each in reply["samples"]]
            start, unreadable = reply["next"], unreadable + reply["unreadable"]
    return reply["model"], reply["status"], samples, unreadable


def _answer(form: PromptForm, sample: Sample | None) -> Answer:
    if sample is None or sample.output is None:
        return Answer(None, error=_NO_SAMPLE if sample is None else sample.error)
    try:
        return Answer(*answer_parsing.parse_answer(form, sample.output))
    except answer_parsing.UnreadableAnswer as error:
        return Answer(None, error=str(error)[:300])


def _to_cache(sample: Sample, model: str) -> CachedAnswer:
    return CachedAnswer(
        sample.output, error=sample.error, input_tokens=sample.input_tokens, output_tokens=sample.output_tokens,
        usd=sample.usd if sample.usd is not None else _published(sample.usage), latency_s=sample.latency_s,
        served_model=model, created=time.time(),
    )  # fmt: skip


def _published(usage: Mapping[str, Sequence[int]]) -> float | None:
    """US dollars by published prices; None unless every model in `usage` has one."""
    each = []
    for name, (reply, answered) in usage.items():
        try:
            price = price_of(providers.endpoint(name))
        except SpeciateError:  # a provider whose prices are not known here
            return None
        if price is None:
            return None
        each.append(price.usd(Usage(reply, answered)))
    return sum(each) if each else None


def _store_answers(request: PredictorRequest, answers: Mapping[AnswerKey, CachedAnswer]) -> None:
    """Stores the answers with tokens, dollars and seconds of each. No host: nothing was paid for this evaluation."""
    fingerprint = answer_cache.digest(request.evaluated_model.identity)
    known = answer_cache.read(request.run.folders, fingerprint, answers)
    with Journal(request.run.folders, fingerprint, request.run.folder.path.name) as journal:
        if fresh := [(key, each) for key, each in answers.items() if key not in known]:
            journal.keep(fresh)


def _cost(answers: Sequence[CachedAnswer]) -> Cost:
    seconds = [each.latency_s for each in answers if each.latency_s is not None and each.error is None]
    return Cost(
        usd_per_1k(answers),
        p50_ms=1000 * float(np.median(seconds)) if seconds else None,
        device="as inspect-ai logged it, many calls at once" if seconds else None,
    )


def _notes(
    request: PredictorRequest,
    unmatched: Sequence[str],
    lacking: Sequence[AnswerKey],
    twice: int,
    unreadable: int,
    status: str,
) -> list[str]:
    name, total, notes = request.evaluated_model.name, len(request.examples), []
    if lacking:
        named = [key.question.partition(":")[0] for key in lacking]
        notes.append(f"{name} has no sample about {len(lacking)} of {total} examples: {_some(named)}.")
    if unmatched:
        notes.append(f"{len(unmatched)} samples of {name} are about none of the examples: {_some(unmatched)}.")
    if twice:
        notes.append(f"{twice} samples of {name} are about examples that another sample is about; the first counts.")
    if unreadable:
        notes.append(f"{unreadable} samples of {name} could not be read.")
    if status != "success":
        notes.append(f"The run of {name} ended with {status!r}, not with 'success'.")
    return notes


def _some(names: Sequence[str]) -> str:
    """Ids of a log are foreign text: short, and quoted."""
    shown = ", ".join(repr(each[:40]) for each in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
