"""The only reader of the process's environment. Standard library only: the shim starts through it."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from speciate.errors import Code, SpeciateError


def workspace_path(explicit: str | None = None) -> Path:
    """`explicit`, else $SPECIATE_HOME, else ./.speciate where it exists, else ~/.speciate."""
    if explicit:
        return Path(explicit).expanduser().absolute()
    if home := os.environ.get("SPECIATE_HOME"):
        return Path(home).expanduser().absolute()
    here = Path.cwd() / ".speciate"
    return here if here.is_dir() else _default_workspace()


def check_there(workspace: Path) -> None:
    """A workspace that was named must be there: a misspelt one would be made, and look as if all were lost. One that
    we may not look at is left to its daemon."""
    try:
        there = workspace.is_dir()
    except OSError:
        return
    if not there:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no workspace {workspace}.",
            f"speciate init --workspace {workspace} makes one. One that lies elsewhere is named by --workspace or "
            "SPECIATE_HOME.",
        )


def _default_workspace() -> Path:
    return Path.home() / ".speciate"


def made_unnamed(workspace: Path) -> str | None:
    """What to say where this workspace was made just now; None where somebody must have named it."""
    if os.path.realpath(workspace) != os.path.realpath(_default_workspace()):
        return None
    return (
        f"A new, empty workspace was made in {workspace}: it is used where neither --workspace nor SPECIATE_HOME names "
        "another one and the folder of the client has no .speciate. If you meant another one, name it, and start again."
    )


def config_folder() -> Path:
    """What belongs to a person rather than to a workspace: $XDG_CONFIG_HOME/speciate, else ~/.config/speciate."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".config") / "speciate"


def runtime_folder() -> Path:
    """A short private folder for sockets (their paths end at about 104 bytes), made if needed.

    Below $XDG_RUNTIME_DIR, unless that is another user's or cannot be used, as after `sudo` or `su`.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        with contextlib.suppress(OSError, SpeciateError):
            return _check_private(Path(base) / "speciate")
    return _check_private(fallback_runtime_folder())


def fallback_runtime_folder() -> Path:
    """Where $XDG_RUNTIME_DIR cannot be used."""
    return Path(tempfile.gettempdir()) / f"speciate-{os.getuid()}"


def _check_private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.stat()
    if info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise SpeciateError(
            Code.REFUSED,
            f"{folder} must belong to you alone (mode 0700): others could listen in on its sockets.",
            f"Remove it or run: chmod 700 {folder}",
        )
    return folder


SYSTEM_SOCKETS = Path("/run/speciate")
"""Where daemons listen that the system runs under a user of their own. Only root can make this folder."""


SYSTEM_UNITS = Path("/etc/systemd/system")


def system_unit(workspace: Path) -> Path:
    """The systemd unit of the workspace's daemon, where it has a user of its own."""
    return SYSTEM_UNITS / f"speciate-{_workspace_digest(workspace)[:8]}.service"


def system_socket(workspace: Path) -> Path:
    return SYSTEM_SOCKETS / f"{_workspace_digest(workspace)}.sock"


def _workspace_digest(workspace: Path) -> str:
    """Digest of the folder's path, the same for every spelling of it."""
    return hashlib.sha256(os.fsencode(os.path.realpath(workspace))).hexdigest()[:24]


def socket_path(workspace: Path) -> Path:
    """Where the daemon of `workspace` listens: at the system's place, where one does, else at a place of this user."""
    if os.path.exists(shared := system_socket(workspace)):  # where we may not look there is none for us
        return shared
    path = runtime_folder() / f"{_workspace_digest(workspace)}.sock"
    if len(os.fsencode(path)) > 100:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The socket path {path} is longer than the system allows (104 bytes).",
            "Set XDG_RUNTIME_DIR (or TMPDIR) to a shorter folder of yours.",
        )
    return path


