"""The field's words: each word of our former dialect that is gone stays gone, in code and in the docs.

A stored or public name may keep such a word: it is in KEPT, with the reason. Not in the list, for they stand in
stored or public names: cage (a key of settings.toml), picture (an argument), readout (a key of stored models), slot (a
folder, events, a key of results), truth (a column of stored evaluations).
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GONE = {
    "caged": "sandboxed", "cages": "sandboxes", "chances": "probabilities", "chorus": "teacher ensemble",
    "contestant": "candidate, or model under evaluation", "dossier": "model report", "erasure": "redaction",
    "films?": "video", "foresee|foretell|foresight": "estimate, forecast", "intake": "ingest", "joining": "append",
    "kinship": "pairwise similarity, same family", "lessons?": "training example, training target",
    "outlay": "cost check", "pupils?": "student", "tenures?": "deployment period", "tidy": "garbage collection",
    "tutors?": "teacher", "gone on with|going on with": "resume, continue training",
}  # fmt: skip
KEPT = {
    ("docs/exports.md", "film"): "a text about a film",
    ("docs/promotion.md", "films"): "the name of a model in a printed trail",
    ("docs/predictions.md", "film"): "a text about a film",
    ("docs/serving.md", "film"): "a text about a film",
    ("src/speciate/training/language/model_setup.py", "lesson"): "in the digests of older checkpoints",
    ("src/speciate/training/language/model_setup.py", "lessons"): "in the digests of older checkpoints",
}
FILES = subprocess.run(
    ["git", "ls-files", "src/*.py", "tools/*.py", "resources/*.py", "prompts/*", "docs/*.md", "README.md", "AGENTS.md"],
    cwd=ROOT, capture_output=True, text=True, check=True,
).stdout.split()  # fmt: skip


@functools.cache
def texts() -> dict[str, tuple[str, str]]:
    """Path -> the text, and the text in lowercase; each file is read once."""
    return {path: (text := (ROOT / path).read_text(), text.lower()) for path in FILES}


@pytest.mark.parametrize("word", GONE)
def test_a_word_that_is_gone_stays_gone(word: str) -> None:
    pattern = re.compile(rf"\b({word})\b", re.IGNORECASE)
    likely = re.compile(word)  # in lowercase, within longer words too: a search for plain letters is many times as fast
    found = [
        f"{path}:{number}: {match[0]!r}; write: {GONE[word]}"
        for path, (text, lowercase) in texts().items()
        if likely.search(lowercase)
        for number, line in enumerate(text.splitlines(), 1)
        for match in pattern.finditer(line)
        if (path, match[0].lower()) not in KEPT
    ]
    assert not found, "\n".join(found)


def test_a_docstring_names_its_thing() -> None:
    """`Of one panel, in pixels.` says neither what nor whose: begin with the noun."""
    found = [
        f"{path}:{text[: match.start()].count(chr(10)) + 1}: {match[0]}"
        for path, (text, _) in texts().items()
        if path.endswith(".py")
        for match in re.finditer(r'^[ \t]*"""Of [^\n]*', text, re.MULTILINE)
    ]
    assert not found, "\n".join(found)
