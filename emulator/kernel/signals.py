"""Signals: dispositions, masks, pending queues, and the way from "generated" to "delivered".

Rule: a signal is generated here (`send_to_task`, `send_to_group`, `force`), and taken here (`take`); only the run
loop delivers.  Source: signal(7), sigaction(2), sigqueue(3), kernel/signal.c for the order of things.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.signals import (
    IGNORED_SIGNALS,
    NSIG,
    SI_KERNEL,
    SIG_DFL,
    SIG_IGN,
    SIGRTMIN,
    SIGSET_SIZE,
    STOP_SIGNALS,
    AltStack,
    Siginfo,
    Signal,
    SignalAction,
    signal_bit,
)
from emulator.errors import LinuxError
from emulator.kernel.waits import WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task
    from emulator.kernel.thread_group import ThreadGroup

ALL_SIGNALS = (1 << NSIG) - 1
STOP_MASK = sum(signal_bit(signo) for signo in STOP_SIGNALS)
CONT_MASK = signal_bit(Signal.SIGCONT)
KILL_MASK = signal_bit(Signal.SIGKILL)
SYNCHRONOUS_MASK = sum(
    signal_bit(signo)
    for signo in (Signal.SIGSEGV, Signal.SIGBUS, Signal.SIGILL, Signal.SIGTRAP, Signal.SIGFPE, Signal.SIGSYS)
)
DEFAULT_ACTION = SignalAction()


def lowest(mask: int) -> int:
    """The lowest signal number in a non-empty mask."""
    return (mask & -mask).bit_length()


class SignalQueue:
    """Pending signals of a thread or of a process: standard ones once, real-time ones in order."""

    __slots__ = ("_queues", "mask")

    def __init__(self) -> None:
        self.mask = 0
        self._queues: dict[int, deque[Siginfo]] = {}

    def add(self, info: Siginfo) -> None:
        """Enter a signal; a standard one that is already pending is dropped (its first siginfo stays)."""
        bit = 1 << (info.signo - 1)
        if self.mask & bit:
            if info.signo >= SIGRTMIN:
                self._queues[info.signo].append(info)
            return
        self.mask |= bit
        self._queues[info.signo] = deque((info,))

    def take(self, signo: int) -> Siginfo:
        """Remove and return the first instance of a pending signal."""
        queue = self._queues[signo]
        info = queue.popleft()
        if not queue:
            del self._queues[signo]
            self.mask &= ~(1 << (signo - 1))
        return info

    def discard(self, mask: int) -> list[Siginfo]:
        """Drop every pending signal in `mask`; returns what was dropped (timers want to know)."""
        dropped: list[Siginfo] = []
        for signo in [number for number in self._queues if mask >> (number - 1) & 1]:
            dropped.extend(self._queues.pop(signo))
            self.mask &= ~(1 << (signo - 1))
        return dropped

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def peek(self) -> list[Siginfo]:
        """Every queued siginfo, by signal number (PTRACE_PEEKSIGINFO)."""
        return [info for signo in sorted(self._queues) for info in self._queues[signo]]


class TaskSignals:
    """What belongs to one thread: mask, pending signals, alternate stack."""

    __slots__ = ("altstack", "mask", "pending", "saved_mask", "waiting_for")

    def __init__(self) -> None:
        self.mask = 0  # blocked signals
        self.saved_mask: int | None = None  # to restore after sigsuspend, pselect, ppoll, epoll_pwait
        self.pending = SignalQueue()
        self.altstack = AltStack()
        self.waiting_for = 0  # rt_sigtimedwait: these wake it though they are blocked

    def deliverable(self, group_pending: SignalQueue) -> int:
        """The pending signals that are not blocked, as a mask."""
        return (self.pending.mask | group_pending.mask) & ~self.mask

    def set_mask(self, mask: int) -> None:
        """Replace the blocked set; SIGKILL and SIGSTOP cannot be in it."""
        self.mask = mask & ALL_SIGNALS & ~(KILL_MASK | 1 << (Signal.SIGSTOP - 1))


class SigHand:
    """Dispositions (shared with CLONE_SIGHAND), and the queue signalfds of these processes wait in."""

    __slots__ = ("actions", "arrived")

    def __init__(self) -> None:
        self.actions: list[SignalAction] = [DEFAULT_ACTION] * (NSIG + 1)
        self.arrived = WaitQueue()  # woken whenever a signal becomes pending

    def copy(self) -> SigHand:
        """For a fork."""
        other = SigHand()
        other.actions = list(self.actions)
        return other

    def reset_for_exec(self) -> None:
        """Handled signals go back to default, ignored ones stay ignored (execve(2))."""
        self.actions = [
            SignalAction(handler=SIG_IGN) if action.handler == SIG_IGN else DEFAULT_ACTION for action in self.actions
        ]

    def ignores(self, signo: int) -> bool:
        """Would this signal have no effect?"""
        handler = self.actions[signo].handler
        return handler == SIG_IGN or (handler == SIG_DFL and signo in IGNORED_SIGNALS)


def _watched(group: ThreadGroup, task: Task) -> bool:
    """Is somebody (a debugger or a tracer) to see even ignored signals?"""
    if task.trace is not None:
        return True
    debugger = task.kernel.debugger
    return debugger is not None and debugger.traces(group)


def _prepare(group: ThreadGroup, signo: int, any_task: Task) -> None:
    """Stop signals cancel pending SIGCONT and the reverse; SIGCONT resumes a stopped process."""
    if signo in STOP_SIGNALS:
        group.pending.discard(CONT_MASK)
        for task in group.tasks.values():
            task.signals.pending.discard(CONT_MASK)
    elif signo == Signal.SIGCONT:
        group.pending.discard(STOP_MASK)
        for task in group.tasks.values():
            task.signals.pending.discard(STOP_MASK)
        any_task.kernel.continue_group(group)


def send_to_task(task: Task, info: Siginfo) -> None:
    """Generate a thread-directed signal (tgkill, faults, timers with SIGEV_THREAD_ID)."""
    if not task.alive:
        return
    group, signo = task.group, info.signo
    if signo == Signal.SIGKILL:
        task.kernel.kill_group(group)
        return
    _prepare(group, signo, task)
    signals = task.signals
    bit = 1 << (signo - 1)
    if not signals.mask & bit and group.sighand.ignores(signo) and not _watched(group, task):
        return
    _check_limit(task, info)
    signals.pending.add(info)
    group.sighand.arrived.wake()
    if bit & ~signals.mask or bit & signals.waiting_for:
        task.kernel.scheduler.notify(task)


def send_to_group(group: ThreadGroup, info: Siginfo) -> None:
    """Generate a process-directed signal: any one thread that does not block it will take it."""
    if not group.tasks:
        return
    signo = info.signo
    bit = 1 << (signo - 1)
    first = next(iter(group.tasks.values()))
    if signo == Signal.SIGKILL:
        first.kernel.kill_group(group)
        return
    _prepare(group, signo, first)
    main = group.leader if group.leader is not None and group.leader.alive else first
    if not main.signals.mask & bit and group.sighand.ignores(signo) and not _watched(group, main):
        return
    _check_limit(main, info)
    group.pending.add(info)
    group.sighand.arrived.wake()
    for task in (main, *group.tasks.values()):
        if task.alive and (bit & ~task.signals.mask or bit & task.signals.waiting_for):
            task.kernel.scheduler.notify(task)
            break


def _check_limit(task: Task, info: Siginfo) -> None:
    """RLIMIT_SIGPENDING bounds queued real-time signals; sigqueue(3) and tgkill(2) then fail with EAGAIN."""
    if info.signo < SIGRTMIN or info.code >= 0:
        return
    group = task.group
    if len(group.pending) + sum(len(one.signals.pending) for one in group.tasks.values()) >= group.rlimits[11][0]:
        raise LinuxError(E.EAGAIN)


def force(task: Task, info: Siginfo) -> None:
    """Generate a fault's signal: if it is blocked or ignored it takes its default action (force_sig_info)."""
    signo = info.signo
    bit = 1 << (signo - 1)
    sighand = task.group.sighand
    if task.signals.mask & bit or sighand.actions[signo].handler == SIG_IGN:
        sighand.actions[signo] = DEFAULT_ACTION
        task.signals.mask &= ~bit
    task.signals.pending.discard(bit)
    task.signals.pending.add(info)
    sighand.arrived.wake()
    task.kernel.scheduler.notify(task)


