"""Private addresses are asked only where a person listed the host: what counts is the peer of the socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from speciate import hosts
from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints.chat_client import Reply, Request
from speciate.evaluation.endpoints.concurrent_calls import Limits, ask_all
from speciate.jobs.egress import Permit
from speciate.models.endpoints import Endpoint
from speciate.settings import load
from speciate.workspace.workspace import Workspace
from tests.evaluation.predictors.answering import Answering, answering
from tests.models.hub_server import serving as hub_serving
from tests.models.test_fetch import GOOD, fetched

NAME, PUBLIC = "models.example", "93.184.216.34"
QUESTION = [Request([{"role": "user", "content": "x: 1\ny: 1"}], 8)]
LIMITS = Limits(attempts=2, backoff_s=0.01)
"""A name that nobody knows is tried again, as one would be whose server is away: at once, not after 30 s in all."""


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as server:
        yield server


def lead(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """NAME leads to these, one after another, then to the last; returns what each time was told."""
    real, told = socket.getaddrinfo, list[str]()

    def ask(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return real(host, port, *rest, **options)
        told.append(addresses[min(len(told), len(addresses) - 1)])
        return real(told[-1], port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    return told


def asked(url: str, listed: tuple[str, ...]) -> Reply:
    replies: dict[int, Reply] = {}
    endpoint = Endpoint.model_construct(base_url=url, model="m", secret=None, usd_per_1m_input=0, usd_per_1m_output=0)
    permit = Permit(endpoint.host, frozenset())  # what is allowed to leave may still lead to where nothing is asked
    ask_all(
        endpoint, QUESTION, key=None, record=replies.__setitem__, private_hosts=listed, limits=LIMITS, permit=permit
    )
    return replies[0]


# Which addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "255.255.255.255", "224.0.0.1", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "::10.0.0.1", "fec0::1",
        "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "2002:a9fe:a9fe::",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_open_internet_is_known_in_every_spelling(address: str) -> None:
    assert not hosts.is_public(address)
    assert not hosts.may_reach(address, NAME, 443, ())


@given(st.ip_addresses(v=4))
def test_a_public_address_needs_no_listing_and_wrapping_changes_nothing(address: Any) -> None:
    public = address.is_global and not address.is_multicast
    assert hosts.may_reach(str(address), NAME, 443, ()) == public == hosts.is_public(f"::ffff:{address}")


@pytest.mark.parametrize(
    ("address", "listed", "may"),
    [
        ("10.0.0.1", (NAME,), True),
        ("10.0.0.1", (f"{NAME}:443",), True),
        ("10.0.0.1", (f"{NAME}:8000",), False),
        ("10.0.0.1", ("10.0.0.1",), False),
        ("10.0.0.1", (f"www.{NAME}",), False),
        ("169.254.169.254", (NAME,), False),
    ],
)
def test_a_listing_is_of_a_host_and_its_port(address: str, listed: tuple[str, ...], may: bool) -> None:
    assert hosts.may_reach(address, NAME, 443, listed) == may


def test_a_link_local_address_must_be_listed_itself() -> None:
    assert hosts.may_reach("169.254.169.254", "169.254.169.254", 80, ("169.254.169.254",))


# Endpoints


def test_a_listed_host_is_asked(server: Answering) -> None:
    assert asked(f"http://127.0.0.1:{server.server_port}/v1", (f"127.0.0.1:{server.server_port}",)).text == "yes"


@pytest.mark.parametrize("host",     [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "localhost.",
        "[::ffff:127.0.0.1]", "LOCALHOST", "0", "127.0.0.1%00", "[::127.0.0.1]",
    ],
)  # fmt: skip
def test_this_machine_is_asked_under_no_name_that_is_not_listed(server: Answering, host: str) -> None:
    reply: Reply | None = None
    refused: SpeciateError | None = None
    try:
        reply = asked(f"http://{host}:{server.server_port}/v1", ())
    except SpeciateError as error:
        refused = error
    assert server.asked == []
    if reply is not None:
        assert reply.text is None, "a name that nobody here knows"
        return
    assert refused is not None
    assert refused.code is Code.REFUSED
    assert "no person listed that host" in refused.message
    assert refused.recovery.endswith(f"speciate hosts add {host.strip('[]').lower()}:{server.server_port}")


def test_a_public_name_that_leads_here_is_refused(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    lead(monkeypatch, "127.0.0.1")
    with pytest.raises(SpeciateError, match=r"models\.example:\d+ leads to 127\.0\.0\.1"):
        asked(f"http://{NAME}:{server.server_port}/v1", ())
    assert server.asked == []


def test_a_name_that_leads_elsewhere_when_it_is_asked_again_gains_nothing(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is looked up, this machine when it is connected to."""
    told = lead(monkeypatch, PUBLIC, "127.0.0.1")
    with pytest.raises(SpeciateError, match=r"leads to 127\.0\.0\.1"):
        asked(f"http://{NAME}:{server.server_port}/v1", ())
    assert told[:2] == [PUBLIC, "127.0.0.1"], "else this tests another thing"
    assert server.asked == []


