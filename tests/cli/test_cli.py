"""The command line as a user meets it: real processes, a pseudo-terminal where a person is asked."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import speciate
from speciate import cli
from speciate.cli import call_command
from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.workspace.workspace import Workspace
from tests import forks
from tests.models.test_signature import make_keys, register
from tests.server.processes import CLI, MODERN, Daemons, end
from tests.server.terminals import at_terminal

COMMANDS = (
    "init", "serve", "call", "status", "stop", "doctor", "backup", "rebuild", "approve", "deny", "promote", "policy",
    "hosts",
    "sign", "verify", "allow", "disallow", "secret", "audit", "key",
)  # fmt: skip


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    yield daemons
    daemons.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """A workspace for tests that change nothing: one daemon, which the first of them starts."""
    daemons = Daemons(tmp_path_factory.mktemp("shared") / "workspace")
    daemons.workspace.mkdir()
    yield daemons
    daemons.close()


def run(daemons: Daemons, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return forks.run([*CLI, *arguments, "--workspace", str(daemons.workspace)], cwd=cwd)


def type_into(daemons: Daemons, *arguments: str, answer: str) -> tuple[str, int]:
    """Run a command on a pseudo-terminal and answer its question; what it showed, and its exit status."""
    return type_at(b"Type yes:", [*arguments, "--workspace", str(daemons.workspace)], answer)


def type_at(question: bytes, arguments: list[str], answer: str) -> tuple[str, int]:
    process, terminal = at_terminal([*CLI, *arguments])
    shown, deadline, answered = b"", time.monotonic() + 120, False
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux says so at the end
            break
        if not data:
            break
        shown += data
        if question in shown and not answered:
            os.write(terminal, answer.encode() + b"\n")
            answered = True
    os.close(terminal)
    return shown.decode(), process.wait()


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from speciate.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'pydantic', 'duckdb', 'mcp', 'numpy', 'subprocess'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for command in COMMANDS:
        assert f"\n    {command} " in shown
    assert shown.endswith("set()\n")


def test_the_package_runs_as_a_module_as_the_command_does() -> None:
    said = subprocess.run([sys.executable, "-m", "speciate", "--version"], capture_output=True, text=True, check=True)
    assert speciate.__version__ in said.stdout


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    assert speciate.__version__ == project["version"]
    assert (
        subprocess.run([*CLI, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
        == (project["version"])
    )


def test_init_makes_a_workspace_once_and_writes_the_policy(daemons: Daemons) -> None:
    made = run(daemons, "init", "--policy", "auto")
    assert made.returncode == 0
    assert f"speciate serve --workspace {daemons.workspace}" in made.stdout
    assert (daemons.workspace / "settings.toml").read_text() == 'policy = "auto"\n'
    again = run(daemons, "init", "--policy", "person")
    assert again.returncode == 1
    assert "is a workspace already" in again.stderr
    assert (daemons.workspace / "settings.toml").read_text() == 'policy = "auto"\n'


def test_call_prints_one_json_document_and_nothing_else(shared: Daemons) -> None:
    done = run(shared, "call", "list_jobs", "--args", '{"limit": 5}')
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"jobs": []}
    assert run(shared, "call", "list_jobs", "limit=5", "use_case=5").stdout == done.stdout  # 5 is a number and a name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["statsu"], "there is no 'statsu'; did you mean 'status'?"),
        (["deployment", "strat", "sorter"], "did you mean 'start'?"),
        (["audit", "lsit"], "did you mean 'list'?"),
    ],
)
def test_a_misspelt_command_is_told_what_was_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert said in capsys.readouterr().err


def test_a_workspace_that_nobody_named_is_said_to_be_made(tmp_path: Path) -> None:
    daemons = Daemons(tmp_path / ".speciate")
    variables = {name: value for name, value in os.environ.items() if name != "SPECIATE_HOME"}

    def run_unnamed(*arguments: str) -> subprocess.CompletedProcess[str]:
        return forks.run([*CLI, *arguments], cwd=tmp_path.parent, env=variables | {"HOME": str(tmp_path)})

    try:
        for looks in (("call", "get_status"), ("ledger",), ("status",), ("deployment", "list")):
            looked = run_unnamed(*looks)
            assert (looked.returncode, f"speciate init --workspace {daemons.workspace}" in looked.stderr) == (1, True)
        assert "Page size" in run_unnamed("call", "list_jobs", "--help").stdout
        assert "list_jobs" in run_unnamed("call").stdout
        assert not daemons.workspace.exists()
        use_case = ("call", "define_use_case", "name=sorter", "task=text-classification")
        first, second = run_unnamed(*use_case), run_unnamed("call", "get_status")
    finally:
        daemons.close()
    assert f"workspace was made in {daemons.workspace}" in first.stderr
    assert json.loads(second.stdout)["workspace"] == str(daemons.workspace)
    assert second.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list_jobs", "--args", '{"limt": 5}'), "did you mean 'limit'"),
        (("list_job",), "did you mean 'list_jobs'"),
        (("get_job", "--args", '{"job": "job-x"}'), "no job 'job-x'"),
        (("list_jobs", "--args", "{limit: 5}"), "--args is not JSON"),
        (("list_jobs", "--args", "[5]"), "not a JSON object"),
        (("list_jobs", "limit"), "Write limit=VALUE"),
        (("list_jobs", "limt=5"), "did you mean 'limit'"),
        (("list_jobs", "limit=many"), "'limit' is 'many', and must be a whole number"),
    ],
)
def test_a_refused_call_says_why_on_stderr_alone(shared: Daemons, arguments: tuple[str, ...], said: str) -> None:
    done = run(shared, "call", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_python_calls_the_same_tools_and_gets_the_code_of_an_error(shared: Daemons) -> None:
    client = shared.connect()
    assert client.call("list_jobs", limit=5) == {"jobs": []}
    with pytest.raises(SpeciateError) as caught:
        client.call("get_job", job="job-x")
    assert caught.value.code is Code.NOT_FOUND


def test_a_python_call_that_only_reads_survives_the_daemon(daemons: Daemons) -> None:
    client = daemons.connect()
    client.call("list_jobs")
    daemons.kill()
    assert client.call("list_jobs") == {"jobs": []}


def test_status_and_stop_start_nothing(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = run(daemons, "status")
    assert (looked.returncode, looked.stderr) == (0, "")
    assert "No daemon serves" in looked.stdout
    stopped = run(daemons, "stop")
    assert stopped.returncode == 1
    assert "No daemon serves" in stopped.stderr
    with monkeypatch.context() as patch:
        patch.setattr(forks, "executes", True)
        assert run(daemons, "call", "list_jobs").returncode == 0
    assert json.loads(run(daemons, "status").stdout)["pid"] == daemons.pid()
    assert run(daemons, "stop").returncode == 0


def test_backup_and_rebuild_bring_a_workspace_back(daemons: Daemons, tmp_path: Path) -> None:
    run(daemons, "call", "list_jobs")
    made = run(daemons, "backup", "copy", cwd=tmp_path)
    assert (made.returncode, "all compared with what was written" in made.stdout) == (0, True)
    assert (tmp_path / "copy" / "catalog.duckdb").exists()
    held = run(daemons, "rebuild")
    assert held.returncode == 1
    assert "speciate stop" in held.stderr
    daemons.close()
    (daemons.workspace / "catalog.duckdb").write_bytes(b"garbage" * 1000)
    (daemons.workspace / "catalog.duckdb.wal").unlink(missing_ok=True)
    assert "speciate rebuild" in run(daemons, "call", "list_jobs").stderr
    rebuilt = run(daemons, "rebuild")
    assert rebuilt.returncode == 0
    assert "Not restored: everything that only the catalog knew" in rebuilt.stdout
    assert run(daemons, "call", "list_jobs").returncode == 0


def test_the_audit_of_a_new_workspace_is_whole(shared: Daemons) -> None:
    assert run(shared, "audit", "verify").returncode == 0


@pytest.mark.parametrize("command", [("call", "list_jobs"), ("status",), ("stop",)])
def test_a_workspace_that_was_misspelt_is_not_made(daemons: Daemons, command: tuple[str, ...]) -> None:
    daemons.workspace.rmdir()
    done = run(daemons, *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"speciate init --workspace {daemons.workspace} makes one" in done.stderr
    assert not daemons.workspace.exists()


def test_call_without_a_tool_lists_them(shared: Daemons) -> None:
    done = run(shared, "call")
    assert (done.returncode, done.stderr) == (0, "")
    assert ["list_jobs", "List jobs, newest first."] in [line.split(None, 1) for line in done.stdout.splitlines()]


def test_call_shows_the_arguments_of_a_tool(shared: Daemons) -> None:
    done = run(shared, "call", "list_jobs", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    [limit] = [line.split(None, 3) for line in done.stdout.splitlines() if line.startswith("limit ")]
    assert (limit[1], limit[3]) == ("integer", "Page size (<= 500)")
    assert "usage: speciate call" in run(shared, "call", "--help").stdout
    wrong = run(shared, "call", "list_job", "--help")
    assert (wrong.returncode, "did you mean 'list_jobs'" in wrong.stderr) == (1, True)


def test_help_of_a_tool_asks_a_daemon_that_runs(
    shared: Daemons, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never() -> None:
        raise AssertionError("two seconds of imports")

    run(shared, "call", "get_status")
    monkeypatch.setattr(call_command, "_own_tools", never)
    assert cli.main(["call", "list_jobs", "--help", "--workspace", str(shared.workspace)]) == 0
    assert "Page size" in capsys.readouterr().out


def test_an_argument_is_read_from_a_file(shared: Daemons, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    (tmp_path / "limit.json").write_text("1")
    (tmp_path / "name.txt").write_text("predict.inputs")
    create = ("call", "create_dataset", "name=filed", "modality=text", "dry_run=true")
    made = run(shared, *create, f"rows=@{tmp_path}/rows.jsonl")
    assert json.loads(made.stdout)["resolved"]["looked_at"] == "all 2 rows"
    assert run(shared, "call", "list_jobs", f"limit=@{tmp_path}/limit.json").returncode == 0
    assert run(shared, "call", "list_options", "kind=argument", f"name=@{tmp_path}/name.txt").returncode == 0
    wrong = run(shared, *create, f"rows=@{tmp_path}/name.txt")
    assert (wrong.returncode, "the file is not JSON" in wrong.stderr) == (1, True)
    lost = run(shared, *create, f"rows=@{tmp_path}/lost.json")
    assert (lost.returncode, "cannot be read: No such file" in lost.stderr) == (1, True)


def test_a_batch_that_was_waited_for_shows_its_first_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text("row,output\n" + "".join(f"{number},good\x1b[31m\n" for number in range(1, 9)))
    call_command._show_answers({"kind": "predict", "result": {"path": str(answers)}})
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], len(lines)) == ("row,output", 6)
    assert "\x1b" not in lines[1]
    for other in ({"kind": "ingest", "result": {"path": str(answers)}}, {"kind": "predict", "result": None}):
        call_command._show_answers(other)
        assert capsys.readouterr().err == ""


def test_a_job_that_fails_is_shown_and_ends_the_command_with_1(daemons: Daemons, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("text\n")
    done = run(daemons, "call", "create_dataset", "name=bad", "source=bad.csv", "--wait", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"] == "failed"
    assert done.stderr.startswith("job-")


def test_call_writes_the_image_beside_a_result(daemons: Daemons, tmp_path: Path) -> None:
    rows = [{"text": f"a text {number}"} for number in range(4)]
    create = ("call", "create_dataset", f"rows={json.dumps(rows)}", "modality=text", "--wait")
    made = run(daemons, *create, "name=films")
    assert (made.returncode, json.loads(made.stdout)["result"]["dataset"]) == (0, "films@v1")
    preview = ("call", "preview_dataset", "--args", '{"dataset": "films"}')
    told = run(daemons, *preview)
    assert (told.returncode, "1 image(s) beside this: --image FILE.png" in told.stderr) == (0, True)
    done = run(daemons, *preview, "--image", str(tmp_path / "films.png"))
    assert json.loads(done.stdout) == json.loads(told.stdout)
    assert (tmp_path / "films.png").read_bytes().startswith(b"\x89PNG")
    assert run(daemons, *preview, "--image", str(tmp_path / "films.gif")).returncode == 1
    none = run(daemons, "call", "list_jobs", "--image", str(tmp_path / "none.png"))
    assert (none.returncode, "shows no image" in none.stderr, (tmp_path / "none.png").exists()) == (0, True, False)


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_what_is_no_port_is_refused(daemons: Daemons, port: str) -> None:
    done = run(daemons, "serve", f"--http={port}")
    assert done.returncode == 2
    assert "is no port" in done.stderr


def test_doctor_shows_every_part(daemons: Daemons) -> None:
    daemons.workspace.rmdir()
    done = run(daemons, "doctor")
    for part in ("duckdb", "classical", "minilm", "Sandbox", "fsync", "sockets"):
        assert part in done.stdout
    assert not daemons.workspace.exists()


# What only a person may do


def test_without_a_terminal_nobody_decides(daemons: Daemons) -> None:
    run(daemons, "init")
    for command in (
        ("policy", "auto"), ("approve", "approval-x"), ("deny", "approval-x"),
        ("allow", "lesions", "--host", "api.openai.com", "--usd", "5"), ("disallow", "lesions", "--host", "a.example"),
        ("hosts", "add", "127.0.0.1:8000"), ("sign", "own", "--key", "none.pem"),
    ):  # fmt: skip
        done = run(daemons, *command)
        assert done.returncode == 1
        assert "no terminal" in done.stderr
    assert run(daemons, "policy").stdout == "person\n"


def test_a_person_changes_the_policy_and_keeps_the_other_settings(daemons: Daemons) -> None:
    run(daemons, "init")
    settings = daemons.workspace / "settings.toml"
    settings.write_text('approval_hours = 5\npolicy = "person"\n\n[capacity]\ncpu = 1\n')
    run(daemons, "call", "list_jobs")
    shown, status = type_into(daemons, "policy", "auto", answer="no")
    assert (status, "Nothing was changed" in shown) == (1, True)
    _, status = type_into(daemons, "policy", "auto", answer="yes")
    assert status == 0
    assert tomllib.loads(settings.read_text()) == {"policy": "auto", "approval_hours": 5, "capacity": {"cpu": 1}}
    run(daemons, "call", "list_jobs")
    assert json.loads(run(daemons, "status").stdout)["policy"] == "auto"


def test_a_person_lists_a_host_on_this_machine_and_takes_it_away(daemons: Daemons) -> None:
    run(daemons, "init")
    endpoint = {"base_url": "http://127.0.0.1:8000/v1", "model": "own"}
    register = ("call", "register_model", "--args", json.dumps({"name": "own", "endpoint": endpoint}))
    assert json.loads(run(daemons, *register).stdout)["needs"] == ["speciate hosts add 127.0.0.1:8000"]
    shown, status = type_into(daemons, "hosts", "add", "127.0.0.1:8000", answer="no")
    assert (status, "Nothing was changed" in shown) == (1, True)
    _, status = type_into(daemons, "hosts", "add", "127.0.0.1:8000", answer="yes")
    assert status == 0
    assert run(daemons, "hosts", "list").stdout == "127.0.0.1:8000\n"
    assert json.loads(run(daemons, *register).stdout)["needs"] == []
    assert run(daemons, "audit", "verify").returncode == 0
    _, status = type_into(daemons, "hosts", "remove", "127.0.0.1:8000", answer="")
    assert (status, run(daemons, "hosts", "list").stdout) == (
        0,
        "No private host is allowed: speciate hosts add HOST allows one.\n",
    )


def test_a_person_signs_a_model_and_everybody_may_verify_it(daemons: Daemons, tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    run(daemons, "init")
    workspace = Workspace(daemons.workspace)
    register(workspace, tmp_path)
    workspace.close()
    keys = make_keys(tmp_path, "ours")
    key = ("--key", str(keys.private))
    unsigned = run(daemons, "verify", "own", "--key", str(keys.public))
    assert (unsigned.returncode, unsigned.stdout) == (1, "own@v1: none. It has no model.sig.\n")
    shown, status = type_into(daemons, "sign", "own", *key, answer="no")
    assert (status, "Nothing was changed" in shown) == (1, True)
    shown, status = type_into(daemons, "sign", "own", *key, answer="yes")
    assert (status, "own@v1, " in shown) == (0, True), shown
    verified = run(daemons, "verify", "own", "--key", str(keys.public))
    assert (verified.returncode, "own@v1: valid. Signed by ours.pub.pem" in verified.stdout) == (0, True)
    assert run(daemons, "audit", "verify").returncode == 0


def test_a_person_sees_what_is_decided_and_denies_it(daemons: Daemons) -> None:
    workspace = Workspace(daemons.workspace)
    asked = workspace.database.transact(
        lambda tx: approvals.request(
            tx, "promote", {"use_case": "triage", "model": "m@v1"}, {"delta": 0.04}, subject="use_case:triage", hours=1
        )
    )
    workspace.close()
    shown, status = type_into(daemons, "deny", asked.id, answer="yes")
    assert status == 0, shown
    assert '"model": "m@v1"' in shown
    assert '"delta": 0.04' in shown
    again, status = type_into(daemons, "deny", asked.id, answer="yes")
    assert status == 1
    assert "is denied" in again


ALLOW = ("allow", "lesions", "--host", "api.openai.com", "--usd", "5")


def test_a_person_allows_a_dataset_to_leave_and_takes_it_back(daemons: Daemons) -> None:
    daemons.workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = 'kind = "slurm"\ndepot = "/shared/depot"\npython = "/bin/python"\n'
    (daemons.workspace / "settings.toml").write_text(f"[executors.lab]\n{place}")
    assert "no dataset 'lesions'" in type_into(daemons, *ALLOW, answer="yes")[0]
    rows = [{"text": f"a text {number}", "label": "ab"[number % 2]} for number in range(4)]
    client = daemons.connect()
    job = client.call("create_dataset", name="lesions", rows=rows, label="label", modality="text")["job"]
    assert client.call("wait_for_job", job=job, timeout_seconds=45)["state"] == "succeeded"
    assert type_into(daemons, *ALLOW, answer="no")[1] == 1
    assert run(daemons, "allow", "--list").stdout == ""
    shown, status = type_into(daemons, *ALLOW, "--days", "2", answer="yes")
    assert status == 0, shown
    for said in ("4 examples of lesions@v1 (text)", "api.openai.com", "up to 5 USD in all", "for 2 days"):
        assert said in shown
    listed = run(daemons, "allow", "--list").stdout
    assert listed.startswith("lesions to api.openai.com: 0.00 of 5 USD spent, until ")
    assert run(daemons, "audit", "verify").stdout.startswith("1 rows")
    shown, status = type_into(daemons, "disallow", "lesions", "--host", "api.openai.com", answer="")
    assert (status, "Taken back: lesions to api.openai.com" in shown) == (0, True)
    assert run(daemons, "allow", "--list").stdout == ""
    assert run(daemons, "audit", "verify").stdout.startswith("2 rows")
    shown, status = type_into(daemons, "allow", "lesions", "--host", "lab", answer="yes")
    assert status == 0, shown
    for said in ("may then be moved to lab: into /shared/depot", "every node", "lesions to lab (/shared/depot), by "):
        assert said in shown
    assert "USD" not in shown
    assert run(daemons, "allow", "--list").stdout.startswith("lesions to lab (/shared/depot), by ")
    shown, status = type_into(daemons, "disallow", "lesions", "--host", "lab", answer="")
    assert (status, "Taken back: lesions to lab (/shared/depot)" in shown) == (0, True)
    assert "There is no dataset scans yet" in type_into(daemons, "allow", "scans", "--host", "lab", answer="no")[0]


@pytest.mark.parametrize("arguments", [(), ("lesions",), ("lesions", "--host", "a.example"), (*ALLOW[:-1], "much")])
def test_what_is_allowed_is_said_in_full(shared: Daemons, arguments: tuple[str, ...]) -> None:
    done = run(shared, *(arguments if arguments[:1] == ("allow",) else ("allow", *arguments)))
    assert done.returncode in (1, 2)
    assert "--usd" in done.stderr


# Keys


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "speciate" / "secrets.json"


def secret(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return forks.run([*CLI, "secret", *arguments], given=given)


def test_a_key_is_read_from_a_pipe_and_never_shown(keys: Path) -> None:
    done = secret("set", "openai", "--host", "api.openai.com", "--host", "eu.api.openai.com", given="sk-planted\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(keys.read_text())["openai"]["value"] == "sk-planted"
    listed = secret("list")
    assert listed.stdout.split()[:3] == ["openai", "api.openai.com,", "eu.api.openai.com"]
    assert "sk-planted" not in done.stdout + listed.stdout
    assert secret("remove", "openai").returncode == 0
    assert secret("list").stdout.startswith("No key is stored")
    again = secret("remove", "openai")
    assert (again.returncode, "no key 'openai'" in again.stderr) == (1, True)


def test_on_a_terminal_a_key_is_asked_for_without_echo(keys: Path) -> None:
    shown, status = type_at(b"(not shown): ", ["secret", "set", "openai", "--host", "api.openai.com"], "sk-planted")
    assert status == 0, shown
    assert "sk-planted" not in shown
    assert json.loads(keys.read_text())["openai"]["value"] == "sk-planted"


def test_a_key_is_no_argument(keys: Path) -> None:
    assert secret("set", "openai", "sk-planted", "--host", "api.openai.com").returncode == 2
    assert secret("set", "openai", given="sk-planted").returncode == 2  # without a host
    refused = secret("set", "openai", "--host", "api.openai.com", given="two\nlines-planted")
    assert (refused.returncode, "planted" in refused.stderr) == (1, False)
    assert not keys.exists()


# HTTP


def test_http_wants_the_token_and_lasts_as_long_as_its_command(daemons: Daemons) -> None:
    tokens = set()
    for _ in range(2):  # the same daemon serves it a second time
        server = forks.start(
            [*CLI, "serve", "--http", "0", "--workspace", str(daemons.workspace)], stdout=subprocess.PIPE
        )
        try:
            assert server.stdout
            url, header = (server.stdout.readline().decode().strip() for _ in range(2))
            tokens.add(token := header.removeprefix("Authorization: Bearer "))
            assert post(url, token) == 200
            assert post(url, "wrong") == 401
        finally:
            server.terminate()
            end(server)
        deadline = time.monotonic() + 120
        while daemons.control("status")["clients"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert post(url, token) == 0
    assert tokens == {(daemons.workspace / "http.token").read_text()}
    assert (daemons.workspace / "http.token").stat().st_mode & 0o777 == 0o600


def post(url: str, token: str) -> int:
    """The status of a tools/list over HTTP; 0 where nobody listens."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": MODERN}}
    headers = {
        "Authorization": f"Bearer {token}", "Content-Type": "application/json", "Mcp-Method": "tools/list",
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
    }  # fmt: skip
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=60
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
