"""read(2), write(2) and their families: bytes between descriptors and guest memory.

Rule: the order of checks is Linux': descriptor, direction, vector, offset, then memory; a buffer that turns bad half
way moves the good half.  Big transfers go straight between the host and the guest's frames.
Sources: man 2 read, write, pread, readv, lseek; fs/read_write.c.
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.memory import Access
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, whole_pages
from emulator.kernel.files.socket import SocketDescription
from emulator.kernel.tasks import Task
from emulator.kernel.user_memory import user_buffers
from emulator.kernel.waits import Wait
from emulator.syscalls.registry import Fd, Int, Long, Ptr, Size, UInt, syscall

MAX_RW_COUNT = 0x7FFFF000
RWF_KNOWN = 0x1F  # HIPRI DSYNC SYNC NOWAIT APPEND
RWF_APPEND = 0x10


def vector_buffers(t: Task, vector: int, count: int, access: Access) -> list[memoryview]:
    """Views of an iovec's memory, up to the first bad byte."""
    buffers: list[memoryview] = []
    left = MAX_RW_COUNT
    for base, length in t.memory.read_iovec(vector, count):
        size = min(length, left)
        if not size:
            continue
        try:
            part = user_buffers(t, base, size, access)
        except LinuxError:
            if not buffers:
                raise
            break
        buffers += part
        if sum(map(len, part)) < size:
            break
        left -= size
    return buffers


def for_reading(t: Task, fd: int) -> Description:
    """The description, if it was opened for reading."""
    description = t.fds.get(fd)
    if description.flags & 3 == O.WRONLY:
        raise LinuxError(E.EBADF)
    return description


def for_writing(t: Task, fd: int) -> Description:
    """The description, if it was opened for writing."""
    description = t.fds.get(fd)
    if not description.flags & 3:
        raise LinuxError(E.EBADF)
    return description


@syscall("read")
def read(t: Task, fd: Fd, buf: Ptr, count: Size) -> int | Wait:
    """read(2)."""
    description = t.fds.get(fd)
    if description.flags & 3 == 1:
        raise LinuxError(E.EBADF)
    return description.read_one(t, buf, count if count < MAX_RW_COUNT else MAX_RW_COUNT)


@syscall("write")
def write(t: Task, fd: Fd, buf: Ptr, count: Size) -> int | Wait:
    """write(2)."""
    description = t.fds.get(fd)
    if not description.flags & 3:
        raise LinuxError(E.EBADF)
    return description.write_one(t, buf, count if count < MAX_RW_COUNT else MAX_RW_COUNT)


@syscall("readv")
def readv(t: Task, fd: Fd, iov: Ptr, iovcnt: Int) -> int:
    """readv(2)."""
    description = for_reading(t, fd)
    if type(description) is SocketDescription:
        pairs = t.memory.read_iovec(iov, iovcnt)
        return description.read_guest(t, pairs) if any(length for _, length in pairs) else 0
    buffers = vector_buffers(t, iov, iovcnt, Access.WRITE)
    return description.read(t, buffers) if buffers else 0


@syscall("writev")
def writev(t: Task, fd: Fd, iov: Ptr, iovcnt: Int) -> int:
    """writev(2)."""
    description = for_writing(t, fd)
    if type(description) is SocketDescription:
        pairs = t.memory.read_iovec(iov, iovcnt)
        return description.write_guest(t, pairs) if any(length for _, length in pairs) else 0
    buffers = vector_buffers(t, iov, iovcnt, Access.READ)
    if description.whole_pages and buffers:
        size = sum(length for _, length in t.memory.read_iovec(iov, iovcnt))
        buffers = whole_pages(buffers, min(size, MAX_RW_COUNT))
    return description.write(t, buffers) if buffers else 0


@syscall("pread64")
def pread64(t: Task, fd: Fd, buf: Ptr, count: Size, offset: Long) -> int:
    """pread(2)."""
    if offset < 0:
        raise LinuxError(E.EINVAL)
    description = _positioned(t.fds.get(fd), reading=True)
    return description.pread(t, user_buffers(t, buf, min(count, MAX_RW_COUNT), Access.WRITE), offset)


