"""The service pool: answers, errors as they were raised, and processes that are replaced when they misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets.readers.formats import Reader
from speciate.datasets.readers.read_table import TableRequest
from speciate.datasets.versions import Manifest, Part
from speciate.errors import Code, SpeciateError
from speciate.jobs import pool as pool_module
from speciate.jobs.pool import Busy, Pool, PoolProcessEnded
from speciate.sandbox import warm
from speciate.settings import Settings
from speciate.workspace.workspace import Folders

READ = "speciate.datasets.readers.read_table:read_table"
QUERY = "speciate.datasets.inspect.sql_sandbox:query"
NAME = "speciate.refs:check_name"
ENDLESS = "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path / "workspace")
    folders.make()
    return folders


@pytest.fixture
def pool(folders: Folders) -> Iterator[Pool]:
    pool = Pool(folders, Settings(), size=2)
    yield pool
    pool.close()


OTHERS: set[int] = set()
"""Children that earlier tests left behind, such as supervisors that outlive their engine."""


@pytest.fixture(autouse=True)
def only_own_children() -> None:
    OTHERS.clear()
    OTHERS.update(process.pid for process in psutil.Process().children(recursive=True))


def processes(folders: Folders) -> list[psutil.Process]:
    """Those of the pool, found as an operator would: by the workspace's path in the command line."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid not in OTHERS
        and (process.status() == psutil.STATUS_ZOMBIE or str(folders.root) in process.cmdline())
    ]


def sql(query: str, folders: Folders) -> dict[str, object]:
    file = folders.datasets / "one.parquet"
    if not file.exists():
        pq.write_table(pa.table({"id": ["a"]}), file)
    part = Part(file=file.relative_to(folders.root).as_posix(), rows=1)
    one = Manifest(name="one", version=1, id="", modality="text", parts=(part,), columns={}, rows=1)
    asked = {"sql": query, "split": None, "limit": 5, "offset": 0, "whole": False}
    return {"root": str(folders.root), "manifest": one.model_dump(mode="json"), "since": None, **asked}


def test_a_process_that_was_killed_between_questions_costs_no_answer(pool: Pool, folders: Folders) -> None:
    """By the system, where memory runs out: it takes the idle, too."""
    for _ in range(2):
        assert pool.ask(QUERY, sql("SELECT count(*) FROM examples", folders))["rows"] == [[1]]
        (idle,) = processes(folders)
        idle.kill()
        psutil.wait_procs([idle], timeout=10)
    assert pool.ask(QUERY, sql("SELECT count(*) FROM examples", folders))["rows"] == [[1]]


def test_a_process_answers_many_questions_and_may_be_started_before_them(pool: Pool, folders: Folders) -> None:
    pool.warm()
    assert (len(processes(folders)), pool.busy) == (1, 0)
    pool.warm()
    answers = [pool.ask(QUERY, sql(f"SELECT {i} AS n", folders))["rows"] for i in range(5)]
    assert answers == [[[i]] for i in range(5)]
    assert len(processes(folders)) == 1


def test_a_process_that_nobody_asks_ends_and_later_if_it_holds_a_model(pool: Pool, folders: Folders) -> None:
    pool.ask(QUERY, sql("SELECT 1", folders))
    pool.end_idle()
    assert len(processes(folders)) == 1, "it was asked just now"
    pool.end_idle(0.0)
    assert processes(folders) == []
    assert pool.ask(QUERY, sql("SELECT 2 AS n", folders))["rows"] == [[2]]
    pool.ask(QUERY, sql("SELECT 3", folders), family="classical")
    pool.end_idle(0.0)
    kept = processes(folders)
    assert kept
    assert pool.ask(QUERY, sql("SELECT 4 AS n", folders))["rows"] == [[4]]
    assert {each.pid for each in kept} <= {each.pid for each in processes(folders)}
    pool.end_idle(0.0, 0.0)
    assert processes(folders) == []
    assert pool.ask(QUERY, sql("SELECT 5", folders), family="classical")["rows"] == [[5]]


