"""What detectors learn at leisure: in threads, a bounded number at a time, never while a reading waits.

An alert is a reason to learn: what was usual may not be so any more (preventive learning). Students copy what they
need, study the copy in a thread, and take the result into use between two readings. Alerts that come meanwhile are
answered together by the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from chimera.anomaly.detectors.base import Student, Study
from chimera.core.clock import Clock

MAX_WAITING = 10_000
"""Slots that wait to be learned. Of more, all are."""

_log = logging.getLogger(__name__)


class BackgroundLearning:
    """Lets students study after they were told of a reason. To be used on one event loop."""

    def __init__(self, *, learners: int, every_s: float, clock: Clock) -> None:
        self.learned = 0
        self.failed = 0
        self._students: tuple[Student, ...] = ()
        self._learners = learners
        self._every_s = every_s
        self._clock = clock
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: set[int] = set()
        self._everything = False
        self._due = -np.inf
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def teach(self, students: Sequence[Student]) -> None:
        """From now on these are the students. Nothing that others are studying is taken into use."""
        self._students = tuple(students)
        self._waiting.clear()
        self._everything = False

    def remember(self, slots: Sequence[int]) -> None:
        """There is a reason to learn these slots again."""
        self._waiting.update(slots)
        if len(self._waiting) > MAX_WAITING:
            self.remember_all()

    def remember_all(self) -> None:
        """There is a reason to learn all slots again."""
        self._waiting.clear()
        self._everything = True

    def begin(self) -> None:
        """Start what is due, if anything is, and return at once. Needs a running event loop."""
        waits = self._students and (self._waiting or self._everything)
        if not waits or self._tasks or self._closed or self._clock.monotonic() < self._due:
            return
        self._due = self._clock.monotonic() + self._every_s
        at = None if self._everything else np.array(sorted(self._waiting), np.int64)
        self._waiting.clear()
        self._everything = False
        for student in self._students:
            study = self._copied(student, at)
            if study is not None:
                task = asyncio.create_task(self._learn(student, study))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until nobody studies any more."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def aclose(self) -> None:
        """End it. A study that cannot be interrupted ends by itself, and is not taken into use."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _copied(self, student: Student, at: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> Study | None:
        try:
            return student.study(at)
        except Exception:  # a user's detector must not end the watch
            self._fail(student)
            return None

    async def _learn(self, student: Student, study: Study) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._learners, thread_name_prefix="chimera-learning")
        try:
            adopt = await asyncio.get_running_loop().run_in_executor(self._threads, study)
            if any(student is present for present in self._students):
                adopt()
                self.learned += 1
        except Exception:  # as above
            self._fail(student)

    def _fail(self, student: Student) -> None:
        self.failed += 1
        _log.warning("%s failed to learn", type(student).__name__, exc_info=True)
