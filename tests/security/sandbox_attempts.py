"""All attempts of `sandbox_probe.py` in one of our sandboxes, as a process of its own: JSON to stdout.

    python sandbox_attempts.py NAME [UID]

Each sandbox is the real one: its caller is asked to start its process, and what it hands to `start` (what may be read
and written, the limits, whether the code is of others, the module) is caught there. The module then runs as it does in
service; where it first reads its standard input, before it has met anything foreign, the attempts run in its place.
The sandbox "none" is the control: the same without any.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FATAL = ("x32_socket", "i386_gate", "unshare_user")
SECONDS = 120.0

IN_ITS_PLACE = """
import json, os, runpy, sys
out = os.dup(1)
config, module, arguments = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
def say(*row):
    os.write(out, json.dumps(row).encode() + b"\\n")
reads = os.read
def trap(descriptor, size):
    if descriptor != 0:
        return reads(descriptor, size)
    os.read = reads
    space = {"__name__": "probe"}
    exec(compile(PROBE, "probe", "exec"), space)
    space["run"](config, say)
    os._exit(0)
os.read = trap
sys.argv[1:] = arguments
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


class World(NamedTuple):
    folder: Path
    config: dict[str, Any]
    heard: list[str]


def world(folder: Path) -> World:
    """What there is to be reached: sockets of all kinds, a secret, this process."""
    (folder / "out").mkdir()
    (folder / "out" / "secret").write_text("TOPSECRET")
    heard: list[str] = []

    def stream(server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            connection.settimeout(2)
            try:
                heard.append(f"stream: {connection.recv(99)!r}")
                connection.sendall(b"reply")
            except OSError as error:
                heard.append(f"stream: {error!r}")

    def datagrams(server: socket.socket) -> None:
        while True:
            heard.append(f"datagram: {server.recv(99)!r}")

    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    named.bind(str(folder / "us"))
    abstract.bind(f"\0esc{os.getpid()}")
    letters = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    letters.bind(str(folder / "ud"))
    for server in (named, abstract):
        server.listen(9)
    for work, server in ((stream, tcp), (stream, named), (stream, abstract), (datagrams, udp), (datagrams, letters)):
        threading.Thread(target=work, args=(server,), daemon=True).start()
    config = {
        "port": tcp.getsockname()[1], "uport": udp.getsockname()[1], "ustream": str(folder / "us"),
        "udgram": str(folder / "ud"), "abstract": f"esc{os.getpid()}", "dev": os.stat(folder).st_dev,
        "outside": str(folder / "out"), "secret": str(folder / "out" / "secret"), "parent": os.getpid(),
        "address": id(folder), "urged": str(folder / "urged"), "niceness": os.nice(0),
    }  # fmt: skip
    return World(folder, config, heard)


def main(name: str) -> dict[str, Any]:
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    folder = Path(tempfile.mkdtemp(prefix="esc-"))
    place = world(folder)
    log = os.open(folder / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    os.write(log, b"an earlier line\n")
    os.dup2(log, 2)
    core = resource.getrlimit(resource.RLIMIT_CORE)
    sys.path.insert(0, str(ROOT))
    from tests.security import sandbox_callers  # not before the user has changed

    try:
        rows: dict[str, tuple[str, str]] = {}
        for only in (None, *FATAL):
            started = sandbox_callers.started(name, Path(tempfile.mkdtemp(dir=folder)))
            rows |= probe(started.run, place.config | {"only": only, "kept": started.kept if os.getuid() == 0 else 0})
        if "an earlier line" not in (folder / "log").read_text():
            rows["log_truncate"] = ("OUT", "the earlier line is gone")
        if resource.getrlimit(resource.RLIMIT_CORE) != core and name != "none":
            rows["prlimit_parent"] = ("OUT", "the limit has changed")
        return {"rows": rows, "heard": place.heard, "uid": os.getuid(), "log": (folder / "log").read_text()[-2000:]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def probe(begin: Callable[[list[str]], Any], config: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """`begin` runs Python with these arguments in the sandbox."""
    text = IN_ITS_PLACE.replace("PROBE", repr((HERE / "sandbox_probe.py").read_text()))
    process = begin(["-c", text, json.dumps(config)])
    buffer, until = b"", time.monotonic() + SECONDS
    while time.monotonic() < until:
        if select.select([process.stdout], [], [], 0.5)[0]:
            if not (chunk := os.read(process.stdout.fileno(), 65536)):
                break
            buffer += chunk
    process.kill()
    rows = {name: (verdict, detail) for name, verdict, detail in map(json.loads, buffer.splitlines())}
    if config["only"]:
        return {config["only"]: rows.get(config["only"], ("missing", "it did not begin"))} | {
            name: ("held", "killed for it") for name, (verdict, _) in rows.items() if verdict == "begun"
        }
    return rows


def alone() -> None:
    """What root breaks in the control is broken in mounts and names that this process alone has."""
    ctypes.CDLL(None).unshare(0x00020000 | 0x04000000)
    ctypes.CDLL(None).mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE


def become(uid: int) -> None:
    """Run anew as another user, who may reach the interpreter and this file: where a folder above is closed to him, it
    is laid open in a file system that this process alone sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    needed = sorted({sys.base_prefix, sys.prefix, str(ROOT)})
    closed = {
        str(parent): [path for path in needed if Path(path).is_relative_to(parent)]
        for path in needed
        for parent in (Path(path), *Path(path).parents)
        if not stat.S_IMODE(os.stat(parent).st_mode) & stat.S_IXOTH
    }
    if closed and libc.unshare(0x00020000) != 0:
        raise PermissionError(f"another user cannot reach {sorted(closed)}")
    libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
    for parent, paths in closed.items():
        kept = []
        for path in paths:
            at = tempfile.mkdtemp(prefix="esc-bind-")
            libc.mount(path.encode(), at.encode(), None, 0x5000, None)  # MS_BIND | MS_REC
            kept.append((at, path))
        libc.mount(b"tmpfs", parent.encode(), b"tmpfs", 0, b"mode=755")
        for at, path in kept:
            os.makedirs(path, exist_ok=True)
            libc.mount(at.encode(), path.encode(), None, 0x5000, None)
            libc.umount2(at.encode(), 2)
            os.rmdir(at)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execv(sys.executable, [sys.executable, __file__, sys.argv[1]])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        become(int(sys.argv[2]))
    if sys.argv[1] == "none" and os.getuid() == 0:
        alone()
    print(json.dumps(main(sys.argv[1])))
