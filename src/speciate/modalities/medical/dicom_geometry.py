"""The geometry of slices: their order, their distance, and, by name, the faults that keep them from being one volume.

Pure. Positions are millimetres in the patient's coordinates (DICOM PS3.3, C.7.6.2: x to the left, y to the back, z to
the head). A missing slice at either end cannot be noticed: nothing declares how many there must be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError

Floats = npt.NDArray[np.float64]

SAME_DIRECTION = 0.01
"""Cosines of one orientation may differ by so much: half a degree."""
_SAME_PLACE = 0.01  # mm
_SLACK, _LEAST_SLACK = 0.05, 0.1  # of a gap, and mm: headers are rounded
_TILTED = 0.5  # degrees
_SHOWN = 4


class Slice(NamedTuple):
    name: str
    """As people know it: `instance 7`."""
    size: tuple[int, int]
    """Rows, columns."""
    position: tuple[float, ...] | None
    """(3,): of the centre of the first voxel."""
    orientation: tuple[float, ...] | None
    """(6,): where columns and then rows count up to."""
    spacing: tuple[float, float] | None
    """Millimetres between rows, between columns."""
    thickness: float | None
    """Millimetres to the next slice by the header: used for a single slice."""
    pixels: str
    """A text that is the same for slices whose pixels are the same."""


class Stack(NamedTuple):
    order: list[int]
    """Places of the slices along their normal."""
    spacing: tuple[float, float, float]
    """Millimetres between slices, rows, columns; 1 if unknown."""
    directions: Floats | None
    """(3, 3): where slices, rows and columns count up to; None if unknown."""
    tilt_degrees: float = 0.0
    """Degrees between the normal and the way from slice to slice: of a CT whose gantry was tilted."""


def stack_slices(slices: Sequence[Slice]) -> Stack:
    """One volume of all slices. Raises DecodeError(partial), which names the fault."""
    _refuse_mixed(slices, "size", [f"{rows} x {columns}" for rows, columns in (each.size for each in slices)])
    first = slices[0]
    if len(slices) == 1:
        return Stack([0], (first.thickness or 1.0, *(first.spacing or (1.0, 1.0))), None)
    if lost := [each.name for each in slices if each.position is None or each.orientation is None]:
        raise _partial(f"{len(lost)} of {len(slices)} slices have no position: {_listed(lost)}")
    turned = orientations([each.orientation for each in slices])
    _refuse_mixed(slices, "orientation", [_direction(slices[place].orientation) for place in turned], turned)
    _refuse_mixed(slices, "pixel spacing", [_millimetres(each.spacing) for each in slices])
    columns, rows, normal = axes(first.orientation or ())
    places = np.array([each.position for each in slices], np.float64)
    along = places @ normal
    order = sorted(range(len(slices)), key=lambda place: (along[place], slices[place].name))
    _refuse_twice(slices, along, order)
    gap = _gap(slices, along, order)
    way = places[order[-1]] - places[order[0]]
    cosine = abs(way @ normal) / max(float(np.linalg.norm(way)), 1e-9)
    tilt = float(np.degrees(np.arccos(min(cosine, 1.0))))
    return Stack(
        order,
        (gap, *(first.spacing or (1.0, 1.0))),
        np.stack([normal, rows, columns]),
        tilt if tilt > _TILTED else 0.0,
    )


def axes(orientation: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Where columns, rows and slices count up to. Raises DecodeError if the header names no two directions."""
    columns, rows = np.array(orientation[:3], np.float64), np.array(orientation[3:], np.float64)
    lengths = np.array([columns @ columns, rows @ rows])
    if not np.isfinite(lengths).all() or np.abs(lengths - 1).max() > 0.05 or abs(columns @ rows) > 0.05:
        raise _partial("The orientation that the header names is none (ImageOrientationPatient)")
    return columns, rows, np.cross(columns, rows)


def orientations(found: Sequence[Sequence[float] | None]) -> list[int]:
    """For each orientation the place of the first one that is the same; None is its own kind."""
    kinds: list[int] = []
    places: list[int] = []
    for place, one in enumerate(found):
        same = next((kind for kind in kinds if _same(found[kind], one)), None)
        if same is None:
            kinds.append(place)
        places.append(place if same is None else same)
    return places


