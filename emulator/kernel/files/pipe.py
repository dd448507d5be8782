"""Pipes between guest tasks, inside the emulator.

Rule: blocking is data, so the bytes are here and not in a host pipe.  Writes up to PIPE_BUF are atomic; longer ones
go in as room appears.  A task that writes with no reader left gets SIGPIPE and EPIPE.
Sources: man 7 pipe, man 2 pipe, fs/pipe.c.
"""

from __future__ import annotations

import stat
from collections import deque
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.memory import Access
from emulator.abi.signals import Siginfo, Signal
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.description import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    Description,
    ReadBuffers,
    VirtualStat,
    WriteBuffers,
    gather,
    scatter,
    total,
    whole_pages,
)
from emulator.kernel.user_memory import user_buffers
from emulator.kernel.waits import Block, Wait, WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.host import Host
    from emulator.kernel.tasks import Task

_READ = Access.READ
PIPE_BUF = 4096
DEFAULT_CAPACITY = 65536
MAX_CAPACITY = 1 << 20  # /proc/sys/fs/pipe-max-size
FIONREAD = 0x541B


def broken_pipe(t: Task) -> LinuxError:
    """Send SIGPIPE to the writer, and make its EPIPE."""
    signals.send_to_task(t, Siginfo(Signal.SIGPIPE, 0, pid=t.pid, uid=t.credentials.ruid))
    return LinuxError(E.EPIPE)


class Pipe:
    """The buffer between the ends."""

    __slots__ = (
        "capacity",
        "created_ns",
        "data",
        "inode",
        "packets",
        "readers",
        "room",
        "wait_for_data",
        "waiting",
        "writers",
    )

    def __init__(self, inode: int, created_ns: int) -> None:
        self.inode = inode
        self.created_ns = created_ns
        self.data = bytearray()
        self.packets: deque[int] = deque()  # lengths of O_DIRECT packets at the head of `data`
        self.capacity = DEFAULT_CAPACITY
        self.readers = 0
        self.writers = 0
        self.waiting = WaitQueue()  # for data
        self.wait_for_data = Wait("pipe_read", (self.waiting,))
        self.room = WaitQueue()  # for room

    @property
    def free(self) -> int:
        """Bytes that fit."""
        return self.capacity - len(self.data)

    def put(self, data: bytes | memoryview, *, packet: bool = False) -> int:
        """Append what fits and wake readers."""
        free = self.capacity - len(self.data)
        part = data if len(data) <= free else data[:free]
        if packet:
            self.packets.append(len(part))
        self.data += part
        self.waiting.wake()
        return len(part)

    def take(self, count: int) -> bytes:
        """Remove up to `count` bytes (of one packet) and wake writers."""
        if self.packets:
            packet = self.packets.popleft()
            part = bytes(self.data[: min(count, packet)])
            del self.data[:packet]
        else:
            part = bytes(self.data[:count])
            del self.data[:count]
        self.room.wake()
        return part

    def take_into(self, buffers: ReadBuffers) -> int:
        """As `take`, into buffers."""
        if self.packets:
            return scatter(buffers, self.take(total(buffers)))
        view = memoryview(self.data)
        count = scatter(buffers, view)
        view.release()
        del self.data[:count]
        self.room.wake()
        return count


