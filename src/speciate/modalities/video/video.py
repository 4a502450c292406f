"""Videos in MP4, MOV, Matroska, WebM and AVI, as models see them: at most 32 frames, evenly spaced over the video or a
window of it, upright, the shorter side at most 224 pixels, each with the second at which it is shown.

A file is summarized by its packets, whose number is compared with the header's (packets.py), and by three frames at the
same shares of every video's length, which are compared with those of other videos. If bytes were altered without
changing their number, decoders conceal it: a frame that cannot be decoded is left out, and guesses are not reported.
Frames that a time stamp shows again are frames.

Near the end of long videos with few keyframes, decoding up to a frame takes long: beyond a number of pixels the
keyframe before it takes its place.

`look_features` and `motion_features` need no weights. Motion is the optical flow of Lucas & Kanade (1981), solved by
least squares over cells of a small gray image and over all frames of a segment: coarse, but it shows whither, how fast
and where things move, which no single frame does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import (
    LARGEST_THUMBNAIL,
    DecodeError,
    FileSummary,
    Header,
    Modality,
    Pixels,
    Sketches,
    Vector,
)
from speciate.modalities.hashing import GRID, IMAGE_SKETCHES, gray_values
from speciate.modalities.video.containers import AUDIO_BRANDS, container_of
from speciate.modalities.video.packets import OpenVideo, PacketIndex, Ticks, index_packets, open_video, span

MOST_FRAMES = 32
SHORTER_SIDE = 224
_LONGER_SIDE = 4 * SHORTER_SIDE
_MOST_DECODED = 2_000_000_000
"""Pixels for one medium: some seconds."""
_MOST_SUMMARIZED = 300_000_000
"""Pixels for the frames by which a file is stamps."""
_SIDE, _CELLS = 32, 4
"""Pixels and cells along a side of the small image in which motion is looked for."""
_FORM, _COLOUR = 8, 4
_FASTEST = 4.0
"""Widths of the image a second."""
_FLAT = 1e-3
"""Squared gradient of a cell that says little of motion, where white is 1; keeps what is flat at rest."""
Floats = npt.NDArray[np.float32]


class VideoSketches:
    """The image sketches of `count` frames, taken at the same shares of the length; all zeros for a blank frame.

    Two videos are near if their frames differ everywhere by no more than compression and scaling do: the gray values of
    each frame, once brightness and contrast are taken out, and the hashes of all frames together. The limits are wider
    than those of single images, since three frames must agree. A faint frame must be as bright as the other's, too: to
    stretch its contrast would stretch noise. A blank frame is like a blank or nearly blank one.

    So a copy in another codec, size or quality is found; a part that was cut out has other frames, and is not.
    Measured by evals/bench/near_videos.py (`distance` of copies and of strangers): evals/LOG.md.
    """

    count = 3
    width = count * IMAGE_SKETCHES.width
    threshold = 40 / 64
    """Share of the hashes' bits that agree, over all frames: the hash proposes, the gray values decide."""
    noise, share = 5.0, 0.2
    """Gray values by which a copy may differ anywhere: so many, and this part of the spread of the frame."""
    faint, shift = 12.0, 8.0
    """A frame with a spread below `faint` gray values: its mean may differ by `shift`."""
    blank = 36.0
    """A frame with less between its darkest and brightest gray value may be blank in a copy."""

    def sketch(self, images: Sequence[Pixels]) -> bytes | None:
        """images: `count` of (GRID, GRID), gray -> `width` bytes; None if all are blank."""
        codes = [IMAGE_SKETCHES.sketch(image) for image in images]
        if not any(codes):
            return None
        return b"".join(code or bytes(IMAGE_SKETCHES.width) for code in codes)

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 48): of each frame. A blank frame has the keys of the last one that is not blank."""
        parts = self._parts(sketches)
        seen = np.asarray(parts.any(axis=2))
        last = self.count - 1 - seen[:, ::-1].argmax(axis=1)
        rows = np.arange(len(parts))
        shown = [np.where(seen[:, place], place, last) for place in range(self.count)]
        each = [IMAGE_SKETCHES.keys(np.ascontiguousarray(parts[rows, places])) for places in shown]
        return np.concatenate(each, axis=1)

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        least = self.threshold if threshold is None else threshold
        one, other = self._parts(a), self._parts(b)
        both: npt.NDArray[np.bool_] = (one != 0).any(axis=2) & (other != 0).any(axis=2)
        apart = np.bitwise_count(one[..., :8] ^ other[..., :8]).sum(axis=2, dtype=np.int64)
        agreeing = 1 - (apart * both).sum(axis=1) / np.maximum(64 * both.sum(axis=1), 1)
        near: npt.NDArray[np.bool_] = both.any(axis=1) & (agreeing >= least)
        places = np.flatnonzero(near)
        near[places] = self.distance(a[places], b[places]) <= 1
        return near

    def distance(self, a: Sketches, b: Sketches) -> npt.NDArray[np.float64]:
        """(M,): the largest difference between frames, in what compression and scaling may do; 0 for equal ones."""
        one, other = self._parts(a), self._parts(b)
        first, second = (gray_values(parts.reshape(-1, IMAGE_SKETCHES.width)) for parts in (one, other))
        blank = ~one.any(axis=2).ravel(), ~other.any(axis=2).ravel()
        means = np.stack([first.mean(axis=1), second.mean(axis=1)])
        spreads = np.stack([first.std(axis=1), second.std(axis=1)])
        spread = spreads.min(axis=0)
        stretched = [(x - m[:, None]) / np.maximum(s, 1e-6)[:, None]
                     for x, m, s in zip((first, second), means, spreads, strict=True)]  # fmt: skip
        found = spread * np.abs(stretched[0] - stretched[1]).max(axis=1) / (self.noise + self.share * spread)
        shifted = np.abs(means[0] - means[1]) / self.shift
        found = np.where(spread < self.faint, np.maximum(found, shifted), found)
        ranges = np.where(blank[0], np.ptp(second, axis=1), np.ptp(first, axis=1))
        found = np.where(blank[0] ^ blank[1], ranges / self.blank, found)
        found = np.where(blank[0] & blank[1], 0, found)
        return np.asarray(found.reshape(-1, self.count).max(axis=1), np.float64)

    def _parts(self, sketches: Sketches) -> Sketches:
        """(N, count, width of one)"""
        return sketches.reshape(len(sketches), self.count, IMAGE_SKETCHES.width)


VIDEO_SKETCHES = VideoSketches()

_SHARES = np.arange(VIDEO_SKETCHES.count) / (2 * (VIDEO_SKETCHES.count - 1))
"""Shares of the length at which videos are compared: the beginning, a quarter, the half."""
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
    sketching = VIDEO_SKETCHES
    window_unit = "seconds"
    mark_units = ("frames", "keyframes")
    thumbnail_side = LARGEST_THUMBNAIL

    def sniff(self, head: bytes, name: str) -> bool:
        lower = name.lower()
        if head[4:8] == b"ftyp" and (head[8:12] in AUDIO_BRANDS or lower.endswith(".m4a")):
            return False
        kind = container_of(head)
        return kind is not None or lower.endswith(self.suffixes)

    def inspect(self, data: bytes) -> Header:
        with open_video(data) as video:
            return _header(video, index_packets(data, video))

    def decode(self, data: bytes) -> Clip:
        with open_video(data) as video:
            found = _whole(data, video)
            stamps = _summary_stamps(video, found)
            seen = _affordable(video, _spaced(found.stamps), found.keys, found.stamps)
            images = _decode_frames(video, np.concatenate([stamps, seen]), found.keys)
            _check(video, stamps, images)
            shown = {stamp: images[stamp] for stamp in seen.tolist() if stamp in images}
            return _clip(video, shown or images)

    def summarize(self, data: bytes) -> FileSummary:
        with open_video(data) as video:
            found = _whole(data, video)
            stamps = _summary_stamps(video, found)
            images = _decode_frames(video, stamps, found.keys)
            _check(video, stamps, images)
            header = _header(video, found)
        seen = [gray(images[stamp], GRID) for stamp in stamps.tolist()]
        name = f"{header.fields['codec']} {header.fields['frames']} {found.packets.hex()}"
        return FileSummary(header, name, _measures(seen), VIDEO_SKETCHES.sketch(seen))

    def decode_window(self, data: bytes, start: float, stop: float) -> Clip:
        """Reads from the keyframe before `start` on. If no frame begins in the window, the one that is still shown."""
        with open_video(data) as video:
            first, last = video.ticks(start), video.ticks(stop)
            found = span(video, first, max(last, first + 1))
            chosen = _affordable(video, _spaced(found.stamps), found.keys, found.stamps)
            images = _decode_frames(video, chosen, found.keys)
            if not images:
                raise DecodeError("error", f"No frame between {start:g} and {stop:g} seconds can be decoded.")
            return _clip(video, images)

    def marks(self, data: bytes, unit: str) -> list[float]:
        with open_video(data) as video:
            found = _whole(data, video)
            stamps = found.stamps if unit == "frames" else found.keys
            return [float(second) for second in video.seconds(np.append(stamps, found.end))]

    def admit(self, value: Any) -> Clip:
        """`value`: encoded bytes."""
        if not isinstance(value, bytes):
            raise DecodeError("error", "A video must be the bytes of a file.")
        return self.decode(value)

    def fingerprint(self, media: Clip) -> str:
        """Shape and hash of the pixels that models see."""
        frames = media["frames"]
        return f"{frames.shape} {hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()}"

    def measure(self, media: Clip) -> dict[str, int | float]:
        """Mean and spread of the gray values of three frames, between 0 and 1, and by how much these differ."""
        return _measures(_compared(media))

    def describe(self, media: Clip) -> Vector:
        """(384,): how it looks, and of four parts of it how much moves where and whither."""
        return np.concatenate(
            [look_features(media["frames"]), motion_features(media["frames"], media["times"], _SEGMENTS)]
        )

    def features(self, media: Clip) -> Vector:
        """(228,): how it looks, and how much moves where and whither over its whole length."""
        return np.concatenate([look_features(media["frames"]), motion_features(media["frames"], media["times"], 1)])

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
            draw, caption = ImageDraw.Draw(sheet), f"{times[frame]:.2f} s"
            draw.rectangle((x, y + high - 12, x + draw.textlength(caption) + 4, y + high), fill="black")
            draw.text((x + 2, y + high - 1), caption, fill="white", anchor="ls")
        return np.asarray(sheet)

    def sketch(self, media: Clip) -> bytes | None:
        return VIDEO_SKETCHES.sketch(_compared(media))

    def window(self, media: Clip, start: float, stop: float) -> Clip:
        """The frames from `start` to `stop`, in seconds: at least the one that is shown when it begins."""
        times = media["times"]
        first = int(np.searchsorted(times, np.float32(start)))
        last = int(np.searchsorted(times, np.float32(stop)))
        if last <= first:
            first = max(first - 1, 0)
            last = first + 1
        return Clip(frames=media["frames"][first:last], times=times[first:last])


def _header(video: OpenVideo, found: PacketIndex) -> Header:
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
        "audio_codec": found.audio.codec,
        "audio_seconds": found.audio.seconds,
        "audio_channels": found.audio.channels,
        "format": video.container.format.name.partition(",")[0],
    }
    return Header(min(len(found.stamps), MOST_FRAMES) * height * width * 3, fields)


def _whole(data: bytes, video: OpenVideo) -> PacketIndex:
    """The index of a complete video. Raises PARTIAL if something is missing."""
    found = index_packets(data, video)
    if found.missing is not None:
        raise DecodeError("partial", found.missing)
    return found


def _summary_stamps(video: OpenVideo, found: PacketIndex) -> Ticks:
    """(3,) time stamps of the frames that are compared; some may be equal."""
    places = (_SHARES * len(found.stamps)).astype(np.int64)
    return _affordable(video, found.stamps[places], found.keys, found.stamps, _MOST_SUMMARIZED)


def _check(video: OpenVideo, stamps: Ticks, images: dict[int, Pixels]) -> None:
    for stamp in stamps.tolist():
        if stamp not in images:
            second = float((stamp - video.origin) * video.tick)
            raise DecodeError("error", f"The frame at {second:.3f} seconds cannot be decoded.")


def _spaced(stamps: Ticks) -> Ticks:
    """At most 32 of the time stamps, evenly spaced in time: all where there are no more."""
    if len(stamps) <= MOST_FRAMES:
        return stamps
    wanted = np.linspace(stamps[0], stamps[-1], MOST_FRAMES)
    after = np.searchsorted(stamps, wanted).clip(1, len(stamps) - 1)
    nearer_before = wanted - stamps[after - 1] <= stamps[after] - wanted
    return np.unique(stamps[np.where(nearer_before, after - 1, after)])


def _affordable(video: OpenVideo, wanted: Ticks, keys: Ticks, stamps: Ticks, most: int = _MOST_DECODED) -> Ticks:
    """`wanted`, or the keyframes before them if too much would have to be decoded on the way."""
    before = np.searchsorted(keys, wanted, side="right").clip(1) - 1
    way = np.searchsorted(stamps, wanted) - np.searchsorted(stamps, keys[before])
    longest = np.zeros(len(keys), np.int64)
    np.maximum.at(longest, before, way + 1)
    if int(longest.sum()) * video.width * video.height <= most:
        return wanted
    snapped: Ticks = keys[before]
    return snapped


def _decode_frames(video: OpenVideo, wanted: Ticks, keys: Ticks) -> dict[int, Pixels]:
    """Time stamp -> (H, W, 3), as models see it. A frame that cannot be decoded is replaced by the one before; without
    one after the keyframe, it is left out. Each run from a keyframe on is decoded by itself, so that a
    frame does not depend on what else is wanted."""
    found: dict[int, Pixels] = {}
    wanted = np.unique(wanted)
    before = np.searchsorted(keys, wanted, side="right").clip(1) - 1
    for place in np.unique(before).tolist():
        found |= _run(video, int(keys[place]), wanted[before == place].tolist())
    return found


def _run(video: OpenVideo, key: int, wanted: list[int]) -> dict[int, Pixels]:
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


def _upright(video: OpenVideo, frame: Any) -> Pixels:
    height, width = _side(video)
    turned = video.rotation in (90, 270)
    size = {"width": height, "height": width} if turned else {"width": width, "height": height}
    pixels = frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, video.rotation // 90))


def _side(video: OpenVideo) -> tuple[int, int]:
    """Height and width in which models see it."""
    short, long = sorted((video.width, video.height))
    scale = min(1.0, SHORTER_SIDE / short, _LONGER_SIDE / long)
    return max(round(video.height * scale), 1), max(round(video.width * scale), 1)


def _clip(video: OpenVideo, images: dict[int, Pixels]) -> Clip:
    stamps = sorted(images)
    times = video.seconds(np.array(stamps, np.int64)).astype(np.float32)
    return Clip(frames=np.stack([images[stamp] for stamp in stamps]), times=times)


def _compared(media: Clip) -> list[Pixels]:
    """The gray images by which a clip is compared with others."""
    places = (_SHARES * len(media["frames"])).astype(int)
    return [gray(media["frames"][place], GRID) for place in places.tolist()]


def _measures(images: list[Pixels]) -> dict[str, int | float]:
    values = np.stack(images).astype(np.float64) / 255
    return {
        "brightness": round(float(values.mean()), 4),
        "contrast": round(float(values.std(axis=(1, 2)).mean()), 4),
        "change": round(float(np.abs(np.diff(values, axis=0)).mean()), 4),
    }


def gray(frame: Pixels, side: int) -> Pixels:
    """(H, W, 3) -> (side, side)"""
    from PIL import Image

    small = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small.convert("L"))


def look_features(frames: Pixels) -> Vector:
    """(T, H, W, 3) -> (176,) between 0 and 1: mean of 8 x 8 gray values over time, their spread, 4 x 4 mean colours."""
    from PIL import Image

    grays = _grays(frames, _FORM)
    colour = np.stack(
        [np.asarray(Image.fromarray(frame).resize((_COLOUR, _COLOUR), Image.Resampling.BOX)) for frame in frames]
    ).mean(axis=0, dtype=np.float32)
    return np.concatenate([grays.mean(axis=0).ravel(), grays.std(axis=0).ravel(), colour.ravel() / 255]).astype(
        np.float32
    )


def motion_features(frames: Pixels, times: Vector, segments: int) -> Vector:
    """(T, H, W, 3), (T,) -> (52 * segments,), for each of so many parts of equally many frames.

    For 4 x 4 cells the mean change from frame to frame and the flow to the right and down, in widths of the image a
    second; then for the whole image the change, the flow and its speed. Zeros where there is a single frame.
    """
    found = np.zeros((segments, 3 * _CELLS * _CELLS + 4), np.float32)
    if len(frames) > 1:
        images = _grays(frames, _SIDE)
        steps = np.maximum(np.diff(times), 1e-3)[:, np.newaxis, np.newaxis]
        edges = np.linspace(0, len(steps), segments + 1)
        for segment in range(segments):
            low = min(int(edges[segment]), len(steps) - 1)
            high = max(int(np.ceil(edges[segment + 1])), low + 1)
            found[segment] = _of_segment(images[low : high + 1], steps[low:high])
    return found.ravel()


def _of_segment(images: Floats, steps: Floats) -> Floats:
    between = (images[1:] + images[:-1]) / 2
    down, right = np.gradient(between, axis=1), np.gradient(between, axis=2)
    change = np.diff(images, axis=0)
    changed = change / steps
    cells = [
        _cells(product)
        for product in (right * right, right * down, down * down, right * changed, down * changed, np.abs(change))
    ]
    xx, xy, yy, xt, yt, much = (cell.reshape(-1) for cell in cells)
    local = _solved(xx, xy, yy, xt, yt)
    whole = _solved(*(each.mean(keepdims=True) for each in (xx, xy, yy, xt, yt)))[:, 0]
    rest = [much.mean(), *whole, np.hypot(*whole)]
    return np.concatenate([much, local.ravel(), rest]).astype(np.float32)


def _solved(xx: Floats, xy: Floats, yy: Floats, xt: Floats, yt: Floats) -> Floats:
    """(N,) of each sum -> (2, N): the flow that explains the change best, in widths a second."""
    xx, yy = xx + _FLAT / _SIDE, yy + _FLAT / _SIDE
    determinant = xx * yy - xy * xy
    flow = np.stack([xy * yt - yy * xt, xy * xt - xx * yt]) / np.maximum(determinant, 1e-12) / _SIDE
    return np.asarray(np.clip(flow, -_FASTEST, _FASTEST))


def _cells(values: Floats) -> Floats:
    """(T, 32, 32) -> (4, 4), means."""
    side = _SIDE // _CELLS
    return np.asarray(values.reshape(len(values), _CELLS, side, _CELLS, side).mean(axis=(0, 2, 4)))


def _grays(frames: Pixels, side: int) -> Floats:
    """(T, side, side) between 0 and 1."""
    return np.stack([gray(frame, side) for frame in frames]).astype(np.float32) / np.float32(255)


VIDEO = Video()
