"""VMAs: the ranges of an address space, and the ordered set of them.

Rule: this is bookkeeping only; pages and rights live in `cpu.mmu.PageTable`, which `address_space` keeps in step.
Split and merge follow mm/vma.c: equal flags and name, the same open file description, contiguous offsets.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import Protocol

from emulator.abi.memory import PAGE_SIZE, Prot
from emulator.cpu.mmu import Arena, Frames
from emulator.kernel.mempolicy import Policy

STACK_GUARD_GAP = 256 * PAGE_SIZE


class MappableFile(Protocol):
    """What a mapping asks of an open file description (kernel/files/description.py)."""

    def mmap_frames(self, arena: Arena, offset: int, n_pages: int, *, shared: bool, writable: bool) -> Frames:
        """The file's pages as frames; raises LinuxError(ENODEV) where mmap(2) does."""
        ...

    def mmap_size(self) -> int:
        """The file's size in bytes now: pages wholly past it give SIGBUS."""
        ...

    def mmap_identity(self) -> tuple[int, int]:
        """(st_dev, st_ino) for /proc/PID/maps."""
        ...

    def mmap_path(self) -> str:
        """The guest's name of the file for /proc/PID/maps, with " (deleted)" where it is."""
        ...

    def retain(self) -> object:
        """A mapping holds the description open."""
        ...

    def release(self) -> None:
        """The mapping has gone."""
        ...


class VmFlag(IntFlag):
    """VM_* of include/linux/mm.h that a program can tell apart; the order is smaps' (fs/proc/task_mmu.c)."""

    NONE = 0
    READ = 1  # = Prot.READ
    WRITE = 2
    EXEC = 4
    SHARED = 8
    MAYREAD = 1 << 4
    MAYWRITE = 1 << 5
    MAYEXEC = 1 << 6
    MAYSHARE = 1 << 7
    GROWSDOWN = 1 << 8
    LOCKED = 1 << 9
    SEQ_READ = 1 << 10
    RAND_READ = 1 << 11
    DONTCOPY = 1 << 12
    DONTEXPAND = 1 << 13
    ACCOUNT = 1 << 14
    NORESERVE = 1 << 15
    WIPEONFORK = 1 << 16
    DONTDUMP = 1 << 17
    HUGEPAGE = 1 << 18
    NOHUGEPAGE = 1 << 19
    MERGEABLE = 1 << 20
    SEALED = 1 << 21


#: Flags that do not keep neighbours apart.
_PROT = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


_GROWSDOWN = int(VmFlag.GROWSDOWN)  # IntFlag's own & costs a microsecond


