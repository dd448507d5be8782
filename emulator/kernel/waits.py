"""Blocking is data: what a task waits for, and who wakes it.

Rule: no suspended Python frames.  A handler that cannot go on returns its `Wait`, or something it calls raises a
`Block` with one (which takes a microsecond longer); the dispatcher stores the `Wait` in the task.  Once woken, the same
handler runs again from its start (`task.call` keeps what it noted), so a wake-up may be spurious and a checkpoint is a
copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.abi.errno import E

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task


@dataclass(frozen=True, slots=True)
class HostPoll:
    """Interest in a host fd: `events` are poll(2)'s bits."""

    fd: int
    events: int


class WaitQueue:
    """Tasks that wait for one object.  `wake` moves them back to the run queue; they check again for themselves.

    `subscribe` is for objects that watch objects (epoll, signalfd): called at every wake, until unsubscribed.  Of those
    that subscribe exclusively (EPOLLEXCLUSIVE) it is called until one has somebody to wake.
    """

    __slots__ = ("_exclusive", "_subscribers", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[int, Task] = {}  # by serial
        self._subscribers: list[Callable[[], object]] = []
        self._exclusive: list[Callable[[], bool]] = []

    def add(self, task: Task) -> None:
        """Called by the scheduler when a task blocks."""
        self._waiters[task.uid.serial] = task

    def discard(self, task: Task) -> None:
        """Called by the scheduler when the task no longer waits."""
        self._waiters.pop(task.uid.serial, None)

    def wake(self, count: int | None = None) -> int:
        """Wake all, or the first `count` in order of arrival; returns how many."""
        woken = 0
        waiters = self._waiters
        if waiters:
            for task in list(waiters.values())[:count]:
                waiters.pop(task.uid.serial, None)
                task.kernel.scheduler.wake(task)
                woken += 1
        if self._subscribers:
            for notify in tuple(self._subscribers):
                notify()
        if self._exclusive:
            any(tell() for tell in tuple(self._exclusive))
        return woken

    def subscribe_exclusive(self, tell: Callable[[], bool]) -> None:
        """Call `tell` at a wake, unless one that came before has woken somebody: it says whether it has."""
        self._exclusive.append(tell)

    def unsubscribe_exclusive(self, tell: Callable[[], bool]) -> None:
        """Stop calling `tell`."""
        self._exclusive.remove(tell)

    def subscribe(self, notify: Callable[[], object]) -> None:
        """Call `notify` at every wake."""
        self._subscribers.append(notify)

    def unsubscribe(self, notify: Callable[[], object]) -> None:
        """Stop calling `notify`."""
        if notify in self._subscribers:
            self._subscribers.remove(notify)

    def __len__(self) -> int:
        return len(self._waiters)


@dataclass(slots=True, eq=False)
class Wait:
    """What a blocked task waits for: any of these queues or host fds, or the deadline (CLOCK_MONOTONIC, ns).

    `what` is for people and /proc/PID/wchan ("futex_wait", "pipe_read", "do_poll").
    `restart` says how a signal ends the call: ERESTARTSYS (restarted if SA_RESTART), ERESTARTNOHAND (only if no
    handler runs: poll, select, sigsuspend, pause), ERESTART_RESTARTBLOCK (by restart_syscall: nanosleep, timed futex),
    ERESTARTNOINTR (always), EINTR (never).  See signal(7), "Interruption of system calls".
    `partial`, if not 0, is the result when a signal ends the call (bytes already moved).
    `interrupted`, if given, is called when a signal ends the call; what it returns, if not None, is the call's result
    (a write that already moved some bytes).
    Nobody changes one once it is made (it is not frozen because making one is a hot path).
    """

    what: str
    queues: tuple[WaitQueue, ...] = ()
    host: tuple[HostPoll, ...] = ()
    deadline_ns: int | None = None
    interruptible: bool = True
    restart: E = E.ERESTARTSYS
    partial: int = 0
    interrupted: Callable[[Task], int | None] | None = None


class Block(Exception):  # noqa: N818 - control flow, not an error
    """Raised below a handler: block the calling task on `wait`, then call the handler again."""

    def __init__(self, wait: Wait) -> None:
        self.wait = wait  # BaseException.__new__ keeps the arguments
