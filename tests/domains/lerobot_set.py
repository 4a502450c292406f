"""LeRobot v3 datasets written for tests by the format's own definition, without our exporter: demonstrations of `reach`
by its scripted expert, seen by a camera."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.evaluation.environments import reach

FPS = reach.STEPS_A_SECOND
CAMERA = "observation.images.top"


class Demonstration(NamedTuple):
    seed: int
    state: npt.NDArray[np.float32]  # (T, S)
    action: npt.NDArray[np.float32]  # (T, A)
    frames: list[npt.NDArray[np.uint8]]
    success: bool


class Layout(NamedTuple):
    """How many episodes a file of data, and one of video, holds: they are independent."""

    per_data: int = 3
    per_video: int = 4
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("g", "2"), ("crf", "18"), ("bf", "0"))


USUAL = Layout()


def demonstrations(seeds: Sequence[int], *, sight: bool = False, noise: float = 0.0) -> list[Demonstration]:
    """`sight`: of what is measured only place and speed. `noise`: by which the expert's hand trembles; what is recorded
    is what it meant to do, so that a pupil learns the way back."""
    made = []
    for seed in seeds:
        world = reach.ReachBySight() if sight else reach.Reach()
        chance = np.random.default_rng(10_000 + seed)
        seen, _ = world.reset(seed=seed)
        states, actions, frames, ended, success = [], [], [], False, False
        while not ended:
            action = reach.expert(world.whole())
            states.append(seen)
            actions.append(action)
            frames.append(world.render())
            seen, _, over, cut, info = world.step(action + chance.normal(0, noise, 2) if noise else action)
            ended, success = over or cut, info["is_success"]
        made.append(Demonstration(seed, np.stack(states), np.stack(actions), frames, success))
    return made


def write(
    folder: Path, episodes: Sequence[Demonstration], layout: Layout = USUAL, *, environment: str = "reach"
) -> Path:
    """A dataset as LeRobot v3.0 has it: many episodes in a file of data, others in a file of video."""
    (folder / "meta").mkdir(parents=True)
    rows, described = list[dict[str, Any]](), list[dict[str, Any]]()
    index = 0
    for number, episode in enumerate(episodes):
        steps = len(episode.state)
        described.append(
            {
                "episode_index": number, "tasks": ["reach the mark"], "length": steps,
                "data/chunk_index": 0, "data/file_index": number // layout.per_data,
                "dataset_from_index": index, "dataset_to_index": index + steps,
                "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
                "stats/action/mean": episode.action.mean(axis=0).tolist(),
                "environment": environment, "seed": episode.seed,
            }
        )  # fmt: skip
        rows += [
            {
                "observation.state": episode.state[step].tolist(), "action": episode.action[step].tolist(),
                "timestamp": step / FPS, "frame_index": step, "episode_index": number, "index": index + step,
                "task_index": 0, "next.done": step == steps - 1,
            }
            for step in range(steps)
        ]  # fmt: skip
        index += steps
    for first in range(0, len(episodes), layout.per_video):
        some = range(first, min(first + layout.per_video, len(episodes)))
        path = folder / f"videos/{CAMERA}/chunk-000/file-{first // layout.per_video:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video([frame for number in some for frame in episodes[number].frames], layout))
        at = 0.0
        for number in some:
            seconds = len(episodes[number].frames) / FPS
            where = {"chunk_index": 0, "file_index": first // layout.per_video, "from_timestamp": at}
            where |= {"to_timestamp": at + seconds}
            described[number] |= {f"videos/{CAMERA}/{name}": value for name, value in where.items()}
            at += seconds
    for first in range(0, len(episodes), layout.per_data):
        some = range(first, min(first + layout.per_data, len(episodes)))
        _parquet(
            folder / f"data/chunk-000/file-{first // layout.per_data:03d}.parquet",
            [row for row in rows if row["episode_index"] in some],
        )
    _parquet(folder / "meta/episodes/chunk-000/file-000.parquet", described)
    _parquet(folder / "meta/tasks.parquet", [{"task_index": 0, "__index_level_0__": "reach the mark"}])
    (folder / "meta/info.json").write_text(json.dumps(_info(episodes, index), indent=4))
    return folder


def video(frames: Sequence[npt.NDArray[np.uint8]], layout: Layout = USUAL) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream(layout.codec, rate=FPS, options=dict(layout.options))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for place, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = place, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def edit_rows(path: Path, change: Any) -> None:
    """Write a Parquet file anew, with its rows changed."""
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), path)


def _info(episodes: Sequence[Demonstration], frames: int) -> dict[str, Any]:
    width = episodes[0].state.shape[1]
    height, across = episodes[0].frames[0].shape[:2]
    one = {"dtype": "int64", "shape": [1], "names": None}
    return {
        "codebase_version": "v3.0", "robot_type": "point", "total_episodes": len(episodes), "total_frames": frames,
        "total_tasks": 1, "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
        "fps": FPS, "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [width], "names": {"motors": reach.STATE[:width]}},
            "action": {"dtype": "float32", "shape": [2], "names": list(reach.ACTION)},
            CAMERA: {"dtype": "video", "shape": [height, across, 3], "names": ["height", "width", "channels"]},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            "next.done": {"dtype": "bool", "shape": [1], "names": None},
            "frame_index": one, "episode_index": one, "index": one, "task_index": one,
        },
    }  # fmt: skip


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
