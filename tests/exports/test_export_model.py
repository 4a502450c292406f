"""The folder of an exported model: its form, its front matter, and the way back. test_elsewhere.py asks it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.exports import export_model, transformers_folder
from speciate.exports.export_model import ExportModelSpec
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, State
from speciate.jobs.run import Run
from speciate.models import fetch, model_folder, registry, sealed
from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Backbone
from speciate.models.endpoints import Endpoint
from speciate.models.fetch import FetchSpec
from speciate.models.model_card import ModelCard
from speciate.refs import JobId
from speciate.tasks import network_predictor, predictor
from speciate.tasks.families.classification import Classification
from speciate.workspace.workspace import Workspace
from tests.models.backbones.folders import PROTEINS, TEXTS, protein_folder
from tests.training.world import make_dataset, thirds, train_now

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
LABELS = ("no", 'yes: "quoted"', "übrig")


def media_of(modality: str) -> list[Any]:
    chance = np.random.default_rng(4)
    return {
        "text": [*TEXTS, "an unseen word: zyzzyva"],
        "protein": list(PROTEINS),
        "image": [chance.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(4)],
    }[modality]


def registered(
    workspace: Workspace, tmp_path: Path, backbone: Backbone, task: str
) -> network_predictor.NetworkPredictor:
    import torch

    torch.manual_seed(1)
    task_head = Classification(labels=LABELS, temperature=1.7)
    made = network_predictor.NetworkPredictor(task, task_head, backbone, task_head.head(backbone.width))
    identity = made.save(tmp_path / "made")
    card = ModelCard(
        name="own", id=identity, task=task, modality=backbone.modality, method="full", labels=LABELS,
        parameters=made.parameters, license="Apache-2.0", base_model="hf:org/parent",
    )  # fmt: skip
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, tmp_path / "made"))
    return made


def exported(workspace: Workspace, path: Path, model: str = "own", attempt: int = 1) -> dict[str, Any]:
    folder = RunFolder(workspace.folders.runs / f"job-e.{attempt}")
    payload = export_model.plan(ExportModelSpec(model=model, path=path), workspace).payload_json()
    folder.create({"payload": payload, "job": "job-e", "workspace": str(workspace.folders.root)})
    return export_model.run(Run(folder))


def taken_back(workspace: Workspace, path: Path) -> str:
    spec = FetchSpec(name="back", source=f"path:{path}")
    folder = RunFolder(workspace.folders.runs / f"job-f.{len(list(workspace.folders.runs.iterdir())) + 1}")
    payload = fetch.plan(spec, workspace).payload_json()
    folder.create({"payload": payload, "job": "job-f", "workspace": str(workspace.folders.root)})
    (folder.outputs / "result.json").write_text(json.dumps(fetch.run(Run(folder))))
    collected = fetch.collect(folder)
    row = Job(id=JobId("job-f"), kind="fetch", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)
    return str(workspace.database.transact(lambda tx: fetch.commit(tx, row, collected))["model"])


def front_matter(folder: Path) -> list[str]:
    text = (folder / "README.md").read_text()
    assert text.startswith("---\n")
    return text.split("---\n")[1].splitlines()


def test_the_front_matter_names_licence_base_and_the_pipeline_that_answers(
    workspace: Workspace, tmp_path: Path
) -> None:
    registered(workspace, tmp_path, architectures.build("new:bert", media_of("text"), 0), "text-classification")
    result = exported(workspace, tmp_path / "out")
    assert (result["report"]["form"], result["path"]) == ("transformers", str(tmp_path / "out"))
    lines = front_matter(tmp_path / "out")
    assert {"library_name: transformers", 'license: "apache-2.0"', 'pipeline_tag: "text-classification"'} <= set(lines)
    assert 'base_model: "org/parent"' in lines


def test_a_network_without_a_head_leaves_as_an_encoder_without_a_pipeline(workspace: Workspace, tmp_path: Path) -> None:
    backbone = architectures.build("new:bert", media_of("text"), 0)
    folder = tmp_path / "made"
    folder.mkdir()
    model_folder.save(backbone, folder)
    card = ModelCard(name="own", id=sealed.seal(folder), method="full", modality="text", base_model="new:bert")
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, folder))
    assert exported(workspace, tmp_path / "out")["report"]["form"] == "transformers"
    assert not [line for line in front_matter(tmp_path / "out") if line.startswith("pipeline_tag")]
    (program,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    program = "import sys\nsys.modules['speciate'] = None\n" + program + "\nprint(pooled.tolist())"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    backbone.module.eval()
    ours = backbone.states(backbone.collate(backbone.prepare(["a text"]))).pooled.detach().numpy()
    np.testing.assert_allclose(json.loads(ran.stdout.splitlines()[-1]), ours, atol=1e-5)


def test_an_exported_network_comes_back_and_computes_the_same(workspace: Workspace, tmp_path: Path) -> None:
    made = registered(workspace, tmp_path, architectures.build("new:bert", media_of("text"), 0), "text-classification")
    exported(workspace, tmp_path / "out")
    ref = taken_back(workspace, tmp_path / "out")
    version = registry.resolve(workspace.database, workspace.folders, ref)
    assert (version.card.license, version.card.modality, version.card.task) == (
        "Apache-2.0", "text", "text-classification",
    )  # fmt: skip
    assert version.card.base_model == "hf:org/parent"
    back = architectures.build(ref, [], 0, version.path)
    made.backbone.module.eval()
    here, there = (
        each.states(each.collate(each.prepare(media_of("text")))).pooled.detach().numpy()
        for each in (made.backbone, back)
    )
    np.testing.assert_allclose(there, here, atol=1e-6)


def test_a_sealed_model_comes_back_with_its_facts_and_answers_alike(workspace: Workspace, tmp_path: Path) -> None:
    texts = [f"{'a fine film' if i % 4 < 2 else 'an awful bore'} {i}" for i in range(40)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(40)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(40), inputs=["text"])
    model = str(train_now(workspace, name="own", dataset="films", method="classical")["model"])
    out = tmp_path / "out"
    assert exported(workspace, out)["report"]["form"] == "sealed"
    assert (out / "model.py").is_file(), "beside the sealed files, and not taken back"
    assert not re.search(r"films|job-|" + re.escape(str(tmp_path)), (out / "model.json").read_text())
    made, back = (
        registry.resolve(workspace.database, workspace.folders, ref) for ref in (model, taken_back(workspace, out))
    )
    assert (back.ref, back.card.id) == ("back@v1", made.card.id)
    for field in ("task", "modality", "method", "labels", "inputs", "parameters"):
        assert getattr(back.card, field) == getattr(made.card, field)
    assert (back.card.dataset, back.card.recipe["source"]) == (None, f"path:{out}")
    examples = [Example(str(i), text, None, "", "test", {"text": text}) for i, text in enumerate(texts)]
    here, there = (predictor.load(each.path).predict(examples) for each in (made, back))
    assert here == there
    for name, data, message in (
        ("model.json", b"[]", "does not say what the model is for"),
        ("predictor.json", b"{}", "sha256 has changed"),
        ("predictor.json", b'{"representation": [{"base_model": "path:/etc"}]}', "needs 'path:/etc'"),
        ("estimator.safetensors", None, "'estimator.safetensors', which files.json lists, is gone"),
        ("files.json", b'{"../x.safetensors": "0", "y.safetensors": "0"}', "lists '../x.safetensors'"),
    ):
        before = (out / name).read_bytes()
        (out / name).write_bytes(data) if data else (out / name).unlink()
        with pytest.raises(SpeciateError, match=message):
            taken_back(workspace, out)
        (out / name).write_bytes(before)


def test_a_published_model_is_exported_unchanged_with_its_publishers_readme_beside_our_card(
    workspace: Workspace, tmp_path: Path
) -> None:
    theirs = protein_folder(tmp_path / "theirs")
    (theirs / "README.md").write_text("# Theirs\n")
    identity = sealed.seal(theirs)
    card = ModelCard(name="own", id=identity, modality="protein", method="published", recipe={"repository": "org/esm"})
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, theirs))
    result = exported(workspace, tmp_path / "out")
    assert result["report"]["form"] == "published"
    out = tmp_path / "out"
    assert (out / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert (out / "README.publisher.md").read_text() == "# Theirs\n"
    assert 'base_model: "org/esm"' in front_matter(out)
    assert not [line for line in front_matter(out) if line.startswith("license")], "what is not known is not said"


def test_a_model_without_a_transformers_class_is_exported_as_it_was_sealed_and_says_so(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "predictor.json").write_text('{"format": 1}')
    (folder / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    identity = sealed.seal(folder)
    card = ModelCard(name="own", id=identity, method="classical")
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, folder))
    result = exported(workspace, tmp_path / "out")
    assert result["report"]["form"] == "sealed"
    assert not [line for line in front_matter(tmp_path / "out") if line.startswith(("library_name", "pipeline_tag"))]
    assert "speciate, which alone loads them" in (tmp_path / "out" / "README.md").read_text()
    assert sealed.check(tmp_path / "out") == identity


def test_a_folder_with_a_changed_byte_is_not_exported(workspace: Workspace, tmp_path: Path) -> None:
    registered(workspace, tmp_path, architectures.build("new:esm", list(PROTEINS), 0), "protein-classification")
    path = registry.resolve(workspace.database, workspace.folders, "own").path / "backbone.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(SpeciateError, match="sha256 has changed"):
        exported(workspace, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_served_models_are_not_exported(workspace: Workspace, tmp_path: Path) -> None:
    registered(workspace, tmp_path, architectures.build("new:esm", list(PROTEINS), 0), "protein-classification")
    (tmp_path / "there").mkdir()
    with pytest.raises(SpeciateError, match="never overwrite") as caught:
        exported(workspace, tmp_path / "there")
    assert caught.value.code is Code.CONFLICT
    endpoint = Endpoint(base_url="https://llm.example/v1", model="big")
    card = ModelCard(name="served", id="endpoint-x", method="served", endpoint=endpoint)
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, None))
    with pytest.raises(SpeciateError, match="is served by"):
        exported(workspace, tmp_path / "out", "served")


def test_the_plan_names_the_form_of_the_folder(workspace: Workspace, tmp_path: Path) -> None:
    registered(workspace, tmp_path, architectures.build("new:vit", media_of("image"), 0), "image-classification")
    plan = export_model.plan(ExportModelSpec(model="own", path=tmp_path / "out"), workspace)
    assert plan.resolved["form"] == transformers_folder.form_of(tmp_path / "made") == "transformers"
