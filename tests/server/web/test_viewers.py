"""What the sandbox writes for the eye: every real sample has a view, and its file is of our own making."""

from __future__ import annotations

import base64
import io
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speciate.datasets.inspect import viewer
from speciate.datasets.inspect.histograms import HistogramRequest, column_histograms
from speciate.datasets.inspect.viewer import View, ViewRequest
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.evaluation.reports.shown_media import ShownMedia
from speciate.evaluation.reports.thumbnails import CellsRequest, draw_cells
from speciate.modalities import MODALITIES
from speciate.server.web.media import byte_range
from speciate.workspace.workspace import Workspace
from tests.modalities.samples import Sample
from tests.server.web.sights import FILE_OF, one_of_each, seen
from tests.training.world import make_dataset


def _ask(workspace: Workspace, manifest: Manifest, part: str = "", of: str = "") -> ViewRequest:
    request = ViewRequest(
        root=workspace.folders.root, manifest=manifest, id=f"{manifest.name}-000000", part=part, of=of
    )
    return request.model_copy()


def _view(workspace: Workspace, manifest: Manifest) -> View:
    return viewer.describe_view(_ask(workspace, manifest).model_dump(mode="json"))


def _file(workspace: Workspace, manifest: Manifest, part: str, of: str = "") -> bytes:
    answer = viewer.write_file(_ask(workspace, manifest, part, of).model_dump(mode="json"))
    return Path(answer["file"]).read_bytes()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> object:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield
    os.chdir(before)


@pytest.mark.parametrize("sample", one_of_each(), ids=lambda sample: str(sample.label))
def test_every_modality_has_a_view_and_its_files(workspace: Workspace, sample: Sample) -> None:
    manifest = seen(workspace, sample)
    view = _view(workspace, manifest)
    assert view["view"] in {"image", "sound", "video", "text", "row", "series", "mesh", "volume", "structure", "parts"}
    for part in FILE_OF.get(view["view"], ()):
        data = _file(workspace, manifest, part)
        assert len(data) > 40, part
        if part.endswith(".png"):
            assert data.startswith(b"\x89PNG")
            with Image.open(io.BytesIO(data)) as image:
                assert max(image.size) <= 1600


def test_sound_is_written_as_models_hear_it(workspace: Workspace) -> None:
    manifest = seen(workspace, _sample("audio"))
    data = _file(workspace, manifest, "sound.wav")
    assert (data[:4], data[8:12]) == (b"RIFF", b"WAVE")
    channels, rate = struct.unpack("<HI", data[22:28])
    assert (channels, rate) == (1, 16_000)
    seconds = _view(workspace, manifest)["seconds"]
    assert abs((len(data) - 44) / 2 / 16_000 - seconds) < 0.02


def test_a_film_is_written_anew_and_can_be_sought_in(workspace: Workspace) -> None:
    data = _file(workspace, seen(workspace, _sample("video")), "video.mp4")
    assert data[4:8] == b"ftyp"
    assert data.index(b"moov") < data.index(b"mdat"), "what seeks comes first"


def test_meshes_volumes_and_structures_are_plain_arrays(workspace: Workspace) -> None:
    mesh = _file(workspace, seen(workspace, _sample("mesh")), "mesh.bin")
    vertices, triangles = struct.unpack("<2I", mesh[:8])
    assert len(mesh) == 8 + 12 * vertices + 12 * triangles
    places = np.frombuffer(mesh[8 : 8 + 12 * vertices], "<f4")
    assert np.abs(places).max() <= 1.0 + 1e-6
    assert np.frombuffer(mesh[8 + 12 * vertices :], "<u4").max() < vertices
    cloud = _file(workspace, seen(workspace, _sample("point-cloud")), "mesh.bin")
    points, none = struct.unpack("<2I", cloud[:8])
    assert (none, len(cloud)) == (0, 8 + 15 * points)
    volume = _file(workspace, seen(workspace, _sample("nifti")), "volume.bin")
    depth, height, width = struct.unpack("<3I", volume[:12])
    assert len(volume) == 40 + 2 * depth * height * width
    low, high, _, wide = struct.unpack("<4f", volume[24:40])
    assert low < high
    assert wide > 0
    structure = _file(workspace, seen(workspace, _sample("structure")), "structure.bin")
    (count,) = struct.unpack("<I", structure[:4])
    assert len(structure) == 4 + 13 * count


def test_a_file_that_a_view_has_not_is_refused(workspace: Workspace) -> None:
    manifest = seen(workspace, _sample("image"))
    for part in ("sound.wav", "mesh.bin", "volume.bin", "structure.bin", "video.mp4", "spectrogram.png"):
        with pytest.raises(SpeciateError):
            _file(workspace, manifest, part)


def test_what_does_not_decode_says_why(workspace: Workspace) -> None:
    manifest = make_dataset(
        workspace, "bad", "image", {}, labels=["a"], splits=["test"], media=[b"<svg onload=alert(1)>"]
    )
    view = _view(workspace, manifest)
    assert view["view"] == "nothing"
    assert view["why"]


