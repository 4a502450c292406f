"""Who or what asks (the *entity*), kept as a keyed hash: equal for the same entity, and nothing that leads back to it.

    hash = HMAC-SHA256(key, USE_CASE \\0 ENTITY), its first 16 bytes as hexadecimal      RFC 2104; truncated as in its 5

Traffic of one entity is alike, so who watches it must know which answers belong together, and no more. The key lies
outside the workspace (workspace/key_files.py): without it nobody who holds the log, a backup or a copy can try names.
The use case is part of what is hashed, so the logs of two use cases do not tell that the same entity asked both.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from pathlib import Path

from speciate.errors import Call, Code, SpeciateError
from speciate.workspace import key_files
from speciate.workspace.catalog_identity import read_anchor

LONGEST = 256
"""Characters."""
_HEX = 32
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of Unicode: control characters, halves of one, line and paragraph separators."""
_OTHERWISE = "a new key is made, and everybody who asked before counts as somebody new"
_Stamp = tuple[int, int]


def entity_problem(given: object) -> str | None:
    """What is wrong with an entity, as a sentence that does not quote it; None where it can be kept."""
    if not isinstance(given, str):
        return "An entity is a text: a user, a session or a device, as your system names it."
    if not given.strip():
        return "The entity is empty; leave it out if you do not know who asks."
    if len(given) > LONGEST:
        return f"An entity has at most {LONGEST} characters, and this has {len(given):,}."
    if any(unicodedata.category(each) in _UNPRINTABLE for each in given):
        return "An entity is one line, and this holds control characters."
    return None


def check_entity(given: str, ref: str, *, logged: bool) -> None:
    """`ref`: of the model that is asked; `logged`: whether its answers are kept. Raises INVALID, without the value."""
    if problem := entity_problem(given):
        raise SpeciateError(
            Code.INVALID, problem, "Call predict again with entity='user-17' or the like, or without entity."
        )
    if not logged:
        raise SpeciateError(
            Code.INVALID,
            f"entity is kept beside the logged answers of a use case, and those of {ref} are not logged here.",
            "Call predict again without entity, or ask a use case's production model.",
            next=[Call("get_status", {}, "for the use cases")],
        )


def key_file(identity: str) -> Path:
    """Raises ValueError for what is no identity of a workspace."""
    return key_files.key_file("entities", identity)


class EntityHashes:
    """Hashes of those who ask one use case of the workspace at `root`. The key is read at the first use, and again
    where another file lies in its place: the daemon and deployments then go on with the same one."""

    def __init__(self, root: Path, use_case: str) -> None:
        self._root, self._use_case = root, use_case
        self._file: Path | None = None
        self._key = b""
        self._stamp: _Stamp | None = None

    def __repr__(self) -> str:
        return f"EntityHashes({self._use_case!r})"

    def of(self, entity: str) -> str:
        """Spaces around it do not count: a header has none. Raises SpeciateError or OSError where there is no key."""
        said = f"{self._use_case}\0{entity.strip()}".encode("utf-8", "surrogatepass")
        return hmac.new(self._current_key(), said, hashlib.sha256).hexdigest()[:_HEX]

    def _current_key(self) -> bytes:
        if self._file is None:
            self._file = key_file(self._identity())
        if self._stamp is None or self._stamp != _stamp_of(self._file):
            self._key = key_files.read_key(self._file, _OTHERWISE)
            self._stamp = _stamp_of(self._file)
        return self._key

    def _identity(self) -> str:
        if (anchor := read_anchor(self._root)) is None:
            raise SpeciateError(Code.UNAVAILABLE, f"{self._root} is no workspace that was opened before.")
        return anchor.identity


def _stamp_of(file: Path) -> _Stamp | None:
    try:
        info = file.stat()
    except FileNotFoundError:
        return None
    return info.st_ino, info.st_mtime_ns
