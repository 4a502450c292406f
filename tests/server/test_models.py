"""register_model, called as tools are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from speciate.tools.models import register_model
from speciate.tools.production import predict, promote_model
from speciate.tools.training import train_model

from speciate.datasets.similarity import extractors
from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.models.endpoints import Endpoint
from speciate.production.predict import Input
from speciate.server.surface import App
from speciate.training import bases
from speciate.usecases import Definition, Objective, define
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app

ENDPOINT = Endpoint(base_url="https://llm.example/v1", model="big", secret="llm")


@pytest.fixture
def app(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return make_app(workspace)


def test_a_model_that_others_serve_is_a_version_at_once(app: App) -> None:
    made = register_model(app, "big", endpoint=ENDPOINT, license="MIT", idempotency_key="once")
    assert (made.model, made.host) == ("big@v1", "llm.example")
    assert made.needs == (
        "speciate secret set llm --host llm.example", "speciate allow DATASET --host llm.example --usd CAP",
    )  # fmt: skip
    assert register_model(app, "big", endpoint=ENDPOINT, license="MIT", idempotency_key="once") == made
    with pytest.raises(SpeciateError) as caught:
        register_model(app, "big", endpoint=ENDPOINT, license="Apache-2.0", idempotency_key="once")
    assert caught.value.code is Code.CONFLICT
    assert len(registry.versions(app.workspace.database, "big")) == 1


@pytest.mark.parametrize("secret", ["sk-proj-planted", "hf_planted", "x" * 65, "two words", "../x"])
def test_a_key_in_the_place_of_its_name_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="not the key") as caught:
        Endpoint(base_url="https://llm.example/v1", model="big", secret=secret)
    assert caught.value


def test_where_weights_are_needed_it_says_what_takes_such_a_model(app: App) -> None:
    register_model(app, "big", endpoint=ENDPOINT)
    objective = Objective(metric="accuracy", target=0.9)
    definition = Definition(name="triage", task="text-classification", objective=objective)
    app.workspace.database.transact(lambda tx: define(tx, definition))
    workspace = app.workspace
    for call in (
        lambda: predict(app, [Input(text="hello")], model="big"),
        lambda: promote_model(app, "triage", "big@v1"),
        lambda: train_model(app, "again", like="big"),
        lambda: train_model(app, "again", dataset="none", continue_from="big"),
        lambda: bases.find(workspace, "big"),
        lambda: extractors.resolve("big", "text", workspace),
    ):
        with pytest.raises(SpeciateError) as caught:
            call()
        assert caught.value.code is Code.INVALID
        assert "big@v1" in caught.value.message
        assert caught.value.recovery
