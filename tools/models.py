"""Models that nobody trained here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from speciate.models import served
from speciate.models.endpoints import Endpoint
from speciate.server.surface import App, IdempotencyKey, NextAction, Result, once, tool
from speciate.workspace.database import Transaction


class ModelRegistered(Result):
    model: str
    host: str
    needs: tuple[str, ...] = Field(description="What a person types on a terminal before the endpoint can be asked.")
    next_actions: tuple[NextAction, ...] = ()


@tool(idempotent=True)
def register_model(
    app: App,
    name: Annotated[str, Field(description="The model gets the next version of this name.")],
    endpoint: Endpoint,
    task: Annotated[str | None, Field(description="Default: any that words can answer.")] = None,
    license: Annotated[str | None, Field(max_length=64, description="SPDX id.")] = None,  # noqa: A002 - as cards call it
    idempotency_key: IdempotencyKey = None,
) -> ModelRegistered:
    """Name a model that an OpenAI-compatible endpoint serves, for evaluate_models and as a use case's incumbent.

    Known providers need no registration: api:openai/MODEL. To train one instead, call specialize.
    """
    card = served.prepare(app.workspace, name, endpoint, task=task, license=license)

    def step(tx: Transaction) -> ModelRegistered:
        model = served.register(tx, app.workspace, card).ref
        then = NextAction(tool="evaluate_models", arguments={"models": [model]})
        return ModelRegistered(model=model, host=endpoint.host, needs=served.needs(endpoint), next_actions=(then,))

    arguments = {"name": name, "endpoint": endpoint.model_dump(), "task": task, "license": license}
    return once(app, "register_model", arguments, idempotency_key, step, answer=ModelRegistered)
