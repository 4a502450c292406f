"""Episodes of a robot: measurements (state), commands (action) and camera frames of each step.

One example is one episode: a bundle of `steps.parquet`, `meta.json` and a video for each camera (episode_files.py), as
made of each episode of a LeRobot dataset, or an MCAP file (mcap.py). Decoded it is small: numbers in float32, and
frames of at most 96 pixels, of all cameras together at most 64 MB. In a longer episode every second or third step has a
frame; its windows have all frames.

There is no sketch: two demonstrations of one task look alike, but are different examples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.contract import (
    LARGEST_THUMBNAIL,
    DecodeError,
    Header,
    Modality,
    Pixels,
    Vector,
)
from speciate.modalities.robotics import episode_files, mcap
from speciate.modalities.robotics.episode_files import Recording, Track
from speciate.modalities.time_series import TIME_SERIES

_MOST_FRAME_BYTES = 64 * 1024 * 1024
_LONGEST_WORDS = 500
_GRID = 8  # pixels of a side, in `features`
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
_ACROSS, _MOST_ROWS, _WORDS = 5, 2, 13
_PLOT = 64


class Camera(TypedDict):
    frames: Pixels  # (F, h, w, 3)
    steps: npt.NDArray[np.int32]
    """(F,) ascending: the step of each frame. Steps without a frame of their own have the last one before."""


class About(TypedDict):
    fps: float
    state: list[str]
    action: list[str]
    task: str


class Episode(TypedDict):
    times: Vector  # (T,) seconds since the first step
    state: Vector  # (T, S)
    action: Vector  # (T, A)
    cameras: dict[str, Camera]
    about: About


class Episodes(Modality[Episode]):
    name = "episode"
    suffixes = (".episode", ".mcap")
    window_unit = "steps"
    default_group = "session"
    thumbnail_side = LARGEST_THUMBNAIL

    def sniff(self, head: bytes, name: str) -> bool:
        if head.startswith(mcap.MAGIC):
            return True
        if not is_bundle(head):
            return False
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return first.startswith(episode_files.CAMERAS.encode()) or episode_files.STEPS.encode() in head

    def inspect(self, data: bytes) -> Header:
        if data.startswith(mcap.MAGIC):
            found = mcap.facts(data)
            fields: dict[str, str | int | float] = {
                "messages": found.messages, "seconds": round(found.seconds, 3), "topics": ", ".join(found.topics)
            }  # fmt: skip
            return Header(max(1, 64 * found.messages), _short(fields))
        meta = episode_files.read_meta(members_of(data))
        values = len(meta.state) + len(meta.action) + 1
        fields = {
            "steps": meta.steps, "seconds": round(meta.steps / meta.fps, 3), "fps": round(meta.fps, 3),
            "cameras": ", ".join(meta.cameras), "state_width": len(meta.state), "action_width": len(meta.action),
            "task": meta.task, "robot": meta.robot, "episode": meta.episode,
        }  # fmt: skip
        if meta.session is not None:
            fields["session"] = meta.session
        brought = {name: value for name, value in meta.columns.items() if name not in fields}
        return Header(max(1, 4 * meta.steps * values), _short(fields | brought))

    def decode(self, data: bytes) -> Episode:
        recording = _read(data)
        return _decoded(recording, 0, len(recording.times), whole=True)

    def decode_window(self, data: bytes, start: float, stop: float) -> Episode:
        """The steps from `start` to `stop`; of videos it decodes only from the keyframe before the window to its
        end."""
        recording = _read(data)
        begin, end = round(start), min(round(stop), len(recording.times))
        if begin >= end:
            raise DecodeError("error", f"No steps from {begin} to {end} in {len(recording.times)} steps.")
        return _decoded(recording, begin, end, whole=False)

    def admit(self, value: Any) -> Episode:
        """`value`: the bytes of a file; or {"state": [T][S], "action"?: [T][A], "fps"?: number}, without cameras."""
        if isinstance(value, bytes):
            return self.decode(value)
        if not isinstance(value, dict) or "state" not in value:
            raise DecodeError("error", 'An episode is the bytes of a file, or {"state": [[...]], "action": [[...]]}.')
        state = _matrix(value["state"], "state")
        action = _matrix(value["action"], "action") if value.get("action") else np.zeros((len(state), 0), np.float32)
        if len(state) != len(action):
            raise DecodeError("error", f"{len(state)} steps of state and {len(action)} of action.")
        episode_files.check_size(len(state), state.shape[1] + action.shape[1], 0)
        fps = value.get("fps", 1.0)
        if not isinstance(fps, int | float) or not 0 < fps < math.inf:
            raise DecodeError("error", "fps is a number above 0.")
        names = [[f"{kind}.{place}" for place in range(each.shape[1])] for kind, each in
                 (("state", state), ("action", action))]  # fmt: skip
        about: About = {"fps": float(fps), "state": names[0], "action": names[1], "task": ""}
        times = (np.arange(len(state)) / fps).astype(np.float32)
        return {"times": times, "state": state, "action": action, "cameras": {}, "about": about}

    def fingerprint(self, media: Episode) -> str:
        """Hash of state, action and task, as the encoding of the video carries no meaning; of an episode without
        numbers, of its frames, too."""
        found = hashlib.sha256(media["about"]["task"].encode("utf-8", "surrogatepass"))
        for values in (media["state"], media["action"]):
            found.update(f"{values.shape}".encode() + (np.round(values, 5) + 0.0).astype("<f4").tobytes())
        if not media["state"].size + media["action"].size:
            for camera in media["cameras"].values():
                found.update(camera["frames"].tobytes())
        return found.hexdigest()

    def measure(self, media: Episode) -> dict[str, int | float]:
        """Values to filter by: length, largest action, change of the actions, share of constant state."""
        steps, action = len(media["times"]), media["action"].astype(np.float64)
        change = np.abs(np.diff(action, axis=0)).mean() if steps > 1 and action.size else 0.0
        still = (np.ptp(media["state"], axis=0) == 0).mean() if media["state"].size else 0.0
        return {
            "steps": steps,
            "seconds": round(steps / media["about"]["fps"], 3),
            "state_width": media["state"].shape[1],
            "action_width": media["action"].shape[1],
            "action_largest": round(float(np.abs(action).max()) if action.size else 0.0, 6),
            "action_change": round(float(change), 6),
            "still_share": round(float(still), 4),
        }

    def describe(self, media: Episode) -> Vector:
        """(D,) of the same length for episodes of one robot: level, spread, change, rhythm and shape of each number
        (time_series.py), and the first camera's first and last frame."""
        numbers = _numbers(media)
        series = [TIME_SERIES.describe(numbers)] if len(numbers) else []
        return np.concatenate([*series, _first_and_last(media)])

    def features(self, media: Episode) -> Vector:
        """(536,): the features of a time series of state and action, and the first camera's first and last frame."""
        numbers = _numbers(media)
        if not len(numbers):
            numbers = np.zeros((1, len(media["times"])), np.float32)
        return np.concatenate([TIME_SERIES.features(numbers), _first_and_last(media)])

    def thumbnail(self, media: Episode) -> Pixels:
        """Frames of the cameras over time, and below them state and action."""
        plots = [(name, media[name]) for name in ("state", "action") if media[name].size]
        words = f"{len(media['times']):,} steps, {media['about']['fps']:.3g} a second. {media['about']['task']}"
        return _draw_filmstrip(
            [(name, list(camera["frames"])) for name, camera in media["cameras"].items()], plots, words
        )

    def window(self, media: Episode, start: float, stop: float) -> Episode:
        begin, end = round(start), min(round(stop), len(media["times"]))
        return {
            "times": media["times"][begin:end] - media["times"][begin],
            "state": media["state"][begin:end],
            "action": media["action"][begin:end],
            "cameras": {name: _cut(camera, begin, end) for name, camera in media["cameras"].items()},
            "about": media["about"],
        }


