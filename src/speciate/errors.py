"""The one error of the package: what failed, why, and the next call to make.

Every refusal that a user can cause is a `SpeciateError`; anything else that escapes is a defect and is shown as one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum

_LONGEST_NAME = 64


class Code(StrEnum):
    """What kind of refusal. Programs branch on this, never on the text."""

    NOT_FOUND = "not_found"
    """The thing that was named does not exist."""
    INVALID = "invalid"
    """An argument or an input is wrong; the same call will fail again."""
    CONFLICT = "conflict"
    """Someone else changed it first, or a key was used with other arguments."""
    REFUSED = "refused"
    """Allowed by form, forbidden by policy or a promise (roots, licence, a gate)."""
    MISSING_EXTRA = "missing_extra"
    """A library that this needs is not installed."""
    UNAVAILABLE = "unavailable"
    """Cannot be done now (full disk, locked workspace); the same call may succeed later."""
    NEWER_SCHEMA = "newer_schema"
    """The workspace was written by a newer version."""
    DAMAGED = "damaged"
    """A file is not what was written; what does not need it is usable."""
    INTERNAL = "internal"
    """A defect in speciate; the daemon's log has the traceback."""


class SpeciateError(Exception):
    """`message` says what failed and why and quotes the value; `recovery` names the next call. `foreign` is what a
    library said of it, or what else may quote data: shown below `untrusted`, and in no `str`."""

    def __init__(self, code: Code, message: str, recovery: str = "", foreign: str = "") -> None:
        super().__init__(code, message, recovery, foreign)  # all in args, so that it pickles
        self.code, self.message, self.recovery, self.foreign = code, message, recovery, foreign

    def __str__(self) -> str:
        return f"{self.message} {self.recovery}".strip()

    @property
    def whole(self) -> str:
        """With what a library said: for places that are below `untrusted` themselves."""
        return f"{self.message} {self.foreign}".strip()


def closest(value: str, known: Iterable[str], count: int = 3) -> str:
    """`"did you mean 'a', 'b'?"`, or the first known names where nothing is near, or an empty string."""
    known = sorted(known)
    near = difflib.get_close_matches(value, known, count)
    if near:
        return "did you mean " + ", ".join(map(_quote_name, near)) + "?"
    if known:
        shown = ", ".join(map(_quote_name, known[:10]))
        return f"known: {shown}" + (f" and {len(known) - 10} more." if len(known) > 10 else ".")
    return "there are none yet."


def _quote_name(name: str) -> str:
    """As Python writes it, so without characters that hide or turn text; cut, for it may be a column of anybody's."""
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…")


def unknown(noun: str, value: str, known: Iterable[str], recovery: str) -> SpeciateError:
    """The error for a name that does not exist: `unknown("dataset", "lesion", names, "Call describe_dataset().")`."""
    return SpeciateError(Code.NOT_FOUND, f"There is no {noun} {value!r}; {closest(value, known)}", recovery)
