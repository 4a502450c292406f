"""The learners that a thorough search tries on numbers, in many configurations each, the usually good ones first.

Where a setting can be varied without fitting anew (rounds of boosting, penalties of a line, how many neighbours), one
fit answers for all of its values: those are the variants of one configuration. What a learner keeps is arrays, as in
`classical`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.models.estimators import Estimator, Kernel, Linear, fit_neighbours, kernel_from_svm
from speciate.models.perceptrons import side_by_side
from speciate.models.quadratics import Quadratic, clipped, from_gaussians, width_of, with_products
from speciate.training.recipes import boosting, tabm
from speciate.training.recipes.forests import forest
from speciate.training.selection.learners import Learner, in_words
from speciate.training.selection.thorough_search import Configuration, LearnerFamily

Targets = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_BOOSTED, _FORESTS, _MACHINES, _NETWORKS = 48, 24, 24, 24
"""Configurations of each family at most."""
_MOST_SCORES = 2_000_000
"""Rows times labels, beyond which fifteen discriminants would hold hundreds of megabytes."""


def families(
    rows: int, columns: int, classes: int, seed: int, *, absolute: bool, networks: bool
) -> list[LearnerFamily]:
    """`classes`: 0 of numbers. `absolute`: absolute errors count. `networks`: whether torch is there.

    Those whose work grows beyond minutes with rows or columns are left out.
    """
    found = [
        LearnerFamily("discriminants", _discriminants(), 0.5)
        if classes and columns <= 150 and rows * classes <= _MOST_SCORES
        else None,
        LearnerFamily("lines", _lines(rows, columns, classes), 0.7),
        LearnerFamily("machines", _machines(seed, classes, absolute), 1.2) if rows <= 6000 and classes <= 30 else None,
        LearnerFamily("boosting", _boosted(seed, classes, absolute), 1.6) if classes <= 100 else None,
        LearnerFamily("trees", _forests(seed, classes), 1.0)
        if rows * columns <= 20_000_000 and classes <= 100
        else None,
        LearnerFamily("networks", _networks(seed, classes, absolute), 1.6)
        if networks and tabm.too_large(rows, columns, classes) is None
        else None,
        LearnerFamily("kernels", _kernels(classes), 0.6) if rows <= 3000 else None,
        LearnerFamily("neighbours", _neighbours(classes), 0.3) if rows <= 20_000 else None,
    ]
    return [family for family in found if family is not None]


def _drawn(seed: int, family: int) -> np.random.Generator:
    return np.random.default_rng([seed, family])


def _one(name: str, learn: Callable[..., Estimator], **more: Any) -> Configuration:
    return Configuration((Learner(name, learn, **more),))


# Boosted trees

_BOOSTING_ROUNDS: tuple[int, ...] = (50, 100, 200, 400)
"""At a learning rate of 0.05."""


def _boosted(seed: int, classes: int, absolute: bool) -> Iterator[Configuration]:
    chance = _drawn(seed, 0)
    for number in range(_BOOSTED):
        settings: dict[str, Any] = {}
        rounds = _BOOSTING_ROUNDS
        if number:
            rate = float(chance.choice([0.02, 0.03, 0.05, 0.1]))
            settings = {
                "learning_rate": rate, "num_leaves": int(chance.choice([4, 8, 15, 31, 63])),
                "min_data_in_leaf": int(chance.choice([2, 5, 10, 20, 40])),
                "feature_fraction": float(chance.choice([0.3, 0.5, 0.7, 0.9, 1.0])),
                "feature_fraction_bynode": float(chance.choice([0.5, 1.0])),
                "bagging_fraction": float(chance.choice([0.6, 0.8, 1.0])),
                "lambda_l2": float(chance.choice([0.0, 1.0, 10.0])), "extra_trees": bool(chance.random() < 0.4),
            }  # fmt: skip
            rounds = tuple(int(each * 0.05 / rate) for each in _BOOSTING_ROUNDS)
        loss = ("l1" if number % 2 == 0 else "l2") if absolute else "l2"
        yield boosting.staged(f"boosting {number}", settings, rounds, classes, loss, seed + number)


# Forests


def _forests(seed: int, classes: int) -> Iterator[Configuration]:
    chance, usual = _drawn(seed, 1), "sqrt" if classes else 1 / 3
    first = [(True, usual, 1), (False, usual, 1), (True, 1.0, 1)]
    for number in range(_FORESTS):
        extra, features, leaf = (
            first[number]
            if number < len(first)
            else (
                bool(chance.random() < 0.7),
                [usual, 0.2, 0.4, 0.7, 1.0][int(chance.integers(5))],
                int(chance.choice([1, 1, 2, 3, 5, 8])),
            )
        )
        kind = "extra trees" if extra else "forest"
        yield forest(f"{kind} {number}", classes=classes, extra=extra, features=features, leaf=leaf)


# Support vector machines


def _machines(seed: int, classes: int, absolute: bool) -> Iterator[Configuration]:
    chance = _drawn(seed, 2)
    for number in range(_MACHINES):
        usual = [(5.0, 1.0), (1.0, 1.0), (50.0, 0.3), (500.0, 0.1), (50.0, 1.0), (5.0, 0.3)]
        strength, wide = usual[number] if number < len(usual) else (
            float(10 ** chance.uniform(-0.5, 3)), float(10 ** chance.uniform(-1.5, 0.5))
        )  # fmt: skip
        tube = (0.02, 0.1, 0.3)[number % 3]
        settings = {"C": strength, "gamma": _gamma_in_words(wide), **({} if classes else {"epsilon": tube})}
        learn = partial(_machine, classes=classes, strength=strength, wide=wide, tube=tube)
        yield _one(f"svm {number}", learn, settings=in_words(settings))


def _gamma(inputs: Any, wide: float) -> float:
    """`wide` times scikit-learn's usual one."""
    return wide / (int(inputs.shape[1]) * (float(np.var(inputs)) or 1.0))


