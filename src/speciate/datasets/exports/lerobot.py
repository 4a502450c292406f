"""A dataset of LeRobot (v3.0, https://github.com/huggingface/lerobot): `meta/`, `data/` and `videos/`.

All steps are in few Parquet files; each episode has one video per camera, copied without encoding a frame again. Splits
are ranges of episodes in `meta/info.json`; labels and columns of the version stand in `meta/episodes`, a column each.

With a `column` its cells are the actions, such as what a policy answered: `{"actions": [T][A]}`, or the list alone;
`recorded.action` is what was recorded. An episode without such a cell is left out, and the report says why.

Episodes are foreign bytes, so `write` reads and writes them in a sandboxed process. It follows the format's own
definition (huggingface/lerobot, `src/lerobot/datasets/`): `dataset_metadata.py` and `dataset_writer.py` for `meta/`,
`compute_stats.py` for the statistics. Quantiles of the whole dataset are exact here, not bounds made of the episodes'.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.exports.format import ExportContent, ReportProgress, WriteReport, has_files
from speciate.datasets.operations.operation import provenance_columns
from speciate.datasets.sources.sandbox_calls import SourceContext, unpack_into
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities.bundles import members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.robotics import episode_files, mcap
from speciate.modalities.robotics.episode_files import Recording
from speciate.modalities.video import footage
from speciate.settings import in_force
from speciate.workspace.packs import PackReader, index_path

_WRITE = "speciate.datasets.exports.lerobot:write"
_PARTS = ("meta", "data", "videos")
_TOLD = {
    "split", "steps", "seconds", "fps", "cameras", "state_width", "action_width", "task", "robot", "episode", "bytes",
    "action_largest", "action_change", "still_share", "messages", "topics",
}  # fmt: skip
"""Columns of a version that the dataset itself says, or that are found out anew."""
_CHUNK = 1000
"""Files of a folder, and episodes of a file of steps."""
_STATE, _ACTION, _CAMERA, _RECORDED = "observation.state", "action", "observation.images.", "recorded.action"
_QUANTILES = (1, 10, 50, 90, 99)
_EVEN = 1e-4
"""Seconds: how far from its time LeRobot lets a frame be by default."""
_OWN = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
_FRAMES_SAMPLED = 50
"""Frames of an episode that statistics of a camera are made of."""
_TYPES = {"reward": "float32", "done": "bool", "success": "bool"}


class LeRobot:
    name = "lerobot"
    again = None
    """It is recognised by its names, like anybody's."""
    files = False
    once = True
    column: str | None = None

    def misfit(self, manifest: Manifest) -> str | None:
        return None if manifest.modality == "episode" and has_files(manifest) else "its examples are no episodes."

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        assert export.media is not None
        assert export.folders is not None
        episodes, splits = list[dict[str, Any]](), dict[str, list[int]]()
        contents, column = set[str](), export.column
        left_out, makers = Counter[str](), set[str]()
        if column is not None and export.windows:
            raise SpeciateError(
                Code.INVALID,
                "Rows are windows of their episodes, and actions are of a whole episode.",
                "Export a version from before the step 'window'.",
            )
        for piece in export.pieces():
            first = len(episodes)
            for row, cells in enumerate(piece.rows.to_pylist()):
                content = export.media.contents[piece.start + row]
                if content in contents:  # windows of one episode are in it
                    continue
                contents.add(content)
                episode: dict[str, Any] = {"content": content, "columns": _columns(cells, column)}
                if column is not None:
                    actions = actions_of(cells[column])
                    if isinstance(actions, str):
                        left_out[actions] += 1
                        continue
                    episode["actions"] = actions
                    makers.add(str(cells.get(provenance_columns(column)[0]) or ""))
                episodes.append(episode)
            splits[piece.hub if piece.split else "train"] = [first, len(episodes)]
        if not episodes:
            why = next(iter(left_out), "there is no row")
            raise SpeciateError(
                Code.INVALID, f"No cell of the column {column!r} is actions of its episode: {why}.",
                "Name a column with what a policy answered, or none for the recorded actions.",
            )  # fmt: skip
        folders, settings = export.folders, in_force(export.folders.root)
        packs = [folders.root / pack for pack in export.manifest.packs]
        readable = [path for pack in packs for path in (pack, index_path(pack))]
        work = folder / ".lerobot"
        context = SourceContext(Pool(folders, settings, size=0), settings.cage, folders, work)
        payload = {"packs": [str(pack) for pack in packs], "episodes": episodes, "splits": splits}
        answer = unpack_into(work, _WRITE, payload, readable=readable, context=context)
        for part in _PARTS:
            if (work / part).is_dir():
                (work / part).rename(folder / part)
        shutil.rmtree(work)
        progress(export.rows.num_rows)
        notes = [] if column is None else _notes(column, makers - {""}, left_out)
        return WriteReport(notes=(*notes, *(str(note) for note in answer["notes"])))


