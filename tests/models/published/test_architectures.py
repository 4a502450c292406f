"""What a config.json says of a published head, without a model library; and refusals that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.models.published.architectures import check_head, find_head

BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "id2label": {"0": "no", "1": "yes"}}


def folder(place: Path, config: dict[str, Any], *files: str) -> Path:
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(config))
    for name in files or ("tokenizer.json",):
        (place / name).write_text("{}")
    return place


@pytest.mark.parametrize(
    ("architecture", "model_type", "task", "modality"),
    [
        ("BertForSequenceClassification", "bert", "text-classification", "text"),
        ("Qwen3ForSequenceClassification", "qwen3", "text-classification", "text"),
        ("Wav2Vec2ForSequenceClassification", "wav2vec2", "audio-classification", "audio"),
        ("EsmForSequenceClassification", "esm", "protein-classification", "protein"),
        ("EsmForTokenClassification", "esm", "token-classification", "protein"),
        ("DeiTForImageClassificationWithTeacher", "deit", "image-classification", "image"),
        ("DetrForObjectDetection", "detr", "object-detection", "image"),
        ("MaskFormerForInstanceSegmentation", "maskformer", "image-segmentation", "image"),
        ("WhisperForConditionalGeneration", "whisper", "automatic-speech-recognition", "audio"),
        ("WhisperForAudioClassification", "whisper", "audio-classification", "audio"),
        ("CLIPModel", "clip", "image-classification", "image"),
        ("T5ForConditionalGeneration", "t5", "text-generation", "text"),
        ("PatchTSTForPrediction", "patchtst", "time-series-forecasting", "time-series"),
    ],
)
def test_a_head_is_told_by_its_type_and_its_architecture(
    tmp_path: Path, architecture: str, model_type: str, task: str, modality: str
) -> None:
    head = find_head(folder(tmp_path / "a", {"architectures": [architecture], "model_type": model_type}))
    assert head is not None
    assert (head.task, head.modality, head.architecture) == (task, modality, architecture)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "bert"},
        {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
        {"architectures": ["BertForSequenceClassification"], "model_type": "wav2vec2"},
        {"architectures": ["LayoutLMv3ForTokenClassification"], "model_type": "layoutlmv3"},
        {"architectures": [7], "model_type": "bert"},
        {"architectures": "BertForSequenceClassification", "model_type": "bert"},
    ],
)
def test_other_heads_are_none_and_the_refusal_says_how_to_use_their_network(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    place = folder(tmp_path / "a", config)
    assert find_head(place) is None
    with pytest.raises(SpeciateError, match=r"train_model\(method='probe'") as refused:
        check_head(place, "hf:org/name")
    assert refused.value.code is Code.INVALID
    assert refused.value.next


def test_labels_stand_in_the_order_of_the_outputs(tmp_path: Path) -> None:
    labels = {str(place): f"name {place}" for place in reversed(range(12))}
    head = find_head(folder(tmp_path / "a", BERT | {"id2label": labels}))
    assert head is not None
    assert head.labels == tuple(f"name {place}" for place in range(12))


def test_the_problem_type_decides_between_one_label_several_and_a_number(tmp_path: Path) -> None:
    several = find_head(folder(tmp_path / "a", BERT | {"problem_type": "multi_label_classification"}))
    number = find_head(folder(tmp_path / "b", BERT | {"id2label": {"0": "LABEL_0"}}))
    assert several is not None
    assert (several.task, several.multi_label) == ("text-multi-label-classification", True)
    assert number is not None
    assert (number.task, number.labels) == ("text-regression", ())


def test_a_config_of_timm_is_a_classifier_whose_labels_its_library_may_know(tmp_path: Path) -> None:
    config = {"architecture": "vit_tiny", "pretrained_cfg": {}, "num_classes": 3}
    unknown = find_head(folder(tmp_path / "a", config))
    known = find_head(folder(tmp_path / "b", config | {"label_names": ["a", "b", "c"]}))
    assert unknown is not None
    assert known is not None
    assert (unknown.architecture, unknown.labels) == ("TimmWrapperForImageClassification", None)
    assert known.labels == ("a", "b", "c")
    assert check_head(tmp_path / "b", "x") == known  # its preprocessing is in config.json


def test_a_missing_processor_is_refused_by_the_names_of_its_files(tmp_path: Path) -> None:
    text = folder(tmp_path / "a", BERT, "README.md")
    with pytest.raises(SpeciateError, match=r"no processor: tokenizer\.json or vocab\.txt is missing") as refused:
        check_head(text, "hf:org/name")
    assert refused.value.next[0].tool == "search_models"
    image = folder(
        tmp_path / "b", {"architectures": ["ViTForImageClassification"], "model_type": "vit"}, "tokenizer.json"
    )
    with pytest.raises(SpeciateError, match=r"preprocessor_config\.json"):
        check_head(image, "hf:org/name")
    words = folder(tmp_path / "c", {"architectures": ["CLIPModel"], "model_type": "clip"}, "preprocessor_config.json")
    with pytest.raises(SpeciateError, match=r"tokenizer\.json"):
        check_head(words, "hf:org/name")


def test_a_head_of_21000_labels_is_refused_with_another_way_to_use_it(tmp_path: Path) -> None:
    labels = {str(place): f"n{place:08d} thing" for place in range(21_000)}
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "id2label": labels}
    with pytest.raises(SpeciateError, match=r"21,000 labels, more than 5,000.*method='probe'"):
        check_head(folder(tmp_path / "a", config, "preprocessor_config.json"), "hf:org/name")
