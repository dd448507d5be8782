"""What a guest's ptrace(2) keeps about a tracee, and its stops.  The requests are in syscalls/ptrace.py.

Rule: a tracee's stop is a task state (STOPPED) with a `Trace` that says why; a tracer that goes, or a tracee that
goes, cuts the tie at once, so no request ever meets a dead task.  Source: ptrace(2), kernel/ptrace.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.signals import CLD_TRAPPED, SI_USER, SIG_IGN, TRAP_HWBKPT, Sa, Siginfo, Signal
from emulator.cpu.exits import WatchHit, WatchKind
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.tasks import TaskState

if TYPE_CHECKING:
    from emulator.cpu.mmu import PageTable
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task


class Option(IntFlag):
    """PTRACE_O_*."""

    TRACESYSGOOD = 1
    TRACEFORK = 2
    TRACEVFORK = 4
    TRACECLONE = 8
    TRACEEXEC = 0x10
    TRACEVFORKDONE = 0x20
    TRACEEXIT = 0x40
    TRACESECCOMP = 0x80
    EXITKILL = 1 << 20
    SUSPEND_SECCOMP = 1 << 21


EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC = 1, 2, 3, 4
EVENT_VFORK_DONE, EVENT_EXIT, EVENT_SECCOMP, EVENT_STOP = 5, 6, 7, 128
OPTION_OF_EVENT = {
    EVENT_FORK: Option.TRACEFORK,
    EVENT_VFORK: Option.TRACEVFORK,
    EVENT_CLONE: Option.TRACECLONE,
    EVENT_EXEC: Option.TRACEEXEC,
    EVENT_VFORK_DONE: Option.TRACEVFORKDONE,
    EVENT_EXIT: Option.TRACEEXIT,
    EVENT_SECCOMP: Option.TRACESECCOMP,
}


class Stop(Enum):
    """Which kind of stop a tracee is in."""

    SIGNAL = "signal-delivery-stop"
    GROUP = "group-stop"
    ENTRY = "syscall-enter-stop"
    EXIT = "syscall-exit-stop"
    EVENT = "ptrace-event-stop"


class Trace:
    """The tie between a tracee and its tracer (a thread, but its whole process may wait for the tracee)."""

    __slots__ = (
        "_calls",
        "debug_registers",
        "group_stop",
        "info",
        "interrupt",
        "listening",
        "message",
        "notify",
        "options",
        "points",
        "report",
        "resume_info",
        "seized",
        "single_step",
        "stop",
        "tracer",
    )

    def __init__(self, tracer: Task, seized: bool, options: int = 0) -> None:
        self.tracer = tracer
        self.seized = seized
        self.options = options
        self.stop: Stop | None = None
        self.report: int | None = None  # wait status not yet collected
        self.info: Siginfo | None = None  # what GETSIGINFO answers
        self.message = 0  # GETEVENTMSG
        self.resume_info: Siginfo | None = None  # deliver this, do not stop for it again
        self.single_step = False
        self._calls = False
        self.interrupt = False  # PTRACE_INTERRUPT is due, or the initial stop of an auto-attached seized child
        self.listening = False
        self.notify = False  # a group stop began or ended since the last trap: trap again
        self.group_stop = 0  # a group stop this thread has not entered yet
        self.debug_registers = [0] * 8
        self.points: list[DebugPoint] = []

    @property
    def stops_at_calls(self) -> bool:
        """PTRACE_SYSCALL is in force."""
        return self._calls

    def set_calls(self, task: Task, on: bool) -> None:
        """Turn syscall stops on or off."""
        self._calls = on
        task.watch_calls = on or task.seccomp is not None


def _halt(kernel: Kernel, task: Task, stop: Stop, status: int, info: Siginfo) -> None:
    """Enter a ptrace-stop and tell the tracer."""
    trace = task.trace
    if trace is None:
        return
    trace.stop = stop
    trace.interrupt = False
    task.interrupt_call = False
    if info.code >> 8 == EVENT_STOP:
        trace.notify = False
    trace.report = status
    trace.info = info
    trace.listening = False
    kernel.scheduler.remove(task)
    task.state = TaskState.STOPPED
    task.attention = True
    _tell_tracer(kernel, task, status)


def _tell_tracer(kernel: Kernel, task: Task, status: int) -> None:
    trace = task.trace
    if trace is None:
        return
    group = trace.tracer.group
    action = group.sighand.actions[Signal.SIGCHLD]
    if not action.flags & Sa.NOCLDSTOP and action.handler != SIG_IGN:
        signals.send_to_group(
            group,
            Siginfo(Signal.SIGCHLD, CLD_TRAPPED, pid=task.tid, uid=task.credentials.ruid, status=status >> 8 & 0x7F),
        )
    group.child_event.wake()


def signal_stop(kernel: Kernel, task: Task, info: Siginfo) -> None:
    """signal-delivery-stop: the tracer sees the signal first."""
    _halt(kernel, task, Stop.SIGNAL, info.signo << 8 | 0x7F, info)


def syscall_stop(kernel: Kernel, task: Task, *, entry: bool) -> None:
    """syscall-enter-stop or syscall-exit-stop."""
    trace = task.trace
    if trace is None:
        return
    signo = Signal.SIGTRAP | (0x80 if trace.options & Option.TRACESYSGOOD else 0)
    trace.message = 1 if entry else 2
    _halt(kernel, task, Stop.ENTRY if entry else Stop.EXIT, signo << 8 | 0x7F, Siginfo(Signal.SIGTRAP, signo))


def event_stop(kernel: Kernel, task: Task, event: int, message: int) -> bool:
    """PTRACE_EVENT_*, if the tracer asked for it."""
    trace = task.trace
    if trace is None or not trace.options & OPTION_OF_EVENT.get(event, 0):
        return False
    trace.message = message
    info = Siginfo(Signal.SIGTRAP, Signal.SIGTRAP | event << 8)
    _halt(kernel, task, Stop.EVENT, event << 16 | Signal.SIGTRAP << 8 | 0x7F, info)
    return True


def group_stop(kernel: Kernel, task: Task, signo: int) -> None:
    """group-stop of a traced thread; PTRACE_EVENT_STOP if it was seized."""
    trace = task.trace
    if trace is None:
        return
    status = signo << 8 | 0x7F
    if trace.seized:
        status |= EVENT_STOP << 16
    _halt(kernel, task, Stop.GROUP, status, Siginfo(signo, signo | EVENT_STOP << 8))
    if not trace.seized:
        trace.info = None  # PTRACE_GETSIGINFO says EINVAL: how a tracer tells a group-stop


def before_user(kernel: Kernel, task: Task) -> bool:
    """Stops that are due before a tracee goes back to user mode; True if it has stopped."""
    trace = task.trace
    if trace is None:
        return False
    if trace.group_stop:
        signo, trace.group_stop = trace.group_stop, 0
        if task.group.stopped:
            group_stop(kernel, task, signo)
            return True
    if trace.interrupt or trace.notify:
        event_trap(kernel, task)
        return True
    return False


def event_trap(kernel: Kernel, task: Task) -> None:
    """PTRACE_EVENT_STOP of a seized tracee that listens: its group stop was ended, or PTRACE_INTERRUPT came."""
    signo = task.group.stop_signal if task.group.stopped else Signal.SIGTRAP
    info = Siginfo(signo, signo | EVENT_STOP << 8)
    _halt(kernel, task, Stop.EVENT, EVENT_STOP << 16 | signo << 8 | 0x7F, info)


def write_debug_register(kernel: Kernel, task: Task, number: int, value: int) -> None:
    """PTRACE_POKEUSER of u_debugreg: data watchpoints; execution breakpoints by register are EIO."""
    trace = task.trace
    if trace is None:
        return
    wanted = trace.debug_registers.copy()
    wanted[number] = value
    points = []
    for slot in range(4):
        if not wanted[7] >> 2 * slot & 3:
            continue
        access, length = wanted[7] >> (16 + 4 * slot) & 3, _DR_LENGTHS[wanted[7] >> (18 + 4 * slot) & 3]
        if access not in _DR_KINDS:
            raise LinuxError(E.EIO)
        points.append(DebugPoint(slot, task.space.table, wanted[slot], length, _DR_KINDS[access]))
    _remove_points(kernel, task, trace)
    trace.debug_registers = wanted
    trace.points = points
    for point in points:
        kernel.cpu.insert_watchpoint(point.table, point.address, point.length, point.kind)


_DR_LENGTHS = (1, 2, 8, 4)
_DR_KINDS = {1: WatchKind.WRITE, 3: WatchKind.ACCESS}


@dataclass(frozen=True, slots=True)
class DebugPoint:
    """A data watchpoint a tracer has set in a debug register."""

    slot: int
    table: PageTable
    address: int
    length: int
    kind: WatchKind


def _remove_points(kernel: Kernel, task: Task, trace: Trace) -> None:
    for point in trace.points:
        if task.space is not None and task.space.table is point.table:  # else they went with the old memory
            kernel.cpu.remove_watchpoint(point.table, point.address, point.length, point.kind)
    trace.points = []


def watch_hit(kernel: Kernel, task: Task, hit: WatchHit) -> None:
    """A watched range was touched: SIGTRAP, if it is the tracer's of this very thread."""
    trace = task.trace
    if trace is None:
        return
    slots = [p.slot for p in trace.points if p.address <= hit.address < p.address + p.length]
    for slot in slots:
        trace.debug_registers[6] |= 1 << slot
    if slots:
        address = kernel.cpu.read(task.arch.pc)
        signals.force(task, Siginfo(Signal.SIGTRAP, TRAP_HWBKPT, addr=address))


