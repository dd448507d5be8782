"""Streams of the host: what stdin, stdout and stderr were, FIFOs, character devices.

Rule: the guest's O_NONBLOCK is never written to a host description that other programs share.  Where the host can
open the object a second time, a non-blocking description of our own does the I/O; else it is polled before each call,
and no more is written than poll(2) promises.
Sources: man 7 pipe, man 7 fifo, man 2 poll.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError
from emulator.kernel.files.description import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRNORM,
    Description,
    ReadBuffers,
    Stat,
    WriteBuffers,
    gather,
    scatter,
    total,
)
from emulator.kernel.files.device_ioctls import device_ioctl
from emulator.kernel.files.pipe import broken_pipe
from emulator.kernel.files.regular import HostFile
from emulator.kernel.waits import HostPoll

if TYPE_CHECKING:
    from emulator.kernel.paths import Walker
    from emulator.kernel.tasks import Task

PIPE_BUF = 4096
FIONREAD = 0x541B


class HostStream(HostFile):
    """A host descriptor that can make its reader or writer wait."""

    __slots__ = ("_io", "_pushback", "inherited", "kind")

    splices_from = splices_to = True

    def __init__(self, walker: Walker, fd: int, flags: int, *, inherited: bool = False) -> None:
        """`inherited`: the description belongs to others too, its status flags are not ours to change."""
        super().__init__(walker, fd, flags)
        self.inherited = inherited
        self._io: int | None = fd if not inherited else None
        self._pushback = b""
        mode = self.host.fstat(fd).st_mode
        self.kind = "fifo" if stat.S_ISFIFO(mode) else "device"
        if inherited and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            self._io = self.host.open_again(fd, self.flags & O.ACCMODE)

    def close(self) -> None:
        if self._io is not None and self._io != self._fd:
            self.host.close(self._io)
        self._io = None
        if self.inherited:
            self.host.forget_inherited(self._fd)
            self._fd = -1
            return
        super().close()

    def push_back(self, data: bytes) -> None:
        """Give back what was read to find out whether there is a writer."""
        self._pushback += data

    def stat(self) -> Stat:
        return self.host.fstat(self._fd)

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        if not self.readable:
            raise LinuxError(E.EBADF)
        if self._pushback:
            count = scatter(buffers, self._pushback)
            self._pushback = self._pushback[count:]
            return count
        if not total(buffers):
            return 0
        try:
            if self._io is not None:
                return self.host.readv(self._io, buffers)
            if self.host.poll(self._fd, POLLIN):
                return self.host.readv(self._fd, buffers)
        except LinuxError as error:
            if error.errno is not E.EAGAIN:
                raise
        if self.nonblocking:
            raise LinuxError(E.EAGAIN)
        raise self.block("read", POLLIN)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        if not self.writable:
            raise LinuxError(E.EBADF)
        done = t.call.memo if type(t.call.memo) is int else 0
        data: WriteBuffers = buffers if not done else [gather(buffers, None, done)]
        size = total(data)
        if not size:
            return done
        while size:
            try:
                count = self._write_some(data)
            except LinuxError as error:
                if error.errno is E.EPIPE:
                    broken = broken_pipe(t)
                    if done:
                        return done
                    raise broken from None
                if error.errno is not E.EAGAIN:
                    if done:
                        return done
                    raise
                if self.nonblocking:
                    if done:
                        return done
                    raise
                t.call.memo = done
                raise self.block("write", POLLOUT, partial=done) from None
            done += count
            size -= count
            if size:
                data = [gather(data, None, count)]
        return done

    def _write_some(self, data: WriteBuffers) -> int:
        if self._io is not None:
            return self.host.writev(self._io, data)
        if not self.host.poll(self._fd, POLLOUT):
            raise LinuxError(E.EAGAIN)
        return self.host.writev(self._fd, [gather(data, PIPE_BUF)])

    def poll(self, events: int) -> int:
        found = self.host.poll(self._fd, events & (POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM))
        if self._pushback:
            found |= events & (POLLIN | POLLRDNORM)
        return found & (events | POLLERR | POLLHUP)

    def host_poll(self) -> HostPoll | None:
        return HostPoll(self._fd, POLLIN | POLLOUT | POLLPRI)

    def sync(self, data_only: bool) -> None:
        raise LinuxError(E.EINVAL)

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        if request == FIONREAD:
            result = self.host.ioctl(self._fd, request, bytes(4))
            waiting = int.from_bytes(result, "little") if isinstance(result, bytes) else 0
            t.memory.write_u32(argument, waiting + len(self._pushback))
            return 0
        return device_ioctl(t, self, request, argument)

    def truncate(self, length: int) -> None:
        raise LinuxError(E.EINVAL)

    def readlink_text(self) -> bytes:
        return self.walker.guest_path(self._fd)

    def reopen(self, t: Task, flags: int) -> Description:
        if self.inherited and flags & O.ACCMODE == self.flags & O.ACCMODE:
            return self  # what a shell's >/dev/stderr means; the offset of a stream is no matter
        return t.kernel.vfs.reopen_host(t, self._fd, flags)
