"""What a CPU exception is to Linux: signal, si_code, where si_addr points (sigaction(2)).  An ISA's are beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

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
