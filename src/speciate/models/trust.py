"""Which files of a published model may be loaded: weights as safetensors, settings as JSON, vocabularies as text. Any
other file may run code, so it is excluded. Settings that ask for code, or point to files elsewhere, refuse the model.

Nothing here needs a model library, and nothing is executed or unpickled. If the scanner picklescan is installed, `scan`
uses it as a tripwire: it never allows a file, as scanners can be evaded. But a folder with a pickle that runs code was
made to do harm, so its other files are refused, too. picklescan reads opcodes and runs nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speciate import foreign_files
from speciate.errors import Call, Code, SpeciateError
from speciate.models.backbones import sentence_folder
from speciate.models.diffusion import pipeline_folder
from speciate.models.pickled_weights import pickled_names, superseded
from speciate.models.published import voice_folder

_ALLOWED = re.compile(
    r"(?i)([\w.\-]+\.(safetensors|json|txt|md|tiktoken)|(spiece|tokenizer|sentencepiece(\.bpe)?|spm_char)\.model"
    r"|([\w\-]+[_\-.])?licen[cs]es?([_\-.][\w\-]+)?|copying|notice"
    r"|chat_template\.jinja)"  # rendered in a sandbox, as the one in tokenizer_config.json is
)
_FOR_PEOPLE = re.compile(r"(?i).*\.md|([\w\-]+[_\-.])?licen[cs]es?([_\-][\w\-]+)?(\.txt)?|copying|notice")
NETWORK, ONNX_CARD = "model.onnx", "onnx.json"
"""The one network of another engine that is taken, where there are no safetensors; and what describes it where no
config.json does (models/published/onnx_model.py)."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack", ".ot")
_CODE = (".py", ".pyc", ".so", ".sh", ".ipynb", ".dll", ".exe")
_LONGEST_HEADER = 100_000_000  # bytes; what safetensors itself reads at most
_DEEPEST = 64
_BESIDE = ".part"
"""Where a part's file is copied to before it gets its name."""
_BYTES = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of one number of each of the format's types."""
_VOCABULARIES = ("tokenizer.", "vocab.", "added_tokens.")
"""Beginnings of files whose keys are words, not settings."""
_CODE_KEYS = ("auto_map", "custom_pipelines")
_POINTERS = (
    "base_model_name_or_path", "backbone", "backbone_checkpoint", "tokenizer_file", "vocab_file", "merges_file",
    "pretrained_model_name_or_path", "adapter_path", "weights", "checkpoint",
)  # fmt: skip
"""Entries of settings that name something to be loaded."""
_PACKAGE = "picklescan"
_LARGEST = 4 << 30  # bytes of a file that is scanned
_NOT_SCANNED = (".7z", ".safetensors", ".json")
"""Archives that the scanner would unpack to disk first, and formats that are checked here."""
_SHOWN = 5


class Choice(NamedTuple):
    files: tuple[str, ...]
    excluded: dict[str, str]
    """Name -> reason."""


class ScanResult(NamedTuple):
    by: str | None
    """Name and version of the scanner; None if none is installed."""
    files: int
    """Files with pickles in them, or that could have some."""
    unread: tuple[str, ...] = ()
    """Files that it could not read."""


