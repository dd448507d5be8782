"""Guest memory from the kernel's and the debugger's side, and points: hooks/access.c and points.c in Python."""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.cpu.pyhooks.arena import SHIFT, Arena
from emulator.cpu.pyhooks.table import MASK, READ, TOP, WRITE, Refused, Table, Touch, Watch, fresh_serial
from emulator.errors import LinuxError, MemoryFault

MAX_HITS = 16  # until somebody takes them


class PageTable(Table):
    """One address space: `_hooks.PageTable`."""

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._hits: list[tuple[int, int]] = []  # kernel-side stores into watched ranges

    def fork(self) -> PageTable:
        """Return a copy-on-write copy."""
        child = PageTable(self.arena)
        self.copy_to(child)
        return child

    # ---- access from the kernel's side

    def _reach(self, address: int, access: int, force: bool) -> int:
        try:
            entry = self.touch(address, access, force=force)
        except Refused as refused:
            if refused.why is Touch.NOMEM:
                raise LinuxError(E.ENOMEM) from None
            raise MemoryFault(address, Access(access), refused.why is not Touch.UNMAPPED) from None
        if access & WRITE and entry.frame in self.arena.ran:
            self.arena.stale.add(entry.frame)
        return entry.frame << SHIFT | address & MASK

    @staticmethod
    def _pieces(address: int, n: int) -> list[tuple[int, int]]:
        out = []
        while n > 0:
            size = min(n, PAGE_SIZE - (address & MASK))
            out.append((address, size))
            address += size
            n -= size
        return out

    def read(self, addr: int, n: int, *, force: bool = False) -> bytes:
        """Return bytes.  Raises MemoryFault at the first bad one."""
        if n and (addr > TOP or n > TOP - addr):
            raise MemoryFault(max(addr, TOP), Access.READ, False)
        data = self.read_partial(addr, n, force=force)
        if len(data) < n:
            self._reach(addr + len(data), READ, force)
        return data

    def read_partial(self, addr: int, n: int, *, force: bool = False) -> bytes:
        """Return as many bytes as are readable."""
        if n < 0:
            raise ValueError("negative length")
        out = bytearray()
        end = min(addr + n, TOP)
        while addr < end:
            size = min(end - addr, PAGE_SIZE - (addr & MASK))
            try:
                at = self._reach(addr, READ, force)
            except MemoryFault:
                break
            out += self.arena.memory[at : at + size]
            addr += size
        return bytes(out)

    def read_uint(self, addr: int, size: int, big_endian: bool, /) -> int:
        """Return an unsigned number of up to 8 bytes.  Raises MemoryFault."""
        if size > 8:
            raise ValueError("at most 8 bytes")
        return int.from_bytes(self.read(addr, size), "big" if big_endian else "little")

    def read_cstring(self, addr: int, limit: int) -> bytes:
        """Return a string without its NUL.  Raises MemoryFault, ValueError."""
        out = b""
        while len(out) < limit:
            size = min(limit - len(out), PAGE_SIZE - (addr & MASK))
            at = self._reach(addr, READ, False)
            head, nul, _ = bytes(self.arena.memory[at : at + size]).partition(b"\0")
            out += head
            if nul:
                return out
            addr += size
        raise ValueError("no NUL within the limit")

    def write(self, addr: int, data: bytes | bytearray | memoryview, *, force: bool = False) -> None:
        """Store bytes.  Raises MemoryFault at the first bad one."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            for address, size in self._pieces(addr, len(view)):
                at = self._reach(address, WRITE, force)
                self.arena.memory[at : at + size] = view[done : done + size]
                done += size
        finally:
            if done and not force:
                self._note(addr, done)

    def buffers(self, addr: int, n: int, access: Access) -> list[memoryview]:
        """Return host views of guest memory."""
        out: list[tuple[int, int]] = []
        for address, size in self._pieces(addr, n):
            at = self._reach(address, access.value, False)
            if out and sum(out[-1]) == at:
                out[-1] = (out[-1][0], out[-1][1] + size)
            else:
                out.append((at, size))
        if access is Access.WRITE:
            self._note(addr, n)
        views = [self.arena.memory[at : at + size] for at, size in out]
        return views if access is Access.WRITE else [view.toreadonly() for view in views]

    def invalidate_code(self, start: int, length: int) -> None:
        """The host changed code here."""
        for page in self.touched(start & ~MASK, start + length):
            if self.pages[page].frame in self.arena.ran:
                self.arena.stale.add(self.pages[page].frame)

    # ---- points

    def _note(self, address: int, size: int) -> None:
        for watch in self.watches:
            if len(self._hits) == MAX_HITS:
                return
            if watch.kind & WRITE and watch.start < address + size and watch.end > address:
                self._hits.append((max(address, watch.start), watch.kind))

    @property
    def stored(self) -> bool:
        """Are there hits to take?"""
        return bool(self._hits)

    def take_hits(self) -> list[tuple[int, int]]:
        """Return kernel-side stores into watched ranges since the last call."""
        hits, self._hits = self._hits, []
        return hits

    def insert_point(self, address: int) -> None:
        """Insert a breakpoint."""
        if address not in self.points:
            self.points.add(address)
            self.serial = fresh_serial()

    def remove_point(self, address: int) -> None:
        """Remove a breakpoint."""
        if address in self.points:
            self.points.remove(address)
            self.serial = fresh_serial()

    def insert_watch(self, start: int, length: int, kind: int) -> None:
        """Insert a watchpoint."""
        if length <= 0 or not 0 <= start < TOP or length > TOP - start or kind not in (1, 2, 3):
            raise ValueError("bad watchpoint")
        for watch in self.watches:
            if (watch.start, watch.end, watch.kind) == (start, start + length, kind):
                watch.refs += 1
                return
        self.watches.append(Watch(start, start + length, kind))
        self.epoch += 1

    def remove_watch(self, start: int, length: int, kind: int) -> None:
        """Undo one `insert_watch`."""
        for watch in self.watches:
            if (watch.start, watch.end, watch.kind) == (start, start + length, kind):
                watch.refs -= 1
                if not watch.refs:
                    self.watches.remove(watch)
                self.epoch += 1
                return

    def page_watch(self, page: int) -> int:
        """Return the kinds watched on a page."""
        kinds = 0
        for watch in self.watches:
            if watch.start < page + PAGE_SIZE and watch.end > page:
                kinds |= watch.kind
        return kinds

    def watch_hit(self, address: int, size: int, kind: int) -> Watch | None:
        """Return the first watchpoint an access touches."""
        for watch in self.watches:
            if watch.kind & kind and watch.start < address + size and watch.end > address:
                return watch
        return None
