"""Where things go in an address space.

Source: arch/x86/mm/mmap.c, mm/util.c (mmap_base), fs/binfmt_elf.c (ELF_ET_DYN_BASE).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from emulator.abi.memory import PAGE_SIZE
from emulator.kernel.vma import STACK_GUARD_GAP


def page_align(n: int) -> int:
    """Round up to a page."""
    return (n + PAGE_SIZE - 1) & -PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things go (arch/x86/mm/mmap.c, mm/util.c: mmap_base; fs/binfmt_elf.c: ELF_ET_DYN_BASE)."""

    task_size: int
    mmap_base: int
    stack_top: int
    pie_base: int
    brk_gap: int = 0  # ASLR: bytes between the program's end and the heap

    @staticmethod
    def linux(task_size: int, *, stack_limit: int = 8 << 20, rng: Random | None = None) -> Layout:
        """The layout of a 64-bit process; `rng` turns ASLR on."""
        gap, pad, rnd = stack_limit, STACK_GUARD_GAP, 0
        stack_top, pie_base, brk_gap = task_size, task_size // 3 * 2 & -PAGE_SIZE, 0
        if rng is not None:
            rnd = rng.getrandbits(28) << 12
            pad += 16 << 30  # stack_maxrandom_size
            stack_top -= rng.getrandbits(22) << 12
            pie_base = (pie_base + (rng.getrandbits(28) << 12)) & -PAGE_SIZE
            brk_gap = rng.randrange(0, 0x02000000) & -PAGE_SIZE
        if gap + pad > gap:
            gap += pad
        gap = min(max(gap, 128 << 20), task_size // 6 * 5)
        return Layout(task_size, page_align(task_size - gap - rnd), stack_top, pie_base, brk_gap)
