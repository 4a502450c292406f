"""What `specialize` does after a verdict that validation examples were sure of did not pass: three rules, drawn cases.

Four methods, each dearer and most of them better than the one before; of each the best of eight alike members on 200
validation rows counts, and 300 test rows judge. All answer alike: rows that are hard for one are hard for the others.
The search is the product's own (`specialize.next_step`), the verdict is the gate `reaches` by Wilson's interval at the
level of `holdout_reuse.level_for`, as `compare_models` asks it.

    python evals/second_look.py [--repeats 2000] [--seed 0] [--aim best]

one look, as before      stop where a pass is sure at 95 %, whoever is judged beside it and whatever was judged before
one look, surer          stop where a pass has a probability of 0.99, not 0.9
another look             stop as the product does; after a verdict that did not pass go on, and look again if worth it

With `--aim best` everything is tried, and the first in the order of validation values is judged alone at first.

Prints Markdown. "None reaches": each method's true value is the target less half a point, so every promotion is false.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from speciate.evaluation.holdout_reuse import LooksOnRows, level_for
from speciate.evaluation.statistics import wilson
from speciate.jobs.kinds import Child, Finished
from speciate.sample_size import LEVEL
from speciate.training.cascade import search
from speciate.training.cascade.candidates import SpecializeSpec
from speciate.training.planning import when_to_stop
from speciate.training.specialize import next_step
from speciate.training.train_spec import Candidate
from speciate.use_cases import Aim

TARGET, VALIDATION, TEST, MEMBERS, ALIKE = 0.85, 200, 300, 8, 0.7
METHODS = (("classical", None, 5.0), ("probe", "pkg:a", 20.0), ("lora", "pkg:a", 120.0), ("full", "new:b", 240.0))
BUDGET_MINUTES = 10.0
Rng = np.random.Generator


class World(NamedTuple):
    """True values, and which rows each method's best member by validation gets right."""

    true: list[float]
    validation: list[float]
    test: list[float]


class End(NamedTuple):
    promoted: int | None
    """Place of the method."""
    seconds: float
    looks: int


def draw(rng: Rng, true: list[float]) -> World:
    hard = rng.normal(size=VALIDATION + TEST)
    validation, test = [], []
    for value in true:
        own = rng.normal(size=(MEMBERS, VALIDATION + TEST))
        right = ALIKE**0.5 * hard + (1 - ALIKE) ** 0.5 * own < NormalDist().inv_cdf(value)
        shares = right[:, :VALIDATION].mean(axis=1)
        best = int(shares.argmax())
        validation.append(float(shares[best]))
        test.append(float(right[best, VALIDATION:].mean()))
    return World(true, validation, test)


def reaches(value: float, level: float) -> bool:
    return wilson(value * TEST, TEST, NormalDist().inv_cdf((1 + level) / 2))[0] >= TARGET


def specialize(world: World, aim: Aim = "pass") -> End:
    ways = tuple(Candidate(method=method, base_model=base) for method, base, _ in METHODS)
    spec = SpecializeSpec(
        use_case="u", dataset="d@v1", budget_minutes=BUDGET_MINUTES, ways=ways, test_examples=TEST, aim=aim,
        least_seconds={"train/lora-a": 30.0, "train/full-new-b": 60.0},
    )  # fmt: skip
    children: list[Child] = []
    judged: set[str] = set()
    while True:
        asked = next_step(spec, children, 0.0)
        if isinstance(asked, Finished):
            return End(None, sum(child.run_seconds for child in children), _looks(children))
        (request,) = asked
        if request.kind == "promote":
            place = int(str(request.spec["model"]).partition("@v")[2])
            return End(place, sum(child.run_seconds for child in children), _looks(children))
        if request.kind == "train":
            place = next(at for at, each in enumerate(METHODS) if each[0] == request.spec["method"])
            value = world.validation[place]
            report: dict[str, object] = {
                "dataset": "d@v1", "method": METHODS[place][0], "base_model": METHODS[place][1], "metric": "accuracy",
                "target": TARGET, "seconds": METHODS[place][2], "dearer": [],
                "validation": {
                    "value": value, "interval": [value, value], "n": VALIDATION, "how": "validation",
                    "standard_error": max((value * (1 - value) / VALIDATION) ** 0.5, 1e-3),
                },
            }  # fmt: skip
            seconds = METHODS[place][2]
            result: dict[str, object] = {"model": f"m@v{place}", "report": report}
        else:
            order = [str(each["model"]) for each in request.spec.get("order", ())]
            models = sorted(request.spec["models"], key=lambda each: order.index(each) if order else 0)
            seconds, result = 5.0, _verdict(world, models, judged)
        children.append(
            Child(id=request.step, step=request.step, kind=request.kind, spec=request.spec, state="succeeded",
                  result=result, error=None, run_seconds=seconds)
        )  # fmt: skip


