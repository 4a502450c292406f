"""One example for the eye: what kind of view it needs, and its bytes, written anew from the decoded medium.

Both functions run in a service process. A reader of what they write meets no format of the sender: images are PNG,
sounds PCM in WAV, videos H.264 in MP4, and meshes, volumes and structures plain arrays.
"""

from __future__ import annotations

import base64
import io
import struct
import wave
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.loading.loader import Example, load_excluded, packs
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import FileAnswer
from speciate.modalities import find
from speciate.modalities.audio import SAMPLE_RATE, log_mel
from speciate.modalities.biology.protein_structures import alpha_carbons
from speciate.modalities.contract import DecodeError
from speciate.modalities.messages import readable_text
from speciate.modalities.time_series import CHANNEL_NAMES, channel_names
from speciate.modalities.video import packets
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders

LONGEST_TEXT = 200_000
"""Characters."""
_LONGEST_SIDE = 1600
MOST_VOXELS = 16_000_000
"""Voxels of the largest volume that is shown in full."""
_MOST_TRIANGLES, _MOST_POINTS = 500_000, 500_000
_MOST_CHANNELS, _MOST_STEPS = 24, 800
_VIDEO_SIDE, _VIDEO_FRAMES, _VIDEO_SECONDS = 640, 3_000, 300.0
_SPECTROGRAM = 1200, 192
"""Pixels."""
Floats = npt.NDArray[np.float32]


class ViewRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    manifest: Manifest
    id: str
    of: str = ""
    """The part of a mixed row, as NAME.MODALITY."""
    part: str = ""
    """The file that is wanted: one of `FILES`."""


class FileViewRequest(BaseModel):
    """A file to view that lies in no dataset, such as what a model was asked."""

    model_config = ConfigDict(frozen=True)
    data: str
    """Base64."""
    modality: str
    part: str = ""


class View(TypedDict, total=False):
    """What a page shows of an example. `view` is one of: image, sound, video, text, row, series, mesh, volume,
    structure, parts, nothing."""

    view: str
    why: str
    """Reason, for the view `nothing`."""
    text: str
    cells: list[list[Any]]
    """For a row: pairs of column and cell."""
    size: list[int]
    """Pixels of an image or video, voxels of a volume, or vertices and triangles."""
    seconds: float
    names: list[str]
    channels: list[list[float]]
    """For a series: its channels, thinned."""
    steps: int
    parts: list[Any]
    """For a mixed row: a name and its View each."""
    cut: bool
    """Whether less is shown than there is."""


def describe_view(payload: Mapping[str, object]) -> View:
    """The service. `payload`: a ViewRequest."""
    request = ViewRequest.model_validate(payload)
    example, media, why = _medium(request)
    if why is not None:
        return {"view": "nothing", "why": why}
    view = _view(request.manifest.modality, media)
    return {**view, "names": _channel_names(request, example, media)} if view["view"] == "series" else view


def write_file(payload: Mapping[str, object]) -> FileAnswer:
    """The service: the file of a view. `payload`: a ViewRequest with `part`. INVALID where the view has none such."""
    request = ViewRequest.model_validate(payload)
    modality, media = request.manifest.modality, None
    if request.part == "video.mp4" and not request.of:
        data = _video_file(request)
    else:
        _, media, why = _medium(request)
        if why is not None:
            raise SpeciateError(Code.NOT_FOUND, "There is nothing to show of it.", foreign=why)
        if request.of:
            modality = request.of.rpartition(".")[2]
        data = FILES[request.part](modality, media)
    target = Path.cwd() / "view"
    target.write_bytes(data)
    return {"file": target.name}


def describe_file(payload: Mapping[str, object]) -> View:
    """The service: as `describe_view`. `payload`: a FileViewRequest."""
    request = FileViewRequest.model_validate(payload)
    try:
        return _view(request.modality, _decoded(request))
    except DecodeError as error:
        return {"view": "nothing", "why": error.detail}


