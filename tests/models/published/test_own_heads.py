"""Published heads that are trained further: they learn by their own loss, keep known labels, resume, and come back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.modalities.depth_maps import from_map
from speciate.models import trust
from speciate.models.published.architectures import check_head
from speciate.models.published.asking import ask
from speciate.models.published.label_rows import label_tensors, relabel, row_sources
from speciate.models.published.published_model import load_model
from speciate.tasks.published_heads import WITHOUT_LABELS
from speciate.tasks.published_network import TrainedPublishedPredictor, trained_predictor
from speciate.tasks.published_predictor import load_published
from speciate.training.hyperparameters import LoraParameters
from speciate.training.networks.training_checkpoints import TrainingState
from speciate.training.recipes import lora_full
from tests.models.published import doubles
from tests.models.published.doubles import COLOURS, FAMILIES, write
from tests.models.published.learning import LEARNING, differing, examples, loss_of, start, state_of

QUICK = ("bert", "bert tags", "vit")
BY_NAME = [pytest.param(name, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name in LEARNING]
ADAPTERS = {FAMILIES[name].adapter: name for name in reversed(LEARNING)}
"""Adapter -> its first double."""
FIRST = [each for each in BY_NAME if each.values[0] in (*ADAPTERS.values(), "bert score", "layoutlm", "resnet")]
"""Of each adapter one, and what differs within it; the others: test_own_heads_of_others.py."""
LABELLED = [
    each for each in BY_NAME
    if FAMILIES[str(each.values[0])].adapter not in WITHOUT_LABELS
    and not FAMILIES[str(each.values[0])].task.endswith("-regression")
]  # fmt: skip
STEPS = {"wav2vec2 ctc": 60, "detr": 60, "yolos": 60}
WHOLE_BATCHES = ("object-detection", "image-segmentation", "panoptic", "text-to-spectrogram")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from without_warnings(monkeypatch)


def without_warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", BY_NAME)
def test_a_head_learns_by_its_own_loss_is_saved_and_comes_back_with_the_same_bits(name: str, tmp_path: Path) -> None:
    folder = write(name, tmp_path / "model")
    training, network, task_head = start(name, folder, steps_of={"num_train_epochs": 60})
    before = loss_of(training, name, network, task_head)
    training.run_until(STEPS.get(name, 30))
    assert loss_of(training, name, network, task_head) <= 0.9 * before
    predictor = TrainedPublishedPredictor(network, horizon=getattr(task_head, "horizon", None))
    network.module.eval()
    answers, kept = predictor.predict(examples(name)), state_of(network.module)
    first, second = predictor.save(tmp_path / "first"), predictor.save(tmp_path / "second")
    assert first == second
    trust.check(tmp_path / "first")
    back = load_published(tmp_path / "first")
    assert not differing(kept, state_of(back.model.module))
    assert back.labels == predictor.labels
    for one, other in zip(answers, back.predict(examples(name)), strict=True):
        assert same_answer(one.output, other.output), (one, other)
        for label, share in (one.probabilities or {}).items():
            assert (other.probabilities or {})[label] == pytest.approx(share, abs=1e-5)


def same_answer(one: Any, other: Any) -> bool:
    """Boxes to a hundredth of a pixel; labels, tags, texts and maps to the letter."""
    if isinstance(one, float):
        return one == pytest.approx(other, abs=1e-5)
    if isinstance(one, dict) and "low" in one:  # of depth
        apart = np.abs(from_map(one) - from_map(other)).max()
        return bool(apart <= 2e-5 * max(1.0, abs(one["low"]), abs(one["high"])))
    if isinstance(one, list) and one and isinstance(one[0], list):  # steps
        return bool(np.allclose(one, other, atol=1e-5))
    if not (isinstance(one, list) and one and isinstance(one[0], dict)):
        return bool(one == other)
    return len(one) == len(other) and all(
        a["label"] == b["label"] and np.allclose([a["score"], *a["box"]], [b["score"], *b["box"]], atol=1e-2)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", LABELLED)
def test_known_labels_keep_their_scores_in_another_order_beside_a_new_one(name: str, tmp_path: Path) -> None:
    """As many labels as before: taken by shape, every row would stand under another name."""
    folder = write(name, tmp_path / "model")
    model = load_model(folder, check_head(folder, name))
    wanted = [*reversed(model.labels[1:]), "novelty"]
    sources = {label: (model.labels.index(label),) if label in model.labels else () for label in wanted}
    made = relabel(model.module, sources)
    assert made.tensors
    old, new = (outputs(name, model._replace(module=module)) for module in (model.module, made.module))
    for place, label in enumerate(wanted):
        if label in model.labels:
            assert torch.allclose(new[..., place], old[..., model.labels.index(label)], atol=1e-5), label
    fresh, parameters = len(wanted) - 1, dict(made.module.named_parameters())
    weights = [parameters[each] for each in made.tensors if parameters[each].ndim > 1]
    assert all(not each[fresh].any() for each in weights)
    own = {id(parameters[each]) for each in made.tensors}
    shared = {each for each, tensor in made.module.named_parameters(remove_duplicate=False) if id(tensor) in own}
    untouched = [each for each in model.module.state_dict() if each not in shared]
    before, after = model.module.state_dict(), made.module.state_dict()
    assert [
        each for each in untouched if "empty_weight" not in each and not torch.equal(before[each], after[each])
    ] == []


def outputs(name: str, model: Any) -> torch.Tensor:
    """(..., labels) of a head, for whatever it labels: examples, pieces, boxes, pixels."""
    from speciate.models.published.network import PublishedNetwork
    from tests.models.published.learning import media

    network = PublishedNetwork(model, name, Path())
    network.module.eval()
    batch = network.collate(network.prepare(media(name)[:3]))
    with torch.inference_mode():
        if model.head.adapter not in WHOLE_BATCHES:
            return network.states(batch).sequence.clone()
        found: Any = network.module(**next(part for _, part in network.alike(batch)))
    logits = found.get("logits") if found.get("logits") is not None else found.class_queries_logits
    return logits.movedim(1, -1) if model.head.model_type == "segformer" else logits


def test_another_count_of_labels_and_no_known_one_are_laid_anew_too(tmp_path: Path) -> None:
    folder = write("vit", tmp_path / "model")
    model = load_model(folder, check_head(folder, "vit"))
    made = relabel(model.module, row_sources(model.labels, ["scratch", "dent"], "image-classification"))
    weights = dict(made.module.named_parameters())
    assert not weights["classifier.weight"].any()
    assert not weights["classifier.bias"].any()
    assert tuple(weights["classifier.weight"].shape) == (2, 32)
    assert label_tensors(made.module) == ("classifier.weight", "classifier.bias")


def test_several_published_labels_of_one_meaning_give_their_mean(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    doubles.bert(folder, ("good", "great", "bad"))
    model = load_model(folder, check_head(folder, "bert"))
    table = {"good": "fine", "great": "fine", "bad": "poor"}
    made = relabel(model.module, row_sources(model.labels, ["fine", "poor"], "text-classification", table))
    old, new = model.module.classifier.weight, made.module.classifier.weight
    assert torch.equal(new[1], old[2])
    assert torch.allclose(new[0], (old[0] + old[1]) / 2)


def test_tags_keep_the_row_of_their_prefix() -> None:
    published = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
    assert row_sources(published, ["B-person", "I-person", "O", "B-thing"], "token-classification") == {
        "B-person": (1,), "I-person": (2,), "O": (0,), "B-thing": (),
    }  # fmt: skip
    assert row_sources(published, ["O", "person"], "token-classification") == {"O": (0,), "person": (1, 2)}


@pytest.mark.parametrize("name", FIRST)
def test_adapters_merge_without_a_gap_and_leave_tied_and_attention_layers_alone(name: str, tmp_path: Path) -> None:
    folder = write(name, tmp_path / "model")
    before = load_model(folder, check_head(folder, name)).module
    method = lora_full.lora_method(LoraParameters())
    if name == "resnet":  # no linear layer
        assert lora_full.adaptable_layers(before, label_tensors(before)) == []
        return
    training, network, task_head = start(name, folder, adapt=method.adapt)
    frozen = {id(each) for each in network.module.parameters() if not each.requires_grad}
    training.run_until(6)
    assert frozen
    unmerged = loss_of(training, name, network, task_head)
    silent = method.finish(network)
    assert loss_of(training, name, network, task_head) == pytest.approx(unmerged, rel=1e-4, abs=1e-5)
    shapes = {each: tuple(tensor.shape) for each, tensor in network.module.state_dict().items()}
    assert set(shapes) == set(before.state_dict())
    changed = set(differing(state_of(before), state_of(network.module))) if same_shapes(before, shapes) else None
    if changed is not None:
        assert set(network.label_tensors) <= changed | {each for each in changed if "denoising" in each} | set(
            network.label_tensors if name == "rt_detr" else ()
        )
    if name == "whisper":
        assert "proj_out" not in lora_full.adaptable_layers(network.module)
        assert changed is not None
        assert not {each for each in changed if "proj_out" in each or "embed_tokens" in each}
    assert len(silent) < len(lora_full.adaptable_layers(network.module, network.label_tensors))
    if name == "detr":  # its queries begin as zeros, so nothing comes to their first attention
        assert {each.rpartition(".")[0] for each in silent} == {"model.decoder.layers.0.self_attn"}


def same_shapes(module: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
    return all(tuple(each.shape) == shapes[name] for name, each in module.state_dict().items())


def test_layers_inside_torchs_attention_and_shared_ones_are_not_adapted() -> None:
    from torch import nn

    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.dense = nn.MultiheadAttention(8, 2), nn.Linear(8, 8)
            self.words, self.lm_head = nn.Embedding(5, 8), nn.Linear(8, 5, bias=False)
            self.lm_head.weight = self.words.weight
            self.classifier = nn.Linear(8, 3)

    assert lora_full.adaptable_layers(Pooling(), ("classifier.weight", "classifier.bias")) == ["dense"]


@pytest.mark.parametrize("name", FIRST)
def test_a_training_that_stops_and_resumes_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    folder = write(name, tmp_path / "model")
    draw = np.random.default_rng(len(name))
    for adapt in (None, lora_full.lora_method(LoraParameters(lora_dropout=0.1)).adapt):
        if name == "resnet" and adapt is not None:
            continue
        begin = partial(start, name, folder, adapt=adapt, steps_of={"num_train_epochs": 2})
        whole = begin()[0]
        whole.run_until(whole.total)
        first = begin()[0]
        first.run_until(int(draw.integers(1, first.total)))
        state = first.state()
        kept = TrainingState(
            state.facts,
            {group: {n: t.detach().clone() for n, t in each.items()} for group, each in state.tensors.items()},
        )
        first.run_until(first.total)  # which must not reach into what was saved
        other = begin()[0]
        other.restore(kept)
        other.run_until(other.total)
        assert other.digest() == whole.digest()


@pytest.mark.parametrize("name", FIRST)
def test_divided_batches_give_the_gradient_of_the_whole_or_are_refused(name: str, tmp_path: Path) -> None:
    from speciate.errors import SpeciateError

    folder = write(name, tmp_path / "model")
    divided = {"per_device_train_batch_size": 2}
    layers = load_model(folder, check_head(folder, name)).module.modules()
    norms = any(isinstance(each, torch.nn.modules.batchnorm._BatchNorm) for each in layers)
    if FAMILIES[name].adapter in WHOLE_BATCHES or norms:
        with pytest.raises(SpeciateError, match="would divide batches of 8"):
            start(name, folder, steps_of=divided)
        return
    exact, exact_parts = (gradient_of(name, folder, each, double=True) for each in ({}, divided))
    largest = max(float(each.abs().max()) for each in exact.values())
    assert apart(exact, exact_parts) <= 1e-6 * largest, "another loss, not the noise of float32"
    whole, parts = (gradient_of(name, folder, each) for each in ({}, divided))
    assert apart(exact, parts) <= max(1e-5 * max(largest, 1.0), 4 * apart(exact, whole))


def gradient_of(name: str, folder: Path, steps_of: dict[str, Any], *, double: bool = False) -> dict[str, torch.Tensor]:
    """Of the first step; with `double` every number of it has 64 bits."""
    with pytest.MonkeyPatch.context() as patch:
        training, network, _ = start(name, folder, steps_of=steps_of | {"max_grad_norm": 1e9})
        still(network.module)
        if double:
            collate = network.collate
            network.module.double()
            patch.setattr(network, "collate", lambda items: _doubled(collate(items)))
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)  # of losses, which are taken in float32
        training.advance()
        named = network.module.named_parameters()
        return {each: parameter.grad.double() for each, parameter in named if parameter.grad is not None}


def _doubled(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: each.double() if each.is_floating_point() else each for name, each in batch.items()}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert set(one) == set(other)
    return max(float((one[each] - other[each]).abs().max()) for each in one)


def still(module: Any) -> None:
    """Without what is drawn: a divided batch draws another number of times."""
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
        for name in ("drop_prob", "dropout", "attention_dropout", "activation_dropout", "layerdrop", "hidden_dropout"):
            if isinstance(getattr(each, name, None), float):
                setattr(each, name, 0.0)
    for name in ("attention_probs_dropout_prob", "layerdrop", "attention_dropout", "classifier_dropout"):
        if hasattr(module.config, name):
            setattr(module.config, name, 0.0)
    module.config.apply_spec_augment = False


def test_a_temperature_is_folded_into_the_last_layer_so_every_tool_answers_alike(tmp_path: Path) -> None:
    from speciate.tasks.families.classification import Classification

    training, network, task_head = start("vit", write("vit", tmp_path / "model"))
    training.run_until(4)
    network.module.eval()
    raw = [each.probabilities or {} for each in ask(network.model, doubles.images())]
    assert isinstance(task_head, Classification)
    calibrated = task_head.model_copy(update={"temperature": 2.0})
    made = trained_predictor(network, calibrated, examples("vit"))
    for before, after in zip(raw, made.predict(examples("vit")), strict=True):
        powers = {label: share**0.5 for label, share in before.items()}
        for label, share in (after.probabilities or {}).items():
            assert share == pytest.approx(powers[label] / sum(powers.values()), abs=1e-5)
    assert made.labels == tuple(sorted([*list(COLOURS)[1:], "novelty"]))
