"""Waiting for children and tracees.

Source: wait(2), wait4(2), getrusage(2), kernel/exit.c (do_wait).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.signals import CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_TRAPPED, Signal
from emulator.errors import LinuxError
from emulator.kernel import lifecycle, ptrace
from emulator.kernel.tasks import Task, TaskState
from emulator.kernel.thread_group import ThreadGroup, Usage
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.registry import Int, Ptr, syscall

WNOHANG, WUNTRACED, WSTOPPED, WEXITED, WCONTINUED, WNOWAIT = 1, 2, 2, 4, 8, 0x01000000
WNOTHREAD, WALL, WCLONE = 0x20000000, 0x40000000, 0x80000000
P_ALL, P_PID, P_PGID, P_PIDFD = range(4)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a wait found: whose, which wait status, si_code."""

    pid: int
    uid: int
    status: int
    code: int
    usage: Usage


def _wait(t: Task, kind: int, which: int, options: int) -> Collected | None:
    """do_wait(): None for WNOHANG with nothing to report."""
    eligible = False
    for task in list(t.group.tracees.values()):
        if _selected(kind, which, task.tid, task.group.pgid):
            eligible = True
            found = _collect_tracee(t, task, options)
            if found is not None:
                return found
    for group in _children(t, kind, which, options):
        eligible = True
        found = _collect_child(t, group, options)
        if found is not None:
            return found
    if not eligible:
        raise LinuxError(E.ECHILD)
    if options & WNOHANG:
        return None
    raise Block(Wait("do_wait", (t.group.child_event,)))


def _selected(kind: int, which: int, pid: int, pgid: int) -> bool:
    return kind == P_ALL or (kind in (P_PID, P_PIDFD) and which == pid) or (kind == P_PGID and which == pgid)


def _children(t: Task, kind: int, which: int, options: int) -> Iterator[ThreadGroup]:
    if kind in (P_PID, P_PIDFD):
        child = t.group.children.get(which)
        candidates = [child] if child is not None else []
    else:
        candidates = list(t.group.children.values())
    for group in candidates:
        if kind == P_PGID and group.pgid != which:
            continue
        if not options & WALL and (group.exit_signal != Signal.SIGCHLD) != bool(options & WCLONE):
            continue
        yield group


def _collect_tracee(t: Task, task: Task, options: int) -> Collected | None:
    trace = task.trace
    if trace is None or trace.report is None:
        return None
    status = trace.report
    uid = task.credentials.ruid
    if task.state in (TaskState.ZOMBIE, TaskState.DEAD):
        if not options & WEXITED or (task.is_leader and task.group.tasks):
            return None
        found = Collected(task.tid, uid, status, _exit_code(status), task.group.usage)
        if not options & WNOWAIT:
            ptrace.tracee_forgotten(t.kernel, task)
        return found
    if not options & WNOWAIT:
        trace.report = None
    return Collected(task.tid, uid, status, CLD_TRAPPED, task.group.usage)


def _collect_child(t: Task, group: ThreadGroup, options: int) -> Collected | None:
    leader = group.leader
    uid = leader.credentials.ruid if leader is not None else 0
    if group.zombie:
        if not options & WEXITED or (leader is not None and leader.trace is not None):
            return None
        status = group.exit_status
        usage = Usage()
        usage.add(group.usage)
        usage.add(group.child_usage)
        if not options & WNOWAIT:
            lifecycle.reap(t.kernel, group)
        return Collected(group.tgid, uid, status, _exit_code(status), usage)
    report = group.stop_report
    if report is None or (leader is not None and leader.trace is not None):
        return None
    if report == 0xFFFF:
        if not options & WCONTINUED:
            return None
        code = CLD_CONTINUED
    else:
        if not options & WSTOPPED:
            return None
        code = CLD_STOPPED
    if not options & WNOWAIT:
        group.stop_report = None
    return Collected(group.tgid, uid, report, code, group.usage)


def _exit_code(status: int) -> int:
    if status & 0x7F == 0:
        return CLD_EXITED
    return CLD_DUMPED if status & 0x80 else CLD_KILLED


def write_rusage(t: Task, address: int, usage: Usage) -> None:
    """struct rusage."""
    user, system = usage.user_ns // 1000, usage.system_ns // 1000
    words = (*divmod(user, 1_000_000), *divmod(system, 1_000_000), usage.peak_kib, 0, 0, 0)
    rest = (usage.minor_faults, usage.major_faults, 0, 0, 0, 0, 0, 0, usage.switches, 0)
    t.memory.write_struct(address, "l" * 18, *words, *rest[:10])


def _pid_of_pidfd(t: Task, fd: int) -> int:
    group = getattr(t.fds.get(fd), "group", None)
    if not isinstance(group, ThreadGroup):
        raise LinuxError(E.EBADF)
    return group.tgid


@syscall("wait4")
def wait4(t: Task, pid: Int, status: Ptr, options: Int, usage: Ptr) -> int:
    """wait4(2)."""
    if options & ~(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WALL | WCLONE) & 0xFFFFFFFF:
        raise LinuxError(E.EINVAL)
    if pid == -(1 << 31):
        raise LinuxError(E.ESRCH)
    if pid > 0:
        kind, which = P_PID, pid
    elif pid == -1:
        kind, which = P_ALL, 0
    else:
        kind, which = P_PGID, -pid if pid else t.group.pgid
    found = _wait(t, kind, which, options | WEXITED)
    if found is None:
        return 0
    if status:
        t.memory.write_u32(status, found.status)
    if usage:
        write_rusage(t, usage, found.usage)
    return found.pid


@syscall("waitid")
def waitid(t: Task, kind: Int, which: Int, info: Ptr, options: Int, usage: Ptr) -> int:
    """waitid(2)."""
    if options & ~(WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WALL | WCLONE) & 0xFFFFFFFF:
        raise LinuxError(E.EINVAL)
    if not options & (WEXITED | WSTOPPED | WCONTINUED):
        raise LinuxError(E.EINVAL)
    at_once = False
    if kind == P_PID and which <= 0:
        raise LinuxError(E.EINVAL)
    if kind == P_PGID:
        if which < 0:
            raise LinuxError(E.EINVAL)
        which = which or t.group.pgid
    elif kind == P_PIDFD:
        if which < 0:
            raise LinuxError(E.EINVAL)
        at_once = bool(t.fds.get(which).flags & O.NONBLOCK) and not options & WNOHANG
        which = _pid_of_pidfd(t, which)
    elif kind not in (P_ALL, P_PID):
        raise LinuxError(E.EINVAL)
    found = _wait(t, kind, which, options | (WNOHANG if at_once else 0))
    if found is None and at_once:
        raise LinuxError(E.EAGAIN)
    if usage and found is not None:
        write_rusage(t, usage, found.usage)
    if info:
        if found is None:
            t.memory.write_struct(info, "iii", 0, 0, 0)
            t.memory.write_struct(info + 16, "iii", 0, 0, 0)
        else:
            status = found.status
            if found.code in (CLD_STOPPED, CLD_TRAPPED):
                value = status >> 8
            elif found.code == CLD_EXITED:
                value = status >> 8 & 0xFF
            elif found.code == CLD_CONTINUED:
                value = int(Signal.SIGCONT)
            else:
                value = status & 0x7F
            t.memory.write_struct(info, "iii", Signal.SIGCHLD, 0, found.code)
            t.memory.write_struct(info + 16, "iIi", found.pid, found.uid, value)
    return 0
