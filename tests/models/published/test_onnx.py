"""Published networks as ONNX files: by the publisher's own preprocessing or by a card, self-contained or refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import torch
from onnx import TensorProto, helper

from speciate.errors import Code, SpeciateError
from speciate.models import trust
from speciate.models.published import checked_copy
from speciate.models.published.architectures import check_head, find_head
from speciate.models.published.asking import ask
from speciate.models.published.network import is_trainable
from speciate.models.published.published_model import load_model
from tests.models.published import doubles


def graph(
    nodes: list[Any], output: tuple[str, list[Any]], *, weights: list[Any] | None = None, domain: str = ""
) -> Any:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])
    found = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])
    made = helper.make_graph(nodes, "network", [given], [found], weights or [])
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(made, opset_imports=imports)
    model.ir_version = 8
    return model


def colours() -> Any:
    """The mean of each channel: how red, green and blue an image is."""
    return graph([helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], ("y", ["b", 3]))


def reader() -> Any:
    """Each column's colour is a symbol."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2], keepdims=0),
        helper.make_node("Transpose", ["m"], ["y"], perm=[0, 2, 1]),
    ]
    return graph(nodes, ("y", ["b", "w", 3]))


def folder(place: Path, model: Any, card: dict[str, Any] | None = None) -> Path:
    place.mkdir(exist_ok=True)
    (place / "model.onnx").write_bytes(model.SerializeToString())
    if card is not None:
        (place / "onnx.json").write_text(json.dumps(card))
    return place


CLASSES = {
    "task": "image-classification", "input": "x", "output": "y", "labels": ["red", "green", "blue"], "size": [8, 8],
    "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
}  # fmt: skip


@pytest.mark.slow
def test_a_network_beside_its_config_answers_as_it_does_in_torch(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = doubles.write("vit", tmp_path / "vit")
        model = load_model(place, check_head(place, "vit"))
        before = ask(model, doubles.images())

        class Logits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model.module

            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = self.inner(pixel_values=pixels).logits
                return found

        torch.onnx.export(
            Logits(), (torch.zeros(2, 3, 32, 32),), str(place / "model.onnx"), input_names=["pixel_values"],
            output_names=["logits"], dynamic_axes={"pixel_values": {0: "b"}, "logits": {0: "b"}}, dynamo=False,
        )  # fmt: skip
    assert find_head(place).engine == "torch"  # type: ignore[union-attr]  # while its safetensors are there
    (place / "model.safetensors").unlink()
    head = check_head(place, "vit")
    assert head.engine == "onnx"
    assert not is_trainable(head, head.task, head.modality)
    copy = checked_copy.checked_copy(place, checked_copy.folder_id(place), tmp_path / "cache")
    for one, other in zip(before, ask(load_model(copy, head), doubles.images()), strict=True):
        assert one.output == other.output
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_card_says_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    place = folder(tmp_path / "a", colours(), CLASSES)
    assert trust.choose(path.name for path in place.iterdir()).files == ("model.onnx", "onnx.json")
    head = check_head(place, "path:a")
    assert (head.task, head.labels, head.engine) == ("image-classification", ("red", "green", "blue"), "onnx")
    images = [np.full((6, 9, 3), colour, np.uint8) for colour in doubles.COLOURS.values()]
    answers = ask(load_model(place, head), images)
    assert [answer.output for answer in answers] == ["red", "green", "blue"]
    scores = np.array(list(doubles.COLOURS.values())) / 255 / 0.25 - 2
    for answer, row in zip(answers, scores, strict=True):
        shares = np.exp(row) / np.exp(row).sum()
        assert list((answer.probabilities or {}).values()) == pytest.approx(shares.tolist(), abs=1e-5)


def test_a_line_is_read_by_the_characters_of_a_card_or_of_the_file(tmp_path: Path) -> None:
    line = np.zeros((4, 12, 3), np.uint8)
    for column, symbol in enumerate([1, 1, 0, 1, 2, 2, 0, 0, 2, 1, 1, 1]):
        line[:, column, symbol] = 255
    card = {"task": "image-text-to-text", "input": "x", "output": "y", "size": [4, 1], "characters": ["a", "b"]}
    place = folder(tmp_path / "a", reader(), card)
    assert ask(load_model(place, check_head(place, "a")), [line])[0].output == "aabba"
    named = reader()
    named.metadata_props.add(key="character", value="c")
    place = folder(tmp_path / "b", named, card | {"characters": "metadata:character"})
    assert ask(load_model(place, check_head(place, "b")), [line])[0].output == "cc c"


def test_weights_elsewhere_and_operators_of_its_own_are_refused(tmp_path: Path) -> None:
    own = graph([helper.make_node("Run", ["x"], ["y"], domain="evil")], ("y", ["b", 3]), domain="evil")
    place = folder(tmp_path / "a", own, CLASSES)
    with pytest.raises(SpeciateError, match="operators of 'evil', which are code of its own") as refused:
        load_model(place, check_head(place, "a"))
    assert refused.value.code is Code.REFUSED
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../../secret")
    away = graph([helper.make_node("Mul", ["x", "w"], ["y"])], ("y", ["b", 3, "h", "w"]), weights=[weight])
    place = folder(tmp_path / "b", away, CLASSES)
    with pytest.raises(SpeciateError, match="its weights lie in other files"):
        load_model(place, check_head(place, "b"))
    (place / "model.onnx").write_bytes(b"no network")
    with pytest.raises(SpeciateError, match="no ONNX network that can be read"):
        load_model(place, check_head(place, "b"))
    (place / "onnx.json").write_text('{"task": "text-to-image"}')
    with pytest.raises(SpeciateError, match="is no card of an ONNX network"):
        check_head(place, "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "weights.Q4_K_M.gguf"], "Its weights are GGUF"),
        (["config.json", "decoder_model.onnx"], "none of them is called 'model.onnx'"),
        (["adapter_config.json", "adapter_model.safetensors"], "is an adapter of PEFT"),
        (["config.json", "pytorch_model.bin"], "its weights are pickles"),
    ],
)
def test_other_forms_of_weights_are_told_by_name_with_what_to_do(names: list[str], message: str) -> None:
    with pytest.raises(SpeciateError, match=message) as refused:
        trust.choose(names)
    assert refused.value.code is Code.REFUSED
    assert refused.value.recovery
