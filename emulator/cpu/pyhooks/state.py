"""What the parts of the Python hooks share: the struct Core of engine.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from emulator.cpu.pyhooks.access import PageTable
from emulator.cpu.pyhooks.arena import RAN_RUNNER, RAN_STEPPER, Arena
from emulator.cpu.pyhooks.engine import WORD, Engine
from emulator.cpu.pyhooks.scan import SCANNERS
from emulator.cpu.pyhooks.table import Touch

MAX_SHADOWS = 16
NOWHERE = -1
FOREVER = WORD + 1


class Why(Enum):
    """What stopped an engine."""

    NONE = auto()
    BLOCK = auto()
    SYSCALL = auto()
    INTERRUPT = auto()
    INVALID = auto()
    FAULT = auto()
    DONE = auto()
    POINT = auto()
    SPECIAL = auto()
    RANGE = auto()


@dataclass(slots=True)
class Fault:
    """A refused access."""

    address: int
    access: int
    why: Touch


@dataclass(slots=True)
class Block:
    """What the clock knows of a block (or of one instruction)."""

    addr: int
    size: int
    count: int
    first_kind: int
    point_first: bool
    stop: bool  # never run it without looking
    only_point_first: bool
    resumable: bool  # it lies in a page that can be written


class State:
    """Two engines over one arena, and what their callbacks tell the run loop."""

    def __init__(self, arena: Arena, spec: dict[str, Any]) -> None:
        self.arena = arena
        self.spec = spec
        self.scanner = SCANNERS[spec["scanner"]]
        self.masks = list(struct.iter_unpack("=4I", spec["cpuid"]))
        self.general = [number for (number,) in struct.iter_unpack("=i", spec["general"])]
        self.clobbers = list(struct.iter_unpack("=2i", spec["clobbers"]))
        self.runner = Engine(spec["runner"], RAN_RUNNER, arena)
        self.stepper = Engine(spec["stepper"], RAN_STEPPER, arena)
        self.live = self.runner  # the engine that holds the guest's registers
        self.fresh = self.runner.save()  # ... of a CPU just switched on
        self.shadows = [0] * MAX_SHADOWS  # registers the engine does not have
        self.table: PageTable | None = None
        self.clock = 0
        self.calls = 0  # system calls made
        self.limit = 0
        self.soft = False  # the block that passes the limit may run to its end
        self.stop = self.attention = False  # come back at the next block or instruction
        self.crowded = False
        # what stopped an engine
        self.why = Why.NONE
        self.last: tuple[int, int] | None = None  # address and size of the block that runs
        self.pending: Block | None = None
        self.fault = Fault(0, 0, Touch.UNMAPPED)
        self.interrupt = 0
        # the stepper's orders
        self.steps_left = 0
        self.last_pc = self.skip_pc = self.allow_pc = NOWHERE
        self.range = (0, FOREVER)
        self.again = False
        # looking for the exact address of a fault: the refused page is replaced by a scratch frame
        self.scratch = arena.scratch_frame()
        self.probing = False
        self.probe_page = self.probe_address = NOWHERE
        # watching: pages opened for the stepper, and what was touched
        self.watching = False
        self.opened: list[tuple[int, int]] = []
        self.crossing = 0  # bytes of the last access that lie on the following page
        self.hit: tuple[int, int] | None = None
        self.undo: list[tuple[int, bytes]] = []
        self.counts = dict.fromkeys(("tlb_fills", "tlb_flushes", "switches", "step_runs", "runs"), 0)

    @property
    def pc(self) -> int:
        """The guest's program counter."""
        return self.live.get(self.spec["pc"])

    @property
    def space(self) -> PageTable:
        """The loaded address space.  Raises RuntimeError."""
        if self.table is None:
            raise RuntimeError("no address space")
        return self.table

    def attend(self) -> None:
        """Make a running engine come back."""
        self.attention = True
        self.limit = 0
