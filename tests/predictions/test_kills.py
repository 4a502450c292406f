"""kill -9 of whoever writes the log, in the middle: every answer that left is in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from speciate.predictions import maintenance, reading
from speciate.predictions.log_files import LogFolder

pytestmark = pytest.mark.durable

_SERVES = """
import sys, threading
from pathlib import Path
from speciate.workspace.clock import SystemClock
from speciate.predictions.log_files import LogFolder
from speciate.predictions.log import AnswerLog, AnsweringModel
from speciate.settings import Log as Settings
log = AnswerLog(LogFolder(Path(sys.argv[1])), Settings(), SystemClock())
said = [{"output": "good", "confidence": 0.9, "error": None}]
lock = threading.Lock()
def serve(name):
    number = 0
    while True:
        ids = log.ids(1)
        if log.note(ids, [{"id": "0", "text": f"film {name} {number}"}], said, AnsweringModel("m@v1", 1, "text"), 1.0):
            with lock:
                sys.stdout.write(ids[0] + "\\n")  # the answer leaves
                sys.stdout.flush()
        number += 1
        if number % 50 == 0 and name == 0:
            log.folder.ask_roll()
for name in range(4):
    threading.Thread(target=serve, args=(name,)).start()
"""


def test_every_answer_that_left_is_in_the_log_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path / "logged" / "reviews")
    left: list[str] = []
    for answers in (1, 300, 700):
        command = [sys.executable, "-c", textwrap.dedent(_SERVES), str(folder.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            left += [process.stdout.readline().strip() for _ in range(answers)]
            os.kill(process.pid, signal.SIGKILL)
            left += [line.strip() for line in process.stdout if line.endswith("\n")]
        if answers == 300:
            maintenance.seal_segments(folder)
    there = reading.answers(folder, columns=["id"])["id"].to_pylist()
    assert len(there) == len(set(there))
    assert set(left) <= set(there)
    assert len(set(left)) > 1000
    assert len(there) - len(left) <= 3 * 4, "more was logged than was asked: those that were about to leave"
