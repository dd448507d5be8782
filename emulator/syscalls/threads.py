"""Threads and scheduling.

Source: gettid(2), set_tid_address(2), set_robust_list(2), rseq(2), membarrier(2), sched(7), sched_setaffinity(2).
One CPU: affinity is {0}, and every interleaving is the scheduler's.
"""

from __future__ import annotations

from dataclasses import dataclass

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SYS_NICE
from emulator.kernel.permissions import may_access, may_schedule
from emulator.kernel.tasks import Task
from emulator.kernel.thread_group import RLIMIT_RTPRIO
from emulator.syscalls.registry import Int, Ptr, Size, UInt, syscall

SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE = 0, 1, 2, 3, 5, 6
RESET_ON_FORK = 0x40000000
SCHED_FLAG_RESET_ON_FORK, SCHED_FLAG_ALL = 1, 0x7F
DEADLINE_PERIOD_NS = (100_000, 4_194_304_000)  # sched_deadline_period_{min,max}_us
REALTIME = (SCHED_FIFO, SCHED_RR)


@syscall("gettid")
def gettid(t: Task) -> int:
    """gettid(2)."""
    return t.uid.tid


@syscall("set_tid_address")
def set_tid_address(t: Task, address: Ptr) -> int:
    """set_tid_address(2)."""
    t.clear_child_tid = address
    return t.uid.tid


@syscall("set_robust_list")
def set_robust_list(t: Task, head: Ptr, size: Size) -> int:
    """set_robust_list(2)."""
    if size != 3 * t.memory.pointer_size:
        raise LinuxError(E.EINVAL)
    t.robust_list = head
    return 0


@syscall("get_robust_list")
def get_robust_list(t: Task, pid: Int, head: Ptr, size: Ptr) -> int:
    """get_robust_list(2)."""
    task = _task(t, pid)
    if not may_access(t, task):
        raise LinuxError(E.EPERM)
    t.memory.write_ptr(size, 3 * t.memory.pointer_size)
    t.memory.write_ptr(head, task.robust_list)
    return 0


RSEQ_UNREGISTER = 1
RSEQ_SIZE = 32


@syscall("rseq")
def rseq(t: Task, address: Ptr, size: UInt, flags: Int, signature: UInt) -> int:
    """rseq(2): restartable sequences; with one CPU the ids are always 0."""
    if flags & RSEQ_UNREGISTER:
        if flags & ~RSEQ_UNREGISTER or not t.rseq or address != t.rseq or size != t.rseq_length:
            raise LinuxError(E.EINVAL)
        if signature != t.rseq_signature:
            raise LinuxError(E.EPERM)
        t.memory.write_struct(address, "II", 0, 0xFFFFFFFF)
        t.rseq = t.rseq_length = t.rseq_signature = 0
        return 0
    if flags:
        raise LinuxError(E.EINVAL)
    if t.rseq:
        if address != t.rseq or size != t.rseq_length:
            raise LinuxError(E.EINVAL)
        raise LinuxError(E.EPERM if signature != t.rseq_signature else E.EBUSY)
    if address % 32 or size != RSEQ_SIZE:
        raise LinuxError(E.EINVAL)
    t.memory.write_struct(address, "II", 0, 0)
    t.rseq, t.rseq_length, t.rseq_signature = address, size, signature
    return 0


MEMBARRIER_QUERY, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED = 0, 16
_MEMBARRIER_COMMANDS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40


@syscall("membarrier")
def membarrier(t: Task, command: Int, flags: UInt, cpu: Int) -> int:
    """membarrier(2): one CPU is always in order."""
    if command == MEMBARRIER_QUERY and not flags:
        return _MEMBARRIER_COMMANDS
    if flags or command <= 0 or command & (command - 1) or not command & _MEMBARRIER_COMMANDS:
        raise LinuxError(E.EINVAL)
    if command == 0x8 and "membarrier" not in t.group.registrations:
        raise LinuxError(E.EPERM)
    if command == MEMBARRIER_REGISTER_PRIVATE_EXPEDITED:
        t.group.registrations.add("membarrier")
    return 0


