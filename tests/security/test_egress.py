"""Rows leave by one way (`jobs/egress.py`), and no module opens another one unseen."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints import concurrent_calls
from speciate.evaluation.endpoints.chat_client import Request
from speciate.jobs.egress import Permit
from speciate.models.endpoints import Endpoint
from tests.test_floors import ROOT, SOURCE

ROOTS = (SOURCE, ROOT / "tools", ROOT / "resources", ROOT / "prompts")
SENDS_ROWS = {
    "evaluation/endpoints/chat_client.py": "requests to endpoints: `Chat` opens nothing without a permit for the host",
    "jobs/places/bucket_depot.py": "files into a bucket: `Mover.move_out` moves none without a permit",
    "jobs/places/folder_depot.py": "files into a shared folder: as into a bucket; it asks for this machine's name",
}
"""Modules by which rows of datasets go to other machines, and where they are held up."""
SENDS_NONE = {
    # to other machines
    "hf_hub.py": "reads from the hub: it asks for files and lists by name, and uploads nothing",
    "hosts.py": "looks at the peer of a connection before a byte is sent, and sends none",
    "jobs/places/ray_jobs.py": "tells Ray the command line of a node, which names a room of the depot and no row",
    "jobs/places/slurm.py": "tells Slurm a script with that command line",
    "jobs/places/node.py": "is on the node, where it starts the worker",
    "jobs/places/probe.py": "tries a place with a token that it made up",
    "loop/notifications.py": "tells a person's webhook or program names of jobs and models, never a cell",
    "models/backbones/image.py": "finds a file of the hub's cache on this disk",
    "models/fetch.py": "reads the front matter of a card",
    "models/published/published_model.py": "names an exception",
    "models/published/voice.py": "names an exception",
    "training/networks/data_parallel.py": "is on the nodes of one run, which have the rows: gradients go between them",
    "training/networks/rendezvous.py": "is where those nodes meet",
    # to whoever asks with a token: docs/security.md, "A client over the network"
    "server/service.py": "listens on this machine",
    "server/web/listener.py": "listens for a team, by way of a person's proxy",
    "serving/http_bounds.py": "bounds what a client of a deployment may send",
    "serving/process.py": "listens on this machine",
    # to other processes of this machine
    "cli/confirmation.py": "runs a person's ssh-keygen",
    "cli/install_command.py": "runs the programs of clients that it is installed for",
    "cli/system_service.py": "runs systemctl",
    "cli/user_service.py": "runs systemctl",
    "evaluation/predictors/memory_use.py": "starts a process of ours that loads a model",
    "exports/card_check.py": "starts a process that runs the program of an exported card",
    "exports/reload_check.py": "starts a process of ours that loads an export",
    "governance/approval_signatures.py": "runs ssh-keygen on a message that is signed",
    "jobs/executors.py": "starts supervisors, and talks with zygotes over unix sockets",
    "jobs/forks.py": "names a socket that a fork inherits",
    "jobs/places/lease.py": "asks for the name of the node",
    "jobs/places/unpack.py": "becomes the worker",
    "jobs/supervisor.py": "starts the worker",
    "jobs/zygote.py": "talks over unix sockets",
    "predictions/maintenance.py": "starts itself anew",
    "sandbox/process.py": "starts sandboxed processes",
    "sandbox/syscall_filter.py": "takes sockets from sandboxed processes",
    "sandbox/warm.py": "talks over unix sockets",
    "sandbox/warm_child.py": "talks over unix sockets",
    "sandbox/warm_parent.py": "talks over unix sockets",
    "server/dial.py": "talks with the daemon over its unix socket",
    "server/protocol.py": "talks over unix sockets",
    "serving/deployments.py": "starts the processes of deployments",
    "serving/predict.py": "asks a deployment over its unix socket",
    "unix_sockets.py": "talks over unix sockets",
}
"""Modules that open connections or start programs, each with the reason why no row leaves this machine by it."""

_LIBRARIES = (
    "socket", "ssl", "socketserver", "subprocess", "multiprocessing", "http.client", "http.server",
    "urllib.request", "xmlrpc", "smtplib", "ftplib", "poplib", "imaplib", "telnetlib", "pty", "httpx", "httpx2",
    "httpcore", "httpcore2", "requests", "urllib3", "aiohttp", "websockets", "websocket", "grpc", "paramiko",
    "asyncssh", "fabric", "zmq", "redis", "obstore", "boto3", "botocore", "s3fs", "gcsfs", "adlfs", "fsspec",
    "smart_open", "huggingface_hub", "pyarrow.fs", "uvicorn", "wandb", "mlflow", "comet_ml", "openai",
    "anthropic", "ray", "submitit", "torch.distributed.rpc",
)  # fmt: skip
"""Libraries by which something may leave; one that is imported is a way out."""
_CALLS = (
    "system", "popen", "execv", "execve", "execvp", "execvpe", "execl", "execle", "execlp", "execlpe", "spawnv",
    "spawnve", "spawnvp", "spawnl", "spawnlp", "posix_spawn", "posix_spawnp", "open_connection",
    "create_connection", "open_unix_connection", "create_subprocess_exec", "create_subprocess_shell",
    "connect_tcp", "open_process", "run_process", "urlopen", "urlretrieve", "push_to_hub", "upload_file",
    "upload_folder", "TCPStore", "init_process_group",
)  # fmt: skip
"""Calls that open a way without an import of its own."""
_SYSTEM = "platform"
"""Its `system()` starts nothing."""
_NAMED = "|".join(each.replace(".", r"\b[\s\S]{0,300}?\b") for each in _LIBRARIES)
_MAYBE = re.compile(
    rf"^[ \t]*(?:import|from)\s[^\n]*?\b(?:{_NAMED})\b|\b(?:{'|'.join(_CALLS)})\(|import_module\(|__import__",
    re.MULTILINE,
)
"""What is worth parsing."""


def ways_out(source: str) -> set[str]:
    """The libraries and calls by which the code could send something."""
    if not _MAYBE.search(source):
        return set()
    return {each for node in ast.walk(ast.parse(source)) for each in _ways(node)}


def _ways(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (each.name for each in node.names if _is_library(each.name))
        case ast.ImportFrom(module=str(module)):
            yield from {name for each in node.names if _is_library(name := f"{module}.{each.name}")}
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name)) if name in _CALLS and owner != _SYSTEM:
            yield name
        case ast.Call(func=ast.Attribute(attr=name)) if name in _CALLS and name != "system":
            yield name
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield name
        case ast.Call(args=[ast.Constant(value=str(name)), *_]) if _is_library(name) and _imports(node.func):
            yield name
        case _:
            pass


def _imports(function: ast.expr) -> bool:
    return "import" in (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""))


def _is_library(module: str) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in _LIBRARIES)


def _found() -> dict[str, set[str]]:
    files = [path for root in ROOTS for path in sorted(root.rglob("*.py"))]
    named = {path: str(path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT)) for path in files}
    return {name: ways for path, name in named.items() if (ways := ways_out(path.read_text()))}


def test_each_module_that_could_send_something_says_why_no_row_leaves_by_it() -> None:
    listed = SENDS_ROWS.keys() | SENDS_NONE.keys()
    found = _found()
    new = {name: ways for name, ways in found.items() if name not in listed}
    assert not new, f"A new way out of this machine? Rows go by jobs/egress.py; else say here why none does: {new}"
    assert not listed - found.keys() - {"jobs/places/folder_depot.py"}, "what opens nothing any more is not listed"
    assert all(len(reason) > 10 for reason in (SENDS_ROWS | SENDS_NONE).values())


@pytest.mark.parametrize(
    "added",
    [
        "import socket", "from urllib import request", "from urllib.request import urlopen", "import http.client",
        "def f():\n    import httpx2", "import requests as r", "from obstore.store import S3Store",
        "import subprocess as s", "os.system('scp rows host:')", "os.popen('nc host 1')", "os.execvp('ssh', args)",
        "await asyncio.open_connection('host', 1)", "await anyio.connect_tcp('host', 1)",
        "importlib.import_module('ssl')", "__import__('socket')", "from pyarrow import fs",
        "dataset.push_to_hub('them/theirs')", "import huggingface_hub", "torch.distributed.init_process_group('gloo')",
    ],
)  # fmt: skip
def test_a_new_way_out_is_seen(added: str) -> None:
    assert ways_out(f"import json\n{added}\n" if "await" not in added else f"async def f():\n    {added}\n")


def test_what_only_looks_like_one_is_none() -> None:
    assert not ways_out("import platform\nfrom urllib.parse import quote\nplatform.system()\nsocket_name = 'ssl'\n")


ONLY_IN = {
    "Permit": {"jobs/egress.py"},
    "Chat": {"evaluation/endpoints/concurrent_calls.py"},
    "Mover": {"jobs/places/executor.py"},
    "move_out": {"jobs/places/executor.py"},
    "write_sent": {"jobs/places/executor.py"},
    "open_depot": {"jobs/places/executor.py"},
    "FolderDepot": {"jobs/places/depots.py"},
    "BucketDepot": {"jobs/places/depots.py"},
    "open_bucket": {"jobs/places/depots.py"},
}
"""Who may call what moves rows, or says that they may be moved."""
SENDERS = {
    "evaluation/endpoints/cached_client.py", "evaluation/endpoints/endpoint_fingerprint.py",
    "loop/watch/teach_endpoint.py",
}  # fmt: skip
"""Who asks endpoints."""


def test_whatever_sends_rows_is_called_with_a_permit_and_by_nobody_else() -> None:
    senders = set[str]()
    for path in sorted(SOURCE.rglob("*.py")):
        name, text = str(path.relative_to(SOURCE)), path.read_text()
        if not any(word in text for word in (*ONLY_IN, "ask_all")):
            continue
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if called in ONLY_IN:
                assert name in ONLY_IN[called], f"{name}:{call.lineno} calls {called}"
            if called == "ask_all" and "evaluation.endpoints.concurrent_calls" in text:
                senders.add(name)
                assert any(each.arg == "permit" for each in call.keywords), f"{name}:{call.lineno} sends without one"
    assert senders == SENDERS


@pytest.mark.parametrize("permit", [None, Permit("api.example.org", frozenset({"lesions"}))])
def test_without_a_permit_for_its_very_host_an_endpoint_is_not_called(
    permit: Permit | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*rest: object, **more: object) -> None:
        raise AssertionError("nothing is opened, nor a name asked for")

    for name in ("socket.getaddrinfo", "socket.socket.connect"):
        monkeypatch.setattr(name, never)
    with pytest.raises(SpeciateError, match=r"no permit to send anything to api\.example\.com") as caught:
        concurrent_calls.ask_all(
            Endpoint(base_url="https://api.example.com/v1", model="m"), [_request()], key=None,
            record=lambda place, reply: None, permit=permit,
        )  # fmt: skip
    assert caught.value.code is Code.REFUSED


def _request() -> Request:
    return Request([{"role": "user", "content": "secret"}], 10)
