"""Published models of every family, by the tools alone, from a folder to the answers of a deployment: registered,
evaluated, promoted after a person accepted what nobody knows, served.

The doubles have random weights, so the references are what each answers itself: it is right, and the constant is not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.models.published import adapter_merge
from speciate.models.published.architectures import check_head
from speciate.models.published.asking import ask, usual_templates
from speciate.models.published.published_model import LabelPrompts, load_model
from speciate.sandbox import is_complete
from tests.models.published import doubles
from tests.server.processes import Daemons
from tests.server.terminals import type_at

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox"),
]

SETTINGS = 'policy = "auto"\nroots = ["{roots}"]\n\n[serving]\nstart = "after_promotion"\n'
ROWS = 40
_SECONDS = 300
_ENDED = ("succeeded", "failed", "cancelled", "dead")


class Case(NamedTuple):
    double: str
    """Of tests/models/published/doubles.py."""
    use_case: dict[str, Any]
    media: Callable[[], list[Any]]
    write: Callable[[Path, list[Any], list[Any]], dict[str, Any]]
    """(folder, media, answers) -> arguments of create_dataset."""
    register: Mapping[str, Any] = MappingProxyType({})
    """Arguments of register_model."""
    ask: Callable[[Path, list[Any], int], dict[str, Any]] = lambda folder, media, place: {"text": media[place]}
    """(folder, media, place) -> an input of predict."""
    form: Literal["whole", "adapter", "pickled", "pairs"] = "whole"
    """How its weights are published: an adapter lies beside its base model."""


# Media, of which a model's answers differ


def texts(seed: int = 3) -> list[str]:
    draw = np.random.default_rng(seed)
    return list(dict.fromkeys(" ".join(draw.choice(doubles.WORDS.split(), draw.integers(3, 9))) for _ in range(300)))


def pairs() -> list[str]:
    lines = texts(6)
    return [f"{one}\n{other}" for one, other in zip(lines, reversed(lines), strict=True)]


def words() -> list[list[str]]:
    return [text.split() for text in texts(4)[:80]]


def images(seed: int = 3, count: int = 160) -> list[np.ndarray]:
    """Of another seed for each case: rows that judged another model before ask for stricter intervals."""
    draw, made = np.random.default_rng(seed), []
    for place in range(count):
        image = np.zeros((64, 64, 3), np.uint8) + draw.integers(0, 256, 3).astype(np.uint8)
        x, y = (int(each) for each in draw.integers(2, 44, 2))
        image[y : y + 18, x : x + 18] = list(doubles.COLOURS.values())[place % 3]
        made.append(image)
    return made


def sounds(seed: int = 3) -> list[np.ndarray]:
    """Tones in noise; every third is noise alone."""
    draw, made = np.random.default_rng(seed), []
    for place in range(160):
        time_ = np.arange(9_600) / 16_000
        tone = np.sin(2 * np.pi * draw.uniform(100, 6_000) * time_) * draw.uniform(0.2, 0.6) * (place % 3 > 0)
        made.append((tone + draw.normal(0, draw.uniform(0.001, 0.1), len(time_))).astype(np.float32))
    return made


def clips() -> list[Any]:
    from tests.modalities.video_samples import DIRECTIONS, clip

    draw, made = np.random.default_rng(3), []
    for place in range(120):
        across, down = list(DIRECTIONS.values())[place % len(DIRECTIONS)]
        made.append(clip(place, (float(draw.uniform(0.5, 3)) * across, float(draw.uniform(0.5, 3)) * down)))
    return made


def coloured() -> list[Any]:
    from tests.models.language import vision_world

    return [vision_world.coloured(list(vision_world.COLOURS)[place % 3], place) for place in range(ROWS)]


def series() -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    return [np.cumsum(draw.normal(0, 1, 32)).round(4)[None] for _ in range(ROWS * 2)]


# Datasets


def _rows(folder: Path, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    for place, row in enumerate(rows):
        row["split"] = "train" if place % 5 == 0 else "validation" if place % 5 == 1 else "test"
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return {"source": str(folder / "rows.jsonl"), **more}


def of_texts(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    rows = [{"text": text, "label": answer} for text, answer in zip(media, answers, strict=True)]
    return _rows(folder, rows, label="label", inputs=["text"])


def of_words(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    rows = [{"text": " ".join(each), "tags": answer} for each, answer in zip(media, answers, strict=True)]
    return _rows(folder, rows, inputs=["text"])


def of_written(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    rows = [{"text": text, "answer": answer} for text, answer in zip(media, answers, strict=True)]
    return _rows(folder, rows, inputs=["text"])


def of_series(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    rows = [
        {"values": [*past[0].tolist(), *(round(step, 4) for step in answer[0])]}
        for past, answer in zip(media, answers, strict=True)
    ]
    return _rows(folder, rows, inputs=["values"])


def _files(folder: Path, data: Sequence[bytes], suffix: str, column: str, cells: Sequence[str]) -> dict[str, Any]:
    source = folder / "files"
    source.mkdir()
    lines = [f"file_name,{column},split"]
    for place, (each, cell) in enumerate(zip(data, cells, strict=True)):
        (source / f"{place:03}.{suffix}").write_bytes(each)
        split = "train" if place % 5 == 0 else "validation" if place % 5 == 1 else "test"
        lines.append(f'{place:03}.{suffix},"{cell}",{split}')
    (source / "metadata.csv").write_text("\n".join(lines))
    return {"source": str(source)}


def of_images(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    return _files(folder, [_png(each) for each in media], "png", "label", answers) | {"label": "label"}


def of_sounds(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    return _files(folder, [_wav(each) for each in media], "wav", "label", answers) | {"label": "label"}


def of_speech(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    return _files(folder, [_wav(each) for each in media], "wav", "text", answers)


def of_captions(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    return _files(folder, [_png(each) for each in media], "png", "text", answers)


def of_clips(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    return _files(folder, media, "mp4", "label", answers) | {"label": "label"}


def of_boxes(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    def objects(place: int) -> list[dict[str, Any]]:
        return [{"category": each["label"], "bbox": each["box"]} for each in answers[place]]

    return _coco(folder, media, objects)


def of_regions(folder: Path, media: list[Any], answers: list[Any]) -> dict[str, Any]:
    """The answered map of labels, as run lengths by columns."""
    from speciate.modalities.segmentation_masks import from_runs

    def objects(place: int) -> list[dict[str, Any]]:
        answer, found = answers[place], []
        pixels = from_runs(answer["rle"], answer["size"])
        for number, label in enumerate(answer["labels"], 1):
            mask = (pixels == number).T.reshape(-1)
            ends = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0])).tolist()
            counts = np.diff([0, *ends, len(mask)]).tolist()
            rows, columns = np.flatnonzero((pixels == number).any(1)), np.flatnonzero((pixels == number).any(0))
            left, top = int(columns[0]), int(rows[0])
            box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
            outline = {"size": answer["size"], "counts": counts}
            found.append({"category": label, "bbox": box, "segmentation": outline})
        return found

    return _coco(folder, media, objects)


def _coco(folder: Path, media: list[Any], objects: Callable[[int], list[dict[str, Any]]]) -> dict[str, Any]:
    source = folder / "files"
    source.mkdir()
    pictures, annotations, categories = [], [], dict[str, int]()
    for place, image in enumerate(media):
        (source / f"{place:03}.png").write_bytes(_png(image))
        height, width = image.shape[:2]
        pictures.append({"id": place, "file_name": f"{place:03}.png", "height": height, "width": width})
        for each in objects(place):
            number = categories.setdefault(each.pop("category"), len(categories) + 1)
            annotations.append({"id": len(annotations) + 1, "image_id": place, "category_id": number, **each})
    named = [{"id": number, "name": name} for name, number in categories.items()]
    coco = {"images": pictures, "annotations": annotations, "categories": named}
    (source / "annotations.json").write_text(json.dumps(coco))
    return {"source": str(source)}


def _png(pixels: np.ndarray) -> bytes:
    from tests.training.world import png

    return png(pixels)


def _wav(sound: np.ndarray) -> bytes:
    import io
    import wave

    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((32_768 * np.clip(sound, -1, 0.9999)).round().astype("<i2").tobytes())
    return out.getvalue()


def _path(suffix: str) -> Callable[[Path, list[Any], int], dict[str, Any]]:
    return lambda folder, media, place: {"path": str(folder / "files" / f"{place:03}.{suffix}")}


def with_question(folder: Path, media: list[Any], place: int) -> dict[str, Any]:
    return {"row": {"image": str(folder / "files" / f"{place:03}.png"), "question": "which colour?"}}


_COLOURS = {name: name for name in doubles.COLOURS}
_TAGS = {name: name for name in ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")}
CASES = {
    "text": Case(
        "bert", {"task": "text-classification", "objective": {"metric": "accuracy"}}, texts, of_texts,
        {"labels": {"negative": "negative", "positive": "positive"}},
    ),
    "adapter": Case(
        "bert", {"task": "text-classification", "objective": {"metric": "accuracy"}}, partial(texts, 7), of_texts,
        {"labels": {"negative": "negative", "positive": "positive"}}, form="adapter",
    ),
    "pickled": Case(
        "bert", {"task": "text-classification", "objective": {"metric": "accuracy"}}, partial(texts, 8), of_texts,
        {"labels": {"negative": "negative", "positive": "positive"}}, form="pickled",
    ),
    "pairs": Case(
        "bert", {"task": "text-classification", "objective": {"metric": "accuracy"}}, pairs, of_texts,
        {"labels": {"negative": "negative", "positive": "positive"}}, form="pairs",
    ),
    "tags": Case(
        "bert tags",
        {"task": "token-classification", "objective": {"metric": "token_accuracy"}, "target_column": "tags"},
        words, of_words, {"labels": _TAGS}, lambda folder, media, place: {"text": " ".join(media[place])},
    ),
    "image": Case(
        "vit", {"task": "image-classification", "objective": {"metric": "accuracy"}}, images, of_images,
        {"labels": _COLOURS}, _path("png"),
    ),
    "zero-shot": Case(
        "clip", {"task": "image-classification", "objective": {"metric": "accuracy"}}, partial(images, 4), of_images,
        {"labels": _COLOURS}, _path("png"),
    ),
    "boxes": Case(
        "yolos", {"task": "object-detection", "objective": {"metric": "map_50"}}, partial(images, 5, 480), of_boxes,
        {"labels": _COLOURS}, _path("png"),
    ),
    "segmentation": Case(
        "segformer", {"task": "image-segmentation", "objective": {"metric": "mean_iou"}, "target_column": "objects"},
        partial(images, 6), of_regions, {"labels": _COLOURS}, _path("png"),
    ),
    "audio": Case(
        "wav2vec2", {"task": "audio-classification", "objective": {"metric": "accuracy"}}, sounds, of_sounds,
        {"labels": {name: name for name in ("low", "middle", "high")}}, _path("wav"),
    ),
    "speech": Case(
        "whisper",
        {"task": "automatic-speech-recognition", "objective": {"metric": "wer"}, "target_column": "text"},
        partial(sounds, 4), of_speech, {}, _path("wav"),
    ),
    "video": Case(
        "timesformer", {"task": "video-classification", "objective": {"metric": "accuracy"}}, clips, of_clips,
        {"labels": {"left": "left", "right": "right"}}, _path("mp4"),
    ),
    "looking": Case(
        "looker", {"task": "image-text-to-text", "objective": {"metric": "chrf"}, "target_column": "text"},
        coloured, of_captions, {"task": "image-text-to-text"}, with_question,
    ),
    "forecast": Case(
        "patchtst", {"task": "time-series-forecasting", "objective": {"metric": "mase"}}, series, of_series, {},
        lambda folder, media, place: {"row": {"values": media[place][0].tolist()}},
    ),
    "seq2seq": Case(
        "t5", {"task": "text-generation", "objective": {"metric": "chrf"}, "target_column": "answer"},
        partial(texts, 5), of_written,
    ),
}  # fmt: skip


def looker(folder: Path) -> Path:
    """A vision-language model of random weights, drawn wide so that its answers differ, and written in plain letters:
    the other tokens have no output."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    from tests.models.language.vision_world import tiny_qwen

    tiny_qwen(folder)
    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    names = tokens.convert_ids_to_tokens(range(len(tokens)))
    plain = torch.tensor([name.isascii() and name.isalnum() for name in names])
    weights = {
        name: each * 6 if each.ndim > 1 else each for name, each in load_file(folder / "model.safetensors").items()
    }
    weights["lm_head.weight"] = weights["lm_head.weight"] * plain[: len(weights["lm_head.weight"]), None]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def as_published(folder: Path, form: str) -> dict[str, Any]:
    """Change a whole model into that form; arguments of register_model."""
    if form == "adapter":
        import peft
        from transformers import BertForSequenceClassification

        base = folder.with_name("base")
        shutil.copytree(folder, base)
        shutil.rmtree(folder)
        given = peft.LoraConfig(r=3, lora_alpha=16, task_type="SEQ_CLS", target_modules=["query", "value", "dense"])
        adapted = peft.get_peft_model(BertForSequenceClassification.from_pretrained(base), given)
        for name, each in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(each, std=0.5)
        adapted.save_pretrained(folder)
        (base / "README.md").write_text("---\nlicense: mit\n---\n")
        return {"source": f"path:{folder}", "base_model": f"path:{base}"}
    if form == "pickled":
        from safetensors.torch import load_file

        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return {"source": f"path:{folder}"}


