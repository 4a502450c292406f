"""Where an export cannot stand is said at the call."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.atomic_folder import check_free, hidden_folder_beside

pytestmark = pytest.mark.durable


def refused(path: Path) -> SpeciateError:
    with pytest.raises(SpeciateError) as caught:
        check_free(path)
    return caught.value


def test_a_new_path_is_free_though_its_folders_are_still_to_be_made(tmp_path: Path) -> None:
    check_free(tmp_path / "new")
    check_free(tmp_path / "a" / "b" / "new")


def test_nothing_stands_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "dangling"):
        assert refused(tmp_path / name).code is Code.CONFLICT


def test_nothing_stands_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for below in ("file/new", "file/a/b/new", "dangling/new"):
        error = refused(tmp_path / below)
        assert error.code is Code.INVALID
        assert "that is no folder" in error.message
        assert repr(str(tmp_path / below.partition("/")[0])) in error.message


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_nothing_stands_where_this_account_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "may not write" in refused(tmp_path / "closed" / "new").message


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("[Errno 28] Error writing: No space left on device")],
    ids=["the system's", "Arrow's"],
)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, error: OSError) -> None:
    """A write says no path, and the disk may be another one than the workspace's."""
    with pytest.raises(OSError, match="No space left") as caught, hidden_folder_beside(tmp_path / "new"):
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output") as caught, hidden_folder_beside(tmp_path / "new"):
        raise error
    assert caught.value is error