@syscall("pwrite64")
def pwrite64(t: Task, fd: Fd, buf: Ptr, count: Size, offset: Long) -> int:
    """pwrite(2)."""
    if offset < 0:
        raise LinuxError(E.EINVAL)
    description = _positioned(t.fds.get(fd), reading=False)
    return description.pwrite(t, user_buffers(t, buf, min(count, MAX_RW_COUNT), Access.READ), offset)


def _positioned(description: Description, *, reading: bool) -> Description:
    """ESPIPE comes before EBADF for the wrong direction (ksys_pread64)."""
    if not description.seekable:
        raise LinuxError(E.ESPIPE)
    if description.flags & 3 == O.WRONLY if reading else not description.flags & 3:
        raise LinuxError(E.EBADF)
    return description


def _offset(t: Task, low: int, high: int) -> int:
    """pos_from_hilo: a 64-bit ISA passes it whole."""
    value = low if t.arch.bits == 64 else high << 32 | low
    return (value ^ 1 << 63) - (1 << 63)


@syscall("preadv")
def preadv(t: Task, fd: Fd, iov: Ptr, iovcnt: Long, pos_l: Size, pos_h: Size) -> int:
    """preadv(2)."""
    return _preadv(t, fd, iov, iovcnt, _offset(t, pos_l, pos_h), 0)


@syscall("pwritev")
def pwritev(t: Task, fd: Fd, iov: Ptr, iovcnt: Long, pos_l: Size, pos_h: Size) -> int:
    """pwritev(2)."""
    return _pwritev(t, fd, iov, iovcnt, _offset(t, pos_l, pos_h), 0)


@syscall("preadv2")
def preadv2(t: Task, fd: Fd, iov: Ptr, iovcnt: Long, pos_l: Size, pos_h: Size, flags: UInt) -> int:
    """preadv2(2): offset -1 is the file's own."""
    offset = _offset(t, pos_l, pos_h)
    if flags & ~RWF_KNOWN or flags & RWF_APPEND:
        t.fds.get(fd)
        raise LinuxError(E.EOPNOTSUPP)
    if offset == -1:
        return readv(t, fd, iov, iovcnt)
    return _preadv(t, fd, iov, iovcnt, offset, flags)


@syscall("pwritev2")
def pwritev2(t: Task, fd: Fd, iov: Ptr, iovcnt: Long, pos_l: Size, pos_h: Size, flags: UInt) -> int:
    """pwritev2(2): offset -1 is the file's own."""
    offset = _offset(t, pos_l, pos_h)
    if flags & ~RWF_KNOWN:
        t.fds.get(fd)
        raise LinuxError(E.EOPNOTSUPP)
    if offset == -1 and not flags:
        return writev(t, fd, iov, iovcnt)
    return _pwritev(t, fd, iov, iovcnt, offset, flags)


def _preadv(t: Task, fd: int, iov: int, count: int, offset: int, flags: int) -> int:
    if offset < 0:
        raise LinuxError(E.EINVAL)
    description = _positioned(t.fds.get(fd), reading=True)
    return description.pread(t, vector_buffers(t, iov, count, Access.WRITE), offset, flags)


def _pwritev(t: Task, fd: int, iov: int, count: int, offset: int, flags: int) -> int:
    if offset < -1 or (offset == -1 and not flags):
        raise LinuxError(E.EINVAL)
    description = _positioned(t.fds.get(fd), reading=False)
    return description.pwrite(t, vector_buffers(t, iov, count, Access.READ), offset, flags)


@syscall("lseek")
def lseek(t: Task, fd: Fd, offset: Long, whence: UInt) -> int:
    """lseek(2)."""
    description = t.fds.get(fd)
    if whence > 4:
        raise LinuxError(E.EINVAL)
    return description.seek(offset, whence)


@syscall("_llseek")
def llseek(t: Task, fd: Fd, high: UInt, low: UInt, result: Ptr, whence: UInt) -> None:
    """_llseek(2), of 32-bit ISAs."""
    description = t.fds.get(fd)
    if whence > 4:
        raise LinuxError(E.EINVAL)
    offset = ((high << 32 | low) ^ 1 << 63) - (1 << 63)
    t.memory.write_u64(result, description.seek(offset, whence))
