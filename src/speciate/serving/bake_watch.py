"""Judges the bake, in the daemon's keeper, and acts on it: rolls a version back, or notes that it survived.

All of its state is in the catalog and the deployments' folders: each judgement is an event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from speciate.errors import SpeciateError
from speciate.faults import fault
from speciate.promotion import aliases, bake, rollback
from speciate.promotion.aliases import CANARY, Alias
from speciate.promotion.bake import ACTOR, BakeObservation, Judgement, Quality, quality_of
from speciate.promotion.request_counters import RequestCounters
from speciate.serving import in_process_counters, request_metrics
from speciate.serving.deployment_folder import DeploymentFolder, Refused, deployment_folder
from speciate.workspace.database import EventData, Transaction
from speciate.workspace.workspace import Workspace

_LOOK_SECONDS, _FEEDBACK_SECONDS = 5.0, 300.0
_LONGEST_REASON = 300
_log = logging.getLogger(__name__)

Qualities = Callable[[Workspace, str, str, str | None, float], Quality | None]
"""Use case, version, version before, moment of the move -> feedback on their answers; None if there is none."""


class BakeWatch:
    """`look` now and then; it looks itself how often that is worth it."""

    def __init__(self, workspace: Workspace, qualities: Qualities = quality_of) -> None:
        self._workspace, self._qualities = workspace, qualities
        self._quality_read: dict[tuple[str, str, int], tuple[float, Quality | None]] = {}
        """When feedback was read last, and what it came to."""
        self._over: set[tuple[str, str, int]] = set()
        self._next = 0.0
        self._read_at: int | None = None  # the commit after which the next two were read
        self._open: list[Alias] = []
        self._histories: dict[str, bake.BakeHistory] = {}

    def look(self, *, now: bool = False) -> None:
        """Judge every version that bakes, if it is time or `now`."""
        monotonic = self._workspace.clock.monotonic()
        if monotonic < self._next and not now:
            return
        self._next = monotonic + _LOOK_SECONDS
        database = self._workspace.database
        if (commits := database.commits) != self._read_at:  # else the catalog says what it said
            standing = (*aliases.everywhere(database), *aliases.everywhere(database, CANARY))
            self._open = [alias for alias in standing if _key(alias) not in self._over]
            self._histories = (
                bake.bake_histories(database, {alias.use_case for alias in self._open}) if self._open else {}
            )
            self._read_at = commits
        open_ones = [alias for alias in self._open if _key(alias) not in self._over]
        for alias in open_ones:
            try:
                self._judge(alias, self._histories[alias.use_case])
            except (SpeciateError, OSError):
                _log.exception("the bake of %s@%s could not be judged", alias.use_case, alias.alias)

    def _judge(self, alias: Alias, history: bake.BakeHistory) -> None:
        if bake.bake_state(history, alias) != "provisional":
            self._over.add(_key(alias))
            return
        settings = self._workspace.settings.bake_of(alias.use_case)
        now = alias.changed + self._workspace.elapsed.least(alias.changed)  # however the clock was set since
        judgement = bake.judge(self._observe(alias), settings, now)
        if judgement.state == "survived":
            self._workspace.database.transact(lambda tx: _note_once(tx, alias, bake.survived_event(alias), judgement))
        elif judgement.state == "broken":
            fault("promotion_bake_judged")
            self._workspace.database.transact(
                lambda tx: _handle_broken(tx, alias, judgement, settings.rollback == "auto")
            )
            fault("promotion_bake_acted")

    def _observe(self, alias: Alias) -> BakeObservation:
        folder = deployment_folder(self._workspace.folders, alias.use_case)
        counted = request_metrics.read_all_counters(folder)
        before = self._before(alias)
        counted += in_process_counters.counters(self._workspace, alias.use_case)  # where no deployment ran
        own = [counters for counters in counted if counters.key == (alias.alias, alias.generation, alias.model)]
        return BakeObservation(
            since=alias.changed,
            counters=max(own, key=lambda counters: counters.requests, default=None),
            before=_last_of(counted, before),
            answered=bake.has_answered(self._workspace.database, alias.use_case, alias.model, as_canary=True),
            refused=_refusal(folder, alias),
            quality=self._quality(alias, before),
        )

    def _quality(self, alias: Alias, before: str | None) -> Quality | None:
        """Read anew now and then: the log may be long."""
        key, now = _key(alias), self._workspace.clock.monotonic()
        read = self._quality_read.get(key)
        if read is None or now - read[0] >= _FEEDBACK_SECONDS:
            found = self._qualities(self._workspace, alias.use_case, alias.model, before, alias.changed)
            read = self._quality_read[key] = now, found
        return read[1]

    def _before(self, alias: Alias) -> str | None:
        """The version that it is compared with: the one that would answer instead."""
        if alias.alias != CANARY:
            return rollback.last_good(self._workspace.database, alias.use_case)
        other = aliases.read(self._workspace.database, alias.use_case)
        return other.model if other else None


def _key(alias: Alias) -> tuple[str, str, int]:
    return alias.use_case, alias.alias, alias.generation


def _last_of(counted: Sequence[RequestCounters], model: str | None) -> RequestCounters | None:
    found = [counters for counters in counted if counters.model == model and counters.alias != CANARY]
    return found[-1] if found else None


def _refusal(folder: DeploymentFolder, alias: Alias) -> str | None:
    """Why the deployment refused exactly this move: one replica is enough."""
    for replica in folder.replicas():
        state = replica.state()
        refused: Refused | None = state.canary_refused if alias.alias == CANARY else state.refused
        if refused is not None and refused.key == (alias.generation, alias.model):
            return refused.why[:_LONGEST_REASON]
    return None


def _judgement_data(alias: Alias, judgement: Judgement) -> EventData:
    return {
        "alias": alias.alias, "model": alias.model, "generation": alias.generation, **judgement.evidence,
        "reasons": list(judgement.reasons),
    }  # fmt: skip


def _note_once(tx: Transaction, alias: Alias, kind: str, judgement: Judgement) -> None:
    if _is_unmoved(tx, alias) and bake.current_bake_state(tx, alias) == "provisional":
        tx.event(f"use_case:{alias.use_case}", kind, _judgement_data(alias, judgement))


def _handle_broken(tx: Transaction, alias: Alias, judgement: Judgement, may_act: bool) -> None:
    """Roll the version back; if there is no version before it, or a person wants to decide, only note it."""
    if not _is_unmoved(tx, alias):
        return
    target = rollback.last_good(tx, alias.use_case) if alias.alias != CANARY else None
    if not may_act or (alias.alias != CANARY and target is None):
        _note_once(tx, alias, bake.BROKEN, judgement)
        return
    done = rollback.roll_back(
        tx, alias.use_case, expected=alias.model, to=target, reason=" ".join(judgement.reasons), actor=ACTOR,
        evidence={"alias": alias.alias, **judgement.evidence},
    )  # fmt: skip
    told = {**_judgement_data(alias, judgement), "to": done.after, "audit": done.audit}
    tx.event(f"use_case:{alias.use_case}", bake.TAKEN_BACK, told)


def _is_unmoved(tx: Transaction, alias: Alias) -> bool:
    """Whether the alias is still where it was judged."""
    now = aliases.read(tx, alias.use_case, alias.alias)
    return now is not None and (now.generation, now.model) == (alias.generation, alias.model)
