"""Published models as they are, beside others: found, labels matched, answers kept, uncovered labels wrong."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("transformers")

import torch

from speciate.datasets import versions
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.reports.report import Report, Row, find_report
from speciate.models import fetch, packaged
from speciate.refs import id_from_key
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import perform, perform_plan
from tests.models.published import doubles

ROWS = 60


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make_texts(workspace: Workspace, labels: tuple[str, ...] = ("good", "bad")) -> Manifest:
    """Texts with labels by turns, a test split of all but ten; `tags` has one for each word."""
    draw = np.random.default_rng(1)
    texts = [" ".join(draw.choice(doubles.WORDS.split(), 6)) + f" {place}" for place in range(ROWS)]
    given = [labels[place % len(labels)] for place in range(ROWS)]
    splits = ["train"] * 10 + ["test"] * (ROWS - 10)
    table = pa.table({
        "id": [f"t-{place:03d}" for place in range(ROWS)], "split": splits, "label": given,
        "group_key": [f"g{place}" for place in range(ROWS)], "quality": ["ok"] * ROWS,
        "reason": pa.array([None] * ROWS, pa.string()), "source": pa.array([None] * ROWS, pa.string()),
        "_content": [f"content {place}" for place in range(ROWS)],
        "_fingerprint": [f"print {place}" for place in range(ROWS)],
        "text": texts,
        "tags": [json.dumps(["person" if word in ("good", "red") else "O" for word in each.split()]) for each in texts],
    })  # fmt: skip
    file = workspace.folders.datasets / "reviews.parquet"
    pq.write_table(table, file)
    manifest = Manifest(
        name="reviews", version=0, id=id_from_key("dataset", "reviews"), modality="text",
        parts=(versions.Part(file=str(file.relative_to(workspace.folders.root)), rows=ROWS),),
        columns={"text": "VARCHAR", "tags": "VARCHAR"}, inputs=("text",), label="kind",
        splits={"train": 10, "test": ROWS - 10},
        labels={label: given.count(label) for label in sorted(labels)}, rows=ROWS,
    )  # fmt: skip
    lanes = np.zeros(1024, np.uint16)
    return workspace.database.transact(
        lambda tx: versions.register(tx, manifest, lanes, operation={"op": "ingest"}, report={}, job=None)
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of published models, to be read only."""
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubles.bert(root / "sentiment", ("NEGATIVE", "POSITIVE"))
        doubles.bert(root / "unnamed", ("LABEL_0", "LABEL_1"))
        doubles.bert(root / "emotions", ("joy", "anger", "tripod"))
        doubles.bert_entailment(root / "nli")
        doubles.bert_tags(root / "tags")
        doubles.vit(root / "vit")
    return root


def run(workspace: Workspace, *named: Path | str, **spec: Any) -> Report:
    refs = [f"path:{each}" if isinstance(each, Path) else each for each in named]
    given = {"models": refs, "dataset": "reviews", "latency": False} | spec
    made = perform(workspace, evaluate.KIND, given)
    return find_report(workspace.database, made["evaluation"])


def row(report: Report, start: str) -> Row:
    (found,) = [each for each in report.leaderboard if each.model.startswith(start)]
    return found


def plan(workspace: Workspace, *named: Path, **spec: Any) -> dict[str, Any]:
    given = {"models": [f"path:{each}" for each in named], "dataset": "reviews"} | spec
    return dict(evaluate.plan(EvaluateSpec.model_validate(given), workspace).resolved)


def test_a_published_classifier_stands_beside_the_constant_under_the_datasets_labels(
    workspace: Workspace, models: Path
) -> None:
    make_texts(workspace)
    report = run(workspace, models / "sentiment", "constant:")
    mine = row(report, "path:sentiment@")
    assert (mine.n, mine.errors, mine.uncovered, mine.ceiling, mine.elsewhere) == (50, 0, (), 1.0, 0.0)
    assert mine.seen is None
    assert any("it may have seen these examples" in note for note in report.notes)
    assert any("NEGATIVE for bad, POSITIVE for good" in note for note in report.notes)
    assert row(report, "constant:").uncovered is None
    from transformers import pipeline

    asked = pipeline("text-classification", model=str(models / "sentiment"), device="cpu")
    texts = pq.read_table(workspace.folders.datasets / "reviews.parquet").to_pylist()[10:]
    meaning = {"NEGATIVE": "bad", "POSITIVE": "good"}
    right = [meaning[asked(each["text"])[0]["label"]] == each["label"] for each in texts]
    assert mine.value == pytest.approx(sum(right) / 50)
    assert 0 < sum(right) < 50


