"""What is said to Ray's REST interface, and what is understood of its answers."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from speciate.jobs.job import Resources
from speciate.jobs.places import ray_jobs
from speciate.jobs.places.cluster import Finding, Launch
from speciate.jobs.places.ray_jobs import RayJobs, _Answer
from speciate.jobs.places.verdict import Status
from speciate.settings import Place
from tests.jobs.places.cluster import until
from tests.jobs.places.ray_double import TOKEN, RayDouble
from tests.server.web.tls_proxy import certificate


@pytest.fixture
def double(tmp_path: Path) -> Iterator[RayDouble]:
    ray = RayDouble(tmp_path / "cluster")
    yield ray
    ray.close()


def launch(double: RayDouble, name: str = "speciate-1-job-x.1", **asked: float) -> Launch:
    argv = ["/bin/sh", "-c", "env; echo it\\'s one"]
    return Launch(name, argv, Resources.model_validate(asked), double.jobs / "log")


def findings(double: RayDouble, **place: object) -> dict[str, Finding]:
    return {each.name: each for each in RayJobs(double.place(**place)).findings()}


def test_resources_are_asked_for_and_an_entrypoint_never_runs_on_the_head(double: RayDouble) -> None:
    ray = RayJobs(double.place())
    ray.launch(launch(double, cpu=2.5, gpu=2, memory_mb=3000))
    ray.launch(launch(double, "bare"))
    bare, asked = (json.loads(path.read_text()) for path in sorted(double.jobs.glob("*.words")))
    assert (asked["entrypoint_num_cpus"], asked["entrypoint_num_gpus"], asked["entrypoint_memory"]) == (
        2.5,
        2,
        3000 << 20,
    )
    assert bare["entrypoint_num_cpus"] >= 1, "without a resource Ray starts it on the head"
    assert "runtime_env" not in bare, "whoever holds the token may read it"


def test_several_nodes_are_as_many_jobs_each_with_its_share_and_number(double: RayDouble) -> None:
    ray = RayJobs(double.place())
    double.set("full")
    ray.launch(launch(double, "a", cpu=4, gpu=2, memory_mb=3000, nodes=2))
    ray.launch(launch(double, "a", cpu=4, gpu=2, memory_mb=3000, nodes=2))
    assert list(double.known) == ["a", "a.1"]
    for body in double.known.values():
        asked = [body[f"entrypoint_{name}"] for name in ("num_cpus", "num_gpus", "memory")]
        assert asked == [2, 1, 1500 << 20]
    first, second = (body["entrypoint"] for body in double.known.values())
    assert second == f"{first} 1"
    assert ray.statuses(["a"]) == {"a": Status.PENDING}
    ray.stop("a", force=False, nodes=2)
    assert [body["status"] for body in double.known.values()] == ["STOPPED", "STOPPED"]


def test_a_run_gets_nothing_of_what_ray_has_in_its_environment(
    double: RayDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    ray = RayJobs(double.place())
    ray.launch(launch(double))
    until(lambda: ray.statuses(["speciate-1-job-x.1"])["speciate-1-job-x.1"] is Status.DEAD, 10)
    said = ray.log(launch(double))
    assert "it's one" in said
    assert "CUDA_VISIBLE_DEVICES=3,1" in said
    assert "PATH=" in said
    for secret in ("sesame", TOKEN):
        assert secret not in said
        assert secret not in "".join(path.read_text() for path in double.jobs.glob("*.words"))


def test_a_node_of_a_bucket_keeps_its_role(double: RayDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token")
    monkeypatch.setenv("AWS_PROFILE", "other")
    for name, keys in (("folder", {}), ("bucket", {"depot": "s3://bucket/x"})):
        ray = RayJobs(double.place(**keys))
        ray.launch(launch(double, name))
        until(lambda ray=ray, name=name: ray.statuses([name])[name] is Status.DEAD, 10)  # type: ignore[misc]
        said = ray.log(launch(double, name)).splitlines()
        assert ("AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/token" in said) is (name == "bucket")
        assert "AWS_PROFILE=other" not in said


def test_launched_twice_it_is_there_once(double: RayDouble) -> None:
    double.set("full")
    ray = RayJobs(double.place())
    for _ in range(3):
        ray.launch(launch(double))
    assert len(double.launches()) == 1


def test_what_found_no_room_for_ray_s_quarter_of_an_hour_is_launched_again(double: RayDouble) -> None:
    double.set("full")
    ray = RayJobs(double.place())
    ray.launch(launch(double))
    double.set("starved")
    assert ray.statuses(["speciate-1-job-x.1"]) == {"speciate-1-job-x.1": Status.UNKNOWN}, "it never began: no loss"
    ray.launch(launch(double))
    assert len(double.launches()) == 2
    double.unset("starved")
    assert ray.statuses(["speciate-1-job-x.1"]) == {"speciate-1-job-x.1": Status.PENDING}


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("PENDING", Status.PENDING), ("RUNNING", Status.RUNNING), ("SUCCEEDED", Status.DEAD), ("FAILED", Status.DEAD),
        ("STOPPED", Status.DEAD), ("WHATEVER", Status.SILENT),
    ],
)  # fmt: skip
@pytest.mark.parametrize("others", [0, 40])
def test_states_of_ray(double: RayDouble, said: str, status: Status, others: int) -> None:
    double.set("full")
    ray = RayJobs(double.place())
    ray.launch(launch(double, "a"))
    double.set("says", said)
    names = ["a", *(f"unknown-{number}" for number in range(others))]
    before = len(double.asked)
    assert ray.statuses(names) == {"a": status} | dict.fromkeys(names[1:], Status.UNKNOWN)
    assert len(double.asked) - before == 1, "of many runs one listing tells"


def test_a_stop_of_what_waits_and_of_what_nobody_knows(double: RayDouble) -> None:
    double.set("full")
    ray = RayJobs(double.place())
    ray.launch(launch(double, "a"))
    ray.stop("a", force=False)
    ray.stop("b", force=True)
    assert ray.statuses(["a", "b"]) == {"a": Status.DEAD, "b": Status.UNKNOWN}


@pytest.mark.parametrize("trouble", ["away", "wrong token", "no token", "nobody"])
def test_no_answer_is_an_error_and_no_state(double: RayDouble, trouble: str) -> None:
    place = double.place(**({"address": "http://127.0.0.1:1"} if trouble == "nobody" else {}))
    if trouble == "away":
        double.set("away")
    elif trouble.endswith("token"):
        double.token.write_text("sesame" if trouble == "wrong token" else "\n")
    ray = RayJobs(place)
    for call in (lambda: ray.statuses(["a"]), lambda: ray.statuses([*"abcdefgh"]), lambda: ray.launch(launch(double)),
                 lambda: ray.stop("a", force=True)):  # fmt: skip
        with pytest.raises(OSError) as raised:  # noqa: PT011 - whatever it says of the trouble
            call()
        assert "sesame" not in str(raised.value)
    assert [each.ok for each in ray.findings()] == [False]


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"submission_id": []}]', '{"status": null}', "[]", '"x"', "null"])
def test_a_garbled_answer_is_no_end_of_a_run(double: RayDouble, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RayJobs, "_ask", lambda *_, **__: _Answer(200, text))
    ray = RayJobs(double.place())
    for names in (["a"], [*"abcdefgh"]):
        try:
            assert set(ray.statuses(names).values()) <= {Status.SILENT, Status.UNKNOWN}
        except ConnectionError:
            continue
    with suppress(ConnectionError):
        assert ray.log(launch(double)) == ""


def test_a_token_of_other_bytes_is_no_token(double: RayDouble) -> None:
    double.token.write_bytes(b"\xff\xfe")
    with pytest.raises(PermissionError, match="no token"):
        RayJobs(double.place()).statuses(["a"])


@pytest.mark.parametrize("begins", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
@pytest.mark.parametrize("tls", [False, True])
def test_an_answer_that_drips_comes_to_an_end(
    double: RayDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bytes, *, tls: bool
) -> None:
    """Each read is answered in time; all of it never is. A body that ends with its connection would look whole."""
    monkeypatch.setattr(ray_jobs, "_SECONDS", 0.5)
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()
    scheme, context = "http", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls:
        scheme, files = "https", certificate(tmp_path, "localhost")
        context.load_cert_chain(*files)
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))

    def drip() -> None:
        with listener, suppress(OSError):
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) if tls else connection as stream:
                stream.recv(1 << 16)
                stream.sendall(begins)
                while not over.wait(0.05):
                    stream.sendall(b"[")

    dripping = threading.Thread(target=drip)
    dripping.start()
    end = threading.Timer(20, over.set)
    end.start()
    try:
        with pytest.raises(ConnectionError, match="without an end"):
            RayJobs(double.place(address=f"{scheme}://localhost:{listener.getsockname()[1]}")).statuses(["a"])
        assert not over.is_set()
    finally:
        over.set()
        end.cancel()
        dripping.join()


@pytest.mark.parametrize("answer", [["a", "list"], "a text"])
def test_another_service_there_is_an_error_and_no_state(
    double: RayDouble, answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayJobs, "_ask", lambda *_, **__: _Answer(200, json.dumps(answer)))
    ray = RayJobs(double.place())
    with pytest.raises(ConnectionError):
        ray.statuses(["a"])
    assert not next(ray.findings()).ok
    monkeypatch.setattr(RayJobs, "_ask", lambda *_, **__: _Answer(200, "<html>"))
    with pytest.raises(ConnectionError, match="JSON"):
        ray.statuses([*"abcdefgh"])


def test_whoever_listens_without_a_token_is_named(double: RayDouble) -> None:
    found = findings(double)
    assert list(found) == ["cluster", "token"]
    assert "2.60.0" in found["cluster"].what
    assert found["token"].ok
    double.set("open")
    assert not findings(double)["token"].ok
    assert "RAY_AUTH_MODE=token" in findings(double)["token"].what
    assert not findings(double, token_file=None)["token"].ok
    double.unset("open")
    double.token.chmod(0o640)
    assert "chmod 600" in findings(double)["token_file"].what
    assert "token_file" in findings(double, token_file=None)["cluster"].what


def test_plain_http_beyond_this_machine_is_refused_and_named_where_it_is_allowed(
    double: RayDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="plain HTTP"):
        double.place(address="http://ray.example.org:8265")
    for fine in ("https://ray.example.org", "http://127.9.9.9:1", "http://[::1]:8265", "http://localhost:8265"):
        assert double.place(address=fine).address == fine
    allowed = RayJobs(double.place(address="http://ray.example.org:8265", allow_plain=True))
    monkeypatch.setattr(allowed, "_address", double.address)
    assert "plain HTTP" in {each.name: each.what for each in allowed.findings()}["transport"]


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
def test_a_certificate_is_checked_however_the_address_is_written(
    double: RayDouble, tmp_path: Path, scheme: str
) -> None:
    """Whoever listens there with a certificate of their own sees no token."""
    context, seen = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[bytes]()
    context.load_cert_chain(*certificate(tmp_path, "localhost"))
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
            seen.append(stream.recv(1 << 16))

    listening = threading.Thread(target=answer, daemon=True)
    listening.start()
    ray = RayJobs(double.place(address=f"{scheme}://localhost:{listener.getsockname()[1]}"))
    with listener, pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        ray.statuses(["a"])
    listening.join(10)
    assert seen in ([], [b""])


def test_an_address_is_kept_with_its_scheme_in_small_letters(double: RayDouble) -> None:
    assert double.place(address="HTTPS://Ray.example.org/A").address == "https://Ray.example.org/A"
    with pytest.raises(ValidationError, match="plain HTTP"):
        double.place(address="HTTP://ray.example.org")
    place = double.place(depot="s3://bucket/x", endpoint="HTTP://127.0.0.1:1")
    assert place.endpoint == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": None}, {"address": "127.0.0.1:8265"}, {"address": "https://ada:sesame@ray.example.org"},
        {"address": "ftp://127.0.0.1"}, {"options": ["--partition=gpu"]}, {"programs": "/usr/bin"},
        {"token_file": "relative"},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    good = {"kind": "ray", "depot": "/shared", "python": "python3", "address": "http://127.0.0.1:8265"}
    assert Place.model_validate(good).address
    with pytest.raises(ValidationError):
        Place.model_validate({**good, **wrong})


def test_ray_is_never_imported_and_http_only_once_it_is_needed() -> None:
    script = """
import sys
from speciate.jobs.places.places import Places
from speciate.jobs.places.clusters import open_cluster
from speciate.settings import Place
open_cluster(Place(kind="ray", depot="/d", python="p", address="http://127.0.0.1:1"))
print(sorted({"ray", "obstore", "httpx2"} & {name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
