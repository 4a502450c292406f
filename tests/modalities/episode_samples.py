"""Small episodes of each format: a bundle with a camera, one without, and MCAP files of three encodings."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from mcap.writer import Writer
from mcap_ros2.writer import Writer as RosWriter
from PIL import Image

from speciate.modalities.bundles import bundle
from speciate.modalities.robotics.episode_files import EpisodeFiles, Meta, write
from speciate.modalities.video import footage

FPS = 10.0


def path(steps: int = 24, seed: int = 0) -> npt.NDArray[np.float32]:
    """(T, 2): a way through the plane."""
    chance = np.random.default_rng(seed)
    return np.cumsum(chance.normal(0.05, 0.03, (steps, 2)), axis=0).astype(np.float32)


def pictures(way: npt.NDArray[np.float32], side: int = 32) -> list[npt.NDArray[np.uint8]]:
    """(h, w, 3) each: where on the way it is, as a bright square."""
    found = []
    for x, y in np.clip(way * side / 4, 2, side - 3).astype(int):
        frame = np.full((side, side, 3), 40, np.uint8)
        frame[y - 2 : y + 3, x - 2 : x + 3] = (230, 120, 40)
        found.append(frame)
    return found


def files(steps: int = 24, seed: int = 0, *, camera: bool = True, **changed: Any) -> EpisodeFiles:
    way = path(steps, seed)
    times = np.arange(steps) / FPS
    meta = {
        "steps": steps, "fps": FPS, "state": ("x", "y"), "action": ("dx", "dy"), "cameras": ("top",) if camera else (),
        "task": "go to the mark", "robot": "point", "episode": seed,
    }  # fmt: skip
    action = np.diff(way, axis=0, append=way[-1:])
    return EpisodeFiles(
        Meta.model_validate(meta | changed),
        times,
        way,
        action,
        {"top": footage.encode(pictures(way), times.tolist(), FPS)} if camera else {},
        {"top": times} if camera else {},
    )


def jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG")
    return buffer.getvalue()


def mcap_json(steps: int = 24, seed: int = 0) -> bytes:
    """Joints at 20 Hz, commands at 10 Hz, a camera at 5 Hz, a topic of words, and an attachment."""
    import base64

    buffer = io.BytesIO()
    writer: Any = Writer(buffer, chunk_size=4096, enable_data_crcs=True)
    writer.start("", "test")
    schemas = {name: writer.register_schema(name, "jsonschema", b"{}") for name in ("Joints", "Log")}
    schemas["foxglove.CompressedImage"] = writer.register_schema("foxglove.CompressedImage", "jsonschema", b"{}")
    channels = {
        topic: writer.register_channel(topic, "json", schemas[schema])
        for topic, schema in (
            ("/joints", "Joints"), ("/arm/command", "Joints"), ("/camera/top", "foxglove.CompressedImage"),
            ("/log", "Log"),
        )
    }  # fmt: skip

    def say(topic: str, seconds: float, content: dict[str, Any]) -> None:
        writer.add_message(channels[topic], round(seconds * 1e9), json.dumps(content).encode(), round(seconds * 1e9))

    way = path(steps, seed)
    for place, (frame, at) in enumerate(zip(pictures(way), way.tolist(), strict=True)):
        for half in (0.0, 0.05):
            say("/joints", place / FPS + half, {"header": {"stamp": place}, "position": [at[0] + half, at[1]]})
        say("/arm/command", place / FPS + 0.01, {"velocity": {"x": at[0], "y": -at[1]}, "note": "go"})
        if place % 2 == 0:
            data = base64.b64encode(jpeg(frame)).decode()
            say("/camera/top", place / FPS + 0.002, {"format": "jpeg", "data": data})
        say("/log", place / FPS, {"message": "running"})
    writer.add_attachment(0, 0, "notes.txt", "text/plain", b"nothing to learn from")
    writer.finish()
    return buffer.getvalue()


def mcap_ros2(steps: int = 12) -> bytes:
    buffer = io.BytesIO()
    writer: Any = RosWriter(buffer, enable_crcs=True)
    schema = writer.register_msgdef("geometry_msgs/msg/Point", "float64 x\nfloat64 y\nfloat64 z")
    for place, (x, y) in enumerate(path(steps).tolist()):
        for topic, sign in (("/pose", 1.0), ("/cmd", -1.0)):
            content = {"x": sign * x, "y": sign * y, "z": 0.0}
            at = round(place / FPS * 1e9)
            writer.write_message(topic, schema, content, at, at)
    writer.finish()
    return buffer.getvalue()


def mcap_protobuf(steps: int = 12) -> bytes:
    from google.protobuf.wrappers_pb2 import DoubleValue  # type: ignore[import-untyped]  # it ships none
    from mcap_protobuf.writer import Writer as ProtobufWriter

    buffer = io.BytesIO()
    with ProtobufWriter(buffer) as writer:
        for place, (x, y) in enumerate(path(steps).tolist()):
            at = round(place / FPS * 1e9)
            writer.write_message("/height", DoubleValue(value=x), at, at)
            writer.write_message("/action", DoubleValue(value=y), at, at)
    return buffer.getvalue()


FILES: dict[str, bytes] = {
    "reach.episode": write(files()),
    "blind.episode": write(files(camera=False)),
    "json.mcap": mcap_json(),
    "ros2.mcap": mcap_ros2(),
    "protobuf.mcap": mcap_protobuf(),
}


def bomb() -> bytes:
    """A bundle that declares a billion steps."""
    meta = {"steps": 1_000_000_000, "fps": 10, "state": ["x"], "action": ["dx"]}
    return bundle({"meta.json": json.dumps(meta).encode(), "steps.parquet": b"PAR1"})
