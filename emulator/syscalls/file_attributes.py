"""What a file system knows of a file besides status and data: attributes, and how much of it is cached.

Sources: man 2 file_getattr, cachestat; fs/file_attr.c, mm/filemap.c (order of checks).
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.abi.memory import PAGE_SIZE
from emulator.errors import LinuxError
from emulator.kernel.files.regular import RegularFile
from emulator.kernel.tasks import Task
from emulator.kernel.vfs import Pin
from emulator.syscalls.files import path_at
from emulator.syscalls.registry import Fd, Ptr, Size, UInt, syscall

ATTRIBUTES_SIZE = 24  # struct file_attr, FILE_ATTR_SIZE_VER0
CACHESTAT_SIZE = 40


def _pin(t: Task, dirfd: int, pathname: int, flags: int) -> Pin:
    path = path_at(t, pathname) if pathname or not flags & AT.EMPTY_PATH else b""
    follow, empty = not flags & AT.SYMLINK_NOFOLLOW, bool(flags & AT.EMPTY_PATH)
    return t.kernel.vfs.pinned_link(t, path, dirfd, follow=follow, empty=empty)


def _check(size: int, flags: int) -> None:
    if flags & ~(AT.SYMLINK_NOFOLLOW | AT.EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    if size > PAGE_SIZE:
        raise LinuxError(E.E2BIG)
    if size < ATTRIBUTES_SIZE:
        raise LinuxError(E.EINVAL)


@syscall("file_getattr")
def file_getattr(t: Task, dirfd: Fd, pathname: Ptr, attributes: Ptr, size: Size, flags: UInt) -> None:
    """file_getattr(2)."""
    _check(size, flags)
    pin = _pin(t, dirfd, pathname, flags)
    found = t.kernel.host.file_attributes(pin.path, pin.follow)
    t.memory.write(attributes, found.ljust(size, b"\0"))


@syscall("file_setattr")
def file_setattr(t: Task, dirfd: Fd, pathname: Ptr, attributes: Ptr, size: Size, flags: UInt) -> None:
    """file_setattr(2)."""
    _check(size, flags)
    wanted = t.memory.read(attributes, size)
    if any(wanted[ATTRIBUTES_SIZE:]):
        raise LinuxError(E.E2BIG)
    pin = _pin(t, dirfd, pathname, flags)
    t.kernel.host.set_file_attributes(pin.path, wanted[:ATTRIBUTES_SIZE], pin.follow)


@syscall("cachestat")
def cachestat(t: Task, fd: Fd, where: Ptr, found: Ptr, flags: UInt) -> None:
    """cachestat(2): of files the host keeps; none of the rest is cached."""
    description = t.fds.get(fd)
    start, length = t.memory.read_struct(where, "QQ")
    if flags:
        raise LinuxError(E.EINVAL)
    if isinstance(description, RegularFile):
        t.memory.write(found, t.kernel.host.cachestat(description.need_host_fd(), start, length))
    else:
        t.memory.write(found, bytes(CACHESTAT_SIZE))
