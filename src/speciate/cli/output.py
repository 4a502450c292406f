"""What a command writes: lines and tables on standard output, progress on a terminal, images into files.

`rich` is imported only where a table or progress is shown, so that other commands start with the standard library.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.server.untrusted import clean_text

_PIPE_WIDTH = 100_000
"""Columns of a table that goes to a file or a program: its rows are never wrapped."""


def say(text: str) -> None:
    """Write one message at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_clean(text: str) -> None:
    """Write a message that may quote what others wrote, without control characters."""
    say(clean_text(text))


def ask(question: str) -> str:
    """What the person types after the question, stripped. `input` itself writes a question to standard error, which may
    go to a file."""
    sys.stdout.write(question)
    sys.stdout.flush()
    return input().strip()


def format_table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Aligned columns, two spaces apart. On a terminal the header is bold and long cells are wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(header))
    for name in header or [""] * max(map(len, rows), default=0):
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    width = shutil.get_terminal_size().columns if terminal else _PIPE_WIDTH
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


_PACE_SECONDS = 10.0


class Progress:
    """One changing line on a terminal's standard error; elsewhere a line every ten seconds; nothing if `quiet`."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._status = None
        self._quiet, self._clock, self._last = quiet, clock, clock()
        if not quiet and sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")

    def show(self, message: str) -> None:
        if self._status:
            self._status.update(message)
            self._status.start()
        elif not self._quiet and self._clock() - self._last >= _PACE_SECONDS:
            self._last = self._clock()
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line, before something else is written and at the end."""
        if self._status:
            self._status.stop()


def check_image_path(name: str, kinds: Sequence[str]) -> Path:
    """`kinds`: suffixes. Raises INVALID for another one, and for a folder that is not there."""
    path = Path(name)
    if path.suffix not in kinds:
        raise SpeciateError(
            Code.INVALID,
            f"{path} is not called {' or '.join(kinds)}.",
            f"Name the file so: --image {path.stem or 'chart'}{kinds[0]}",
        )
    if not path.parent.is_dir():
        raise SpeciateError(Code.INVALID, f"There is no folder {path.parent}.", "Make it, or name a file elsewhere.")
    return path


def write_image(path: Path, data: bytes) -> str:
    """What to say of it. Raises UNAVAILABLE where it cannot be written."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SpeciateError(
            Code.UNAVAILABLE, f"{path} cannot be written: {error.strerror}.", "Name a file elsewhere: --image FILE"
        ) from error
    return f"wrote {path}"
