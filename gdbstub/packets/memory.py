"""Memory: m M x X, search, checksum, LLDB's allocation (manual: "Packets", "General Query Packets")."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from gdbstub.abilities import MemoryAllocation
from gdbstub.context import Context
from gdbstub.encoding import escape, to_hex
from gdbstub.errors import Malformed, MemoryUnreadable
from gdbstub.registry import OK, Escaped, Hex, Reply, packet

_LIMIT = 1 << 64
_PIECE = 1 << 18  # of memory read in one go


@packet("m addr,length")
def read_memory(c: Context, addr: int, length: int) -> Reply:
    """Memory in hex; fewer bytes than asked for where the next is unreadable, or no more fit into a packet."""
    if not length:
        return b""
    return to_hex(c.target.read_memory(c.thread, addr, min(length, c.packet_size // 2, _LIMIT - addr)))


@packet("M addr,length:data")
def write_memory(c: Context, addr: int, length: int, data: Hex) -> Reply:
    """Set memory, from hex."""
    return _write(c, addr, length, data)


@packet("X addr,length:data")
def write_binary(c: Context, addr: int, length: int, data: Escaped) -> Reply:
    """Set memory; of length 0 it is the client's question whether the packet exists."""
    return _write(c, addr, length, data)


def _write(c: Context, addr: int, length: int, data: bytes) -> Reply:
    if len(data) != length:
        raise Malformed(f"{length} bytes were announced, {len(data)} came")
    if addr + length > _LIMIT:
        raise MemoryUnreadable(addr)
    if length:
        c.target.write_memory(c.thread, addr, data)
    return OK


@packet("x addr,length", advertises="binary-upload+")
def read_binary(c: Context, addr: int, length: int) -> Reply:
    """Memory as binary data.

    GDB (>= 16) and newer LLDBs use it where binary-upload+ is advertised and want a `b` before the data; older LLDBs
    ask by `x0,0` whether it exists, and want none.
    """
    if not length:
        c.bare_binary = True
        return OK
    data = c.target.read_memory(c.thread, addr, min(length, c.packet_size, _LIMIT - addr))
    escaped = escape(data)
    while len(escaped) >= c.packet_size:
        data = data[: len(data) * 3 // 4]
        escaped = escape(data)
    return escaped if c.bare_binary else b"b" + escaped


def _pieces(c: Context, addr: int, length: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Memory in pieces, each repeating `overlap` bytes of the one before; raises MemoryUnreadable at a hole."""
    end = min(addr + length, _LIMIT)
    while addr < end:
        size = min(_PIECE, end - addr)
        data = c.target.read_memory(c.thread, addr, size)
        yield addr, data
        if len(data) < size:
            raise MemoryUnreadable(addr + len(data))
        if addr + size >= end:
            return
        addr += size - overlap


@packet("qSearch:memory:address;length;pattern")
def search_memory(c: Context, address: int, length: int, pattern: Escaped) -> Reply:
    """Find bytes: `1,address` of the first place, or `0`."""
    if not pattern or len(pattern) > _PIECE // 2:
        raise Malformed("no pattern, or too long a pattern")
    for start, data in _pieces(c, address, length, len(pattern) - 1):
        found = data.find(pattern)
        if found >= 0:
            return b"1,%x" % (start + found)
    return b"0"


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    return tuple(table)


@packet("qCRC:addr,length")
def crc(c: Context, addr: int, length: int) -> Reply:
    """CRC-32 of memory, most significant bit first and not inverted (compare-sections)."""
    table = _crc_table()
    value = 0xFFFFFFFF
    for _, data in _pieces(c, addr, length, 0):
        for byte in data:
            value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
    return b"C%x" % value


@packet("_M size,permissions", needs=MemoryAllocation)
def allocate(c: Context, size: int, permissions: bytes) -> Reply:
    """LLDB: memory for its expressions."""
    address = c.target.allocate_memory(
        c.process, size, readable=b"r" in permissions, writable=b"w" in permissions, executable=b"x" in permissions
    )
    return b"%x" % address


@packet("_m addr", needs=MemoryAllocation)
def deallocate(c: Context, addr: int) -> Reply:
    """LLDB: give it back."""
    c.target.deallocate_memory(c.process, addr)
    return OK
