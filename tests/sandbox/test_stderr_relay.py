"""Standard error of sandboxed processes: bounded, cleaned, and never the log's own descriptor."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from speciate.sandbox import Sandbox, is_complete, start
from speciate.sandbox.stderr_relay import LONGEST, MOST_BYTES, Relay, printable

FORGED = "2026-11-28 00:00:00,000 CRITICAL speciate.server: the workspace was approved"


def passed_on(tmp_path: Path, *parts: bytes) -> str:
    """What comes out of what one process wrote, in these parts."""
    with (tmp_path / "log").open("ab") as log:
        source, sink = os.pipe()
        stream = Relay(log.fileno()).add(source, "sandboxed 7 mine")
        for part in parts:
            os.write(sink, part)
        os.close(sink)
        assert stream.ended.wait(10)
    return (tmp_path / "log").read_text()


def test_each_line_says_whose_it_is(tmp_path: Path) -> None:
    text = passed_on(tmp_path, b"one\ntw", b"o\n" + FORGED.encode() + b"\n", b"\n\nno end")
    assert text.splitlines() == [f"[sandboxed 7 mine] {line}" for line in ("one", "two", FORGED, "no end")]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"\x1b[2J\x1b]0;title\x07 moved", "?[2J?]0;title? moved"),
        (b"10%\r20%\r100%", "100%"),
        (b"dos\r", "dos"),
        (b"\xff\xfe bytes", "�� bytes"),
        ("right\u202eto left\u2028line".encode(), "right?to left?line"),
        (b"x" * 10_000, "x" * LONGEST),
        ("é".encode() * 10_000, "é" * LONGEST),
        (b"a\0b", "a?b"),
    ],
)
def test_lines_are_cleaned(line: bytes, shown: str) -> None:
    assert printable(line) == shown


def test_a_line_without_an_end_takes_no_memory_and_is_cut(tmp_path: Path) -> None:
    text = passed_on(tmp_path, *[b"x" * 4096] * 8, b"\nnext\n")
    assert text.endswith("[sandboxed 7 mine] next\n")
    assert max(map(len, text.splitlines())) <= LONGEST + len("[sandboxed 7 mine] ")
    assert len(text) < 12_000


def test_of_a_flood_the_beginning_is_kept_and_nobody_blocks(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log:
        relay = Relay(log.fileno())
        source, sink = os.pipe()
        flood = relay.add(source, "flood")
        for number in range(4 * MOST_BYTES // 1000):
            os.write(sink, f"{number:0999}\n".encode())  # blocks for ever where nobody reads
        quiet_source, quiet = os.pipe()
        other = relay.add(quiet_source, "quiet")
        os.write(quiet, b"heard\n")
        for end in (quiet, sink):
            os.close(end)
        assert other.ended.wait(10)
        assert flood.ended.wait(10)
    text = (tmp_path / "log").read_text()
    assert "[quiet] heard\n" in text
    assert text.count("the rest is dropped") == 1
    assert len(text) < MOST_BYTES + 1000


def test_a_full_disk_or_closed_descriptor_of_ours_stops_nothing(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    source, sink = os.pipe()
    stream = Relay(full).add(source, "x")
    os.write(sink, b"lost\n")
    os.close(sink)
    assert stream.ended.wait(10)
    os.close(full)


@pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")
def test_a_sandboxed_process_floods_forges_and_truncates_in_vain(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import os, stat, sys\n"
        "print(stat.S_ISFIFO(os.fstat(2).st_mode), flush=True)\n"
        "try: os.ftruncate(2, 0)\nexcept OSError as error: print(error.errno)\n"
        f"os.write(2, b'before\\n{FORGED}\\n')\n"
        "for _ in range(400): os.write(2, b'y' * 9999 + b'\\n')\n"
        "print('wrote it all', flush=True)\n"
    )
    os.write(2, b"an earlier line\n")
    began = time.monotonic()
    process = start([sys.executable, "-I", "-c", code], Sandbox((), tmp_path))
    told = process.stdout.read().decode().split("\n")
    process.kill()
    assert told[0] == "True"
    assert told[1] == "22"
    assert told[2] == "wrote it all"
    assert time.monotonic() - began < 30
    lines = capfd.readouterr().err.splitlines()
    name = f"[sandboxed {process.pid} {Path(sys.executable).name}] "
    assert lines[0] == "an earlier line"
    assert lines[1:3] == [name + "before", name + FORGED]
    assert all(line.startswith(name) for line in lines[1:])
    assert sum(map(len, lines)) < MOST_BYTES + 4000
    assert "the rest is dropped" in lines[-1]