def _gamma_in_words(wide: float) -> str:
    return f"{wide:.3g} x scale"


def _machine(
    inputs: Any, targets: Targets, seed: int, *, classes: int, strength: float, wide: float, tube: float
) -> Kernel:
    """With more than two classes one machine for each against the others: their margins are nearer to log odds than
    the votes of pairs."""
    from sklearn.svm import SVC, SVR

    gamma = _gamma(inputs, wide)
    if not classes:
        return kernel_from_svm(SVR(C=strength, gamma=gamma, epsilon=tube).fit(inputs, targets))
    if classes == 2:
        return kernel_from_svm(SVC(C=strength, gamma=gamma).fit(inputs, targets))
    dual, bias = np.zeros((len(targets), classes)), np.zeros(classes)
    for label in range(classes):
        machine = SVC(C=strength, gamma=gamma).fit(inputs, targets == label)
        dual[machine.support_, label], bias[label] = machine.dual_coef_[0], machine.intercept_[0]
    used = dual.any(axis=1)
    return Kernel(np.asarray(inputs, np.float64)[used], dual[used], bias, np.asarray(gamma), np.asarray(1))


# Kernel ridge


_WIDTHS, _KERNEL_PENALTIES = (1.0, 0.3, 0.1, 3.0), (0.01, 0.1, 1.0)


def _kernels(classes: int) -> Iterator[Configuration]:
    """One fit for all penalties."""
    for wide in _WIDTHS:
        learners = tuple(
            Learner(
                f"kernel ridge {wide:g}, penalty {penalty:g}",
                partial(_kernel, classes=classes, wide=wide, at=place),
                settings=in_words({"alpha": penalty, "gamma": _gamma_in_words(wide)}),
            )
            for place, penalty in enumerate(_KERNEL_PENALTIES)
        )
        yield Configuration(learners, partial(_kernel_answers, classes=classes, wide=wide))


def _kernel(inputs: Any, targets: Targets, seed: int, *, classes: int, wide: float, at: int) -> Kernel:
    return _kernel_fits(inputs, targets, classes, wide, _KERNEL_PENALTIES[at : at + 1])[0]


