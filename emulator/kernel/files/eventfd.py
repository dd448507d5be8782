"""eventfd: a counter with two ends.  Source: eventfd(2), fs/eventfd.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.polling import EVENTFD_MAX, Poll
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, ReadBuffers, WriteBuffers, gather, scatter, total

if TYPE_CHECKING:
    from emulator.kernel.host import Host
    from emulator.kernel.tasks import Task


class EventfdDescription(Description):
    """The counter; a semaphore gives one at a time."""

    __slots__ = ("count", "semaphore")

    def __init__(self, host: Host, initial: int, flags: int, *, semaphore: bool) -> None:
        super().__init__(host, O.RDWR | flags & O.NONBLOCK)
        self.count = initial
        self.semaphore = semaphore

    def seek(self, offset: int, whence: int) -> int:
        """noop_llseek(): the position never moves."""
        return 0

    def readlink_text(self) -> bytes:
        """As Linux names it."""
        return b"anon_inode:[eventfd]"

    def fdinfo(self) -> str:
        """The counter."""
        return f"eventfd-count: {self.count:16x}\n"

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """Take the counter, or one of it."""
        if total(buffers) < 8:
            raise LinuxError(E.EINVAL)
        if not self.count:
            if self.nonblocking:
                raise LinuxError(E.EAGAIN)
            raise self.block("eventfd_read", Poll.IN)
        value = 1 if self.semaphore else self.count
        self.count -= value
        scatter(buffers, struct.pack("<Q" if t.memory.byteorder == "little" else ">Q", value))
        self.waiters.wake()
        return 8

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        """Add to the counter; waits while it would overflow."""
        if total(buffers) < 8:
            raise LinuxError(E.EINVAL)
        (value,) = struct.unpack("<Q" if t.memory.byteorder == "little" else ">Q", gather(buffers, 8))
        if value == EVENTFD_MAX:
            raise LinuxError(E.EINVAL)
        if self.count + value >= EVENTFD_MAX:
            if self.nonblocking:
                raise LinuxError(E.EAGAIN)
            raise self.block("eventfd_write", Poll.OUT)
        self.count += value
        self.waiters.wake()
        return 8

    def announce(self) -> None:
        """eventfd_signal(): one more, without waiting."""
        self.count = min(self.count + 1, EVENTFD_MAX - 1)
        self.waiters.wake()

    def poll(self, events: int) -> int:
        """Readable above zero, writable while one more fits."""
        ready = 0
        if self.count:
            ready |= Poll.IN | Poll.RDNORM
        if self.count < EVENTFD_MAX - 1:
            ready |= Poll.OUT | Poll.WRNORM
        return ready & events
