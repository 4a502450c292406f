from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import Code, SpeciateError
from speciate.workspace.packs import PackReader, PackWriter, index_path

pytestmark = pytest.mark.durable


def sealed(folder: Path, *blobs: bytes) -> Path:
    with PackWriter(folder) as writer:
        for blob in blobs:
            writer.add(blob)
        return writer.seal()


@given(st.lists(st.binary(max_size=100)))
@settings(max_examples=30, deadline=None)
def test_every_blob_comes_back_whole(tmp_path_factory: pytest.TempPathFactory, blobs: list[bytes]) -> None:
    with PackWriter(tmp_path_factory.mktemp("packs")) as writer:
        names = [writer.add(blob) for blob in blobs]
        pack = writer.seal()
    assert pack.stat().st_size == sum(map(len, set(blobs)))
    with PackReader([pack]) as reader:
        assert [reader.get(name) for name in names] == blobs


def test_the_same_content_seals_the_same_pack_again(tmp_path: Path) -> None:
    first = sealed(tmp_path, b"a", b"b")
    assert sealed(tmp_path, b"a", b"b") == first
    assert sealed(tmp_path, b"b", b"a") != first
    assert len(list(tmp_path.iterdir())) == 4


def test_a_sealed_pack_cannot_be_written(tmp_path: Path) -> None:
    pack = sealed(tmp_path, b"a")
    assert {path.stat().st_mode & 0o222 for path in (pack, index_path(pack))} == {0}


def test_a_reader_finds_what_any_of_its_packs_holds(tmp_path: Path) -> None:
    with PackWriter(tmp_path) as writer:
        name = writer.add(b"in the second")
        second = writer.seal()
    with PackReader([sealed(tmp_path, b"a"), second]) as reader:
        assert name in reader
        assert reader.get(name) == b"in the second"
        assert "0" * 64 not in reader
        with pytest.raises(SpeciateError) as caught:
            reader.get("0" * 64)
    assert caught.value.code is Code.NOT_FOUND


def test_a_writer_that_gives_up_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with PackWriter(tmp_path) as writer:
            writer.add(b"a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_second_copy_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    packs = []
    for more in (b"x", b"y"):
        with PackWriter(tmp_path) as writer:
            name = writer.add(b"aaaa")
            writer.add(more)
            packs.append(writer.seal())
    packs[0].chmod(0o644)
    packs[0].write_bytes(b"aaabx")
    with PackReader(packs) as reader:
        assert reader.get(name) == b"aaaa"


def test_damage_is_found_at_the_read(tmp_path: Path) -> None:
    with PackWriter(tmp_path) as writer:
        name = writer.add(b"aaaa")
        pack = writer.seal()
    pack.chmod(0o644)
    pack.write_bytes(b"aaab")
    with PackReader([pack]) as reader, pytest.raises(SpeciateError, match="is damaged"):
        reader.get(name)


def test_a_pack_without_its_index_is_no_pack(tmp_path: Path) -> None:
    pack = sealed(tmp_path, b"a")
    index_path(pack).unlink()
    with pytest.raises(SpeciateError, match="or its index is missing"):
        PackReader([pack])