def _kernel_answers(inputs: Any, targets: Targets, held: Any, seed: int, *, classes: int, wide: float) -> list[Floats]:
    return [each.scores(held) for each in _kernel_fits(inputs, targets, classes, wide, _KERNEL_PENALTIES)]


def _kernel_fits(inputs: Any, targets: Targets, classes: int, wide: float, penalties: Sequence[float]) -> list[Kernel]:
    from scipy.linalg import solve

    points, gamma = np.asarray(inputs, np.float64), _gamma(inputs, wide)
    squares = (points**2).sum(axis=1)
    similar = np.exp(-gamma * np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0))
    wanted, bias = _centred(targets, classes)
    found = []
    for penalty in penalties:
        dual = solve(similar + penalty * np.eye(len(points)), wanted, assume_a="pos")
        found.append(Kernel(points, dual, bias, np.asarray(gamma), np.asarray(1)))
    return found


def _centred(targets: Targets, classes: int) -> tuple[Floats, Floats]:
    """(N, K) yes and no as 1 and -1, or one column of two classes and of numbers, and the means that were taken off."""
    if not classes:
        wanted = np.asarray(targets, np.float64)[:, None]
    elif classes == 2:
        wanted = np.where(targets == 1, 1.0, -1.0)[:, None]
    else:
        wanted = np.where(targets[:, None] == np.arange(classes), 1.0, -1.0)
    bias = wanted.mean(axis=0)
    return wanted - bias, bias


# Lines, through products of pairs, too


_STRENGTHS, _RIDGES, _MOST_PRODUCTS = (0.01, 0.1, 1.0, 10.0), (0.1, 1.0, 10.0, 100.0, 1000.0), 1000


def _lines(rows: int, columns: int, classes: int) -> Iterator[Configuration]:
    for products in (False, True):
        if products and (width_of(columns) > _MOST_PRODUCTS or rows * width_of(columns) > 5_000_000):
            return
        name = ("logistic" if classes else "ridge") + (" of products" if products else "")
        if classes:
            for strength in _STRENGTHS:
                learn = partial(_logistic, strength=strength, products=products)
                yield _one(f"{name}, C {strength:g}", learn, settings=in_words({"C": strength}))
        else:
            ridges = tuple(
                Learner(
                    f"{name}, penalty {penalty:g}",
                    partial(_ridge, penalty=penalty, products=products),
                    settings=in_words({"alpha": penalty}),
                )
                for penalty in _RIDGES
            )
            yield Configuration(ridges)


def _read(inputs: Any, products: bool) -> tuple[Floats, Floats, Floats]:
    """Scaled columns, and the means and spreads that make them so."""
    read = with_products(inputs) if products else np.asarray(inputs, np.float64)
    mean, spread = read.mean(axis=0), read.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    return (read - mean) / spread, mean, spread


def _line(weight: Floats, bias: Floats, mean: Floats, spread: Floats, products: bool) -> Estimator:
    plain = weight / spread
    return (Quadratic if products else Linear)(plain, bias - plain @ mean)


def _logistic(inputs: Any, targets: Targets, seed: int, *, strength: float, products: bool) -> Estimator:
    from sklearn.linear_model import LogisticRegression

    read, mean, spread = _read(inputs, products)
    classes = len(np.unique(targets))
    small = read.shape[1] * (classes if classes > 2 else 1) <= 500
    solver = "newton-cholesky" if small else "lbfgs"
    model = LogisticRegression(C=strength, solver=solver, max_iter=200, random_state=seed).fit(read, targets)
    return _line(model.coef_, model.intercept_, mean, spread, products)


def _ridge(inputs: Any, targets: Targets, seed: int, *, penalty: float, products: bool) -> Estimator:
    from sklearn.linear_model import Ridge

    read, mean, spread = _read(inputs, products)
    model = Ridge(alpha=penalty).fit(read, targets)
    return _line(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_), mean, spread, products)


# Discriminants


_POOLED, _ROUND = (0.0, 0.1, 0.3, 0.6, 1.0), (0.001, 0.01, 0.1)
"""Shares of the covariance of all classes, and of one alike in all directions (Friedman 1989)."""


