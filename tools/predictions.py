"""Predict with a model or a use case's production model, and record feedback on single answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from speciate.errors import Code, SpeciateError
from speciate.modalities.image_answers import is_image_answer
from speciate.modalities.media_answers import is_media_answer, stored_media
from speciate.modalities.media_bytes import media_bytes
from speciate.predictions import answer_lookup
from speciate.predictions.entities import check_entity
from speciate.predictions.feedback import Feedback, Selection, Source, make_feedback
from speciate.refs import model_ref
from speciate.server.roots import check_readable, check_refs, check_writable
from speciate.server.tool_api import (
    App,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    Result,
    ToolImage,
    make_sparse_spec,
    once,
    once_done,
    start_job,
    tool,
)
from speciate.serving import predict as predicting
from speciate.serving.batch_predict import KIND as BATCH
from speciate.serving.batch_predict import PredictSpec, check_columns_of_source
from speciate.serving.predict import Input, ask_deployment
from speciate.serving.record_feedback import MOST, add_each, add_feedback

_MOST_SHOWN, _LARGEST_SHOWN = 8, 1024
"""Images beside a result, and pixels of a side."""
_LABEL = WithJsonSchema({"description": "As outputs of the model are."})


class ForeignLabel(Result):
    label: Any = None


class LatestFeedback(Result):
    score: float | None = None
    at: float
    untrusted: ForeignLabel


class FeedbackRecorded(Result):
    recorded: str = Field(description="The id of the answer.")
    use_case: str
    model: str = Field(description="The version that gave it.")
    standing: dict[str, LatestFeedback] = Field(description="The latest of each source; a person's label counts first.")


class RefusedLabel(Result):
    prediction: str
    error: str


class ManyRecorded(Result):
    recorded: int
    models: dict[str, int] = Field(description="How many answers of each version.")
    refused: tuple[RefusedLabel, ...] = Field(
        (), description="Not recorded, and why; send them again in a call of their own."
    )


class AnswerLabel(BaseModel):
    """What one of several answers should have been."""

    model_config = ConfigDict(extra="forbid")
    prediction: Annotated[str, Field(description="Of predict or a deployment.")]
    label: Annotated[Any, _LABEL] = None
    score: Annotated[float | None, Field(description="Without a label: 1 good, 0 bad.")] = None
    drawn: Annotated[Selection | None, Field(description="As queued.")] = None
    new_class: Annotated[bool, Field(description="A class new to the model.")] = False


_DRAWN = "SELECT drawn FROM label_requests WHERE prediction = ?"


@tool()
def record_feedback(
    app: App,
    source: Annotated[Source, Field(description="Who says so.")],
    prediction: Annotated[str | None, Field(description="Of predict or a deployment.", max_length=64)] = None,
    label: Annotated[Any, _LABEL] = None,
    score: Annotated[float | None, Field(ge=0, le=1, description="Without a label: 1 good, 0 bad.")] = None,
    drawn: Annotated[Selection | None, Field(description="As queued.")] = None,
    new_class: Annotated[bool, Field(description="A class new to the model.")] = False,
    labels: Annotated[
        list[AnswerLabel] | None,
        Field(min_length=1, max_length=MOST, description="[{prediction, label, score, drawn, new_class}]."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
) -> FeedbackRecorded | ManyRecorded:
    """Say what a logged answer of production should have been, or how good it was. For rows of a dataset, call
    label_examples; what to label next: speciate://use-cases/NAME/queue."""
    single = label is not None or score is not None or drawn is not None or new_class
    if (prediction is None) == (labels is None) or (labels and single):
        raise SpeciateError(
            Code.INVALID,
            "One answer is labelled by prediction and label, several by labels, where each has its own fields.",
            "Call record_feedback with prediction=... and label=..., or with labels=[{prediction, label}, ...].",
        )
    if labels is not None:
        many = {"labels": [each.model_dump(exclude_defaults=True) for each in labels], "source": source}
        record = partial(_record_many, app, labels, source)
        return once_done(app, "record_feedback", many, idempotency_key, record, answer=ManyRecorded)
    arguments: dict[str, Any] = {
        "prediction": prediction,
        "label": label,
        "score": score,
        "source": source,
        "drawn": drawn,
    }
    if new_class:  # left out where it is not: a call that is repeated by its key is the same as before
        arguments["new_class"] = True
    given = _as_drawn(app, make_feedback(**arguments, by=app.caller.client[:100]))
    if idempotency_key is None:
        return _record(app, given)
    return once(
        app, "record_feedback", arguments, idempotency_key, lambda _: _record(app, given), answer=FeedbackRecorded
    )


def _record_many(app: App, labels: Sequence[AnswerLabel], source: Source) -> ManyRecorded:
    if len({each.prediction for each in labels}) < len(labels):
        raise SpeciateError(Code.INVALID, "A prediction occurs twice in labels.", "Call again with each once.")
    who = {"source": source, "by": app.caller.client[:100]}
    given = [{**each.model_dump(exclude_defaults=True), **who} for each in labels]
    found = add_each(app.workspace, given, partial(_as_drawn, app))
    refused = tuple(
        RefusedLabel(prediction=each[:64], error=f"{error.message} {error.recovery}") for each, error in found.refused
    )
    return ManyRecorded(recorded=found.models.total(), models=dict(found.models), refused=refused)