def choose(names: Iterable[str], converted: Collection[str] = ()) -> Choice:
    """Which files of a published model are taken, by their names alone. Raises REFUSED without weights among them.
    `converted`: pickles whose tensors a person has let be converted (pickled_weights.py); their index is left, too."""
    names = sorted(names)
    network = NETWORK if NETWORK in names and not any(name.endswith(".safetensors") for name in names) else None
    allowed = {name for name in names if pipeline_folder.INDEX in names and pipeline_folder.is_part_file(name)}
    if sentence_folder.MODULES in names:
        allowed |= {name for name in names if sentence_folder.is_part_file(name)}
        allowed |= {
            name
            for name in names
            if sentence_folder.is_network_file(name) and not _why_not(sentence_folder.flat_name(name))
        }
    allowed |= {name for name in names if voice_folder.is_part_file(name)}
    allowed |= {network} if network else set()
    excluded = {name: why for name in names if name not in allowed and (why := _why_not(name)) is not None}
    taken = tuple(name for name in names if name not in excluded)
    if len(names) > foreign_files.MOST_FILES:
        raise _refused(f"It has {len(names):,} files, more than {foreign_files.MOST_FILES:,}.")
    refuse_adapter(names, "The folder")
    if converted:
        return Choice(tuple(name for name in taken if name not in superseded(taken)), excluded)
    if network is None and not any(name.endswith(".safetensors") for name in taken):
        _refuse_other_forms(names)
        pickles = [name for name in names if name.lower().endswith(_PICKLES)]
        if not pickles:
            raise _cut(f"It has no weights, no file .safetensors; what is there: {_listed(names)}.")
        why = f"its weights are pickles ({', '.join(map(repr, pickles[:3]))}), which can run code"
        raise SpeciateError(
            Code.REFUSED,
            f"The model is not safe to load. It has no weights as safetensors: {why}.",
            "Use another one, or have its maker publish it as safetensors. Of a folder with pytorch_model.bin, "
            "register_model(source='path:/dir') asks a person whether its tensors may be converted.",
        )
    return Choice(taken, excluded)


_ADAPTER = "adapter_config.json"


def refuse_adapter(names: Iterable[str], ref: str) -> None:
    """Raise REFUSED for a PEFT adapter without the model that it changes."""
    names = set(names)
    if _ADAPTER in names and not any(re.fullmatch(r"model[\w.\-]*\.safetensors", name) for name in names):
        raise SpeciateError(
            Code.REFUSED,
            f"{ref!r} is an adapter of PEFT: changes to a base model, which is not in the folder.",
            "register_model merges it with its base model: name the version that it makes.",
            next=[Call("register_model", {"name": "merged", "source": ref if ":" in ref else "path:/dir"})],
        )


def _refuse_other_forms(names: Iterable[str]) -> None:
    """Raise REFUSED for weights in a form that is read elsewhere, or of no use alone, saying which."""
    names = tuple(names)
    if gguf := next((name for name in names if name.lower().endswith(".gguf")), None):
        raise SpeciateError(
            Code.REFUSED,
            f"Its weights are GGUF ({gguf[:60]!r}), the form of llama.cpp: quantised numbers that are not trained "
            "here, and that no published head answers with.",
            "Serve it by llama.cpp or ollama, and name that server with register_model; or fetch the model that it was "
            "made from, with safetensors.",
        )
    if any(name.lower().endswith(".onnx") for name in names):
        raise SpeciateError(
            Code.REFUSED,
            f"Its weights are ONNX files, and none of them is called {NETWORK!r} at the top of the folder.",
            f"Copy the one to be used as {NETWORK!r} beside config.json and the files of its preprocessing, or beside "
            f"{ONNX_CARD!r}, and name that folder.",
        )


def take(folder: Path, target: Path, converted: Collection[str] = ()) -> Choice:
    """Copy the loadable files of a folder that a caller named into the empty folder `target`, and check the copy: the
    checked bytes are those that will be loaded. `converted`: as of `choose`.

    Raises REFUSED as `choose`, `check` and foreign_files.py do.
    """
    foreign_files.check_folder(folder)
    chosen = choose(entries(folder), converted)
    copy(folder, chosen.files, target)
    check(target)
    return chosen


def copy(folder: Path, names: Iterable[str], target: Path) -> None:
    """Copy files of a folder, those of its parts under their flat names. Raises as foreign_files.py does."""
    names = list(names)
    foreign_files.copy(folder, [name for name in names if "/" not in name], target)
    nested = [name for name in names if "/" in name]
    if not nested and (folder / sentence_folder.POOLING).is_file():
        nested = [sentence_folder.POOLING]
    for name in nested:
        part, _, file = name.partition("/")
        (target / _BESIDE).mkdir()
        foreign_files.check_folder(folder / part)
        foreign_files.copy(folder / part, [file], target / _BESIDE)
        (target / _BESIDE / file).rename(target / flat_name(name))
        (target / _BESIDE).rmdir()


