"""File-system flags and numbers, by the names of <fcntl.h> and <linux/fs.h>.

The values are asm-generic's, which x86 and RISC-V use; the emulator thinks in them.  An ISA with other O_* numbers
(arm, aarch64, mips, ppc) lists its own in `Arch`, and syscalls/files translates at the edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class O:  # noqa: E742 - the header's prefix
    """open(2) flags."""

    ACCMODE: Final = 3
    RDONLY: Final = 0
    WRONLY: Final = 1
    RDWR: Final = 2
    CREAT: Final = 0o100
    EXCL: Final = 0o200
    NOCTTY: Final = 0o400
    TRUNC: Final = 0o1000
    APPEND: Final = 0o2000
    NONBLOCK: Final = 0o4000
    DSYNC: Final = 0o10000
    ASYNC: Final = 0o20000
    DIRECT: Final = 0o40000
    LARGEFILE: Final = 0o100000
    DIRECTORY: Final = 0o200000
    NOFOLLOW: Final = 0o400000
    NOATIME: Final = 0o1000000
    CLOEXEC: Final = 0o2000000
    SYNC: Final = 0o4010000
    PATH: Final = 0o10000000
    TMPFILE: Final = 0o20200000


class AT:
    """*at(2) numbers."""

    FDCWD: Final = -100
    SYMLINK_NOFOLLOW: Final = 0x100
    EACCESS: Final = 0x200
    REMOVEDIR: Final = 0x200
    SYMLINK_FOLLOW: Final = 0x400
    NO_AUTOMOUNT: Final = 0x800
    EMPTY_PATH: Final = 0x1000
    STATX_FORCE_SYNC: Final = 0x2000
    STATX_DONT_SYNC: Final = 0x4000


class Resolve:
    """RESOLVE_* of openat2(2)."""

    NO_XDEV: Final = 1
    NO_MAGICLINKS: Final = 2
    NO_SYMLINKS: Final = 4
    BENEATH: Final = 8
    IN_ROOT: Final = 0x10
    CACHED: Final = 0x20


class F:
    """fcntl(2) commands."""

    DUPFD: Final = 0
    GETFD: Final = 1
    SETFD: Final = 2
    GETFL: Final = 3
    SETFL: Final = 4
    GETLK: Final = 5
    SETLK: Final = 6
    SETLKW: Final = 7
    SETOWN: Final = 8
    GETOWN: Final = 9
    SETSIG: Final = 10
    GETSIG: Final = 11
    SETOWN_EX: Final = 15
    GETOWN_EX: Final = 16
    OFD_GETLK: Final = 36
    OFD_SETLK: Final = 37
    OFD_SETLKW: Final = 38
    SETLEASE: Final = 1024
    GETLEASE: Final = 1025
    NOTIFY: Final = 1026
    CREATED_QUERY: Final = 1028
    DUPFD_CLOEXEC: Final = 1030
    SETPIPE_SZ: Final = 1031
    GETPIPE_SZ: Final = 1032
    ADD_SEALS: Final = 1033
    GET_SEALS: Final = 1034
    GET_RW_HINT: Final = 1035
    SET_RW_HINT: Final = 1036
    RDLCK: Final = 0
    WRLCK: Final = 1
    UNLCK: Final = 2


# The flags whose bits differ between ISAs, by name: asm-generic's, and those of arm, aarch64 and ppc.
OPEN_FLAGS_GENERIC: Final[Mapping[str, int]] = MappingProxyType(
    {"O_DIRECT": 0o40000, "O_LARGEFILE": 0o100000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000}
)
OPEN_FLAGS_ARM: Final[Mapping[str, int]] = MappingProxyType(
    {"O_DIRECTORY": 0o40000, "O_NOFOLLOW": 0o100000, "O_DIRECT": 0o200000, "O_LARGEFILE": 0o400000}
)


def translate_open_flags(flags: int, source: Mapping[str, int], target: Mapping[str, int]) -> int:
    """Return `flags` of one ISA in another's numbers; the bits both agree on stay as they are."""
    if source is target:
        return flags
    moved = sum(target[name] for name, bit in source.items() if flags & bit)
    return flags & ~sum(source.values()) | moved
