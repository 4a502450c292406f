"""Small meshes and clouds of every format, by trimesh and laspy or as the formats say; and what is too large."""

from __future__ import annotations

import io
import struct

import laspy
import numpy as np
import numpy.typing as npt
import trimesh
from PIL import Image

from speciate.modalities.bundles import bundle

Doubles = npt.NDArray[np.float64]


def part() -> trimesh.Trimesh:
    """A ring with a square section, turned a little: 96 triangles."""
    ring = trimesh.creation.annulus(0.5, 1.0, 0.7, sections=12)
    ring.apply_transform(trimesh.transformations.rotation_matrix(0.4, (1, 2, 3)))
    return ring


def exported(mesh: trimesh.Trimesh, kind: str, **options: object) -> bytes:
    data = mesh.export(file_type=kind, **options)
    return data.encode() if isinstance(data, str) else data


def painted() -> bytes:
    """A PLY with a colour at each vertex."""
    mesh = part()
    mesh.visual.vertex_colors = np.random.default_rng(0).integers(0, 255, (len(mesh.vertices), 4))
    return exported(mesh, "ply")


def textured() -> bytes:
    """An OBJ, its materials and a texture of four squares, as the bundle that a gatherer makes of them."""
    texture = io.BytesIO()
    Image.fromarray(np.kron([[255, 40], [90, 160]], np.ones((8, 8))).astype(np.uint8)).convert("RGB").save(
        texture, "PNG"
    )
    square = b"mtllib square.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    return bundle(
        {
            "square.obj": square + b"usemtl paint\nf 1/1 2/2 3/3 4/4\n",
            "square.mtl": b"newmtl paint\nmap_Kd skin.png\n",
            "skin.png": texture.getvalue(),
        }
    )


def gltf() -> bytes:
    """A glTF and its buffers as a bundle."""
    return bundle({name: bytes(data) for name, data in part().export(file_type="gltf").items()})


def ball(seed: int = 0, points: int = 400) -> Doubles:
    """(N, 3)"""
    found = np.random.default_rng(seed).normal(size=(points, 3))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def cloud_ply(points: Doubles, *, binary: bool = False) -> bytes:
    kind = "binary_little_endian" if binary else "ascii"
    header = f"ply\nformat {kind} 1.0\nelement vertex {len(points)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    rows = points.astype("<f4").tobytes() if binary else b"".join(b"%.5f %.5f %.5f\n" % tuple(row) for row in points)
    return header.encode() + rows


def pcd(points: Doubles, kind: str) -> bytes:
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\n"
        f"COUNT 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA {kind}\n"
    )
    rows = np.column_stack([points, np.arange(len(points))]).astype("<f4")
    text = b"".join(b"%.5f %.5f %.5f %.1f\n" % tuple(row) for row in rows.tolist())
    return header.encode() + (rows.tobytes() if kind == "binary" else text)


def las(points: Doubles, *, packed: bool = False, version: str = "1.2") -> bytes:
    """As of a map: coordinates of millions of metres, to the millimetre."""
    header = laspy.LasHeader(point_format=3, version=version)
    header.scales, header.offsets = np.full(3, 0.001), np.array([500_000.0, 5_400_000.0, 0.0])
    data = laspy.LasData(header)
    data.x, data.y, data.z = (points + header.offsets).T
    data.intensity = np.arange(len(points)).astype(np.uint16)
    data.red = data.green = data.blue = (np.arange(len(points)) * 100).astype(np.uint16)
    buffer = io.BytesIO()
    data.write(buffer, do_compress=packed)
    return buffer.getvalue()


def npz(points: Doubles) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, points=points.astype(np.float32), intensity=np.arange(len(points), dtype=np.float32))
    return buffer.getvalue()


def npy(points: Doubles) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, points)
    return buffer.getvalue()


def rows(points: Doubles, separator: str = " ") -> bytes:
    return "".join(separator.join(f"{value:.5f}" for value in row) + "\n" for row in points).encode()


MESHES: dict[str, tuple[bytes, bool]] = {
    "ring.ply": (exported(part(), "ply"), True),
    "ascii.ply": (exported(part(), "ply", encoding="ascii"), False),
    "painted.ply": (painted(), True),
    "ring.stl": (exported(part(), "stl"), True),
    "ascii.stl": (exported(part(), "stl_ascii"), False),
    "ring.off": (exported(part(), "off"), False),
    "ring.obj": (exported(part(), "obj"), False),
    "ring.glb": (exported(part(), "glb"), True),
}
"""Name -> bytes, and whether the format tells where it ends: of a text the last digit may be missing unseen."""
BUNDLES = {"square.obj": textured(), "ring.gltf": gltf()}
CLOUDS: dict[str, tuple[bytes, bool]] = {
    "ball.ply": (cloud_ply(ball(), binary=True), True),
    "ascii.ply": (cloud_ply(ball()), False),
    "ball.pcd": (pcd(ball(), "binary"), True),
    "ascii.pcd": (pcd(ball(), "ascii"), False),
    "ball.las": (las(ball()), True),
    "ball.laz": (las(ball(), packed=True), True),
    "ball.npz": (npz(ball()), True),
    "ball.npy": (npy(ball()), True),
    "ball.xyz": (rows(ball()), False),
    "ball.pts": (b"400\n" + rows(ball()), False),
}


def endless(kind: str) -> bytes:
    """A PLY whose header declares two billion points: `ascii`, `binary` or, with faces, `mesh`."""
    data = exported(part(), "ply") if kind == "mesh" else cloud_ply(ball(), binary=kind == "binary")
    start = data.index(b"element vertex ") + len(b"element vertex ")
    return data[:start] + b"2000000000" + data[data.index(b"\n", start) :]


def endless_las(*, packed: bool = False) -> bytes:
    """Its header declares four billion points."""
    data = bytearray(las(ball(), packed=packed))
    struct.pack_into("<I", data, 107, 2**32 - 1)
    return bytes(data)


def zip_bomb() -> bytes:
    """An NPZ whose directory says that it unpacks to two gigabytes."""
    data = bytearray(npz(ball()))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 2**31)
    return bytes(data)