def attach(kernel: Kernel, tracer: Task, task: Task, *, seized: bool, options: int = 0) -> None:
    """Tie a tracee to its tracer."""
    task.trace = Trace(tracer, seized, options)
    tracer.group.tracees[task.uid] = task


def stop_new_child(kernel: Kernel, task: Task) -> None:
    """An automatically attached child starts stopped: SIGSTOP, or PTRACE_EVENT_STOP if its parent was seized."""
    trace = task.trace
    if trace is None:
        return
    task.attention = True
    if trace.seized:
        trace.interrupt = True
    else:
        task.signals.pending.add(Siginfo(Signal.SIGSTOP, SI_USER))


def detach(kernel: Kernel, task: Task, signo: int = 0) -> None:
    """Cut the tie; a stopped tracee goes on (with a signal, if the tracer gives one)."""
    trace = task.trace
    if trace is None:
        return
    trace.tracer.group.tracees.pop(task.uid, None)
    stop, info = trace.stop, trace.info
    _remove_points(kernel, task, trace)
    task.trace = None
    task.watch_calls = task.seccomp is not None
    task.attention = True
    if task.state is TaskState.STOPPED:
        if signo and stop in (Stop.SIGNAL, Stop.ENTRY, Stop.EXIT):
            signals.send_to_task(task, signals.with_signo(info, signo))
        task.state = TaskState.RUNNABLE
        kernel.scheduler.enqueue(task)


