"""XML, and what else is nested or refers to other things, in files of data: entities that multiply, entities that name
a file or an address, deep nesting. Nothing of it is expanded, read or asked for, and each ingest ends soon.

We parse no XML of others; libraries that decode pictures and scans meet it in their metadata, in a sandboxed process.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from speciate.datasets import version_rows
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Workspace
from tests.data import ingest

SECRET = "TOPSECRET-of-another-file"
_SECONDS = 60.0


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """What somebody asked of the address that the entities name."""
    heard, listener = list[str](), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(4096).decode(errors="replace"))

    thread = threading.Thread(target=serve)
    thread.start()
    heard.append(str(listener.getsockname()[1]))
    yield heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def _bomb(secret: Path, port: str) -> bytes:
    """A billion laughs, a file and an address; a tree of a hundred thousand levels."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{laughs}<!ENTITY file SYSTEM "file://{secret}">'
        f'<!ENTITY net SYSTEM "http://127.0.0.1:{port}/x"><!ENTITY % par SYSTEM "http://127.0.0.1:{port}/p"> %par;]>'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><text>&file;&net;&l9;</text>'
        f'<image href="file://{secret}"/>{"<g>" * 100_000}{"</g>" * 100_000}</svg>'
    ).encode()


def _pictures(folder: Path, bomb: bytes) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    picture.save(folder / "good.png")
    told = PngImagePlugin.PngInfo()
    told.add_itxt("XML:com.adobe.xmp", bomb.decode())
    picture.save(folder / "xmp.png", pnginfo=told)
    picture.save(folder / "xmp.webp", xmp=bomb)
    picture.save(folder / "xmp.tif", tiffinfo={700: bomb})
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG")
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + bomb[:60_000]
    data = jpeg.getvalue()
    (folder / "xmp.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + data[2:])
    for name in ("drawn.svg", "drawn.png", "book.xlsx", "map.kml", "model.sbml"):
        (folder / name).write_bytes(bomb)


def _scans(folder: Path, bomb: bytes) -> None:
    nibabel = pytest.importorskip("nibabel")
    for name, codes in (("good", ()), ("told", (4, 32, 44))):
        scan_ = nibabel.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.eye(4))
        for code in codes:
            scan_.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, bomb))
        nibabel.save(scan_, folder / f"{name}.nii.gz")


def _meshes(folder: Path, bomb: bytes) -> None:
    trimesh = pytest.importorskip("trimesh")
    trimesh.creation.box().export(folder / "good.ply")
    deep = "[" * 100_000 + "]" * 100_000
    whole = {"asset": {"version": "2.0"}, "extras": 0, "scenes": [{"nodes": [0]}], "nodes": [{"children": [0]}]}
    (folder / "deep.gltf").write_text(json.dumps(whole).replace('"extras": 0', f'"extras": {deep}'))
    (folder / "circle.gltf").write_text(json.dumps(whole))
    leads = {
        **whole,
        "buffers": [{"uri": "file:///etc/passwd", "byteLength": 8}],
        "images": [{"uri": "http://127.0.0.1/"}],
    }
    (folder / "leads.gltf").write_text(json.dumps(leads))
    for name in ("drawn.obj", "drawn.gltf", "drawn.off"):
        (folder / name).write_bytes(bomb)


def _structures(folder: Path, bomb: bytes) -> None:
    pytest.importorskip("gemmi")
    atoms = "".join(
        f"ATOM  {n:5d}  CA  ALA A{n:4d}    {float(n):8.3f}{0.0:8.3f}{0.0:8.3f}  1.00  0.00           C\n"
        for n in range(1, 9)
    )  # fmt: skip
    (folder / "good.pdb").write_text(atoms + "END\n")
    loop = "data_x\nloop_\n" + "_atom_site.id\n" * 3
    (folder / "deep.cif").write_text(loop + "save_\n" * 50_000 + "data_\n" * 50_000)
    (folder / "drawn.cif").write_bytes(bomb)
    (folder / "drawn.pdb").write_bytes(bomb)


FOLDERS: dict[str, Callable[[Path, bytes], None]] = {
    "image": _pictures, "nifti": _scans, "mesh": _meshes, "protein": _structures,
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is of Linux")
@pytest.mark.parametrize("modality", FOLDERS)
def test_what_lies_in_metadata_is_neither_expanded_nor_followed(
    modality: str, workspace: Workspace, tmp_path: Path, asked: list[str]
) -> None:
    secret, folder = tmp_path / "secret.txt", tmp_path / "data"
    secret.write_text(SECRET)
    folder.mkdir()
    FOLDERS[modality](folder, _bomb(secret, asked[0]))
    began = time.monotonic()
    made: Manifest = ingest(workspace, "d", source=str(folder), modality=modality)
    assert time.monotonic() - began < _SECONDS
    rows = version_rows.read(workspace.folders, made).to_pylist()
    assert [row["quality"] for row in rows if "good" in str(row)] == ["ok"]
    assert asked[1:] == []
    assert not any(SECRET.encode() in path.read_bytes() for path in workspace.folders.root.rglob("*") if path.is_file())
    drawn = [row for row in rows if "drawn" in str(row)]
    assert all(row["quality"] != "ok" for row in drawn), "text that is called a picture is none"
