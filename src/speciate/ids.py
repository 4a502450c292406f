"""Readable ids: a noun, a hyphen and twelve characters without look-alikes.

An id made from a key is a function of the key, so that a repeated request names the same row.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import NewType

from speciate.errors import Code, SpeciateError

JobId = NewType("JobId", str)

ALPHABET, LENGTH = (
    "23456789abcdefghjkmnpqrstvwxyz",
    12,
)  # of 30 characters: 58 bits, one clash in a million among a million examples
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")


def _encode(data: bytes) -> str:
    number, out = int.from_bytes(data[:8], "big"), []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        out.append(ALPHABET[digit])
    return "".join(out)


def new_id(noun: str) -> str:
    """A random id such as `job-7f3kq2m8xz`."""
    return f"{noun}-{_encode(secrets.token_bytes(8))}"


def id_from_key(noun: str, key: str) -> str:
    """The same id for the same key, on every machine."""
    return f"{noun}-{_encode(hashlib.sha256(key.encode()).digest())}"


def check_name(noun: str, name: str) -> str:
    """Return a user's name for a thing, or refuse it: letters, digits, `_ - .`, at most 64, starting with no sign."""
    if not _NAME.fullmatch(name):
        raise SpeciateError(
            Code.INVALID,
            f"{name!r} cannot name a {noun}: a name has letters, digits, '_', '-' and '.', and at most 64 of them.",
            "Call again with another name.",
        )
    return name