def _looks(children: list[Child]) -> int:
    return sum(child.kind == "evaluate" for child in children)


def _verdict(world: World, models: list[str], judged: set[str]) -> dict[str, object]:
    values = {model: world.test[int(model.partition("@v")[2])] for model in models}
    fresh, strict = level_for(len(models)), level_for(len(models), LooksOnRows(candidates=len(judged - set(models))))
    judged |= set(models)
    passing = [model for model in models if reaches(values[model], fresh) and reaches(values[model], strict)]
    chosen = passing[0] if passing else max(values, key=lambda model: values[model])
    verdict: dict[str, object] = {
        "id": "1",
        "verdict": "promote" if passing else "inconclusive",
        "reasons": [],
        "candidate": chosen,
    }
    rows = [{"model": model, "value": value, "interval": [value, value]} for model, value in values.items()]
    return {
        "evaluation": "e", "decision": verdict, "unmet": [] if passing else ["reaches"],
        "report": {"candidate": chosen, "baseline": "constant:", "leaderboard": rows},
    }  # fmt: skip


Patches = Sequence[contextlib.AbstractContextManager[object]]


def _before() -> Patches:
    return [
        patch.object(search, "_level", lambda spec, children, judged: LEVEL),
        patch("speciate.training.specialize.may_go_on", lambda evaluated: False),
    ]


RULES: dict[str, Callable[[], Patches]] = {
    "one look, as before": _before,
    "one look, surer": lambda: [*_before(), patch.object(when_to_stop, "SURE", 0.99)],
    "another look": list,
}


def some_reach(rng: Rng) -> list[float]:
    first, more = rng.uniform(0.82, 0.92), rng.uniform(-0.01, 0.04, len(METHODS) - 1)
    found: list[float] = np.clip(np.cumsum([first, *more]), 0, 0.99).tolist()
    return found


CASES: dict[str, Callable[[Rng], list[float]]] = {
    "some reach": some_reach,
    "none reaches": lambda rng: [TARGET - 0.005] * len(METHODS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aim", choices=("pass", "best"), default="pass")
    asked = parser.parse_args()
    print("| cases | rule | promoted | of them false | not promoted though a method could pass and budget was left "
          "| looks | seconds, mean |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for case, make in CASES.items():
        for rule, patches in RULES.items():
            ends, missed = list[tuple[World, End]](), 0
            with contextlib.ExitStack() as started:
                for each in patches():
                    started.enter_context(each)
                for repeat in range(asked.repeats):
                    rng = np.random.default_rng([asked.seed, repeat])
                    world = draw(rng, make(rng))
                    end = specialize(world, asked.aim)
                    ends.append((world, end))
                    both = zip(world.test, world.true, strict=True)
                    able = any(reaches(value, LEVEL) and true >= TARGET for value, true in both)
                    missed += end.promoted is None and able and end.seconds < 60 * BUDGET_MINUTES - 60
            promoted = [(world, end) for world, end in ends if end.promoted is not None]
            false = sum(world.true[end.promoted or 0] < TARGET for world, end in promoted)
            n = asked.repeats
            print(
                f"| {case} | {rule} | {len(promoted) / n:.1%} | {false / n:.2%} | {missed / n:.1%} "
                f"| {np.mean([end.looks for _, end in ends]):.2f} | {np.mean([end.seconds for _, end in ends]):.0f} |"
            )


if __name__ == "__main__":
    main()