@pytest.mark.slow(reason="two imports of torch")
def test_models_that_need_all_of_transformers_have_processes_apart(
    pool: Pool, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no parent makes imports."""
    monkeypatch.setattr(warm, "offered", lambda family: False)
    for family in ("transformers", "published", "transformers", "published"):
        pool.ask(QUERY, sql("SELECT 1", folders), family=family)
    assert sorted(server.family for server in pool._idle) == ["", "published"]
    assert {server.family: server.asked for server in pool._idle} == {"": 2, "published": 2}


def test_an_error_comes_back_as_it_was_raised(pool: Pool, folders: Folders) -> None:
    with pytest.raises(SpeciateError, match="no table 'nothing'") as raised:
        pool.ask(QUERY, sql("SELECT * FROM nothing", folders))
    assert raised.value.code is Code.INVALID
    assert "query_dataset" in raised.value.recovery


def test_a_defect_is_told_as_one(pool: Pool) -> None:
    with pytest.raises(SpeciateError, match="TypeError") as raised:
        pool.ask(NAME, {})
    assert raised.value.code is Code.INTERNAL


def test_only_functions_of_this_package_are_services(pool: Pool) -> None:
    with pytest.raises(SpeciateError, match="not a service"):
        pool.ask("os:listdir", {})


def test_a_question_that_takes_too_long_costs_its_process_only(pool: Pool, folders: Folders) -> None:
    with pytest.raises(SpeciateError, match=r"within 0\.5 s") as raised:
        pool.ask(QUERY, sql(ENDLESS, folders), timeout=0.5)
    assert raised.value.code is Code.UNAVAILABLE
    assert processes(folders) == []
    assert pool.ask(QUERY, sql("SELECT 1", folders))["rows"] == [[1]]


def test_a_patient_question_outlasts_a_pool_that_is_busy(folders: Folders) -> None:
    pool = Pool(folders, Settings(), size=1)

    def occupy() -> None:
        with pytest.raises(PoolProcessEnded):
            pool.ask(QUERY, sql(ENDLESS, folders), 1.5)

    busy = threading.Thread(target=occupy)
    busy.start()
    while not pool.busy:
        time.sleep(0.01)
    with pytest.raises(Busy):
        pool.ask(QUERY, sql("SELECT 1", folders), 0.2)
    # nor does the start of a process, which is longer than the question's time, end it
    assert pool.ask(QUERY, sql("SELECT 1", folders), 0.2, patience=60)["rows"] == [[1]]
    with pytest.raises(PoolProcessEnded):  # but a question that is itself too long is ended in its time
        pool.ask(QUERY, sql(ENDLESS, folders), 0.2, patience=60)
    busy.join()
    pool.close()


def test_a_process_that_dies_over_a_question_is_replaced(pool: Pool, folders: Folders) -> None:
    pool.ask(QUERY, sql("SELECT 1", folders))
    (process,) = processes(folders)
    before = process.cpu_times().user

    def kill_at_work() -> None:
        while process.cpu_times().user < before + 0.05:
            time.sleep(0.005)
        process.kill()

    threading.Thread(target=kill_at_work, daemon=True).start()
    with pytest.raises(SpeciateError, match="that ran 'query' was ended") as raised:
        pool.ask(QUERY, sql("SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)", folders))
    assert raised.value.code is Code.UNAVAILABLE
    assert pool.ask(QUERY, sql("SELECT 2", folders))["rows"] == [[2]]
    assert len(processes(folders)) == 1


def test_many_threads_share_two_processes(pool: Pool, folders: Folders) -> None:
    payloads = [sql(f"SELECT {i}", folders) for i in range(20)]
    answers: dict[int, object] = {}

    def ask(i: int) -> None:
        answers[i] = pool.ask(QUERY, payloads[i])["rows"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: [[i]] for i in range(20)}
    assert len(processes(folders)) == 2


def test_a_file_can_be_read_only_by_the_question_that_names_it(pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    payload = TableRequest(file, Reader(), "auto").payload()
    with pytest.raises(SpeciateError, match="Permission denied"):
        pool.ask(READ, payload)
    assert pool.ask(READ, payload, readable=frozenset((file,)))["rows"] == 1
    with pytest.raises(SpeciateError, match="Permission denied"):
        pool.ask(READ, payload)


def test_a_closed_pool_leaves_nothing_behind(folders: Folders) -> None:
    pool = Pool(folders, Settings())
    pool.ask(QUERY, sql("SELECT 1", folders))
    pool.close()
    assert processes(folders) == []
    assert list((folders.cache / "pool").iterdir()) == []
    with pytest.raises(SpeciateError, match="closing"):
        pool.ask(QUERY, sql("SELECT 1", folders))


def test_a_process_that_starts_while_the_pool_is_closed_answers_nothing(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, begin = Pool(folders, Settings()), pool_module._Server

    def begun(*given: Any) -> Any:
        server = begin(*given)
        pool.close()
        return server

    monkeypatch.setattr(pool_module, "_Server", begun)
    with pytest.raises(SpeciateError, match="closing"):
        pool.ask(QUERY, sql("SELECT 1", folders))
    assert processes(folders) == []


def test_closing_ends_a_question_in_flight(folders: Folders) -> None:
    pool = Pool(folders, Settings())
    errors: list[SpeciateError] = []
    pool.ask(QUERY, sql("SELECT 1", folders))

    def ask() -> None:
        try:
            pool.ask(QUERY, sql(ENDLESS, folders), timeout=30)
        except SpeciateError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not pool.busy:
        pass
    pool.close()
    thread.join(10)
    assert [error.code for error in errors] == [Code.UNAVAILABLE]
    assert processes(folders) == []
