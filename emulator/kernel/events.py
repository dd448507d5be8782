"""What a debugger is told, and what it asks for.

Rule: the kernel and the machine know nothing of debug protocols; they append these values to `Kernel.events` and ask
a `DebuggerPolicy` what is wanted.  With no policy nothing here costs anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from emulator.abi.signals import Siginfo
from emulator.cpu.exits import WatchHit

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task
    from emulator.kernel.thread_group import ThreadGroup


class ForkKind(Enum):
    """Which of the three made the child."""

    FORK = "fork"
    VFORK = "vfork"
    CLONE = "clone"


@dataclass(frozen=True, slots=True)
class SliceDone:
    """The slice is used up; run again."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nobody can run until a host fd is ready (poll(2) events) or the deadline (CLOCK_MONOTONIC ns) is reached."""

    host_fds: tuple[tuple[int, int], ...]
    deadline_ns: int | None


@dataclass(frozen=True, slots=True)
class AllExited:
    """No process is left; `status` is the first process' wait status."""

    status: int


@dataclass(frozen=True, slots=True)
class SignalStop:
    """A signal is about to be delivered; it will not be unless the debugger sets `task.inject`."""

    task: Task
    info: Siginfo


@dataclass(frozen=True, slots=True)
class BreakpointStop:
    """pc is at a breakpoint; the instruction has not run."""

    task: Task
    address: int


@dataclass(frozen=True, slots=True)
class WatchStop:
    """A watched range was touched."""

    task: Task
    hit: WatchHit


@dataclass(frozen=True, slots=True)
class StepDone:
    """The step request is served (one instruction, a syscall as a whole, entry to a handler; or the range was left)."""

    task: Task


@dataclass(frozen=True, slots=True)
class SyscallEntry:
    """About to run system call `number`; registers may still be changed."""

    task: Task
    number: int


@dataclass(frozen=True, slots=True)
class SyscallReturn:
    """System call `number` has written its result."""

    task: Task
    number: int


@dataclass(frozen=True, slots=True)
class Forked:
    """`child` is a new process of `task`; it has not run yet."""

    task: Task
    child: Task
    kind: ForkKind


@dataclass(frozen=True, slots=True)
class VforkDone:
    """The vfork parent goes on."""

    task: Task


@dataclass(frozen=True, slots=True)
class Execed:
    """The process runs a new program; `task` is now its leader; `former_tid` is the tid of the thread that called."""

    task: Task
    path: str
    former_tid: int


@dataclass(frozen=True, slots=True)
class ThreadCreated:
    """A new thread in an existing process; it has not run yet."""

    task: Task
    by: Task


@dataclass(frozen=True, slots=True)
class ThreadExited:
    """A thread is gone; its process lives on. `status` is a wait status."""

    task: Task
    status: int


@dataclass(frozen=True, slots=True)
class GroupExited:
    """A process is gone; `status` is its wait status."""

    group: ThreadGroup
    status: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """`Machine.interrupt` was called."""


Event = (
    SliceDone
    | Idle
    | AllExited
    | SignalStop
    | BreakpointStop
    | WatchStop
    | StepDone
    | SyscallEntry
    | SyscallReturn
    | Forked
    | VforkDone
    | Execed
    | ThreadCreated
    | ThreadExited
    | GroupExited
    | Interrupted
)


@dataclass(frozen=True, slots=True)
class StepRequest:
    """Step one instruction, or while start <= pc < end."""

    start: int = 0
    end: int = 0

    @property
    def is_range(self) -> bool:
        """Is this a range step?"""
        return self.end > self.start


class DebuggerPolicy(Protocol):
    """What a debugger wants to see. Asked at every occasion, so it may change at any time."""

    def traces(self, group: ThreadGroup) -> bool:
        """Is this process under the debugger at all? The others run freely."""
        ...

    def wants_signal(self, task: Task, info: Siginfo) -> bool:
        """Stop before this signal is delivered?"""
        ...

    def wants_syscall(self, task: Task, number: int) -> bool:
        """Stop at entry and return of this system call?"""
        ...

    def wants_breakpoint(self, task: Task, address: int) -> bool:
        """Stop at this inserted breakpoint (its condition holds, the task is one it is for)?"""
        ...

    def wants_watch(self, task: Task, hit: WatchHit) -> bool:
        """Stop for this access?"""
        ...

    def wants_event(self, kind: type) -> bool:
        """Report Forked, VforkDone, Execed, ThreadCreated, ThreadExited, GroupExited?"""
        ...
