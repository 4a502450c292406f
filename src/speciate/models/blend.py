"""A weighted mean of several estimators' answers, as arrays: what an ensemble answers with.

    inputs, one matrix for each representation -> each member's scores -> its probabilities -> their mean -> scores

Probabilities are averaged, not scores, since an SVM's margin and a boosted log odds have no common unit: each member is
first divided by its own temperature. The mean goes back to scores (log probabilities), so that a task head reads them
as it reads any other estimator's. `choose_members` is Caruana et al. 2004, "Ensemble selection from libraries of
models".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from speciate.models import estimators
from speciate.models.estimators import Estimator, Kernel, Linear, Neighbours, Trees
from speciate.models.perceptrons import Perceptrons
from speciate.models.quadratics import Quadratic

Floats = npt.NDArray[np.float64]
Averaged = Literal["classes", "labels", "numbers"]
"""What is averaged: probabilities of one class, of each of several labels by itself, or the scores as they are."""

MEMBER_FORMS: Mapping[str, type[Any]] = {
    "linear": Linear,
    "kernel": Kernel,
    "trees": Trees,
    "neighbours": Neighbours,
    "perceptrons": Perceptrons,
    "quadratic": Quadratic,
}
FORM = "blend"
LEAST = 1e-9
"""Probability."""
_KINDS: tuple[Averaged, ...] = ("classes", "labels", "numbers")


class Member(NamedTuple):
    estimator: Estimator
    sees: int
    """Which of the inputs it reads."""
    weight: float
    """All of them together: 1."""
    temperature: float = 1.0


class Blend(NamedTuple):
    members: tuple[Member, ...]
    averaged: Averaged
    shift: Floats | None = None
    """Added to the scores, (K,) or (1,): some metrics want rare labels answered more often."""

    def scores(self, inputs: Sequence[Any]) -> Floats:
        """A matrix (N, D) for each representation -> (N, K), or (N, 1) for two classes or a number."""
        total: Floats = sum(  # type: ignore[assignment]  # there is a member
            member.weight * answers_of(member.estimator.scores(inputs[member.sees]), self.averaged, member.temperature)
            for member in self.members
        )
        scores = as_scores(total, self.averaged)
        return scores if self.shift is None else scores + self.shift

    @property
    def parameters(self) -> int:
        return sum(member.estimator.parameters for member in self.members)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`NUMBER.FORM.FIELD` of each member, and what is said of all of them."""
        found: dict[str, npt.NDArray[Any]] = {
            "sees": np.array([member.sees for member in self.members]),
            "weight": np.array([member.weight for member in self.members], np.float64),
            "temperature": np.array([member.temperature for member in self.members], np.float64),
            "averaged": np.array(_KINDS.index(self.averaged)),
            **({} if self.shift is None else {"shift": np.asarray(self.shift, np.float64)}),
        }
        for number, member in enumerate(self.members):
            form = next(name for name, made in MEMBER_FORMS.items() if type(member.estimator) is made)
            fields: Any = member.estimator
            found |= {f"{number}.{form}.{name}": array for name, array in fields._asdict().items()}
        return found

    @classmethod
    def rebuild(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises KeyError or TypeError for arrays that `arrays` did not make."""
        members = []
        for number, (sees, weight, temperature) in enumerate(
            zip(arrays["sees"], arrays["weight"], arrays["temperature"], strict=True)
        ):
            own = {name: array for name, array in arrays.items() if name.startswith(f"{number}.")}
            form = next(iter(own)).split(".")[1]
            fields = {name.split(".", 2)[2]: array for name, array in own.items()}
            members.append(Member(MEMBER_FORMS[form](**fields), int(sees), float(weight), float(temperature)))
        return cls(tuple(members), _KINDS[int(arrays["averaged"])], arrays.get("shift"))


def saved_forms(path: Path) -> list[str]:
    """The forms of the estimators in a file that `save` wrote, read without their arrays; empty where it says none."""
    form = estimators.saved_form(path)
    if form != FORM:
        return [form] if form else []
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return sorted({name.split(".")[1] for name in file.keys() if name[0].isdigit()})  # noqa: SIM118 - not a dict


def answers_of(scores: Any, averaged: Averaged, temperature: float) -> Floats:
    """What is averaged of a member's scores: (N, labels) probabilities, or (N, K) numbers."""
    scaled: Floats = np.asarray(scores, np.float64) / temperature
    if averaged == "numbers":
        return scaled
    if averaged == "labels":
        return _sigmoid(scaled)
    if scaled.shape[1] == 1:
        second = _sigmoid(scaled)
        return np.hstack([1 - second, second])
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def as_scores(mean: Floats, averaged: Averaged) -> Floats:
    """The scores whose answers are this mean; of two classes one column, as other estimators give."""
    if averaged == "numbers":
        return mean
    kept = np.clip(mean, LEAST, 1 - LEAST)
    if averaged == "labels":
        return _logit(kept)
    if kept.shape[1] == 2:
        return _logit(kept[:, 1:])
    logs: Floats = np.log(kept)
    return logs


def choose_members(
    answers: Sequence[Floats], loss: Callable[[Floats], float], most: int, rounds: int = 12
) -> dict[int, float]:
    """Places -> weights of the members whose mean has the least loss, found greedily with replacement.

    `answers`: of each candidate on the same held-out examples. At most `most` different ones. Ends where no further
    member lowers the loss. Deterministic: among equals the earlier one.
    """
    counts: dict[int, int] = {}
    total, best = np.zeros_like(answers[0]), np.inf
    for size in range(1, rounds + 1):
        open_ = [place for place in range(len(answers)) if place in counts or len(counts) < most]
        losses = [loss((total + answers[place]) / size) for place in open_]
        least = int(np.argmin(losses))
        if size > 1 and not losses[least] < best:
            break
        best = losses[least]
        total = total + answers[open_[least]]
        counts[open_[least]] = counts.get(open_[least], 0) + 1
    chosen = sum(counts.values())
    return {place: count / chosen for place, count in sorted(counts.items())}


def save(estimator: Any, path: Path) -> None:
    if isinstance(estimator, Blend):
        estimators.save_arrays(estimator.arrays(), path, {"form": FORM})
    else:
        estimators.save(estimator, path)


def load(path: Path) -> Estimator | Blend:
    """Raises REFUSED for what is none of the forms."""
    arrays, metadata = estimators.load_arrays(path)
    if metadata.get("form") != FORM:
        return estimators.load(path)
    try:
        return Blend.rebuild(arrays)
    except (KeyError, TypeError, IndexError, StopIteration, ValueError) as error:
        raise estimators.not_rebuilt(path, FORM, arrays) from error


def _sigmoid(scores: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(scores, -500, 500)))
    return found


def _logit(shares: Floats) -> Floats:
    found: Floats = np.log(shares) - np.log1p(-shares)
    return found
