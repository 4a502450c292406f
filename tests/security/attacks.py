"""What others' code tries in a sandbox: each attack is the body of a function that returns something true where it got
through. Refused is what raises OSError, or returns nothing.

The words in braces are of `Ground`. No attack needs a number of a system call that differs between machines.
"""

from __future__ import annotations

import os
import socket
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

WORD = "planted-secret-words"


class Ground(NamedTuple):
    """What there is to be reached outside of a cage."""

    secret: str
    """A file with WORD."""
    folder: str
    """That holds it, as a workspace would."""
    sacrifice: str
    """Another such file, which the control may spoil."""
    keys: str
    """As a person's own are kept, in a home folder."""
    port: int
    unix: str
    abstract: str
    parent: int
    inherited: int
    """A descriptor of the secret that a child without a cage inherits."""

    def read(self, body: str) -> str:
        """An attack with what is in braces filled in."""
        for name, value in self._asdict().items():
            body = body.replace(f"{{{name}}}", repr(value))
        return body


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    home = folder / "workspace"
    home.mkdir(parents=True)
    for name in ("secret", "sacrifice"):
        (home / name).write_text(WORD)
    keys = folder / "home" / ".config" / "speciate" / "secrets.json"
    keys.parent.mkdir(parents=True)
    keys.write_text(WORD)
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(str(home / "s"))
        named.listen(50)
        hidden = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract = f"\0speciate-{os.getpid()}-{folder.name}"
        hidden.bind(abstract)
        hidden.listen(50)
        held = os.open(home / "secret", os.O_RDONLY)
        stack.callback(os.close, held)
        os.set_inheritable(held, True)
        yield Ground(
            secret=str(home / "secret"), folder=str(home), sacrifice=str(home / "sacrifice"),
            keys=str(keys), port=server.getsockname()[1], unix=str(home / "s"), abstract=abstract,
            parent=os.getpid(), inherited=held,
        )  # fmt: skip


PRELUDE = f"""
import ctypes, os, resource, signal, socket, sys
WORD = {WORD!r}
def holds(text):
    return WORD in (text.decode(errors="replace") if isinstance(text, bytes) else text)
def call(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    told = getattr(library, name)(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if told == -1:
        raise OSError(ctypes.get_errno(), name)
    return told
"""


def function(name: str, body: str) -> str:
    return f"def {name}():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