@cache
def cores() -> int:
    """Processors that this process may use: fewer than the machine has where its affinity or its container's quota says
    so.

    As it was when it was first asked: were more given to a daemon later, its plans would ask for more than its engine
    has measured, and be refused for good.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota(group) for group in _control_groups("cpu"))
    return max(1, min([there, *(math.ceil(quota) for quota in quotas if quota)]))


def memory_mb() -> float:
    """Memory of the machine, or of its container where that may have less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (_memory(group) for group in _control_groups("memory"))
    return min([physical, *(limit.most for limit in limits if limit)]) / 2**20


def free_memory_mb() -> float:
    """What the machine or its container has left; infinite where neither tells. Cached files give way, so they count as
    free."""
    limits = (_memory(group) for group in _control_groups("memory"))
    left = [(limit.most - limit.used) / 2**20 for limit in limits if limit]
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left.append(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**10)
    return max(0.0, min(left, default=math.inf))


_CONTROL_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups whose limits hold for this process, its own first: of version 2, and of version
    1 those of `controller`."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = _CONTROL_GROUPS / controllers
        own = PurePosixPath(path.lstrip("/"))  # in a container it may be the host's name, and is not there
        yield from (folder for each in (own, *own.parents) if (folder := mount / each).is_dir())


class _MemoryLimit(NamedTuple):
    """Bytes."""

    most: int
    used: int
    """All but cached files."""


def _memory(group: Path) -> _MemoryLimit | None:
    """None where it has no limit. One of version 1 without a limit has one beyond any machine's memory."""
    for limit, prefix in (("memory.max", ""), ("memory.limit_in_bytes", "total_")):
        with contextlib.suppress(OSError, ValueError):
            most = int((group / limit).read_text())  # "max" where there is no limit
            words = (group / "memory.stat").read_text().split()
            found = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            own = found["anon"] if not prefix else found["total_rss"]
            return _MemoryLimit(most, own + found.get(f"{prefix}shmem", 0))
    return None


def _quota(group: Path) -> float | None:
    """Cores that the group may use; None where it has no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()  # "max 100000" where there is no limit
        return int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None  # -1 where there is no limit
    return None


def memory_kills() -> int:
    """How often the system ended a process of this control group for want of memory; of the whole machine where groups
    do not tell."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        group = next(_control_groups("memory"))
        for counts in (group / "memory.events", group / "memory.oom_control", Path("/proc/vmstat")):
            if counts.exists():
                words = counts.read_text().split()
                return int(words[words.index("oom_kill") + 1])
    return 0


def yield_memory_first(share: int) -> None:
    """Let the system end this process and its later children before the daemon, where memory runs out. `share`:
    thousandths of all memory that they count as holding beyond what they do. Linux alone knows it."""
    with contextlib.suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(share, int(score.read_text()))))


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """While much is imported or built that stays: Python's collector finds nothing there, and takes a fifth of the
    time. Later collections leave out what is alive at the end, and forks share its pages."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def preload(modules: Iterable[str]) -> None:
    """Import them in a process that will be forked. ImportError for one that is missing, but where a question mark
    follows its name. `module:function` is called, too: it imports others in its own way."""
    with uncollected():
        for module in modules:
            name, _, function = module.removesuffix("?").partition(":")
            try:
                if name.partition(".")[0] in _TAKES_PANDAS:
                    import_without_pandas(name)
                else:
                    imported = importlib.import_module(name)
                    if function:
                        getattr(imported, function)()
            except ImportError:
                if not module.endswith("?"):
                    raise


class _Missing:
    """A finder of modules that comes first, and finds no pandas."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


_TAKES_PANDAS = {"pyarrow", "sklearn"}


def import_without_pandas(module: str) -> None:
    """Import a module of pyarrow or scikit-learn without pandas, which they import where it is installed, pyarrow for
    its first array: 33 MB and 0.2 CPU seconds that no process of ours needs. Whoever converts from or to pandas later
    still imports it.

    At the start of a process: another thread that imports pandas meanwhile would be refused.
    """
    missing = _Missing()
    sys.meta_path.insert(0, missing)
    try:
        importlib.import_module(module)
        if (arrow := sys.modules.get("pyarrow")) is not None:
            arrow.array([None])
    finally:
        sys.meta_path.remove(missing)