def test_weights_of_a_package_are_asked_as_they_are_and_an_encoder_is_refused_with_what_it_is_for(
    workspace: Workspace, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_texts(workspace)
    (tmp_path / "site" / "sentiment_weights").mkdir(parents=True)
    (tmp_path / "site" / "sentiment_weights" / "__init__.py").touch()
    shutil.copytree(models / "sentiment", tmp_path / "site" / "sentiment_weights" / "model")
    monkeypatch.syspath_prepend(tmp_path / "site")
    entry = packaged.Packaged(
        package="sentiment_weights", folder="model", install="pip install sentiment-weights", license="MIT",
        task="text-classification", modality="text", parameters=1, what="a double",
    )  # fmt: skip
    monkeypatch.setitem(packaged.PACKAGED, "sentiment", entry)
    report = run(workspace, "pkg:sentiment", "constant:")
    mine = row(report, "pkg:sentiment@")
    assert (mine.n, mine.errors) == (50, 0)
    assert mine.value == row(run(workspace, models / "sentiment"), "path:sentiment@").value
    with pytest.raises(SpeciateError, match="gives no answers that could be compared") as caught:
        run(workspace, "pkg:minilm")
    assert "train_model(method='probe', base_model='pkg:minilm'" in caught.value.recovery


def test_another_table_asks_no_model_again_and_counts_anew(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    first = row(run(workspace, models / "sentiment"), "path:")
    turned = {"NEGATIVE": "good", "POSITIVE": "bad"}
    second = run(workspace, models / "sentiment", label_maps={f"path:{models / 'sentiment'}": turned})
    assert first.value is not None
    assert row(second, "path:").value == pytest.approx(1 - first.value)
    (fingerprint,) = workspace.folders.predictions.iterdir()
    (file,) = fingerprint.iterdir()  # each run that asks writes one
    cached = pq.read_table(file)
    assert {json.loads(each) for each in cached["output"].to_pylist()} <= {"NEGATIVE", "POSITIVE"}
    assert cached.num_rows == 50


def test_uncovered_labels_count_as_wrong_and_the_row_says_so(workspace: Workspace, models: Path) -> None:
    make_texts(workspace, ("happy", "angry", "calm"))
    report = run(workspace, models / "emotions")
    mine = row(report, "path:")
    assert mine.uncovered == ("calm",)
    assert mine.ceiling == 33 / 50
    assert mine.value is not None
    assert mine.ceiling is not None
    assert mine.value <= mine.ceiling
    assert mine.elsewhere is not None
    assert 0 < mine.elsewhere < 1  # the probability of "tripod"
    assert any("has no label for calm" in note for note in report.notes)
    shown = plan(workspace, models / "emotions")["labels"]
    (told,) = shown.values()
    assert told["map"] == {"joy": "happy", "anger": "angry"}
    assert told["uncovered"] == ["calm"]
    assert told["ceiling"] == pytest.approx(2 / 3, abs=0.01)


def test_unnamed_labels_are_refused_with_the_call_that_carries_a_table(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    ref = f"path:{models / 'unnamed'}"
    with pytest.raises(SpeciateError, match="say nothing: LABEL_0, LABEL_1") as refused:
        run(workspace, models / "unnamed")
    (call,) = refused.value.next
    assert (call.tool, set(call.arguments["label_maps"][ref])) == ("evaluate_models", {"LABEL_0", "LABEL_1"})
    with pytest.raises(SpeciateError, match="'YOUR LABEL' in the table"):  # the call as it stands decides nothing
        run(workspace, models / "unnamed", label_maps=call.arguments["label_maps"])
    table = {"LABEL_0": "bad", "LABEL_1": "good"}
    assert row(run(workspace, models / "unnamed", label_maps={ref: table}), "path:").uncovered == ()


def test_labels_of_other_things_are_refused_before_anything_is_asked(workspace: Workspace, models: Path) -> None:
    make_texts(workspace, ("sports", "politics"))
    with pytest.raises(SpeciateError, match=r"No label of .* is known to mean one of yours") as refused:
        run(workspace, models / "emotions")
    assert refused.value.next[0].arguments["label_maps"]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"other": {"a": "b"}}, "names other, which is no published model"),
        ({"SENTIMENT": {"POSITIV": "good"}}, "'POSITIV' is no label of"),
        ({"SENTIMENT": {"POSITIVE": "great"}}, "'great' in the table"),
    ],
)
def test_a_table_is_checked_against_both_sides(
    workspace: Workspace, models: Path, maps: dict[str, Any], message: str
) -> None:
    make_texts(workspace)
    ref = f"path:{models / 'sentiment'}"
    given = {ref if name == "SENTIMENT" else name: table for name, table in maps.items()}
    with pytest.raises(SpeciateError, match=message.replace("other,", "'other',")):
        plan(workspace, models / "sentiment", label_maps=given)


