"""How strict a verdict must be on test rows that judged other models before.

A loop asks the same test rows again and again, and the best of many equal models looks better by luck: of 40 rounds
with three equal candidates each, some candidate is "surely better" in most loops. Two results shape the rule.

Only a promotion changes what the next candidate is compared with. So a candidate must beat the best so far by more than
the doubt before it counts, as in the Ladder (Blum & Hardt 2015, "The Ladder: A Reliable Leaderboard for Machine
Learning Competitions"). Gates already ask that; what they lacked is a doubt that covers all rounds.

The doubt is an error budget that is spent over the candidates (alpha spending: Lan & DeMets 1983; over a stream of
hypotheses of unknown length: Foster & Stine 2008). A first evaluation keeps its own: 2.5 % to call a candidate better
that is not, shared by its candidates (Bonferroni). All later ones on the same rows share another 2.5 %. After the first
and N further candidates the share N / (N + H) of it is spent, so the next k get H k / ((N + H) (N + H + k)) together,
which sums to 1 however long the loop goes on. No independence of the candidates is assumed. Rows that chose the model
in production were looked at, too, though no other candidate is known.

Departures: the Ladder rounds its scores and releases nothing else; our reports show scores, so someone who trains
against them by hand can still do harm. Thresholdout (Dwork et al. 2015) would add noise to every answer, which a
decision that people read and repeat cannot have.

Standard library alone: the daemon plans with it, too.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from speciate.sample_size import LEVEL

HALF_SPENT = 10
"""Further candidates (H) after which half of the error budget of reuse is spent. Few leave little for later rounds,
many for the first ones: with 10 a gain of twice the detectable effect is still found after 40 rounds of three."""


class LooksOnRows(BaseModel):
    """What the test rows of an evaluation were asked before it, by anybody and for any use case."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    candidates: int = Field(
        0, ge=0, description="Models judged on these rows before, once for each state of the suite."
    )
    evaluations: int = Field(0, ge=0, description="Evaluations that read them.")
    promotions: int = Field(0, ge=0, description="Promotions that rested on them.")

    @property
    def spent(self) -> int:
        """Earlier candidates to account for: those that are known, or those that were chosen."""
        return max(self.candidates, self.promotions)


def level_for(judged: int, looks: LooksOnRows | None = None) -> float:
    """The level of each candidate's two-sided intervals where `judged` are judged at once.

    Without earlier looks 1 - 0.05 / judged (Bonferroni); with looks, the rest of the error budget as above.

    >>> level_for(1), round(level_for(1, LooksOnRows(candidates=3)), 4)
    (0.95, 0.9968)
    """
    most = max(1, judged)
    if looks is None or not looks.spent:
        return 1 - (1 - LEVEL) / most
    begun = looks.spent - 1 + HALF_SPENT
    return 1 - (1 - LEVEL) * HALF_SPENT / (begun * (begun + most))
