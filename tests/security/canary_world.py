"""A workspace in which everything that others write holds planted words, made once: by real ingests, a real training, a
real evaluation, a real fetch and a real log. What a process would have to die for is written as it would be.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from safetensors.numpy import save

from speciate import use_cases
from speciate.datasets import version_rows, versions
from speciate.evaluation import decisions, evaluate
from speciate.evaluation.reports.report import Decision
from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Pool
from speciate.models import fetch, registry
from speciate.predictions import answer_lookup
from speciate.predictions.log import AnsweringModel
from speciate.promotion import aliases
from speciate.server.mcp.app import Server
from speciate.server.tool_api import App, Caller
from speciate.serving.deployment_folder import Refused, State, Wanted, deployment_folder
from speciate.settings import Serving, Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace
from tests import data
from tests.evaluation.endpoints.switching_server import served
from tests.evaluation.world import perform
from tests.security.canaries import name, planted
from tests.training.world import train_now

NOTES, PICTURES, USE_CASE, MODEL, THEIRS = "notes", "pictures", "triage", "triage-model", "theirs"
BODY, SAID = "body", name("said")
SCORER = f"def score(example, prediction):\n    raise ValueError({planted('scorer')!r})\n"
GUESS = f"def guess(example):\n    raise ValueError({planted('code')!r})\n"


_SETTINGS = Settings(policy="person", private_hosts=("127.0.0.1",))


class World(NamedTuple):
    app: App
    server: Server
    root: Path
    """The caller's folder."""
    names: dict[str, str]
    """Ids that calls need: `{example}`, `{job}`, `{failed}`, `{evaluation}`, `{prediction}`, `{approval}`."""


@contextmanager
def world(folder: Path) -> Iterator[World]:
    root = folder / "caller"
    root.mkdir(parents=True)
    workspace = Workspace(folder / "workspace", settings=_SETTINGS.model_copy(update={"roots": [root]}))
    pool = Pool(workspace.folders, workspace.settings, size=3)
    app = App(workspace, Engine(workspace), pool, Caller(root, "test", "stdio"))
    try:
        names = _data(workspace, root) | _models(app, root)
        yield World(app, Server(app), root, names | _traces(app, names["report"], names["fetch"]))
    finally:
        answer_lookup.logs_of(workspace).close()
        pool.close()
        workspace.close()


def _data(workspace: Workspace, root: Path) -> dict[str, str]:
    rows = [
        {
            BODY: f"{'good' if i % 4 < 2 else 'bad'} film {i} {planted('cell')}",
            "kind": name("good" if i % 4 < 2 else "bad"),
            SAID: name("good") if i % 3 else planted("answer"),
            "film": f"{planted('group')} {i // 4}",
        }
        for i in range(80)
    ]
    first = data.ingest(workspace, NOTES, rows=rows, label="kind", inputs=[BODY], group_by="film", modality="text")
    ids = version_rows.read(workspace.folders, first, ["id"]).column("id").to_pylist()
    data.label(workspace, NOTES, {ids[0]: name("other")}, source="agent")
    archive = root / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for i in range(6):
            file.writestr(f"{name('dark' if i % 2 else 'light')}/{planted('member')} {i}.jpg", _picture(40 * i))
        file.writestr(f"light/{planted('broken')}.jpg", _picture(3)[:200])
        file.writestr(f"light/{planted('aside')}.xyz", planted("inside"))
    done = data.run_job(workspace, "ingest", name=PICTURES, source=str(archive), label="folder")
    (root / "bad.csv").write_text(f"a,b\n1,2\n{planted('table')}\n")
    (root / "good.csv").write_text(f"{name('column')},b\n1,2\n3,{planted('table')}\n")
    (root / "damaged.parquet").write_bytes(b"PAR1" + planted("damaged").encode() + b"PAR1")
    (root / "broken").mkdir()
    for i in range(3):
        (root / "broken" / f"{planted('broken')} {i}.jpg").write_bytes(_picture(3)[:200])
    (root / "own.py").write_text(SCORER + GUESS)
    pictures = version_rows.read(workspace.folders, versions.resolve(workspace.database, PICTURES), ["id"])
    return {
        "example": str(ids[0]),
        "other": str(ids[1]),
        "picture": str(pictures.column("id")[0]),
        "root": str(root),
        "report": json.dumps(done),
    }


def _picture(shade: int) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[270] = planted("exif")  # ImageDescription
    pixels = np.random.default_rng(shade).integers(0, 255, (48, 48, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", exif=exif, comment=planted("comment").encode())
    return out.getvalue()


def _models(app: App, root: Path) -> dict[str, str]:
    workspace = app.workspace
    definition = Definition(
        name=USE_CASE, task="text-classification", objective=Objective(metric="accuracy", target=0.2),
        incumbent=f"column:{_said(workspace)}", target_column="kind",
    )  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    few = {"candidates": ["logistic"]}
    train_now(workspace, name=MODEL, dataset=f"{NOTES}@v1", method="classical", hyperparameters=few, use_case=USE_CASE)
    fetched = _fetch(workspace, root)
    own = root / "own.py"
    judged = _judged(workspace, f"code:{own}:guess", f"{MODEL}@v1", use_case=USE_CASE)
    coded = _judged(workspace, f"{MODEL}@v1", f"code:{own}:guess")
    with served() as server:
        server.answers = lambda prompt: planted("endpoint")
        endpoint = server.endpoint().model_dump(exclude_none=True)
        registered = Server(app).call("register_model", {"name": "stub", "endpoint": endpoint})
        assert not registered.is_error, registered
        asked = _judged(workspace, f"{MODEL}@v1", "stub@v1")
    other = Definition(name="other", task="text-classification", objective=Objective(metric="accuracy", target=0.2))
    passed = Decision(id="decision-other", verdict="promote", reasons=("measured",), candidate=f"{MODEL}@v1",
                      baseline="constant:")  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, other, policy="auto"))
    workspace.database.transact(lambda tx: decisions.store(tx, passed, use_case="other", version=1, evaluation=judged))
    return {"evaluation": judged, "coded": coded, "served": asked, "fetch": json.dumps(fetched)}


