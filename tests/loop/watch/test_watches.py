"""Watches through the tool, the resources and the command line, over a world that takes no time (year.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from speciate import use_cases
from speciate.cli import ledger_commands, watch_commands
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.loop import ledger, status
from speciate.loop.notifications import notice_of
from speciate.loop.watch import news, recall, report, rows
from speciate.loop.watch.decide import decide
from speciate.loop.watch.definition import DAY, Policy, Trigger, Watch, next_time
from speciate.loop.watch.facts import WatchFacts
from speciate.loop.watch.seen import Gatherer, Surroundings, due, last_time
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.models.search.refresh import NewModel
from speciate.promotion import aliases
from speciate.resources.watches import watch as watch_resource
from speciate.resources.watches import watch_episode
from speciate.server.tool_api import App
from speciate.settings import Notify, WatchCaps
from speciate.tools.watches import watch_use_case
from speciate.training.train_spec import Candidate
from speciate.use_cases import Definition, Objective, UseCase, UseCaseLimits
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.data import fresh, ingest, review_csv
from tests.loop.watch.year import START, USE_CASE, Year

SHIFT = [Trigger(on="data_shift")]
NOW = [Trigger(on="now")]


@pytest.fixture
def year(tmp_path: Path) -> Iterator[Year]:
    made = Year(fresh(tmp_path / "w", manual=True))
    yield made
    made.close()


@pytest.fixture
def app(year: Year) -> App:
    return App(year.workspace, year.engine, Pool(year.workspace.folders, year.workspace.settings, size=0))


def define(workspace: Workspace, name: str, incumbent: str | None = None) -> None:
    definition = Definition(
        name=name, task="text-classification", objective=Objective(metric="accuracy"), incumbent=incumbent
    )
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))


def serve(workspace: Workspace, name: str) -> None:
    workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case=name, model=f"{name}-model@v1", expected=None, action="promote", actor="ada", evidence={}
        )
    )


@pytest.mark.parametrize(
    ("triggers", "says"),
    [
        ([], "without triggers never looks"),
        ([Trigger(on="schedule")], "'schedule' needs one"),
        ([Trigger(on="data_shift", cron="0 3 * * 1")], "no other trigger takes one"),
        ([Trigger(on="schedule", cron="0 3 30 2 *")], "never comes|is no schedule"),
        ([Trigger(on="schedule", cron="at dawn")], "is no schedule"),
        ([Trigger(on="schedule", cron="0 3 * * 1", zone="Mars/Olympus")], "no time zone 'Mars/Olympus'"),
        ([Trigger(on="data_shift", n=30)], "takes no n"),
    ],
)
def test_what_could_never_be_is_refused(app: App, triggers: list[Trigger], says: str) -> None:
    with pytest.raises(SpeciateError, match=says) as refused:
        watch_use_case(app, USE_CASE, triggers)
    assert refused.value.code is Code.INVALID
    assert refused.value.recovery


def test_an_unknown_use_case_and_one_that_nothing_serves_are_refused_with_the_next_call(app: App) -> None:
    with pytest.raises(SpeciateError, match="triag") as refused:
        watch_use_case(app, "triag", SHIFT)
    assert refused.value.code is Code.NOT_FOUND
    define(app.workspace, "sorting")
    with pytest.raises(SpeciateError, match="Nothing is in production for 'sorting'") as refused:
        watch_use_case(app, "sorting", SHIFT)
    assert refused.value.next[0].tool == "get_status"


@pytest.mark.parametrize(("group_by", "said"), [("film", True), (None, False)])
def test_it_is_said_at_once_what_inputs_must_come_with(
    app: App, tmp_path: Path, group_by: str | None, said: bool
) -> None:
    workspace = app.workspace
    source = review_csv(tmp_path / "reviews.csv", 20)
    manifest = ingest(workspace, "reviews", source=source, label="label", inputs=["text"], group_by=group_by)
    (tmp_path / "model").mkdir()
    card = ModelCard(
        name="sorting-model", id=sealed.seal(tmp_path / "model"), task="text-classification", modality="text",
        method="classical", dataset=manifest.ref,
    )  # fmt: skip
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, tmp_path / "model"))
    define(workspace, "sorting")
    serve(workspace, "sorting")
    because = watch_use_case(app, "sorting", SHIFT).because
    assert ("reviews@v1 is grouped by 'film'" in because) is said
    assert ("{'row': {'text': ..., 'film': ...}}" in because) is said


def test_watches_that_would_feed_one_another_are_refused(app: App) -> None:
    define(app.workspace, "first", incumbent="second-model@v1")
    define(app.workspace, "second", incumbent="first-model@v1")
    for name in ("first", "second"):
        serve(app.workspace, name)
    with pytest.raises(SpeciateError, match="would feed one another"):
        watch_use_case(app, "first", SHIFT)


def test_a_circle_that_comes_about_later_keeps_an_episode_from_beginning(app: App, year: Year) -> None:
    define(app.workspace, "first")
    define(app.workspace, "second", incumbent="first-model@v1")
    for name in ("first", "second"):
        serve(app.workspace, name)
    watch_use_case(app, "first", NOW)
    caps = WatchCaps(teachers={"first": "second-model@v1"})
    year.workspace.settings = year.workspace.settings.model_copy(update={"watch": caps})
    gatherer = Gatherer(year.workspace)
    standing = rows.find(app.workspace.database, "first")
    seen = gatherer.seen(standing, gatherer.around([standing], year.clock.time), year.clock.time)
    assert seen.circle == ("first", "second")
    decision = decide(standing.watch, standing.memory, replace(seen, bake="survived"), year.clock.time)
    assert decision.because == "the watches of first, second would feed one another"
    assert not decision.start


@pytest.mark.parametrize("why", ["purge", "licence"])
def test_what_must_go_is_recalled(app: App, year: Year, why: str) -> None:
    define(app.workspace, "first")
    card = ModelCard(
        name="first-model", version=1, task="text-classification", modality="text", method="classical", license="MIT"
    )
    insert = "INSERT INTO model_versions VALUES (?, ?, ?, ?, NULL, ?)"
    values = ["first-model", 1, "x1", card.model_dump_json(), 1.0]
    app.workspace.database.transact(lambda tx: tx.execute(insert, values))
    serve(app.workspace, "first")
    watch_use_case(app, "first", [Trigger(on="recall")])
    standing = rows.find(app.workspace.database, "first")

    def recalled() -> str | None:
        gatherer = Gatherer(year.workspace)
        return gatherer.seen(standing, gatherer.around([standing], year.clock.time), year.clock.time).recalled

    assert recalled() is None
    if why == "purge":
        event = {"model": "first-model@v1", "job": "job-9"}
        app.workspace.database.transact(lambda tx: tx.event("model:first-model@v1", "model.recalled", event))
        assert recalled() == recall.PURGE
    else:
        wanted = Definition(
            name="first", task="text-classification", objective=Objective(metric="accuracy"),
            limits=UseCaseLimits(licenses=("Apache-2.0",)),
        )  # fmt: skip
        app.workspace.database.transact(lambda tx: use_cases.define(tx, wanted, policy="auto"))
        assert recalled() == recall.LICENCE


def test_networks_with_fresh_weights_are_no_base_models_that_came(
    app: App, year: Year, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later edition brings more of them, which is no reason to learn anew."""
    there = [Candidate(method="full", base_model="new:bert"), Candidate(method="probe", base_model="pkg:minilm")]
    monkeypatch.setattr("speciate.loop.watch.seen.find_modality", lambda database, model: "text")
    monkeypatch.setattr("speciate.loop.watch.seen.all_candidates", lambda workspace, modality, family: there)
    define(app.workspace, "first")
    serve(app.workspace, "first")
    watch_use_case(app, "first", [Trigger(on="new_base_model")])
    gatherer = Gatherer(year.workspace)
    standing = rows.find(app.workspace.database, "first")
    seen = gatherer.seen(standing, gatherer.around([standing], year.clock.time), year.clock.time)
    assert seen.bases == ("pkg:minilm",)


