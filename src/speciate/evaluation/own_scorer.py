"""A user's own scorer: one function in one file, of one example and the answer to it.

    BETTER = "higher"  # or "lower"; "higher" where it is left out

    def score(example: dict, prediction: dict) -> float | dict[str, float]

It runs in a cage: it sees what it is given and the installed packages, no other file, no network. What it returns is
the metric's value of that example, whose mean is the metric; of a dict, each entry is a metric. Its file is only
parsed here, never run.
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from speciate.errors import Code, SpeciateError
from speciate.evaluation import own_code
from speciate.evaluation.own_code import Agreement, KeptCage, Lost
from speciate.sandbox import CagePolicy

SECONDS = 20.0
"""For one example; what takes longer is killed."""
_MOST_ENDS = 10
"""So many processes may be lost to examples; then the rest is not tried."""
_SHOWN = 300
_HOW = "Name a file that is there: scorer='path/to/file.py:FUNCTION'."
_ANOTHER = "Call evaluate_models again: it is another metric now."

Better = Literal["higher", "lower"]
Failure = Literal["raised", "not_a_number", "nan", "too_slow", "ended", "given_up"]


class ScorerError(NamedTuple):
    """Why there is no score of an example. `detail` may quote what the code or the data say: foreign text."""

    failure: Failure
    detail: str


Scores = dict[str, float]
Scored = Scores | ScorerError


class OwnScorer(NamedTuple):
    file: Path
    function: str
    sha256: str
    better: Better

    @property
    def signature(self) -> str:
        """`own:NAME@abc12345`: the metric's name. Another file is another metric."""
        return f"own:{self.function}@{self.sha256[:8]}"


def describe(file: Path, function: str) -> OwnScorer:
    """What the file says of itself. NOT_FOUND for the file or the function, INVALID where it cannot be one."""
    found = own_code.describe(file, function, _HOW)
    return OwnScorer(file, function, found.sha256, _better(found.body, file.name))


def score_all(
    run_folder: Path,
    file: Path,
    function: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    sha256: str | None = None,
    policy: CagePolicy = "required",
    seconds: float = SECONDS,
) -> list[Scored]:
    """The scores of each row `{"example": {...}, "prediction": {...}}`, both of them JSON.

    A dict has the function's own name where it returned one number. `sha256`: of the bytes that were agreed on;
    CONFLICT where the file has others by now. Raises INVALID where the file cannot be loaded, UNAVAILABLE where this
    kernel has no cage.
    """
    agreed = Agreement(sha256, "the evaluation", _HOW if sha256 is None else _ANOTHER)
    kept = KeptCage(own_code.loader(run_folder, file, function, agreed, policy, "scorer"), "examples")
    try:
        return [scored(kept, function, row, seconds) for row in rows]
    finally:
        kept.end()


def scored(kept: KeptCage, function: str, row: Mapping[str, Any], seconds: float) -> Scored:
    """One row, by a function `(example, prediction)` that the process has loaded."""
    said = kept.ask({"call": [row["example"], row["prediction"]]}, seconds, _MOST_ENDS)
    return ScorerError(said.why, said.detail) if isinstance(said, Lost) else checked(said, function)


def checked(answer: Any, function: str) -> Scored:
    """What a scorer said, which may be anything, as scores. `function`: the name of a bare number."""
    if isinstance(answer, dict) and "error" in answer:
        return ScorerError("raised", str(answer["error"])[:_SHOWN])
    said = answer.get("value") if isinstance(answer, dict) else None
    named = said if isinstance(said, dict) else {function: said}
    scores: Scores = {}
    for name, value in named.items():
        if not isinstance(value, int | float):
            return ScorerError("not_a_number", f"{name!s:.60}: {value!r:.60}")
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            return ScorerError("not_a_number", f"{name!s:.60} has {len(str(value)[:400])} digits or more")
        if not math.isfinite(value):
            return ScorerError("nan", f"{name!s:.60} is {value}")
        scores[str(name)[:64]] = float(value)
    return scores or ScorerError("not_a_number", "an empty dict")


def failures(scored: Sequence[Scored]) -> dict[str, int]:
    """How many examples have no score, by the reason."""
    found = [each.failure for each in scored if isinstance(each, ScorerError)]
    return {failure: found.count(failure) for failure in get_args(Failure) if failure in found}


def _better(body: Sequence[ast.stmt], name: str) -> Better:
    for statement in body:
        if isinstance(statement, ast.Assign) and [ast.unparse(each) for each in statement.targets] == ["BETTER"]:
            said = statement.value.value if isinstance(statement.value, ast.Constant) else None
            if said not in get_args(Better):
                raise SpeciateError(
                    Code.INVALID,
                    f"BETTER of {name} is {ast.unparse(statement.value)[:40]}; it is 'higher' or 'lower', written out.",
                    "Mend the file, then call again.",
                )
            return "higher" if said == "higher" else "lower"
    return "higher"
