"""kill -9 in both halves of one call: of the fetch of a published model, in the middle of its weights, and of the
evaluation that waited for it, in the middle of its answers. No byte that was here is fetched again, and no example
whose answer is on disk is asked again."""

from __future__ import annotations

import json
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("transformers")
pytest.importorskip("huggingface_hub")

from speciate.evaluation.reports.report import find_report
from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED
from speciate.jobs.pool import Pool
from speciate.jobs.process_identity import signal_group
from speciate.server.tool_api import App, JobStarted
from speciate.settings import Settings
from speciate.tools.evaluation import evaluate_models
from speciate.workspace.workspace import Folders, Workspace
from tests.crash.test_fetch_kills import HELD, PIECE, kill_once_it_has
from tests.models.hub_server import Hub, serving
from tests.models.published import doubles
from tests.training.world import make_dataset

pytestmark = [pytest.mark.durable, pytest.mark.slow]
EXAMPLES = 3_000


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import transformers as t

    folder, tok = tmp_path / "double", doubles.tokenizer()
    config = t.BertConfig(
        vocab_size=50_000, hidden_size=192, num_hidden_layers=2, num_attention_heads=4, intermediate_size=384,
        max_position_embeddings=64, pad_token_id=tok.pad_token_id, **doubles.named(("NEGATIVE", "POSITIVE")),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubles.keep(folder, t.BertForSequenceClassification(config), tok)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(files["model.safetensors"]) > HELD
    with serving({"org/sentiment": files}) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        yield found


def asked(folders: Folders) -> Counter[tuple[str, str]]:
    """How often each example's answer was recorded, in whole files and in journals that a kill left."""
    found: Counter[tuple[str, str]] = Counter()
    for path in folders.predictions.glob("*/*"):
        if path.suffix == ".parquet":
            keys = pq.read_table(path, columns=["key"])["key"].to_pylist()
            found.update((path.parent.name, key) for key in keys)
        elif path.is_file():
            for line in path.read_bytes().splitlines():
                try:
                    said = json.loads(line)
                except ValueError:  # the line that a kill tore
                    continue
                if "output" in said:
                    found[path.parent.name, said["key"]] += 1
    return found


def kill_while_it_answers(workspace: Workspace, engine: Engine, job: str) -> int:
    """How many answers were recorded at the kill."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (now := engine.get(job)).state not in ENDED:
        if asked(workspace.folders).total() >= 100:
            run = workspace.folders.runs / now.run_id
            whom = [path.read_text() for name in ("supervisor", "worker") if (path := run / name).exists()]
            assert [signal_group(who, signal.SIGKILL) for who in whom] == [True, True]
            return asked(workspace.folders).total()
        time.sleep(0.005)
    raise AssertionError(f"it ended before the kill: {engine.get(job)}")


def test_a_call_that_is_killed_twice_fetches_and_asks_nothing_twice(hub: Hub, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    words = doubles.WORDS.split()
    texts = [f"{words[place % len(words)]} {words[place // 7 % len(words)]} {place}" for place in range(EXAMPLES)]
    labels = [("good", "bad")[place % 2] for place in range(EXAMPLES)]
    make_dataset(workspace, "reviews", "text", {"text": texts}, labels=labels, splits=["test"] * EXAMPLES,
                 inputs=["text"])  # fmt: skip
    app = App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
    hub.held = HELD
    app.engine.start()
    try:
        started = evaluate_models(app, models=["hf:org/sentiment"], dataset="reviews", latency=False)
        assert isinstance(started, JobStarted)
        (fetch,) = app.engine.list(kind="fetch")
        there = kill_once_it_has(workspace, app.engine, fetch, 2 * PIECE)
        hub.released.set()
        at_kill = kill_while_it_answers(workspace, app.engine, started.job)
        ended = app.engine.wait(started.job, timeout=400)
        assert ended.state == "succeeded", ended.error
        row = find_report(workspace.database, str((ended.result or {})["evaluation"])).row("org--sentiment@v1")
        counted = asked(workspace.folders)
    finally:
        hub.released.set()
        app.engine.stop()
        workspace.close()
    assert (row.n, row.errors) == (EXAMPLES, 0)
    assert 100 <= at_kill < EXAMPLES, "the kill struck in the middle"
    assert set(counted.values()) == {1}, "an answer that was recorded is not asked again"
    assert counted.total() == EXAMPLES
    ranges = [line.partition(" bytes=")[2] for line in hub.asked if line.startswith("GET") and ".safetensors" in line]
    assert ranges == ["", f"{there}-"]