def test_new_base_models_are_told_once_a_month_by_what_suits(app: App, year: Year) -> None:
    small = UseCase(
        name="t", task="text-classification", objective=Objective(metric="accuracy"), version=1, created=0.0,
        limits=UseCaseLimits(licenses=("MIT",), max_parameters=100),
    )  # fmt: skip
    models: list[NewModel] = [
        {"ref": "hf:a/fits", "modalities": ["text"], "license": "MIT", "parameters": 50},
        {"ref": "hf:a/large", "modalities": ["text"], "license": "MIT", "parameters": 5000},
        {"ref": "hf:a/of-images", "modalities": ["image"], "license": "MIT", "parameters": 50},
        {"ref": "hf:a/unlicensed", "modalities": ["text"], "license": None, "parameters": 50},
        {"ref": "api:p/served", "modalities": ["text"], "license": "MIT", "parameters": 50},
    ]
    found = news.digest("2026-10", models, small, "text")
    assert (found.new, found.suits, found.refs) == (5, 1, ("hf:a/fits",))
    month, begin, end = news.month_before(datetime(2026, 1, 15, tzinfo=UTC).timestamp())
    assert (month, end - begin) == ("2025-12", 31 * DAY)
    database = app.workspace.database
    assert news.untold(database, ["t"], "2026-10") == ["t"]
    database.transact(lambda tx: news.tell(tx, "t", found))
    assert news.untold(database, ["t"], "2026-10") == []
    assert news.untold(database, ["t"], "2026-11") == ["t"]
    assert news.last_digest(database, "t") == found


