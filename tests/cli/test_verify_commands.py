"""`speciate backup` of a workspace of which a disk changed a file."""

from __future__ import annotations

from pathlib import Path

from speciate.workspace.blobs import Blobs
from speciate.workspace.workspace import Workspace
from tests import forks
from tests.server.processes import CLI, Daemons


def test_a_backup_names_what_was_damaged_and_copies_the_rest(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    blobs = Blobs(workspace.folders.blobs)
    whole, flipped = blobs.put(b"whole"), blobs.put(b"flipped")
    workspace.close()
    daemons = Daemons(tmp_path / "workspace")
    path = blobs.path(flipped)
    path.chmod(0o644)
    path.write_bytes(b"flopped")
    try:
        done = forks.run([*CLI, "backup", str(tmp_path / "copy"), "--workspace", str(daemons.workspace)])
    finally:
        daemons.close()
    assert done.returncode == 1, done
    assert f"blobs/{flipped[:2]}/{flipped}: its content has sha256" in done.stdout
    assert "speciate verify --all --quarantine" in done.stdout
    copy = Blobs(tmp_path / "copy" / "blobs")
    assert copy.get(whole) == b"whole"
    assert copy.path(flipped).read_bytes() == b"flopped"
