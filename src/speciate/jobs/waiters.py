"""Lets threads sleep until something happens to a job, without asking the catalog in a loop."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Waiters:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = defaultdict(list)

    @contextmanager
    def on(self, subject: str) -> Iterator[threading.Event]:
        """An event that is set at the next change of `subject`. Enter before reading its state, to miss none."""
        bell = threading.Event()
        with self._lock:
            self._waiting[subject].append(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._waiting[subject].remove(bell)
                if not self._waiting[subject]:
                    del self._waiting[subject]

    def wake(self, subjects: Iterable[str]) -> None:
        with self._lock:
            if self._waiting:
                for subject in subjects:
                    for bell in self._waiting.get(subject, ()):
                        bell.set()