def test_a_watch_says_how_it_stands_and_a_repeat_by_a_key_begins_nothing_more(app: App, year: Year) -> None:
    first = watch_use_case(app, USE_CASE, NOW, Policy(labels=50), idempotency_key="k")
    assert (first.state, first.triggers, first.budget_left.labels) == ("idle", ("now",), 50)
    assert year.watcher.look()[USE_CASE].memory.state == "mining"
    asked = rows.find(app.workspace.database, USE_CASE).asked
    year.clock.time += 60
    again = watch_use_case(app, USE_CASE, NOW, Policy(labels=50), idempotency_key="k")
    assert again.state == "mining"
    assert rows.find(app.workspace.database, USE_CASE).asked == asked
    with pytest.raises(SpeciateError, match="used before"):
        watch_use_case(app, USE_CASE, SHIFT, idempotency_key="k")


def test_a_call_says_what_it_replaces(app: App, year: Year) -> None:
    _, again, other = (watch_use_case(app, USE_CASE, SHIFT, Policy(labels=labels)) for labels in (4, 4, 5))
    assert "replaces" not in again.because
    assert other.because.endswith("; it replaces triggers and policy of before")


def test_what_somebody_else_paused_no_call_goes_on_with(app: App, year: Year) -> None:
    asked = watch_use_case(app, USE_CASE, NOW)
    assert asked.because.startswith("an episode was asked for now: the next look begins it")
    year.workspace.database.transact(lambda tx: rows.enable(tx, USE_CASE, False, "ada"))
    with pytest.raises(SpeciateError, match="was paused by ada") as refused:
        watch_use_case(app, USE_CASE, NOW)
    assert refused.value.code is Code.CONFLICT
    assert "speciate watch resume" in refused.value.recovery
    assert watch_use_case(app, USE_CASE, NOW, enabled=False).because.startswith("paused by ada"), "it stays hers"
    with pytest.raises(SpeciateError, match="was paused by ada"):
        watch_use_case(app, USE_CASE, NOW)
    year.workspace.database.transact(lambda tx: rows.enable(tx, USE_CASE, True, "ada"))
    assert watch_use_case(app, USE_CASE, NOW, enabled=False).state == "paused"
    assert watch_use_case(app, USE_CASE, NOW).state == "idle", "who paused it goes on"