OPEN = {
    # files outside
    "reads a file of the workspace": "return holds(open({secret}).read())",
    "reads a person's keys": "return holds(open({keys}).read())",
    "lists the workspace": "return os.listdir({folder})",
    "reads through a symbolic link": "os.symlink({secret}, 'link')\nreturn holds(open('link').read())",
    "reads through a link in a folder that links": (
        "os.symlink({folder}, 'there')\nreturn holds(open('there/secret').read())"
    ),
    "reads through the root of a process": "return holds(open('/proc/self/root' + {secret}).read())",
    "reads through a handle of the folder": (
        "place = os.open({folder}, os.O_PATH)\nreturn holds(os.read(os.open('secret', os.O_RDONLY, dir_fd=place), 99))"
    ),
    "reads a descriptor that was left open": (
        "wanted = os.stat({secret}).st_ino\n"
        "for number in map(int, os.listdir('/proc/self/fd')):\n"
        "    try:\n        found = os.fstat(number).st_ino == wanted\n    except OSError:\n        continue\n"
        "    if found:\n        return True"
    ),
    "writes a file of the workspace": "open({sacrifice}, 'a').write('x')\nreturn True",
    "makes a file beside it": "open({folder} + '/new', 'w').write('x')\nreturn True",
    "makes a folder": "os.mkdir({folder} + '/made')\nreturn True",
    "writes where all may": (
        "name = os.path.join(os.sep, 'tmp', 'speciate-%d' % os.getpid())\n"
        "open(name, 'w').close()\nos.remove(name)\nreturn True"
    ),
    "writes shared memory": (
        "name = '/dev/shm/speciate-%d' % os.getpid()\nopen(name, 'w').close()\nos.remove(name)\nreturn True"
    ),
    "empties a file": "os.truncate({sacrifice}, 0)\nreturn True",
    "changes the mode of a file": "os.chmod({sacrifice}, 0o777)\nreturn True",
    "changes its times": "os.utime({sacrifice}, (1, 1))\nreturn True",
    "changes its owner": "os.chown({sacrifice}, os.getuid(), os.getgid())\nreturn True",
    "moves a file away": "os.rename({sacrifice}, {folder} + '/moved')\nreturn True",
    "removes a file": "os.remove({folder} + '/moved')\nreturn True",
    # network
    "connects over TCP": "return socket.create_connection(('127.0.0.1', {port}), 5)",
    "sends over UDP": "return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "listens": "return socket.create_server(('127.0.0.1', 0))",
    "connects to a socket with a path": "socket.socket(socket.AF_UNIX).connect({unix})\nreturn True",
    "connects to an abstract socket": "socket.socket(socket.AF_UNIX).connect({abstract})\nreturn True",
    # processes
    "forks": "child = os.fork()\nif child == 0:\n    os._exit(0)\nos.waitpid(child, 0)\nreturn True",
    "starts a program": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)\nreturn True",
    "signals its parent": "os.kill({parent}, 0)\nreturn True",
    "signals its parent's group": "os.killpg(os.getpgid({parent}), 0)\nreturn True",
    "reads its parent's memory map": "return open('/proc/%d/maps' % {parent}).read()",
    "reads its parent's environment": "return open('/proc/%d/environ' % {parent}, 'rb').read()",
    "lists its parent's descriptors": "return os.listdir('/proc/%d/fd' % {parent})",
    "opens its parent's memory": "return open('/proc/%d/mem' % {parent}, 'rb')",
    "has secrets in its environment": "return any(holds(value) for value in os.environ.values())",
    "changes its parent's limits": (
        "resource.prlimit({parent}, resource.RLIMIT_NOFILE, resource.prlimit({parent}, resource.RLIMIT_NOFILE))\n"
        "return True"
    ),
    "changes its parent's priority": (
        "os.setpriority(os.PRIO_PROCESS, {parent}, os.getpriority(os.PRIO_PROCESS, {parent}))\nreturn True"
    ),
    "moves its parent to other cores": "os.sched_setaffinity({parent}, os.sched_getaffinity({parent}))\nreturn True",
    "lives on after its parent": "call('prctl', 1, 0, 0, 0, 0)\nreturn True",
    "opens thousands of files": "return [os.open('/dev/null', os.O_RDONLY) for _ in range(2000)]",
    "makes files in memory": "return os.memfd_create('x')",
}
"""Those that get through where there is no cage, which is tried, too: an attack that is broken proves nothing."""
CLOSED = {
    # of these some kernels and users are refused anyway
    "reads /etc/shadow": "return open('/etc/shadow').read()",
    "reads /etc/passwd": "return open('/etc/passwd').read()",
    "takes a hard link": "os.link({secret}, 'hard')\nreturn holds(open('hard').read())",
    "moves a file into its own folder": "os.rename({secret}, 'mine')\nreturn True",
    "reads through its parent's root": "return holds(open('/proc/%d/root' % {parent} + {secret}).read())",
    "reads through its parent's descriptor": "return holds(open('/proc/%d/fd/%d' % ({parent}, {inherited})).read())",
    "marks a file": "os.setxattr({secret}, 'user.x', b'1')\nreturn True",
    "asks for a name": "return socket.getaddrinfo('example.com', 80)",
    "opens a raw socket": "return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "opens a packet socket": "return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "traces its parent": "call('ptrace', 0x4206, {parent}, 0, 0)\nreturn True",
    "reads its parent's memory": (
        "buffer = ctypes.create_string_buffer(8)\n"
        "mine = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)\n"
        "theirs = (ctypes.c_size_t * 2)(id(buffer), 8)\n"
        "call('process_vm_readv', {parent}, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)\nreturn True"
    ),
    "takes its parent's descriptor": (
        "handle = call('syscall', 434, {parent}, 0)\nreturn call('syscall', 438, handle, {inherited}, 0)"
    ),
    "asks for rings of the kernel": "return call('syscall', 425, 8, ctypes.create_string_buffer(256))",
    "changes a mode by the newest call": "call('syscall', 452, -100, {secret}.encode(), 0o777, 0)\nreturn True",
    "takes a namespace of users": "call('unshare', 0x10000000)\nreturn True",
    "takes a namespace of mounts": "call('unshare', 0x00020000)\nreturn True",
    "mounts": "call('mount', b'none', b'.', b'tmpfs', 0, 0)\nreturn True",
    "takes another root": "os.chroot('.')\nreturn True",
    "sets the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, time.time())\nreturn True",
    "raises its limits": (
        "try:\n    resource.setrlimit(resource.RLIMIT_NOFILE, (100_000, 100_000))\n"
        "except ValueError:\n    return False\nreturn True"
    ),
    "joins its parent's group": "os.setpgid(0, os.getpgid({parent}))\nreturn True",
    "leaves its group": "os.setsid()\nreturn True",
    "opens a terminal": "return open('/dev/tty', 'w')",
    "shares memory by a key": "return call('shmget', 0, 4096, 0o1600) >= 0",
}
LOUD = {
    "takes 8 GB": "kept = bytearray(8 << 30)\nreturn len(kept)",
    "takes 8 GB by and by": "kept = []\nwhile len(kept) < 160:\n    kept.append(bytearray(50 << 20))\nreturn True",
    "forks without end": "while True:\n    os.fork()",
    "starts threads without end": (
        "import threading, time\n"
        "for _ in range(5000):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nreturn True"
    ),
    "loops without end": "while True:\n    pass",
    "sleeps": "import time\ntime.sleep(600)",
    "stops itself": "signal.raise_signal(signal.SIGSTOP)\nimport time\ntime.sleep(600)",
    "kills its parent": "os.kill({parent}, signal.SIGKILL)",
    "kills its own group": "os.killpg(0, signal.SIGKILL)",
    "crashes": "ctypes.string_at(0)",
    "leaves": "os._exit(0)",
    "becomes another program": (
        "os.dup2(3, 1)\nos.execv('/bin/echo', ['echo', '{\"value\": [1.0], \"passed\": true}'])"
    ),
    "closes its pipes": "os.closerange(0, 60)\nimport time\ntime.sleep(600)",
    "writes the protocol's line everywhere": (
        'lines = b\'{"value": [1.0]}\\n{"value": 1.0}\\n{"passed": true}\\n{"mark": null, "value": [1.0]}\\n\'\n'
        "for number in range(3, 60):\n"
        "    try:\n        os.write(number, lines)\n    except OSError:\n        pass\n"
        "raise ValueError"
    ),
    "prints the protocol's line": 'print(\'{"value": [1.0], "passed": true}\', flush=True)\nraise ValueError',
    "prints without an end": "while True:\n    print('x' * 65536)",
    "answers without an end": (
        "for number in range(3, 60):\n"
        "    try:\n        [os.write(number, b'x' * (1 << 20)) for _ in range(40)]\n    except OSError:\n        pass\n"
        "raise ValueError"
    ),
    "fills the disk": (
        "import time\nfor number in range(8):\n    open('f%d' % number, 'wb').write(bytes(8 << 20))\ntime.sleep(600)"
    ),
}
"""Those that cost the process, or time: each alone."""
