from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from speciate.evaluation import answer_cache
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer, Journal
from speciate.privacy.purge_evaluations import purge_cached_answers
from speciate.privacy.redaction import PURGED
from speciate.workspace.workspace import Folders

pytestmark = pytest.mark.durable

ONE, TWO = AnswerKey("a:1"), AnswerKey("b:1")
_KILLED = """
import os, signal, sys
from pathlib import Path
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer, Journal
from speciate.workspace.workspace import Folders
journal = Journal(Folders(Path(sys.argv[1])), "f", "job-1.1")
for key in (AnswerKey("a:1"), AnswerKey("b:1")):
    journal.begin(key)
journal.keep([(AnswerKey("a:1"), CachedAnswer("yes", usd=0.25, host="h"))])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.make()
    return made


def test_what_was_kept_is_found_before_and_after_it_is_sealed(folders: Folders) -> None:
    kept = CachedAnswer({"label": "é"}, 0.5, {"x": 0.5}, usd=0.1, host="h", created=3.0)
    with Journal(folders, "f", "job-1.1") as journal:
        journal.keep([(ONE, kept)])
        assert answer_cache.read(folders, "f", [ONE, TWO]) == {ONE: kept}
    assert answer_cache.read(folders, "f", [ONE, TWO]) == {ONE: kept}
    assert [path.suffix for path in (folders.predictions / "f").iterdir()] == [".parquet"]
    assert answer_cache.read(folders, "another", [ONE]) == {}


def test_an_answer_counts_before_an_error_that_may_pass_and_the_first_one_stays(folders: Folders) -> None:
    with Journal(folders, "f", "job-1.1") as journal:
        journal.keep([(ONE, CachedAnswer(error="busy", passing=True))])
    with Journal(folders, "f", "job-2.1") as journal:
        journal.keep([(ONE, CachedAnswer("yes"))])
    with Journal(folders, "f", "job-3.1") as journal:
        journal.keep([(ONE, CachedAnswer("no"))])
    assert answer_cache.read(folders, "f", [ONE])[ONE].output == "yes"


def test_what_a_run_asks_of_the_same_model_later_leaves_what_it_asked_before(folders: Folders) -> None:
    for key in (ONE, TWO):
        with Journal(folders, "f", "job-1.1") as journal:
            journal.begin(key)
            journal.keep([(key, CachedAnswer("yes", usd=0.25, host="h"))])
    assert set(answer_cache.read(folders, "f", [ONE, TWO])) == {ONE, TWO}
    assert answer_cache.paid(folders, "job-1") == {"h": 0.5}
    assert answer_cache.count_lost_calls(folders, "f") == 0


def test_a_torn_line_is_no_answer(folders: Folders) -> None:
    with Journal(folders, "f", "job-1.1") as journal:
        journal.keep([(ONE, CachedAnswer("yes"))])
        path = next((folders.predictions / "f").glob("*.jsonl"))
        whole = path.read_bytes()
    path.with_suffix(".parquet").unlink()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert set(answer_cache.read(folders, "f", [ONE, TWO])) == {ONE}
    with Journal(folders, "f", "job-1.1") as journal:  # the same attempt cannot come again, but nothing relies on it
        journal.keep([(TWO, CachedAnswer("no"))])
    assert set(answer_cache.read(folders, "f", [ONE, TWO])) == {ONE, TWO}


def test_calls_under_way_at_a_kill_are_counted(folders: Folders) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(folders.root)], check=False)
    assert answer_cache.count_lost_calls(folders, "f") == 1
    assert answer_cache.paid(folders, "job-1") == {"h": 0.25}
    answer_cache.seal(next((folders.predictions / "f").glob("*.jsonl")))
    assert answer_cache.count_lost_calls(folders, "f") == 1
    assert answer_cache.paid(folders, "job-1") == {"h": 0.25}
    assert answer_cache.paid(folders, "job-10") == {}


def test_forgotten_examples_leave_no_answer_and_their_own_labels_no_name_behind(folders: Folders) -> None:
    with Journal(folders, "f", "job-1.1") as journal:
        journal.keep([(ONE, CachedAnswer("secret word")), (TWO, CachedAnswer("a rare label"))])
    assert purge_cached_answers(folders, ["a"], ["rare label"])
    assert not purge_cached_answers(folders, ["a"], ["rare label"])
    (found,) = answer_cache.read(folders, "f", [ONE, TWO]).items()
    assert (found[0], found[1].output) == (TWO, f"a {PURGED}")
    words = (b"secret word", b"rare label")
    assert not any(word in path.read_bytes() for path in (folders.predictions / "f").iterdir() for word in words)
