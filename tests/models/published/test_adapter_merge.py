"""Adapters of PEFT: merged with their base model they answer as PEFT's own model does, or are refused by name."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
import transformers as t
from safetensors.torch import load_file, save_file

from speciate.errors import Code, SpeciateError
from speciate.models import registry, trust
from speciate.models.fetch import FetchSpec
from speciate.models.published import adapter_merge
from speciate.models.published.checked_copy import folder_id
from speciate.workspace.workspace import Workspace
from tests.models.published import doubles
from tests.models.test_pickled_weights import run_job
from tests.training.world import define, make_dataset, thirds, train_now


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def adapter(model: Any, folder: Path, **options: Any) -> Any:
    """Saved as PEFT saves it, with drawn weights; PEFT's own model."""
    torch.manual_seed(1)
    made = peft.get_peft_model(model, peft.LoraConfig(**({"r": 3, "lora_alpha": 7} | options)))
    for name, each in made.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(each, std=0.3)
    made.save_pretrained(folder)
    return made.eval()


def bert(folder: Path, name: str = "BertForSequenceClassification") -> tuple[Any, Any]:
    """Base model and tokenizer; another head than the adapter's, or none, has another class."""
    torch.manual_seed(0)
    doubles.bert(folder)
    config = t.BertConfig.from_pretrained(folder)
    tok = t.AutoTokenizer.from_pretrained(folder)
    if name != "BertForSequenceClassification":
        shutil.rmtree(folder)
        model = getattr(t, name)(config)
        doubles.keep(folder, model, tok)
    return config, tok


LINEAR = ["query", "value", "dense"]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"use_dora": True},
    "rank-stabilised": {"use_rslora": True, "rank_pattern": {"query": 2}, "alpha_pattern": {"value": 3}},
    "one layer": {"layers_to_transform": [0]},
    "with its head": {"modules_to_save": ["classifier"]},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_it_answers_as_pefts_own_model(tmp_path: Path, kind: str) -> None:
    base, changes, made = tmp_path / "base", tmp_path / "changes", tmp_path / "made"
    _, tok = bert(base)
    model = t.BertForSequenceClassification.from_pretrained(base)
    given = {"target_modules": LINEAR, "task_type": "SEQ_CLS"} | OPTIONS[kind]
    theirs = adapter(model, changes, **given)
    made.mkdir()
    merged = adapter_merge.merge(base, changes, made, "x")
    assert merged.architecture == "BertForSequenceClassification"
    assert adapter_merge.SETTINGS not in {path.name for path in made.iterdir()}
    trust.check(made)
    ours = t.BertForSequenceClassification.from_pretrained(made).eval()
    batch = tok(["good film", "bad awful food today"], return_tensors="pt", padding=True)
    with torch.inference_mode():
        assert torch.allclose(ours(**batch).logits, theirs(**batch).logits, atol=1e-5)


@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM"])
def test_a_head_that_only_the_adapter_has_makes_a_classifier(tmp_path: Path, name: str) -> None:
    base, changes, made = tmp_path / "base", tmp_path / "changes", tmp_path / "made"
    _, tok = bert(base, name)
    model = t.BertForSequenceClassification.from_pretrained(base, num_labels=3)
    pooler = ["pooler"] if name == "BertForMaskedLM" else []
    theirs = adapter(model, changes, task_type="SEQ_CLS", target_modules=["query"],
                     modules_to_save=["classifier", *pooler])  # fmt: skip
    tok.save_pretrained(changes)
    made.mkdir()
    adapter_merge.merge(base, changes, made, "x")
    ours = t.BertForSequenceClassification.from_pretrained(made).eval()
    assert ours.config.num_labels == 3
    batch = tok(["good film", "bad awful food today"], return_tensors="pt", padding=True)
    with torch.inference_mode():
        assert torch.allclose(ours(**batch).logits, theirs(**batch).logits, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "t5"])
