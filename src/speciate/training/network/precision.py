"""In which precision a network learns: bfloat16 where that was measured to be faster here and as good, else float32.

What is asked as `auto` is settled once, before the training, and is a part of it from then on: checkpoints, later
attempts and repetitions have the same. Judging and serving are float32 always.
"""

from __future__ import annotations

import json
import math
from typing import NamedTuple

from speciate.jobs.folder import write_whole
from speciate.jobs.run import Run
from speciate.training import provenance
from speciate.training.network import trial
from speciate.training.network.divergence import Diverged
from speciate.training.network.parameters import Precision
from speciate.training.specs import AskedPrecision

_FASTER = 1.2
"""Times as fast as in float32 that a step must be."""
_LOSS_SHARE, _LOSS = 0.02, 0.005
"""Of the same steps: by how much of the loss, or by how much, it may differ."""
_SHARE = 50
"""Trying costs at most so small a part of the time that lies ahead: a gain of a sixth must pay for many that fail."""
_NATIVE = frozenset({"avx512_bf16", "amx_bf16"})
_KEPT = "precision.json"


class Settled(NamedTuple):
    used: Precision
    why: str
    ratio: float | None = None
    """Seconds of a step in float32 / in bfloat16; None where it was not measured."""
    loss_difference: float | None = None
    """The largest of the same steps, as a share of the loss."""

    @property
    def gain(self) -> float:
        """Times as fast as what was measured in float32."""
        return self.ratio if self.used == "bfloat16" and self.ratio else 1.0


def settle(asked: AskedPrecision, training: trial.Tallied, device: str, pace: trial.Pace, seconds: float) -> Settled:
    """`pace`: in float32 where `auto` is asked; `seconds` lie ahead at most. The training is spent afterwards."""
    if asked != "auto":
        return Settled(asked, "as asked")
    if not native(device):
        return Settled("float32", "this device has no bfloat16 of its own")
    if trial.COMPARED_STEPS * pace.step.seconds * _SHARE > seconds:
        return Settled("float32", "too little lies ahead to try bfloat16")
    try:
        return decide(training.compare())
    except (RuntimeError, Diverged) as error:  # an operation that it lacks, want of memory, a loss that is no number
        if not isinstance(error, Diverged) and training.team.size > 1:
            raise  # the others still wait in that step
        return Settled("float32", "bfloat16 failed")


def unmeasured(asked: AskedPrecision) -> Settled:
    """Where so little lies ahead that no real step is taken before."""
    return (
        Settled("float32", "too little lies ahead to try bfloat16") if asked == "auto" else Settled(asked, "as asked")
    )


def decide(found: trial.Compared) -> Settled:
    difference = max(
        abs(one - other) / max(abs(one), 1e-9) for one, other in zip(found.losses, found.other_losses, strict=True)
    )
    agree = all(
        math.isclose(one, other, rel_tol=_LOSS_SHARE, abs_tol=_LOSS)
        for one, other in zip(found.losses, found.other_losses, strict=True)
    )
    ratio = found.seconds / found.other_seconds
    measured = round(ratio, 3), float(f"{difference:.2g}")
    said = f"a step in bfloat16 is {ratio:.2f} times as fast"
    if ratio < _FASTER:
        return Settled("float32", f"{said}, less than {_FASTER:g}", *measured)
    if not agree:
        return Settled("float32", f"{said}, but its loss is another by {difference:.1%}", *measured)
    return Settled("bfloat16", said, *measured)


def native(device: str) -> bool:
    """Whether the device computes with bfloat16, and does not emulate it."""
    if device != "cuda":
        return bool(_NATIVE & provenance.processor_flags())
    import torch

    supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    return supported


def known(run: Run) -> Settled | None:
    """What this attempt or one before it settled."""
    for folder in (run.checkpoints, *(attempt.checkpoints for attempt in run.resume_from)):
        if (path := folder / _KEPT).exists():
            return Settled(**json.loads(path.read_text()))
    return None


def keep(run: Run, settled: Settled) -> None:
    write_whole(run.checkpoints / _KEPT, json.dumps(settled._asdict()))
