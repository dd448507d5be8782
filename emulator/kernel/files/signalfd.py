"""signalfd: take signals by reading.  Source: signalfd(2), fs/signalfd.c.

Rule: a read takes the *reader's* signals; readiness is that of the task that asks.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.polling import SIGNALFD_SIGINFO_SIZE, Poll
from emulator.abi.signals import Siginfo
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.description import Description, ReadBuffers, scatter, total
from emulator.kernel.waits import Block, Wait

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task


class SignalfdDescription(Description):
    """A set of signals to take."""

    __slots__ = ("_notify", "_owner", "mask")

    def __init__(self, t: Task, mask: int, flags: int) -> None:
        super().__init__(t.kernel.host, O.RDWR | flags & O.NONBLOCK)
        self.mask = mask
        self._owner = t
        self._notify = self._arrived
        t.group.sighand.arrived.subscribe(self._notify)

    def _arrived(self) -> None:
        self.waiters.wake()

    def close(self) -> None:
        """Stop listening."""
        self._owner.group.sighand.arrived.unsubscribe(self._notify)

    def seek(self, offset: int, whence: int) -> int:
        """noop_llseek(): the position never moves."""
        return 0

    def readlink_text(self) -> bytes:
        """As Linux names it."""
        return b"anon_inode:[signalfd]"

    def fdinfo(self) -> str:
        """The mask."""
        return f"sigmask:\t{self.mask:016x}\n"

    def set_mask(self, mask: int) -> None:
        """signalfd4(2) on an existing descriptor."""
        self.mask = mask
        self.waiters.wake()

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """As many struct signalfd_siginfo as are pending and fit."""
        room = total(buffers) // SIGNALFD_SIGINFO_SIZE
        if not room:
            raise LinuxError(E.EINVAL)
        taken: list[bytes] = []
        while len(taken) < room:
            info = signals.take(t, self.mask)
            if info is None:
                break
            taken.append(pack(info, t.memory.byteorder))
        if taken:
            return scatter(buffers, b"".join(taken))
        if self.nonblocking:
            raise LinuxError(E.EAGAIN)
        raise Block(Wait("signalfd_dequeue", (self.waiters, t.group.sighand.arrived)))

    def poll(self, events: int) -> int:
        """Readable while one of the signals is pending for the task that asks."""
        t = self._owner.kernel.current or self._owner
        pending = t.signals.pending.mask | t.group.pending.mask
        return (Poll.IN | Poll.RDNORM) & events if pending & self.mask else 0


def pack(info: Siginfo, byteorder: str) -> bytes:
    """struct signalfd_siginfo."""
    order = "<" if byteorder == "little" else ">"
    value = info.value & 0xFFFFFFFFFFFFFFFF
    head = struct.pack(
        order + "IiiIIiIIIIiiQQQQHHiQI",
        info.signo,
        info.errno,
        info.code,
        info.pid & 0xFFFFFFFF,
        info.uid & 0xFFFFFFFF,
        info.fd,
        max(info.timer_id, 0),
        info.band & 0xFFFFFFFF,
        info.overrun,
        0,
        info.status,
        (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000,
        value,
        info.utime,
        info.stime,
        info.addr,
        info.addr_lsb & 0xFFFF,
        0,
        info.syscall,
        info.call_addr,
        info.arch,
    )
    return head.ljust(SIGNALFD_SIGINFO_SIZE, b"\0")
