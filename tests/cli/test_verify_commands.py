"""`speciate backup` of a workspace of which a disk changed a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from speciate.workspace.blobs import Blobs
from speciate.workspace.workspace import Workspace
from tests.server.processes import Daemons


def test_a_backup_names_what_was_damaged_and_copies_the_rest(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    blobs = Blobs(workspace.folders.blobs)
    whole, flipped = blobs.put(b"whole"), blobs.put(b"flipped")
    workspace.close()
    daemons = Daemons(tmp_path / "workspace")
    path = blobs.path(flipped)
    path.chmod(0o644)
    path.write_bytes(b"flopped")
    argv = [sys.executable, "-m", "speciate.cli", "backup", str(tmp_path / "copy"), "--workspace"]
    try:
        done = subprocess.run([*argv, str(daemons.workspace)], capture_output=True, text=True, check=False)
    finally:
        daemons.close()
    assert done.returncode == 1, done
    assert f"blobs/{flipped[:2]}/{flipped}: its content has sha256" in done.stdout
    assert "speciate verify --all --quarantine" in done.stdout
    copy = Blobs(tmp_path / "copy" / "blobs")
    assert copy.get(whole) == b"whole"
    assert copy.path(flipped).read_bytes() == b"flopped"
