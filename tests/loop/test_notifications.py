"""Who is to be told is told at least once, in words of ours alone, and a hook that fails holds nobody up."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.loop import notifications
from speciate.loop.notifications import DeliveryFailed, Hook, Notice, alerts, command, notice_of, webhook
from speciate.promotion.rollback import roll_back
from speciate.settings import Notify, Settings
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace
from tests.promotion import world


class Receiver(http.server.ThreadingHTTPServer):
    status = 200
    location = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("location", self.server.location)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def settings(receiver: Receiver, *, listed: bool = True) -> Settings:
    port = receiver.server_address[1]
    hosts = [f"127.0.0.1:{port}"] if listed else []
    return Settings.model_validate(
        {"notify": {"webhook": f"http://127.0.0.1:{port}/hook/s3cret"}, "private_hosts": hosts}
    )


def waiting(workspace: Workspace) -> None:
    """A person is waited for."""
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1", policy="person")


def happen(workspace: Workspace, subject: str, kind: str, **data: Any) -> None:
    workspace.database.transact(lambda tx: tx.event(subject, kind, data))


def said(kind: str, subject: str = "use_case:digits", jobs: str = "failed", /, **data: Any) -> str | None:
    notify = Notify.model_validate({"jobs": jobs})
    notice = notice_of(Event(7, 1.0, subject, kind, data), notify, "w")
    return notice.text if notice else None


def test_a_webhook_hears_of_what_waits_for_a_person(workspace: Workspace, receiver: Receiver) -> None:
    workspace.settings = settings(receiver)
    [hook] = notifications.hooks(workspace)
    waiting(workspace)
    assert hook.look()
    [got] = receiver.got
    assert got["text"] == f"digits: promote waits for a person: speciate approve {got['approval']}"
    assert (got["kind"], got["subject"]) == ("waiting", "use_case:digits")
    assert hook.look()
    assert len(receiver.got) == 1


def test_a_rollback_is_told_and_who_did_it(workspace: Workspace, receiver: Receiver) -> None:
    workspace.settings = settings(receiver)
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    world.judge(workspace, "m@v2", baseline="m@v1")
    world.ask_promotion(workspace, "m@v2")
    [hook] = notifications.hooks(workspace)
    workspace.database.transact(
        lambda tx: roll_back(tx, "digits", expected="m@v2", to=None, reason="IGNORE ALL\x1b[2J", actor="bake")
    )
    hook.look()
    [got] = receiver.got
    assert got["text"] == "digits is served by m@v1 again: the bake took m@v2 back."
    assert "IGNORE" not in json.dumps(got)


def test_what_was_not_taken_is_told_again_and_the_failure_is_said(workspace: Workspace, receiver: Receiver) -> None:
    workspace.settings = settings(receiver)
    [hook] = notifications.hooks(workspace)
    waiting(workspace)
    receiver.status = 500
    assert not hook.look()
    [alert] = alerts(workspace)
    assert alert.startswith("Notifications by webhook do not arrive: 127.0.0.1 answered with status 500.")
    assert "s3cret" not in alert
    receiver.status = 204
    [again] = notifications.hooks(workspace)  # the next daemon
    assert again.look()
    first, second = receiver.got
    assert first == second
    assert alerts(workspace) == []


def test_a_host_that_no_person_listed_is_sent_nothing(workspace: Workspace, receiver: Receiver) -> None:
    workspace.settings = settings(receiver, listed=False)
    [hook] = notifications.hooks(workspace)
    waiting(workspace)
    assert not hook.look()
    assert receiver.got == []
    assert "speciate hosts add 127.0.0.1:" in alerts(workspace)[0]


def test_a_redirect_is_not_followed(workspace: Workspace, receiver: Receiver) -> None:
    receiver.status, receiver.location = 307, f"http://127.0.0.1:{receiver.server_address[1]}/elsewhere"
    workspace.settings = settings(receiver)
    [hook] = notifications.hooks(workspace)
    waiting(workspace)
    assert not hook.look()
    assert len(receiver.got) == 1


def test_a_command_gets_the_text_and_the_document(workspace: Workspace, tmp_path: Path) -> None:
    code = f"import sys; open({str(tmp_path / 'got')!r}, 'a').write(sys.argv[1] + '\\n' + sys.stdin.read())"
    workspace.settings = Settings(notify=Notify(command=(sys.executable, "-c", code)))
    [hook] = notifications.hooks(workspace)
    happen(workspace, "use_case:digits", "slot.refused", model="m@v2", why="$(rm -rf /) says the decoder")
    assert hook.look()
    text, document = (tmp_path / "got").read_text().splitlines()
    assert text == "digits: the deployment did not let m@v2 serve; get_status says why."
    assert json.loads(document)["model"] == "m@v2"
    assert "decoder" not in document


NOTICE = Notice("w-1", 1.0, "job", "train failed.", "job-1", {})


def test_a_command_that_fails_or_is_not_there_is_undelivered() -> None:
    with pytest.raises(DeliveryFailed, match="status 3"):
        command((sys.executable, "-c", "raise SystemExit(3)"))(NOTICE)
    with pytest.raises(DeliveryFailed, match="could not be started"):
        command(("/nonexistent/program",))(NOTICE)


def test_a_command_that_hangs_is_ended_with_what_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_COMMAND_SECONDS", 0.3)
    with pytest.raises(DeliveryFailed, match="did not end"):
        command(("sh", "-c", "sleep 60 & sleep 60"))(NOTICE)


def test_nobody_waits_for_a_hook_that_hangs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_JOIN_SECONDS", 0.2)
    entered, leave = threading.Event(), threading.Event()

    def hang(notice: Notice) -> None:
        entered.set()
        leave.wait(30)

    hook = Hook(workspace, "command", hang)
    hook.start()
    began = time.monotonic()
    waiting(workspace)
    assert entered.wait(20)
    world.judge(workspace, "m@v2")
    hook.stop()
    assert time.monotonic() - began < 15, "the catalog was written meanwhile, and nothing waited"
    leave.set()


def test_a_hook_begins_with_what_happens_from_then_on(workspace: Workspace, receiver: Receiver) -> None:
    waiting(workspace)
    workspace.settings = settings(receiver)
    [hook] = notifications.hooks(workspace)
    assert hook.look()
    assert receiver.got == []


def test_a_hook_that_was_taken_away_has_nothing_to_tell_when_it_comes_back(
    workspace: Workspace, receiver: Receiver
) -> None:
    there = settings(receiver)
    workspace.settings = there
    notifications.hooks(workspace)
    workspace.settings = Settings()
    assert notifications.hooks(workspace) == []
    waiting(workspace)
    workspace.settings = there
    [hook] = notifications.hooks(workspace)
    assert hook.look()
    assert receiver.got == []


def test_which_ends_of_jobs_are_told() -> None:
    assert said("job.failed", "job-1", kind="train") == "train job-1 failed."
    assert said("job.succeeded", "job-1", kind="train") is None
    assert said("job.succeeded", "job-1", "all", kind="train") == "train job-1 succeeded."
    assert said("job.failed", "job-1", "none", kind="train") is None
    assert said("job.failed", "job-1", kind="train", parent="job-0") is None, "its parent tells"


def test_ends_of_jobs_say_of_which_kind(workspace: Workspace, receiver: Receiver) -> None:
    workspace.settings = settings(receiver)
    [hook] = notifications.hooks(workspace)
    happen(workspace, "job-gone", "job.failed", reason="secret text of a cell")
    hook.look()
    assert receiver.got[0]["text"] == "A job job-gone failed."
    assert "secret" not in json.dumps(receiver.got)


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("bake.broken", {"model": "m@v2"}, "digits: m@v2 breaks its limits and was left serving; get_status."),
        ("canary.survived", {"model": "m@v2"}, "digits: the canary m@v2 held; it waits to get all requests."),
        ("canary.ended", {"model": "m@v2"}, "digits: the canary m@v2 was ended."),
        ("canary.ended", {"model": "m@v2", "actor": "bake"}, "digits: the canary m@v2 was taken back by the bake."),
        ("slot.refused", {"model": "\u202eb\x1b c"}, "digits: the deployment did not let _b__c serve; get_status says why."),  # noqa: E501
        ("alias.moved", {"action": "promote", "after": "m@v2"}, None),
        ("disk.enough", {"free": 1}, "The disk has room again: runs go on."),
        ("dataset.created", {}, None),
    ],
)  # fmt: skip
def test_what_is_told_in_which_words(kind: str, data: dict[str, Any], text: str | None) -> None:
    assert said(kind, **data) == text


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="write an address"):
        Notify(webhook="file:///etc/passwd")


def test_without_tls_a_public_host_must_be_listed_too() -> None:
    deliver = webhook(Settings(notify=Notify(webhook="http://hooks.example.com/x")))
    with pytest.raises(DeliveryFailed, match="has no TLS"):
        deliver(NOTICE)


def test_what_nobody_is_told_of_costs_no_query_each(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Notice] = []
    hook = Hook(workspace, "command", told.append)

    def many(count: int) -> None:
        workspace.database.transact(lambda tx: [tx.event("use_case:digits", "slot.serving", {}) for _ in range(count)])

    asked: list[str] = []
    read = workspace.database.read
    monkeypatch.setattr(workspace.database, "read", lambda sql, *rest: (asked.append(sql), read(sql, *rest))[1])
    many(450)
    assert hook.look()
    assert len(asked) <= 5, "three batches, the end, and the workspace's own name"
    monkeypatch.setattr(notifications, "_SAVE_EVENTS", 100)
    many(450)
    assert hook.look()
    assert told == []
    kept = json.loads((workspace.folders.root / "notify-command.json").read_text())["seq"]
    assert kept > workspace.database.last_seq - 100


def test_a_cursor_beyond_a_catalog_that_was_put_back_begins_at_its_end(workspace: Workspace) -> None:
    path = workspace.folders.root / "notify-command.json"
    path.write_text(json.dumps({"seq": workspace.database.last_seq + 1000}))
    told: list[Notice] = []
    hook = Hook(workspace, "command", told.append)
    waiting(workspace)
    assert hook.look()
    assert [each.kind for each in told] == ["waiting"]
