"""A log becomes rows of a dataset: what was asked, what it should have been, and where that comes from."""

from __future__ import annotations

import base64
import io
import random
import time
from pathlib import Path

import pytest
from PIL import Image

from speciate.datasets import version_rows
from speciate.datasets.versions import version
from speciate.errors import Code, SpeciateError
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.predictions.quality import random_place
from speciate.settings import Settings
from speciate.workspace.clock import SystemClock
from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.datasets.operations.world import curate
from tests.predictions.world import USE_CASE, note, texts


def logged(workspace: Workspace) -> AnswerLog:
    """Answers of now: a run has the clock of the machine."""
    return AnswerLog(log_folder(workspace.folders, USE_CASE), Settings().log, SystemClock())


def by_critics(folder: Path) -> str:
    """A table of films, four of each critic."""
    table = folder / "films.csv"
    lines = (f"word{n} film,critic{n % 5},{'good' if n % 2 else 'bad'}\n" for n in range(20))
    table.write_text("review,critic,tone\n" + "".join(lines))
    return str(table)


def png(shade: int) -> str:
    out = io.BytesIO()
    Image.new("L", (12, 12), shade).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def test_texts_become_rows_with_labels_and_provenance(workspace: Workspace) -> None:
    own = logged(workspace)
    ids = note(own, texts(*(f"film {number} was quite a film" for number in range(12))), output="good")
    note(own, texts("broken"), error="It cannot be used.")
    for place, each in enumerate(ids[:8]):
        own.feedback({"prediction": each, "label": "bad" if place % 2 else "good", "source": "agent"})
    own.feedback({"prediction": ids[0], "label": "bad", "source": "human"})
    own.close()
    made = ingest(workspace, "asked", source=f"log:{USE_CASE}?labelled=true")
    rows = version_rows.read(workspace.folders, made).to_pylist()
    assert made.inputs == ("text",)
    assert {row["prediction"]: row["label"] for row in rows} == {
        each: "good" if place in (2, 4, 6) else "bad" for place, each in enumerate(ids[:8])
    }
    [first] = [row for row in rows if row["prediction"] == ids[0]]
    assert (first["predicted"], first["predicted_by"], first["label_source"]) == ("good", "films@v1", "human")
    assert first["text"] == "film 0 was quite a film"
    assert made.labels == {"bad": 5, "good": 3}


