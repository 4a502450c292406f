"""Scores of predicted structures of proteins beside true ones: `package:rmsd`, `package:tm_score`, `package:lddt`.

Scorers (evaluation/scorers/scorer.py) of an example's `truth` and an answer's `output`: the places of the alpha
carbons, residue by residue, as JSON [[x, y, z], ...] in Ångström, or as such lists. A residue that is null in the
reference does not count. An answer that lacks the place of a known residue raises ValueError and has no score.

RMSD is after superposition by Biopython. The TM-score is that of Zhang & Skolnick (2004), found by their search over
fragments, coarser: it is written out here because the libraries that have it are under the GPL; it is at most 0.005
below tmtools' on what the tests try. lDDT is that of Mariani et al. (2013) over alpha carbons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.float64]  # (S, 3)

_INCLUSION = 15.0
_TOLERANCES = (0.5, 1.0, 2.0, 4.0)
_SHORTEST_FRAGMENT, _STARTS, _ROUNDS = 4, 24, 20


class _Pair(NamedTuple):
    reference: Places
    answer: Places
    residues: npt.NDArray[np.int64]
    """(S,) which they are."""


def rmsd(example: Mapping[str, Any], prediction: Mapping[str, Any]) -> float:
    """Root of the mean squared distance after the best superposition, in Ångström."""
    from Bio.SVDSuperimposer import SVDSuperimposer

    pair = _pair(example, prediction)
    kind: Any = SVDSuperimposer
    superimposer = kind()
    superimposer.set(pair.reference, pair.answer)
    superimposer.run()
    return float(superimposer.get_rms())


def tm_score(example: Mapping[str, Any], prediction: Mapping[str, Any]) -> float:
    """TM-score between 0 and 1: above 0.5 is the same fold, whatever the length."""
    reference, answer, _ = _pair(example, prediction)
    scale = _scale(len(reference))
    best, length = 0.0, len(reference)
    while True:
        step = max(1, (len(reference) - length) // _STARTS)
        for start in range(0, len(reference) - length + 1, step):
            best = max(best, _refined(reference, answer, np.arange(start, start + length), scale))
        if length <= _SHORTEST_FRAGMENT:
            return best
        length = max(length // 2, _SHORTEST_FRAGMENT)


def lddt(example: Mapping[str, Any], prediction: Mapping[str, Any]) -> float:
    """lDDT between 0 and 1: the share of distances below 15 Å that are kept, to 0.5, 1, 2 and 4 Å; no superposition."""
    reference, answer, _ = _pair(example, prediction)
    wanted, there = _distances(reference), _distances(answer)
    counted = (wanted < _INCLUSION) & ~np.eye(len(reference), dtype=bool)
    if not counted.any():
        raise ValueError("no two residues are near each other")
    off = np.abs(wanted - there)[counted]
    return float(np.mean([(off < tolerance).mean() for tolerance in _TOLERANCES]))


def _pair(example: Mapping[str, Any], prediction: Mapping[str, Any]) -> _Pair:
    reference, answer = _places(example["truth"]), _places(prediction["output"])
    if len(reference) != len(answer):
        raise ValueError(f"{len(answer)} places for {len(reference)} residues")
    known = np.flatnonzero(np.isfinite(reference).all(axis=1))
    if len(known) < 3:
        raise ValueError(f"the reference has {len(known)} residues")
    if lacking := int((~np.isfinite(answer[known]).all(axis=1)).sum()):
        raise ValueError(f"{lacking} residues have no place")
    return _Pair(reference[known], answer[known], known)


def _places(cell: Any) -> Places:
    rows = json.loads(cell) if isinstance(cell, str) else cell
    nowhere = [np.nan] * 3
    places = np.array([nowhere if row is None else row for row in rows], np.float64)
    if places.ndim != 2 or places.shape[1] != 3:
        raise ValueError("no list of [x, y, z]")
    return places


def _scale(residues: int) -> float:
    """d0: at this distance a residue counts half."""
    return max(1.24 * (residues - 15) ** (1 / 3) - 1.8, 0.5) if residues > 21 else 0.5


def _refined(reference: Places, answer: Places, chosen: npt.NDArray[np.int64], scale: float) -> float:
    """The best score on the way from a superposition of some residues to one of all that lie near each other."""
    reach, best = float(np.clip(scale, 4.5, 8)), 0.0
    for number in range(_ROUNDS):
        apart = np.linalg.norm(_moved(answer, answer[chosen], reference[chosen]) - reference, axis=1)
        best = max(best, float((1 / (1 + (apart / scale) ** 2)).mean()))
        within = reach + (1 if number else -1)
        near = np.flatnonzero(apart < within)
        while len(near) < 3:
            within += 0.5
            near = np.flatnonzero(apart < within)
        if np.array_equal(near, chosen):
            break
        chosen = near
    return best


def _moved(places: Places, fixed: Places, onto: Places) -> Places:
    """Turned and shifted as brings `fixed` nearest `onto` (Kabsch 1976)."""
    here, there = fixed.mean(axis=0), onto.mean(axis=0)
    left, _, right = np.linalg.svd((fixed - here).T @ (onto - there))
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    return np.asarray((places - here) @ (left @ right) + there)


def _distances(places: Places) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(places[:, None] - places[None], axis=2))
