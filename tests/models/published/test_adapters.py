"""Each family of published models answers as transformers' own pipeline does, or as its forward pass says."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.modalities.audio_answers import decode_audio
from speciate.modalities.depth_maps import from_map
from speciate.modalities.segmentation_masks import from_runs
from speciate.models import trust
from speciate.models.published.adapters.documents import ImageQuestion
from speciate.models.published.adapters.speech import SpokenText
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


def numbers(theirs: list[Any], answers: list[RawAnswer]) -> None:
    found = [answer.output for answer in answers]
    assert max(found) - min(found) > 0.01
    assert found == pytest.approx([each[0]["score"] for each in theirs], abs=CLOSE, rel=CLOSE)


def texts(folder: Path, model: PublishedModel, media: list[str], answers: list[RawAnswer]) -> None:
    if model.head.task.endswith("-regression"):
        asked = pipeline("text-classification", folder, top_k=1, function_to_apply="none")
        numbers(asked(media), answers)
        return
    if model.head.reads_boxes:
        placed_texts(model, media, answers)
        return
    compare_probabilities(pipeline("text-classification", folder, top_k=None)(media), answers)


def placed_texts(model: PublishedModel, media: list[str], answers: list[RawAnswer]) -> None:
    for page, mine in zip(media, answers, strict=True):
        made = with_boxes(model, page.split())
        with torch.inference_mode():
            shares = model.module(**made).logits[0].softmax(0).tolist()
        assert mine.probabilities == pytest.approx(dict(zip(model.labels, shares, strict=True)), abs=CLOSE)
    assert len({answer.output for answer in answers}) > 1


def with_boxes(model: PublishedModel, page: list[str]) -> Any:
    """As LayoutLM's documentation does: a word's box for each of its pieces, and the whole page's end last."""
    words = [each.rpartition("@")[0] for each in page]
    boxes = [[int(side) for side in each.rpartition("@")[2].split(",")] for each in page]
    made = model.processor(" ".join(words), return_tensors="pt")
    assert made["input_ids"].shape[1] == len(words) + 2  # each word of the double is one piece
    made["bbox"] = torch.tensor([[[0] * 4, *boxes, [1000] * 4]])
    return made


def placed_tags(model: PublishedModel, media: list[list[str]], answers: list[RawAnswer]) -> None:
    for page, mine in zip(media, answers, strict=True):
        with torch.inference_mode():
            best = model.module(**with_boxes(model, page)).logits[0].argmax(-1)[1:-1].tolist()
        assert mine.output == [model.labels[place] for place in best]
    assert len({tag for answer in answers for tag in answer.output}) > 1
    with pytest.raises(ValueError, match="has no place: write it as WORD@LEFT"):
        ask(model, [["good", "day"]])
    with pytest.raises(ValueError, match="is none from 0 to 1000"):
        ask(model, [["good@0,0,1200,10"]])


def tags(folder: Path, model: PublishedModel, media: list[list[str]], answers: list[RawAnswer]) -> None:
    if model.head.reads_boxes:
        placed_tags(model, media, answers)
        return
    theirs = pipeline("token-classification", folder, ignore_labels=[])([" ".join(words) for words in media])
    assert len({tag for answer in answers for tag in answer.output}) > 1
    for words, mine, found in zip(media, answers, theirs, strict=True):
        assert [each["word"] for each in found] == words
        assert mine.output == [each["entity"] for each in found]


