"""Datasets of LeRobot (https://github.com/huggingface/lerobot): each of their episodes becomes an example of its own.

A dataset is a folder with `meta/info.json`; a source may hold several. Its files hold many episodes each, so a
sandboxed process cuts them (`cut_episodes`) and writes a bundle for each. Other files beside it that are no episodes
are excluded.

It follows the format's own definition (huggingface/lerobot, `src/lerobot/datasets/`, v3.0). `meta/info.json` names the
features and the templates of paths. A row of `meta/episodes/**.parquet` names the file of data that holds an episode's
rows (`data/chunk_index`, `data/file_index`) and, for each camera separately, the video and the seconds of it
(`videos/KEY/chunk_index`, `file_index`, `from_timestamp`, `to_timestamp`). The indices of data and of cameras are
independent. The frame of a row is the one at `from_timestamp + timestamp`. For v2.1, whose files hold one episode each,
the same is read from `meta/episodes.jsonl` and the paths.

Seconds of a video that begin at a keyframe and that no later frame depends on are copied as they are; others are
encoded again. An episode that lacks anything is written with its faults in words (`Meta.faults`): it is excluded for
them later, and the others go in.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.datasets.sources.listing import ExcludedFile, Listing, SourceFile, normalise_split, walk_folder
from speciate.datasets.sources.sandbox_calls import SourceContext, unpack_into
from speciate.errors import Code, SpeciateError
from speciate.modalities import find
from speciate.modalities.contract import DecodeError, Pixels
from speciate.modalities.robotics.episode_files import OTHERS, EpisodeFiles, Meta, Times, write
from speciate.modalities.video import footage

_CUT = "speciate.datasets.gathering.lerobot:cut_episodes"
_INFO = "meta/info.json"
_OURS = ("meta/", "data/", "videos/", "images/")
_MOST_EPISODES = 1_000_000
_MOST_COLUMNS = 32
_OLD_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_OLD_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_PASSED_OVER = ("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index")
_SESSIONS = ("session", "session_id", "recording", "recording_id")
_MEND = "Mend the dataset, or leave it out of the source."


def is_lerobot(files: Sequence[SourceFile]) -> bool:
    """Whether the files include `meta/info.json` and episodes beside it."""
    names = [file.name for file in files]
    roots = _roots(files)
    return any(name.startswith((f"{root}meta/episodes", f"{root}data/")) for root in roots for name in names)


def gather(found: Listing, context: SourceContext) -> Listing:
    """The listing with an entry for each episode. Files that hold one episode each stay as they are."""
    own = find("episode").suffixes
    roots = _roots(found.files)
    if not roots:
        return found
    files: list[SourceFile] = []
    excluded: list[ExcludedFile] = []
    notes: list[str] = []
    readable = set(found.readable)
    for file in found.files:
        root = next((root for root in roots if file.name.startswith(root)), None)
        if root is not None and file.name.removeprefix(root).startswith(_OURS):
            continue
        if file.name.lower().endswith(own):
            files.append(file)
        else:
            excluded.append(ExcludedFile(file.name, "No part of a LeRobot dataset, and no episode by itself."))
    for number, (root, info) in enumerate(roots.items()):
        target = context.work / f"lerobot-{number:04}"
        try:
            answer = unpack_into(
                target, _CUT, CutRequest(root=str(_folder(info))), readable=found.readable, context=context
            )
        except SpeciateError as error:
            if len(roots) == 1 and not files:
                raise
            excluded.append(ExcludedFile(info.name, error.message))
            continue
        written = {path.name: path for path in walk_folder(target, links=False).files}
        for name, index, split in answer["episodes"]:
            if name in written:
                also = (str(index), f"episode_{index}", f"episode_{index:06}")
                where = info.split if split is None else normalise_split(split)
                files.append(SourceFile(written[name], f"{root}{name}", where, None, also=also))
        excluded += [ExcludedFile(f"{root}{name}", str(reason)) for name, reason in answer["excluded"]]
        notes += [str(note) for note in answer["notes"]]
        readable.add(target)
    if not files:
        name, reason = excluded[0] if excluded else (found.source.name, "There is no episode.")
        raise SpeciateError(Code.INVALID, f"No episode can be read; {name!r}: {reason}", "Mend the dataset first.")
    return found._replace(
        files=sorted(files, key=lambda file: file.name),
        readable=frozenset(readable),
        excluded=[*found.excluded, *excluded],
        notes=(*found.notes, *notes),
    )


def _roots(files: Sequence[SourceFile]) -> dict[str, SourceFile]:
    """What the names of a dataset's files begin with (`` or `a/b/`) -> its `meta/info.json`; the longest first."""
    found = {
        file.name.removesuffix(_INFO): file for file in files if file.name == _INFO or file.name.endswith(f"/{_INFO}")
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _folder(info: SourceFile) -> Path:
    return info.path.parent.parent


class CutRequest(TypedDict):
    root: str
    budget: NotRequired[int]
    """Bytes of all episodes together; `unpack_into` adds it."""


class CutEpisodes(TypedDict):
    episodes: list[tuple[str, int, str | None]]
    """Name of the file, index and split of each."""
    excluded: list[tuple[str, str]]
    """Name and reason."""
    notes: list[str]


class Feature(BaseModel):
    model_config = ConfigDict(extra="ignore")
    dtype: str
    shape: tuple[int, ...] = ()
    names: Any = None


class Info(BaseModel):
    """`meta/info.json`, as far as it is needed here."""

    model_config = ConfigDict(extra="ignore")
    codebase_version: str
    fps: float = Field(gt=0)
    features: dict[str, Feature]
    data_path: str = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video_path: str | None = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    robot_type: str | None = None
    total_episodes: int = 0
    chunks_size: int = 1000
    splits: dict[str, str] = {}

    @property
    def old(self) -> bool:
        return self.codebase_version.startswith("v2.")

    def split_of(self, number: int) -> str | None:
        """The split of an episode; `splits` are ranges of episodes.

        A single range says nothing: LeRobot writes one while it records.
        """
        for name, span in self.splits.items() if len(self.splits) > 1 else ():
            first, colon, last = span.partition(":")
            if colon and first.isdigit() and last.isdigit() and int(first) <= number < int(last):
                return name
        return None

    def cameras(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature.dtype == "video"]

    def image_keys(self) -> list[str]:
        """Cameras whose frames lie in the rows."""
        return [key for key, feature in self.features.items() if feature.dtype == "image"]

    def numbers(self, *prefixes: str) -> list[str]:
        return [
            key
            for key, feature in self.features.items()
            if feature.dtype not in ("video", "image", "string", "language")
            and any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
        ]


class Span(NamedTuple):
    """Where the frames of a camera are."""

    path: str
    start: float
    stop: float


class Row(NamedTuple):
    """One episode, as `meta/` has it."""

    number: int
    length: int
    data: str
    spans: dict[str, Span]
    tasks: tuple[str, ...]
    columns: dict[str, str | int | float]


def cut_episodes(payload: CutRequest) -> CutEpisodes:
    """The service. INVALID where `meta/` is damaged or of another version: nothing can be cut then."""
    root, budget = Path(payload["root"]), payload["budget"]
    info = _info(root)
    tasks = _tasks(root, info)
    rows = list(_rows(root, info))
    seen, episodes, excluded, notes = (
        set[int](),
        list[tuple[str, int, str | None]](),
        list[tuple[str, str]](),
        list[str](),
    )
    encoded_again = 0
    for row in rows:
        name = f"episode-{row.number:06}.episode"
        if row.number in seen:
            excluded.append((name, f"Episode {row.number} is described twice in meta/episodes."))
            continue
        seen.add(row.number)
        try:
            made, again = _episode(root, info, tasks, row)
        except Exception as error:  # noqa: BLE001 - columns of other types than the format has, and what they lead to
            excluded.append((name, f"It cannot be cut: {type(error).__name__}: {str(error)[:200]}"))
            continue
        encoded_again += again
        budget -= len(made)
        if budget < 0:
            raise SpeciateError(Code.UNAVAILABLE, "The disk is full.", "Free some space and call again.")
        Path(name).write_bytes(made)
        episodes.append((name, row.number, info.split_of(row.number)))
    if info.total_episodes > len(episodes):
        missing = info.total_episodes - len(episodes)
        excluded.append(("meta/episodes", f"{missing} of {info.total_episodes} declared episodes are not described."))
    if encoded_again:
        notes.append(f"{encoded_again} parts of videos begin at no keyframe and were encoded again.")
    return {"episodes": episodes, "excluded": excluded, "notes": notes}


def _info(root: Path) -> Info:
    try:
        info = Info.model_validate(json.loads((root / "meta/info.json").read_bytes()))
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise _broken("meta/info.json", error) from error
    if not info.codebase_version.startswith(("v3.", "v2.1")):
        raise SpeciateError(
            Code.INVALID,
            f"This is a LeRobot dataset of version {info.codebase_version[:20]!r}; v3.0 and v2.1 are read.",
            "Convert it with LeRobot (python -m lerobot.scripts.convert_dataset_v21_to_v30 and those before it).",
        )
    return info


def _tasks(root: Path, info: Info) -> dict[int, str]:
    """Number of a task -> what it is in words. pandas writes the words as an index, which Parquet has as a column."""
    try:
        if info.old:
            lines = (root / "meta/tasks.jsonl").read_text("utf-8").splitlines()
            tasks = [json.loads(line) for line in lines if line.strip()]
            return {int(each["task_index"]): str(each["task"]) for each in tasks}
        table = pq.read_table(root / "meta/tasks.parquet")
        words = next(name for name in table.column_names if name != "task_index")
        return dict(zip(table["task_index"].to_pylist(), map(str, table[words].to_pylist()), strict=True))
    except FileNotFoundError:
        return {}
    except Exception as error:
        raise _broken("meta/tasks", error) from error


def _rows(root: Path, info: Info) -> Iterator[Row]:
    try:
        if info.old:
            lines = (root / "meta/episodes.jsonl").read_text("utf-8").splitlines()
            yield from (_old_row(info, json.loads(line)) for line in lines if line.strip())
            return
        files = sorted(root.glob("meta/episodes/*/*.parquet"))
        if not files:
            raise FileNotFoundError("there is no meta/episodes/chunk-*/file-*.parquet")
        for file in files:
            if pq.read_metadata(file).num_rows > _MOST_EPISODES:
                raise ValueError(f"more than {_MOST_EPISODES:,} episodes in {file.name}")
            names = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
            for row in pq.read_table(file, columns=names).to_pylist():
                yield _row(info, row)
    except SpeciateError:
        raise
    except Exception as error:
        raise _broken("meta/episodes", error) from error


def _row(info: Info, fields: Mapping[str, Any]) -> Row:
    data = info.data_path.format(
        chunk_index=int(fields["data/chunk_index"]), file_index=int(fields["data/file_index"])
    )  # fmt: skip
    spans = {}
    for key in info.cameras():
        at = f"videos/{key}/"
        if info.video_path is None or fields.get(f"{at}file_index") is None:
            continue
        path = info.video_path.format(
            video_key=key, chunk_index=int(fields[f"{at}chunk_index"]), file_index=int(fields[f"{at}file_index"])
        )
        spans[key] = Span(path, float(fields[f"{at}from_timestamp"]), float(fields[f"{at}to_timestamp"]))
    brought = {
        name: value
        for name, value in fields.items()
        if "/" not in name and name not in _PASSED_OVER and isinstance(value, str | int | float)
    }
    tasks = tuple(str(task) for task in fields.get("tasks") or ())
    columns = dict(list(brought.items())[:_MOST_COLUMNS])
    return Row(int(fields["episode_index"]), int(fields["length"]), data, spans, tasks, columns)


def _old_row(info: Info, fields: Mapping[str, Any]) -> Row:
    index, length = int(fields["episode_index"]), int(fields["length"])
    place = {"episode_chunk": index // info.chunks_size, "episode_index": index}
    video = info.video_path if info.video_path and "{episode_index" in info.video_path else _OLD_VIDEO
    data = info.data_path if "{episode_index" in info.data_path else _OLD_DATA
    spans = {
        key: Span(video.format(video_key=key, **place), 0.0, length / info.fps) for key in info.cameras()
    }  # fmt: skip
    return Row(index, length, data.format(**place), spans, tuple(map(str, fields.get("tasks") or ())), {})


def _episode(root: Path, info: Info, tasks: Mapping[int, str], row: Row) -> tuple[bytes, int]:
    """The episode's bundle, and how many of its videos were encoded again."""
    faults: list[str] = []
    table = _steps(root, row, faults)
    steps = table.num_rows
    state, state_names = _matrix(table, info, info.numbers("observation"), faults)
    action, action_names = _matrix(table, info, info.numbers("action"), faults)
    times = _times(table, info, row, faults)
    videos, video_times, again = dict[str, bytes](), dict[str, Times](), 0
    for key in info.cameras():
        name, made = _camera_name(key), _video(root, info, key, row, times, faults)
        if made is not None:
            videos[name], video_times[name] = made.data, times
            again += made.encoded_again
    for key in info.image_keys():
        try:
            videos[_camera_name(key)] = footage.encode(_images(table[key]), times.tolist(), info.fps)
            video_times[_camera_name(key)] = times
        except Exception as error:  # noqa: BLE001 - of damaged images Pillow raises what it likes
            faults.append(f"The images of {key!r} are damaged: {str(error)[:100]}")
    others = {name: _column(table, f"next.{name}") for name in OTHERS if f"next.{name}" in table.column_names}
    session = next((str(row.columns[name]) for name in _SESSIONS if name in row.columns), None)
    meta = Meta(
        steps=row.length,
        fps=info.fps,
        state=state_names,
        action=action_names,
        cameras=tuple(_camera_name(key) for key in (*info.cameras(), *info.image_keys())),
        task=_task(table, tasks, row),
        robot=info.robot_type or "",
        episode=row.number,
        session=session,
        columns=row.columns,
        faults=tuple(faults),
    )
    times = times if len(times) == steps else np.arange(steps) / info.fps
    return write(EpisodeFiles(meta, times, state, action, videos, video_times, others)), again


def _steps(root: Path, row: Row, faults: list[str]) -> pa.Table:
    """The rows of the episode in their order; a fault if their number differs from the declared one."""
    try:
        table = _data(str(_below(root, row.data)))
    except FileNotFoundError:
        faults.append(f"The file {row.data!r} with its steps is missing.")
        return pa.table({})
    except Exception as error:  # noqa: BLE001 - of damaged files Arrow raises what it likes
        faults.append(f"The file {row.data!r} with its steps is damaged: {str(error)[:100]}")
        return pa.table({})
    if "episode_index" in table.column_names:
        table = table.filter(pc.equal(table["episode_index"], row.number))
    if "frame_index" in table.column_names:
        table = table.sort_by("frame_index")
    if table.num_rows != row.length:
        faults.append(f"{row.data!r} has {table.num_rows:,} steps of it where meta/episodes declares {row.length:,}.")
    return table


@lru_cache(maxsize=1)
def _data(path: str) -> pa.Table:
    """Episodes of one file follow each other."""
    return pq.read_table(path)


def _below(root: Path, name: str) -> Path:
    """A path of the dataset; what a template makes of it must not lead elsewhere."""
    path = root / name
    if ".." in path.parts or Path(name).is_absolute():
        raise ValueError("its path leads out of the dataset")
    return path


def _matrix(table: pa.Table, info: Info, keys: list[str], faults: list[str]) -> tuple[Any, tuple[str, ...]]:
    """(T, K) float32 of features side by side, and a name for each column."""
    parts, names = [np.zeros((table.num_rows, 0), np.float32)], list[str]()
    for key in keys:
        width = max(1, int(np.prod(info.features[key].shape or (1,))))
        own = _names(key, info.features[key], width)
        if key not in table.column_names:
            faults.extend([f"The steps have no column {key!r}."] if table.num_rows else [])
            continue
        try:
            values = np.array(table[key].to_pylist(), np.float32).reshape(table.num_rows, -1)
        except (ValueError, TypeError):
            faults.append(f"The column {key!r} does not hold {width} numbers in each step.")
            continue
        if table.num_rows and values.shape[1] != width:
            faults.append(
                f"The column {key!r} holds {values.shape[1]} numbers in each step where {width} are declared."
            )
            continue
        parts.append(values if table.num_rows else np.zeros((0, width), np.float32))
        names += own
    return np.concatenate(parts, axis=1), _unique(names)


def _names(key: str, feature: Feature, width: int) -> list[str]:
    """`names` is a list, or a list for each part of the robot; else numbers."""
    names = feature.names
    if isinstance(names, dict):
        names = [name for each in names.values() for name in (each if isinstance(each, list) else [each])]
    if (isinstance(names, list) and len(names) == width and width > 1) or (names and len(names) == 1 == width):
        return [str(name) for name in names]
    return [key] if width == 1 else [f"{key}.{place}" for place in range(width)]


def _unique(names: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        chosen, number = name, 2
        while chosen in found:
            chosen, number = f"{name}_{number}", number + 1
        found.append(chosen)
    return tuple(found)


def _column(table: pa.Table, name: str) -> Any:
    return np.array(table[name].to_pylist(), np.float32).reshape(table.num_rows)


def _times(table: pa.Table, info: Info, row: Row, faults: list[str]) -> Times:
    """Seconds of each step, (T,). They must lie within a quarter of a step of what the rate says, so that a step has
    one frame."""
    expected = np.arange(table.num_rows) / info.fps
    if "timestamp" not in table.column_names:
        return expected
    times = np.array(table["timestamp"].to_pylist(), np.float64).reshape(-1)
    off = ~(np.abs(times - expected) <= 0.25 / info.fps)
    if off.any():
        place = int(off.argmax())
        faults.append(
            f"The timestamp of step {place} is {times[place]:.4f} s; {info.fps:g} steps a second make it "
            f"{expected[place]:.4f} s."
        )
        return expected
    return times


def _task(table: pa.Table, tasks: Mapping[int, str], row: Row) -> str:
    """The tasks of the steps, each once in their order; else those of the episode."""
    if "task_index" in table.column_names and table.num_rows:
        numbers = dict.fromkeys(table["task_index"].to_pylist())
        found = [tasks[number] for number in numbers if number in tasks]
        if found:
            return "; ".join(found)
    return "; ".join(row.tasks)


def _camera_name(key: str) -> str:
    """`observation.images.front` -> `front`; a name of a file."""
    short = key.removeprefix("observation.").removeprefix("images.")
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in short)[:64] or "camera"


def _images(column: pa.ChunkedArray) -> Iterator[Pixels]:
    from PIL import Image

    for cell in column.to_pylist():
        with Image.open(io.BytesIO(cell["bytes"]), formats=("PNG", "JPEG")) as image:
            yield np.asarray(image.convert("RGB"))


class Clip(NamedTuple):
    data: bytes
    encoded_again: bool


def _video(root: Path, info: Info, key: str, row: Row, times: Times, faults: list[str]) -> Clip | None:
    """The frames of the episode as a video of their own, the first of them at 0."""
    if (span := row.spans.get(key)) is None:
        faults.append(f"meta/episodes does not say where the video of {key!r} is.")
        return None
    try:
        data = _below(root, span.path).read_bytes()
    except FileNotFoundError:
        faults.append(f"The video {span.path!r} of {key!r} is missing.")
        return None
    except (OSError, ValueError) as error:
        faults.append(f"The video {span.path!r} of {key!r} cannot be read: {str(error)[:100]}")
        return None
    try:
        clip, shown = clip_video(data, key, span.start, span.stop, info.fps)
    except DecodeError as error:
        faults.append(f"{span.path!r}, {span.start:.3f} to {span.stop:.3f} s: {error.detail}")
        return None
    if len(shown) != row.length:
        faults.append(
            f"{span.path!r} has {len(shown):,} frames from {span.start:.3f} to {span.stop:.3f} s where meta/episodes "
            f"declares {row.length:,} steps."
        )
    elif len(times) == row.length and (off := np.abs(shown - times) > 0.25 / info.fps).any():
        place = int(off.argmax())
        faults.append(
            f"Frame {place} of {key!r} is shown at {shown[place]:.4f} s, and its step was at {times[place]:.4f} s."
        )
    return clip


def clip_video(data: bytes, name: str, start: float, stop: float, fps: float) -> tuple[Clip, Times]:
    """The frames that are shown from `start` up to `stop` seconds, and when each is shown after the first of them.

    DecodeError if there are none, or the video is damaged.
    """
    edge = 0.5 / fps
    with footage.open_video(data, name) as container:
        stream = container.streams.video[0]
        packets = _packets(container, stream, start - edge, stop - edge)
        base = float(stream.time_base or 0)
        shown = np.sort(np.array([packet.pts for packet in packets.inside], np.int64)) * base
        if not len(shown):
            raise DecodeError("partial", "no frame is shown then.")
        times = shown - shown[0]
        if packets.whole:
            return Clip(_copy_packets(stream, packets.inside), encoded_again=False), times
    frames = _decode_frames(data, name, start - edge, stop - edge)
    if len(frames) != len(times):
        raise DecodeError("partial", f"{len(frames):,} of {len(times):,} frames decode.")
    return Clip(footage.encode(frames, times.tolist(), fps), encoded_again=True), times


class _Packets(NamedTuple):
    inside: list[Any]
    """The packets, in the order in which they are decoded."""
    whole: bool
    """Whether they decode without any other: from a keyframe on, with nothing between them that is shown elsewhere."""


def _packets(container: Any, stream: Any, start: float, stop: float) -> _Packets:
    container.seek(max(0, int(start / stream.time_base)), stream=stream)
    inside: list[Any] = []
    whole, ended = True, False
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None:
            continue
        time = float(packet.pts * stream.time_base)
        if start <= time < stop:
            whole = whole and not ended and (bool(inside) or packet.is_keyframe)
            inside.append(packet)
        elif inside:
            ended = True
            if time >= stop and packet.is_keyframe:
                break
    return _Packets(inside, whole and bool(inside) and inside[0].pts == min(packet.pts for packet in inside))


def _copy_packets(stream: Any, packets: list[Any]) -> bytes:
    """The packets as they are, in an MP4 whose first frame is shown at 0."""
    import av

    buffer, begin = io.BytesIO(), packets[0].pts
    with av.open(buffer, "w", format="mp4") as container:
        copy = container.add_stream_from_template(stream, opaque=True)  # else it wants an encoder of this name
        for packet in packets:
            packet.pts, packet.dts, packet.stream = packet.pts - begin, packet.dts - begin, copy
            container.mux(packet)
    return buffer.getvalue()


def _decode_frames(data: bytes, name: str, start: float, stop: float) -> list[Pixels]:
    with footage.open_video(data, name) as container:
        stream: Any = container.streams.video[0]
        container.seek(max(0, int(start / stream.time_base)), stream=stream)
        found: list[Pixels] = []
        for frame in container.decode(stream):
            time = float((frame.pts or 0) * stream.time_base)
            if time >= stop:
                break
            if time >= start:
                found.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    return found


def _broken(what: str, error: Exception) -> SpeciateError:
    return SpeciateError(Code.INVALID, f"{what} of the LeRobot dataset is damaged: {str(error)[:200]}", _MEND)
