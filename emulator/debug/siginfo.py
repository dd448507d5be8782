"""The siginfo of a stop (qXfer:siginfo:read and write)."""

from __future__ import annotations

from dataclasses import replace

from emulator.abi.signals import SI_TKILL, TRAP_BRKPT, TRAP_HWBKPT, TRAP_TRACE, Siginfo, Signal
from emulator.debug.core import EINVAL, Core, LastStop
from emulator.debug.signal_numbers import from_gdb
from gdbstub.errors import TargetError
from gdbstub.stop import HardwareBreakpoint, SoftwareBreakpoint, Watchpoint
from gdbstub.thread_id import ThreadId


class SiginfoAbility(Core):
    """SignalInformation."""

    def read_siginfo(self, thread: ThreadId) -> bytes:
        """128 bytes as PTRACE_GETSIGINFO gives them."""
        task = self.live(thread)
        stop = self.stops.get(task.uid)
        if stop is None:
            if not task.hold:
                raise TargetError(EINVAL, "the thread runs")
            # ptrace's debuggers stop the other threads with this one
            return Siginfo(Signal.SIGSTOP, SI_TKILL).pack(task.arch.bits, task.arch.struct_order)
        if stop.info is None:
            pc = self.kernel.registers_of(task).read(task.arch.pc)
            return _of_stop(stop, pc).pack(task.arch.bits, task.arch.struct_order)
        return stop.info.pack(task.arch.bits, task.arch.struct_order)

    def write_siginfo(self, thread: ThreadId, offset: int, data: bytes) -> None:
        """Change what will be delivered."""
        task = self.live(thread)
        stop = self.stops.get(task.uid)
        if stop is None:
            raise TargetError(EINVAL, "the thread has not stopped with a signal")
        old = bytearray(self.read_siginfo(thread))
        if offset + len(data) > len(old):
            raise TargetError(EINVAL, "siginfo_t has 128 bytes")
        old[offset : offset + len(data)] = data
        changed = Siginfo.unpack(bytes(old), task.arch.bits, task.arch.struct_order)
        self.stops[task.uid] = replace(stop, info=changed)


def _of_stop(stop: LastStop, pc: int) -> Siginfo:
    """What the kernel would have told a ptracer for a stop without a signal of the guest's."""
    signo = from_gdb(stop.event.signal)
    if signo != Signal.SIGTRAP:
        return Siginfo(signo or 0)
    match stop.event.reason:
        case SoftwareBreakpoint():
            return Siginfo(Signal.SIGTRAP, TRAP_BRKPT, addr=pc)
        case Watchpoint(address=address):
            return Siginfo(Signal.SIGTRAP, TRAP_HWBKPT, addr=address)
        case HardwareBreakpoint():
            return Siginfo(Signal.SIGTRAP, TRAP_HWBKPT, addr=pc)
        case _:
            return Siginfo(Signal.SIGTRAP, TRAP_TRACE, addr=pc)
