"""Meshes and clouds of every format leave as PLY and come back as the same forms, with labels, splits and textures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from speciate.datasets import version_rows
from speciate.datasets.columns import FINGERPRINT
from speciate.datasets.versions import Manifest
from speciate.modalities.bundles import members_of
from speciate.workspace.workspace import Workspace
from tests import data
from tests.domains.machine_parts import FAMILIES
from tests.modalities.mesh_samples import BUNDLES, ball, cloud_ply, exported, las, npz

COLUMNS = [FINGERPRINT, "label", "split"]


def rows(workspace: Workspace, manifest: Manifest) -> list[str]:
    return sorted(map(str, version_rows.read(workspace.folders, manifest, COLUMNS).to_pylist()))


def there_and_back(workspace: Workspace, made: Manifest, path: Path) -> Manifest:
    report = data.run_job(workspace, "export", dataset=made.name, format="ply", path=path)["report"]
    return data.ingest(workspace, "again", **report["create_again"])


@pytest.mark.slow
def test_meshes_leave_as_ply_and_those_with_textures_as_folders(workspace: Workspace, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place, kind in enumerate(["ply", "stl", "obj", "off", "glb"] * 2):
        family = ("gear", "bolt")[place % 2]
        path = tmp_path / "parts" / family / f"part.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(exported(FAMILIES[family](rng), kind))
    for name, member in members_of(BUNDLES["square.obj"]).items():
        (tmp_path / "parts" / "sign").mkdir(exist_ok=True)
        (tmp_path / "parts" / "sign" / name).write_bytes(member)
    made = data.ingest(workspace, "parts", source=tmp_path / "parts", modality="mesh", label="folder")
    assert made.labels == {"bolt": 5, "gear": 5, "sign": 1}
    again = there_and_back(workspace, made, tmp_path / "out")
    assert again.modality == "mesh"
    assert rows(workspace, again) == rows(workspace, made)
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.suffix in (".ply", ".obj", ".mtl", ".png")}
    assert {"part.ply", "part-2.ply", "square.obj", "square.mtl", "skin.png"} <= written
    assert not any(path.suffix in (".stl", ".off", ".glb") for path in (tmp_path / "out").rglob("*"))


def test_clouds_leave_as_ply_with_what_their_points_have(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "clouds").mkdir()
    for place, write in enumerate((npz, las, cloud_ply) * 2):
        suffix = {npz: "npz", las: "las", cloud_ply: "ply"}[write]
        (tmp_path / "clouds" / f"{place}.{suffix}").write_bytes(write(ball(place)))
    made = data.ingest(workspace, "clouds", source=tmp_path / "clouds", modality="point-cloud")
    again = there_and_back(workspace, made, tmp_path / "out")
    assert again.modality == "point-cloud"
    assert rows(workspace, again) == rows(workspace, made)