@syscall("sched_yield")
def sched_yield(t: Task) -> int:
    """sched_yield(2): to the end of the run queue."""
    t.kernel.scheduler.yield_turn(t)
    return 0


@syscall("getcpu")
def getcpu(t: Task, cpu: Ptr, node: Ptr, cache: Ptr) -> int:
    """getcpu(2)."""
    for address in (cpu, node):
        if address:
            t.memory.write_u32(address, 0)
    return 0


def _task(t: Task, pid: int) -> Task:
    """The live task a call names; 0 is the caller."""
    if pid == 0:
        return t
    task = t.kernel.tasks.find(pid) if pid > 0 else None
    if task is None or not task.alive:
        raise LinuxError(E.ESRCH)
    return task


@syscall("sched_getaffinity")
def sched_getaffinity(t: Task, pid: Int, size: UInt, mask: Ptr) -> int:
    """sched_getaffinity(2): CPU 0."""
    word = t.memory.pointer_size
    if size % word or size < word:
        raise LinuxError(E.EINVAL)
    _task(t, pid)
    t.memory.write(mask, (1).to_bytes(word, "little" if t.memory.byteorder == "little" else "big"))
    return word


@syscall("sched_setaffinity")
def sched_setaffinity(t: Task, pid: Int, size: UInt, mask: Ptr) -> int:
    """sched_setaffinity(2): the mask has to hold CPU 0."""
    wanted = t.memory.read(mask, min(size, 128))
    if not may_schedule(t, _task(t, pid)):
        raise LinuxError(E.EPERM)
    if not wanted or not wanted[0] & 1:
        raise LinuxError(E.EINVAL)
    return 0


@dataclass(frozen=True, slots=True)
class Parameters:
    """sched_setscheduler's two numbers, checked."""

    policy: int
    priority: int

    def check(self, t: Task, task: Task, reset_on_fork: bool) -> None:
        """EINVAL for nonsense, EPERM for real time, or somebody else's task, without the right."""
        if self.policy not in (SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE):
            raise LinuxError(E.EINVAL)
        if self.policy in REALTIME:
            if not 1 <= self.priority <= 99:
                raise LinuxError(E.EINVAL)
            limit = task.group.rlimits[RLIMIT_RTPRIO][0]
            old_policy, old_priority = task.scheduling
            raised = self.priority > old_priority and self.priority > limit
            if not t.credentials.capable(CAP_SYS_NICE) and (raised or (self.policy != old_policy and not limit)):
                raise LinuxError(E.EPERM)
        elif self.priority:
            raise LinuxError(E.EINVAL)
        lifted = task.reset_on_fork and not reset_on_fork
        if not may_schedule(t, task) or (lifted and not t.credentials.capable(CAP_SYS_NICE)):
            raise LinuxError(E.EPERM)


@syscall("sched_setscheduler")
def sched_setscheduler(t: Task, pid: Int, policy: Int, param: Ptr) -> int:
    """sched_setscheduler(2): real-time priorities count, the other policies are remembered."""
    if policy < 0 or not param or pid < 0:
        raise LinuxError(E.EINVAL)
    wanted = Parameters(policy & ~RESET_ON_FORK, t.memory.read_s32(param))
    task = _task(t, pid)
    reset = bool(policy & RESET_ON_FORK)
    wanted.check(t, task, reset)
    _schedule(task, wanted, reset)
    return 0


def _schedule(task: Task, wanted: Parameters, reset_on_fork: bool) -> None:
    task.scheduling = (wanted.policy, wanted.priority)
    task.reset_on_fork = reset_on_fork
    task.kernel.scheduler.reprioritised(task)


@syscall("sched_getscheduler")
def sched_getscheduler(t: Task, pid: Int) -> int:
    """sched_getscheduler(2)."""
    if pid < 0:
        raise LinuxError(E.EINVAL)
    task = _task(t, pid)
    return task.scheduling[0] | (RESET_ON_FORK if task.reset_on_fork else 0)


@syscall("sched_setparam")
def sched_setparam(t: Task, pid: Int, param: Ptr) -> int:
    """sched_setparam(2)."""
    if not param or pid < 0:
        raise LinuxError(E.EINVAL)
    priority = t.memory.read_s32(param)
    task = _task(t, pid)
    wanted = Parameters(task.scheduling[0], priority)
    wanted.check(t, task, task.reset_on_fork)
    _schedule(task, wanted, task.reset_on_fork)
    return 0