def actions_of(cell: Any) -> list[list[float]] | str:
    """(T, A) of a policy's answer; why it is none."""
    if cell in (None, ""):
        return "it is empty"
    try:
        found = json.loads(cell) if isinstance(cell, str) else cell
        found = found["actions"] if isinstance(found, dict) else found
        values = np.array(found, np.float64)
    except (ValueError, TypeError, KeyError, RecursionError):
        return "it is no list of actions"
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        return "it is no list of actions"
    made: list[list[float]] = values.tolist()
    return made


def _notes(column: str, makers: Collection[str], left_out: Mapping[str, int]) -> list[str]:
    by = f", answered by {', '.join(sorted(makers))}" if makers else ""
    notes = [f"The actions are those of the column {column!r}{by}; what was recorded is {_RECORDED!r}."]
    if left_out:
        shown = "; ".join(f"{why} ({count})" for why, count in sorted(left_out.items()))
        notes.append(f"{sum(left_out.values()):,} episodes were left out, as their cell does not fit: {shown}.")
    return notes


def _columns(cells: dict[str, Any], without: str | None) -> dict[str, Any]:
    """What a cell of Parquet can be, by a name without the `/` that LeRobot's own have."""
    return {
        name.replace("/", "_"): value
        for name, value in cells.items()
        if isinstance(value, str | int | float) and name not in _TOLD and name != without
    }


LEROBOT = LeRobot()


class Shape(NamedTuple):
    """What all episodes of a dataset share."""

    fps: float
    state: tuple[str, ...]
    action: tuple[str, ...]
    cameras: tuple[tuple[str, int, int], ...]
    """Name, height and width."""
    others: tuple[str, ...]
    recorded: tuple[str, ...] = ()
    """Names of recorded actions, where others took their place."""


class _Episode(NamedTuple):
    recording: Recording
    videos: dict[str, bytes]
    shape: Shape
    uneven: bool
    small: bool
    """Whether its frames were images, which are written as videos, small."""
    recorded: npt.NDArray[Any] | None = None
    """(T, A), where others took their place."""


