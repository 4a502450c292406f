"""register_model, called as tools are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.datasets.similarity import extractors
from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.models.endpoints import Endpoint
from speciate.models.search.search_query import AtLeast
from speciate.server.tool_api import App
from speciate.serving.predict import Input
from speciate.tools.models import describe_model, register_model, search_models
from speciate.tools.predictions import predict
from speciate.tools.promotion import promote_model
from speciate.tools.training import train_model
from speciate.training.planning import base_models
from speciate.use_cases import Definition, Objective, define
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
        lambda: base_models.find_base(workspace, "big"),
        lambda: extractors.resolve("big", "text", workspace),
    ):
        with pytest.raises(SpeciateError) as caught:
            call()
        assert caught.value.code is Code.INVALID
        assert "big@v1" in caught.value.message
        assert caught.value.recovery


def test_a_search_that_nothing_fits_says_why_and_the_next_call_finds_something(app: App) -> None:
    asked = AtLeast(benchmark="imagenet", metric="f1", above=80)
    found = search_models(app, task="image-classification", published=[asked], released_after="2900")
    assert (found.total, len(found.notes or ())) == (0, 2)
    assert "acc@1, acc@5" in (found.notes or ())[0]
    (then,) = found.next_actions
    assert then.arguments == {"task": "image-classification"}
    assert search_models(app, **then.arguments).total > 100
    assert search_models(app, published=[AtLeast(benchmark="imagenet", metric="top-1", above=80)]).notes is None


def test_words_that_no_model_has_are_told_and_a_task_finds_what_does_it(app: App) -> None:
    (told,) = search_models(app, query="zzyzxq", limit=2).notes or ()
    assert told.startswith("No model has a word of 'zzyzxq'")
    assert search_models(app, query="resnet50", limit=2).notes is None
    for task in ("text-to-speech", "time-series-forecasting"):
        assert search_models(app, task=task, limit=2).total > 0


def test_a_model_of_the_world_is_described_with_who_told_it_and_the_call_that_fetches_it(app: App) -> None:
    ref = "timm:resnet50.a1_in1k"
    found = describe_model(app, ref)
    assert (found.model, found.task, found.available, found.versions) == (ref, "image-classification", False, ())
    assert found.elsewhere is not None
    assert found.elsewhere.origins["ref"].startswith("timm ")
    assert describe_model(app, "hf:timm/resnet50.a1_in1k").elsewhere == found.elsewhere
    (then,) = found.next_actions
    assert (then.tool, then.arguments) == ("register_model", {"name": "resnet50.a1_in1k", "source": ref})
    with pytest.raises(SpeciateError, match=r"did you mean 'timm:resnet50\.a1_in1k'") as caught:
        describe_model(app, "timm:resnet50.a1_in1")
    assert caught.value.code is Code.NOT_FOUND


def test_a_bare_source_and_an_empty_folder_say_what_is_lacking(app: App) -> None:
    for source in ("evil", "./evil", "/evil"):
        with pytest.raises(SpeciateError) as caught:
            register_model(app, "x", source=source, dry_run=True)
        assert f"source='path:{source}'" in caught.value.recovery
    folder = app.workspace.folders.exports / "empty"
    folder.mkdir(parents=True)
    for name in ((), ("config.json",)):
        for each in name:
            (folder / each).write_text("{}")
        with pytest.raises(SpeciateError, match=r"is not whole\. It has no weights") as caught:
            register_model(app, "x", source=f"path:{folder}", dry_run=True)
        assert (name[0] if name else "nothing") in caught.value.message