def _judged(workspace: Workspace, *models: str, **more: Any) -> str:
    """The id of an evaluation; the last of `models` is the candidate."""
    spec = {"models": list(models), "dataset": f"{NOTES}@v1", "latency": False, **more}
    return str(perform(workspace, evaluate.KIND, spec)["evaluation"])


def _said(workspace: Workspace) -> str:
    """What the column of answers is called in the dataset: cut and cleaned."""
    manifest = versions.resolve(workspace.database, NOTES)
    return next(each for each in manifest.columns if each.startswith("said"))


def _fetch(workspace: Workspace, root: Path) -> dict[str, Any]:
    """A folder whose publisher planted words in the card, in its front matter and in the names of classes."""
    folder = root / "published"
    folder.mkdir()
    front = {"license": planted("license"), "base_model": planted("base"), "pipeline_tag": "text-classification",
             "tags": [planted("tag")]}  # fmt: skip
    told = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    (folder / "README.md").write_text(f"---\n{told}\n---\n# {planted('readme')}\n")
    config = {"model_type": "bert", "id2label": {"0": name("yes"), "1": planted("class")}, "vocab_size": 9}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text(planted("vocabulary"))
    (folder / "model.safetensors").write_bytes(save({"a": np.zeros((4, 4), np.float32)}))
    (folder / f"{planted('file')}.bin").write_bytes(b"\x80\x04.")
    return data.run_job(workspace, fetch.KIND.name, name=THEIRS, source=f"path:{folder}")


def _traces(app: App, ingested: str, fetched: str) -> dict[str, str]:
    """What was answered, said, promoted and run. The arguments are results of jobs, as JSON."""
    workspace = app.workspace
    model = registry.resolve(workspace.database, workspace.folders, MODEL).ref
    log = answer_lookup.logs_of(workspace).of(USE_CASE)
    (prediction,) = log.ids(1)
    output = {"output": planted("output"), "confidence": 0.5, "error": None}
    assert log.note(
        [prediction], [{"id": "0", "text": planted("asked")}], [output], AnsweringModel(model, 1, "text"), 1.5
    )
    assert log.feedback({"prediction": prediction, "label": planted("feedback"), "source": "human", "by": "grace"})
    moved = {"use_case": USE_CASE, "model": model, "expected": None, "action": "promote", "actor": "ada"}
    noted = {"note": planted("auditnote")}
    workspace.database.transact(lambda tx: aliases.move(tx, **moved, evidence=noted))
    slot = deployment_folder(workspace.folders, USE_CASE)
    slot.create()
    slot.want(Wanted(use_case=USE_CASE, options=Serving()))
    slot.tell(State(refused=Refused(generation=1, model=model, why="it is too slow", at=1.0)))
    ended = {"class": "user", "message": "ValueError in the run", "recovery": "", "detail": planted("library")}
    return {
        "prediction": prediction, "model": model,
        "failed": _job(app, "failed", error=ended, reason=ended["message"]),
        "live": _job(app, "running"), "waiting": _job(app, "queued"), "ingest": _job(app, "succeeded", result=ingested),
        "fetch": _job(app, "succeeded", result=fetched),
    }  # fmt: skip


def _job(app: App, state: str, **columns: Any) -> str:
    """A job in this state, as its run would have left it, with a log and progress that quote data."""
    steps = [{"op": "sample", "n": 3, "seed": len(app.engine.list())}]
    job = app.engine.submit("curate", {"dataset": NOTES, "steps": steps}).id
    if state == "queued":
        return job
    folder = RunFolder(app.workspace.folders.runs / f"{job}.1")
    folder.create({"payload": {}, "job": job, "workspace": str(app.workspace.folders.root)})
    folder.log.write_text(f"Traceback: {planted('log')}\n")
    at = {"at": 1, "done": 1, "total": 2, "unit": "rows", "message": planted("progress")}
    (folder.path / "progress.jsonl").write_text(json.dumps(at) + "\n")
    values = {"state": state, "attempt": 1, "started": app.workspace.clock.now(), **columns}
    kept = [json.dumps(value) if isinstance(value, dict) else value for value in values.values()]
    said = f"UPDATE jobs SET {', '.join(f'{key} = ?' for key in values)} WHERE id = ?"
    app.workspace.database.transact(lambda tx: tx.execute(said, [*kept, job]))
    return job
