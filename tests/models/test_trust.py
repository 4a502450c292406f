"""What of a model folder is taken, and folders made to do harm, each refused with its reason."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save, save_file

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models import trust
from tests.drawn import drawn

CONFIG: dict[str, Any] = {"model_type": "bert", "hidden_size": 4}


def model(folder: Path) -> Path:
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.ones(5, np.float16)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder


def header(entries: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


class Boom:
    def __reduce__(self) -> Any:
        return os.system, ("echo it ran",)


def settings_of(**entries: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(CONFIG | entries))


def weights_of(data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(data)


def linked(to: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / "vocab.txt").unlink()
        (folder / "vocab.txt").symlink_to(to)

    return make


def index_of(*shards: str) -> Callable[[Path], object]:
    told = {"weight_map": {f"w{i}": shard for i, shard in enumerate(shards)}}
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps(told))


ONE = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
HARMFUL: dict[str, tuple[Callable[[Path], object], str]] = {
    "remote code": (settings_of(auto_map={"AutoModel": "modeling.Evil"}), "asks for code of its own"),
    "remote code below": (settings_of(text_config={"auto_map": {"A": "b"}}), "asks for code of its own"),
    "remote code in a list": (settings_of(parts=[{"auto_map": {"A": "b"}}]), "asks for code of its own"),
    "a backbone elsewhere": (settings_of(backbone="/etc/passwd"), "points to '/etc/passwd'"),
    "a base model from a server": (settings_of(base_model_name_or_path="http://10.0.0.1/x"), "points to"),
    "a vocabulary above": (settings_of(vocab_file="../../secret"), "points to"),
    "a link to a file outside": (linked("/etc/passwd"), "is a link"),
    "a link to nothing": (linked("gone"), "is a link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "pipe.json"), "neither a file nor a folder"),
    "a pickle called safetensors": (weights_of(pickle.dumps(Boom())), "no safetensors file"),
    "a header beyond the file": (weights_of(header(ONE, b"1234", length=2**40)), "no safetensors file"),
    "a header that is no JSON": (weights_of(header(b"{]", b"1234")), "no safetensors file"),
    "a header nested too deep": (weights_of(header(b"[" * 100_000, b"1234")), "no safetensors file"),
    "weights that end early": (weights_of(header(ONE, b"12")), "cut or padded"),
    "weights with something behind": (weights_of(header(ONE, b"1234" + b"payload")), "cut or padded"),
    "weights that overlap": (weights_of(header({**ONE, "b": ONE["a"]}, b"1234")), "overlap"),
    "a gap between weights": (
        weights_of(header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}, b"1234")), "leave a gap",
    ),
    "a shape that does not fit": (
        weights_of(header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"1234")), "does not fit",
    ),
    "an unknown type": (
        weights_of(header({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}, b"1234")), "no safetensors",
    ),
    "shards above the folder": (index_of("../model.safetensors"), "as a shard"),
    "a shard that is a pickle": (index_of("pytorch_model.bin"), "as a shard"),
    "a shard that is not there": (index_of("model-00001.safetensors"), "is not there"),
    "settings that are no JSON": (lambda folder: (folder / "config.json").write_text("{"), "no JSON"),
    "settings nested too deep": (
        lambda folder: (folder / "config.json").write_text('{"a":' * 90 + "1" + "}" * 90), "nested too deep",
    ),
}  # fmt: skip


def test_a_model_of_weights_settings_and_words_is_taken(tmp_path: Path) -> None:
    (model(tmp_path) / "chat_template.jinja").write_text("{{ messages }}")
    trust.check(tmp_path)
    assert trust.choose(path.name for path in tmp_path.iterdir()).files == (
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "vocab.txt",
    )


def test_a_word_of_a_vocabulary_is_no_setting(tmp_path: Path) -> None:
    (model(tmp_path) / "vocab.json").write_text(json.dumps({"auto_map": 1, "weights": 2}))
    trust.check(tmp_path)


@pytest.mark.parametrize("name", HARMFUL)
def test_a_folder_made_to_do_harm_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    harm, why = HARMFUL[name]
    harm(model(tmp_path))
    with pytest.raises(SpeciateError, match=why) as refused:
        trust.check(tmp_path)
    assert refused.value.code is Code.REFUSED
    assert refused.value.recovery


def test_what_is_too_long_to_be_settings_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_files, "LONGEST_TEXT", 10)
    with pytest.raises(SpeciateError, match="more than 10"):
        trust.check(model(tmp_path))


def test_pickles_and_code_are_left_where_they_are_and_named() -> None:
    chosen = trust.choose(
        ["model.safetensors", "pytorch_model.bin", "modeling_evil.py", "1_Pooling/config.json", "a.exe", "evil.jinja"]
    )
    assert chosen.files == ("model.safetensors",)
    assert set(chosen.excluded) == {
        "pytorch_model.bin",
        "modeling_evil.py",
        "1_Pooling/config.json",
        "a.exe",
        "evil.jinja",
    }


def test_a_model_of_pickles_alone_is_refused_by_their_names() -> None:
    with pytest.raises(SpeciateError, match=r"pickles.*'pytorch_model\.bin'"):
        trust.choose(["config.json", "pytorch_model.bin"])
    with pytest.raises(SpeciateError, match="no weights"):
        trust.choose(["config.json"])


@settings(max_examples=drawn(150), deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3), end=st.integers(0, 300))
def test_damaged_weights_are_refused_or_what_the_library_reads(
    flips: list[tuple[int, int]], end: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(save({"a": np.zeros((3, 4), np.float32), "b": np.ones(5, np.float16)}))
    for place, value in flips:
        whole[place % len(whole)] = value
    cut = bytes(whole[: max(end, len(whole) - end)])
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    path.write_bytes(cut)
    with contextlib.suppress(SpeciateError):
        trust.check(path.parent)
        load(cut)  # what we let pass, the library reads: it raises otherwise