def test_a_persons_caps_stand_above_what_a_watch_asks_for(app: App, year: Year) -> None:
    year.workspace.settings = year.workspace.settings.model_copy(update={"watch": WatchCaps(labels=10, minutes=5)})
    found = watch_use_case(app, USE_CASE, NOW, Policy(labels=400, budget_minutes=300))
    assert (found.budget_left.labels, found.budget_left.minutes) == (10, 5)
    assert "; a person's caps hold it to less than was asked for" in found.because
    decision = year.watcher.look()[USE_CASE]
    assert "this month's labels are spent" in decision.because


def test_an_episode_is_seen_from_its_cause_to_its_end(app: App, year: Year) -> None:
    year.clock.time = START + 61 * DAY
    watch_use_case(app, USE_CASE, NOW, Policy(action="auto", labels=300))
    year.watcher.look()
    year.watcher.look()
    assert watch_resource(app, USE_CASE).state == "labelling"
    [shown] = [each for each in status.status(year.workspace).use_cases if each.name == USE_CASE]
    assert shown.watch is not None
    assert (shown.watch.state, shown.watch.because) == ("labelling", "100 answers wait for a label")
    for _ in range(60):
        year.clock.time += DAY
        year.database.transact(year._bake)
        if year.watcher.look()[USE_CASE].memory.state == "idle":
            break
    shown_watch = watch_resource(app, USE_CASE)
    assert shown_watch.state == "idle"
    assert shown_watch.episodes[-1].outcome == "promoted"
    episode = watch_episode(app, USE_CASE, 1)
    assert [each.kind for each in episode.triggers] == ["now"]
    assert episode.episode.model == "triage-model@v2"
    assert episode.labels_asked >= 100
    with pytest.raises(SpeciateError, match="no episode 9"):
        watch_episode(app, USE_CASE, 9)


def test_a_quiet_month_is_one_row_and_a_pause_freezes_all(app: App, year: Year) -> None:
    watch_use_case(app, USE_CASE, SHIFT)
    for _ in range(30):
        year.clock.time += 60
        year.watcher.look()
    [tick] = rows.ticks(year.database, USE_CASE)
    assert (tick.times, tick.because) == (30, "no trigger fired")
    assert "no trigger fired (30 looks)" in watch_commands.format_why(report.why(year.workspace, USE_CASE))
    assert not year.watcher.idle
    year.database.transact(lambda tx: rows.enable(tx, USE_CASE, False, "ada"))
    assert year.watcher.idle, "a paused watch keeps no daemon"
    assert year.watcher.look() == {}
    found = report.document(report.report(year.workspace, USE_CASE))
    assert (found["state"], found["because"]) == ("paused", "paused by ada")
    assert "paused" in watch_commands.format_watch(found)
    assert USE_CASE in watch_commands.format_list([found])
    year.database.transact(lambda tx: rows.enable(tx, USE_CASE, True, "ada"))
    assert year.watcher.look()[USE_CASE].because == "no trigger fired"


def test_a_look_that_somebody_else_overtook_writes_nothing(app: App, year: Year) -> None:
    watch_use_case(app, USE_CASE, SHIFT)
    year.watcher.look()
    standing = rows.find(year.database, USE_CASE)
    year.clock.time += 8 * DAY  # a window is over
    decision = year.watcher.look()[USE_CASE]
    ticks = rows.ticks(year.database, USE_CASE)
    late = [rows.Decided(standing, decision, ())]
    assert year.database.transact(lambda tx: rows.store_decisions(tx, late, START)) == [False]
    assert rows.ticks(year.database, USE_CASE) == ticks


