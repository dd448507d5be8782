"""Stop events, and their only speller (manual: "Stop Reply Packets").

Rule: a target says what happened with these types; the text of a stop reply is made here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from gdbstub.encoding import to_hex
from gdbstub.signals import Signal
from gdbstub.thread_id import ThreadId, format_thread_id


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


@dataclass(frozen=True, slots=True)
class StopFormat:
    """What the client said it understands."""

    multiprocess: bool = False
    swbreak: bool = False
    hwbreak: bool = False
    fork_events: bool = False
    vfork_events: bool = False
    exec_events: bool = False


def format_stop(event: StopEvent, form: StopFormat, expedited: bytes = b"") -> bytes:
    """The stop reply.  `expedited` is `regnum:value;` text, put where a thread stopped."""
    match event:
        case Stopped(thread, signal, reason, core):
            named = "" if reason is None else _reason(reason, form)
            where = "" if core is None else f"core:{core:x};"
            head = f"T{signal:02x}{named}thread:{format_thread_id(thread, form.multiprocess)};{where}"
            return head.encode() + expedited
        case ProcessExited(pid, status):
            return f"W{status & 0xFF:02x}{_process(pid, form)}".encode()
        case ProcessSignalled(pid, signal):
            return f"X{signal:02x}{_process(pid, form)}".encode()
        case ThreadExitedEvent(thread, status):
            return f"w{status & 0xFF:02x};{format_thread_id(thread, form.multiprocess)}".encode()
        case NoResumed():
            return b"N"
        case _:
            assert_never(event)


def _process(pid: int, form: StopFormat) -> str:
    return f";process:{pid:x}" if form.multiprocess else ""


def _reason(reason: Reason, form: StopFormat) -> str:
    """`name:value;`, or nothing where the client would not understand."""
    match reason:
        case SoftwareBreakpoint():
            return "swbreak:;" if form.swbreak else ""
        case HardwareBreakpoint():
            return "hwbreak:;" if form.hwbreak else ""
        case Watchpoint(type, address):
            return f"{type.value}:{address:x};"
        case SyscallEntry(number):
            return f"syscall_entry:{number:x};"
        case SyscallReturn(number):
            return f"syscall_return:{number:x};"
        case Forked(kind, child):
            if (kind is ForkKind.FORK and not form.fork_events) or (kind is ForkKind.VFORK and not form.vfork_events):
                return ""
            return f"{kind.value}:{format_thread_id(child, form.multiprocess)};"
        case VforkDone():
            return "vforkdone:;" if form.vfork_events else ""
        case Execed(path):
            return f"exec:{to_hex(path.encode(errors='surrogateescape')).decode()};" if form.exec_events else ""
        case LibraryEvent():
            return "library:;"
        case ThreadCreated():
            return "create:;"
        case ReplayLog(end):
            return f"replaylog:{end.value};"
        case _:
            assert_never(reason)