def write_view_of_file(payload: Mapping[str, object]) -> FileAnswer:
    """The service: as `write_file`. `payload`: a FileViewRequest with `part`."""
    request = FileViewRequest.model_validate(payload)
    try:
        data = FILES[request.part](request.modality, _decoded(request))
    except DecodeError as error:
        raise SpeciateError(Code.NOT_FOUND, "There is nothing to show of it.", foreign=error.detail) from None
    target = Path.cwd() / "view"
    target.write_bytes(data)
    return {"file": target.name}


def _decoded(request: FileViewRequest) -> Any:
    kind, data = find(request.modality), base64.b64decode(request.data)
    kind.inspect(data)  # refuses what declares more than the budget
    return kind.decode(data)


def _medium(request: ViewRequest) -> tuple[Example, Any, str | None]:
    """The example, its decoded medium, and the reason why there is none. Raises NOT_FOUND for an id that is not
    there."""
    found = load_excluded(Folders(request.root), request.manifest, [request.id])
    if not found:
        raise SpeciateError(Code.NOT_FOUND, f"There is no such example in {request.manifest.ref}.")
    [(example, why)] = found
    media = example.media
    if why is None and request.of:
        media = media.get(request.of) if isinstance(media, dict) else None
        why = None if media is not None else "It has no such part."
    return example, media, why


def _view(modality: str, media: Any) -> View:
    match modality:
        case "image":
            return {"view": "image", "size": [media.shape[1], media.shape[0]]}
        case "audio":
            return {"view": "sound", "seconds": round(len(media) / SAMPLE_RATE, 2)}
        case "video":
            return {"view": "video", "size": [media["frames"].shape[2], media["frames"].shape[1]]}
        case "text":
            return _text(readable_text(media))
        case "tabular":
            return {"view": "row", "cells": [[name, cell] for name, cell in media.items()]}
        case "time-series":
            return _series(media, numbered(len(media)))
        case "mesh" | "point-cloud":
            points = media["vertices"] if modality == "mesh" else media["points"]
            return {"view": "mesh", "size": [len(points), len(media.get("faces", ()))]}
        case "dicom" | "nifti":
            return {"view": "volume", "size": list(media["voxels"].shape)}
        case "protein" if not isinstance(media, str):
            return {"view": "structure", "size": [len(media["sequence"])], "text": media["sequence"][:LONGEST_TEXT]}
        case "molecule":
            return {"view": "image", "text": media[:LONGEST_TEXT]}
        case "episode":
            return _episode(media)
        case "multimodal":
            return {"view": "parts", "parts": [[name, _part(name, part)] for name, part in media.items()]}
    return _text(media) if isinstance(media, str) else {"view": "image"}


def _part(name: str, media: Any) -> View:
    return {"view": "nothing", "why": "missing"} if media is None else _view(name.rpartition(".")[2], media)


def _text(text: str) -> View:
    return {"view": "text", "text": text[:LONGEST_TEXT], "cut": len(text) > LONGEST_TEXT}