class PipeEnd(Description):
    """One end (or, opened O_RDWR, both)."""

    __slots__ = ("pipe",)

    splices_from = splices_to = True
    kind = "pipe"
    whole_pages = True

    def __init__(self, host: Host, flags: int, pipe: Pipe) -> None:
        super().__init__(host, flags)
        self.pipe = pipe
        if self.readable:
            pipe.readers += 1
            self.waiters = pipe.waiting
        if self.writable:
            pipe.writers += 1
            if not self.readable:
                self.waiters = pipe.room

    def close(self) -> None:
        pipe = self.pipe
        if self.readable:
            pipe.readers -= 1
            if not pipe.readers:
                pipe.room.wake()
        if self.writable:
            pipe.writers -= 1
            if not pipe.writers:
                pipe.waiting.wake()

    def read_one(self, t: Task, address: int, count: int) -> int | Wait:
        pipe = self.pipe
        data = pipe.data
        if data and count and not pipe.packets:
            part = data[:count]
            try:
                t.memory.write(address, part)
            except LinuxError:
                return super().read_one(t, address, count)  # its good beginning
            del data[:count]
            pipe.room.wake()
            return len(part)
        if data or not count or not pipe.writers or self.flags & O.NONBLOCK:
            return super().read_one(t, address, count)
        if address + count > t.arch.layout.task_size:
            raise LinuxError(E.EFAULT)
        return pipe.wait_for_data

    def write_one(self, t: Task, address: int, count: int) -> int | Wait:
        pipe = self.pipe
        data = pipe.data
        fits = 0 < count <= PIPE_BUF and count <= pipe.capacity - len(data)
        if fits and pipe.readers and t.call.memo is None and not self.flags & O.DIRECT:
            try:
                data += t.memory.read(address, count)
            except LinuxError:
                pass
            else:
                pipe.waiting.wake()
                return count
        buffers = user_buffers(t, address, count, _READ)
        return self.write(t, whole_pages(buffers, count) if count else buffers)

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        pipe = self.pipe
        if self.flags & 3 == O.WRONLY:
            raise LinuxError(E.EBADF)
        if pipe.data:
            return pipe.take_into(buffers)
        if not total(buffers) or not pipe.writers:
            return 0
        if self.flags & O.NONBLOCK:
            raise LinuxError(E.EAGAIN)
        raise Block(pipe.wait_for_data)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        pipe = self.pipe
        if not self.flags & 3:
            raise LinuxError(E.EBADF)
        done: int = t.call.memo or 0
        if not pipe.readers:
            if not total(buffers):
                return 0
            error = broken_pipe(t)
            if done:
                return done
            raise error
        data = gather(buffers)
        size = len(data)
        if self.flags & O.DIRECT:
            return self._write_packets(t, data, done)
        if pipe.capacity - len(pipe.data) >= (size if size <= PIPE_BUF else 1) and size:
            done += pipe.put(memoryview(data)[done:] if done else data)
        if done == size:
            return done
        if self.flags & O.NONBLOCK:
            if done:
                return done
            raise LinuxError(E.EAGAIN)
        raise self._wait_for_room(t, done)

    def _write_packets(self, t: Task, data: bytes, done: int) -> int:
        while done < len(data):
            part = data[done : done + PIPE_BUF]
            if self.pipe.free < len(part):
                if not self.flags & O.NONBLOCK:
                    raise self._wait_for_room(t, done)
                if done:
                    return done
                raise LinuxError(E.EAGAIN)
            done += self.pipe.put(part, packet=True)
        return done

    def _wait_for_room(self, t: Task, done: int) -> Block:
        t.call.memo = done
        return Block(Wait("pipe_write", (self.pipe.room,), interrupted=(lambda _: done) if done else None))

    def seek(self, offset: int, whence: int) -> int:
        raise LinuxError(E.ESPIPE)

    def stat(self) -> VirtualStat:
        pipe = self.pipe
        when = pipe.created_ns
        return VirtualStat(stat.S_IFIFO | 0o600, pipe.inode, 0xD, st_atime_ns=when, st_mtime_ns=when, st_ctime_ns=when)

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        if request == FIONREAD:
            t.memory.write_u32(argument, len(self.pipe.data))
            return 0
        raise LinuxError(E.ENOTTY)

    def set_capacity(self, size: int) -> int:
        """F_SETPIPE_SZ: the next power of two pages; EBUSY if the data would not fit."""
        if size > 1 << 31:
            raise LinuxError(E.EINVAL)
        pages = 1 << max((size - 1).bit_length() - 12, 0) if size > 0 else 1
        capacity = pages * 4096
        if capacity > MAX_CAPACITY:
            raise LinuxError(E.EPERM)
        if capacity < len(self.pipe.data):
            raise LinuxError(E.EBUSY)
        self.pipe.capacity = capacity
        self.pipe.room.wake()
        return capacity

    def poll(self, events: int) -> int:
        pipe = self.pipe
        found = 0
        if self.readable:
            if pipe.data:
                found |= POLLIN | POLLRDNORM
            if not pipe.writers:
                found |= POLLHUP
        if self.writable:
            if pipe.free >= PIPE_BUF or (not pipe.data):
                found |= POLLOUT | POLLWRNORM
            if not pipe.readers:
                found |= POLLERR
        return found & (events | POLLERR | POLLHUP)

    def readlink_text(self) -> bytes:
        return b"pipe:[%d]" % self.pipe.inode

    def reopen(self, t: Task, flags: int) -> Description:
        return PipeEnd(self.host, flags & (O.ACCMODE | O.NONBLOCK | O.DIRECT), self.pipe)


def make_pipe(t: Task, flags: int) -> tuple[PipeEnd, PipeEnd]:
    """pipe2(2): the read end and the write end."""
    kernel = t.kernel
    number = kernel.extensions.get("pipes", 20000) + 1
    kernel.extensions["pipes"] = number
    pipe = Pipe(number, kernel.clock.realtime_ns())
    return PipeEnd(kernel.host, O.RDONLY | flags, pipe), PipeEnd(kernel.host, O.WRONLY | flags, pipe)
