"""answer: teachers' answers in a column, none paid twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.datasets import consent
from speciate.datasets.curate import run
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.operations import answer
from speciate.datasets.versions import resolve
from speciate.errors import Code, SpeciateError
from speciate.evaluation import answer_cache, teacher_answers
from speciate.evaluation.endpoints.prompts import Prompt
from speciate.governance import consents
from speciate.jobs.allowances import Spend
from speciate.jobs.folder import RunFolder
from speciate.jobs.kinds import Kinds
from speciate.jobs.run import Run, Stopped
from speciate.modalities.messages import conversation
from speciate.models import registry as serving
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate
from tests.evaluation.predictors.answering import Answering, answering
from tests.training.world import train_now

ROWS = [
    {"text": f"What is {i} plus {i}?", "label": "sum", "split": "test" if i % 5 == 4 else "train"} for i in range(20)
]


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with the dataset `sums`, to be copied."""
    return data.seeded(tmp_path_factory.mktemp("sums") / "workspace", "sums", rows=ROWS, label="label")


@pytest.fixture
def teacher(sums: Path, tmp_path: Path) -> Iterator[tuple[Workspace, Answering]]:
    settings = Settings(policy="auto", private_hosts=("127.0.0.1",))
    with data.copied(sums, tmp_path / "workspace", settings=settings) as workspace, answering() as server:
        server.answer = lambda asked: f"It is {len(asked)}."
        register(workspace, "oracle", server)
        yield workspace, server


def register(workspace: Workspace, name: str, server: Answering, **endpoint: Any) -> None:
    where = server.endpoint(**{"usd_per_1m_input": 1.0, "usd_per_1m_output": 2.0} | endpoint)
    card = serving.served_card(workspace, name, where, task=None, license=None)
    workspace.database.transact(lambda tx: serving.register(tx, workspace.folders, card, None))


STEP = {"op": "answer", "model": "oracle", "template": "{input}\nAnswer in one sentence."}


