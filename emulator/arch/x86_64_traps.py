"""CPU exceptions of x86-64 (arch/x86/kernel/traps.c, fpu__exception_code())."""

from __future__ import annotations

from emulator.abi.signals import (
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_INTDIV,
    ILL_ILLOPN,
    SI_KERNEL,
    TRAP_TRACE,
    Signal,
)
from emulator.arch.model import FaultKind
from emulator.arch.traps import Reads, Trap, Traps


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
