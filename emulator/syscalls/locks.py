"""fcntl(2)'s record locks and leases, and flock(2).

Sources: man 2 fcntl, man 2 flock; fs/locks.c (order of checks).
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.fcntl import F, O
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description
from emulator.kernel.files.regular import HostFile, RegularFile
from emulator.kernel.locks import RETRY_NS, TO_END, Lock
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.registry import Fd, UInt, syscall

_FLOCK64 = "hh4xqqi4x"
CAP_LEASE = 28
LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN, LOCK_MAND = 1, 2, 4, 8, 32


def _range(file: RegularFile, whence: int, start: int, length: int) -> tuple[int, int]:
    """flock_to_posix_lock: first and last byte."""
    match whence:
        case 0:
            pass
        case 1:
            start += file.position()
        case 2:
            start += file.stat().st_size
        case _:
            raise LinuxError(E.EINVAL)
    if start > TO_END:
        raise LinuxError(E.EOVERFLOW)
    if start < 0:
        raise LinuxError(E.EINVAL)
    if length > 0:
        if start + length - 1 > TO_END:
            raise LinuxError(E.EOVERFLOW)
        return start, start + length - 1
    if length < 0:
        if start + length < 0:
            raise LinuxError(E.EINVAL)
        return start + length, start - 1
    return start, TO_END


def fcntl_lock(t: Task, description: Description, command: int, address: int) -> int:
    """F_GETLK, F_SETLK, F_SETLKW and their OFD forms."""
    kind, whence, start, length, pid = t.memory.read_struct(address, _FLOCK64)
    open_file = command >= F.OFD_GETLK
    asking = command in (F.GETLK, 12, F.OFD_GETLK)
    if asking and kind not in (F.RDLCK, F.WRLCK):
        raise LinuxError(E.EINVAL)
    if not isinstance(description, RegularFile):  # directories, pipes: a lock that nobody contests
        if asking:
            _answer(t, address, None)
        else:
            _check_direction(description, kind)
        return 0
    first, last = _range(description, whence, start, length)
    if open_file and pid:
        raise LinuxError(E.EINVAL)
    locks = t.kernel.vfs.locks
    owner: object = description if open_file else t.fds
    if asking:
        _answer(t, address, locks.test(description, owner, kind, first, last))
        return 0
    _check_direction(description, kind)
    try:
        if open_file:
            locks.set_open_file(description, kind, first, last)
        else:
            locks.set(description, owner, t.pid, kind, first, last)
    except LinuxError as error:
        if error.errno is not E.EAGAIN or command not in (F.SETLKW, 14, F.OFD_SETLKW):
            raise
        if not open_file and locks.would_deadlock(description, owner, kind, first, last):
            locks.waits_no_more(owner)
            raise LinuxError(E.EDEADLK) from None
        wake_up = t.kernel.clock.monotonic_ns() + RETRY_NS

        def given_up(_: Task) -> int | None:
            locks.waits_no_more(owner)
            return None

        waiting = locks.inode(description).waiting
        raise Block(Wait("fcntl_setlk", (waiting,), (), wake_up, interrupted=given_up)) from None
    locks.waits_no_more(owner)
    return 0


def _check_direction(description: Description, kind: int) -> None:
    match kind:
        case F.RDLCK if not description.readable:
            raise LinuxError(E.EBADF)
        case F.WRLCK if not description.writable:
            raise LinuxError(E.EBADF)
        case F.RDLCK | F.WRLCK | F.UNLCK:
            pass
        case _:
            raise LinuxError(E.EINVAL)


def _answer(t: Task, address: int, lock: Lock | None) -> None:
    if lock is None:
        t.memory.write_struct(address, "h", F.UNLCK)
        return
    length = 0 if lock.end == TO_END else lock.end - lock.start + 1
    t.memory.write_struct(address, _FLOCK64, lock.kind, 0, lock.start, length, lock.pid)


# -- leases ----------------------------------------------------------------------------------------------------------


def get_lease(t: Task, description: Description) -> int:
    """F_GETLEASE."""
    return t.kernel.vfs.leases.get(description) if isinstance(description, RegularFile) else F.UNLCK


def set_lease(t: Task, description: Description, fd: int, kind: int) -> None:
    """F_SETLEASE: of a regular file that is the caller's."""
    if kind not in (F.RDLCK, F.WRLCK, F.UNLCK):
        raise LinuxError(E.EINVAL)
    if kind == F.UNLCK and isinstance(description, RegularFile):
        t.kernel.vfs.leases.unlock(description)
        return
    if description.stat().st_uid != t.credentials.fsuid and not t.credentials.capable(CAP_LEASE):
        raise LinuxError(E.EACCES)
    if not isinstance(description, RegularFile):
        raise LinuxError(E.EINVAL)
    t.kernel.vfs.leases.set(t, description, fd, kind)


# -- flock -----------------------------------------------------------------------------------------------------------


@syscall("flock")
def flock(t: Task, fd: Fd, operation: UInt) -> None:
    """flock(2): the host's lock, because one guest description is one host description."""
    if operation & LOCK_MAND:
        return  # support was removed in Linux 5.16: accepted, without effect
    if operation & ~LOCK_NB not in (LOCK_SH, LOCK_EX, LOCK_UN):
        raise LinuxError(E.EINVAL)
    description = t.fds.get(fd)
    if not isinstance(description, HostFile):
        if description.flags & O.PATH:
            raise LinuxError(E.EBADF)
        return  # pipes and the like: a lock nobody else can want
    locks = t.kernel.vfs.locks
    if isinstance(description, RegularFile):
        description.locks_used = True
        waiting = (locks.inode(description).waiting,)
    else:
        waiting = (description.waiters,)
    try:
        t.kernel.host.flock(description.need_host_fd(), operation | LOCK_NB)
    except LinuxError as error:
        if error.errno is not E.EAGAIN or operation & LOCK_NB:
            raise
        wake_up = t.kernel.clock.monotonic_ns() + RETRY_NS
        raise Block(Wait("flock", waiting, (), wake_up)) from None
    if operation & ~LOCK_NB != LOCK_EX:
        waiting[0].wake()
