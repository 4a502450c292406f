from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from speciate.errors import Code, SpeciateError
from speciate.workspace import filesystem
from speciate.workspace.filesystem import check_folder, kind_in, require_local, require_space

pytestmark = pytest.mark.durable

_MOUNTS = """\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:20 / /home rw,relatime shared:1 - nfs4 server:/home rw
22 21 0:21 / /home/me/fast\\040disk rw - xfs /dev/sdb1 rw
23 20 0:22 / /homework rw - tmpfs tmpfs rw
24 20 0:23 / /mnt rw - ext4 /dev/sdc rw
25 20 0:24 / /mnt rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/work", "nfs4"),
        ("/home/me/fast disk/work", "xfs"),
        ("/homework/x", "tmpfs"),
        ("/homes", "ext4"),
        ("/mnt/x", "cifs"),
    ],
)
def test_the_deepest_and_newest_mount_decides(path: str, kind: str) -> None:
    assert kind_in(_MOUNTS, path) == kind


def test_a_local_folder_passes_and_keeps_no_trace(tmp_path: Path) -> None:
    checks = {check.name: check.ok for check in check_folder(tmp_path / "not" / "there" / "yet")}
    assert set(checks) == {"local", "space", "locks", "rename", "fsync"}
    assert checks["locks"]
    assert checks["fsync"]
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    (found,) = [check.what for check in check_folder(tmp_path) if check.name == "fsync"]
    assert found.startswith("fsync takes 1500.0 ms: a slow disk;")


def test_a_nearly_full_disk_is_said_before_a_job_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_space(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    with pytest.raises(SpeciateError, match=r"disk .* is full: 1 MiB are free, and a job needs 16"):
        require_space(tmp_path)


def _mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    table = _MOUNTS + f"26 20 0:25 / {tmp_path} rw - {kind} somewhere rw\n"
    monkeypatch.setattr(filesystem, "kind", lambda folder: kind_in(table, str(folder)))


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "ceph", "fuse.sshfs", "fuse.rclone", "fuse.glusterfs", "afs"],
)
def test_a_filesystem_of_several_machines_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _mounted(tmp_path, monkeypatch, kind)
    with pytest.raises(SpeciateError, match=f"{kind} is a network filesystem") as caught:
        require_local(tmp_path)
    assert "local disk" in caught.value.recovery
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "risk"),
    [
        ("ext4", "ext4"), ("overlay", "goes with the container"), ("tmpfs", "gone when the machine stops"),
        ("fuse.mergerfs", "nobody here can tell"), ("fuseblk", "nobody here can tell"), ("virtiofs", "on the host"),
    ],
)  # fmt: skip
def test_what_is_allowed_with_a_risk_says_the_risk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, risk: str
) -> None:
    _mounted(tmp_path, monkeypatch, kind)
    require_local(tmp_path)
    assert risk in next(check.what for check in check_folder(tmp_path) if check.name == "local")


def test_locks_that_are_granted_twice_are_refused_whatever_the_filesystem_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda descriptor, how: None)  # as NFS with local_lock, or a lying FUSE, does
    with pytest.raises(SpeciateError, match="flock was granted twice"):
        require_local(tmp_path)


def test_locks_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(SpeciateError, match="flock fails: No locks available"):
        require_local(tmp_path)


def test_a_rename_that_copies_over_what_others_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copying(self: Path, target: Path) -> None:
        target.write_bytes(self.read_bytes())
        self.unlink()

    monkeypatch.setattr(Path, "replace", copying)
    with pytest.raises(SpeciateError, match="another file's content"):
        require_local(tmp_path)


@pytest.mark.parametrize(
    ("number", "words", "next_step"),
    [
        (errno.ENOSPC, "is full", "Free some space"),
        (errno.EDQUOT, "quota", "quota raised"),
        (errno.EFBIG, "larger than", "ulimit -f"),
        (errno.EROFS, "read-only", "dmesg"),
        (errno.EIO, "fails to read or write", "verify --all"),
        (errno.ESTALE, "stale handle", "local disk"),
        (errno.ENOTCONN, "no longer connected", "Mount it again"),
    ],
)
def test_what_a_disk_refuses_is_said_in_words(tmp_path: Path, number: int, words: str, next_step: str) -> None:
    said = filesystem.explain(OSError(number, os.strerror(number), str(tmp_path / "ws" / "file")), tmp_path / "ws")
    assert said is not None
    assert said.code is Code.UNAVAILABLE
    assert words in said.message
    assert str(tmp_path / "ws") in said.message
    assert next_step in said.recovery


def test_a_disk_beside_the_workspace_is_named(tmp_path: Path) -> None:
    said = filesystem.explain(OSError(errno.ENOSPC, "x", "/elsewhere/out/file.csv"), tmp_path)
    assert said is not None
    assert "/elsewhere/out" in said.message


@pytest.mark.parametrize(
    "error", [ValueError("No space left on device"), OSError(errno.ENOENT, "no such file"), RuntimeError("os error 28")]
)
def test_what_only_sounds_like_a_disk_is_no_disk(error: Exception) -> None:
    assert filesystem.explain(error) is None


def test_the_cause_below_another_error_is_found() -> None:
    outer = RuntimeError("the library failed")
    outer.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert filesystem.explain(outer) is not None