def _discriminants() -> Iterator[Configuration]:
    shares = [(pooled, alike) for alike in _ROUND for pooled in _POOLED]
    learners = tuple(
        Learner(f"discriminant, pooled {pooled:g}, round {alike:g}", partial(_discriminant, pooled=pooled, alike=alike))
        for pooled, alike in shares
    )
    yield Configuration(learners, partial(_discriminant_answers, shares=shares))


def _discriminant(inputs: Any, targets: Targets, seed: int, *, pooled: float, alike: float) -> Quadratic:
    return _shrunk(_spreads(inputs, targets), pooled, alike)


def _discriminant_answers(
    inputs: Any, targets: Targets, held: Any, seed: int, *, shares: Sequence[tuple[float, float]]
) -> list[Floats]:
    """Products of pairs are made once for all of them."""
    found = _spreads(inputs, targets)
    made = [_shrunk(found, pooled, alike) for pooled, alike in shares]
    together = Quadratic(np.concatenate([each.weight for each in made]), np.concatenate([each.bias for each in made]))
    return np.split(together.scores(held), len(made), axis=1)


_Spreads = tuple[Floats, Floats, Floats]


def _spreads(inputs: Any, targets: Targets) -> _Spreads:
    """Means (K, D), covariances (K, D, D) and counts (K,) of the classes."""
    kept = clipped(inputs)
    counts = np.bincount(targets).astype(np.float64)
    means = np.array([kept[targets == label].mean(axis=0) for label in range(len(counts))])
    around = kept - means[targets]
    covariances = np.array(
        [around[targets == label].T @ around[targets == label] / counts[label] for label in range(len(counts))]
    )
    return means, covariances, counts


def _shrunk(found: _Spreads, pooled: float, alike: float) -> Quadratic:
    means, covariances, counts = found
    together = np.tensordot(counts / counts.sum(), covariances, 1)
    mixed = (1 - pooled) * covariances + pooled * together
    sizes = np.maximum(np.trace(mixed, axis1=1, axis2=2) / means.shape[1], 1e-9)
    mixed = (1 - alike) * mixed + alike * sizes[:, None, None] * np.eye(means.shape[1])
    return from_gaussians(means, mixed, counts / counts.sum())


# Neighbours


_NEAREST = (1, 3, 5, 9, 15, 30)


def _neighbours(classes: int) -> Iterator[Configuration]:
    for count in _NEAREST:
        learn = partial(_nearest, classes=classes, count=count)
        yield _one(f"neighbours {count}", learn, settings=in_words({"n_neighbors": count}))


def _nearest(inputs: Any, targets: Targets, seed: int, *, classes: int, count: int) -> Estimator:
    if classes:
        return fit_neighbours(inputs, np.eye(classes)[targets], count, votes=True)
    return fit_neighbours(inputs, np.asarray(targets)[:, None], count, votes=False)


# Networks


def _networks(seed: int, classes: int, absolute: bool) -> Iterator[Configuration]:
    chance = _drawn(seed, 3)
    for number in range(_NETWORKS):
        settings = tabm.USUAL
        if number:
            settings = tabm.Settings(
                int(chance.choice([64, 128, 192])), float(chance.choice([0.0, 0.1, 0.25])),
                float(chance.choice([1e-3, 2e-3, 4e-3])), float(chance.choice([1e-5, 3e-4, 1e-2])),
            )  # fmt: skip
        learn = partial(_network, number=number, settings=settings, classes=classes, absolute=absolute)
        yield _one(f"tabm {number}", learn, join=side_by_side, settings=in_words(settings._asdict()))


def _network(
    inputs: Any, targets: Targets, seed: int, *, number: int, settings: tabm.Settings, classes: int, absolute: bool
) -> Estimator:
    """One that stops by a fifth of what it learns from: by the fold that judges it, its value would be too good."""
    own = seed + 10 * number
    learn = partial(tabm.tabm_classifier, settings=settings, networks=1)
    made: Estimator = (learn if classes else tabm.tabm_regression(absolute, settings, networks=1))(inputs, targets, own)
    return made