def test_the_rows_that_are_learned_from_get_answers_and_say_whose(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    made = curate(workspace, "sums", STEP)
    answers, by = made.column("answer"), made.column("answer_made_by")
    splits = made.column("split")
    assert len(server.asked) == 16
    for name, split in splits.items():
        assert (answers[name] is not None) == (split == "train")
        assert by[name] == ("oracle@v1" if split == "train" else None)
    assert made.steps[0]["audit"] == {"asked": 16, "answered": 16, "set_aside": 0}
    assert set(made.column("answer_how").values()) == {None, "text-generation: {input} Answer in one sentence."}
    assert made.manifest.inputs == ("text",)  # no model is shown the answers
    assert set(made.column("quality").values()) == {"ok"}


def test_no_answer_is_paid_twice_and_another_version_asks_only_new_rows(
    teacher: tuple[Workspace, Answering],
) -> None:
    workspace, server = teacher
    first = curate(workspace, "sums", STEP)
    again = curate(workspace, "sums@v1", STEP)
    assert len(server.asked) == 16
    assert again.column("answer") == first.column("answer")
    assert again.manifest.id == first.manifest.id
    curate(workspace, "sums@v1", STEP | {"splits": ["train", "test"]})
    assert len(server.asked) == 20


def test_withheld_or_empty_answers_are_null_with_the_reason(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    server.answer = lambda asked: "  " if "What is 3 " in asked else "yes"
    made = curate(workspace, "sums", STEP)
    (lacking,) = [name for name, text in made.column("text").items() if text.startswith("What is 3 ")]
    assert made.column("answer")[lacking] is None
    assert made.column("answer_made_by")[lacking] is None
    assert made.column("answer_why_not")[lacking]
    assert made.column("quality")[lacking] == "ok"  # the example is what it was
    assert made.steps[0]["audit"]["set_aside"] == 1
    assert len(made.steps[0]["audit"]["reasons"]) == 1


def test_a_stopped_run_resumes_where_it_was(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    kind = Kinds()["curate"]
    plan = kind.plan(kind.spec(dataset="sums", steps=[STEP]), workspace)

    def attempt(number: int) -> RunFolder:
        folder = RunFolder(workspace.folders.runs / f"job-x.{number}")
        folder.create({"payload": plan.payload_json(), "job": "job-x", "workspace": str(workspace.folders.root)})
        return folder

    first = attempt(1)

    def stop(number: int) -> None:
        time.sleep(0.1)
        if number == 5:
            (first.path / "cancel").touch()

    server.before = stop
    with pytest.raises(Stopped):
        run(Run(first))
    paid = kind.paid(first)
    assert sum(paid.values()) > 0  # what a run that did not end has paid counts
    asked = len(server.asked)
    known = sum(pq.read_metadata(file).num_rows for file in answer_cache.sealed(workspace.folders))
    assert 0 < known < 16
    server.before = lambda number: None
    run(Run(attempt(2)))
    assert len(server.asked) - asked == 16 - known  # only calls that were under way were lost


def test_nothing_leaves_the_machine_that_no_person_allowed(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    register(workspace, "far", server, base_url="https://far.example/v1")
    with pytest.raises(SpeciateError) as caught:
        curate(workspace, "sums", STEP | {"model": "far"})
    assert caught.value.code is Code.REFUSED
    assert "speciate allow sums" in caught.value.recovery
    assert server.asked == []


def test_the_plan_says_how_much_the_steps_may_spend_together_and_where(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    register(workspace, "far", server, base_url="https://api.example.com/v1")
    consents.allow(workspace, "sums", "api.example.com", usd=5.0, days=None, by="ann")
    kind = Kinds()["curate"]
    for budgets, usd in (((1.0, 0.5), 1.5), ((1.0, None), None)):
        steps = [
            STEP | {"model": "far", "column": f"answer_{number}", "budget_usd": budget}
            for number, budget in enumerate(budgets)
        ]
        plan = kind.plan(kind.spec(dataset="sums", steps=steps), workspace)
        assert plan.spends == (Spend(dataset="sums", host="api.example.com", usd=usd),)
    assert server.asked == []


def test_a_cap_is_kept_and_payments_are_counted(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    with pytest.raises(SpeciateError, match="budget"):
        curate(workspace, "sums", STEP | {"max_tokens": 8, "budget_usd": 0.001})
    assert 0 < len(server.asked) < 16
    assert consent.list_consents(workspace.database) == []


def test_a_run_spends_no_more_than_its_share(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    kind = Kinds()["curate"]
    plan = kind.plan(kind.spec(dataset="sums", steps=[STEP | {"max_tokens": 8}]), workspace)
    folder = RunFolder(workspace.folders.runs / "job-x.1")
    share = {server.endpoint().host: 0.001}
    spec = {
        "payload": plan.payload_json(),
        "job": "job-x",
        "workspace": str(workspace.folders.root),
        "allowances": share,
    }
    folder.create(spec)
    with pytest.raises(SpeciateError, match="budget"):
        run(Run(folder))
    assert 0 < len(server.asked) < 16
    assert 0 < sum(kind.paid(folder).values()) <= 0.001


def test_a_model_of_ours_answers_with_its_own_task(teacher: tuple[Workspace, Answering]) -> None:
    workspace, server = teacher
    data.ingest(workspace, "reviews", rows=tuple(data.review_rows(80)), label="label", group_by="film")
    data.run_job(workspace, "curate", dataset="reviews", steps=[{"op": "split"}])
    train_now(
        workspace, name="critic", dataset="reviews", method="classical", hyperparameters={"candidates": ["logistic"]}
    )
    made = curate(
        workspace, "reviews", {"op": "answer", "model": "critic", "column": "message", "splits": ["train", "test"]}
    )
    message, labels = made.column("message"), made.column("label")
    answered = {name for name, text in message.items() if text is not None}
    assert sum(message[name] == labels[name] for name in answered) / len(answered) > 0.9
    assert set(made.column("message_made_by").values()) == {None, "critic@v1"}
    assert server.asked == []
    with pytest.raises(SpeciateError, match="a template has no meaning"):
        curate(workspace, "reviews", {"op": "answer", "model": "critic", "template": "{input}!"})


def test_a_language_model_of_ours_hears_the_words_of_the_template(teacher: tuple[Workspace, Answering]) -> None:
    workspace, _ = teacher
    manifest = resolve(workspace.database, "sums@v1")
    examples = load_examples(workspace.folders, manifest, ("test",))[:1]
    (plain,) = teacher_answers.prompted_examples(Prompt(template="Add: {input}"), manifest, examples)
    assert plain.media == f"Add: <example>\n{examples[0].media}\n</example>"
    (prompted,) = teacher_answers.prompted_examples(Prompt(system="Be short.", template="{text}"), manifest, examples)
    assert [each.shown() for each in conversation(prompted.media)] == [
        {"role": "system", "content": "Be short."}, {"role": "user", "content": examples[0].media},
    ]  # fmt: skip


def test_a_reasoning_teacher_gives_its_rationale_and_its_answer(teacher: tuple[Workspace, Answering]) -> None:
    """Of one that says no answer nothing is kept but the reason; the student's target is one of three columns."""
    workspace, server = teacher
    server.answer = lambda asked: "I cannot say." if "What is 3 " in asked else "One and one.\n\n**Answer:** 2"
    made = curate(workspace, "sums", STEP | {"rationale": True, "template": None})
    (lacking,) = [name for name, text in made.column("text").items() if text.startswith("What is 3 ")]
    (other,) = [name for name, text in made.column("text").items() if text.startswith("What is 1 ")]
    columns = ("answer", "answer_rationale", "answer_whole", "answer_why_not")
    assert [made.column(name)[other] for name in columns] == [
        "2", "One and one.", "One and one.\n\nAnswer: 2", None
    ]  # fmt: skip
    assert [made.column(name)[lacking] for name in columns[:3]] == [None] * 3
    assert made.column("answer_why_not")[lacking] == answer.NO_ANSWER
    assert made.steps[0]["audit"]["reasons"] == {answer.NO_ANSWER: 1}
    assert all(answer.REQUEST in asked for asked in server.asked)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a\nAnswer: b\nc", ("a", "b\nc")),
        ("The answer: is in it.\nFinal answer: 7", ("The answer: is in it.", "7")),
        ("<think>so</think>\n7", ("so", "7")),
        ("<think>so</think>\nand\n### ANSWER: `7`", ("so\n\nand", "7")),
        ("Answer: 1\nno\nAnswer: 2", ("Answer: 1\nno", "2")),
        ("Answer:", None),
        ("7", None),
        ("<think>so</think>", None),
    ],
)
def test_rationale_and_answer_are_separated(text: str, parts: tuple[str, str] | None) -> None:
    found = answer.parse_rationale(text)
    assert (found and tuple(found)) == parts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"column": "text"}, "is an input"),
        ({"column": "label"}, "cannot name a column"),
        ({"model": "nobody"}, "nobody"),
        ({"template": "{nothing}"}, "nothing"),
        ({"template": "no example"}, "shows nothing of the example"),
        ({"model": "constant:"}, "no model that can be asked"),
        ({"task": "tabular-regresion"}, "tabular-regres"),
        ({"budget": 1}, "budget_usd"),
        ({"rationale": True, "task": "text-classification", "template": None}, "nothing of how it comes to that"),
    ],
)
def test_impossible_requests_are_refused_before_there_is_a_job(
    teacher: tuple[Workspace, Answering], change: dict[str, Any], message: str
) -> None:
    workspace, server = teacher
    kind = Kinds()["curate"]
    with pytest.raises(SpeciateError) as caught:
        kind.plan(kind.spec(dataset="sums", steps=[STEP | change]), workspace)
    assert message in caught.value.message
    assert caught.value.recovery
    assert server.asked == []
