"""Guest memory as the debugger sees it (m M X x, qSearch, qMemoryRegionInfo, _M _m).

Rule: protections do not bind a debugger, except that a shared file that is not writable stays as it is; points are
not in guest memory, so there is nothing to hide.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.abi.memory import PAGE_SIZE, Access
from emulator.abi.mman import Map
from emulator.debug.core import EINVAL, Core
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel.tasks import Task
from emulator.kernel.vma import VmFlag
from gdbstub.abilities import MemoryRegion
from gdbstub.errors import MemoryUnreadable, TargetError
from gdbstub.thread_id import ThreadId

_TOP = 1 << 64


class MemoryAbility(Core):
    """Target memory, MemoryRegions, MemoryAllocation."""

    def _viewer_of(self, thread: ThreadId) -> Task:
        """The thread names an address space; in non-stop it may exit meanwhile, and another of its process will do."""
        try:
            return self.live(thread)
        except TargetError:
            if not self.settings.non_stop:
                raise
            return self.leader(thread.pid)

    def read_memory(self, thread: ThreadId, address: int, length: int) -> bytes:
        """As much as can be read from `address` on."""
        task = self._viewer_of(thread)
        if not length:
            return b""
        if address >= _TOP:
            raise MemoryUnreadable(address)
        data = task.space.table.read_partial(address, min(length, _TOP - address), force=True)
        if not data:
            raise MemoryUnreadable(address)
        return data

    def write_memory(self, thread: ThreadId, address: int, data: bytes) -> None:
        """All of it, past protections, or MemoryUnreadable."""
        task = self._viewer_of(thread)
        if not data:
            return
        self.poke(task, address, data)

    @staticmethod
    def poke(task: Task, address: int, data: bytes) -> None:
        """Write as access_process_vm with FOLL_FORCE does."""
        space = task.space
        if address + len(data) > _TOP:
            raise MemoryUnreadable(address)
        for low, _, vma in space.spans(address, address + len(data)):
            if vma is None or not (vma.flags & VmFlag.WRITE or _force_writable(vma.flags)):
                raise MemoryUnreadable(low)
        try:
            space.table.write(address, data, force=True)
        except MemoryFault as fault:
            if space.handle_fault(fault.address, Access.WRITE) is not None:
                raise MemoryUnreadable(fault.address) from None
            space.table.write(address, data, force=True)

    def memory_regions(self, process: int) -> Sequence[MemoryRegion]:
        """The VMAs."""
        space = self.space(process)
        return [
            MemoryRegion(
                vma.start,
                vma.end,
                bool(vma.flags & VmFlag.READ),
                bool(vma.flags & VmFlag.WRITE),
                bool(vma.flags & VmFlag.EXEC),
                space.name_of(vma),
            )
            for vma in space.vmas
        ]

    def allocate_memory(self, process: int, size: int, *, readable: bool, writable: bool, executable: bool) -> int:
        """An anonymous mapping for the debugger's own use."""
        prot = (1 if readable else 0) | (2 if writable else 0) | (4 if executable else 0)
        try:
            return self.space(process).mmap(0, max(size, PAGE_SIZE), prot, Map.PRIVATE | Map.ANONYMOUS)
        except LinuxError:
            raise TargetError(EINVAL, f"cannot allocate {size} bytes") from None

    def deallocate_memory(self, process: int, address: int) -> None:
        """Undo allocate_memory."""
        space = self.space(process)
        vma = space.vmas.at(address)
        if vma is None or vma.start != address:
            raise TargetError(EINVAL, f"nothing was allocated at {address:#x}")
        space.munmap(vma.start, vma.length)


def _force_writable(flags: VmFlag) -> bool:
    """FOLL_FORCE: a private mapping that could be written is copied; a shared one is not touched."""
    return not flags & VmFlag.MAYSHARE and bool(flags & VmFlag.MAYWRITE)
