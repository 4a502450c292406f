"""Runs inside a sandbox: tries to get out in many ways, and says of each whether it did. No import of our own, for
it runs where a sandboxed module has begun, from text: `run(config, say)`.

Numbers of system calls are those of x86-64. An attempt got "OUT" when it had its effect, else it was "held".
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import stat
import struct
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS: dict[str, Callable[[], Any]] = {}
FATAL = ("x32_socket", "i386_gate", "unshare_user")
"""Some filters kill for these: each has a sandbox of its own."""
C: dict[str, Any] = {}
"""What there is outside: sandbox_world.py."""


def attempt(f: Callable[[], Any]) -> Callable[[], Any]:
    ATTEMPTS[f.__name__] = f
    return f


def sc(number: int, *args: Any) -> int:
    r = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(r)


def tcp(s: socket.socket) -> str:
    """Whether data get out and back."""
    s.settimeout(2)
    s.sendall(b"stolen")
    return f"reply {s.recv(20)!r}"


def ip() -> tuple[str, int]:
    return ("127.0.0.1", C["port"])


def ip6() -> tuple[str, int]:
    return ("::ffff:127.0.0.1", C["port"])


# --- network
@attempt
def tcp_connect() -> Any:
    s = socket.socket()
    s.connect(ip())
    return tcp(s)


@attempt
def mptcp_connect() -> Any:
    s = socket.socket(2, 1, 262)
    s.connect(ip())
    return tcp(s)


@attempt
def mptcp6_connect() -> Any:
    s = socket.socket(10, 1, 262)
    s.connect(ip6())
    return tcp(s)


@attempt
def fastopen_sendto() -> Any:
    s = socket.socket()
    try:
        s.sendto(b"x", 0x20000000, ip())
    except BlockingIOError:
        pass
    except OSError as e:
        if e.errno != 115:
            raise
    time.sleep(0.2)
    return tcp(s)


@attempt
def fastopen_sendmsg() -> Any:
    s = socket.socket()
    try:
        s.sendmsg([b"x"], [], 0x20000000, ip())
    except OSError as e:
        if e.errno != 115:
            raise
    time.sleep(0.2)
    return tcp(s)


@attempt
def fastopen_connect_option() -> Any:
    s = socket.socket()
    s.setsockopt(6, 30, 1)
    s.connect(ip())
    return tcp(s)


@attempt
def listen_without_bind() -> Any:
    s = socket.socket()
    s.listen(1)
    return f"listens on {s.getsockname()}"


@attempt
def mptcp_bind_listen() -> Any:
    s = socket.socket(2, 1, 262)
    s.bind(("0.0.0.0", 0))
    s.listen(1)
    return f"{s.getsockname()}"


@attempt
def udp_sendto() -> Any:
    s = socket.socket(2, 2)
    return s.sendto(b"stolen", ("127.0.0.1", C["uport"]))


@attempt
def udp_connect_send() -> Any:
    s = socket.socket(2, 2)
    s.connect(("127.0.0.1", C["uport"]))
    return s.send(b"stolen")


@attempt
def udp_bind_inbound() -> Any:
    s = socket.socket(2, 2)
    s.bind(("0.0.0.0", 0))
    return f"bound {s.getsockname()}"


@attempt
def udp6() -> Any:
    s = socket.socket(10, 2)
    return s.sendto(b"x", ("::ffff:127.0.0.1", C["uport"]))


@attempt
def udplite() -> Any:
    s = socket.socket(2, 2, 136)
    return s.sendto(b"x", ("127.0.0.1", C["uport"]))


@attempt
def icmp_ping() -> Any:
    s = socket.socket(2, 2, 1)
    return s.sendto(b"\x08" + b"\0" * 7, ("127.0.0.1", 0))


@attempt
def raw_ip() -> Any:
    return str(socket.socket(2, 3, 255).fileno())


@attempt
def packet_socket() -> Any:
    return str(socket.socket(17, 3, 0x300).fileno())


@attempt
def sctp() -> Any:
    s = socket.socket(2, 1, 132)
    s.connect(ip())
    return "connected"


@attempt
def smc() -> Any:
    s = socket.socket(43, 1, 0)
    s.connect(ip())
    return tcp(s)


@attempt
def netlink_route() -> Any:
    s = socket.socket(16, 3, 0)
    s.settimeout(1)
    s.send(struct.pack("IHHIIB3x", 20, 18, 0x301, 1, 0, 0))
    return f"{len(s.recv(65536))} bytes about interfaces"


@attempt
def netlink_sock_diag() -> Any:
    s = socket.socket(16, 3, 4)
    s.settimeout(1)
    s.send(struct.pack("IHHII", 72, 20, 0x301, 1, 0) + struct.pack("BBBxI48x", 2, 6, 0, 0xFFFFFFFF))
    return f"{len(s.recv(65536))} bytes about others' sockets"


@attempt
def netlink_other() -> Any:  # uevents, audit, connector, generic
    got = []
    for p in (9, 11, 15, 16):
        with contextlib.suppress(OSError):
            got.append((p, socket.socket(16, 3, p).fileno()))
    if not got:
        raise OSError(1, "none")
    return f"protocols {[p for p, _ in got]}"


@attempt
def vsock() -> Any:
    s = socket.socket(40, 1)
    s.settimeout(1)
    s.connect((2, 1))
    return "connected"


@attempt
def af_alg() -> Any:
    return str(socket.socket(38, 5, 0).fileno())


@attempt
def other_families() -> Any:
    got = []
    for f in range(2, 47):
        if f in (1, 2, 10, 16, 17):
            continue
        for t in (1, 2, 3, 5):
            with contextlib.suppress(OSError):
                got.append((f, t, sc(41, f, t, 0)))
    if not got:
        raise OSError(97, "none")
    return str(got)


@attempt
def unix_stream_connect() -> Any:
    s = socket.socket(1, 1)
    s.connect(C["ustream"])
    return "connected"


@attempt
def unix_dgram_sendto() -> Any:
    s = socket.socket(1, 2)
    return s.sendto(b"stolen", C["udgram"])


@attempt
def unix_dgram_by_socketpair_sendmsg() -> Any:
    a, _b = socket.socketpair(1, 2)
    return a.sendmsg([b"stolen"], [], 0, C["udgram"])


@attempt
def unix_dgram_by_socketpair_connect() -> Any:
    a, _b = socket.socketpair(1, 2)
    a.connect(C["udgram"])
    return a.send(b"stolen")


@attempt
def unix_dgram_by_socketpair_sendmmsg() -> Any:
    a, _b = socket.socketpair(1, 2)
    p = C["udgram"].encode()
    addr = ctypes.create_string_buffer(struct.pack("H", 1) + p + b"\0")
    data = ctypes.create_string_buffer(b"stolen")
    iov = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(data), 6))
    hdr = ctypes.create_string_buffer(
        struct.pack("QIxxxxQQQQIxxxxIxxxx", ctypes.addressof(addr), len(p) + 3, ctypes.addressof(iov), 1, 0, 0, 0, 0)
    )
    return sc(307, a.fileno(), hdr, 1, 0)


@attempt
def unix_abstract_connect() -> Any:
    s = socket.socket(1, 1)
    s.connect("\0" + C["abstract"])
    return "connected"


@attempt
def unix_abstract_listen() -> Any:
    s = socket.socket(1, 1)
    s.bind(f"\0mine{os.getpid()}")
    s.listen(1)
    return "listens"


@attempt
def unix_path_listen() -> Any:
    s = socket.socket(1, 1)
    s.bind("mine.sock")
    s.listen(1)
    return "listens in its folder"


@attempt
def io_uring() -> Any:
    return sc(425, 8, ctypes.create_string_buffer(256))


@attempt
def x32_socket() -> Any:
    return sc(0x40000000 + 41, 2, 1, 0)


# --- devices, watches, other processes
@attempt
def mknod_kmsg() -> Any:
    os.mknod("kmsg", stat.S_IFCHR | 0o600, os.makedev(1, 11))
    return os.open("kmsg", os.O_RDONLY | os.O_NONBLOCK)


@attempt
def mknod_null() -> Any:
    os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return os.open("null", os.O_RDWR)


@attempt
def mknod_block() -> Any:
    os.mknod("blk", stat.S_IFBLK | 0o600, C["dev"])
    return len(os.read(os.open("blk", os.O_RDONLY), 512))


@attempt
def mkfifo() -> Any:
    os.mkfifo("ff")
    return "a FIFO lies where our own code reads"


@attempt
def inotify_outside() -> Any:
    fd = sc(294, 0o4000)
    return f"watch {sc(254, fd, C['outside'].encode(), 0x3FF)} on a folder outside"


@attempt
def fanotify_outside() -> Any:
    fd = sc(300, 0, 0)
    return f"marked {sc(301, fd, 1, 0x20, -100, C['outside'].encode())}"


@attempt
def fanotify_fid() -> Any:
    fd = sc(300, 0x200, 0)
    return f"marked {sc(301, fd, 1, 0x100, -100, C['outside'].encode())}"


@attempt
def prlimit_parent() -> Any:
    resource.prlimit(C["parent"], resource.RLIMIT_CORE, (0, resource.prlimit(C["parent"], resource.RLIMIT_CORE)[1]))
    return "changed"


@attempt
def prlimit_parent_read() -> Any:
    return str(resource.prlimit(C["parent"], resource.RLIMIT_NOFILE))


@attempt
def raise_own_limit() -> Any:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    return "file size limit lifted"


@attempt
def signal_parent() -> Any:
    os.kill(C["parent"], 0)
    return "may signal"


@attempt
def pidfd_parent() -> Any:
    return sc(434, C["parent"], 0)


@attempt
def sigio_parent() -> Any:
    r, w = os.pipe()
    fcntl.fcntl(r, fcntl.F_SETOWN, C["parent"])
    fcntl.fcntl(r, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(w, b"x")
    time.sleep(0.2)
    if not os.path.exists(C["urged"]) and not C.get("urg_read"):
        return "F_SETOWN accepted"
    return "signal armed"


@attempt
def ptrace_parent() -> Any:
    return sc(101, 0x4206, C["parent"], 0, 0)


@attempt
def read_parent_memory() -> Any:
    b = ctypes.create_string_buffer(8)
    here = struct.pack("QQ", ctypes.addressof(b), 8)
    r = struct.pack("QQ", C["address"], 8)
    return sc(310, C["parent"], here, 1, r, 1, 0)


@attempt
def affinity_parent() -> Any:
    os.sched_setaffinity(C["parent"], os.sched_getaffinity(0))
    return "set"


@attempt
def nice_parent() -> Any:
    os.setpriority(os.PRIO_PROCESS, C["parent"], C["niceness"])  # as it is: to raise it again needs root
    return "set"


# --- the log
@attempt
def log_truncate() -> Any:
    os.ftruncate(2, 0)
    return "TRUNCATED" if stat.S_ISREG(os.fstat(2).st_mode) else "?"


@attempt
def log_unappend() -> Any:
    if not stat.S_ISREG(os.fstat(2).st_mode):
        raise OSError(1, "no regular file")
    f = fcntl.fcntl(2, fcntl.F_GETFL)
    fcntl.fcntl(2, fcntl.F_SETFL, f & ~os.O_APPEND)
    return "may overwrite lines"


@attempt
def log_lock() -> Any:
    if not stat.S_ISREG(os.fstat(2).st_mode):
        raise OSError(1, "no regular file")
    fcntl.flock(2, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return "locked"


@attempt
def tiocsti() -> Any:
    fcntl.ioctl(2, 0x5412, b"x")
    return "typed into the terminal"


# --- the kernel and root's powers
@attempt
def capabilities() -> Any:
    with open("/proc/self/status") as status:
        eff = next(line.split()[1] for line in status if line.startswith("CapEff"))
    if int(eff, 16) & ~C["kept"] == 0:
        raise OSError(1, "none")
    return f"CapEff {eff}"


@attempt
def become_another_user() -> Any:
    os.setresgid(12345, 12345, 12345)
    os.setresuid(12345, 12345, 0)
    os.setresuid(0, 0, 0)
    return "setuid"


@attempt
def syslog_read() -> Any:
    return sc(103, 10, 0, 0)


@attempt
def hostname() -> Any:
    n = os.uname().nodename.encode()
    return sc(170, n, len(n)) or "set"


@attempt
def unshare_user() -> Any:
    return sc(272, 0x10000000) or "unshared"


@attempt
def open_tree() -> Any:
    fd = sc(428, -100, C["outside"].encode(), 1)
    return os.listdir(f"/proc/self/fd/{fd}")


@attempt
def fsopen() -> Any:
    return sc(430, b"tmpfs", 0)


@attempt
def mount() -> Any:
    return mounted()


@attempt
def bpf() -> Any:
    return sc(321, 0, ctypes.create_string_buffer(struct.pack("IIIII", 1, 4, 4, 1, 0) + b"\0" * 80), 72)


@attempt
def perf() -> Any:
    a = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0) + b"\0" * 96)
    return sc(298, a, 0, -1, -1, 0)


@attempt
def userfaultfd() -> Any:
    return sc(323, 0)


@attempt
def keyring() -> Any:
    return sc(248, b"user", b"spk", b"v", 1, -4)


@attempt
def file_handle() -> Any:
    h = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + b"\0" * 128)
    m = ctypes.c_int()
    sc(303, -100, C["secret"].encode(), h, ctypes.byref(m), 0)
    d = os.open(".", 0)
    return os.read(sc(304, d, h, 0), 20).decode()


@attempt
def clock() -> Any:
    return sc(227, 0, struct.pack("qq", *divmod(time.time_ns(), 10**9))) or "set"


@attempt
def sysv_shm() -> Any:
    sc(31, sc(29, 0, 4096, 0o1600), 0, 0)
    return "made some"


@attempt
def modules() -> Any:
    return sc(175, b"x", 1, b"")


@attempt
def read_outside() -> Any:
    return open(C["secret"]).read()


@attempt
def write_outside() -> Any:
    os.close(os.open(C["outside"] + "/w", os.O_CREAT | os.O_WRONLY))
    return "wrote"


@attempt
def chmod_outside() -> Any:
    os.chmod(C["secret"], 0o644)
    return "changed"


@attempt
def fork_twice() -> Any:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    return "forked"


# --- beyond the first table
@attempt
def unix_dgram_sendmsg() -> Any:
    s = socket.socket(1, 2)
    return s.sendmsg([b"stolen"], [], 0, C["udgram"])


@attempt
def unix_bind_and_send() -> Any:
    s = socket.socket(1, 2)
    s.bind("")
    s.connect(C["udgram"])
    return s.send(b"stolen")


@attempt
def message_queue() -> Any:
    name = b"spk%d" % os.getpid()
    sc(240, name, 0o102, 0o600, 0)
    sc(241, name)
    return "made one"


@attempt
def sysv_messages() -> Any:
    sc(71, sc(68, 0, 0o1600), 0, 0)
    return "made some"


@attempt
def file_handle_of_a_listed_folder() -> Any:
    h = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    m = ctypes.c_int()
    return sc(303, -100, os.path.dirname(os.__file__).encode(), h, ctypes.byref(m), 0) or "has a handle"


@attempt
def lease_on_a_listed_file() -> Any:
    with open(os.path.join(os.getcwd(), "leased"), "w") as f:
        f.write("x")
    fd = os.open("leased", os.O_RDONLY)
    fcntl.fcntl(fd, 1024, fcntl.F_RDLCK)
    return "writers wait"


@attempt
def mount_parts() -> Any:
    return sc(432, -1, 0, 0)


@attempt
def parent_environment() -> Any:
    return len(open(f"/proc/{C['parent']}/environ", "rb").read())


@attempt
def parent_descriptors() -> Any:
    return os.listdir(f"/proc/{C['parent']}/fd")


@attempt
def parent_root() -> Any:
    return os.listdir(f"/proc/{C['parent']}/root/")


@attempt
def hard_link_outside() -> Any:
    os.link(C["secret"], "hard")
    return open("hard").read()


@attempt
def clone3_a_user_namespace() -> Any:
    if (
        child := sc(435, ctypes.create_string_buffer(struct.pack("Q" * 11, 0x10000000, *[0] * 3, 17, *[0] * 6)), 88)
    ) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "has a namespace"


@attempt
def list_mounts() -> Any:
    asked, found = struct.pack("IIQQQ", 32, 0, 0xFFFFFFFFFFFFFFFF, 0, 0), ctypes.create_string_buffer(8 * 64)
    return f"{sc(458, ctypes.create_string_buffer(asked), found, 64, 0)} mounts"


@attempt
def newest_calls() -> Any:
    return sc(469, -100, C["secret"].encode(), ctypes.create_string_buffer(64), 24, 0)


@attempt
def i386_gate() -> Any:  # last: may be killed for it
    m = mmap.mmap(-1, 4096, prot=7)
    m.write(bytes.fromhex("5389f889f389d1cd805bc3"))
    f = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(
        ctypes.addressof(ctypes.c_char.from_buffer(m))
    )
    r = f(20, 0, 0)
    if r < 0:
        raise OSError(-r, "i386")
    return f"getpid {r}"


def mounted() -> str:
    sc(165, b"none", b".", b"tmpfs", 0, 0)
    sc(166, os.getcwd().encode(), 2)
    return "mounted"


def works() -> str:
    """What must still work inside."""
    asyncio.run(asyncio.sleep(0))
    a, b = socket.socketpair()
    a.send(b"x")
    b.recv(1)
    t = threading.Thread(target=lambda: None)
    t.start()
    t.join()
    with tempfile.TemporaryFile(dir=".") as f:
        f.write(b"x")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.getrlimit(resource.RLIMIT_AS)
    os.sched_getaffinity(0)
    time.strftime("%Z")
    uuid.uuid4()
    os.urandom(4)
    os.getloadavg()
    for name in ("numpy", "pyarrow", "duckdb"):
        __import__(name)
    return "ok"


def run(config: dict[str, Any], say: Callable[[str, str, str], None]) -> None:
    """Attempts `config["only"]`, or all that are not fatal; and last, whether what must work does."""
    C.update(config)
    only = config["only"]
    for name, f in ATTEMPTS.items():
        if name != only if only else name in FATAL:
            continue
        say(name, "begun", "")
        try:
            detail, verdict = str(f())[:90], "OUT"
        except BaseException as error:  # noqa: BLE001 - whatever it is, it did not get out
            detail, verdict = f"{type(error).__name__} {error}"[:90], "held"
        say(name, verdict, detail)
    if only:
        return
    try:
        say("works", "works", works())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it did not get out
        say("works", "BROKEN", repr(error))
