"""Teachers label what people did not, while they agree with people; candidates answer what was logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.sources import answer_log
from speciate.errors import SpeciateError
from speciate.governance import consents
from speciate.loop.watch.facts import ShadowReport, Taught
from speciate.loop.watch.teach import LEAST, TeachSpec, plan
from speciate.loop.watch.teach_endpoint import rounds
from speciate.models import registry
from speciate.models.endpoints import Endpoint
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import LoggedAnswer
from speciate.privacy import purge_logs
from speciate.settings import WatchCaps
from tests.conftest import ManualClock
from tests.data import copied
from tests.evaluation.endpoints.switching_server import Served, served
from tests.loop.monitored import Production
from tests.serving.world import MODEL, USE_CASE

TEACHER = f"{MODEL}@v1"


@pytest.fixture
def production(seed: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Production]:
    with copied(seed, tmp_path / "workspace", clock) as workspace:
        caps = WatchCaps(teachers={USE_CASE: TEACHER})
        workspace.settings = workspace.settings.model_copy(update={"watch": caps})
        made = Production(workspace, clock)
        yield made
        made.close()


def done(production: Production, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    job = production.engine.submit(kind, spec).id
    for _ in range(4):
        production.engine.tick()
    ended = production.engine.get(job)
    assert ended.result is not None, ended.error
    return dict(ended.result)


def asked(production: Production, count: int, *, right: bool, labelled: int) -> list[str]:
    """Answers about good and bad films; people label the first ones as they are, or the other way round."""
    said = ["good" if place % 2 else "bad" for place in range(count)]
    ids: list[str] = []
    for place, word in enumerate(said):
        ids += production.ask([{"text": f"a {word} film {place} of {count}"}], output=word)
    production.clock.advance(60)
    for name, word in list(zip(ids, said, strict=True))[:labelled]:
        other = {"good": "bad", "bad": "good"}[word]
        production.label(name, label=word if right else other, drawn="uncertain")
    production.clock.advance(60)
    return ids


def teach(production: Production) -> Taught:
    spec = {"use_case": USE_CASE, "teacher": TEACHER, "since": production.begin, "until": production.clock.now()}
    return Taught.model_validate(done(production, "teach", spec))


def source(production: Production, found: Taught, part: str) -> list[answer_log.LoggedExample]:
    query = answer_log.parse(f"log:{USE_CASE}?labelled=true&part={part}&taught={found.source}")
    taken, _ = answer_log.examples(log_folder(production.workspace.folders, USE_CASE), query, "text")
    return [each for each in taken if answer_log.split_of(each, query) is not None]


def test_a_teacher_that_agrees_with_people_labels_the_rest_and_judges_nothing(production: Production) -> None:
    ids = asked(production, 80, right=True, labelled=40)
    found = teach(production)
    assert (found.trusted, found.checked, found.labels) == (True, 40, 40)
    assert found.agreement is not None
    assert found.agreement >= 0.8
    taught = [each for each in source(production, found, "train") if each.label_source == answer_log.TEACHER]
    assert taught
    assert {each.answer.id for each in taught} <= set(ids[40:])
    query = answer_log.parse(f"log:{USE_CASE}?labelled=true&part=train&taught={found.source}")
    assert {answer_log.split_of(each, query) for each in taught} == {"train"}
    assert not [each for each in source(production, found, "judge") if each.label_source == answer_log.TEACHER]
    # a purge of answers takes its labels too: what is not asked for any more teaches nothing
    purge_logs.purge_logs(production.workspace.folders, [], ["a good film 41 of 80"], [])
    assert not [each for each in source(production, found, "train") if each.label_source == answer_log.TEACHER]


def test_a_teacher_that_contradicts_people_is_stopped_and_few_labels_are_no_proof(production: Production) -> None:
    asked(production, 40, right=True, labelled=LEAST - 1)
    few = teach(production)
    assert (few.trusted, few.labels, few.source) == (False, 0, None)
    assert f"{LEAST} are needed" in few.because
    asked(production, 60, right=False, labelled=60)  # nonsense, by what people say
    found = teach(production)
    assert (found.trusted, found.labels, found.source) == (False, 0, None)
    assert found.agreement is not None
    assert found.agreement < 0.8


def test_nobody_teaches_without_a_person_s_consent(production: Production) -> None:
    production.workspace.settings = production.workspace.settings.model_copy(update={"watch": WatchCaps()})
    spec = TeachSpec(use_case=USE_CASE, teacher=TEACHER, since=0, until=1)
    with pytest.raises(SpeciateError, match="Nobody consented"):
        plan(spec, production.workspace)


def test_a_candidate_answers_what_was_logged_and_the_disagreements_are_named(production: Production) -> None:
    good = production.ask([{"text": f"a good film {place}"} for place in range(30)], output="good")
    wrong = production.ask([{"text": f"a good film {place} again"} for place in range(10)], output="bad")
    production.clock.advance(60)
    found = ShadowReport.model_validate(done(production, "shadow", {"use_case": USE_CASE, "model": TEACHER, "n": 40}))
    assert (found.asked, found.failed, found.against) == (40, 0, TEACHER)
    assert found.agree == 30
    assert set(found.disagreements) == set(wrong)
    assert not set(found.disagreements) & set(good)
    assert found.interval is not None
    assert found.interval[0] < 0.75 < found.interval[1]
    assert found.ms is not None


# A teacher that others serve


@pytest.fixture
def server(production: Production) -> Iterator[Served]:
    """An endpoint on loopback that people named as the teacher; it reads the film's word."""
    workspace = production.workspace
    with served() as made:
        made.answers = film
        about = registry.served_card(workspace, "oracle", made.endpoint(), task=None, license=None)
        ref = workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, about, None)).ref
        listed = {"watch": WatchCaps(teachers={USE_CASE: ref}), "private_hosts": (made.endpoint().host,)}
        workspace.settings = workspace.settings.model_copy(update=listed)
        yield made


