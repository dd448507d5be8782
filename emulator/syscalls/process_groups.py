"""Process ids, process groups and sessions.

Source: getpid(2), setpgid(2), getsid(2), setsid(2), credentials(7).
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.tasks import Task
from emulator.kernel.thread_group import Session, ThreadGroup
from emulator.syscalls.registry import Int, syscall


@syscall("getpid")
def getpid(t: Task) -> int:
    """getpid(2)."""
    return t.group.tgid


@syscall("getppid")
def getppid(t: Task) -> int:
    """getppid(2)."""
    return t.group.ppid


@syscall("getpgrp")
def getpgrp(t: Task) -> int:
    """getpgrp(2)."""
    return t.group.pgid


def _group_of(t: Task, pid: int) -> ThreadGroup:
    if pid == 0:
        return t.group
    task = t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    return task.group


@syscall("getpgid")
def getpgid(t: Task, pid: Int) -> int:
    """getpgid(2)."""
    return _group_of(t, pid).pgid


@syscall("getsid")
def getsid(t: Task, pid: Int) -> int:
    """getsid(2)."""
    return _group_of(t, pid).sid


@syscall("setpgid")
def setpgid(t: Task, pid: Int, pgid: Int) -> int:
    """setpgid(2)."""
    pid = pid or t.group.tgid
    pgid = pgid or pid
    if pgid < 0:
        raise LinuxError(E.EINVAL)
    task = t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    group = task.group
    if not task.is_leader:
        raise LinuxError(E.EINVAL)
    if group.parent is t.group:
        if group.session is not t.group.session:
            raise LinuxError(E.EPERM)
        if group.exec_count:
            raise LinuxError(E.EACCES)
    elif group is not t.group:
        raise LinuxError(E.ESRCH)
    if group.sid == group.tgid:
        raise LinuxError(E.EPERM)
    if pgid != pid and not any(member.session is t.group.session for member in t.kernel.members(pgid)):
        raise LinuxError(E.EPERM)
    group.pgid = pgid
    return 0


@syscall("setsid")
def setsid(t: Task) -> int:
    """setsid(2)."""
    group = t.group
    if group.sid == group.tgid or any(True for _ in t.kernel.members(group.tgid)):
        raise LinuxError(E.EPERM)
    group.session = Session(group.tgid)
    group.pgid = group.tgid
    return group.tgid
