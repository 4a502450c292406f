"""Machine parts as parametric meshes: families that differ in how they are built, each part with dimensions of its own.

All are drawn from a generator alone. `copies` are what becomes of one part on its way through several programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import trimesh

Doubles = npt.NDArray[np.float64]
Chance = np.random.Generator


def ring(outer: Doubles, inner: float, height: float) -> trimesh.Trimesh:
    """A plate with a round hole: `outer` (N,) is how far its rim lies from the middle, all the way round."""
    count = len(outer)
    turn = np.arange(count) * 2 * np.pi / count
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    flat = [circle * outer[:, None], circle * inner]
    vertices = np.concatenate([np.column_stack([each, np.full(count, z)]) for z in (0.0, height) for each in flat])
    here, there = np.arange(count), (np.arange(count) + 1) % count
    low_out, low_in, high_out, high_in = (np.stack([here, there], axis=1) + k * count for k in range(4))
    faces = [_strip(low_in, low_out), _strip(high_out, high_in), _strip(low_out, high_out), _strip(high_in, low_in)]
    return trimesh.Trimesh(vertices, np.concatenate(faces), process=False)


def _strip(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Two triangles for each pair of neighbours (N, 2) on two rims."""
    first = np.stack([a[:, 0], a[:, 1], b[:, 1]], axis=1)
    return np.concatenate([first, np.stack([a[:, 0], b[:, 1], b[:, 0]], axis=1)])


def bolt(chance: Chance) -> trimesh.Trimesh:
    """A head with six sides on a long shaft."""
    return bolt_of(
        chance.uniform(0.25, 0.5), chance.uniform(2.0, 5.0), chance.uniform(0.8, 1.1), chance.uniform(0.4, 0.8)
    )


def bolt_of(radius: float, length: float, head: float, height: float) -> trimesh.Trimesh:
    shaft = trimesh.creation.cylinder(radius, length, sections=32)
    top = trimesh.creation.cylinder(head, height, sections=6)
    top.apply_translation([0, 0, length / 2])
    return trimesh.util.concatenate([shaft, top])


def nut(chance: Chance) -> trimesh.Trimesh:
    """Six sides and a hole."""
    turn = (np.arange(60) * 6) % 60 * np.pi / 180 - np.pi / 6
    return ring(chance.uniform(0.9, 1.2) / np.cos(turn), chance.uniform(0.4, 0.65), chance.uniform(0.4, 0.9))


def gear(chance: Chance) -> trimesh.Trimesh:
    """Teeth around a hole."""
    teeth = int(chance.integers(9, 28))
    rim = np.tile([1.0, 1.0, 1 - chance.uniform(0.12, 0.25), 0.0], teeth)
    rim[3::4] = rim[2::4]
    return ring(rim, chance.uniform(0.15, 0.45), chance.uniform(0.15, 0.5))


def flange(chance: Chance) -> trimesh.Trimesh:
    """A thin disc and a tube through it."""
    bore, wall = chance.uniform(0.25, 0.45), chance.uniform(0.08, 0.2)
    disc = ring(np.full(48, 1.0), bore + wall, chance.uniform(0.1, 0.25))
    tube = ring(np.full(48, bore + wall), bore, chance.uniform(0.6, 1.5))
    return trimesh.util.concatenate([disc, tube])


def bracket(chance: Chance) -> trimesh.Trimesh:
    """Two legs at a right angle."""
    a, b, thick = chance.uniform(1.0, 2.0), chance.uniform(0.8, 1.6), chance.uniform(0.12, 0.3)
    outline = np.array([[0, 0], [a, 0], [a, thick], [thick, thick], [thick, b], [0, b]])
    depth = chance.uniform(0.4, 1.2)
    low, high = (np.column_stack([outline, np.full(6, z)]) for z in (0.0, depth))
    cap = np.array([[0, 2, 1], [0, 3, 2], [0, 4, 3], [0, 5, 4]])
    here = np.stack([np.arange(6), (np.arange(6) + 1) % 6], axis=1)
    faces = np.concatenate([cap, cap[:, ::-1] + 6, _strip(here, here + 6)])
    return trimesh.Trimesh(np.concatenate([low, high]), faces, process=False)


def spring(chance: Chance) -> trimesh.Trimesh:
    """A wire around a helix."""
    coils, wire, rise = chance.uniform(3, 7), chance.uniform(0.06, 0.15), chance.uniform(0.25, 0.5)
    turn = np.linspace(0, coils * 2 * np.pi, int(coils * 16))
    middle = np.column_stack([np.cos(turn), np.sin(turn), rise * turn / (2 * np.pi) * 2])
    return _tube(middle, wire)


def _tube(middle: Doubles, radius: float, sides: int = 8) -> trimesh.Trimesh:
    along = np.gradient(middle, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    first = np.cross(along, [0, 0, 1.0])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    turn = np.arange(sides) * 2 * np.pi / sides
    rims = middle[:, None] + radius * (
        np.cos(turn)[None, :, None] * first[:, None] + np.sin(turn)[None, :, None] * second[:, None]
    )
    place = np.arange(len(middle) * sides).reshape(len(middle), sides)
    faces = [
        _strip(np.stack([row, np.roll(row, -1)], axis=1), np.stack([after, np.roll(after, -1)], axis=1))
        for row, after in pairwise(place)
    ]
    return trimesh.Trimesh(rims.reshape(-1, 3), np.concatenate(faces), process=False)


FAMILIES: dict[str, Callable[[Chance], trimesh.Trimesh]] = {
    "bolt": bolt, "bracket": bracket, "flange": flange, "gear": gear, "nut": nut, "spring": spring,
}  # fmt: skip


def turned(mesh: trimesh.Trimesh, chance: Chance, scale: float = 1.0) -> trimesh.Trimesh:
    """Turned, scaled and moved anyhow."""
    matrix = trimesh.transformations.random_rotation_matrix(chance.random(3))
    matrix[:3, :3] *= scale
    matrix[:3, 3] = chance.normal(0, 5, 3) * scale
    return mesh.copy().apply_transform(matrix)


def rough(mesh: trimesh.Trimesh, chance: Chance, share: float = 0.004) -> trimesh.Trimesh:
    """Each vertex a little off its place, as a scan has it; `share` of the extent."""
    found = mesh.copy()
    found.vertices = found.vertices + chance.normal(0, share * mesh.scale, found.vertices.shape)
    return found


def shuffled(mesh: trimesh.Trimesh, chance: Chance) -> trimesh.Trimesh:
    """With vertices and faces in another order."""
    order = chance.permutation(len(mesh.vertices))
    faces = np.argsort(order)[mesh.faces][chance.permutation(len(mesh.faces))]
    return trimesh.Trimesh(mesh.vertices[order], faces, process=False)


def thinned(mesh: trimesh.Trimesh, share: float = 0.3) -> trimesh.Trimesh:
    """With so many fewer faces, by quadric error (Garland & Heckbert 1997)."""
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    return whole.simplify_quadric_decimation(share)


def copies(mesh: trimesh.Trimesh, chance: Chance) -> Iterator[tuple[str, trimesh.Trimesh]]:
    """What is the same part still, each by the name of what was done to it."""
    yield "turned", turned(mesh, chance)
    yield "in inches", turned(mesh, chance, 25.4)
    yield "shuffled", turned(shuffled(mesh, chance), chance)
    yield "divided", turned(mesh.subdivide(), chance, 0.001)
    yield "thinned", turned(thinned(mesh.subdivide()), chance)