def take(task: Task, mask: int) -> Siginfo | None:
    """Dequeue the next pending signal in `mask`: faults first, then by number, the thread's before the process'."""
    signals, group = task.signals, task.group
    private = signals.pending.mask & mask
    if private:
        urgent = private & SYNCHRONOUS_MASK
        return signals.pending.take(lowest(urgent or private))
    shared = group.pending.mask & mask
    if not shared:
        return None
    info = group.pending.take(lowest(shared & KILL_MASK or shared))
    if info.timer_id >= 0 and info.code == -2:
        return task.kernel.timer_signal_taken(group, info)
    return info


def ignored_now_discard(group: ThreadGroup, signo: int) -> None:
    """Setting a disposition that ignores a signal drops its pending instances (POSIX, sigaction(2))."""
    bit = signal_bit(signo)
    group.pending.discard(bit)
    for task in group.tasks.values():
        task.signals.pending.discard(bit)


def kernel_info(signo: int) -> Siginfo:
    """A signal the kernel itself sends (SI_KERNEL)."""
    return Siginfo(int(signo), SI_KERNEL)


def killed_status(signo: int, core: bool) -> int:
    """The wait status of a process that died of `signo`."""
    return signo | (0x80 if core else 0)


def with_signo(info: Siginfo | None, signo: int) -> Siginfo:
    """The siginfo a tracer passes on: its own if the number is unchanged, else a plain one."""
    if info is not None and info.signo == signo:
        return info
    return replace(Siginfo(signo), code=0)


def swap_mask(t: Task, address: int, size: int) -> None:
    """set_user_sigmask(): EINVAL for a foreign size, EFAULT; only at the first entry of a call."""
    if not address:
        return
    if size != SIGSET_SIZE:
        raise LinuxError(E.EINVAL)
    mask = t.memory.read_u64(address)
    if t.signals.saved_mask is None:
        t.signals.saved_mask = t.signals.mask
        t.signals.set_mask(mask)
        t.attention = True  # what it lets through may be pending


def restore_mask(t: Task) -> None:
    """The call returns without a signal: its mask goes."""
    saved = t.signals.saved_mask
    if saved is not None:
        t.signals.saved_mask = None
        t.signals.set_mask(saved)
        t.attention = True
