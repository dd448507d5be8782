"""mmap(2) and its family.

Rule: decode, check alignment and flags in the kernel's order, let the AddressSpace do it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.abi.mman import MLOCK_ONFAULT, Madvise, Map, Mlockall, Msync
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel.address_space import page_align
from emulator.kernel.vma import Vma, VmFlag
from emulator.syscalls.registry import Fd, Int, Long, Ptr, Size, UInt, syscall

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

_WRAP = (1 << 64) - 1


@syscall("mmap")
def mmap(t: Task, addr: Ptr, length: Size, prot: Size, flags: Size, fd: Fd, offset: Size) -> int:
    """mmap(2)."""
    if offset % PAGE_SIZE:
        raise LinuxError(E.EINVAL)
    file = None
    if not flags & Map.ANONYMOUS:
        file = t.fds.get(fd)
        if flags & Map.HUGETLB:
            raise LinuxError(E.EINVAL)
    return t.space.mmap(addr, length, prot, flags, file, offset)


@syscall("munmap")
def munmap(t: Task, addr: Ptr, length: Size) -> int:
    """munmap(2)."""
    t.space.munmap(addr, length)
    return 0


@syscall("mprotect")
def mprotect(t: Task, addr: Ptr, length: Size, prot: Size) -> int:
    """mprotect(2)."""
    t.space.mprotect(addr, length, prot)
    return 0


@syscall("pkey_mprotect")
def pkey_mprotect(t: Task, addr: Ptr, length: Size, prot: Size, pkey: Int) -> int:
    """pkey_mprotect(2) on a machine without protection keys: only key -1 exists."""
    if pkey != -1:
        raise LinuxError(E.EINVAL)
    return mprotect(t, addr, length, prot)


@syscall("pkey_alloc")
def pkey_alloc(t: Task, flags: Size, rights: Size) -> int:
    """pkey_alloc(2): there are none to give."""
    if flags or rights & ~3:
        raise LinuxError(E.EINVAL)
    raise LinuxError(E.ENOSPC)


@syscall("pkey_free")
def pkey_free(t: Task, pkey: Int) -> int:
    """pkey_free(2)."""
    raise LinuxError(E.EINVAL)


@syscall("mremap")
def mremap(t: Task, addr: Ptr, old: Size, new: Size, flags: Size, new_addr: Ptr) -> int:
    """mremap(2)."""
    return t.space.mremap(addr, old, new, flags, new_addr)


@syscall("remap_file_pages")
def remap_file_pages(t: Task, start: Ptr, size: Size, prot: Size, pgoff: Size, flags: Size) -> int:
    """remap_file_pages(2), as it has been since Linux 4.0: mmap(2) of the file over the range."""
    start -= start % PAGE_SIZE
    size -= size % PAGE_SIZE
    if prot or start + size <= start or start + size > _WRAP or (pgoff + size // PAGE_SIZE) > _WRAP:
        raise LinuxError(E.EINVAL)
    first = t.space.vmas.at(start)
    if first is None or not first.flags & VmFlag.SHARED:
        raise LinuxError(E.EINVAL)
    for _, _, vma in t.space.spans(start, start + size):
        if vma is None or vma.file is not first.file or vma.flags != first.flags:
            raise LinuxError(E.EINVAL)
    t.space.map_special(replace(first, start=start, end=start + size, page_offset=pgoff))
    t.space.populate(start, size)
    return 0


@syscall("brk")
def brk(t: Task, addr: Ptr) -> int:
    """brk(2): the system call answers with the break, never an errno."""
    return t.space.brk(addr)


@syscall("mseal")
def mseal(t: Task, start: Ptr, length: Size, flags: Size) -> int:
    """mseal(2)."""
    end = start + page_align(length)
    if flags or start % PAGE_SIZE or end > _WRAP or page_align(length) > _WRAP:
        raise LinuxError(E.EINVAL)
    if end > start:
        t.space.seal(start, end)
    return 0


@syscall("madvise")
def madvise(t: Task, start: Ptr, length: Size, advice: Int) -> int:
    """madvise(2)."""
    try:
        what = Madvise(advice)
    except ValueError:
        raise LinuxError(E.EINVAL) from None
    end = _range(start, length)
    if end == start:
        return 0
    if what in (Madvise.POPULATE_READ, Madvise.POPULATE_WRITE):
        _madvise_populate(t, start, end, write=what is Madvise.POPULATE_WRITE)
        return 0
    whole = True
    for low, high, vma in list(t.space.spans(start, end)):
        if vma is None:
            whole = False
        else:
            _advise(t, vma, low, high, what)
    if not whole:
        raise LinuxError(E.ENOMEM)
    return 0


_FLAG_ADVICE = {
    Madvise.NORMAL: (VmFlag.NONE, VmFlag.SEQ_READ | VmFlag.RAND_READ),
    Madvise.RANDOM: (VmFlag.RAND_READ, VmFlag.SEQ_READ),
    Madvise.SEQUENTIAL: (VmFlag.SEQ_READ, VmFlag.RAND_READ),
    Madvise.DONTFORK: (VmFlag.DONTCOPY, VmFlag.NONE),
    Madvise.DOFORK: (VmFlag.NONE, VmFlag.DONTCOPY),
    Madvise.DONTDUMP: (VmFlag.DONTDUMP, VmFlag.NONE),
    Madvise.DODUMP: (VmFlag.NONE, VmFlag.DONTDUMP),
    Madvise.WIPEONFORK: (VmFlag.WIPEONFORK, VmFlag.NONE),
    Madvise.KEEPONFORK: (VmFlag.NONE, VmFlag.WIPEONFORK),
    Madvise.HUGEPAGE: (VmFlag.HUGEPAGE, VmFlag.NOHUGEPAGE),
    Madvise.NOHUGEPAGE: (VmFlag.NOHUGEPAGE, VmFlag.HUGEPAGE),
    Madvise.MERGEABLE: (VmFlag.MERGEABLE, VmFlag.NONE),
    Madvise.UNMERGEABLE: (VmFlag.NONE, VmFlag.MERGEABLE),
}


#: What takes away data, of sealed memory only from who may write it (can_madvise_modify).
_DISCARDS = frozenset(
    (Madvise.DONTNEED, Madvise.DONTNEED_LOCKED, Madvise.FREE, Madvise.REMOVE, Madvise.DONTFORK, Madvise.WIPEONFORK)
)


def _advise(t: Task, vma: Vma, low: int, high: int, what: Madvise) -> None:
    """One VMA's part (madvise_vma_behavior)."""
    if what in _DISCARDS and vma.flags & VmFlag.SEALED and vma.anonymous and not vma.flags & VmFlag.WRITE:
        raise LinuxError(E.EPERM)
    change = _FLAG_ADVICE.get(what)
    if change is not None:
        if what is Madvise.WIPEONFORK and (not vma.anonymous or vma.flags & VmFlag.SHARED):
            raise LinuxError(E.EINVAL)
        t.space.set_flags(low, high, add=change[0], drop=change[1])
        return
    match what:
        case Madvise.DONTNEED | Madvise.DONTNEED_LOCKED:
            if vma.flags & VmFlag.LOCKED and what is Madvise.DONTNEED:
                raise LinuxError(E.EINVAL)
            t.space.table.discard(low, high - low)
        case Madvise.FREE:
            if not vma.anonymous or vma.flags & VmFlag.LOCKED:
                raise LinuxError(E.EINVAL)
            t.space.table.discard(low, high - low)
        case Madvise.REMOVE:
            _remove(t, vma, low, high)
        case Madvise.COLD | Madvise.PAGEOUT:
            if vma.flags & VmFlag.LOCKED:
                raise LinuxError(E.EINVAL)
        case Madvise.COLLAPSE:
            raise LinuxError(E.EINVAL)
        case _:
            pass


