"""Files of several modalities that lie together: reading them as one modality gives a hint at mixed rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from speciate.datasets.ingest.ingest import Labels
from speciate.datasets.versions import version
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data

CALL = "call create_dataset again with modality='multimodal'"
COUNT = 8


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def rows(folder: Path, image_of: str, note_of: str) -> Path:
    for i in range(COUNT):
        image(folder / image_of.format(i), i)
        note = folder / note_of.format(i)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"note number {i} of what is to be seen")
    (folder.parent / "labels.csv").write_text("name,y\n" + "".join(f"{i:04},{'ab'[i % 2]}\n" for i in range(COUNT)))
    return folder


def warnings(workspace: Workspace) -> list[str]:
    return list(version(workspace.database, "set").report["warnings"])


@pytest.mark.parametrize(
    ("image_of", "note_of", "how"),
    [
        ("{:04}/photo.png", "{:04}/note.txt", "a folder for each example"),
        ("{:04}.png", "{:04}.txt", "files that share their name"),
        ("photos/{:04}.png", "notes/{:04}.txt", "a folder for each part"),
    ],
)
@pytest.mark.parametrize("modality", ["auto", "image"])
def test_files_that_may_be_mixed_rows_are_a_warning(
    workspace: Workspace, tmp_path: Path, image_of: str, note_of: str, how: str, modality: str
) -> None:
    data.ingest(workspace, "set", source=rows(tmp_path / "rows", image_of, note_of), modality=modality)
    (message,) = [each for each in warnings(workspace) if CALL in each]
    assert message.startswith(f"16 of 16 files lie together as 8 rows of image and text ({how})")


@pytest.mark.parametrize(
    ("image_of", "note_of", "why"),
    [
        ("{:04}/photo.png", "{:04}/note.txt", "None of the 16 items can be used"),
        ("{:04}.png", "{:04}.txt", "of the labels file names 2 files"),
    ],
)
def test_where_nothing_can_be_used_so_the_error_names_the_call(
    workspace: Workspace, tmp_path: Path, image_of: str, note_of: str, why: str
) -> None:
    source = rows(tmp_path / "rows", image_of, note_of)
    labels = Labels(path=tmp_path / "labels.csv", key="name", column="y")
    with pytest.raises(SpeciateError, match=why) as caught:
        data.ingest(workspace, "set", source=source, labels=labels, modality="image")
    assert CALL in caught.value.recovery
    made = data.ingest(workspace, "set", source=source, labels=labels, modality="multimodal")
    assert made.labels == {"a": 4, "b": 4}
    assert not any(CALL in each for each in warnings(workspace))


def test_images_of_one_folder_with_a_text_among_them_are_images(workspace: Workspace, tmp_path: Path) -> None:
    for i in range(COUNT):
        image(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i)
    for kind in "ab":
        (tmp_path / "set" / kind / "about this class.txt").write_text(f"what is to be known of {kind}")
    data.ingest(workspace, "set", source=tmp_path / "set", label="folder")
    assert not any(CALL in each for each in warnings(workspace))
