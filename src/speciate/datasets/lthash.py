"""An order-free, incremental content hash of a multiset of rows (LtHash: 1,024 lanes of 16 bits).

The hash of a dataset version is the lane-wise sum of the hashes of its rows' digests, so adding or removing rows costs
only those rows and neither order nor history matters. The version's id is the sha256 of the lanes.
Source: Bellare and Micciancio's AdHash; Lewi et al., "Securing Update Propagation with Homomorphic Hashing" (2019),
with its parameters; SHAKE-128 in the place of BLAKE2X.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice

import numpy as np
import numpy.typing as npt

LANES = 1024
_AT_ONCE = 512
Lanes = npt.NDArray[np.uint16]  # (1024,)


def lanes(digests: Iterable[bytes]) -> Lanes:
    """The sum of the lanes of all rows. `digests`: 32 bytes each; a row that occurs twice counts twice."""
    total = np.zeros(LANES, np.uint16)
    rest = iter(digests)
    while some := list(islice(rest, _AT_ONCE)):
        hashed = b"".join(hashlib.shake_128(digest).digest(2 * LANES) for digest in some)
        total += np.frombuffer(hashed, "<u2").reshape(-1, LANES).sum(axis=0, dtype=np.uint16)  # wraps modulo 2**16
    return total


def version_id(total: Lanes) -> str:
    """The sha256 that names a version, the same on machines of any byte order."""
    return hashlib.sha256(packed(total)).hexdigest()


def packed(total: Lanes) -> bytes:
    """As it is stored: 2 KiB, little-endian."""
    return total.astype("<u2").tobytes()


def unpacked(data: bytes) -> Lanes:
    return np.frombuffer(data, "<u2").astype(np.uint16)
