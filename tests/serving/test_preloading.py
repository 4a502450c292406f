"""Models in production are loaded before they are asked; nobody begins again beside a loading that is on its way."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.executors import LocalExecutor
from speciate.jobs.pool import Pool, PoolProcessEnded
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.models.registry import ModelVersion
from speciate.promotion import aliases
from speciate.sandbox import python
from speciate.serving import preloading
from speciate.serving.deployment_folder import deployment_folder
from speciate.serving.predict import ANSWER, Input, predict
from speciate.serving.predict_worker import load
from speciate.workspace.workspace import Workspace
from tests.training.world import define, make_dataset, model_path, thirds, train_now


class SlowPool(Pool):
    """Notes what is asked, and answers when it is told to."""

    def __init__(self, failure: SpeciateError | None = None) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.done, self.heard = threading.Event(), threading.Event()
        self.failure = failure

    def ask(
        self,
        service: str,
        payload: dict[str, Any],
        timeout: float = 20.0,
        *,
        readable: frozenset[Path] = frozenset(),
        family: str = "",
    ) -> dict[str, Any]:
        self.asked.append((service, payload["model"]))
        self.heard.set()
        assert self.done.wait(30)
        if self.failure:
            raise self.failure
        return {}


@pytest.fixture
def words(workspace: Workspace) -> ModelVersion:
    define(workspace, "taste", "text-classification")
    labels = ["good" if i % 4 < 2 else "bad" for i in range(60)]
    texts = [f"a {label} film {i}" for i, label in enumerate(labels)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(60), inputs=["text"])
    few = {"candidates": ["logistic"]}
    train_now(workspace, name="words", dataset="films", method="classical", hyperparameters=few)
    return registry.resolve(workspace.database, workspace.folders, "words")


def _promote(workspace: Workspace, model: str) -> None:
    workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="taste", model=model, expected=None, action="promote", actor="ada", evidence={}
        )
    )


def _register(workspace: Workspace, like: ModelVersion, **changes: str) -> None:
    card = like.card.model_copy(update={"version": 0, **changes})
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, like.path))


def test_who_asks_while_a_model_is_loaded_waits_for_that(words: ModelVersion) -> None:
    pool = SlowPool()
    first = preloading.preloader_of(pool).begin(words)
    with pytest.raises(SpeciateError, match="words@v1 is still being loaded") as error:
        preloading.preloader_of(pool).wait(words, 0.01, "predict(model='words@v1', inputs=[the same])")
    assert error.value.code is Code.UNAVAILABLE
    assert "repeat predict(model='words@v1', inputs=[the same])" in error.value.recovery
    pool.done.set()
    preloading.preloader_of(pool).wait(words, 30)
    first.join(30)
    preloading.preloader_of(pool).wait(words, 30)
    assert pool.asked == [(preloading.LOAD, str(words.path))]


def test_what_could_not_be_loaded_is_said_and_tried_again(words: ModelVersion) -> None:
    pool = SlowPool(SpeciateError(Code.REFUSED, "Other weights are installed.", "Install the old ones."))
    pool.done.set()
    for _ in range(2):
        with pytest.raises(SpeciateError, match="Other weights"):
            preloading.preloader_of(pool).wait(words, 30)
    assert len(pool.asked) == 2


class BusyMachine(Pool):
    """Loads in its time; its first answer is ended in the middle, as by a machine that is busy."""

    def __init__(self) -> None:
        self._size = 2
        self.asked: list[str] = []
        self.given: list[float] = []

    def ask(self, service: str, payload: dict[str, Any], timeout: float = 20.0, **_: Any) -> dict[str, Any]:
        self.asked.append(service)
        if service == preloading.LOAD:
            return {}
        self.given.append(timeout)
        if len(self.given) == 1:
            raise PoolProcessEnded(Code.UNAVAILABLE, "It was stopped.", "Ask for less.")
        said = {"id": "0", "output": "good", "confidence": 1.0, "error": None}
        return {"predictions": [said for _ in payload["items"]]}


def test_an_answer_has_all_that_is_left_of_its_call_and_the_next_call_does_not_fail_as_it_did(
    workspace: Workspace, words: ModelVersion
) -> None:
    pool = BusyMachine()
    with pytest.raises(SpeciateError, match="words@v1 gave no answer") as error:
        predict(workspace, pool, "words@v1", [Input(text="good")])
    assert "repeat the call" in error.value.recovery
    assert predict(workspace, pool, "words@v1", [Input(text="good")]).predictions[0].output == "good"
    assert pool.asked == [preloading.LOAD, ANSWER, preloading.LOAD, ANSWER]
    assert min(pool.given) > 35  # the pool's own 20 s are for what needs no model


def test_where_nothing_serves_nothing_is_loaded_until_something_does(workspace: Workspace, words: ModelVersion) -> None:
    pool = SlowPool()
    preloading.keep_loaded(workspace, pool)
    assert pool.asked == []
    _promote(workspace, words.ref)
    assert pool.heard.wait(30)
    assert pool.asked == [(preloading.LOAD, str(words.path))]
    pool.done.set()


def test_of_what_is_trained_the_networks_of_use_cases_are_loaded(workspace: Workspace, words: ModelVersion) -> None:
    """Not what is trained to be looked at, nor what needs no more than a second."""
    pool = SlowPool()
    for name, more in (
        ("tried", {"base_model": "pkg:minilm"}), ("counted", {"use_case": "taste"}),
        ("encoder", {"base_model": "pkg:minilm", "use_case": "taste"}),
    ):  # fmt: skip
        _register(workspace, words, name=name, **more)
    pool.done.set()
    preloading.load_ahead(workspace, pool, (), ["tried@v1", "counted@v1", "encoder@v1"])
    assert [Path(model).parent.name for _, model in pool.asked] == ["encoder"]


def test_models_are_loaded_one_after_the_other(workspace: Workspace, words: ModelVersion) -> None:
    pool = SlowPool()
    _register(workspace, words, name="second")
    second = registry.resolve(workspace.database, workspace.folders, "second")
    loads = [preloading.preloader_of(pool).begin(version) for version in (words, second)]
    assert pool.heard.wait(30)
    assert len(pool.asked) == 1
    pool.done.set()
    for one in loads:
        one.join(30)
    assert sorted(Path(model).parent.name for _, model in pool.asked) == ["second", "words"]


def test_what_is_made_while_the_daemon_lives_is_heard_of(workspace: Workspace, words: ModelVersion) -> None:
    pool = SlowPool()
    pool.done.set()
    preloading.keep_loaded(workspace, pool)
    _register(workspace, words, name="encoder", base_model="pkg:minilm", use_case="taste")
    assert pool.heard.wait(30)


def test_what_serves_is_loaded_when_the_daemon_starts(workspace: Workspace, words: ModelVersion) -> None:
    _promote(workspace, words.ref)
    pool = SlowPool()
    preloading.keep_loaded(workspace, pool)
    assert pool.heard.wait(30)
    assert pool.asked == [(preloading.LOAD, str(words.path))]
    pool.done.set()


@pytest.mark.parametrize(
    ("method", "base_model", "modality", "task", "expected"),
    [
        ("classical", None, "text", "text-classification", "classical"),
        ("full", "new:tab-resnet", "tabular", "tabular-classification", "torch"),
        ("full", "new:bert", "text", "text-classification", "transformers"),
        ("probe", "pkg:minilm", "text", "text-classification", "transformers"),
        ("probe", "pkg:openclip-vit", "image", "image-classification", "transformers"),
        ("published", "hf:somebody/whisper", "audio", "automatic-speech-recognition", "transformers"),
        ("full", "hf:somebody/detector", "image", "object-detection", "published"),
        ("distill", "new:vit", "image", "image-classification", "published"),
        ("lora", "hf:somebody/painter", "text", "text-to-image", "published"),
    ],
)
def test_a_model_is_answered_by_a_process_with_no_more_than_it_needs(
    method: str, base_model: str | None, modality: str, task: str, expected: str
) -> None:
    card = ModelCard(name="m", method=method, base_model=base_model, modality=modality, task=task)
    assert preloading.family(card) == expected


def test_imports_for_what_serves_begin_before_the_daemons_own_unless_a_deployment_serves_it(
    workspace: Workspace, words: ModelVersion
) -> None:
    asked = list[str]()
    executor = LocalExecutor(workspace.folders.root)
    executor.prepare_answers = asked.append  # type: ignore[method-assign]  # no process is to be started
    preloading.begin_imports(workspace, executor)
    assert asked == []
    _register(workspace, words, name="probed", method="probe", base_model="pkg:minilm")
    _promote(workspace, "probed@v1")
    preloading.begin_imports(workspace, executor)
    assert asked == ["transformers"]
    deployment_folder(workspace.folders, "taste").path.mkdir(parents=True)
    preloading.begin_imports(workspace, executor)
    assert asked == ["transformers"]


_FIRST_ANSWER = """
import json, sys
from speciate.jobs.pool_process import Services
answer = Services().answer
asked, item = json.loads(sys.argv[1]), {"id": "0", "text": "a fine film"}
loaded = answer({"service": "speciate.serving.predict_worker:load", "payload": asked})
modules = set(sys.modules)
payload = asked | {"modality": "text", "inputs": ["text"], "parts": [], "items": [item]}
given = answer({"service": "speciate.serving.predict_worker:answer", "payload": payload})
print(json.dumps({
    "loaded": loaded, "answer": given, "networks": "transformers.modeling_utils" in modules,
    "later": sorted(name for name in set(sys.modules) - modules if name.partition(".")[0] in ("torch", "transformers")),
    "needless": sorted({"torchvision", "scipy", "sympy", "torch._dynamo"} & set(sys.modules)),
}))
"""


@pytest.mark.slow
def test_a_text_model_is_loaded_whole_and_without_what_it_does_not_need(workspace: Workspace) -> None:
    """In a process of its own, as it serves: an encoder's libraries are there before the first answer, those of
    transformers' image processors and losses and of torch's compiler never."""
    pytest.importorskip("torch")
    labels = ["good" if i % 4 < 2 else "bad" for i in range(24)]
    texts = [f"a {label} film {i}" for i, label in enumerate(labels)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(24), inputs=["text"])
    short = {"num_train_epochs": 1, "learning_rate": [1e-3]}
    how = {"method": "full", "base_model": "new:bert", "hyperparameters": short}
    train_now(workspace, "job-a", name="net", dataset="films", **how)
    train_now(workspace, "job-b", name="probed", dataset="films", method="probe", base_model="net@v1")
    for model in ("net", "probed"):
        asked = json.dumps({"model": str(model_path(workspace, model))})
        command = [*python("speciate")[:2], "-c", _FIRST_ANSWER, asked]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["loaded"] == {"answer": {}}
        assert said["answer"]["answer"]["predictions"][0]["output"] in ("good", "bad")
        assert said["networks"]
        assert (said["later"], said["needless"]) == ([], [])


def test_loading_a_model_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpeciateError) as error:
        load({"model": str(tmp_path / "nowhere")})
    assert error.value.code is Code.NOT_FOUND
