"""Since which of several rows, in order of time, they are no longer as usual: a change within a window.

Evidence over windows says in which one a change began (`evidence.onset`), and a window is a week. Whoever looks through
a whole one for labels labels what was usual, too, and a candidate is judged on the wrong source by as much.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from speciate.loop.drift.kernel_features import kernel_features, whiten
from speciate.loop.drift.permutation import Rows, Values

_LEAST = 8
"""Rows of either kind."""


class Witness(NamedTuple):
    """How much more each row is like the later ones than like the usual ones, by all others but itself."""

    usual: Values
    later: Values


def witness(usual: Rows, later: Rows, rng: np.random.Generator) -> Witness:
    """How much more each row of `usual` (M, D) and `later` (N, D), M and N above 1, resembles `later` than `usual`: the
    witness function of Gretton et al. 2012, section 2.3, with a Gaussian kernel of whitened vectors. Its own part in
    the means is left out, so no row looks like its side because it is one of it."""
    features = kernel_features(whiten(np.vstack([usual, later])), rng).astype(np.float64)
    first, second = features[: len(usual)], features[len(usual) :]
    to_first, to_second = features @ first.mean(0), features @ second.mean(0)
    own = np.square(features).sum(1)
    m, n = len(first), len(second)
    to_first[:m] = (m * to_first[:m] - own[:m]) / (m - 1)
    to_second[m:] = (n * to_second[m:] - own[m:]) / (n - 1)
    scores = to_second - to_first
    return Witness(scores[:m], scores[m:])


def begin(usual: Values, later: Values) -> int:
    """The place in `later`, in order of time, since when its mean is most likely another than that of `usual`: the
    largest generalised likelihood ratio of a higher mean, with the usual spread (Page, Biometrika 1954, with an unknown
    mean: Siegmund & Venkatraman, Annals of Statistics 1995). 0: all of it is, or nobody can say."""
    if min(len(usual), len(later)) < _LEAST:
        return 0
    spread = float(np.std(usual))
    if not spread > 0:
        return 0
    raised = np.cumsum((later - float(np.mean(usual)))[::-1])[::-1]  # of each beginning, to the newest
    left = np.arange(len(later), 0, -1)
    ratios = np.where(raised > 0, np.square(raised / spread) / (2 * left), 0.0)
    return int(ratios.argmax())
