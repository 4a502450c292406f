"""Staying signed in: over a restart of the daemon, and for how long; and who may decide after it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.governance.page_sessions import DECIDE_SECONDS, SESSIONS, Grant, KeptSessions, PageAccount, Sessions
from speciate.governance.roles import ACTS, Act
from speciate.server.control.dispatch import perform
from speciate.server.tool_api import App
from speciate.server.web.listener import Pages
from speciate.unix_sockets import own_account
from tests.conftest import ManualClock
from tests.governance import people
from tests.governance.people import Signer
from tests.server.web.conftest import Served
from tests.server.web.reader import Reader

KEY = {"name": "jane", "public": "00", "salt": "00", "nonce": "00", "sealed": "of jane"}
Restart = Callable[[], Sessions]


@pytest.fixture
def restart(clock: ManualClock, tmp_path: Path) -> Restart:
    """Sessions of a daemon that begins now."""
    kept = KeptSessions(tmp_path / SESSIONS, clock.now)
    return lambda: Sessions(clock.monotonic, kept=kept)


def begun(sessions: Sessions, level: Any = "decide") -> str:
    cookie = sessions.begin(sessions.new_link(Grant(PageAccount(*own_account()), level, (KEY,))))
    assert cookie
    return cookie


def test_a_session_outlives_its_daemon_with_its_forms_and_sealed_keys(restart: Restart, tmp_path: Path) -> None:
    before = restart()
    cookie = begun(before)
    was, file = before.find(cookie), tmp_path / SESSIONS
    assert was
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [each for each in (cookie, was.csrf, "of jane") if each in file.read_text()], "hashes and what is sealed"
    now = restart().find(cookie)
    assert now
    assert (now.csrf, now.keys, now.account.name) == (was.csrf, was.keys, was.account.name)


def test_an_ended_or_old_session_stays_ended(restart: Restart, clock: ManualClock) -> None:
    before = restart()
    left, old = begun(before), begun(before)
    before.end(left)
    assert restart().find(left) is None
    clock.advance(12 * 3600)
    assert restart().find(old) is None


def test_who_signs_out_everywhere_leaves_no_session(restart: Restart) -> None:
    before = restart()
    cookies = [begun(before), begun(before, "look")]
    session = before.find(cookies[0])
    assert session
    before.end_all(session)
    assert [restart().find(each) for each in cookies] == [None, None]


def test_a_clock_that_went_back_signs_everybody_out(tmp_path: Path, clock: ManualClock) -> None:
    cookie = begun(Sessions(clock.monotonic, kept=KeptSessions(tmp_path / SESSIONS, clock.now)))
    earlier = KeptSessions(tmp_path / SESSIONS, lambda: clock.now() - 60)
    assert Sessions(clock.monotonic, kept=earlier).find(cookie) is None


def test_deciding_goes_on_after_a_restart_only_where_no_key_is_enrolled(
    tmp_path: Path, clock: ManualClock, restart: Restart
) -> None:
    before = restart()
    cookie = begun(before)
    for enrolled in (False, True):
        after = Sessions(clock.monotonic, kept=KeptSessions(tmp_path / SESSIONS, clock.now), required=lambda: enrolled)  # noqa: B023 - at once
        session = after.find(cookie)
        assert session
        assert after.acts(session) == ACTS["look" if enrolled else "decide"]
    clock.advance(DECIDE_SECONDS)
    later = restart()
    session = later.find(cookie)
    assert session
    assert later.acts(session) == ACTS["look"], "left alone for too long, restart or not"


def test_what_an_open_page_asks_for_by_itself_is_no_use(served: Served, clock: ManualClock) -> None:
    reader = served.reader("decide")
    for mode in ("cors", "navigate"):
        clock.advance(DECIDE_SECONDS * 0.6)
        reader.get("/runs", **{"sec-fetch-mode": mode})
        decides = b"decides for" in reader.get("/runs", **{"sec-fetch-mode": "cors"}).body
        assert decides is (mode == "cors"), "the first does not count, so it is over at the second"


@pytest.fixture
def jane(served: Served) -> Iterator[Signer]:
    signer = Signer("jane")
    people.enroll(served.workspace, signer)
    yield signer
    people.forget(served.workspace)


def test_where_a_key_is_enrolled_a_session_that_decides_needs_its_signature(served: Served, jane: Signer) -> None:
    with pytest.raises(SpeciateError, match="sign"):
        perform(served.control, {"action": "open decide", "by": "a program"})
    opened = Reader(served.pages.open("decide", own_account(), ())).sign_in()  # as `open` gives it for a passkey
    assert "looks only" in opened.get("/").text
    csrf = opened.get("/").csrf
    rollback = {"csrf": csrf, "expected": "m@v1", "reason": "none"}
    assert opened.post("/use-cases/digits/rollback", rollback).status == 403


def test_a_session_decides_again_by_a_signature_in_the_browser(
    served: Served, jane: Signer, clock: ManualClock
) -> None:
    sealed = {**KEY, "public": jane.key.public}
    control, pages = served.control, served.pages
    object.__setattr__(control, "open_pages", pages.open)
    asked: Any = perform(control, {"action": "question", "about": {"action": "open decide"}})
    made = perform(control, {"action": "open decide", "keys": [sealed], "signed": jane.answer(asked)})
    reader = Reader(str(made["url"])).sign_in()
    assert "decides for" in reader.get("/").text
    clock.advance(DECIDE_SECONDS)
    assert "Passphrase" in reader.get("/decide").text
    csrf = reader.get("/").csrf
    unsigned = {"csrf": csrf, "hash": "-", "answer": "decide", "challenge": "none", "key": "none", "signature": "00"}
    assert reader.post("/decide/answer", unsigned).status in (400, 403)
    question = json.loads(reader.post("/decide/question", {"csrf": csrf}).body)
    signature = jane.private.sign(bytes.fromhex(question["message"])).hex()
    signed = {**unsigned, "challenge": question["challenge"], "key": jane.key.fingerprint, "signature": signature}
    answer = json.loads(reader.post("/decide/answer", signed).body)
    again = Reader(answer["next"]).sign_in()
    assert "decides for" in again.get("/").text
    assert served.reader("look").get("/decide").text.count("speciate open --decide") == 1


def test_pages_of_a_new_daemon_know_who_is_signed_in(served: Served) -> None:
    reader = served.reader()
    csrf = reader.get("/").csrf
    served.pages.close()
    served.pages = Pages(App(served.workspace, served.app.engine, served.app.pool), served.control)
    assert served.pages.port == reader.port
    assert reader.get("/").csrf == csrf
    assert Act.ANSWER not in ACTS["look"]
