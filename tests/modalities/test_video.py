"""Videos: what packets tell without a frame being decoded, and that a part is read as it is in the whole."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.modalities.contract import DecodeError
from speciate.modalities.video import video
from speciate.modalities.video.containers import container_of, rotation
from speciate.modalities.video.packets import open_video
from speciate.modalities.video.video import MOST_FRAMES, VIDEO, VIDEO_SKETCHES, Clip
from tests.modalities.video_samples import DIRECTIONS, VIDEOS, encode, moving, panned, sound_file

LONG = encode(panned(100), gop=30, bf="3")


def near(one: bytes, other: bytes) -> bool:
    sketches = [np.frombuffer(VIDEO.summarize(each).sketch or b"", np.uint8)[np.newaxis] for each in (one, other)]
    found: bool = VIDEO_SKETCHES.near(*sketches).tolist()[0]
    shared = set(VIDEO_SKETCHES.keys(sketches[0])[0].tolist()) & set(VIDEO_SKETCHES.keys(sketches[1])[0].tolist())
    return found and bool(shared)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("format_", ["mp4", "matroska"])
def test_an_image_is_turned_as_its_file_says(format_: str, degrees: int) -> None:
    upright = panned(3)
    lying = [np.ascontiguousarray(np.rot90(frame, -degrees // 90)) for frame in upright]
    data = encode(lying, format_, rotation=degrees, crf="10")
    kind = container_of(data)
    assert kind is not None
    assert rotation(data, kind) == degrees
    frames = VIDEO.decode(data)["frames"]
    assert frames.shape == (3, 64, 96, 3)
    assert np.abs(frames.astype(int) - np.stack(upright)).mean() < 8
    fields = VIDEO.inspect(data).fields
    assert (fields["width"], fields["height"]) == (96, 64)


def test_missing_frames_are_told_from_a_variable_rate() -> None:
    gap = [place / 25 + (0.32 if place > 40 else 0) + (0.08 if place > 50 else 0) for place in range(60)]
    told = {name: VIDEO.inspect(encode(panned(60), times=times)).fields for name, times in {
        "even": [place / 25 for place in range(60)],
        "gap": gap,
        "trembling": [place / 25 + 0.001 * (place % 3) for place in range(60)],
        "variable": np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 60)).round(3).tolist(),
    }.items()}  # fmt: skip
    shown = {name: (each["frame_rate"], each["gaps"], each["missing_frames"]) for name, each in told.items()}
    assert shown == {
        "even": ("constant", 0, 0), "gap": ("constant", 2, 10), "trembling": ("constant", 0, 0),
        "variable": ("variable", 0, 0),
    }  # fmt: skip
    assert told["even"]["fps"] == 25


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 95), st.integers(1, 20))
def test_a_window_holds_the_frames_that_the_whole_has_there(first: int, count: int) -> None:
    marks = VIDEO.marks(LONG, "frames")
    stop = marks[min(first + count, 100)]
    part = VIDEO.decode_window(LONG, marks[first], stop)
    assert part["times"].tolist() == pytest.approx(marks[first : min(first + count, 100)])
    with av.open(io.BytesIO(LONG)) as container:
        whole = [
            frame.reformat(format="rgb24", interpolation="AREA").to_ndarray() for frame in container.decode(video=0)
        ]
    assert (part["frames"] == np.stack(whole[first : first + count])).all()


def test_a_window_between_two_frames_shows_the_one_before() -> None:
    data = encode(panned(4), times=[0, 1, 2, 3])
    assert VIDEO.decode_window(data, 1.4, 1.6)["times"].tolist() == [1]
    assert VIDEO.decode_window(data, 7, 8)["times"].tolist() == [3]


def test_what_models_see_is_at_most_32_frames_evenly_over_all_of_it() -> None:
    seen = VIDEO.decode(LONG)
    assert len(seen["frames"]) == MOST_FRAMES
    assert (seen["times"][0], seen["times"][-1]) == pytest.approx((0, 3.96))
    assert np.ptp(np.diff(seen["times"])) <= 0.04 + 1e-6
    wide = VIDEO.decode(encode([np.zeros((300, 500, 3), np.uint8)] * 2))["frames"]
    assert wide.shape == (2, 224, 373, 3)


def test_a_long_video_is_summarized_by_few_of_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    run = video._run

    def counted(opened_: Any, key: int, wanted: list[int]) -> Any:
        asked.extend(wanted)
        return run(opened_, key, wanted)

    monkeypatch.setattr(video, "_run", counted)
    VIDEO.summarize(LONG)
    assert len(asked) == VIDEO_SKETCHES.count
    monkeypatch.setattr(video, "_MOST_SUMMARIZED", 64 * 96 * 4)
    asked.clear()
    VIDEO.summarize(LONG)
    with open_video(LONG) as found:
        keys = {found.ticks(second) for second in VIDEO.marks(LONG, "keyframes")}
    assert set(asked) <= keys


def test_copies_are_near_and_others_are_not() -> None:
    frames = panned(60)
    copies = [
        encode(frames, crf="36"),
        encode(frames, "webm", "libvpx-vp9", gop=7),
        encode(frames, "avi", "mpeg4"),
        encode(frames, "mov", size=(72, 48)),
        encode(frames, "matroska", gop=250, rotation=0, fps=50),
    ]
    film = encode(frames)
    assert all(near(film, copy) for copy in copies)
    for share in (0.1, 0.3):  # faint ones, too: a frame is told from another by more than its noise
        faint = [(128 + (frame - 128.0) * share).astype(np.uint8) for frame in frames]
        assert near(encode(faint), encode(faint, crf="32", size=(72, 48)))
        assert not near(encode(faint), encode([np.clip(frame + 30.0, 0, 255).astype(np.uint8) for frame in faint]))
    others = [encode(panned(60, photo="china.jpg")), encode(frames[::-1]), encode(frames[:20] + frames[:10] * 4)]
    assert not any(near(film, other) for other in others)


def test_the_same_packets_in_another_container_are_the_same_video() -> None:
    mp4 = VIDEOS["pan.m4v"]
    buffer = io.BytesIO()
    with av.open(io.BytesIO(mp4)) as source, av.open(buffer, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert VIDEO.summarize(buffer.getvalue()).fingerprint == VIDEO.summarize(mp4).fingerprint
    assert VIDEO.summarize(VIDEOS["pan.avi"]).fingerprint != VIDEO.summarize(mp4).fingerprint


def test_altered_bytes_that_leave_no_frame_are_an_error() -> None:
    data = bytearray(encode(panned(12)))
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - start)
    with pytest.raises(DecodeError, match="be decoded") as raised:
        VIDEO.summarize(bytes(data))
    assert raised.value.quality == "error"


def test_directions_are_told_by_the_flow_and_hardly_by_one_frame() -> None:
    flows = {}
    for name, way in DIRECTIONS.items():
        frames = np.stack(moving(3, (2 * way[0], 2 * way[1])))
        flows[name] = VIDEO.features(Clip(frames=frames, times=(np.arange(16) / 25).astype(np.float32)))[-3:-1]
    assert flows["right"][0] > 0.05 > -0.05 > flows["left"][0]
    assert flows["down"][1] > 0.05 > -0.05 > flows["up"][1]


def test_sound_alone_is_no_video() -> None:
    with pytest.raises(DecodeError, match="modality='audio'"):
        VIDEO.decode(sound_file(np.sin(np.arange(16_000) / 10).astype(np.float32)))