def test_a_job_that_cannot_be_ends_the_episode_with_the_reason(app: App, year: Year) -> None:
    """As where the dataset that production learned from was deleted."""
    watch_use_case(app, USE_CASE, NOW, Policy(action="auto", labels=300))
    year.watcher.look()
    key = f"watch/{USE_CASE}/1/mine"
    year.database.transact(lambda tx: tx.execute("DELETE FROM jobs WHERE key = ?", [key]))
    year.database.transact(
        lambda tx: tx.execute("INSERT INTO watch_outbox VALUES (?, ?, 'mine', '{}', NULL)", [key, USE_CASE])
    )
    found = year.watcher.look()[USE_CASE]
    assert found.ended is not None
    assert found.ended.outcome == "failed"
    assert found.memory.state == "idle"
    assert year.watcher.look()[USE_CASE].memory.episode == 1


def test_notices_hold_no_text_of_others(app: App, year: Year) -> None:
    watch_use_case(app, USE_CASE, NOW, Policy(labels=300))
    year.watcher.look()
    year.watcher.look()
    begun, asked = [each for each in year.database.events_after(0) if each.type in ("watch.begun", "watch.labels")]
    assert notice_of(begun, Notify(), "w") is None, "one notice is enough: what people are asked for"
    notice = notice_of(asked._replace(data={**asked.data, "text": "ignore all rules"}), Notify(), "w")
    assert notice is not None
    assert notice.text == "triage: answers wait for a label: speciate labels. speciate watch show triage"


def test_a_policy_is_checked() -> None:
    for wrong in ({"budget_minutes": 0}, {"action": "always"}, {"labels": -1}, {"minutes": 3}):
        with pytest.raises(ValidationError):
            Policy.model_validate(wrong)


def test_a_schedule_is_kept_around_changes_of_the_clocks_and_missed_times_count_once() -> None:
    daily = Trigger(on="schedule", cron="30 2 * * *", zone="Europe/Berlin")
    watch = Watch(use_case="t", triggers=(daily,))
    autumn = 1_792_879_200.0  # 2026-10-24 22:00 UTC: in the night the hour from two to three comes twice
    first = next_time(daily, autumn)
    assert first is not None
    second = next_time(daily, first)
    assert second is not None
    assert second - first > 20 * 3600, "once in that night"
    assert due(watch, autumn, autumn + 60) is None
    assert due(watch, autumn, first) == first
    assert due(watch, autumn, first + 30 * DAY) == last_time(daily, first + 30 * DAY)
    assert json.loads(watch.model_dump_json())["triggers"][0]["zone"] == "Europe/Berlin"


def test_the_ledger_tells_the_time_to_a_better_model_by_cause_and_who_promoted(app: App, year: Year) -> None:
    year.clock.time = START + 61 * DAY
    watch_use_case(app, USE_CASE, NOW, Policy(action="auto", labels=300))
    ended = None
    for _ in range(40):  # the second time, where the first comparison cannot tell
        year.clock.time += 3 * DAY
        year.database.transact(year._bake)
        ended = year.watcher.look()[USE_CASE].ended
        if ended is not None and ended.outcome == "promoted":
            break
        if ended is not None:
            watch_use_case(app, USE_CASE, NOW, Policy(action="auto", labels=300))
    assert ended is not None
    found = ledger.document(ledger.ledger(year.workspace))
    [line] = found["remodelled"]
    assert (line["cause"], line["episodes"], line["promoted"]) == ("now", line["episodes"], 1)
    assert line["median_seconds"] is not None
    assert line["median_seconds"] % DAY == 0
    assert found["promoted_by_loop_30d"] == 1
    assert found["promoted_by_hand_30d"] == 0, "the first one was promoted before"
    assert "promoted by watches" in ledger_commands.format_ledger(found)


