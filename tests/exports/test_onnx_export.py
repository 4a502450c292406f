"""A network that another engine computes: the same preprocessing and head, and a file that is complete in itself."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.exports import exportable, onnx_export, quantization, transformers_folder
from speciate.exports.onnx_export import TracedNetwork, to_onnx
from speciate.models import encoders, model_folder, sealed
from speciate.models.backbones import architectures, exported
from speciate.models.backbones.exported import ExportedBackbone, ExportSettings
from speciate.models.estimators import Linear
from speciate.models.model_card import ModelCard
from speciate.tasks import network_predictor, predictor
from speciate.tasks.families.classification import Classification
from speciate.tasks.network_predictor import NetworkPredictor
from speciate.tasks.predictor import TrainedPredictor
from speciate.tasks.representations import Embeddings

pytest.importorskip("torch")
for _library in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):  # not imported: how is a test of its own
    if importlib.util.find_spec(_library) is None:
        pytest.skip(f"{_library} is not installed", allow_module_level=True)

CHANCE = np.random.default_rng(3)
SERIES = [CHANCE.normal(size=(2, 40)).astype(np.float32) for _ in range(12)]
EXAMPLES = [Example(str(place), each, None, "", "test", {}) for place, each in enumerate(SERIES)]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.manual_seed(1)
    backbone = architectures.build("new:mlp", SERIES, 0)
    task_head = Classification(labels=("a", "b"))
    folder = tmp_path_factory.mktemp("parent") / "model"
    NetworkPredictor("time-series-classification", task_head, backbone, task_head.head(backbone.width)).save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TracedNetwork]:
    file = tmp_path_factory.mktemp("whole") / "whole.onnx"
    source = exportable.exportable_network(predictor.load(parent))
    return file, to_onnx(source.backbone, source.items(EXAMPLES), file)


def export(parent: Path, whole: tuple[Path, TracedNetwork], tmp_path: Path, form: Any, quantize: Any) -> Path:
    source = exportable.exportable_network(predictor.load(parent))
    items = source.items(EXAMPLES)
    file, traced = whole
    feeds = [
        {name: source.backbone.collate([item])[name].numpy() for name in traced.inputs} for item in items
    ]  # fmt: skip
    files = [tmp_path / name for name in exported.FILES[form]]
    if form == "openvino":
        quantization.to_openvino(file, files[0], feeds, int8=quantize == "int8")
    elif quantize == "int8":
        quantization.to_int8(file, files[0], feeds)
    else:
        files[0].write_bytes(file.read_bytes())
    settings = ExportSettings(
        format=form, quantize=quantize, inputs=traced.inputs, grid=traced.grid, parameters=source.parameters
    )  # fmt: skip
    exportable.write_export(source, parent, settings, files, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("form", "quantize", "near"),
    [
        ("onnx", "none", 1e-5),
        ("openvino", "int8", 0.1),
        *(
            pytest.param(*more, marks=pytest.mark.slow(reason="each form and each precision is in the two before"))
            for more in (("onnx", "int8", 0.1), ("openvino", "none", 1e-5))
        ),
    ],
)
def test_an_export_answers_like_its_parent_with_the_same_head(
    parent: Path, whole: tuple[Path, TracedNetwork], tmp_path: Path, form: str, quantize: str, near: float
) -> None:
    folder = export(parent, whole, tmp_path, form, quantize)
    assert not (folder / model_folder.WEIGHTS).exists()
    assert model_folder.is_export(folder)
    mine, theirs = predictor.load(folder), predictor.load(parent)
    assert isinstance(mine, NetworkPredictor)
    assert isinstance(mine.backbone, ExportedBackbone)
    ours, parents = (np.stack(exportable.scores(each, EXAMPLES)) for each in (mine, theirs))
    np.testing.assert_allclose(ours, parents, atol=near)
    assert (np.abs(ours - parents).max() > 1e-6) == (quantize == "int8"), "8 bits round, float32 does not"
    assert mine.predict(EXAMPLES[:1])[0].output == theirs.predict(EXAMPLES[:1])[0].output
    assert mine.labels == theirs.labels


def test_a_probe_over_an_exported_encoder_answers_like_its_parent_and_has_its_own_encoder_id(
    parent: Path, whole: tuple[Path, TracedNetwork], tmp_path: Path
) -> None:
    """Under its parent's id the feature cache would give it its parent's vectors."""
    encoder = encoders.load_encoder("own@v1", folder=parent)
    weights = np.random.default_rng(5).normal(size=(2, encoder.width))
    probe = TrainedPredictor(
        "time-series-classification", Embeddings("own@v1", encoder), Linear(weights, np.zeros(2)),
        Classification(labels=("a", "b")),
    )  # fmt: skip
    probe.save(tmp_path / "probe")
    source = exportable.exportable_network(predictor.load(tmp_path / "probe"))
    file, traced = tmp_path / "backbone.onnx", whole[1]
    file.write_bytes(whole[0].read_bytes())  # the network under the probe is its parent's
    settings = ExportSettings(format="onnx", inputs=traced.inputs, parameters=source.parameters)
    exportable.write_export(source, tmp_path / "probe", settings, [file], tmp_path / "model")
    mine = predictor.load(tmp_path / "model")
    assert isinstance(mine, TrainedPredictor)
    assert isinstance(mine.representation, Embeddings)
    np.testing.assert_allclose(
        np.stack(exportable.scores(mine, EXAMPLES)), np.stack(exportable.scores(probe, EXAMPLES)), atol=1e-5
    )
    assert "-export-" in mine.representation.encoder.id != encoder.id
    assert mine.representation.encoder.parameters == source.parameters
    assert mine.parameters == probe.parameters
    assert [each.output for each in mine.predict(EXAMPLES)] == [each.output for each in probe.predict(EXAMPLES)]


@pytest.mark.slow  # eight seconds
def test_an_export_computes_one_batch_at_a_time_whatever_the_threads(tmp_path: Path) -> None:
    """OpenVINO refuses a batch while it computes another one."""
    texts = [" ".join(f"word{place * each % 50}" for each in range(1 + place % 40)) for place in range(100)]
    examples = [Example(str(place), each, None, "", "test", {}) for place, each in enumerate(texts[:20])]
    backbone, head = architectures.build("new:bert", texts, 0), Classification(labels=("a", "b"))
    NetworkPredictor("text-classification", head, backbone, head.head(backbone.width)).save(tmp_path / "parent")
    source = exportable.exportable_network(predictor.load(tmp_path / "parent"))
    items, files = source.items(examples), [tmp_path / name for name in exported.FILES["openvino"]]
    traced = to_onnx(source.backbone, items, tmp_path / "network.onnx")
    feeds = [{name: source.backbone.collate([item])[name].numpy() for name in traced.inputs} for item in items[:2]]
    quantization.to_openvino(tmp_path / "network.onnx", files[0], feeds, int8=False)
    settings = ExportSettings(
        format="openvino", inputs=traced.inputs, grid=traced.grid, parameters=source.parameters
    )  # fmt: skip
    exportable.write_export(source, tmp_path / "parent", settings, files, tmp_path / "model")

    def embedded(threads: int) -> Any:
        encoder = encoders.kept_encoder("own@v1", "own-export", "float32", tmp_path / "model", threads)
        vectors = np.zeros((len(texts), encoder.width), np.float32)
        for places, batch in encoder.embed(texts):
            vectors[places] = batch
        return vectors

    np.testing.assert_array_equal(embedded(2), embedded(1))


def test_an_export_is_not_trained_on_and_is_exported_again_as_it_was_sealed(
    parent: Path, whole: tuple[Path, TracedNetwork], tmp_path: Path
) -> None:
    folder = export(parent, whole, tmp_path, "onnx", "none")
    for wrong in (
        lambda: architectures.build("m-onnx@v1", [], 0, folder),
        lambda: encoders.load_encoder("m-onnx@v1", folder=folder),
    ):
        with pytest.raises(SpeciateError, match="'m-onnx@v1' is an export") as caught:
            wrong()
        assert caught.value.code is Code.INVALID
    with pytest.raises(SpeciateError, match=r"m-onnx@v1 cannot be exported .* it is an export itself"):
        exportable.check_exportable(folder, "m-onnx@v1")
    assert transformers_folder.form_of(folder) == "sealed"


def test_somebody_elses_export_is_not_registered(
    parent: Path, whole: tuple[Path, TracedNetwork], tmp_path: Path
) -> None:
    """The engine would read foreign bytes; their safetensors can be registered, and exported here."""
    folder = export(parent, whole, tmp_path, "onnx", "none")
    (folder / sealed.CARD).write_text(json.dumps(ModelCard(name="x", method="export").model_dump()))
    with pytest.raises(SpeciateError, match=r"lists 'backbone.onnx'") as caught:
        sealed.check_export(folder)
    assert caught.value.code is Code.REFUSED


def test_a_changed_byte_of_the_network_is_not_loaded(
    parent: Path, whole: tuple[Path, TracedNetwork], tmp_path: Path
) -> None:  # fmt: skip
    folder = export(parent, whole, tmp_path, "onnx", "none")
    data = bytearray((folder / "backbone.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "backbone.onnx").write_bytes(data)
    with pytest.raises(SpeciateError, match="sha256 has changed"):
        predictor.load(folder)


def test_a_file_that_names_other_files_or_operators_is_refused(
    whole: tuple[Path, TracedNetwork], tmp_path: Path
) -> None:
    import onnx

    onnx_export.check_contained(whole[0])
    elsewhere = onnx.load(whole[0])
    tensor = elsewhere.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    strange = onnx.load(whole[0])
    strange.graph.node[0].domain = "com.example"
    for name, model, message in (("a", elsewhere, "'../../etc/passwd'"), ("b", strange, "of 'com.example'")):
        (tmp_path / name).write_bytes(model.SerializeToString())  # onnx would not write such a file itself
        with pytest.raises(SpeciateError, match=message):
            onnx_export.check_contained(tmp_path / name)
    (tmp_path / "c").write_bytes(b"no model")
    with pytest.raises(SpeciateError, match="cannot be read"):
        onnx_export.check_contained(tmp_path / "c")


def test_a_series_of_another_length_is_refused_where_the_network_fixed_it(whole: tuple[Path, TracedNetwork]) -> None:
    settings = ExportSettings(format="onnx", inputs={"values": (None, 2, 40)}, parameters=1)
    inner = architectures.build("new:mlp", SERIES, 0)
    made = ExportedBackbone(inner, settings, inner.width, exported.open_network("onnx", whole[0], 1))
    batch = inner.collate(inner.prepare(SERIES[:2]))
    made.states(batch)
    with pytest.raises(SpeciateError, match="this example makes"):
        made.states({"values": batch["values"][:, :, :20]})


def test_without_the_engine_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpeciateError, match=r"speciate\[exports\]") as caught:
        exported.open_network("openvino", tmp_path / "x.xml", 1)
    assert caught.value.code is Code.MISSING_EXTRA


def test_no_library_reports_its_use() -> None:
    exported.without_telemetry()
    import nncf
    from openvino.tools.ovc import telemetry_utils

    assert nncf.__version__
    assert sys.modules["openvino_telemetry"] is None
    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")


def test_the_head_is_the_parents_to_the_bit(parent: Path, whole: tuple[Path, TracedNetwork], tmp_path: Path) -> None:
    folder = export(parent, whole, tmp_path, "onnx", "int8")
    assert (folder / network_predictor.HEAD).read_bytes() == (parent / network_predictor.HEAD).read_bytes()
