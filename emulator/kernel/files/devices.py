"""The memory devices: /dev/null, zero, full, random, urandom.

Rule: random bytes come through `Host`, where --seed makes them reproducible.
Sources: man 4 null, full, random; drivers/char/mem.c.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, ReadBuffers, VirtualStat, WriteBuffers, total

if TYPE_CHECKING:
    from emulator.cpu.mmu import Arena, Frames
    from emulator.kernel.host import Host
    from emulator.kernel.tasks import Task

NAMES = {3: b"/dev/null", 5: b"/dev/zero", 7: b"/dev/full", 8: b"/dev/random", 9: b"/dev/urandom"}
RNDGETENTCNT = 0x80045200
_CHUNK = 1 << 16


class MemoryDevice(Description):
    """One of the five, by its minor number (major 1)."""

    __slots__ = ("minor",)

    kind = "device"
    seekable = True
    splices_from = splices_to = True
    pollable = False  # the driver has no poll operation

    def __init__(self, host: Host, flags: int, minor: int, path: bytes = b"") -> None:
        super().__init__(host, flags, path or NAMES[minor])
        self.minor = minor

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        return self.pread(t, buffers, 0)

    def pread(self, t: Task | None, buffers: ReadBuffers, offset: int, flags: int = 0) -> int:
        if not self.readable:
            raise LinuxError(E.EBADF)
        if self.minor == 3:
            return 0
        for buffer in buffers:
            if self.minor in (8, 9):
                buffer[:] = self.host.random(len(buffer))
            else:
                for start in range(0, len(buffer), _CHUNK):
                    size = min(_CHUNK, len(buffer) - start)
                    buffer[start : start + size] = bytes(size)
        return total(buffers)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        return self.pwrite(t, buffers, 0)

    def pwrite(self, t: Task | None, buffers: WriteBuffers, offset: int, flags: int = 0) -> int:
        if not self.writable:
            raise LinuxError(E.EBADF)
        if self.minor == 7 and total(buffers):
            raise LinuxError(E.ENOSPC)
        return total(buffers)

    def seek(self, offset: int, whence: int) -> int:
        if self.minor in (8, 9) and whence not in (0, 1, 2):
            raise LinuxError(E.EINVAL)
        return 0

    def stat(self) -> VirtualStat:
        return device_stat(self.minor)

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        if self.minor in (8, 9) and request == RNDGETENTCNT:
            t.memory.write_u32(argument, 256)
            return 0
        raise LinuxError(E.EINVAL if self.minor in (8, 9) else E.ENOTTY)

    def mmap_frames(self, arena: Arena, offset: int, n_pages: int, *, shared: bool, writable: bool) -> Frames:
        if self.minor != 5:
            raise LinuxError(E.ENODEV)
        return arena.shared_anonymous(n_pages)

    def mmap_size(self) -> int:
        return 1 << 62

    def sync(self, data_only: bool) -> None:
        raise LinuxError(E.EINVAL)

    def reopen(self, t: Task, flags: int) -> Description:
        return type(self)(self.host, flags, self.minor, self.path)


class NullDevice(MemoryDevice):
    """/dev/null: what is written is not even looked at."""

    __slots__ = ()

    splices_from = False

    def write_one(self, t: Task, address: int, count: int) -> int:
        if address + count > t.arch.layout.task_size:
            raise LinuxError(E.EFAULT)
        return count


class RandomDevice(MemoryDevice):
    """/dev/random and /dev/urandom."""

    __slots__ = ()

    pollable = True


def device_stat(minor: int) -> VirtualStat:
    """What stat(2) says of them on a Debian system."""
    return VirtualStat(stat.S_IFCHR | 0o666, minor, 5, st_rdev=0x100 | minor)


def open_device(host: Host, device: int, flags: int, path: bytes = b"") -> MemoryDevice | None:
    """Our own version of a device, by its number; None for the ones that the host serves."""
    if device >> 8 == 1 and device & 0xFF in NAMES:
        minor = device & 0xFF
        kind = NullDevice if minor == 3 else RandomDevice if minor in (8, 9) else MemoryDevice
        return kind(host, flags, minor, path)
    return None