def _series(values: Floats, names: Sequence[str]) -> View:
    """(C, T), at most so many channels, of so many steps the mean of each run."""
    shown = values[:_MOST_CHANNELS]
    every = -(-shown.shape[1] // _MOST_STEPS) or 1
    thin = [
        [float(f"{x:.5g}") for x in np.add.reduceat(row, range(0, len(row), every)) / _run_lengths(len(row), every)]
        for row in shown.astype(np.float64)
    ]
    return {
        "view": "series", "channels": thin, "names": list(names[:_MOST_CHANNELS]), "steps": int(values.shape[1]),
        "cut": len(values) > _MOST_CHANNELS or every > 1,
    }  # fmt: skip


def numbered(count: int) -> list[str]:
    """Names of channels that nothing names: their places, from 1 on."""
    return [f"{place} of {count}" for place in range(1, count + 1)]


def _channel_names(request: ViewRequest, example: Example, media: Floats) -> list[str]:
    """As their source has them: a column beside the series, or the first line of its file."""
    column = example.columns.get(CHANNEL_NAMES)
    names = column.split(", ") if isinstance(column, str) else []
    if not names and not request.manifest.inputs:
        names = channel_names(_stored_bytes(request)[0])
    return names[:_MOST_CHANNELS] if len(names) == len(media) else numbered(len(media))[:_MOST_CHANNELS]


def _run_lengths(count: int, every: int) -> npt.NDArray[np.float64]:
    begins = np.arange(0, count, every)
    return np.minimum(every, count - begins).astype(np.float64)


def _episode(media: Any) -> View:
    """View of an episode: its frames as an image, its measurements and commands as series."""
    both = [(kind, media[kind]) for kind in ("state", "action") if media[kind].size]
    names = [f"{kind} {place}" for kind, values in both for place in range(values.shape[1])]
    series = _series(np.concatenate([values for _, values in both], axis=1).T, names) if both else None
    frames: View = {"view": "image", "text": str(media["about"]["task"])[:LONGEST_TEXT]}
    return {"view": "parts", "parts": [["", frames], *([["", series]] if series else [])]}


# Files


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _image(modality: str, media: Any) -> bytes:
    return _png(media if modality == "image" else find(modality).thumbnail(media))


def _sound(modality: str, media: Any) -> bytes:
    """16 bits, one channel, at the rate at which models hear it."""
    samples = (np.clip(_of(modality, "audio", media), -1, 1) * 32_767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def _spectrogram(modality: str, media: Any) -> bytes:
    """Loudness over time and frequency, low ones below, as learners see it."""
    from PIL import Image

    bands = np.asarray(log_mel(_of(modality, "audio", media)), np.float32)
    bands = bands if bands.shape[0] <= bands.shape[1] else bands.T
    low, high = np.percentile(bands, (5, 99.5))
    level = np.clip((bands - low) / max(float(high - low), 1e-6), 0, 1)[::-1]
    dark, bright = np.array([24, 26, 48], np.float32), np.array([255, 214, 132], np.float32)
    middle = np.array([178, 62, 110], np.float32)
    half = level[..., None] * 2
    colours = np.where(half < 1, dark + (middle - dark) * half, middle + (bright - middle) * (half - 1))
    buffer = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).resize(_SPECTROGRAM, Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


def _of(modality: str, wanted: str, media: Any) -> Any:
    if modality != wanted:
        raise SpeciateError(Code.INVALID, f"This is {modality}, not {wanted}.")
    return media


def _video_file(request: ViewRequest) -> bytes:
    """The frames of a video as MP4, as far as they are shown: without sound."""
    data, start, stop = _bytes_of(request)
    try:
        return _encode_video(data, start, stop)
    except DecodeError as error:
        raise SpeciateError(Code.INVALID, "The video cannot be shown.", foreign=error.detail) from None


def _bytes_of(request: ViewRequest) -> tuple[bytes, float, float]:
    """The stored bytes of a video, and the window of it."""
    if request.manifest.modality != "video":
        raise SpeciateError(Code.INVALID, "There is no video of it.")
    return _stored_bytes(request)


def _stored_bytes(request: ViewRequest) -> tuple[bytes, float, float]:
    """The stored bytes of an example, and the window of it. Raises INVALID where its medium is no file."""
    folders = Folders(request.root)
    table = version_rows.read(folders, request.manifest, ids=[request.id])
    if not table.num_rows or request.manifest.inputs:
        raise SpeciateError(Code.INVALID, "There is no file of it.")
    row = {name: table[name][0].as_py() for name in (CONTENT, START, STOP) if name in table.column_names}
    with PackReader(packs(folders, request.manifest)) as reader:
        if not row[CONTENT] or row[CONTENT] not in reader:
            raise SpeciateError(Code.NOT_FOUND, "No bytes of it are kept.")
        return reader.get(row[CONTENT]), row.get(START) or 0.0, row.get(STOP) or float("inf")


def _encode_video(data: bytes, start: float, stop: float) -> bytes:
    import av

    target = Path.cwd() / "encoded.mp4"  # a file: what a reader seeks by is moved to its front once all is written
    front = {"movflags": "faststart"}
    with packets.open_video(data) as video, av.open(str(target), "w", format="mp4", options=front) as out:
        scale = min(1.0, _VIDEO_SIDE / max(video.width, video.height))
        width, height = (max(2, int(side * scale) // 2 * 2) for side in (video.width, video.height))
        stream = out.add_stream("libx264", rate=Fraction(25), options={"preset": "veryfast", "crf": "24"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base, stream.gop_size = Fraction(1, 1000), 25
        stream.thread_count = 1
        shown = 0
        if start > 0:
            video.container.seek(int(start / video.tick), stream=video.stream)
        for frame in video.container.decode(video.stream):
            if frame.time is None or frame.time < start:
                continue
            at = frame.time - start
            if frame.time >= stop or at > _VIDEO_SECONDS or shown >= _VIDEO_FRAMES:
                break
            pixels: npt.NDArray[Any] = frame.to_ndarray(format="rgb24")
            if video.rotation:
                pixels = np.ascontiguousarray(np.rot90(pixels, video.rotation // 90))
            again = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(width, height, "yuv420p")
            again.pts, again.time_base = round(1000 * at), Fraction(1, 1000)
            out.mux(stream.encode(again))
            shown += 1
        out.mux(stream.encode(None))
    encoded = target.read_bytes()
    target.unlink()
    return encoded


def _mesh(modality: str, media: Any) -> bytes:
    """uint32 vertices V, triangles F; float32 (V, 3) in [-1, 1]; uint32 (F, 3), or for a cloud uint8 (V, 3) colours."""
    if modality == "mesh":
        faces = np.asarray(media["faces"], "<u4")[:_MOST_TRIANGLES]
        points = _to_unit(np.asarray(media["vertices"], np.float64))
        return struct.pack("<2I", len(points), len(faces)) + points.tobytes() + faces.tobytes()
    points = np.asarray(_of(modality, "point-cloud", media)["points"], np.float64)
    every = -(-len(points) // _MOST_POINTS) or 1
    colours = media.get("colors")
    unit = _to_unit(points)[::every]
    shown = colours[::every] if colours is not None else ((unit * 0.35 + 0.6) * 255).astype(np.uint8)
    return struct.pack("<2I", len(unit), 0) + unit.tobytes() + np.ascontiguousarray(shown, np.uint8).tobytes()


def _to_unit(points: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Moved and scaled into [-1, 1], in little-endian float32."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.ascontiguousarray((points - (low + high) / 2) / max(float((high - low).max()) / 2, 1e-9), "<f4")


def _volume(modality: str, media: Any) -> bytes:
    """uint32 D, H, W; float32 millimetres along each; float32 lowest and highest value, window's centre and width;
    uint16 (D, H, W) from the lowest to the highest."""
    if modality not in ("dicom", "nifti"):
        raise SpeciateError(Code.INVALID, f"This is {modality}, not a volume.")
    voxels, spacing = media["voxels"], [float(each) for each in media["spacing"]]
    every = max(1, round((voxels.size / MOST_VOXELS) ** (1 / 3) + 0.49))
    voxels = voxels[::every, ::every, ::every]
    low, high = float(voxels.min()), float(voxels.max())
    if window := media.get("window"):
        centre, width = window
    else:
        dark, bright = np.percentile(voxels, (1.0, 99.5))
        centre, width = float(dark + bright) / 2, float(bright - dark)
    scaled: npt.NDArray[np.uint16] = np.rint((voxels - low) / max(high - low, 1e-9) * 65_535).astype("<u2")
    head = struct.pack("<3I7f", *voxels.shape, *(each * every for each in spacing), low, high, centre, max(width, 1e-6))
    return head + scaled.tobytes()


def _structure(modality: str, media: Any) -> bytes:
    """uint32 atoms; float32 (N, 3) in [-1, 1]; uint8 (N,) chain. The alpha carbons, in the order of the chains."""
    points, places = alpha_carbons(_of(modality, "protein", media))
    chains = np.asarray(media["chain"], np.int64)[places] % 256
    return struct.pack("<I", len(points)) + _to_unit(points).tobytes() + chains.astype(np.uint8).tobytes()


FILES = {
    "image.png": _image, "sound.wav": _sound, "spectrogram.png": _spectrogram, "mesh.bin": _mesh,
    "volume.bin": _volume, "structure.bin": _structure,
}  # fmt: skip
VIDEO = "video.mp4"