def _remove(t: Task, vma: Vma, low: int, high: int) -> None:
    """MADV_REMOVE: punch a hole into the object."""
    if vma.flags & VmFlag.LOCKED or vma.anonymous:
        raise LinuxError(E.EINVAL)
    if vma.flags & (VmFlag.SHARED | VmFlag.WRITE) != VmFlag.SHARED | VmFlag.WRITE:
        raise LinuxError(E.EACCES)
    zeros = bytes(PAGE_SIZE)
    for page in range(low, high, PAGE_SIZE):
        try:
            t.space.table.write(page, zeros)
        except MemoryFault:
            return


def _madvise_populate(t: Task, start: int, end: int, *, write: bool) -> None:
    for low, high, vma in list(t.space.spans(start, end)):
        if vma is None:
            raise LinuxError(E.ENOMEM)
        if not vma.flags & (VmFlag.WRITE if write else VmFlag(7)):
            raise LinuxError(E.EINVAL)
        t.space.table.buffers(low, high - low, Access.WRITE if write else Access.READ)


def _range(start: int, length: int) -> int:
    """The end of an aligned range; EINVAL if it is none (madvise, mincore)."""
    if start % PAGE_SIZE:
        raise LinuxError(E.EINVAL)
    size = page_align(length)
    if length and not size & _WRAP:
        raise LinuxError(E.EINVAL)
    if start + size > _WRAP:
        raise LinuxError(E.EINVAL)
    return start + size


@syscall("mincore")
def mincore(t: Task, start: Ptr, length: Size, vec: Ptr) -> int:
    """mincore(2)."""
    if start % PAGE_SIZE:
        raise LinuxError(E.EINVAL)
    if start + length > t.space.layout.task_size:
        raise LinuxError(E.ENOMEM)
    out = bytearray()
    end = start + page_align(length)
    position = start
    for low, high, vma in t.space.spans(start, end):
        if vma is None:
            t.memory.write(vec, out)
            raise LinuxError(E.ENOMEM)
        pages = t.space.table.resident(low, high - low)
        if vma.file is not None:
            left = page_align(vma.file.mmap_size()) // PAGE_SIZE - vma.page_offset - (low - vma.start) // PAGE_SIZE
            out += bytes(1 if i < left else 0 for i in range(len(pages)))
        else:
            out += bytes(p & 1 for p in pages)
        position = high
    if position > start:
        t.memory.write(vec, out)
    return 0


