"""The deployments of a workspace: people start, stop and list them; the daemon's keeper keeps their processes alive and
tells them which versions the aliases name.

A deployment serves on while no daemon lives, and the next daemon adopts it. If another version of this package started
its process, the keeper restarts it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from pydantic import ValidationError

from speciate import __version__, use_cases
from speciate.datasets import version_rows, versions
from speciate.datasets.columns import CONTENT, START
from speciate.datasets.versions import Manifest
from speciate.environment import clean_environment
from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.promotion import aliases
from speciate.promotion.aliases import Alias
from speciate.promotion.bake import has_answered
from speciate.serving import request_metrics
from speciate.serving.bake_watch import BakeWatch
from speciate.serving.deployment_folder import (
    DeploymentFolder,
    Entry,
    State,
    Target,
    Wanted,
    all_deployments,
    deployment_folder,
    is_deployed,
)
from speciate.serving.items import Item
from speciate.settings import Serving
from speciate.tasks.example_targets import usual_target
from speciate.vocabulary import task_named
from speciate.workspace.database import Event, Transaction
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders, Workspace

_LOOK_SECONDS = 0.5
_FIRST_GAP, _LONGEST_GAP = 0.5, 30.0
"""Seconds between two starts of a deployment that does not stay alive."""
_STEADY_SECONDS = 30.0
"""Seconds alive after which a deployment's death counts as its first again."""
_OF_VERSIONS = {"slot.serving", "slot.canary"}
_MOVES = {"alias.moved", "canary.set", "canary.ended"}
_GATHER = "speciate.serving.deployments:gather_examples"
_GATHER_SECONDS = 60.0
_EXAMPLES = 8
_MOST_BYTES = 32 * 1024 * 1024
"""All examples together."""
_HEARD = "SELECT 1 FROM events WHERE subject = ? AND data ->> 'entry' = ? LIMIT 1"
_log = logging.getLogger(__name__)

ServingAliases = Mapping[tuple[str, str], Alias]
"""Use case and alias -> the alias, of `aliases.serving`."""


class _Start(NamedTuple):
    process: subprocess.Popen[bytes]
    at: float


class _DeploymentHealth:
    """What the keeper knows of one deployment in this daemon's life; all of it may be lost."""

    def __init__(self) -> None:
        self.start: _Start | None = None
        self.gap = 0.0
        self.alive = False
        self.is_current = False
        """Whether its process is known to run this version of the package."""
        self.asked_to_end = 0
        """The pid of a process of another version, once it was asked to end."""
        self.told: tuple[object, ...] | None = None
        self.problem: str | None = None


