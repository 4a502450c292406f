"""Transcripts as WebVTT: read by FFmpeg's reader, with the times that there are, and the foreign text as text."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.exports.webvtt import as_webvtt
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.exports.worlds import seal

av = pytest.importorskip("av")


def recording(seconds: float, level: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(int(8000 * seconds), level, np.float32), 8000, format="WAV")
    return buffer.getvalue()


def cues(text: str | bytes) -> list[tuple[float, float, str]]:
    """As FFmpeg reads them: begin, end, text."""
    data_ = text.encode() if isinstance(text, str) else text
    with av.open(io.BytesIO(data_), format="webvtt") as opened:
        return [
            (float(each.pts * each.time_base), float((each.pts + each.duration) * each.time_base), bytes(each).decode())
            for each in opened.demux()
            if each.size
        ]


def test_transcripts_lie_beside_their_recordings(workspace: Workspace, tmp_path: Path) -> None:
    timed = {
        "text": "one two",
        "chunks": [{"timestamp": [0.0, 0.5], "text": "one"}, {"timestamp": [0.5, None], "text": "two"}],
    }
    rows = [
        {"source": "a.wav", "seconds": 1.5, "said": "good day", "split": "train"},
        {"source": "b.wav", "seconds": 1.0, "said": json.dumps(timed), "split": "test"},
        {"source": "c.wav", "seconds": 2.0, "said": None, "split": "test"},
    ]  # fmt: skip
    media = [recording(row["seconds"], 0.1 * i) for i, row in enumerate(rows)]  # type: ignore[arg-type]  # numbers
    seal(workspace, "talks", rows, media=media, modality="audio")
    spec: dict[str, Any] = {"dataset": "talks", "format": "webvtt", "path": tmp_path / "out", "column": "said"}
    report = data.run_job(workspace, "export", **spec)["report"]
    assert report["notes"][0] == "1 transcripts have no times: each is one cue over its recording."
    assert report["notes"][1] == "1 rows have no transcript."
    below = tmp_path / "out" / "data"
    assert cues((below / "train" / "a.vtt").read_bytes()) == [(0.0, 1.5, "good day")]
    assert "NOTE No times are known" in (below / "train" / "a.vtt").read_text()
    assert cues((below / "test" / "b.vtt").read_bytes()) == [(0.0, 0.5, "one"), (0.5, 1.5, "two")]
    assert not (below / "test" / "c.vtt").exists()
    assert soundfile.info(below / "train" / "a.wav").duration == 1.5
    with (below / "test" / "metadata.csv").open(newline="") as file:
        assert [row["transcript"] for row in csv.DictReader(file)] == ["b.vtt", ""]
    seal(workspace, "texts", [{"text": "a"}], inputs=("text",))
    with pytest.raises(SpeciateError, match="no audio or video"):
        data.run_job(workspace, "export", **(spec | {"dataset": "texts"}))


@pytest.mark.parametrize(
    "cell",
    [
        [{"start": 0.25, "end": 61.5, "text": "a"}, {"start": 3725.001, "end": 3726, "text": "b"}],
        {"segments": [{"start": 3725.001, "end": 3726, "text": "b"}, {"start": 0.25, "end": 61.5, "text": "a"}]},
    ],
)
def test_segments_keep_their_times(cell: Any) -> None:
    for given_ in (cell, json.dumps(cell)):
        text, timed = as_webvtt(given_, None)
        assert timed
        assert cues(text) == [(0.25, 61.5, "a"), (3725.001, 3726.0, "b")]


@given(st.text(max_size=60))
def test_foreign_text_is_one_cue_whatever_it_says(text: str) -> None:
    made, timed = as_webvtt(f"x {text}", 2.0)
    assert not timed
    assert made.count("-->") == 1
    assert "<" not in made
    assert [end for _, end, _ in cues(made.encode("utf-8", "replace"))] == [2.0]


@pytest.mark.parametrize(
    "cell", ["[1, 2]", '{"chunks": [{"text": "a"}]}', '[{"start": "x", "end": 2, "text": "a"}]', "[" * 9]
)
def test_what_has_no_times_is_a_text(cell: str) -> None:
    assert as_webvtt(cell, 1.0)[1] is False
