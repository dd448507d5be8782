"""System calls and signals the client wants to hear of (manual: "General Query Packets")."""

from __future__ import annotations

from gdbstub.abilities import SignalPolicy, SyscallCatching
from gdbstub.context import Context
from gdbstub.encoding import hex_number
from gdbstub.errors import Malformed
from gdbstub.registry import OK, Reply, packet
from gdbstub.signals import Signal


@packet("QCatchSyscalls:wanted", needs=SyscallCatching, advertises="QCatchSyscalls+")
def catch_syscalls(c: Context, wanted: bytes) -> Reply:
    """`0`, `1` for all, or `1;number;number...`."""
    switch, _, numbers = wanted.partition(b";")
    if switch not in (b"0", b"1") or (switch == b"0" and numbers):
        raise Malformed("neither 0 nor 1")
    chosen = frozenset(hex_number(number) for number in numbers.split(b";")) if numbers else frozenset()
    c.target.catch_syscalls(c.process, switch == b"1", chosen)
    return OK


def _signals(text: bytes) -> frozenset[Signal]:
    """Signals by number; one that this server has no name for cannot happen here, so it is left out."""
    numbers = {hex_number(number) for number in text.split(b";") if number}
    return frozenset(signal for signal in Signal if signal in numbers)


@packet("QPassSignals:signals", needs=SignalPolicy, advertises="QPassSignals+")
def pass_signals(c: Context, signals: bytes) -> Reply:
    """Signals that are delivered without a stop; replaces the former list."""
    c.target.set_pass_signals(_signals(signals))
    return OK


@packet("QProgramSignals:signals", needs=SignalPolicy, advertises="QProgramSignals+")
def program_signals(c: Context, signals: bytes) -> Reply:
    """Signals that may reach the program; replaces the former list."""
    c.target.set_program_signals(_signals(signals))
    return OK