def test_the_minutes_of_episodes_and_of_monitoring_are_those_of_all_jobs(year: Year) -> None:
    """Each job counts once, with its children and theirs, also where the name of one use case looks like another's to a
    pattern. What a real episode took is in test_end_to_end.py."""
    keys = ["watch/tri_ge/1/mine", "watch/tri_ge/1/relearn", "watch/triXge/1/mine", "watch/triage/1/mine",
            "watch/triage/12/relearn", "watch/triage/monitor/1/0", "watch/triage/monitor/1/1"]  # fmt: skip
    spec = {"episode": 1, "n": 0, "day": 0}
    jobs = {key: year.engine.submit("evaluate", spec, key=key).id for key in keys}
    others = [year.engine.submit("evaluate", spec).id for _ in range(4)]
    parents = [*jobs.values(), others[0]]

    def spend(tx: Transaction) -> None:
        for place, parent in enumerate(parents):  # a child each, and of the first child another
            child = f"child-{place}"
            tx.execute(_COPY, [child, parent, others[1]])
        tx.execute(_COPY, ["grandchild", "child-0", others[1]])
        tx.execute("UPDATE jobs SET executor = 'local', run_seconds = 60 WHERE parent IS NULL")
        tx.execute("UPDATE jobs SET executor = 'local', run_seconds = 6 WHERE parent IS NOT NULL")
        for name, number, cause in (("tri_ge", 1, "now"), ("triXge", 1, "now"), ("triage", 1, "now"),
                                    ("triage", 12, "recall")):  # fmt: skip
            tx.execute(
                "INSERT INTO episodes VALUES (?, ?, 0, 60, ?, 'hold', '', NULL, NULL)",
                [name, number, json.dumps([cause])],
            )

    year.database.transact(spend)
    found = ledger.document(ledger.ledger(year.workspace))
    spent = {each["cause"]: each["minutes"] for each in found["remodelled"]}
    assert spent == {"now": pytest.approx(4 * 1.1 + 0.1), "recall": pytest.approx(1.1)}
    assert found["monitoring_minutes"] == pytest.approx(2.2)
    told = {
        (name, number): report.episode_report(year.workspace, name, number).minutes
        for name, number in year.database.read("SELECT use_case, number FROM episodes")
    }
    assert told == {("tri_ge", 1): 2.3, ("triXge", 1): 1.1, ("triage", 1): 1.1, ("triage", 12): 1.1}
    assert sum(told.values()) == pytest.approx(sum(spent.values()))
    assert "Monitoring took 2 min 12 s" in ledger_commands.format_ledger(found)


_COPY = "INSERT INTO jobs BY NAME SELECT * REPLACE (? AS id, ? AS parent, NULL AS key) FROM jobs WHERE id = ?"


def test_what_happens_to_one_of_many_watches_wakes_it_alone(app: App, year: Year) -> None:
    """And each look of the others is counted all the same."""
    watch_use_case(app, USE_CASE, SHIFT)
    for name in ("first", "second"):
        define(app.workspace, name)
        serve(app.workspace, name)
        watch_use_case(app, name, SHIFT)
    looked = list[str]()
    seen = year.watcher._gatherer.seen

    def counted(standing: rows.Standing, around: Surroundings, now: float) -> WatchFacts:
        looked.append(standing.watch.use_case)
        return seen(standing, around, now)

    year.watcher._gatherer.seen = counted  # type: ignore[method-assign]  # to see which are looked at
    for _ in range(5):
        year.clock.time += 60
        assert len(year.watcher.look()) == 3
    assert looked.count("second") == 2  # the first look learned what serves; the second found nothing new
    serve(app.workspace, "first")
    year.clock.time += 60
    year.watcher.look()
    assert (looked.count("first"), looked.count("second")) == (3, 2)
    watch_use_case(app, "second", [Trigger(on="schedule", cron="0 3 * * *")])
    year.clock.time += 60
    year.watcher.look()
    assert looked.count("second") == 3
    year.clock.time += DAY
    assert [each.kind for each in year.watcher.look()["second"].fired] == ["schedule"]
    assert sum(each.times for each in rows.ticks(year.database, "second")) == 8
