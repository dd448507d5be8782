"""Numbers of mmap(2), mremap(2), madvise(2), msync(2), mlock(2) (<asm-generic/mman.h>, <linux/mman.h>).

x86-64, aarch64, arm and riscv share them.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Map(IntFlag):
    """MAP_*."""

    SHARED = 0x01
    PRIVATE = 0x02
    SHARED_VALIDATE = 0x03
    DROPPABLE = 0x08
    TYPE = 0x0F
    FIXED = 0x10
    ANONYMOUS = 0x20
    BITS_32 = 0x40
    GROWSDOWN = 0x0100
    DENYWRITE = 0x0800
    EXECUTABLE = 0x1000
    LOCKED = 0x2000
    NORESERVE = 0x4000
    POPULATE = 0x8000
    NONBLOCK = 0x10000
    STACK = 0x20000
    HUGETLB = 0x40000
    SYNC = 0x80000
    FIXED_NOREPLACE = 0x100000


#: Flags that MAP_SHARED_VALIDATE knows (include/linux/mman.h: LEGACY_MAP_MASK).
LEGACY_MAP_MASK = (
    Map.SHARED
    | Map.PRIVATE
    | Map.FIXED
    | Map.ANONYMOUS
    | Map.DENYWRITE
    | Map.EXECUTABLE
    | Map.GROWSDOWN
    | Map.LOCKED
    | Map.NORESERVE
    | Map.POPULATE
    | Map.NONBLOCK
    | Map.STACK
    | Map.HUGETLB
    | Map.BITS_32
    | (0x3F << 26)
)

PROT_SEM = 0x8
PROT_GROWSDOWN = 0x01000000
PROT_GROWSUP = 0x02000000


class Mremap(IntFlag):
    """MREMAP_*."""

    MAYMOVE = 1
    FIXED = 2
    DONTUNMAP = 4


class Madvise(IntEnum):
    """MADV_*."""

    NORMAL = 0
    RANDOM = 1
    SEQUENTIAL = 2
    WILLNEED = 3
    DONTNEED = 4
    FREE = 8
    REMOVE = 9
    DONTFORK = 10
    DOFORK = 11
    MERGEABLE = 12
    UNMERGEABLE = 13
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    DONTDUMP = 16
    DODUMP = 17
    WIPEONFORK = 18
    KEEPONFORK = 19
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22
    POPULATE_WRITE = 23
    DONTNEED_LOCKED = 24
    COLLAPSE = 25


class Msync(IntFlag):
    """MS_*."""

    ASYNC = 1
    INVALIDATE = 2
    SYNC = 4


class Mlockall(IntFlag):
    """MCL_*."""

    CURRENT = 1
    FUTURE = 2
    ONFAULT = 4


MLOCK_ONFAULT = 1
