"""/proc/PID/maps and smaps, byte for byte as fs/proc/task_mmu.c writes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from emulator.abi.memory import PAGE_SIZE
from emulator.cpu.mmu import PageTable
from emulator.kernel.vma import Vma, VmFlag

_NAME_COLUMN = 25 + 8 * 6 - 1  # seq_setwidth(m, 25 + sizeof(void *) * 6 - 1)

_FLAG_WORDS = (
    (VmFlag.READ, "rd"),
    (VmFlag.WRITE, "wr"),
    (VmFlag.EXEC, "ex"),
    (VmFlag.SHARED, "sh"),
    (VmFlag.MAYREAD, "mr"),
    (VmFlag.MAYWRITE, "mw"),
    (VmFlag.MAYEXEC, "me"),
    (VmFlag.MAYSHARE, "ms"),
    (VmFlag.GROWSDOWN, "gd"),
    (VmFlag.LOCKED, "lo"),
    (VmFlag.SEQ_READ, "sr"),
    (VmFlag.RAND_READ, "rr"),
    (VmFlag.DONTCOPY, "dc"),
    (VmFlag.DONTEXPAND, "de"),
    (VmFlag.ACCOUNT, "ac"),
    (VmFlag.NORESERVE, "nr"),
    (VmFlag.WIPEONFORK, "wf"),
    (VmFlag.DONTDUMP, "dd"),
    (VmFlag.HUGEPAGE, "hg"),
    (VmFlag.NOHUGEPAGE, "nh"),
    (VmFlag.MERGEABLE, "mg"),
    (VmFlag.SEALED, "sl"),
)


def _major(device: int) -> int:
    """gnu_dev_major of <sys/sysmacros.h>."""
    return (device >> 8 & 0xFFF) | (device >> 32 & ~0xFFF)


def _minor(device: int) -> int:
    """gnu_dev_minor of <sys/sysmacros.h>."""
    return (device & 0xFF) | (device >> 12 & ~0xFF)


class Space(Protocol):
    """What the text needs of an address space."""

    table: PageTable

    @property
    def vmas(self) -> Iterable[Vma]: ...
    def name_of(self, vma: Vma) -> str: ...


def maps_line(space: Space, vma: Vma) -> str:
    """One line, newline included; an unnamed mapping ends in a blank."""
    flags = vma.flags
    letters = "".join(
        letter if flags & flag else "-"
        for flag, letter in ((VmFlag.READ, "r"), (VmFlag.WRITE, "w"), (VmFlag.EXEC, "x"))
    ) + ("s" if flags & VmFlag.MAYSHARE else "p")
    device, inode = vma.identity
    offset = 0 if vma.anonymous else vma.page_offset * PAGE_SIZE
    head = f"{vma.start:08x}-{vma.end:08x} {letters} {offset:08x} {_major(device):02x}:{_minor(device):02x} {inode} "
    name = space.name_of(vma)
    return f"{head:<{_NAME_COLUMN}} {name}\n" if name else f"{head}\n"


def maps(space: Space) -> str:
    """/proc/PID/maps."""
    return "".join(maps_line(space, vma) for vma in space.vmas)


def smaps(space: Space) -> str:
    """/proc/PID/smaps; private and dirty are what the page table knows."""
    return "".join(maps_line(space, vma) + _details(space, vma) for vma in space.vmas)


def _details(space: Space, vma: Vma) -> str:
    pages = space.table.resident(vma.start, vma.length)
    rss = sum(1 for p in pages if p & 1) * 4
    dirty = sum(1 for p in pages if p & 3 == 3) * 4
    private = sum(1 for p in pages if p & 5 == 5) * 4
    if vma.anonymous:
        dirty = private = rss
    shared = bool(vma.flags & VmFlag.MAYSHARE)
    rows = {
        "Size": vma.length // 1024,
        "KernelPageSize": 4,
        "MMUPageSize": 4,
        "Rss": rss,
        "Pss": rss,
        "Pss_Dirty": dirty,
        "Shared_Clean": rss - dirty if shared else 0,
        "Shared_Dirty": dirty if shared else 0,
        "Private_Clean": 0 if shared else rss - dirty,
        "Private_Dirty": 0 if shared else dirty,
        "Referenced": rss,
        "Anonymous": private,
        "KSM": 0,
        "LazyFree": 0,
        "AnonHugePages": 0,
        "ShmemPmdMapped": 0,
        "FilePmdMapped": 0,
        "Shared_Hugetlb": 0,
        "Private_Hugetlb": 0,
        "Swap": 0,
        "SwapPss": 0,
        "Locked": rss if vma.flags & VmFlag.LOCKED else 0,
    }
    lines = [f"{key + ':':<16}{value:8} kB\n" for key, value in rows.items()]
    lines.append(f"{'THPeligible:':<16}{0:8}\n")
    lines.append("VmFlags: " + "".join(f"{word} " for flag, word in _FLAG_WORDS if vma.flags & flag) + "\n")
    return "".join(lines)
