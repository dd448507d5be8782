"""An address space: what mmap(2) and its family do, as mm/mmap.c does it.

Rule: every check comes in the kernel's order, so that a call with two faults gives the errno Linux gives.  Placement is
the kernel's top-down one; with ASLR off addresses are the ones a debugger's user knows by heart.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.abi.mman import LEGACY_MAP_MASK, PROT_GROWSDOWN, PROT_GROWSUP, PROT_SEM, Map, Mremap
from emulator.errors import LinuxError
from emulator.kernel.layout import Layout, page_align
from emulator.kernel.mappings import MAX_MAP_COUNT, MMAP_MIN_ADDR, Mappings, next_shmem_inode, page_prot
from emulator.kernel.vma import STACK_GUARD_GAP, MappableFile, Vma, VmFlag

_O_ACCMODE, _O_WRONLY, _O_RDWR = 3, 1, 2
_MAY_ALL = VmFlag.MAYREAD | VmFlag.MAYWRITE | VmFlag.MAYEXEC


__all__ = ["AddressSpace", "FaultCode", "Layout", "page_align"]


class FaultCode(Enum):
    """What a fault that nobody repairs is: (signal, si_code)."""

    MAPERR = ("SIGSEGV", 1)
    ACCERR = ("SIGSEGV", 2)
    BUS_ADRERR = ("SIGBUS", 2)


class AddressSpace(Mappings):
    """The memory of a process: what CLONE_VM shares and execve replaces."""

    # -- lifetime -----------------------------------------------------------------------------------------------------

    def fork(self) -> AddressSpace:
        """A copy-on-write twin (dup_mmap), minus MADV_DONTFORK ranges, with MADV_WIPEONFORK ranges empty."""
        child = AddressSpace(
            self.arena, self.layout, table=self.table.fork(), rlimit=self.rlimit, total_ram=self.total_ram
        )
        child.vmas = self.vmas.copy()
        child.pages = replace(self.pages, locked=0)
        child.any_sealed = self.any_sealed
        for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk_end", "start_stack"):
            setattr(child, name, getattr(self, name))
        for name in ("arg_start", "arg_end", "env_start", "env_end", "auxv", "exe", "peak_pages", "signal_trampoline"):
            setattr(child, name, getattr(self, name))
        if child.exe is not None:
            child.exe.retain()
        for vma in list(child.vmas):
            vma.flags &= ~VmFlag.LOCKED
            if vma.segment is not None:
                vma.segment.attach()  # type: ignore[attr-defined]
            if vma.flags & VmFlag.DONTCOPY:
                child._unmap(vma.start, vma.end)
            elif vma.flags & VmFlag.WIPEONFORK:
                child.table.discard(vma.start, vma.length)
        return child

    def release(self) -> None:
        """One user less; the last one frees everything (mmput)."""
        self.users -= 1
        if self.users:
            return
        for vma in self.vmas:
            if vma.segment is not None:
                vma.segment.detach()  # type: ignore[attr-defined]
        self.vmas.clear()
        if self.exe is not None:
            self.exe.release()
            self.exe = None
        self.table.destroy()

    # -- mmap ---------------------------------------------------------------------------------------------------------

    def mmap(
        self, address: int, length: int, prot: int, flags: int, file: MappableFile | None = None, offset: int = 0
    ) -> int:
        """do_mmap: map and return the address; `file` is None for MAP_ANONYMOUS."""
        if not length:
            raise LinuxError(E.EINVAL)
        if flags & Map.FIXED_NOREPLACE:
            flags |= Map.FIXED
        if not flags & Map.FIXED:
            address = self._round_hint(address)
        length = page_align(length)
        if length >= 1 << 64:
            raise LinuxError(E.ENOMEM)
        if (offset & ((1 << 64) - 1)) + length > 1 << 64:
            raise LinuxError(E.EOVERFLOW)
        if len(self.vmas) > MAX_MAP_COUNT:
            raise LinuxError(E.ENOMEM)
        address = self._unmapped_area(address, length, flags)
        if flags & Map.FIXED_NOREPLACE and self.vmas.intersects(address, address + length):
            raise LinuxError(E.EEXIST)
        if flags & Map.FIXED:
            self.refuse_sealed(address, address + length)
        vm = VmFlag(prot & 7) | _MAY_ALL | self.lock_future
        if flags & Map.LOCKED:
            self._check_lock_limit(length)
            vm |= VmFlag.LOCKED
        shared, vm = self._check_kind(file, flags, vm)
        if flags & Map.NORESERVE:
            vm |= VmFlag.NORESERVE
        if flags & Map.GROWSDOWN:
            vm |= VmFlag.GROWSDOWN
        if flags & Map.STACK:
            vm |= VmFlag.NOHUGEPAGE
        if flags & Map.HUGETLB and file is None:
            raise LinuxError(E.ENOMEM)  # no huge pages are reserved here
        self._check_expand(length, vm, replacing=(address, address + length) if flags & Map.FIXED else None)
        if not shared and vm & VmFlag.WRITE and not vm & VmFlag.NORESERVE:
            if length > self.total_ram:
                raise LinuxError(E.ENOMEM)  # the heuristic overcommit refuses the obvious
            vm |= VmFlag.ACCOUNT
        vma = Vma(address, address + length, vm, file=file)
        if file is not None:
            vma.page_offset = offset // PAGE_SIZE
            vma.identity = file.mmap_identity()
        elif shared:
            vma.shared_frames = self.arena.shared_anonymous(length // PAGE_SIZE)
            vma.name, vma.identity = "/dev/zero (deleted)", (1, next_shmem_inode())
        else:
            vma.page_offset = address // PAGE_SIZE
        self._install(vma)
        if (flags & Map.POPULATE and not flags & Map.NONBLOCK) or vm & VmFlag.LOCKED:
            self.populate(address, length)
        return address

    def map_special(self, vma: Vma) -> None:
        """Install a VMA the kernel makes itself (stack, vdso, System V segment), replacing what is there."""
        self._install(vma)

    def add_stack(self, start: int, end: int, *, executable: bool = False) -> None:
        """The initial stack of execve (setup_arg_pages)."""
        flags = VmFlag.READ | VmFlag.WRITE | _MAY_ALL | VmFlag.GROWSDOWN | VmFlag.ACCOUNT
        if executable:
            flags |= VmFlag.EXEC
        self._install(Vma(start, end, flags, page_offset=start // PAGE_SIZE))
        self.start_stack = end - 1

    def _check_kind(self, file: MappableFile | None, flags: int, vm: VmFlag) -> tuple[bool, VmFlag]:
        kind = flags & Map.TYPE
        if file is None:
            if kind == Map.SHARED:
                if flags & Map.GROWSDOWN:
                    raise LinuxError(E.EINVAL)
                return True, vm | VmFlag.SHARED | VmFlag.MAYSHARE
            if kind == Map.PRIVATE:
                return False, vm
            raise LinuxError(E.EINVAL)
        access = getattr(file, "flags", _O_RDWR) & _O_ACCMODE
        if kind == Map.SHARED_VALIDATE and flags & ~int(LEGACY_MAP_MASK | Map.FIXED_NOREPLACE) & ~3:
            raise LinuxError(E.EOPNOTSUPP)
        if kind in (Map.SHARED, Map.SHARED_VALIDATE):
            if vm & VmFlag.WRITE and access not in (_O_WRONLY, _O_RDWR):
                raise LinuxError(E.EACCES)
            vm |= VmFlag.SHARED | VmFlag.MAYSHARE
            if access not in (_O_WRONLY, _O_RDWR):
                vm &= ~(VmFlag.MAYWRITE | VmFlag.SHARED)
        elif kind != Map.PRIVATE:
            raise LinuxError(E.EINVAL)
        if access == _O_WRONLY:
            raise LinuxError(E.EACCES)
        file.mmap_size()  # ENODEV for what cannot be mapped
        if flags & Map.GROWSDOWN:
            raise LinuxError(E.EINVAL)
        return kind != Map.PRIVATE, vm

    # -- munmap, mprotect ---------------------------------------------------------------------------------------------

    def munmap(self, start: int, length: int) -> None:
        """munmap(2)."""
        size = self.layout.task_size
        if start % PAGE_SIZE or start > size or length > size - start:
            raise LinuxError(E.EINVAL)
        length = page_align(length)
        if not length:
            raise LinuxError(E.EINVAL)
        end = start + length
        hole = self.vmas.at(start)
        if hole is not None and hole.start < start and hole.end > end and len(self.vmas) >= MAX_MAP_COUNT:
            raise LinuxError(E.ENOMEM)
        self.refuse_sealed(start, end)
        self._unmap(start, end)

    def mprotect(self, start: int, length: int, prot: int) -> None:
        """mprotect(2): partial progress stays, as in the kernel."""
        grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
        prot &= ~(PROT_GROWSDOWN | PROT_GROWSUP)
        if grows == PROT_GROWSDOWN | PROT_GROWSUP or start % PAGE_SIZE:
            raise LinuxError(E.EINVAL)
        if not length:
            return
        end = start + page_align(length)
        if end > 1 << 64 or end <= start:
            raise LinuxError(E.ENOMEM)
        if prot & ~(7 | PROT_SEM):
            raise LinuxError(E.EINVAL)
        first = self.vmas.first_ending_after(start)
        if first is None:
            raise LinuxError(E.ENOMEM)
        if grows:
            if first.start >= end:
                raise LinuxError(E.ENOMEM)
            if grows == PROT_GROWSUP or not first.flags & VmFlag.GROWSDOWN:
                raise LinuxError(E.EINVAL)
            start = first.start
        position = start
        for vma in self.vmas.overlapping(start, end):
            if vma.start > position:
                break
            upper = min(vma.end, end)
            self._protect_one(position, upper, prot)
            position = upper
        if position < end:
            raise LinuxError(E.ENOMEM)

    def _protect_one(self, start: int, end: int, prot: int) -> None:
        vma = self._at(start)
        self.refuse_sealed(start, end)
        new = (vma.flags & ~VmFlag(7)) | VmFlag(prot & 7)
        if new & ~(int(new) >> 4) & 7:
            raise LinuxError(E.EACCES)
        private = not new & VmFlag.MAYSHARE
        if new & VmFlag.WRITE:
            if private and not vma.flags & (VmFlag.ACCOUNT | VmFlag.WRITE | VmFlag.NORESERVE):
                if not self._data_allowed((end - start) // PAGE_SIZE, new, vma.flags):
                    raise LinuxError(E.ENOMEM)
                new |= VmFlag.ACCOUNT
        elif vma.flags & VmFlag.ACCOUNT and vma.anonymous and not any(self.table.resident(start, end - start)):
            new &= ~VmFlag.ACCOUNT
        if new == vma.flags:
            return
        self.vmas.split(start)
        self.vmas.split(end)
        vma = self._at(start)
        self._account(vma, -1)
        vma.flags = new
        self._account(vma, +1)
        self.table.protect(start, end - start, page_prot(new))
        self.vmas.merge_around(start, end)

    # -- mremap -------------------------------------------------------------------------------------------------------

    def mremap(self, address: int, old: int, new: int, flags: int, new_address: int) -> int:
        """mremap(2)."""
        old, new = page_align(old), page_align(new)
        self._check_mremap(address, old, new, flags, new_address)
        if self.vmas.at(address) is None:
            raise LinuxError(E.EFAULT)
        self.refuse_sealed(address, address + max(old, 1))
        if flags & Mremap.FIXED:
            self.refuse_sealed(new_address, new_address + new)
        if flags & (Mremap.FIXED | Mremap.DONTUNMAP):
            return self._mremap_to(address, old, new, flags, new_address)
        if old >= new:
            if old > new:
                self._unmap(address + new, address + old)
            return address
        vma = self._resizable(address, old, new, flags)
        if address + old == vma.end and self._expand(vma, new - old):
            return address
        if not flags & Mremap.MAYMOVE:
            raise LinuxError(E.ENOMEM)
        target = self._unmapped_area(0, new, 0)
        return self._move(vma, address, old, new, target, keep=False)

    def _check_mremap(self, address: int, old: int, new: int, flags: int, new_address: int) -> None:
        """check_mremap_params."""
        size = self.layout.task_size
        if flags & ~int(Mremap.MAYMOVE | Mremap.FIXED | Mremap.DONTUNMAP) or address % PAGE_SIZE:
            raise LinuxError(E.EINVAL)
        if not new or new > size:
            raise LinuxError(E.EINVAL)
        if not flags & (Mremap.FIXED | Mremap.DONTUNMAP):
            return
        if flags & Mremap.FIXED and (new_address > size - new or new_address % PAGE_SIZE):
            raise LinuxError(E.EINVAL)
        if not flags & Mremap.MAYMOVE or (flags & Mremap.DONTUNMAP and old != new):
            raise LinuxError(E.EINVAL)
        if flags & Mremap.FIXED and address + old > new_address and new_address + new > address:
            raise LinuxError(E.EINVAL)

    def _mremap_to(self, address: int, old: int, new: int, flags: int, new_address: int) -> int:
        self._resizable(address, min(old, new) if old else 0, new, flags)
        if flags & Mremap.FIXED:
            self._unmap(new_address, new_address + new)
        if old > new:
            self._unmap(address + new, address + old)
            old = new
        vma = self._resizable(address, old, new, flags)
        if flags & Mremap.DONTUNMAP:
            self._check_expand(new, vma.flags)
        target = self._unmapped_area(new_address, new, Map.FIXED if flags & Mremap.FIXED else 0)
        return self._move(vma, address, old, new, target, keep=bool(flags & Mremap.DONTUNMAP))

    def _resizable(self, address: int, old: int, new: int, flags: int) -> Vma:
        """vma_to_resize."""
        vma = self.vmas.at(address)
        if vma is None:
            raise LinuxError(E.EFAULT)
        if not old and not vma.flags & (VmFlag.SHARED | VmFlag.MAYSHARE):
            raise LinuxError(E.EINVAL)
        if old > vma.end - address:
            raise LinuxError(E.EFAULT)
        if new == old:
            return vma
        if vma.flags & VmFlag.DONTEXPAND or (vma.shared_frames is not None and vma.file is None and vma.segment):
            raise LinuxError(E.EFAULT)
        self._check_expand(new - old, vma.flags)
        return vma

    def _expand(self, vma: Vma, more: int) -> bool:
        """Grow in place if what follows is free (vma_expandable)."""
        end = vma.end + more
        if end > self.layout.task_size or self.vmas.intersects(vma.end, end) or vma.shared_frames is not None:
            return False
        following = self.vmas.first_ending_after(vma.end)
        if following is not None and end > following.start_gap:
            return False
        tail = replace(vma, start=vma.end, end=end, page_offset=vma.page_offset + vma.length // PAGE_SIZE, segment=None)
        self._install(tail)
        return True

    def _move(self, vma: Vma, address: int, old: int, new: int, target: int, *, keep: bool) -> int:
        """move_vma: the pages go along; `keep` leaves the old range mapped and empty (MREMAP_DONTUNMAP)."""
        offset = vma.page_offset + (address - vma.start) // PAGE_SIZE
        touched = vma.anonymous and any(self.table.resident(address, old))
        moved = replace(vma, start=target, end=target + new, page_offset=offset, segment=None)
        if vma.anonymous and not touched:
            moved.page_offset = target // PAGE_SIZE
        self.vmas.split(address)
        self.vmas.split(address + old)
        source = self._at(address)
        if old == 0:
            self._install(moved)
            return target
        if vma.anonymous:
            self.table.map_anonymous(target, new, page_prot(vma.flags))
        else:
            self._map_object(moved)
        if not vma.flags & VmFlag.MAYSHARE:
            self.table.move(address, target, old)
        if keep:
            source.flags &= ~VmFlag.LOCKED
            if not vma.flags & VmFlag.MAYSHARE and source.anonymous:
                self.table.map_anonymous(address, old, page_prot(source.flags))
            else:
                self._map_object(source)
        else:
            self._account(source, -1)
            self.vmas.remove(source)
            self.table.unmap(address, old)
        self.vmas.add(moved)
        self._account(moved, +1)
        self.vmas.merge_around(target, target + new)
        return target

    # -- brk ----------------------------------------------------------------------------------------------------------

    def set_brk_start(self, address: int) -> None:
        """execve: the heap begins here."""
        self.start_brk = self.brk_end = page_align(address) + self.layout.brk_gap

    def brk(self, address: int) -> int:
        """brk(2): the new end, or the old one if it cannot be."""
        if address < self.start_brk:
            return self.brk_end
        data = self.end_data - self.start_data
        if address - self.start_brk + data > self.rlimit("DATA"):
            return self.brk_end
        new, old = page_align(address), page_align(self.brk_end)
        if new <= old:
            if new < old:
                self._unmap(new, old)
            self.brk_end = address
            return address
        following = self.vmas.first_ending_after(old)
        if following is not None and new + PAGE_SIZE > following.start_gap:
            return self.brk_end
        flags = VmFlag.READ | VmFlag.WRITE | _MAY_ALL | VmFlag.ACCOUNT | self.lock_future
        try:
            if new > self.layout.task_size:
                raise LinuxError(E.ENOMEM)
            self._check_expand(new - old, flags)
        except LinuxError:
            return self.brk_end
        self._install(Vma(old, new, flags, page_offset=old // PAGE_SIZE))
        if self.lock_future:
            self.populate(old, new - old)
        self.brk_end = address
        return address

    # -- faults -------------------------------------------------------------------------------------------------------

    def handle_fault(self, address: int, access: Access) -> FaultCode | None:
        """An access found no page or no right: None if it is repaired, else what to tell the guest."""
        vma = self.vmas.at(address)
        if vma is None:
            return None if self.grow_stack(address) else FaultCode.MAPERR
        wanted = {Access.READ: 7, Access.WRITE: 2, Access.FETCH: 4}[access]
        if not int(vma.flags) & wanted:
            return FaultCode.ACCERR
        if vma.file is not None or vma.shared_frames is not None:
            return self.handle_bus(address)
        self.table.protect(vma.start, vma.length, page_prot(vma.flags))
        return None

    def is_present(self, address: int) -> bool:
        """Has the hardware's page table an entry there?  Not before the first touch, and none for PROT_NONE."""
        vma = self.vmas.at(address)
        if vma is None or not vma.flags & (VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC):
            return False
        return bool(self.table.resident(address & -PAGE_SIZE, PAGE_SIZE)[0] & 1)

    def handle_bus(self, address: int) -> FaultCode | None:
        """An access past the end of a mapped file: the file may have grown since it was mapped."""
        vma = self.vmas.at(address)
        if vma is None or vma.file is None:
            return FaultCode.BUS_ADRERR
        index = (address - vma.start) // PAGE_SIZE
        if index >= self._valid_pages(vma, vma.file):
            return FaultCode.BUS_ADRERR
        low = vma.start + index * PAGE_SIZE
        self._map_object(replace(vma, start=low, page_offset=vma.page_offset + index))
        return None

    def grow_stack(self, address: int) -> bool:
        """Extend the MAP_GROWSDOWN VMA above `address` down to it (expand_downwards)."""
        address &= -PAGE_SIZE
        vma = self.vmas.first_ending_after(address)
        if vma is None or not vma.flags & VmFlag.GROWSDOWN or address >= vma.start or address < MMAP_MIN_ADDR:
            return False
        below = self.vmas.before(address)
        if (
            below is not None
            and not below.flags & VmFlag.GROWSDOWN
            and below.flags & VmFlag(7)
            and address - below.end < STACK_GUARD_GAP
        ):
            return False
        grow = vma.start - address
        if vma.end - address > self.rlimit("STACK"):
            return False
        try:
            self._check_expand(grow, vma.flags)
            self.table.map_anonymous(address, grow, page_prot(vma.flags))
        except LinuxError:
            return False
        self._account(vma, -1)
        self.vmas.set_start(vma, address)
        self._account(vma, +1)
        return True
