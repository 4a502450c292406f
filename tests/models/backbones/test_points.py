"""PointNet: neither the order of points nor how a form is turned changes what it sees, and meshes are clouds to it."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from speciate.errors import SpeciateError
from speciate.modalities.forms.mesh import MeshMedia
from speciate.models.backbones import table
from tests.domains.parts import bolt

CLOUD = np.random.default_rng(0).gamma(2, (1, 2, 3), (300, 3)).astype(np.float32)


def test_a_cloud_that_is_turned_or_in_another_order_is_the_same() -> None:
    backbone = table.build("new:pointnet", [{"points": CLOUD}], seed=0)
    turn = trimesh.transformations.random_rotation_matrix(np.array([0.2, 0.5, 0.7]))[:3, :3]
    turned = (CLOUD.astype(np.float64) @ turn.T * 3 + 5).astype(np.float32)
    plain, other = backbone.prepare([{"points": CLOUD}, {"points": turned}])
    assert other["points"] == pytest.approx(plain["points"], abs=1e-3)
    assert plain["size"][0] == pytest.approx(0, abs=1e-5)
    assert other["size"][0] > 1  # the scale is told beside it
    few = {"points": CLOUD[:128]}  # each four times
    mixed = {"points": CLOUD[:128][::-1].copy()}
    states = backbone.states(backbone.collate(backbone.prepare([few, mixed])))
    assert states.pooled.shape == (2, backbone.width)
    assert states.pooled[0].tolist() == pytest.approx(states.pooled[1].tolist(), abs=0.1)


def test_a_mesh_is_read_by_points_of_its_surface() -> None:
    part = bolt(np.random.default_rng(0))
    media = MeshMedia(vertices=part.vertices.astype(np.float32), faces=part.faces.astype(np.int32))
    backbone = table.build("new:pointnet", [media], seed=0)
    assert (backbone.prepare([media])[0]["points"] == backbone.prepare([media])[0]["points"]).all()
    assert "new:pointnet" in table.names("mesh")
    assert "new:pointnet" in table.names("point-cloud")
    with pytest.raises(SpeciateError, match="reads point-cloud"):
        backbone.prepare([np.zeros((3, 3))])
