"""Labels of parts of media: each row of the table becomes an example, and parts of one file never come apart."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest, resolve
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import read
from tests.modalities.samples import chirp, sound
from tests.modalities.video_samples import encode, panned


def labelled(workspace: Workspace, folder: Path, head: str, rows: Iterable[Sequence[object]]) -> Manifest:
    """The dataset `set` of a folder with the labels written into it."""
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head.split(), *rows])
    labels = {"path": str(folder / "labels.csv"), "key": "name", "column": "kind"}
    data.ingest(workspace, "set", source=folder, labels=labels)
    return resolve(workspace.database, "set")


def videos(folder: Path) -> Path:
    """Six videos of 40 frames at 20 a second, and the first again at lower quality."""
    folder.mkdir()
    photos = [panned(40, photo=name) for name in ("flower.jpg", "china.jpg")]
    for number in range(6):
        frames = [np.roll(frame, 16 * number, axis=1)[:, :: -1 if number % 2 else 1] for frame in photos[number // 3]]
        (folder / f"{number}.mp4").write_bytes(encode([np.ascontiguousarray(frame) for frame in frames], fps=20))
    (folder / "again.mkv").write_bytes(encode(photos[0], "matroska", fps=20, gop=30, crf="32", size=(72, 48)))
    return folder


def rows_of(workspace: Workspace) -> list[dict[str, Any]]:
    return sorted(read(workspace, "set").to_pylist(), key=lambda row: (row["source"], row["window_start"] or -1.0))


def torn(rows: list[dict[str, Any]], splits: Sequence[str]) -> int:
    """How many videos have parts in several splits."""
    places = {(row["source"], split) for row, split in zip(rows, splits, strict=True)}
    return len(places) - len({row["source"] for row in rows})


def test_each_row_is_an_example_and_those_of_one_video_share_a_split(workspace: Workspace, tmp_path: Path) -> None:
    names = [f"{number}.mp4" for number in range(6)] + ["again.mkv"]
    rows = [
        (name, start, start + 0.5, "ab"[place % 2]) for name in names for place, start in enumerate((0.0, 0.5, 1.2))
    ]
    manifest = labelled(workspace, videos(tmp_path / "videos"), "name window_start window_stop kind", rows)
    assert manifest.labels == {"a": 14, "b": 7}
    found = rows_of(workspace)
    assert [(row["_start"], row["_stop"], row["seconds"]) for row in found[:3]] == [
        (0, 0.5, 0.5),
        (0.5, 1, 0.5),
        (1.2, 1.7, 0.5),
    ]
    assert len({row["id"] for row in found}) == 21
    splits = [row["split"] for row in found]
    assert torn(found, splits) == 0
    assert torn(found, np.random.default_rng(0).permutation(splits).tolist()) > 0
    videos_of = {row["source"]: row["split"] for row in found}
    assert videos_of["0.mp4"] == videos_of["again.mkv"]  # the same video
    for example in load_examples(workspace.folders, manifest):
        assert len(example.media["times"]) == 10


def test_labels_of_frames_are_windows_of_one_frame(workspace: Workspace, tmp_path: Path) -> None:
    rows = [(f"{number}.mp4", frame, "ab"[frame % 2]) for number in range(6) for frame in (0, 7, 39)]
    manifest = labelled(workspace, videos(tmp_path / "videos"), "name frame kind", [*rows, ("0.mp4", 40, "a")])
    wrong = [row for row in rows_of(workspace) if row["quality"] == "error"]
    assert [row["reason"] for row in wrong] == ["Its label is about frame 40 of 40, the first being 0."]
    assert [row["reason"] for row in rows_of(workspace) if row["source"] == "again.mkv"] == ["The label is missing."]
    times = {float(example.media["times"][0]) for example in load_examples(workspace.folders, manifest)}
    assert sorted(times) == pytest.approx([0, 0.35, 1.95])
    assert all(len(example.media["times"]) == 1 for example in load_examples(workspace.folders, manifest))


def test_a_part_outside_its_file_is_an_error_with_the_reason(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    (folder / "long.wav").write_bytes(sound("WAV", chirp(1)))
    wrong = [(5, 6), (0.5, 0.2), ("x", 1), (-1, 1), (0.1, "inf"), (0.2, "")]
    rows = [("long", 0, 0.25, "a"), ("long", 0.5, 9, "b"), *(("long", *bounds, "a") for bounds in wrong)]
    manifest = labelled(workspace, folder, "name window_start window_stop kind", rows)
    bad = [row["reason"] for row in rows_of(workspace) if row["quality"] == "error"]
    assert len(bad) == len(wrong)
    assert "Its label is about a part that does not exist: from 0.5 up to 0.2 of 1 seconds." in bad
    lengths = sorted(len(example.media) for example in load_examples(workspace.folders, manifest))
    assert lengths == [4000, 8000]  # what lies behind the end is cut off