def pickled_in(folder: Path) -> tuple[str, ...]:
    """The weights of a folder that has no others than pickles; () of any other, and of one that cannot be listed, as
    whoever reads it says why."""
    try:
        return pickled_names(entries(folder))
    except OSError:
        return ()


def flat_name(name: str) -> str:
    """What a file of a part is called in a version, which has no subfolders."""
    if sentence_folder.is_part_file(name) or sentence_folder.is_network_file(name):
        return sentence_folder.flat_name(name)
    if voice_folder.is_part_file(name):
        return voice_folder.flat_name(name)
    return pipeline_folder.flat_name(name)


def entries(folder: Path) -> list[str]:
    """Names of what lies in a folder: a subfolder's ends in `/`, so that it is not taken for a file. Of a text-to-image
    pipeline those of its parts, too, as `PART/FILE`."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir()]
    if not pipeline_folder.is_pipeline(folder):
        nested = [*sentence_folder.nested_files(folder), *voice_folder.nested_files(folder)]
        return [name for name in names if name.strip("/") not in {each.partition("/")[0] for each in nested}] + nested
    parts = {f"{name}/" for name in pipeline_folder.PARTS}
    return [name for name in names if name not in parts] + pipeline_folder.part_files(folder)


def check(folder: Path) -> None:
    """Raise REFUSED if the loadable files of a model folder are not safe or not complete: links (wherever they lead),
    settings that ask for code or point elsewhere, safetensors whose header does not fit the file.
    """
    for path in sorted(folder.iterdir()):
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            raise _refused(f"{path.name!r} is a link, to {os.readlink(path)[:100]!r}.")
        if stat.S_ISREG(kind) and (_why_not(path.name) is None or path.name == NETWORK):
            _check_file(path)
        elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise _refused(f"{path.name!r} is neither a file nor a folder.")


def is_read(name: str) -> bool:
    """Whether loading a model could read a file of this name: one that is taken, but for licences and README.md."""
    return (_why_not(name) is None and not _FOR_PEOPLE.fullmatch(name)) or name == NETWORK


def could_run(name: str) -> bool:
    """Whether it is named as code, or as a format that can run code."""
    return name.lower().endswith((*_PICKLES, *_CODE))


def _why_not(name: str) -> str | None:
    lower = name.lower()
    if "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
        return "It lies in a folder; only files at the top are taken."
    if lower.endswith(_PICKLES):
        return "A pickle, or another format that can run code or is not read."
    if lower.endswith(_CODE):
        return "Code is never run."
    return None if _ALLOWED.fullmatch(name) else "No file that loading reads."


def _check_file(path: Path) -> None:
    size = path.stat().st_size
    if path.suffix.lower() == ".safetensors":
        _check_weights(path, size)
        return
    if path.name == NETWORK:  # what is in it is checked by the worker that opens it
        return
    if size > foreign_files.LONGEST_TEXT:
        raise _refused(f"{path.name!r} has {size:,} bytes, more than {foreign_files.LONGEST_TEXT:,}.")
    if path.suffix.lower() == ".json":
        _check_settings(path)


def _check_settings(path: Path) -> None:
    try:
        settings = json.loads(path.read_bytes())
        _check_depth(settings, 0)
    except (ValueError, RecursionError) as error:
        raise _refused(f"{path.name!r} is no JSON that can be read: {str(error)[:100]}.") from error
    if path.name.endswith(".index.json"):
        _check_index(path, settings)
    if not path.name.startswith(_VOCABULARIES):
        _check_entries(path, settings)


def _check_depth(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, depth + 1)


def _check_entries(path: Path, settings: Any) -> None:
    if isinstance(settings, list):
        for value in settings:
            _check_entries(path, value)
        return
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        if name in _CODE_KEYS and value:
            raise SpeciateError(
                Code.REFUSED,
                f"The model is not safe to load. {path.name!r} asks for code of its own ({name}), which is never run "
                "here: there is no approval for it.",
                "Use another model; most architectures have one whose code transformers brings itself.",
            )
        if name in _POINTERS and path.name != _ADAPTER and isinstance(value, str) and _leads_away(value):
            raise _refused(f"{path.name!r} points to {value[:100]!r} ({name}).")
        _check_entries(path, value)


def _leads_away(value: str) -> bool:
    return value.startswith(("/", "~", "\\")) or ".." in value.split("/") or "://" in value or value[1:2] == ":"


def _check_index(path: Path, settings: Any) -> None:
    """Every shard must lie beside the index."""
    shards = settings.get("weight_map") if isinstance(settings, dict) else None
    if not isinstance(shards, dict):
        raise _refused(f"{path.name!r} names no shards.")
    for shard in {str(name) for name in shards.values()}:
        if _why_not(shard) is not None or not shard.endswith(".safetensors"):
            raise _refused(f"{path.name!r} names {shard[:100]!r} as a shard.")
        if not (path.parent / shard).is_file():
            raise _cut(f"{path.name!r} names the shard {shard!r}, which is not there.")


def _check_weights(path: Path, size: int) -> None:
    """The format's own rules: https://github.com/huggingface/safetensors#format."""
    with foreign_files.open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            why = f"its header would have {length:,} bytes of {size:,}"
            raise _cut(f"{path.name!r} is cut, or no safetensors file: {why}.")
        header = file.read(length)
    try:
        entries = {name: each for name, each in json.loads(header).items() if name != "__metadata__"}
        spans = sorted(_span(each) for each in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise _refused(f"{path.name!r} is no safetensors file: {str(error)[:100]}.") from error
    end = 0
    for start, stop in spans:
        if start != end or stop < start:
            raise _refused(f"{path.name!r} has weights that overlap or leave a gap at byte {end:,}.")
        end = stop
    if end != size - 8 - length:
        raise _cut(f"{path.name!r} is cut or padded: its weights have {end:,} bytes, the file {size - 8 - length:,}.")


def _span(entry: Mapping[str, Any]) -> tuple[int, int]:
    start, stop = entry["data_offsets"]
    shape = [int(side) for side in entry["shape"]]
    if any(side < 0 for side in shape) or 8 * (stop - start) != math.prod(shape) * _BYTES[entry["dtype"]]:
        raise ValueError("a shape does not fit its bytes")
    return int(start), int(stop)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name[:100] for name in names[:5]) + more if names else "nothing"


