"""What the server asks of every target; what one may be able to do besides is in `abilities`.

Every method may raise `TargetError` (its errno goes to the client): `NoSuchThread`/`ThreadExited` for a thread-id that
is not a live thread, `MemoryUnreadable` for an address.  No other exception is part of the contract (one that
comes anyway becomes an error reply and a log line).

Numbers: regnums are those of the target description, addresses unsigned, signals GDB's own (`Signal`), pids and tids
the ones the user sees.  A `ThreadId` argument called `thread` always names exactly one thread; `pattern` may be wider.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from gdbstub.signals import Signal
from gdbstub.stop import StopEvent
from gdbstub.tdesc import TargetDescription
from gdbstub.thread_id import ThreadId

# ---------------------------------------------------------------------------------------------------------- resuming


class ResumeKind(Enum):
    """What a thread is to do; the words of vCont."""

    CONTINUE = "c"
    STEP = "s"
    RANGE_STEP = "r"
    STOP = "t"  # non-stop only: stop it with signal 0, if it runs


@dataclass(frozen=True, slots=True)
class ResumeAction:
    """One action of a vCont.  `signal` (SIG0: none) is delivered first; RANGE_STEP steps while start <= pc < end."""

    kind: ResumeKind
    pattern: ThreadId
    signal: Signal = Signal.SIG0
    start: int = 0
    end: int = 0


def action_for(actions: Iterable[ResumeAction], thread: ThreadId) -> ResumeAction | None:
    """The leftmost action that covers `thread`; None: it keeps its state (all-stop: it stays stopped)."""
    for action in actions:
        if action.pattern.matches(thread):
            return action
    return None


@dataclass(frozen=True, slots=True)
class HostFd:
    """A descriptor of the server's process, and the poll(2) events the guest waits for."""

    fd: int
    events: int


class Running(Enum):
    """The slice is over and the target wants another one, at once."""

    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Every resumed thread is blocked: run again when a descriptor is ready or CLOCK_MONOTONIC reaches the deadline."""

    host_fds: tuple[HostFd, ...] = ()
    deadline_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Something to report.  All-stop: one event, and every thread is stopped now (the target keeps further events
    pending and reports them at the next resume); non-stop: any number, only the threads named are stopped."""

    events: tuple[StopEvent, ...]
    console: tuple[bytes, ...] = ()  # text for the user, shown before the stop


RUNNING = Running.RUNNING
SliceResult = Running | Waiting | Stop


# ---------------------------------------------------------------------------------------------------------- required


@runtime_checkable
class Target(Protocol):
    """The least a target can be."""

    def attached(self) -> None:
        """A client connected; every per-client setting is at its default (all-stop, nothing caught, no points)."""

    def detached(self) -> None:
        """The client is gone without a word: remove its points and settings, keep everything else as it is."""

    def description(self, process: int) -> TargetDescription:
        """The registers of a process.  Called seldom; the same object may be returned every time."""

    def threads(self) -> Sequence[ThreadId]:
        """All live threads of all processes, in the order they should be listed."""

    def introduce(self, threads: Sequence[ThreadId]) -> None:
        """The client is about to be told these thread-ids: from now on they mean the threads that have them now.

        Numbers are recycled.  A thread-id the client was told of means the thread it meant then, and no later one.
        """

    def is_alive(self, thread: ThreadId) -> bool:
        """Whether the thread that the client means is live."""

    def is_running(self) -> bool:
        """Whether `run_slice` has something to do: a thread is resumed, or an event of non-stop waits to be reported.

        All-stop: true from `resume` until `run_slice` answers with a Stop.  Also true while a detached process goes on.
        """

    def status(self) -> Sequence[StopEvent]:
        """The last event of each stopped thread, the one `?` should tell in all-stop first; empty: no process."""

    def read_register(self, thread: ThreadId, regnum: int) -> bytes | None:
        """A register in target byte order; None: unavailable.  Raises TargetError for a regnum there is not."""

    def read_some_registers(self, thread: ThreadId, regnums: Sequence[int]) -> Sequence[bytes | None]:
        """A few registers, as every stop reply tells them; not necessarily captured with the others."""

    def read_registers(self, thread: ThreadId) -> Sequence[bytes | None]:
        """Every register of the description in regnum order, captured in one go."""

    def write_register(self, thread: ThreadId, regnum: int, value: bytes) -> None:
        """Set a register (`value` has its size)."""

    def write_registers(self, thread: ThreadId, values: Sequence[bytes]) -> None:
        """Set the registers 0..len(values)-1 in one go."""

    def read_memory(self, thread: ThreadId, address: int, length: int) -> bytes:
        """Up to `length` bytes, fewer where the next is unreadable; raises MemoryUnreadable if the first one is.

        Inserted points do not show.  `thread` names the address space.
        """

    def write_memory(self, thread: ThreadId, address: int, data: bytes) -> None:
        """Write all of it or raise MemoryUnreadable; reaches read-only pages, and code takes effect at once."""

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """Let threads go; `action_for` finds a thread's action.  Returns at once: `run_slice` does the work.

        All-stop: a thread no action covers stays stopped, and a thread that is created later goes on as CONTINUE.
        """

    def run_slice(self) -> SliceResult:
        """Run a few milliseconds (at most 5) of what is resumed."""

    def interrupt(self) -> None:
        """Ctrl-C: the next `run_slice` reports a stop with SIGINT (or another event that was due), blocked or not."""

    def kill(self, process: int) -> None:
        """End a process; no event is reported for it.  One whose end was not reported yet is killed already.

        Raises TargetError if there is no such process.
        """

    def detach(self, process: int) -> None:
        """Let a process go on without a debugger; no event is reported for it.  Its points are removed."""
