"""What a process of ours finds in its environment: nothing of the caller's, and what libraries must be told early."""

from __future__ import annotations

import gc
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from speciate.environment import clean_environment, cores, go_online, preload
from speciate.sandbox import Sandbox, start

TOLD = {
    "OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "4", "TOKENIZERS_PARALLELISM": "false",
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