def write(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {packs, episodes: [{content, columns}], splits: {name: [first, last]}, budget} -> {notes}.

    INVALID if the episodes are not of one robot: a LeRobot dataset has one set of features.
    """
    writer = _Writer(payload["budget"])
    with PackReader([Path(pack) for pack in payload["packs"]]) as reader:
        for item in payload["episodes"]:
            try:
                episode = _episode(reader.get(item["content"]))
                if "actions" in item:
                    episode = _acting(episode, np.array(item["actions"], np.float32), len(writer))
                writer.add(episode, item["columns"])
            except DecodeError as error:
                raise SpeciateError(
                    Code.INVALID, f"An episode can no longer be read: {error}", "Create the dataset again."
                ) from error
    return {"notes": writer.finish(payload["splits"])}


def _episode(data: bytes) -> _Episode:
    if data.startswith(mcap.MAGIC):
        recording = mcap.read(data)
        even = np.arange(len(recording.times)) / recording.meta.fps
        videos = {}
        for name, track in recording.tracks.items():
            frames, _ = track.frames(track.times, True, 1)
            videos[name] = footage.encode(list(frames), even.tolist(), recording.meta.fps)
        uneven = bool((np.abs(recording.times - even) > _EVEN).any())
        return _Episode(recording._replace(times=even), videos, _shape(recording, videos), uneven, bool(videos))
    recording = episode_files.read(data)
    members = members_of(data)
    videos = {name: members[f"{episode_files.CAMERAS}{name}.mp4"] for name in recording.meta.cameras}
    apart = [float(np.abs(track.times - recording.times).max()) for track in recording.tracks.values()]
    return _Episode(recording, videos, _shape(recording, videos), max(apart, default=0.0) > _EVEN, False)


def _acting(episode: _Episode, actions: npt.NDArray[np.float32], number: int) -> _Episode:
    """The episode with these actions (T, A) in place of the recorded ones, which stay beside them. INVALID if they do
    not fit."""
    recording, names = episode.recording, episode.shape.action
    wanted = (len(recording.times), len(names) or actions.shape[1])
    if actions.shape != wanted:
        raise SpeciateError(
            Code.INVALID,
            f"The actions of episode {number} are {actions.shape[0]} of {actions.shape[1]} numbers, and it has "
            f"{wanted[0]} steps of {wanted[1]}.",
            "Name a column with what a policy answered to these very episodes.",
        )
    own = names or tuple(f"action_{place}" for place in range(actions.shape[1]))
    shape = episode.shape._replace(action=own, recorded=names)
    return episode._replace(
        recording=recording._replace(action=actions), shape=shape, recorded=recording.action if names else None
    )


def _shape(recording: Recording, videos: Mapping[str, bytes]) -> Shape:
    cameras = []
    for name, video in sorted(videos.items()):
        with footage.open_video(video, name) as container:
            size = footage.declared_size(container)
        cameras.append((name, size.height, size.width))
    meta = recording.meta
    return Shape(round(meta.fps, 6), meta.state, meta.action, tuple(cameras), tuple(sorted(recording.others)))


class _Writer:
    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._shape: Shape | None = None
        self._robot = ""
        self._rows: list[pa.Table] = []
        self._described: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._numbers: dict[str, list[npt.NDArray[Any]]] = {}
        self._looks: dict[str, list[npt.NDArray[Any]]] = {}
        self._frames = self._uneven = self._small = 0

    def __len__(self) -> int:
        return len(self._described)

    def add(self, episode: _Episode, columns: Mapping[str, Any]) -> None:
        shape, number = self._shape or episode.shape, len(self._described)
        if episode.shape != shape:
            raise SpeciateError(
                Code.INVALID,
                f"Episode {number} is not like those before it ({_differs(shape, episode.shape)}), and a LeRobot "
                "dataset has one set of features.",
                "Keep those of one robot first: curate_dataset(steps=[{'op': 'filter', ...}]).",
            )
        self._shape = shape
        recording = episode.recording
        steps, task = len(recording.times), recording.meta.task
        self._robot = self._robot or recording.meta.robot
        index = self._tasks.setdefault(task, len(self._tasks))
        stats = {_STATE: recording.state, _ACTION: recording.action}
        stats |= {} if episode.recorded is None else {_RECORDED: episode.recorded}
        self._rows.append(_steps(recording, stats, number, self._frames, index))
        for key, values in stats.items():
            self._numbers.setdefault(key, []).append(values)
        described: dict[str, Any] = {
            "episode_index": number, "tasks": [task], "length": steps,
            "data/chunk_index": number // _CHUNK // _CHUNK, "data/file_index": number // _CHUNK % _CHUNK,
            "dataset_from_index": self._frames, "dataset_to_index": self._frames + steps,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
        }  # fmt: skip
        for name, video in episode.videos.items():
            described |= self._video(_CAMERA + name, video, number, steps / shape.fps)
            self._looks.setdefault(_CAMERA + name, []).append(_sample_pixels(recording, name))
        for key, values in stats.items():
            if values.size:
                described |= {f"stats/{key}/{name}": value for name, value in _statistics(values).items()}
        free = {name: value for name, value in columns.items() if name not in described and name not in _OWN}
        self._described.append(described | free)
        self._frames += steps
        self._uneven += episode.uneven
        self._small += episode.small

    def finish(self, splits: Mapping[str, Sequence[int]]) -> list[str]:
        """Writes what all episodes share; returns sentences for the card."""
        assert self._shape is not None, "an export has rows"
        for first in range(0, len(self._rows), _CHUNK):
            number = first // _CHUNK
            path = f"data/chunk-{number // _CHUNK:03d}/file-{number % _CHUNK:03d}.parquet"
            _parquet(path, pa.concat_tables(self._rows[first : first + _CHUNK]))
        _parquet("meta/episodes/chunk-000/file-000.parquet", _table(self._described))
        _parquet("meta/tasks.parquet", _tasks(list(self._tasks)))
        stats = {key: _statistics(np.concatenate(parts)) for key, parts in self._numbers.items() if parts[0].size}
        stats |= {key: _image_statistics(np.concatenate(parts)) for key, parts in self._looks.items()}
        _json("meta/stats.json", stats)
        _json("meta/info.json", self._info(splits))
        notes = []
        if self._uneven:
            notes.append(
                f"Of {self._uneven} episodes steps and frames lie more than {_EVEN:g} s apart: pass tolerance_s to "
                "LeRobot."
            )
        if self._small:
            notes.append(f"The images of {self._small} episodes became videos of at most {footage.SIDE} pixels.")
        return notes

    def _video(self, key: str, video: bytes, number: int, seconds: float) -> dict[str, Any]:
        self._budget -= len(video)
        if self._budget < 0:
            raise SpeciateError(Code.UNAVAILABLE, "The disk is full.", "Free some space and call again.")
        chunk, file = number // _CHUNK, number % _CHUNK
        path = Path(f"videos/{key}/chunk-{chunk:03d}/file-{file:03d}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video)
        at = f"videos/{key}/"
        return {
            f"{at}chunk_index": chunk, f"{at}file_index": file, f"{at}from_timestamp": 0.0, f"{at}to_timestamp": seconds
        }  # fmt: skip

    def _info(self, splits: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        shape = self._shape
        assert shape is not None
        features: dict[str, Any] = {}
        for key, names in ((_STATE, shape.state), (_ACTION, shape.action), (_RECORDED, shape.recorded)):
            if names:
                features[key] = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
        for name, height, width in shape.cameras:
            features[_CAMERA + name] = {
                "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                "info": {"video.fps": shape.fps, "video.height": height, "video.width": width, "has_audio": False},
            }  # fmt: skip
        for name in shape.others:
            features[f"next.{name}"] = {"dtype": _TYPES[name], "shape": [1], "names": None}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index"):
            features[name] = {"dtype": "int64", "shape": [1], "names": None}
        return {
            "codebase_version": "v3.0", "robot_type": self._robot or None, "total_episodes": len(self._described),
            "total_frames": self._frames, "total_tasks": len(self._tasks), "chunks_size": _CHUNK,
            "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
            "fps": int(shape.fps) if shape.fps == int(shape.fps) else shape.fps,
            "splits": {name: f"{first}:{last}" for name, (first, last) in splits.items() if last > first},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
            if shape.cameras else None,
            "features": features,
        }  # fmt: skip


def _steps(
    recording: Recording, numbers: Mapping[str, npt.NDArray[Any]], number: int, before: int, task: int
) -> pa.Table:
    steps = len(recording.times)
    columns: dict[str, Any] = {}
    for key, values in numbers.items():
        width = values.shape[1]
        if width == 1:
            columns[key] = pa.array(values[:, 0], pa.float32())
        elif width:
            columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), width)
    for name in sorted(recording.others):
        values = recording.others[name]
        columns[f"next.{name}"] = pa.array(values != 0 if _TYPES[name] == "bool" else values)
    counted = np.arange(steps, dtype=np.int64)
    columns |= {
        "timestamp": pa.array(recording.times.astype(np.float32)), "frame_index": counted,
        "episode_index": np.full(steps, number, np.int64), "index": before + counted,
        "task_index": np.full(steps, task, np.int64),
    }  # fmt: skip
    return pa.table(columns)


def _statistics(values: npt.NDArray[Any]) -> dict[str, list[float]]:
    """(T, K) -> of each column."""
    numbers = values.astype(np.float64)
    found = {
        "min": numbers.min(axis=0), "max": numbers.max(axis=0), "mean": numbers.mean(axis=0), "std": numbers.std(axis=0)
    }  # fmt: skip
    found |= {f"q{q:02d}": np.quantile(numbers, q / 100, axis=0) for q in _QUANTILES}
    return {name: each.tolist() for name, each in found.items()} | {"count": [len(numbers)]}


def _image_statistics(pixels: npt.NDArray[Any]) -> dict[str, Any]:
    """(N, 3), 0 to 255 -> of each channel, 0 to 1, as (3, 1, 1)."""
    found = _statistics(pixels / 255.0)
    return {name: each if name == "count" else [[[value]] for value in each] for name, each in found.items()}


def _sample_pixels(recording: Recording, camera: str) -> npt.NDArray[np.uint8]:
    """(N, 3): every ninth pixel of some frames of an episode."""
    track = recording.tracks[camera]
    times = np.unique(track.times)
    frames, _ = track.frames(times, False, max(1, len(times) // _FRAMES_SAMPLED))
    pixels: npt.NDArray[np.uint8] = frames[:, ::3, ::3].reshape(-1, 3)
    return pixels


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Columns that some rows lack are null there; one of several types is written as words."""
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    columns: dict[str, pa.Array] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array([None if value is None else str(value) for value in values], pa.string())
    return pa.table(columns)


def _tasks(words: Sequence[str]) -> pa.Table:
    """Table of the tasks with the words as the index that pandas makes of them: LeRobot looks there."""
    table = pa.table({"task_index": pa.array(range(len(words)), pa.int64()), "task": pa.array(words, pa.string())})
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    metadata = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
    return table.replace_schema_metadata({"pandas": json.dumps(metadata)})


def _differs(one: Shape, other: Shape) -> str:
    return "; ".join(
        f"{name}: {str(a)[:80]} and {str(b)[:80]}"
        for name, a, b in zip(Shape._fields, one, other, strict=True)
        if a != b
    )


def _parquet(path: str, table: pa.Table) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy")


def _json(path: str, content: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=4))