class DeploymentKeeper:
    """`start` it once; `look` is one pass, for tests."""

    def __init__(self, workspace: Workspace, pool: Pool) -> None:
        self._workspace, self._pool = workspace, pool
        self._watched: dict[str, _DeploymentHealth] = {}
        self._baker = BakeWatch(workspace)
        self._serving: tuple[int, ServingAliases] = (-1, {})  # after which commit it was read
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        workspace.database.listen(self._heard)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="slots", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the keeper; the deployments serve on."""
        self._stopping = True
        self._wake.set()
        if self._thread:
            self._thread.join()
        for watched in self._watched.values():
            if watched.start:  # it outlives us on purpose; Popen would warn
                watched.start.process.returncode = watched.start.process.poll() or 0

    def poke(self) -> None:
        """Look now."""
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether no deployment is wanted."""
        return all(folder.stopped for folder in all_deployments(self._workspace.folders))

    def keeps(self, use_case: str) -> bool:
        """Whether a deployment of this use case is wanted."""
        return is_deployed(self._workspace.folders, use_case)

    def look(self) -> None:
        """One pass over all deployments."""
        with self._lock:
            if (commits := self._workspace.database.commits) != self._serving[0]:
                self._serving = commits, aliases.serving(self._workspace.database)
            if self._workspace.settings.serving.start == "after_promotion":
                self._make_those_that_serve()
            folders = all_deployments(self._workspace.folders)
            self._each([replica for folder in folders for replica in folder.replicas()], self._update)
            # after all are alive: the examples that a version is tried on may take a minute
            self._each([folder for folder in folders if not folder.stopped], self._want)
            self._baker.look()

    def _each(
        self, folders: Sequence[DeploymentFolder], act: Callable[[DeploymentFolder, _DeploymentHealth], None]
    ) -> None:
        for folder in folders:
            try:
                act(folder, self._watched.setdefault(str(folder.path), _DeploymentHealth()))
            except (SpeciateError, OSError):
                _log.exception("the deployment of %s could not be updated", folder.use_case)

    def _keep(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a full disk, say: the next pass may succeed
                _log.exception("looking after the deployments failed")
            self._wake.wait(_LOOK_SECONDS)

    def _heard(self, events: Sequence[Event]) -> None:
        if any(event.type in _MOVES for event in events):
            self._wake.set()
        if any(event.type == "data.forgotten" for event in events):
            for folder in all_deployments(self._workspace.folders):
                for replica in folder.replicas():
                    replica.empty_log()
                    replica.forget_reasons()

    def _make_those_that_serve(self) -> None:
        for use_case, alias in self._serving[1]:
            folder = deployment_folder(self._workspace.folders, use_case)
            if alias == "production" and not folder.path.exists():
                folder.create()
                folder.want(Wanted(use_case=folder.use_case, options=self._workspace.settings.serving))

    # One deployment

    def _update(self, folder: DeploymentFolder, watched: _DeploymentHealth) -> None:
        folder.trim_log()
        self._listen(folder)  # first: what it said before it died comes before its death
        if not folder.stopped and folder.is_wanted:
            if folder.number == 0 or folder.port():  # the first one chooses the port
                folder.create()
                self._keep_alive(folder, watched)
        elif watched.start and watched.start.process.poll() is not None:
            watched.start = None

    def _want(self, folder: DeploymentFolder, watched: _DeploymentHealth) -> None:
        """Tell it what the aliases name now."""
        serving = self._serving[1]
        alias = serving.get((folder.use_case, "production"))
        if alias is None:
            return
        canary = serving.get((folder.use_case, aliases.CANARY))
        if watched.told == (key := (alias, canary)):
            return
        wanted = folder.wanted()
        if wanted is None:
            return
        try:
            target = self._target(folder, alias, wanted.target)
        except SpeciateError:
            watched.told = key  # such a version is refused again; a full disk (OSError) may have room at the next look
            raise
        changed = wanted.model_copy(
            update={
                "target": target,
                "canary": self._canary(folder, canary, wanted.canary),
                "percent": (canary.percent or 0.0) if canary else 0.0,
            }
        )
        if changed != wanted:
            fault("promotion_before_want")
            folder.want(changed)
            fault("promotion_wanted")
        watched.told = key

    def _target(self, folder: DeploymentFolder, alias: Alias, before: Target | None) -> Target:
        if before and before.key == (alias.generation, alias.model):
            return before
        return target_of(self._workspace, self._pool, folder, alias)

    def _canary(self, folder: DeploymentFolder, alias: Alias | None, before: Target | None) -> Target | None:
        """None also where it is gone: production must not wait for it."""
        try:
            return self._target(folder, alias, before) if alias else None
        except SpeciateError:
            _log.exception("the canary of %s cannot be served", folder.use_case)
            return None

    def _keep_alive(self, folder: DeploymentFolder, watched: _DeploymentHealth) -> None:
        now = self._workspace.clock.monotonic()
        if folder.alive():
            watched.alive = True
            self._restart_if_outdated(folder, watched)
            if watched.start and now - watched.start.at > _STEADY_SECONDS:
                watched.gap = 0.0
            return
        if watched.start and watched.start.process.poll() is None:
            return  # it has not got as far as its claim, or is about to end
        self._tell_of_death(folder, watched)
        if watched.start and now - watched.start.at < watched.gap:
            return
        watched.start = _Start(_spawn(folder.path, self._workspace), now)
        watched.gap = min(max(2 * watched.gap, _FIRST_GAP), _LONGEST_GAP)

    def _restart_if_outdated(self, folder: DeploymentFolder, watched: _DeploymentHealth) -> None:
        """End a process of another version of this package, after its requests in flight; the next passes start a new
        one at the same port. Its modules were replaced on the disk, so it could not start another child."""
        if watched.is_current:
            return
        state = folder.state()
        if watched.asked_to_end and state.pid in (0, watched.asked_to_end):
            watched.alive = False  # its end is no death to report
        elif state.version == __version__:
            watched.is_current = True
        elif _is_process_of(state.pid, folder) and not waits_for_another(folder, self._is_leaving):
            _log.info("the deployment of %s runs version %r: it is restarted", folder.use_case, state.version)
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGTERM)
            watched.asked_to_end, watched.alive = state.pid, False

    def _is_leaving(self, folder: DeploymentFolder) -> bool:
        """Whether its process was asked to end and still lives. Until its requests are answered its state says that it
        serves."""
        watched = self._watched.get(str(folder.path))
        return bool(watched and watched.asked_to_end and watched.asked_to_end == folder.state().pid)

    def _tell_of_death(self, folder: DeploymentFolder, watched: _DeploymentHealth) -> None:
        """One event for each process that died without a word, and for each reason not to start."""
        state, lived, watched.alive = folder.state(), watched.alive, False
        if state.problem and state.problem != watched.problem:
            self._say(folder, "slot.failed", problem=state.problem)
        elif lived or state.pid:
            self._say(folder, "slot.died", pid=state.pid, serving=state.serving)
            folder.tell(state.model_copy(update={"pid": 0, "serving": None, "since": None, "loading": None}))
        watched.problem = state.problem

    def _say(self, folder: DeploymentFolder, type: str, **data: object) -> None:  # noqa: A002 - the column
        of_replica = {"replica": folder.number} if folder.number else {}
        self._workspace.database.transact(
            lambda tx: tx.event(f"use_case:{folder.use_case}", type, dict(data) | of_replica)
        )

    def _listen(self, folder: DeploymentFolder) -> None:
        """Make events of the deployment's notes, each once, also if a daemon died in between."""
        entries, end = folder.unheard()
        if not entries:
            return
        if folder.number:  # which version serves since when is said by the first one
            entries = [entry for entry in entries if entry.type not in _OF_VERSIONS]

        def record(tx: Transaction) -> None:
            for entry in entries:
                if not _is_recorded(tx, folder.use_case, entry):
                    data = {**entry.data, "at": entry.at, "entry": entry.id}
                    tx.event(f"use_case:{folder.use_case}", entry.type, data)

        self._workspace.database.transact(record)
        folder.heard(end)


