"""The protocol of sandboxed processes against code that breaks it: only an answer to the question is taken for one,
every wait ends, and a process that was lost leaves nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.sandbox import client, is_complete
from speciate.sandbox.client import (
    Access,
    AnswerTimeout,
    NoAnswer,
    ProcessDied,
    RemoteError,
    RestartingClient,
    SandboxClient,
)
from speciate.sandbox.process import Limits
from speciate.sandbox.user_code import PROCESS, load_code

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")

CODE = """
import json, os, sys, time
def pipe():
    return next(each for each in range(3, 64) if os.path.exists(f"/proc/self/fd/{each}")
                and os.readlink(f"/proc/self/fd/{each}").startswith("pipe"))
def run(text):
    return eval(text)
def answer(value):
    frame = sys._getframe()
    while "mark" not in frame.f_locals:
        frame = frame.f_back
    os.write(pipe(), json.dumps({"value": value, "mark": frame.f_locals["mark"]}).encode() + b"\\n")
def endless():
    while True:
        os.write(pipe(), b"x" * 4096)
def nested(depth):
    os.write(pipe(), b"[" * depth + b"\\n")
def fill():
    with open("big", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
"""
LOADING = {"source": CODE, "function": "run", "name": "code.py"}
SLEEP = 60.0
"""Seconds that code which does not answer takes."""
DEATHS = {
    "exits": "os._exit(0)",
    "writes a line without a mark": "os.write(pipe(), b'{\"value\": 1}\\n')",
    "writes a line with another mark": 'os.write(pipe(), b\'{"value": 1, "mark": "0123456789abcdef"}\\n\')',
    "writes half a line and exits": "(os.write(pipe(), b'{\"val'), os._exit(0))",
    "writes no JSON": "os.write(pipe(), b'value\\n')",
    "writes what nests too deep": "nested(100_000)",
    "closes its pipe": "(os.close(pipe()), time.sleep(60))",
    "writes a line that is too long": "endless()",
}


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[SandboxClient]:
    made = load_code(SandboxClient(PROCESS, tmp_path, "required"), LOADING, "The code")
    yield made
    made.end()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [("[1, 'a', None]", [1, "a", None]), ("print('printed')", None), ("'y' * 3_000_000", "y" * 3_000_000)],
)  # fmt: skip
def test_an_answer_is_what_the_handler_returned(opened: SandboxClient, text: str, value: Any) -> None:
    assert opened.ask([text], 20) == value


def test_what_a_handler_raises_costs_no_process(opened: SandboxClient) -> None:
    with pytest.raises(RemoteError, match="ZeroDivisionError: division by zero"):
        opened.ask(["1 / 0"], 20)
    with pytest.raises(RemoteError, match="not JSON serializable"):
        opened.ask(["{1}"], 20)
    assert opened.ask(["'alive'"], 20) == "alive"


def test_numbers_that_json_has_not_are_noticed(opened: SandboxClient) -> None:
    noticed: list[str] = []
    opened.ask(["float('nan')"], 20, lambda name: noticed.append(name) or 0.0)  # type: ignore[func-returns-value]  # append
    assert noticed == ["NaN"]


@pytest.mark.parametrize("how", DEATHS)
def test_no_answer_comes_of_code_that(how: str, opened: SandboxClient) -> None:
    with pytest.raises(ProcessDied):
        opened.ask([DEATHS[how]], 30)
    with pytest.raises(ProcessDied):  # nor of any other question
        opened.ask(["1"], 5)


@pytest.mark.parametrize("text", ["time.sleep(60)", "(os.write(pipe(), b'{'), time.sleep(60))"])
def test_a_wait_ends(text: str, opened: SandboxClient) -> None:
    began = time.monotonic()
    with pytest.raises(AnswerTimeout):
        opened.ask([text], 0.3)
    assert time.monotonic() - began < SLEEP / 2


def test_a_line_that_trickles_is_not_waited_for(opened: SandboxClient) -> None:
    began = time.monotonic()
    with pytest.raises(AnswerTimeout):
        opened.ask(["[(os.write(pipe(), b'x'), time.sleep(0.01)) for _ in range(6000)]"], 0.3)
    assert time.monotonic() - began < SLEEP / 2


def test_a_question_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    """Neither where others' code runs nor where our own does, which had no deadline."""
    for access in (Access(), Access((), Limits(), code=False)):
        made = load_code(SandboxClient(PROCESS, tmp_path, "required", access), LOADING, "The code")
        assert made.ask(["(answer(7), time.sleep(60))"], 20) == 7
        began = time.monotonic()
        with pytest.raises(AnswerTimeout):
            made.ask(["x" * 4_000_000], 0.3)
        assert time.monotonic() - began < SLEEP / 2
        made.end()


def test_a_folder_that_is_filled_ends_the_process(opened: SandboxClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MOST_BYTES", 8 << 20)
    with pytest.raises((ProcessDied, RemoteError)):
        opened.ask(["fill() or time.sleep(60)"], 30)


def test_a_process_is_interrupted_from_another_thread(opened: SandboxClient) -> None:
    threading.Timer(0.3, opened.interrupt).start()
    with pytest.raises(ProcessDied):
        opened.ask(["time.sleep(60)"], 30)


def test_a_folder_that_is_kept_stays(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    made = SandboxClient(PROCESS, folder, "required", keep=True)
    load_code(made, LOADING, "The code").ask(["open('file', 'w').write('content')"], 20)
    made.end()
    assert (folder / "file").read_text() == "content"
    with pytest.raises(FileExistsError):
        SandboxClient(PROCESS, folder, "required", keep=True)


def test_a_lost_process_is_replaced_until_too_many_were(tmp_path: Path) -> None:
    made = RestartingClient(
        lambda: load_code(SandboxClient(PROCESS, tmp_path, "required"), LOADING, "The code"), "questions"
    )
    assert made.ask(["1 / 0"], 20, 2) == NoAnswer("raised", "ZeroDivisionError: division by zero")
    assert made.ask(["os._exit(0)"], 20, 2).why == "ended"
    assert made.ask(["1 + 1"], 20, 2) == 2
    assert made.ask(["time.sleep(60)"], 0.2, 2) == NoAnswer("too_slow", "more than 0.2 s")
    assert made.ask(["1 + 1"], 20, 2).why == "given_up"
    made.end()
    assert list(tmp_path.iterdir()) == []


def test_code_that_cannot_be_loaded_is_loaded_once(tmp_path: Path) -> None:
    tries: list[int] = []

    def load() -> SandboxClient:
        tries.append(1)
        loading = LOADING | {"function": "absent"}
        return load_code(SandboxClient(PROCESS, tmp_path, "required"), loading, "The code")

    made = RestartingClient(load, "questions")
    for _ in range(2):
        with pytest.raises(SpeciateError, match=r"code\.py defines no absent") as refused:
            made.ask(["1"], 20, 2)
        assert refused.value.code is Code.INVALID
    assert (tries, list(tmp_path.iterdir())) == ([1], [])


@pytest.mark.parametrize(
    "module",
    [
        "speciate.sandbox.user_code_process", "speciate.evaluation.scorers.code_passes_process",
        "speciate.training.rewards.reward_rules_sandbox", "speciate.training.rewards.tool_environment_sandbox",
    ],
)  # fmt: skip
def test_a_process_for_others_code_starts_with_little(module: str) -> None:
    """So it is there at once, and holds nothing of the workspace."""
    text = f"import sys, {module}; print(*sorted(each for each in sys.modules if each.startswith('speciate.')))"
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
    parents = {module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)}
    ours = {"speciate.sandbox", "speciate.sandbox.serve", "speciate.sandbox.user_code_process", module}
    assert set(found) - parents <= ours


PARTS = """
from speciate.sandbox.serve import tell, tells
def run(question):
    words = []
    for number in range(question):
        words += tell(number)
    return [tells(), words]
"""


def test_an_answer_comes_in_parts_and_words_go_back(tmp_path: Path) -> None:
    with_parts = SandboxClient(PROCESS, tmp_path, "required", Access(code=False))
    try:
        with_parts.open({"source": PARTS, "function": "run", "name": "code.py"}, 30)
        heard: list[int] = []

        def hear(part: int) -> str | None:
            heard.append(part)
            return f"word {part}" if part % 2 else None

        told, words = with_parts.ask([1000], 30, on_part=hear)
        assert (told, heard) == (True, list(range(1000)))
        assert words == [f"word {n}" for n in range(1, 1000, 2)][: len(words)]
        assert with_parts.ask([3], 30) == [False, []]  # words that came too late are no question
        assert with_parts.ask([0], 30, on_part=hear) == [True, []]
    finally:
        with_parts.end()


def test_a_question_whose_part_could_not_be_heard_is_over_and_its_process_with_it(tmp_path: Path) -> None:
    """Nobody reads the rest of the answer, so nothing may come of the next question, and nothing be computed on."""
    loading = {"source": PARTS, "function": "run", "name": "code.py"}
    with_parts = SandboxClient(PROCESS, tmp_path, "required", Access(code=False))
    try:
        with_parts.open(loading, 30)

        def fail(part: int) -> None:
            raise RuntimeError("the loop is closed")

        with pytest.raises(RuntimeError, match="the loop is closed"):
            with_parts.ask([1_000_000], 30, on_part=fail)
        assert with_parts._process.ending().how == "SIGKILL ended it"
        with pytest.raises(ProcessDied):
            with_parts.ask([0], 30)
    finally:
        with_parts.end()


def test_a_question_that_is_no_json_costs_no_process(opened: SandboxClient) -> None:
    with pytest.raises(TypeError):
        opened.ask([{1}], 20)
    assert opened.ask(["'alive'"], 20) == "alive"
