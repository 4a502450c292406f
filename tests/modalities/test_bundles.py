"""Several files as the bytes of one."""

from __future__ import annotations

import contextlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.bundles import bundle, is_bundle, members_of, size_of_members
from speciate.modalities.contract import DecodeError

NAMES = st.text("abc/._-0é", min_size=1, max_size=12).filter(lambda name: not name.endswith("/"))


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6))
def test_what_is_bundled_comes_back_and_order_makes_no_other_bytes(members: dict[str, bytes]) -> None:
    data = bundle(members)
    assert members_of(data) == members
    assert bundle(dict(reversed(members.items()))) == data
    assert not members or is_bundle(data)
    assert not members or size_of_members(data) == sum(map(len, members.values()))
    assert size_of_members(data + b"more") is None


def test_another_zip_without_compression_has_its_own_size() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    assert size_of_members(buffer.getvalue()) is None
    assert size_of_members(b"PK\x03\x04 no ZIP") is None


def test_a_compressed_zip_is_refused_before_it_is_unpacked() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10_000_000))
    with pytest.raises(DecodeError, match="compressed") as refused:
        members_of(buffer.getvalue())
    assert refused.value.quality == "refused"


@pytest.mark.parametrize("place", range(0, 200, 7))
def test_a_damaged_bundle_is_an_error_or_the_same_members(place: int) -> None:
    data = bytearray(bundle({"a.txt": b"one", "b.txt": b"two"}))
    data[place % len(data)] ^= 0xFF
    with contextlib.suppress(DecodeError):  # nothing else may be raised
        assert set(map(len, members_of(bytes(data)).values())) <= {3}


def test_a_bundle_that_ends_early_is_an_error() -> None:
    data = bundle({"a.txt": b"one", "b.txt": b"two"})
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            members_of(data[:end])