@syscall("sched_getparam")
def sched_getparam(t: Task, pid: Int, param: Ptr) -> int:
    """sched_getparam(2)."""
    if not param or pid < 0:
        raise LinuxError(E.EINVAL)
    t.memory.write_u32(param, _task(t, pid).scheduling[1])
    return 0


@syscall("sched_setattr")
def sched_setattr(t: Task, pid: Int, attr: Ptr, flags: UInt) -> int:
    """sched_setattr(2)."""
    if not attr or pid < 0 or flags:
        raise LinuxError(E.EINVAL)
    size = t.memory.read_u32(attr) or 48
    if size < 48:
        t.memory.write_u32(attr, 56)
        raise LinuxError(E.E2BIG)
    _, policy, attr_flags, nice, priority, *deadline = t.memory.read_struct(attr, "IIQiIQQQ")
    if policy >> 31 or attr_flags & ~SCHED_FLAG_ALL:
        raise LinuxError(E.EINVAL)
    task = _task(t, pid)
    if policy == SCHED_DEADLINE:
        _check_deadline(t, priority, *deadline)
        task.deadline_ns = (deadline[0], deadline[1], deadline[2] or deadline[1])
    else:
        Parameters(policy, priority).check(t, task, bool(attr_flags & SCHED_FLAG_RESET_ON_FORK))
    _schedule(task, Parameters(policy, priority), bool(attr_flags & SCHED_FLAG_RESET_ON_FORK))
    if policy in (SCHED_OTHER, SCHED_BATCH):
        task.nice = max(-20, min(19, nice))
    return 0


def _check_deadline(t: Task, priority: int, runtime: int, deadline: int, period: int) -> None:
    """__checkparam_dl(), and nobody but root."""
    period = period or deadline
    if priority or runtime >> 63 or period >> 63 or not 1024 <= runtime <= deadline <= period:
        raise LinuxError(E.EINVAL)
    if not DEADLINE_PERIOD_NS[0] <= period <= DEADLINE_PERIOD_NS[1]:
        raise LinuxError(E.EINVAL)
    if not t.credentials.capable(CAP_SYS_NICE):
        raise LinuxError(E.EPERM)


@syscall("sched_getattr")
def sched_getattr(t: Task, pid: Int, attr: Ptr, size: UInt, flags: UInt) -> int:
    """sched_getattr(2)."""
    if not attr or pid < 0 or size < 48 or size > 4096 or flags:
        raise LinuxError(E.EINVAL)
    task = _task(t, pid)
    policy, priority = task.scheduling
    length = min(size, 56)
    flags = SCHED_FLAG_RESET_ON_FORK if task.reset_on_fork else 0
    deadline = task.deadline_ns if policy == SCHED_DEADLINE else (0, 0, 0)
    raw = t.memory.layout("IIQiIQQQII").pack(length, policy, flags, task.nice, priority, *deadline, 0, 1024)
    t.memory.write(attr, raw[:length])
    return 0


@syscall("sched_get_priority_max")
def sched_get_priority_max(t: Task, policy: Int) -> int:
    """sched_get_priority_max(2)."""
    if policy in REALTIME:
        return 99
    if policy in (SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE):
        return 0
    raise LinuxError(E.EINVAL)


@syscall("sched_get_priority_min")
def sched_get_priority_min(t: Task, policy: Int) -> int:
    """sched_get_priority_min(2)."""
    if policy in REALTIME:
        return 1
    if policy in (SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE):
        return 0
    raise LinuxError(E.EINVAL)


@syscall("sched_rr_get_interval")
def sched_rr_get_interval(t: Task, pid: Int, interval: Ptr) -> int:
    """sched_rr_get_interval(2)."""
    if pid < 0:
        raise LinuxError(E.EINVAL)
    task = _task(t, pid)
    t.memory.write_timespec(interval, 100_000_000 if task.scheduling[0] == SCHED_RR else 4_000_000)
    return 0
