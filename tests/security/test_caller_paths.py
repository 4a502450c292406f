"""Every tool argument that takes a path, with everything evil that can lie at one: an error that names it, in time, and
the daemon stays as small as it was. A real daemon, real pipes, sockets, links and holes of a gigabyte."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.models import model_folder, trust
from speciate.models.backbones import architectures
from speciate.models.language import causal_lm as language_bases
from speciate.sandbox import user_code
from speciate.training.planning import base_models
from speciate.training.train_spec import Payload, TrainSpec
from speciate.workspace.workspace import Workspace
from tests.server.processes import Daemons, Stdio, end

_SECONDS = 60.0
"""For any answer; what hangs does so for ever."""
_MOST_MB = 200
"""What the daemon may grow by in all of this."""
_CONFIG = {"model_type": "bert", "architectures": ["BertForCausalLM"], "vocab_size": 10, "hidden_size": 8}
_HUGE = (1 << 30) + 8

Evil = Callable[[Path], None]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # the path of a socket may have 108 bytes
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, _HUGE)


def _huge_header(path: Path) -> None:
    """Of safetensors: it says that its header has a gigabyte, and it has."""
    path.write_bytes((_HUGE - 8).to_bytes(8, "little"))
    os.truncate(path, _HUGE)


def _out(path: Path) -> None:
    path.symlink_to(path.parents[_up(path)] / "outside.json")


def _up(path: Path) -> int:
    return next(number for number, parent in enumerate(path.parents) if parent.name == "inside") + 1


EVILS: dict[str, Evil] = {
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link out": _out,
    "a gigabyte of nothing": _sparse,
}
FILES = ("config.json", "tokenizer.json", "model.safetensors", "backbone.json", "predictor.json", "files.json")
"""What is read of a folder of weights."""


def _model(folder: Path) -> Path:
    """A folder that plans take for a language model, and for an encoder of texts."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"x": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return folder


TAKES_A_FOLDER: dict[str, tuple[str, Callable[[str], Mapping[str, Any]]]] = {
    "register_model source": ("register_model", lambda path: {"name": "m", "source": f"path:{path}"}),
    "train_model base_model": (
        "train_model",
        lambda path: {"name": "m", "dataset": "texts", "method": "probe", "base_model": f"path:{path}"},
    ),
    "train_model base_model, lora": (
        "train_model",
        lambda path: {"name": "m", "dataset": "texts", "method": "lora", "base_model": f"path:{path}"},
    ),
    "train_model base_model, sft": (
        "train_model",
        lambda path: {
            "name": "m", "dataset": "texts", "method": "sft", "task": "text-generation", "base_model": f"path:{path}",
        },
    ),
    "train_model teacher": (
        "train_model",
        lambda path: {
            "name": "m", "dataset": "texts", "method": "distill", "task": "text-generation",
            "teacher": f"path:{path}", "base_model": "pkg:smollm2",
        },
    ),
    "plan_training base_model": ("plan_training", lambda path: {"dataset": "texts", "base_model": f"path:{path}"}),
    "plan_training measure": (
        "plan_training",
        lambda path: {"dataset": "texts", "base_model": f"path:{path}", "method": "probe", "measure": True},
    ),
    "specialize base_models": (
        "specialize",
        lambda path: {"use_case": "u", "dataset": "texts", "budget_minutes": 1, "base_models": [f"path:{path}"]},
    ),
}  # fmt: skip
TAKES_A_FILE: dict[str, tuple[str, str, Callable[[str], Mapping[str, Any]]]] = {
    "create_dataset source": ("x.csv", "create_dataset", lambda path: {"name": "d", "source": path, "label": "label"}),
    "create_dataset labels": (
        "x.csv",
        "create_dataset",
        lambda path: {
            "name": "d", "source": str(Path(path).parents[1] / "media"), "labels": {"path": path, "key": "file"},
        },
    ),
    "add_examples source": ("x.csv", "add_examples", lambda path: {"dataset": "texts", "source": path}),
    "evaluate_models code": (
        "x.py",
        "evaluate_models",
        lambda path: {"models": [f"code:{path}:predict"], "dataset": "texts", "use_case": "u"},
    ),
    "evaluate_models inspect": (
        "x.json",
        "evaluate_models",
        lambda path: {"models": [f"inspect:{path}"], "dataset": "texts", "use_case": "u"},
    ),
    "evaluate_models scorer": (
        "x.py",
        "evaluate_models",
        lambda path: {"models": ["constant:"], "dataset": "texts", "use_case": "u", "scorer": f"{path}:score"},
    ),
    "train_model reward": (
        "x.py",
        "train_model",
        lambda path: {
            "name": "m", "dataset": "texts", "method": "grpo", "task": "text-generation", "base_model": "pkg:smollm2",
            "hyperparameters": {"rewards": [{"kind": "python", "file": f"{path}:score"}]},
        },
    ),
    "train_model environment": (
        "x.py",
        "train_model",
        lambda path: {
            "name": "m", "dataset": "texts", "method": "grpo", "task": "text-generation", "base_model": "pkg:smollm2",
            "hyperparameters": {"environment": {"file": f"{path}:Desk"}},
        },
    ),
    "predict path": ("x.csv", "predict", lambda path: {"model": "none", "inputs": [{"path": path}]}),
}  # fmt: skip