@pytest.mark.slow
def test_a_model_of_inference_is_asked_about_labels_that_it_never_saw(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    ref = f"path:{models / 'nli'}"
    told = next(iter(plan(workspace, models / "nli")["labels"].values()))
    assert told["asked"] == ["This example is {label}."]
    mine = row(run(workspace, models / "nli"), "path:")
    assert (mine.errors, mine.ceiling, mine.elsewhere) == (0, 1.0, 0.0)
    phrases = {"very good": "good", "fine": "good", "awful": "bad"}
    other = run(workspace, models / "nli", prompts={ref: ["a {label} film"]}, label_maps={ref: phrases})
    assert row(other, "path:").uncovered == ()
    assert len(list(workspace.folders.predictions.iterdir())) == 2  # other sentences are other questions
    with pytest.raises(SpeciateError, match="has no place for a label"):
        plan(workspace, models / "nli", prompts={ref: ["a film"]})


def test_tags_lose_their_prefixes_where_references_have_none(workspace: Workspace, models: Path) -> None:
    from speciate import use_cases
    from speciate.use_cases import Definition

    make_texts(workspace)
    definition = Definition.model_validate({
        "name": "people", "task": "token-classification", "objective": {"metric": "token_accuracy", "target": 0.8},
        "target_column": "tags",
    })  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    report = run(workspace, models / "tags", use_case="people")
    mine = row(report, "path:")
    assert (mine.errors, mine.uncovered, mine.ceiling) == (0, (), 1.0)
    assert mine.elsewhere is not None
    assert mine.elsewhere > 0  # organisations
    assert report.decision is not None


def test_a_fetched_version_takes_part_by_its_name(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    made = perform(workspace, fetch.KIND, {"name": "theirs", "source": f"path:{models / 'sentiment'}"})
    report = run(workspace, made["model"], models / "sentiment")
    by_name, by_path = row(report, "theirs@v1"), row(report, "path:")
    assert by_name.value == by_path.value
    assert len(list(workspace.folders.predictions.iterdir())) == 1  # the same bytes are asked once


def test_prompts_of_a_model_that_takes_none_are_refused(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    with pytest.raises(SpeciateError, match="takes no prompts"):
        plan(workspace, models / "sentiment", prompts={f"path:{models / 'sentiment'}": ["a {label} film"]})


def test_a_model_of_another_medium_or_task_is_refused(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    with pytest.raises(SpeciateError, match="image") as refused:
        plan(workspace, models / "vit")
    assert refused.value.code is Code.INVALID


def test_a_folder_that_changed_after_the_plan_is_refused(workspace: Workspace, models: Path, tmp_path: Path) -> None:
    make_texts(workspace)
    shutil.copytree(models / "sentiment", tmp_path / "mine")
    ref = f"path:{tmp_path / 'mine'}"
    planned = evaluate.plan(EvaluateSpec(models=(ref,), dataset="reviews"), workspace)
    (tmp_path / "mine" / "README.md").write_text("another")
    with pytest.raises(SpeciateError, match="has changed since it was planned"):
        perform_plan(workspace, evaluate.KIND, planned)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no processor"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "no weights as safetensors"),
        (
            lambda folder: (
                (folder / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n")
                and (folder / "LICENSE").write_text("GNU General Public License\nVersion 3, 29 June 2007")
            ),
            r"contradicts itself: CC-BY-SA-4.0 and GPL-3.0-only.*neither is stricter",
        ),
    ],
)
def test_a_folder_that_cannot_be_asked_is_refused_by_the_plan(
    workspace: Workspace, models: Path, tmp_path: Path, change: Any, message: str
) -> None:
    make_texts(workspace)
    shutil.copytree(models / "sentiment", tmp_path / "mine")
    change(tmp_path / "mine")
    with pytest.raises(SpeciateError, match=f"(?s){message}"):
        plan(workspace, tmp_path / "mine")


def test_remote_code_is_refused(workspace: Workspace, models: Path, tmp_path: Path) -> None:
    make_texts(workspace)
    shutil.copytree(models / "sentiment", tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_own.Own"}
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpeciateError, match="asks for code of its own") as refused:
        run(workspace, tmp_path / "mine")
    assert refused.value.code is Code.REFUSED


@pytest.mark.slow
def test_ensembles_may_hold_published_models(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    one, other = f"path:{models / 'sentiment'}", f"path:{models / 'nli'}"
    report = run(workspace, f"ensemble:{one}+{other}")
    assert row(report, "ensemble:").errors == 0


def test_a_version_with_labels_answers_under_them_and_can_be_promoted(workspace: Workspace, models: Path) -> None:
    from speciate import use_cases
    from speciate.datasets.loading.loader import load_examples
    from speciate.models import registry
    from speciate.promotion import promote
    from speciate.promotion.promote import PromoteSpec
    from speciate.tasks.predictor import load
    from speciate.use_cases import Definition

    manifest = make_texts(workspace)
    definition = Definition.model_validate({
        "name": "triage", "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.8},
    })  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    source, table = f"path:{models / 'unnamed'}", {"LABEL_0": "bad", "LABEL_1": "good"}
    perform(workspace, fetch.KIND, {"name": "raw", "source": source})
    made = perform(workspace, fetch.KIND, {"name": "labelled", "source": source, "labels": table})["model"]
    version = registry.resolve(workspace.database, workspace.folders, made)
    assert (version.card.task, version.card.labels) == ("text-classification", ("bad", "good"))
    predictor = load(version.path)
    assert predictor.labels == ("bad", "good")
    examples = load_examples(workspace.folders, manifest, {"test"})
    mapped = [each.output for each in predictor.predict(examples)]
    raw = [
        each.output
        for each in load(registry.resolve(workspace.database, workspace.folders, "raw").path).predict(examples)
    ]
    assert mapped == [table[each] for each in raw]
    report = run(workspace, made, source, label_maps={source: table}, use_case="triage")
    assert row(report, "labelled@v1").value == row(report, "path:").value
    assert promote.plan(PromoteSpec(use_case="triage", model=made), workspace).resolved["model"] == "labelled@v1"
    with pytest.raises(SpeciateError, match="labels that it was published with"):
        promote.plan(PromoteSpec(use_case="triage", model="raw"), workspace)
    with pytest.raises(SpeciateError, match="'LABEL_7' is no label of"):
        perform(workspace, fetch.KIND, {"name": "other", "source": source, "labels": {"LABEL_7": "bad"}})


def test_the_horizon_is_what_every_forecaster_gives() -> None:
    from speciate.evaluation.evaluated_models import EvaluatedModel
    from speciate.evaluation.label_plans import settle_horizon
    from speciate.evaluation.published_models import PublishedLabels

    def forecaster(name: str, steps: int) -> EvaluatedModel:
        labels = PublishedLabels(ref=name, published=(), steps=steps)
        return EvaluatedModel(name=name, source="published", identity=name, published=labels)

    long, short = forecaster("long", 96), forecaster("short", 8)
    assert settle_horizon([long, short], None) == 8
    assert settle_horizon([long], 12) == 12
    assert settle_horizon([], 12) == 12
    with pytest.raises(SpeciateError, match="short forecasts 8 steps, and 12 are asked for"):
        settle_horizon([long, short], 12)


@pytest.mark.slow
def test_zero_shot_versions_are_asked_about_the_phrases_of_their_table(workspace: Workspace, models: Path) -> None:
    from speciate.datasets.loading.loader import load_examples
    from speciate.models import registry
    from speciate.tasks.predictor import load

    manifest = make_texts(workspace)
    source, table = f"path:{models / 'nli'}", {"very good": "good", "awful": "bad"}
    spec = {"name": "asked", "source": source, "labels": table, "prompts": ("a {label} film",)}
    made = perform(workspace, fetch.KIND, spec)["model"]
    predictor = load(registry.resolve(workspace.database, workspace.folders, made).path)
    examples = load_examples(workspace.folders, manifest, {"test"})[:5]
    found = predictor.predict(examples)
    assert predictor.labels == ("bad", "good")
    assert all(each.output in ("bad", "good") for each in found)
    assert all(sum((each.probabilities or {}).values()) == pytest.approx(1) for each in found)


def judged(workspace: Workspace, models: Path, gates: list[dict[str, Any]], **registered: Any) -> tuple[Any, Any]:
    """The decision on the sentiment double whose card names imdb, and the result of its gate `unseen`."""
    from speciate import use_cases
    from speciate.use_cases import Definition

    definition = Definition.model_validate({
        "name": "triage", "task": "text-classification", "objective": {"metric": "accuracy"}, "gates": gates,
    })  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    folder = workspace.folders.cache / "theirs"
    shutil.copytree(models / "sentiment", folder)
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets:\n- imdb\n---\n")
    table = {"NEGATIVE": "bad", "POSITIVE": "good"}
    spec = {"name": "theirs", "source": f"path:{folder}", "labels": table, **registered}
    made = perform(workspace, fetch.KIND, spec)["model"]
    decision = run(workspace, made, use_case="triage").decision
    assert decision is not None
    return decision, next(each for each in decision.gates if each.gate.rule == "unseen")


@pytest.mark.parametrize(
    ("if_unknown", "outcome", "said"),
    [
        (None, "not_known", "a person accepts that once"),
        pytest.param("ask", "not_known", "a person accepts that once", marks=pytest.mark.slow),
        ("refuse", "fail", "refuses such models"), ("accept", "pass", "accepts that"),
    ],
)  # fmt: skip
def test_what_nobody_knows_is_asked_refused_or_accepted_as_the_use_case_says(
    workspace: Workspace, models: Path, if_unknown: str | None, outcome: str, said: str
) -> None:
    make_texts(workspace)
    gates = [] if if_unknown is None else [{"rule": "unseen", "if_unknown": if_unknown}]
    decision, gate = judged(workspace, models, gates, data_until="2024-06")
    assert gate.outcome == outcome
    assert said in gate.reason
    assert "its card names imdb; nothing later than 2024-06 is said to be in it" in gate.reason
    others = {each.outcome for each in decision.gates if each.gate.rule != "unseen"}
    worst = "hold" if "fail" in others | {outcome} else "inconclusive" if "inconclusive" in others else "promote"
    assert decision.verdict == worst


def test_a_statement_can_speak_against_a_model_and_never_for_it(workspace: Workspace, models: Path) -> None:
    make_texts(workspace)
    other = make_texts_named(workspace, "elsewhere")
    _, gate = judged(workspace, models, [], trained_on=(other,))
    assert gate.outcome == "not_known"
    assert "whoever registered it names elsewhere@v1" in gate.reason
    made = perform(
        workspace, fetch.KIND,
        {"name": "seen", "source": f"path:{models / 'sentiment'}", "trained_on": ("reviews",),
         "labels": {"NEGATIVE": "bad", "POSITIVE": "good"}},
    )["model"]  # fmt: skip
    report = run(workspace, made, use_case="triage", dataset="reviews:train")
    assert row(report, made).seen == 10
    assert any("has seen 10 of 10 examples" in note for note in report.notes)


def make_texts_named(workspace: Workspace, name: str) -> str:
    from tests.data import ingest

    rows = [{"text": f"another {place}", "label": ("good", "bad")[place % 2]} for place in range(20)]
    return ingest(workspace, name, rows=rows, label="label", inputs=["text"]).ref


def test_the_same_weights_with_another_statement_are_another_version(workspace: Workspace, models: Path) -> None:
    spec = {"name": "theirs", "source": f"path:{models / 'sentiment'}"}
    first = perform(workspace, fetch.KIND, spec)["model"]
    assert perform(workspace, fetch.KIND, spec)["model"] == first
    assert perform(workspace, fetch.KIND, spec | {"data_until": "2024"})["model"] == "theirs@v2"
    with pytest.raises(SpeciateError, match="is no date"):
        perform(workspace, fetch.KIND, spec | {"data_until": "last summer"})


def test_a_folder_is_held_back_by_the_stricter_licence_where_mit_is_asked(workspace: Workspace, models: Path) -> None:
    """As a published detector has it: MIT in its metadata, the AGPL beside its weights."""
    from speciate import use_cases
    from speciate.use_cases import Definition

    make_texts(workspace)
    definition = Definition.model_validate({
        "name": "triage", "task": "text-classification", "objective": {"metric": "accuracy"},
        "limits": {"licenses": ["MIT", "Apache-2.0"]},
    })  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    texts = {
        "agpl": ("mit", "LICENSE", "GNU Affero General Public License\nVersion 3", "licence AGPL-3.0-only is not"),
        "weights": (
            "apache-2.0", "MODEL_LICENSE", "Terms: a Non-Commercial License.",
            "licence of the weights LicenseRef-non-commercial, which forbids commercial use, is not among MIT",
        ),
        "stated": (
            "apache-2.0", "NOTICE", "words",
            "licence of the weights LicenseRef-tabpfn-non-commercial, which forbids commercial use, is not among MIT",
        ),
        "mit": ("mit", "LICENSE", "words", "licence MIT is allowed"),
    }  # fmt: skip
    of_weights = {"stated": {"weights_license": "LicenseRef-tabpfn-non-commercial"}}  # as TabPFN's readme has it
    for name, (stated, file, text, told) in texts.items():
        folder = workspace.folders.cache / name
        shutil.copytree(models / "sentiment", folder)
        (folder / "README.md").write_text(f"---\nlicense: {stated}\n---\n")
        (folder / file).write_text(text)
        made = perform(
            workspace, fetch.KIND,
            {"name": name, "source": f"path:{folder}", "labels": {"NEGATIVE": "bad", "POSITIVE": "good"}}
            | of_weights.get(name, {}),
        )["model"]  # fmt: skip
        for model in {"agpl": (made, folder), "weights": (made,), "stated": (made,), "mit": (folder,)}[name]:
            decision = run(workspace, model, use_case="triage").decision
            assert decision is not None
            (gate,) = [each for each in decision.gates if each.gate.rule == "license"]
            assert (gate.outcome == "pass") == (name == "mit")
            assert told in gate.reason


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"O": "O", "B-PER": "B-person", "I-PER": "I-person"}, {"B-PER": "B-person", "I-PER": "I-person"}),
        ({"PER": "person"}, {"B-PER": "person", "I-PER": "person"}),
    ],
)
def test_a_registered_tagger_answers_with_the_tags_of_its_table(
    workspace: Workspace, models: Path, table: dict[str, str], expected: dict[str, str]
) -> None:
    from speciate.datasets.loading.loader import load_examples
    from speciate.models import registry
    from speciate.tasks.predictor import load

    examples = load_examples(workspace.folders, make_texts(workspace), {"test"})[:20]
    source = f"path:{models / 'tags'}"
    made = perform(workspace, fetch.KIND, {"name": "tagger", "source": source, "labels": table})["model"]
    raw = perform(workspace, fetch.KIND, {"name": "raw", "source": source})["model"]

    def tags(model: str) -> list[list[str]]:
        predictor = load(registry.resolve(workspace.database, workspace.folders, model).path)
        return [each.output for each in predictor.predict(examples)]

    assert any("PER" in tag for text in tags(raw) for tag in text)
    assert tags(made) == [[expected.get(tag, "O") for tag in text] for text in tags(raw)]
