"""The lines of Python on the card of an exported model: from inputs to answers, in an environment without speciate.

Every program has one line that begins with `inputs = ` and leaves `answers`. No text of others stands in one: labels
and instructions are read from the model's own files, and names of columns are written as escapes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from speciate.models.model_card import ModelCard

_EXAMPLES: Mapping[str, str] = {
    "text": '["a fine day"]',
    "protein": '["MKTAYIAKQR"]',
    "molecule": '["CCO"]',
    "image": '[Image.new("RGB", (64, 64), "white")]',
    "audio": "[np.sin(np.arange(16000) / 20).astype(np.float32)]",
}
_IMPORTS: Mapping[str, str] = {"image": "from PIL import Image", "audio": "import numpy as np"}
_FILES: Mapping[str, str] = {
    "video": "clip.mp4", "dicom": "slice.dcm", "nifti": "scan.nii.gz", "mesh": "part.stl", "point-cloud": "cloud.ply",
    "episode": "episode.hdf5", "time-series": "series.csv", "multimodal": "example.json",
}  # fmt: skip
_FLAT: Sequence[str] = (
    "", "def flat(image):  # upright, over white, 16 bits as their full range: as it was learned from",
    "    image = ImageOps.exif_transpose(image)",
    '    if image.mode.startswith("I") or image.mode == "F":',
    "        deep = np.asarray(image)",
    "        gray = deep.astype(np.float32)",
    "        known = gray[np.isfinite(gray)]",
    '        low, high = (0.0, 65535.0) if deep.dtype.kind == "u" else (float(known.min()), float(known.max()))',
    "        gray = (np.where(np.isfinite(gray), gray, np.float32(low)) - low) * (255 / max(high - low, 1e-12))",
    "        image = Image.fromarray(gray.clip(0, 255).astype(np.uint8))",
    '    image = image.convert("RGBA")',
    '    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")', "",
)  # fmt: skip
_WHERE = 'folder = "."  # where this file lies'


def of_pipeline(pipeline: str, family: str, card: ModelCard) -> str:
    """For a model with a head of transformers. `pipeline`: the task of its pipeline."""
    modality = str(card.modality)
    imports = [_IMPORTS[modality]] if modality in _IMPORTS else []
    given = f"inputs = {_EXAMPLES[modality]}"
    match pipeline:
        case "token-classification":
            lines = [
                "import re", "", "from transformers import pipeline", "", _WHERE, given,
                'tag = pipeline("token-classification", model=folder, ignore_labels=[])',
                "usual = tag.model.config.commonest  # of words beyond the length that the model reads",
                "answers = []",
                "for text, pieces in zip(inputs, tag(inputs)):",
                '    words = [word.start() for word in re.finditer(r"\\S+", text)]',
                '    tags = [next((one["entity"] for one in pieces if one["end"] > word), usual) for word in words]',
                "    answers.append(tags)",
            ]  # fmt: skip
        case "automatic-speech-recognition":
            lines = [
                *imports, "from transformers import pipeline", "", _WHERE, f"{given}  # 16,000 numbers a second",
                'hear = pipeline("automatic-speech-recognition", model=folder)',
                'answers = [" ".join(each["text"].split()) for each in hear(inputs)]',
            ]  # fmt: skip
        case _:
            lines = _classify(pipeline, family, imports, given, modality)
    return "\n".join([*lines, "print(answers)"])


def _classify(pipeline: str, family: str, imports: Sequence[str], given: str, modality: str) -> list[str]:
    named, more, asked = "pipeline", "", "inputs"
    before: list[str] = []
    if modality == "image":
        named, more = "AutoImageProcessor, pipeline", ", image_processor=prepare"
        imports = ["import numpy as np", "from PIL import Image, ImageOps"]
        asked = "[flat(each) for each in inputs]"
        before = [
            *_FLAT,
            'prepare = AutoImageProcessor.from_pretrained(folder, backend="pil")  # torchvision rounds otherwise',
        ]
    if modality == "text":
        asked = "inputs, truncation=True"
    every = "1000" if modality == "image" else "None"
    lines = [
        *imports, f"from transformers import {named}", "", _WHERE, given, *before,
        f'classify = pipeline("{pipeline}", model=folder{more})', f"scores = classify({asked}, top_k={every})",
    ]  # fmt: skip
    match family:
        case "multi-label":
            lines += [
                "least = classify.model.config.thresholds  # a label is given above its own",
                'answers = [sorted(s["label"] for s in each if s["score"] > least[s["label"]]) for each in scores]',
            ]
        case "regression":
            lines.append('answers = [each[0]["score"] for each in scores]')
        case _:
            lines.append('answers = [each[0]["label"] for each in scores]')
    return lines


def of_program(card: ModelCard, channels: int | None, texts: Collection[str] = ()) -> str:
    """For a model with `model.py`. `channels`: of series; `texts`: the columns of a table whose cells are texts."""
    modality = str(card.modality)
    imports = [_IMPORTS[modality]] if modality in _IMPORTS else []
    example, remark = _EXAMPLES.get(modality), ""
    if modality == "tabular":
        example = _row(card, texts)
    elif modality == "time-series" and channels is not None:
        imports = ["import numpy as np"]
        example = f"[np.sin(np.arange({32 * channels}) / 5).astype(np.float32).reshape({channels}, 32)]"
        remark = "  # (channels, steps)"
    elif example is None:
        imports, example = ["from pathlib import Path"], f'[Path("{_FILES.get(modality, "file")}")]'
        remark = "  # files, or the decoded media"
    return "\n".join(
        [
            "import sys", *imports, "", _WHERE, "sys.path.insert(0, folder)", "from model import load", "",
            f"inputs = {example}{remark}", "found = load(folder).predict(inputs)",
            'answers = [each["answer"] for each in found]  # of labels also "confidence" and "probabilities"',
            "print(answers)",
        ]
    )  # fmt: skip


def of_speciate(card: ModelCard) -> str:
    """For a model that speciate alone loads."""
    modality = str(card.modality)
    example = _row(card, ()) if modality == "tabular" else _EXAMPLES.get(modality) if modality not in _IMPORTS else None
    return "\n".join(
        [
            "from pathlib import Path", "", "import speciate", "", _WHERE,
            f"inputs = {example or f'[Path({json.dumps(_FILES.get(modality, modality))})]  # a file of this medium'}",
            "found = speciate.load(Path(folder)).predict(inputs)",
            "answers = [each.output for each in found]  # each also has confidence, and error where it has no answer",
            "print(answers)",
        ]
    )  # fmt: skip


def of_onnx(modality: str, family: str) -> str:
    """For one ONNX graph with preprocessing.json."""
    helper = "from tokenizers import Tokenizer" if modality == "text" else "from PIL import Image, ImageOps"
    lines = [
        "import json", "from pathlib import Path", "", "import numpy as np", "import onnxruntime", helper, "",
        _WHERE, f"inputs = {_EXAMPLES[modality]}",
        'about = json.loads((Path(folder) / "preprocessing.json").read_text(encoding="utf-8"))',
    ]  # fmt: skip
    if modality == "text":
        lines += [
            'tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))',
            'tokenizer.enable_truncation(about["max_tokens"])',
            'tokenizer.enable_padding(pad_id=about["pad_token_id"])',
            "pieces = tokenizer.encode_batch(inputs)",
            "given = {",
            '    "input_ids": np.array([each.ids for each in pieces], np.int64),',
            '    "attention_mask": np.array([each.attention_mask for each in pieces], np.int64),',
            "}",
        ]
    else:
        lines += [
            'side, mean, std = about["side"], np.array(about["mean"]), np.array(about["std"])',
            *_FLAT,
            'small = [flat(each).resize((side, side), about["resample"]) for each in inputs]',
            "pixels = np.stack([(np.asarray(each) / 255 - mean) / std for each in small]).transpose(0, 3, 1, 2)",
            'given = {"pixel_values": pixels.astype(np.float32)}',
        ]
    lines += [
        'session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"))', "(made,) = session.run(None, given)"
    ]  # fmt: skip
    labels = 'labels = about["labels"]'
    table = 'scores = [[{"label": n, "score": float(p)} for n, p in zip(labels, row)] for row in made]'
    match family:
        case "regression":
            lines.append("answers = made[:, 0].tolist()")
        case "multi-label":
            lines += [
                labels, table,
                'least = about["thresholds"]  # a label is given above its own',
                "answers = [[n for n, p, least_p in zip(labels, row, least) if p > least_p] for row in made]",
            ]  # fmt: skip
        case "tokens":
            lines += [
                "import re", labels, "answers = []", "for text, piece, row in zip(inputs, pieces, made):",
                "    ends = [end for _, end in piece.offsets]  # special tokens end at 0",
                '    begins = [word.start() for word in re.finditer(r"\\S+", text)]',
                "    first = [next((i for i, end in enumerate(ends) if end > begin), None) for begin in begins]",
                '    usual = about["commonest"]  # of words beyond the length that the model reads',
                "    answers.append([usual if i is None else labels[row[i].argmax()] for i in first])",
            ]  # fmt: skip
        case _:
            lines += [labels, table, "answers = [labels[place] for place in made.argmax(1)]"]
    return "\n".join([*lines, "print(answers)"])


def of_onnx_table(family: str, card: ModelCard, texts: Collection[str]) -> str:
    """For one ONNX graph of rows with preprocessing.json. `texts`: the columns whose cells are texts."""
    lines = [
        "import json", "from pathlib import Path", "", "import numpy as np", "import onnxruntime", "", _WHERE,
        f"inputs = {_row(card, texts)}",
        'about = json.loads((Path(folder) / "preprocessing.json").read_text(encoding="utf-8"))', "",
        "def cell(row, name, missing, kind):", "    found = row[name]",
        "    return missing if found is None or found != found else kind(found)", "",
        'how = {"numbers": (np.nan, float, np.float64), "categories": (about["missing"], str, object)}', "given = {}",
        'for name in about["inputs"]:', "    missing, kind, form = how[name]",
        "    rows = [[cell(row, column, missing, kind) for column in about[name]] for row in inputs]",
        "    given[name] = np.array(rows, form)",
        'session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"))',
        "(made,) = session.run(None, given)",
    ]  # fmt: skip
    if family != "regression":
        lines += [
            'labels = about["labels"]',
            'scores = [[{"label": n, "score": float(p)} for n, p in zip(labels, row)] for row in made]',
        ]
    match family:
        case "regression":
            lines.append("answers = made[:, 0].tolist()")
        case "multi-label":
            lines += [
                'least = about["thresholds"]  # a label is given above its own',
                "answers = [[n for n, p, least_p in zip(labels, row, least) if p > least_p] for row in made]",
            ]
        case "ordinal":
            lines += [
                "above = 1 - made.cumsum(1)[:, :-1]  # the answer is the median of the ranks",
                "answers = [labels[rank] for rank in (above > 0.5).sum(1)]",
            ]
        case _:
            lines.append("answers = [labels[place] for place in made.argmax(1)]")
    return "\n".join([*lines, "print(answers)"])


def of_chat(plain: bool) -> str:
    """For a language model: its instructions and the way of drawing are read from predictor.json."""
    given = "inputs" if plain else "[[*system, {'role': 'user', 'content': each}] for each in inputs]"
    return "\n".join(
        [
            "import json", "from pathlib import Path", "", "from transformers import pipeline", "", _WHERE,
            'inputs = ["Who are you?"]',
            'said = json.loads((Path(folder) / "predictor.json").read_text(encoding="utf-8"))',
            'instructions, drawn = said["form"]["system"], said["sampling"]',
            'system = [{"role": "system", "content": instructions}] if instructions else []',
            'write = pipeline("text-generation", model=folder)',
            f"asked = {given}",
            'how = {"do_sample": drawn["temperature"] > 0, "repetition_penalty": drawn["repetition_penalty"]}',
            'found = write(asked, max_new_tokens=drawn["max_new_tokens"], return_full_text=False, **how)',
            'answers = [each[0]["generated_text"] for each in found]', "print(answers)",
        ]
    )  # fmt: skip


def of_diffusers(steps: int, guidance: float) -> str:
    """Lines that make an image from a text, by the folder of a pipeline."""
    return "\n".join(
        (
            "from diffusers import DDIMScheduler, StableDiffusionPipeline",
            "",
            'draw = StableDiffusionPipeline.from_pretrained(".", safety_checker=None, requires_safety_checker=False)',
            "draw.scheduler = DDIMScheduler.from_config(draw.scheduler.config, clip_sample=False)",
            f'draw("a text", num_inference_steps={steps}, guidance_scale={guidance}).images[0].save("drawn.png")',
        )
    )


def _row(card: ModelCard, texts: Collection[str]) -> str:
    """`texts`: the columns whose cells are texts."""
    row = _quoted({name: "text" if name in texts else 0 for name in card.inputs or ("column",)})
    return f"[{row}]  # each column by its name; None where it is missing"


def _quoted(value: object) -> str:
    """A value as Python and JSON both write it, with nothing in it that ends a block of Markdown."""
    return json.dumps(value).replace("`", "\\u0060")
