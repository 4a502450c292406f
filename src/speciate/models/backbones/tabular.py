"""Networks that read rows of a table: `new:tab-resnet`, the residual network of Gorishniy et al. 2021.

A number is seen twice: standardised, and as its rank among the training values, which outliers and skew do not reach.
What is missing becomes the median, with a flag where training rows lacked it too. A category is an embedding; values
that training did not see, or saw too seldom, share one that stays zero. Left out: columns of free text, and columns
that were empty. Blocks are normalised by layer and not by batch, so that no row depends on another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speciate.errors import Code, SpeciateError
from speciate.modalities import tabular
from speciate.modalities.tabular import Row
from speciate.models.backbones.contract import BackboneSettings, Item, States, refuse_medium, refuse_units, seeded

if TYPE_CHECKING:
    import torch


_WIDTH, _BLOCKS, _DROPOUT = 128, 2, 0.1
_MOST_CATEGORIES = 50
_KNOTS = 65
_FARTHEST = 5.0  # spreads from the mean
_MISSING, _RARE, _FIRST = 0, 1, 2  # places of an embedding


class Number(NamedTuple):
    name: str
    mean: float
    std: float
    knots: tuple[float, ...]
    """Quantiles of the training values, equally far apart in rank; the middle one stands for what is missing."""
    flagged: bool
    """Whether training rows lacked it."""


class Category(NamedTuple):
    name: str
    values: tuple[str, ...]


class Encoding(NamedTuple):
    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]

    @property
    def width(self) -> int:
        """Width of `numbers` in an item."""
        return 2 * len(self.numbers) + sum(number.flagged for number in self.numbers)


class TabularBackbone:
    modality = "tabular"
    unit: str | None = None
    width = _WIDTH

    def __init__(self, base_model: str, encoding: Encoding, module: torch.nn.Module) -> None:
        self.base_model, self._encoding, self.module = base_model, encoding, module

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: dicts of column -> number, text, bool or None. Columns that are not there count as missing."""
        if per_unit:
            refuse_units(self)
        for medium in media:
            if not isinstance(medium, Mapping) or any(isinstance(cell, np.ndarray) for cell in medium.values()):
                refuse_medium(self, medium)
        numbers, categories = self._encoding
        columns = [each for number in numbers for each in _seen(number, media)]
        places = [_places(category, media) for category in categories]
        table = np.array(columns, np.float32).reshape(len(columns), len(media)).T
        chosen = np.array(places, np.int64).reshape(len(places), len(media)).T
        return [{"numbers": row, "categories": place} for row, place in zip(table, chosen, strict=True)]

    def length(self, item: Item) -> int:
        return 1

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        import torch

        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in ("numbers", "categories")}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        """One position: the row."""
        import torch

        parts: Any = self.module
        embedded = [embedding(batch["categories"][:, at]) for at, embedding in enumerate(parts["categories"])]
        state = parts["first"](torch.cat([batch["numbers"], *embedded], dim=1))
        for block in parts["blocks"]:
            state = state + block(state)
        state = parts["last"](state)
        return States(state[:, None], torch.ones(len(state), 1, dtype=torch.bool, device=state.device), state)

    def settings(self) -> BackboneSettings:
        numbers = [number._asdict() for number in self._encoding.numbers]
        categories = [category._asdict() for category in self._encoding.categories]
        return {
            "base_model": self.base_model, "modality": self.modality, "numbers": numbers, "categories": categories,
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}


def build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None) -> TabularBackbone:
    """INVALID where no column can be learned from."""
    encoding = _fitted(media)
    with seeded(seed):
        return TabularBackbone(base_model, encoding, _network(encoding))


def rebuild(settings: Mapping[str, Any], folder: Path) -> TabularBackbone:
    encoding = Encoding(
        tuple(Number(**number) for number in settings["numbers"]),
        tuple(Category(**category) for category in settings["categories"]),
    )
    return TabularBackbone(settings["base_model"], encoding, _network(encoding))


