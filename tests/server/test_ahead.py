"""What is made ready before it is asked for."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from speciate.server import ahead


@pytest.mark.parametrize(("cores", "asked"), [(2, ["data", "warm", "pace"]), (1, [])])
def test_data_are_expected_where_there_is_a_core_for_it(
    cores: int, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list[str]()
    monkeypatch.setattr(ahead, "cores", lambda: cores)
    monkeypatch.setattr(ahead, "reference_seconds", lambda: done.append("pace"))
    app: Any = SimpleNamespace(
        engine=SimpleNamespace(expect=done.append), pool=SimpleNamespace(warm=lambda: done.append("warm"))
    )
    ahead.expect_data(app)
    for each in threading.enumerate():
        if each.name == "get ready":
            each.join()
    assert done == asked


def test_what_needs_it_is_done_where_there_are_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asked = list[str]()
    monkeypatch.setattr(ahead, "cores", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    app: Any = SimpleNamespace(engine=SimpleNamespace(expect=asked.append))
    ahead.expect_data(app)
    assert asked == ["data"]