def whole_of(folder: Path, form: str) -> Path:
    """The model that answers."""
    if form == "pairs":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"sentence_transformers": {"version": "5.0.0"}}))
    if form != "adapter":
        return folder
    merged = folder.with_name("merged")
    merged.mkdir()
    adapter_merge.merge(folder.with_name("base"), folder, merged, "base")
    return merged


def seen_by(folder: Path, media: list[Any]) -> list[Any]:
    from speciate.datasets.loading.loader import Example
    from speciate.tasks.vision_language_predictor import load_vision_model

    examples = [Example(str(place), each, None, str(place), "", {}) for place, each in enumerate(media)]
    return [each.output for each in load_vision_model(folder).predict(examples)]


class Tools:
    """Calls of a workspace's tools, as an agent makes them from a shell."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.told = ""
        """What the last approval said."""

    def started(self) -> str:
        """The job that the last approval began."""
        found = re.findall(r"job=(job-[\w-]+)", self.told)
        return str(found[-1])

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Where a job began, its result once it ended."""
        made = self._call(tool, arguments)
        if set(made) <= {"job", "kind", "state", "eta_seconds", "next_actions"}:
            while made.get("state") not in _ENDED:
                made = self._call("wait_for_job", {"job": made["job"], "timeout_seconds": 45})
            assert made["state"] == "succeeded", made
            result: dict[str, Any] = made["result"]
            return result
        return made

    def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        line = [sys.executable, "-m", "speciate.cli", "call", tool, "--workspace", str(self.workspace)]
        done = subprocess.run(
            [*line, "--args", json.dumps(arguments)], capture_output=True, text=True, timeout=_SECONDS, check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"},
        )  # fmt: skip
        assert done.returncode == 0, (tool, done.stdout[-2000:], done.stderr[-2000:])
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def serving(self, use_case: str) -> None:
        """Until its deployment serves."""
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            (shown,) = self._call("get_status", {"use_case": use_case})["use_cases"]
            if (shown.get("slot") or {}).get("state") == "serving":
                return
            time.sleep(0.5)
        raise AssertionError(shown)

    def stop(self, use_case: str) -> None:
        line = [sys.executable, "-m", "speciate.cli", "deployment", "stop", use_case]
        subprocess.run([*line, "--workspace", str(self.workspace)], capture_output=True, check=False)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    daemons = Daemons(tmp_path_factory.mktemp("production") / "workspace")
    daemons.workspace.mkdir()
    roots = tmp_path_factory.getbasetemp()
    (daemons.workspace / "settings.toml").write_text(SETTINGS.format(roots=roots))
    yield Tools(daemons.workspace)
    daemons.close()


