"""Named FIFOs: the host's own, so that host programs can be at the other end.

Rule: an open that has to wait for the other end is a blocked task, woken by a guest's open or by a poll of the host.
Sources: man 7 fifo, fs/pipe.c (fifo_open).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError
from emulator.kernel.files.description import POLLHUP, POLLIN
from emulator.kernel.files.streams import HostStream
from emulator.kernel.host_handles import HostFd
from emulator.kernel.waits import Block, Wait, WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.paths import Walker
    from emulator.kernel.tasks import Task

RETRY_NS = 10_000_000  # how long until a host program at the other end is noticed


def open_fifo(t: Task, walker: Walker, holder: HostFd | None, status: os.stat_result, flags: int) -> HostStream:
    """Open, or wait for the other end.  `holder` is None when the host had no reader for our write end (ENXIO)."""
    queues: dict[tuple[int, int], WaitQueue] = t.kernel.extensions.setdefault("fifo_openers", {})
    queue = queues.setdefault((status.st_dev, status.st_ino), WaitQueue())
    early = b""
    if holder is None:
        raise Block(Wait("wait_for_partner", (queue,), (), t.kernel.clock.monotonic_ns() + RETRY_NS))
    if flags & O.ACCMODE == O.RDONLY and not flags & O.NONBLOCK:
        if isinstance(t.call.memo, HostFd):
            holder = t.call.memo  # the end we hold open while we wait
        found, early = _writer_came(walker, holder.number)
        if not found:
            t.call.memo = holder
            queue.wake()
            raise Block(Wait("wait_for_partner", (queue,), (), t.kernel.clock.monotonic_ns() + RETRY_NS))
        t.call.memo = None
    queue.wake()
    stream = HostStream(walker, holder.take(), flags)
    if early:
        stream.push_back(early)
    return stream


def _writer_came(walker: Walker, fd: int) -> tuple[bool, bytes]:
    """Is there, or was there since the open, a writer?  poll(2) alone cannot tell an idle writer from none."""
    host = walker.host
    if host.poll(fd, POLLIN) & (POLLIN | POLLHUP):
        return True, b""
    probe = bytearray(1)
    try:
        count = host.readv(fd, [probe])
    except LinuxError as error:
        if error.errno is E.EAGAIN:
            return True, b""
        raise
    return count > 0, bytes(probe[:count])
