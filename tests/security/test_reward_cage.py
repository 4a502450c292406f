"""Attacks on the sandboxes that run others' code: a reward of a file, a scorer of a file, and programs that models
wrote.

What gets through where there is no cage must not get through in one. The quiet attacks share a process; those that cost
it are slow, but for some.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from speciate.datasets.sources.reasoning_gym import encode_entry
from speciate.evaluation.scorers import sandboxed_scorers
from speciate.sandbox import client, is_complete, layers
from tests.security.attacks import CLOSED, LOUD, OPEN, PRELUDE, WORD, Ground, function, ground
from tests.training.rewards.opened import ask, opened

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel has no sandbox")

QUIET = OPEN | CLOSED
CAGES = ("reward", "scorer", "code")
SECONDS = 20.0
HELD, THROUGH = "held", "got through"
# What an attack came to, as a number that any cage can give back; what raises otherwise is a broken attack.
OUTCOME = """
def outcome(attack):
    try:
        return 1.0 if attack() else 0.0
    except OSError:
        return 0.0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with pytest.MonkeyPatch.context() as patch, ground(tmp_path_factory.mktemp("ground")) as made:
        patch.setenv("PLANTED", WORD)
        yield made


def all_of(attacks: dict[str, str], place: Ground) -> str:
    """Python with every attack in a list ATTACKS."""
    bodies = [function(f"attack_{number}", place.read(body)) for number, body in enumerate(attacks.values())]
    names = ", ".join(f"attack_{number}" for number in range(len(bodies)))
    return "\n".join((PRELUDE, OUTCOME, *bodies, f"ATTACKS = [{names}]"))


def read_out(values: list[float | None]) -> dict[str, str]:
    words = {0.0: HELD, 1.0: THROUGH}
    return {
        name: words.get(value, "broken") if value is not None else "broken"
        for name, value in zip(QUIET, values, strict=True)
    }


def by_reward(source: str, folder: Path, count: int, seconds: float = SECONDS) -> list[float | None]:
    """The answers are the places of the attacks in the list: all of one call, in one process."""
    (folder / "mine.py").write_text(
        source + "\ndef reward(questions, answers, truths, columns):\n"
        "    return [outcome(ATTACKS[int(each)]) for each in answers]\n"
    )
    spec = {"kind": "python", "file": f"{folder / 'mine.py'}:reward", "seconds": seconds}
    with opened(folder / "run", spec) as reward:
        return ask(reward, [str(each) for each in range(count)])


def by_scorer(source: str, folder: Path, count: int, seconds: float = SECONDS) -> list[float | None]:
    (folder / "mine.py").write_text(
        source + "\ndef score(example, prediction):\n    return outcome(ATTACKS[prediction['output']])\n"
    )
    rows = [{"example": {}, "prediction": {"output": each}} for each in range(count)]
    found = sandboxed_scorers.score_by_user(folder / "run", folder / "mine.py", "score", rows, seconds=seconds)
    return [None if isinstance(each, sandboxed_scorers.ScorerError) else each["score"] for each in found]


def by_code(source: str, folder: Path, count: int, seconds: float = SECONDS) -> list[float | None]:
    """The program holds the attacks, and its tests pass where none gets through: so 1 is 0 here. Told apart only where
    that is not so."""
    program = f"{source}\nfound = [outcome(each) for each in ATTACKS]\n"
    if passes(program, "assert set(found) == {0.0}", folder, seconds):
        return [0.0] * count
    return [
        0.0 if passes(f"{source}\nfound = outcome(ATTACKS[{each}])\n", "assert found == 0.0", folder, seconds) else 1.0
        for each in range(count)
    ]


def passes(program: str, tests: str, folder: Path, seconds: float = SECONDS) -> bool:
    row = {"example": {"tests": tests}, "prediction": {"output": program}}
    (scored,) = sandboxed_scorers.score_programs(folder / "run", [row], seconds=seconds)
    return scored == {sandboxed_scorers.CODE_PASSES: 1.0}


BY: dict[str, Callable[[str, Path, int, float], list[float | None]]] = {
    "reward": by_reward, "scorer": by_scorer, "code": by_code,
}  # fmt: skip


NEEDS = {"connects to an abstract socket": "signals"}
"""Attack -> the layer of the sandbox without which it gets through, where it is one that not every kernel has."""


@pytest.fixture(scope="module", params=CAGES)
def verdicts(request: pytest.FixtureRequest, place: Ground, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("caged")
    return read_out(BY[request.param](all_of(QUIET, place), folder, len(QUIET), SECONDS))


@pytest.mark.parametrize("attack", QUIET)
def test_it_holds_against_code_that(attack: str, verdicts: dict[str, str], place: Ground) -> None:
    lacking = {layer.name for layer in layers() if not layer.there}
    if NEEDS.get(attack) in lacking:
        pytest.skip(f"this kernel lacks the layer {NEEDS[attack]!r}")
    assert verdicts[attack] == HELD
    assert Path(place.secret).read_text() == WORD


def test_without_a_cage_these_attacks_get_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", WORD)
    with ground(tmp_path) as place:
        told = subprocess.run(
            [sys.executable, "-I", "-c", all_of(OPEN, place) + "\nprint(*map(outcome, ATTACKS))"],
            capture_output=True, text=True, check=True, close_fds=False, cwd=tmp_path,
        )  # fmt: skip
    found = dict(zip(OPEN, told.stdout.split(), strict=True))
    assert {name for name, value in found.items() if value != "1.0"} <= {"opens thousands of files"}  # a low limit here


@pytest.mark.parametrize("cage", CAGES)
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(
            each, marks=() if each in ("takes 8 GB", "writes the protocol's line everywhere") else pytest.mark.slow
        )
        for each in LOUD
    ],
)
def test_it_survives_code_that(
    attack: str, cage: str, place: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No value comes of it, it ends in time, and nothing is left: no process, no file."""
    monkeypatch.setattr(client, "_MOST_BYTES", 16 << 20)
    before, began = children(), time.monotonic()
    source = all_of({attack: LOUD[attack]}, place)
    if cage == "code":
        assert not passes(f"{source}\nfound = attack_0()\n", "pass", tmp_path, 2.0)
    else:
        (value,) = BY[cage](source, tmp_path, 1, 2.0)
        assert value in (None, 0.0)
    assert time.monotonic() - began < 30
    assert not any((tmp_path / "run").iterdir())
    assert children() == before
    os.kill(place.parent, 0)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["countdown", "n_queens", "puzzle24", "string_insertion"])
def test_answers_that_a_scorer_of_reasoning_gym_runs_reach_nothing(task: str, tmp_path: Path) -> None:
    import reasoning_gym

    made = reasoning_gym.create_dataset(task, size=1, seed=3)
    answer = f"__import__('os').mkdir({str(tmp_path / 'made')!r})"
    with opened(tmp_path / "run", {"kind": "gym"}) as reward:
        assert ask(reward, [answer], columns=[{"entry": encode_entry(made[0])}])[0] != 1
    assert not (tmp_path / "made").exists()
    with contextlib.suppress(Exception):  # without a cage it is run
        made.score_answer(answer, made[0])
    assert (tmp_path / "made").exists()


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True)}
