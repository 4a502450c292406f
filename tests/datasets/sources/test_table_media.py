"""Images in the cells of tables, as Hugging Face `datasets` writes them and as others do."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from tests.datasets.source_context import source_context

FEATURES = datasets.Features({
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=["cat", "dog"]),
    "file_name": datasets.Value("string"),
})  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Iterator[SourceContext]:
    with source_context(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def image(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), shade).save(buffer, "PNG")
    return buffer.getvalue()


def made(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": image(i), "path": f"../{i}.PNG" if i % 2 else None} for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "file_name": [f"seen {i}" for i in range(count)],
        },
        features=FEATURES,
    )


def test_a_saved_dataset_of_images(context: SourceContext, tmp_path: Path) -> None:
    datasets.DatasetDict({"train": made(130), "test": made(3)}).save_to_disk(tmp_path / "saved")
    found = prepare_source(tmp_path / "saved", context)
    assert (found.layout, found.modality, len(found.files), found.excluded) == ("media", "image", 133, [])
    assert [file.split for file in found.files[:4]] == ["test", "test", "test", "train"]
    assert [file.path.read_bytes() for file in found.files[3:]] == [image(i) for i in range(130)]
    assert found.labels is not None
    assert found.labels.slice(3, 2).to_pylist() == [
        {"label": "cat", "file_name_2": "seen 0"},
        {"label": "dog", "file_name_2": "seen 1"},
    ]
    assert len({file.name for file in found.files}) == 133


def test_a_saved_dataset_of_texts_stays_a_table(context: SourceContext, tmp_path: Path) -> None:
    texts = datasets.Dataset.from_dict({"text": ["a", "b"]})
    datasets.DatasetDict({"train": texts, "test": texts}).save_to_disk(tmp_path / "saved")
    found = prepare_source(tmp_path / "saved", context)
    assert [(file.name, file.split) for file in found.files] == [
        ("test/data-00000-of-00001.arrow", "test"), ("train/data-00000-of-00001.arrow", "train"),
    ]  # fmt: skip
    assert (found.layout, found.excluded) == ("table", [])


def test_images_as_plain_bytes_and_cells_without_any(context: SourceContext, tmp_path: Path) -> None:
    table = pa.table({"image": [image(1), None, b"words", image(2)], "kind": ["a", "b", "c", "d"]})
    pq.write_table(table, tmp_path / "set.parquet")
    found = prepare_source(tmp_path / "set.parquet", context)
    assert [file.path.read_bytes() for file in found.files] == [image(1), b"words", image(2)]
    assert found.labels is not None
    assert found.labels["kind"].to_pylist() == ["a", "c", "d"]
    assert found.excluded == [("set.parquet#2", "The cell holds no bytes.")]


def test_bytes_that_are_no_media_stay_in_the_table(context: SourceContext, tmp_path: Path) -> None:
    pq.write_table(pa.table({"hash": [bytes([i] * 32) for i in range(1, 9)]}), tmp_path / "set.parquet")
    assert prepare_source(tmp_path / "set.parquet", context).layout == "table"


def test_half_a_file_beside_whole_ones_is_excluded(context: SourceContext, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("train", "test", "more"):
        made(4).to_parquet(str(folder / f"{name}.parquet"))
    (folder / "more.parquet").write_bytes((folder / "more.parquet").read_bytes()[:-50])
    found = prepare_source(folder, context)
    assert {file.split for file in found.files} == {"train", "test"}
    assert [name for name, _ in found.excluded] == ["more.parquet"]