@dataclass(slots=True, eq=False)
class Vma:
    """[start, end) with equal properties; `page_offset` is the kernel's vm_pgoff."""

    start: int
    end: int
    flags: VmFlag
    page_offset: int = 0
    file: MappableFile | None = None
    shared_frames: Frames | None = None  # of MAP_SHARED|MAP_ANONYMOUS, memfd-less; page_offset indexes it
    name: str = ""  # "[vdso]", "[anon:...]", "/dev/zero (deleted)", "/SYSV..."
    identity: tuple[int, int] = (0, 0)  # st_dev, st_ino
    segment: object | None = None  # the System V segment attached here
    policy: Policy | None = None  # mbind(2)

    @property
    def length(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def prot(self) -> Prot:
        """The protection as mmap(2) was told."""
        return Prot(int(self.flags) & 7)

    @property
    def anonymous(self) -> bool:
        """Neither a file nor shared memory."""
        return self.file is None and self.shared_frames is None

    @property
    def start_gap(self) -> int:
        """Start, with the stack guard gap below a stack (vm_start_gap)."""
        return max(self.start - STACK_GUARD_GAP, 0) if self.flags & VmFlag.GROWSDOWN else self.start

    def merges_with(self, other: Vma) -> bool:
        """`other` begins where self ends and could be one VMA with it (can_vma_merge_after)."""
        return (
            self.end == other.start
            and self.flags == other.flags
            and self.file is other.file
            and self.shared_frames is other.shared_frames
            and self.name == other.name
            and self.policy == other.policy
            and self.segment is None
            and other.segment is None
            and self.page_offset + (self.length // PAGE_SIZE) == other.page_offset
        )


@dataclass(slots=True)
class VmaSet:
    """VMAs in order of address, never overlapping."""

    _starts: list[int] = field(default_factory=list)
    _vmas: list[Vma] = field(default_factory=list)
    _full: tuple[int, int, int] = (0, 0, 0)  # (length, high, low): no gap of `length` in [low, high)

    def __len__(self) -> int:
        return len(self._vmas)

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    def at(self, address: int) -> Vma | None:
        """The VMA that holds `address`."""
        i = bisect_right(self._starts, address) - 1
        if i < 0:
            return None
        vma = self._vmas[i]
        return vma if address < vma.end else None

    def first_ending_after(self, address: int) -> Vma | None:
        """The lowest VMA whose end is above `address` (find_vma)."""
        i = self._index_after(address)
        return self._vmas[i] if i < len(self._vmas) else None

    def before(self, address: int) -> Vma | None:
        """The highest VMA that starts below `address`."""
        i = bisect_left(self._starts, address) - 1
        return self._vmas[i] if i >= 0 else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """All that share a byte with [start, end), in order."""
        return self._vmas[self._index_after(start) : bisect_left(self._starts, end)]

    def intersects(self, start: int, end: int) -> bool:
        """Whether any VMA shares a byte with [start, end)."""
        i = self._index_after(start)
        return i < len(self._vmas) and self._vmas[i].start < end

    def add(self, vma: Vma) -> None:
        """Insert; takes a reference to its file."""
        i = bisect_left(self._starts, vma.start)
        self._starts.insert(i, vma.start)
        self._vmas.insert(i, vma)
        if vma.file is not None:
            vma.file.retain()

    def remove(self, vma: Vma) -> None:
        """Take out; gives its file back."""
        i = bisect_left(self._starts, vma.start)
        del self._starts[i]
        del self._vmas[i]
        if vma.end > self._full[2]:
            self._full = (0, 0, 0)
        if vma.file is not None:
            vma.file.release()

    def set_start(self, vma: Vma, start: int) -> None:
        """Move the lower edge (stack growth)."""
        i = bisect_left(self._starts, vma.start)
        vma.page_offset += (start - vma.start) // PAGE_SIZE
        vma.start = start
        self._starts[i] = start

    def split(self, address: int) -> None:
        """Make `address` an edge if it lies inside a VMA."""
        vma = self.at(address)
        if vma is None or vma.start == address:
            return
        upper = replace(vma, start=address, page_offset=vma.page_offset + (address - vma.start) // PAGE_SIZE)
        vma.end = address
        if vma.segment is not None:
            vma.segment.attach()  # type: ignore[attr-defined]
        self.add(upper)

    def merge_around(self, start: int, end: int) -> None:
        """Merge whatever can be merged from the VMA before `start` to the one at `end`."""
        i = max(bisect_left(self._starts, start) - 1, 0)
        while i + 1 < len(self._vmas):
            lower, upper = self._vmas[i], self._vmas[i + 1]
            if lower.start > end:
                return
            if lower.merges_with(upper):
                lower.end = upper.end
                del self._starts[i + 1]
                del self._vmas[i + 1]
                if upper.file is not None:
                    upper.file.release()
            else:
                i += 1

    def highest_gap(self, length: int, low: int, high: int) -> int | None:
        """The highest start of `length` free bytes within [low, high) (vm_unmapped_area, top-down)."""
        known, limit, top = self._full
        if limit != high or known > length:
            known, top = length, high
        for i in range(bisect_left(self._starts, top) - 1, -1, -1):
            vma = self._vmas[i]
            if top - vma.end >= length:
                self._full = (length, high, top)
                return top - length if top - length >= low else None
            start = vma.start_gap if int(vma.flags) & _GROWSDOWN else vma.start
            top = min(start, top)
            if top - length < low:
                return None
        return top - length if top - length >= low else None

    def lowest_gap(self, length: int, low: int, high: int) -> int | None:
        """The lowest start of `length` free bytes within [low, high)."""
        bottom = low
        for vma in self._vmas[self._index_after(low) :]:
            if vma.start_gap - bottom >= length:
                break
            bottom = max(bottom, vma.end)
        return bottom if bottom + length <= high else None

    def copy(self) -> VmaSet:
        """A copy with VMAs of its own and references of its own (fork)."""
        twin = VmaSet(self._starts[:], [replace(vma) for vma in self._vmas])
        for vma in twin:
            if vma.file is not None:
                vma.file.retain()
        return twin

    def clear(self) -> None:
        """Drop everything."""
        for vma in self._vmas:
            if vma.file is not None:
                vma.file.release()
        self._vmas.clear()
        self._starts.clear()
        self._full = (0, 0, 0)

    def _index_after(self, address: int) -> int:
        i = bisect_right(self._starts, address) - 1
        if i >= 0 and self._vmas[i].end > address:
            return i
        return i + 1
