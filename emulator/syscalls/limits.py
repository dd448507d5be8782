"""Limits, priorities, and the machine they are of.

Source: getrlimit(2), getpriority(2), ioprio_set(2), uname(2), sethostname(2), sysinfo(2).
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SYS_ADMIN, CAP_SYS_NICE, CAP_SYS_RESOURCE
from emulator.kernel.permissions import may_limit, may_schedule
from emulator.kernel.tasks import Task
from emulator.kernel.thread_group import RLIMIT_CPU, RLIMIT_NICE, RLIMIT_NOFILE, ThreadGroup
from emulator.kernel.timers import arm_cpu_limit
from emulator.syscalls.registry import Int, Ptr, UInt, syscall

# -- limits and priorities -------------------------------------------------------------------------------------------


def _limits(t: Task, group: ThreadGroup, resource: int, new: tuple[int, int] | None) -> tuple[int, int]:
    """do_prlimit(): returns the limit that was."""
    if not 0 <= resource < len(group.rlimits):
        raise LinuxError(E.EINVAL)
    before = group.rlimits[resource]
    if new is not None:
        soft, hard = new
        if soft > hard:
            raise LinuxError(E.EINVAL)
        if resource == RLIMIT_NOFILE and hard > 1 << 20:
            raise LinuxError(E.EPERM)
        if hard > before[1] and not t.credentials.capable(CAP_SYS_RESOURCE):
            raise LinuxError(E.EPERM)
        group.rlimits[resource] = new
        if resource == RLIMIT_CPU:
            arm_cpu_limit(t.kernel, group)
        if resource == RLIMIT_NOFILE:
            for task in group.tasks.values():
                task.fds.limit = soft
    return before


@syscall("getrlimit")
def getrlimit(t: Task, resource: UInt, address: Ptr) -> int:
    """getrlimit(2)."""
    t.memory.write_struct(address, "LL", *_limits(t, t.group, resource, None))
    return 0


@syscall("setrlimit")
def setrlimit(t: Task, resource: UInt, address: Ptr) -> int:
    """setrlimit(2)."""
    soft, hard = t.memory.read_struct(address, "LL")
    _limits(t, t.group, resource, (soft, hard))
    return 0


@syscall("prlimit64")
def prlimit64(t: Task, pid: Int, resource: UInt, new: Ptr, old: Ptr) -> int:
    """prlimit(2)."""
    wanted: tuple[int, int] | None = None
    if new:
        soft, hard = t.memory.read_struct(new, "QQ")
        wanted = (soft, hard)
    task = t if pid == 0 else t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    if not may_limit(t, task):
        raise LinuxError(E.EPERM)
    before = _limits(t, task.group, resource, wanted)
    if old:
        t.memory.write_struct(old, "QQ", *before)
    return 0


PRIO_PROCESS, PRIO_PGRP, PRIO_USER = range(3)


def _prioritised(t: Task, which: int, who: int) -> list[Task]:
    kernel = t.kernel
    match which:
        case 0:
            task = t if who == 0 else kernel.tasks.find(who)
            found = [task] if task is not None else []
        case 1:
            groups = kernel.members(who or t.group.pgid)
            found = [task for group in groups for task in group.tasks.values()]
        case 2:
            uid = who or t.credentials.ruid
            found = [task for task in kernel.tasks if task.credentials.ruid == uid]
        case _:
            raise LinuxError(E.EINVAL)
    if not found:
        raise LinuxError(E.ESRCH)
    return found


@syscall("getpriority")
def getpriority(t: Task, which: Int, who: Int) -> int:
    """getpriority(2), as the system call answers: 20 - nice."""
    return max(20 - task.nice for task in _prioritised(t, which, who))


@syscall("setpriority")
def setpriority(t: Task, which: Int, who: Int, nice: Int) -> int:
    """setpriority(2): remembered, not acted on; of several errors the last."""
    nice = max(-20, min(19, nice))
    failed: E | None = None
    for task in _prioritised(t, which, who):
        if not may_schedule(t, task):
            failed = E.EPERM
        elif nice < task.nice and not _can_nice(t, task, nice):
            failed = E.EACCES
        else:
            task.nice = nice
    if failed is not None:
        raise LinuxError(failed)
    return 0


def _can_nice(t: Task, task: Task, nice: int) -> bool:
    return 20 - nice <= task.group.rlimits[RLIMIT_NICE][0] or t.credentials.capable(CAP_SYS_NICE)


_IOPRIO_NONE, _IOPRIO_RT, _IOPRIO_BEST_EFFORT, _IOPRIO_IDLE = range(4)
_IOPRIO_LEVELS, _IOPRIO_SHIFT = 8, 13


def _io_prioritised(t: Task, which: int, who: int) -> list[Task]:
    """As for getpriority(2), with `which` counted from 1."""
    if not 1 <= which <= 3:
        raise LinuxError(E.EINVAL)
    return _prioritised(t, which - 1, who)


def _effective_ioprio(task: Task) -> int:
    """The one set, else best effort at a level that follows the nice value (get_task_ioprio)."""
    if task.ioprio >> _IOPRIO_SHIFT != _IOPRIO_NONE:
        return task.ioprio
    return _IOPRIO_BEST_EFFORT << _IOPRIO_SHIFT | (task.nice + 20) // 5


@syscall("ioprio_get")
def ioprio_get(t: Task, which: Int, who: Int) -> int:
    """ioprio_get(2): of one task what was set, of several the best one's."""
    found = _io_prioritised(t, which, who)
    if which == 1:
        return found[0].ioprio
    return min(_effective_ioprio(task) for task in found)


