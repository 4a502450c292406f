"""The files of one episode, which are a bundle: `meta.json`, `steps.parquet` and `cameras/NAME.mp4`.

`steps.parquet` has a row for each step: `timestamp` in seconds from the beginning, a column `state/NAME` or
`action/NAME` for each number that was measured or commanded, `reward`, `done` and `success` where they were recorded,
and for each camera in `camera/NAME` the time in that camera's own video at which the step was taken: the clocks of
cameras and steps may differ, so no index is shared. `meta.json` declares the contents (Meta), and reading compares them
with the files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.modalities.bundles import bundle, members_of
from speciate.modalities.contract import DecodeError, Pixels, Vector
from speciate.modalities.video import footage

META, STEPS, CAMERAS = "meta.json", "steps.parquet", "cameras/"
STATE, ACTION, CAMERA, TIMESTAMP = "state/", "action/", "camera/", "timestamp"
OTHERS = ("reward", "done", "success")
MOST_STEPS, MOST_VALUES = 500_000, 50_000_000
MOST_CAMERAS = 16
Times = npt.NDArray[np.float64]


class Meta(BaseModel):
    """The declarations of an episode."""

    model_config = ConfigDict(extra="ignore")
    steps: int = Field(ge=0)
    fps: float = Field(gt=0, le=100_000)
    state: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    task: str = ""
    robot: str = ""
    episode: int = 0
    session: str | None = None
    """Episodes that were recorded together have the same; a split never separates them."""
    columns: dict[str, str | int | float] = {}
    """Further facts of the source, such as the seed of a simulator."""
    faults: tuple[str, ...] = ()
    """What was missing when it was cut out of a larger recording; with faults it is no example."""


class Track(NamedTuple):
    """One camera. `times` (T,): in its own video, of each step."""

    times: Times
    frames: Callable[[Times, bool, int], tuple[Pixels, npt.NDArray[np.bool_]]]
    """From times (N,), whether all must be decoded, and a stride: the frames of every stride-th of the times
    (K, h, w, 3), and which of all the times have one (N,)."""
    frame_bytes: int
    """Bytes of one frame when it is small."""


class Recording(NamedTuple):
    """An episode whose numbers are read and whose images are not yet."""

    meta: Meta
    times: Times  # (T,)
    state: Vector  # (T, S)
    action: Vector  # (T, A)
    tracks: Mapping[str, Track]
    others: Mapping[str, Vector] = {}
    """`reward`, `done` and `success` (T,), where they were recorded."""


class EpisodeFiles(NamedTuple):
    """The contents of an episode to be written."""

    meta: Meta
    times: Times
    state: Vector
    action: Vector
    videos: Mapping[str, bytes] = {}
    video_times: Mapping[str, Times] = {}
    others: Mapping[str, Vector] = {}


def write(files: EpisodeFiles) -> bytes:
    """The bundle. It may declare more than it holds; reading it then fails."""
    columns: dict[str, npt.NDArray[Any]] = {TIMESTAMP: np.asarray(files.times, np.float64)}
    for prefix, names, values in ((STATE, files.meta.state, files.state), (ACTION, files.meta.action, files.action)):
        columns |= {prefix + name: values[:, place] for place, name in enumerate(names)}
    columns |= {CAMERA + name: np.asarray(times, np.float64) for name, times in files.video_times.items()}
    columns |= {name: np.asarray(values, np.float32) for name, values in files.others.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    members = {META: files.meta.model_dump_json(indent=1).encode(), STEPS: buffer.getvalue()}
    return bundle(members | {f"{CAMERAS}{name}.mp4": data for name, data in files.videos.items()})


def read_meta(members: Mapping[str, bytes]) -> Meta:
    """Raises DecodeError if there is none, or if it declares more than the limits."""
    if META not in members or STEPS not in members:
        raise DecodeError("error", f"An episode is a bundle with {META} and {STEPS}.")
    try:
        meta = Meta.model_validate(json.loads(members[META]))
    except (ValueError, ValidationError, RecursionError) as error:
        raise DecodeError("error", f"{META} is damaged: {str(error).splitlines()[0][:200]}") from error
    check_size(meta.steps, len(meta.state) + len(meta.action), len(meta.cameras))
    return meta


def check_size(steps: int, values: int, cameras: int) -> None:
    if steps > MOST_STEPS or steps * values > MOST_VALUES or cameras > MOST_CAMERAS:
        raise DecodeError(
            "refused",
            f"{steps:,} steps of {values:,} values and {cameras} cameras; at most {MOST_STEPS:,} steps, "
            f"{MOST_VALUES:,} values in all and {MOST_CAMERAS} cameras are read.",
        )


def read(data: bytes) -> Recording:
    """An episode from its bundle. Raises DecodeError if its declarations and its files differ."""
    members = members_of(data)
    meta = read_meta(members)
    if meta.faults:
        raise DecodeError("partial", " ".join(meta.faults))
    table = _table(members[STEPS], meta)
    times = _numbers(table, [TIMESTAMP], TIMESTAMP)[:, 0]
    if (np.diff(times) <= 0).any():
        place = int(np.flatnonzero(np.diff(times) <= 0)[0]) + 1
        raise DecodeError("error", f"The timestamp of step {place} is not later than that of the step before.")
    tracks = {}
    for name in meta.cameras:
        if (video := members.get(f"{CAMERAS}{name}.mp4")) is None:
            raise DecodeError("partial", f"The camera {name!r} has no video.")
        with footage.open_video(video, name) as container:
            declared = footage.declared_size(container)
        if declared.frames > MOST_STEPS:
            raise DecodeError("refused", f"The video of {name!r} declares {declared.frames:,} frames.")
        width, height = footage.small_size(declared.width, declared.height)
        at = _numbers(table, [CAMERA + name], f"time of the camera {name!r}")[:, 0]
        tracks[name] = Track(at, _Video(video, name, meta.fps).frames, 3 * width * height)
    state = _numbers(table, [STATE + name for name in meta.state], "state")
    action = _numbers(table, [ACTION + name for name in meta.action], "action")
    others = {name: _numbers(table, [name], name)[:, 0] for name in OTHERS if name in table.column_names}
    floats = {name: values.astype(np.float32) for name, values in others.items()}
    return Recording(meta, times, state.astype(np.float32), action.astype(np.float32), tracks, floats)


class _Video(NamedTuple):
    data: bytes
    name: str
    fps: float

    def frames(self, wanted: Times, whole: bool, stride: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        """A frame belongs to a step when it lies within a quarter of a step of its time: half would be ambiguous."""
        shown = footage.frames_at(self.data, self.name, wanted, 0.25 / self.fps, whole=whole, stride=stride)
        return shown.frames, shown.found


def _table(data: bytes, meta: Meta) -> pa.Table:
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        check_size(file.metadata.num_rows, file.metadata.num_columns, 0)
        table = file.read()
    except DecodeError:
        raise
    except Exception as error:  # for a damaged file Arrow raises errors of many classes
        raise DecodeError("error", f"{STEPS} is damaged: {str(error)[:200]}") from error
    if table.num_rows < meta.steps:
        raise DecodeError("partial", f"{table.num_rows:,} steps where {meta.steps:,} are declared.")
    if table.num_rows > meta.steps:
        raise DecodeError("error", f"{table.num_rows:,} steps where {meta.steps:,} are declared.")
    if not table.num_rows:
        raise DecodeError("error", "The episode has no step.")
    if len(set(table.column_names)) < table.num_columns:
        raise DecodeError("error", f"{STEPS} has two columns of one name.")
    return table


def _numbers(table: pa.Table, names: list[str], what: str) -> Times:
    """(T, K) float64, finite."""
    if missing := [name for name in names if name not in table.column_names]:
        raise DecodeError("error", f"{STEPS} has no column {missing[0]!r}.")
    try:
        columns = [np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64) for name in names]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DecodeError("error", f"The {what} holds what is no number: {str(error)[:100]}") from error
    found = np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))
    check_finite(found, what)
    return found


def check_finite(values: npt.NDArray[Any], what: str) -> None:
    """`values`: (T, K). Raises DecodeError with the first step that holds no number."""
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(values.astype(np.float32)).all(axis=1))
    if len(bad):
        detail = f"in {len(bad):,} of {len(values):,} steps, first in {int(bad[0])}."
        raise DecodeError("error", f"The {what} is no number {detail}")
