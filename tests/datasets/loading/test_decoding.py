"""Media through the sandbox: windows, sizes, and what goes wrong there."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from speciate.datasets.loading import decoding
from speciate.datasets.loading.decoding import Decoder, MediaItem, MediaReader, write_media
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.loading.stream import Stream
from speciate.datasets.next_version import seal_first
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.features import media_digest
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders
from tests.datasets import sealed


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "workspace")
    made.make()
    return made


def series(channels: int, steps: int) -> bytes:
    return "\n".join(
        ",".join(str(10 * step + channel) for channel in range(channels)) for step in range(steps)
    ).encode()


def test_windows_are_cut_after_decoding_in_and_out_of_the_cage(folders: Folders) -> None:
    files = [series(2, 30)] * 3 + [series(1, 20)]
    manifest = sealed.media(folders, "time-series", files, _start=[0, 5, 25, None], _stop=[5, 10, 40, None])
    for in_sandbox in (False, True):
        media = [example.media for example in load_examples(folders, manifest, in_sandbox=in_sandbox)]
        assert [medium.shape for medium in media] == [(2, 5), (2, 5), (2, 5), (1, 20)]
        assert media[1].tolist() == [[50, 60, 70, 80, 90], [51, 61, 71, 81, 91]]
        assert all(medium.flags.aligned for medium in media)
    with Stream(folders, manifest, batch=2) as stream:
        streamed = {example.id: example.media for batch in stream for example in batch}
    assert [streamed[f"m{i:03}"].tolist() for i in range(4)] == [medium.tolist() for medium in media]


def test_windows_of_series_in_columns_are_cut_too(folders: Folders) -> None:
    rows = sealed.rows({"id": ["a", "b"], "x": [[1.0, 2, 3, 4]] * 2, "_start": [1, None], "_stop": [3, None]})
    manifest = seal_first(folders, rows, sealed.blank("time-series", ["x"])).manifest
    assert [example.media.tolist() for example in load_examples(folders, manifest)] == [[[2, 3]], [[1, 2, 3, 4]]]


def test_images_come_in_the_requested_size(folders: Folders) -> None:
    manifest = sealed.images(folders, 5)
    whole = {example.id: example.media for example in load_examples(folders, manifest)}
    with Stream(folders, manifest, batch=5, size=(10, 16)) as stream:
        for example in next(iter(stream)):
            wanted = Image.fromarray(whole[example.id]).resize((16, 10), Image.Resampling.BILINEAR)
            assert np.array_equal(example.media, np.asarray(wanted))


def damage(folders: Folders, manifest: Manifest, number: int) -> None:
    """Flips a byte in the middle of the pack's part that holds example `number`."""
    path = folders.root / manifest.packs[0]
    content = sealed.scan_all(folders, manifest)["_content"][number].as_py()
    with PackReader([path]) as reader:
        data = reader.get(content)
    whole = bytearray(path.read_bytes())
    whole[whole.index(data) + len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(whole)


def test_a_damaged_pack_is_an_error_that_names_the_example(folders: Folders) -> None:
    manifest = sealed.images(folders, 40)
    damage(folders, manifest, 30)
    with Stream(folders, manifest, batch=5, shuffle=False) as stream:
        batches = iter(stream)
        assert [example.id for _ in range(3) for example in next(batches)] == [f"m{i:03}" for i in range(15)]
        with pytest.raises(SpeciateError, match="'m030' can no longer be decoded") as raised:
            list(batches)
        assert raised.value.code is Code.INVALID
        assert stream.state()["step"] == 3
    with pytest.raises(SpeciateError, match="'m030'"):
        load_examples(folders, manifest)


def test_a_medium_that_does_not_decode_is_an_error_that_names_the_example(folders: Folders) -> None:
    manifest = sealed.media(folders, "image", [sealed.png(np.zeros((4, 4, 3), np.uint8)), b"no image"])
    with pytest.raises(SpeciateError, match="'m001' can no longer be decoded: Not an image"):
        load_examples(folders, manifest)


def test_a_pack_that_is_gone_is_an_error(folders: Folders) -> None:
    manifest = sealed.images(folders, 3)
    (folders.root / manifest.packs[0]).unlink()
    with pytest.raises(SpeciateError, match="is missing") as raised:
        load_examples(folders, manifest)
    assert raised.value.code is Code.NOT_FOUND


def test_a_killed_process_is_replaced_and_the_chunk_repeated(folders: Folders) -> None:
    manifest = sealed.images(folders, 120)
    whole = [example.media.tobytes() for example in load_examples(folders, manifest)]
    with Stream(folders, manifest, batch=4, shuffle=False, workers=1, ahead=1) as stream:
        batches = iter(stream)
        media = [example.media.tobytes() for example in next(batches)]
        for pid in (killed := sealed.decoders(folders)):
            psutil.Process(pid).send_signal(signal.SIGKILL)
        media += [example.media.tobytes() for batch in batches for example in batch]
    assert media == whole
    assert len(killed) == 1


def test_a_process_that_dies_twice_on_a_medium_is_an_error_that_names_it(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def die(*_: Any) -> Any:
        requests.append(1)
        raise SpeciateError(Code.UNAVAILABLE, "It crashed.", "")

    with Decoder(folders, [], "image", workers=1) as decoder:
        monkeypatch.setattr(decoder._pool, "ask_for_file", die)
        with pytest.raises(SpeciateError, match=r"It crashed\. It was decoding example 'poison', the second time"):
            list(decoder.decode([MediaItem("poison", "0" * 64)]))
    assert len(requests) == 2


def test_a_part_that_grows_long_ends_early(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = sealed.images(folders, 3)
    contents = sealed.scan_all(folders, manifest)["_content"].to_pylist()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decoding, "_PART_BYTES", 24 * 24 * 3 + 1)
    packs = [str(folders.root / pack) for pack in manifest.packs]
    items = [[content, None, None] for content in contents]
    answer = decoding.decode_part({"packs": packs, "modality": "image", "size": None, "items": items})
    part = decoding._read(tmp_path / "decoded", answer)
    whole = [example.media for example in load_examples(folders, manifest)]
    assert len(part.media) == 2
    assert all(np.array_equal(one, other) for one, other in zip(part.media, whole, strict=False))


def test_a_description_that_does_not_fit_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "decoded"
    file.write_bytes(bytes(100))
    two = [["uint8", [64]], ["uint8", [36]]]
    assert len(decoding._read(file, {"items": two, "failure": None}).media) == 2
    with pytest.raises(SpeciateError, match="invalid answer"):
        decoding._read(file, {"items": [*two[:1], ["uint8", [37]]], "failure": None})


ARRAYS = st.one_of(
    arrays.arrays(kind, arrays.array_shapes(min_side=0, max_dims=3, max_side=4))
    for kind in ("uint8", "int32", "float32")
)
PLAIN = st.one_of(st.text(max_size=5), st.integers(-9, 9), st.lists(st.integers(0, 9), max_size=3))
MEDIA = st.recursive(
    ARRAYS | PLAIN, lambda parts: st.dictionaries(st.text("abc", min_size=1), parts, max_size=3), max_leaves=6
)


def crossed(*media: Any) -> list[Any]:
    file = io.BytesIO()
    descriptions = json.loads(json.dumps([write_media(medium, file) for medium in media]))
    reader = MediaReader(np.frombuffer(file.getvalue(), np.uint8))
    return [reader.read(description) for description in descriptions]


@given(st.lists(MEDIA, max_size=3))
def test_media_come_back_as_they_were(media: list[Any]) -> None:
    for before, after in zip(media, crossed(*media), strict=True):
        assert media_digest(after) == media_digest(before)


def test_another_value_type_or_name_is_another_digest() -> None:
    media = [{"a": np.zeros(2, np.float32)}, {"b": np.zeros(2, np.float32)}, {"a": np.zeros(2, np.int32)},
             {"a": np.ones(2, np.float32)}, {"a": {"a": np.zeros(2, np.float32)}}]  # fmt: skip
    assert len({media_digest(medium) for medium in media}) == len(media)


@pytest.mark.parametrize("description", [["float64", [1]], ["uint8", [-1]], ["uint8", [99]], ["object", [1]], 7,
                                         [None, ["x"]], {"a": ["uint8", [99]]}])  # fmt: skip
def test_a_description_of_unwritten_media_is_refused(description: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        MediaReader(np.zeros(8, np.uint8)).read(description)


def test_parts_within_parts_end() -> None:
    deep: Any = ["uint8", [1]]
    for _ in range(50):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="parts"):
        MediaReader(np.zeros(8, np.uint8)).read(deep)
