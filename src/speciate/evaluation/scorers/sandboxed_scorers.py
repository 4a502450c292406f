"""Scorers that run others' code, each in a sandbox: a user's function, a model's program, the tasks of reasoning-gym.

    BETTER = 'higher'  # or 'lower'; 'higher' where it is left out

    def score(example: dict, prediction: dict) -> float | dict[str, float]

A user's function sees what it is given and the installed packages, no other file, no network. What it returns is the
metric's value of that example, whose mean is the metric; of a dict, each entry is a metric. Its file is only parsed
here, never run.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from speciate.datasets.sources.reasoning_gym import INSTALL, PACKAGE
from speciate.errors import Code, SpeciateError
from speciate.evaluation.scorers import gym_scores
from speciate.sandbox import SandboxPolicy, user_code
from speciate.sandbox.client import AnswerTimeout, NoAnswer, ProcessDied, RemoteError, RestartingClient, SandboxClient
from speciate.sandbox.user_code import FileBinding

USER_SECONDS = 20.0
"""For one example; what takes longer is killed."""
_MOST_ENDS = 10
"""So many processes may be lost to examples; then the rest is not tried."""
_HOW = "Name a file that is there: scorer='path/to/file.py:FUNCTION'."
_ANOTHER = "Call evaluate_models again: it is another metric now."

Better = Literal["higher", "lower"]
Failure = Literal["raised", "not_a_number", "nan", "too_slow", "ended", "given_up"]


class ScorerError(NamedTuple):
    """Why there is no score of an example. `detail` may quote what the code or the data say: foreign text."""

    failure: Failure
    detail: str


Scores = dict[str, float]
ScoreResult = Scores | ScorerError


class UserScorer(NamedTuple):
    file: Path
    function: str
    sha256: str
    better: Better

    @property
    def signature(self) -> str:
        """`own:NAME@abc12345`: the metric's name. Another file is another metric."""
        return f"own:{self.function}@{self.sha256[:8]}"


def describe_scorer(file: Path, function: str) -> UserScorer:
    """What the file says of itself. NOT_FOUND for the file or the function, INVALID where it cannot be one."""
    found = user_code.describe_function(file, function, _HOW)
    return UserScorer(file, function, found.sha256, _better(found.body, file.name))


def score_by_user(
    run_folder: Path,
    file: Path,
    function: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    sha256: str | None = None,
    policy: SandboxPolicy = "required",
    seconds: float = USER_SECONDS,
) -> list[ScoreResult]:
    """The scores of each row `{"example": {...}, "prediction": {...}}`, both of them JSON.

    A dict has the function's own name where it returned one number. `sha256`: of the bytes that were agreed on;
    CONFLICT where the file has others by now. Raises INVALID where the file cannot be loaded, UNAVAILABLE where this
    kernel has no sandbox.
    """
    agreed = FileBinding(sha256, "the evaluation", _HOW if sha256 is None else _ANOTHER)
    kept = RestartingClient(user_code.client_factory(run_folder, file, function, agreed, policy, "scorer"), "examples")
    try:
        return [score_row(kept, function, row, seconds) for row in rows]
    finally:
        kept.end()


def score_row(kept: RestartingClient, function: str, row: Mapping[str, Any], seconds: float) -> ScoreResult:
    """One row, by a function `(example, prediction)` that the process has loaded."""
    answer = kept.ask([row["example"], row["prediction"]], seconds, _MOST_ENDS)
    return ScorerError(answer.why, answer.detail) if isinstance(answer, NoAnswer) else check_scores(answer, function)


def check_scores(answer: Any, function: str) -> ScoreResult:
    """The answer of a scorer, which may be anything, as scores. `function`: the name of a bare number."""
    named = answer if isinstance(answer, dict) else {function: answer}
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


def count_failures(scored: Sequence[ScoreResult]) -> dict[str, int]:
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


