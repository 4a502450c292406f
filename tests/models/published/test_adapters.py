"""Each family of published models answers as transformers' own pipeline does, or as its forward pass says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.modalities.segmentation_masks import from_runs
from speciate.models import trust
from speciate.models.published.architectures import check_head
from speciate.models.published.asking import ask, usual_templates
from speciate.models.published.published_model import LabelPrompts, PublishedModel, RawAnswer, load_model
from tests.models.published.doubles import COLOURS, FAMILIES, write

CLOSE = 1e-5
BY_NAME = [
    pytest.param(name, id=name, marks=[] if family.quick else pytest.mark.slow) for name, family in FAMILIES.items()
]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


def loaded(
    name: str, tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]
) -> tuple[Path, PublishedModel]:
    if name not in folders:
        folders[name] = write(name, tmp_path_factory.mktemp("published") / "model")
    folder = folders[name]
    trust.check(folder)
    return folder, load_model(folder, check_head(folder, name))


def pipeline(task: str, folder: Path, **options: Any) -> Any:
    from transformers import pipeline as make

    return make(task, model=str(folder), device="cpu", **options)


def pil(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_family_is_recognized_and_answers_as_its_library_does(
    name: str, tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]
) -> None:
    folder, model = loaded(name, tmp_path_factory, folders)
    family = FAMILIES[name]
    assert (model.head.adapter, model.head.task) == (family.adapter, family.task)
    media = family.media()
    prompts = LabelPrompts(tuple(COLOURS), usual_templates(model.head.modality)) if model.head.zero_shot else None
    answers = ask(model, media, prompts)
    assert len(answers) == len(media)
    COMPARE[family.adapter](folder, model, media, answers)


def compare_probabilities(expected: list[list[dict[str, Any]]], answers: list[RawAnswer]) -> None:
    first = [next(iter((answer.probabilities or {}).values())) for answer in answers]
    assert max(first) - min(first) > 0.01, "weights that answer alike would not tell a wrong adapter"
    for theirs, mine in zip(expected, answers, strict=True):
        assert mine.probabilities is not None
        shares = {each["label"]: each["score"] for each in theirs}
        assert shares.keys() == mine.probabilities.keys()
        assert max(abs(shares[label] - share) for label, share in mine.probabilities.items()) <= CLOSE
        if isinstance(mine.output, str):
            assert mine.output == theirs[0]["label"]
        else:
            assert mine.output == sorted(each["label"] for each in theirs if each["score"] > 0.5)


def texts(folder: Path, model: PublishedModel, media: list[str], answers: list[RawAnswer]) -> None:
    compare_probabilities(pipeline("text-classification", folder, top_k=None)(media), answers)


def tags(folder: Path, model: PublishedModel, media: list[list[str]], answers: list[RawAnswer]) -> None:
    theirs = pipeline("token-classification", folder, ignore_labels=[])([" ".join(words) for words in media])
    assert len({tag for answer in answers for tag in answer.output}) > 1
    for words, mine, found in zip(media, answers, theirs, strict=True):
        assert [each["word"] for each in found] == words
        assert mine.output == [each["entity"] for each in found]


def images(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline("image-classification", folder, image_processor=model.processor)
    compare_probabilities([asked(pil(image), top_k=10) for image in media], answers)


def boxes(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline("object-detection", folder)
    for image, mine in zip(media, answers, strict=True):
        theirs = sorted(asked(pil(image), threshold=0.05), key=lambda each: -each["score"])
        assert theirs
        assert [each["label"] for each in mine.output] == [each["label"] for each in theirs]
        for own, other in zip(mine.output, theirs, strict=True):
            assert own["score"] == pytest.approx(other["score"], abs=CLOSE)
            left, top, width, height = own["box"]
            corners = [left, top, left + width, top + height]  # theirs are whole pixels
            assert [int(each) for each in corners] == pytest.approx(list(other["box"].values()), abs=1)


def maps(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline("image-segmentation", folder)
    for image, mine in zip(media, answers, strict=True):
        pixels = from_runs(mine.output["rle"], mine.output["size"])
        assert pixels.shape == image.shape[:2]
        for region in asked(pil(image), subtask="semantic"):
            if region["label"] == "background":
                continue
            place = mine.output["labels"].index(region["label"]) + 1
            assert np.array_equal(pixels == place, np.asarray(region["mask"]) > 0)


def sounds(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline("audio-classification", folder)
    compare_probabilities([asked(sound.copy(), top_k=10) for sound in media], answers)


def speech(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline(
        "automatic-speech-recognition", folder, feature_extractor=model.processor, tokenizer=model.tokenizer
    )
    theirs = [" ".join(asked(sound.copy())["text"].split()) for sound in media]
    assert [answer.output for answer in answers] == theirs
    assert len(set(theirs)) > 1


def generated_speech(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    network: Any = model.module
    for sound, mine in zip(media, answers, strict=True):
        inputs = model.processor([sound], sampling_rate=16_000, return_tensors="pt")
        made = network.generate(**inputs, do_sample=False, max_new_tokens=24)
        assert mine.output == " ".join(model.tokenizer.batch_decode(made, skip_special_tokens=True)[0].split())
    assert all(answer.output for answer in answers)


def words_and_images(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline(
        "zero-shot-image-classification", folder, image_processor=model.processor, tokenizer=model.tokenizer
    )
    for image, mine in zip(media, answers, strict=True):
        theirs = asked(pil(image), candidate_labels=list(COLOURS), hypothesis_template="a photo of a {}")
        assert mine.output == theirs[0]["label"]
        scores = np.array([each["score"] for each in theirs])
        if "siglip" in model.head.model_type:  # each sentence by itself there: a share of all here
            logits = np.log(scores) - np.log1p(-scores)
            scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        shares = dict(zip([each["label"] for each in theirs], scores, strict=True))
        assert mine.probabilities == pytest.approx(shares, abs=CLOSE)


def videos(folder: Path, model: PublishedModel, media: list[dict[str, Any]], answers: list[RawAnswer]) -> None:
    for clip, mine in zip(media, answers, strict=True):
        frames = [pil(clip["frames"][place]) for place in (0, 2, 3, 5)]  # 4 of 6, evenly
        with torch.inference_mode():
            logits = model.module(**model.processor(frames, return_tensors="pt")).logits[0]
        expected = dict(zip(model.labels, logits.softmax(0).tolist(), strict=True))
        assert mine.probabilities == pytest.approx(expected, abs=CLOSE)


def written(folder: Path, model: PublishedModel, media: list[str], answers: list[RawAnswer]) -> None:
    network: Any = model.module
    for text, mine in zip(media, answers, strict=True):
        inputs = model.processor(text, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        made = network.generate(**inputs, do_sample=False)
        assert mine.output == model.processor.batch_decode(made, skip_special_tokens=True)[0].strip()


def words_and_sounds(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    """The double reads another rate than sounds are decoded at."""
    from scipy.signal import resample_poly

    asked = pipeline(
        "zero-shot-audio-classification", folder, feature_extractor=model.processor, tokenizer=model.tokenizer
    )
    for sound, mine in zip(media, answers, strict=True):
        finer = resample_poly(sound, 2, 1).astype(np.float32)
        theirs = asked(finer, candidate_labels=list(COLOURS), hypothesis_template="This is a sound of {}.")
        assert mine.output == theirs[0]["label"]
        assert mine.probabilities == pytest.approx({each["label"]: each["score"] for each in theirs}, abs=CLOSE)
    assert len({answer.output for answer in answers}) > 1


def read(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    network: Any = model.module
    for image, mine in zip(media, answers, strict=True):
        inputs = model.processor(images=pil(image), return_tensors="pt")
        made = network.generate(**inputs, do_sample=False)
        assert mine.output == " ".join(model.tokenizer.batch_decode(made, skip_special_tokens=True)[0].split())
    assert len({answer.output for answer in answers}) > 1


def marked(folder: Path, model: PublishedModel, media: list[str], answers: list[RawAnswer]) -> None:
    """Each run of a short passage tried out; of a long one only that its answer stands in it."""
    for text, mine in zip(media, answers, strict=True):
        question, passage = text.split("\n")
        assert mine.output
        assert mine.output in passage
        words = passage.split()
        if len(words) > 30:
            continue
        made = model.processor(question, passage, return_tensors="pt")
        with torch.inference_mode():
            out = model.module(**made)
        start = next(place for place, side in enumerate(made.sequence_ids(0)) if side == 1)
        sums = {
            (first, last): float(out.start_logits[0, start + first] + out.end_logits[0, start + last])
            for first in range(len(words)) for last in range(first, len(words))
        }  # fmt: skip
        first, last = max(sums, key=lambda run: sums[run])
        assert mine.output.split() == words[first : last + 1]
    with pytest.raises(ValueError, match="one line"):
        ask(model, ["who?"])
    assert len({answer.output for answer in answers}) > 3


def steps(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    for series, mine in zip(media, answers, strict=True):
        past = torch.tensor(series[:, -32:].T[None], dtype=torch.float32)
        with torch.inference_mode():
            if model.head.model_type == "timesfm":
                whole = torch.tensor(series[0], dtype=torch.float32)
                expected = model.module(past_values=[whole], freq=[0]).mean_predictions
            else:
                expected = model.module(past_values=past).prediction_outputs[0].T
        assert np.allclose(mine.output, expected.numpy(), atol=CLOSE)
        assert np.shape(mine.output) == (1, 8)


COMPARE = {
    "text-classification": texts, "token-classification": tags, "image-classification": images,
    "object-detection": boxes, "image-segmentation": maps, "audio-classification": sounds, "ctc": speech,
    "speech": generated_speech, "zero-shot-image": words_and_images,
    "zero-shot-audio": words_and_sounds, "image-to-text": read, "question-answering": marked,
    "video-classification": videos,
    "seq2seq": written, "forecast": steps,
}  # fmt: skip


@pytest.mark.slow
def test_labels_are_asked_by_entailment_as_the_zero_shot_pipeline_does(tmp_path: Path) -> None:
    from tests.models.published.doubles import bert_entailment
    from tests.models.published.doubles import texts as sentences

    torch.manual_seed(0)
    bert_entailment(tmp_path / "nli")
    model = load_model(tmp_path / "nli", check_head(tmp_path / "nli", "nli"))
    labels = ("good", "bad", "red")
    answers = ask(model, sentences(), LabelPrompts(labels, usual_templates("text")))
    asked = pipeline("zero-shot-classification", tmp_path / "nli")
    for text, mine in zip(sentences(), answers, strict=True):
        theirs = asked(text, candidate_labels=list(labels))
        assert mine.output == theirs["labels"][0]
        assert mine.probabilities == pytest.approx(
            dict(zip(theirs["labels"], theirs["scores"], strict=True)), abs=CLOSE
        )


def test_no_answer_depends_on_what_is_asked_beside_it(
    tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]
) -> None:
    for name in ("bert", "yolos"):
        _, model = loaded(name, tmp_path_factory, folders)
        media = FAMILIES[name].media()
        together, alone = ask(model, media), [ask(model, [each])[0] for each in media]
        for one, other in zip(together, alone, strict=True):
            if one.probabilities is not None:
                assert one.probabilities == pytest.approx(other.probabilities, abs=CLOSE)
            else:
                assert [each["label"] for each in one.output] == [each["label"] for each in other.output]
                for own, its in zip(one.output, other.output, strict=True):
                    assert own["box"] == pytest.approx(its["box"], abs=1e-3)


def test_a_text_that_is_longer_than_a_tagger_reads_is_tagged_to_its_end(
    tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]
) -> None:
    _, model = loaded("bert tags", tmp_path_factory, folders)
    text = ["good", "film", "red", "day"] * 40  # 160 words; 62 fit
    (answer,) = ask(model, [text])
    assert len(answer.output) == len(text)
    assert answer.output[:62] == ask(model, [text[:62]])[0].output
    assert answer.output[124:] == ask(model, [text[124:]])[0].output
