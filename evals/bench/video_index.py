"""Videos: how much quicker they are indexed than decoded, and what reading a short part of a long one costs.

First short videos, made once: every packet read and counted (`inspect`), judged as ingest does (`judge`, three frames),
read as models see them (`decode`, up to 32 frames), and all their frames decoded by bare PyAV, a round of each in an
order that turns. Then random clips of a second from a video of a minute, with a keyframe every two seconds and every
ten: ours beside a hand-written seek with PyAV, OpenCV and decord, where those are installed. All open the file anew for
each clip, decode with one thread, and give frames of the same size. All times are of the processor.

    pip install opencv-python-headless decord
    python evals/bench/video_index.py [--videos 1000] [--distinct 100] [--clips 40] [--rounds 5]
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_sample_image

from speciate.modalities.video.video import VIDEO

FPS, SECONDS = 25, 3
SMALL, LARGE = (320, 240), (640, 360)  # width and height
SHOWN = (398, 224)  # of LARGE, as models see it

Pixels = npt.NDArray[np.uint8]


def film(size: tuple[int, int], seconds: int, gop: int, seed: int) -> bytes:
    """H.264 in MP4: a window that wanders over photographs."""
    generator = np.random.default_rng(seed)
    photo = np.tile(load_sample_image(("china.jpg", "flower.jpg")[seed % 2]), (2, 2, 1))
    x, y = (generator.integers(0, room) for room in (640, 427))
    turns = generator.uniform(2, 6, 2)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height = size
        stream.pix_fmt, stream.codec_context.gop_size, stream.codec_context.thread_count = "yuv420p", gop, 1
        for step in range(seconds * FPS):
            left, top = (
                int(x + 60 * np.sin(step / FPS * turns[0])) % 640,
                int(y + 30 * np.sin(step / FPS * turns[1])) % 427,
            )
            shown = np.ascontiguousarray(photo[top : top + size[1], left : left + size[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def decoded(data: bytes) -> int:
    """Every frame, by bare PyAV."""
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def pyav(path: Path, start: float) -> Pixels:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        container.seek(round(start / stream.time_base), stream=stream, backward=True)
        found = []
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= start + 1 - 1e-6:
                break
            if frame.time is not None and frame.time >= start - 1e-6:
                found.append(frame.reformat(*SHOWN, format="rgb24").to_ndarray())
        return np.stack(found)


def opencv(path: Path, start: float) -> Pixels:
    import cv2  # type: ignore[import-not-found, unused-ignore]  # not of our extras

    capture: Any = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, round(start * FPS))
    found = [cv2.cvtColor(cv2.resize(capture.read()[1], SHOWN), cv2.COLOR_BGR2RGB) for _ in range(FPS)]
    return np.stack(found)


def decord(path: Path, start: float) -> Pixels:
    import decord  # type: ignore[import-not-found, unused-ignore]  # not of our extras

    reader = decord.VideoReader(str(path), width=SHOWN[0], height=SHOWN[1], num_threads=1)
    first = round(start * FPS)
    return np.asarray(reader.get_batch(list(range(first, first + FPS))).asnumpy())


def timed(task: Callable[[], Any]) -> float:
    began = time.process_time()
    task()
    return time.process_time() - began


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, in an order that turns."""
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(timed(sides[name]))
    return found


def show(title: str, found: dict[str, list[float]], count: int, base: str) -> None:
    print(f"\n{title}")
    for name, seconds in found.items():
        ratios = [theirs / ours for theirs, ours in zip(found[base], seconds, strict=True)]
        each = 1000 * statistics.median(seconds) / count
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {name:34} {each:8.2f} ms each, {statistics.median(ratios):6.2f} x as quick as {base} ({spread})")


def short(videos: int, distinct: int, rounds: int) -> None:
    made = [film(SMALL, SECONDS, 50, seed) for seed in range(min(distinct, videos))]
    data = [made[place % len(made)] for place in range(videos)]
    sides: dict[str, Callable[[], Any]] = {
        "inspect": lambda: [VIDEO.inspect(each) for each in data],
        "judge": lambda: [VIDEO.judge(each) for each in data],
        "decode, as models see it": lambda: [VIDEO.decode(each) for each in data],
        "PyAV, every frame": lambda: [decoded(each) for each in data],
    }
    assert VIDEO.inspect(data[0]).fields["frames"] == decoded(data[0]) == FPS * SECONDS
    size = f"{SMALL[0]} x {SMALL[1]}, {SECONDS} s"
    title = f"{videos:,} short videos ({len(made)} different ones, {size})"
    show(title, interleaved(sides, rounds), videos, "PyAV, every frame")


def clips(folder: Path, gop: int, count: int, rounds: int) -> None:
    data = film(LARGE, 60, gop, 0)
    (path := folder / f"{gop}.mp4").write_bytes(data)
    starts = (np.random.default_rng(0).integers(0, 59 * FPS, count) / FPS).tolist()
    readers = {"PyAV, by hand": pyav}
    readers |= {"OpenCV": opencv} if importlib.util.find_spec("cv2") else {}
    readers |= {"decord": decord} if importlib.util.find_spec("decord") else {}
    expected = VIDEO.decode_window(data, starts[0], starts[0] + 1)["frames"].astype(int)
    for name, read in readers.items():
        shown = read(path, starts[0])
        assert shown.shape == expected.shape == (FPS, SHOWN[1], SHOWN[0], 3), name
        print(f"  {name} differs from ours by {np.abs(shown.astype(int) - expected).mean():.1f} gray values on average")
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: [VIDEO.decode_window(path.read_bytes(), start, start + 1) for start in starts]
    }
    for name, read in readers.items():
        sides[name] = lambda read=read: [read(path, start) for start in starts]  # type: ignore[misc]
    show(f"Clips of a second, a keyframe every {gop / FPS:g} s", interleaved(sides, rounds), count, "PyAV, by hand")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("videos", 1000), ("distinct", 100), ("clips", 40), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    short(asked.videos, asked.distinct, asked.rounds)
    with tempfile.TemporaryDirectory() as folder:
        for gop in (50, 250):
            clips(Path(folder), gop, asked.clips, asked.rounds)


if __name__ == "__main__":
    main()