# Whether a program that a model wrote passes the tests of its example: run, each in a sandbox and a process of its own.
#
# The answer is Python, whole or in a fenced block (the last one); the column `tests` of the example holds asserts,
# which run after it in the same namespace. To pass, the end of the tests must be reached: a program that leaves
# early, or prints whatever it likes, does not. One that searches its own process for the word that says so could:
# look at answers that pass too easily.


CODE_PASSES, TESTS = "code_passes", "tests"
PROGRAM_SECONDS = 10.0
"""For one program with its tests, after its process started."""
_START_SECONDS = 60.0
_PROCESS = "speciate.evaluation.scorers.code_passes_process"
_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


def score_programs(
    run_folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    policy: SandboxPolicy = "required",
    seconds: float = PROGRAM_SECONDS,
) -> list[ScoreResult]:
    """1 where the answer passes, else 0, of each row `{"example": {"tests": ...}, "prediction": {"output": ...}}`.

    A wrong, slow or crashing program fails: it is a bad answer, no error. An example without tests is an error.
    UNAVAILABLE where this kernel has no sandbox.
    """
    return [_score_program(run_folder, row, policy, seconds) for row in rows]


def _score_program(run_folder: Path, row: Mapping[str, Any], policy: SandboxPolicy, seconds: float) -> ScoreResult:
    tests, answer = row["example"].get(TESTS), row["prediction"].get("output")
    if not isinstance(tests, str) or not tests.strip():
        return ScorerError("not_a_number", f"the example has no text in the column {TESTS!r}")
    return {
        CODE_PASSES: float(
            isinstance(answer, str) and _passes_tests(run_folder, program(answer), tests, policy, seconds)
        )
    }


def program(answer: str) -> str:
    """The last fenced block of an answer, else all of it."""
    blocks = _FENCED.findall(answer)
    return str(blocks[-1]) if blocks else answer


def _passes_tests(folder: Path, source: str, tests: str, policy: SandboxPolicy, seconds: float) -> bool:
    word = secrets.token_hex(16)
    client = SandboxClient(_PROCESS, folder, policy)
    try:
        client.open(None, _START_SECONDS)
        return bool(client.ask({"program": source, "tests": tests, "word": word}, seconds) == word)
    except (AnswerTimeout, ProcessDied, RemoteError):
        return False
    finally:
        client.end()


# The scorer `gym_score`: what the tasks of reasoning-gym that made the examples give for the answers, in a sandbox.
#
# To some of their questions there are many right answers, of which `exact_match` knows one.


GYM_SCORE = "gym_score"
GYM_SECONDS = 10.0
"""For one answer."""
_LOADING = {
    "source": f"import reasoning_gym\nfrom {gym_scores.__name__} import score", "function": "score", "name": GYM_SCORE,
}  # fmt: skip


COLUMN_READ = {CODE_PASSES: TESTS, GYM_SCORE: gym_scores.COLUMN}
"""By scorer, the column without which it has no score for any example."""


def check_gym() -> None:
    """MISSING_EXTRA where the package is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"{GYM_SCORE!r} needs the package {PACKAGE!r}, which is not installed.",
            f"Run: {INSTALL}",
        )


def score_gym(
    run_folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    policy: SandboxPolicy = "required",
    seconds: float = GYM_SECONDS,
) -> list[ScoreResult]:
    """0 to 1 for each row `{"example": {"entry": ...}, "prediction": {"output": ...}}`.

    An example without an entry is an error. UNAVAILABLE where this kernel has no sandbox.
    """

    def load() -> SandboxClient:
        return user_code.load_code(
            SandboxClient(user_code.PROCESS, run_folder, policy), _LOADING, f"The scorer {GYM_SCORE!r}"
        )

    kept = RestartingClient(load, "answers")
    try:
        return [_score_gym_row(kept, row, seconds) for row in rows]
    finally:
        kept.end()


def _score_gym_row(kept: RestartingClient, row: Mapping[str, Any], seconds: float) -> ScoreResult:
    if not isinstance(row["example"].get(gym_scores.COLUMN), str):
        return ScorerError("not_a_number", f"the example has no text in the column {gym_scores.COLUMN!r}")
    return score_row(kept, GYM_SCORE, row, seconds)
