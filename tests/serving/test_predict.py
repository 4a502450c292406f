"""Answers come from a sandboxed process; the first of each version in production stops the clock."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydantic import ValidationError

from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities.bundles import bundle, members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.multimodal import rename_parts
from speciate.models import registry
from speciate.promotion import aliases
from speciate.refs import model_ref
from speciate.server.control import use_case_actions
from speciate.server.control.action import ControlContext
from speciate.server.control.messages import LabelsRequest
from speciate.serving import predict as predicting
from speciate.serving import preloading
from speciate.serving.items import Item
from speciate.serving.local_model import open_model
from speciate.serving.predict import (
    Answer,
    Input,
    ServedAnswers,
    parts_of_row,
    predict,
    read_caller_file,
    requested_model,
)
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.data import copied
from tests.modalities.samples import photo
from tests.training.world import define, make_dataset, thirds, train_now

FEW = {"classical": {"candidates": ["logistic"]}, "full": {"num_train_epochs": 8, "learning_rate": [0.01]}}
MODEL = "films-model@v1"
GOOD, BAD = "a fine and lovely film", "a dull and awful bore"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with a trained model that serves the use case `reviews`, to be copied."""
    root = tmp_path_factory.mktemp("trained") / "workspace"
    workspace = Workspace(root, ManualClock(), Settings(policy="auto"))
    define(workspace, "reviews", "text-classification")
    labels = ["good" if i % 4 < 2 else "bad" for i in range(80)]
    texts = [f"{GOOD if label == 'good' else BAD} {i}" for i, label in enumerate(labels)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(80), inputs=["text"])
    model = str(train_now(workspace, name="films-model", dataset="films", method="classical")["model"])
    workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="reviews", model=model, expected=None, action="promote", actor="ada", evidence={}
        )
    )
    workspace.close()
    assert model == MODEL
    return root