@syscall("msync")
def msync(t: Task, start: Ptr, length: Size, flags: Int) -> int:
    """msync(2): shared file pages are the host's page cache, so there is nothing to copy."""
    if flags & ~int(Msync.ASYNC | Msync.INVALIDATE | Msync.SYNC) or start % PAGE_SIZE:
        raise LinuxError(E.EINVAL)
    if flags & Msync.ASYNC and flags & Msync.SYNC:
        raise LinuxError(E.EINVAL)
    end = start + page_align(length)
    if end > _WRAP:
        raise LinuxError(E.ENOMEM)
    holes = False
    for _, _, vma in t.space.spans(start, end):
        if vma is None:
            holes = True
        elif flags & Msync.INVALIDATE and vma.flags & VmFlag.LOCKED:
            raise LinuxError(E.EBUSY)
    if holes:
        raise LinuxError(E.ENOMEM)
    return 0


# -- locks -------------------------------------------------------------------------------------------------------


def _lock_range(start: int, length: int) -> tuple[int, int]:
    """mlock(2) rounds outward."""
    low = start & -PAGE_SIZE
    high = page_align(start + length)
    if high > _WRAP:
        raise LinuxError(E.EINVAL)
    return low, high


def _mlock(t: Task, start: int, length: int, *, fault_in: bool) -> int:
    space = t.space
    if not space.rlimit("MEMLOCK") and not _privileged(t):
        raise LinuxError(E.EPERM)
    low, high = _lock_range(start, length)
    new = sum(b - a for a, b, vma in space.spans(low, high) if vma is not None and not vma.flags & VmFlag.LOCKED)
    if space.pages.locked * PAGE_SIZE + new > space.rlimit("MEMLOCK") and not _privileged(t):
        raise LinuxError(E.ENOMEM)
    if not space.set_flags(low, high, add=VmFlag.LOCKED):
        raise LinuxError(E.ENOMEM)
    if fault_in:
        space.populate(low, high - low)
    return 0


def _privileged(t: Task) -> bool:
    """CAP_IPC_LOCK: root's."""
    return t.credentials.euid == 0


@syscall("mlock")
def mlock(t: Task, start: Ptr, length: Size) -> int:
    """mlock(2)."""
    return _mlock(t, start, length, fault_in=True)


@syscall("mlock2")
def mlock2(t: Task, start: Ptr, length: Size, flags: Int) -> int:
    """mlock2(2)."""
    if flags & ~MLOCK_ONFAULT:
        raise LinuxError(E.EINVAL)
    return _mlock(t, start, length, fault_in=not flags)


@syscall("munlock")
def munlock(t: Task, start: Ptr, length: Size) -> int:
    """munlock(2)."""
    low, high = _lock_range(start, length)
    if not t.space.set_flags(low, high, drop=VmFlag.LOCKED):
        raise LinuxError(E.ENOMEM)
    return 0


@syscall("mlockall")
def mlockall(t: Task, flags: Int) -> int:
    """mlockall(2)."""
    known = Mlockall.CURRENT | Mlockall.FUTURE | Mlockall.ONFAULT
    if not flags or flags & ~int(known) or flags == Mlockall.ONFAULT:
        raise LinuxError(E.EINVAL)
    space = t.space
    if not _privileged(t):
        if not space.rlimit("MEMLOCK"):
            raise LinuxError(E.EPERM)
        if flags & Mlockall.CURRENT and space.pages.total * PAGE_SIZE > space.rlimit("MEMLOCK"):
            raise LinuxError(E.ENOMEM)
    space.lock_future = VmFlag.LOCKED if flags & Mlockall.FUTURE else VmFlag.NONE
    if flags & Mlockall.CURRENT:
        for vma in list(space.vmas):
            space.set_flags(vma.start, vma.end, add=VmFlag.LOCKED)
    return 0


@syscall("munlockall")
def munlockall(t: Task) -> int:
    """munlockall(2)."""
    t.space.lock_future = VmFlag.NONE
    for vma in list(t.space.vmas):
        t.space.set_flags(vma.start, vma.end, drop=VmFlag.LOCKED)
    return 0


@syscall("process_madvise")
def process_madvise(t: Task, pidfd: Fd, vec: Ptr, vlen: Size, advice: Int, flags: UInt) -> Long:
    """process_madvise(2) for oneself is all that is offered: EBADF for any other descriptor."""
    t.fds.get(pidfd)
    raise LinuxError(E.EINVAL)
