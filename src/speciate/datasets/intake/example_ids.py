"""Ids of examples from what they hold, all at once: those that `ids.id_from_key` gives one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from speciate.ids import ALPHABET, LENGTH

NOUN = "ex"


def example_ids(keys: Sequence[str]) -> pa.Array:
    """(N,) strings."""
    numbers = np.frombuffer(b"".join(hashlib.sha256(key.encode()).digest()[:8] for key in keys), ">u8").astype(
        np.uint64
    )
    letters = np.empty((len(numbers), len(NOUN) + 1 + LENGTH), np.uint8)
    letters[:, : len(NOUN) + 1] = np.frombuffer(f"{NOUN}-".encode(), np.uint8)
    alphabet, base = np.frombuffer(ALPHABET.encode(), np.uint8), np.uint64(len(ALPHABET))
    for place in range(LENGTH):
        numbers, digits = np.divmod(numbers, base)
        letters[:, len(NOUN) + 1 + place] = alphabet[digits.astype(np.intp)]
    offsets = np.arange(len(letters) + 1, dtype=np.int32) * letters.shape[1]
    return pa.StringArray.from_buffers(len(letters), pa.py_buffer(offsets), pa.py_buffer(letters))
