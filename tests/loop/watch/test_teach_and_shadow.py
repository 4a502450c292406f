"""Teachers label what people did not, while they agree with people; candidates answer what was logged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.sources import answer_log
from speciate.errors import SpeciateError
from speciate.loop.watch.facts import ShadowReport, Taught
from speciate.loop.watch.teach import LEAST, TeachSpec, plan
from speciate.predictions.log_files import log_folder
from speciate.privacy import purge_logs
from speciate.settings import WatchCaps
from tests.conftest import ManualClock
from tests.data import copied
from tests.loop.monitored import Production, promoted_root
from tests.serving.world import MODEL, USE_CASE

TEACHER = f"{MODEL}@v1"


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return promoted_root(tmp_path_factory.mktemp("taught"))


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