class Layout(NamedTuple):
    """How a stack's axes become those of a volume (volumes.py): nearest to head, back and left."""

    order: tuple[int, ...]
    turned: tuple[bool, ...]

    def array(self, stacked: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(slices, rows, columns) -> the volume."""
        found = stacked.transpose(self.order)
        return np.ascontiguousarray(found[tuple(slice(None, None, -1 if turn else 1) for turn in self.turned)])

    def spacing(self, stacked: Sequence[float]) -> tuple[float, ...]:
        return tuple(stacked[axis] for axis in self.order)


def layout_of(stack: Stack) -> Layout:
    """A single slice, and slices without a place in the patient, stay as they are."""
    if stack.directions is None:
        return Layout((0, 1, 2), (False, False, False))
    likeness = stack.directions[:, ::-1]  # of the axes with z, y and x of the patient
    order = max(permutations(range(3)), key=lambda each: sum(abs(likeness[axis, i]) for i, axis in enumerate(each)))
    return Layout(order, tuple(bool(likeness[axis, i] < 0) for i, axis in enumerate(order)))


def _same(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= SAME_DIRECTION for a, b in zip(one, other, strict=True))


def _refuse_mixed(slices: Sequence[Slice], what: str, values: Sequence[str], keys: Sequence[int] | None = None) -> None:
    """`keys`: what is compared, if not the shown values."""
    counts = Counter(keys if keys is not None else values)
    if len(counts) == 1:
        return
    of: Sequence[object] = keys if keys is not None else values
    usual = counts.most_common(1)[0][0]
    odd = [i for i, value in enumerate(of) if value != usual]
    shown = values[next(i for i, value in enumerate(of) if value == usual)]
    raise _partial(
        f"Slices of mixed {what}: {shown} in {counts[usual]} of {len(slices)}; {values[odd[0]]} in "
        f"{_listed([slices[i].name for i in odd])}"
    )


def _refuse_twice(slices: Sequence[Slice], along: Floats, order: Sequence[int]) -> None:
    twice = [(a, b) for a, b in pairwise(order) if along[b] - along[a] < _SAME_PLACE]
    if not twice:
        return
    if len(twice) * 2 >= len(slices):
        raise _partial(
            f"{len(slices)} slices lie in {len(slices) - len(twice)} positions: several volumes in one series, with "
            "nothing in their headers that tells which slice is of which"
        )
    pairs = []
    for a, b in twice[:_SHOWN]:
        how = "identical" if slices[a].pixels == slices[b].pixels else "different"
        pairs.append(f"at {along[a]:.6g} mm ({slices[a].name} and {slices[b].name}, with {how} pixels)")
    raise _partial(f"{_slices(len(twice))} there twice: {_listed(pairs, len(twice))}")


def _gap(slices: Sequence[Slice], along: Floats, order: Sequence[int]) -> float:
    """Millimetres between slices."""
    gaps = np.diff(along[order])
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower median: of two gaps, the larger is the odd one
    slack = max(_SLACK * usual, _LEAST_SLACK)
    missing, uneven, count = [], [], 0
    for gap, a, b in zip(gaps.tolist(), order, order[1:], strict=False):
        if abs(gap - usual) <= slack:
            continue
        between = f"between {along[a]:.6g} and {along[b]:.6g} mm ({slices[a].name} and {slices[b].name})"
        times = round(gap / usual)
        if times >= 2 and abs(gap - times * usual) <= slack * times:
            missing.append(between)
            count += times - 1
        else:
            uneven.append(f"{gap:.4g} mm {between}")
    if uneven:
        raise _partial(f"Slices at uneven gaps: {usual:.4g} mm, but {_listed(uneven)}")
    if missing:
        raise _partial(f"{_slices(count)} missing: {_listed(missing)}, at gaps of {usual:.4g} mm")
    return float(gaps.mean())


def _slices(count: int) -> str:
    return "One slice is" if count == 1 else f"{count} slices are"


def _listed(names: Sequence[str], count: int | None = None) -> str:
    more = (count or len(names)) - min(len(names), _SHOWN)
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _direction(orientation: Sequence[float] | None) -> str:
    return "\\".join(f"{value:.3g}" for value in orientation or ())


def _millimetres(spacing: tuple[float, float] | None) -> str:
    return "unknown" if spacing is None else f"{spacing[0]:.4g} x {spacing[1]:.4g} mm"


def _partial(what: str) -> DecodeError:
    return DecodeError("partial", f"{what}.")
