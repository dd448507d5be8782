"""What one task may do to another.

Source: ptrace(2) "Ptrace access mode checking", kill(2), setpriority(2), sched(7), prlimit(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.signals import Signal
from emulator.kernel.credentials import CAP_KILL, CAP_SYS_NICE, CAP_SYS_PTRACE, CAP_SYS_RESOURCE

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task


def _same_ids(t: Task, task: Task) -> bool:
    """Are all of its ids the caller's real ones?"""
    mine, theirs = t.credentials, task.credentials
    same_user = {theirs.ruid, theirs.euid, theirs.suid} == {mine.ruid}
    return same_user and {theirs.rgid, theirs.egid, theirs.sgid} == {mine.rgid}


def may_access(t: Task, task: Task) -> bool:
    """ptrace_may_access(): its own process, or the same ids everywhere and dumpable, or the capability."""
    if task.group is t.group or t.credentials.capable(CAP_SYS_PTRACE):
        return True
    return _same_ids(t, task) and bool(task.group.dumpable)


def may_signal(t: Task, target: Task, signo: int) -> bool:
    """check_kill_permission(): its own process, one user's to another's of the same, or SIGCONT within the session."""
    mine, theirs = t.credentials, target.credentials
    if target.group is t.group or mine.capable(CAP_KILL):
        return True
    if mine.euid in (theirs.suid, theirs.ruid) or mine.ruid in (theirs.suid, theirs.ruid):
        return True
    return signo == Signal.SIGCONT and target.group.session is t.group.session


def may_limit(t: Task, task: Task) -> bool:
    """check_prlimit_permission(): its own limits, or the same ids everywhere, or the capability."""
    return task is t or _same_ids(t, task) or t.credentials.capable(CAP_SYS_RESOURCE)


def may_schedule(t: Task, task: Task) -> bool:
    """check_same_owner(): the caller's effective user is its real or effective one, or the capability."""
    theirs = task.credentials
    return t.credentials.euid in (theirs.euid, theirs.ruid) or t.credentials.capable(CAP_SYS_NICE)