@syscall("ioprio_set")
def ioprio_set(t: Task, which: Int, who: Int, priority: Int) -> int:
    """ioprio_set(2): remembered, not acted on."""
    kind, level = priority >> _IOPRIO_SHIFT & 7, priority & _IOPRIO_LEVELS - 1
    match kind:
        case 0 if level:
            raise LinuxError(E.EINVAL)
        case 1 if not t.credentials.capable(CAP_SYS_ADMIN) and not t.credentials.capable(CAP_SYS_NICE):
            raise LinuxError(E.EPERM)
        case 0 | 1 | 2 | 3:
            pass
        case _:
            raise LinuxError(E.EINVAL)
    for task in _io_prioritised(t, which, who):
        if task.credentials.ruid not in (t.credentials.ruid, t.credentials.euid) and not t.credentials.capable(
            CAP_SYS_NICE
        ):
            raise LinuxError(E.EPERM)
        task.ioprio = priority
    return 0


# -- the machine -----------------------------------------------------------------------------------------------------

UTS_LENGTH = 65


@syscall("uname")
def uname(t: Task, address: Ptr) -> int:
    """uname(2): the system is the host's, because most of what calls do is."""
    kernel = t.kernel
    release, version = kernel.host.release()
    machine = t.arch.name if not t.personality & 8 else "i686"
    fields = ("Linux", kernel.hostname, release, version, machine, kernel.domainname)
    encoded = (field.encode(errors="surrogateescape")[: UTS_LENGTH - 1] for field in fields)
    t.memory.write(address, b"".join(field.ljust(UTS_LENGTH, b"\0") for field in encoded))
    return 0


@syscall("sethostname")
def sethostname(t: Task, name: Ptr, length: Int) -> int:
    """sethostname(2): the guest's only."""
    _name_change(t, length)
    t.kernel.hostname = t.memory.read(name, length).partition(b"\0")[0].decode(errors="surrogateescape")
    return 0


@syscall("setdomainname")
def setdomainname(t: Task, name: Ptr, length: Int) -> int:
    """setdomainname(2): the guest's only."""
    _name_change(t, length)
    t.kernel.domainname = t.memory.read(name, length).partition(b"\0")[0].decode(errors="surrogateescape")
    return 0


def _name_change(t: Task, length: int) -> None:
    if not t.credentials.capable(CAP_SYS_ADMIN):
        raise LinuxError(E.EPERM)
    if not 0 <= length < UTS_LENGTH:
        raise LinuxError(E.EINVAL)


@syscall("sysinfo")
def sysinfo(t: Task, address: Ptr) -> int:
    """sysinfo(2)."""
    kernel = t.kernel
    total, used = kernel.memory_bytes()
    uptime = (kernel.clock.monotonic_ns() - kernel.clock.boot_ns) // 1_000_000_000
    t.memory.write_struct(
        address,
        "lLLLLLLLLLHHxxxxLLI",
        uptime + 1,
        *(0, 0, 0),
        *(total, total - used, 0, 0, 0, 0),
        *(min(len(kernel.tasks), 0xFFFF), 0),
        *(0, 0, 1),
    )
    return 0