def resume(kernel: Kernel, task: Task, signo: int, *, calls: bool, step: bool) -> None:
    """PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SINGLESTEP of a stopped tracee."""
    trace = task.trace
    if trace is None:
        return
    if signo:
        if trace.stop is Stop.SIGNAL:
            trace.resume_info = signals.with_signo(trace.info, signo)
        elif trace.stop in (Stop.ENTRY, Stop.EXIT):
            signals.send_to_task(task, signals.with_signo(None, signo))
    trace.stop = None
    trace.report = None
    trace.info = None
    trace.message = 0
    trace.set_calls(task, calls)
    trace.single_step = step
    task.special = task.special or step
    task.attention = True
    task.state = TaskState.RUNNABLE
    kernel.scheduler.enqueue(task)


def tracer_exits(kernel: Kernel, tracer: Task) -> None:
    """Every tracee of a dying thread is let go, or killed with PTRACE_O_EXITKILL."""
    for task in list(tracer.group.tracees.values()):
        trace = task.trace
        if trace is None or trace.tracer is not tracer:
            continue
        kill = trace.options & Option.EXITKILL
        detach(kernel, task)
        if not task.alive:
            tracee_forgotten(kernel, task)
        elif kill:
            signals.send_to_group(task.group, signals.kernel_info(Signal.SIGKILL))


def tracee_exited(kernel: Kernel, task: Task) -> bool:
    """A tracee has died: its tracer gets the status first. True if somebody other than the parent has to wait."""
    trace = task.trace
    if trace is None:
        return False
    trace.stop = None
    tracer = trace.tracer
    if not tracer.alive:
        task.trace = None
        return False
    if task.is_leader and task.group.parent is tracer.group:
        tracer.group.tracees.pop(task.uid, None)
        task.last_trace, task.trace = trace, None  # for its parent to wait for, as if it had not been traced
        return False
    trace.report = task.exit_status
    status = task.exit_status
    code = 1 if status & 0x7F == 0 else 2
    signals.send_to_group(
        tracer.group,
        Siginfo(Signal.SIGCHLD, code, pid=task.tid, uid=task.credentials.ruid, status=status >> 8 or status & 0x7F),
    )
    tracer.group.child_event.wake()
    return True


def tracee_forgotten(kernel: Kernel, task: Task) -> None:
    """A dead tracee's tracer has collected it, or is gone: back to its parent, or out of the registry."""
    from emulator.kernel import lifecycle

    trace = task.trace
    if trace is not None:
        trace.tracer.group.tracees.pop(task.uid, None)
        task.trace = None
    if task.is_leader:
        if not task.group.tasks:
            lifecycle.notify_parent(kernel, task.group)
    else:
        lifecycle.reap_thread(kernel, task)