def allocate_plainly() -> None:
    """For a process of many threads that live long, before it imports pyarrow. Arrow's own allocator keeps huge pages
    for each thread: after 16 threads had read a small table, 160 MB instead of 72."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"


def hub_endpoint() -> str:
    """The server that `hf:` names: the Hugging Face hub, or a mirror that speaks its API."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "SPECIATE_CACHE",
    "SPECIATE_FAULT", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE",
    "WNHOME", "WNSEARCHDIR",
)  # fmt: skip

OWN_BLAS = os.uname().machine == "x86_64"
"""Whether torch brings linear algebra of its own. On ARM it takes OpenBLAS, as numpy and scipy do."""

LIBRARIES = {
    "OMP_WAIT_POLICY": "passive",  # spinning threads cost small models up to 15 times
    **({"OPENBLAS_NUM_THREADS": "1"} if OWN_BLAS else {}),  # to wait for a second one in a loop costs up to 37 times
    "OPENBLAS_THREAD_TIMEOUT": "4",  # where a training takes more: they would spin for 30 ms after each product
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # of an allocator that Arrow does not use: no thread
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
"""What must be in the environment before torch, transformers, trl or huggingface_hub are imported."""


@contextlib.contextmanager
def compute_threads(openmp: int, blas: int | None = None) -> Iterator[None]:
    """Threads of scikit-learn, LightGBM and torch, and of numpy's and scipy's linear algebra, in here.

    `blas` None: one, unless torch needs more of it.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

    with threadpool_limits(limits={"openmp": openmp, "blas": blas or (1 if OWN_BLAS else openmp)}):
        yield


@cache
def prefer_onednn() -> None:
    """Let torch have products of large matrices of float32 from the quicker of its two libraries, from here on.

    MKL, which it takes by default, leaves half of the registers of other processors than Intel's unused. oneDNN,
    which it takes at precision "medium", does not: of 64 rows and more it makes twice as many products a second on an
    EPYC, with the same digits; of one row half as many. Where a processor has a unit for bfloat16, "medium" means fewer
    digits, as it does on a GPU.
    """
    if not ("AuthenticAMD" in processor() and "avx512f" in processor()) or any(map(os.path.exists, _GPUS)):
        return
    import torch

    torch.set_float32_matmul_precision("medium")
    drawn = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    exact = drawn[0].double() @ drawn[1].double()
    if (drawn[0] @ drawn[1] - exact).abs().max() > _ALL_DIGITS * exact.abs().max():
        torch.set_float32_matmul_precision("highest")


_GPUS = ("/dev/nvidiactl", "/dev/kfd")
_ALL_DIGITS = 1e-5
"""Most error of a product of float32, relative to its largest number; of bfloat16 it is 1e-3."""


@cache
def processor() -> str:
    """What the system says of this machine's first processor, a line a fact; empty where that is not Linux."""
    try:
        return Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return ""


def limit_new_thread(openmp: int) -> None:
    """For a thread that was started within `compute_threads`: OpenMP counts for each thread by itself."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits={"openmp": openmp})


def openmp_threads() -> int:
    """As many as `compute_threads` allows."""
    from threadpoolctl import threadpool_info

    return max((int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "openmp"), default=1)


def clean_environment() -> dict[str, str]:
    """The environment of every process we start: nothing of the first caller's beyond what programs need to run."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | LIBRARIES | {"PYTHONUNBUFFERED": "1"}


def go_online() -> None:
    """For the one kind of run that fetches from a hub, before it imports the hub's library."""
    os.environ.pop("HF_HUB_OFFLINE", None)


def show_gpus(numbers: Sequence[int]) -> None:
    """For a run, before its libraries look for GPUs: they find these alone, counted from 0."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, numbers))


def keeps_test_hooks() -> str | None:
    """`POINT:ACTION` of a fault to inject, for the crash suite; None in every normal run."""
    return os.environ.get("SPECIATE_FAULT")