def _is_recorded(tx: Transaction, use_case: str, entry: Entry) -> bool:
    if entry.type == "production.answered" and has_answered(tx, use_case, entry.data["model"]):
        return True  # once for each version, whoever answered first
    return bool(tx.execute(_HEARD, [f"use_case:{use_case}", entry.id]))


def waits_for_another(
    folder: DeploymentFolder, is_leaving: Callable[[DeploymentFolder], bool] = lambda _: False
) -> bool:
    """Whether a replica that serves must serve on, because another one leaves or does not serve yet: they restart in
    turn. One that cannot start, or serves nothing because production was refused, is not waited for."""
    others = [each for each in DeploymentFolder(folder.shared).replicas() if each.number != folder.number]
    wanted = [each for each in others if each.is_wanted]
    return folder.state().serving is not None and any(is_leaving(each) or _is_coming(each.state()) for each in wanted)


def _is_coming(state: State) -> bool:
    """Whether a replica is expected to serve soon."""
    refused = state.refused is not None and state.pid != 0 and state.loading is None
    return not (state.serving or state.problem or refused)


def _is_process_of(pid: int, folder: DeploymentFolder) -> bool:
    """Whether this pid is a deployment's process of this folder: the state may be of a process that is long gone."""
    if not pid:
        return False
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it is gone, or this is macOS
        listed = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        command = listed.stdout
    return f"speciate.serving.process {folder.path} " in f"{command} "


