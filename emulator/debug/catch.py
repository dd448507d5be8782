"""What the machine asks before it makes an event: the debugger's policy.

Rule: answers come from the client's settings only; a process that is not debugged never makes an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from emulator.abi.signals import Siginfo, Signal
from emulator.cpu.exits import WatchHit
from emulator.debug.points import PointsAbility
from emulator.debug.signal_numbers import to_gdb
from emulator.kernel.events import (
    Execed,
    Forked,
    GroupExited,
    ThreadCreated,
    ThreadExited,
    VforkDone,
)
from emulator.kernel.tasks import Task
from gdbstub.abilities import ThreadOptions
from gdbstub.errors import NoSuchThread
from gdbstub.signals import Signal as GdbSignal
from gdbstub.thread_id import ThreadId

if TYPE_CHECKING:
    from emulator.kernel.thread_group import ThreadGroup


class CatchAbility(PointsAbility):
    """SyscallCatching, SignalPolicy, ForkEvents, ThreadEvents; and the DebuggerPolicy of the machine."""

    # -- the client's side ---------------------------------------------------------------------------------------

    def catch_syscalls(self, process: int, enabled: bool, numbers: frozenset[int]) -> None:
        """QCatchSyscalls."""
        group = self.group(process)
        if enabled:
            self.settings.caught[group.tgid] = numbers
        else:
            self.settings.caught.pop(group.tgid, None)
        self.watch_calls()

    def watch_calls(self) -> None:
        """Send system calls that somebody looks at down the slow path."""
        kernel = self.kernel
        kernel.watch_calls = bool(self.settings.caught) or kernel.strace is not None or bool(kernel.after_calls)

    def set_pass_signals(self, signals: frozenset[GdbSignal]) -> None:
        """QPassSignals."""
        self.settings.pass_signals = frozenset(int(signal) for signal in signals)

    def set_program_signals(self, signals: frozenset[GdbSignal]) -> None:
        """QProgramSignals."""
        self.settings.program_signals = frozenset(int(signal) for signal in signals)

    def set_fork_events(self, *, fork: bool, vfork: bool, exec_: bool) -> None:
        """What qSupported agreed on."""
        self.settings.fork_events = fork
        self.settings.vfork_events = vfork
        self.settings.exec_events = exec_

    def set_thread_events(self, enabled: bool) -> None:
        """QThreadEvents."""
        self.settings.thread_events = enabled

    def set_thread_options(self, options: Mapping[ThreadId, ThreadOptions]) -> None:
        """QThreadOptions."""
        uids = {self.thread_id(task): task.uid for task in self.tasks()}
        for thread, bits in options.items():
            uid = uids.get(thread)
            if uid is None:
                raise NoSuchThread(thread)
            for members, bit in (
                (self.settings.clone_threads, ThreadOptions.CLONE),
                (self.settings.exit_threads, ThreadOptions.EXIT),
            ):
                if bits & bit:
                    members.add(uid)
                else:
                    members.discard(uid)

    # -- the machine's side --------------------------------------------------------------------------------------

    def traces(self, group: ThreadGroup) -> bool:
        """Whether a process is debugged."""
        return group.tgid in self.debugged or group.tgid in self.clones

    def wants_signal(self, task: Task, info: Siginfo) -> bool:
        """Stop before delivery, unless the client said it need not see it; one who steps has to skip the handler."""
        if info.signo == Signal.SIGKILL:
            return False
        return task.stepping is not None or int(to_gdb(info.signo)) not in self.settings.pass_signals

    def wants_syscall(self, task: Task, number: int) -> bool:
        """Is it caught?"""
        numbers = self.settings.caught.get(self.process_of(task))
        return numbers is not None and (not numbers or number in numbers)

    def wants_event(self, kind: type) -> bool:
        """Which life events are worth a value; births, exits and execs always: points and ids depend on them."""
        settings = self.settings
        if kind in (GroupExited, Execed, Forked):
            return True
        if kind is VforkDone:
            return settings.vfork_events
        if kind is ThreadCreated:
            return settings.thread_events or bool(settings.clone_threads)
        if kind is ThreadExited:
            return settings.thread_events or bool(settings.exit_threads)
        return False

    def wants_breakpoint(self, task: Task, address: int) -> bool:
        """Stop at this breakpoint?"""
        return self.breakpoint_holds(task, address)

    def wants_watch(self, task: Task, hit: WatchHit) -> bool:
        """Stop at this watchpoint?"""
        return self.watch_holds(task, hit)
