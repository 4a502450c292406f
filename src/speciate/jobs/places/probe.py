"""What a place is able to do: asked of the cluster's programs and its depot here, and by a small job that runs there.

`python -m speciate.jobs.places.probe WHERE` is that job. It needs no workspace and no data.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from speciate import __version__
from speciate.jobs.job import Resources
from speciate.jobs.places.cluster import Cluster, Finding, Launch
from speciate.jobs.places.clusters import open_cluster
from speciate.jobs.places.depot import SENT, Room
from speciate.jobs.places.depots import open_room, room_in
from speciate.jobs.places.lease import DAEMON, claim
from speciate.sandbox import layers
from speciate.settings import Place

_SAID, _ASKED, _ANSWERED, _SHARED = "said.json", "asked", "answered", "shared.json"
_GPU_SECONDS = 20.0
_LOOK_SECONDS, _DELAY_LOOK_SECONDS = 0.5, 0.05
_MOST_DELAY_SECONDS = 120.0
_FULL_BYTES = 1 << 30


def look_from_here(place: Place) -> Iterator[Finding]:
    """Without a job: whether the cluster answers, and whether the depot is a folder of ours."""
    yield from open_cluster(place).findings()
    yield _bucket(place) if place.in_bucket else _depot(Path(place.depot))


def _depot(folder: Path) -> Finding:
    try:
        info = folder.stat()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("depot", False, f"{folder}: {error.strerror}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("depot", False, f"{folder} cannot be written by this user")
    room = f"{free / (1 << 30):.0f} GiB free"
    if info.st_mode & 0o002:
        return Finding("depot", False, f"{folder} can be written by everybody, so others could replace what runs read")
    return Finding("depot", free > _FULL_BYTES, f"{folder}, {room}")


def _bucket(place: Place) -> Finding:
    """Whether it takes a put that fails where the name is there: a claim is one, and without it a run could begin
    twice."""
    try:
        room = room_in(place, f"speciate-probe-{os.urandom(6).hex()}")
        began = time.monotonic()
        room.write(SENT, "")
        first, second = (room.create(_ASKED, name) for name in ("first", "second"))
        room.clear()
        took = time.monotonic() - began
    except OSError as error:
        return Finding("depot", False, f"{place.depot}: {error}")
    if not first or second:
        return Finding(
            "depot", False, f"{place.depot} takes no conditional puts (If-None-Match): runs could begin twice"
        )
    return Finding("depot", True, f"{place.depot}, takes conditional puts, {took:.2f} s for seven calls")


def look_from_there(place: Place, seconds: float, wait: Callable[[float], None] = time.sleep) -> Iterator[Finding]:
    """By a job of one core. `seconds`: how long it may take to get its turn and to answer."""
    cluster, name = open_cluster(place), f"speciate-probe-{os.urandom(6).hex()}"
    try:
        room = room_in(place, name)
    except OSError as error:
        yield Finding("job", False, str(error))
        return
    try:
        token = os.urandom(16).hex()
        room.write(SENT, token)
        room.write(_SHARED, json.dumps([str(path) for path in place.shared]))
        argv = [place.python, "-m", "speciate.jobs.places.probe", room.where]
        began = time.monotonic()
        launch = Launch(name, argv, Resources(gpu=min(1, place.capacity.gpu)), room.log)
        cluster.launch(launch)
        while (said := room.read(_SAID)) is None:
            if time.monotonic() - began > seconds:
                cluster.stop(name, force=True)
                yield Finding("job", False, f"no answer within {seconds:.0f} s; {_tail(cluster, launch)}")
                return
            wait(_LOOK_SECONDS)
        took = time.monotonic() - began
        yield from _findings(json.loads(said), token, took, claimed=not claim(room, DAEMON))
        yield _delay(room, place.lease_seconds, wait)
        yield from cluster.findings_by_job(f"{name}-head", seconds)
    except (OSError, ValueError) as error:
        yield Finding("job", False, str(error))
    finally:
        with contextlib.suppress(OSError):
            room.clear()


def _tail(cluster: Cluster, launch: Launch) -> str:
    try:
        said = cluster.log(launch).strip()
    except OSError as error:
        said = str(error)
    return f"its log ends in: {said[-300:]}" if said else "it has not begun, or the depot is not shared"


def _delay(room: Room, lease_seconds: float, wait: Callable[[float], None]) -> Finding:
    """How long a new file takes to be seen, there and back: a shared disk may remember what it has read before.

    A run counts as lost half of `lease_seconds` after its node has ended it. So much may a lease be late.
    """
    began = time.monotonic()
    room.write(_ASKED, "")
    most = min(_MOST_DELAY_SECONDS, 2 * lease_seconds)
    while not room.has(_ANSWERED):
        if time.monotonic() - began > most:
            return Finding("delay", False, f"a new file was not seen there and back within {most:.0f} s")
        wait(_DELAY_LOOK_SECONDS)
    took = time.monotonic() - began
    enough = f"longer than lease_seconds = {lease_seconds:g} allows; set it to {4 * took:.0f}, or mount with noac"
    return Finding("delay", took < lease_seconds / 2, f"a new file is seen there and back in {took:.1f} s" + (
        "" if took < lease_seconds / 2 else f", {enough}"
    ))  # fmt: skip


def _findings(said: dict[str, object], token: str, took: float, *, claimed: bool) -> Iterator[Finding]:
    yield Finding("job", True, f"answered by {said['host']} after {took:.1f} s")
    shared = said["token"] == token
    yield Finding("shared", shared and claimed, "the same folder on both sides" if shared else "another folder there")
    lacks = said.get("lacks")
    if isinstance(lacks, list) and lacks:
        yield Finding("data", False, f"`shared` names folders that are not there: {', '.join(map(str, lacks))}")
    same = said["version"] == __version__
    yield Finding("speciate", same, f"{said['version']} there, {__version__} here")
    yield Finding("Python", True, f"{said['python']}")
    gpus = said["gpus"]
    yield Finding(
        "GPUs", True, ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "none that it was given"
    )
    lacking = said["lacking"]
    assert isinstance(lacking, list)
    whole = f"its kernel lacks: {', '.join(lacking)}; runs that open foreign files are refused there"
    yield Finding("sandbox", not lacking, whole if lacking else "every layer")


def main(where: str) -> int:
    """What the probe's job does on the node."""
    room = open_room(where)
    claim(room, "node")
    said = {
        "host": socket.gethostname(),
        "token": (room.read(SENT) or b"").decode(),
        "version": __version__,
        "python": f"{platform.python_version()}, {sys.executable}",
        "gpus": _gpus(),
        "lacks": [path for path in json.loads(room.read(_SHARED) or b"[]") if not os.path.isdir(path)],
        "lacking": [layer.name for layer in layers() if layer.needed and not layer.there],
    }
    room.write(_SAID, json.dumps(said))
    end = time.monotonic() + _MOST_DELAY_SECONDS
    while room.is_there() and time.monotonic() < end:
        if room.has(_ASKED):
            room.write(_ANSWERED, "")
            break
        time.sleep(_DELAY_LOOK_SECONDS)
    return 0


def _gpus() -> list[str]:
    """GPUs as the driver's own program lists them."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_GPU_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.partition(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU ")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
