"""Page tables without C: hooks/table.c and ranges.c in Python."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count

from emulator.abi.memory import PAGE_SIZE
from emulator.cpu.pyhooks.arena import SHIFT, Arena, Frames
from emulator.errors import LinuxError

MASK = PAGE_SIZE - 1
TOP = 1 << 48
READ, WRITE, EXEC = 1, 2, 4

_serials = count(1)


def fresh_serial() -> int:
    """Return a name for a table's code that no table had before."""
    return next(_serials)


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


class Table:
    """What is mapped where, and what each touched page may do."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.pages: dict[int, Entry] = {}
        self.epoch = 1
        self.serial = fresh_serial()
        self.points: set[int] = set()
        self.watches: list[Watch] = []
        self._regions: list[Region] = []

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

    def touched(self, start: int, end: int) -> list[int]:
        """Return the pages of a range that have an entry, in order."""
        if end - start >> SHIFT < len(self.pages):
            return [page for page in range(start, end, PAGE_SIZE) if page in self.pages]
        return sorted(page for page in self.pages if start <= page < end)

    def _drop(self, start: int, end: int, keep_shared: bool) -> None:
        for page in self.touched(start, end):
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
            self.serial = fresh_serial()
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
            self.serial = fresh_serial()
        for region in self._regions[part]:
            region.prot = prot
        for page in self.touched(start, start + length):
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
        for page in self.touched(old, old + length):
            self.pages[page - old + new] = self.pages.pop(page)
        for region in moved:
            self._insert(replace(region, start=region.start - old + new, end=region.end - old + new))
        self.epoch += 1
        self.serial = fresh_serial()

    def discard(self, start: int, length: int) -> None:
        """madvise(MADV_DONTNEED)."""
        _check(start, length)
        self._drop(start, start + length, True)
        self.serial = fresh_serial()

    def copy_to(self, child: Table) -> None:
        """Make an empty table a copy-on-write copy."""
        child._regions = [replace(region) for region in self._regions]
        for page, entry in self.pages.items():
            if entry.private:
                entry.cow = True
                self.arena.refs[entry.frame] += 1
            child.pages[page] = replace(entry)
        self.epoch += 1

    def destroy(self) -> None:
        """Give everything back."""
        self._drop(0, TOP, False)
        self._regions.clear()
        self.points.clear()
        self.watches.clear()
        self.epoch += 1
        self.serial = fresh_serial()

    def resident(self, start: int, length: int) -> bytes:
        """Return a byte a page: 1 present, 2 dirty, 4 private copy."""
        _check(start, length)
        out = bytearray(length >> SHIFT)
        for page in self.touched(start, start + length):
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
