from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets import content_hash
from speciate.datasets.content_hash import HASHING, lanes, pack_lanes, seal_rows, unpack_lanes, version_id

ROWS = [hashlib.sha256(str(i).encode()).digest() for i in range(500)]


def test_order_does_not_matter() -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert version_id(lanes(shuffled)) == version_id(lanes(ROWS))


def test_history_does_not_matter() -> None:
    assert version_id(lanes(ROWS) - lanes(ROWS[:100])) == version_id(lanes(ROWS[100:]))
    assert version_id(lanes(ROWS[:200]) + lanes(ROWS[200:])) == version_id(lanes(ROWS))


def test_a_row_that_occurs_twice_is_another_set() -> None:
    assert version_id(lanes([*ROWS, ROWS[0]])) != version_id(lanes(ROWS))
    assert version_id(lanes([ROWS[0], ROWS[0]])) != version_id(lanes([]))


def test_the_id_is_the_same_on_any_machine() -> None:
    assert version_id(lanes([])) == hashlib.sha256(bytes(2048)).hexdigest()
    big_endian = lanes(ROWS).astype(np.dtype(">u2"))
    assert version_id(big_endian) == version_id(lanes(ROWS))


digests = st.binary(min_size=32, max_size=32)


@given(st.lists(digests, max_size=8), st.lists(digests, max_size=8), st.randoms())
@pytest.mark.parametrize("hashing", [1, 2])
def test_rows_that_come_and_go_in_any_order(
    hashing: int, stay: list[bytes], pass_by: list[bytes], chance: random.Random
) -> None:
    all_rows = chance.sample([*stay, *pass_by], len(stay) + len(pass_by))
    left = lanes(all_rows, hashing) - lanes(pass_by, hashing)
    assert version_id(left) == version_id(lanes(stay, hashing))
    assert (unpack_lanes(pack_lanes(left)) == left).all()
    assert unpack_lanes(pack_lanes(left)).dtype == np.uint16


@given(st.lists(digests, min_size=1, max_size=3), st.integers(0, 255), st.integers(0, 2))
def test_any_bit_of_any_digest_tells(rows: list[bytes], bit: int, at: int) -> None:
    number = int.from_bytes(rows[at % len(rows)], "little") ^ (1 << bit)
    other = [*rows]
    other[at % len(rows)] = number.to_bytes(32, "little")
    apart = lanes(rows) - lanes(other)
    assert np.count_nonzero(apart) > 0.98 * len(apart)  # of random lanes one in 65,536 is 0


def test_lanes_are_what_the_formula_says() -> None:
    """Block by block, for more rows than are hashed at once, and the last block and row of them."""
    p, q = (
        Cipher(algorithms.AES(hashlib.sha256(f"speciate rows {name}".encode()).digest()[:16]), modes.ECB())
        for name in "PQ"
    )

    def xor(one: bytes, other: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(one, other, strict=True))

    def expand(digest: bytes) -> bytes:
        found = b""
        for number in range(128):
            inner = p.encryptor().update(xor(digest[:16], number.to_bytes(16, "big")))
            w = xor(inner, digest[16:])
            found += xor(q.encryptor().update(w), w)
        return found

    expected = sum(np.frombuffer(expand(row), "<u2").astype(np.uint64) for row in ROWS) % 2**16
    assert len(ROWS) > content_hash._AT_ONCE == 256, "what is made of so many stays in a processor's cache"
    assert (lanes(ROWS, 2) == expected).all()


def test_ids_stay_what_they_are() -> None:
    assert HASHING == 2
    assert version_id(lanes(ROWS, 1)) == "818367e0dd8e6f4387d0bc3ba77d6c22ee059a7929754e766378829409724c35"
    assert version_id(lanes(ROWS, 2)) == "2d4f999d64d2c2848de56d1e4af5ab36ea5e349a13adeba059a8daf4c23e95ce"


def test_sealed_columns_have_dictionaries_where_values_repeat(tmp_path: Path) -> None:
    count = 40_000
    table = pa.table(
        {
            "id": [f"ex-{number}" for number in range(count)],
            "a.b": [f"value {number % 7}" for number in range(count)],
            "lists": [[f"x{number % 3}"] for number in range(count)],
            "x": np.arange(count) / 7,
        }
    )
    file = seal_rows(table, tmp_path)
    assert pq.read_table(file).equals(table)
    footer = pq.read_metadata(file)
    first = [footer.row_group(0).column(place) for place in range(4)]
    assert [chunk.has_dictionary_page for chunk in first] == [False, True, True, False]
    assert [footer.row_group(place).num_rows for place in range(footer.num_row_groups)] == [16_384, 16_384, 7_232]
