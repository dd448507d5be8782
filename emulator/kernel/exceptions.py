"""What the CPU reports besides system calls, and what Linux makes of it: a page, a signal, a debugger's stop.

Rule: which exception is which signal is the ISA's to say (`arch.traps`).
Source: arch/x86/kernel/traps.c, arch/x86/mm/fault.c, arch/arm64/mm/fault.c.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from emulator.abi.memory import Access
from emulator.abi.signals import BUS_ADRERR, Siginfo, Signal
from emulator.arch.model import Fault, FaultKind
from emulator.arch.traps import Trap
from emulator.cpu.exits import (
    BreakpointHit,
    BusError,
    Exit,
    Interrupt,
    PageFault,
    Privileged,
    Simple,
    Undefined,
    WatchHit,
)
from emulator.kernel import ptrace, signals
from emulator.kernel.events import BreakpointStop, WatchStop
from emulator.kernel.tasks import Task

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel

log = logging.getLogger("emulator.exceptions")


class Exceptions:
    """The exception handlers of a kernel's CPU."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.cpu = kernel.cpu

    def react(self, task: Task, reason: Exit) -> bool:
        """Turn a CPU exit that is not a system call into what Linux does; False if the turn is over."""
        kernel, traps = self.kernel, task.arch.traps
        match reason:
            case PageFault(address=address, access=access, mapped=mapped):
                return self._page_fault(task, address, access, mapped)
            case BusError(address=address):
                if task.space.handle_bus(address) is not None:
                    task.fault = Fault(FaultKind.PAGE, address, Access.READ, False)
                    signals.force(task, Siginfo(Signal.SIGBUS, BUS_ADRERR, addr=address))
            case BreakpointHit(address=address):
                task.skip_breakpoint = address
                task.special = True
                debugger = kernel.debugger
                if debugger is None or not debugger.wants_breakpoint(task, address):
                    return True
                kernel.events.append(BreakpointStop(task, address))
                return False
            case WatchHit():
                if task.trace is not None:
                    ptrace.watch_hit(kernel, task, reason)
                debugger = kernel.debugger
                if debugger is None or not debugger.wants_watch(task, reason):
                    return True
                kernel.events.append(WatchStop(task, reason))
                return False
            case Interrupt(number=number):
                self._trap(task, traps.of(number, self.cpu.read(task.arch.pc)))
            case Undefined(reason=why):
                if why:
                    kernel.advise(task, why)
                self._trap(task, traps.undefined)
            case Privileged():
                self._trap(task, traps.privileged)
            case Simple.STOP_REQUESTED:
                return False
            case _:
                log.error("%r: unexpected exit %r", task, reason)
                self._trap(task, traps.undefined)
        return True

    def _trap(self, task: Task, trap: Trap) -> None:
        cpu = self.cpu
        task.fault = Fault(trap.kind, error_code=trap.error_code)
        if trap.rewind:
            cpu.write(task.arch.pc, cpu.read(task.arch.pc) - trap.rewind)
        code = trap.code if trap.code_of is None else trap.code_of(cpu) or trap.code
        address = cpu.read(task.arch.pc) if trap.at_pc else 0
        if trap.address_of is not None:
            address = trap.address_of(cpu, task.memory)
        if trap.kind is FaultKind.ALIGNMENT:
            task.fault = Fault(trap.kind, address)
        signals.force(task, Siginfo(trap.signo, code, addr=address))

    def _page_fault(self, task: Task, address: int, access: Access, mapped: bool) -> bool:
        """Let the address space repair it (stack growth), else SIGSEGV or SIGBUS with si_code and si_addr."""
        code = task.space.handle_fault(address, access)
        if code is None:
            return True
        traps = task.arch.traps
        if traps.no_page_fault(address):
            self._trap(task, traps.privileged)
            return True
        present = address >= traps.kernel_start or (mapped and task.space.is_present(address))
        task.fault = Fault(FaultKind.PAGE, address, access, present)
        name, si_code = code.value
        signals.force(task, Siginfo(Signal[name], si_code, addr=address))
        return True
