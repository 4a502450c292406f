from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from speciate.errors import SpeciateError
from speciate.workspace.filesystem import check_folder, kind_in, require_space

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
    assert set(checks) == {"local", "space", "locks", "fsync"}
    assert checks["locks"]
    assert checks["fsync"]
    assert list(tmp_path.iterdir()) == []


def test_a_nearly_full_disk_is_said_before_a_job_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_space(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    with pytest.raises(SpeciateError, match=r"disk .* is full: 1 MiB are free, and a job needs 16"):
        require_space(tmp_path)