def test_without_the_guard_the_same_name_would_be_asked(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    lead(monkeypatch, PUBLIC, "127.0.0.1")
    monkeypatch.setattr(hosts, "guard", lambda client, listed: client)
    socket.getaddrinfo(NAME, 1)
    assert asked(f"http://{NAME}:{server.server_port}/v1", ()).text == "yes"


# The hub


def test_a_mirror_that_the_environment_names_is_reached_but_no_other_host_by_its_redirect(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    with (
        hub_serving({"org/good": dict(GOOD)}) as hub,
        redirecting(hub.endpoint.replace("127.0.0.1", "127.0.0.2")) as url,
    ):
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(SpeciateError, match=r"127\.0\.0\.2:\d+ is no public address"):
            fetched(workspace, "hf:org/good")
        assert hub.asked == []
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert fetched(workspace, "hf:org/good", attempt=2)["model"] == "theirs@v1"


def test_a_hub_whose_name_leads_here_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", f"http://{NAME}")
    lead(monkeypatch, "169.254.169.254")
    with pytest.raises(SpeciateError, match="leads to 169"):
        fetched(workspace, "hf:org/good")


@contextmanager
def redirecting(target: str) -> Iterator[str]:
    """A server that sends everybody on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                path = connection.recv(1 << 16).split(b" ")[1].decode()
                answer = (
                    f"HTTP/1.1 307 On\r\nLocation: {target}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                connection.sendall(answer.encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


# Redirects


class Elsewhere(NamedTuple):
    url: str
    heard: list[str]
    """Heads of what was asked."""


@contextmanager
def listening(location: str = "", status: int = 307) -> Iterator[Elsewhere]:
    """A server that sends everybody on, or answers where there is no `location`; and keeps what it was told."""
    listener, heard = socket.create_server(("127.0.0.1", 0)), list[str]()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(1 << 16).decode())
                head = f"{status} On\r\nLocation: {location}" if location else "200 OK"
                connection.sendall(f"HTTP/1.1 {head}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Elsewhere(f"http://127.0.0.1:{listener.getsockname()[1]}", heard)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_endpoint_sends_nobody_on(status: int) -> None:
    """Not to this machine, nor with the key to another host that is listed."""
    with listening() as other, listening(f"{other.url}/v1/chat/completions", status) as first:
        replies: dict[int, Reply] = {}
        endpoint = Endpoint(base_url=f"{first.url}/v1", model="m", secret="mine")
        with pytest.raises(SpeciateError, match="redirect"):
            ask_all(
                endpoint, QUESTION, key="s3cr3t-key-of-mine", record=replies.__setitem__,
                private_hosts=(first.url[7:], other.url[7:]),
            )  # fmt: skip
        assert "s3cr3t-key-of-mine" in first.heard[0]
        assert other.heard == []


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "unix:///run/docker.sock", "gopher://127.0.0.1/x", "//[", ""]
)
def test_a_redirect_leads_to_nothing_but_http(location: str) -> None:
    """Where a client follows at all, as that of the hub does."""
    with listening(location or "http://") as first:
        client = hosts.guard(httpx2.Client(follow_redirects=True), (first.url[7:],))
        with client, pytest.raises((httpx2.HTTPError, httpx2.InvalidURL, SpeciateError)):
            client.get(first.url)


def test_where_redirects_are_followed_a_key_stays_with_its_host_and_each_connection_is_looked_at() -> None:
    with listening() as other, listening(other.url) as first:
        listed = (first.url[7:], other.url[7:])
        head = {"Authorization": "Bearer s3cr3t-key-of-mine"}
        with hosts.guard(httpx2.Client(follow_redirects=True, headers=head), listed) as client:
            assert client.get(first.url).status_code == 200
        assert "s3cr3t" in first.heard[0]
        assert "s3cr3t" not in other.heard[0]
        client = hosts.guard(httpx2.Client(follow_redirects=True, headers=head), listed[:1])
        with client, pytest.raises(SpeciateError, match="no public address"):
            client.get(first.url)
        assert len(other.heard) == 1


def test_a_connection_that_is_kept_open_serves_no_other_host(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at for a listed name is not used for another name of the same machine."""
    lead(monkeypatch, "127.0.0.1")
    port, body = server.server_port, {"messages": [{"content": "x: 1\ny: 1"}]}
    with hosts.guard(httpx2.Client(), (f"127.0.0.1:{port}",)) as client:
        assert client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body).status_code == 200
        with pytest.raises(SpeciateError, match="no person listed that host"):
            client.post(f"http://{NAME}:{port}/v1/chat/completions", json=body)
    assert len(server.asked) == 1


# What an address may look like


@pytest.mark.parametrize(
    "url",
    [
        "https://user@api.example/v1", "https://user:pw@api.example/v1", "https://:pw@api.example/v1",
        "https://@api.example/v1", "https://api.example\\@evil.example/v1", "https://api.example/v1#x",
        "https://api.example/v1?key=x", "https://api.example:99999/v1", "https://api.example:x/v1", "file:///etc/passwd",
        "unix:///run/x.sock", "https:///v1", "https://api.example /v1", "https://api.example\t/v1", "https://äpi.example/v1",
        "http://169.254.169.254/v1", "http://10.0.0.1/v1",
        "https://2130706433/v1", "https://127.1/v1", "https://0x7f000001/v1", "https://0177.0.0.1/v1",
        "https://127.0.0.1./v1", "gopher://api.example/", "https://[::1/v1", "",
    ],
)  # fmt: skip
def test_an_address_with_anything_odd_in_it_is_none(url: str) -> None:
    with pytest.raises(ValidationError):
        Endpoint(base_url=url, model="m")


@given(
    st.text(st.sampled_from("ab.:/@\\[]%#?0x17-_ é"), min_size=1, max_size=20),
    st.sampled_from(["https://", "https:/", "HTTPS://"]),
)
def test_who_a_key_is_bound_to_is_who_is_asked(rest: str, scheme: str) -> None:
    """Two readers of addresses must not see two hosts in one."""
    try:
        endpoint = Endpoint(base_url=scheme + rest, model="m")
    except ValidationError:
        return
    try:
        seen = httpx2.URL(f"{endpoint.base_url}/chat/completions")
    except httpx2.InvalidURL:
        return
    assert endpoint.host.rpartition(":")[0] == seen.host if seen.port else endpoint.host == seen.host


# The library


def test_a_proxy_of_the_environment_is_the_peer(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    with hosts.guard(httpx2.Client(), ()) as client:
        body = {"messages": [{"content": "x: 1\ny: 1"}]}
        assert client.post(f"http://{NAME}/v1/chat/completions", json=body).status_code == 200


def test_settings_hold_hosts_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('private_hosts = ["LLM.corp:8000"]\n')
    assert load(tmp_path).private_hosts == ("llm.corp:8000",)
    (tmp_path / "settings.toml").write_text('private_hosts = ["http://llm.corp/v1"]\n')
    with pytest.raises(SpeciateError, match="is no host"):
        load(tmp_path)
