"""Keys are hidden in the text of others, however a library writes them, and in however many pieces."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import sys
import traceback
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.jobs.folder import RunFolder
from speciate.jobs.run import RedactedStream, Redaction, Run, redirect_logging

KEY = 'sk-proj/A+b"c\\d=9&x<y>zé'
WRITTEN: dict[str, Any] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "Python": repr,
    "bytes": lambda text: repr(text.encode()),
    "a URL": urllib.parse.quote,
    "a URL, all of it": lambda text: urllib.parse.quote(text, safe=""),
    "hexadecimal": lambda text: text.encode().hex(),
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "basic authorization": lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
    "base64 behind one": lambda text: base64.b64encode(f":{text}@".encode()).decode(),
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("key", [KEY, "sk-0123456789abcdefABCDEF", "hf_" + "x" * 34])
def test_a_key_is_hidden_however_it_is_written(how: str, key: str) -> None:
    written = WRITTEN[how](key)
    told = Redaction([key])(f"GET /x?key={written} failed")
    assert "[key]" in told
    assert written not in told
    rest = told.replace("GET /x?key=", "").replace(" failed", "").replace("[key]", "")
    assert len(rest) <= 12, "but for what stands around it"


@given(st.text(min_size=12, max_size=40), st.text(max_size=60), st.integers(1, 9))
def test_in_however_many_pieces_it_is_printed(key: str, around: str, size: int) -> None:
    out = io.StringIO()
    redaction = Redaction([key])
    stream, text = RedactedStream(out, redaction), f"{around}{key}{around}"
    for start in range(0, len(text), size):
        stream.write(text[start : start + size])
    stream.drain()
    assert key not in out.getvalue()


@given(st.lists(st.text(max_size=20), max_size=8))
def test_what_holds_no_key_comes_out_whole_and_in_order(pieces: list[str]) -> None:
    out = io.StringIO()
    stream = RedactedStream(out, Redaction(["sk-0123456789abcdef"]))
    stream.writelines(pieces)
    stream.drain()
    assert out.getvalue() == "".join(pieces)


def test_tracebacks_and_what_a_library_logs_by_a_handler_of_its_own_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logger = logging.getLogger("a_library_that_was_there_before")
    logger.addHandler(handler := logging.StreamHandler())
    logger.addHandler(last := logging.lastResort or handler)  # it has no stream of its own
    stream = RedactedStream(out, Redaction([KEY]))
    redirect_logging([(out, stream)])
    monkeypatch.setattr(sys, "stderr", stream)
    logger.warning("headers: %r", {"authorization": f"Bearer {KEY}"})
    try:
        raise ValueError(KEY)
    except ValueError:
        traceback.print_exc(file=stream)
    stream.drain()
    logger.removeHandler(handler)
    logger.removeHandler(last)
    assert out.getvalue().count("[key]") == 3
    assert "sk-proj" not in out.getvalue()


def test_what_a_run_says_of_its_progress_hides_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create({"payload": {}, "job": "job-x", "workspace": str(tmp_path)})
    Run(folder, {"openai": KEY}).progress(1, 2, "calls", f"asking with {KEY}")
    assert "sk-proj" not in (folder.path / "progress.jsonl").read_text()


def test_a_run_without_keys_hides_nothing() -> None:
    assert not Redaction([])
    assert not Redaction([""]), "which would be everywhere"