def _cut(why: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The model is not whole. {why}",
        "Copy or fetch it anew, with config.json and the weights as safetensors, as save_pretrained writes them.",
    )


def _refused(why: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The model is not safe to load. {why}",
        "Use another one, or have its maker publish it as safetensors, without code of its own.",
    )


def scan(folder: Path) -> ScanResult:
    """Scan all files at the top of a folder, excluded ones too. Raises REFUSED if unpickling one would run code."""
    try:
        from picklescan.scanner import scan_bytes
    except ImportError:
        return ScanResult(None, 0)
    logging.getLogger(_PACKAGE).setLevel(logging.CRITICAL)  # its messages quote foreign names
    files, unread = 0, []
    for path in sorted(folder.iterdir()):
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST or path.suffix.lower() in _NOT_SCANNED:
            continue
        try:
            with foreign_files.open_file(path) as opened:
                found: Any = scan_bytes(opened, str(path), path.suffix)
        except Exception:  # noqa: BLE001 - the library's, on bytes that were made to confuse it
            unread.append(path.name)
            continue
        files += found.scanned_files
        unread += [path.name] if found.scan_err else []
        if found.issues_count:
            raise _refused_pickle(path.name, found)
    return ScanResult(f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}", files, tuple(unread))


def _refused_pickle(name: str, found: Any) -> SpeciateError:
    called = sorted({f"{each.module}.{each.name}"[:80] for each in found.globals if each.safety.name == "Dangerous"})
    return SpeciateError(
        Code.REFUSED,
        f"The model is not safe to load: {_PACKAGE} found code in {name!r}, which calls "
        f"{', '.join(called[:_SHOWN])!r}. Pickles are never taken, and of this folder nothing else is either.",
        "Do not use what this publisher made; find another model with search_models.",
    )
