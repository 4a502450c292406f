"""Boxes with labels: centres as peaks of a heat map, with a size and an offset at each (Objects as Points, Zhou et al.
2019). Inside, boxes are shares of the image, so that its size does not matter; outside they are in its pixels.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Self, TypedDict

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


Maps = npt.NDArray[Any]  # (K + 4, h, w): heat of each label, then width, height and the offset of the centre
_MOST, _LEAST_SCORE = 100, 0.05  # boxes of an image, as COCO counts them; their score, as Detectron cuts them
_HIDDEN = 64
_OVERLAP = 0.7  # of a box off by the radius of a peak with the true box
_ALPHA, _BETA, _OF_SIZE = 2, 4, 0.1  # of the focal loss; weight of the sizes' loss, counted in cells
_RARE = math.log(0.1 / 0.9)  # bias at the start: most places are no centre (Lin et al. 2017)


class Detection(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["detection"] = "detection"
    labels: tuple[str, ...]

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Cell: `[{category, bbox: [x, y, width, height]}]` in pixels, as the COCO reader makes it; may be empty.

        Target: `{size: [width, height], objects: [{label, box, crowd?}]}`, in pixels.
        """
        if cell is None:
            return None
        if not isinstance(cell, list):
            raise ValueError(f"{cell!r:.60} is no list of objects, each with category and bbox")
        height, width = example.media.shape[:2]
        return TaskExample(example, {"size": [width, height], "objects": [_object(each) for each in cell]})

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        labels = sorted({each["label"] for target in targets for each in target["objects"]})
        if not labels:
            raise SpeciateError(
                Code.INVALID,
                "There is no box in any training image.",
                "Name the column that has the objects with target, such as target='objects'.",
            )
        return cls(labels=tuple(labels))

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The median box of each label, scored by the share of images that show it."""
        shares: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
        for target in targets:
            for each in target["objects"]:
                shares[each["label"]].append(np.array(each["box"]) / (2 * target["size"]))
        shown = Counter(label for target in targets for label in {each["label"] for each in target["objects"]})
        usual = [
            {"label": label, "score": shown[label] / len(targets), "box": np.median(shares[label], axis=0).tolist()}
            for label in sorted(shares)
        ]
        return lambda example: _in_pixels(Prediction(usual, None, None), example)

    def encode_targets(self, targets: Sequence[Any]) -> list[npt.NDArray[np.float32]]:
        """(objects, 5) each: place of the label, centre x and y, width and height as shares. Crowds are left out."""
        place = {label: i for i, label in enumerate(self.labels)}
        return [
            np.array(
                [
                    [place[each["label"]], *_centred(each["box"], target["size"])]
                    for each in target["objects"]
                    if each["label"] in place and not each.get("crowd")
                ],
                np.float32,
            ).reshape(-1, 5)
            for target in targets
        ]

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Sequence[Maps]) -> list[Prediction]:
        """Output: `[{label, score, box: [x, y, width, height]}]`, best first; `placed` brings the boxes to pixels."""
        return [Prediction(self._boxes(np.asarray(maps, np.float64)), None, None) for maps in scores]

    def placed(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        return [_in_pixels(made, example) for made, example in zip(predictions, examples, strict=True)]

    def _boxes(self, maps: Maps) -> list[DetectedObject]:
        heat, (wide, high, right, down) = maps[:-4], maps[-4:]
        heat = np.where(heat >= _highest_around(heat), heat, 0.0)
        best = np.argsort(-heat, axis=None, kind="stable")[:_MOST]
        found: list[DetectedObject] = []
        for label, y, x in zip(*np.unravel_index(best, heat.shape), strict=True):
            if heat[label, y, x] < _LEAST_SCORE:
                break
            centre = (x + right[y, x]) / heat.shape[2], (y + down[y, x]) / heat.shape[1]
            box = _cut(*centre, max(wide[y, x], 0.0), max(high[y, x], 0.0))
            found.append({"label": self.labels[label], "score": float(heat[label, y, x]), "box": box})
        return found

    def head(self, width: int) -> torch.nn.Module:
        """(B, W, h, w) -> (B, K + 4, 2 h, 2 w): one step of upsampling, so that neighbours are told apart."""
        import torch
        from torch import nn

        last = nn.Conv2d(_HIDDEN, len(self.labels) + 4, 1)
        with torch.no_grad():
            last.bias[:-4].fill_(_RARE)  # type: ignore[index]  # it has a bias
        return nn.Sequential(
            nn.ConvTranspose2d(width, _HIDDEN, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(_HIDDEN, _HIDDEN, 3, padding=1), nn.ReLU(), last,
        )  # fmt: skip

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Focal loss of the heat, and absolute errors of sizes and offsets at the centres, per object."""
        import torch
        from torch.nn.functional import l1_loss, logsigmoid

        maps = head(states.as_maps())
        heat = maps[:, :-4]
        (high, wide), device = heat.shape[2:], maps.device
        heats = np.stack([_heat(boxes, len(self.labels), high, wide) for boxes in targets])
        target = torch.from_numpy(heats).to(device)
        probability, centre = torch.sigmoid(heat), target == 1
        found = centre * (1 - probability) ** _ALPHA * logsigmoid(heat)
        clean = ~centre * (1 - target) ** _BETA * probability**_ALPHA * logsigmoid(-heat)
        images = np.repeat(np.arange(len(targets)), [len(boxes) for boxes in targets])
        count = max(len(images), 1)
        loss = -(found + clean).sum() / count
        if not len(images):
            return loss
        boxes = np.concatenate(targets)
        places = boxes[:, 1:3] * (wide, high)
        cells = _cells(places, wide, high)
        at = (torch.from_numpy(images), slice(-4, None), *torch.from_numpy(cells[:, ::-1].copy()).unbind(1))
        predicted = maps[at]
        sizes = torch.from_numpy(boxes[:, 3:]).to(device) * torch.tensor([wide, high], device=device)
        offsets = torch.from_numpy((places - cells).astype(np.float32)).to(device)
        off = l1_loss(predicted[:, 2:], offsets, reduction="sum")
        return loss + (_OF_SIZE * l1_loss(predicted[:, :2], sizes, reduction="sum") + off) / count

    def counted(self, states: States, targets: Any) -> int:
        return sum(len(boxes) for boxes in targets)

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        import torch

        maps = head(states.as_maps()).float()
        high, wide = maps.shape[2:]
        sizes = maps[:, -4:-2] / torch.tensor([wide, high], device=maps.device).view(2, 1, 1)
        return list(torch.cat([torch.sigmoid(maps[:, :-4]), sizes, maps[:, -2:]], 1).cpu().numpy())