def _spawn(folder: Path, workspace: Workspace) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-P", "-m", "speciate.serving.process", str(folder), workspace.settings.cage]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=clean_environment(),
            cwd=workspace.folders.root, start_new_session=True,
        )  # fmt: skip


class DeploymentView(NamedTuple):
    use_case: str
    state: str
    """serving, loading, refused (what is in production was not let serve), failed, starting, or stopped."""
    url: str | None
    serving: str | None
    wanted: str | None
    loading: str | None
    refused: str | None
    """`name@v3`: why"""
    problem: str | None
    canary: str | None
    """`name@v3 (5 %)`, where one answers beside what serves; `name@v3: why not` where it was refused."""
    overloaded: int
    """Requests since its last moves for which too many waited (counters.overloaded), of what serves and the canary."""
    token: Path
    """The file with its bearer token."""
    replicas: int = 1
    """Processes that are wanted."""
    live: int = 0


def start_deployment(workspace: Workspace, use_case: str, **options: object) -> DeploymentView:
    """Want a deployment for this use case; `options` of settings' `serving`, where given, instead of the settings'.

    Idempotent; with other options the deployment is told to begin again. INVALID for an option out of its bounds.
    """
    use_cases.get(workspace.database, use_case)
    folder = deployment_folder(workspace.folders, use_case)
    given = {name: value for name, value in options.items() if value is not None}
    before = folder.wanted()
    base = before.options if before else workspace.settings.serving
    try:
        chosen = Serving.model_validate(base.model_dump() | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpeciateError(
            Code.INVALID,
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}.",
            "See `speciate deployment start --help`.",
        ) from error
    if before and before.options != chosen and folder.lives:
        raise SpeciateError(
            Code.CONFLICT,
            f"The deployment of {use_case!r} runs with other options.",
            f"Stop it first: speciate deployment stop {use_case}",
        )
    folder.create()
    folder.token()
    if before is None or before.options != chosen:
        folder.want(Wanted(use_case=use_case, options=chosen, target=before.target if before else None))
    folder.unstop()
    return deployment_view(folder)


def stop_deployment(workspace: Workspace, use_case: str) -> DeploymentView:
    """Let the deployment end, after the requests in flight. NOT_FOUND where there is none."""
    folder = deployment_folder(workspace.folders, use_case)
    if folder.wanted() is None:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no deployment of {use_case!r}.",
            f"speciate deployment start {use_case} makes one.",
        )
    folder.stop()
    return deployment_view(folder)


def list_deployments(workspace: Workspace) -> list[DeploymentView]:
    """The deployments of all use cases. `wanted` is what the alias names: the deployment may not have heard of it
    yet."""
    found = [deployment_view(folder) for folder in all_deployments(workspace.folders)]
    moved = {each.use_case: aliases.read(workspace.database, each.use_case) for each in found}
    return [each._replace(wanted=alias.model if (alias := moved[each.use_case]) else None) for each in found]


def deployment_of(folders: Folders, use_case: str) -> DeploymentView | None:
    """None where the use case has no deployment."""
    folder = deployment_folder(folders, use_case)
    return deployment_view(folder) if folder.wanted() else None


