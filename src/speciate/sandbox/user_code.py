"""A user's own code: one function in one file, bound to its bytes, loaded by a sandboxed process that is kept to call
it.

The file is only parsed here, never run. In its sandbox the function sees what it is given and the installed packages,
no other file, no network.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError, unknown
from speciate.sandbox.client import AnswerTimeout, ProcessDied, RemoteError, SandboxClient
from speciate.sandbox.kernel import SandboxPolicy

_START_SECONDS = 60.0
PROCESS = "speciate.sandbox.user_code_process"
_OUTSIDE = re.compile(
    r"PermissionError|Permission denied|Errno (1|13|101)\]|gaierror|URLError|Connection(Refused)?Error"
)


class UserFunction(NamedTuple):
    file: Path
    function: str
    sha256: str
    """SHA-256 of the file's bytes, in hex digits."""
    body: list[ast.stmt]


def describe_function(file: Path, function: str, recovery: str) -> UserFunction:
    """What the file says of itself. NOT_FOUND for the file, with `recovery`, or the function, INVALID where it cannot
    be one."""
    content = read_code(file, recovery)
    try:
        body = ast.parse(content).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deep
        raise SpeciateError(
            Code.INVALID, f"{file.name} is no Python: {error}.", "Mend the file, then call again."
        ) from error
    functions = [each.name for each in body if isinstance(each, ast.FunctionDef)]
    if function not in functions:
        raise unknown("function", function, functions, f"Name one of {file.name}: 'path/to/{file.name}:FUNCTION'.")
    return UserFunction(file, function, hashlib.sha256(content).hexdigest(), body)


class FileBinding(NamedTuple):
    """How a change of the file is told: what was asked for when it was another one, and the next call."""

    sha256: str | None
    asked_for: str
    recovery: str


def client_factory(
    folder: Path, file: Path, function: str, agreed: FileBinding, policy: SandboxPolicy, what: str
) -> Callable[[], SandboxClient]:
    """What starts a process that has loaded the file as it is now.

    CONFLICT where it has other bytes than those agreed on. What is returned raises INVALID where the file cannot be
    loaded, `what` being its part in things, and UNAVAILABLE where this kernel has no sandbox.
    """
    content = read_code(file, agreed.recovery)
    if agreed.sha256 is not None and hashlib.sha256(content).hexdigest() != agreed.sha256:
        raise SpeciateError(
            Code.CONFLICT, f"{file.name} has changed since {agreed.asked_for} was asked for.", agreed.recovery
        )
    loading = {"source": content.decode("utf-8"), "function": function, "name": file.name}
    return lambda: load_code(SandboxClient(PROCESS, folder, policy), loading, f"The {what} {file.name}")


def load_code(client: SandboxClient, loading: Mapping[str, object], what: str) -> SandboxClient:
    """The process once it has loaded the code, or INVALID."""
    try:
        client.open(loading, _START_SECONDS)
    except RemoteError as error:
        client.end()
        raise _load_error(what, str(error)) from error
    except (AnswerTimeout, ProcessDied) as error:
        client.end()
        raise _load_error(what, "its process took too long or was ended") from error
    except BaseException:
        client.end()
        raise
    return client


def sandbox_hint(error: str) -> str:
    """What to know of the sandbox where its limits may be why the code raised this; else nothing."""
    if not _OUTSIDE.search(error):
        return ""
    return "Its sandbox has no network and no files but installed packages: what it needs belongs into the file itself."


def read_code(file: Path, recovery: str) -> bytes:
    """The bytes of a file of code that a caller named. NOT_FOUND, or INVALID where it is no plain file, too long, or
    not named as Python is: what else lies in a folder is not code, and errors would quote it."""
    if file.suffix != ".py":
        raise SpeciateError(
            Code.INVALID, f"{str(file)!r} is no file of Python code: its name must end in .py.", recovery
        )
    try:
        return foreign_files.read_named(file, foreign_files.LONGEST_CODE)
    except foreign_files.NotAFile as error:
        raise SpeciateError(Code.INVALID, f"{file} cannot be read: {error.strerror}.", recovery) from error
    except OSError as error:
        raise SpeciateError(Code.NOT_FOUND, f"{file} cannot be read: {error.strerror}.", recovery) from error
    except ValueError as error:
        raise SpeciateError(Code.INVALID, f"{file} cannot be read: {error}.", recovery) from error


def _load_error(what: str, why: str) -> SpeciateError:
    recovery = f"{sandbox_hint(why)} Mend the file, then call again.".strip()
    return SpeciateError(Code.INVALID, f"{what} cannot be loaded: {why}.", recovery)