def test_histograms_count_every_usable_row_once(workspace: Workspace) -> None:
    columns = {
        "x": [float(n % 10) for n in range(90)],
        "kind": ["ab"[n % 2] for n in range(90)],
        "free": [f"t{n}" for n in range(90)],
    }
    manifest = make_dataset(
        workspace, "rows", "tabular", columns, labels=["yes" if n % 3 else "no" for n in range(90)],
        splits=["train"] * 90, inputs=["x", "kind", "free"],
    )  # fmt: skip
    request = HistogramRequest(root=workspace.folders.root, manifest=manifest)
    found = {each["column"]: each for each in column_histograms(request.model_dump(mode="json"))["columns"]}
    assert set(found) == {"label", "split", "x", "kind"}, "free text has no bars"
    assert sum(bar["count"] for bar in found["x"]["bars"]) == 90
    assert {bar["value"]: bar["count"] for bar in found["label"]["bars"]} == {"yes": 60, "no": 30}
    assert found["x"]["bars"][0]["low"] == 0.0
    assert found["x"]["bars"][-1]["high"] == 9.0


@given(st.text("0123456789-=bytes,", max_size=20), st.integers(0, 1000))
def test_ranges_lie_within_the_file(asked: str, size: int) -> None:
    found = byte_range(asked, size)
    if found is not None and found[0] < found[1]:
        assert 0 <= found[0] < found[1] <= size


def test_ranges_are_those_of_http() -> None:
    assert byte_range("bytes=0-", 10) == (0, 10)
    assert byte_range("bytes=2-4", 10) == (2, 5)
    assert byte_range("bytes=-3", 10) == (7, 10)
    assert byte_range("bytes=8-99", 10) == (8, 10)
    assert byte_range("bytes=10-", 10) == (10, 10), "answered with 416"
    assert byte_range(None, 10) is None
    assert byte_range("bytes=-", 10) is None
    assert byte_range("bytes=0-1,4-5", 10) is None


def _sample(kind: str) -> Sample:
    return next(each for each in one_of_each() if kind in (each.modality, each.file))


def test_there_is_a_sample_of_every_modality() -> None:
    assert {each.modality for each in one_of_each()} == set(MODALITIES)


def _encoded(colour: str, size: tuple[int, int]) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, colour).save(made, "PNG")
    return made.getvalue()


def test_thumbnails_lie_on_one_sheet_and_what_is_gone_leaves_its_square(workspace: Workspace) -> None:
    media = [_encoded("red", (64, 64)), _encoded("blue", (400, 100))]
    manifest = make_dataset(
        workspace, "two", "image", {}, labels=["a", "b"], splits=["test"] * 2, media=media
    )  # fmt: skip
    ids = ("two-000000", "gone", "two-000001")
    request = CellsRequest(root=workspace.folders.root, manifest=manifest, ids=ids, columns=2)
    drawn = base64.b64decode(draw_cells(request.model_dump(mode="json"))["png"])
    with Image.open(io.BytesIO(drawn)) as sheet:
        assert (sheet.mode, sheet.size) == ("RGBA", (320, 320))
        assert sheet.getpixel((80, 80)) == (255, 0, 0, 255)
        assert sheet.getpixel((240, 80)) == (0, 0, 0, 0), "of one that is gone"
        assert sheet.getpixel((80, 240)) == (0, 0, 255, 255)
        assert sheet.getpixel((80, 165)) == (0, 0, 0, 0), "above a wide one"


class _Drawing:
    """A pool that draws nothing."""

    size = 2

    def __init__(self) -> None:
        self.asked = list[tuple[str, ...]]()

    def ask(self, service: str, payload: dict[str, Any], timeout: float, patience: float) -> dict[str, str]:
        self.asked.append(tuple(payload["ids"]))
        return {"png": base64.b64encode(b"\x89PNG" + "".join(payload["ids"]).encode()).decode()}


def test_a_page_of_48_is_two_sheets_which_are_drawn_once(workspace: Workspace) -> None:
    manifest = make_dataset(workspace, "none", "text", {"text": ["a"]}, labels=["a"], splits=["test"], inputs=["text"])
    pool, ids = _Drawing(), [f"e{n}" for n in range(48)]
    media = ShownMedia(workspace.folders, pool)  # type: ignore[arg-type]  # what it asks of one
    for _ in range(2):
        cells = media.draw(manifest, ids)
        sheets = list(dict.fromkeys(cells[each].sheet for each in ids))
        assert len(sheets) == 2
        assert media.sheet(manifest, sheets[1]) == b"\x89PNG" + "".join(ids[24:]).encode()
        assert media.sheet(manifest, sheets[0]) == b"\x89PNG" + "".join(ids[:24]).encode()
    assert [cells[each][1:] for each in ("e0", "e9", "e47")] == [(0, 0, 8, 3), (1, 1, 8, 3), (7, 2, 8, 3)]
    assert sorted(map(len, pool.asked)) == [24, 24]
    while media._coming:  # kept a moment before the thread that drew it is done
        time.sleep(0.001)
    media._kept.clear()
    assert media.sheet(manifest, sheets[0]).startswith(b"\x89PNG"), "what was forgotten is drawn anew"
    assert len(pool.asked) == 3
    for unknown in ("x", sheets[0].upper()):
        with pytest.raises(SpeciateError, match="no such sheet"):
            media.sheet(manifest, unknown)
    media.close()