def deployment_view(folder: DeploymentFolder) -> DeploymentView:
    """A version serves once every replica that lives says so."""
    wanted = folder.wanted()
    wanted_replicas = [each for each in folder.replicas() if each.is_wanted] or [folder]
    problem = next((state.problem for each in wanted_replicas if (state := each.state()).problem), None)
    states = [each.state() for each in wanted_replicas if each.alive()]
    alive, first = bool(states), folder.state()
    refused = next((each.refused for each in states if each.refused), first.refused)
    serving = states[0].serving if alive and len({each.serving for each in states}) == 1 else None
    loading = next((each.loading for each in states if each.loading), None)
    if alive and serving is None and loading is None and len({each.serving for each in states}) > 1:
        loading = wanted.target.model if wanted and wanted.target else None  # some serve it, some not yet
    shown = first.model_copy(update={"serving": serving, "loading": loading, "refused": refused, "problem": problem})
    port = next((each.port for each in states if each.port), 0)
    return DeploymentView(
        use_case=folder.use_case,
        state=_state_name(shown, alive=alive, stopped=folder.stopped),
        url=f"http://127.0.0.1:{port}" if port else None,
        serving=serving,
        wanted=wanted.target.model if wanted and wanted.target else None,
        loading=loading,
        refused=f"{refused.model}: {refused.why}" if refused else None,
        problem=problem or next((each.apart for each in states if each.apart), None),
        canary=_canary(states, wanted),
        overloaded=_overloaded(folder, wanted),
        token=folder.path / "token",
        replicas=len(wanted_replicas),
        live=len(states),
    )


def _overloaded(folder: DeploymentFolder, wanted: Wanted | None) -> int:
    stand = [wanted.target, wanted.canary] if wanted else []
    now = {target.key for target in stand if target}
    return sum(
        each.overloaded for each in request_metrics.read_all_counters(folder) if (each.generation, each.model) in now
    )


def _canary(states: Sequence[State], wanted: Wanted | None) -> str | None:
    """It answers once every replica that lives says so; one is enough to refuse it."""
    if wanted is None or wanted.canary is None:
        return None
    if refused := next((each.canary_refused for each in states if each.canary_refused), None):
        return f"{refused.model}: {refused.why}"
    answers = {each.canary for each in states} == {wanted.canary.model}
    return f"{wanted.canary.model} ({wanted.percent:g} %)" if answers else None


def _state_name(state: State, *, alive: bool, stopped: bool) -> str:
    if not alive:
        return "stopped" if stopped else "failed" if state.problem else "starting"
    if state.refused:
        return "refused"
    return "serving" if state.serving else "loading" if state.loading else "starting"


def target_of(workspace: Workspace, pool: Pool, folder: DeploymentFolder, alias: Alias) -> Target:
    """Everything that a deployment needs to serve the version behind an alias, with examples to try it on.

    The examples come from the dataset that the version was trained on; a service process gathers them. Raises NOT_FOUND
    if the version is gone.
    """
    version = registry.resolve(workspace.database, workspace.folders, alias.model)
    card, path, root = version.card, version.path, workspace.folders.root
    assert card.task, "only endpoints have none"
    assert card.modality
    return Target(
        generation=alias.generation,
        model=alias.model,
        path=str(path.relative_to(root) if path.is_relative_to(root) else path),
        task=card.task,
        modality=card.modality,
        inputs=card.inputs,
        parts=card.parts,
        ignored_parts=card.ignored_parts,
        labels=card.labels,
        columns=_columns(workspace, card),
        bytes=card.bytes or 0,
        warmup=_warmup(workspace, pool, folder, card),
        slowest_ms=use_cases.get(workspace.database, alias.use_case).limits.p95_latency_ms,
    )


def _columns(workspace: Workspace, card: ModelCard) -> tuple[tuple[str, str], ...]:
    """The columns that a model reads, with their types in the dataset that it was trained on, where that is there."""
    try:
        known = versions.resolve(workspace.database, card.dataset).columns if card.dataset else {}
    except SpeciateError:
        known = {}
    return tuple((name, _json_type(known.get(name, "VARCHAR"))) for name in card.inputs)


