"""What a CPU exception is to Linux: signal, si_code, where si_addr points.

Source: arch/x86/kernel/traps.c, arch/arm64/kernel/traps.c, sigaction(2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from emulator.abi.signals import (
    BUS_ADRALN,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_INTDIV,
    ILL_ILLOPC,
    ILL_ILLOPN,
    SI_KERNEL,
    TRAP_BRKPT,
    TRAP_TRACE,
    Signal,
)
from emulator.arch.model import FaultKind


class Reads(Protocol):
    """Registers by gdb's name."""

    def read(self, name: str) -> int: ...


class Memory(Protocol):
    """Guest memory."""

    def read(self, address: int, count: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Trap:
    """One exception: `at_pc` says si_addr is the program counter (else 0); `code_of` refines si_code from registers."""

    signo: int
    code: int
    at_pc: bool = False
    kind: FaultKind = FaultKind.PRIVILEGED
    code_of: Callable[[Reads], int] | None = None
    address_of: Callable[[Reads, Memory], int] | None = None  # si_addr, where it is neither pc nor 0
    rewind: int = 0  # the engine reports it behind an instruction of so many bytes, the CPU faults at it
    error_code: int = 0


@dataclass(frozen=True, slots=True)
class Traps:
    """The exceptions of an ISA by the engine's interrupt number, and the two every ISA has."""

    interrupts: Mapping[int, Trap]
    undefined: Trap
    privileged: Trap
    other: Trap  # an interrupt number nobody knows
    software: Callable[[int], Trap] | None = None  # INT n of a vector user mode may not use
    no_page_fault: Callable[[int], bool] = lambda _address: False  # this address faults as `privileged` does
    kernel_start: int = 1 << 64  # from here on a page fault says "protection", whatever is there

    pc_alignment: int = 1  # elsewhere an instruction fetch faults as `misaligned`
    misaligned: Trap | None = None

    def of(self, number: int, pc: int) -> Trap:
        """Return the trap the engine's interrupt `number` is."""
        if self.misaligned is not None and pc % self.pc_alignment:
            return self.misaligned
        found = self.interrupts.get(number)
        if found is not None:
            return found
        return self.software(number) if self.software is not None and number >= 32 else self.other


def _fpe_code(status: int) -> int:
    """The kernel's order (fpu__exception_code): invalid, zero divide, overflow, denormal or underflow, precision."""
    for bits, code in (
        (0x01, FPE_FLTINV),
        (0x04, FPE_FLTDIV),
        (0x08, FPE_FLTOVF),
        (0x12, FPE_FLTUND),
        (0x20, FPE_FLTRES),
    ):
        if status & bits:
            return code
    return 0


def _x87_code(regs: Reads) -> int:
    return _fpe_code(regs.read("fstat") & ~regs.read("fctrl"))


def _sse_code(regs: Reads) -> int:
    mxcsr = regs.read("mxcsr")
    return _fpe_code(mxcsr & ~(mxcsr >> 7))


def _software_interrupt(number: int) -> Trap:
    """INT n through a gate that is not user mode's: #GP at the instruction, the vector in the error code."""
    return Trap(Signal.SIGSEGV, SI_KERNEL, rewind=2, error_code=number << 3 | 2)


def _is_non_canonical(address: int) -> bool:
    return 1 << 47 <= address < (1 << 64) - (1 << 47)


X86_TRAPS = Traps(
    interrupts={
        0: Trap(Signal.SIGFPE, FPE_INTDIV, at_pc=True, kind=FaultKind.DIVIDE),
        1: Trap(Signal.SIGTRAP, TRAP_TRACE, at_pc=True, kind=FaultKind.STEP),
        3: Trap(Signal.SIGTRAP, SI_KERNEL, kind=FaultKind.BREAKPOINT),
        4: Trap(Signal.SIGSEGV, SI_KERNEL),
        5: Trap(Signal.SIGSEGV, SI_KERNEL),
        6: Trap(Signal.SIGILL, ILL_ILLOPN, at_pc=True, kind=FaultKind.UNDEFINED),
        13: Trap(Signal.SIGSEGV, SI_KERNEL),
        16: Trap(Signal.SIGFPE, FPE_FLTINV, at_pc=True, kind=FaultKind.X87, code_of=_x87_code),
        19: Trap(Signal.SIGFPE, FPE_FLTINV, at_pc=True, kind=FaultKind.SIMD, code_of=_sse_code),
    },
    undefined=Trap(Signal.SIGILL, ILL_ILLOPN, at_pc=True, kind=FaultKind.UNDEFINED),
    privileged=Trap(Signal.SIGSEGV, SI_KERNEL),
    other=Trap(Signal.SIGSEGV, SI_KERNEL),
    software=_software_interrupt,
    no_page_fault=_is_non_canonical,
    kernel_start=(1 << 64) - (1 << 47),
)


def _exclusive_address(regs: Reads, memory: Memory) -> int:
    """Return the address of the exclusive or atomic access at pc: the base register, without an offset."""
    word = int.from_bytes(memory.read(regs.read("pc"), 4), "little")
    base = word >> 5 & 31
    return regs.read("sp" if base == 31 else f"x{base}")


# Unicorn reports QEMU's EXCP_* of target/arm/cpu.h.
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
