"""Videos in MP4, MOV, Matroska, WebM and AVI, as models see them: at most 32 frames, evenly spaced over the video or a
window of it, upright, the shorter side at most 224 pixels, each with the second at which it is shown.

A file is judged by its packets, all of which are counted against what the header declares (index.py), and by
three frames at the same shares of every video's length, which are compared with those of others. Where a part of the
bytes was altered without their number changing, decoders conceal it: a frame that cannot be decoded is left out, and
what was guessed of others is not told. Frames that a time stamp says are shown again are frames.

Near the end of long videos with few keyframes, decoding up to a frame takes long: beyond a number of pixels the
keyframe before it is taken in its place.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypedDict

import numpy as np

from speciate.modalities.contract import (
    LARGEST_THUMBNAIL,
    DecodeError,
    Header,
    Judgement,
    Modality,
    Pixels,
    Vector,
)
from speciate.modalities.sketches import GRID
from speciate.modalities.videos.containers import SOUND, container_of
from speciate.modalities.videos.index import Index, Opened, Ticks, index, opened, span
from speciate.modalities.videos.motion import gray, looks, motion
from speciate.modalities.videos.sketches import CLIPS

MOST_FRAMES = 32
SHORTER_SIDE = 224
_LONGER_SIDE = 4 * SHORTER_SIDE
_MOST_DECODED = 2_000_000_000
"""Pixels for one medium: some seconds."""
_MOST_JUDGED = 300_000_000
"""Pixels for the frames by which a file is judged."""
_SHARES = np.arange(CLIPS.count) / (2 * (CLIPS.count - 1))
"""Of its length, where a video is compared with others: the beginning, a quarter, the half."""
_SHEET = 3
"""Frames in a row of a contact sheet, and rows."""
_SEGMENTS = 4


class Clip(TypedDict):
    frames: Pixels
    """(T, H, W, 3), T at least 1 and at most 32."""
    times: Vector
    """(T,): at which second of the file each begins to be shown, ascending."""


class Video(Modality[Clip]):
    name = "video"
    suffixes = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
    sketching = CLIPS
    window_unit = "seconds"
    mark_units = ("frames", "keyframes")
    thumbnail_side = LARGEST_THUMBNAIL

    def sniff(self, head: bytes, name: str) -> bool:
        lower = name.lower()
        if head[4:8] == b"ftyp" and (head[8:12] in SOUND or lower.endswith(".m4a")):
            return False
        kind = container_of(head)
        return kind is not None or lower.endswith(self.suffixes)

    def inspect(self, data: bytes) -> Header:
        with opened(data) as video:
            return _header(video, index(data, video))

    def decode(self, data: bytes) -> Clip:
        with opened(data) as video:
            found = _whole(data, video)
            judged = _judged_stamps(video, found)
            seen = _affordable(video, _spaced(found.stamps), found.keys, found.stamps)
            pictures = _pictures(video, np.concatenate([judged, seen]), found.keys)
            _check(video, judged, pictures)
            shown = {stamp: pictures[stamp] for stamp in seen.tolist() if stamp in pictures}
            return _clip(video, shown or pictures)

    def judge(self, data: bytes) -> Judgement:
        with opened(data) as video:
            found = _whole(data, video)
            judged = _judged_stamps(video, found)
            pictures = _pictures(video, judged, found.keys)
            _check(video, judged, pictures)
            header = _header(video, found)
        seen = [gray(pictures[stamp], GRID) for stamp in judged.tolist()]
        name = f"{header.fields['codec']} {header.fields['frames']} {found.packets.hex()}"
        return Judgement(header, name, _measures(seen), CLIPS.sketch(seen))

    def decode_window(self, data: bytes, start: float, stop: float) -> Clip:
        """Reads from the keyframe before `start` on. Where no frame begins in the window, the one that is shown."""
        with opened(data) as video:
            first, last = video.ticks(start), video.ticks(stop)
            found = span(video, first, max(last, first + 1))
            chosen = _affordable(video, _spaced(found.stamps), found.keys, found.stamps)
            pictures = _pictures(video, chosen, found.keys)
            if not pictures:
                raise DecodeError("error", f"No frame between {start:g} and {stop:g} seconds can be decoded.")
            return _clip(video, pictures)

    def marks(self, data: bytes, unit: str) -> list[float]:
        with opened(data) as video:
            found = _whole(data, video)
            stamps = found.stamps if unit == "frames" else found.keys
            return [float(second) for second in video.seconds(np.append(stamps, found.end))]

    def admit(self, value: Any) -> Clip:
        """`value`: encoded bytes."""
        if not isinstance(value, bytes):
            raise DecodeError("error", "A video must be the bytes of a file.")
        return self.decode(value)

    def fingerprint(self, media: Clip) -> str:
        """Of the pixels that models see."""
        frames = media["frames"]
        return f"{frames.shape} {hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()}"

    def measure(self, media: Clip) -> dict[str, int | float]:
        """Mean and spread of the gray values of three frames, between 0 and 1, and by how much these differ."""
        return _measures(_compared(media))

    def describe(self, media: Clip) -> Vector:
        """(384,): how it looks, and of four parts of it how much moves where and whither."""
        return np.concatenate([looks(media["frames"]), motion(media["frames"], media["times"], _SEGMENTS)])

    def features(self, media: Clip) -> Vector:
        """(228,): how it looks, and how much moves where and whither over its whole length."""
        return np.concatenate([looks(media["frames"]), motion(media["frames"], media["times"], 1)])

    def thumbnail(self, media: Clip) -> Pixels:
        """Nine frames from left to right and down, each with its second."""
        from PIL import Image, ImageDraw

        frames, times = media["frames"], media["times"]
        chosen = np.unique(np.linspace(0, len(frames) - 1, min(_SHEET * _SHEET, len(frames))).round().astype(int))
        across = min(_SHEET, len(chosen))
        down = -(-len(chosen) // across)
        height, width = frames.shape[1:3]
        scale = min(self.thumbnail_side / (across * width), self.thumbnail_side / (down * height))
        wide, high = max(int(width * scale), 1), max(int(height * scale), 1)
        sheet = Image.new("RGB", (across * wide, down * high), "white")
        for place, frame in enumerate(chosen.tolist()):
            x, y = place % across * wide, place // across * high
            size = max(wide - 1, 1), max(high - 1, 1)  # a white line between
            sheet.paste(Image.fromarray(frames[frame]).resize(size, Image.Resampling.BILINEAR), (x, y))
            draw, said = ImageDraw.Draw(sheet), f"{times[frame]:.2f} s"
            draw.rectangle((x, y + high - 12, x + draw.textlength(said) + 4, y + high), fill="black")
            draw.text((x + 2, y + high - 1), said, fill="white", anchor="ls")
        return np.asarray(sheet)

    def sketch(self, media: Clip) -> bytes | None:
        return CLIPS.sketch(_compared(media))

    def window(self, media: Clip, start: float, stop: float) -> Clip:
        """Of the frames that are there: at least the one that is shown when it begins."""
        times = media["times"]
        first = int(np.searchsorted(times, np.float32(start)))
        last = int(np.searchsorted(times, np.float32(stop)))
        if last <= first:
            first = max(first - 1, 0)
            last = first + 1
        return Clip(frames=media["frames"][first:last], times=times[first:last])


def _header(video: Opened, found: Index) -> Header:
    seconds = float((found.end - int(found.stamps[0])) * video.tick)
    height, width = _side(video)
    fields: dict[str, str | int | float] = {
        "codec": found.codec,
        "width": video.width,
        "height": video.height,
        "fps": round(len(found.stamps) / max(seconds, 1e-6), 3),
        "frame_rate": found.rate.frame_rate,
        "seconds": round(seconds, 3),
        "frames": len(found.stamps),
        "keyframes": len(found.keys),
        "gaps": found.rate.gaps,
        "missing_frames": found.rate.missing_frames,
        "audio_codec": found.sound.codec,
        "audio_seconds": found.sound.seconds,
        "audio_channels": found.sound.channels,
        "format": video.container.format.name.partition(",")[0],
    }
    return Header(min(len(found.stamps), MOST_FRAMES) * height * width * 3, fields)


def _whole(data: bytes, video: Opened) -> Index:
    """The index of a video of which nothing is missing; PARTIAL where something is."""
    found = index(data, video)
    if found.missing is not None:
        raise DecodeError("partial", found.missing)
    return found


def _judged_stamps(video: Opened, found: Index) -> Ticks:
    """(3,), some of which may be the same."""
    places = (_SHARES * len(found.stamps)).astype(np.int64)
    return _affordable(video, found.stamps[places], found.keys, found.stamps, _MOST_JUDGED)


def _check(video: Opened, judged: Ticks, pictures: dict[int, Pixels]) -> None:
    for stamp in judged.tolist():
        if stamp not in pictures:
            second = float((stamp - video.origin) * video.tick)
            raise DecodeError("error", f"The frame at {second:.3f} seconds cannot be decoded.")


def _spaced(stamps: Ticks) -> Ticks:
    """At most 32 of them, evenly spaced in time: all where there are no more."""
    if len(stamps) <= MOST_FRAMES:
        return stamps
    wanted = np.linspace(stamps[0], stamps[-1], MOST_FRAMES)
    after = np.searchsorted(stamps, wanted).clip(1, len(stamps) - 1)
    nearer_before = wanted - stamps[after - 1] <= stamps[after] - wanted
    return np.unique(stamps[np.where(nearer_before, after - 1, after)])


def _affordable(video: Opened, wanted: Ticks, keys: Ticks, stamps: Ticks, most: int = _MOST_DECODED) -> Ticks:
    """`wanted`, or the keyframes before them where too much would have to be decoded on the way."""
    before = np.searchsorted(keys, wanted, side="right").clip(1) - 1
    way = np.searchsorted(stamps, wanted) - np.searchsorted(stamps, keys[before])
    longest = np.zeros(len(keys), np.int64)
    np.maximum.at(longest, before, way + 1)
    if int(longest.sum()) * video.width * video.height <= most:
        return wanted
    snapped: Ticks = keys[before]
    return snapped


def _pictures(video: Opened, wanted: Ticks, keys: Ticks) -> dict[int, Pixels]:
    """Time stamp -> (H, W, 3), as models see it. In the place of a frame that cannot be decoded stands the one before;
    where there is none after the keyframe, it is left out. Each run from a keyframe on is decoded by itself, so that a
    frame does not depend on what else is wanted."""
    found: dict[int, Pixels] = {}
    wanted = np.unique(wanted)
    before = np.searchsorted(keys, wanted, side="right").clip(1) - 1
    for place in np.unique(before).tolist():
        found |= _run(video, int(keys[place]), wanted[before == place].tolist())
    return found


def _run(video: Opened, key: int, wanted: list[int]) -> dict[int, Pixels]:
    """`wanted`: ascending."""
    import av

    found: dict[int, Pixels] = {}
    shown: Any = None
    stream = video.stream
    video.container.seek(key, stream=stream, backward=True)
    for packet in video.container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if frame.pts is None or frame.pts < key:
                continue
            while frame.pts > wanted[len(found)]:
                if shown is None:
                    return {}
                found[wanted[len(found)]] = _upright(video, shown)
                if len(found) == len(wanted):
                    return found
            shown = frame
    return found | ({stamp: _upright(video, shown) for stamp in wanted[len(found) :]} if shown is not None else {})


def _upright(video: Opened, frame: Any) -> Pixels:
    height, width = _side(video)
    turned = video.rotation in (90, 270)
    size = {"width": height, "height": width} if turned else {"width": width, "height": height}
    pixels = frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, video.rotation // 90))


def _side(video: Opened) -> tuple[int, int]:
    """Height and width in which models see it."""
    short, long = sorted((video.width, video.height))
    scale = min(1.0, SHORTER_SIDE / short, _LONGER_SIDE / long)
    return max(round(video.height * scale), 1), max(round(video.width * scale), 1)


def _clip(video: Opened, pictures: dict[int, Pixels]) -> Clip:
    stamps = sorted(pictures)
    times = video.seconds(np.array(stamps, np.int64)).astype(np.float32)
    return Clip(frames=np.stack([pictures[stamp] for stamp in stamps]), times=times)


def _compared(media: Clip) -> list[Pixels]:
    """The gray pictures by which a clip is compared with others."""
    places = (_SHARES * len(media["frames"])).astype(int)
    return [gray(media["frames"][place], GRID) for place in places.tolist()]


def _measures(pictures: list[Pixels]) -> dict[str, int | float]:
    values = np.stack(pictures).astype(np.float64) / 255
    return {
        "brightness": round(float(values.mean()), 4),
        "contrast": round(float(values.std(axis=(1, 2)).mean()), 4),
        "change": round(float(np.abs(np.diff(values, axis=0)).mean()), 4),
    }


VIDEO = Video()