def _json_type(kind: str) -> str:
    if kind in ("DOUBLE", "FLOAT", "REAL"):
        return "number"
    if kind == "BOOLEAN":
        return "boolean"
    return "integer" if kind.endswith("INT") or kind in ("INTEGER", "UINTEGER") else "string"


def _warmup(workspace: Workspace, pool: Pool, folder: DeploymentFolder, card: ModelCard) -> str | None:
    """A file with examples, in the cache, so that it goes when something is forgotten. None where the dataset is gone,
    or none of it can be asked as it lies."""
    if card.dataset is None:
        return None
    try:
        manifest = versions.resolve(workspace.database, card.dataset)
        payload = {
            "root": str(workspace.folders.root), "manifest": manifest.model_dump(mode="json"),
            "captions": _caption_column(card, manifest),
        }  # fmt: skip
        text = pool.ask_for_file(_GATHER, payload, lambda path, _: path.read_text(), _GATHER_SECONDS)
    except SpeciateError:
        return None
    if not json.loads(text):
        return None
    path = workspace.folders.cache / "warmup" / f"{folder.use_case}-{manifest.name}-v{manifest.version}.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(path, text, 0o600)
    return str(path)


def _caption_column(card: ModelCard, manifest: Manifest) -> str | None:
    """What a model reads that makes media from texts; None of every other one."""
    task = task_named(card.task or "")
    if task is None or task.reads is None or not task.suits(manifest.modality):
        return None
    column = card.recipe.get("target") or usual_target(manifest, task.name)
    return str(column) if column in manifest.columns else "label"


class WarmupRequest(TypedDict):
    root: str
    manifest: Mapping[str, Any]
    captions: NotRequired[str | None]
    """The column whose texts are asked, where these are."""


class WarmupFile(TypedDict):
    file: str


def gather_examples(payload: WarmupRequest) -> WarmupFile:
    """A few examples, spread over the dataset version, as items of `predict_worker.answer`.

    Runs in a process of the service pool. It copies the bytes of files from the packs and does not decode them: only
    the version's own sandboxed process does.
    """
    folders, manifest = Folders(Path(payload["root"])), Manifest.model_validate(payload["manifest"])
    captions = payload.get("captions")
    if captions is not None:
        items = _texts(folders, manifest, captions)
    else:
        items = _rows(folders, manifest) if manifest.inputs else _files(folders, manifest)
    Path("warmup.json").write_text(json.dumps(items))
    return {"file": "warmup.json"}


def _texts(folders: Folders, manifest: Manifest, column: str) -> list[Item]:
    table = version_rows.read(folders, manifest, [column], usable=True)
    cells = table.take(_spread(table.num_rows))[column].to_pylist()
    return [{"id": str(place), "text": str(cell)} for place, cell in enumerate(cells) if cell]


def _rows(folders: Folders, manifest: Manifest) -> list[Item]:
    table = version_rows.read(folders, manifest, [*manifest.inputs], usable=True)
    table = table.take(_spread(table.num_rows))
    try:
        return [{"row": json.loads(json.dumps(row))} for row in table.to_pylist()]
    except TypeError:  # a cell that JSON does not have: clients could not send it so either
        return []


def _files(folders: Folders, manifest: Manifest) -> list[Item]:
    """Whole files only: a version of windows was trained on parts of files, which no client sends."""
    table = version_rows.read(folders, manifest, usable=True)
    if START in table.column_names and table[START].null_count < table.num_rows:
        return []
    items, room = list[Item](), _MOST_BYTES
    with PackReader([folders.root / pack for pack in manifest.packs]) as packs:
        for content in table.take(_spread(table.num_rows))[CONTENT].to_pylist():
            if packs.length(content) <= room:
                data = packs.get(content)
                room -= len(data)
                items.append({"data": base64.b64encode(data).decode()})
    return items


def _spread(count: int) -> list[int]:
    """Places of a few rows, evenly over all."""
    most = min(_EXAMPLES, count)
    return [place * count // most for place in range(most)]
