"""Page protections and access kinds (<asm-generic/mman-common.h>)."""

from __future__ import annotations

from enum import Enum, IntFlag

PAGE_SIZE = 4096


class Prot(IntFlag):
    """PROT_* of mmap(2)."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4


class Access(Enum):
    """What an instruction wanted of a page."""

    READ = 1
    WRITE = 2
    FETCH = 4
