"""window: examples cut into pieces that never come apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.operations.window import Window, window_starts, windows_at_timestamps
from speciate.datasets.versions import Manifest, resolve
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate, read
from tests.modalities.samples import chirp, sound
from tests.modalities.video_samples import encode, panned

pytestmark = pytest.mark.slow


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 25))
def test_windows_are_whole_and_no_further_one_would_fit(length: int, window: int, stride: int) -> None:
    found = window_starts(length, window, stride)
    if length < window:
        assert found == [0]
    else:
        assert found == list(range(0, length - window + 1, stride))


def test_fractions_of_seconds_lose_no_window_to_rounding() -> None:
    assert len(window_starts(0.3, 0.1, 0.1)) == 3
    assert len(window_starts(1.0, 0.5, 0.1)) == 6


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 25))
def test_windows_of_units_begin_and_end_where_units_do(units: int, window: int, stride: int) -> None:
    marks = np.arange(units + 1) ** 1.5  # of different lengths
    found = windows_at_timestamps(marks, window, stride)
    places = window_starts(units, window, stride)
    ends = [min(place + window, units) for place in map(int, places)]
    assert found.bounds == [(marks[int(place)], marks[end]) for place, end in zip(places, ends, strict=True)]
    assert found.rest == (ends[-1] < units)


def test_series_in_cells_are_cut_there(workspace: Workspace) -> None:
    draw = np.random.default_rng(0)
    signals = [[i * 100.0 + each for each in draw.permutation(25 if i else 7)] for i in range(12)]  # no near-copies
    rows = tuple({"signal": signal, "kind": "ab"[i % 2]} for i, signal in enumerate(signals))
    data.ingest(workspace, "set", rows=(*rows, {"signal": None, "kind": "a"}), label="kind")
    made = curate(workspace, "set", {"op": "window", "steps": 10, "stride": 5})
    audit = made.steps[0]["audit"]
    assert audit == {"examples": 12, "windows": 45, "shorter_than_a_window": 1, "with_a_rest_left_out": 0}
    assert Counter(made.rows["quality"].to_pylist()) == {"ok": 45, "error": 1}
    found = sorted(example.media[0].tolist() for example in load_examples(workspace.folders, made.manifest))
    assert signals[0] in found
    assert [cut for cut in found if 100 <= cut[0] < 200] == sorted(signals[1][at : at + 10] for at in (0, 5, 10, 15))
    usable = [row for row in made.rows.to_pylist() if row["quality"] == "ok"]
    assert len({row["group_key"] for row in usable}) == 12
    assert {row["group_key"] for row in usable} <= set(read(workspace, "set@v1")["id"].to_pylist())
    assert len({row["_content"] for row in usable}) == 45
    split = curate(workspace, "set", {"op": "split", "fractions": {"train": 0.5, "test": 0.5}})
    places: dict[str, set[str]] = {}
    for row in split.rows.to_pylist():
        if row["quality"] == "ok":
            places.setdefault(row["group_key"], set()).add(row["split"])
    assert all(len(names) == 1 for names in places.values())
    assert split.manifest.splits.keys() == {"train", "test"}


def test_several_channels_are_cut_alike(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "moves", source=data.series_ts(tmp_path / "moves", count=12), label="label")
    made = curate(workspace, "moves", {"op": "window", "steps": 16})
    assert made.steps[0]["audit"]["with_a_rest_left_out"] == 12
    assert made.manifest.splits == {"train": 16, "test": 8}
    assert {example.media.shape for example in load_examples(workspace.folders, made.manifest)} == {(2, 16)}


def samples(seconds: float, seed: int) -> npt.NDArray[np.int16]:
    noise = np.random.default_rng(seed).normal(0, 0.05, round(seconds * 16_000))
    return ((chirp(seconds) + noise) * 20_000).astype(np.int16)


def audio_clips(folder: Path) -> Path:
    """Six chirps of 1 to 1.5 s, one of 0.2 s, and a copy of the first in another container."""
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.wav").write_bytes(sound("WAV", samples(1 + i / 10, i)))
    (folder / "short.wav").write_bytes(sound("WAV", samples(0.2, 7)))
    (folder / "copy.flac").write_bytes(sound("FLAC", samples(1, 0)))
    return folder


def test_files_stay_whole_and_their_windows_are_loaded(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "set", source=audio_clips(tmp_path / "set"))
    whole = {
        example.id: example.media for example in load_examples(workspace.folders, resolve(workspace.database, "set"))
    }
    assert len(whole) == 8
    made = curate(workspace, "set", {"op": "window", "seconds": 0.5, "stride": 0.25})
    examples = load_examples(workspace.folders, made.manifest)
    assert Counter(len(example.media) for example in examples) == {8000: made.rows.num_rows - 1, 3200: 1}
    assert set(made.rows["seconds"].to_pylist()) == {0.5, 0.2}
    assert len(made.manifest.packs) == 1
    by_source: dict[str, set[str]] = {}
    for row in made.rows.to_pylist():
        by_source.setdefault(row["source"], set()).add(row["group_key"])
    assert all(len(groups) == 1 for groups in by_source.values())
    assert by_source["0.wav"] == by_source["copy.flac"]  # the same recording
    row = next(row for row in made.rows.to_pylist() if row["source"] == "5.wav" and row["_start"] == 0.5)
    cut = next(example.media for example in examples if example.id == row["id"])
    full = next(media for media in whole.values() if len(media) == 24_000)
    assert np.array_equal(cut, full[8000:16000])
    assert all((r["window_start"], r["window_stop"]) == (r["_start"], r["_stop"]) for r in made.rows.to_pylist())
    assert curate(workspace, "set", {"op": "deduplicate"}).rows.num_rows == made.rows.num_rows


def test_windows_of_windows_are_the_windows_that_they_are(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "set", source=audio_clips(tmp_path / "set"))
    twice = curate(
        workspace, "set@v1", {"op": "window", "seconds": 1}, {"op": "window", "seconds": 0.25, "stride": 0.5}
    )
    assert {(row["_start"], row["_stop"]) for row in twice.rows.to_pylist() if row["source"] == "5.wav"} == {
        (0.0, 0.25), (0.5, 0.75),
    }  # fmt: skip


def videos(folder: Path) -> Path:
    """Of 20 frames with a keyframe every eight: at a constant rate, and at one that varies; and one of three frames."""
    folder.mkdir()
    (folder / "even.mp4").write_bytes(encode(panned(20), gop=8))
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 20)).round(3)
    (folder / "uneven.mkv").write_bytes(encode(panned(20, photo="china.jpg"), "matroska", gop=8, times=times))
    (folder / "short.mp4").write_bytes(encode(panned(3)[::-1]))
    return folder


def test_videos_are_cut_at_frames_and_keyframes_wherever_these_are(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "set", source=videos(tmp_path / "set"))
    made = curate(workspace, "set@v1", {"op": "window", "frames": 6})
    assert made.steps[0]["audit"] == {
        "examples": 3, "windows": 7, "shorter_than_a_window": 1, "with_a_rest_left_out": 2,
    }  # fmt: skip
    counts = Counter(len(example.media["frames"]) for example in load_examples(workspace.folders, made.manifest))
    assert counts == {6: 6, 3: 1}
    keyed = curate(workspace, "set@v1", {"op": "window", "keyframes": 1})
    bounds = {source: sorted((row["_start"], row["_stop"]) for row in keyed.rows.to_pylist() if row["source"] == source)
              for source in ("even.mp4", "uneven.mkv")}  # fmt: skip
    assert bounds["even.mp4"] == [(0, 0.32), (0.32, 0.64), (0.64, 0.8)]
    assert len({round(stop - start, 3) for start, stop in bounds["uneven.mkv"]}) == 3
    lengths = {row["id"]: row["seconds"] for row in keyed.rows.to_pylist()}
    for example in load_examples(workspace.folders, keyed.manifest):
        assert np.ptp(example.media["times"]) < lengths[example.id]
        assert len(example.media["times"]) in (8, 4, 3)


def test_frames_of_windows_of_videos_are_counted_within_them(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "set", source=videos(tmp_path / "set"))
    made = curate(workspace, "set", {"op": "window", "seconds": 0.4}, {"op": "window", "frames": 4, "stride": 3})
    found = sorted((row["_start"], row["_stop"]) for row in made.rows.to_pylist() if row["source"] == "even.mp4")
    assert [bounds for bounds in found if bounds[0] < 0.4] == [(0, 0.16), (0.12, 0.28), (0.24, 0.4)]
    assert {len(example.media["times"]) for example in load_examples(workspace.folders, made.manifest)} >= {4}


def test_only_files_have_frames(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=long_series(), label="kind")
    with pytest.raises(SpeciateError, match="time-series are cut in steps"):
        curate(workspace, "set", {"op": "window", "frames": 4})


def long_series(count: int = 4, steps: int = 60) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"signal": [float((i + 1) * 100 + t) for t in range(steps)], "kind": "ab"[i % 2]} for i in range(count)
    )


def test_windows_say_where_they_begin_and_end_also_to_later_steps(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=long_series(), label="kind")
    made = curate(
        workspace,
        "set",
        {"op": "window", "steps": 30},
        {"op": "window", "steps": 10},
        {"op": "filter", "where": "window_start >= 30 AND window_stop <= 50"},
    )
    assert made.manifest.columns["window_start"] == made.manifest.columns["window_stop"] == "BIGINT"
    assert len(made.rows) == 8
    for row in made.rows.to_pylist():
        assert row["signal"][0] % 100 == row["window_start"]
        assert row["signal"][-1] % 100 == row["window_stop"] - 1


def test_a_window_knows_the_row_that_it_was_cut_from_at_any_depth(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "set", rows=long_series(), label="kind")
    data.ingest(workspace, "audio", source=audio_clips(tmp_path / "audio"))
    lengths: list[tuple[str, str, float, float]] = [("set", "steps", 30, 10), ("audio", "seconds", 0.5, 0.1)]
    for name, unit, first, second in lengths:
        keys = set(read(workspace, name)["_key"].to_pylist())
        curate(workspace, name, {"op": "window", unit: first})
        once = read(workspace, name)
        made = curate(workspace, name, {"op": "window", unit: second})
        assert set(once["_origin"].to_pylist()) == set(made.rows["_origin"].to_pylist()) == keys
        assert not keys & set(made.rows["_key"].to_pylist())
        assert "_origin" not in made.manifest.columns


def test_windows_that_begin_late_and_close_together_have_ids_of_their_own() -> None:
    late = [Window(0, 1_000_000.0 + i, 1_000_010.0 + i) for i in range(3)] + [
        Window(0, 0.1234567, 1),
        Window(0, 0.1234568, 1),
    ]
    assert len({str(window) for window in late}) == 5


def test_a_window_longer_than_every_example_is_refused(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=long_series(), label="kind")
    with pytest.raises(SpeciateError, match="No example is as long as a window of 61 steps: the longest has 60"):
        curate(workspace, "set", {"op": "window", "steps": 61})


def test_more_windows_than_memory_holds_are_refused_before_one_is_cut(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "audio", source=audio_clips(tmp_path / "audio"))
    for seconds in (1e-7, 1e-320):
        with pytest.raises(SpeciateError, match=r"would be [\d,]{10,} windows, and at most 1,000,000"):
            curate(workspace, "audio", {"op": "window", "seconds": seconds})
    data.ingest(workspace, "set", rows=long_series(steps=20_000), label="kind")
    with pytest.raises(SpeciateError, match="40,004 windows would hold 400,040,000 values"):
        curate(workspace, "set", {"op": "window", "steps": 10_000, "stride": 1})


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"steps": 5}, "text has no axis"),
        ({}, "one of seconds, steps, frames, keyframes"),
        ({"steps": 5, "seconds": 1}, "one of seconds, steps, frames, keyframes"),
        ({"steps": 5, "stride": 2.5}, "whole number"),
        ({"steps": 0}, "greater than or equal to 1"),
    ],
)
def test_invalid_parameters_are_refused(
    shared: Workspace, reviews: Manifest, step: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, "reviews", {"op": "window", **step})
    assert message in raised.value.message


def test_the_unit_is_the_modality_s(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=tuple({"signal": [float(t) for t in range(9 + i)]} for i in range(9)))
    with pytest.raises(SpeciateError, match="cut in steps"):
        curate(workspace, "set", {"op": "window", "seconds": 1})