@pytest.fixture
def workspace(trained: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with copied(trained, tmp_path / "workspace", clock) as workspace:
        yield workspace


@pytest.fixture
def pool(workspace: Workspace) -> Iterator[Pool]:
    pool = Pool(workspace.folders, workspace.settings, size=1)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def shared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """For tests that look at answers alone."""
    with copied(trained, tmp_path_factory.mktemp("shared") / "workspace", ManualClock()) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def warm(shared: Workspace) -> Iterator[Pool]:
    """Of `shared`: it keeps the model that it has loaded."""
    pool = Pool(shared.folders, shared.settings, size=1)
    yield pool
    pool.close()


def _first_answers(workspace: Workspace) -> list[str]:
    return [event.data["model"] for event in workspace.database.events_after(0) if event.type == "production.answered"]


def _ask(workspace: Workspace, pool: Pool, *inputs: Input, model: str = "reviews@production") -> Answer:
    if model != "empty@production":  # an answer has seconds, however busy the machine is
        preloading.preloader_of(pool).begin(registry.resolve(workspace.database, workspace.folders, model)).join(300)
    return predict(workspace, pool, model, inputs)


def test_a_version_answers_in_this_process_as_it_does_in_the_pool(
    shared: Workspace, warm: Pool, tmp_path: Path
) -> None:
    model = open_model(registry.resolve(shared.database, shared.folders, MODEL).path)
    film = tmp_path / "film.txt"
    film.write_text(BAD)
    here = model.predict([GOOD, {"text": BAD}, film, BAD.encode(), {"words": GOOD}, tmp_path / "none"])
    there = _ask(shared, warm, Input(text=GOOD), Input(row={"text": BAD}), model=MODEL).predictions
    assert [(each.output, each.confidence) for each in here[:2]] == [(each.output, each.confidence) for each in there]
    assert [each.output for each in here[2:4]] == ["bad", "bad"]
    assert "The row has no 'text'" in str(here[4].error)
    assert "cannot be read" in str(here[5].error)
    assert model(GOOD) == "good"
    with pytest.raises(SpeciateError, match="The row has no 'text'"):
        model({"words": GOOD})
    with pytest.raises(SpeciateError, match=r'An example is a row: \{"text": "..."\}'):
        model({"words": GOOD})
    for unusable, why in (("  ", "The text is empty."), (b"\xff", "Not UTF-8"), ({"text": 42}, "This is no text.")):
        with pytest.raises(SpeciateError, match=why) as refused:
            model(unusable)  # type: ignore[arg-type]  # 42 is what is tested
        assert "untrusted" not in refused.value.message, "there is no such field here"
    forms = [{"row": {"text": GOOD}}, {"path": str(film)}]
    assert [each.output for each in model.predict(forms)] == [model(each) for each in forms] == ["good", "bad"]
    for misplaced in (GOOD, {"text": GOOD}, film):
        with pytest.raises(TypeError, match="predict takes a list of examples"):
            model.predict(misplaced)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(TypeError, match="takes one example, not a list"):
        model([GOOD])  # type: ignore[arg-type]  # that is what is tested
    assert repr(model) == f"<LocalModel {MODEL}: text-classification of text>"
    with pytest.raises(SpeciateError, match="holds no model"):
        open_model(tmp_path)


def test_production_answers_in_every_form_of_input(shared: Workspace, warm: Pool) -> None:
    path = shared.folders.exports / "film.txt"
    path.write_text(BAD)
    answer = _ask(
        shared,
        warm,
        Input(text=GOOD),
        Input(row={"text": BAD}, id="mine"),
        Input(path=str(path)),
        Input(data=base64.b64encode(GOOD.encode()).decode(), mime="text/plain"),
    )
    assert answer.model == MODEL
    assert [item.output for item in answer.predictions] == ["good", "bad", "bad", "good"]
    assert [item.id for item in answer.predictions] == ["0", "mine", "2", "3"]
    assert all(0.5 <= (item.confidence or 0) <= 1 for item in answer.predictions)


def test_an_answer_that_a_call_cannot_wait_for_is_there_for_the_next_one(
    workspace: Workspace, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = list[str](), pool.ask
    monkeypatch.setattr(pool, "ask", lambda service, *more, **how: asked.append(service) or ask(service, *more, **how))
    with monkeypatch.context() as hurried:
        hurried.setattr(predicting, "CALL_SECONDS", 0.0)
        with pytest.raises(SpeciateError, match="is still answering") as refusal:
            _ask(workspace, pool, Input(text=BAD))
    assert refusal.value.code is Code.UNAVAILABLE
    [answer] = _ask(workspace, pool, Input(text=BAD)).predictions
    assert (answer.output, answer.error) == ("bad", None)
    assert answer.prediction
    assert asked == [preloading.LOAD, predicting.ANSWER]


def test_an_input_that_cannot_be_read_does_not_spoil_the_others(shared: Workspace, warm: Pool) -> None:
    answer = _ask(
        shared, warm, Input(text="  "), Input(text=GOOD), Input(row={"body": GOOD}), Input(data="/w==", mime="x"),
        Input(row={"text": 42}),
    )  # fmt: skip
    assert [item.output for item in answer.predictions] == [None, "good", None, None, None]
    errors = [item.error or "" for item in answer.predictions]
    assert answer.predictions[0].error_text == "The text is empty."
    assert "no 'text'" in errors[2]
    assert "Not UTF-8" in (answer.predictions[3].error_text or "")
    assert "untrusted" in errors[3]
    assert answer.predictions[4].error_text == "This is no text."


@pytest.mark.parametrize("how", [{"method": "classical"}, {"method": "full", "base_model": "new:tab-resnet"}])
def test_text_where_training_saw_numbers_is_no_missing_value(
    workspace: Workspace, pool: Pool, how: dict[str, str]
) -> None:
    rows = {"x1": [float(i % 7) for i in range(60)], "x2": [float(i % 5) for i in range(60)]}
    labels = ["high" if i % 7 > 3 else "low" for i in range(60)]
    make_dataset(workspace, "rows", "tabular", rows, labels=labels, splits=thirds(60), inputs=["x1", "x2"])
    train_now(workspace, "job-rows", name="rows-model", dataset="rows", hyperparameters=FEW[how["method"]], **how)
    asked = [Input(row={"x1": x1, "x2": 1.0}) for x1 in ("high", None, 6.0, "6")]
    said, *others = _ask(workspace, pool, *asked, model="rows-model").predictions
    assert (said.output, "'x1' must be a number" in str(said.error)) == (None, True)
    assert [one.error for one in others] == [None] * 3
    assert others[1].output == others[2].output == "high"


def test_a_row_unlike_those_of_training_is_answered_with_a_remark(workspace: Workspace, pool: Pool) -> None:
    rows = {
        "size": [None if i == 8 else float(i % 7) for i in range(60)],
        "weight": [100.0 + i % 5 for i in range(60)],
        "colour": ["red" if i % 7 > 3 else "blue" for i in range(60)],
        "note": [f"seen on day {i}" for i in range(60)],
    }
    labels = ["high" if i % 7 > 3 else "low" for i in range(60)]
    make_dataset(workspace, "rows", "tabular", rows, labels=labels, splits=thirds(60), inputs=list(rows))
    train_now(
        workspace, "job-rows", name="rows-model", dataset="rows", method="classical",
        hyperparameters=FEW["classical"],
    )  # fmt: skip
    usual = {"size": 5.0, "weight": 102, "colour": "red", "note": "seen on day 100"}
    said = _ask(
        workspace, pool, Input(row=usual), Input(row={**usual, "size": None, "weight": 105}),
        Input(row={**usual, "size": "700", "weight": None, "colour": "Red"}),
        Input(row={"size": 5.0, "weight": 102, "colours": "red", "Colour": "red", "note": ""}), model="rows-model",
    ).predictions  # fmt: skip
    assert [one.warnings for one in said[:2]] == [(), ()], "empty cells were there, and 105 is near 104"
    assert said[2].output is not None
    assert said[2].warnings == (
        "'size' is far outside of what training saw: 0 to 6.",
        "'weight' is empty, which it never was in training.",
        "'colour' has a value that training never saw.",
    )
    assert "Is 'colour' what the row calls 'Colour'?" in str(said[3].error)


def test_what_is_no_base64_or_no_regular_file_spoils_only_itself(shared: Workspace, warm: Pool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "film.txt").write_text(BAD)
    (tmp_path / "link").symlink_to(tmp_path / "film.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "way").symlink_to(tmp_path)
    paths = ("pipe", "link", "folder", "way/film.txt", "gone.txt", "film.txt")
    answer = _ask(
        shared, warm, *(Input(path=str(tmp_path / path)) for path in paths), Input(data="no base64!", mime="x")
    )
    assert [item.output for item in answer.predictions] == [None] * 5 + ["bad", None]
    assert ["cannot be read" in (item.error or "") for item in answer.predictions] == [True] * 5 + [False, False]
    assert "not Base64" in (answer.predictions[-1].error or "")


def test_files_too_large_together_are_refused(
    shared: Workspace, warm: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "MOST_BYTES", 1_048_576)
    (tmp_path / "film.txt").write_bytes(b"a" * 600_000)
    with pytest.raises(SpeciateError, match="hold 1 MiB together"):
        _ask(shared, warm, *[Input(path=str(tmp_path / "film.txt"))] * 2)


def test_the_first_answer_of_a_version_is_recorded_once(workspace: Workspace, pool: Pool) -> None:
    for _ in range(3):
        _ask(workspace, pool, Input(text=GOOD))
    assert _first_answers(workspace) == [MODEL]


def test_the_answer_of_a_like_named_version_is_another_ones(workspace: Workspace) -> None:
    for model in ("my-model@v1", "my_model@v1", "my_model@v1"):
        predicting._record_first(workspace, model_ref("reviews@production"), model)
    assert _first_answers(workspace) == ["my-model@v1", "my_model@v1"]


def test_asking_a_version_by_name_is_not_production(workspace: Workspace, pool: Pool) -> None:
    _ask(workspace, pool, Input(text=GOOD), model=MODEL)
    assert _first_answers(workspace) == []


def test_a_call_without_one_usable_answer_does_not_stop_the_clock(workspace: Workspace, pool: Pool) -> None:
    _ask(workspace, pool, Input(text=" "))
    assert _first_answers(workspace) == []


def test_a_use_case_without_a_model_says_what_to_do(workspace: Workspace, pool: Pool) -> None:
    define(workspace, "empty", "text-classification")
    with pytest.raises(SpeciateError, match="did you mean 'reviews@production'"):
        registry.resolve(workspace.database, workspace.folders, "reviews@prod")
    with pytest.raises(SpeciateError, match="No model is behind") as caught:
        _ask(workspace, pool, Input(text=GOOD), model="empty@production")
    assert caught.value.code is Code.NOT_FOUND


def test_a_use_case_that_is_none_is_met_with_near_ones(workspace: Workspace, pool: Pool) -> None:
    define(workspace, "triage", "text-classification")
    with pytest.raises(SpeciateError, match=r"no use case 'triag'; did you mean 'triage'") as caught:
        _ask(workspace, pool, Input(text=GOOD), model="triag@production")
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(("model", "use_case"), [(None, None), ("m@v1", "reviews")])
def test_a_call_names_either_a_model_or_a_use_case(model: str | None, use_case: str | None) -> None:
    with pytest.raises(SpeciateError, match="either model or use_case"):
        requested_model(model, use_case)


@pytest.mark.parametrize("fields", [{}, {"text": "a", "path": "b"}, {"mime": "image/png"}])
def test_an_input_has_exactly_one_form(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of"):
        Input(**fields)


def test_the_same_mistake_is_explained_once(shared: Workspace, warm: Pool) -> None:
    rows = [Input(row={"column " * 300: 1})] * 256
    answer = _ask(shared, warm, *rows)
    assert "no 'text'" in (answer.predictions[0].error or "")
    assert {item.error for item in answer.predictions[1:]} == {"as item 0"}


def test_a_path_that_is_not_allowed_spoils_only_itself(shared: Workspace, warm: Pool) -> None:
    def nowhere(path: str) -> Path:
        raise SpeciateError(Code.REFUSED, f"{path} is outside." + "!" * 1000, "Use another.")

    inputs = [Input(path="/a"), Input(path="/b"), Input(text=GOOD)]
    _ask(shared, warm, Input(text=GOOD))
    answer = predict(shared, warm, "reviews@production", inputs, nowhere)
    assert [(item.error or "")[:13] for item in answer.predictions] == ["/a is outside", "/b is outside", ""]
    assert len(answer.predictions[1].error or "") < 310
    assert answer.predictions[2].output == "good"


def test_a_wrong_form_of_input_is_answered_with_the_right_ones() -> None:
    for given in ({"sequence": "MKTAYIAK"}, {"text": "a", "smiles": "CCO"}, {}):
        with pytest.raises(ValidationError, match=r'Write \{"text": "..."\} for a text, a protein') as caught:
            Input.model_validate(given)
        assert not given or f"'{list(given)[-1]}' is no form of input" in str(caught.value)
    assert Input.model_validate({"text": "MK", "id": "mine"}) == Input(text="MK", id="mine")


def test_an_answer_of_a_canary_stops_no_clock(workspace: Workspace, pool: Pool) -> None:
    workspace.database.transact(
        lambda tx: aliases.set_canary(
            tx, use_case="reviews", model="films-model@v9", percent=5, expected=MODEL, actor="ada", evidence={}
        )
    )

    def deployment(use_case: str, items: list[Item]) -> ServedAnswers:
        return ServedAnswers([{"id": "0", "output": "good", "confidence": 0.9, "error": None}], "films-model@v9")

    answer = predict(workspace, pool, "reviews@production", [Input(text=GOOD)], serving=deployment)
    assert answer.model == "films-model@v9"
    assert _first_answers(workspace) == []


# Files and folders that a caller names: read as they are, without a link or anything that could block.


def test_a_folder_is_the_bundle_of_its_files(tmp_path: Path) -> None:
    for name in ("b", "a.mtl", ".hidden"):
        (tmp_path / name).write_text(name)
    assert members_of(read_caller_file(tmp_path, 1000)) == {"a.mtl": b"a.mtl", "b": b"b"}


def test_a_folder_is_read_no_further_than_the_budget(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).write_bytes(bytes(100))
    os.chmod(tmp_path / "9", 0)  # never opened
    assert 250 < len(read_caller_file(tmp_path, 250)) < 1000


@pytest.mark.parametrize("what", ["empty", "link", "linked", "pipe", "folder", "bytes"])
def test_what_is_no_folder_of_one_example_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    if what != "empty":
        (folder / "slice").write_text("a")
    if what == "link":
        (folder / "other").symlink_to(tmp_path)
    elif what == "pipe":
        os.mkfifo(folder / "pipe")
    elif what == "folder":
        (folder / "below").mkdir()
    elif what == "bytes":
        (folder / os.fsdecode(b"\xff")).write_text("a")
    elif what == "linked":
        (tmp_path / "way").symlink_to(folder)
        folder = tmp_path / "way"
    with pytest.raises(SpeciateError, match="cannot be read"):
        read_caller_file(folder, 1000)


# Mixed rows in a call: what of them is a path, and what no model reads.


PARTS = ("scan.image", "report.text", "vitals.tabular")


def read(path: str) -> bytes:
    return f"what lies at {path}".encode()


def test_texts_and_rows_are_themselves_and_all_else_is_a_path() -> None:
    found = parts_of_row({"scan": "a.png", "report": "a.png", "vitals": {"age": 7}}, PARTS, read)
    assert found == {
        "scan.image": {"data": base64.b64encode(b"what lies at a.png").decode()},
        "report.text": {"value": "a.png"},
        "vitals.tabular": {"value": {"age": 7}},
    }
    at_paths = parts_of_row({"report": {"path": "a.txt"}, "vitals": {"path": "b.json"}}, PARTS, read)
    assert [list(cell) for cell in at_paths.values()] == [["data"], ["data"]]
    assert parts_of_row({"scan": None, "report": "x"}, PARTS, read) == {"report.text": {"value": "x"}}


def test_a_part_that_the_model_does_not_read_is_named() -> None:
    with pytest.raises(SpeciateError, match="did you mean 'report'"):
        parts_of_row({"reports": "x"}, PARTS, read)


def test_files_of_a_folder_are_parts_by_name_or_by_what_they_are() -> None:
    files = bundle({"scan.png": photo(), "notes.txt": b"of another name"})
    assert list(members_of(rename_parts(PARTS, files))) == ["report.text", "scan.image"]
    parts = bundle({"scan.image": photo()})
    assert rename_parts(PARTS, parts) == parts
    with pytest.raises(DecodeError, match="not clear which part"):
        rename_parts(PARTS, bundle({"what.bin": b"?"}))


def test_a_row_may_bring_the_parts_that_the_model_does_not_read() -> None:
    row = {"report": "x", "scan": "nowhere.png"}
    assert parts_of_row(row, ["report.text"], unread, ["scan.image"]) == {"report.text": {"value": "x"}}
    with pytest.raises(SpeciateError, match="names 'sound'"):
        parts_of_row(row | {"sound": "a.wav"}, ["report.text"], unread, ["scan.image"])
    with pytest.raises(SpeciateError, match="has only scan"):
        parts_of_row({"scan": "a.png"}, ["report.text"], unread, ["scan.image"])


def test_so_may_a_folder() -> None:
    files = bundle({"scan.png": photo(), "notes.txt": b"of another name"})
    assert list(members_of(rename_parts(["report.text"], files, ["scan.image"]))) == ["report.text"]
    several = ["scan.image", "scan_2.image"]
    assert list(members_of(rename_parts(["report.text"], files, several))) == ["report.text"]
    odd = bundle({"other.png": photo(), "notes.txt": b"which of the two pictures it is does not matter"})
    assert list(members_of(rename_parts(["report.text"], odd, several))) == ["report.text"]
    with pytest.raises(DecodeError, match="None of its files is a part that the model reads: report"):
        rename_parts(["report.text"], bundle({"scan.png": photo()}), ["scan.image"])


def unread(path: str) -> bytes:
    raise AssertionError(path)


def test_the_queue_on_a_terminal_names_the_labels_that_the_model_knows(workspace: Workspace, pool: Pool) -> None:
    _ask(workspace, pool, Input(text=GOOD))
    context = cast(ControlContext, SimpleNamespace(workspace=workspace))
    shown = use_case_actions.label(context, LabelsRequest(use_case="reviews", by="ada"))
    assert [item["output"] for item in shown["items"]] == ["good"]
    assert {name: sorted(labels) for name, labels in shown["classes"].items()} == {MODEL: ["bad", "good"]}
