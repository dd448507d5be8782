"""Time as the guest sees it, and the timers that wait for it.

Rule: every clock reading goes through here, and the host's time enters through `Host` only.  Deadlines are
CLOCK_MONOTONIC nanoseconds everywhere.  Source: clock_gettime(2), timers in time(7).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol


class TimeSource(Protocol):
    """The host's clocks (kernel/host.py)."""

    def monotonic_ns(self) -> int: ...
    def realtime_ns(self) -> int: ...


class Timer:
    """One callback at one moment; `cancel` is idempotent."""

    __slots__ = ("callback", "cancelled", "deadline_ns")

    def __init__(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self.deadline_ns = deadline_ns
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Never call back."""
        self.cancelled = True


class Clock:
    """The guest's clocks and its timer queue.

    `monotonic_ns` and `realtime_ns` are the source's own bound methods: this is the path of every clock_gettime.
    """

    def __init__(self, source: TimeSource) -> None:
        self.monotonic_ns = source.monotonic_ns
        self._source_realtime_ns = source.realtime_ns
        self.realtime_offset_ns = 0  # clock_settime moves the guest's time only
        self.boot_ns = source.monotonic_ns()
        self.pending: list[tuple[int, int, Timer]] = []  # a heap; empty is false
        self._heap = self.pending
        self._order = count()
        self._compact_at = 1024  # timed waits that end early leave cancelled timers behind

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""
        return self._source_realtime_ns() + self.realtime_offset_ns

    def realtime_to_monotonic(self, realtime_ns: int) -> int:
        """The CLOCK_MONOTONIC deadline of a CLOCK_REALTIME moment, as things stand now."""
        return realtime_ns - self.realtime_ns() + self.monotonic_ns()

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back once, at or after `deadline_ns`."""
        timer = Timer(deadline_ns, callback)
        if len(self._heap) >= self._compact_at:
            self._heap[:] = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
            self._compact_at = max(1024, 2 * len(self._heap))
        heapq.heappush(self._heap, (deadline_ns, next(self._order), timer))
        return timer

    def next_deadline_ns(self) -> int | None:
        """When the earliest live timer is due."""
        heap = self._heap
        while heap and heap[0][2].cancelled:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_due(self) -> int:
        """Run every timer that is due; returns how many ran."""
        heap = self._heap
        if not heap:
            return 0
        now = self.monotonic_ns()
        ran = 0
        while heap and (heap[0][0] <= now or heap[0][2].cancelled):
            timer = heapq.heappop(heap)[2]
            if not timer.cancelled:
                timer.cancelled = True
                timer.callback()
                ran += 1
        return ran
