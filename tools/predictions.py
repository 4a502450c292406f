"""What became of single answers: feedback on them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from speciate.predictions.feedback import Drawn, Feedback, Source, feedback
from speciate.production import logged
from speciate.server.surface import App, IdempotencyKey, Result, once, tool

_LABEL = WithJsonSchema({"description": "What it should have been: as outputs of the model are."})


class Said(Result):
    label: Any = None


class Standing(Result):
    score: float | None = None
    at: float
    untrusted: Said


class FeedbackRecorded(Result):
    recorded: str = Field(description="The id of the answer.")
    use_case: str
    model: str = Field(description="The version that gave it.")
    standing: dict[str, Standing] = Field(description="The latest of each source; a person's label counts first.")


@tool()
def record_feedback(
    app: App,
    prediction: Annotated[str, Field(description="Of predict or a slot.", max_length=64)],
    source: Source,
    label: Annotated[Any, _LABEL] = None,
    score: Annotated[float | None, Field(ge=0, le=1, description="Where no label fits: 1 good, 0 bad.")] = None,
    drawn: Annotated[Drawn | None, Field(description="As the label queue says.")] = None,
    new_class: Annotated[bool, Field(description="The label is a class that the model does not know yet.")] = False,
    idempotency_key: IdempotencyKey = None,
) -> FeedbackRecorded:
    """Say what a logged answer of production should have been, or how good it was. For rows of a dataset, call
    label_examples; what to label next: speciate://use-cases/NAME/queue."""
    said: dict[str, Any] = {"prediction": prediction, "label": label, "score": score, "source": source, "drawn": drawn}
    if new_class:  # left out where it is not: a call that is repeated by its key is the same as before
        said["new_class"] = True
    given = feedback(**said, by=app.caller.client[:100])
    if idempotency_key is None:
        return _recorded(app, given)
    return once(app, "record_feedback", said, idempotency_key, lambda _: _recorded(app, given), answer=FeedbackRecorded)


def _recorded(app: App, given: Feedback) -> FeedbackRecorded:
    found = logged.feedback(app.workspace, given)
    return FeedbackRecorded(
        recorded=found.answer.id,
        use_case=logged.of(app.workspace).naming(given.prediction).use_case,
        model=found.answer.model,
        standing={
            source: Standing(score=each.score, at=each.at, untrusted=Said(label=each.label))
            for source, each in found.standing.items()
        },
    )