def test_rows_are_added_to_a_dataset_in_its_roles(workspace: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "films.csv"
    table.write_text("review,tone\n" + "".join(f"word{n} film,{'good' if n % 2 else 'bad'}\n" for n in range(10)))
    first = ingest(workspace, "films", source=str(table), label="tone", inputs=["review"])
    own = logged(workspace)
    rows = [{"id": "0", "row": {"review": f"another {n} thing"}} for n in range(4)]
    for each in note(own, rows):
        own.feedback({"prediction": each, "label": "good", "source": "human"})
    own.close()
    made = ingest(workspace, "films", source=f"log:{USE_CASE}", add=True)
    assert made.rows == first.rows + 4
    assert made.inputs == ("review",)
    found = version_rows.read(workspace.folders, made).to_pylist()
    assert sum(1 for row in found if row["prediction"] and row["predicted_by"] == "films@v1") == 4


def test_texts_that_were_asked_about_are_added_to_the_only_column_that_a_model_sees(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Whoever asks with {"text": ...} need not know how the column of the training data was called."""
    table = tmp_path / "films.csv"
    table.write_text("review,tone\n" + "".join(f"word{n} film,{'good' if n % 2 else 'bad'}\n" for n in range(10)))
    first = ingest(workspace, "films", source=str(table), label="tone", inputs=["review"])
    own = logged(workspace)
    asked = [*texts("another thing", "one more thing"), {"id": "0", "row": {"review": "a third thing"}}]
    for each in note(own, asked):
        own.feedback({"prediction": each, "label": "good", "source": "human"})
    own.close()
    made = ingest(workspace, "films", source=f"log:{USE_CASE}?labelled=true", add=True)
    assert (made.rows, made.inputs) == (first.rows + 3, ("review",))
    found = version_rows.read(workspace.folders, made).to_pylist()
    assert {row["review"] for row in found if row["prediction"]} == {
        "another thing", "one more thing", "a third thing"
    }  # fmt: skip


def test_a_grouped_dataset_takes_answers_whose_group_was_sent_and_says_how_to_send_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    ingest(workspace, "films", source=by_critics(tmp_path), label="tone", inputs=["review"], group_by="critic")
    own = logged(workspace)
    ids = note(own, texts("another thing"))
    with pytest.raises(SpeciateError, match=r"grouped by 'critic', and nobody sent"):
        ingest(workspace, "films", source=f"log:{USE_CASE}", add=True)
    ids += note(own, [{"id": "0", "row": {"review": "a third thing", "critic": "critic3"}}])
    for each in ids:
        own.feedback({"prediction": each, "label": "good", "source": "human"})
    own.close()
    made = ingest(workspace, "films", source=f"log:{USE_CASE}", add=True)
    found = {row["review"]: row["group_key"] for row in version_rows.read(workspace.folders, made).to_pylist()}
    assert found["a third thing"] == "critic3"
    assert "another thing" not in found, "it might lie in another split than the rest of its critic"
    warnings = version(workspace.database, made.ref).report["warnings"]  # another one counts the few critics
    [warning] = [each for each in warnings if "answers" in each]
    assert warning.startswith("1 of the answers do not say 'critic', by which films@v1 is grouped, and were left out")
    own = logged(workspace)
    [again] = note(own, [{"id": "0", "row": {"review": "another thing", "critic": "critic4"}}])
    own.feedback({"prediction": again, "label": "good", "source": "human"})
    own.close()
    made = ingest(workspace, "films", source=f"log:{USE_CASE}", add=True)
    rows = version_rows.read(workspace.folders, made).to_pylist()
    [came] = [row for row in rows if row["review"] == "another thing"]
    assert came["group_key"] == "critic4", "what was left out comes once its group is known"
    assert {row["split"] for row in rows if row["group_key"] == "critic4"} == {came["split"]}


@pytest.mark.slow
def test_a_dataset_whose_split_was_made_by_a_column_takes_answers_that_say_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    ingest(workspace, "films", source=by_critics(tmp_path), label="tone", inputs=["review"])
    curate(workspace, "films", {"op": "split", "group_by": "critic"})
    own = logged(workspace)
    note(own, texts("another thing"))
    with pytest.raises(SpeciateError, match=r"grouped by 'critic', and nobody sent"):
        ingest(workspace, "films", source=f"log:{USE_CASE}", add=True)
    [third] = note(own, [{"id": "0", "row": {"review": "a third thing", "critic": "critic3"}}])
    own.feedback({"prediction": third, "label": "good", "source": "human"})
    own.close()
    made = ingest(workspace, "films", source=f"log:{USE_CASE}", add=True)
    found = {row["review"]: row["group_key"] for row in version_rows.read(workspace.folders, made).to_pylist()}
    assert (found.get("a third thing"), found.get("another thing")) == ("critic3", None)


@pytest.mark.slow
def test_files_of_a_log_come_to_no_dataset_whose_groups_paths_said(workspace: Workspace, tmp_path: Path) -> None:
    for shade in range(12):
        path = tmp_path / "shades" / f"patient{shade % 6}" / f"{shade}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(png(20 * shade)))
    ingest(workspace, "shades", source=str(tmp_path / "shades"), group_by=r"(patient\d+)")
    own = logged(workspace)
    note(own, [{"id": "0", "data": png(7)}], AnsweringModel("digits@v2", 1, "image"))
    own.close()
    with pytest.raises(SpeciateError) as raised:
        ingest(workspace, "shades", source=f"log:{USE_CASE}", add=True)
    assert "grouped by what a log does not hold" in str(raised.value)
    ingest(workspace, "asked", source=f"log:{USE_CASE}")
    with pytest.raises(SpeciateError, match="no row of asked@v1 says its own"):
        curate(workspace, "shades", {"op": "merge", "dataset": "asked"})
    made = curate(workspace, "shades", {"op": "merge", "dataset": "asked", "ungrouped": "take"})
    assert made.manifest.rows == 13


@pytest.mark.slow
def test_a_log_that_is_grouped_by_a_column_leaves_out_who_did_not_send_it(workspace: Workspace) -> None:
    own = logged(workspace)
    note(own, [{"id": "0", "row": {"review": f"thing number {n}", "critic": f"critic{n % 3}"}} for n in range(9)])
    note(own, [{"id": "0", "row": {"review": "a thing of nobody"}}])
    own.close()
    made = ingest(workspace, "asked", source=f"log:{USE_CASE}", inputs=["review"], group_by="critic")
    assert made.rows == 9
    assert any("1 of the answers" in each for each in version(workspace.database, made.ref).report["warnings"])


def test_files_become_examples(workspace: Workspace) -> None:
    own = logged(workspace)
    about = AnsweringModel("digits@v2", 1, "image")
    ids = [note(own, [{"id": "0", "data": png(20 * shade)}], about)[0] for shade in range(8)]
    again = note(own, [{"id": "0", "data": png(0)}], about)[0]
    for each in [*ids[1:], again]:
        own.feedback({"prediction": each, "label": "dark", "source": "human"})
    own.close()
    made = ingest(workspace, "shades", source=f"log:{USE_CASE}")
    rows = version_rows.read(workspace.folders, made).to_pylist()
    assert (made.modality, made.rows) == ("image", 8)
    assert {row["prediction"] for row in rows} == {*ids[1:], again}, "a file that was asked twice is one example"


@pytest.mark.parametrize(
    "source", ["log:reviews?labeled=1", "log:reviews?since=soon", "log:reviews?labelled=1", "log:/x"]
)
def test_what_names_no_part_of_a_log_is_refused(workspace: Workspace, source: str) -> None:
    with pytest.raises(SpeciateError) as raised:
        ingest(workspace, "asked", source=source)
    assert raised.value.code is Code.INVALID


def test_a_log_that_is_not_there_is_told_at_once(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError) as raised:
        ingest(workspace, "asked", source="log:nothing")
    assert raised.value.code is Code.NOT_FOUND
    own = logged(workspace)
    note(own, texts("a"))
    own.close()
    after = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 100))
    with pytest.raises(SpeciateError):
        ingest(workspace, "asked", source=f"log:{USE_CASE}?since={after}")


def test_what_people_corrected_becomes_pairs_of_the_right_answer_over_the_models_own(workspace: Workspace) -> None:
    """What preference training learns from: a person's label is the better answer, what the model said the worse."""
    own = logged(workspace)
    about = AnsweringModel("writer@v1", 1, "text")
    ids = note(own, texts(*(f"what is {n} and {n}?" for n in range(8))), about, output="four")
    for place, each in enumerate(ids[:6]):
        own.feedback({"prediction": each, "label": "four" if place == 2 else str(2 * place), "source": "human"})
    own.close()
    asked = ingest(workspace, "corrected", source=f"log:{USE_CASE}?labelled=true")
    step = {"op": "preferences", "answers": ["label", "predicted"], "metric": "exact_match"}
    made = curate(workspace, asked.ref, step)
    rows = made.rows.to_pylist()
    assert {(row["text"], row["chosen"], row["rejected"]) for row in rows} == {
        (f"what is {n} and {n}?", str(2 * n), "four") for n in (0, 1, 3, 4, 5)
    }
    assert {row["made_by"] for row in rows} == {"label over predicted"}


def _drawn(workspace: Workspace, count: int, every: int = 2) -> list[str]:
    """Labels of so many answers, of three times as many: one of `every` is the next of the random order, the others are
    picked for their doubt."""
    own = logged(workspace)
    ids = note(own, [{"id": "0", "row": {"review": f"thing {n} of another kind {n * n}"}} for n in range(3 * count)])
    first = sorted(ids, key=random_place)[: count // every]
    doubtful = [each for each in sorted(ids, key=random_place, reverse=True) if each not in first]
    for drawn, chosen in (("random", first), ("uncertain", doubtful[: count - len(first)])):
        for each in chosen:
            own.feedback({"prediction": each, "label": "good", "source": "human", "drawn": drawn})
    own.close()
    return [*first, *doubtful[: count - len(first)]]


def test_answers_that_were_asked_about_for_their_doubt_never_judge(workspace: Workspace, tmp_path: Path) -> None:
    """They are harder than the rest: in the test split a model would look worse than it is."""
    table = tmp_path / "films.csv"
    lines = (f"word{n} film number {n * 7},{'good' if n % 2 else 'bad'}\n" for n in range(40))
    table.write_text("review,tone\n" + "".join(lines))
    ingest(workspace, "films", source=str(table), label="tone", inputs=["review"])
    _drawn(workspace, 60)
    made = ingest(workspace, "films", source=f"log:{USE_CASE}?labelled=true", add=True)
    rows = [row for row in version_rows.read(workspace.folders, made).to_pylist() if row["prediction"]]
    splits = {drawn: {row["split"] for row in rows if row["drawn"] == drawn} for drawn in ("random", "uncertain")}
    assert splits["uncertain"] == {"train"}
    assert len(splits["random"]) > 1


def test_a_part_to_learn_from_and_a_part_to_judge_share_nothing_and_follow_from_the_content(
    workspace: Workspace, tmp_path: Path
) -> None:
    table = tmp_path / "films.csv"
    table.write_text("review,tone\n" + "".join(f"word{n} film,{'good' if n % 2 else 'bad'}\n" for n in range(10)))
    ingest(workspace, "films", source=str(table), label="tone", inputs=["review"])
    ids = _drawn(workspace, 80)
    judged = ingest(
        workspace, "judged", source=f"log:{USE_CASE}?labelled=true&part=judge&arrived=episode-1", label="tone",
        inputs=["review"],
    )  # fmt: skip
    taught = ingest(workspace, "films", source=f"log:{USE_CASE}?labelled=true&part=train&arrived=episode-1", add=True)
    one = version_rows.read(workspace.folders, judged).to_pylist()
    other = [row for row in version_rows.read(workspace.folders, taught).to_pylist() if row["prediction"]]
    assert {row["split"] for row in one} == {"test"}
    assert {row["drawn"] for row in one} == {"random"}
    assert {row["arrived"] for row in one} == {"episode-1"}
    assert {row["split"] for row in other} <= {"train", "validation"}
    assert not {row["prediction"] for row in one} & {row["prediction"] for row in other}
    assert len(one) + len(other) == len(ids)
    assert {row["drawn"] for row in other if row["split"] == "validation"} <= {"random"}


def test_what_nearly_is_an_example_of_another_split_is_learned_from_by_nobody(
    workspace: Workspace, tmp_path: Path
) -> None:
    """The split of an answer follows from its content alone, so nearly equal ones may lie on both sides."""
    chance = random.Random(0)
    texts_ = [" ".join(f"word{chance.randrange(10_000)}" for _ in range(40)) for _ in range(40)]
    table = tmp_path / "films.csv"
    lines = (f"{text},{'good' if n % 2 else 'bad'},{'test' if n < 20 else 'train'}\n" for n, text in enumerate(texts_))
    table.write_text("review,tone,split\n" + "".join(lines))
    ingest(workspace, "films", source=str(table), label="tone", inputs=["review"])
    own = logged(workspace)
    ids = note(own, [{"id": "0", "row": {"review": f"{text}, they say"}} for text in texts_])
    for each in ids:
        own.feedback({"prediction": each, "label": "good", "source": "human", "drawn": "uncertain"})
    own.close()
    made = ingest(workspace, "films", source=f"log:{USE_CASE}?labelled=true&part=train", add=True)
    rows = [row for row in version_rows.read(workspace.folders, made).to_pylist() if row["prediction"]]
    places = {quality: {texts_.index(row["review"].removesuffix(", they say")) for row in rows
                        if row["quality"] == quality} for quality in ("ok", "refused")}  # fmt: skip
    assert places["refused"]
    assert places["refused"] <= set(range(20)), "of the test split"
    assert places["ok"]
    assert places["ok"] <= set(range(20, 40))
    assert {row["split"] for row in rows if row["quality"] == "ok"} == {"train"}


def test_nobody_gets_an_answer_to_judge_by_calling_it_a_random_draw(workspace: Workspace, tmp_path: Path) -> None:
    """Whoever labels easy answers alone and calls them drawn would make every model that comes look good."""
    table = tmp_path / "films.csv"
    table.write_text("review,tone\n" + "".join(f"word{n} film,{'good' if n % 2 else 'bad'}\n" for n in range(10)))
    ingest(workspace, "films", source=str(table), label="tone", inputs=["review"])
    own = logged(workspace)
    ids = note(own, [{"id": "0", "row": {"review": f"{'easy' if n % 5 else 'hard'} thing {n}"}} for n in range(200)])
    easy = [each for place, each in enumerate(ids) if place % 5]
    first = sorted(ids, key=random_place)
    picked = [each for each in easy if each in set(first[40:])][:60]
    for each in picked:
        own.feedback({"prediction": each, "label": "good", "source": "human", "drawn": "random"})
    own.close()
    source = f"log:{USE_CASE}?labelled=true&part="
    with pytest.raises(SpeciateError) as caught:
        ingest(workspace, "judged", source=source + "judge", label="tone", inputs=["review"])
    assert caught.value.code is Code.NOT_FOUND
    taught = ingest(workspace, "films", source=source + "train", add=True)
    rows = [row for row in version_rows.read(workspace.folders, taught).to_pylist() if row["prediction"]]
    assert {row["split"] for row in rows} == {"train"}, "what was picked may teach"
    assert {row["drawn"] for row in rows} == {None}


def test_of_a_group_that_judges_nothing_is_learned(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, "films", source=by_critics(tmp_path), label="tone", inputs=["review"], group_by="critic")
    own = logged(workspace)
    rows = [{"id": "0", "row": {"review": f"thing {n}", "critic": f"critic{n % 30}"}} for n in range(180)]
    order = sorted(note(own, rows), key=random_place)
    for place, each in enumerate([*order[:30], *order[-60:]]):
        drawn = "random" if place < 30 else "uncertain"
        own.feedback({"prediction": each, "label": "good", "source": "human", "drawn": drawn})
    own.close()
    source = f"log:{USE_CASE}?labelled=true&group=critic&part="
    judged = ingest(workspace, "judged", source=source + "judge", label="tone", inputs=["review"])
    taught = ingest(workspace, "films", source=source + "train", add=True)
    judges = {row["critic"] for row in version_rows.read(workspace.folders, judged).to_pylist()}
    learned = version_rows.read(workspace.folders, taught).to_pylist()
    assert judges
    assert not judges & {row["critic"] for row in learned if row["prediction"]}
