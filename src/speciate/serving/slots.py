"""Slots as people ask for them: start, stop, list. The daemon's keeper does the rest."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from speciate import usecases
from speciate.errors import Code, SpeciateError
from speciate.production import aliases
from speciate.serving import tallies
from speciate.serving.folder import SlotFolder, State, Wanted, all_slots, slot_folder
from speciate.settings import Serving
from speciate.workspace.workspace import Folders, Workspace


class SlotView(NamedTuple):
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
    """Requests since its last moves for which too many waited (tally.overloaded), of what serves and the canary."""
    token: Path
    """The file with its bearer token."""


def start(workspace: Workspace, use_case: str, **options: object) -> SlotView:
    """Want a slot for this use case; `options` of settings' `serving`, where given, instead of the settings'.

    Idempotent; with other options the slot is told to begin again. INVALID for an option out of its bounds.
    """
    usecases.get(workspace.database, use_case)
    folder = slot_folder(workspace.folders, use_case)
    given = {name: value for name, value in options.items() if value is not None}
    before = folder.wanted()
    base = before.options if before else workspace.settings.serving
    try:
        chosen = Serving.model_validate(base.model_dump() | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpeciateError(
            Code.INVALID, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", "See `speciate slot start --help`."
        ) from error
    if before and before.options != chosen and folder.alive():
        raise SpeciateError(
            Code.CONFLICT,
            f"The slot of {use_case!r} runs with other options.",
            f"Stop it first: speciate slot stop {use_case}",
        )
    folder.create()
    folder.token()
    if before is None or before.options != chosen:
        folder.want(Wanted(use_case=use_case, options=chosen, target=before.target if before else None))
    folder.unstop()
    return view(folder)


def stop(workspace: Workspace, use_case: str) -> SlotView:
    """Let the slot end, after the requests in flight. NOT_FOUND where there is none."""
    folder = slot_folder(workspace.folders, use_case)
    if folder.wanted() is None:
        raise SpeciateError(
            Code.NOT_FOUND, f"There is no slot of {use_case!r}.", f"speciate slot start {use_case} makes one."
        )
    folder.stop()
    return view(folder)


def listed(workspace: Workspace) -> list[SlotView]:
    """Of all use cases; `wanted` is what the alias names, of which the slot may not have heard yet."""
    found = [view(folder) for folder in all_slots(workspace.folders)]
    moved = {each.use_case: aliases.read(workspace.database, each.use_case) for each in found}
    return [each._replace(wanted=alias.model if (alias := moved[each.use_case]) else None) for each in found]


def of(folders: Folders, use_case: str) -> SlotView | None:
    """None where the use case has no slot."""
    folder = slot_folder(folders, use_case)
    return view(folder) if folder.wanted() else None


def view(folder: SlotFolder) -> SlotView:
    state, wanted, alive = folder.state(), folder.wanted(), folder.alive()
    refused = state.refused
    return SlotView(
        use_case=folder.use_case,
        state=_word(state, alive=alive, stopped=folder.stopped),
        url=f"http://127.0.0.1:{state.port}" if alive and state.port else None,
        serving=state.serving if alive else None,
        wanted=wanted.target.model if wanted and wanted.target else None,
        loading=state.loading if alive else None,
        refused=f"{refused.model}: {refused.why}" if refused else None,
        problem=state.problem or (state.apart if alive else None),
        canary=_canary(state, wanted) if alive else None,
        overloaded=_overloaded(folder, wanted),
        token=folder.path / "token",
    )


def _overloaded(folder: SlotFolder, wanted: Wanted | None) -> int:
    stand = [wanted.target, wanted.canary] if wanted else []
    now = {target.key for target in stand if target}
    return sum(each.overloaded for each in tallies.read(folder.tallies) if (each.generation, each.model) in now)


def _canary(state: State, wanted: Wanted | None) -> str | None:
    if wanted is None or wanted.canary is None:
        return None
    if state.canary_refused:
        return f"{state.canary_refused.model}: {state.canary_refused.why}"
    return f"{state.canary} ({wanted.percent:g} %)" if state.canary else None


def _word(state: State, *, alive: bool, stopped: bool) -> str:
    if not alive:
        return "stopped" if stopped else "failed" if state.problem else "starting"
    if state.refused:
        return "refused"
    return "serving" if state.serving else "loading" if state.loading else "starting"