class Asker:
    """A client that gives up waiting: what it was answered, and how the daemon fared."""

    def __init__(self, shell: Stdio, daemon: psutil.Process) -> None:
        self._shell, self._daemon = shell, daemon
        self._frames: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(AssertionError, ValueError, OSError):
            while True:
                self._frames.put(self._shell.next())

    def call(self, tool: str, arguments: Mapping[str, Any], seconds: float = _SECONDS) -> dict[str, Any] | None:
        """The result; None where there was none in time."""
        wanted, deadline = self._shell.begin(tool, dict(arguments)), time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                frame = self._frames.get(timeout=left)
                if frame.get("id") == wanted and "method" not in frame:
                    result: dict[str, Any] = frame.get("result") or {"isError": True, "content": [{"text": str(frame)}]}
                    return result
        return None

    def peak_mb(self) -> float:
        text = Path(f"/proc/{self._daemon.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) / 1024


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("paths")
    (place / "inside" / "media").mkdir(parents=True)
    (place / "inside" / "media" / "a.txt").write_text("one")
    (place / "outside.json").write_text(json.dumps(_CONFIG | {"secret": "TOPSECRET"}))
    return place


@pytest.fixture(scope="module")
def asker(place: Path) -> Iterator[Asker]:
    workspace = place / "workspace"
    workspace.mkdir()
    (workspace / "settings.toml").write_text(f'policy = "auto"\nroots = ["{place / "inside"}"]\n')
    daemons = Daemons(workspace)
    daemon = psutil.Process(daemons.start().pid)
    shell = Stdio(workspace)
    shell.initialize()
    asker = Asker(shell, daemon)
    rows = [{"text": f"word {n} {'good' if n % 2 else 'bad'}", "label": "ab"[n % 2]} for n in range(60)]
    started = asker.call("create_dataset", {"name": "texts", "rows": rows, "label": "label"}, 60)
    assert started is not None
    assert not started.get("isError"), started
    ended = asker.call("wait_for_job", {"job": started["structuredContent"]["job"], "timeout_seconds": 30}, 60)
    assert ended is not None
    assert ended["structuredContent"]["state"] == "succeeded", ended
    defined = asker.call(
        "define_use_case", {"name": "u", "task": "text-classification", "objective": {"metric": "accuracy"}}, 60
    )
    assert defined is not None
    assert not defined.get("isError"), defined
    yield asker
    end(shell.process)
    daemons.close()


def _free(path: Path) -> None:
    """Whoever waits for a writer of the pipe gets one, so that the next case begins with a daemon that is whole."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def _fault(asker: Asker, tool: str, arguments: Mapping[str, Any], evil: Path) -> str | None:
    """What is wrong with the answer, which must be an error in words; or a job, which must end in one."""
    answer = asker.call(tool, arguments)
    if answer is None:
        _free(evil)
        return "no answer"
    if not answer.get("isError") and (job := answer["structuredContent"].get("job")):
        answer = asker.call("wait_for_job", {"job": job, "timeout_seconds": 18})
        asker.call("control_job", {"job": job, "action": "cancel"})
        if answer is None or answer["structuredContent"]["state"] in ("queued", "running"):
            return "its job goes on"
        if answer["structuredContent"]["state"] == "succeeded":
            return "its job succeeded"
    said = json.dumps(answer)
    if "TOPSECRET" in said:
        return "it told what lies outside"
    if '"INTERNAL"' in said or "defect" in said:
        return f"a defect: {said[:200]}"
    return None


def _weights(argument: str, *, all_of_them: bool) -> list[tuple[str, str, Evil]]:
    """File, what it is, and how it gets so. Not `all_of_them`: each file is evil once, and each evil is somewhere."""
    first = list(TAKES_A_FOLDER).index(argument)
    kinds = list(EVILS.items())
    cases = [
        (name, *kinds[(first + number + turn) % len(kinds)])
        for number, name in enumerate(FILES) for turn in range(len(kinds) if all_of_them else 1)
    ]  # fmt: skip
    return [*cases, ("model.safetensors", "a header of a gigabyte", _huge_header)]


FOLDERS = [
    *(pytest.param(argument, argument.startswith("register"), id=argument) for argument in TAKES_A_FOLDER),
    *(
        pytest.param(argument, True, id=f"{argument}, all", marks=pytest.mark.slow)
        for argument in TAKES_A_FOLDER
        if not argument.startswith("register")
    ),
]
"""All that can lie at each file is tried where a model is registered, and of the other tools in the slow suite."""


@pytest.mark.parametrize(("argument", "all_of_them"), FOLDERS)
def test_a_folder_of_weights_with_something_evil_in_it_is_refused(
    argument: str, all_of_them: bool, asker: Asker, place: Path
) -> None:
    tool, arguments = TAKES_A_FOLDER[argument]
    before, faults = asker.peak_mb(), dict[str, str]()
    for number, (name, what, evil) in enumerate(_weights(argument, all_of_them=all_of_them)):
        folder = _model(place / "inside" / f"{argument.replace(' ', '-')}-{all_of_them}-{number}")
        (folder / name).unlink(missing_ok=True)
        evil(folder / name)
        if fault := _fault(asker, tool, arguments(str(folder)), folder / name):
            faults[f"{name} is {what}"] = fault
    assert faults == {}
    assert asker.peak_mb() - before < _MOST_MB


@pytest.mark.parametrize("argument", TAKES_A_FILE)
def test_a_file_that_is_something_evil_is_refused(argument: str, asker: Asker, place: Path) -> None:
    name, tool, arguments = TAKES_A_FILE[argument]
    before, faults = asker.peak_mb(), dict[str, str]()
    for number, (what, evil) in enumerate(EVILS.items()):
        path = place / "inside" / f"{argument.replace(' ', '-')}-{number}" / name
        path.parent.mkdir()
        evil(path)
        if fault := _fault(asker, tool, arguments(str(path)), path):
            faults[what] = fault
    assert faults == {}
    assert asker.peak_mb() - before < _MOST_MB


# What is swapped in after it was looked at


def _swapped(monkeypatch: pytest.MonkeyPatch, swap: Callable[[], None]) -> None:
    """`swap` happens when a folder was found to be good."""
    check = foreign_files.check_folder

    def checked(folder: Path) -> None:
        check(folder)
        swap()

    monkeypatch.setattr(foreign_files, "check_folder", checked)


@pytest.mark.parametrize("what", EVILS)
def test_a_file_that_is_swapped_after_the_check_gains_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside.json").write_text('{"secret": "TOPSECRET"}')
    folder, target = _model(tmp_path / "inside" / "model"), tmp_path / "copy"
    target.mkdir()

    def swap() -> None:
        (folder / "tokenizer.json").unlink()
        EVILS[what](folder / "tokenizer.json")

    _swapped(monkeypatch, swap)
    with pytest.raises(SpeciateError) as refused:
        trust.take(folder, target)
    assert refused.value.code is Code.REFUSED
    assert all(b"TOPSECRET" not in path.read_bytes() for path in target.iterdir() if path.stat().st_size < 1000)


def test_a_folder_that_is_swapped_for_a_link_after_the_check_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "way").mkdir()
    (tmp_path / "secret").mkdir()
    folder, target = _model(tmp_path / "way" / "model"), tmp_path / "copy"
    _model(tmp_path / "secret" / "model")
    target.mkdir()

    def swap() -> None:
        (tmp_path / "way").rename(tmp_path / "gone")
        (tmp_path / "way").symlink_to(tmp_path / "secret")

    _swapped(monkeypatch, swap)
    with pytest.raises(SpeciateError, match="cannot be read"):
        trust.take(folder, target)
    assert list(target.iterdir()) == []


def test_a_training_reads_a_copy_that_trust_has_seen(workspace: Workspace, tmp_path: Path) -> None:
    """Whoever changes the folder while it trains changes nothing; and settings that ask for code are refused."""
    theirs = _model(tmp_path / "model")
    run_folder = RunFolder(tmp_path / "run")
    run_folder.create({"payload": {}, "job": "job-x", "workspace": str(workspace.folders.root)})
    spec = TrainSpec(name="m", dataset="d", method="sft", base_model=f"path:{theirs}")
    payload = Payload.model_construct(spec=spec, base_folder=str(theirs), teachers=())
    with base_models.copy_caller_folders(Run(run_folder), payload) as copied:
        (theirs / "config.json").write_text("{}")
        assert copied.base_folder is not None
        assert Path(copied.base_folder).name == theirs.name, "cached vectors are known by it"
        assert json.loads((Path(copied.base_folder) / "config.json").read_bytes()) == _CONFIG
    assert not Path(copied.base_folder).exists(), "a copy of gigabytes outlives no run"
    (theirs / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(SpeciateError, match="asks for code"), base_models.copy_caller_folders(Run(run_folder), payload):
        pass


def test_a_cache_of_the_hub_is_refused_with_the_way_to_use_it(tmp_path: Path) -> None:
    """Its files are links to others that are named by their content."""
    blobs, snapshot = _model(tmp_path / "blobs"), tmp_path / "snapshot"
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    with pytest.raises(SpeciateError, match="links are not followed") as refused:
        model_folder.check_weights(snapshot)
    assert "cp -rL" in refused.value.recovery


def test_code_that_is_nested_too_deep_or_too_long_is_an_error_in_words(tmp_path: Path) -> None:
    for name, text in (("deep.py", "-" * 200_000 + "1"), ("brackets.py", "[" * 100_000), ("long.py", "#" * (1 << 21))):
        (tmp_path / name).write_text(text)
        with pytest.raises(SpeciateError) as refused:
            user_code.describe_function(tmp_path / name, "score", "Name another.")
        assert refused.value.code is Code.INVALID


@given(st.binary(max_size=200))
def test_settings_may_hold_any_bytes(data: bytes) -> None:
    """What is read of them or said of them is no defect."""
    with tempfile.TemporaryDirectory() as name:
        folder = _model(Path(name) / "m")
        (folder / "config.json").write_bytes(data)
        assert architectures.modality_of(f"path:{folder}") in (None, *architectures.FILES)
        assert language_bases.is_causal_lm(folder) in (True, False)
        (folder / "backbone.json").write_bytes(data)
        with contextlib.suppress(SpeciateError):
            architectures.modality_of(f"path:{folder}")
