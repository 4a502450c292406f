"""Which jobs may start with the room that the disk has, and which must stop for want of it. Pure.

What a run will write is what its plan says, else the most that the last runs of its kind left in their folders, else a
usual amount. Runs that live are taken to have written nothing yet, so several that start together cannot overdo it.
Kinds that give room back are never held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speciate.jobs.job import Job
from speciate.workspace.room import Room, amount

USUAL_BYTES = 64 << 20


class Rooming(NamedTuple):
    start: list[Job]
    held: dict[str, str]
    """Job -> why it waits."""


def room_for(queued: Sequence[Job], live: Sequence[Job], needs: Mapping[str, int], room: Room) -> Rooming:
    """Who of `queued` may start. `needs`: job -> bytes that it will write; who is not in it is never held."""
    spare = room.spare - sum(needs.get(job.id, 0) for job in live)
    start, held = list[Job](), dict[str, str]()
    for job in sorted(queued, key=lambda job: (-job.priority, job.created, job.id)):
        need = needs.get(job.id)
        if need is None:
            start.append(job)
        elif not room.enough or need > spare:
            held[job.id] = _why(need, room, busy=bool(live))
        else:
            start.append(job)
            spare -= need
    return Rooming(start, held)


def never_has_room(need: int, room: Room) -> str | None:
    """Why a run that writes so much could not even be alone on this disk, in words; None where it could."""
    most = room.total - room.floor if room.quota is None else min(room.total - room.floor, room.quota)
    if need <= most:
        return None
    return f"it may write {amount(need)}, and the workspace can never have more than {amount(max(0, most))}"


def _why(need: int, room: Room, *, busy: bool) -> str:
    more = ", less what runs may still write" if busy else ""
    return (
        f"It waits for room: it may write {amount(need)}, but {room.short()}{more}. "
        "manage_data(action='gc', dry_run=true) shows what could go."
    )
