"""Do two processes share a kernel object?  Source: kcmp(2), kernel/kcmp.c."""

from __future__ import annotations

from enum import IntEnum

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.files.epoll import EpollDescription
from emulator.kernel.permissions import may_access
from emulator.kernel.tasks import Task
from emulator.syscalls.registry import Int, Long, syscall


class Kind(IntEnum):
    """KCMP_*."""

    FILE = 0
    VM = 1
    FILES = 2
    FS = 3
    SIGHAND = 4
    IO = 5
    SYSVSEM = 6
    EPOLL_TFD = 7


@syscall("kcmp")
def kcmp(t: Task, pid1: Int, pid2: Int, kind: Int, idx1: Long, idx2: Long) -> int:
    """kcmp(2): 0 for the same object, else 1 or 2 by an order that stays."""
    first, second = t.kernel.tasks.find(pid1), t.kernel.tasks.find(pid2)
    if first is None or second is None or not first.alive or not second.alive:
        raise LinuxError(E.ESRCH)
    if not may_access(t, first) or not may_access(t, second):
        raise LinuxError(E.EPERM)
    match kind:
        case Kind.FILE:
            return _order(_file(first, idx1), _file(second, idx2))
        case Kind.VM:
            return _order(first.space, second.space)
        case Kind.FILES:
            return _order(first.fds, second.fds)
        case Kind.FS:
            return _order(first.fs, second.fs)
        case Kind.SIGHAND:
            return _order(first.group.sighand, second.group.sighand)
        case Kind.IO | Kind.SYSVSEM:
            return 0  # nobody has one: both are null
        case Kind.EPOLL_TFD:
            return _order(_file(first, idx1), _watched(t, second, idx2))
        case _:
            raise LinuxError(E.EINVAL)


def _order(one: object, other: object) -> int:
    """Equal, less or greater; which of the two says nothing but stays."""
    return (id(one) > id(other)) + 2 * (id(one) < id(other))


def _file(task: Task, fd: int) -> object:
    return task.fds.get_raw(fd & 0xFFFFFFFF)


def _watched(t: Task, task: Task, slot: int) -> object:
    """The file an epoll set watches: struct kcmp_epoll_slot says which set, which descriptor, which of several."""
    efd, tfd, offset = t.memory.read_struct(slot, "III")
    found = task.fds.get_raw(efd)
    if not isinstance(found, EpollDescription):
        raise LinuxError(E.EINVAL)
    watched = found.watched(tfd)
    if offset >= len(watched):
        raise LinuxError(E.ENOENT)
    return watched[offset]
