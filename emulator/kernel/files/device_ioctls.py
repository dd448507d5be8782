"""ioctl(2) of block devices and loop devices: the host's, argument by argument.

Rule: only requests whose argument is known go through, so that a guest pointer is never taken for one of ours.
Sources: man 4 loop, <linux/fs.h> (BLK*), <linux/loop.h>.
"""

from __future__ import annotations

import stat
from enum import Enum, auto
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.errors import LinuxError

if TYPE_CHECKING:
    from emulator.kernel.files.description import Description
    from emulator.kernel.tasks import Task

LOOP_CONTROL = 10 << 8 | 237
LOOP_MAJOR = 7
LOOP_CONFIGURE = 0x4C0A


class Argument(Enum):
    """What the third argument is."""

    NUMBER = auto()
    DESCRIPTOR = auto()
    IN = auto()
    OUT = auto()


N, D, I, O = Argument.NUMBER, Argument.DESCRIPTOR, Argument.IN, Argument.OUT  # noqa: E741 - columns of a table
BLOCK: dict[int, tuple[Argument, int]] = {
    0x125D: (I, 4),  # BLKROSET
    0x125E: (O, 4),  # BLKROGET
    0x125F: (N, 0),  # BLKRRPART
    0x1260: (O, 8),  # BLKGETSIZE
    0x1261: (N, 0),  # BLKFLSBUF
    0x1262: (N, 0),  # BLKRASET
    0x1263: (O, 8),  # BLKRAGET
    0x1268: (O, 4),  # BLKSSZGET
    0x1277: (I, 16),  # BLKDISCARD
    0x1278: (O, 4),  # BLKIOMIN
    0x1279: (O, 4),  # BLKIOOPT
    0x127A: (O, 4),  # BLKALIGNOFF
    0x127B: (O, 4),  # BLKPBSZGET
    0x127C: (O, 4),  # BLKDISCARDZEROES
    0x127F: (I, 16),  # BLKZEROOUT
    0x80081270: (O, 4),  # BLKBSZGET
    0x40081271: (I, 4),  # BLKBSZSET
    0x80081272: (O, 8),  # BLKGETSIZE64
}
LOOP: dict[int, tuple[Argument, int]] = {
    0x4C00: (D, 0),  # LOOP_SET_FD
    0x4C01: (N, 0),  # LOOP_CLR_FD
    0x4C02: (I, 168),  # LOOP_SET_STATUS
    0x4C03: (O, 168),  # LOOP_GET_STATUS
    0x4C04: (I, 232),  # LOOP_SET_STATUS64
    0x4C05: (O, 232),  # LOOP_GET_STATUS64
    0x4C06: (D, 0),  # LOOP_CHANGE_FD
    0x4C07: (N, 0),  # LOOP_SET_CAPACITY
    0x4C08: (N, 0),  # LOOP_SET_DIRECT_IO
    0x4C09: (N, 0),  # LOOP_SET_BLOCK_SIZE
    LOOP_CONFIGURE: (I, 304),
}
CONTROL: dict[int, tuple[Argument, int]] = {0x4C80: (N, 0), 0x4C81: (N, 0), 0x4C82: (N, 0)}  # LOOP_CTL_*


def _requests(mode: int, device: int) -> dict[int, tuple[Argument, int]]:
    if stat.S_ISBLK(mode):
        return {**BLOCK, **LOOP} if device >> 8 == LOOP_MAJOR else BLOCK
    return CONTROL if stat.S_ISCHR(mode) and device == LOOP_CONTROL else {}


def device_ioctl(t: Task, file: Description, request: int, argument: int) -> int:
    """Do it, or ENOTTY for a file or a request that is not known here."""
    status = file.stat()
    known = _requests(status.st_mode, status.st_rdev).get(request)
    if known is None:
        raise LinuxError(E.ENOTTY)
    host, fd = t.kernel.host, file.need_host_fd()
    kind, size = known
    match kind:
        case Argument.NUMBER:
            return int(host.ioctl(fd, request, (argument & 0xFFFFFFFF ^ 1 << 31) - (1 << 31)))
        case Argument.DESCRIPTOR:
            return int(host.ioctl(fd, request, _host_number(t, argument)))
        case Argument.IN:
            data = t.memory.read(argument, size)
            if request == LOOP_CONFIGURE:
                data = _host_number(t, int.from_bytes(data[:4], "little")).to_bytes(4, "little") + data[4:]
            host.ioctl(fd, request, data)
        case Argument.OUT:
            result = host.ioctl(fd, request, bytes(size))
            t.memory.write(argument, result if isinstance(result, bytes) else b"")
    return 0


def _host_number(t: Task, fd: int) -> int:
    return t.fds.get((fd & 0xFFFFFFFF ^ 1 << 31) - (1 << 31)).need_host_fd(E.EBADF)
