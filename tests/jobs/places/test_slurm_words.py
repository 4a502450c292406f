"""What is said to Slurm's programs, and what is understood of their answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from speciate.errors import SpeciateError
from speciate.jobs.job import Resources
from speciate.jobs.places.cluster import Launch
from speciate.jobs.places.slurm import Slurm
from speciate.jobs.places.verdict import Status
from speciate.settings import Place, Settings
from tests.jobs.places.cluster import Double, until


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path / "cluster")


def _launch(double: Double, **asked: float) -> tuple[str, str]:
    Slurm(double.place(options=["--partition=gpu"])).launch(
        Launch("speciate-1-job-x.1", ["true", "it's one"], Resources.model_validate(asked), double.jobs / "log")
    )
    (words,) = double.jobs.glob("*.words")
    return words.read_text(), words.with_suffix(".sh").read_text()


def test_resources_and_options_are_asked_for(double: Double) -> None:
    words, script = _launch(double, cpu=2.4, gpu=2, memory_mb=3000)
    for each in ("--cpus-per-task=2", "--gpus=2", "--mem=3000M", "--partition=gpu", "--no-requeue", "--export=NIL",
                 "--dependency=singleton", "--job-name=speciate-1-job-x.1", "--signal=B:TERM@60"):  # fmt: skip
        assert each in words.split()
    assert script.rstrip().endswith("true 'it'\"'\"'s one'")


def test_several_nodes_are_one_job_with_a_step_for_all_but_the_first(double: Double) -> None:
    double.set("full")
    words, script = _launch(double, cpu=6, gpu=3, memory_mb=3000, nodes=3)
    for each in ("--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=2", "--gpus-per-node=1",
                 "--mem=1000M"):  # fmt: skip
        assert each in words.split()
    assert words.index("--partition=gpu") < words.index("--nodes=3"), "what is ours counts"
    _shebang, step, first = script.splitlines()
    assert "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --relative=1 --cpus-per-task=2" in step
    assert step.endswith("< /dev/null &")
    assert first.startswith("exec env "), "the batch script is the first node's own process: signals reach it"


def test_each_node_is_started_with_its_number(double: Double, tmp_path: Path) -> None:
    said = Launch("n.1", ["sh", "-c", f'echo "$@" >> {tmp_path}/said', "sh"], Resources(nodes=3), double.jobs / "log")
    Slurm(double.place()).launch(said)
    until(lambda: (tmp_path / "said").exists() and len((tmp_path / "said").read_text().splitlines()) == 3, 20)
    assert sorted((tmp_path / "said").read_text().splitlines()) == ["", "1", "2"]


def test_the_script_holds_nothing_of_the_daemons_environment(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:sesame@proxy")
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    words, script = _launch(double)
    assert "sesame" not in words + script


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("PENDING", Status.PENDING), ("RUNNING", Status.RUNNING), ("COMPLETING", Status.RUNNING),
        ("NODE_FAIL", Status.DEAD), ("PREEMPTED", Status.DEAD), ("TIMEOUT", Status.DEAD), ("WHATEVER", Status.DEAD),
    ],
)  # fmt: skip
def test_states_of_slurm(double: Double, said: str, status: Status) -> None:
    double.set("says", said)
    assert Slurm(double.place()).statuses(["a", "b"]) == {"a": status, "b": status}


def test_no_answer_is_an_error_and_no_state(double: Double) -> None:
    assert Slurm(double.place()).statuses(["a"]) == {"a": Status.UNKNOWN}
    double.set("away")
    with pytest.raises(OSError, match="Unable to contact"):
        Slurm(double.place()).statuses(["a"])


def test_a_machine_without_slurms_programs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    place = Place(kind="slurm", depot=str(tmp_path), python="python3")
    with pytest.raises(ConnectionError, match="there is no squeue on the PATH of this machine: Slurm's programs"):
        Slurm(place).statuses(["a"])
    there = place.model_copy(update={"programs": tmp_path})
    with pytest.raises(ConnectionError, match=r"there is no squeue in .*`programs`"):
        Slurm(there).statuses(["a"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"depot": "relative"}, {"kind": "k8s"}, {"options": ["--requeue"]}, {"options": ["--job-name=x"]},
        {"options": ["gpu"]}, {"token": "x"}, {"runs": 0},
        {"address": "http://127.0.0.1:8265"}, {"token_file": "~/.ray/auth_token"},
        {"depot": "s3://"}, {"depot": "s3://b/../c"}, {"depot": "s3://bucket?x=1"}, {"endpoint": "https://s3.example.org"},
        {"depot": "s3://bucket", "endpoint": "http://s3.example.org"}, {"depot": "s3://bucket", "endpoint": "s3.org"},
        {"depot": "s3://bucket", "endpoint": "https://key:sesame@s3.example.org"},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Place.model_validate({"kind": "slurm", "depot": "/shared", "python": "python3", **wrong})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"depot": "/shared/x"}, {"depot": "/shared/./x/"}, True),
        ({"depot": "/shared/x"}, {"depot": "/shared/y"}, False),
        ({"depot": "s3://bucket/x"}, {"depot": "s3://bucket/x/", "region": "eu-central-1"}, True),
        ({"depot": "s3://bucket/x"}, {"depot": "s3://bucket/x", "endpoint": "https://s3.example.org"}, False),
        ({"depot": "s3://bucket/x"}, {"depot": "s3://bucket/y"}, False),
    ],
)
def test_two_places_have_two_depots(one: dict[str, object], other: dict[str, object], *, same: bool) -> None:
    places = {
        name: Place.model_validate({"kind": "slurm", "python": "python3", **keys})
        for name, keys in (("hpc", one), ("lab", other))
    }
    if not same:
        assert list(Settings(executors=places).executors) == ["hpc", "lab"]
        return
    with pytest.raises(ValidationError, match="'hpc' and 'lab' have one depot"):
        Settings(executors=places)


@pytest.mark.parametrize("name", ["here", "Lab", "a b", ""])
def test_names_of_places(name: str) -> None:
    place = Place(kind="slurm", depot="/shared", python="python3")
    with pytest.raises(ValidationError):
        Settings(executors={name: place})
    with pytest.raises(SpeciateError, match="lab"):
        Settings(executors={"lab": place}).place("moon")