def _as_drawn(app: App, given: Feedback) -> Feedback:
    """With how the episode of a watch drew this answer, where it asked about it and the caller does not say."""
    if given.drawn is not None or given.label is None:
        return given
    rows = app.workspace.database.read(_DRAWN, [given.prediction])
    return given.model_copy(update={"drawn": rows[0][0]}) if rows else given


def _record(app: App, given: Feedback) -> FeedbackRecorded:
    found = add_feedback(app.workspace, given)
    return FeedbackRecorded(
        recorded=found.answer.id,
        use_case=answer_lookup.logs_of(app.workspace).naming(given.prediction).use_case,
        model=found.answer.model,
        standing={
            source: LatestFeedback(score=each.score, at=each.at, untrusted=ForeignLabel(label=each.label))
            for source, each in found.standing.items()
        },
    )


class Output(Result):
    output: Any = None
    error_text: str | None = None


class Prediction(Result):
    id: str
    prediction: str | None = Field(None, description="For record_feedback.")
    confidence: float | None = None
    error: str | None = None
    warnings: tuple[str, ...] = Field((), description="Odd beside what training saw.")
    untrusted: Output


class Predictions(Result):
    predictions: tuple[Prediction, ...]
    model: str
    latency_ms: float


@tool()
def predict(
    app: App,
    inputs: Annotated[
        list[Input] | None,
        Field(
            min_length=1,
            max_length=256,
            description="Each {text}, {row: {column: value}}, {path}, {data: base64, mime} or {example: id, dataset}, "
            "id?.",
        ),
    ] = None,
    model: Annotated[str | None, Field(description="As of describe_model; or use_case.")] = None,
    use_case: Annotated[str | None, Field(description="Its production answers.")] = None,
    dataset: Annotated[str | None, Field(description="All its rows, or NAME:test.")] = None,
    source: Annotated[str | None, Field(description="csv, jsonl, parquet or folder.")] = None,
    path: Annotated[str | None, Field(description=".csv, .jsonl or .parquet.")] = None,
    save_as: Annotated[str | None, Field(description="Or a dataset with answers.")] = None,
    budget_usd: Annotated[float | None, Field(gt=0, description="A hard stop.")] = None,
    entity: Annotated[str | None, Field(description="Who asks; hashed.", json_schema_extra={"writeOnly": True})] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> Predictions | JobStarted | DryRun | tuple[Predictions, *tuple[ToolImage, ...]]:
    """Run inputs through a model or a use case's production model: a few at once, many by a job. To compare
    models, call evaluate_models."""
    ref = predicting.requested_model(model, use_case)
    if entity is not None:
        batch = dataset is not None or source is not None
        check_entity(entity, "a batch" if batch else ref, logged=not batch and model_ref(ref).alias == "production")
    if dataset is not None or source is not None:
        if inputs is not None:
            raise SpeciateError(
                Code.INVALID,
                "inputs are answered at once, a dataset or source by a job: this call has both.",
                "Call predict again with one of them.",
            )
        spec = make_sparse_spec(
            PredictSpec,
            model=check_refs(app, ref),
            dataset=dataset,
            source=check_readable(app, source) if source is not None else None,
            path=check_writable(app, path) if path is not None else None,
            save_as=save_as,
            budget_usd=budget_usd,
        )
        check_columns_of_source(app.workspace, app.pool, spec)
        return start_job(app, BATCH, spec, idempotency_key=idempotency_key, dry_run=dry_run)
    of_job = {"path": path, "save_as": save_as, "budget_usd": budget_usd, "dry_run": dry_run or None}
    if inputs is None or any(value is not None for value in of_job.values()):
        given = ", ".join(name for name, value in of_job.items() if value is not None)
        raise SpeciateError(
            Code.INVALID,
            "There is nothing to answer." if inputs is None else f"{given}: for a batch, and these are single inputs.",
            "Call predict again with inputs alone, or with a dataset or source and a path.",
        )
    answer = predicting.predict(
        app.workspace, app.pool, ref, inputs, lambda path: check_readable(app, path),
        partial(ask_deployment, app.workspace.folders, entity=entity), entity,
    )  # fmt: skip
    shown = Predictions(
        predictions=tuple(
            Prediction(
                id=item.id, prediction=item.prediction, confidence=item.confidence, error=item.error,
                warnings=item.warnings,
                untrusted=Output(output=_without_bytes(item.output), error_text=item.error_text),
            )
            for item in answer.predictions
        ),
        model=answer.model,
        latency_ms=round(answer.latency_ms, 1),
    )  # fmt: skip
    images = _drawn([item.output for item in answer.predictions])
    return (shown, *images) if images else shown


def _without_bytes(output: Any) -> Any:
    """An image or audio by its size and hash: it stands beside the result. Any other answer as it is."""
    if not is_media_answer(output):
        return output
    data = media_bytes(output)
    return stored_media(output, hashlib.sha256(data).hexdigest(), len(data))


def _drawn(outputs: Sequence[Any]) -> list[ToolImage]:
    """The first images among the answers that a client can be shown."""
    small = [each for each in outputs if is_image_answer(each) and max(each["width"], each["height"]) <= _LARGEST_SHOWN]
    return [ToolImage(media_bytes(each)) for each in small[:_MOST_SHOWN]]
