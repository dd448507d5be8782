"""Linux signal numbers and GDB's, by name."""

from __future__ import annotations

from emulator.abi.signals import SIGRTMAX, SIGRTMIN
from emulator.abi.signals import Signal as LinuxSignal
from gdbstub.signals import Signal as GdbSignal


def _name(signo: int) -> str:
    return f"SIG{signo}" if signo >= SIGRTMIN else LinuxSignal(signo).name


_TO_GDB = {
    signo: GdbSignal[_name(signo)]
    for signo in (*map(int, LinuxSignal), *range(SIGRTMIN, SIGRTMAX + 1))
    if _name(signo) in GdbSignal.__members__
}
_FROM_GDB = {signal: signo for signo, signal in _TO_GDB.items()}


def to_gdb(signo: int) -> GdbSignal:
    """GDB's number; UNKNOWN for one it has none for (SIGSTKFLT)."""
    return _TO_GDB.get(signo, GdbSignal.UNKNOWN)


def from_gdb(signal: GdbSignal) -> int | None:
    """Linux' number; None if Linux has no such signal."""
    return _FROM_GDB.get(signal)
