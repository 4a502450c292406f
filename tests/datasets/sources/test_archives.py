"""Archives that people make and archives that are made to harm, unpacked in the sandbox."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speciate.datasets.sources.archives import member_path
from speciate.datasets.sources.listing import Listing
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.errors import Code, SpeciateError
from tests.datasets.source_context import source_context


@pytest.fixture
def context(tmp_path: Path) -> Iterator[SourceContext]:
    with source_context(tmp_path) as made:
        yield made


def image(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), shade).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def reasons(found: Listing) -> dict[str, str]:
    return dict(found.excluded)


def names(found: Listing) -> set[str]:
    return {file.name for file in found.files}


IMAGES = {"set/train/cat/1.png": image(1), "set/train/dog/2.png": image(2), "set/test/cat/3.png": image(3)}
MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    ".zip": zipped,
    ".tar": tarred,
    ".tar.gz": lambda path, members: tarred(path, members, "w:gz"),
    ".tar.bz2": lambda path, members: tarred(path, members, "w:bz2"),
    ".txz": lambda path, members: tarred(path, members, "w:xz"),
}


@pytest.mark.parametrize("suffix", MAKERS)
def test_an_archive_is_read_like_the_folder_in_it(context: SourceContext, tmp_path: Path, suffix: str) -> None:
    hidden = {"__MACOSX/._1.png": b"x", "set/.DS_Store": b"x"}
    found = prepare_source(MAKERS[suffix](tmp_path / f"set{suffix}", IMAGES | hidden), context)
    assert [(file.split, file.folder) for file in found.files] == [("test", "cat"), ("train", "cat"), ("train", "dog")]
    assert {file.path.read_bytes() for file in found.files} == set(IMAGES.values())
    assert (found.layout, found.modality, found.excluded) == ("media", "image", [])
    again = prepare_source(found.source, context._replace(work=tmp_path / "again"))
    assert {file.path.stat().st_mtime_ns for file in (*found.files, *again.files)} == {found.source.stat().st_mtime_ns}
    assert all(any(file.path.is_relative_to(folder) for folder in found.readable) for file in found.files)


def test_archives_in_a_folder_are_parts_of_it(context: SourceContext, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    zipped(folder / "train.zip", {"cat/1.png": image(1), "inner.zip": b"x"})
    tarred(folder / "test.tar.gz", {"cat/1.png": image(2)}, "w:gz")
    (folder / "broken.zip").write_bytes(b"no archive")
    found = prepare_source(folder, context)
    assert {(file.name, file.split, file.folder) for file in found.files} == {
        ("train/cat/1.png", "train", "cat"), ("test/cat/1.png", "test", "cat"),
    }  # fmt: skip
    assert reasons(found)["train/inner.zip"] == "An archive in an archive is not unpacked."
    assert "cannot be unpacked" in reasons(found)["broken.zip"]


def test_a_zip_cannot_write_elsewhere(context: SourceContext, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    path = zipped(tmp_path / "a.zip", IMAGES | {
        "../out.png": b"x", "/abs.png": b"x", "set/../../out.png": b"x", "C:\\out.png": b"x", "..\\out.png": b"x",
        f"{'n' * 300}.png": b"x", "set/train/CAT/1.png": b"x",
    })  # fmt: skip
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("set/train/cat/1.png", b"again")
    found = prepare_source(path, context)
    assert names(found) == set(IMAGES)
    assert reasons(found) == {
        "../out.png": "Its path leads out.",
        "/abs.png": "Its path is absolute.",
        "set/../../out.png": "Its path leads out.",
        "C:\\out.png": "Its path is absolute.",
        "..\\out.png": "Its path leads out.",
        f"{'n' * 300}.png": "Its name is too long.",
        "set/train/CAT/1.png": "It has the name of 'set/train/cat/1.png', but for case.",
        "link.png": "It is a link.",
        "set/train/cat/1.png": "Another member has its name.",
    }
    assert not list(tmp_path.rglob("out.png"))


def test_a_tar_cannot_write_elsewhere(context: SourceContext, tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", IMAGES | {"../out.png": b"x", "/abs.png": b"x"})
    kinds = {"soft": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE}
    with tarfile.open(path, "a") as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = prepare_source(path, context)
    assert names(found) == set(IMAGES)
    assert reasons(found) == {
        "../out.png": "Its path leads out.", "/abs.png": "Its path is absolute.",
        "soft": "It is a link.", "hard": "It is a link.", "pipe": "It is no file.", "device": "It is no file.",
    }  # fmt: skip


def test_bombs_are_refused_and_the_others_kept(context: SourceContext, tmp_path: Path) -> None:
    zeros = bytes(100 << 20)
    found = prepare_source(zipped(tmp_path / "a.zip", IMAGES | {"bomb.png": zeros}), context)
    assert names(found) == set(IMAGES)
    assert reasons(found)["bomb.png"].endswith("a bomb.")
    lying = (tmp_path / "a.zip").read_bytes().replace((100 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    (tmp_path / "lying.zip").write_bytes(lying)
    found = prepare_source(tmp_path / "lying.zip", context._replace(work=tmp_path / "second"))
    assert names(found) == set(IMAGES)
    assert "bomb.png" in reasons(found)
    path = tarred(tmp_path / "a.tar.gz", IMAGES | {"bomb.png": zeros}, "w:gz")
    found = prepare_source(path, context._replace(work=tmp_path / "third"))
    assert names(found) == set(IMAGES)
    assert "counts as a bomb" in reasons(found)["bomb.png"]


def test_encrypted_and_damaged_members_are_excluded(context: SourceContext, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", IMAGES)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the first member claims to be encrypted, in both of its headers
    data[6] |= 1
    at = data.index(b"set/train/dog/2.png") + 30  # in its content
    data[at] ^= 0xFF
    path.write_bytes(data)
    found = prepare_source(path, context)
    assert names(found) == {"set/test/cat/3.png"}
    assert reasons(found)["set/train/cat/1.png"] == "It is encrypted."
    assert "cannot be unpacked" in reasons(found)["set/train/dog/2.png"]


def test_a_member_that_would_lie_in_a_file_does_not_stop_the_others(context: SourceContext, tmp_path: Path) -> None:
    found = prepare_source(zipped(tmp_path / "a.zip", {"a.png": image(7), "a.png/b.png": image(8)} | IMAGES), context)
    assert names(found) == {"a.png", *IMAGES}
    assert "cannot be unpacked" in reasons(found)["a.png/b.png"]


def test_a_tar_that_ends_in_a_zip_is_a_tar(context: SourceContext, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"inside.png": image(9)}).read_bytes()
    path = tarred(tmp_path / "set.tar", {"a.png": image(1), "b.png": image(2), "z.docx": inner})
    assert {"a.png", "b.png"} <= names(found := prepare_source(path, context))
    assert "inside.png" not in names(found)


def test_a_member_without_a_name_is_excluded(context: SourceContext, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", IMAGES | {"x": image(9)})
    data = path.read_bytes()
    place = data.rindex(b"x", 0, data.rindex(b"PK\x05\x06"))  # in the directory at the end
    path.write_bytes(data[:place] + b"\0" + data[place + 1 :])
    found = prepare_source(path, context)
    assert names(found) == set(IMAGES)
    assert list(reasons(found).values()) == ["It has no name."]


def test_a_cut_tar_gives_its_whole_members(context: SourceContext, tmp_path: Path) -> None:
    noise = {f"{i}.png": os.urandom(50_000) for i in range(10)}
    path = tarred(tmp_path / "a.tar.gz", IMAGES | noise, "w:gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = prepare_source(path, context)
    assert names(found) >= set(IMAGES)
    assert len(found.files) < 13
    assert any("amaged" in reason or "cannot be unpacked" in reason for reason in reasons(found).values())


@pytest.mark.parametrize("data", [b"words", b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(100)])
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_file_that_is_no_archive_is_one_clear_error(
    context: SourceContext, tmp_path: Path, suffix: str, data: bytes
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with pytest.raises(SpeciateError, match="cannot be unpacked") as raised:
        prepare_source(path, context)
    assert raised.value.code is Code.INVALID


def test_an_archive_of_refused_members_alone_says_why(context: SourceContext, tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match=r"1 excluded, such as '\.\./a\.png': Its path leads out"):
        prepare_source(zipped(tmp_path / "a.zip", {"../a.png": b"x"}), context)


def test_a_table_in_an_archive(context: SourceContext, tmp_path: Path) -> None:
    found = prepare_source(zipped(tmp_path / "a.zip", {"train.csv": b"a,b\n1,2\n", "test.csv": b"a,b\n1,2\n"}), context)
    assert [(file.name, file.split) for file in found.files] == [("test.csv", "test"), ("train.csv", "train")]


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "C:", ""])).map("/".join))
def test_no_name_leads_out(name: str) -> None:
    found = member_path(name)
    if not isinstance(found, str):
        joined = os.path.normpath(os.path.join("inside", *found.parts))
        assert joined.startswith("inside/")
