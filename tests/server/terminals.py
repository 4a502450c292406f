"""The command line at a pseudo-terminal, and people with keys, for tests of what only a person may do."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests import forks
from tests.server.processes import CLI

PHRASE = "correct horse battery staple"


class Screen(NamedTuple):
    text: str
    status: int


def at_terminal(command: Sequence[str], output: int | None = None, errors: int | None = None) -> tuple[forks.Fork, int]:
    """A program at a terminal of its own, and our end of that. `output`, `errors`: where these go instead."""
    ours, theirs = pty.openpty()
    try:
        stdout, stderr = (theirs if each is None else each for each in (output, errors))
        return forks.Fork(command, stdin=theirs, stdout=stdout, stderr=stderr, terminal=True), ours
    finally:
        os.close(theirs)


def type_at(
    arguments: Sequence[str],
    answers: Sequence[tuple[str, str]],
    *,
    ahead: str = "",
    output: int | None = None,
    errors: int | None = None,
) -> Screen:
    """Run a command at a terminal of its own. Each answer is typed once its question was shown since the last one;
    `ahead` is typed before there is any question. `output`, `errors`: where these go instead."""
    process, terminal = at_terminal([*CLI, *arguments], output, errors)
    if ahead:
        os.write(terminal, ahead.encode())
    shown, seen, left = b"", 0, list(answers)
    deadline = time.monotonic() + 90
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux says so at the end
            break
        if not data:
            break
        shown += data
        while left and left[0][0].encode() in shown[seen:]:
            seen = len(shown)
            os.write(terminal, left.pop(0)[1].encode() + b"\n")
    else:
        process.kill()
    os.close(terminal)
    return Screen(shown.decode(errors="replace"), process.wait())


def enroll(workspace: Path, *more: str, phrase: str = PHRASE, signed_by: str = "") -> Screen:
    """A new key, in the config folder of this process. `signed_by`: the phrase of the key that signs; else its own."""
    answers = [("characters or more: ", phrase), ("The same again: ", phrase)]
    if signed_by:
        answers.append(("(nothing: no): ", signed_by))
    return type_at(["key", "enroll", *more, "--workspace", str(workspace)], answers)


def sign(workspace: Path, *arguments: str, phrase: str = PHRASE, ahead: str = "") -> Screen:
    """A command whose question is answered with the passphrase."""
    return type_at([*arguments, "--workspace", str(workspace)], [("(nothing: no): ", phrase)], ahead=ahead)
