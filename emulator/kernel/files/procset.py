"""What can be written under /proc/PID: each file is one function of the writer, the task and the text.

Source: man 5 proc_pid_oom_score_adj, proc_pid_comm, proc_pid_coredump_filter, proc_pid_timerslack_ns; fs/proc/base.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SYS_NICE, CAP_SYS_RESOURCE

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

OOM_DISABLE, OOM_ADJUST_MAX, OOM_SCORE_ADJ_MAX = -17, 15, 1000


def number(data: bytes, bits: int = 32) -> int:
    """kstrtoint(): one number, base by prefix; EINVAL for anything else, ERANGE for one that does not fit."""
    text = data.split(b"\0", 1)[0].strip().decode("latin-1")
    try:
        if text[:1] in "+-" and text[1:2] in "+-_":
            raise ValueError
        digits = text.lstrip("+-")
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[:1] == "0" else 10
        if "_" in text:
            raise ValueError
        value = int(text, base)
    except ValueError:
        raise LinuxError(E.EINVAL) from None
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise LinuxError(E.ERANGE)
    return value


def set_comm(t: Task, task: Task, data: bytes) -> None:
    """A thread of the process may rename it."""
    if task.group is not t.group:
        raise LinuxError(E.EINVAL)
    task.name = data.split(b"\0", 1)[0][:15].decode(errors="surrogateescape")


def _set_oom(t: Task, task: Task, value: int) -> None:
    group = task.group
    powerful = t.credentials.capable(CAP_SYS_RESOURCE)
    if value < group.oom_score_adj_min and not powerful:
        raise LinuxError(E.EACCES)
    group.oom_score_adj = value
    if powerful:
        group.oom_score_adj_min = value


def set_oom_score_adj(t: Task, task: Task, data: bytes) -> None:
    """Lower than a privileged process allowed needs privilege."""
    value = number(data)
    if abs(value) > OOM_SCORE_ADJ_MAX:
        raise LinuxError(E.EINVAL)
    _set_oom(t, task, value)


def set_oom_adj(t: Task, task: Task, data: bytes) -> None:
    """The old scale, -17 to 15."""
    value = number(data)
    if not OOM_DISABLE <= value <= OOM_ADJUST_MAX:
        raise LinuxError(E.EINVAL)
    scaled = OOM_SCORE_ADJ_MAX if value == OOM_ADJUST_MAX else int(value * OOM_SCORE_ADJ_MAX / -OOM_DISABLE)
    if scaled < task.group.oom_score_adj and not t.credentials.capable(CAP_SYS_RESOURCE):
        raise LinuxError(E.EACCES)
    _set_oom(t, task, scaled)


def oom_adj(task: Task) -> str:
    """The old scale, rounded towards zero."""
    score = task.group.oom_score_adj
    value = OOM_ADJUST_MAX if score == OOM_SCORE_ADJ_MAX else int(score * -OOM_DISABLE / OOM_SCORE_ADJ_MAX)
    return f"{value}\n"


def oom_score(task: Task) -> str:
    """How eligible, of 2000 (oom_badness with next to no memory used)."""
    return f"{(1000 + task.group.oom_score_adj) * 2 // 3}\n"


def set_coredump_filter(t: Task, task: Task, data: bytes) -> None:
    """Which mappings a core holds, core(5)."""
    task.group.coredump_filter = number(data, 33) & 0x1FF


def set_timer_slack(t: Task, task: Task, data: bytes) -> None:
    """Another's needs CAP_SYS_NICE."""
    value = number(data, 64)
    if task is not t and not t.credentials.capable(CAP_SYS_NICE):
        raise LinuxError(E.EPERM)
    task.timer_slack_ns = value or 50_000


def ignored(t: Task, task: Task, data: bytes) -> None:
    """Accepted, and of no effect here."""
