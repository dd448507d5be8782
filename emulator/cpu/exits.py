"""Why the CPU came back: one small type an answer.

Rule: an exit says what the hardware saw, never what Linux makes of it (that is `machine`'s).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import NamedTuple

from emulator.abi.memory import Access


class Syscall(NamedTuple):
    """The system-call instruction ran; pc is behind it.  A tuple, because it is the hot exit."""

    number: int
    args: tuple[int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class PageFault:
    """An access found no page or no right; nothing of the instruction is committed, pc is at it."""

    address: int
    access: Access
    mapped: bool


@dataclass(frozen=True, slots=True)
class BusError:
    """An access to a file mapping past the end of the file (SIGBUS, BUS_ADRERR)."""

    address: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A software interrupt or a CPU exception by its architectural number."""

    number: int


@dataclass(frozen=True, slots=True)
class Undefined:
    """An undefined instruction, or one this engine cannot execute; `reason` is for people ("" if plainly undefined)."""

    address: int
    reason: str


@dataclass(frozen=True, slots=True)
class Privileged:
    """A privileged instruction in user mode; found before it ran."""

    address: int


@dataclass(frozen=True, slots=True)
class BreakpointHit:
    """pc is at an inserted breakpoint; the instruction has not run."""

    address: int


class WatchKind(IntFlag):
    """What a watchpoint watches for."""

    WRITE = 1
    READ = 2
    ACCESS = 3


@dataclass(frozen=True, slots=True)
class WatchHit:
    """A watched range was touched: `address` is the first watched byte of the access, `kind` the watchpoint's kind."""

    address: int
    kind: WatchKind


class Simple(Enum):
    """Exits without particulars."""

    BUDGET = "the clock reached the limit"
    RANGE_DONE = "a range step left its range"
    STOP_REQUESTED = "somebody asked to stop"
    SERVED = "a system call was made, and somebody wants to look before the next instruction"


Exit = Syscall | PageFault | BusError | Interrupt | Undefined | Privileged | BreakpointHit | WatchHit | Simple