class LabelledObject(TypedDict):
    """`box`: [x, y, width, height] in pixels."""

    label: str
    box: list[float]
    crowd: NotRequired[bool]


class DetectedObject(TypedDict):
    """`box`: [x, y, width, height] as shares of the image."""

    label: str
    score: float
    box: list[float]


def _object(each: Any) -> LabelledObject:
    if not isinstance(each, dict) or each.get("category") is None:
        raise ValueError(f"{each!r:.60} is no object with a category")
    box = each.get("bbox")
    try:
        numbers = [float(number) for number in box] if isinstance(box, list) else []
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        raise ValueError(f"bbox {box!r:.60} is not [x, y, width, height] with a width and a height above 0")
    made: LabelledObject = {"label": str(each["category"]), "box": numbers}
    if each.get("iscrowd"):
        made["crowd"] = True
    return made


def _centred(box: Sequence[float], size: Sequence[float]) -> list[float]:
    """Pixels -> centre and size as shares."""
    x, y, width, height = box
    return [(x + width / 2) / size[0], (y + height / 2) / size[1], width / size[0], height / size[1]]


def _cut(x: float, y: float, width: float, height: float) -> list[float]:
    """Centre and size -> corner and size of what lies in the image."""
    left, top, right, bottom = np.clip([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 0, 1).tolist()
    return [left, top, right - left, bottom - top]


def _in_pixels(made: Prediction, example: Example) -> Prediction:
    height, width = example.media.shape[:2]
    size = np.array([width, height, width, height])
    boxes = [each | {"box": np.round(each["box"] * size, 2).tolist()} for each in made.output]
    return made._replace(output=boxes)


def _highest_around(heat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(K, h, w): the highest of each 3 x 3 neighbourhood."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    highest: npt.NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).max((3, 4))
    return highest


def _cells(places: npt.NDArray[Any], wide: int, high: int) -> npt.NDArray[np.int64]:
    """(M, 2) x and y in cells -> the cell that each lies in."""
    cells: npt.NDArray[np.int64] = np.clip(np.floor(places).astype(np.int64), 0, (wide - 1, high - 1))
    return cells


def _heat(boxes: npt.NDArray[np.float32], labels: int, high: int, wide: int) -> npt.NDArray[np.float32]:
    """(labels, high, wide): 1 in the cell of each centre, falling off around it the wider the larger the box."""
    heat = np.zeros((labels, high, wide), np.float32)
    rows, columns = np.arange(high)[:, None], np.arange(wide)[None, :]
    for (label, *_, width, height), (x, y) in zip(boxes, _cells(boxes[:, 1:3] * (wide, high), wide, high), strict=True):
        spread = max(_radius(width * wide, height * high), 0.5) / 3
        peak = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2)).astype(np.float32)
        np.maximum(heat[int(label)], peak, out=heat[int(label)])
    return heat


def _radius(width: float, height: float) -> float:
    """How far a box may be moved to the side and down until it overlaps its old place by less than `_OVERLAP`."""
    both = width + height
    return (both - math.sqrt(max(both**2 - 4 * width * height * (1 - _OVERLAP) / (1 + _OVERLAP), 0.0))) / 2