def images(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    if model.head.task.endswith("-regression"):
        asked = pipeline("image-classification", folder, function_to_apply="none")
        numbers([asked(pil(image)) for image in media], answers)
        return
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


def segments(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline("image-segmentation", folder)
    some = 0
    for image, mine in zip(media, answers, strict=True):
        pixels = from_runs(mine.output["rle"], mine.output["size"])
        assert pixels.shape == image.shape[:2]
        found = asked(pil(image), subtask="panoptic", threshold=0.5, overlap_mask_area_threshold=0.8)
        theirs = [each for each in found if np.asarray(each["mask"]).any()]
        assert sorted(mine.output["labels"]) == sorted(each["label"] for each in theirs)
        masks = [np.asarray(each["mask"]) > 0 for each in theirs]
        for place, label in enumerate(mine.output["labels"], 1):
            same = [each for each, its in zip(masks, theirs, strict=True) if its["label"] == label]
            assert any(np.array_equal(pixels == place, each) for each in same)
            some += 1
    assert some > 3


def depths(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    asked = pipeline("depth-estimation", folder)
    for image, mine in zip(media, answers, strict=True):
        theirs = asked(pil(image))["predicted_depth"].numpy()
        found = from_map(mine.output)
        assert found.shape == theirs.shape == image.shape[:2]
        assert np.abs(found - theirs).max() <= CLOSE * np.abs(theirs).max()
        assert theirs.std() > 0.01
    metric = "metric" in str(getattr(model.config, "depth_estimation_type", "")) or model.head.model_type == "glpn"
    assert all(answer.output["relative"] is not metric for answer in answers)


def words_and_boxes(folder: Path, model: PublishedModel, media: list[np.ndarray], answers: list[RawAnswer]) -> None:
    """The pipeline asks about each label by itself; asked together, a box has its best label."""
    asked = pipeline("zero-shot-object-detection", folder, image_processor=model.processor, tokenizer=model.tokenizer)
    for image, mine in zip(media[:3], answers, strict=False):
        for label in COLOURS:
            (own,) = ask(model, [image], LabelPrompts((label,), ("{label}",)))
            theirs = sorted(asked(pil(image), [label], threshold=0.05), key=lambda each: -each["score"])
            assert len(own.output) == len(theirs) > 0
            for one, other in zip(own.output, theirs, strict=True):
                assert one["score"] == pytest.approx(other["score"], abs=CLOSE)
                left, top, width, height = one["box"]
                corners = [left, top, left + width, top + height]
                assert [int(each) for each in corners] == pytest.approx(list(other["box"].values()), abs=1)
        words = model.tokenizer([f"a photo of a {label}" for label in COLOURS], padding=True, return_tensors="pt")
        pixels = model.processor(images=pil(image), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            made = model.module(**words, pixel_values=pixels)
        (together,) = model.processor.post_process_object_detection(
            made, threshold=0.05, target_sizes=[image.shape[:2]]
        )
        assert [each["score"] for each in mine.output] == pytest.approx(
            sorted(together["scores"].tolist(), reverse=True), abs=CLOSE
        )
        alone = {
            label: ask(model, [image], LabelPrompts((label,), usual_templates("image")))[0].output for label in COLOURS
        }
        for box in mine.output:  # its label is the one that fits it as well as any
            fits = [each["score"] for each in alone[box["label"]] if each["box"] == pytest.approx(box["box"], abs=1e-2)]
            assert any(score == pytest.approx(box["score"], abs=1e-4) for score in fits)
    assert len({each["label"] for answer in answers for each in answer.output}) > 1


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
    if model.head.model_type == "vision-encoder-decoder" and "donut" in str(type(model.processor)).lower():
        asked_by_a_prompt(folder, model, media)


def asked_by_a_prompt(folder: Path, model: PublishedModel, media: list[np.ndarray]) -> None:
    """As the pipeline for questions about documents begins Donut's decoder."""
    network: Any = model.module
    template = "<s_docvqa><s_question>{input}</s_question><s_answer>"
    asked = [ImageQuestion(image, "this film") for image in media[:4]]
    for one, mine in zip(asked, ask(model, asked, LabelPrompts((), (template,))), strict=True):
        start = model.tokenizer(
            "<s_docvqa><s_question>this film</s_question><s_answer>", add_special_tokens=False, return_tensors="pt"
        )["input_ids"]
        pixels = model.processor(pil(one.image), return_tensors="pt")["pixel_values"]
        made = network.generate(pixels, decoder_input_ids=start, do_sample=False)[:, start.shape[1] :]
        words = model.tokenizer.batch_decode(made, skip_special_tokens=True)[0]
        assert mine.output == " ".join(re.sub("<[^<>]*>", " ", words).split())
    plain = [each.output for each in ask(model, [each.image for each in asked])]
    assert [each.output for each in ask(model, asked, LabelPrompts((), (template,)))] != plain


def answered(folder: Path, model: PublishedModel, media: list[ImageQuestion], answers: list[RawAnswer]) -> None:
    from transformers import BlipProcessor, ViltProcessor

    kind = ViltProcessor if model.head.model_type == "vilt" else BlipProcessor
    processor, network = kind(model.processor, model.tokenizer), model.module  # type: ignore[arg-type]
    for one, mine in zip(media, answers, strict=True):
        inputs = processor(images=pil(one.image), text=one.question, return_tensors="pt")
        with torch.inference_mode():
            if model.head.model_type == "vilt":
                expected = model.labels[int(network(**inputs).logits.argmax())]
            else:
                inputs.pop("token_type_ids", None)
                made = network.generate(**inputs, do_sample=False)  # type: ignore[operator]
                expected = " ".join(model.tokenizer.batch_decode(made, skip_special_tokens=True)[0].split())
        assert mine.output == expected
    assert len({answer.output for answer in answers}) > 1
    with pytest.raises(ValueError, match="no question beside the image"):
        ask(model, [media[0].image])


def marked(folder: Path, model: PublishedModel, media: list[str], answers: list[RawAnswer]) -> None:
    """Each run of a short passage tried out; of a long one only that its answer stands in it."""
    if model.head.reads_boxes:
        marked_on_pages(folder, media, answers)
        return
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


def marked_on_pages(folder: Path, media: list[str], answers: list[RawAnswer]) -> None:
    asked = pipeline("document-question-answering", folder)
    for text, mine in zip(media, answers, strict=True):
        question, page = text.split("\n")
        words = [each.rpartition("@")[0] for each in page.split()]
        boxes = [[int(side) for side in each.rpartition("@")[2].split(",")] for each in page.split()]
        theirs = asked({"question": question, "word_boxes": list(zip(words, boxes, strict=True))})
        assert mine.output == theirs[0]["answer"]
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


def spoken(folder: Path, model: PublishedModel, media: list[SpokenText], answers: list[RawAnswer]) -> None:
    """By the classes' own ways to speak, each text by itself with the same draw."""
    for given, mine in zip(media, answers, strict=True):
        inputs = model.tokenizer(given.text, return_tensors="pt")
        torch.manual_seed(given.seed)
        with torch.inference_mode():
            if model.head.model_type == "vits":
                wave = model.module(input_ids=inputs["input_ids"]).waveform[0]
            else:
                assert model.voice is not None
                wave = model.module.generate_speech(  # type: ignore[operator]  # of SpeechT5
                    inputs["input_ids"], model.voice.speaker, vocoder=model.voice.vocoder
                )
        theirs, found = wave.numpy().clip(-1, 1), decode_audio(mine.output)
        assert found.rate == 16_000
        assert mine.output["seconds"] == pytest.approx(len(theirs) / 16_000, abs=1e-4)
        assert np.abs(found.samples - theirs).max() <= 0.51 / 32_767 + 1e-7
    assert len({answer.output["data"] for answer in answers}) == len(answers)
    few = ask(model, media[-1:])
    assert few[0] == answers[-1], "no answer depends on its neighbours"
    with pytest.raises(ValueError, match="knows no character"):
        ask(model, [SpokenText("€€€", 0)])


COMPARE = {
    "text-to-spectrogram": spoken, "text-to-waveform": spoken,
    "text-classification": texts, "token-classification": tags, "image-classification": images,
    "object-detection": boxes, "image-segmentation": maps, "audio-classification": sounds, "ctc": speech,
    "speech": generated_speech, "zero-shot-image": words_and_images,
    "zero-shot-audio": words_and_sounds, "image-to-text": read, "question-answering": marked, "depth": depths,
    "panoptic": segments, "zero-shot-detection": words_and_boxes, "visual-questions": answered,
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
