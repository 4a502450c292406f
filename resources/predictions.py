"""Answers of production as resources: single ones, what a log holds, and what to label next."""

from __future__ import annotations

from typing import Any

from speciate.lineage import trace
from speciate.predictions import answer_lookup
from speciate.predictions.feedback import Source
from speciate.predictions.label_queue import Strategy, next_labels, summarize_log
from speciate.predictions.quality import Quality
from speciate.server.tool_api import App, NextAction, Result, resource

_MOST = 100


class ForeignPrediction(Result):
    input: Any = None
    output: Any = None
    label: Any = None


class AgreementView(Result):
    """Krippendorff's alpha between labellers: 1 perfect, 0 chance; 95 % interval."""

    alpha: float | None = None
    low: float | None = None
    high: float | None = None
    answers: int
    labellers: int


class QualityView(Result):
    model: str
    measure: str
    drawn: str
    n: int
    mean: float
    low: float | None = None
    high: float | None = None


class PreferenceView(Result):
    """How often one version's answers had the higher score, of answers to the same question that the same source
    scored."""

    model: str
    over: str
    wins: int
    losses: int
    ties: int
    share: float | None = None
    low: float | None = None
    high: float | None = None


class LoggedView(Result):
    use_case: str
    answers: int
    sample: float
    missed: int
    torn: int
    first: float | None = None
    last: float | None = None
    bytes: int
    models: dict[str, int]
    feedback: dict[str, int]
    quality: tuple[QualityView, ...]
    agreement: AgreementView
    preferences: tuple[PreferenceView, ...] = ()


class QueueItem(Result):
    prediction: str
    drawn: str
    model: str
    confidence: float | None = None
    at: float
    files: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    untrusted: ForeignPrediction


class QueueView(Result):
    use_case: str
    waiting: int
    items: tuple[QueueItem, ...]
    agreement: AgreementView
    next_actions: tuple[NextAction, ...] = ()


class ForeignFeedback(Result):
    label: Any = None
    by: str = ""
    """Unchecked: over HTTP a client may write anything."""


class FeedbackView(Result):
    source: str
    score: float | None = None
    at: float
    untrusted: ForeignFeedback


class PredictionView(Result):
    prediction: str
    use_case: str
    model: str
    at: float
    confidence: float | None = None
    error: bool
    ms: float
    redacted: int
    left_out: tuple[str, ...]
    feedback: tuple[FeedbackView, ...]
    lineage: str
    untrusted: ForeignPrediction


@resource("speciate://use-cases/{name}/answers")
def logged_answers(app: App, name: str) -> LoggedView:
    """What the log of a use case holds, and how good each version is by feedback. Rows: query_dataset('log:NAME')."""
    found = summarize_log(app.workspace, name)
    held = found.contents
    return LoggedView(
        use_case=name, answers=held.answers, sample=found.sample, missed=held.missed, torn=held.torn, first=held.first,
        last=held.last, bytes=held.bytes, models=held.models, feedback=found.feedback,
        quality=tuple(_quality(each) for each in found.quality), agreement=AgreementView(**found.agreement._asdict()),
        preferences=tuple(PreferenceView(**each._asdict()) for each in found.preferences),
    )  # fmt: skip


@resource("speciate://use-cases/{name}/queue{?strategy,source,count}")
def label_queue(
    app: App, name: str, strategy: Strategy = "mixed", source: Source = "agent", count: int = 20
) -> QueueView:
    """Which answers to label next (mixed: half random, half uncertain), for record_feedback with their `drawn`."""
    found = next_labels(app.workspace, name, strategy=strategy, source=source, count=max(1, min(count, _MOST)))
    items = tuple(
        QueueItem(
            prediction=each.prediction,
            drawn=each.drawn,
            model=each.model,
            confidence=each.confidence,
            at=each.at,
            files=each.files,
            beside=each.beside,
            untrusted=ForeignPrediction(input=each.input, output=each.output, label=each.said or None),
        )
        for each in found.items
    )
    return QueueView(
        use_case=name, waiting=found.waiting, items=items, agreement=AgreementView(**found.agreement._asdict()),
        next_actions=tuple(
            NextAction(tool="record_feedback",
                       arguments={"prediction": each.prediction, "source": source, "drawn": each.drawn})
            for each in items[:1]
        ),
    )  # fmt: skip


@resource("speciate://predictions/{prediction}")
def prediction(app: App, prediction: str) -> PredictionView:
    """One logged answer: input, output, feedback, and its lineage as text."""
    found = answer_lookup.describe_answer(app.workspace, prediction)
    answer = found.answer
    return PredictionView(
        prediction=answer.id, use_case=found.use_case, model=answer.model, at=answer.at, confidence=answer.confidence,
        error=answer.error, ms=answer.ms, redacted=answer.redacted, left_out=answer.left_out,
        feedback=tuple(
            FeedbackView(source=each.source, score=each.score, at=each.at,
                         untrusted=ForeignFeedback(label=each.label, by=each.by))
            for each in found.feedback
        ),
        lineage=trace.trace_answer(app.workspace, prediction).text,
        untrusted=ForeignPrediction(input=answer.input, output=answer.output),
    )  # fmt: skip


def _quality(found: Quality) -> QualityView:
    return QualityView(**found._asdict())