def frames_of_steps(media: Episode, camera: str) -> npt.NDArray[np.int64]:
    """(T,) for each step the place of its frame: its own, else the last before, else the first."""
    steps = media["cameras"][camera]["steps"]
    return np.maximum(np.searchsorted(steps, np.arange(len(media["times"])), side="right") - 1, 0)


def _read(data: bytes) -> Recording:
    if data.startswith(mcap.MAGIC):
        return mcap.read(data)
    if not is_bundle(data):
        raise DecodeError("error", "Neither an MCAP file nor the bundle of an episode.")
    return episode_files.read(data)


def _decoded(recording: Recording, begin: int, end: int, *, whole: bool) -> Episode:
    """The steps from `begin` up to `end`; `whole`: all of each video is decoded and checked."""
    count = end - begin
    size = sum(track.frame_bytes for track in recording.tracks.values()) * count
    stride = max(1, -(-size // _MOST_FRAME_BYTES))
    about: About = {
        "fps": recording.meta.fps, "state": list(recording.meta.state), "action": list(recording.meta.action),
        "task": recording.meta.task,
    }  # fmt: skip
    return {
        "times": (recording.times[begin:end] - recording.times[begin]).astype(np.float32),
        "state": recording.state[begin:end],
        "action": recording.action[begin:end],
        "cameras": {
            name: _camera(name, track, begin, end, stride, whole=whole) for name, track in recording.tracks.items()
        },
        "about": about,
    }


def _camera(name: str, track: Track, begin: int, end: int, stride: int, *, whole: bool) -> Camera:
    """Every step's frame must be there, even if it is not kept."""
    if (np.diff(track.times[begin:end]) < 0).any():
        raise DecodeError("error", f"The times of the camera {name!r} go backwards.")
    wanted, first = np.unique(track.times[begin:end], return_index=True)
    frames, found = track.frames(wanted, whole, stride)
    if not found.all():
        missing, place = int((~found).sum()), int(np.argmin(found))
        detail = f"The camera {name!r} has no frame for {missing:,} of {len(found):,} steps, first for step "
        raise DecodeError("partial", f"{detail}{begin + int(first[place])}.")
    return {"frames": frames, "steps": first[::stride].astype(np.int32)}


def _cut(camera: Camera, begin: int, end: int) -> Camera:
    """The camera's frames, with the last one before the first step if that step has none of its own."""
    low = max(int(np.searchsorted(camera["steps"], begin, side="right")) - 1, 0)
    high = max(int(np.searchsorted(camera["steps"], end)), low + 1)
    steps = np.maximum(camera["steps"][low:high] - begin, 0).astype(np.int32)
    return {"frames": camera["frames"][low:high], "steps": steps}


def _numbers(media: Episode) -> npt.NDArray[np.float32]:
    """(S + A, T)"""
    return np.concatenate([media["state"], media["action"]], axis=1).T


def _first_and_last(media: Episode) -> Vector:
    """(128,) gray, 0 to 1, of the first camera's first and last frame."""
    frames = next((camera["frames"] for camera in media["cameras"].values() if len(camera["frames"])), None)
    if frames is None:
        return np.zeros(2 * _GRID * _GRID, np.float32)
    return np.concatenate([_gray(frames[0]), _gray(frames[-1])])


def _gray(frame: Pixels) -> Vector:
    from PIL import Image

    small = Image.fromarray(frame).convert("L").resize((_GRID, _GRID), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / np.float32(255)


def _matrix(value: Any, what: str) -> Vector:
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise DecodeError("error", f"{what} is a list of rows of numbers, all of one length.") from error
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.size:
        raise DecodeError("error", f"{what} is [T][K], not of shape {found.shape}.")
    episode_files.check_finite(found, what)
    return found.astype(np.float32)


def _short(fields: dict[str, str | int | float]) -> dict[str, str | int | float]:
    """Empty texts are no column; long ones are cut."""
    return {
        name: value[:_LONGEST_WORDS] if isinstance(value, str) else value
        for name, value in fields.items()
        if value != "" and (not isinstance(value, float) or math.isfinite(value))
    }


def _draw_filmstrip(
    cameras: Sequence[tuple[str, Sequence[Pixels]]], plots: Sequence[tuple[str, npt.NDArray[np.float32]]], below: str
) -> Pixels:
    """Frames over time, and below them curves on the same time.

    `cameras`: name and frames in the order of time, of which at most five are shown, of the first two cameras;
    `plots`: name and values (T, K), each column on its own scale; `below`: a caption. At most 320 x 320.
    """
    from PIL import Image, ImageDraw

    cell = LARGEST_THUMBNAIL // _ACROSS
    rows = [(name, frames) for name, frames in cameras[:_MOST_ROWS] if len(frames)]
    heights = [min(cell, round(cell * frames[0].shape[0] / frames[0].shape[1])) for _, frames in rows]
    height = sum(each + _WORDS for each in heights) + len(plots) * (_PLOT + _WORDS) + _WORDS + 2
    card = Image.new("RGB", (LARGEST_THUMBNAIL, height), "white")
    draw = ImageDraw.Draw(card)
    top = 0
    for (name, frames), tall in zip(rows, heights, strict=True):
        _label(draw, top, name if len(cameras) <= _MOST_ROWS else f"{name} ({len(cameras)} cameras)")
        top += _WORDS
        places = np.linspace(0, len(frames) - 1, min(_ACROSS, len(frames))).round().astype(int)
        for column, place in enumerate(places):
            frame = Image.fromarray(frames[place])
            scale = min((cell - 2) / frame.width, tall / frame.height)
            size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
            card.paste(frame.resize(size, Image.Resampling.BILINEAR), (column * cell, top))
        top += tall
    for name, values in plots:
        _label(draw, top, f"{name} ({values.shape[1]})")
        _curves(draw, top + _WORDS, values)
        top += _WORDS + _PLOT
    _label(draw, top + 2, below)
    return np.asarray(card)


def _curves(draw: object, top: int, values: npt.NDArray[np.float32]) -> None:
    from PIL import ImageDraw

    assert isinstance(draw, ImageDraw.ImageDraw)
    draw.rectangle((0, top, LARGEST_THUMBNAIL - 1, top + _PLOT - 1), outline="#dddddd")
    x = np.linspace(3, LARGEST_THUMBNAIL - 4, max(len(values), 2))
    for column, colour in zip(values.T[: len(_COLOURS)].astype(np.float64), _COLOURS, strict=False):
        low, high = column.min(), column.max()
        share = (column - low) / (high - low) if high > low else np.full(len(column), 0.5)
        y = top + 4 + (1 - share) * (_PLOT - 9)
        y = np.repeat(y, 2) if len(y) == 1 else y
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour)


def _label(draw: object, top: int, text: str) -> None:
    from PIL import ImageDraw

    assert isinstance(draw, ImageDraw.ImageDraw)
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:52]
    draw.text((2, top + 1), shown, fill="black")


EPISODE = Episodes()
