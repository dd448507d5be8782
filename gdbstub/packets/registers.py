"""Registers: g G p P (manual: "Packets")."""

from __future__ import annotations

from gdbstub.context import Context, registers_hex
from gdbstub.encoding import from_hex, hex_number, to_hex
from gdbstub.errors import Malformed, TargetError
from gdbstub.registry import OK, Reply, packet
from gdbstub.thread_id import ThreadId


@packet("g [suffix]")
def read_registers(c: Context, suffix: bytes = b"") -> Reply:
    """Every register of the selected thread."""
    thread = c.suffixed(suffix)[0] if suffix else c.thread
    return registers_hex(c.target.read_registers(thread), c.target.description(thread.pid).sizes)


@packet("G values")
def write_registers(c: Context, values: bytes) -> Reply:
    """Set the registers, from the first on; x's leave one as it is."""
    thread, text = c.suffixed(values)
    sizes = c.target.description(thread.pid).sizes
    if b"x" in text:
        _write_some(c, thread, text, sizes)
        return OK
    data = from_hex(text)
    pieces = []
    offset = 0
    for size in sizes:
        if offset + size > len(data):
            break
        pieces.append(data[offset : offset + size])
        offset += size
    if not pieces or offset != len(data):
        raise Malformed("the values do not end with a register")
    c.target.write_registers(thread, pieces)
    return OK


def _write_some(c: Context, thread: ThreadId, text: bytes, sizes: tuple[int, ...]) -> None:
    offset = 0
    for regnum, size in enumerate(sizes):
        piece = text[offset : offset + 2 * size]
        offset += 2 * size
        if len(piece) == 2 * size and b"x" not in piece:
            c.target.write_register(thread, regnum, from_hex(piece))


@packet("p regnum")
def read_register(c: Context, regnum: bytes) -> Reply:
    """One register."""
    thread, text = c.suffixed(regnum)
    number = hex_number(text)
    sizes = c.target.description(thread.pid).sizes
    if number >= len(sizes):
        raise TargetError(0x16, f"no register {number}")
    value = c.target.read_register(thread, number)
    return b"xx" * sizes[number] if value is None else to_hex(value)


@packet("P regnum=value")
def write_register(c: Context, regnum: int, value: bytes) -> Reply:
    """Set one register."""
    thread, text = c.suffixed(value)
    sizes = c.target.description(thread.pid).sizes
    if regnum >= len(sizes):
        raise TargetError(0x16, f"no register {regnum}")
    data = from_hex(text)
    if len(data) != sizes[regnum]:
        raise Malformed(f"register {regnum} has {sizes[regnum]} bytes, not {len(data)}")
    c.target.write_register(thread, regnum, data)
    return OK


@packet("QSaveRegisterState[;suffix]")
def save_registers(c: Context, suffix: bytes = b"") -> Reply:
    """LLDB: keep the registers of a thread; the reply is the name to restore them by."""
    thread = c.suffixed(b";" + suffix)[0]
    name = max(c.saved_registers, default=0) + 1
    c.saved_registers[name] = (thread, tuple(c.target.read_registers(thread)))
    return b"%d" % name


@packet("QRestoreRegisterState:saved[;suffix]")
def restore_registers(c: Context, saved: bytes, suffix: bytes = b"") -> Reply:
    """LLDB: undo everything since QSaveRegisterState."""
    try:
        thread, values = c.saved_registers.pop(int(saved))
    except (ValueError, KeyError):
        raise Malformed("no such saved registers") from None
    known = [value for value in values if value is not None]
    if len(known) == len(values):
        c.target.write_registers(thread, known)
    else:
        for regnum, value in enumerate(values):
            if value is not None:
                c.target.write_register(thread, regnum, value)
    return OK
