"""Arena and page tables without C: hooks/arena.c, table.c and access.c in Python, same names, same rules.

One thing is missing: without a SIGBUS handler in C, a host file that is truncated under a shared mapping ends the
process.  Private mappings are read into frames, so they are safe.
"""

from __future__ import annotations

import bisect
import ctypes
import os
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.errors import LinuxError, MemoryFault

SHIFT = 12
MASK = PAGE_SIZE - 1
TOP = 1 << 48
READ, WRITE, EXEC = 1, 2, 4
RAN_RUNNER, RAN_STEPPER, RAN = 1, 2, 3

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x4000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value
_DONTNEED = 4
_serials = count(1)


def _mmap(address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    got: int | None = _libc.mmap(address, length, prot, flags, fd, offset)
    if got is None or got == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return got


class Frames:
    """A run of frames behind a host file or a shared object; it lives as long as somebody holds it."""

    __slots__ = ("arena", "base", "count", "file")

    def __init__(self, arena: Arena, base: int, pages: int, file: bool) -> None:
        self.arena = arena
        self.base = base
        self.count = pages
        self.file = file

    def view(self) -> memoryview:
        """Return the memory itself."""
        view = self.arena.memory[self.base << SHIFT : (self.base + self.count) << SHIFT]
        return view.toreadonly() if self.file else view

    def __del__(self) -> None:
        self.arena.free_run(self.base, self.count)


class Arena:
    """Frames of guest-physical memory in one NORESERVE mapping."""

    def __init__(self, limit_frames: int | None = None, capacity_frames: int = 1 << 26) -> None:
        self.limit_frames = limit_frames
        while True:
            try:
                flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
                self.base = _mmap(None, capacity_frames << SHIFT, _PROT_READ | _PROT_WRITE, flags, -1, 0)
                break
            except OSError:
                if capacity_frames <= 1024:
                    raise MemoryError from None
                capacity_frames //= 2  # a host with strict overcommit gives less
        self.capacity = capacity_frames
        self.memory = memoryview((ctypes.c_ubyte * (capacity_frames << SHIFT)).from_address(self.base)).cast("B")
        self.refs: dict[int, int] = {}
        self.ran: dict[int, int] = {}  # frames that translated code came from, and in which engine
        self.stale: set[int] = set()  # their translations must go before the next run
        self.used = 0
        self._next = 1  # frame 0 is the shared zero page
        self._top = capacity_frames
        self._free: list[int] = []
        self._runs: list[tuple[int, int]] = []

    def __del__(self) -> None:
        if hasattr(self, "memory"):
            self.memory.release()
            _libc.munmap(self.base, self.capacity << SHIFT)

    def used_frames(self) -> int:
        """Return how many anonymous frames are in use."""
        return self.used

    def page(self, frame: int) -> memoryview:
        """Return a frame's bytes."""
        return self.memory[frame << SHIFT : (frame + 1) << SHIFT]

    def new_frame(self) -> int:
        """Return a zeroed frame with one reference.  Raises LinuxError(ENOMEM)."""
        if self.limit_frames is not None and self.used >= self.limit_frames:
            raise LinuxError(E.ENOMEM)
        if self._free:
            frame = self._free.pop()
            self.page(frame)[:] = bytes(PAGE_SIZE)
        elif self._next < self._top:
            frame = self._next
            self._next += 1
        else:
            raise LinuxError(E.ENOMEM)
        self.refs[frame] = 1
        self.used += 1
        return frame

    def scratch_frame(self) -> int:
        """Return a frame outside of the accounts."""
        self._next += 1
        return self._next - 1

    def release_frame(self, frame: int) -> None:
        """Drop a reference."""
        self.refs[frame] -= 1
        if self.refs[frame]:
            return
        del self.refs[frame]
        if self.ran.pop(frame, 0):
            self.stale.add(frame)
        self.used -= 1
        self._free.append(frame)

    def _new_run(self, pages: int) -> int:
        if pages <= 0:
            raise OSError(22, os.strerror(22))
        for n, (base, free) in enumerate(self._runs):
            if free >= pages:
                self._runs[n] = (base + pages, free - pages)
                return base
        if pages > self._top - self._next:
            raise LinuxError(E.ENOMEM)
        self._top -= pages
        return self._top

    def free_run(self, base: int, pages: int) -> None:
        """Take a run back."""
        for frame in range(base, base + pages) if pages < 1 << 16 else list(self.ran):
            if base <= frame < base + pages and self.ran.pop(frame, 0):
                self.stale.add(frame)
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        _mmap(self.base + (base << SHIFT), pages << SHIFT, _PROT_READ | _PROT_WRITE, flags, -1, 0)
        self._runs.append((base, pages))

    def map_file(self, host_fd: int, offset: int, n_pages: int, shared: bool, writable: bool) -> Frames:
        """Map part of a host file into a run of frames.  Raises OSError as mmap(2)."""
        base = self._new_run(n_pages)
        try:
            if shared:
                prot = _PROT_READ | (_PROT_WRITE if writable else 0)
                _mmap(self.base + (base << SHIFT), n_pages << SHIFT, prot, _MAP_SHARED | _MAP_FIXED, host_fd, offset)
            else:
                data = os.pread(host_fd, n_pages << SHIFT, offset)
                self.memory[base << SHIFT : (base << SHIFT) + len(data)] = data
        except OSError:
            self.free_run(base, n_pages)
            raise
        return Frames(self, base, n_pages, True)

    def forget_files(self) -> None:
        """Drop file mappings kept for the next process: there are none here."""

    def shared_anonymous(self, n_pages: int) -> Frames:
        """Return a run of zero frames that can be shared."""
        return Frames(self, self._new_run(n_pages), n_pages, False)


@dataclass(slots=True)
class Entry:
    """A touched page."""

    prot: int
    frame: int
    cow: bool = False
    dirty: bool = False
    private: bool = False  # the frame is refcounted by its pages
    shared: bool = False


@dataclass(slots=True)
class Region:
    """What is mapped where."""

    start: int
    end: int
    prot: int
    shared: bool = False
    frames: Frames | None = None
    first: int = 0
    valid: int = TOP


@dataclass(slots=True)
class Watch:
    """A watched range; kind is made of READ and WRITE."""

    start: int
    end: int
    kind: int
    refs: int = 1


class Touch(Enum):
    """Why a page could not be made usable."""

    UNMAPPED = 1
    DENIED = 2
    BUS = 3
    NOMEM = 4
    RAN_COW = 5
    WATCHED = 6


class Refused(Exception):  # noqa: N818
    """A page refuses an access."""

    def __init__(self, why: Touch) -> None:
        super().__init__(why.name)
        self.why = why


def _check(start: int, length: int) -> None:
    if start & MASK or length & MASK or length <= 0 or not 0 <= start < TOP or length > TOP - start:
        raise ValueError(f"bad page range {start:#x}+{length:#x}")


def _effective(prot: int) -> int:
    """PROT_WRITE or PROT_EXEC imply readable."""
    return prot & 7 | READ if prot & 7 else 0


class PageTable:
    """One address space."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.pages: dict[int, Entry] = {}
        self.epoch = 1
        self.serial = next(_serials)
        self.points: set[int] = set()
        self.watches: list[Watch] = []
        self._regions: list[Region] = []
        self._hits: list[tuple[int, int]] = []

    def __del__(self) -> None:
        self.destroy()

    # ---- regions

    def _index(self, address: int) -> int:
        return bisect.bisect_right(self._regions, address, key=lambda r: r.end)

    def _region(self, address: int) -> Region | None:
        n = self._index(address)
        return self._regions[n] if n < len(self._regions) and self._regions[n].start <= address else None

    def _split(self, address: int) -> None:
        region = self._region(address)
        if region is None or region.start == address:
            return
        tail = replace(region, start=address, first=region.first + (address - region.start >> SHIFT))
        region.end = address
        self._regions.insert(self._index(address - 1) + 1, tail)

    def _cut(self, start: int, end: int) -> slice:
        self._split(start)
        self._split(end)
        first = last = self._index(start)
        while last < len(self._regions) and self._regions[last].start < end:
            last += 1
        return slice(first, last)

    def _touched(self, start: int, end: int) -> list[int]:
        if end - start >> SHIFT < len(self.pages):
            return [page for page in range(start, end, PAGE_SIZE) if page in self.pages]
        return sorted(page for page in self.pages if start <= page < end)

    def _drop(self, start: int, end: int, keep_shared: bool) -> None:
        for page in self._touched(start, end):
            if keep_shared and self.pages[page].shared:
                continue
            entry = self.pages.pop(page)
            if entry.private:
                self.arena.release_frame(entry.frame)
            self.epoch += 1

    def unmap(self, start: int, length: int) -> None:
        """munmap(2)."""
        _check(start, length)
        part = self._cut(start, start + length)
        if any(region.prot & EXEC for region in self._regions[part]):
            self.serial = next(_serials)
        self._drop(start, start + length, False)
        del self._regions[part]

    def _insert(self, region: Region) -> None:
        self._regions.insert(self._index(region.start), region)

    def map_anonymous(self, start: int, length: int, prot: int) -> None:
        """Map private demand-zero memory."""
        self.unmap(start, length)
        n = self._index(start)
        before = self._regions[n - 1] if n else None
        if before and before.end == start and before.prot == _effective(prot) and before.frames is None:
            before.end = start + length
        else:
            self._insert(Region(start, start + length, _effective(prot)))

    def map_frames(
        self, start: int, length: int, prot: int, frames: Frames, first_page: int, *, shared: bool, valid_pages: int
    ) -> None:
        """Map frames; private ones are copied on write, pages from `valid_pages` on are beyond the file."""
        self.unmap(start, length)
        self._insert(
            Region(start, start + length, _effective(prot), shared, frames, first_page, first_page + valid_pages)
        )

    def protect(self, start: int, length: int, prot: int) -> None:
        """mprotect(2)."""
        _check(start, length)
        prot = _effective(prot)
        part = self._cut(start, start + length)
        if prot & EXEC or any(region.prot & EXEC for region in self._regions[part]):
            self.serial = next(_serials)
        for region in self._regions[part]:
            region.prot = prot
        for page in self._touched(start, start + length):
            self.pages[page].prot = prot
        self.epoch += 1

    def move(self, old: int, new: int, length: int) -> None:
        """mremap(2) to another place."""
        _check(old, length)
        _check(new, length)
        if old < new + length and new < old + length:
            raise ValueError("the ranges overlap")
        self.unmap(new, length)
        part = self._cut(old, old + length)
        moved = self._regions[part]
        del self._regions[part]
        for page in self._touched(old, old + length):
            self.pages[page - old + new] = self.pages.pop(page)
        for region in moved:
            self._insert(replace(region, start=region.start - old + new, end=region.end - old + new))
        self.epoch += 1
        self.serial = next(_serials)

    def discard(self, start: int, length: int) -> None:
        """madvise(MADV_DONTNEED)."""
        _check(start, length)
        self._drop(start, start + length, True)
        self.serial = next(_serials)

    def fork(self) -> PageTable:
        """Return a copy-on-write copy."""
        child = PageTable(self.arena)
        child._regions = [replace(region) for region in self._regions]
        for page, entry in self.pages.items():
            if entry.private:
                entry.cow = True
                self.arena.refs[entry.frame] += 1
            child.pages[page] = replace(entry)
        self.epoch += 1
        return child

    def destroy(self) -> None:
        """Give everything back."""
        self._drop(0, TOP, False)
        self._regions.clear()
        self.points.clear()
        self.watches.clear()
        self.epoch += 1
        self.serial = next(_serials)

    def resident(self, start: int, length: int) -> bytes:
        """Return a byte a page: 1 present, 2 dirty, 4 private copy."""
        _check(start, length)
        out = bytearray(length >> SHIFT)
        for page in self._touched(start, start + length):
            entry = self.pages[page]
            out[page - start >> SHIFT] = 1 | entry.dirty << 1 | entry.private << 2
        return bytes(out)

    # ---- touching

    def touch(self, address: int, access: int, *, force: bool = False, may_replace_code: bool = True) -> Entry:
        """Make a page usable.  Raises Refused."""
        if not 0 <= address < TOP:
            raise Refused(Touch.UNMAPPED)
        page = address & ~MASK
        entry = self.pages.get(page)
        if entry is None:
            region = self._region(page)
            if region is None:
                raise Refused(Touch.UNMAPPED)
            if not region.prot & access and not force:
                raise Refused(Touch.DENIED)
            entry = self._first(region, page, access)
            self.pages[page] = entry
        if not entry.prot & access and not force:
            raise Refused(Touch.DENIED)
        if access & WRITE:
            if force and entry.shared and not entry.prot & WRITE:
                raise Refused(Touch.DENIED)
            if entry.cow:
                self._copy(entry, may_replace_code)
            entry.dirty = True
        return entry

    def _first(self, region: Region, page: int, access: int) -> Entry:
        if region.frames is not None:
            index = region.first + (page - region.start >> SHIFT)
            if index >= min(region.valid, region.frames.count):
                raise Refused(Touch.BUS)
            return Entry(region.prot, region.frames.base + index, cow=not region.shared, shared=region.shared)
        if access & WRITE:
            return Entry(region.prot, self._new_frame(), dirty=True, private=True)
        return Entry(region.prot, 0, cow=True)

    def _new_frame(self) -> int:
        try:
            return self.arena.new_frame()
        except LinuxError:
            raise Refused(Touch.NOMEM) from None

    def _copy(self, entry: Entry, may_replace_code: bool) -> None:
        arena, old = self.arena, entry.frame
        if not (entry.private and arena.refs[old] == 1):
            if old in arena.ran and not may_replace_code:
                raise Refused(Touch.RAN_COW)
            frame = self._new_frame()
            if old:
                arena.page(frame)[:] = arena.page(old)
            if entry.private:
                arena.release_frame(old)
            entry.frame, entry.private = frame, True
            self.epoch += 1
        entry.cow = False

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
        for page in self._touched(start & ~MASK, start + length):
            if self.pages[page].frame in self.arena.ran:
                self.arena.stale.add(self.pages[page].frame)

    # ---- points

    def _note(self, address: int, size: int) -> None:
        for watch in self.watches:
            if watch.kind & WRITE and watch.start < address + size and watch.end > address:
                self._hits.append((max(address, watch.start), watch.kind))

    def take_hits(self) -> list[tuple[int, int]]:
        """Return kernel-side stores into watched ranges since the last call."""
        hits, self._hits = self._hits, []
        return hits

    def insert_point(self, address: int) -> None:
        """Insert a breakpoint."""
        if address not in self.points:
            self.points.add(address)
            self.serial = next(_serials)

    def remove_point(self, address: int) -> None:
        """Remove a breakpoint."""
        if address in self.points:
            self.points.remove(address)
            self.serial = next(_serials)

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
