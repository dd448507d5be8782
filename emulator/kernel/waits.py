"""Blocking is data: what a task waits for, and who wakes it.

Rule: no suspended Python frames.  A handler that cannot go on raises `Block`; the dispatcher stores its `Wait` in the
task.  Once woken, the same handler runs again from its start (`task.call` keeps what it noted), so a wake-up may be
spurious and a checkpoint is a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HostPoll:
    """Interest in a host fd: `events` are poll(2)'s bits."""

    fd: int
    events: int


@dataclass(slots=True, eq=False)
class WaitQueue:
    """Tasks that wait for one object.  `wake` moves them back to the run queue; they check again for themselves."""

    _waiters: dict[int, Callable[[], None]] = field(default_factory=dict)  # task serial -> make it runnable

    def add(self, serial: int, wake: Callable[[], None]) -> None:
        """Called by the dispatcher when a task blocks."""
        self._waiters[serial] = wake

    def discard(self, serial: int) -> None:
        """Called by the dispatcher when the task no longer waits."""
        self._waiters.pop(serial, None)

    def wake(self, count: int | None = None) -> int:
        """Wake all, or the first `count` in order of arrival; returns how many."""
        chosen = list(self._waiters)[:count]
        for serial in chosen:
            self._waiters.pop(serial)()
        return len(chosen)

    def __len__(self) -> int:
        return len(self._waiters)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a blocked task waits for: any of these queues or host fds, or the deadline (CLOCK_MONOTONIC, ns).

    `what` is for people and /proc/PID/wchan ("futex_wait", "pipe_read", "do_poll").
    """

    what: str
    queues: tuple[WaitQueue, ...] = ()
    host: tuple[HostPoll, ...] = ()
    deadline_ns: int | None = None
    interruptible: bool = True


class Block(Exception):  # noqa: N818 - control flow, not an error
    """Raised by a handler: block the calling task on `wait`, then call me again."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.what)
        self.wait = wait
