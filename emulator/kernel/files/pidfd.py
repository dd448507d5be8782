"""pidfd: a process by descriptor; readable once it has ended.  Source: pidfd_open(2), pidfd_send_signal(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.fcntl import O
from emulator.abi.polling import Poll
from emulator.kernel.files.description import Description

if TYPE_CHECKING:
    from emulator.kernel.host import Host
    from emulator.kernel.tasks import Task
    from emulator.kernel.thread_group import ThreadGroup


class PidfdDescription(Description):
    """Names a thread group (or one thread, PIDFD_THREAD) for as long as it is open."""

    __slots__ = ("_notify", "group", "thread")

    def __init__(self, host: Host, group: ThreadGroup, flags: int, thread: Task | None = None) -> None:
        super().__init__(host, O.RDWR | flags & O.NONBLOCK)
        self.group = group
        self.thread = thread
        self._notify = self._ended
        group.exit_event.subscribe(self._notify)

    def _ended(self) -> None:
        self.waiters.wake()

    def close(self) -> None:
        """Stop listening."""
        self.group.exit_event.unsubscribe(self._notify)

    def readlink_text(self) -> bytes:
        """As Linux names it."""
        return b"anon_inode:[pidfd]"

    def fdinfo(self) -> str:
        """Pid and NSpid, -1 once it is reaped."""
        pid = -1 if self.group.reaped else self.group.tgid
        return f"Pid:\t{pid}\nNSpid:\t{pid}\n"

    def poll(self, events: int) -> int:
        """Readable from its end on, hung up from its reaping on."""
        if self.thread is not None:
            return (Poll.IN | Poll.RDNORM) & events if not self.thread.alive else 0
        if self.group.reaped:
            return (Poll.IN | Poll.RDNORM | Poll.HUP) & (events | Poll.HUP)
        return (Poll.IN | Poll.RDNORM) & events if not self.group.tasks else 0
