"""The two books of an address space, VMAs and page table, and what keeps them in step.

Rule: `vmas` and `table` change together, here and nowhere else.  `AddressSpace` says what the system calls do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import count

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Access, Prot
from emulator.abi.mman import Map
from emulator.cpu.mmu import Arena, Frames, PageTable
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel import maps_text
from emulator.kernel.layout import Layout, page_align
from emulator.kernel.vma import MappableFile, Vma, VmaSet, VmFlag

MMAP_MIN_ADDR = 65536
MAX_MAP_COUNT = 65530
_UNLIMITED = (1 << 64) - 1
_POPULATE_LIMIT = 256 << 20
_serials = count(1)


@dataclass(slots=True, eq=False)
class Accounting:
    """mm->total_vm and friends, in pages."""

    total: int = 0
    data: int = 0
    locked: int = 0


def _no_limit(_name: str) -> int:
    return _UNLIMITED


class Mappings:
    """VMAs over a page table, with placement, limits and accounting."""

    def __init__(
        self,
        arena: Arena,
        layout: Layout,
        *,
        table: PageTable | None = None,
        rlimit: Callable[[str], int] = _no_limit,
        total_ram: int = 1 << 40,
    ) -> None:
        self.arena = arena
        self.layout = layout
        self.table = table if table is not None else PageTable(arena)
        self.vmas = VmaSet()
        self.rlimit = rlimit  # "AS", "DATA", "STACK", "MEMLOCK" -> soft limit in bytes
        self.total_ram = total_ram
        self.serial = next(_serials)
        self.users = 1  # tasks; the last one's exit destroys
        self.pages = Accounting()
        self.lock_future = VmFlag.NONE
        self.any_sealed = False  # mseal(2) has been called
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.start_brk = self.brk_end = 0
        self.start_stack = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0
        self.auxv = b""
        self.exe: MappableFile | None = None
        self.signal_trampoline = 0  # the page with the sigreturn code, for ISAs without SA_RESTORER
        self.peak_pages = 0
        self.serial = next(_serials)  # never used again
        self.signal_trampoline = 0  # address of the "[vdso]" page, where the ISA needs one

    # -- pages of a VMA -----------------------------------------------------------------------------------------------

    def _install(self, vma: Vma) -> None:
        """Replace [start, end) by `vma` in both books, then merge."""
        found = None if vma.anonymous else self._object(vma)
        if self.vmas.intersects(vma.start, vma.end):
            self._unmap(vma.start, vma.end)
        prot = page_prot(vma.flags)
        if found is None:
            self.table.map_anonymous(vma.start, vma.length, prot)
        else:
            frames, first, valid = found
            shared = bool(vma.flags & VmFlag.MAYSHARE)
            self.table.map_frames(vma.start, vma.length, prot, frames, first, shared=shared, valid_pages=valid)
        self.vmas.add(vma)
        self._account(vma, +1)
        self.vmas.merge_around(vma.start, vma.end)

    def _at(self, address: int) -> Vma:
        vma = self.vmas.at(address)
        if vma is None:
            raise LinuxError(E.EFAULT)
        return vma

    def _object(self, vma: Vma) -> tuple[Frames, int, int]:
        """(frames, first page in them, pages that exist) of a VMA that is not private anonymous."""
        count = vma.length // PAGE_SIZE
        if vma.file is not None:
            return self._file_frames(vma, vma.file), 0, self._valid_pages(vma, vma.file)
        if vma.shared_frames is None:
            raise LinuxError(E.EFAULT)
        return vma.shared_frames, vma.page_offset, min(max(vma.shared_frames.count - vma.page_offset, 0), count)

    def _map_object(self, vma: Vma) -> None:
        frames, first, valid = self._object(vma)
        shared = bool(vma.flags & VmFlag.MAYSHARE)
        prot = page_prot(vma.flags)
        self.table.map_frames(vma.start, vma.length, prot, frames, first, shared=shared, valid_pages=valid)

    def _file_frames(self, vma: Vma, file: MappableFile) -> Frames:
        return file.mmap_frames(
            self.arena,
            vma.page_offset * PAGE_SIZE,
            vma.length // PAGE_SIZE,
            shared=bool(vma.flags & VmFlag.MAYSHARE),
            writable=bool(vma.flags & VmFlag.SHARED),
        )

    @staticmethod
    def _valid_pages(vma: Vma, file: MappableFile) -> int:
        left = page_align(file.mmap_size()) - vma.page_offset * PAGE_SIZE
        return min(max(left // PAGE_SIZE, 0), vma.length // PAGE_SIZE)

    def file_shrank(self, identity: tuple[int, int], size: int) -> None:
        """Private copies of pages which a file has no more go with them (unmap_mapping_range of truncate_pagecache)."""
        for vma in self.vmas:
            if vma.identity == identity and vma.file is not None and not vma.flags & VmFlag.MAYSHARE:
                kept = max(page_align(size) - vma.page_offset * PAGE_SIZE, 0)
                if kept < vma.length:
                    self.table.discard(vma.start + kept, vma.length - kept)

    # -- placement ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _round_hint(address: int) -> int:
        address &= -PAGE_SIZE
        return MMAP_MIN_ADDR if 0 < address < MMAP_MIN_ADDR else address

    def _unmapped_area(self, address: int, length: int, flags: int) -> int:
        """get_unmapped_area with arch_get_unmapped_area_topdown below it."""
        size = self.layout.task_size
        if length > size:
            raise LinuxError(E.ENOMEM)
        if flags & Map.FIXED:
            if address > size - length:
                raise LinuxError(E.ENOMEM)
            if address % PAGE_SIZE:
                raise LinuxError(E.EINVAL)
            return address
        if flags & Map.BITS_32:
            if address and not self._taken(address, length) and address + length <= 0x80000000:
                return address
            found = self.vmas.lowest_gap(length, 0x40000000, 0x80000000)
            if found is None:
                raise LinuxError(E.ENOMEM)
            return found
        if address and size - length >= address and not self._taken(address, length):
            return address
        found = self.vmas.highest_gap(length, MMAP_MIN_ADDR, self.layout.mmap_base)
        if found is None:
            found = self.vmas.lowest_gap(length, page_align(size // 3), size)
        if found is None:
            raise LinuxError(E.ENOMEM)
        return found

    def _taken(self, address: int, length: int) -> bool:
        following = self.vmas.first_ending_after(address)
        return following is not None and address + length > following.start_gap

    def refuse_sealed(self, start: int, end: int) -> None:
        """EPERM where mseal(2) forbids changes."""
        if self.any_sealed and any(vma.flags & VmFlag.SEALED for vma in self.vmas.overlapping(start, end)):
            raise LinuxError(E.EPERM)

    def seal(self, start: int, end: int) -> None:
        """mseal(2): ENOMEM for a hole."""
        if any(vma is None for _, _, vma in self.spans(start, end)):
            raise LinuxError(E.ENOMEM)
        self.any_sealed = True
        self.set_flags(start, end, add=VmFlag.SEALED)

    def _unmap(self, start: int, end: int) -> None:
        self.vmas.split(start)
        self.vmas.split(end)
        for vma in self.vmas.overlapping(start, end):
            self._account(vma, -1)
            self.vmas.remove(vma)
            self.table.unmap(vma.start, vma.length)
            if vma.segment is not None:
                vma.segment.detach()  # type: ignore[attr-defined]

    # -- limits -------------------------------------------------------------------------------------------------------

    def _check_expand(self, length: int, flags: VmFlag, replacing: tuple[int, int] | None = None) -> None:
        """may_expand_vm."""
        more = length // PAGE_SIZE
        limit = self.rlimit("AS") // PAGE_SIZE
        total = self.pages.total + more
        if total > limit and replacing is not None:
            total -= sum(
                (min(v.end, replacing[1]) - max(v.start, replacing[0])) // PAGE_SIZE
                for v in self.vmas.overlapping(*replacing)
            )
        if total > limit or not self._data_allowed(more, flags, VmFlag.NONE):
            raise LinuxError(E.ENOMEM)

    def _data_allowed(self, more: int, flags: VmFlag, old: VmFlag) -> bool:
        if not _is_data(flags) or _is_data(old):
            return True
        return self.pages.data + more <= self.rlimit("DATA") // PAGE_SIZE

    def _check_lock_limit(self, length: int) -> None:
        limit = self.rlimit("MEMLOCK")
        if not limit:
            raise LinuxError(E.EPERM)
        if self.pages.locked * PAGE_SIZE + length > limit:
            raise LinuxError(E.EAGAIN)

    def _account(self, vma: Vma, sign: int) -> None:
        n = sign * (vma.length // PAGE_SIZE)
        self.pages.total += n
        self.peak_pages = max(self.peak_pages, self.pages.total)
        if _is_data(vma.flags):
            self.pages.data += n
        if vma.flags & VmFlag.LOCKED:
            self.pages.locked += n

    # -- ranges -------------------------------------------------------------------------------------------------------

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int, Vma | None]]:
        """[start, end) cut at VMA edges, None for holes."""
        position = start
        for vma in self.vmas.overlapping(start, end):
            if vma.start > position:
                yield position, vma.start, None
            yield max(vma.start, position), min(vma.end, end), vma
            position = vma.end
        if position < end:
            yield position, end, None

    def set_flags(self, start: int, end: int, *, add: VmFlag = VmFlag.NONE, drop: VmFlag = VmFlag.NONE) -> bool:
        """Change flags of every VMA in the range, splitting and merging; False if there were holes."""
        whole = True
        for low, high, vma in list(self.spans(start, end)):
            if vma is None:
                whole = False
                continue
            if (vma.flags | add) & ~drop == vma.flags:
                continue
            self.vmas.split(low)
            self.vmas.split(high)
            piece = self._at(low)
            self._account(piece, -1)
            piece.flags = (piece.flags | add) & ~drop
            self._account(piece, +1)
        self.vmas.merge_around(start, end)
        return whole

    def set_name(self, start: int, end: int, name: str) -> bool:
        """PR_SET_VMA_ANON_NAME; False if there were holes."""
        whole = True
        for low, high, vma in list(self.spans(start, end)):
            if vma is None:
                whole = False
                continue
            if vma.file is not None:
                raise LinuxError(E.EBADF)
            self.vmas.split(low)
            self.vmas.split(high)
            piece = self._at(low)
            piece.name = f"[anon:{name}]" if name else ""
        self.vmas.merge_around(start, end)
        return whole

    def populate(self, start: int, length: int, *, write: bool = False) -> None:
        """Fault the pages in (mm_populate); errors are nobody's."""
        for low, high, vma in list(self.spans(start, start + length)):
            if vma is None or not vma.flags & VmFlag(7) or high - low > _POPULATE_LIMIT:
                continue
            access = Access.WRITE if vma.flags & VmFlag.WRITE and not vma.flags & VmFlag.SHARED else Access.READ
            try:
                self.table.buffers(low, high - low, Access.WRITE if write else access)
            except (MemoryFault, LinuxError):
                return

    def shared_key(self, address: int) -> Hashable | None:
        """What a shared futex at `address` is known by: (object, byte offset); None for private memory."""
        vma = self.vmas.at(address)
        if vma is None or not vma.flags & VmFlag.MAYSHARE:
            return None
        return vma.identity, address - vma.start + vma.page_offset * PAGE_SIZE

    def beyond_file(self, address: int) -> bool:
        """Does `address` lie in a page of a mapping behind the end of its file, which has been cut?"""
        vma = self.vmas.at(address)
        if vma is None or vma.file is None:
            return False
        return (address - vma.start) // PAGE_SIZE >= self._valid_pages(vma, vma.file)

    # -- /proc --------------------------------------------------------------------------------------------------------

    def name_of(self, vma: Vma) -> str:
        """The last column of /proc/PID/maps (fs/proc/task_mmu.c: show_map_vma)."""
        if vma.file is not None:
            return vma.file.mmap_path().replace("\n", "\\012")
        if vma.name:
            return vma.name
        if vma.start < self.brk_end and vma.end > self.start_brk:
            return "[heap]"
        if vma.start <= self.start_stack <= vma.end:
            return "[stack]"
        return ""

    def maps_text(self, smaps: bool = False) -> str:
        """/proc/PID/maps, or smaps."""
        return maps_text.smaps(self) if smaps else maps_text.maps(self)


_shmem_inodes = iter(range(1025, 1 << 31))


def next_shmem_inode() -> int:
    return next(_shmem_inodes)


def _is_data(flags: VmFlag) -> bool:
    return flags & (VmFlag.WRITE | VmFlag.SHARED | VmFlag.GROWSDOWN) == VmFlag.WRITE


def page_prot(flags: VmFlag) -> Prot:
    """The page's rights: what can be written or executed can be read."""
    prot = Prot(int(flags) & 7)
    return prot | Prot.READ if prot else prot