def _network(encoding: Encoding) -> Any:
    from torch import nn

    tables = [
        nn.Embedding(_FIRST + len(each.values), _embedding(each), padding_idx=_RARE) for each in encoding.categories
    ]
    width = encoding.width + sum(_embedding(each) for each in encoding.categories)
    blocks = [
        nn.Sequential(
            nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 2 * _WIDTH), nn.ReLU(), nn.Dropout(_DROPOUT),
            nn.Linear(2 * _WIDTH, _WIDTH),
        )
        for _ in range(_BLOCKS)
    ]  # fmt: skip
    return nn.ModuleDict(
        {
            "categories": nn.ModuleList(tables),
            "first": nn.Linear(width, _WIDTH),
            "blocks": nn.ModuleList(blocks),
            "last": nn.Sequential(nn.LayerNorm(_WIDTH), nn.ReLU()),
        }
    )


def _embedding(category: Category) -> int:
    """How many numbers stand for one of its values."""
    return min(1 + math.isqrt(len(category.values)), 16)


def _fitted(media: Sequence[Row]) -> Encoding:
    numbers, categories = [], []
    for name in sorted({name for medium in media for name in medium}):
        present = [cell for medium in media if (cell := _cell(medium, name)) is not None]
        if all(isinstance(cell, int | float) for cell in present):
            numbers += [_number(name, present, flagged=len(present) < len(media))] if present else []
        elif not _free_text(present):
            common = Counter(map(str, present)).most_common()
            ordered = sorted(common, key=lambda each: (-each[1], each[0]))[:_MOST_CATEGORIES]
            categories.append(Category(name, tuple(sorted(value for value, _ in ordered))))
    if not (numbers or categories):
        raise SpeciateError(
            Code.INVALID,
            "No column can be learned from: all are free text, or empty.",
            "Create the dataset with input columns that hold numbers or categories, or read one column as text.",
        )
    return Encoding(tuple(numbers), tuple(categories))


def _number(name: str, present: Sequence[float], *, flagged: bool) -> Number:
    values = np.asarray(present, np.float64)
    knots = np.quantile(values, np.linspace(0, 1, _KNOTS))
    return Number(name, float(values.mean()), float(values.std()) or 1.0, tuple(knots.tolist()), flagged)


def _free_text(present: Sequence[Any]) -> bool:
    """More values than are told apart, and hardly one twice."""
    different = len(set(map(str, present)))
    return different > _MOST_CATEGORIES and 2 * different > len(present)


def _seen(number: Number, media: Sequence[Row]) -> list[Any]:
    """(N,) each: standardised, rank between -1 and 1, and the flag."""
    raw = np.array([tabular.number(number.name, medium.get(number.name)) for medium in media], np.float64)
    missing = np.isnan(raw)
    values = np.where(missing, number.knots[_KNOTS // 2], raw)
    standard = np.clip((values - number.mean) / number.std, -_FARTHEST, _FARTHEST)
    return [standard, _rank(values, np.array(number.knots)), *([missing] if number.flagged else [])]


def _rank(values: Any, knots: Any) -> Any:
    """Ranks of values, -1 to 1: between knots in proportion; of values that many training rows share, the middle of
    their ranks."""
    different, first = np.unique(knots, return_index=True)
    last = len(knots) - 1 - np.unique(knots[::-1], return_index=True)[1]
    return np.interp(values, different, (first + last) / (len(knots) - 1) - 1)


def _places(category: Category, media: Sequence[Row]) -> list[int]:
    place = {value: _FIRST + at for at, value in enumerate(category.values)}
    cells = [_cell(medium, category.name) for medium in media]
    return [_MISSING if cell is None else place.get(str(cell), _RARE) for cell in cells]


def _cell(medium: Row, name: str) -> Any:
    """None where it is missing, NaN or not there."""
    value = medium.get(name)
    return None if isinstance(value, float) and math.isnan(value) else value