def answered(case: Case, folder: Path) -> tuple[list[Any], list[Any]]:
    """Media with what the model answers about them, as evenly as its answers allow."""
    from speciate.modalities import find

    media = case.media()
    if case.double == "looker":
        outputs = seen_by(folder, media)
        kept = [place for place, output in enumerate(outputs) if output.strip()][:ROWS]
        return [media[place] for place in kept], [outputs[place] for place in kept]
    head = check_head(folder, case.double)
    model = load_model(folder, head)
    prompts = LabelPrompts(tuple(_COLOURS), usual_templates("image")) if head.zero_shot else None
    read = [find("video").decode(each) for each in media] if head.modality == "video" else media
    outputs = [each.output for each in ask(model, read, prompts)]
    usable = [place for place, output in enumerate(outputs) if output not in ([], "")]
    if head.task.endswith("-classification") and isinstance(
        outputs[0], str
    ):  # as many of the two answers that it gives most often
        groups = sorted(
            ([place for place in usable if outputs[place] == label] for label in {outputs[place] for place in usable}),
            key=len, reverse=True,
        )[:2]  # fmt: skip
        share = min(ROWS // 2, *map(len, groups))
        assert share >= ROWS // 3, "the double answers alike to nearly all"
        usable = [place for group in groups for place in group[:share]]
    chosen = np.random.default_rng(0).permutation(usable)[:ROWS].tolist()
    return [media[place] for place in chosen], [outputs[place] for place in chosen]


def approve(tools: Tools, question: str) -> None:
    screen = type_at(["approve", question, "--workspace", str(tools.workspace)], [("Type yes: ", "yes")])
    assert screen.status == 0, screen.text
    tools.told = screen.text


@pytest.mark.parametrize("family", CASES)
def test_a_published_model_comes_into_production_and_answers(tools: Tools, tmp_path: Path, family: str) -> None:
    case, use_case = CASES[family], family.replace("-", "")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = tmp_path / "model"
        folder = looker(place) if case.double == "looker" else doubles.write(case.double, place)
        if case.form == "adapter":
            named = as_published(folder, case.form)
        media, answers = answered(case, whole_of(folder, case.form))
        if case.form != "adapter":
            named = as_published(folder, case.form)
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets:\n- their/set\n---\nA double.\n")
    tools.call("define_use_case", name=use_case, **case.use_case)
    tools.call("create_dataset", name=f"{use_case}-data", **case.write(tmp_path, media, answers))
    told = tools.call("register_model", name=f"{use_case}-model", **named, **case.register)
    if case.form == "pickled":
        assert told["state"] == "needs_approval"
        assert told["evidence"]["holds"]["tensors"] > 10
        approve(tools, told["approval"]["id"])
        told = tools.call("wait_for_job", job=tools.started(), timeout_seconds=45)["result"]
    model = told["model"]
    made = tools.call("evaluate_models", models=[model], dataset=f"{use_case}-data:test", use_case=use_case)
    decision = made["decision"]
    assert decision["verdict"] == "promote", made
    assert any("its card names their/set" in reason for reason in decision["reasons"])
    asked = tools.call("promote_model", use_case=use_case, model=model)
    assert asked["state"] == "needs_approval"  # though the policy is automatic
    assert any("nobody knows whether it saw these examples" in reason for reason in asked["reasons"])
    approve(tools, asked["approval"]["id"])
    try:
        tools.serving(use_case)
        inputs = [case.ask(tmp_path, media, place) for place in range(4)]
        found = tools.call("predict", use_case=use_case, inputs=inputs)
        assert found["model"] == model
        for one, answer in zip(found["predictions"], answers, strict=False):
            assert one.get("error") is None, one
            said = one["untrusted"]["output"]
            if family == "looking":  # asked with a question, and evaluated without one
                assert said
            elif isinstance(answer, str) or family == "tags":
                assert said == answer
            elif family == "boxes":
                assert said[0]["label"] == answer[0]["label"]
            elif family == "forecast":
                assert np.allclose(said, answer, atol=1e-3)
            else:
                assert said["labels"] == answer["labels"]
    finally:
        tools.stop(use_case)
