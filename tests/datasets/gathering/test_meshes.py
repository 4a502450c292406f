"""Meshes with what belongs to them become one example each; the rest is excluded, and nothing outside is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.datasets.gathering.meshes import is_meshes, read_mesh_names
from speciate.datasets.sources.listing import SourceFile
from speciate.datasets.sources.prepare import prepare_source
from speciate.modalities.bundles import bundle, members_of
from speciate.modalities.geometry.mesh import MESH
from tests.datasets.source_context import source_context
from tests.modalities.mesh_samples import BUNDLES, MESHES


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two meshes with a texture that they share, a glTF with its buffers, one mesh alone, and what belongs to none."""
    square, ring = members_of(BUNDLES["square.obj"]), members_of(BUNDLES["ring.gltf"])
    folder = tmp_path / "source"
    for name in ("signs/first", "signs/second"):
        (folder / name).mkdir(parents=True)
        (folder / name / "square.obj").write_bytes(square["square.obj"])
        (folder / name / "Square.mtl").write_bytes(b"newmtl paint\nmap_Kd -clamp on ../../paint/skin.png\n")
    (folder / "paint").mkdir()
    (folder / "paint" / "skin.png").write_bytes(square["skin.png"])
    (folder / "paint" / "other.png").write_bytes(square["skin.png"])
    (folder / "rings").mkdir()
    for name, data in ring.items():
        (folder / "rings" / name).write_bytes(data)
    (folder / "rings" / "left_over.bin").write_bytes(b"1234")
    (folder / "rings" / "alone.obj").write_bytes(MESHES["ring.obj"][0])
    return folder


def test_each_mesh_is_one_example_with_the_files_that_it_names(source: Path, tmp_path: Path) -> None:
    with source_context(tmp_path) as place:
        found = prepare_source(source, place)
    assert found.modality == "mesh"
    parts = {file.name: [name for name, _ in file.parts] for file in found.files}
    assert parts == {
        "rings/alone.obj": [],
        "rings/model.gltf": ["model.gltf", "gltf_buffer_0.bin", "gltf_buffer_1.bin"],
        "signs/first/square.obj": ["signs/first/square.obj", "signs/first/Square.mtl", "paint/skin.png"],
        "signs/second/square.obj": ["signs/second/square.obj", "signs/second/Square.mtl", "paint/skin.png"],
    }
    assert dict(found.excluded) == {
        "paint/other.png": "No mesh names it.",
        "rings/left_over.bin": "No mesh names it.",
    }


def test_a_name_that_leads_out_of_the_source_takes_nothing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (source / "signs" / "first" / "Square.mtl").write_bytes(b"newmtl paint\nmap_Kd ../../../secret.png\n")
    (source / "signs" / "second" / "Square.mtl").write_bytes(f"newmtl paint\nmap_Kd {tmp_path}/secret.png\n".encode())
    with source_context(tmp_path) as place:
        found = prepare_source(source, place)
    assert not any(path.name == "secret.png" for file in found.files for _, path in file.parts)


def test_names_alone_tell_a_folder_of_meshes_with_materials() -> None:
    def files(*names: str) -> list[SourceFile]:
        return [SourceFile(Path(name), name, None, None) for name in names]

    assert is_meshes(files("a.obj", "a.mtl", "a.png"))
    assert is_meshes(files("a.gltf", "a.bin"))
    assert not is_meshes(files("a.obj", "b.obj"))  # told by their bytes
    assert not is_meshes(files("a.png", "b.png"))
    assert not is_meshes(files("a.obj", "a.mtl", "labels.csv"))


def test_options_of_a_texture_are_no_part_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.mtl"
    path.write_text("newmtl a\n  map_Kd -s 1 1 1 -o 0 0 red wood.png\nbump -bm 0.5 grain.png # rough\n")
    assert read_mesh_names({"paths": [str(path), str(tmp_path / "gone.mtl")]}) == {
        "names": [["red wood.png", "grain.png"], []]
    }


def test_colours_of_a_texture_reach_the_vertices() -> None:
    assert _colours(BUNDLES["square.obj"]) == [(40, 40, 40), (90, 90, 90), (160, 160, 160), (255, 255, 255)]


def test_a_texture_is_found_where_its_name_is_written_in_another_way(source: Path) -> None:
    first = source / "signs" / "first"
    names = {"signs/first/square.obj": first / "square.obj", "signs/first/Square.mtl": first / "Square.mtl"}
    data = bundle(
        {name: path.read_bytes() for name, path in (names | {"paint/skin.png": source / "paint/skin.png"}).items()}
    )
    assert len(_colours(data)) == 4


def _colours(data: bytes) -> list[tuple[int, ...]]:
    media = MESH.decode(data)
    return sorted({tuple(colour) for colour in media["colors"].tolist()})
