"""Stop events, and their only speller (manual: "Stop Reply Packets").

Rule: a target says what happened with these types; the text of a stop reply is made here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gdbstub.signals import Signal
from gdbstub.thread_id import ThreadId


@dataclass(frozen=True, slots=True)
class SoftwareBreakpoint:
    """A Z0 point was hit; the pc is at it (the server adjusted it where the ISA would not)."""


@dataclass(frozen=True, slots=True)
class HardwareBreakpoint:
    """A Z1 point was hit."""


class WatchType(Enum):
    """Which watchpoint fired; the value is the stop reply's word."""

    WRITE = "watch"
    READ = "rwatch"
    ACCESS = "awatch"


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """A Z2..Z4 point fired; `address` is the first watched byte that was touched."""

    type: WatchType
    address: int


@dataclass(frozen=True, slots=True)
class SyscallEntry:
    """A caught system call is about to run."""

    number: int


@dataclass(frozen=True, slots=True)
class SyscallReturn:
    """A caught system call has run."""

    number: int


class ForkKind(Enum):
    """How a child was made; the value is the stop reply's word."""

    FORK = "fork"
    VFORK = "vfork"
    CLONE = "clone"  # a thread, only where QThreadOptions asked


@dataclass(frozen=True, slots=True)
class Forked:
    """The thread made `child`, which is stopped before its first instruction."""

    kind: ForkKind
    child: ThreadId


@dataclass(frozen=True, slots=True)
class VforkDone:
    """The vfork child let its parent go."""


@dataclass(frozen=True, slots=True)
class Execed:
    """The process is now `path` (target's absolute name)."""

    path: str


@dataclass(frozen=True, slots=True)
class LibraryEvent:
    """The list of shared libraries changed."""


@dataclass(frozen=True, slots=True)
class ThreadCreated:
    """First stop of a new thread, where QThreadEvents asked."""


class ReplayEnd(Enum):
    """The history was used up in this direction."""

    BEGIN = "begin"
    END = "end"


@dataclass(frozen=True, slots=True)
class ReplayLog:
    """Reverse (or replayed) execution came to an end of its log."""

    end: ReplayEnd


Reason = (
    SoftwareBreakpoint
    | HardwareBreakpoint
    | Watchpoint
    | SyscallEntry
    | SyscallReturn
    | Forked
    | VforkDone
    | Execed
    | LibraryEvent
    | ThreadCreated
    | ReplayLog
)


@dataclass(frozen=True, slots=True)
class Stopped:
    """A thread stopped: on `signal`, or for `reason` (then the signal is SIGTRAP)."""

    thread: ThreadId
    signal: Signal = Signal.SIGTRAP
    reason: Reason | None = None
    core: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A process ended with a status (0..255)."""

    pid: int
    status: int


@dataclass(frozen=True, slots=True)
class ProcessSignalled:
    """A process was ended by a signal."""

    pid: int
    signal: Signal


@dataclass(frozen=True, slots=True)
class ThreadExitedEvent:
    """A thread ended, others of its process live; reported only where QThreadEvents or QThreadOptions asked."""

    thread: ThreadId
    status: int = 0


@dataclass(frozen=True, slots=True)
class NoResumed:
    """Nothing that was resumed is left alive."""


StopEvent = Stopped | ProcessExited | ProcessSignalled | ThreadExitedEvent | NoResumed
