"""From a pending signal to what it does: the last thing before a task goes back to user mode.

Rule: `return_to_user` is the only place that delivers.  The order is the kernel's: die if the process dies, stop if it
is stopped, let a tracer and then the debugger see the signal, act, restart or fail an interrupted call.
Source: kernel/signal.c get_signal(), arch/x86/kernel/signal.c handle_signal(), signal(7).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.signals import (
    CORE_SIGNALS,
    IGNORED_SIGNALS,
    SIG_DFL,
    SIG_IGN,
    SS_AUTODISARM,
    STOP_SIGNALS,
    AltStack,
    Sa,
    Siginfo,
    Signal,
)
from emulator.arch.model import Delivery
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel import coredump, lifecycle, ptrace, signals
from emulator.kernel.events import SignalStop, StepDone
from emulator.kernel.tasks import TaskState

if TYPE_CHECKING:
    from emulator.abi.signals import SignalAction
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task

RESTARTS = (E.ERESTARTSYS, E.ERESTARTNOINTR, E.ERESTARTNOHAND, E.ERESTART_RESTARTBLOCK)


def return_to_user(kernel: Kernel, task: Task) -> bool:
    """Do everything that is due; True if the task (which is on the CPU) may run in user mode now."""
    group, state = task.group, task.signals
    while True:
        if group.exiting:
            lifecycle.exit_task(kernel, task, group.exit_status)
            return False
        if task.state is not TaskState.RUNNABLE or kernel.events or task.queued:
            return False
        if group.stopped and task.trace is None:
            return False
        if task.preempted:
            task.preempted = False
            _abort_sequence(kernel, task)
        if task.trace is not None and ptrace.before_user(kernel, task):
            return False
        info = _next(kernel, task)
        if info is None:
            if task.state is not TaskState.RUNNABLE or kernel.events:
                return False
            if state.deliverable(group.pending):
                continue
            _restart(task, kernel)
            if state.saved_mask is not None:
                state.set_mask(state.saved_mask)
                state.saved_mask = None
                if state.deliverable(group.pending):
                    continue
            task.attention = False
            return True
        if not _act(kernel, task, info):
            return False


def _next(kernel: Kernel, task: Task) -> Siginfo | None:
    """The signal to act on now; None if there is none, or if somebody has to see it first."""
    info = task.inject
    if info is not None:
        task.inject = None
        return info
    trace = task.trace
    if trace is not None and trace.resume_info is not None:
        info, trace.resume_info = trace.resume_info, None
    else:
        info = signals.take(task, ~task.signals.mask & signals.ALL_SIGNALS)
        if info is None:
            return None
        if trace is not None and info.signo != Signal.SIGKILL:
            ptrace.signal_stop(kernel, task, info)
            return None
    debugger = kernel.debugger
    if (
        debugger is not None
        and info.signo != Signal.SIGKILL
        and debugger.traces(task.group)
        and debugger.wants_signal(task, info)
    ):
        task.stop_info = info
        kernel.events.append(SignalStop(task, info))
        return None
    return info


def _act(kernel: Kernel, task: Task, info: Siginfo) -> bool:
    """Carry out a signal's disposition; False if the task does not go on."""
    group, signo = task.group, info.signo
    action = group.sighand.actions[signo]
    if action.handler == SIG_IGN:
        return True
    if action.handler == SIG_DFL:
        if signo in IGNORED_SIGNALS:
            return True
        if signo in STOP_SIGNALS:
            if signo != Signal.SIGSTOP and kernel.orphaned(group.pgid):
                return True
            kernel.stop_group(group, signo)
            return False
        core = signo in CORE_SIGNALS and coredump.dump(kernel, task, info)
        lifecycle.exit_group(kernel, group, signals.killed_status(signo, core))
        lifecycle.exit_task(kernel, task, group.exit_status)
        return False
    _enter_handler(kernel, task, info, action)
    if task.stepping is not None and not kernel.events:
        task.stepping = None
        kernel.events.append(StepDone(task))
    return True


def _enter_handler(kernel: Kernel, task: Task, info: Siginfo, action: SignalAction) -> None:
    group, state, signo = task.group, task.signals, info.signo
    _restart(task, kernel, action)
    if task.rseq:
        _abort_sequence(kernel, task)
    arch, cpu = task.arch, kernel.cpu
    saved = state.saved_mask if state.saved_mask is not None else state.mask
    siginfo = info.pack(arch.bits, arch.struct_order)
    signal = Delivery(action, signo, siginfo, saved, state.altstack, task.space.signal_trampoline, task.fault)
    try:
        arch.signal_frame.push(cpu, task.memory, signal)
    except (MemoryFault, LinuxError):
        if signo == Signal.SIGSEGV:
            group.sighand.actions[signo] = signals.DEFAULT_ACTION
        signals.force(task, signals.kernel_info(Signal.SIGSEGV))
        return
    state.saved_mask = None
    if state.altstack.flags & SS_AUTODISARM:
        state.altstack = AltStack()
    if action.flags & Sa.RESETHAND:
        group.sighand.actions[signo] = replace(action, handler=SIG_DFL)
    mask = state.mask | action.mask
    if not action.flags & Sa.NODEFER:
        mask |= 1 << (signo - 1)
    state.set_mask(mask)
    kernel.singlestep_into_handler(task)


def _abort_sequence(kernel: Kernel, task: Task) -> None:
    """A restartable sequence was interrupted: go to its abort handler (rseq(2), kernel/rseq.c)."""
    memory, cpu, pc_name = task.memory, kernel.cpu, task.arch.pc
    try:
        descriptor = memory.read_u64(task.rseq + 8)
        if not descriptor:
            return
        version, _, start, length, abort = memory.read_struct(descriptor, "IIQQQ")
        memory.write_u64(task.rseq + 8, 0)
        if not 0 <= cpu.read(pc_name) - start < length:
            return
        if version or memory.read_u32(abort - 4) != task.rseq_signature:
            raise LinuxError(E.EINVAL)
        cpu.write(pc_name, abort)
    except LinuxError:
        signals.force(task, signals.kernel_info(Signal.SIGSEGV))


def _restart(task: Task, kernel: Kernel, action: SignalAction | None = None) -> None:
    """Decide what becomes of a call a signal has interrupted; `action` is the handler that runs, if one does."""
    call = task.call
    if not call.check_restart:
        return
    call.check_restart = False
    arch, cpu = task.arch, kernel.cpu
    convention = arch.convention
    top = 1 << arch.bits
    number = call.number
    if convention.saved:
        number = cpu.read(convention.saved)
        if number >= top >> 1:
            return
        cpu.write(convention.saved, top - 1)
    why = arch.errno_names.get(top - cpu.read(convention.result))
    if why not in RESTARTS:
        return
    if action is not None and (
        why in (E.ERESTARTNOHAND, E.ERESTART_RESTARTBLOCK) or (why is E.ERESTARTSYS and not action.flags & Sa.RESTART)
    ):
        cpu.write(convention.result, top - arch.errno[E.EINTR])
        return
    if why is E.ERESTART_RESTARTBLOCK:
        number = arch.syscall_numbers["restart_syscall"]
    if convention.result == convention.args[0]:
        cpu.write(convention.result, call.args[0])
    cpu.write(convention.number, number)
    cpu.write(arch.pc, cpu.read(arch.pc) - convention.insn_length)
