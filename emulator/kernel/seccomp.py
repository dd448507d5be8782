"""seccomp: which system calls a thread may make, and what becomes of it if it makes another.

Rule: the state is data, shared by nobody: fork copies the reference, a new filter makes a new state.  A thread that has
one takes the slow path of the run loop, which asks here once for every call, behind the tracer's entry stop.
Source: seccomp(2), kernel/seccomp.c.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.signals import SYS_SECCOMP, Siginfo, Signal
from emulator.kernel import bpf, lifecycle, ptrace, signals
from emulator.kernel.bpf import Insn

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task

STRICT, FILTER = 1, 2
DATA_SIZE = 64  # sizeof(struct seccomp_data)
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
USER_NOTIF, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTIONS = (KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, TRACE, LOG, ALLOW)
_ACTION, _DATA = 0xFFFF0000, 0xFFFF
_STRICT_CALLS = frozenset(("read", "write", "exit", "rt_sigreturn"))
_MAX_ERRNO = 4095


@dataclass(frozen=True, slots=True)
class Seccomp:
    """A thread's mode, and its filters, the newest first."""

    mode: int
    filters: tuple[tuple[Insn, ...], ...] = ()


class Verdict(Enum):
    """What the run loop does with the call."""

    MAKE = "make the call"
    SKIP = "the result is written"
    GONE = "the thread will not go on"
    STOPPED = "the tracer decides: look again at number and arguments"


def judge(kernel: Kernel, task: Task, errnos: Mapping[E, int], *, again: bool) -> Verdict:
    """Run the filters on the call the task has entered (__secure_computing); `again`: the tracer has seen it."""
    state = task.seccomp
    if state is None:
        return Verdict.MAKE
    number = task.call.number
    if state.mode == STRICT:
        if task.arch.syscalls.get(number) in _STRICT_CALLS:
            return Verdict.MAKE
        lifecycle.exit_task(kernel, task, Signal.SIGKILL)
        return Verdict.GONE
    answer = _answer(kernel, task, state)
    action, data = answer & _ACTION, answer & _DATA
    cpu, convention = kernel.cpu, task.arch.convention
    if action in (ALLOW, LOG) or (again and (action == TRACE or number < 0)):
        return Verdict.MAKE
    if action == ERRNO:
        cpu.set_syscall_result(-min(data, _MAX_ERRNO) & (1 << task.arch.bits) - 1)
        return Verdict.SKIP
    if action == TRAP:
        if convention.saved:
            cpu.write(convention.result, number & (1 << task.arch.bits) - 1)
        signals.force(task, _siginfo(kernel, task, data))
        return Verdict.SKIP
    if action == TRACE and ptrace.event_stop(kernel, task, ptrace.EVENT_SECCOMP, data):
        return Verdict.STOPPED
    if action in (TRACE, USER_NOTIF):
        cpu.set_syscall_result(errnos[E.ENOSYS])
        return Verdict.SKIP
    if action == KILL_THREAD and len(task.group.tasks) > 1:
        lifecycle.exit_task(kernel, task, Signal.SIGSYS)
        return Verdict.GONE
    task.group.sighand.actions[Signal.SIGSYS] = signals.DEFAULT_ACTION
    signals.force(task, _siginfo(kernel, task, data))
    return Verdict.SKIP


def _answer(kernel: Kernel, task: Task, state: Seccomp) -> int:
    """Of all filters' answers the strictest, of equal ones the newest."""
    call, arch = task.call, task.arch
    audit = 0xC0000000 | arch.elf_machine
    data = struct.pack("<iIQ6Q", call.number, audit, kernel.cpu.read(arch.pc), *call.args)
    answer = ALLOW
    for program in state.filters:
        found = bpf.run(program, data)
        if _rank(found) < _rank(answer):
            answer = found
    return answer


def _rank(answer: int) -> int:
    """Actions in order of precedence: as signed numbers."""
    action = answer & _ACTION
    return action - (1 << 32) if action >> 31 else action


def _siginfo(kernel: Kernel, task: Task, data: int) -> Siginfo:
    arch = task.arch
    return Siginfo(
        Signal.SIGSYS,
        SYS_SECCOMP,
        errno=data,
        call_addr=kernel.cpu.read(arch.pc),
        syscall=task.call.number,
        arch=0xC0000000 | arch.elf_machine,
    )
