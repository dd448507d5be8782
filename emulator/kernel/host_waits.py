"""Which blocked tasks wait for which host descriptors: one host epoll set for all of them.

Rule: a wait arms its descriptors once (oneshot), a wake-up disarms them; nothing costs more because others wait too.
An answer may come for a wait that is over: it is dropped, and a woken task looks for itself anyway.
Source: epoll_ctl(2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.polling import ALWAYS, EPOLLONESHOT, Poll
from emulator.errors import LinuxError
from emulator.kernel.host_sockets import HostEpoll

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task
    from emulator.kernel.waits import HostPoll

_AT_ONCE = 64


class HostWaits:
    """The tasks that wait for the host."""

    __slots__ = ("_ready_now", "_set", "by_fd", "notified", "watchers")

    def __init__(self) -> None:
        self.by_fd: dict[int, dict[int, tuple[Task, int]]] = {}  # fd -> task serial -> (task, events)
        self._ready_now: set[int] = set()  # descriptors that epoll refuses: regular files never make anybody wait
        self._set: HostEpoll | None = None
        self.watchers: dict[int, Callable[[int], None]] = {}
        self.notified = False  # the last `ready` called a watcher, who may have woken anybody

    def __bool__(self) -> bool:
        return bool(self.by_fd or self.watchers)

    def add(self, task: Task, polls: tuple[HostPoll, ...]) -> None:
        """The task blocks on these."""
        serial = task.uid.serial
        for poll in polls:
            waiters = self.by_fd.get(poll.fd)
            if waiters is None:
                self.by_fd[poll.fd] = {serial: (task, poll.events)}
                self._arm(poll.fd, poll.events)
            else:
                before = waiters.get(serial)
                waiters[serial] = (task, poll.events | (before[1] if before else 0))
                self._arm(poll.fd, self._wanted(waiters))

    def remove(self, task: Task, polls: tuple[HostPoll, ...]) -> None:
        """It does not wait any more."""
        serial = task.uid.serial
        for poll in polls:
            waiters = self.by_fd.get(poll.fd)
            if waiters is not None and waiters.pop(serial, None) is not None and not waiters:
                del self.by_fd[poll.fd]
                self._ready_now.discard(poll.fd)

    def watch(self, fd: int, events: int, notify: Callable[[int], None]) -> None:
        """Call `notify` with the events of a descriptor nobody else waits for (a duplicate), until `unwatch`."""
        if self._set is None:
            self._set = HostEpoll()
        self._set.add(fd, events)
        self.watchers[fd] = notify

    def unwatch(self, fd: int) -> None:
        """Stop it."""
        del self.watchers[fd]
        if self._set is not None:
            self._set.remove(fd)

    @property
    def interest(self) -> tuple[tuple[int, int], ...]:
        """What to poll(2) while nobody runs: (fd, events)."""
        return ((self._set.fd, Poll.IN),) if self and self._set is not None else ()

    def ready(self) -> list[Task]:
        """The tasks whose descriptors have something to tell, in the order they began to wait for it."""
        found: list[Task] = []
        self.notified = False
        if self._ready_now:
            for fd in list(self._ready_now):
                found += [task for task, _ in self.by_fd.get(fd, {}).values()]
        if self._set is None:
            return found
        for fd, events in self._set.wait(_AT_ONCE):
            waiters = self.by_fd.get(fd)
            if waiters is None:
                notify = self.watchers.get(fd)
                if notify is not None:
                    notify(events)
                    self.notified = True
                continue
            left = 0
            for task, wanted in waiters.values():
                if events & (wanted | ALWAYS):
                    found.append(task)
                else:
                    left |= wanted
            if left:
                self._arm(fd, left)
        return found

    @staticmethod
    def _wanted(waiters: dict[int, tuple[Task, int]]) -> int:
        events = 0
        for _, wanted in waiters.values():
            events |= wanted
        return events

    def _arm(self, fd: int, events: int) -> None:
        if self._set is None:
            self._set = HostEpoll()
        try:
            self._set.modify(fd, events | EPOLLONESHOT)
            return
        except LinuxError as error:
            if error.errno is not E.ENOENT:
                self._ready_now.add(fd)  # EPERM, EBADF: the handler finds out what is the matter
                return
        try:
            self._set.add(fd, events | EPOLLONESHOT)
        except LinuxError:
            self._ready_now.add(fd)