def film(prompt: str) -> str:
    return "good" if "a good film" in prompt else "bad"


def ask_endpoint(production: Production, **more: Any) -> Taught:
    spec = {"use_case": USE_CASE, "teacher": "oracle@v1", "since": production.begin, "until": production.clock.now(),
            "dataset": "films@v1", **more}  # fmt: skip
    return Taught.model_validate(done(production, "teach", spec))


def test_an_endpoint_that_agrees_with_people_labels_the_rest(production: Production, server: Served) -> None:
    ids = asked(production, 100, right=True, labelled=40)
    found = ask_endpoint(production)
    assert (found.trusted, found.labels, found.agreement) == (True, 60, 1.0)
    taught = [each for each in source(production, found, "train") if each.label_source == answer_log.TEACHER]
    assert {each.answer.id for each in taught} <= set(ids[40:])
    assert not [each for each in source(production, found, "judge") if each.label_source == answer_log.TEACHER]
    assert {said["model"] for said in server.asked} == {"stub"}


@pytest.mark.parametrize("nonsense", ["banana", "bad"])
def test_an_endpoint_that_starts_to_answer_nonsense_half_way_is_stopped(
    production: Production, server: Served, nonsense: str
) -> None:
    """Whether it says what is no label, or one label always: what it said before the last good check stays."""
    asked(production, 160, right=True, labelled=40)
    server.answers = lambda prompt: film(prompt) if len(server.asked) <= 100 else nonsense
    found = ask_endpoint(production)
    assert 0 < found.labels < 120
    assert "it is asked no more" in found.because
    assert len(server.asked) < 160, "nobody goes on asking it"
    taught = [each for each in source(production, found, "train") if each.label_source == answer_log.TEACHER]
    assert taught
    for each in taught:
        assert each.answer.input is not None
        assert each.label == film(str(each.answer.input["text"])), "none of the nonsense teaches"


def test_an_endpoint_that_never_agreed_or_is_down_teaches_nothing(production: Production, server: Served) -> None:
    asked(production, 60, right=False, labelled=40)
    found = ask_endpoint(production)
    assert (found.trusted, found.labels, found.source) == (False, 0, None)
    assert len(server.asked) == 30, "no answer that people did not label was sent"
    few = ask_endpoint(production, since=production.clock.now() - 60)
    assert (few.trusted, few.checked) == (False, 0)


def test_answers_leave_this_machine_only_with_a_consent_for_host_and_dataset(production: Production) -> None:
    workspace = production.workspace
    away = Endpoint.model_validate(
        {"base_url": "https://teacher.example/v1", "model": "t", "usd_per_1m_input": 1, "usd_per_1m_output": 1}
    )
    about = registry.served_card(workspace, "away", away, task=None, license=None)
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, about, None))
    workspace.settings = workspace.settings.model_copy(update={"watch": WatchCaps(teachers={USE_CASE: "away@v1"})})
    spec = TeachSpec(use_case=USE_CASE, teacher="away@v1", since=0, until=1, dataset="films@v1", budget_usd=2.0)
    with pytest.raises(SpeciateError, match=r"No example of 'films' may be sent to teacher\.example"):
        plan(spec, workspace)
    consents.allow(workspace, "films", "teacher.example", usd=0.5, days=None, by="ada")
    made = plan(spec, workspace)
    assert [(each.dataset, each.host, each.usd) for each in made.spends] == [("films", "teacher.example", 0.5)]
    assert made.usd == 0.5
    with pytest.raises(SpeciateError, match="cannot teach"):
        plan(spec.model_copy(update={"dataset": None}), workspace)


@given(st.lists(st.sampled_from(["good", "bad", "dull"]), min_size=30, max_size=200), st.integers(0, 300))
def test_every_part_is_followed_by_a_check_and_every_answer_is_asked_once(said: list[str], open_: int) -> None:
    held = [answer_named(f"k{place}") for place in range(len(said))]
    others = [answer_named(f"o{place}") for place in range(open_)]
    labels = {each.id: word for each, word in zip(held, said, strict=True)}
    found = rounds(held, others, labels)
    assert len(found.first) >= LEAST
    assert [each.id for part, _ in found.parts for each in part] == [each.id for each in others]
    assert len(found.parts) <= 4
    for part, checks in found.parts:
        assert part
        assert len({each.id for each in checks}) == len(checks) == 10
        counts = Counter(labels[each.id] for each in checks)
        for word, there in Counter(said).items():
            fair = 10 // len(set(said))
            assert counts[word] >= min(fair, there), "what always says another word is found at each check"


def test_of_many_labels_each_is_checked_in_turn() -> None:
    held = [answer_named(f"k{place}") for place in range(80)]
    labels = {each.id: f"class {place % 20}" for place, each in enumerate(held)}
    found = rounds(held, [answer_named(f"o{place}") for place in range(40)], labels)
    assert {labels[each.id] for _, checks in found.parts[:2] for each in checks} == {*labels.values()}


def answer_named(name: str) -> LoggedAnswer:
    return LoggedAnswer(name, 0.0, "m@v1", 1, "text", {"text": name}, "good", 0.9, False, 1.0, None, 0, ())
