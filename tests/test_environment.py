"""What a process of ours finds in its environment: nothing of the caller's, and what libraries must be told early."""

from __future__ import annotations

import gc
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from speciate import environment
from speciate.environment import clean_environment, cores, go_online, preload
from speciate.sandbox import Sandbox, start

TOLD = {
    "OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "4", "TOKENIZERS_PARALLELISM": "false",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    **({"OPENBLAS_NUM_THREADS": "1"} if platform.machine() == "x86_64" else {}),
}  # fmt: skip
SHOWN = "import json, os; print(json.dumps(dict(os.environ)))"


def test_a_process_of_ours_is_told_before_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    ran = subprocess.run(
        [sys.executable, "-c", SHOWN], env=clean_environment(), capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout)
    assert found.items() >= TOLD.items()
    assert "SOME_TOKEN" not in found


def test_a_caged_process_is_told_the_same(tmp_path: Path) -> None:
    sandboxed = start([sys.executable, "-I", "-c", SHOWN], Sandbox((), tmp_path), "where_possible")
    try:
        assert json.loads(sandboxed.stdout.read()).items() >= TOLD.items()
    finally:
        sandboxed.kill()


def test_processors_that_come_later_change_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's share may grow while the daemon lives; its engine has measured once."""
    there = cores()
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(there + 5)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: there + 5)
    assert cores() == there


def grouped(folder: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str]) -> None:
    """This process in control groups as a kernel shows them: `own` is /proc/self/cgroup."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(own)
    monkeypatch.setattr(environment, "_CONTROL_GROUPS", folder)
    monkeypatch.setattr(environment, "_OWN_GROUPS", folder / "own")
    monkeypatch.setattr(environment, "cores", cores.__wrapped__)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)


_CACHED = "anon 209715200\nfile 8000000000\nshmem 104857600\n"
"""300 MB of a program's own, and eight gigabytes of files that were read."""
_V1_CACHED = "cache 8000000000\nrss 1\ntotal_cache 8000000000\ntotal_rss 209715200\ntotal_shmem 104857600\n"
_GB = str(1 << 30)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"memory.max": _GB, "memory.stat": _CACHED, "cpu.max": "150000 100000\n"}),
        (
            "0::/system.slice/unit.service\n",
            {
                "system.slice/memory.max": _GB, "system.slice/memory.stat": _CACHED,
                "system.slice/unit.service/memory.max": "max\n", "system.slice/unit.service/memory.stat": _CACHED,
                "system.slice/unit.service/cpu.max": "max 100000\n", "system.slice/cpu.max": "200000 100000\n",
            },
        ),
        (
            "4:memory:/docker/77\n3:cpu,cpuacct:/docker/77\n1:name=systemd:/docker/77\n",  # the host's names
            {
                "memory/memory.limit_in_bytes": _GB, "memory/memory.stat": _V1_CACHED,
                "cpu,cpuacct/cpu.cfs_quota_us": "120000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
        ),
    ],
    ids=["a container", "a unit whose slice is limited", "a container of version 1"],
)  # fmt: skip
def test_what_a_container_may_use_is_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str]
) -> None:
    grouped(tmp_path, monkeypatch, own, files)
    assert environment.cores() == 2
    assert environment.memory_mb() == 1024
    assert environment.free_memory_mb() == 724  # files that are cached give way; what lies in shared memory does not


def test_groups_without_limits_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = environment.memory_mb()
    none = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.stat": _V1_CACHED,
        "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n", "cpu.max": "max 100000\n",
    }  # fmt: skip
    grouped(tmp_path, monkeypatch, "5:memory:/\n2:cpu:/\n0::/\n", none)
    assert (environment.cores(), environment.memory_mb()) == (8, there)
    assert environment.free_memory_mb() < there


def test_files_that_are_cached_count_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "MemTotal: 8388608 kB\nMemFree: 102400 kB\nMemAvailable: 6291456 kB\nCached: 6189056 kB\n"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: told if str(path) == "/proc/meminfo" else read(path))
    grouped(tmp_path, monkeypatch, "", {})
    assert environment.free_memory_mb() == 6144


@pytest.mark.parametrize(
    "files",
    [
        {"memory/mine/memory.events": "low 0\noom 4\noom_kill 3\n"},
        {"memory/mine/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"},
    ],
)
def test_kills_for_want_of_memory_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    grouped(tmp_path, monkeypatch, "5:memory:/mine\n", files)
    assert environment.memory_kills() == 3


def test_the_hub_is_reached_by_what_asks_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "{}from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"
    asked = program.format("from speciate.environment import go_online; go_online(); ")
    for text, offline in ((program.format(""), "True\n"), (asked, "False\n")):
        ran = subprocess.run(
            [sys.executable, "-c", text], env=clean_environment(), capture_output=True, text=True, check=True
        )
        assert ran.stdout == offline
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    go_online()  # where nothing forbade it


def test_what_may_be_missing_is_marked_and_the_collector_is_back_afterwards() -> None:
    preload(["json", "no_such_module?"])
    assert gc.isenabled()
    with pytest.raises(ImportError, match="no_such_module"):
        preload(["no_such_module"])
    assert gc.isenabled()


_WITHOUT_PANDAS = """
import sys
from speciate.environment import preload
from speciate.jobs.zygote import modules
from speciate.sandbox import warm
preload([*warm.MODULES, *modules("plain"), *warm.FAMILIES["classical"], "speciate.server.service"])
import duckdb, pyarrow as pa, pyarrow.dataset
pa.array([1.0]), pa.Table.from_pylist([{"a": 1}])
duckdb.connect().execute("SELECT ?", ["a"]).fetchall()
assert "pandas" not in sys.modules
import pandas
assert pa.table({"a": [1]}).to_pandas()["a"].tolist() == [1]
assert pa.Table.from_pandas(pandas.DataFrame({"a": [1.0, None]}))["a"].null_count == 1
print("done")
"""


def test_no_process_of_ours_imports_pandas_for_an_array_and_it_is_there_for_whoever_asks() -> None:
    pytest.importorskip("pandas")
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PANDAS], env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert ran.stdout == "done\n", ran.stderr


def told(precision: str) -> str:
    """Sets it, and gives what it was."""
    before: str = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    return before


@pytest.mark.parametrize(
    ("processor", "gpu", "most_error", "precision"),
    [
        ("vendor_id: AuthenticAMD\nflags: avx512f", False, 1.0, "medium"),
        ("vendor_id: AuthenticAMD\nflags: avx512f", False, 0.0, "highest"),
        ("vendor_id: AuthenticAMD\nflags: avx512f", True, 1.0, "highest"),
        ("vendor_id: AuthenticAMD\nflags: avx2", False, 1.0, "highest"),
        ("vendor_id: GenuineIntel\nflags: avx512f amx_bf16", False, 1.0, "highest"),
        ("", False, 1.0, "highest"),
    ],
)
def test_products_come_from_another_library_only_where_that_is_quicker_and_loses_no_digit(
    processor: str, gpu: bool, most_error: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "processor", lambda: processor)
    monkeypatch.setattr(environment, "_GPUS", ("/dev/null",) if gpu else ())
    monkeypatch.setattr(environment, "_ALL_DIGITS", most_error)
    before, drawn = told("highest"), torch.random.get_rng_state()
    try:
        environment.prefer_onednn.__wrapped__()
        assert told("highest") == precision
        assert torch.equal(torch.random.get_rng_state(), drawn), "no training draws other numbers for it"
    finally:
        told(before)
