"""The clock's knowledge of blocks without C: how many instructions each has, and whether it must be looked at."""

from __future__ import annotations

from emulator.cpu.pyhooks.arena import SHIFT
from emulator.cpu.pyhooks.scan import MAX_LOOP, Insn
from emulator.cpu.pyhooks.state import Block, State
from emulator.cpu.pyhooks.table import MASK, WRITE


class Blocks:
    """What is known of the code of the loaded address space; it goes when the code may have changed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[tuple[int, int], Block] = {}
        self._serial = -1

    def code(self, addr: int, n: int) -> bytes:
        """Return up to `n` bytes of touched pages."""
        state = self._state
        out = bytearray()
        while n > 0:
            entry = state.space.pages.get(addr & ~MASK)
            if entry is None:
                break
            size = min(n, MASK + 1 - (addr & MASK))
            at = entry.frame << SHIFT | addr & MASK
            out += state.arena.memory[at : at + size]
            addr += size
            n -= size
        return bytes(out)

    def _scan(self, addr: int, size: int) -> Block:
        state = self._state
        scanner = state.scanner
        code = self.code(addr, size + scanner.lookahead)
        points = state.space.points
        at = n = 0
        first_kind = int(Insn.PLAIN)
        special = point = False
        while at < size and at < len(code):
            length, kind = scanner.scan(code[at : at + 15])
            first_kind = kind if at == 0 else first_kind
            special |= kind is not Insn.PLAIN
            point |= at > 0 and addr + at in points
            n += 1
            if length <= 0:
                break
            at += length
        first = addr in points
        entry = state.space.pages.get(addr & ~MASK)
        writable = scanner.loops_on_itself is not None and entry is not None and bool(entry.prot & WRITE)
        stop = special or point or first
        return Block(addr, size, max(n, 1), first_kind, first, stop, first and not special and not point, writable)

    def at(self, addr: int, size: int) -> Block:
        """Return what is known of the block there."""
        serial = self._state.space.serial
        if self._serial != serial:
            self._known.clear()
            self._serial = serial
        block = self._known.get((addr, size))
        if block is None:
            block = self._known[addr, size] = self._scan(addr, size)
        return block

    def forget(self, addr: int) -> None:
        """Drop what is known of the blocks that start there."""
        for key in [key for key in self._known if key[0] == addr]:
            del self._known[key]

    def clear(self) -> None:
        """Drop everything."""
        self._known.clear()

    def count(self, start: int, end: int) -> int:
        """Return how many instructions lie between two addresses of straight-line code."""
        return self._scan(start, end - start).count if start < end else 0

    def edge(self, pc: int, page: int) -> int:
        """Return the first instruction at or after `pc` with bytes on `page`; `pc` if it cannot be told."""
        code = self.code(pc, page - pc)
        at = pc
        while at < page and at - pc < len(code):
            length, _ = self._state.scanner.scan(code[at - pc : at - pc + 15])
            if length <= 0:
                break
            at += length
        return at

    def loops_on_itself(self, addr: int) -> bool:
        """Tell an instruction that may run again right after itself."""
        loops = self._state.scanner.loops_on_itself
        return loops is not None and loops(self.code(addr, MAX_LOOP).ljust(MAX_LOOP, b"\0"))
