"""Meshes and clouds that hold less than they declare are never used; files that declare too much are not decoded."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.contract import DecodeError
from speciate.modalities.geometry.mesh import MESH
from speciate.modalities.geometry.obj_and_gltf import declared_obj
from speciate.modalities.geometry.point_cloud import POINT_CLOUD
from tests.domains.machine_parts import FAMILIES
from tests.modalities.mesh_samples import (
    CLOUDS,
    MESHES,
    ball,
    cloud_ply,
    endless,
    endless_las,
    exported,
    las,
    part,
    pcd,
    rows,
    zip_bomb,
)

SQUARE = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def refusal(modality: Any, data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as raised:
        modality.decode(data)
    return raised.value


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("kind", ["ply", "stl", "stl_ascii", "off", "obj", "glb"])
def test_a_mesh_that_ends_early_is_never_used(kind: str, share: float) -> None:
    for family in ("gear", "spring", "bolt"):
        data = exported(FAMILIES[family](np.random.default_rng(0)), kind)
        assert refusal(MESH, data[: int(len(data) * share)]).quality in ("partial", "error")


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("name", sorted(set(CLOUDS) - {"ball.xyz"}))
def test_a_cloud_that_ends_early_is_never_used(name: str, share: float) -> None:
    data = CLOUDS[name][0]
    assert refusal(POINT_CLOUD, data[: int(len(data) * share)]).quality in ("partial", "error")


def test_rows_of_numbers_declare_nothing_but_a_cut_row_is_told() -> None:
    data = rows(ball())
    assert len(POINT_CLOUD.decode(data[: data.index(b"\n", 5000) + 1])["points"]) < 400
    assert refusal(POINT_CLOUD, data[: data.index(b"\n", 5000) + 6]).quality == "partial"


@pytest.mark.parametrize("kind", ["ascii", "binary", "mesh"])
def test_a_ply_of_two_billion_points_is_refused_by_its_header(kind: str) -> None:
    modality: Any = MESH if kind == "mesh" else POINT_CLOUD
    tracemalloc.start()
    refused = refusal(modality, endless(kind))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert refused.quality == "refused"
    assert "2,000,000,000" in refused.detail


@pytest.mark.parametrize("packed", [False, True])
def test_a_las_of_four_billion_points_is_refused_by_its_header(packed: bool) -> None:
    assert refusal(POINT_CLOUD, endless_las(packed=packed)).quality == "refused"


def test_an_npz_that_unpacks_to_more_than_the_budget_is_refused() -> None:
    assert refusal(POINT_CLOUD, zip_bomb()).quality == "refused"


def test_an_array_of_objects_is_never_unpickled(tmp_path: Any) -> None:
    path = tmp_path / "evil.npy"
    np.save(path, np.array([[object()] * 3], dtype=object), allow_pickle=True)
    assert refusal(POINT_CLOUD, path.read_bytes()).quality == "error"


@pytest.mark.parametrize("index", ["5", "-5", "0", "99999999999"])
def test_faces_that_point_outside_make_an_obj_partial(index: str) -> None:
    assert refusal(MESH, SQUARE + f"f 1 2 {index}\nf 1 3 4\n".encode()).quality in ("partial", "error")


@pytest.mark.parametrize("kind", ["ply", "off"])
def test_faces_that_point_outside_make_others_partial(kind: str) -> None:
    mesh = part()
    faces = mesh.faces.copy()
    faces[7, 1] = 1000
    data = exported(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), kind, **({"encoding": "ascii"} if kind == "ply" else {}))  # fmt: skip  # noqa: E501
    row = " ".join(map(str, mesh.faces[7])).encode()
    broken = data.replace(b"3 " + row, b"3 " + " ".join(map(str, faces[7])).encode())
    assert broken != data
    refused = refusal(MESH, broken)
    assert refused.quality == "partial"
    assert "1 of 96 faces" in refused.detail


@pytest.mark.parametrize("value", ["nan", "inf", "1e39"])
def test_a_vertex_that_is_nowhere_is_an_error(value: str) -> None:
    assert refusal(MESH, SQUARE.replace(b"1 1 0", f"1 {value} 0".encode()) + b"f 1 2 3 4\n").quality == "error"
    cloud = rows(ball()).replace(b"\n", f" \n{value} 0 0\n".encode(), 1)
    assert refusal(POINT_CLOUD, cloud).quality == "error"


@pytest.mark.parametrize("name", ["words.stl", "words.obj"])
def test_a_text_that_is_called_a_mesh_is_an_error(name: str) -> None:
    text = b"solid ground under our feet, said the letter, and went on about the weather.\n" * 20
    assert MESH.sniff(text, name)
    assert refusal(MESH, text).quality == "error"
    assert refusal(MESH, b"Dear all,\nnothing in here is a vertex.\n").quality == "error"


@pytest.mark.parametrize("kind", ["ply", "stl", "off", "glb"])
def test_a_mesh_without_faces_is_none(kind: str) -> None:
    empty = {
        "ply": cloud_ply(ball()), "stl": bytes(84), "off": b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n",
        "glb": struct.pack("<4sIIII", b"glTF", 2, 48, 28, 0x4E4F534A) + b'{"asset":{"version":"2.0"}} ',
    }[kind]  # fmt: skip
    assert refusal(MESH, empty).quality in ("partial", "error")


def test_a_ply_is_a_mesh_by_its_faces_alone() -> None:
    mesh, cloud = MESHES["ring.ply"][0], CLOUDS["ball.ply"][0]
    assert (MESH.sniff(mesh, "a.ply"), POINT_CLOUD.sniff(mesh, "a.ply")) == (True, False)
    assert (MESH.sniff(cloud, "a.ply"), POINT_CLOUD.sniff(cloud, "a.ply")) == (False, True)
    assert "modality='point-cloud'" in refusal(MESH, cloud).detail
    assert "modality='mesh'" in refusal(POINT_CLOUD, mesh).detail


def test_polygons_become_triangles_in_every_format_that_has_them() -> None:
    face = {"obj": b"f 1 2 3 4\n", "off": b"4 0 1 2 3\n"}
    square = b"OFF\n4 1 0\n" + SQUARE.replace(b"v ", b"") + face["off"]
    ply = b"ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    ply += b"element face 2\nproperty list uchar int vertex_indices\nend_header\n" + SQUARE.replace(b"v ", b"")
    for data, area in ((SQUARE + face["obj"], 1.0), (square, 1.0), (ply + b"4 0 1 2 3\n3 0 1 2\n", 1.5)):
        assert MESH.summarize(data).measures["area"] == pytest.approx(area)


def test_lists_of_several_lengths_in_a_binary_ply_are_read_row_by_row() -> None:
    head = b"ply\nformat binary_big_endian 1.0\nelement vertex 4\nproperty double x\nproperty double y\n"
    head += b"property double z\nelement face 2\nproperty list uchar int vertex_index\nend_header\n"
    body = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], ">f8").tobytes()
    body += struct.pack(">B4i", 4, 0, 1, 2, 3) + struct.pack(">B3i", 3, 0, 1, 2)
    assert MESH.summarize(head + body).measures["area"] == pytest.approx(1.5)
    for missing in range(1, 20):
        assert refusal(MESH, (head + body)[:-missing]).quality == "partial"


def test_coordinates_of_a_map_keep_their_millimetres() -> None:
    found = POINT_CLOUD.summarize(CLOUDS["ball.las"][0])
    media = POINT_CLOUD.decode(CLOUDS["ball.las"][0])
    assert found.header.fields["origin_y"] == pytest.approx(5_400_000, abs=1.01)
    origin = np.array([found.header.fields[f"origin_{axis}"] for axis in "xyz"])
    there = media["points"].astype(np.float64) + origin - [500_000, 5_400_000, 0]
    assert np.abs(there - ball()).max() < 1e-3
    assert (media["intensity"] == np.arange(400)).all()
    assert media["colors"][-1].tolist() == [155] * 3


def test_pcd_that_is_packed_is_refused_by_name_and_rays_that_met_nothing_are_left_out() -> None:
    points = ball()
    assert "binary_compressed" in refusal(POINT_CLOUD, pcd(points, "binary_compressed")).detail
    points[5] = np.nan
    assert POINT_CLOUD.summarize(pcd(points, "ascii")).measures["points"] == 399


def test_columns_of_a_text_are_what_their_names_or_their_number_say() -> None:
    media = POINT_CLOUD.decode(b"x,y,z,intensity,r,g,b\n" + b"0,0,0,0.5,10,20,30\n1,2,3,0.25,40,50,60\n")
    assert media["points"].tolist() == [[0, 0, 0], [1, 2, 3]]
    assert media["intensity"].tolist() == [0.5, 0.25]
    assert media["colors"].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert POINT_CLOUD.decode(b"2\n0 0 0 7 1 2 3\n1 1 1 8 4 5 6\n")["colors"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert "colors" not in POINT_CLOUD.decode(b"0 0 0 0.5 -1 0\n1 1 1 0.1 0 1\n")  # normals


def test_colours_of_two_bytes_keep_their_shades() -> None:
    head = b"ply\nformat ascii 1.0\nelement vertex 3\n" + b"".join(
        b"property float %b\n" % axis for axis in (b"x", b"y", b"z")
    )
    head += b"".join(b"property ushort %b\n" % name for name in (b"red", b"green", b"blue")) + b"end_header\n"
    shades = [[0, 32896, 65535], [257, 514, 771], [0, 0, 65535]]
    rows_ = b"".join(b"%d 0 0 %d %d %d\n" % (place, *shade) for place, shade in enumerate(shades))
    wanted = [[0, 128, 255], [1, 2, 3], [0, 0, 255]]
    assert POINT_CLOUD.decode(head + rows_)["colors"].tolist() == wanted
    buffer = io.BytesIO()
    np.savez(buffer, points=np.eye(3, dtype=np.float32), colors=np.array(shades, np.uint16))
    assert POINT_CLOUD.decode(buffer.getvalue())["colors"].tolist() == wanted


def test_a_laz_whose_table_has_more_chunks_than_bytes_is_told_before_the_unpacker_allocates_it() -> None:
    data = bytearray(CLOUDS["ball.laz"][0])
    table = struct.unpack_from("<q", data, struct.unpack_from("<I", data, 96)[0])[0]
    struct.pack_into("<I", data, table + 4, 0x7FFFFFFF)  # 34 GB of table
    assert "chunks" in str(refusal(POINT_CLOUD, bytes(data)))
    struct.pack_into("<q", data, struct.unpack_from("<I", data, 96)[0], 1 << 40)
    assert "beyond the end" in str(refusal(POINT_CLOUD, bytes(data)))


def test_a_laz_that_was_written_as_a_stream_has_its_table_at_the_end() -> None:
    data = bytearray(CLOUDS["ball.laz"][0])
    offset = struct.unpack_from("<I", data, 96)[0]
    streamed = bytes(data[:offset]) + struct.pack("<q", -1) + bytes(data[offset + 8 :]) + data[offset : offset + 8]
    assert len(POINT_CLOUD.decode(streamed)["points"]) == 400


@pytest.mark.parametrize("packed", [False, True])
def test_a_las_with_more_records_than_bytes_is_told_at_once(packed: bool) -> None:
    data = bytearray(CLOUDS["ball.laz" if packed else "ball.las"][0])
    struct.pack_into("<I", data, 100, 0x75000001)
    assert "records do not fit" in str(refusal(POINT_CLOUD, bytes(data)))


def test_extended_records_of_las_1_4_are_followed_to_their_end() -> None:
    data = bytearray(las(ball(), version="1.4"))
    assert len(POINT_CLOUD.decode(bytes(data))["points"]) == 400
    struct.pack_into("<QI", data, 235, len(data), 0x75000001)
    assert "extended records" in str(refusal(POINT_CLOUD, bytes(data)))


def test_an_array_whose_header_is_half_a_python_expression_is_told() -> None:
    whole = CLOUDS["ball.npy"][0]
    assert refusal(POINT_CLOUD, whole.replace(b"(400, 3)", b"(400, 3(")).quality == "error"


@pytest.mark.parametrize(
    "said",
    [
        b'"nodes": [{"mesh": 0}], "accessors": [{"count": 1e999}], '
        b'"meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]',
        b'"extensionsRequired": 5',
        b'"buffers": {"a": 1}',
        b'"bufferViews": [{"byteLength": 1e999, "buffer": 0}], "buffers": [{"byteLength": 4}]',
    ],
)
def test_a_gltf_of_other_things_than_the_format_has_is_an_error(said: bytes) -> None:
    data = b'{"asset": {"version": "2.0"}, %b}' % said
    assert "contradicts itself" in refusal(MESH, data).detail


def test_numbers_that_no_place_can_have_are_told() -> None:
    assert refusal(MESH, b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 99999999999999999999999\n").quality == "partial"
    head = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nelement face 1\n"
    said = refusal(MESH, head + b"property list float int vertex_indices\nend_header\n" + b"\xff" * 24)
    assert "no whole number" in said.detail


_VERTEX = re.compile(rb"(?m)^[ \t]*v[ \t]+\S")
_FACE = re.compile(rb"(?m)^[ \t]*f[ \t]+([^\r\n#]*)")
_PIECES = (
    b"v 1 2 3", b" v 1 2", b"v", b"v ", b"vn 1 2 3", b"f 1 2 3", b"f 1/2 2/3 3//4 4", b"\tf 1 2 3 4", b"f", b"f ",
    b"f\t-1 -2 -3", b"f 1 2 # 3 4", b"# v 1", b"usemtl f 1 2", b"", b"\0",
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(_PIECES), st.sampled_from((b"\n", b"\r\n", b"\n\n"))), max_size=9))
def test_vertices_and_triangles_are_those_of_the_lines(lines: list[tuple[bytes, bytes]]) -> None:
    text = b"".join(piece + end for piece, end in lines)
    triangles = sum(max(len(face.split()) - 2, 0) for face in _FACE.findall(text))
    said = declared_obj(text)
    assert (said.vertices, said.faces) == (len(_VERTEX.findall(text)), triangles)