def test_networks_that_are_named_by_their_class_alone(tmp_path: Path, name: str) -> None:
    base, changes, made = tmp_path / "base", tmp_path / "changes", tmp_path / "made"
    torch.manual_seed(0)
    doubles.FAMILIES[name].build(base)
    kind = t.ViTForImageClassification if name == "vit" else t.T5ForConditionalGeneration
    model = kind.from_pretrained(base)
    layers = [each for each, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    layers = [each for each in layers if "lm_head" not in each and "classifier" not in each]
    theirs = adapter(model, changes, target_modules=layers, task_type=None if name == "vit" else "SEQ_2_SEQ_LM")
    made.mkdir()
    assert adapter_merge.merge(base, changes, made, "x").architecture == kind.__name__
    expected = theirs.merge_and_unload().state_dict()
    found = kind.from_pretrained(made).state_dict()
    assert all(torch.allclose(found[each], expected[each], atol=1e-6) for each in expected)


def test_what_does_not_fit_is_refused_and_nothing_is_drawn(tmp_path: Path) -> None:
    base = tmp_path / "base"
    bert(base)
    model = t.BertForSequenceClassification.from_pretrained(base)
    good = tmp_path / "good"
    adapter(model, good, task_type="SEQ_CLS", target_modules=["query"])
    whole = load_file(good / "adapter_model.safetensors")
    first = sorted(whole)[0]
    renamed = {name.replace("layer.0", "layer.7"): each for name, each in whole.items()}
    missing = {name: each for name, each in whole.items() if name != first}
    other_shape = whole | {first: whole[first][:, :3].clone()}
    for place, (change, said) in enumerate([
        (renamed, "not those that its settings name"), (missing, "not those that its settings name"),
        (other_shape, "meet the base model"), ({"peft_type": "IA3"}, "no LoRA"),
        ({"init_lora_weights": "pissa"}, "changes the base model's own weights"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"), ({"r": "many"}, "cannot be read"),
        ({"auto_mapping": {"base_model_class": "os"}, "task_type": None}, None),
    ]):  # fmt: skip
        bad, made = tmp_path / f"bad-{place}", tmp_path / f"made-{place}"
        shutil.copytree(good, bad)
        made.mkdir()
        if any("lora" in name for name in change if isinstance(change[name], torch.Tensor)):
            save_file(change, bad / "adapter_model.safetensors")
        else:
            settings = json.loads((bad / "adapter_config.json").read_text())
            (bad / "adapter_config.json").write_text(json.dumps(settings | change))
        if said is None:  # a class that transformers does not list is not looked up; the base model's own is taken
            assert adapter_merge.merge(base, bad, made, "x").architecture == "BertForSequenceClassification"
            continue
        with pytest.raises(SpeciateError, match=said) as refused:
            adapter_merge.merge(base, bad, made, "x")
        assert refused.value.code is Code.INVALID


def test_a_base_model_whose_head_nobody_has_is_refused(tmp_path: Path) -> None:
    base, changes, made = tmp_path / "base", tmp_path / "changes", tmp_path / "made"
    bert(base, "BertModel")
    adapter(t.BertForSequenceClassification.from_pretrained(base), changes, task_type="SEQ_CLS",
            target_modules=["query"])  # fmt: skip
    weights = load_file(changes / "adapter_model.safetensors")
    save_file({name: each for name, each in weights.items() if "classifier" not in name},
              changes / "adapter_model.safetensors")  # fmt: skip
    made.mkdir()
    with pytest.raises(SpeciateError, match="lacks classifier"):
        adapter_merge.merge(base, changes, made, "x")


def world(tmp_path: Path, base_license: str, license: str) -> tuple[Path, Path]:  # noqa: A002 - as cards call it
    base, changes = tmp_path / "base", tmp_path / "changes"
    bert(base)
    adapter(t.BertForSequenceClassification.from_pretrained(base), changes, task_type="SEQ_CLS",
            target_modules=LINEAR)  # fmt: skip
    for folder, name in ((base, base_license), (changes, license)):
        (folder / "README.md").write_text(f"---\nlicense: {name}\n---\n")
    return base, changes


@pytest.mark.parametrize(
    ("of_base", "of_adapter", "whole"),
    [("apache-2.0", "mit", "MIT"), ("gpl-3.0", "mit", "GPL-3.0-only"), ("mit", "cc-by-nc-4.0", "CC-BY-NC-4.0")],
)
def test_the_stricter_licence_of_both_counts(
    workspace: Workspace, tmp_path: Path, of_base: str, of_adapter: str, whole: str
) -> None:
    base, changes = world(tmp_path, of_base, of_adapter)
    run_job(workspace, FetchSpec(name="merged", source=f"path:{changes}", base_model=f"path:{base}"))
    card = registry.resolve(workspace.database, workspace.folders, "merged").card
    assert card.license in (whole, "Apache-2.0" if whole == "MIT" else whole)
    assert (card.base_model, card.recipe["adapter_of"]) == (f"path:{base}", f"path:{base}")
    assert card.task == "text-classification"


def test_an_adapter_alone_is_refused_with_the_call_that_merges_it(workspace: Workspace, tmp_path: Path) -> None:
    base, changes = world(tmp_path, "mit", "mit")
    with pytest.raises(SpeciateError, match="is an adapter of PEFT") as refused:
        folder_id(changes)
    (then,) = refused.value.next
    assert (then.tool, then.arguments["source"]) == ("register_model", f"path:{changes}")
    from speciate.models import fetch

    with pytest.raises(SpeciateError, match="does not name its base model as org/name"):
        fetch.plan(FetchSpec(name="merged", source=f"path:{changes}"), workspace)
    with pytest.raises(SpeciateError, match="is no adapter of PEFT"):
        fetch.plan(FetchSpec(name="merged", source=f"path:{base}", base_model=f"path:{base}"), workspace)


def test_a_merged_model_is_trained_further_with_its_own_head(workspace: Workspace, tmp_path: Path) -> None:
    base, changes = world(tmp_path, "mit", "mit")
    given = FetchSpec(name="base", source=f"path:{base}")
    run_job(workspace, given)
    shutil.rmtree(base)
    shutil.rmtree(workspace.folders.runs / "job-f.1")
    table = {"negative": "bad", "positive": "good"}
    run_job(workspace, FetchSpec(name="merged", source=f"path:{changes}", base_model="base", labels=table))
    words = doubles.WORDS.split()
    texts = [f"{'good' if place // 4 % 2 else 'awful'} {words[place % len(words)]}" for place in range(24)]
    labels = ["good" if place // 4 % 2 else "bad" for place in range(24)]
    make_dataset(workspace, "letters", "text", {"text": texts}, labels=labels, splits=thirds(24), inputs=["text"])
    define(workspace, "triage", "text-classification", metric="accuracy")
    made = train_now(workspace, dataset="letters", name="sorter", use_case="triage", method="lora",
                     base_model="merged", hyperparameters={"num_train_epochs": 2, "learning_rate": [1e-3]})  # fmt: skip
    assert made["report"]["published_head"]["kept"] == "published"
    assert set(registry.resolve(workspace.database, workspace.folders, made["model"]).card.labels) == {"bad", "good"}
