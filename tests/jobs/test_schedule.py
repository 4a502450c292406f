from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speciate.ids import JobId
from speciate.jobs.job import Job, Resources, State
from speciate.jobs.schedule import PATIENCE_SECONDS, choose, never_fits, waiting
from speciate.settings import Capacity

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
