"""Random clips of an episode: 16 steps with their frames out of 1,200, beside bare PyAV that seeks and decodes the same
frames of the same video.

An episode has one camera of 320 x 240 (H.264), with a keyframe every second frame, as LeRobot writes them, or every
sixtieth. Both make the frames small (96 pixels). Rounds are interleaved; figures are medians per clip. What ours costs
beyond the peer is the bundle, and `steps.parquet`.

    python evals/bench/episode_clips.py [--clips 60]
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import av
import numpy as np

from speciate.modalities.robotics.episode import EPISODE
from speciate.modalities.robotics.episode_files import EpisodeFiles, Meta, write

STEPS, CLIP, FPS = 1200, 16, 30
WIDTH, HEIGHT = 320, 240


def video(gop: int) -> bytes:
    chance = np.random.default_rng(0)
    ground = chance.integers(0, 255, (HEIGHT, WIDTH + STEPS, 3), dtype=np.uint8)
    ground = ground.repeat(4, 0).repeat(4, 1)[:HEIGHT, : WIDTH + STEPS]  # a coarse ground that moves past
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": str(gop), "bf": "0", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for step in range(STEPS):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(ground[:, step : step + WIDTH]), format="rgb24")
            frame.pts, frame.time_base = step, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def bare(data: bytes, start: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        container.seek(round(start / FPS / stream.time_base), stream=stream)
        frames = []
        for frame in container.decode(stream):
            step = round(float((frame.pts or 0) * stream.time_base) * FPS)
            if step >= start:
                frames.append(frame.to_ndarray(format="rgb24", width=96, height=72))
            if step >= start + CLIP - 1:
                break
    return np.stack(frames)


def timed(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=60)
    clips = parser.parse_args().clips
    chance = np.random.default_rng(1)
    numbers = np.random.default_rng(2).normal(size=(STEPS, 14)).astype(np.float32)
    times = np.arange(STEPS) / FPS
    for gop in (2, 60):
        data = video(gop)
        meta = Meta(
            steps=STEPS, fps=FPS, state=tuple(f"s{i}" for i in range(14)), action=tuple(f"a{i}" for i in range(14)),
            cameras=("top",),
        )  # fmt: skip
        episode = write(EpisodeFiles(meta, times, numbers, numbers, {"top": data}, {"top": times}))
        ours, peer = list[float](), list[float]()
        for start in chance.integers(0, STEPS - CLIP, clips).tolist():
            shown = EPISODE.decode_window(episode, start, start + CLIP)["cameras"]["top"]["frames"]
            assert (shown == bare(data, start)).all(), "both must show the same frames"
            ours.append(timed(partial(EPISODE.decode_window, episode, start, start + CLIP)))
            peer.append(timed(partial(bare, data, start)))
        whole = timed(partial(EPISODE.decode, episode))
        print(
            f"keyframe every {gop}: {len(data) / 1e6:.1f} MB; a clip of {CLIP} steps: ours "
            f"{statistics.median(ours):.1f} ms, bare PyAV {statistics.median(peer):.1f} ms; the whole of {STEPS} steps "
            f"decoded and checked: {whole:.0f} ms"
        )


if __name__ == "__main__":
    main()
