"""CPU exceptions of aarch64 (arch/arm64/kernel/traps.c), by the numbers of QEMU's target/arm/cpu.h (EXCP_*)."""

from __future__ import annotations

from emulator.abi.signals import BUS_ADRALN, ILL_ILLOPC, TRAP_BRKPT, Signal
from emulator.arch.model import FaultKind
from emulator.arch.traps import Memory, Reads, Trap, Traps


def _exclusive_address(regs: Reads, memory: Memory) -> int:
    """Return the address of the exclusive or atomic access at pc: the base register, without an offset."""
    word = int.from_bytes(memory.read(regs.read("pc"), 4), "little")
    base = word >> 5 & 31
    return regs.read("sp" if base == 31 else f"x{base}")


AARCH64_TRAPS = Traps(
    interrupts={
        1: Trap(Signal.SIGILL, ILL_ILLOPC, at_pc=True, kind=FaultKind.UNDEFINED),
        4: Trap(Signal.SIGBUS, BUS_ADRALN, kind=FaultKind.ALIGNMENT, address_of=_exclusive_address),
        7: Trap(Signal.SIGTRAP, TRAP_BRKPT, at_pc=True, kind=FaultKind.BREAKPOINT),
    },
    pc_alignment=4,
    misaligned=Trap(Signal.SIGBUS, BUS_ADRALN, at_pc=True, kind=FaultKind.ALIGNMENT),
    undefined=Trap(Signal.SIGILL, ILL_ILLOPC, at_pc=True),
    privileged=Trap(Signal.SIGILL, ILL_ILLOPC, at_pc=True),
    other=Trap(Signal.SIGILL, ILL_ILLOPC, at_pc=True),
)
