"""A protein's sequence as numbers that biochemists measure it by: composition, scales along the chain, groups.

    residues -> shares of the 20 amino acids
             -> of each scale its mean, spread, thirds, autocorrelation and extreme windows; moments of helix and strand
             -> of seven groups where they lie, and how often one is followed by another at gaps of 1 to 4

What is alike in charge and hydrophobicity is alike here though no run of three residues is the same, so a model finds
what it has learned in families that it has not seen.

Scales: hydrophobicity (Eisenberg et al. 1984; Kyte & Doolittle 1982), volume in cubic Ångström (Zamyatnin 1972),
propensity for helix and strand (Chou & Fasman 1978), charge at pH 7. Hydrophobic moment: Eisenberg et al. 1982. Groups:
Shen et al. 2007; what is counted of them: composition, transition, distribution (Dubchak et al. 1995).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Vector

Floats = npt.NDArray[np.float64]

RESIDUES = "ARNDCQEGHILKMFPSTWYV"
_OTHER = len(RESIDUES)
"""Code of a letter that is none of the twenty: every scale has 0 for it, and no group."""
_CHARGE = (0, 1, 0, -1, 0, 0, -1, 0, 0.1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_SCALES: Floats = np.array([
    (0.62, -2.53, -0.78, -0.90, 0.29, -0.85, -0.74, 0.48, -0.40, 1.38, 1.06, -1.50, 0.64, 1.19, 0.12, -0.18, -0.05,
     0.81, 0.26, 1.08, 0),
    (1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5, 3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2,
     0),
    (88.6, 173.4, 114.1, 111.1, 108.5, 143.8, 138.4, 60.1, 153.2, 166.7, 166.7, 168.6, 162.9, 189.9, 112.7, 89.0, 116.1,
     227.8, 193.6, 140.0, 0),
    _CHARGE,
    (1.42, 0.98, 0.67, 1.01, 0.70, 1.11, 1.51, 0.57, 1.00, 1.08, 1.21, 1.16, 1.45, 1.13, 0.57, 0.77, 0.83, 1.08, 0.69,
     1.06, 0),
    (0.83, 0.93, 0.89, 0.54, 1.19, 1.10, 0.37, 0.75, 0.87, 1.60, 1.30, 0.74, 1.05, 1.38, 0.55, 0.75, 1.19, 1.37, 1.47,
     1.70, 0),
])  # fmt: skip
_HYDROPHOBIC, _CHARGED = 0, 3
_GROUPS = ("AGV", "ILFP", "YMTS", "HNQW", "RK", "DE", "C")
_NO_GROUP = len(_GROUPS)
_GROUP_OF = np.array([*(next(g for g, kinds in enumerate(_GROUPS) if each in kinds) for each in RESIDUES), _NO_GROUP])
_CODE = np.array([RESIDUES.index(chr(byte)) if chr(byte) in RESIDUES else _OTHER for byte in range(256)])
_LAGS = (1, 2, 3, 4, 7)
_GAPS = (1, 2, 3, 4)
_HELIX, _STRAND = np.deg2rad(100.0), np.deg2rad(165.0)
"""How far the next residue is turned around the axis."""
_MOMENT_WINDOW, _WINDOW = 11, 5
"""Residues."""
_QUARTERS = np.array([0.0, 0.25, 0.5, 0.75])


def sequence_properties(sequence: str) -> Vector:
    """(D,) of a sequence of one residue or more; D is the same for all."""
    codes = _CODE[np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)]
    shares = np.bincount(codes, minlength=_OTHER + 1)[:_OTHER] / len(codes)
    along = np.take(_SCALES, codes, axis=1)
    groups = _GROUP_OF[codes]
    parts = [
        [len(codes), np.log(len(codes))], shares, _along(along),
        _moment(along[_HYDROPHOBIC], _HELIX), _moment(along[_HYDROPHOBIC], _STRAND), _moment(along[_CHARGED], _HELIX),
        _counts(sequence, along[_CHARGED]), _distribution(groups), *(_transitions(groups, gap) for gap in _GAPS),
    ]  # fmt: skip
    return np.concatenate([np.asarray(part, np.float64) for part in parts]).astype(np.float32)


def _along(values: Floats) -> Floats:
    """(12 S,) of S scales along the chain, (S, N): of each its mean and spread, the mean of each third, autocovariance,
    extreme windows."""
    count = values.shape[1]
    third, width = max(1, count // 3), min(_WINDOW, count)
    middle = values[:, third : count - third] if count > 2 * third else values
    means = _means(values)
    centred = values - means[:, None]
    window = np.full(width, 1 / width)
    windows = np.array([np.convolve(each, window, "valid") for each in values])
    found = [
        means, np.sqrt(_means(centred**2)), _means(values[:, :third]), _means(middle), _means(values[:, -third:]),
        *(_means(centred[:, :-lag] * centred[:, lag:]) if count > lag else np.zeros(len(values)) for lag in _LAGS),
        windows.max(axis=1), windows.min(axis=1),
    ]  # fmt: skip
    return np.stack(found, axis=1).ravel()


def _means(values: Floats) -> Floats:
    """The mean of each row."""
    found: Floats = np.add.reduce(values, axis=1) / values.shape[1]
    return found


def _moment(values: Floats, angle: float) -> list[float]:
    """The largest and the mean moment of a window, and that of the whole chain, per residue."""
    turned = np.concatenate([[0], np.cumsum(values * np.exp(1j * angle * np.arange(len(values))))])
    width = min(_MOMENT_WINDOW, len(values))
    windows = np.abs(turned[width:] - turned[:-width]) / width
    return [windows.max(), windows.mean(), float(np.abs(turned[-1])) / len(values)]


def _counts(sequence: str, charges: Floats) -> list[float]:
    """Charges, and cysteines, which make bridges in pairs."""
    bridges = sequence.count("C")
    return [float((charges > 0.5).sum()), float((charges < -0.5).sum()), charges.sum(), bridges, bridges % 2]


def _distribution(groups: npt.NDArray[np.int64]) -> Floats:
    """For each group its share, and where its first, quarter, middle, three-quarter and last residue lies, 0 to 1."""
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups, minlength=_NO_GROUP)[:_NO_GROUP, None]
    ends = np.cumsum(sizes)[:, None]
    marked = np.concatenate([ends - sizes + (sizes * _QUARTERS).astype(np.int64), ends - 1], axis=1)
    places = order[np.minimum(marked, len(groups) - 1)]
    found: Floats = np.where(sizes > 0, np.concatenate([sizes, places], axis=1) / len(groups), 0.0)
    return found.ravel()


def _transitions(groups: npt.NDArray[np.int64], gap: int) -> Floats:
    """(49,) shares of the pairs of groups that are so far apart."""
    kinds = _NO_GROUP + 1
    pairs = groups[:-gap] * kinds + groups[gap:]
    counts = np.bincount(pairs, minlength=kinds**2).reshape(kinds, kinds)[:_NO_GROUP, :_NO_GROUP]
    shares: Floats = counts.ravel() / max(1, len(pairs))
    return shares
