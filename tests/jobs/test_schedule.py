"""Which jobs start, wait and stop: by resources, and by the free space of a disk that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.jobs.engine import Engine
from speciate.jobs.executors import Ended
from speciate.jobs.folder import Outcome, RunFolder
from speciate.jobs.job import Job, Resources, State
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.jobs.schedule import PATIENCE_SECONDS, choose, make_way, never_fits, start_within_space, waiting
from speciate.jobs.transitions import MAX_LOSSES
from speciate.refs import JobId
from speciate.settings import Capacity, Disk, Settings
from speciate.workspace.disk_space import GB, DiskSpace
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import fresh
from tests.jobs.test_reconcile import Stage, running
from tests.jobs.work import ENTRY, KINDS, Work

CAPACITY = Capacity(cpu=4, memory_mb=1000, gpu=1, named={"hub": 2})


def queued(name: str, cpu: float = 1.0, *, priority: int = 0, created: float = 0.0, **resources: object) -> Job:
    return Job(
        id=JobId(name), kind="work", spec={}, fingerprint="f", state=State.QUEUED, priority=priority, created=created,
        changed=created, resources=Resources.model_validate({"cpu": cpu, **resources}),
    )  # fmt: skip


def names(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def test_priority_comes_first_and_age_second() -> None:
    jobs = [queued("old"), queued("young", created=1.0), queued("urgent", created=2.0, priority=1)]
    assert names(choose(jobs, [], CAPACITY, 3.0)) == ["urgent", "old", "young"]


def test_a_backoff_is_waited_for() -> None:
    job = queued("later").model_copy(update={"not_before": 10.0})
    assert choose([job], [], CAPACITY, 9.9) == []
    assert names(choose([job], [], CAPACITY, 10.0)) == ["later"]


def test_what_runs_in_the_background_makes_way_for_what_somebody_waits_for() -> None:
    """A watch's training has all cores: a person's job does not wait for its end."""
    live = [
        queued("watch-old", 2, priority=-10),
        queued("watch-new", 2, priority=-10).model_copy(update={"started": 5.0}),
    ]
    asked = queued("asked", 2, created=10.0)
    assert choose([asked], live, CAPACITY, 20.0) == []
    assert make_way([asked], [], live, CAPACITY, 12.0) == [], "short runs end by themselves"
    assert names(make_way([asked], [], live, CAPACITY, 20.0)) == ["watch-new"]
    stopping = [live[0], live[1].model_copy(update={"request": "hold"})]
    assert make_way([asked], [], stopping, CAPACITY, 20.0) == [], "once is enough"
    assert names(make_way([queued("large", 4, created=10.0)], [], live, CAPACITY, 20.0)) == ["watch-new", "watch-old"]


def test_nothing_makes_way_in_vain_or_for_another_in_the_background() -> None:
    live = [queued("watch", 2, priority=-10), queued("person", 2)]
    assert make_way([queued("large", 4)], [], live, CAPACITY, 20.0) == []
    assert make_way([queued("other", 2, priority=-10)], [], live, CAPACITY, 20.0) == []
    assert make_way([queued("gpu", 0.1, gpu=1)], [], [queued("w", 4, priority=-10)], CAPACITY, 20.0)


def test_named_slots_are_shared() -> None:
    jobs = [queued(f"j{i}", 0.1, named={"hub": 1}, created=float(i)) for i in range(3)]
    assert names(choose(jobs, [], CAPACITY, 5.0)) == ["j0", "j1"]


def test_a_large_job_is_passed_over_for_a_minute_and_then_gets_its_room() -> None:
    live = [queued("runs", 2)]
    large, small = queued("large", 4), queued("small", 1, created=1.0)
    assert names(choose([large, small], live, CAPACITY, 5.0)) == ["small"]
    assert choose([large, small], live, CAPACITY, PATIENCE_SECONDS + 1) == []


def test_who_waits_is_told_for_what_and_who_has_it() -> None:
    live, large, small = [queued("runs", 2)], queued("large", 4), queued("small", 1, created=1.0)
    assert waiting([large, small], [small], live, CAPACITY) == {
        "large": "It waits for 4 CPU cores (1 free), in use by runs, small."
    }
    assert waiting([large, small], [], live, CAPACITY) == {
        "large": "It waits for 4 CPU cores (2 free), in use by runs.",
        "small": "It waits for its turn behind large.",
    }
    hub, memory = queued("hub", 0, named={"hub": 2}), queued("memory", 0, memory_mb=800)
    others = [queued(f"j{i}", 0, named={"hub": 1}) for i in range(2)] + [queued("big", 0, memory_mb=700)]
    assert waiting([hub, memory], [], others, CAPACITY) == {
        "hub": "It waits for 2 of hub (0 free), in use by j0, j1.",
        "memory": "It waits for 800 MB of memory (300 free), in use by big.",
    }
    many = [queued(f"j{i}", 0.8) for i in range(5)]
    assert "in use by j0, j1, j2, 2 more." in waiting([queued("late")], [], many, CAPACITY)["late"]


def test_what_a_machine_never_has_is_said() -> None:
    assert never_fits(Resources(cpu=1, gpu=2), CAPACITY) == "2 of gpu asked, 1 there"
    assert never_fits(Resources(cpu=1, named={"tpu": 1}), CAPACITY) == "1 of named:tpu asked, 0 there"
    assert never_fits(Resources(cpu=4), CAPACITY) is None


@given(
    wanted=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 600), st.integers(-1, 1)), max_size=12),
    running=st.integers(0, 4),
    now=st.floats(0, 200),
)
def test_what_is_chosen_fits_beside_what_runs(wanted: list[tuple[int, int, int]], running: int, now: float) -> None:
    jobs = [queued(f"j{i}", cpu, memory_mb=memory, priority=p) for i, (cpu, memory, p) in enumerate(wanted)]
    live = [queued("r", running)] if running else []
    chosen = choose(jobs, live, CAPACITY, now)
    assert sum(job.resources.cpu for job in chosen) + running <= CAPACITY.cpu
    assert sum(job.resources.memory_mb for job in chosen) <= CAPACITY.memory_mb
    assert len(set(names(chosen))) == len(chosen)


_STOPPED = Ended(Outcome(85, "stopped", "stopped on request"))


def _job(name: str, **more: int) -> Job:
    return Job(
        id=JobId(name), kind="work", spec={}, fingerprint="", state=State.QUEUED, created=1.0, changed=1.0,
        priority=more.get("priority", 0),
    )  # fmt: skip


def _room(free: int, floor: int = 100) -> DiskSpace:
    return DiskSpace(total=10_000, free=free, floor=floor)


@pytest.mark.parametrize(
    ("free", "needs", "live", "started"),
    [
        pytest.param(1_000, {"a": 10, "b": 10}, (), ["a", "b"], id="room for all"),
        pytest.param(1_000, {"a": 600, "b": 600}, (), ["a"], id="the second waits"),
        pytest.param(1_000, {"a": 950, "b": 10}, (), ["b"], id="a small one passes one that does not fit"),
        pytest.param(1_000, {"a": 500, "b": 10, "live": 600}, ("live",), ["b"], id="what lives has not written yet"),
        pytest.param(99, {"a": 1, "b": 1}, (), [], id="below the floor nobody starts"),
        pytest.param(110, {"a": 1, "b": 1}, (), [], id="nor just above it"),
        pytest.param(50, {"a": 1}, (), ["b"], id="but for who gives room"),
    ],
)
def test_who_starts(free: int, needs: dict[str, int], live: tuple[str, ...], started: list[str]) -> None:
    queued = [_job("a", priority=1), _job("b")]
    found = start_within_space(queued, [_job(name) for name in live], needs, _room(free))
    assert [str(job.id) for job in found.start] == started
    assert found.held.keys() == {"a", "b"} - set(started)
    assert all("manage_data(action='gc'" in why for why in found.held.values())


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500)), st.integers(0, 2_000), st.integers(0, 500))
def test_those_that_start_together_leave_the_floor(needs: dict[str, int], free: int, floor: int) -> None:
    found = start_within_space([_job(name) for name in needs], (), needs, _room(free, floor))
    if found.start:
        assert free - sum(needs[job.id] for job in found.start) >= floor
    assert {*found.held, *(str(job.id) for job in found.start)} == set(needs)


# Over a disk that the test sets


def _plan(spec: Work, workspace: Workspace) -> Plan:
    return Plan(payload=spec.model_dump(), bytes=spec.value * GB or None)


BIG = Kind(name="big", spec=Work, plan=_plan, run=ENTRY)
TIDY = Kind(name="tidy", spec=Work, plan=_plan, run=ENTRY, gives_room=True)


class SetDisk:
    """`free` in GB; 1 must stay free."""

    free = 100.0


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def disk() -> SetDisk:
    return SetDisk()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock, stage: Stage, disk: SetDisk) -> Iterator[Engine]:
    settings = Settings(capacity=Capacity(cpu=8, memory_mb=1000), disk=Disk(stop_below_gb=1))
    workspace = Workspace(fresh(tmp_path / "w", manual=True), clock=clock, settings=settings)
    workspace.room.usage = lambda folder: (200 * GB, int(disk.free * GB))
    yield Engine(workspace, Kinds(extra=[*KINDS, BIG, TIDY]), executor=stage)
    workspace.close()


def _said(engine: Engine) -> list[str]:
    rows = engine.workspace.database.read("SELECT type FROM events WHERE subject = 'workspace:disk' ORDER BY seq")
    return [kind for (kind,) in rows]


def test_a_job_that_would_write_more_than_there_is_waits_and_says_why(
    engine: Engine, stage: Stage, disk: SetDisk
) -> None:
    disk.free = 3
    job = engine.submit("big", {"value": 5})
    engine.tick()
    assert engine.get(job.id).state is State.QUEUED
    trouble = engine.trouble(job.id) or ""
    assert "may write 5 GB, but the workspace's disk has 3 GB free, and 1 GB must stay free" in trouble
    disk.free = 7
    engine.tick()
    assert (engine.get(job.id).state, engine.trouble(job.id)) == (State.STARTING, None)


def test_runs_stop_at_a_checkpoint_when_the_disk_fills_and_go_on_by_themselves(
    engine: Engine, stage: Stage, disk: SetDisk, clock: ManualClock
) -> None:
    job = running(engine, stage)
    disk.free = 0.9
    engine.tick()
    assert stage.cancelled == [(job.run_id, False)]
    stage.truth[job.run_id] = _STOPPED
    clock.advance(5)
    engine.tick()
    held = engine.get(job.id)
    assert (held.state, held.retries, held.losses) == (State.QUEUED, 0, 0)
    assert "with room it resumes by itself" in (held.reason or "")
    engine.tick()
    disk.free = 1.1  # not enough yet: or it would stop and start in turns
    engine.tick()
    assert stage.submitted == [f"{job.id}.1"]
    assert _said(engine) == ["disk.low"]
    disk.free = 2
    engine.tick()
    assert stage.submitted == [f"{job.id}.1", f"{job.id}.2"]
    assert _said(engine) == ["disk.low", "disk.enough"]


def test_a_person_may_cancel_or_pause_what_stops_for_room(engine: Engine, stage: Stage, disk: SetDisk) -> None:
    first, second = running(engine, stage), running(engine, stage)
    disk.free = 0.5
    engine.tick()
    engine.control(first.id, "cancel")
    engine.control(second.id, "pause")
    for job in (first, second):
        stage.truth[job.run_id] = _STOPPED
    disk.free = 50
    engine.tick()
    engine.tick()
    assert (engine.get(first.id).state, engine.get(second.id).state) == (State.CANCELLED, State.PAUSED)


def test_what_gives_room_runs_on_a_full_disk(engine: Engine, stage: Stage, disk: SetDisk) -> None:
    disk.free = 0.1
    job = running(engine, stage, "tidy")
    assert (job.state, stage.cancelled) == (State.RUNNING, [])


def test_a_run_that_met_the_full_disk_first_uses_up_no_retry(
    engine: Engine, stage: Stage, disk: SetDisk, clock: ManualClock
) -> None:
    job = engine.submit("work", {})
    for attempt in range(1, 6):
        engine.tick()
        assert engine.get(job.id).attempt == attempt
        folder = RunFolder(engine.workspace.folders.runs / f"{job.id}.{attempt}")
        folder.path.mkdir(parents=True)
        line = f'{{"at": 0, "done": {attempt}, "total": 9, "unit": "", "message": ""}}\n'
        (folder.path / "progress.jsonl").write_text(line)
        stage.truth[f"{job.id}.{attempt}"] = Ended(Outcome(1, "full", "the disk is full: OSError in the run"))
        engine.tick()
        clock.advance(61)
    assert (engine.get(job.id).state, engine.get(job.id).retries) == (State.QUEUED, 0)


def test_one_that_never_gets_further_is_given_up(engine: Engine, stage: Stage, clock: ManualClock) -> None:
    job = engine.submit("work", {})
    for attempt in range(1, MAX_LOSSES + 1):
        engine.tick()
        stage.truth[f"{job.id}.{attempt}"] = Ended(Outcome(1, "full", "the disk is full: OSError in the run"))
        engine.tick()
        clock.advance(61)
    assert engine.get(job.id).state is State.DEAD


def test_what_earlier_runs_of_a_kind_left_is_expected_of_the_next(
    engine: Engine, stage: Stage, disk: SetDisk, clock: ManualClock
) -> None:
    job = running(engine, stage)
    outputs = RunFolder(engine.workspace.folders.runs / job.run_id).outputs
    outputs.mkdir(parents=True)
    (outputs / "weights").write_bytes(b"x" * (80 << 20))
    stage.truth[job.run_id] = Ended(Outcome(0, "ok"))
    engine.tick()
    clock.advance(61)
    disk.free = 1.26
    more = [engine.submit("work", {}) for _ in range(4)]
    engine.tick()
    waiting = [job.id for job in more if engine.get(job.id).state is State.QUEUED]
    assert len(waiting) == 1, "266 MB are there, and each is expected to take 80"
    assert "may write 80 MB" in (engine.trouble(waiting[0]) or "")


def test_the_next_daemon_does_not_say_again_what_was_said(engine: Engine, stage: Stage, disk: SetDisk) -> None:
    disk.free = 0.5
    engine.tick()
    again = Engine(engine.workspace, Kinds(extra=KINDS), executor=stage)
    again.tick()
    assert _said(engine) == ["disk.low"]
