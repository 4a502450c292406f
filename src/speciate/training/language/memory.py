"""How many examples of a training are in memory at once, and what is said where one is too much."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from speciate.errors import Code, SpeciateError
from speciate.jobs.run import OutOfMemory
from speciate.training.network.memory import retried_smaller


def micro_batch(batch_size: int, asked: int | None, retries: int) -> int:
    """Examples in memory at once: what was asked, halved as often as memory ran out, as far as it divides a batch.

    >>> micro_batch(16, None, 0), micro_batch(16, None, 2), micro_batch(12, 5, 0), micro_batch(16, None, 9)
    (16, 4, 4, 1)
    """
    most = max(1, min(asked or batch_size, batch_size) >> retries)
    return next(size for size in range(most, 0, -1) if batch_size % size == 0)


@contextlib.contextmanager
def halved_where_full(micro: int) -> Iterator[None]:
    """Raises OutOfMemory, upon which the engine tries again with a smaller micro-batch; INVALID where one example at a
    time is too much, so that trying again does not help."""
    try:
        with retried_smaller():
            yield
    except OutOfMemory as error:
        if micro > 1:
            raise
        raise SpeciateError(
            Code.INVALID,
            "The training ran out of memory with one example at a time.",
            "Call train_model again with a smaller hyperparameters={'max_length': ...}, with {'recompute': true}, or "
            "with a smaller base model.",
        ) from error
